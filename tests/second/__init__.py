"""A second implementation of the wire protocol, written from docs/wire.md alone, to test the first one against.

It shares no code with `dtp`: its Noise is written from the Noise specification (revision 34), its ciphers are
those of `cryptography`. It prefers being obviously right to being fast, keeps everything in memory, has no
clock, and raises `Breach` at whatever the specification forbids.
"""
