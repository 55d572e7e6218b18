"""What was: every op that the stored frames hold about a node, and the node as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dtp.core import crdt as core
from dtp.core.crdt import VOID, GraphCore
from dtp.crdt import Kind, Op, Replica, Value, clock, parts, values
from dtp.crdt.ops import ops_of
from dtp.crdt.permission.access import AccessState, needs_verdict
from dtp.crdt.sequence_changes import SequenceChange, SequenceChanges
from dtp.crdt.sequences import Name
from dtp.graph.formats.items import KINDS, NOTHING, Item, write_whole
from dtp.graph.frames import envelope as envelopes

if TYPE_CHECKING:
    from dtp.crdt.sequences import GraphText
    from dtp.graph.graph import Graph

#: Envelopes that are read from the store at once.
_READ = 256


class HistoryEntry(NamedTuple):
    """One op about a node, and what was there before."""

    op: Op
    #: The number, among its author's, of the frame it was in, or of the last that a summary stands for.
    sequence: int
    #: A register's value before, a counter's sum, a list of the values that a removal, or a value in their place,
    #: takes away; None when there was none (see `had_value`).
    before: Value
    had_value: bool

    @property
    def when(self) -> float:
        """Seconds since 1970, by its author's clock."""
        return clock.clock_seconds(self.op.clock)


async def history(graph: Graph, soul: str, key: str | None) -> list[HistoryEntry]:
    """Return what a node or a key had, the earliest first, as `History.versions` does."""
    found = await _made(graph, soul, lambda op: op.soul == soul and key in (None, op.key))
    return await asyncio.to_thread(_versions, found)


async def _made(graph: Graph, soul: str, wanted: Callable[[Op], bool]) -> list[tuple[Op, int]]:
    """Return the ops that are wanted, at this soul or parts of its document, and the frame of each; by clock."""
    found: list[tuple[Op, int]] = []
    for author, last in sorted(graph.frames.vector().items()):
        known = graph.replica.access.only_revoked() if needs_verdict(author, soul) else None
        reader = _FrameReader(graph.name, author, known)
        for first in range(1, last + 1, _READ):
            data = await graph.frames.read(author, first, min(last, first + _READ - 1))
            found += await asyncio.to_thread(reader.read_wanted, data, wanted)
    await asyncio.to_thread(found.sort, key=lambda pair: (pair[0].clock, pair[0].author))
    return found


class _FrameReader:
    """The ops of one author that count, in the order of its frames: for a thread, as a full one takes a second."""

    def __init__(self, graph: str, author: bytes, known: AccessState | None) -> None:
        """`known`: by what it is judged what is void. None where nothing is."""
        self._graph = graph
        self._author = author
        self._known = known
        self._core = GraphCore(author)
        self._reached = 0

    def read_wanted(self, stored: list[bytes], wanted: Callable[[Op], bool]) -> list[tuple[Op, int]]:
        """Return the ops in the next envelopes that are wanted, and in which envelope each is."""
        found = []
        for data in stored:
            envelope = envelopes.decode(self._graph, data)
            if envelope.body:  # else a summary of what doesn't count any more
                found += [(op, envelope.sequence) for op in self._counting_ops(envelope.body) if wanted(op)]
        return found

    def _counting_ops(self, body: bytes) -> list[Op]:
        told = ops_of(self._core, self._author, body)
        ops = [
            op for op in told if op.clock > self._reached
        ]  # a summary tells of what came before in frames, too
        self._reached = ops[-1].clock if ops else self._reached
        if self._known is None:
            return ops
        ruling = self._known.begin_ruling(
            self._author, ops
        )  # what is void depends on what its author made before
        ruling.commit_verdicts()
        return [op for op, one in zip(ops, ruling.verdicts, strict=True) if one != VOID]


