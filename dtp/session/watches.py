"""What a session watches its peer by: PINGs, what is not acknowledged, and frames that move nothing.

Who answers PING but acknowledges nothing makes this side keep all it sends. docs/wire.md promises an acknowledgement
0.1 s after data arrived. A PONG tells what has arrived: all that was sealed on its link before the PING. So nobody is
judged by time alone, and a slow carrier is no fault (docs/decisions/0198).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final

from dtp.bounded import BoundedDict
from dtp.session.codes import CloseCode, ProtocolError
from dtp.session.frames import PING
from dtp.session.limits import NEVER, Limits

#: PINGs that wait for an answer; older ones are given up.
_MAX_PINGS = 64
#: One frame that moves nothing is allowed for so many bytes of streams that moved: metering and acknowledging take
#: frames, too.
SHARE: Final = 16 * 1024

#: Seconds for acknowledgements at least, also where carriers are given up sooner (a daemon's after 2.5 s): a peer
#: that has no processor for so long is honest, and its session would be ended, not resumed.
_GRACE = 10.0
#: Seconds between two looks. Some acknowledgements come a second late (`LATE_ACK`).
_EVERY = 1.5


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
        self.look_at = NEVER

    def note_pong(self, token: int, now: float, patience: float) -> None:
        """Note a PONG. Once all are here, the acknowledgements have `dead` or `patience` seconds, what is longer."""
        if token in self._asked:
            self._asked.remove(token)
            if not self._asked:
                self._due = True
                self.look_at = now + max(self._grace, patience)


class PendingPings:
    """PINGs that wait for their answer, and what the last answer told. Times are seconds of the caller's clock."""

    __slots__ = ("moved_at", "rtt", "token", "waiting")

    def __init__(self) -> None:
        self.token = 0  # of the last PING
        #: When each was sent.
        self.waiting: BoundedDict[int, float] = BoundedDict(_MAX_PINGS)
        self.rtt: float | None = None
        #: `Session.moved` when the peer asked, or was asked, last.
        self.moved_at = 0

    def new_ping(self, now: float) -> bytes:
        """Return what the next PING carries."""
        self.token += 1
        self.waiting[self.token] = now
        return PING.pack(self.token)

    def take_pong(self, token: int, now: float) -> float | None:
        """Return the seconds that this answer took; None if no PING waits for it."""
        sent = self.waiting.pop(token, None)
        if sent is None:
            return None
        self.rtt = now - sent
        return self.rtt


class IdleFrames:
    """How many frames that move nothing came of late: repetitions, answers to nothing, questions. Everybody may send
    a burst, so many a second, and some for what moves; nobody a flood, since each costs its reader 1 to 5 us."""

    __slots__ = ("_burst", "_moved", "_raised_at", "_rate", "_since", "count")

    def __init__(self, limits: Limits, now: float) -> None:
        #: Those that came and were not made up for yet; whoever meets one counts it here.
        self.count = 0
        self._burst, self._rate = limits.idle_frames, limits.idle_frame_rate
        self._since, self._moved = now, 0
        self._raised_at = -1  # how much was used when credit was raised last

    def count_raise(self, is_more: bool, used: int) -> None:
        """Count a frame that gives credit, unless that is more than before and some was `used` since the last that
        was: a number that rises with each byte that is sent and each stream that is opened."""
        self.count += not is_more or used == self._raised_at
        if is_more:
            self._raised_at = used

    def check_rate(self, now: float, moved: int) -> None:
        """Raise `ProtocolError` (LIMIT) if there are too many. `moved` is `Session.moved`, which only grows."""
        if self.count <= self._burst:
            return
        self.count -= round((now - self._since) * self._rate) + (moved - self._moved) // SHARE
        self.count = max(0, self.count)
        self._since, self._moved = now, moved
        if self.count > self._burst:
            raise ProtocolError("too many frames that move nothing", CloseCode.LIMIT)
