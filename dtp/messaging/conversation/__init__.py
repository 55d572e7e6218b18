"""Conversations as values, without IO: events, the messages that they result in, and the members of groups."""
