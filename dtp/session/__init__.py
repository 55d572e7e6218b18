"""The protocol as a value: bytes and time in, events and bytes out. No socket, no clock, no await."""
