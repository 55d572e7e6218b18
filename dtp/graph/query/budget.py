"""What one query may take: time, rows, steps, memory. Queries that don't end, or that fill memory, are refused."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from dtp.graph.query.errors import QueryError, QueryLimit

_T = TypeVar("_T")
#: Steps between two looks at clock and memory.
_BETWEEN: Final = 1024
#: SQLite's instructions between two looks, and for one step.
INSTRUCTIONS: Final = 4096
_A_STEP: Final = 16
#: Letters or items of a value that count as a step; and from which on it is looked at once.
_LIGHT: Final = 64
_HEAVY: Final = 1 << 18


@dataclass(frozen=True)
class QueryBudget:
    """What each query may take; None means no limit.

    A step is a row or an item that is worked on, or 16 of SQLite's instructions: the same query over the same graph
    takes the same steps on every machine. `memory` are bytes by which the whole process may grow meanwhile, by what
    Linux says of it; elsewhere it limits nothing. Bringing the index up to date is not part of it.
    """

    seconds: float | None = 10.0
    rows: int | None = 1_000_000
    steps: int | None = None
    memory: int | None = 256 << 20


class Meter:
    """What a query has taken so far."""

    def __init__(
        self,
        budget: QueryBudget,
        clock: Callable[[], float] = time.monotonic,
        resident: Callable[[], int] | None = None,
        given_up: Callable[[], bool] | None = None,
    ) -> None:
        """`given_up` tells whether nobody waits for it any more."""
        self._budget = budget
        self._clock = clock
        self._resident = resident_bytes if resident is None else resident
        self._given_up = given_up
        self.begin()
        self._steps = 0
        self._look_at = _BETWEEN
        self._aside = False
        #: Why the query was ended, once it was.
        self.limit: QueryError | None = None

    def begin(self) -> None:
        """Count time and memory from now on."""
        self._began = self._clock()
        self._before = self._resident()

    @property
    def steps(self) -> int:
        """What was counted so far."""
        return self._steps

    def count_step(self) -> None:
        """Count a row or an item. Raises `QueryLimit`."""
        self._steps += 1
        if self._steps >= self._look_at:
            self._check_limits()

    def count_steps(self, steps: int) -> None:
        """Count some steps that were taken. Raises `QueryLimit`."""
        self._steps += steps
        self._check_limits()

    def count_size(self, value: Any) -> None:
        """Count a value that was made, by its size. Raises `QueryLimit`."""
        if type(value) is str or type(value) is list:
            self._steps += len(value) // _LIGHT
            if self._steps >= self._look_at or len(value) >= _HEAVY:
                self._check_limits()

    def count_rows(self, rows: int) -> None:
        """Raise `QueryLimit` if the result has more rows than it may."""
        most = self._budget.rows
        if most is not None and rows > most:
            raise self._make_limit("rows", f"it has more than {most:,} rows; narrow it down, or add LIMIT")

    def count_instructions(self) -> bool:
        """Count some of SQLite's instructions; whether it has to stop, as `limit` says."""
        if self._aside:
            return False
        self._steps += INSTRUCTIONS // _A_STEP
        try:
            self._check_limits()
        except QueryError:
            return True
        return False

    @contextmanager
    def pause_counting(self) -> Iterator[None]:
        """Count no time and no steps of what is done meanwhile: they are the index's."""
        began, self._aside = self._clock(), True
        try:
            yield
        finally:
            self._aside = False
            self._began += self._clock() - began

    @contextmanager
    def without_growth(self) -> Iterator[None]:
        """Count no memory that is taken meanwhile: it is the index's."""
        before = self._resident()
        try:
            yield
        finally:
            self._before += self._resident() - before

    def _check_limits(self) -> None:
        if self.limit is not None:
            raise self.limit
        budget = self._budget
        self._look_at = self._steps + _BETWEEN
        if self._given_up is not None and self._given_up():
            self.limit = QueryError("this query was given up")
            raise self.limit
        if budget.steps is not None and self._steps > budget.steps:
            raise self._make_limit("steps", f"it takes more than {budget.steps:,} steps; narrow it down")
        if budget.seconds is not None and self._clock() - self._began > budget.seconds:
            raise self._make_limit("seconds", f"it takes longer than {budget.seconds:g} s; narrow it down")
        if budget.memory is not None and self._resident() - self._before > budget.memory:
            raise self._make_limit(
                "memory", f"it takes more than {budget.memory >> 20:,} MiB; narrow it down"
            )

    def _make_limit(self, what: str, why: str) -> QueryLimit:
        limit = QueryLimit(f"this query was ended: {why}. Graph.query_budget has what queries may take", what)
        self.limit = limit
        return limit


def resident_bytes() -> int:
    """Return the bytes of memory that the process has, 0 where the system doesn't tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


class _Running(threading.local):
    meter: Meter | None = None


_running = _Running()


def set_thread_meter(meter: Meter | None) -> None:
    """Say whose steps this thread counts from now on."""
    _running.meter = meter


def count_items(items: Iterable[_T]) -> Iterator[_T]:
    """Yield the items of a value, and count them for the query that runs in this thread. Raises `QueryLimit`.

    A list that has another twice, which has another twice, some levels deep, has more items than memory has room for.
    """
    for item in items:
        if _running.meter is not None:
            _running.meter.count_step()
        yield item
