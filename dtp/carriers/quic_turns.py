"""Packets of QUIC that have come and wait to be understood: of whom, how many at a time, and for how long in a turn.

One packet costs the library 30 to 50 us; one that is full of tiny frames, or begins a connection, a hundred times as
much. All carriers of a socket share its reader, so each has a line of its own, and they go round.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final, Protocol

Address = tuple[Any, ...]

#: Packets of one carrier that wait while others have some, too; more are lost, as on the way.
MOST_WAITING: Final = 256
#: Packets of one carrier at a time, if they take no longer than usual.
STEP: Final = 8
#: Seconds of processor time in which packets are understood in a turn.
TURN: Final = 0.002


class Taker(Protocol):
    """Whose packets wait: a carrier."""

    @property
    def is_behind(self) -> bool:
        """True while it is still at those that it was given before."""

    def received(self, packets: list[bytes], peer: Address) -> None:
        """Take these, which came from `peer`."""


class PacketTurns:
    """Gives packets to their takers, over turns of the running loop."""

    __slots__ = ("_clock", "_lines", "_loop", "_scheduled", "_steps", "lost")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._clock: Callable[[], float] = getattr(loop, "processor_time", time.thread_time)
        self._lines: OrderedDict[Taker, deque[tuple[bytes, Address]]] = OrderedDict()
        #: How many packets each may have at once: one at first, and after some that took long.
        self._steps: dict[Taker, int] = {}
        self._scheduled = False
        #: Packets that had no room.
        self.lost = 0

    @property
    def has_room(self) -> bool:
        """True unless the only one that has packets here has many: then they can wait in the kernel as well."""
        return len(self._lines) != 1 or len(next(iter(self._lines.values()))) < MOST_WAITING

    def put(self, taker: Taker, packet: bytes, peer: Address) -> None:
        """Put one behind those of the same taker."""
        line = self._lines.setdefault(taker, deque())
        if len(line) < MOST_WAITING:
            line.append((packet, peer))
        else:
            self.lost += 1

    def forget(self, taker: Taker) -> None:
        """Drop what waits for one that has ended."""
        self._lines.pop(taker, None)
        self._steps.pop(taker, None)

    def work(self) -> None:
        """Give packets away for as long as this turn has time, and go on in the next."""
        began = self._clock()
        waiting = len(self._lines)
        while waiting:
            taker, line = next(iter(self._lines.items()))
            self._lines.move_to_end(taker)
            waiting -= 1
            if taker.is_behind:
                continue
            before = self._clock()
            given = self._give(taker, line)
            now = self._clock()
            if taker in self._steps:  # it hasn't ended: as many as take half a turn, by what these took
                self._steps[taker] = max(1, min(STEP, int(given * TURN / 2 / max(now - before, 1e-9))))
            if now - began >= TURN:
                break
            if not waiting and any(not each.is_behind for each in self._lines):
                waiting = len(self._lines)
        if self._lines and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._scheduled = False
        self.work()

    def _give(self, taker: Taker, line: deque[tuple[bytes, Address]]) -> int:
        """Give it what it may have at once; return how many that was."""
        packets: list[bytes] = []
        peer = line[0][1]
        most = self._steps.setdefault(taker, 1)
        while line and len(packets) < most and line[0][1] == peer:
            packets.append(line.popleft()[0])
        if not line:
            del self._lines[taker]
        taker.received(packets, peer)
        return len(packets)
