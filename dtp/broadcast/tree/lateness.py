"""How late segments come, and when that is too late: values."""

from __future__ import annotations

import math
from typing import Final

from dtp.broadcast.format import Segment

#: Milliseconds after which the soonest segment is forgotten, once as many have passed again.
_REMEMBERED: Final = 3_600_000
_NEVER: Final = 1 << 63
#: Seconds by which a segment may be late, and between two times that others are asked, at least.
_LATE: Final = 1.0
#: Seconds by which a segment may be late once others have sent one: they have the next one, too.
_STILL_LATE: Final = 0.25
#: Seconds between two times that others are asked, at most, where that brings nothing.
_SELDOM: Final = 60.0
#: ... at least, in multiples of the time that others took to answer.
_REST: Final = 4.0


class Lateness:
    """How much later segments come than the soonest of the last hours did: a value.

    The producer's clock and the one here may differ by anything, so only what is added to the least difference
    counts. It is forgotten in the end, since clocks drift: by 0.2 s an hour at most. A clock that was set back stands
    still in what is signed until it is there again, and tells nothing meanwhile.
    """

    def __init__(self) -> None:
        self._since = 0
        self._time_ms, self._late = -1, 0
        self._least = self._least_before = _NEVER

    def measure_lateness(self, time_ms: int, now_ms: int) -> int:
        """Return how many ms later than the soonest ones a segment dated `time_ms` is that comes at `now_ms`."""
        if time_ms == self._time_ms:
            return self._late
        if now_ms - self._since >= _REMEMBERED:
            self._since, self._least_before, self._least = now_ms, self._least, _NEVER
        self._least = min(self._least, now_ms - time_ms)
        self._time_ms, self._late = time_ms, now_ms - time_ms - min(self._least, self._least_before)
        return self._late

    def get_soonest_ms(self, time_ms: int) -> int | None:
        """Return when a segment dated `time_ms` comes at the soonest; None before the first was measured."""
        least = min(self._least, self._least_before)
        return None if least == _NEVER else time_ms + least


class Overdue:
    """When others are asked for what doesn't come in time: a value. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._lateness = Lateness()
        #: Seconds behind the soonest at which a segment could come.
        self._wait = _LATE
        self._not_before = -math.inf
        #: Since when something is waited for of which nothing says when it could come.
        self._waits_since: float | None = None
        #: The newest segment that a neighbour has sent, and when it was complete, ms by the producer's clock.
        self._number, self._time_ms = -1, 0

    def note_whole(self, segment: Segment, now: float) -> None:
        """Note that a neighbour has sent a segment whole. A show that stood still for longer than others aren't asked
        is on air again: what is late then is asked for as soon as at first."""
        if segment.time_ms - self._time_ms > 1000 * self._wait > 1000 * _LATE:
            self._wait, self._not_before = _LATE, -math.inf
        self._number, self._time_ms, self._waits_since = segment.number, segment.time_ms, None
        self._lateness.measure_lateness(segment.time_ms, round(1000 * now))

    def was_sent(self, number: int) -> bool:
        """Return whether a neighbour has sent this segment, or a newer one, whole."""
        return number <= self._number

    def find_due(self, last: Segment | None, now: float) -> float:
        """Return when others are to be asked for the segment behind `last`, which is lost or held no more if it is
        None: then it could have come when this was first asked."""
        soonest = None if last is None else self._lateness.get_soonest_ms(last.time_ms + last.duration_ms)
        if soonest is not None:
            self._waits_since, expected = None, soonest / 1000
        else:
            self._waits_since = expected = now if self._waits_since is None else self._waits_since
        return max(expected + self._wait, self._not_before)

    def note_asked(self, brought: bool, began: float, now: float) -> None:
        """Note that others were asked from `began` on, and whether that brought something. Otherwise wait twice as
        long; and for a few times as long as the answer took: where all have too little of the processor, asking takes
        the rest of it, and more is late."""
        self._wait = _STILL_LATE if brought else min(max(2 * self._wait, _LATE), _SELDOM)
        self._not_before = now + max(_LATE, self._wait, _REST * (now - began))
