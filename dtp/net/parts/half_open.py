"""Carriers whose handshake isn't over: bounded in time, in all, and for each source."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from random import randrange
from typing import ClassVar

from dtp import carriers
from dtp.carriers.crowd import Crowd, part_of_reserve
from dtp.errors import LimitError
from dtp.net.driver import LinkDriver
from dtp.session.codes import HandshakeError
from dtp.session.limits import Limits


class Crowded(LimitError):
    """More carriers are half-open, or connections open, than `Limits` has: one of them has to go."""

    code: ClassVar[str] = "crowded"


class HalfOpen:
    """Iterable over the drivers of those carriers."""

    def __init__(
        self, limits: Limits, loop: asyncio.AbstractEventLoop, draw: Callable[[int], int] = randrange
    ) -> None:
        """`draw` gives a number below the one that it gets: which of so many has to go."""
        self._limits, self._loop = limits, loop
        most = part_of_reserve(limits.half_open)
        of_source = min(limits.half_open_per_source, (most + 1) // 2 if most < limits.half_open else most)
        self._crowd = Crowd[LinkDriver](most, of_source, draw)
        self._timers: dict[LinkDriver, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._crowd)

    def __iter__(self) -> Iterator[LinkDriver]:
        return iter(self._crowd)

    @property
    def by_source(self) -> dict[str, int]:
        """How many there are of each source that has any."""
        return self._crowd.by_source

    def make_room(self, source: str) -> bool:
        """Return True if one more of this source may come; another goes for it where there are too many."""
        if self._crowd.has_room(source):
            return True
        drawn = self._crowd.draw_one(source)
        if drawn is None:  # a limit is 0
            return False
        drawn.abort_carrier(Crowded("others wanted to come in, and this one was half-open"))
        return True

    def add_driver(self, driver: LinkDriver) -> None:
        """Abort it unless its handshake ends in time."""
        source = driver.carrier.source
        patience = max(self._limits.handshake, carriers.patience(driver.carrier.scheme))
        expired = HandshakeError(f"no handshake from {source} in {patience:g} s")
        self._timers[driver] = self._loop.call_later(patience, driver.abort_carrier, expired)
        self._crowd.add(driver, source)

    def forget_driver(self, driver: LinkDriver) -> None:
        """Forget one whose handshake is over, or that is gone. Idempotent."""
        if self._crowd.discard(driver):
            self._timers.pop(driver).cancel()
