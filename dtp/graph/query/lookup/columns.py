"""What the core looks up for queries: souls by their labels, values and links, and all that is at some of them.

Columns are made when they are first wanted and not kept up to date: who asks has looked at all that changed since.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from dtp.core.crdt import GraphCore
from dtp.crdt import Link, Replica, Value, values
from dtp.crdt.parts import is_part
from dtp.crdt.permission.access import is_internal
from dtp.crdt.permission.rules import MARK
from dtp.graph.query.lookup.pattern import Range

_NUMBER: Final = 0xFFFF_FFFF
#: Changed souls from which on columns are made again.
_MANY: Final = 50_000


def kind_of(soul: str) -> str:
    """Return a node's label: what is before the first slash, of an owned soul behind its owner; "" without one, and
    for the graph's own book-keeping. Under rules it is the kind, without the hash."""
    path = soul.partition("/")[2] if soul.startswith("~") else soul
    kind = path.partition("/")[0] if "/" in path else ""
    if soul.startswith("~") and kind.startswith("."):
        return ""
    return kind[1:].partition(":")[0] if kind.startswith(MARK) else kind


def prefixes_of(kind: str) -> tuple[bytes, ...]:
    """Return what all souls of a label begin with."""
    return (values.encode_name(f"{kind}/"), values.encode_name(f"{MARK}{kind}"), b"~") if kind else (b"",)


class FoundSouls(NamedTuple):
    """Souls, by their numbers in a state: a replica that is built again has another. Some may be too many."""

    core: GraphCore
    numbers: array[int]


class Columns:
    """The columns of one replica. What they find may be too much, never too little."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._core = replica.core
        #: (key, whether of items) -> cells, and souls that may have any value.
        self._by_value: dict[tuple[str, bool], tuple[memoryview, bytes]] = {}
        self._by_link: memoryview | None = None
        #: Souls at which something is different since the columns by value were made.
        self._changed: set[str] = set()

    def on_changed(self, souls: Iterable[str]) -> None:
        """Note that something is different at these souls."""
        self.drop_outdated()
        if self._by_value:
            self._changed.update(souls)
        if len(self._changed) > _MANY:
            self._changed.clear()
            self._by_value.clear()

    def now_having(self, key: str, value: Value) -> FoundSouls:
        """Return souls whose property at a key may be a value, also by what changed since the column was made."""
        found = self._with_value(key, value, items=False)
        return _once(found._replace(numbers=found.numbers + self.find_numbers(self._changed).numbers))

    def drop_outdated(self) -> None:
        """Let go of what is of a state that the replica has no more."""
        if self._core is not self._replica.core:  # built again: other numbers
            self._core = self._replica.core
            self._by_value.clear()
            self._changed.clear()
            self._by_link = None

    def find_having(self, key: str, wanted: Range) -> FoundSouls:
        """Return souls whose property at a key may be in a range."""
        if wanted.is_equality:
            return self._with_value(key, wanted.low, items=False)
        self.drop_outdated()
        name = values.encode_name(key)
        low, high = (b"" if one is None else values.encode(one) for one in wanted)
        of_text = (
            self._core.read_opaque(name, items=False) if any(isinstance(one, str) for one in wanted) else b""
        )
        return _once(self._make_found(self._core.find_between(name, low, high) + of_text))

    def find_containing(self, key: str, item: Value) -> FoundSouls:
        """Return souls whose property at a key may be a list with an item."""
        return self._with_value(key, item, items=True)

    def _with_value(self, key: str, value: Value, *, items: bool) -> FoundSouls:
        self.drop_outdated()
        if (key, items) not in self._by_value:
            name = values.encode_name(key)
            cells = memoryview(self._core.read_column(name, items=items)).cast("Q")
            self._by_value[key, items] = cells, self._core.read_opaque(name, items=items)
        cells, opaque = self._by_value[key, items]
        found = array("I")
        _extend(found, cells, self._core.hash_value(values.encode(value)))
        if items or isinstance(value, str):
            found.frombytes(opaque)
        return _once(FoundSouls(self._core, found))

    def find_linking(self, souls: Iterable[str]) -> FoundSouls:
        """Return souls that may have links to any of these."""
        self.drop_outdated()
        if self._by_link is None:
            self._by_link = memoryview(self._core.read_links()).cast("Q")
        found = array("I")
        for soul in souls:
            _extend(found, self._by_link, self._core.hash_value(values.encode(Link(soul))))
        return FoundSouls(self._core, array("I", sorted(set(found))))

    def of_kind(self, kind: str) -> FoundSouls:
        """Return souls with a label ("" is any) that have something."""
        self.drop_outdated()
        return self._make_found(b"".join(self._core.find_named(prefix) for prefix in prefixes_of(kind)))

    def find_naming(self, kind: str) -> FoundSouls:
        """Return souls with links to what has a label, and nothing else."""
        self.drop_outdated()
        found = self._make_found(b"".join(self._core.find_unmade(prefix) for prefix in prefixes_of(kind)))
        return found._replace(numbers=array("I", sorted(set(found.numbers))))

    def list_souls(self, kind: str) -> list[str]:
        """Return the souls with a label that have something."""
        named = (self._replica.souls(prefix.decode()) for prefix in prefixes_of(kind))
        return [soul for some in named for soul in some if kind_of(soul) == kind]

    def find_numbers(self, souls: Iterable[str]) -> FoundSouls:
        """Return the numbers of souls; those that never had anything are left out."""
        self.drop_outdated()
        found = (self._core.soul_number(values.encode_name(soul)) for soul in souls)
        return FoundSouls(self._core, array("I", (one for one in found if one is not None)))

    def estimate_size(self) -> int:
        """Return roughly how many nodes there are."""
        return self._replica.core.name_count

    @staticmethod
    def read_rows(found: FoundSouls, first: int, behind: int) -> bytes:
        """Return some of what was found: see `GraphCore.rows`."""
        return found.core.read_rows(found.numbers[first:behind])

    def _make_found(self, data: bytes) -> FoundSouls:
        found = array("I")
        found.frombytes(data)
        return FoundSouls(self._core, found)


def _once(found: FoundSouls) -> FoundSouls:
    """Return the same without repetitions: a soul may have several types at a key."""
    return found._replace(numbers=array("I", dict.fromkeys(found.numbers)))


def _extend(found: array[int], column: memoryview, hashed: int | None) -> None:
    if hashed is not None:
        first, behind = (bisect_left(column, one << 32) for one in (hashed, hashed + 1))
        found.extend(cell & _NUMBER for cell in column[first:behind])


def rows_of(data: bytes) -> Iterable[tuple[str, dict[str, Any], list[Any], list[Any]]]:
    """Yield (soul, registers, [key, link...] in sets, what `GraphCore.others` gives) of what `read_rows` gave,
    without the graph's own book-keeping and parts of documents."""
    parts = iter(values.decode(data))
    rows = zip(parts, parts, parts, parts, strict=True)
    return (row for row in rows if not is_internal(row[0]) and not is_part(row[0]))
