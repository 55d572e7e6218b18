"""Lines of a log that others cause, at a rate that nobody can overrun."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

#: Lines of one kind that are logged in a period, and how many of them of one caller.
REFUSED: Final = 20
OF_ONE: Final = 5


class RateLimitedLog:
    """Says whether a line may be logged. What peers do must not fill the disk: beyond `REFUSED` lines in a period,
    only their number is told.

    One caller has a few of them, so that it doesn't hide the others.
    """

    def __init__(
        self,
        log: logging.Logger,
        what: str,
        events: str = "denials",
        *,
        period: float = 1.0,
        of_one: int = OF_ONE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`what` is refused: a service's name, or the like. `events` are what is counted, `period` is in seconds,
        of which one caller has `of_one` lines."""
        self._log, self._what, self._events = log, what, events
        self._period, self._of_one, self._clock = period, of_one, clock
        self._since, self._left_out = 0.0, 0
        #: Lines of this period, by caller.
        self._logged: Counter[str] = Counter()

    def may_log(self, who: str = "") -> bool:
        """True if one more may be logged, of the caller `who` if it is one's."""
        now = self._clock()
        if now - self._since >= self._period:
            if self._left_out:
                self._log.info("%s: %d more %s were not logged", self._what, self._left_out, self._events)
            self._since, self._left_out = now, 0
            self._logged.clear()
        if self._logged.total() >= REFUSED or (who and self._logged[who] >= self._of_one):
            self._left_out += 1
            return False
        self._logged[who] += 1
        return True
