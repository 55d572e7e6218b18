"""Channels as the chain has them, remembered: for a server that many strangers ask, and for whoever watches.

Reading a channel costs a question to a node. So what is known is kept for a while, what isn't there is remembered,
and questions about unknown channels are rationed, for each source and in all: a stranger with invented
tickets costs this server no more than it chooses to spend.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from dtp.bounded import BoundedDict
from dtp.chain import channel as channel_module
from dtp.chain.channel import Channel
from dtp.chain.errors import MalformedObject, ObjectMissing, WrongObjectType
from dtp.chain.host import Bearer
from dtp.chain.node.client import ChainClient
from dtp.errors import LimitError
from dtp.rates import RateLimiter
from dtp.tasks import start_task


class TooManyQuestions(LimitError):
    """Too many unknown channels were asked about; nothing was asked of the chain. Later it may be."""

    code = "too-many-questions"


@dataclass(frozen=True, slots=True)
class BookLimits:
    """What a book costs at most, and how old what it says may be. Seconds."""

    #: A channel is read again when it is older and somebody comes with it: closing takes `claim_ms`, minutes mostly.
    max_age: float = 30.0
    #: What isn't there, or isn't a channel, isn't asked about again for so long. Short: our node may be a moment
    #: behind the one that has just opened a channel.
    missing_age: float = 2.0
    #: Channels that are remembered, and those that aren't there.
    channels: int = 100_000
    missing: int = 100_000
    #: Questions about channels that aren't known, or don't fit: one each interval and so many at once, in all and
    #: of one source.
    all_interval: float = 0.02
    all_burst: int = 200
    source_interval: float = 1.0
    source_burst: int = 20
    sources: int = 65_536


@dataclass(frozen=True, slots=True)
class SeenChannel:
    """A channel as it was at Unix time `at`."""

    channel: Channel
    at: float


class ChannelBook:
    """Channels by id. For one event loop."""

    def __init__(
        self,
        chain: ChainClient,
        *,
        limits: BookLimits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.chain = chain
        self.limits = limits or BookLimits()
        self._clock = clock
        self._known: BoundedDict[str, SeenChannel] = BoundedDict(self.limits.channels)
        self._missing: BoundedDict[str, float] = BoundedDict(self.limits.missing)
        own, everybody = self.limits.source_interval, self.limits.all_interval
        self._sources: RateLimiter[str] = RateLimiter(self.limits.source_burst, own, self.limits.sources)
        self._all: RateLimiter[None] = RateLimiter(self.limits.all_burst, everybody, 1)
        self._reading: dict[str, asyncio.Task[Channel | None]] = {}

    def get_known(self, id: str) -> SeenChannel | None:
        """Return what is remembered of a channel, however old."""
        return self._known.get(id)

    async def find(self, id: str, source: str) -> Channel | None:
        """Return a channel for somebody from `source`; None when there is none of this id.

        Raises `TooManyQuestions`, and what reading raises (`NodeUnavailable`).
        """
        seen, now = self._known.get(id), self._clock()
        if seen is not None:
            self._known.move_to_end(id)
            if 0 <= now - seen.at <= self.limits.max_age:
                return seen.channel
            return await self.read(id)
        missed = self._missing.get(id)
        if missed is not None and 0 <= now - missed < self.limits.missing_age:
            return None
        if id not in self._reading:
            self.take_turn(source)
        return await self.read(id)

    async def read_again(self, id: str, source: str) -> Channel | None:
        """Return a channel as it is now, for somebody whom what is known doesn't fit: rationed as unknown channels
        are."""
        if id not in self._reading:
            self.take_turn(source)
        return await self.read(id)

    async def read(self, id: str) -> Channel | None:
        """Return a channel as it is now; those who ask at the same time share one question. None when there is
        none."""
        task = self._reading.get(id)
        if task is None:
            task = self._reading[id] = start_task(self._read_channel(id), name="dtp-pay-channel")
            task.add_done_callback(lambda _: self._reading.pop(id, None))
        return await asyncio.shield(task)

    def add_read(self, channel: Channel) -> None:
        """Remember a channel that was read elsewhere."""
        self._known[channel.id] = SeenChannel(channel, self._clock())
        self._missing.pop(channel.id, None)

    async def _read_channel(self, id: str) -> Channel | None:
        try:
            found = await self.chain.read(channel_module.SCHEMA, Channel, id)
        except (ObjectMissing, WrongObjectType, MalformedObject):
            self._known.pop(id, None)
            self._missing[id] = self._clock()
            return None
        self.add_read(found)
        return found

    def take_turn(self, source: str) -> None:
        """Count a question to the chain that somebody from `source` causes. Raises `TooManyQuestions`."""
        now = time.monotonic()  # a clock that is set back would lock everybody out
        if self._sources.seconds_until_allowed(source, now):
            raise TooManyQuestions(
                f"too many unknown channels from {source or 'this source'}: try again later"
            )
        if not self._all.try_take(None, now):
            raise TooManyQuestions("too many unknown channels are asked about: try again later")
        self._sources.try_take(source, now)


def affordable(channel: Channel, lane: int, vouched: dict[int, int]) -> int:
    """Return the most that the lane's vouchers may come to, so that all lanes together fit the deposit.

    `vouched` is what the store holds of each lane; a lane whose claim on chain is above that counts with the claim.
    """
    credits = channel.credited if channel.terms.bearer == Bearer.CLIENT else 0
    claimed = {number: entry.amount for number, entry in enumerate(channel.lanes)}
    others = sum(
        max(claimed.get(number, 0), vouched.get(number, 0))
        for number in claimed.keys() | vouched.keys()
        if number != lane
    )
    return max(0, channel.deposited - credits - others)
