"""Frames that move nothing: repetitions, answers to nothing, questions. Everybody may send some; nobody a flood.

Each costs its reader 1 to 5 us, so who sends them at full speed takes a core for as long as it likes.
"""

from __future__ import annotations

from typing import Final

from dtp.session.codes import CloseCode, ProtocolError
from dtp.session.limits import Limits

#: One more is allowed for so many bytes of streams that moved: metering and acknowledging take frames, too.
SHARE: Final = 16 * 1024


class IdleFrames:
    """How many came of late, against what is allowed: a burst, so many a second, and some for what moves."""

    __slots__ = ("_burst", "_moved", "_rate", "_since", "count")

    def __init__(self, limits: Limits, now: float) -> None:
        #: Those that came and were not made up for yet; whoever meets one counts it here.
        self.count = 0
        self._burst, self._rate = limits.idle_frames, limits.idle_frame_rate
        self._since, self._moved = now, 0

    def check_rate(self, now: float, moved: int) -> None:
        """Raise `ProtocolError` (LIMIT) if there are too many. `moved` is `Session.moved`, which only grows."""
        if self.count <= self._burst:
            return
        self.count -= round((now - self._since) * self._rate) + (moved - self._moved) // SHARE
        self.count = max(0, self.count)
        self._since, self._moved = now, moved
        if self.count > self._burst:
            raise ProtocolError("too many frames that move nothing", CloseCode.LIMIT)
