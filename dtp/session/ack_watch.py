"""Does the peer acknowledge what it has? Who answers PING but acknowledges nothing makes this side keep all it sends.

docs/wire.md promises an acknowledgement 0.1 s after data arrived. A PONG tells what has arrived: all that was sealed
on its link before the PING. So nobody is judged by time alone, and a slow carrier is no fault (docs/decisions/0198).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from dtp.session.limits import Limits

#: Seconds for acknowledgements at least, also where carriers are given up sooner (a daemon's after 2.5 s): a peer
#: that has no processor for so long is honest, and its session would be ended, not resumed.
_GRACE = 10.0
#: Seconds between two looks. Some acknowledgements come a second late (`LATE_ACK`).
_EVERY = 1.5
_NEVER = float("inf")


class AckAction(Enum):
    """What is to be done about bytes that are not acknowledged."""

    NOTHING = 0
    #: Send a PING on each link, and tell `note_pings` of them.
    ASK = 1
    #: The peer has had them for long, and does not say so.
    OVERDUE = 2


class AckWatch:
    """Looks now and then while anything is not acknowledged. Times are seconds of the caller's clock."""

    __slots__ = ("_asked", "_due", "_every", "_grace", "_mark", "look_at")

    def __init__(self, limits: Limits, now: float) -> None:
        self._grace = max(limits.dead, _GRACE)
        self._every = _EVERY
        self.reset_watch(now)

    def reset_watch(self, now: float) -> None:
        """Begin anew: carriers have come or gone, and what was under way may have to be sent again."""
        #: When to look next, if anything is not acknowledged then.
        self.look_at = now + self._every
        self._mark: int | None = None  # bytes that were sent before the last look
        self._asked: set[int] = set()
        self._due = False  # all PONGs are here: so is what was sent before

    def check_progress(self, now: float, sent: int, released: int) -> AckAction:
        """Say what is to be done. `sent` bytes were sealed so far, of which `released` need not be kept any more."""
        if self._mark is not None and released < self._mark:
            return AckAction.OVERDUE if self._due else AckAction.ASK
        self.reset_watch(now)
        self._mark = sent
        return AckAction.NOTHING

    def note_pings(self, tokens: Iterable[int]) -> None:
        """Note that these PINGs go out, behind all that was sealed so far."""
        self._asked = set(tokens)
        self.look_at = _NEVER

    def note_pong(self, token: int, now: float, patience: float) -> None:
        """Note a PONG. Once all are here, the acknowledgements have `dead` or `patience` seconds, what is longer."""
        if token in self._asked:
            self._asked.remove(token)
            if not self._asked:
                self._due = True
                self.look_at = now + max(self._grace, patience)
