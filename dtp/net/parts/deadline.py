"""The timer of a session: one of the loop's, however often something is due at another time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dtp.session.session import Session
from dtp.session.state import NEVER


class Deadline:
    """Calls `due` not later than the session's next deadline; perhaps earlier, since that moves with each record."""

    __slots__ = ("_at", "_due", "_loop", "_session", "_soonest", "_timer")

    def __init__(
        self, session: Session, loop: asyncio.AbstractEventLoop, due: Callable[[float], object]
    ) -> None:
        """`due` is given the time."""
        self._session, self._loop, self._due = session, loop, due
        limits = session.limits
        # What happens now can have something due so much later, at the soonest.
        self._soonest = min(filter(None, (limits.ack_delay, limits.keepalive, limits.dead, limits.idle)))
        self._timer: asyncio.TimerHandle | None = None
        self._at = NEVER

    def update(self, now: float) -> None:
        """Something has happened: set the timer if something may be due before it."""
        if now + self._soonest >= self._at:
            return
        deadline = self._session.deadline()
        if self._at <= deadline:
            return  # it comes earlier, looks, and is set again
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._tick)
        self._at = deadline

    def cancel(self) -> None:
        """Nothing is due any more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._at = None, NEVER

    def _tick(self) -> None:
        self._timer, self._at = None, NEVER
        self._session.tick(self._loop.time())
        self._due(self._loop.time())
