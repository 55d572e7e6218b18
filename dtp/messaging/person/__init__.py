"""One person on one device: what is stored, whom it knows, what comes and goes, and `Messenger`, which does it."""
