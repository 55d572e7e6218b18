"""Packets of QUIC that have come and wait to be understood: of whom, how many at a time, and for how long in a turn.

One packet costs the library 30 to 50 us; one that is full of tiny frames, or begins a connection, a hundred times as
much. All carriers of a socket share its reader, so each has a line of its own, and whoever has had least processor
time of late comes next: 32 who send the dearest packets there are delay a visitor by one of them.
What comes for one from elsewhere than its other side has a line of its own as well: that may be the other side, which
has moved, or anybody who has seen the carrier's id on its way and forges packets for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final, Protocol

Address = tuple[Any, ...]

#: Packets of one carrier that wait while others have some, too; more are lost, as on the way.
MOST_WAITING: Final = 256
#: Packets of one carrier at a time, if they take no longer than usual.
STEP: Final = 8
#: Seconds of processor time in which packets are understood in a turn.
TURN: Final = 0.002


class Taker(Hashable, Protocol):
    """Whose packets wait: a carrier. `peer` is where its other side is."""

    peer: Address

    @property
    def is_behind(self) -> bool:
        """True while it is still at those that it was given before."""

    @property
    def account(self) -> Hashable:
        """Who is charged for the time that its packets take."""

    def receive_packets(self, packets: list[bytes], peer: Address) -> None:
        """Take these, which came from `peer`."""


#: Whose line it is, and whether its packets come from that one's other side.
_Key = tuple[Taker, bool]
#: Seconds of processor time that are forgotten.
_NOTHING: Final = 1e-6


def _account(key: _Key) -> tuple[Hashable, bool]:
    return key[0].account, key[1]


class PacketTurns:
    """Gives packets to their takers, over turns of the running loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._clock: Callable[[], float] = getattr(loop, "processor_time", time.thread_time)
        self._lines: dict[_Key, deque[tuple[bytes, Address]]] = {}
        #: How many packets each may have at once: one at first, and after some that took long.
        self._steps: dict[_Key, int] = {}
        #: Lines that have packets, by what their accounts had had when they were put here.
        self._waiting: list[tuple[float, int, _Key]] = []
        self._numbers = count()
        #: Seconds of processor time that each account has had of late: half of it is forgotten each second.
        self._spent: dict[Hashable, float] = {}
        self._halved = loop.time()
        self._scheduled = False
        #: Packets that had no room.
        self.lost = 0

    @property
    def has_room(self) -> bool:
        """True unless the only one that has packets here has many: then they can wait in the kernel as well."""
        return len(self._lines) != 1 or len(next(iter(self._lines.values()))) < MOST_WAITING

    def put_packet(self, taker: Taker, packet: bytes, peer: Address) -> None:
        """Put one behind those of the same taker, from its other side or from elsewhere."""
        key = taker, peer[:2] == taker.peer[:2]
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = deque()
            self._put_waiting(key)
        if len(line) < MOST_WAITING:
            line.append((packet, peer))
        else:
            self.lost += 1

    def forget_taker(self, taker: Taker) -> None:
        """Drop what waits for one that has ended."""
        for key in ((taker, True), (taker, False)):
            self._lines.pop(key, None)
            self._steps.pop(key, None)
            self._spent.pop(_account(key), None)

    def give_packets(self) -> None:
        """Give packets away for as long as this turn has time, and go on in the next."""
        began = self._clock()
        self._forget_spent()
        behind: list[_Key] = []
        while self._waiting:
            had, _, key = heappop(self._waiting)
            if key not in self._lines:
                continue
            if key[0].is_behind:
                behind.append(key)
            elif had < self._spent.get(_account(key), 0.0):  # others of its account have had more meanwhile
                self._put_waiting(key)
            elif self._serve_line(key) - began >= TURN:
                break
        for key in behind:
            self._put_waiting(key)
        if self._lines and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._scheduled = False
        self.give_packets()

    def _put_waiting(self, key: _Key) -> None:
        heappush(self._waiting, (self._spent.get(_account(key), 0.0), next(self._numbers), key))

    def _forget_spent(self) -> None:
        now = self._loop.time()
        if now - self._halved >= 1.0:
            self._halved = now
            self._spent = {account: had / 2 for account, had in self._spent.items() if had > _NOTHING}
            waiting, self._waiting = self._waiting, []
            for _, _, key in sorted(waiting):
                self._put_waiting(key)

    def _serve_line(self, key: _Key) -> float:
        """Give a line what it may have at once, and charge its account; return the time."""
        account = _account(key)
        before = self._clock()
        given = self._give_some(key, self._lines[key])
        now = self._clock()
        if key in self._steps:  # it hasn't ended: as many as take half a turn, by what these took
            self._steps[key] = max(1, min(STEP, int(given * TURN / 2 / max(now - before, 1e-9))))
        if key in self._steps or account[0] != key[0]:
            self._spent[account] = self._spent.get(account, 0.0) + now - before
        if key in self._lines:
            self._put_waiting(key)
        return now

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
