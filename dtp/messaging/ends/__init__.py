"""End-to-end encryption, as values: the keys of devices, sessions, the order of messages, and repair. No sockets,
clocks or disk.
"""
