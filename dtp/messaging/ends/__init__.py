"""End to end, as a value: keys of devices, sessions, order and repair. No socket, clock or disk."""
