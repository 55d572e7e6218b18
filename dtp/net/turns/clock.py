"""How much processor time the turn of the loop has taken in which we are, and who has had how much of it.

Turns that stay short cost nothing: one in some is looked at. Once they get long, all that is done for others is
measured, and whoever has had more than others waits for what the turn has left (docs/decisions/0260).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final
from weakref import WeakKeyDictionary

from dtp.carriers.nearness import context_for_all
from dtp.net.turns.fair_queue import FairShares, ProcessorAccount

#: Seconds of processor time that a turn may take before those who have had more than others wait. A visitor waits for
#: two or three turns, with HTTP for five, and 20 ms are the bar (docs/decisions/0260).
LONG: Final = 0.001
#: From here on it is measured who takes how much.
BUSY: Final = LONG / 2
#: ... until so many turns were short: what comes in bursts has short ones in between.
_QUIET: Final = 32
#: One read of a carrier in so many has the turn looked at, where nobody has another reason to.
_LOOK: Final = 64


class TurnClock:
    """The processor time of the turns of one event loop. Used within the loop."""

    __slots__ = (
        "_at_end",
        "_at_next",
        "_began",
        "_began_at",
        "_ending",
        "_idle",
        "_long",
        "_looking",
        "_quiet",
        "_reads",
        "_time",
        "busy",
        "passed",
        "read",
        "shares",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take the processor time of the loop's thread, or what the loop itself says: `processor_time`."""
        #: Seconds of processor time until now.
        self.read: Callable[[], float] = getattr(loop, "processor_time", time.thread_time)
        #: Seconds that have passed, of one clock: never fewer than of processor time. Reading it takes a tenth of the
        #: time that reading the other one takes, which is a system call.
        self.passed: Callable[[], float] = getattr(loop, "processor_time", time.monotonic)
        self._time = loop.time
        #: Whether this turn is measured, since when, by both clocks, and how long the processor was idle until then.
        self._looking, self._began, self._began_at, self._idle = False, 0.0, 0.0, 0.0
        #: Whether this turn is known to be long: it stays so.
        self._long = False
        #: Who has had how much of it.
        self.shares = FairShares(self._idle_time, loop.time)
        #: True if turns have become long: what is done is to be measured, and charged.
        self.busy = False
        self._quiet = _QUIET  # turns since a long one
        self._ending = False
        self._at_end: list[Callable[[], object]] = []
        #: What came when it was settled what is to be called at this end.
        self._at_next: list[Callable[[], object]] = []
        self._reads = 0

    @classmethod
    def of_loop(cls, loop: asyncio.AbstractEventLoop) -> TurnClock:
        """Return that of `loop`."""
        clock = _CLOCKS.get(loop)
        if clock is None:
            clock = _CLOCKS[loop] = cls(loop)
        return clock

    def call_at_end(self, call: Callable[[], object]) -> None:
        """Call `call` at the end of the next turn, behind what carriers bring and whoever is woken by that."""
        if self._ending:
            self._at_end.append(call)
        elif self._looking:
            self._at_next.append(call)
        else:
            self._looking = True
            self._begin_turn(self.read())
            self._at_end.append(call)
            self._call_end()

    def _begin_turn(self, now: float) -> None:
        self._began, self._began_at, self._idle = now, self.passed(), self._time() - now
        self._long = False

    def _idle_time(self) -> float:
        """Return the seconds for which the processor was idle until now: it isn't within a turn."""
        return self._idle if self._looking else self._time() - self.read()

    def _call_end(self) -> None:
        # Not `call_soon`: in each turn timers come last.
        loop = asyncio.get_running_loop()
        loop.call_at(loop.time(), self._end_turn, context=context_for_all())

    def _end_turn(self) -> None:
        calls, self._at_end, self._at_next = deque(self._at_end), self._at_next, []
        self._ending = True
        try:
            while calls:
                calls.popleft()()
        finally:  # one that raised keeps none of the others from theirs
            self._ending = False
            now = self.read()
            self._quiet = 0 if now - self._began >= BUSY else self._quiet + 1
            self.busy = self._quiet < _QUIET
            self._begin_turn(now)
            self._at_end[:0] = calls
            self._looking = self.busy or bool(self._at_end)
            if self._looking:
                self._call_end()

    @property
    def spent(self) -> float:
        """Seconds of processor time that this turn has taken until now; 0 where it isn't measured."""
        return self.read() - self._began if self._looking else 0.0

    @property
    def has_time(self) -> bool:
        """True if this turn hasn't become long yet."""
        if not self._looking:
            return True
        if self._long:
            return False
        passed = self.passed()
        if passed - self._began_at < LONG:
            return True
        used = self.read() - self._began
        self._began_at = passed - used  # the rest had others
        self._long = used >= LONG
        return not self._long

    def note_read(self) -> None:
        """Note that a carrier was read."""
        self._reads += 1
        if not self._reads % _LOOK:
            self.call_at_end(_nothing)

    def has_to_wait(self, account: ProcessorAccount, leeway: float = 0.0) -> bool:
        """True if this turn is long already, and others who want something have had less by `leeway` seconds; or if
        it is very long."""
        if not self.busy or self.has_time:
            return False
        return account.is_ahead(leeway) or self.spent >= 2 * LONG


def _nothing() -> None:
    pass


_CLOCKS: WeakKeyDictionary[asyncio.AbstractEventLoop, TurnClock] = WeakKeyDictionary()
