"""What of the stored frames goes to a peer that has, or asks for, only a part. docs/partial.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dtp.core.crdt import GraphCore
from dtp.core.errors import EncodingError
from dtp.crdt import values
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames import summaries
from dtp.graph.frames.envelope import Signed, Skipped
from dtp.graph.sync.part import Part

if TYPE_CHECKING:
    from dtp.graph.graph import Graph


@dataclass(frozen=True)
class SyncTerms:
    """What a side of a sync asks for and gives: of parts, None is all."""

    #: What it asks for.
    part: Part | None = None
    #: What it gives: what is there, or less.
    gives: Part | None = None
    #: Whether it takes what the other side has.
    takes: bool = True

    @property
    def is_whole(self) -> bool:
        """Whether all is asked for and given."""
        return self.part is None and self.gives is None


#: All, both ways.
ALL: Final = SyncTerms()


class Choosing:
    """Chooses of frames, each author's in order: whole, or skipped where the peer's part has none of it.

    `ours` are the terms of this side, `theirs` the peer's. Of the author `whole` nothing is skipped. With `is_limit`
    nothing goes out that has none of what is given; else what is stored beside it does.
    """

    def __init__(self, ours: SyncTerms, theirs: SyncTerms, whole: bytes, *, is_limit: bool) -> None:
        wanted, gives = theirs.part, ours.gives
        self._wanted = wanted
        self._whole = whole
        self._may_skip = wanted is not None and (gives is None or gives.covers_part(wanted))
        self._limit = gives if is_limit and not self._may_skip else None
        self._core = GraphCore(bytes(32))
        self._author = b""
        self._first: Signed | None = None
        self._last: Signed | None = None
        self._is_over = False  # what comes next of the author isn't given, so nothing behind it can be

    def choose_next(self, one: Signed) -> list[bytes]:
        """Return what can be sent now that this comes next."""
        ended: list[bytes] = []
        if one.author != self._author:
            ended = self.finish_skipped()
            self._author, self._is_over = one.author, False
        if self._is_over:
            return ended
        is_whole = one.author == self._whole
        if isinstance(one, Skipped):
            is_skipped, self._is_over = True, is_whole or not self._may_skip
        else:
            is_skipped = not is_whole and not self._is_in_part(one, self._wanted)
            self._is_over = not is_whole and not self._is_in_part(one, self._limit)
        if self._is_over:
            return ended + self.finish_skipped()
        if is_skipped:
            self._first = self._first or one
            self._last = one
            return ended
        return [*ended, *self.finish_skipped(), one.encode()]

    def finish_skipped(self) -> list[bytes]:
        """Return what stands for what was skipped last."""
        first, last = self._first, self._last
        self._first = self._last = None
        return [Skipped.spanning(first, last).encode()] if first is not None and last is not None else []

    def _is_in_part(self, one: Signed, part: Part | None) -> bool:
        """Return whether there is anything in it of a part."""
        if part is None:
            return True
        if not one.body:
            return False
        try:
            return any(part.has_soul(op[1]) for op in values.decode(self._core.decode_ops(one.body)))
        except EncodingError:  # whoever gets it refuses it by itself
            return True


async def chosen(
    graph: Graph, parts: Iterable[tuple[bytes, int, int]], choosing: Choosing
) -> AsyncIterator[list[bytes]]:
    """Yield what goes to a peer of what is stored of these parts, (author, first, last), in order, some at a time."""

    def choose(some: list[bytes]) -> list[bytes]:
        return [out for data in some for out in choosing.choose_next(envelopes.decode(graph.name, data))]

    async for some in summaries.stored(graph, parts):
        if found := await asyncio.to_thread(choose, some):
            yield found
    if found := choosing.finish_skipped():
        yield found
