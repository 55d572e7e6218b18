"""Sockets addressed by identity, encrypted end to end."""
