"""Aggregates while rows come: what each keeps of the rows of a group is as little as it can do with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from dtp.graph.query.compiling.syntax import Bound, Evaluate
from dtp.graph.query.values.functions import distinct, percentile
from dtp.graph.query.values.semantics import sort_key


class Total(Protocol):
    """An aggregate of one group."""

    def add_row(self, row: Bound, times: int) -> None:
        """Take so many rows more, which are the same."""

    def result(self) -> Any:
        """Return what the rows come to."""


class RowCount:
    """How many rows there are."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def add_row(self, row: Bound, times: int) -> None:
        """Take so many rows more, which are the same."""
        self._count += times

    def result(self) -> int:
        """Return their number."""
        return self._count


class ValueCount:
    """How many rows have a value."""

    __slots__ = ("_count", "_step", "_value")

    def __init__(self, value: Evaluate, step: Callable[[], None]) -> None:
        self._value = value
        self._step = step
        self._count = 0

    def add_row(self, row: Bound, times: int) -> None:
        """Take so many rows more, which are the same."""
        self._step()
        if self._value(row) is not None:
            self._count += times

    def result(self) -> int:
        """Return their number."""
        return self._count


#: The least and the greatest: whether a key takes the place of another.
EXTREMES: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "min": lambda one, best: bool(one < best),
    "max": lambda one, best: bool(one > best),
}


class Extreme:
    """The first value that none comes before."""

    __slots__ = ("_best", "_is_better", "_key", "_step", "_value")

    def __init__(
        self, value: Evaluate, step: Callable[[], None], is_better: Callable[[Any, Any], bool]
    ) -> None:
        self._value = value
        self._step = step
        self._is_better = is_better
        self._best: Any = None
        self._key: Any = None

    def add_row(self, row: Bound, times: int) -> None:
        """Take so many rows more, which are the same."""
        self._step()
        found = self._value(row)
        if found is None:
            return
        key = sort_key(found)
        if self._key is None or self._is_better(key, self._key):
            self._best, self._key = found, key

    def result(self) -> Any:
        """Return it, None where there is none."""
        return self._best


class Gathered:
    """What a function makes of all values."""

    __slots__ = ("_found", "_once", "_step", "_total", "_value")

    def __init__(
        self, value: Evaluate, step: Callable[[], None], once: bool, total: Callable[[list[Any]], Any]
    ) -> None:
        self._value = value
        self._step = step
        self._once = once
        self._total = total
        self._found: list[Any] = []

    def add_row(self, row: Bound, times: int) -> None:
        """Take so many rows more, which are the same."""
        self._step()
        found = self._value(row)
        if found is not None:
            self._found += [found] if self._once else [found] * times

    def values(self) -> list[Any]:
        """Return the values that aren't null."""
        return distinct(self._found) if self._once else self._found

    def result(self) -> Any:
        """Return what the function makes of them."""
        return self._total(self.values())


class Percentile(Gathered):
    """A percentile: its part is that of the first row."""

    __slots__ = ("_name", "_part", "_wanted")

    def __init__(
        self, value: Evaluate, step: Callable[[], None], once: bool, name: str, part: Evaluate
    ) -> None:
        super().__init__(value, step, once, len)
        self._name = name
        self._part = part
        self._wanted: Any = None

    def add_row(self, row: Bound, times: int) -> None:
        """Take so many rows more, which are the same."""
        if self._wanted is None:
            self._wanted = (self._part(row),)
        super().add_row(row, times)

    def result(self) -> Any:
        """Return it."""
        return percentile(self._name, self.values(), 0 if self._wanted is None else self._wanted[0])
