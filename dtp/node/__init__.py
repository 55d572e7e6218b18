"""Nodes: what ties listener, peers, topics and shared graphs together."""
