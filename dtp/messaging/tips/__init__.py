"""Lines for tips: one-time keys, words to come back with, rewards."""
