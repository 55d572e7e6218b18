"""Streams begin, and heads and messages are understood, in turns: whatever callers send at once, who sends nothing of
the kind waits for one turn's, and one that doesn't fit."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from dtp.net.turns.clock import TurnClock
from dtp.net.turns.fair_queue import FairQueue, ProcessorAccount
from dtp.net.turns.steps import Fitting

#: Bytes of heads and messages in a turn of the loop: 15 ms of the smallest fields for h11, 2 ms of JSON. Requests as
#: programs send them are some hundred.
PER_TURN = 16 * 1024
#: What a head counts at least, and a stream that begins: each takes 0.1 to 0.2 ms, however few its bytes are.
LEAST = 1024

#: Who is woken for a turn at most: so many fit its bytes.
_MOST = PER_TURN // LEAST

_Waiter = tuple[asyncio.Future[None], int]


class Parsing:
    """Bounds what all conversations of an event loop parse in one of its turns: in bytes, and in processor time.

    Who is beyond it waits in the line of its account, and of the lines that one comes next which has had least of the
    processor: none waits for all of another's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._clock = TurnClock.of_loop(loop)
        self._left = PER_TURN
        self._counting = False
        self._woken = 0  # in this turn, of those that waited
        self._fitting = Fitting(_MOST)
        self._waiting: FairQueue[_Waiter] = FairQueue(self._clock.shares)

    @classmethod
    def of_loop(cls, loop: asyncio.AbstractEventLoop) -> Parsing:
        """Return that of `loop`."""
        known = _PARSING.get(loop)
        if known is None:
            known = _PARSING[loop] = cls(loop)
        return known

    async def wait_turn(self, size: int, account: ProcessorAccount) -> None:
        """Return when so many bytes may be parsed, which is to be done at once. More than fit have a turn alone,
        and none at all need none."""
        if not size:
            return
        if not self._counting:
            self._counting = True
            self._clock.call_at_end(self._renew_turn)
        comes_first = not self._waiting or not account.is_ahead()  # of those that wait none has had less
        if self._left > 0 and comes_first and not self._clock.has_to_wait(account):
            self._left -= size
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.put_item(account, (future, size))
        await future

    def _renew_turn(self) -> None:
        """Wake as many as fit the next turn, by what those took that were woken for this one."""
        most = self._fitting.count_fitting(self._woken, self._clock.spent)
        self._left, self._woken = PER_TURN, 0
        while self._waiting and self._left > 0 and self._woken < most:
            _, (future, size) = self._waiting.take_next()
            if not future.done():  # else it was given up
                future.set_result(None)
                self._left -= size
                self._woken += 1
        self._counting = bool(self._waiting or self._woken)
        if self._counting:
            self._clock.call_at_end(self._renew_turn)


_PARSING: WeakKeyDictionary[asyncio.AbstractEventLoop, Parsing] = WeakKeyDictionary()
