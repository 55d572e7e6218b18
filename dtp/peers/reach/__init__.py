"""Reaching peers behind NATs: relays, observed addresses, dial-back checks, hole punching."""
