"""How many frames the connections of one event loop read in one turn, so that a flood of tiny ones holds nobody up.

A frame costs 1 to 5 us. Whoever reads more than its share keeps the rest for turns to come, in which it reads nothing
more from its carrier. See docs/decisions/0188.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

#: Frames of one connection in a turn, before others have theirs. A record may have as many again, and is taken whole.
SHARE: Final = 256
#: ... and of all connections together; those that just came from a carrier have `LEAST` all the same.
TURN: Final = 768
#: What a connection reads at once however full the turn is: the request of somebody who waits.
LEAST: Final = 32
#: Reads of so few frames aren't counted: as many of them as a turn has sockets cost no more than their system calls.
FEW: Final = 8


class FrameBudget:
    """The frames of one event loop's turn, and who waits for another. Used within the loop."""

    __slots__ = ("_left", "_renewing", "_waiting")

    def __init__(self) -> None:
        self._left = TURN
        self._renewing = False
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def share(self) -> int:
        """Return how many frames a connection may read now."""
        return max(LEAST, min(SHARE, self._left))

    def count(self, frames: int) -> None:
        """Note that so many were read."""
        self._left -= frames
        self._renew_soon()

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call `go_on`, which reads a share and waits again if that wasn't all, in a turn to come."""
        self._waiting.append(go_on)
        self._renew_soon()

    def _renew_soon(self) -> None:
        if not self._renewing:
            self._renewing = True
            asyncio.get_running_loop().call_soon(self._renew)

    def _renew(self) -> None:
        self._renewing = False
        self._left = TURN
        for _ in range(len(self._waiting)):
            if self._left <= LEAST:
                break
            self._waiting.popleft()()
        if self._waiting:
            self._renew_soon()
