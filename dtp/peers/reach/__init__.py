"""Reaching peers behind NATs: relays, what others observe, dial-back checks, hole punching."""
