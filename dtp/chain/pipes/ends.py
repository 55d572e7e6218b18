"""The ends of a hub: one for each channel, and which of them are idle and kept to be used again."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from dtp.chain.pipes.end import ChannelEnd

__all__ = ["MOST_IDLE", "PipeEnds"]

#: Ends without a link that are kept, to be used again.
MOST_IDLE: Final = 64


class PipeEnds:
    """Iterable over the ends; at most `most_idle` of them are idle."""

    def __init__(self, most_idle: int = MOST_IDLE) -> None:
        self._most_idle = most_idle
        self._ends: dict[str, ChannelEnd] = {}
        self._idle: OrderedDict[str, ChannelEnd] = OrderedDict()
        self._resting: dict[str, asyncio.Event] = {}

    def __iter__(self) -> Iterator[ChannelEnd]:
        return iter(list(self._ends.values()))

    def __len__(self) -> int:
        return len(self._ends)

    def __contains__(self, end: object) -> bool:
        return isinstance(end, ChannelEnd) and self._ends.get(end.where.channel) is end

    @property
    def channels(self) -> list[str]:
        """The channels that have one, in the order in which they got it."""
        return list(self._ends)

    def find(self, channel: str) -> ChannelEnd | None:
        """Return the end of a channel, if there is one."""
        return self._ends.get(channel)

    def add(self, end: ChannelEnd) -> None:
        """Keep an end, instead of the one before of its channel."""
        self._ends[end.where.channel] = end

    def remove(self, channel: str) -> None:
        """Keep no end of a channel. Idempotent."""
        self._ends.pop(channel, None)
        self._idle.pop(channel, None)

    def clear(self) -> list[ChannelEnd]:
        """Return all, and keep none."""
        ends = list(self)
        self._ends.clear()
        self._idle.clear()
        return ends

    def note_idle(self, end: ChannelEnd) -> list[ChannelEnd]:
        """Keep an end that nobody uses. Return those that are no more here: it, if it has failed, and the ones that
        were idle longest, if there are too many."""
        channel = end.where.channel
        if (rest := self._resting.pop(channel, None)) is not None:
            rest.set()
        gone: list[ChannelEnd] = []
        if end in self:
            self._idle[channel] = end
            self._idle.move_to_end(channel)
            if end.failed is not None:
                self.remove(channel)
                gone.append(end)
        while len(self._idle) > self._most_idle:
            channel, oldest = self._idle.popitem(last=False)
            if oldest.quiet:
                self.remove(channel)
                gone.append(oldest)
        return gone

    async def wait_idle(self, end: ChannelEnd, patience: float) -> None:
        """Wait until nothing is under way on an end any more, so many seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while not end.quiet and end.failed is None:
                    await self._resting.setdefault(end.where.channel, asyncio.Event()).wait()
