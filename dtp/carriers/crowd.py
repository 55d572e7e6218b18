"""Who has come and has not proven anything yet: bounded in all and for each source, and the lot says who goes."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Callable, Hashable, Iterator
from functools import lru_cache
from itertools import islice
from random import randrange
from typing import Final, Generic, TypeVar

if sys.platform != "win32":  # where sockets are not descriptors
    import resource

T = TypeVar("T", bound=Hashable)

#: Descriptors that are not for connections, where a process may have four times as many: for opening handshakes and
#: carriers that are half-open (512 each), files, and connections that have ended and are not gone yet.
RESERVE: Final = 1280


def descriptors_of_process() -> tuple[int, int]:
    """Return how many descriptors this process may have in all, and how many of them are not for connections."""
    if sys.platform == "win32":
        return sys.maxsize, RESERVE
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (sys.maxsize, RESERVE) if most == resource.RLIM_INFINITY else (most, min(most // 4, RESERVE))


def lowest_free(descriptor: int) -> int:
    """Return the number that a new descriptor would have now; `descriptor`, which is open, where there is none."""
    try:
        fresh = os.dup(descriptor)
    except OSError:
        return descriptor
    os.close(fresh)
    return fresh


def part_of_reserve(most: int) -> int:
    """Return how many strangers may be at one entrance: `most`, or half of what is reserved."""
    return min(most, descriptors_of_process()[1] // 2)


def source_group(source: str) -> str:
    """Return who is counted as one: an IPv6 address's /64, which one customer has; else `source` itself."""
    if source.count(":") < 2:  # most: an IPv4 address, or none
        return source
    return _prefix(source)


@lru_cache(maxsize=4096)
def _prefix(source: str) -> str:
    try:
        return str(ipaddress.ip_network((ipaddress.IPv6Address(source), 64), strict=False))
    except ValueError:
        return source


class Crowd(Generic[T]):
    """Those who wait, in the order in which they came. Iterable."""

    def __init__(self, most: int, most_per_source: int, draw: Callable[[int], int] = randrange) -> None:
        """`draw` gives a number below the one that it gets: which of so many has to go."""
        self._most, self._most_per_source, self._draw = most, most_per_source, draw
        self._groups: dict[T, str] = {}
        self._by_group: dict[str, dict[T, None]] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._groups))

    @property
    def by_source(self) -> dict[str, int]:
        """How many there are of each source that has any."""
        return {group: len(them) for group, them in self._by_group.items()}

    def has_room(self, source: str) -> bool:
        """Return True if one more of `source` may come and nobody has to go."""
        here = len(self._by_group.get(source_group(source), ()))
        return here < self._most_per_source and len(self._groups) < self._most

    def draw_one(self, source: str) -> T | None:
        """Return who has to go for one more of `source`: one of it where it has its share, else of the source that
        has most; None where there is nobody.

        By lot, a flood from behind the same address throws out mostly its own, while the oldest would be whoever
        waits for an answer over a long way (docs/decisions/0198).
        """
        them = self._by_group.get(source_group(source), {})
        if len(them) < self._most_per_source:
            them = max(self._by_group.values(), key=len, default={})
        return next(islice(them, self._draw(len(them)), None)) if them else None

    def add(self, one: T, source: str) -> None:
        """Count one more that has come."""
        group = self._groups[one] = source_group(source)
        self._by_group.setdefault(group, {})[one] = None

    def discard(self, one: T) -> bool:
        """Return True if it was here: it is no more."""
        group = self._groups.pop(one, None)
        if group is None:
            return False
        del self._by_group[group][one]
        if not self._by_group[group]:
            del self._by_group[group]
        return True
