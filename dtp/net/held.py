"""One budget for what all connections of a listener keep: bytes that nobody has read, or acknowledged.

A connection may keep 128 MiB and more for a good reason, a thousand of them may not. Whoever keeps most goes first,
of the source that keeps most, so a flood throws out its own. See docs/decisions/0198.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, Generic, Protocol, TypeVar

from dtp.carriers.crowd import source_group

K = TypeVar("K", bound=Hashable)

#: A connection is counted anew when it keeps so much more, or less, than when it was counted last.
STEP: Final = 16 * 1024


class BudgetHolder(Hashable, Protocol):
    """What a listener's budget counts: connections, and carriers of those that live in another process."""

    @property
    def source(self) -> str:
        """Who is at the other end, for limits per source."""

    def abort(self, code: int, reason: str) -> None:
        """End it at once, for keeping too much."""


class HeldBudget(Generic[K]):
    """What each connection keeps, by source. `end` is told of one that has to go, and how many bytes it kept."""

    def __init__(self, most: int, end: Callable[[K, int], object]) -> None:
        """Let all keep `most` bytes together, and those of one source half of that."""
        self._most, self._end = most, end
        self._sizes: dict[K, int] = {}
        self._groups: dict[K, str] = {}
        self._by_group: dict[str, dict[K, None]] = {}
        self._totals: dict[str, int] = {}
        #: Bytes that were counted, of all.
        self.total = 0

    def is_near(self, key: K, size: int) -> bool:
        """Return whether `size` bytes are so near to what was counted of a connection that `note_kept` changes
        nothing."""
        return -STEP < size - self._sizes.get(key, 0) < STEP

    def note_kept(self, key: K, source: str, size: int) -> None:
        """Say that a connection from `source` keeps `size` bytes now. May end it, or another."""
        if not self.is_near(key, size):
            self._note_size(key, self._groups.get(key) or source_group(source), size)

    def pass_on(self, key: K, to: K, size: int) -> None:
        """Count `to` with `size` bytes in place of `key`, for the same source. May end it, or another."""
        group = self._groups.get(key, "")
        self.forget_key(key)
        if not self.is_near(to, size):
            self._note_size(to, group, size)

    def _note_size(self, key: K, group: str, size: int) -> None:
        change = size - self._sizes.get(key, 0)
        self._groups[key] = group
        self._by_group.setdefault(group, {})[key] = None
        self._sizes[key] = size
        self._add_to_group(group, change)
        if change > 0:
            self._enforce_limits(group)

    def forget_key(self, key: K) -> None:
        """Count a connection no more. Idempotent."""
        group = self._groups.pop(key, None)
        if group is not None:
            self._add_to_group(group, -self._sizes.pop(key))
            del self._by_group[group][key]
            if not self._by_group[group]:
                del self._by_group[group], self._totals[group]

    def _add_to_group(self, group: str, change: int) -> None:
        self.total += change
        self._totals[group] = self._totals.get(group, 0) + change

    def _enforce_limits(self, group: str) -> None:
        while self._totals.get(group, 0) > self._most // 2:
            self._end_greediest(group)
        while self.total > self._most:
            self._end_greediest(max(self._totals, key=self._totals.__getitem__))

    def _end_greediest(self, group: str) -> None:
        greediest = max(self._by_group[group], key=self._sizes.__getitem__)
        size = self._sizes[greediest]
        self._note_size(greediest, group, 0)  # its source stays known: what it leaves counts there
        self._end(greediest, size)
