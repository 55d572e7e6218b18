"""What is sent of the own frames: where later ones have overwritten them, a summary of what still counts.

Only an author can sum up its own frames, for it signs what is left out. Others pass the summary on, as it is.
docs/graph.md, "Summaries".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from dtp.crdt.clock import clock_seconds
from dtp.crdt.sums.alone import Alone
from dtp.crdt.sums.summing import Summing
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames import vector
from dtp.graph.frames.envelope import Envelope, Summary, last_clock
from dtp.tasks import start_task

if TYPE_CHECKING:
    from dtp.graph.graph import Graph

#: What is read from the store at once.
READ: Final = 256
#: Bytes of frames that are kept until it is known whether their summary is smaller.
_KEPT: Final = 1 << 20
#: Bytes of an envelope beside its frame, about.
_HEAD: Final = 145
#: Frames of no more bytes are always sent as they are: a peer that was away for a moment keeps the whole history.
_FEW: Final = 4096
#: Seconds that the clock of what is written here may be ahead: a sum that is dated ahead is refused by others.
AHEAD: Final = 1.0
#: What has come behind frames that are being summed up is summed up apart, if it is no more than one part in so many.
_TAIL: Final = 8


async def stored(graph: Graph, parts: Iterable[tuple[bytes, int, int]]) -> AsyncIterator[list[bytes]]:
    """Yield what is stored of these parts, (author, first, last), in order, some at a time.

    Of each that is what the author signed and ends with one of these sequences.
    """
    for batch in _batches(parts):
        some = await graph.frames.read_parts(batch)
        if some:
            yield some


def _batches(parts: Iterable[tuple[bytes, int, int]]) -> Iterator[list[tuple[bytes, int, int]]]:
    """Yield parts of the parts that are `READ` sequences together, so that many authors cost few reads."""
    batch: list[tuple[bytes, int, int]] = []
    room = READ
    for author, first, last in parts:
        while first <= last:
            end = min(last, first + room - 1)
            batch.append((author, first, end))
            room -= end - first + 1
            first = end + 1
            if not room:
                yield batch
                batch, room = [], READ
    if batch:
        yield batch


async def read_alone(graph: Graph, author: bytes, first: int, last: int) -> Alone:
    """Return what an author's frames with these sequences give by themselves. Raises `EncodingError`."""
    alone = Alone(author)
    async for some in stored(graph, [(author, first, last)]):
        for data in some:
            one = envelopes.decode(graph.name, data)
            if isinstance(one, Summary):
                alone.add_summary(one.body, one.after, one.last)
            elif one.body:
                alone.add_frame(one.body)
    return alone


class OneAtATime:
    """What own frames give alone, used by one sum at a time, be it in a thread."""

    def __init__(self, alone: Alone) -> None:
        self.alone = alone
        #: Held while it is used in the loop.
        self.lock = asyncio.Lock()

    async def run_in_thread(self, work: Callable[[], bytes]) -> bytes:
        """Return what `work` does with it in a thread; if the caller is cancelled, others wait until that has
        ended."""
        await self.lock.acquire()
        running = start_task(asyncio.to_thread(work), name="dtp-graph-sum")
        running.add_done_callback(lambda _: self.lock.release())
        return await asyncio.shield(running)


class SharedAlone:
    """What own frames give alone, for all who sum them up at a time: it takes about as much memory as a graph."""

    def __init__(self) -> None:
        #: By the first and the last of the frames; for as long as somebody sums up by it.
        self._in_use: WeakValueDictionary[tuple[int, int], OneAtATime] = WeakValueDictionary()
        self._lock = asyncio.Lock()

    async def read(self, graph: Graph, first: int, last: int, size: int) -> tuple[OneAtATime, int]:
        """Return what the own frames from `first` on, of `size` bytes up to `last`, give alone, and up to which of
        them it may be used: to the last, or shortly before it."""
        author = graph.identity.id.key
        async with self._lock:
            # what is left out may not have been taken back behind the last
            fitting = [known for known in self._in_use if known[0] <= first <= known[1] <= last]
            upto = max((known[1] for known in fitting), default=0)
            shared = next((self._in_use.get(known) for known in fitting if known[1] == upto), None)
            behind = 0 if shared is None else await graph.frames.stored_bytes(author, upto + 1, last)
            if shared is not None and behind * _TAIL <= size:
                return shared, upto
            alone = await read_alone(graph, author, first, last)
            await asyncio.to_thread(alone.open_sequences)
            shared = self._in_use[first, last] = OneAtATime(alone)
        return shared, last


