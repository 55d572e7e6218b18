"""Peers in the same local network: hellos by multicast, and mDNS."""
