"""Places in a list, as bytes that sort: there is always one between two, and runs don't interleave.

A place is a path of steps, each a *waypoint* (7 bytes, made by one author) and a number. The items of one author's
run share the path up to the number, which counts up when it writes on and down when it writes before; so a run
costs a few bytes an item, and two runs that were written at one place at the same time stay apart. Places of items
have odd numbers; the even number below an item's is where what goes before it is hung, and its own where what goes
behind it. The shape is that of Weidner's position strings; this is written from the idea.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Final

_TAG: Final = 4
_WAYPOINT: Final = 7
#: Where a run begins, so that it can count both ways.
_MIDDLE: Final = (1 << 15) + 1
#: Numbers below this are one byte; above, a byte with their length goes before, so that bytes sort as numbers do.
_SHORT: Final = 240


def _number(value: int) -> bytes:
    if value < _SHORT:
        return bytes((value,))
    rest = value - _SHORT
    size = max(1, (rest.bit_length() + 7) // 8)
    return bytes((_SHORT + size - 1,)) + rest.to_bytes(size, "big")


def _last_step(place: bytes) -> tuple[bytes, int]:
    """The path up to and with the last waypoint, and the last number. (b"", 0) for what is no place."""
    at, found = 0, (b"", 0)
    while at < len(place):
        behind = at + _WAYPOINT
        if behind >= len(place):
            return b"", 0
        head = place[behind]
        size = 0 if head < _SHORT else head - _SHORT + 1
        number = head if not size else _SHORT + int.from_bytes(place[behind + 1 : behind + 1 + size], "big")
        found = (place[:behind], number)
        at = behind + 1 + size
    return found if at == len(place) else (b"", 0)


class Places:
    """Makes places for one author (its public key). `random` gives that many random bytes."""

    __slots__ = ("_random", "_tag")

    def __init__(self, author: bytes, random: Callable[[int], bytes] = os.urandom) -> None:
        self._tag = hashlib.blake2b(author, digest_size=_TAG).digest()
        self._random = random

    def between(self, left: bytes | None, right: bytes | None) -> bytes:
        """A place after `left` and before `right`; None is the list's end there. `left` is below `right`.

        Two authors' waypoints are the same by a chance of 2**-56 where they meet, and then items at one place go by
        their dots.
        """
        if left is not None:
            path, number = _last_step(left)
            place = path + _number(number + 2)
            if self._is_own(path) and (right is None or place < right):
                return place
        if right is not None:
            path, number = _last_step(right)
            place = path + _number(number - 2) if number > 2 else b""
            if self._is_own(path) and (place > left if left is not None else place != b""):
                return place
        return self._branch(left, right) + self._tag + self._random(_WAYPOINT - _TAG) + _number(_MIDDLE)

    def _is_own(self, path: bytes) -> bool:
        return path[-_WAYPOINT : -_WAYPOINT + _TAG] == self._tag

    @staticmethod
    def _branch(left: bytes | None, right: bytes | None) -> bytes:
        """Where a new waypoint is hung."""
        if left is not None and (right is None or not right.startswith(left)):
            return left
        if right is None:
            return b""
        path, number = _last_step(right)
        if not path:  # not made by these rules: all that can be said is that shorter is before
            return right[:-1]
        return path + _number(number - 1)