async def own(graph: Graph, first: int, last: int) -> AsyncIterator[list[bytes]]:
    """Yield what stands for the own frames with these sequences: them, or summaries where those are smaller.

    What is dated ahead is summed up apart: a summary of it is refused until it is due, and holds up nothing that was
    made before.
    """
    due = await _last_due(graph, first, last)
    for begin, end in ((first, due), (due + 1, last)):
        async with aclosing(_own_part(graph, begin, end)) as summed_up:
            async for some in summed_up:
                yield some


async def _last_due(graph: Graph, first: int, last: int) -> int:
    """Return the last of these own frames that isn't dated ahead."""
    if graph.clock_ahead < AHEAD:
        return last
    latest = graph.replica.clock.wall() + AHEAD
    async for some in stored(graph, [(graph.identity.id.key, first, last)]):
        for data in some:
            one = envelopes.decode(graph.name, data)
            if clock_seconds(last_clock(graph.replica.core, one)) > latest:
                return max(first, one.first_sequence) - 1
    return last


async def _own_part(graph: Graph, first: int, last: int) -> AsyncGenerator[list[bytes], None]:
    author = graph.identity.id.key
    size = await graph.frames.stored_bytes(author, first, last)
    if size <= _FEW:
        async for some in stored(graph, [(author, first, last)]):
            yield some
        return
    shared, upto = await graph.frames.own_alone.read(graph, first, last, size)
    async for some in _summed_up(graph, shared, first, upto):
        yield some
    if upto < last:
        async for some in _own_part(graph, upto + 1, last):
            yield some


async def _summed_up(graph: Graph, shared: OneAtATime, first: int, last: int) -> AsyncIterator[list[bytes]]:
    run = _Run(graph, shared)
    async for some in stored(graph, [(graph.identity.id.key, first, last)]):
        ready: list[bytes] = []
        for data in some:
            one = envelopes.decode(graph.name, data)
            if await run.try_add(one):
                continue
            ready += await run.finish_run()
            if not await run.try_add(one):
                ready.append(data)
        if ready:
            yield ready
    yield await run.finish_run()


class _Run:
    """Own frames in a row, or summaries of such, and what still counts of them."""

    def __init__(self, graph: Graph, shared: OneAtATime) -> None:
        self._graph = graph
        self._shared = shared
        self._start_run()

    def _start_run(self) -> None:
        self._summary: Summing | None = None
        self._frames: list[Envelope | Summary] = []
        self._first: Envelope | Summary | None = None
        self._last: Envelope | Summary | None = None
        self._size = 0
        self._after = 0

    async def try_add(self, one: Envelope | Summary) -> bool:
        """Return whether it is part of the run now; else `finish_run` first, or it can't be summed up at all."""
        if self._last is not None and one.first_sequence != self._last.sequence + 1:
            return False
        async with self._shared.lock:
            return self._add_to_sum(one)

    def _add_to_sum(self, one: Envelope | Summary) -> bool:
        if self._summary is None:
            core = self._graph.replica.core
            self._after = one.after if isinstance(one, Summary) else core.check_frame(one.body)[0]
            self._summary = Summing(self._shared.alone, self._after)
        if one.body and not self._summary.add_frame(one.body):
            if self._first is None:
                self._summary = None
            return False
        self._first = self._first or one
        self._last = one
        self._size += len(one.body) + _HEAD
        if self._size <= _KEPT:
            self._frames.append(one)
        else:
            self._frames.clear()
        return True

    async def finish_run(self) -> list[bytes]:
        """Return what stands for the run; the next one may begin. It is made in a thread: the edits of many frames
        take long to join."""
        summary, first, last, frames, size = self._summary, self._first, self._last, self._frames, self._size
        after = self._after
        self._start_run()
        if summary is None or first is None or last is None:
            return []
        is_small = bool(frames) and size <= _FEW
        body = b"" if is_small else await self._shared.run_in_thread(summary.finish_frame)
        if is_small or (frames and size <= (len(body) + envelopes.OVERHEAD) * 5 // 4):
            return [frame.encode() for frame in frames]
        clocks = after, last_clock(self._graph.replica.core, last)
        seen = vector.digest(self._graph.frames.heads())
        return [envelopes.sum_up(self._graph.identity, first, last, clocks, seen, body).encode()]
