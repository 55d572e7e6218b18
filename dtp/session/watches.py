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
from dtp.session.frames import PING, FrameType, control
from dtp.session.limits import NEVER, SILENT, WORK_BYTES, WORK_PAUSE, Limits
from dtp.session.link import Link, LinkTable
from dtp.session.stream_table import StreamTable

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
        #: `StreamTable.moved` when the peer asked, or was asked, last.
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
        """Raise `ProtocolError` (LIMIT) if there are too many. `moved` is `StreamTable.moved`, which only grows."""
        if self.count <= self._burst:
            return
        self.count -= round((now - self._since) * self._rate) + (moved - self._moved) // SHARE
        self.count = max(0, self.count)
        self._since, self._moved = now, moved
        if self.count > self._burst:
            raise ProtocolError("too many frames that move nothing", CloseCode.LIMIT)


class Readiness:
    """Whether both sides are to go on: the peer holds the keys, and the server has admitted the client."""

    __slots__ = ("confirmed", "ready", "refusal")

    def __init__(self, *, client: bool) -> None:
        #: Client: the server has admitted us. Server: we have admitted the client.
        self.ready = False
        #: The peer holds the keys: a server's handshake has shown that, a client's first record does.
        self.confirmed = client
        #: What to say to whoever sends the first record, if it is to be refused: code and reason.
        self.refusal: tuple[int, str] | None = None


class Liveness:
    """Asks whether the peer is still there, and says which links to give up. Times are the caller's, in seconds.

    A server says nothing to whom it may have heard before, so it asks nothing before the peer is confirmed (see
    `Session.refuse_once_confirmed`).
    """

    __slots__ = ("_limits", "_links", "_readiness", "_streams", "ack_watch", "idle", "pings")

    def __init__(
        self, limits: Limits, readiness: Readiness, links: LinkTable, streams: StreamTable, now: float
    ) -> None:
        self._limits, self._readiness = limits, readiness
        self._links, self._streams = links, streams
        self.pings = PendingPings()
        self.idle = IdleFrames(limits, now)
        self.ack_watch = AckWatch(limits, now)

    @property
    def is_silent(self) -> bool:
        """True while there are links and none of them answers: see `LinkSilent`."""
        links = self._links.by_number
        return bool(links) and all(link.is_silent for link in links.values())

    def next_deadline(self) -> float:
        """Return when to look again at links, or at what is not acknowledged."""
        links = self._links.by_number.values()
        if not links:
            return NEVER
        times = [self.ack_watch.look_at] if self._streams.send_credit.kept else []
        for link in links:
            if link.ping_sent is not None:
                dead = self._ping_patience(link)
                wait = dead if link.is_silent else min(dead, self._patience_for_life(link))
                times.append(link.ping_sent + wait)
            elif self._keeps_alive:
                times.append(link.last_received + self._pause_before_ping(link))
            if link.exchange.asked_at is not None:
                times.append(link.exchange.asked_at + self._patience_for_exchange(link))
        return min(times, default=NEVER)

    def is_overdue(self, now: float) -> bool:
        """True if the peer has had for long what it doesn't acknowledge. Ask it, where that isn't known yet."""
        credit, watch, links = self._streams.send_credit, self.ack_watch, self._links.by_number
        if not credit.kept or not links or now < watch.look_at:
            return False
        verdict = watch.check_progress(now, credit.sent, credit.released)
        if verdict is AckAction.ASK:
            if any(each.send.sent < each.send.highest for each in self._streams.by_id.values()):
                watch.reset_watch(now)  # a PONG would say nothing of what is still to be sent again
                return False
            tokens = []
            for link in links.values():
                tokens.append(self._queue_ping(link, now))
                if link.ping_sent is None and self._keeps_alive:  # it may be the carrier that has lost them
                    link.ping_sent = now
            watch.note_pings(tokens)
        return verdict is AckAction.OVERDUE

    def why_lost(self, link: Link, now: float) -> str | None:
        """Return why a link is to be given up now; None to keep it."""
        asked_at = link.exchange.asked_at
        if asked_at is not None and now >= asked_at + (wait := self._patience_for_exchange(link)):
            # Whoever has stolen the keys, and stands between, would keep them in use by holding this back.
            return f"no fresh keys for {wait:g} s"
        if link.ping_sent is not None and now >= link.ping_sent + (dead := self._ping_patience(link)):
            return f"no answer for {dead:g} s"
        return None

    def ask_if_quiet(self, link: Link, now: float) -> bool:
        """Ask whether the peer is still there, where it has said nothing for long. True if it has answered nothing
        since it was asked, and that has not been told yet."""
        if link.ping_sent is None:
            if self._keeps_alive and now >= link.last_received + self._pause_before_ping(link):
                self._ask_for_life(link, now)
            return False
        if link.is_silent or now < link.ping_sent + self._patience_for_life(link):
            return False
        link.told_silent = link.ping_sent
        return True

    def ask_for_life(self, now: float) -> None:
        """Ask on each link: see `Session.ask_for_life`."""
        for link in self._links.by_number.values():
            if link.ping_sent is None and self._keeps_alive and now >= link.last_received + SILENT:
                self._ask_for_life(link, now)

    @property
    def _keeps_alive(self) -> bool:
        return self._limits.keepalive > 0 and self._readiness.confirmed

    def _ask_for_life(self, link: Link, now: float) -> None:
        link.ping_sent = now
        self.pings.moved_at = self._streams.moved
        self._queue_ping(link, now)

    def _queue_ping(self, link: Link, now: float) -> int:
        link.control.append(control(FrameType.PING, self.pings.new_ping(now)))
        return self.pings.token

    def _pause_before_ping(self, link: Link) -> float:
        """Return the seconds of silence after which a PING asks for life: few while something is going on."""
        pause = self._limits.keepalive
        if self._streams.by_id and self._streams.moved - self.pings.moved_at >= WORK_BYTES:
            pause = min(pause, WORK_PAUSE)
        return max(pause, link.patience)

    def _ping_patience(self, link: Link) -> float:
        """Return the seconds from a PING to when its link is given up."""
        return max(self._limits.dead, link.patience)

    def _patience_for_life(self, link: Link) -> float:
        """Return the seconds from a PING to when its link is silent."""
        return max(SILENT, 4 * (self.pings.rtt or 0.0), link.patience)

    def _patience_for_exchange(self, link: Link) -> float:
        """Return the seconds from asking for fresh keys to their use: half of what is between two exchanges."""
        return max(self._limits.exchange / 2, self._limits.dead, link.patience)
