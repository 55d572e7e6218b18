"""Signing stranded work again: what an author made that is in no history that others take, or that is void by now.

It is in a fork (a restored backup, a copied file), or was made by a device that was put out before it had synced.
docs/keeping-graphs.md, "Stranded work".
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from dtp.core import crdt as core
from dtp.core.crdt import VOID, GraphCore
from dtp.core.errors import NotOwner
from dtp.crdt import Kind, Op, Replica, Value, values
from dtp.crdt.ops import ops_of
from dtp.crdt.permission.access import AccessState, is_internal
from dtp.crdt.permission.owners import RECOVERED, STATIC_KEY, owned_soul, owner_name
from dtp.crdt.permission.rules import MARK, RuleBroken
from dtp.graph.errors import GraphError
from dtp.graph.formats.items import LeftOut
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames.envelope import Envelope, Summary
from dtp.graph.stores import loading
from dtp.graph.stores.store import MEMORY

if TYPE_CHECKING:
    from dtp.graph.graph import Graph

#: Envelopes that are taken in at once.
_AT_ONCE: Final = 256
#: No author's key.
_NOBODY: Final = b"\xff" * core.AUTHOR_SIZE
_FOREVER: Final = (1 << 63) - 1
_EDITED: Final = {Kind.TEXT_EDIT: core.TEXT, Kind.LIST_EDIT: core.LIST}


#: Who, and its clock.
Dot = tuple[bytes, int]


class Resigned(NamedTuple):
    """What came of stranded work."""

    #: Envelopes of the author that nothing speaks against, and that are here now as it signed them.
    received: int
    #: Ops that were signed again, by this identity.
    ops: int
    #: What couldn't be, and why.
    left: list[LeftOut]


@dataclass
class _Work:
    """One author's stranded ops, on their way into a replica."""

    graph: Graph
    #: A copy of the replica, into which its edits of texts and lists go as they are.
    copy: Replica
    #: Counters: (soul, key) -> the author's total before the first stranded op.
    totals: dict[tuple[str, str], int]
    #: Makes ops anew, with the clocks they had.
    maker: GraphCore = field(default_factory=lambda: GraphCore(_NOBODY))
    #: Its dots -> what it put into sets, maps and registers with several values; those that were signed again.
    made: dict[Dot, Value] = field(default_factory=dict)
    signed: set[Dot] = field(default_factory=set)
    #: Sets: (soul, key) -> what was in it before anything was signed again.
    sets: dict[tuple[str, str], dict[Dot, Value]] = field(default_factory=dict)
    done: int = 0
    left: dict[tuple[str, str], None] = field(default_factory=dict)

    def sign_again(self, op: Op, *, again: bool) -> None:
        """Sign an op again, if it isn't overwritten here; `again` if some before it were the last time."""
        if again and op.kind in _EDITED:
            self.note_left_out(op, "edits before it were signed again already")
            return
        try:
            self.done += self._sign_op(op)
        except (NotOwner, RuleBroken) as error:
            self.note_left_out(op, str(error))

    def note_left_out(self, op: Op, why: str) -> None:
        """Note an op that isn't signed again, and why."""
        self.left[f"{op.space} {op.key!r} of {op.soul!r}", why] = None

    def _sign_op(self, op: Op) -> bool:
        if self.graph.is_private(op.soul):
            self.note_left_out(op, "it is sealed, and bound to its author")
            return False
        if op.kind in _EDITED:
            return self._sign_edit(op)
        if op.kind is Kind.REGISTER_PUT:
            return self._sign_put(op)
        if op.kind is Kind.COUNTER_TOTAL:
            return self._sign_count(op)
        return self._sign_change(op)

    def _sign_edit(self, op: Op) -> bool:
        """Return the text or list with it, as all would have merged it, and what that changes."""
        name = _EDITED[op.kind], op.soul, op.key
        shown = self.copy.sequences.open_sequence(name)
        with shown.changes() as changes:
            self.copy.sequences.apply_edit(name, op.edit or op.value, op.author)
            told = changes.take_told()
        patches = [patch for change in told for patch in change.patches]
        formats = [one for change in told for one in change.formats]
        if op.kind is Kind.TEXT_EDIT:
            text = self.graph.text(op.soul, op.key)
            text.edit(patches)
            for at, length, attributes in formats:
                for mark, value in attributes.items():
                    text.mark(at, at + length, mark, value)
        else:
            listed = self.graph.list(op.soul, op.key)
            for at, count, new in patches:
                listed[at : at + count] = new
        return bool(patches or formats)

    def _sign_put(self, op: Op) -> bool:
        if not self._is_newest(op):
            return False
        row = (op.soul, op.key, op.value) if op.has_value else (op.soul, op.key)
        self.graph.replica.put_many([row])
        return True

    def _is_newest(self, op: Op) -> bool:
        """True if a register is what this op says, or would be: what is here, or was deleted here, isn't newer. Found
        out by merging it into the copy, as of another author, since the clocks of its own were seen."""
        row = (op.soul, op.key, op.value) if op.has_value else (op.soul, op.key)
        with self.maker.trust_own():
            self.maker.put_registers(values.encode_rows([row]), op.clock)
        made = self.maker.commit()
        assert made is not None
        merged = self.copy.core
        number = merged.author_number(_NOBODY)
        changed = merged.merge_frame(number, made[0], _FOREVER)
        if changed == core.RULED:
            merged.set_verdicts(bytes([core.ALLOWED]))
            changed = merged.merge_frame(number, made[0], _FOREVER)
        return changed > 0

    def _sign_count(self, op: Op) -> bool:
        before = self.totals.get((op.soul, op.key), 0)
        self.totals[op.soul, op.key] = op.value
        self.graph.counter(op.soul, op.key).add(op.value - before)
        return bool(op.value != before)

    def _sign_change(self, op: Op) -> bool:
        """Sign a change of a set, a map or a multi-value register again; return whether something was made."""
        mine = self.graph.replica.author
        if op.has_value:
            self.made[op.author, op.clock] = op.value
        if op.space == "set":
            return self._change_set(op)
        there = self._read_entries(core.VALUES, op)
        is_mine = any(dot in self.signed for dot in op.dots)
        if any(dot not in op.dots and not (is_mine and dot[0] == mine) for dot in there):
            self.note_left_out(op, "another value was written there at the same time, and stays")
            return False
        kept = self.graph.multi_value(op.soul, op.key)
        if op.has_value:
            self.signed.add((op.author, op.clock))
            kept.set(op.value)
        else:
            kept.clear()
        return op.has_value or bool(there)

    def _read_entries(self, space: int, op: Op) -> dict[Dot, Value]:
        replica, names = self.graph.replica, (values.encode_name(op.soul), values.encode_name(op.key))
        found = values.decode(replica.core.read_space(space, *names))
        return {(replica.author_key(by), at): value for by, at, value in found}

    def _change_set(self, op: Op) -> bool:
        kept, name = self.graph.set(op.soul, op.key), (op.soul, op.key)
        if name not in self.sets:
            self.sets[name] = self._read_entries(core.SET, op)
        if op.kind is Kind.SET_ADD:
            is_new = op.value not in kept
            kept.add(op.value)
            self.signed |= {(op.author, op.clock)} if is_new else set()
            return is_new
        replica, before = self.graph.replica, self.sets[name]
        mine = {values.encode(self.made[dot]) for dot in op.dots if dot in self.signed}
        done = False
        for encoded in mine | {values.encode(before[dot]) for dot in op.dots if dot in before}:
            names = values.encode_name(op.soul), values.encode_name(op.key)
            found = values.decode(replica.core.observed_dots(core.SET_REMOVE, *names, value=encoded))
            dots = [(replica.author_key(by), at) for by, at in found]
            if dots and all(
                dot in op.dots or (encoded in mine and dot[0] == replica.author) for dot in dots
            ):  # else others have added it, too
                kept.discard(values.decode(encoded))
                done = True
        return done


