"""Joins streams and sockets: services that are exposed, forwards, and what passes between them."""
