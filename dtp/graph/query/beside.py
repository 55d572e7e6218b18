"""Queries beside the event loop: in a thread, over tables of their own, which are the graph as it was at one time.

The replica is read by the loop alone, a few milliseconds at a time, when the thread asks for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from dtp.crdt import Change, Replica, Value
from dtp.graph.query.budget import QueryBudget
from dtp.graph.query.errors import QueryError
from dtp.graph.query.run import Queries, Row

_T = TypeVar("_T")
#: Seconds between two looks at whether a query was given up while it waits for the loop.
_LOOK: Final = 0.2


class QueryThread:
    """A thread that answers one query after the other."""

    def __init__(self, replica: Replica, revealed: Callable[[], Iterable[str]]) -> None:
        """Made by the event loop's thread."""
        self._loop = asyncio.get_running_loop()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="dtp-graph-query")
        self._given_up: threading.Event | None = None
        self._running: set[threading.Event] = set()
        self.queries = Queries(replica, revealed, ask=self._call_in_loop)

    async def run_query(
        self,
        text: str,
        parameters: Mapping[str, Value],
        budget: QueryBudget,
        declared: Iterable[tuple[str, str, bool]],
    ) -> list[Row]:
        """Return the rows of a query, after those that were asked before. Raises `QueryError`; cancelling it ends
        it."""
        given_up = threading.Event()
        self._running.add(given_up)
        try:
            return await self._loop.run_in_executor(
                self._worker, self._run_in_thread, given_up, text, parameters, budget, tuple(declared)
            )
        finally:
            given_up.set()
            self._running.discard(given_up)

    def _run_in_thread(
        self,
        given_up: threading.Event,
        text: str,
        parameters: Mapping[str, Value],
        budget: QueryBudget,
        declared: Iterable[tuple[str, str, bool]],
    ) -> list[Row]:
        self._given_up = given_up
        self._check_given_up()
        for kind, key, full_text in declared:
            self.queries.index.declare_index(kind, key, full_text=full_text)
        return self.queries.run(text, parameters, budget, given_up=given_up.is_set)

    def _check_given_up(self) -> None:
        if self._given_up is not None and self._given_up.is_set():
            raise QueryError("this query was given up")

    def _call_in_loop(self, function: Callable[..., _T], *given: Any) -> _T:
        """Return what a function gives, called by the loop."""
        self._check_given_up()

        async def answer() -> _T:
            return function(*given)

        asked = asyncio.run_coroutine_threadsafe(answer(), self._loop)
        while True:
            try:
                return asked.result(_LOOK)
            except TimeoutError:
                if asked.done():
                    raise
                self._check_given_up()

    def on_changed(self, changes: Iterable[Change]) -> None:
        """Note which souls have changed."""
        self.queries.index.on_changed(changes)

    async def close(self) -> None:
        """Give up what runs, and end the thread."""
        for given_up in self._running:
            given_up.set()
        await asyncio.to_thread(self._worker.shutdown)