def _versions(found: list[tuple[Op, int]]) -> list[HistoryEntry]:
    """Return ops, the earliest first, with what was there before each."""
    versions = []
    standing: dict[str, Op] = {}
    totals: dict[str, dict[bytes, int]] = {}
    named: dict[tuple[bytes, int], Value] = {}
    for op, sequence in found:
        before, had_value = None, False
        if op.kind is Kind.REGISTER_PUT:
            last = standing.get(op.key)
            if last is not None:
                before, had_value = last.value, last.has_value
            standing[op.key] = op
        elif op.kind is Kind.COUNTER_TOTAL:
            of_all = totals.setdefault(op.key, {})
            before, had_value = (sum(of_all.values()), True) if of_all else (None, False)
            of_all[op.author] = op.value
        else:
            taken = [named[dot] for dot in op.dots if dot in named]
            if taken and op.kind is not Kind.SET_ADD:  # which only takes its own value's place
                before, had_value = taken, True
            if op.has_value:
                named[op.author, op.clock] = op.value
        versions.append(HistoryEntry(op, sequence, before, had_value))
    return versions


def edits(graph: Graph, versions: list[HistoryEntry]) -> Iterator[list[SequenceChange]]:
    """Yield for each version what its edit changes in the text or the list as it was before; nothing of other types.

    An edit that waits for another shows with that one.
    """
    scratch = _scratch(graph)
    readers: dict[Name, SequenceChanges] = {}
    for op in (one.op for one in versions):
        space = _EDITED.get(op.kind)
        if space is None:
            yield []
            continue
        name = space, op.soul, op.key
        if name not in readers:
            readers[name] = scratch.sequences.open_sequence(name).changes()
        scratch.sequences.apply_edit(name, op.edit or op.value, op.author)
        yield readers[name].take_told()


#: Kinds of ops that are edits, and of what.
_EDITED: Final = {Kind.TEXT_EDIT: core.TEXT, Kind.LIST_EDIT: core.LIST}


def _scratch(graph: Graph) -> Replica:
    return Replica(graph.identity.id.key, clock=graph.replica.clock, graph=graph.name)


async def as_of(graph: Graph, soul: str, seconds: float) -> dict[str, dict[str, Any]]:
    """Return what a soul showed at a time, as `History.as_of` does."""
    made = await _of_document(graph, soul)
    return await asyncio.to_thread(_shown, graph, made, soul, seconds)


def _shown(graph: Graph, made: dict[str, list[Op]], soul: str, seconds: float) -> dict[str, dict[str, Any]]:
    then = _at(graph, made, seconds)
    return parts.read_with_parts(soul, lambda part: then.get(part, {}))


async def _of_document(graph: Graph, soul: str) -> dict[str, list[Op]]:
    """Return the ops at a soul, and at each part of its document: soul -> ops, the earliest first."""
    prefix = parts.prefix_of(soul)
    made = await _made(graph, soul, lambda op: op.soul == soul or op.soul.startswith(prefix))
    return await asyncio.to_thread(_by_soul, made)


def _by_soul(made: list[tuple[Op, int]]) -> dict[str, list[Op]]:
    found: dict[str, list[Op]] = {}
    for op, _ in made:
        found.setdefault(op.soul, []).append(op)
    return found


