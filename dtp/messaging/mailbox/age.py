"""The time by which a mailbox forgets what it has kept for long enough, as a value.

If the clock jumped ahead, all that waits would be forgotten at once, for good. So what is kept ages by the clock,
but at most twice as fast as a clock that nobody sets goes: a mailbox that was away catches up, and one whose clock
is wrong for a day loses a day.
"""

from __future__ import annotations

from typing import Final

#: Seconds by which things age within one second, at most.
RATE: Final = 2
#: Seconds by which the clock may be ahead of that time before its operator is told.
AHEAD: Final = 86_400


class AgeClock:
    """The time by which one mailbox forgets."""

    def __init__(self) -> None:
        #: Up to when it has lived, Unix time in seconds, and when that was read; None before.
        self._lived: float | None = None
        self._steady = 0.0
        #: True while the clock is ahead of that by more than a day.
        self.is_behind = False

    def expiry_time(self, wall: float, steady: float, swept: int | None) -> int:
        """Return the time by which things are forgotten now, Unix time in seconds.

        `wall` is the clock's time, and `steady` that of a clock that nobody sets, both in seconds. `swept` is what
        the last call returned, as the store has it: 0 if that isn't known, None if nothing is kept, and then the
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
