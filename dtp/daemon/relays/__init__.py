"""Streams and sockets joined: services that are exposed, forwards, and what passes between."""
