"""How many streams are taken up in one turn of the event loop, of all its connections together.

One frame may open all the streams that a peer is allowed, and each asks rules, connects to a backend and begins what
it is for: 0.1 to 1 ms. What is above the number waits for the next turns, connection by connection, so that neither
others' bytes nor others' streams wait for long. See docs/decisions/0172.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

#: Streams that a turn takes up: as many as a listening socket gives clients.
STREAMS = 64
#: With so many left a new number is asked for, so that only turns which use up more than half are ever counted.
LOW = STREAMS // 2


class Intake:
    """The number for one event loop. Used within it."""

    __slots__ = ("_renewing", "_waiting", "left")

    def __init__(self) -> None:
        #: How many may still be taken up now; who takes one counts it off. Above `LOW` that is all to do.
        self.left = STREAMS
        self._renewing = False
        self._waiting: deque[Callable[[], bool]] = deque()

    def spares(self) -> bool:
        """With `left` at `LOW` or less: whether one may be taken up all the same."""
        self._renew_soon()
        return self.left > 0

    def wait(self, take: Callable[[], bool]) -> None:
        """Call `take`, which takes up one, in a turn that has room; it says whether more wait there, for another
        call behind those of all others."""
        self._waiting.append(take)
        self._renew_soon()

    async def room(self) -> None:
        """Wait for a turn that has room for one, and count it off."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def take() -> bool:
            if not future.done():
                future.set_result(None)
            return False

        self.wait(take)
        await future

    def _renew_soon(self) -> None:
        if not self._renewing:
            self._renewing = True
            asyncio.get_running_loop().call_soon(self._renew)

    def _renew(self) -> None:
        self._renewing = False
        self.left = STREAMS
        waiting = self._waiting
        while waiting and self.left:
            self.left -= 1
            take = waiting.popleft()
            if take():
                waiting.append(take)
        if waiting:
            self._renew_soon()
