"""What the core looks up for queries: souls by their labels, values and links, and all that is at some of them.

Columns are made when they are first wanted and not kept up to date: who asks has looked at all that changed since.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, Final

from dtp.crdt import Link, Replica, values
from dtp.crdt.rules import MARK
from dtp.graph.query.pattern import Range

_NUMBER: Final = 0xFFFF_FFFF


def kind_of(soul: str) -> str:
    """A node's label: what is before the first slash, "" without one; under rules the kind, without the hash."""
    kind = soul.partition("/")[0] if "/" in soul else ""
    return kind[1:].partition(":")[0] if kind.startswith(MARK) else kind


def prefixes_of(kind: str) -> tuple[bytes, ...]:
    """What all souls of a label begin with."""
    return (values.name(f"{kind}/"), values.name(f"{MARK}{kind}")) if kind else (b"",)


class Columns:
    """The columns of one replica. Souls are numbers of the core's here; some may be too many, never too few."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._core = replica.core
        self._by_value: dict[str, memoryview] = {}
        self._by_link: memoryview | None = None

    def _current(self) -> None:
        if self._core is not self._replica.core:  # built again: other numbers
            self._core = self._replica.core
            self._by_value.clear()
            self._by_link = None

    def having(self, key: str, wanted: Range) -> array[int]:
        """Souls whose register at a key may be in a range."""
        self._current()
        name = values.name(key)
        low, high = (b"" if one is None else values.encode(one) for one in wanted)
        if not wanted.is_equality:
            return _numbers(self._core.between(name, low, high))
        if key not in self._by_value:
            self._by_value[key] = memoryview(self._core.column(name)).cast("Q")
        found = array("I")
        _extend(found, self._by_value[key], self._core.hash(low))
        return found

    def linking(self, souls: Iterable[str]) -> array[int]:
        """Souls that may have links to any of these."""
        self._current()
        if self._by_link is None:
            self._by_link = memoryview(self._core.links()).cast("Q")
        found = array("I")
        for soul in souls:
            _extend(found, self._by_link, self._core.hash(values.encode(Link(soul))))
        return array("I", sorted(set(found)))

    def of_kind(self, kind: str) -> array[int]:
        """Souls with a label ("" is any) that have something."""
        self._current()
        found = array("I")
        for prefix in prefixes_of(kind):
            found.frombytes(self._core.named(prefix))
        return found

    def naming(self, kind: str) -> array[int]:
        """Souls with links to what has a label, and nothing else."""
        self._current()
        found = array("I")
        for prefix in prefixes_of(kind):
            found.frombytes(self._core.unmade(prefix))
        return array("I", sorted(set(found)))

    def souls(self, kind: str) -> list[str]:
        """The souls with a label that have something."""
        named = (self._replica.souls(prefix.decode()) for prefix in prefixes_of(kind))
        return [soul for some in named for soul in some if kind_of(soul) == kind]

    def numbers(self, souls: Iterable[str]) -> array[int]:
        """The numbers of souls; those that never had anything are left out."""
        self._current()
        found = (self._core.number(values.name(soul)) for soul in souls)
        return array("I", (one for one in found if one is not None))

    def size(self) -> int:
        """About how many nodes there are."""
        return self._replica.core.names

    def rows(self, numbers: array[int]) -> bytes:
        """See `GraphCore.rows`."""
        return self._core.rows(numbers)


def _numbers(data: bytes) -> array[int]:
    found = array("I")
    found.frombytes(data)
    return found


def _extend(found: array[int], column: memoryview, hashed: int | None) -> None:
    if hashed is not None:
        first, behind = (bisect_left(column, one << 32) for one in (hashed, hashed + 1))
        found.extend(cell & _NUMBER for cell in column[first:behind])


def rows_of(data: bytes) -> Iterable[tuple[str, dict[str, Any], list[Any]]]:
    """(soul, registers, [key, link...] in sets) of what `Columns.rows` gave."""
    parts = iter(values.decode(data))
    return zip(parts, parts, parts, strict=True)
