"""Streams begin, and heads and messages are understood, in turns: whatever callers send at once, who sends nothing of
the kind waits for one turn's, and one that doesn't fit."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable
from weakref import WeakKeyDictionary

#: Bytes of heads and messages in a turn of the loop: 15 ms of the smallest fields for h11, 2 ms of JSON. Requests as
#: programs send them are some hundred.
PER_TURN = 16 * 1024
#: What a head counts at least, and a stream that begins: each takes 0.1 to 0.2 ms, however few its bytes are.
LEAST = 1024


class Parsing:
    """Bounds what all conversations of an event loop parse in one of its turns.

    Who is beyond it waits in the line of its caller, and those lines take turns: none waits for all of another's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._left = PER_TURN
        self._counting = False
        self._waiting: OrderedDict[Hashable, deque[tuple[asyncio.Future[None], int]]] = OrderedDict()

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Parsing:
        """That of `loop`."""
        known = _PARSING.get(loop)
        if known is None:
            known = _PARSING[loop] = cls(loop)
        return known

    async def turn(self, size: int, who: Hashable) -> None:
        """Return when so many bytes may be parsed, which is to be done at once. More than fit have a turn alone,
        and none at all need none."""
        if not size:
            return
        if not self._counting:
            self._counting = True
            self._loop.call_soon(self._renew)
        if self._left > 0 and not self._waiting:
            self._left -= size
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.setdefault(who, deque()).append((future, size))
        await future

    def _renew(self) -> None:
        self._left = PER_TURN
        self._counting = bool(self._waiting)
        while self._waiting and self._left > 0:
            who, line = self._waiting.popitem(last=False)
            future, size = line.popleft()
            if line:
                self._waiting[who] = line
            if not future.done():  # else it was given up
                future.set_result(None)
                self._left -= size
        if self._counting:
            self._loop.call_soon(self._renew)


_PARSING: WeakKeyDictionary[asyncio.AbstractEventLoop, Parsing] = WeakKeyDictionary()
