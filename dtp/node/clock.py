"""Whether this machine's clock is wrong, by those of neighbours, and what is said of it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from dtp.peers.clocks import LEAST, ClockDifference, PeerClocks

log = logging.getLogger("dtp.node")


class ClockWatch:
    """Looks at what neighbours have said of the time, and logs once when most differ from this machine's clock."""

    def __init__(self, pause: float, clock: Callable[[], float] = time.time) -> None:
        """Look every `pause` seconds; `clock` is this machine's, Unix time in seconds."""
        self._pause, self._clock = pause, clock
        #: What neighbours have said.
        self.clocks = PeerClocks()
        self._since = math.inf
        self._told = False

    def find_difference(self, now: float) -> ClockDifference | None:
        """Return how most clocks differ, None if they don't. `now` is the loop's time."""
        return self.clocks.find_difference(self._clock() - now)

    def check_clock(self, now: float, links: int) -> float:
        """Log a difference that lasts; return when to look again, with so many links."""
        found = self.find_difference(now)
        if found is None:
            self._since, self._told = math.inf, False
            return now + self._pause if links >= LEAST else math.inf
        self._since = min(self._since, now)
        if now - self._since >= self._pause and not self._told:
            self._told = True
            fields = {"event": "clock-differs", "seconds": round(found.seconds)}
            log.warning("%s", found, extra={"fields": fields})
        return now + self._pause
