"""Credit: how many bytes of streams may be sent and received, and what the peer is to be told of it in WINDOW frames.

Source: docs/wire.md, section "Credit".
"""

from __future__ import annotations

from dtp.session.codes import CloseCode, ProtocolError
from dtp.session.frames import CONNECTION, MAX_OFFSET
from dtp.session.limits import LATE_ACK, LATE_BYTES, NEVER, Limits
from dtp.session.streams import LEAST_PART, NO_OFFSET, SMALL, RecentReaders, SessionStream

#: Credit so little counts as none: a frame has more around it.
_LITTLE = 64


class SendCredit:
    """How many bytes of streams this side may send in all, and how many of those it keeps to send them again."""

    __slots__ = ("_limit", "_most_kept", "_stop", "released", "sent", "until")

    def __init__(self, limit: int, most_kept: int) -> None:
        """`limit` is the peer's credit at first; `most_kept` bytes may be kept."""
        self.sent = 0
        #: Of what was sent, bytes that are kept no more: acknowledged, or of a stream that was reset.
        self.released = 0
        self._limit, self._most_kept = limit, most_kept
        self._stop = MAX_OFFSET  # sending stops here, whatever the credit: see `Session.limit_sending`
        #: The lowest of what bounds `sent`, so that sealing compares with one number.
        self.until = 0
        self._bound_sending()

    def _bound_sending(self) -> None:
        self.until = min(self._limit, self._stop, self.released + self._most_kept)

    @property
    def kept(self) -> int:
        """Bytes that are kept."""
        return self.sent - self.released

    def release_bytes(self, size: int) -> None:
        """Note that so many bytes that were sent need not be kept any more."""
        if size:
            self.released += size
            self._bound_sending()

    def raise_limit(self, limit: int) -> bool:
        """Note the peer's credit; True if it is more than before."""
        if limit <= self._limit:
            return False
        self._limit = limit
        self._bound_sending()
        return True

    def stop_at(self, total: int | None) -> bool:
        """Send at most so many bytes, whatever the credit, None for as many as that allows; True if that is more than
        before."""
        before, self._stop = self._stop, MAX_OFFSET if total is None else total
        self._bound_sending()
        return self._stop > before


