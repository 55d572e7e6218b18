"""Having the core look for a pattern by itself: counting without rows, and rows that come as they are wanted."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any, Final, TypeVar

from dtp.core.scan import ScanCore
from dtp.crdt import Link, Replica, values
from dtp.graph.query.budget import Meter
from dtp.graph.query.compiling.scanning import Scan, shown_rows
from dtp.graph.query.lookup.columns import Columns, FoundSouls, kind_of, rows_of

_T = TypeVar("_T")
#: Names that are looked at in one call: some milliseconds.
_SLICE: Final = 32_768
#: And the first time, for whoever wants few rows; each call looks at more.
_FIRST: Final = 256
#: Names that count as a step.
_LIGHT: Final = 16
#: Times that a count begins anew because something changed meanwhile, before the loop has to wait for it.
_ROUNDS: Final = 5


class Scanner:
    """The core of one replica, read by `ask`."""

    def __init__(
        self,
        replica: Replica,
        columns: Columns,
        revealed: Callable[[], Iterable[str]],
        ask: Callable[..., Any],
    ) -> None:
        """`revealed` tells of which souls `replica.reveal` knows more than the core."""
        self._replica = replica
        self._columns = columns
        self._revealed = revealed
        self._ask = ask

    def may_scan(self) -> bool:
        """Return whether the core knows all that there is: nothing is sealed, or written and not committed."""
        return not self._replica.sequences.has_unsent and not any(True for _ in self._revealed())

    # ---- counting -------------------------------------------------------------------------------------------

    def count_matches(self, scan: Scan, meter: Meter) -> int | None:
        """Return how often a pattern is there, at one time; None where the core can't tell. Raises `QueryLimit`."""
        return self._at_one_time(partial(self._count_matches, scan, meter))

    def count_groups(self, scan: Scan, keys: Collection[str], meter: Meter) -> Counter[bytes] | None:
        """Return how many nodes of a pattern of one have which values of some properties (one behind the other), at
        one time; None where the core can't tell. Raises `QueryLimit`."""
        return self._at_one_time(partial(self._count_groups, scan, keys, meter))

    def _at_one_time(self, work: Callable[[Callable[..., Any]], _T | None]) -> _T | None:
        """Return what work gives that reads the replica by what it is called with, while that stays as it is."""
        for _ in range(_ROUNDS):
            if not self._ask(self.may_scan):
                return None
            version = self._ask(self._current_version)
            found = work(self._ask)
            if found is None or self._ask(self._current_version) == version:
                return found
        last: _T | None = self._ask(work, _here)
        return last

    def _current_version(self) -> tuple[int, object]:
        return self._replica.version, self._replica.core

    def _count_matches(self, scan: Scan, meter: Meter, ask: Callable[..., Any]) -> int | None:
        total = 0
        for found in self._found_slices(scan, scan.to_core(), _SLICE, meter, ask):
            if found is None:
                return None
            total += found[0]
        return total + len(self._linked_names(scan, ask)) if scan.is_of_names else total

    def _count_groups(
        self, scan: Scan, keys: Collection[str], meter: Meter, ask: Callable[..., Any]
    ) -> Counter[bytes] | None:
        groups: Counter[bytes] = Counter()
        for found in self._found_slices(scan, scan.to_core(columns=keys), _SLICE // 4, meter, ask):
            if found is None:
                return None
            groups.update(values.decode_all(found[1]))
        if scan.is_of_names and (named := self._linked_names(scan, ask)):
            groups[values.encode(None) * len(keys)] += len(named)
        return groups

    def _found_slices(
        self, scan: Scan, core: ScanCore, size: int, meter: Meter, ask: Callable[..., Any]
    ) -> Iterator[tuple[int, bytes] | None]:
        """Yield what the core finds, so many names at a time; None where it can't tell."""
        start: FoundSouls = ask(self._find_start, scan)
        numbers = start.numbers if scan.first is not None else None
        count = len(start.numbers) if numbers is not None else start.core.name_count
        for first in range(0, count, size):
            behind = min(first + size, count)
            found = ask(core.count_matches, start.core, numbers, first, behind)
            yield found
            if found is not None:
                meter.count_steps((behind - first) // _LIGHT + found[0] // _LIGHT)

    def _find_start(self, scan: Scan) -> FoundSouls:
        self._columns.drop_outdated()
        if scan.first is None:
            return FoundSouls(self._replica.core, array("I"))
        key, value = scan.first
        return self._columns.now_having(key, value)

    def _linked_names(self, scan: Scan, ask: Callable[..., Any]) -> set[str]:
        """Return the nodes that are only linked to."""
        found: set[str] = set()
        for kind in {kind for _, kind in scan.labels} or {""}:
            linking: FoundSouls = ask(self._columns.find_naming, kind)
            for first in range(0, len(linking.numbers), _SLICE // 8):
                data = ask(self._columns.read_rows, linking, first, first + _SLICE // 8)
                targets = {one for row in rows_of(data) for one in _targets(row)} - found
                wanted = [one for one in targets if scan.fits_label(kind_of(one))]
                found.update(ask(self._unmade_souls, wanted))
        return found

    def _unmade_souls(self, souls: list[str]) -> list[str]:
        core = self._replica.core
        return [soul for soul in souls if not core.is_soul(values.encode_name(soul))]

    # ---- rows -----------------------------------------------------------------------------------------------

    def scan_rows(self, scan: Scan, meter: Meter) -> Iterator[tuple[Any, ...]]:
        """Yield what may be rows of a SELECT about a pattern of one or two nodes, where the replica may be read and
        doesn't change."""
        core, at, size = scan.to_core(shown=True), 0, _FIRST
        count = self._replica.core.name_count
        while at < count:
            size = min(size, count - at)
            found = core.count_matches(self._replica.core, None, at, at + size)
            if found is None:  # too many links at once; of one node they are not
                size //= 2
                continue
            yield from shown_rows(found[1], scan)
            meter.count_steps(size // _LIGHT)
            at += size
            size = min(2 * size, _SLICE)
        if scan.is_of_names:
            yield from ((soul,) for soul in sorted(self._linked_names(scan, _here)))

    def may_be_first(self, scan: Scan, ask: Callable[..., Any]) -> frozenset[str] | None:
        """Return the souls of all that may be among the first of a pattern of one node, and some more; None where the
        core can't tell. What changes meanwhile may be left out."""
        core, found = scan.to_core(shown=True), set[str]()
        if not ask(self.may_scan):
            return None
        size = _SLICE // 4
        for first in range(0, ask(lambda: self._replica.core.name_count), size):
            shown = ask(lambda at: core.count_matches(self._replica.core, None, at, at + size), first)
            if shown is None:
                return None
            found.update(values.decode_all(shown[1]))
        return frozenset(found | self._linked_names(scan, ask) if scan.is_of_names else found)


def _here(function: Callable[..., Any], *given: Any) -> Any:
    return function(*given)


def _targets(row: tuple[str, dict[str, Any], list[Any], list[Any]]) -> Iterator[str]:
    """Yield what a node links to."""
    _, registers, members, _ = row
    yield from (link.soul for link in members[1::2])
    yield from (one.soul for one in registers.values() if type(one) is Link)
