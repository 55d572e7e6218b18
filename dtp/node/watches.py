"""What a node watches and reports: its clock compared with neighbours', its surroundings, and others with its
identity."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

from dtp.escaping import escape_text
from dtp.identity import PeerId
from dtp.peers.clocks import ClockDifference, PeerClocks
from dtp.peers.record import PeerRecord
from dtp.peers.surroundings import Surroundings, SurroundingsChange
from dtp.tasks import TaskSet

log = logging.getLogger("dtp.node")


class ClockWatch:
    """Checks what neighbours have said about the time, and logs once if most differ from this machine's clock."""

    def __init__(self, pause: float, clock: Callable[[], float] = time.time) -> None:
        """Check every `pause` seconds; `clock` is this machine's Unix time in seconds."""
        self._pause, self._clock = pause, clock
        #: What neighbours have said.
        self.clocks = PeerClocks()
        self._since = math.inf
        self._told = False

    def find_difference(self, now: float) -> ClockDifference | None:
        """Return how most clocks differ; None if they don't. `now` is the loop's time."""
        return self.clocks.find_difference(self._clock() - now)

    def check_clock(self, now: float, links: int) -> float:
        """Log a lasting difference; return when to check again, given the number of links."""
        found = self.find_difference(now)
        if found is None:
            self._since, self._told = math.inf, False
            return now + self._pause if links else math.inf
        self._since = min(self._since, now)
        if now - self._since >= self._pause and not self._told:
            self._told = True
            fields = {"event": "clock-differs", "seconds": round(found.seconds)}
            log.warning("%s", found, extra={"fields": fields})
        return now + self._pause


class SurroundingsWatch:
    """Checks from time to time whether this machine's clock was set, or its networks have changed."""

    def __init__(self, surroundings: Surroundings, shortest: float, longest: float) -> None:
        """There are at least `shortest` and at most `longest` seconds between two checks."""
        self.surroundings = surroundings
        self._shortest, self._longest = shortest, longest
        self._looked = -math.inf

    def look(self, now: float) -> SurroundingsChange | None:
        """Return what has changed since the last check; None if that was just now."""
        if now - self._looked < self._shortest:
            return None
        self._looked = now
        return self.surroundings.look()

    def next_time(self) -> float:
        """Return when to check again at the latest."""
        return self._looked + self._longest


class TwinWatch:
    """Warns once if another node has this identity, unless that is a process that replaces this one."""

    def __init__(self, me: PeerId, grace: float, tasks: TaskSet) -> None:
        """Warn `grace` seconds after the first sign of it: a replaced process has ended by then."""
        self._me, self._grace, self._tasks = me, grace, tasks
        #: Whether it was found and logged.
        self.found = False
        self._suspects = False

    def suspect(self, record: PeerRecord | None = None) -> None:
        """Warn soon. `record` is the one that the other node signed, if known."""
        if not self._suspects:
            self._suspects = True
            self._tasks.start(self._warn_of_twin(record), name="dtp-node-twin")

    async def _warn_of_twin(self, record: PeerRecord | None) -> None:
        await asyncio.sleep(self._grace)
        self.found = True
        places = [] if record is None else list(record.addresses)
        log.warning(
            "another node has the identity %s%s: others reach now one, now the other. Give each node an identity of "
            "its own. Where there is no other, this machine's clock was set back",
            *(self._me.short, f" ({', '.join(map(escape_text, places))})" if places else ""),
            extra={"fields": {"event": "identity-twice", "peer": str(self._me), "addresses": places}},
        )
