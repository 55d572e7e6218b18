"""Calls: the state of a call as a value, media through aiortc, and what programs use."""
