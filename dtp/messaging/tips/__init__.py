"""Rewards for those who gave a tip, and are known by a one-time key alone."""
