"""Whether this machine's clock is wrong, by those of neighbours, and what is said of it."""

from __future__ import annotations

import logging
import math
import time
from typing import Final

from dtp.peers.clocks import LEAST, ClockDifference, PeerClocks

log = logging.getLogger("dtp.node")

#: Seconds from one look at neighbours' clocks to the next. A difference is told at the second look: after a machine
#: has slept, old messages come first.
PAUSE: Final = 60.0


class ClockWatch:
    """Looks at what neighbours have said of the time, and logs once when most differ from this machine's clock."""

    def __init__(self) -> None:
        #: What neighbours have said.
        self.clocks = PeerClocks()
        self._since = math.inf
        self._told = False

    def find_difference(self, now: float) -> ClockDifference | None:
        """Return how most clocks differ, None if they don't. `now` is the loop's time."""
        return self.clocks.find_difference(time.time() - now)

    def look(self, now: float, links: int) -> float:
        """Log a difference that lasts; return when to look again, with so many links."""
        found = self.find_difference(now)
        if found is None:
            self._since, self._told = math.inf, False
            return now + PAUSE if links >= LEAST else math.inf
        self._since = min(self._since, now)
        if now - self._since >= PAUSE and not self._told:
            self._told = True
            fields = {"event": "clock-differs", "seconds": round(found.seconds)}
            log.warning("%s", found, extra={"fields": fields})
        return now + PAUSE
