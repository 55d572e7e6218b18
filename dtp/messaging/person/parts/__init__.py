"""The parts of `Messenger`."""
