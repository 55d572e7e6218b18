"""asyncio's own streams, transports and servers over DTP: what was written for them runs unchanged."""
