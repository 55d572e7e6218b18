"""How much one turn of the event loop does, and for whom: bytes, frames, streams, handshakes, processor time."""
