"""The neighbour from which a listener gets a show."""

from __future__ import annotations

import asyncio
import contextlib

from dtp.broadcast.format import NO_INIT, Flag, Segment
from dtp.broadcast.parents import Pace
from dtp.net.connection import Connection


class HeardNeighbour:
    """How fast a neighbour sends, what it says is lost, what it leaves out, and whether it should be compared with
    others."""

    def __init__(self, address: str, connection: Connection, pace: Pace, shown: int) -> None:
        """`shown` is the newest segment that it has sent while it was measured; -1 for none."""
        self.address, self.connection, self.pace, self.shown = address, connection, pace, shown
        #: Whether one of the given addresses has much newer segments.
        self.is_kept_back = False
        #: All segments below this number were requested from others while this neighbour was late.
        self.overtaken = 0
        self._look = asyncio.Event()
        self._lost: tuple[int, int] | None = None
        self._init_looked_for = NO_INIT

    def note_kept_back(self) -> None:
        """Note that one of the given addresses has much newer segments."""
        self.is_kept_back = True
        self.look_soon()

    def look_soon(self) -> None:
        """Have the neighbour compared: segments come too late, or others are far ahead."""
        self._look.set()

    async def wait_look(self, least: float) -> None:
        """Wait until it should be compared: after `look_soon`, or when it was silent for too long, but at least
        `least` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(least, self.pace.quiet_until - self.pace.now())):
                await self._look.wait()
        self._look.clear()

    def note_lost(self, first: int, last: int) -> None:
        """Note what it says is lost, until a later segment has come. The numbers may be false: only a later segment
        signed by the producer proves that there was something."""
        if self._lost is not None and self._lost[0] <= first <= self._lost[1] + 1:
            first = self._lost[0]
        self._lost = first, last

    def take_lost(self, before: int) -> tuple[int, int] | None:
        """Return what it has said is lost before this segment, once; None for nothing."""
        if self._lost is None or self._lost[0] >= before:
            return None
        (first, last), self._lost = self._lost, None
        return first, min(last, before - 1)

    def find_left_out(self, segment: Segment) -> int | None:
        """Return the init data that a segment needs, once for each; None if it needs none."""
        if segment.flags & (Flag.INIT | Flag.KEYS) or segment.init in (NO_INIT, self._init_looked_for):
            return None
        self._init_looked_for = segment.init
        return segment.init

    def is_overtaken(self, segment: Segment) -> bool:
        """Return True if it repeats what others have sent before. At first these are the missing segments that
        others were also asked for."""
        is_shown = not segment.flags & (Flag.INIT | Flag.KEYS)
        return self.pace.was_tried and is_shown and segment.number + self.pace.required_lead < self.overtaken