async def recover_from(graph: Graph, source: str | None, author: bytes) -> Resigned:
    """Sign stranded work again, as `Graph.recover_from` does; return what was done and what was left."""
    graph.check_writable()
    await graph.commits.commit()
    theirs = None if source is None else await asyncio.to_thread(_envelopes, graph, source, author)
    ours = await _here(graph, author)
    received = 0
    # without a fork they are taken as they are
    if theirs is not None and await asyncio.to_thread(_common, ours, theirs) == len(ours):
        for at in range(len(ours), len(theirs), _AT_ONCE):
            received += await graph.receive(one.encode() for one in theirs[at : at + _AT_ONCE])
        ours = await _here(graph, author)
    signed = ours if theirs is None else theirs
    marks = graph.replica.node(owned_soul(graph.identity.id.key, RECOVERED))
    mark = marks.get(owner_name(author))
    now, totals = graph.replica.access.only_revoked(), dict[tuple[str, str], int]()
    behind, found = await asyncio.to_thread(
        _stranded, AccessState(graph.name), now, ours, signed, mark, totals
    )
    if not found:
        return Resigned(received, 0, [])
    # from here on nothing else has a turn, which would change what the copy is of
    work = _work(graph, totals)
    for op in found:
        work.sign_again(op, again=behind > 0)
    if work.done:
        marks[owner_name(author)] = [signed[-1].sequence, signed[-1].hash]
    await graph.commits.commit()
    graph.commits.note_fork_told()  # it is what this mends
    return Resigned(received, work.done, [LeftOut(*one) for one in work.left])


