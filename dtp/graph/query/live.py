"""Queries that stay: their rows now, and what comes and goes as the graph changes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from dtp.crdt import Node, Replica, Value
from dtp.graph.errors import GraphError
from dtp.graph.query.lookup.properties import properties_of
from dtp.graph.query.run import Row
from dtp.graph.query.values.semantics import Path

if TYPE_CHECKING:
    from dtp.graph.contents import Contents

#: Seconds between two queries: as long as the first took, so that a graph that changes all the time keeps no thread
#: busy for more than half of the time; and at least and at most.
SHORTEST: Final = 0.02
LONGEST: Final = 2.0
#: Rows that are compared in one turn of the loop.
_AT_ONCE: Final = 256


class RowChanges(NamedTuple):
    """How a query's rows differ from before; a row that changed is removed and added.

    A row also changes when a property of a node in it does. Nodes read the graph as it is now, in `removed`, too.
    """

    added: list[Row]
    removed: list[Row]


def _key(replica: Replica, row: Row) -> str:
    """Return what rows are told apart by: of a node its soul and its properties, as they are now."""
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


async def _keys(replica: Replica, rows: list[Row]) -> list[str]:
    """Return the keys of the rows; the loop goes on meanwhile."""
    keys: list[str] = []
    for row in rows:
        keys.append(_key(replica, row))
        if not len(keys) % _AT_ONCE:
            await asyncio.sleep(0)
    return keys


async def follow(graph: Contents, text: str, parameters: Mapping[str, Value]) -> AsyncIterator[RowChanges]:
    """Yield the rows of a query as added, then what was added and removed whenever the graph has changed."""
    loop = asyncio.get_running_loop()
    before: dict[str, Row] = {}
    counted: Counter[str] = Counter()
    with graph.watch() as changes:
        while True:
            began = loop.time()
            try:
                rows = await graph.query_async(text, **parameters)
            except GraphError:
                if graph.closed:
                    return
                raise
            keys = await _keys(graph.replica, rows)
            now, count = dict(zip(keys, rows, strict=True)), Counter(keys)
            added = [now[key] for key in (count - counted).elements()]
            removed = [before[key] for key in (counted - count).elements()]
            if added or removed:
                yield RowChanges(added, removed)
            before, counted = now, count
            await asyncio.sleep(min(max(SHORTEST, loop.time() - began), LONGEST))
            if not await changes.wait():
                return
