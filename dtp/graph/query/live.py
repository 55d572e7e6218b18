"""Queries that stay: their rows now, and what comes and goes as the graph changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from dtp.crdt import Node, Value
from dtp.graph.query.run import Row

if TYPE_CHECKING:
    from dtp.graph.contents import Contents


class Difference(NamedTuple):
    """How a query's rows differ from before; a row that changed is removed and added."""

    added: list[Row]
    removed: list[Row]


def _key(row: Row) -> str:
    return repr([value.soul if isinstance(value, Node) else value for value in row.values()])


async def follow(graph: Contents, text: str, parameters: Mapping[str, Value]) -> AsyncIterator[Difference]:
    """See `Graph.live`."""
    before: dict[str, Row] = {}
    counted: Counter[str] = Counter()
    with graph.watch() as changes:
        while True:
            rows = graph.query(text, **parameters)
            now = {_key(row): row for row in rows}
            count = Counter(map(_key, rows))
            added = [now[key] for key in (count - counted).elements()]
            removed = [before[key] for key in (counted - count).elements()]
            if added or removed:
                yield Difference(added, removed)
            before, counted = now, count
            if not await changes.wait():
                return
