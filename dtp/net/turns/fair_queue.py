"""Who has the processor next where several wait for it: whoever has had least of it lately.

A value without IO: it is told what was spent, and the time. Start-time fair queueing (Goyal, Vin and Cheng, 1996) in
two levels: sources share the processor, and within each source its peers do. Those of a source who ask for little and
those who have much done count as two sources. So a visitor may have as much as all of a flood together. As one of 33
it had less than its requests take, and waited for whole rounds of the flood.

Virtual time goes on with what is served, so that who comes anew begins where others are: neither behind them, nor
with a credit. A crowd of which each comes only once would stop it so, and everybody who has been there: so it goes on
with each second that is spent as well, by the part of it that each of those who wait would have had. See
docs/decisions/0260.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from dtp.bounded import BoundedDict

T = TypeVar("T")

#: Seconds of processor time that count at most against whoever had more than others: who worked for an hour while
#: nobody else wanted to has not to make up for it.
MOST_AHEAD: Final = 0.25
#: Seconds by which a source may be in front of others before it counts as ahead: as long as a few turns may take.
LEEWAY: Final = 0.004
#: Seconds for which whoever had more to be done than a turn does at once counts among those who have much done.
MOVES_FOR: Final = 1.0
#: Accounts and sources that are remembered when nobody uses them: who comes again doesn't begin anew.
REMEMBERED: Final = 1024


class _VirtualClock:
    """Virtual time among those who share something: the start of what was served last.

    While nobody waits it goes on with the time in which the processor was idle, of which anybody could have had more.
    """

    __slots__ = ("_idle_since", "_now", "_part", "_starts")

    def __init__(self, time: float) -> None:
        self._now = 0.0
        self._part = 0.0  # how far everybody would have come who had the same part of what was spent
        self._starts: list[tuple[float, int]] = []  # of those who wait, and who each is; the next one first
        self._idle_since = time

    def virtual_time(self, time: float) -> float:
        """Return the virtual time: not later than the start of whoever is next, in whichever queue that is."""
        if self._starts:
            return min(self._now, self._starts[0][0])
        return self._now + max(0.0, time - self._idle_since)

    def next_start(self, but: _Share) -> float | None:
        """Return the start of whoever is next, of others than `but`; None where none of them waits."""
        return next((start for start, who in self._starts if who != id(but)), None)

    def note_spent(self, seconds: float) -> None:
        """Note that so much was spent, for anybody."""
        if self._starts:
            self._part = max(self._part, self._now) + seconds / (1 + len(self._starts))

    def begin_wait(self, share: _Share, time: float, *, little: bool) -> float:
        """Note that one more waits; return its start. One that wasn't served just now, and asks for more than a
        `little`, begins where all would be who had had their part: none of those who wait has to come behind a crowd
        of them."""
        now = self.virtual_time(time)
        if not self._starts:
            self._now = now
        start = max(share.used, now, 0.0 if share.served or little else self._part)
        bisect.insort(self._starts, (start, id(share)))
        return start

    def move_start(self, share: _Share, start: float) -> None:
        """Note that one who waits has had more meanwhile than where it would have begun."""
        self._remove_start(share, start)
        bisect.insort(self._starts, (share.used, id(share)))

    def end_wait(self, share: _Share, start: float, time: float) -> None:
        """Note that one is served, which would have begun at `start` of virtual time."""
        self._now = max(self._now, start)
        self._remove_start(share, start)
        self._idle_since = time

    def _remove_start(self, share: _Share, start: float) -> None:
        del self._starts[bisect.bisect_left(self._starts, (start, id(share)))]


class _Share:
    """How far somebody has come in the virtual time of those that it shares with."""

    __slots__ = ("clock", "served", "used")

    def __init__(self, clock: _VirtualClock) -> None:
        self.clock = clock
        self.used = 0.0
        #: True from when it is served until it waits again.
        self.served = False

    def charge_seconds(self, seconds: float, time: float) -> None:
        now = self.clock.virtual_time(time)
        self.used = min(max(self.used, now) + seconds, now + MOST_AHEAD)
        self.clock.note_spent(seconds)

    def is_ahead(self, time: float, leeway: float) -> bool:
        """True if it has had more than the next of those that wait; where none does, than the one that was served
        last."""
        first = self.clock.next_start(self)
        return self.used > (self.clock.virtual_time(time) if first is None else first) + leeway

    def is_far_ahead(self) -> bool:
        """True if others wait, and it has had more than the next of them by `LEEWAY`."""
        first = self.clock.next_start(self)
        return first is not None and self.used > first + LEEWAY


#: Who is charged: a source, or those of it who have much done; and one peer of these.
_Path = tuple[_Share, _Share]


class ProcessorAccount:
    """What one peer from one source has had of the processor. `FairShares.get_account` returns it."""

    __slots__ = ("_little", "_moves_until", "_much", "_served", "_shares")

    def __init__(self, shares: FairShares, little: _Path, much: _Path) -> None:
        self._shares = shares
        self._little, self._much = little, much
        #: Until when it counts among those who have much done; None if it doesn't.
        self._moves_until: float | None = None
        #: Whose turn it is served in, until that is charged.
        self._served: _Path | None = None

    @property
    def path(self) -> _Path:
        """The shares that are charged now: that of the source, and that of the peer."""
        if self._moves_until is None:
            return self._little
        if self._shares.now() < self._moves_until:
            return self._much
        self._moves_until = None
        return self._little

    def note_much(self) -> None:
        """Note that it has more to be done than a turn does at once."""
        self._moves_until = self._shares.now() + MOVES_FOR

    def note_served(self, path: _Path) -> None:
        """Note that it has the processor as one of these."""
        self._served = path

    def charge_seconds(self, seconds: float) -> None:
        """Note that so much processor time was spent for it. What waited is charged where it did: it may turn out to
        be much only now."""
        time = self._shares.time()
        source, peer = self._served or self.path
        self._served = None
        source.charge_seconds(seconds, time)
        peer.charge_seconds(seconds, time)

    def is_ahead(self, leeway: float = 0.0) -> bool:
        """True if it has had `leeway` seconds more than the next of those that it shares its source with, or if that
        source is far ahead of others."""
        source, peer = self.path
        return peer.is_ahead(self._shares.time(), leeway) or source.is_far_ahead()


class _Source:
    """A source twice: as those who ask for little, and as those who have much done."""

    __slots__ = ("_clocks", "_shares")

    def __init__(self, clock: _VirtualClock, time: float) -> None:
        self._shares = _Share(clock), _Share(clock)
        self._clocks = _VirtualClock(time), _VirtualClock(time)

    def open_account(self, shares: FairShares) -> ProcessorAccount:
        """Return a new peer's account."""
        little, much = (
            (share, _Share(clock)) for share, clock in zip(self._shares, self._clocks, strict=True)
        )
        return ProcessorAccount(shares, little, much)


