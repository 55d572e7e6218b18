"""The money of shows: what is on the chain, what that means for the air, and slots that are posted to be paid."""