class ReceiveCredit:
    """How many bytes of streams the peer may send, in all and of each stream, and which of them it is to be told."""

    __slots__ = (
        "_grant_at",
        "_readers",
        "_short",
        "_stop",
        "_streams",
        "_window",
        "consumed",
        "limit",
        "received",
        "scarce_at",
        "windows",
    )

    def __init__(self, window: int, streams: dict[int, SessionStream]) -> None:
        """`window` is how much may be unread in all; `streams` are those of the session, by their numbers."""
        self.received = self.consumed = 0
        self.limit = self._window = window  # what the peer knows that it may send
        self._stop = MAX_OFFSET  # no credit is given beyond: see `Session.limit_receiving`
        self._grant_at = window // 4  # when so much was read, more credit is worth telling
        #: When so much has come the peer has little left: see `check_received`.
        self.scarce_at = window - window // 4
        #: Streams whose WINDOW is to be sent, and `CONNECTION` for that of all: an ordered set.
        self.windows: dict[int, None] = {}
        self._streams = streams
        self._short: dict[int, None] = {}  # streams that were given less, since too little was left
        self._readers = RecentReaders(window // 2)

    @property
    def unread(self) -> int:
        """Bytes that came, or lie in gaps between those, and were not read."""
        return self.received - self.consumed

    @property
    def blocked_at(self) -> int | None:
        """What the peer may have sent, where it has and waits until more is read; None while it may send more."""
        is_full = self.limit - self.received < _LITTLE and self.unread >= self._window // 2
        return self.limit if is_full else None

    @property
    def _room(self) -> int:
        """What the peer knows to be left for all streams, or where `limit_to` keeps that from it, what there is."""
        until = self.consumed + self._window if self.limit >= self._stop else self.limit
        return until - self.received

    def check_received(self) -> None:
        """Raise `ProtocolError` where more has come than was allowed. Where the peer may send little more by what it
        knows, have it told what was read meanwhile: nothing else may be read before more has come."""
        if self.received > self.limit:
            raise ProtocolError("more data than the connection's credit allows", CloseCode.FLOW)
        self._grant_connection()

    def note_read(self, stream: SessionStream, size: int) -> None:
        """Note that so many bytes of a stream were read, and give credit for as many."""
        receive = stream.receive
        receive.consumed += size
        self.consumed += size
        if receive.consumed >= receive.grant_at:
            self._raise_credit(stream)
        if self.consumed >= self._grant_at or self.received >= self.scarce_at or self._short:
            self._grant_connection(waits=receive.consumed == receive.next)

    def note_dropped(self, size: int) -> None:
        """Note that so many bytes are of a stream that is over, or never come, and give credit for as many."""
        self.consumed += size
        if self.consumed >= self._grant_at or self.received >= self.scarce_at or self._short:
            self._grant_connection()

    def limit_to(self, total: int | None) -> None:
        """Give no credit beyond so many bytes in all; None for no such limit. What was given stays."""
        self._stop = MAX_OFFSET if total is None else total
        self.note_dropped(0)

    def forget_stream(self, stream_id: int) -> bool:
        """Count a stream no more, which is over; True if its WINDOW was still to be sent."""
        self._short.pop(stream_id, None)
        return self.windows.pop(stream_id, 0) is None

    def note_ended(self, stream_id: int) -> None:
        """Note that nothing more comes on a stream, and have the peer told that this is known."""
        self._readers.forget_reader(stream_id)
        self.windows[stream_id] = None

    def raise_unread(self, stream: SessionStream) -> None:
        """Raise the credit of a stream on which much has come, while others leave at least half of the window."""
        receive = stream.receive
        if 2 * self._room < self._window:
            receive.raise_at = NO_OFFSET
            self._short[stream.stream_id] = None
        elif receive.raise_unread():
            self.windows[stream.stream_id] = None

    def raise_wanted(self, stream: SessionStream) -> None:
        """Raise the credit of a stream, and of all, since the program waits for more before it reads what came."""
        if stream.receive.raise_unread():
            self.windows[stream.stream_id] = None
        self._tell_connection(min(self.consumed + self._window, self._stop))

    def _raise_credit(self, stream: SessionStream) -> None:
        """Raise the credit of a stream that was read, by what is left for all, and tell it when that is worth it."""
        receive, window, room = stream.receive, self._window, self._room
        if receive.takes_no_more:
            return
        # One has all, two a third each, and many come to half.
        share = window // (2 * self._readers.count_reader(stream.stream_id, self.consumed) - 1)
        if receive.grant_credit(room, window, share):
            self.windows[stream.stream_id] = None
        if 2 * room < window and receive.is_short:
            self._short[stream.stream_id] = None

    def _grant_connection(self, *, waits: bool = False) -> None:
        """Raise the credit of all streams, where it is worth telling: by a quarter of the window, where the peer has
        nearly none left by as much again as it has, or where half is left and some streams have less than theirs.
        Where the reader of a stream `waits`, since it has read all, little is worth telling too."""
        window = self._window
        limit = min(self.consumed + window, self._stop)
        left = self.limit - self.received
        restores = bool(self._short) and 2 * (self.consumed + window - self.received) >= window
        if (
            not restores
            and self.consumed < self._grant_at
            and limit - self.limit < max(left, 1 if waits else min(SMALL, window // LEAST_PART))
        ):
            return
        self._tell_connection(limit)
        if limit < self._stop:
            self._grant_at = self.consumed + window // 4
        if restores:
            self._restore_windows()

    def _tell_connection(self, limit: int) -> None:
        """Have the peer told that all streams together may have so much, if that is more than before."""
        if limit > self.limit:
            self.limit = limit
            self.scarce_at = limit - self._window // 4
            self.windows[CONNECTION] = None

    def _restore_windows(self) -> None:
        """Give more to streams that had less while others held much, and more again as that comes: a reader that
        waits for the rest of something, such as the end of a line, would read nothing by itself."""
        short, self._short = self._short, {}
        for stream_id in short:
            if (stream := self._streams.get(stream_id)) is not None and stream.receive.raise_unread():
                self.windows[stream_id] = None


class Acknowledgements:
    """Which streams have data that is not acknowledged yet, and when it is to be."""

    __slots__ = ("_late_until", "at", "delay", "due")

    def __init__(self, limits: Limits) -> None:
        self.due: dict[int, None] = {}  # an ordered set
        #: When they are to be sent.
        self.at = NEVER
        self.delay = limits.ack_delay
        self._late_until = LATE_BYTES  # what comes beyond this sum is acknowledged as soon as of any stream

    def plan(self, stream: SessionStream, received: int, now: float) -> None:
        """Have what came acknowledged soon, or later where nobody waits for that and it is little."""
        late = stream.acks_late and received < self._late_until
        self.at = min(self.at, now + (max(self.delay, LATE_ACK) if late else self.delay))

    def take_due(self, received: int) -> list[int]:
        """Return the streams whose acknowledgement is due, and begin anew."""
        self.at = NEVER
        self._late_until = received + LATE_BYTES
        due = list(self.due)
        self.due.clear()
        return due
