"""The timers of sessions, behind one of the loop's: a thousand connections have much due in each second.

A timer of asyncio costs 8 us to set and as much to come up among some hundred others, since they are compared in
Python; a message that comes alone needs two. Here they are pairs in a heap that C compares, and none is cancelled:
what comes up too early looks at its session. Acknowledging less often would spare timers, too, but `delivered()`
waits for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from weakref import WeakValueDictionary

from dtp.session.limits import NEVER, SILENT
from dtp.session.session import Session

#: Entries of deadlines that are over, among as many others, at which they are thrown out.
_OVER = 128


class Deadlines:
    """What is due on one event loop, and when. An entry stays until it comes up, or more than half are over."""

    __slots__ = ("__weakref__", "_heap", "_loop", "_number", "_over", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, Deadline]] = []
        self._number = 0  # of those due at the same time the one that was set first comes first
        self._over = 0
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def of_loop(cls, loop: asyncio.AbstractEventLoop) -> Deadlines:
        """Return those of a loop."""
        found = _DEADLINES.get(loop)
        if found is None:
            found = _DEADLINES[loop] = cls(loop)
        return found

    def __len__(self) -> int:
        return len(self._heap)

    def set_deadline(self, deadline: Deadline, at: float) -> None:
        """Have `deadline.come_up` called at a time of the loop's clock."""
        self._number += 1
        heappush(self._heap, (at, self._number, deadline))
        self._set_timer()

    def note_over(self, count: int) -> None:
        """Note that so many entries are of a deadline that is over."""
        heap = self._heap
        self._over += count
        if self._over >= _OVER and 2 * self._over > len(heap):
            heap[:] = [entry for entry in heap if not entry[2].is_over]
            heapify(heap)
            self._over = 0
        while heap and heap[0][2].is_over:
            self._pop_next()
        if not heap and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pop_next(self) -> Deadline:
        _, _, deadline = heappop(self._heap)
        if deadline.is_over and self._over:
            self._over -= 1
        return deadline

    def _set_timer(self) -> None:
        first = self._heap[0][0]
        if self._timer is not None:
            if self._timer.when() <= first:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(first, self._call_due)

    def _call_due(self) -> None:
        """Call what is due. What is set meanwhile comes up in a turn to come, even if it is due."""
        self._timer = None
        heap, now, newest = self._heap, self._loop.time(), self._number
        try:
            while heap and heap[0][0] <= now and heap[0][1] <= newest:
                deadline = self._pop_next()
                if not deadline.is_over:
                    deadline.come_up()
        finally:  # where one of them raises, the loop tells of it, and the others come up next
            if heap:
                self._set_timer()


#: Those of loops that have connections. By weak values, since each knows its loop.
_DEADLINES: WeakValueDictionary[asyncio.AbstractEventLoop, Deadlines] = WeakValueDictionary()


class Deadline:
    """Calls `due` not later than the session's next deadline; perhaps earlier, since that moves with each record."""

    __slots__ = ("_deadlines", "_due", "_loop", "_session", "_soonest", "_times")

    def __init__(
        self, session: Session, loop: asyncio.AbstractEventLoop, due: Callable[[float], object]
    ) -> None:
        """`due` is given the time."""
        self._session: Session | None = session
        self._loop, self._due = loop, due
        limits = session.limits
        # What happens now can have something due so much later, at the soonest.
        times = (limits.ack_delay, limits.keepalive, limits.dead, limits.idle, SILENT)
        self._soonest = min(filter(None, times))
        self._deadlines = Deadlines.of_loop(loop)
        #: When it comes up, the next time last. Each was set before the one behind it, which is due earlier: few.
        self._times: list[float] = []

    @property
    def is_over(self) -> bool:
        """True once nothing is due any more."""
        return self._session is None

    def reset_timer(self, now: float) -> None:
        """Set the timer anew, since something has happened: something may be due before it comes up."""
        times = self._times
        if times and now + self._soonest >= times[-1]:
            return
        if self._session is None:
            return
        deadline = self._session.next_deadline()
        if deadline < (times[-1] if times else NEVER):
            times.append(deadline)
            self._deadlines.set_deadline(self, deadline)
        # Else it comes up earlier, looks, and is set again.

    def cancel(self) -> None:
        """Let nothing be due any more. Idempotent."""
        if self._session is not None:
            self._session = None
            self._due = _do_nothing  # the entries that are left keep no connection
            self._deadlines.note_over(len(self._times))
            self._times.clear()

    def come_up(self) -> None:
        """Do what is due at the next of its times, which has come."""
        self._times.pop()
        if self._session is not None:
            self._session.handle_timer(self._loop.time())
            self._due(self._loop.time())


def _do_nothing(now: float) -> None:
    """Do nothing: the session is over."""
