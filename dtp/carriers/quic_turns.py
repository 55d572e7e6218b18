"""Packets of QUIC that have come and wait to be understood: of whom, how many at a time, and for how long in a turn.

One packet costs the library 30 to 50 us; one that is full of tiny frames, or begins a connection, a hundred times as
much. All carriers of a socket share its reader, so each has a line of its own, and they go round.
What comes for one from elsewhere than its other side has a line of its own as well: that may be the other side, which
has moved, or anybody who has seen the carrier's id on its way and forges packets for it.
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
    """Whose packets wait: a carrier. `peer` is where its other side is."""

    peer: Address

    @property
    def is_behind(self) -> bool:
        """True while it is still at those that it was given before."""

    def receive_packets(self, packets: list[bytes], peer: Address) -> None:
        """Take these, which came from `peer`."""


#: Whose line it is, and whether its packets come from that one's other side.
_Key = tuple[Taker, bool]


class PacketTurns:
    """Gives packets to their takers, over turns of the running loop."""

    __slots__ = ("_clock", "_lines", "_loop", "_scheduled", "_steps", "lost")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._clock: Callable[[], float] = getattr(loop, "processor_time", time.thread_time)
        self._lines: OrderedDict[_Key, deque[tuple[bytes, Address]]] = OrderedDict()
        #: How many packets each may have at once: one at first, and after some that took long.
        self._steps: dict[_Key, int] = {}
        self._scheduled = False
        #: Packets that had no room.
        self.lost = 0

    @property
    def has_room(self) -> bool:
        """True unless the only one that has packets here has many: then they can wait in the kernel as well."""
        return len(self._lines) != 1 or len(next(iter(self._lines.values()))) < MOST_WAITING

    def put_packet(self, taker: Taker, packet: bytes, peer: Address) -> None:
        """Put one behind those of the same taker, from its other side or from elsewhere."""
        line = self._lines.setdefault((taker, peer[:2] == taker.peer[:2]), deque())
        if len(line) < MOST_WAITING:
            line.append((packet, peer))
        else:
            self.lost += 1

    def forget_taker(self, taker: Taker) -> None:
        """Drop what waits for one that has ended."""
        for key in ((taker, True), (taker, False)):
            self._lines.pop(key, None)
            self._steps.pop(key, None)

    def give_packets(self) -> None:
        """Give packets away for as long as this turn has time, and go on in the next."""
        began = self._clock()
        waiting = len(self._lines)
        while waiting:
            key, line = next(iter(self._lines.items()))
            self._lines.move_to_end(key)
            waiting -= 1
            if key[0].is_behind:
                continue
            before = self._clock()
            given = self._give_some(key, line)
            now = self._clock()
            if key in self._steps:  # it hasn't ended: as many as take half a turn, by what these took
                self._steps[key] = max(1, min(STEP, int(given * TURN / 2 / max(now - before, 1e-9))))
            if now - began >= TURN:
                break
            if not waiting and any(not taker.is_behind for taker, _ in self._lines):
                waiting = len(self._lines)
        if self._lines and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._scheduled = False
        self.give_packets()

    def _give_some(self, key: _Key, line: deque[tuple[bytes, Address]]) -> int:
        """Give it what it may have at once; return how many that was."""
        packets: list[bytes] = []
        peer = line[0][1]
        most = self._steps.setdefault(key, 1)
        while line and len(packets) < most and line[0][1] == peer:
            packets.append(line.popleft()[0])
        if not line:
            del self._lines[key]
        key[0].receive_packets(packets, peer)
        return len(packets)
