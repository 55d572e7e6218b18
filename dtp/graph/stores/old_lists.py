"""What lists held that were written before format 4: their ops are still in the frames, and do nothing any more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtp.crdt import Kind, Op, Value
from dtp.crdt.ops import ops_of
from dtp.crdt.replica import may_write
from dtp.graph.frames import envelope as envelopes

if TYPE_CHECKING:
    from dtp.graph.graph import Graph

#: Envelopes that are read from the store at once.
_READ = 256
_OLD = (Kind.OLD_LIST_INSERT, Kind.OLD_LIST_MOVE, Kind.OLD_LIST_ASSIGN, Kind.OLD_LIST_REMOVE)
_Dot = tuple[bytes, int]


@dataclass
class _Item:
    """An item: the latest op on its place, and on its value."""

    placed: Op
    assigned: Op


async def read_old_lists(graph: Graph) -> dict[tuple[str, str], list[Value]]:
    """Return what the lists of a graph held before format 4, by (soul, key).

    Nothing is changed. One of those who share the graph writes it into lists, and for all:

        for (soul, key), items in (await read_old_lists(graph)).items():
            graph.list(soul, key).extend(items)

    Lists under rules, and those that were written by grants, are left out.
    """
    ops: list[Op] = []
    for author, last in sorted(graph.frames.vector().items()):
        for first in range(1, last + 1, _READ):
            for data in await graph.frames.read(author, first, min(last, first + _READ - 1)):
                body = envelopes.decode(graph.name, data).body
                ops += _old_ops(ops_of(graph.replica.core, author, body) if body else ())
    return dict(sorted(merge(ops)))


def _old_ops(ops: Iterable[Op]) -> Iterator[Op]:
    return (op for op in ops if op.kind in _OLD and op.soul[:1] != "%" and may_write(op.author, op.soul))


def merge(ops: Iterable[Op]) -> Iterator[tuple[tuple[str, str], list[Value]]]:
    """Yield what the ops give, in whatever order they come: (soul, key) and the values."""
    lists: dict[tuple[str, str], dict[_Dot, _Item]] = {}
    ordered = sorted(ops, key=lambda op: (op.clock, op.author))
    for op in ordered:
        if op.kind is Kind.OLD_LIST_INSERT:
            lists.setdefault((op.soul, op.key), {})[op.author, op.clock] = _Item(op, op)
    for op in ordered:
        items = lists.get((op.soul, op.key), {})
        for dot in op.dots:
            if op.kind is Kind.OLD_LIST_REMOVE:
                items.pop(dot, None)
            elif dot in items and op.kind is Kind.OLD_LIST_MOVE:
                items[dot].placed = op
            elif dot in items:
                items[dot].assigned = op
    for name, items in lists.items():
        places = sorted(
            items.items(), key=lambda pair: (pair[1].placed.position or b"", pair[0][1], pair[0][0])
        )
        if places:
            yield name, [item.assigned.value for _, item in places]
