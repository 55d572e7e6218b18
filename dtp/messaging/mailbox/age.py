"""The time by which a mailbox lets its contents expire, as a value.

If the clock jumped ahead, everything that waits would expire at once, and be lost. So time here follows the clock,
but at most twice as fast as a monotonic clock: a mailbox that was off catches up, and one whose clock is wrong for
a day loses a day.
"""

from __future__ import annotations

from typing import Final

#: Seconds by which this time advances within one second, at most.
RATE: Final = 2
#: Seconds by which the clock may be ahead of this time before the operator is warned.
AHEAD: Final = 86_400


class AgeClock:
    """The expiry time of one mailbox."""

    def __init__(self) -> None:
        #: The expiry time at the last call, Unix time in seconds, and the monotonic time of that call; None before
        #: the first.
        self._lived: float | None = None
        self._steady = 0.0
        #: True while the clock is more than a day ahead of the expiry time.
        self.is_behind = False

    def expiry_time(self, wall: float, steady: float, swept: int | None) -> int:
        """Return the expiry time now, Unix time in seconds.

        `wall` is the clock's time and `steady` that of a monotonic clock, both in seconds. `swept` is what the last
        call returned, as the store has noted it: 0 if it isn't known, and None if nothing is kept. In that case the
        clock is believed.
        """
        elapsed = 0.0 if self._lived is None else steady - self._steady
        known = self._lived or swept
        if swept is None or not known:
            self._lived = wall
        else:
            self._lived = max(known, min(wall, known + RATE * elapsed))
        self._steady = steady
        self.is_behind = wall - self._lived > AHEAD
        return int(min(wall, self._lived))
