"""What replicas show, worked out anew from the frames that they have: docs/graph.md and docs/text.md, no code of the
package. The order in which frames came can't matter here, since it isn't known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from cards import cuts_of
from crdt_second import ADD, LIST_EDIT, TEXT_EDIT, TOTAL, VALUES_PUT, Op
from plain import Signed, read_value
from reference import list_reference, text_reference
from reference.text_reference import Id, Operation
from verdicts import Author, revocations

#: (soul, key) -> kind -> what is there.
Shown = dict[tuple[str, str], dict[str, Any]]


def counting(chains: Mapping[bytes, Iterable[Signed]]) -> list[Op]:
    """The ops that aren't void."""
    by_author = {author: [op for frame in chain for op in frame.ops] for author, chain in chains.items()}
    revoked = revocations(op for ops in by_author.values() for op in ops)
    cuts = cuts_of(op for ops in by_author.values() for op in ops)
    found = []
    for author, ops in by_author.items():
        verdict = Author(author, revoked, cuts)
        found += [op for op in ops if verdict.take(op)]
    return found


def show(ops: Iterable[Op]) -> Shown:
    """All that is there, by soul and key; without what is empty."""
    places: dict[tuple[str, str, int], list[Op]] = defaultdict(list)
    for op in ops:
        places[op.place].append(op)
    found: Shown = defaultdict(dict)
    for (soul, key, space), about in places.items():
        about.sort(key=lambda op: (op.clock, op.author, op.value is not None, op.value or b""))
        told = _READERS[space](about)
        if told is not None:
            found[soul, key][_KINDS[space]] = told
    return dict(found)


_KINDS = ("register", "counter", "set", "values", "list", "text")


def _register(ops: list[Op]) -> Any:
    latest = ops[-1].value
    return None if latest is None else (read_value(latest),)  # in a tuple, since None is a value


def _counter(ops: list[Op]) -> Any:
    totals = {op.author: read_value(op.value) for op in ops if op.kind == TOTAL}
    return sum(totals.values())


def _standing(ops: list[Op]) -> list[Op]:
    removed = {dot for op in ops for dot in op.dots}
    return [op for op in ops if op.kind in (ADD, VALUES_PUT) and (op.author, op.clock) not in removed]


def _set(ops: list[Op]) -> Any:
    values = {op.value for op in _standing(ops)}
    return [read_value(value) for value in sorted(v for v in values if v is not None)] or None


def _values(ops: list[Op]) -> Any:
    return [read_value(op.value) for op in reversed(_standing(ops))] or None


def _list(ops: list[Op]) -> Any:
    return [read_value(value) for value in _elements(_edits(ops, LIST_EDIT))] or None


def _text(ops: list[Op]) -> Any:
    return _characters(_edits(ops, TEXT_EDIT)) or None


def _edits(ops: list[Op], kind: int) -> tuple[bytes, ...]:
    return tuple(read_value(op.value) for op in ops if op.kind == kind)


@lru_cache(maxsize=256)
def _elements(edits: tuple[bytes, ...]) -> list[bytes]:
    return list_reference.shown(merge(edits, list_reference.causes))


@lru_cache(maxsize=256)
def _characters(edits: tuple[bytes, ...]) -> str:
    return merge(edits, text_reference.references).text()


_READERS = (_register, _counter, _set, _values, _list, _text)


def merge(messages: Iterable[bytes], causes: Callable[[Operation], list[Id]]) -> text_reference.Model:
    """A text, or a list, with all operations of messages whose causes are there."""
    known: dict[bytes, dict[int, Operation]] = defaultdict(dict)
    for message in messages:
        for author, operation in text_reference.decode(message)[1]:
            known[author][operation.number] = operation
    return text_reference.apply_known(known, causes)
