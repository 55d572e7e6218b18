"""What a session knows: its streams, credit, queues and links - and the steps that everything else is made of."""

from __future__ import annotations

import hashlib
from collections import deque

from dtp.bounded import BoundedDict
from dtp.core import STREAM_ROOM
from dtp.errors import DtpError
from dtp.identity import PeerId
from dtp.session import events as ev
from dtp.session.ack_watch import AckWatch
from dtp.session.codes import CloseCode, ConnectionClosed, ProtocolError, StreamClosed, check_code
from dtp.session.datagrams import DatagramQueue
from dtp.session.exchange import Exchanges
from dtp.session.frames import (
    CONNECTION,
    MAX_OFFSET,
    PING,
    RESET,
    STOP,
    STREAMS,
    WINDOW,
    CloseFrame,
    FrameType,
    Outgoing,
    build_close,
    control,
)
from dtp.session.handshake import Established
from dtp.session.idle import IdleFrames
from dtp.session.limits import LATE_BYTES, STREAMS_AHEAD, Limits
from dtp.session.link import Link
from dtp.session.noise import protocol_name
from dtp.session.payload import CONNECTION_ID
from dtp.session.streams import LEAST_PART, NO_OFFSET, SMALL, RecentReaders, SessionStream

NEVER = float("inf")
_WINDOW, _pack_window = int(FrameType.WINDOW), WINDOW.pack  # one for each stream: looked up once
#: Pings that wait for an answer; older ones are given up.
_MAX_PINGS = 64
#: Credit so little counts as none: a frame has more around it.
LITTLE_CREDIT = 64


