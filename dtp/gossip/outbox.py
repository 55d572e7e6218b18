"""The frames that wait to be sent to one neighbour, bounded."""

from __future__ import annotations

from collections import deque
from typing import Final

from dtp.gossip.limits import GossipLimits

#: Bytes for control frames, beyond those for messages. A neighbour for which more wait doesn't read.
_CONTROL: Final = 512 * 1024


class Outbox:
    """Frames for one neighbour, in order. Messages that exceed the bound are refused by `try_put_message`.

    It is *busy* above `queue_soft`, and *full* if there may be no room for a message; *stalled* if nothing was
    taken for `stalled` seconds, and *dead* after `unread`. `rate` is the speed at which it is read, in bytes per
    second.
    """

    __slots__ = (
        "_frames",
        "_limits",
        "_measured",
        "_moved",
        "_taken",
        "dont_want",
        "rate",
        "size",
    )

    def __init__(self, limits: GossipLimits) -> None:
        self._limits = limits
        self._frames: deque[tuple[bytes, bytes]] = deque()
        self._moved = 0.0
        self._taken = 0
        self._measured = 0.0
        self.rate = 0.0
        self.size = 0
        #: Ids of messages that the neighbour doesn't want, in the order in which it said so.
        self.dont_want: dict[bytes, None] = {}

    def __bool__(self) -> bool:
        return bool(self._frames)

    def try_put_control(self, frame: bytes, now: float) -> bool:
        """Queue a control frame, and return True if there was room."""
        if self.size > self._limits.queue_hard + _CONTROL:
            return False
        self._put_frame(b"", frame, now)
        return True

    def try_put_message(self, message_id: bytes, frame: bytes, now: float) -> bool:
        """Queue a message, and return True if there was room."""
        if self.size + len(frame) > self._limits.queue_hard:
            return False
        self._put_frame(message_id, frame, now)
        return True

    def _put_frame(self, message_id: bytes, frame: bytes, now: float) -> None:
        if not self._frames:
            self._moved = now
        self._frames.append((message_id, frame))
        self.size += len(frame)

    def take_frames(self, most: int, now: float) -> bytes:
        """Return the next frames, joined, about `most` bytes: at least one frame if there is any.

        Messages that the neighbour doesn't want any more are left out.
        """
        frames, dont_want = self._frames, self.dont_want
        if not frames:
            return b""
        self._moved = now
        if self.size <= most and not dont_want:
            taken = [frame for _, frame in frames]
            frames.clear()
            self._taken += self.size
            self.size = 0
            return b"".join(taken)
        taken = []
        length = 0
        while frames and length < most:
            message_id, frame = frames.popleft()
            self.size -= len(frame)
            self._taken += len(frame)
            if message_id and message_id in dont_want:
                continue
            taken.append(frame)
            length += len(frame)
        return b"".join(taken)

    def mark_unwanted(self, ids: list[bytes]) -> int:
        """Remember ids that the neighbour doesn't want. Return how many were dropped because they are too many."""
        refused = self.dont_want
        for message_id in ids:
            refused[message_id] = None
        surplus = max(0, len(refused) - self._limits.dont_wants)
        for _ in range(surplus):
            del refused[next(iter(refused))]
        return surplus

    def measure_rate(self, now: float) -> None:
        """Update `rate` to the mean of its last value and the rate since the last call."""
        elapsed = now - self._measured
        if elapsed > 0:
            self.rate = (self.rate + self._taken / elapsed) / 2
            self._taken, self._measured = 0, now

    @property
    def is_full(self) -> bool:
        """True if there may be no room for a turn's messages, or for the longest one."""
        return self.size + 2 * self._limits.message > self._limits.queue_hard

    @property
    def is_busy(self) -> bool:
        """True while more than `queue_soft` bytes wait."""
        return self.size > self._limits.queue_soft

    def is_stalled(self, now: float) -> bool:
        """True if nothing was taken for so long that nobody should wait for it."""
        return bool(self._frames) and now - self._moved > self._limits.stalled

    def is_dead(self, now: float) -> bool:
        """True if nothing was taken for so long that the neighbour counts as dead."""
        return bool(self._frames) and now - self._moved > self._limits.unread
