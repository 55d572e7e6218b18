"""The ids of messages that have come: each message is accepted once, however often it comes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from dtp.gossip.limits import GossipLimits

#: Entries that one call forgets at most, so that no call takes long.
_AT_ONCE: Final = 64


class SeenCache:
    """Ids of messages that were taken, for as long as one of them could be taken again.

    A message older than `stale` seconds is refused for its age, so ids are needed no longer than that. When there
    are more than the cache holds, the oldest go, and what is no newer than any that could be among them is refused,
    rather than taken twice. What was remembered by a clock that was far ahead is forgotten when it has been set back.
    """

    __slots__ = ("_floor_ms", "_future", "_ids", "_keep", "_most")

    def __init__(self, limits: GossipLimits) -> None:
        self._most = limits.seen
        self._keep = limits.stale + 2 * limits.future
        self._future = limits.future
        # Ordered: a plain dict that lost its first entries is looked through for the next one, 40 us a message.
        self._ids: OrderedDict[bytes, float] = OrderedDict()
        #: Messages not after this time (Unix milliseconds) are refused.
        self._floor_ms = 0

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, message_id: bytes) -> bool:
        return message_id in self._ids

    def add(self, message_id: bytes, wall: float) -> None:
        """Remember a message that came at `wall` (Unix seconds)."""
        ids = self._ids
        ids[message_id] = wall
        for _ in range(_AT_ONCE):
            oldest = next(iter(ids))
            arrived = ids[oldest]
            if arrived > wall + self._keep:
                pass  # the clock was ahead then: it would stay as long, and all behind it; nobody offers it any more
            elif len(ids) > self._most:
                # Its author may have dated it into the future, as far as messages are taken.
                self._floor_ms = max(self._floor_ms, int((arrived + self._future) * 1000))
            elif arrived + self._keep > wall:
                return
            del ids[oldest]

    def is_too_old(self, time_ms: int, wall: float) -> bool:
        """Return whether a message of this time (Unix milliseconds) may be one that was forgotten."""
        if self._floor_ms > (wall + self._future) * 1000:  # the clock was ahead
            self._floor_ms = 0
        return time_ms <= self._floor_ms
