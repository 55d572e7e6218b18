"""The side that pays: its channels, its vouchers, and the limits of what it signs."""
