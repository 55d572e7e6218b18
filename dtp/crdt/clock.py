"""Hybrid logical clocks (Kulkarni and others, 2014): wall time that never goes back and is never equal here.

A clock is one int: milliseconds since 1970 << 16, plus a count of what happened within the same millisecond. What is
made is above all that was seen, so causes come before effects although wall clocks differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: How far ahead of the wall clock an op may be, seconds. What is further ahead waits until it is due: a machine
#: with a wrong clock can neither win every conflict nor push the others' clocks into the future.
DRIFT: Final = 60.0

#: The highest clock.
LAST: Final = (1 << 63) - 1
_COUNT_BITS: Final = 16
#: Seconds since 1970 that a clock can tell, all below this.
_END: Final = (1 << 63 - _COUNT_BITS) / 1000


class Clock:
    """The wall clock as an HLC. `wall` gives seconds since 1970; `drift` is in seconds."""

    __slots__ = ("ahead", "wall")

    def __init__(self, wall: Callable[[], float] = time.time, drift: float = DRIFT) -> None:
        #: Seconds since 1970.
        self.wall = wall
        #: What a clock may be above `now`.
        self.ahead = int(drift * 1000) << _COUNT_BITS

    def wall_clock(self) -> int:
        """Return the wall time, with a count of 0; 0 if it can't be one."""
        wall = self.wall()
        return int(wall * 1000) << _COUNT_BITS if 0 <= wall < _END else 0

    def highest_clock(self) -> int:
        """Return the highest clock that is taken at once."""
        return self.wall_clock() + self.ahead

    def seconds_until(self, clock: int) -> float:
        """Return seconds until `clock` is not above `limit`; 0 or less when it isn't."""
        return clock_seconds(clock - self.ahead) - self.wall()


def clock_seconds(clock: int) -> float:
    """Return the wall time in a clock, seconds since 1970."""
    return (clock >> _COUNT_BITS) / 1000


def clock_at(wall: float, count: int = 0) -> int:
    """Return the clock of a wall time, seconds since 1970, and a count below 65,536."""
    return (int(wall * 1000) << _COUNT_BITS) | count
