"""The ids of messages that have come, so that each message is accepted once, however often it comes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from dtp.gossip.limits import GossipLimits

#: Entries that one call drops, at most, so that no call takes long.
_AT_ONCE: Final = 64


class SeenCache:
    """The ids of accepted messages, for as long as any of these could be accepted again.

    A message older than `stale` seconds is refused for its age, so ids are needed no longer than that. If there are
    more than fit, the oldest are dropped. Then messages that are no newer than the dropped ones may be are refused,
    rather than accepted twice. Ids that were added by a clock far ahead are dropped when it has been set back.
    """

    __slots__ = ("_floor_ms", "_future", "_ids", "_keep", "_most")

    def __init__(self, limits: GossipLimits) -> None:
        self._most = limits.seen
        self._keep = limits.stale + 2 * limits.future
        self._future = limits.future
        # A plain dict that has lost its first entries is searched for the next one, which takes 40 us a message.
        self._ids: OrderedDict[bytes, float] = OrderedDict()
        #: Messages that aren't after this time (Unix milliseconds) are refused.
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
                pass  # added by a clock that was ahead: it would stay as long, with all after it
            elif len(ids) > self._most:
                # Its author may have dated it as far ahead as messages are accepted.
                self._floor_ms = max(self._floor_ms, int((arrived + self._future) * 1000))
            elif arrived + self._keep > wall:
                return
            del ids[oldest]

    def is_too_old(self, time_ms: int, wall: float) -> bool:
        """Return True if a message of this time (Unix milliseconds) may be one whose id was dropped."""
        if self._floor_ms > (wall + self._future) * 1000:  # the clock was ahead
            self._floor_ms = 0
        return time_ms <= self._floor_ms
