"""Peers of the same local network: a hello of our own by multicast, and mDNS."""
