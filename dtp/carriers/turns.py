"""What has come and waits to be understood: of whom, how much at a time, and for how long in a turn.

Packets of QUIC, and what was read of WebSockets while many tiny frames come. One packet costs the library 30 to 50
us; one that is full of tiny frames, or begins a connection, a hundred times as much. All carriers of a socket share
its reader, so each has a line of its own, and whoever has had least processor time of late comes next: 32 who send
the dearest packets there are delay a visitor by one of them. Strangers of one source have one account, and of those
who share it whoever has had least comes next, too. There are three groups: strangers, those who have much sent to
them, and those who ask for little. The groups in which somebody waits share the time equally, so one of a small group
may have as much as all of a large one. Without groups all newcomers together had a thirty-fifth of it beside 34 who
have much sent to them, and one of them waited for seconds. Timers of carriers that are due, and what is left of a
packet that had much in it, are done in these turns, too. What comes for one from elsewhere than its other side has a
line of its own as well: that may be the other side, which has moved, or anybody who has seen the carrier's id on its
way and forges packets for it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from itertools import count, islice
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from dtp.carriers.nearness import context_for_all

Address = tuple[Any, ...]

#: Packets that wait here in all, as many as the kernel's buffer has; and of one line in any case. More are lost as on
#: the way: those of a flood, since a window of 2 MiB is less than half of it.
MOST_IN_ALL: Final = 4096
MOST_WAITING: Final = 256
#: Packets of one carrier at a time, if they take no longer than usual.
STEP: Final = 8
#: Seconds of processor time in which packets are understood in a turn, and in one for which a crowd waits. What
#: streams and answers take comes behind them in the same turn, which is long for them after 1 ms
#: (`dtp.net.turns.clock`): with 2 ms for packets each answer waited until it was the one thing that a turn did
#: besides, some 20 turns among 32 who had much sent to them. Half a millisecond for whoever is alone took a fifth
#: more of the processor for the same bytes.
TURN: Final = 0.001
CROWDED_TURN: Final = TURN / 2
CROWD: Final = 4
#: Whoever was sent more packets than this in a step moves much, for so many seconds. Those share a part of the time
#: where others wait as well: beside 32 of them a visitor that asks for little had a 34th of the processor.
MUCH: Final = 8
MOVES_FOR: Final = 1.0
#: Tiny frames of WebSockets that a turn takes at once: 0.5 ms. Behind them what is read waits its turn.
AT_ONCE: Final = 64


class Taker(Hashable, Protocol):
    """Whose packets wait: a carrier. `peer` is where its other side is."""

    peer: Address
    #: Packets that were sent to its other side.
    sent: int

    @property
    def has_rest(self) -> bool:
        """True while something is to be done before it takes more: the rest of what it was given, or what is due."""

    @property
    def account(self) -> Hashable:
        """Who is charged for the time that its packets take."""

    @property
    def is_stranger(self) -> bool:
        """True as long as nobody has taken it in."""

    def take_rest(self) -> None:
        """Do a part of that."""

    def receive_packets(self, packets: list[bytes], peer: Address) -> int:
        """Take these, which came from `peer`, or the first of them where they take long; return how many."""


#: Seconds of processor time that are forgotten.
_NOTHING: Final = 1e-6


class _Line:
    """Packets of a taker, from its other side or from elsewhere."""

    __slots__ = ("had", "is_waiting", "own", "packets", "step", "taker")

    def __init__(self, taker: Taker, *, own: bool) -> None:
        self.taker, self.own = taker, own
        self.packets: deque[tuple[bytes, Address]] = deque()
        #: How many it may have at once: one at first, and after some that took long.
        self.step = 1
        #: Seconds of processor time that it has had of late: half of it is forgotten each second.
        self.had = 0.0
        self.is_waiting = False

    @property
    def has_work(self) -> bool:
        """True if a turn has something to do for it; its taker may have ended."""
        return bool(self.packets) or (self.own and self.taker.has_rest)


class _Group:
    """Accounts that together get as much of the time as any other group in which somebody waits. `had` is what they
    have had of late; `waiting` has those with lines that wait, the one that has had least first. `now` is what the
    account served last had had: a newcomer begins there, or whoever comes again and again would be first each
    time."""

    __slots__ = ("had", "now", "waiting")

    def __init__(self) -> None:
        self.had = self.now = 0.0
        self.waiting: list[tuple[float, int, _Account]] = []


class _Account:
    """Who is charged: what it has had of late, and those of its lines that wait, whichever has had least first."""

    __slots__ = ("group", "had", "is_waiting", "lines", "moved")

    def __init__(self, group: _Group) -> None:
        self.group = group
        self.had = group.now
        self.moved = -math.inf  # when it moved much
        self.lines: list[tuple[float, int, _Line]] = []
        self.is_waiting = False


class PacketTurns:
    """Gives packets to their takers, over turns of the running loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._clock: Callable[[], float] = getattr(loop, "processor_time", time.thread_time)
        #: By taker, and whether the packets come from its other side.
        self._lines: dict[tuple[Taker, bool], _Line] = {}
        self._accounts: dict[tuple[Hashable, bool], _Account] = {}
        self._known, self._movers, self._strangers = self._groups = (_Group(), _Group(), _Group())
        self._served: _Group | None = None  # last; another one comes first where both have had as much
        self._numbers = count()
        self._halved = loop.time()
        self._scheduled = False
        self._occupied = self._packets = 0  # lines that have packets, and how many those are
        #: Packets that had no room.
        self.lost = 0

    @property
    def has_room(self) -> bool:
        """True unless the only one that has packets here has many: then they can wait in the kernel as well."""
        return self._occupied != 1 or self._packets < MOST_IN_ALL // 2

    def put_packet(self, taker: Taker, packet: bytes, peer: Address) -> None:
        """Put one behind those of the same taker, from its other side or from elsewhere."""
        line = self._get_line(taker, own=peer[:2] == taker.peer[:2])
        packets = line.packets
        if len(packets) >= MOST_WAITING and self._packets >= MOST_IN_ALL:
            self.lost += 1
            return
        packets.append((packet, peer))
        self._packets += 1
        if len(packets) == 1:
            self._occupied += 1
            self._put_waiting(line)

    def note_due(self, taker: Taker) -> None:
        """Have a taker do what is due (`take_rest`), in the next turn or one to come."""
        self._put_waiting(self._get_line(taker, own=True))
        self._schedule_turn()

    def _get_line(self, taker: Taker, *, own: bool) -> _Line:
        line = self._lines.get((taker, own))
        if line is None:
            line = self._lines[taker, own] = _Line(taker, own=own)
        return line

    def forget_taker(self, taker: Taker) -> None:
        """Drop what waits for one that has ended."""
        for own in (True, False):
            self._accounts.pop((taker, own), None)
            line = self._lines.pop((taker, own), None)
            if line is not None and line.packets:
                self._occupied -= 1
                self._packets -= len(line.packets)
                line.packets.clear()

    def give_soon(self) -> None:
        """Give packets away now, unless some wait for a turn to come anyway: all that have come since are among them
        by then, and a turn isn't twice as long."""
        if not self._scheduled:
            self.give_packets()

    def give_packets(self) -> None:
        """Give packets away for as long as this turn has time, and go on in the next."""
        began = self._clock()
        self._forget_spent()
        later: list[_Line] = []
        while (group := self._next_group()) is not None:
            _, _, account = heappop(group.waiting)
            group.now = account.had
            _, _, line = heappop(account.lines)
            line.is_waiting = False
            until = 0.0
            try:
                if not line.own and line.taker.has_rest:
                    later.append(line)
                elif line.has_work:
                    until = self._serve_line(line, account)
                    # What follows from one part of what a packet had may take as long again, elsewhere in this turn.
                    if line.taker.has_rest:
                        later.append(self._get_line(line.taker, own=True))  # which does the rest
                        if not line.own and line.packets:
                            later.append(line)
                    elif line.packets:
                        self._put_waiting(line)
            finally:  # not before it was charged, and is in the group where it belongs now
                account.is_waiting = False
            self._put_account(account)
            if until >= began + (TURN if self._count_waiting() < CROWD else CROWDED_TURN):
                break
        for line in later:
            self._put_waiting(line)
        if self._count_waiting():
            self._schedule_turn()

    def _count_waiting(self) -> int:
        """Return how many accounts have lines that wait."""
        return sum(len(each.waiting) for each in self._groups)

    def _next_group(self) -> _Group | None:
        """Return the group that has had least, of those in which somebody waits; None where nobody does."""
        served = self._served
        waiting = (each for each in self._groups if each.waiting)
        self._served = min(waiting, key=lambda each: (each.had, each is served), default=None)
        return self._served

    def _schedule_turn(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._go_on, context=context_for_all())

    def _go_on(self) -> None:
        self._scheduled = False
        self.give_packets()

    def _put_waiting(self, line: _Line) -> None:
        if line.is_waiting:
            return
        line.is_waiting = True
        account = self._get_account(line)
        heappush(account.lines, (line.had, next(self._numbers), line))
        self._put_account(account)

    def _get_account(self, line: _Line) -> _Account:
        key = line.taker.account, line.own
        account = self._accounts.get(key)
        if account is None:
            # What comes from elsewhere is whoever's.
            is_known = line.own and not line.taker.is_stranger
            account = self._accounts[key] = _Account(self._known if is_known else self._strangers)
        return account

    def _put_account(self, account: _Account) -> None:
        if account.lines and not account.is_waiting:
            account.is_waiting = True
            group = account.group
            if not group.waiting:  # it wanted nothing for a while, and hasn't all of that to come
                group.had = max(each.had - TURN * (each is not group) for each in self._groups)
            heappush(group.waiting, (account.had, next(self._numbers), account))

    def _forget_spent(self) -> None:
        """Halve what all have had, once a second: that changes no order."""
        now = self._loop.time()
        if now - self._halved < 1.0:
            return
        self._halved = now
        for line in self._lines.values():
            line.had /= 2
        for key, account in list(self._accounts.items()):
            account.had /= 2
            account.lines = [(had / 2, number, line) for had, number, line in account.lines]
            if account.had < _NOTHING and not account.lines:
                del self._accounts[key]
        for group in self._groups:
            group.had, group.now = group.had / 2, group.now / 2
            group.waiting = [(had / 2, number, account) for had, number, account in group.waiting]

    def _serve_line(self, line: _Line, account: _Account) -> float:
        """Do the rest of a line, or give it what it may have at once, and charge it; return the time."""
        taker = line.taker
        before, sent = self._clock(), taker.sent
        rest, given = line.own and taker.has_rest, 0
        if rest:
            taker.take_rest()
        else:
            given = self._give_some(line)
        now = self._clock()
        took = now - before
        if not rest:
            # As many as take half a turn, by what these took; and twice as many at most, since the next may take
            # more.
            line.step = max(1, min(STEP, 2 * given, int(given * TURN / 2 / max(took, 1e-9))))
        line.had += took
        account.had += took
        account.group.had += took
        if taker.sent - sent > MUCH:
            account.moved = self._loop.time()
        if account.group is not self._strangers:
            self._regroup_account(account, took)
        return now

    def _regroup_account(self, account: _Account, took: float) -> None:
        """Put an account that doesn't wait into the group where it belongs by what it moves. It begins there as a
        newcomer does, and is charged for what it has just had: or whoever moves much and little by turns would never
        be charged."""
        group = self._movers if self._loop.time() - account.moved < MOVES_FOR else self._known
        if group is not account.group:
            account.group, account.had = group, group.now + took

    def _give_some(self, line: _Line) -> int:
        """Give it what it may have at once; return how many it has taken."""
        packets, waiting, peer = list[bytes](), line.packets, line.packets[0][1]
        for packet, where in islice(waiting, line.step):
            if where != peer:
                break
            packets.append(packet)
        taken = line.taker.receive_packets(packets, peer)
        if waiting:  # it hasn't ended
            for _ in range(taken):
                waiting.popleft()
            self._packets -= taken
            self._occupied -= not waiting
        return taken


class SharedTurns(PacketTurns):
    """Turns of carriers that have no socket in common. What they read is taken at once, outside of these turns, until
    a turn of the loop has had many tiny frames."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._left = AT_ONCE
        self._renewing = False

    @classmethod
    def of_loop(cls, loop: asyncio.AbstractEventLoop) -> SharedTurns:
        """Return those of `loop`."""
        turns = _SHARED.get(loop)
        if turns is None:
            turns = _SHARED[loop] = cls(loop)
        return turns

    def give_soon(self) -> None:
        """Give packets away in the next turn: each carrier reads by itself, and each of them would have begun one."""
        self._schedule_turn()

    @property
    def is_full(self) -> bool:
        """True if this turn of the loop has had as many tiny frames at once as it may, or some wait for it."""
        return self._left <= 0 or self._scheduled

    def count_tiny(self, frames: int) -> None:
        """Note that so many were taken."""
        self._left -= frames
        if not self._renewing:
            self._renewing = True
            self._loop.call_soon(self._renew_allowance)

    def _renew_allowance(self) -> None:
        self._left, self._renewing = AT_ONCE, False


_SHARED: WeakKeyDictionary[asyncio.AbstractEventLoop, SharedTurns] = WeakKeyDictionary()
