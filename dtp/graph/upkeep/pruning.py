"""Dropping frames: what an author signed as the sum of its frames comes in their place.

Nothing is dropped by trust. A sum is taken only if it has all of the author's that it didn't take back itself, and
contradicts none of the frames that go. docs/graph.md, "Pruning".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from dtp.core.errors import EncodingError
from dtp.crdt.operations import Operations
from dtp.crdt.ops import Kind, Op, ops_of
from dtp.crdt.sequences import EDITED, Name
from dtp.crdt.sums.alone import Alone
from dtp.errors import DtpError
from dtp.graph.errors import GraphError
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames import summaries
from dtp.graph.frames.envelope import Envelope, Summary
from dtp.graph.frames.proving import Comparing, edits_in
from dtp.graph.permission.agreement import has_agreed, is_agreed, is_asked, state_agreement
from dtp.graph.sync.passing import are_due, saves_enough
from dtp.graph.upkeep.letting_go import can_sum_up, let_go
from dtp.tasks import start_task

if TYPE_CHECKING:
    from dtp.core.crdt import SummaryCore
    from dtp.graph.graph import Graph

#: Bytes of frames that are stored before a graph that prunes looks for what it can drop; and no fewer than half of
#: what was left the last time, so that the work is in proportion to what is stored.
LEAST: Final = 256 * 1024
#: What an op leaves that stands by itself: removals are compared with the frames.
_STANDING: Final = frozenset(Kind) - {Kind.SET_REMOVE, Kind.VALUES_REMOVE}

Signed = Envelope | Summary


class Pruned(NamedTuple):
    """What was dropped from a store."""

    #: Envelopes that are not in it any more.
    frames: int
    #: Bytes of them, less those of what came in their place.
    bytes: int


class Prunable(NamedTuple):
    """What could be dropped from a store."""

    #: Bytes of all that is stored.
    stored: int
    #: Bytes of it that their authors overwrote or took back. `Graph.upkeep` drops of it what has been summed up.
    overwritten: int


# ---- what stands ------------------------------------------------------------------------------------------------


class _Standing:
    """What one author's frames, which are given in order, have that it didn't replace or take away itself."""

    def __init__(self, alone: Alone) -> None:
        self._alone = alone
        self._summary: SummaryCore | None = None

    def add_signed(self, one: Signed) -> Iterator[bytes]:
        """Take what comes next; yield the frames of what stands that are whole with it."""
        for _ in range(2):
            if self._summary is None:
                after = one.after if isinstance(one, Summary) else self._alone.core.check_frame(one.body)[0]
                self._summary = self._alone.begin_summary(after)
            if not one.body or self._summary.add_frame(one.body):
                return
            yield from self.finish_frames()
        yield one.body  # it can't be summed up: an op of an old list in it needs a verdict

    def finish_frames(self) -> Iterator[bytes]:
        """Yield the last frame of what stands."""
        summary, self._summary = self._summary, None
        if summary is not None and (body := summary.finish_frame()):
            yield body


async def _stored(graph: Graph, author: bytes, upto: int) -> AsyncIterator[Signed]:
    async for some in summaries.stored(graph, [(author, 1, upto)]):
        for data in some:
            yield envelopes.decode(graph.name, data)


async def look(graph: Graph) -> Prunable:
    """Return what is stored, and how much of it doesn't count any more."""
    stored = left = 0
    for author, last in graph.frames.vector().items():
        standing = _Standing(await summaries.read_alone(graph, author, 1, last))
        async for one in _stored(graph, author, last):
            stored += len(one.encode())
            left += sum(map(len, standing.add_signed(one)))
        left += sum(map(len, standing.finish_frames()))
    return Prunable(stored, max(0, stored - left))


# ---- may it come in their place? ----------------------------------------------------------------------------------


class _Parts:
    """The parts of a sum of all of an author's frames up to one, beside the frames themselves."""

    def __init__(self, alone: Alone, parts: list[Signed]) -> None:
        self._alone = alone
        self._parts = parts
        self._comparing = Comparing()
        self._at = 0
        core, author = alone.core, parts[0].author
        self._told = {
            (op.clock, op.kind) for part in parts if part.body for op in ops_of(core, author, part.body)
        }
        self._edits: dict[Name, Operations] = {}
        for part in parts:
            for name, told in edits_in(part).items():
                self._edits.setdefault(name, Operations()).merge_operations(told)

    def are_frames(self) -> bool:
        """Return whether all can be read when the store is opened."""
        check = self._alone.core.check_frame
        for part in self._parts:
            if isinstance(part, Summary) and part.body:
                before, last, _ = check(part.body, part.author)
                if before != part.after or last > part.last:
                    return False
        return True

    def has_all_of(self, body: bytes) -> bool:
        """Return whether all that stands of a frame is in it."""
        ops = ops_of(self._alone.core, self._alone.author, body)
        return all(
            self._has_edit(op) if op.kind in EDITED else (op.clock, op.kind) in self._told
            for op in ops
            if op.kind in _STANDING
        )

    def _has_edit(self, op: Op) -> bool:
        """Return whether edits tell of all operations of this one, and of their content all that the author didn't
        delete or replace itself."""
        edit, name = op.edit or op.value, (EDITED[op.kind], op.soul, op.key)
        if name not in self._edits or not isinstance(edit, bytes):
            return False
        known, told = self._edits[name], Operations()
        told.add_edit(edit)
        if not known.has_all_of(told):
            return False
        return not any(self._alone.has_content_of(name, span) for span in known.without_content(told))

    def is_consistent(self, one: Signed) -> bool:
        """Return whether nothing in it contradicts what is stored, which is given in order."""
        while self._parts[self._at].sequence < one.first_sequence:
            self._at += 1
        for part in self._parts[self._at :]:
            if part.first_sequence > one.sequence:
                break
            if part.signature != one.signature and self._comparing.are_contradictory(part, one):
                return False
        return True


