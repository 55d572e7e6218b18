"""How late segments come, and when that is too late, as values."""

from __future__ import annotations

import math
from typing import Final

from dtp.broadcast.format import Segment

#: Milliseconds after which the earliest segment is forgotten, once the same time has passed again.
_REMEMBERED: Final = 3_600_000
_NEVER: Final = 1 << 63
#: Seconds by which a segment may be late, and at least between two requests to other neighbours.
_LATE: Final = 1.0
#: Seconds by which a segment may be late once others have sent one, since they have the next one, too.
_STILL_LATE: Final = 0.25
#: The most seconds between two requests to others, if they bring nothing.
_SELDOM: Final = 60.0
#: The least time between them, in multiples of the time that others took to answer.
_REST: Final = 4.0


class Lateness:
    """How much later segments come than the earliest of the last hours, as a value.

    The producer's clock may differ from the local one by any amount, so only the excess over the smallest
    difference counts. That is forgotten after a while, since clocks drift by up to 0.2 s an hour. While a
    producer's clock that was set back catches up, signed times stand still and tell nothing.
    """

    def __init__(self) -> None:
        self._since = 0
        self._time_ms, self._late = -1, 0
        self._least = self._least_before = _NEVER

    def measure_lateness(self, time_ms: int, now_ms: int) -> int:
        """Return how many ms later than the earliest ones a segment dated `time_ms` is that comes at `now_ms`."""
        if time_ms == self._time_ms:
            return self._late
        if now_ms - self._since >= _REMEMBERED:
            self._since, self._least_before, self._least = now_ms, self._least, _NEVER
        self._least = min(self._least, now_ms - time_ms)
        self._time_ms, self._late = time_ms, now_ms - time_ms - min(self._least, self._least_before)
        return self._late

    def get_soonest_ms(self, time_ms: int) -> int | None:
        """Return the earliest time at which a segment dated `time_ms` comes; None before the first was measured."""
        least = min(self._least, self._least_before)
        return None if least == _NEVER else time_ms + least


class Overdue:
    """When to ask others for what doesn't come in time, as a value. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._lateness = Lateness()
        #: Seconds to wait after the earliest time at which a segment could come.
        self._wait = _LATE
        self._not_before = -math.inf
        #: Since when something is awaited whose earliest time isn't known.
        self._waits_since: float | None = None
        #: The newest segment sent by a neighbour, and when it was complete, in ms of the producer's clock.
        self._number, self._time_ms = -1, 0

    def note_whole(self, segment: Segment, now: float) -> None:
        """Note that a neighbour has sent a complete segment. After a pause longer than that between requests, a
        show is considered to be on air again, and late segments are requested as early as at first."""
        if segment.time_ms - self._time_ms > 1000 * self._wait > 1000 * _LATE:
            self._wait, self._not_before = _LATE, -math.inf
        self._number, self._time_ms, self._waits_since = segment.number, segment.time_ms, None
        self._lateness.measure_lateness(segment.time_ms, round(1000 * now))

    def was_sent(self, number: int) -> bool:
        """Return True if a neighbour has sent this segment, or a newer one, completely."""
        return number <= self._number

    def find_due(self, last: Segment | None, now: float) -> float:
        """Return when to ask others for the segment after `last`. With None, where that is lost or no longer held,
        it could have come when this was first called."""
        soonest = None if last is None else self._lateness.get_soonest_ms(last.time_ms + last.duration_ms)
        if soonest is not None:
            self._waits_since, expected = None, soonest / 1000
        else:
            self._waits_since = expected = now if self._waits_since is None else self._waits_since
        return max(expected + self._wait, self._not_before)

    def note_asked(self, brought: bool, began: float, now: float) -> None:
        """Note that others were asked since `began`, and whether that brought something. If not, wait twice as
        long, and for several times the time that the answer took: if all lack processor time, requests take the
        rest of it, and more comes late."""
        self._wait = _STILL_LATE if brought else min(max(2 * self._wait, _LATE), _SELDOM)
        self._not_before = now + max(_LATE, self._wait, _REST * (now - began))
