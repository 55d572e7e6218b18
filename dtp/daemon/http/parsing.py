"""Shares parsing time: streams begin, and heads and messages are parsed, in turns. Whatever some callers send at
once, others wait for at most one turn, and one request that doesn't fit into it."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from dtp.net.turns.clock import TurnClock
from dtp.net.turns.fair_queue import FairQueue, ProcessorAccount
from dtp.net.turns.steps import Fitting

#: Bytes of heads and messages parsed in one turn of the loop: 15 ms for h11 with the smallest fields, 2 ms of JSON.
#: Requests of real programs have a few hundred bytes.
PER_TURN = 16 * 1024
#: The least that a head, or the start of a stream, counts for: each takes 0.1 to 0.2 ms, however short it is.
LEAST = 1024

#: The most waiters that are woken for a turn, since no more fit into its bytes.
_MOST = PER_TURN // LEAST

_Waiter = tuple[asyncio.Future[None], int]


class Parsing:
    """Limits what all conversations of an event loop parse in one of its turns, in bytes and in processor time.

    Whatever is beyond the limit waits in its account's queue. The next queue is that of the account that has used
    the least processor time, so nobody waits for everything that another has queued.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._clock = TurnClock.of_loop(loop)
        self._left = PER_TURN
        self._counting = False
        self._woken = 0  # waiters woken in this turn
        self._fitting = Fitting(_MOST)
        self._waiting: FairQueue[_Waiter] = FairQueue(self._clock.shares)

    @classmethod
    def of_loop(cls, loop: asyncio.AbstractEventLoop) -> Parsing:
        """Return the one that belongs to `loop`."""
        known = _PARSING.get(loop)
        if known is None:
            known = _PARSING[loop] = cls(loop)
        return known

    async def wait_turn(self, size: int, account: ProcessorAccount) -> None:
        """Return when `size` bytes may be parsed, which must be done at once. More bytes than fit into a turn have
        one to themselves; 0 bytes return at once."""
        if not size:
            return
        if not self._counting:
            self._counting = True
            self._clock.call_at_end(self._renew_turn)
        comes_first = not self._waiting or not account.is_ahead()  # no waiting account has used less
        if self._left > 0 and comes_first and not self._clock.has_to_wait(account):
            self._left -= size
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.put_item(account, (future, size))
        await future

    def _renew_turn(self) -> None:
        """Wake as many as fit into the next turn, judging by the time that those woken for this one took."""
        most = self._fitting.count_fitting(self._woken, self._clock.spent)
        self._left, self._woken = PER_TURN, 0
        while self._waiting and self._left > 0 and self._woken < most:
            _, (future, size) = self._waiting.take_next()
            if not future.done():  # otherwise the waiter has given up
                future.set_result(None)
                self._left -= size
                self._woken += 1
        self._counting = bool(self._waiting or self._woken)
        if self._counting:
            self._clock.call_at_end(self._renew_turn)


_PARSING: WeakKeyDictionary[asyncio.AbstractEventLoop, Parsing] = WeakKeyDictionary()
