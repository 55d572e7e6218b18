"""Carriers whose handshake isn't over: bounded in time, in all, and for each source."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice
from random import randrange
from typing import ClassVar

from dtp import carriers
from dtp.errors import LimitError
from dtp.net.driver import LinkDriver
from dtp.net.held import source_group
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
        self._limits, self._loop, self._draw = limits, loop, draw
        self._timers: dict[LinkDriver, asyncio.TimerHandle] = {}
        self._by_source: dict[str, dict[LinkDriver, None]] = {}

    def __len__(self) -> int:
        return len(self._timers)

    def __iter__(self) -> Iterator[LinkDriver]:
        return iter(list(self._timers))

    @property
    def by_source(self) -> dict[str, int]:
        """How many there are of each source that has any."""
        return {source: len(crowd) for source, crowd in self._by_source.items()}

    def make_room(self, source: str) -> bool:
        """Return True if one more of this source may come. One of it, or of the source that has most, goes: the lot
        decides which. A flood from behind the same address throws out mostly its own then, while the oldest would be
        whoever waits for an answer over a long way."""
        limits, group = self._limits, source_group(source)
        crowd = self._by_source.get(group, {})
        if len(crowd) < limits.half_open_per_source:
            if len(self._timers) < limits.half_open:
                return True
            crowd = max(self._by_source.values(), key=len, default={})
        if not crowd:  # a limit is 0
            return False
        drawn = next(islice(crowd, self._draw(len(crowd)), None))
        drawn.abort(Crowded("others wanted to come in, and this one was half-open"))
        return True

    def add(self, driver: LinkDriver) -> None:
        """It is aborted unless its handshake ends in time."""
        source = driver.carrier.source
        patience = max(self._limits.handshake, carriers.patience(driver.carrier.scheme))
        expired = HandshakeError(f"no handshake from {source} in {patience:g} s")
        self._timers[driver] = self._loop.call_later(patience, driver.abort, expired)
        self._by_source.setdefault(source_group(source), {})[driver] = None

    def discard(self, driver: LinkDriver) -> None:
        """Its handshake is over, or it is gone. Idempotent."""
        timer = self._timers.pop(driver, None)
        if timer is None:
            return
        timer.cancel()
        source = source_group(driver.carrier.source)
        crowd = self._by_source[source]
        del crowd[driver]
        if not crowd:
            del self._by_source[source]