async def _may_replace(graph: Graph, parts: list[Signed]) -> bool:
    """Return whether a sum has all of the frames that it is about that their author didn't take back itself."""
    author, upto = parts[0].author, parts[-1].sequence
    alone = await summaries.read_alone(graph, author, 1, upto)
    sums, standing = _Parts(alone, parts), _Standing(alone)
    last: Signed | None = None
    if not sums.are_frames():
        return False
    await asyncio.to_thread(alone.open_sequences)
    async for one in _stored(graph, author, upto):
        if not sums.is_consistent(one) or not all(map(sums.has_all_of, standing.add_signed(one))):
            return False
        last = one
    is_same = last is not None and last.sequence == upto and last.hash == parts[-1].hash
    return is_same and all(map(sums.has_all_of, standing.finish_frames()))


def _is_taken_by_others(graph: Graph, parts: list[Signed]) -> bool:
    """Return whether others take these parts as well: whom an author gives only sums, to which nobody can agree, it
    tells nothing."""
    return all(is_agreed(graph, one) for one in parts if isinstance(one, Summary))


async def _prune_author(graph: Graph, author: bytes) -> Pruned:
    """Put what was kept as the sum of an author's frames in their place, if it may be."""
    upto = graph.passed.last_of(author)
    here = graph.frames.last_of(author)
    if upto > here:
        await graph.frames.ask_store(graph.passed.parts_of, author)  # which removes it if that is damage
    if upto > here or author in graph.forks or any(gap[0] == author for gap in graph.frames.lost()):
        return Pruned(0, 0)
    size = await graph.frames.stored_bytes(author, 1, upto)
    saves = saves_enough(graph.passed.size_of(author), size)
    is_own = author == graph.identity.id.key
    may_agree = is_asked(graph) and not is_own
    if not saves and not may_agree:
        return Pruned(0, 0)
    parts = [
        envelopes.decode(graph.name, one)
        for one in await graph.frames.ask_store(graph.passed.parts_of, author)
    ]
    may_agree = may_agree and not has_agreed(graph, parts)
    if not (parts and (saves or may_agree) and are_due(graph, parts)):
        return Pruned(0, 0)
    if is_own and not _is_taken_by_others(graph, parts):
        return Pruned(0, 0)
    try:
        if not await _may_replace(graph, parts):
            return Pruned(0, 0)
    except EncodingError:  # what its author signed is not a frame
        return Pruned(0, 0)
    if may_agree:
        state_agreement(graph, parts)
        await graph.commits.commit()  # who is killed has said so, or has the frames
    if not saves or not (dropped := await graph.replace_stored(parts)):
        return Pruned(0, 0)
    graph.offering.forget_taken(author)
    if is_own:
        graph.offering.on_replaced()
    return Pruned(dropped, size - await graph.frames.stored_bytes(author, 1, upto))


async def prune(graph: Graph, *, at_once: bool = True) -> Pruned:
    """Drop frames that were summed up; return what was dropped.

    Unless `at_once`, own frames are summed up only when they have grown enough. Where something fails, the rest is
    done before that is raised.
    """
    graph.check_writable()
    if graph.keeps_history:
        raise GraphError("this graph keeps its history; open it without history to prune it")
    await graph.commits.commit()
    own, found = graph.identity.id.key, list[Pruned]()
    errors: list[DtpError] = []
    if graph.admission.agreement is not None and graph.passed.last_of(own):
        with _held(errors):
            found.append(await _prune_author(graph, own))  # to the next sum nobody agrees yet
    if can_sum_up(graph):
        with _held(errors):
            await let_go(graph)
            await graph.offering.refresh_offer(graph, at_once=at_once)
    for author in graph.passed.list_authors():
        with _held(errors):
            found.append(await _prune_author(graph, author))
    pruned = Pruned(sum(one.frames for one in found), sum(one.bytes for one in found))
    if pruned.frames:
        await graph.shrink()
    if errors:
        raise errors[0]
    return pruned


@contextmanager
def _held(errors: list[DtpError]) -> Iterator[None]:
    """Keep what fails until the rest is done: one author's frames hold up no others'."""
    try:
        yield
    except DtpError as error:
        errors.append(error)


class Pruner:
    """Prunes a graph in the background as it grows."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._grown = 0
        self._wait = 0  # bytes, where that is more than the least
        self._task: asyncio.Task[None] | None = None

    def on_stored_bytes(self, bytes: int) -> None:
        """Note that so much was stored."""
        self._grown += bytes
        if (
            self._grown >= max(self._graph.upkeep.least, self._wait)
            and self._task is None
            and not self._graph.closed
        ):
            self._grown = 0
            self._task = start_task(self._prune_store(), name="dtp-graph-prune")

    async def _prune_store(self) -> None:
        try:
            await prune(self._graph, at_once=False)
            vector = self._graph.frames.vector()
            sizes = [
                await self._graph.frames.stored_bytes(author, 1, last) for author, last in vector.items()
            ]
            self._wait = sum(sizes) // 2
        except DtpError as error:
            if not self._graph.closed:
                context = {"message": "a graph could not be pruned", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
        finally:
            self._task = None

    async def close(self) -> None:
        """End what runs."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
