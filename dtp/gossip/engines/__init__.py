"""Brokers that carry topics beside a mesh, or instead of one. Each is an extra, and is imported only when
it is used.
"""

from dtp.gossip.engines.bridge import Bridge, Engine

__all__ = ["Bridge", "Engine"]
