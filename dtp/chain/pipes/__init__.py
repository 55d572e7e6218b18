"""Bytes through the chain itself: pipes, the carrier over them, and messages to hosts."""