class SessionState:
    """The fields of a session and the small steps on them. `Session` has the interface."""

    def __init__(
        self,
        established: Established,
        limits: Limits,
        now: float,
        *,
        client: bool,
        exchanges: Exchanges | None = None,
    ) -> None:
        self.client = client
        self._exchanges = exchanges
        self.limits = limits
        self.peer: PeerId = established.peer
        self.service = established.payload.service
        #: The Noise protocol of the first handshake, in full.
        self.protocol = protocol_name(established.pattern, established.suite)
        #: Names this connection when it is resumed (16 bytes, public); the secret proves it.
        self.connection_id = hashlib.sha256(b"dtp.connection.v1" + established.split.hash).digest()[
            :CONNECTION_ID
        ]
        self._secret = established.split.secret
        self._params = established.payload.params
        self._events: list[ev.Event] = []
        self._control: deque[Outgoing] = deque()
        self._datagrams = DatagramQueue(limits)
        self._close: CloseFrame | None = None
        self.ended: ev.SessionEnded | None = None
        self._undelivered: frozenset[int] = frozenset()  # once ended: streams the peer has not all of
        #: Client: the server has admitted us. Server: we have admitted the client.
        self.ready = False
        self._confirmed = False  # the peer has sent a record, so it holds the keys
        #: What to say to whoever sends the first record, if it is to be refused: code and reason.
        self._refusal: tuple[int, str] | None = None

        self._streams: dict[int, SessionStream] = {}
        self._turns: deque[SessionStream] = deque()
        self._windows: dict[int, None] = {}  # streams whose WINDOW is to be sent, an ordered set
        self._ack_due: dict[int, None] = {}  # streams with data that is not yet acknowledged
        self._next_own = 0 if client else 1
        self._next_peer = 1 if client else 0
        self._own_allowed = self._params.streams
        self._peer_allowed = min(limits.streams, STREAMS_AHEAD)
        self._peer_closed = 0
        self._bound_streams()
        self._away: int | None = None
        self._peer_away = False
        self._peer_refuses = False  # it has said from which stream on

        #: The largest write that may be sealed as it is: one piece, and one record.
        self._prompt = min(SMALL, limits.record - STREAM_ROOM)
        self._sent_total = 0
        self._send_limit = self._params.connection_window
        self._received_total = 0
        self._consumed_total = 0
        self._receive_limit = limits.connection_window
        self._grant_at = limits.connection_window // 4
        self._scarce_at = limits.connection_window - limits.connection_window // 4
        self._short: dict[int, None] = {}  # streams that were given less, since too little was left
        self._readers = RecentReaders(limits.connection_window // 2)
        self._runs = 0  # pieces of streams that wait with a gap before them
        self._never_arrived = (
            0  # bytes that only the final offset of a RESET tells of, or that lie behind a gap
        )
        self._never_answered = 0  # streams opened here that the peer has reset before any byte of theirs
        self._send_stop = MAX_OFFSET  # sending stops here, whatever the credit: see `Session.limit_sending`
        self._receive_stop = MAX_OFFSET
        # Of what was sent, bytes that are kept no more: acknowledged, or of a reset stream.
        self._released_total = 0
        # The lowest of what bounds `_sent_total`, so that sealing compares with one number.
        self._send_until = 0
        self._bound_sending()

        self._idle = IdleFrames(limits, now)
        self._acks = AckWatch(limits, now)

        self._links: dict[int, Link] = {}
        self._next_link = 0
        self._used_links = {0}
        self._unanswered: set[int] = set()  # lost links whose STATE has not come: the peer may not know
        self._told_lost: dict[int, int] = {}  # lost links for which the peer was sent a list, and over which
        self._heard_lost: set[int] = set()  # lost links whose STATE has come
        self._awaiting_state = False
        self._attached_at = now  # the newest link
        self._detached_at: float | None = None  # since then without a link, or without one that was of use
        self._stuck_since: float | None = None  # links were lost, and nothing has passed in between
        self._ack_at = NEVER
        self._late_until = LATE_BYTES  # what comes beyond this sum is acknowledged as soon as of any stream
        self._active_at = now
        self._moved_at_ping = 0
        self._ping_token = 0
        self._pings: BoundedDict[int, float] = BoundedDict(_MAX_PINGS)
        self.rtt: float | None = None

    @property
    def moved(self) -> int:
        """Bytes of streams both ways so far: those of `traffic` together."""
        return self._sent_total + self._received_total - self._never_arrived

    # ---- ends -------------------------------------------------------------------------------------------

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """Give up sending; the peer gets `error_code`. What waits to be sent is dropped. Idempotent. `LocalError` for
        a code that is not from 0 to 2^32 - 1, as in `stop_stream` and `close`."""
        check_code(error_code)
        stream = self._streams.get(stream_id)
        if stream is not None and stream.send.reset_code is None and not stream.send.done:
            self._release_bytes(stream.send.kept)
            stream.send.reset_sending(error_code)
            self._queue_control(FrameType.RESET, RESET.pack(stream_id, error_code, stream.send.highest))

    def stop_stream(self, stream_id: int, error_code: int) -> None:
        """End reading: the peer is asked to stop sending. Idempotent."""
        check_code(error_code)
        stream = self._streams.get(stream_id)
        if stream is not None and stream.receive.stop_code is None and not stream.receive.ended:
            receive = stream.receive
            receive.stop_code = error_code
            self._give_credit(stream, receive.next - receive.consumed)
            self._control.extend(self._acks_due(stream_id))
            self._queue_control(FrameType.STOP, STOP.pack(stream_id, error_code))

    def close(self, code: int = 0, reason: str = "", *, application: bool = False, detail: int = 0) -> None:
        """End the session. One CLOSE frame is still to be sealed on each link; then the carriers may go."""
        check_code(code)
        check_code(detail)
        if self.ended is None:
            acks = self._acks_due(*self._ack_due)
            self._end_session(
                ev.SessionEnded(code, reason, by_peer=False, application=application, detail=detail)
            )
            self._close = CloseFrame(code, reason, application, detail)
            for link in self._links.values():
                link.control += acks
                link.control.append(build_close(self._close))

    def is_acknowledged(self, stream_id: int) -> bool:
        """True when the peer has everything that was written to this stream (and its end, if it has one).

        Of one that was reset, or once the session was closed: whether it had all bytes before; that it didn't wait
        for the end is its own decision.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return stream_id not in self._undelivered
        send = stream.send
        if send.finished and send.reset_code is None:
            return send.done
        return send.done or min(send.acked, send.highest) == send.end

    def _closed_by_peer(self, close: CloseFrame) -> None:
        lost = close.close_code == CloseCode.RESUME_UNKNOWN and not close.application
        self._end_session(
            ev.SessionEnded(close.close_code, close.reason, True, close.application, lost, close.detail)
        )

    # ---- steps ------------------------------------------------------------------------------------------

    def _new_ping(self, now: float) -> bytes:
        self._ping_token += 1
        self._pings[self._ping_token] = now
        return PING.pack(self._ping_token)

    def _check_open(self) -> None:
        ended = self.ended
        if ended is not None:
            raise closed_error(ended)

    def _get_sending(self, stream_id: int) -> SessionStream:
        self._check_open()
        stream = self._streams.get(stream_id)
        if stream is None or not stream.send.open:
            raise StreamClosed(f"stream {stream_id} can't be written to: it was finished or reset")
        return stream

    def _add_stream(self, stream_id: int) -> SessionStream:
        stream = SessionStream(stream_id, self._params.stream_window, self.limits)
        self._streams[stream_id] = stream
        return stream

    def _take_turn(self, stream: SessionStream) -> None:
        if not stream.queued:
            stream.queued = True
            self._turns.append(stream)

    def _queue_control(self, frame: int, body: bytes = b"") -> None:
        if len(self._control) < self.limits.control + len(self._streams):
            self._control.append(control(frame, body))
        else:
            self.close(CloseCode.LIMIT, "too many control frames wait")

    def _window_frame(self, stream_id: int, acked: int, limit: int, flags: int = 0) -> Outgoing:
        self._ack_due.pop(stream_id, None)
        return (_WINDOW, flags, 0, 0, _pack_window(stream_id, acked, limit))

    def _acks_due(self, *stream_ids: int) -> list[Outgoing]:
        """Return what was received of these streams and not yet acknowledged: with a goodbye it is said at once."""
        due = [self._streams[key] for key in stream_ids if key in self._ack_due and key in self._streams]
        return [self._window_frame(each.stream_id, each.receive.acked, each.receive.limit) for each in due]

    def _bound_sending(self) -> None:
        """Apply a change of the peer's credit, of our own limit, or of what may be kept for sending it again."""
        unacknowledged = self._released_total + self.limits.unacknowledged
        self._send_until = min(self._send_limit, self._send_stop, unacknowledged)

    def _release_bytes(self, size: int) -> None:
        """Note that so many bytes that were sent need not be kept any more."""
        if size:
            self._released_total += size
            self._bound_sending()

    def _give_credit(self, stream: SessionStream, size: int) -> None:
        receive = stream.receive
        receive.consumed += size
        self._consumed_total += size
        if receive.consumed >= receive.grant_at:
            self._raise_credit(stream)
        if self._consumed_total >= self._grant_at or self._received_total >= self._scarce_at or self._short:
            self._grant_connection(waits=receive.consumed == receive.next)

    def _raise_credit(self, stream: SessionStream) -> None:
        """Raise the credit of a stream that was read, by what is left for all, and tell it when that is worth it."""
        receive, window, room = stream.receive, self.limits.connection_window, self._room
        if receive.takes_no_more:
            return
        # One has all, two a third each, and many come to half.
        share = window // (2 * self._readers.count_reader(stream.stream_id, self._consumed_total) - 1)
        if receive.grant_credit(room, window, share):
            self._windows[stream.stream_id] = None
        if 2 * room < window and receive.is_short:
            self._short[stream.stream_id] = None

    def _raise_unread(self, stream: SessionStream) -> None:
        """Raise the credit of a stream on which much has come, while others leave at least half of the window."""
        receive = stream.receive
        if 2 * self._room < self.limits.connection_window:
            receive.raise_at = NO_OFFSET
            self._short[stream.stream_id] = None
        elif receive.raise_unread():
            self._windows[stream.stream_id] = None

    @property
    def _room(self) -> int:
        """What the peer knows to be left for all streams, or where `limit_receiving` keeps that from it, what there
        is."""
        limited = self._receive_limit >= self._receive_stop
        until = self._consumed_total + self.limits.connection_window if limited else self._receive_limit
        return until - self._received_total

    def _give_connection_credit(self, size: int) -> None:
        self._consumed_total += size
        if self._consumed_total >= self._grant_at or self._received_total >= self._scarce_at or self._short:
            self._grant_connection()

    def _grant_connection(self, *, waits: bool = False) -> None:
        """Raise the credit of all streams, where it is worth telling: by a quarter of the window, where the peer has
        nearly none left by as much again as it has, or where half is left and some streams have less than theirs.
        Where the reader of a stream `waits`, since it has read all, little is worth telling too."""
        window, receive_stop = self.limits.connection_window, self._receive_stop
        limit = min(self._consumed_total + window, receive_stop)
        left = self._receive_limit - self._received_total
        restores = bool(self._short) and 2 * (self._consumed_total + window - self._received_total) >= window
        if (
            not restores
            and self._consumed_total < self._grant_at
            and limit - self._receive_limit < max(left, 1 if waits else min(SMALL, window // LEAST_PART))
        ):
            return
        self._tell_connection(limit)
        if limit < receive_stop:
            self._grant_at = self._consumed_total + window // 4
        if restores:
            self._restore_windows()

    def _tell_connection(self, limit: int) -> None:
        """Have the peer told that all streams together may have so much, if that is more than before."""
        if limit > self._receive_limit:
            self._receive_limit = limit
            self._scarce_at = limit - self.limits.connection_window // 4
            self._windows[CONNECTION] = None

    def _restore_windows(self) -> None:
        """Give more to streams that had less while others held much, and more again as that comes: a reader that
        waits for the rest of something, such as the end of a line, would read nothing by itself."""
        short, self._short = self._short, {}
        for stream_id in short:
            if (stream := self._streams.get(stream_id)) is not None and stream.receive.raise_unread():
                self._windows[stream_id] = None

    def _forget_if_done(self, stream: SessionStream) -> bool:
        """True when it is over and forgotten now."""
        if not stream.receive.ended or not stream.send.done or stream.stream_id not in self._streams:
            return False
        self._forget_stream(stream)
        return True

    def _forget_stream(self, stream: SessionStream) -> None:
        """Forget a stream that is over."""
        stream_id = stream.stream_id
        del self._streams[stream_id]
        self._short.pop(stream_id, None)
        self._events.append(ev.StreamDone(stream_id))
        # The peer learns from this last word that it may forget the stream, too.
        if self._windows.pop(stream_id, 0) is None:
            self._control.append(self._window_frame(stream_id, stream.receive.acked, stream.receive.limit))
        if (stream_id & 1) == (1 if self.client else 0):
            self._peer_closed += 1

    def _allow_streams(self) -> None:
        """Let the peer open more streams, and tell it: enough were closed and opened."""
        ahead = (self._next_peer >> 1) + STREAMS_AHEAD
        self._peer_allowed = min(self._peer_closed + self.limits.streams, ahead)
        self._bound_streams()
        self._queue_control(FrameType.STREAMS, STREAMS.pack(self._peer_allowed))

    def _bound_streams(self) -> None:
        """Compute how many have to be closed, and which opened, until it is worth telling that more are allowed."""
        streams = self.limits.streams
        worth = self._peer_allowed + max(1, min(streams, STREAMS_AHEAD) // 4)
        self._closed_for_more, self._opened_for_more = worth - streams, 2 * (worth - STREAMS_AHEAD)

    def _fail_link(self, link: Link, error: ProtocolError) -> None:
        """End the session of a peer that broke the rules; only the link, if it never proved itself."""
        if link.attached:
            self.close(error.close_code, str(error))
        else:
            close = build_close(CloseFrame(error.close_code, str(error)))
            link.control = deque([close])
            link.refused = True
            self._events.append(ev.LinkLost(link, str(error)))

    def _end_session(self, ended: ev.SessionEnded) -> None:
        if self.ended is None:
            self.ended = ended
            self._undelivered = frozenset(
                key
                for key, stream in self._streams.items()
                if not self.is_acknowledged(key) and (ended.lost or stream.send.acked < stream.send.end)
            )
            self._streams.clear()
            self._turns.clear()
            self._control.clear()
            self._windows.clear()
            self._datagrams.clear()
            self._events.append(ended)


def closed_error(ended: ev.SessionEnded) -> DtpError:
    """Return the exception for what is asked of a session that has ended."""
    return ConnectionClosed(ended.close_code, ended.reason, ended.by_peer, ended.application, ended.detail)