def _at(graph: Graph, made: dict[str, list[Op]], seconds: float) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what was at each soul at a time: soul -> key -> kind -> what."""
    limit = clock.clock_at(seconds, 0xFFFF)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for soul, ops in made.items():
        for (key, space), of_place in _by_place([op for op in ops if op.clock <= limit]).items():
            is_there, value = _AS_OF[space](graph, of_place)
            if is_there:
                found.setdefault(soul, {}).setdefault(key, {})[space] = value
            if space == "text" and (marked := _scratch_text(graph, of_place).marked_ranges()):
                found[soul][key]["marks"] = marked
    return found


def _by_place(ops: list[Op]) -> dict[tuple[str, str], list[Op]]:
    """Return (key, space) -> its ops, the earliest first, of all spaces that can be put together again."""
    found: dict[tuple[str, str], list[Op]] = {}
    for op in ops:
        if op.space in _AS_OF:
            found.setdefault((op.key, op.space), []).append(op)
    return found


def _register(graph: Graph, ops: list[Op]) -> tuple[bool, Value]:
    return ops[-1].has_value, ops[-1].value


def _counter(graph: Graph, ops: list[Op]) -> tuple[bool, int]:
    total = sum({op.author: op.value for op in ops}.values())
    return total != 0, total


def _dots(ops: list[Op]) -> dict[tuple[bytes, int], Value]:
    """Return what stands of a set or of values: the dot of each value that nobody has removed, the earliest first."""
    standing: dict[tuple[bytes, int], Value] = {}
    for op in ops:
        for dot in op.dots:
            standing.pop(dot, None)
        if op.has_value:
            standing[op.author, op.clock] = op.value
    return standing


def _set(graph: Graph, ops: list[Op]) -> tuple[bool, list[Value]]:
    found = {values.encode(value): value for value in _dots(ops).values()}
    return bool(found), [found[encoded] for encoded in sorted(found)]


def _values(graph: Graph, ops: list[Op]) -> tuple[bool, list[Value]]:
    found = list(reversed(_dots(ops).values()))
    return bool(found), found


def _scratch_text(graph: Graph, ops: list[Op]) -> GraphText:
    scratch = _scratch(graph)
    for op in ops:
        scratch.sequences.apply_edit((core.TEXT, op.soul, op.key), op.value, op.author)
    return scratch.text(ops[0].soul, ops[0].key)


def _text(graph: Graph, ops: list[Op]) -> tuple[bool, str]:
    text = str(_scratch_text(graph, ops))
    return text != "", text


def _list(graph: Graph, ops: list[Op]) -> tuple[bool, list[Value]]:
    edits = [op for op in ops if op.kind is Kind.LIST_EDIT]  # the others are of lists before format 4
    scratch = _scratch(graph)
    for op in edits:
        scratch.sequences.apply_edit((core.LIST, op.soul, op.key), op.edit, op.author)
    elements = list(scratch.list(ops[0].soul, ops[0].key))
    return elements != [], elements


#: A space -> whether something is there after these ops, and what.
_AS_OF: Final[dict[str, Callable[[Graph, list[Op]], tuple[bool, Any]]]] = {
    "register": _register,
    "counter": _counter,
    "set": _set,
    "values": _values,
    "text": _text,
    "list": _list,
}


class ValueChange(NamedTuple):
    """Something that was another at two times. A value is None also where there was none: see `had_` and `has_`."""

    before: Any
    after: Any
    had_value: bool
    has_value: bool


async def diff(graph: Graph, soul: str, first: float, second: float) -> dict[str, dict[str, ValueChange]]:
    """Return what is different at a soul since a time, as `History.diff` does."""
    then, later = await as_of(graph, soul, first), await as_of(graph, soul, second)
    return await asyncio.to_thread(_differences, then, later)


def _differences(
    then: dict[str, dict[str, Any]], later: dict[str, dict[str, Any]]
) -> dict[str, dict[str, ValueChange]]:
    found: dict[str, dict[str, ValueChange]] = {}
    for key in sorted(then.keys() | later.keys()):
        before, after = then.get(key, {}), later.get(key, {})
        for kind in KINDS:
            one = ValueChange(before.get(kind), after.get(kind), kind in before, kind in after)
            if one.had_value != one.has_value or values.encode(one.before) != values.encode(one.after):
                found.setdefault(key, {})[kind] = one
    return found


async def restore(graph: Graph, soul: str, seconds: float) -> None:
    """Write what a soul showed at a time, as `History.restore` does."""
    made = await _of_document(graph, soul)
    then = await asyncio.to_thread(_at, graph, made, seconds)
    items = [
        Item(at, key, kind, value)
        for at, keys in then.items()
        for key, kinds in keys.items()
        for kind, value in kinds.items()
    ]
    gone: list[tuple[str, str]] = []
    for at, of_soul in made.items():
        for (key, kind), ops in _by_place(of_soul).items():
            if kind == "text" and "marks" not in then.get(at, {}).get(key, {}):
                items.append(Item(at, key, "marks", []))
            if kind in then.get(at, {}).get(key, {}):
                continue
            if kind != "register":
                items.append(Item(at, key, kind, NOTHING[kind]))
            elif ops[-1].has_value:
                gone.append((at, key))
    await write_whole(graph, items, gone)
