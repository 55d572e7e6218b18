"""The inside of `dtp.socket`: connections on a loop in a thread, for callers that block."""