class FairShares:
    """The accounts of one event loop."""

    __slots__ = ("_accounts", "_clock", "_sources", "now", "time")

    def __init__(self, time: Callable[[], float], now: Callable[[], float]) -> None:
        """`time` is the seconds for which the processor was idle until now, `now` those that have passed."""
        self.time, self.now = time, now
        self._clock = _VirtualClock(time())
        self._sources: BoundedDict[str, _Source] = BoundedDict(REMEMBERED)
        self._accounts: BoundedDict[tuple[str, object], ProcessorAccount] = BoundedDict(REMEMBERED)

    def get_account(self, source: str, peer: object = None) -> ProcessorAccount:
        """Return the account of `peer`, such as an identity, at `source`."""
        key = (source, peer)
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = self._get_source(source).open_account(self)
        self._accounts.move_to_end(key)
        return account

    def _get_source(self, source: str) -> _Source:
        found = self._sources.get(source)
        if found is None:
            found = self._sources[source] = _Source(self._clock, self.time())
        self._sources.move_to_end(source)
        return found


class _Waiting(Generic[T]):
    """Shares that wait, each with what is to be done; the one that has had least comes first."""

    __slots__ = ("_heap", "_of", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Share]] = []
        self._order = itertools.count()
        self._of: dict[_Share, T] = {}

    def __len__(self) -> int:
        return len(self._of)

    def get_waiting(self, share: _Share) -> T | None:
        return self._of.get(share)

    def put_waiting(self, share: _Share, waiting: T, time: float, *, little: bool = False) -> None:
        self._of[share] = waiting
        start = share.clock.begin_wait(share, time, little=little)
        share.served = False
        heapq.heappush(self._heap, (start, next(self._order), share))

    def take_first(self, time: float) -> tuple[_Share, T]:
        while True:
            start, order, share = heapq.heappop(self._heap)
            if share.used > start:  # something was spent for it meanwhile
                heapq.heappush(self._heap, (share.used, order, share))
                share.clock.move_start(share, start)
                continue
            share.clock.end_wait(share, start, time)
            share.served = True
            return share, self._of.pop(share)


_Line = deque[tuple[ProcessorAccount, T]]


class FairQueue(Generic[T]):
    """What waits to be done: of each account in order, and among accounts as they have had of the processor. What
    waits already when an account begins to have much done, or ends, keeps its place where it was."""

    __slots__ = ("_shares", "_size", "_sources")

    def __init__(self, shares: FairShares) -> None:
        self._shares = shares
        self._sources: _Waiting[_Waiting[_Line[T]]] = _Waiting()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put_item(self, account: ProcessorAccount, item: T, *, little: bool = False) -> None:
        """Put `item` behind what waits for `account`; `little` if it is no more than a request."""
        time = self._shares.time()
        self._size += 1
        source, peer = account.path
        peers = self._sources.get_waiting(source)
        if peers is None:
            peers = _Waiting()
            self._sources.put_waiting(source, peers, time, little=little)
        line = peers.get_waiting(peer)
        if line is None:
            peers.put_waiting(peer, deque([(account, item)]), time, little=little)
        else:
            line.append((account, item))

    def take_next(self) -> tuple[ProcessorAccount, T]:
        """Return what is to be done next, and for whom. What that costs is to be charged before the next call."""
        time = self._shares.time()
        source, peers = self._sources.take_first(time)
        peer, line = peers.take_first(time)
        account, item = line.popleft()
        account.note_served((source, peer))
        self._size -= 1
        if line:
            peers.put_waiting(peer, line, time)
        if peers:
            self._sources.put_waiting(source, peers, time)
        return account, item
