"""The queries of a graph: asked at once or beside the event loop, over indexes that are made when one is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from dtp.crdt import Change, Replica, Value
from dtp.graph.query.budget import QueryBudget

if TYPE_CHECKING:
    from dtp.graph.query.beside import QueryThread
    from dtp.graph.query.run import Queries, Row


class GraphQueries:
    """Answers queries over a replica. The parser's modules are loaded with the first one."""

    def __init__(self, replica: Replica, private: Callable[[], Iterable[str]]) -> None:
        """`private` returns the souls of private nodes that are read here."""
        self._replica, self._private = replica, private
        self._here: Queries | None = None
        self._thread: QueryThread | None = None
        self._declared: set[tuple[str, str, bool]] = set()

    @property
    def is_used(self) -> bool:
        """True if there is an index, which is to hear of changes."""
        return self._here is not None or self._thread is not None

    def run_query(self, text: str, parameters: Mapping[str, Value], budget: QueryBudget) -> list[Row]:
        """Return the rows of a query."""
        return self._get_queries().run(text, parameters, budget)

    async def run_beside(
        self, text: str, parameters: Mapping[str, Value], budget: QueryBudget, check_open: Callable[[], None]
    ) -> list[Row]:
        """Return the rows of a query, which runs in a thread. `check_open` raises when the graph is closed."""
        if self._thread is None:
            make = await asyncio.to_thread(_load_thread)  # the parser's modules take a while
            check_open()
            self._thread = self._thread or make(self._replica, self._private)
        return await self._thread.run_query(text, parameters, budget, self._declared)

    def declare_index(self, kind: str, key: str, *, full_text: bool) -> str:
        """Index a key of the nodes of a kind; return the index's name."""
        name = self._get_queries().index.declare_index(kind, key, full_text=full_text)
        self._declared.add((kind, key, full_text))
        return name

    def explain_query(self, text: str, parameters: Mapping[str, Value]) -> str:
        """Return the SELECTs that the MATCHes of a query become, and how SQLite goes about them."""
        return self._get_queries().explain_query(text, parameters)

    def on_changed(self, changes: list[Change]) -> None:
        """Note that something is different at these souls."""
        if self._here is not None:
            self._here.index.on_changed(changes)
        if self._thread is not None:
            self._thread.on_changed(changes)

    async def close(self) -> None:
        """End what runs beside the loop. Idempotent."""
        if self._thread is not None:
            await self._thread.close()

    def _get_queries(self) -> Queries:
        if self._here is None:
            from dtp.graph.query.run import Queries

            self._here = Queries(self._replica, self._private)
        return self._here


def _load_thread() -> type[QueryThread]:
    from dtp.graph.query.beside import QueryThread

    return QueryThread
