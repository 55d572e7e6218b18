"""The bounds of one stream in bytes and time: data that is counted or limited is held back, and the stream
ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dtp.daemon.policies.base import Bounds
from dtp.daemon.reasons import Reason
from dtp.net.splices import SpliceCounts
from dtp.net.stream import Stream

#: How often within its bound an idle stream is checked.
_LOOKS = 4

#: Called with the number of bytes from either side; returns the seconds until the next bytes are wanted, or why the
#: stream must end.
Meter = Callable[[int], "float | Reason"]


class StreamBounds:
    """Counts what moves, gives credit when the meter allows it, and ends a stream that has reached a bound."""

    __slots__ = (
        "_abort",
        "_counts",
        "_data_left",
        "_held_until",
        "_looked",
        "_loop",
        "_meter",
        "_owed",
        "_stream",
        "_timers",
        "held",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stream: Stream,
        counts: SpliceCounts,
        abort: Callable[[Reason], object],
        meter: Meter | None,
        bounds: Bounds,
    ) -> None:
        """`counts` say what has moved; `abort` ends both sides, and calls `close`."""
        self._loop, self._stream, self._counts, self._abort = loop, stream, counts, abort
        self._meter, self._data_left = meter, bounds.data
        #: True while the meter doesn't want the socket's next bytes yet.
        self.held = False
        self._held_until = 0.0  # by then all that it wants later has come, in both directions
        self._owed = 0  # credit for bytes that the socket has, which the meter wants to give later
        self._looked = (0, -1)
        self._timers: set[asyncio.TimerHandle] | None = set()  # None once closed
        if bounds.time is not None:
            self._call_later(bounds.time, lambda: abort(Reason.TIME))
        if (idle := bounds.idle) is not None:
            self._call_later(idle / _LOOKS, lambda: self._check_idle(idle))

    @property
    def counts_bytes(self) -> bool:
        """True if every byte has to be counted before the next ones pass."""
        return self._meter is not None or self._data_left is not None

    def may_pass(self, size: int) -> bool:
        """Return True if bytes may go on, which are counted once they have. False ends the stream: nothing passes
        once another stream has used up the quota, nor beyond a limit of this one."""
        if self._data_left is not None and size > self._data_left:
            self._abort(Reason.SIZE)
        elif self._meter is not None and isinstance(verdict := self._meter(0), Reason):
            self._abort(verdict)
        return self._timers is not None

    def give_credit(self, size: int) -> None:
        """Count bytes that the socket has received, and let the other side send as many more, at once or after the
        delay that the meter gives."""
        delay = self._count_moved(size)
        if delay:
            self._owed += size
            self._call_later(delay, lambda: self._pay_credit(size))
        else:
            self._stream.consumed(size)

    def _pay_credit(self, size: int) -> None:
        """Give credit that is due now. Nothing is owed any more where the socket accepts nothing."""
        if self._owed:
            self._owed -= size
            self._stream.consumed(size)

    def take_owed(self) -> int:
        """Return the credit that was to be given later, and give it now."""
        owed, self._owed = self._owed, 0
        return owed

    def hold_reading(self, size: int, resume: Callable[[], object]) -> bool:
        """Count bytes from the socket. Return True if the next ones are wanted later, when `resume` is called."""
        delay = self._count_moved(size)
        if delay:
            self.held = True
            self._call_later(delay, lambda: self._release_hold(resume))
        return self.held

    def _release_hold(self, resume: Callable[[], object]) -> None:
        self.held = False
        resume()

    def _count_moved(self, size: int) -> float:
        """Count bytes; return the seconds to wait for the next ones. End the stream at a bound."""
        if self._data_left is not None:
            self._data_left -= size
            if self._data_left < 0:
                self._abort(Reason.SIZE)
                return 0.0
        if self._meter is None:
            return 0.0
        verdict = self._meter(size)
        if isinstance(verdict, Reason):
            self._abort(verdict)
            return 0.0
        if verdict:
            self._held_until = self._loop.time() + verdict
        return 0.0 if self._timers is None else verdict

    def _check_idle(self, idle: float) -> None:
        """End an idle stream unless a byte has moved since the first check."""
        moved = self._counts.sent + self._counts.received
        looks = self._looked[0] + 1 if self._looked[1] == moved else 0
        # While we are holding bytes back, neither side counts as silent.
        self._looked = (0, -1) if self._loop.time() < self._held_until else (looks, moved)
        if self._looked[0] >= _LOOKS:
            self._abort(Reason.IDLE)
        else:
            self._call_later(idle / _LOOKS, lambda: self._check_idle(idle))

    def _call_later(self, delay: float, call: Callable[[], object]) -> None:
        timers = self._timers
        assert timers is not None

        def run() -> None:
            timers.discard(timer)
            call()

        timer = self._loop.call_later(delay, run)
        timers.add(timer)

    def close(self) -> None:
        """Cancel all timers."""
        for timer in self._timers or ():
            timer.cancel()
        self._timers = None
