"""What authors signed: frames in envelopes, each behind the one before, and what several come to."""
