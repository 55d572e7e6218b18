"""Brokers that carry topics beside, or instead of, a mesh. Each is an extra; none is loaded unless it is used."""

from dtp.gossip.engines.bridge import Bridge, Engine

__all__ = ["Bridge", "Engine"]
