"""What a device makes of its groups: who is in them, what was said there before, and what large ones spread."""