def _signed_again(signed: list[Envelope | Summary], mark: Value) -> int:
    """Return how many of these envelopes this identity has signed again before, by what it noted then."""
    for place, one in enumerate(signed):
        if [one.sequence, one.hash] == mark:
            return place + 1
    return 0


def _envelopes(graph: Graph, source: str, author: bytes) -> list[Envelope | Summary]:
    """Return all of an author in another store, in order. Raises `GraphError`, `StoreError`."""
    if source == MEMORY:
        raise GraphError("stranded work is in a file or in PostgreSQL, not in memory")
    store = loading.open_store(source, graph.name, graph.identity.id.key, read_only=True)
    try:
        found = list(loading.iter_stored(store, author))
    finally:
        store.close()
    if not all(one.is_genuine() for one in found):
        raise GraphError(f"{source} has what {owner_name(author)} is said to have signed, and hasn't")
    return found


async def _here(graph: Graph, author: bytes) -> list[Envelope | Summary]:
    last, found = graph.frames.last_of(author), list[Envelope | Summary]()
    for first in range(1, last + 1, _AT_ONCE):
        some = await graph.frames.read(author, first, min(last, first + _AT_ONCE - 1))
        found += await asyncio.to_thread(_decode_all, graph.name, some)
    return found


def _decode_all(name: str, some: list[bytes]) -> list[Envelope | Summary]:
    return [envelopes.decode(name, data) for data in some]


def _common(ours: list[Envelope | Summary], theirs: list[Envelope | Summary]) -> int:
    """Return how many of theirs are of the history that is here."""
    known = {one.sequence: one.hash for one in ours}
    last = max(known, default=0)
    for place, one in enumerate(theirs):
        if one.sequence > last or known.get(one.sequence, one.hash) != one.hash:
            return place
    return len(theirs)


def _work(graph: Graph, totals: dict[tuple[str, str], int]) -> _Work:
    graph.sign()
    replica = graph.replica
    copy = Replica.load(replica.author, replica.save(), clock=replica.clock, graph=replica.access.graph)
    return _Work(graph, copy, totals)


def _stranded(
    alone: AccessState,
    now: AccessState,
    ours: list[Envelope | Summary],
    signed: list[Envelope | Summary],
    mark: Value,
    totals: dict[tuple[str, str], int],
) -> tuple[int, list[Op]]:
    """Return how many envelopes were signed again before, by `mark`, and the ops behind them that count by themselves
    and don't here: they are in another history than ours, or void by what others said. What those before come to of
    counters goes into `totals`."""
    found, common, behind = [], _common(ours, signed), _signed_again(signed, mark)
    for place, envelope in enumerate(signed):
        if not envelope.body:
            continue
        author = envelope.author
        ops = ops_of(GraphCore(author), author, envelope.body)
        rulings = alone.begin_ruling(author, ops), now.begin_ruling(author, ops)
        for ruling in rulings:
            ruling.commit_verdicts()
        for op, by_itself, here in zip(ops, *(one.verdicts for one in rulings), strict=True):
            if by_itself == VOID or _is_bookkeeping(op):
                continue
            if place >= common or here == VOID:
                found += [op] if place >= behind else []
            elif op.kind is Kind.COUNTER_TOTAL:
                totals[op.soul, op.key] = op.value
    return behind, found


def _is_bookkeeping(op: Op) -> bool:
    """True for what each author says of itself: grants, cards, rules it has shipped, its static key."""
    if is_internal(op.soul) or (op.soul == owned_soul(op.author) and op.key == STATIC_KEY):
        return True
    return op.soul.startswith(MARK) and "/" not in op.soul
