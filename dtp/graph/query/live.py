"""Queries that stay: their rows now, and what comes and goes as the graph changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from dtp.crdt import Node, Replica, Value
from dtp.graph.query.properties import properties_of
from dtp.graph.query.run import Row
from dtp.graph.query.semantics import Path

if TYPE_CHECKING:
    from dtp.graph.contents import Contents


class Difference(NamedTuple):
    """How a query's rows differ from before; a row that changed is removed and added.

    A row also changes when a property of a node in it does. Nodes read the graph as it is now, in `removed`, too.
    """

    added: list[Row]
    removed: list[Row]


def _key(replica: Replica, row: Row) -> str:
    """What rows are told apart by: of a node its soul and its properties, as they are now."""
    return repr([_told(replica, value) for value in row.values()])


def _told(replica: Replica, value: object) -> object:
    if isinstance(value, Node):
        return value.soul, sorted(properties_of(replica, value.soul).items(), key=itemgetter(0))
    if isinstance(value, Path):
        return [_told(replica, node) for node in value.nodes], value.relationships
    if isinstance(value, list):
        return [_told(replica, each) for each in value]
    if isinstance(value, dict):
        return {key: _told(replica, each) for key, each in value.items()}
    return value


async def follow(graph: Contents, text: str, parameters: Mapping[str, Value]) -> AsyncIterator[Difference]:
    """See `Graph.live`."""
    before: dict[str, Row] = {}
    counted: Counter[str] = Counter()
    with graph.watch() as changes:
        while True:
            rows = graph.query(text, **parameters)
            keys = [_key(graph.replica, row) for row in rows]
            now = dict(zip(keys, rows, strict=True))
            count = Counter(keys)
            added = [now[key] for key in (count - counted).elements()]
            removed = [before[key] for key in (counted - count).elements()]
            if added or removed:
                yield Difference(added, removed)
            before, counted = now, count
            if not await changes.wait():
                return
