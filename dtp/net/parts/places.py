"""Places of connections where there are fewer than want one: by descriptors of this process, or by `Limits`.

Who comes last takes the place of the connection that has been idle longest, of the source that has most. So one that
holds all with connections that say nothing keeps nobody out, and throws out its own. One at work goes only for
somebody of a source that has fewer. See docs/decisions/0198.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Hashable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final, Generic, Protocol, TypeVar

from dtp.carriers.crowd import descriptors_of_process, lowest_free, source_group

#: Seconds for which it is remembered how many there were when descriptors were short.
SHORT: Final = 10.0
#: Of those that were idle longest so many are looked at for one that isn't at work.
LOOKED_AT: Final = 64
#: Beyond the places one part in so many, and no more than `MOST_SPARE`, is for those who were asked something in the
#: moment in which their place was given to another: both stay.
SPARE_PART: Final = 8
MOST_SPARE: Final = 64


class Placed(Hashable, Protocol):
    """Whoever has a place: a connection."""

    @property
    def source(self) -> str:
        """Where it comes from."""

    @property
    def active_at(self) -> float:
        """When something moved on it last."""

    @property
    def at_work(self) -> bool:
        """True while a stream of it is open: what was asked there may be answered yet."""


T = TypeVar("T", bound=Placed)


class Places(Generic[T]):
    """Who has one, by source. A value without IO."""

    def __init__(self, most: int) -> None:
        self._most, self._room, self._short_until = most, sys.maxsize, 0.0
        self._groups: dict[T, str] = {}
        self._by_group: dict[str, _Group[T]] = {}
        #: The groups of each size, and the largest size: a flood from many sources is not to be looked through.
        self._of_size: defaultdict[int, dict[str, None]] = defaultdict(dict)
        self._largest = 0

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def are_full(self) -> bool:
        """True if somebody has to go for one more."""
        return len(self) >= min(self._most, self._room)

    @property
    def spare(self) -> int:
        """How many may be here beyond the places: those who were asked something in the moment in which theirs was
        given away."""
        return max(1, min(MOST_SPARE, min(self._most, self._room) // SPARE_PART))

    @property
    def have_spare(self) -> bool:
        """True if one more of them may stay. Whoever comes only to ask in that moment would have more places each
        time, without end."""
        return len(self) < min(self._most, self._room) + self.spare

    def note_descriptor(
        self, number: int, strangers: int, now: float, look: Callable[[int], int] = lowest_free
    ) -> None:
        """Note that one more comes by a descriptor of this number, beside so many strangers, who have their own.

        The system gives the lowest that is free: at least so many are in use, by whatever it is, or were as it came;
        `look` says how it is now. But it may be one that was freed just now, so how many had room is remembered for a
        while.
        """
        most, reserve = descriptors_of_process()
        beyond = number - strangers - (most - reserve)
        if beyond >= 0:
            beyond = min(beyond, look(number) - strangers - (most - reserve))
        if beyond >= 0:
            self._room, self._short_until = max(0, len(self) - beyond), now + SHORT
        elif now >= self._short_until:
            self._room = sys.maxsize

    def add(self, one: T) -> None:
        """Give it a place."""
        name = self._groups[one] = source_group(one.source)
        group = self._by_group.setdefault(name, _Group())
        group.add(one)
        self._note_size(name, len(group.members) - 1, len(group.members))

    def discard(self, one: T) -> None:
        """Take its place away. Idempotent."""
        name = self._groups.pop(one, None)
        if name is not None:
            group = self._by_group[name]
            group.discard(one)
            self._note_size(name, len(group.members) + 1, len(group.members))
            if not group.members:
                del self._by_group[name]

    def _note_size(self, name: str, before: int, size: int) -> None:
        self._of_size[before].pop(name, None)
        if not self._of_size[before]:
            del self._of_size[before]
        if size:
            self._of_size[size][name] = None
        if size > self._largest or (before == self._largest and before not in self._of_size):
            self._largest = size

    def find_idlest(self, source: str) -> T | None:
        """Return who has to go for one more of `source`: of it where no source has more, else of the one that has
        most. None where nobody has a place, or all are at work, and the source would have as many as the other.
        """
        if not self._largest:
            return None
        name, largest = source_group(source), self._of_size[self._largest]
        idlest = self._by_group[name if name in largest else next(iter(largest))].find_idlest()
        own = len(self._by_group[name].members) if name in self._by_group else 0
        # Of two sources that have as many each would throw out the other's for ever.
        return None if idlest.at_work and self._largest <= own + 1 else idlest


class _Group(Generic[T]):
    """Those of one source."""

    def __init__(self) -> None:
        self.members: set[T] = set()
        self._by_time: list[tuple[float, int, T]] = []  # when each was active, as far as it was looked at
        self._numbers = count()

    def add(self, one: T) -> None:
        self.members.add(one)
        heappush(self._by_time, (one.active_at, next(self._numbers), one))

    def discard(self, one: T) -> None:
        self.members.discard(one)
        if len(self._by_time) > 2 * len(self.members) + 16:
            self._by_time = [entry for entry in self._by_time if entry[2] in self.members]
            heapify(self._by_time)

    def find_idlest(self) -> T:
        """Return who was idle longest and isn't at work, of the `LOOKED_AT` first; where all are, the first."""
        looked_at: list[tuple[float, int, T]] = []
        idle: T | None = None
        while self._by_time and idle is None and len(looked_at) < LOOKED_AT:
            entry = heappop(self._by_time)
            at, _, one = entry
            if one in self.members and one.active_at <= at:
                looked_at.append(entry)
                idle = None if one.at_work else one
            elif one in self.members:
                heappush(self._by_time, (one.active_at, next(self._numbers), one))
        for entry in looked_at:
            heappush(self._by_time, entry)
        return looked_at[0][2] if idle is None else idle
