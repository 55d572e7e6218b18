"""What a session knows: its streams, credit, queues and links - and the steps that everything else is made of."""

from __future__ import annotations

import hashlib
from collections import deque

from dtp.core import STREAM_ROOM
from dtp.errors import DtpError
from dtp.identity import PeerId
from dtp.session import events as ev
from dtp.session.codes import CloseCode, ConnectionClosed, ProtocolError, StreamClosed, check_code
from dtp.session.credit import Acknowledgements, ReceiveCredit, SendCredit
from dtp.session.datagrams import DatagramQueue
from dtp.session.exchange import Exchanges
from dtp.session.frames import (
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
from dtp.session.limits import Limits
from dtp.session.link import Link, LinkHistory, LinkTimes
from dtp.session.noise import protocol_name
from dtp.session.payload import CONNECTION_ID
from dtp.session.streams import SMALL, Gaps, SessionStream, StreamNumbers
from dtp.session.watches import AckWatch, IdleFrames, PendingPings

_WINDOW, _pack_window = int(FrameType.WINDOW), WINDOW.pack  # one for each stream: looked up once


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
        self.ended: ev.SessionEnded | None = None
        self._undelivered: frozenset[int] = frozenset()  # once ended: streams the peer has not all of
        #: Client: the server has admitted us. Server: we have admitted the client.
        self.ready = False
        self._confirmed = False  # the peer has sent a record, so it holds the keys
        #: What to say to whoever sends the first record, if it is to be refused: code and reason.
        self._refusal: tuple[int, str] | None = None

        self._streams: dict[int, SessionStream] = {}
        self._numbers = StreamNumbers(self._params.streams, limits.streams, client=client)
        self._turns: deque[SessionStream] = deque()
        self._send_credit = SendCredit(self._params.connection_window, limits.unacknowledged)
        self._receive_credit = ReceiveCredit(limits.connection_window, self._streams)
        self._gaps = Gaps()
        self._acks = Acknowledgements(limits)
        #: The peer takes no new streams from this one on; `MAX_OFFSET` where it has only asked for none.
        self._peer_away_from: int | None = None
        #: The largest write that may be sealed as it is: one piece, and one record.
        self._prompt = min(SMALL, limits.record - STREAM_ROOM)

        self._links: dict[int, Link] = {}
        self._link_history = LinkHistory()
        self._link_times = LinkTimes(now)
        self._pings = PendingPings()
        self._idle = IdleFrames(limits, now)
        self._ack_watch = AckWatch(limits, now)
        self._active_at = now

    @property
    def moved(self) -> int:
        """Bytes of streams both ways so far: those of `traffic` together."""
        return self._send_credit.sent + self._receive_credit.received - self._gaps.never_arrived

    @property
    def rtt(self) -> float | None:
        """Seconds that the last answered PING took; None before the first."""
        return self._pings.rtt

    # ---- ends -------------------------------------------------------------------------------------------

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """Give up sending; the peer gets `error_code`. What waits to be sent is dropped. Idempotent. `LocalError` for
        a code that is not from 0 to 2^32 - 1, as in `stop_stream` and `close`."""
        check_code(error_code)
        stream = self._streams.get(stream_id)
        if stream is not None and stream.send.reset_code is None and not stream.send.done:
            self._send_credit.release_bytes(stream.send.kept)
            stream.send.reset_sending(error_code)
            self._queue_control(FrameType.RESET, RESET.pack(stream_id, error_code, stream.send.highest))

    def stop_stream(self, stream_id: int, error_code: int) -> None:
        """End reading: the peer is asked to stop sending. Idempotent."""
        check_code(error_code)
        stream = self._streams.get(stream_id)
        if stream is not None and stream.receive.stop_code is None and not stream.receive.ended:
            receive = stream.receive
            receive.stop_code = error_code
            self._receive_credit.note_read(stream, receive.next - receive.consumed)
            self._control.extend(self._due_acks(stream_id))
            self._queue_control(FrameType.STOP, STOP.pack(stream_id, error_code))

    def close(self, code: int = 0, reason: str = "", *, application: bool = False, detail: int = 0) -> None:
        """End the session. One CLOSE frame is still to be sealed on each link; then the carriers may go."""
        check_code(code)
        check_code(detail)
        if self.ended is None:
            acks = self._due_acks(*self._acks.due)
            self._end_session(
                ev.SessionEnded(code, reason, by_peer=False, application=application, detail=detail)
            )
            close = build_close(CloseFrame(code, reason, application, detail))
            for link in self._links.values():
                link.control += acks
                link.control.append(close)

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
        self._acks.due.pop(stream_id, None)
        return (_WINDOW, flags, 0, 0, _pack_window(stream_id, acked, limit))

    def _due_acks(self, *stream_ids: int) -> list[Outgoing]:
        """Return what was received of these streams and not yet acknowledged: with a goodbye it is said at once."""
        due = [self._streams[key] for key in stream_ids if key in self._acks.due and key in self._streams]
        return [self._window_frame(each.stream_id, each.receive.acked, each.receive.limit) for each in due]

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
        self._events.append(ev.StreamDone(stream_id))
        # The peer learns from this last word that it may forget the stream, too.
        if self._receive_credit.forget_stream(stream_id):
            self._control.append(self._window_frame(stream_id, stream.receive.acked, stream.receive.limit))
        self._numbers.note_closed(stream_id)

    def _allow_streams(self) -> None:
        """Let the peer open more streams, and tell it: enough were closed and opened."""
        self._queue_control(FrameType.STREAMS, STREAMS.pack(self._numbers.allow_more()))

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
            self._receive_credit.windows.clear()
            self._datagrams.clear()
            self._events.append(ended)


def closed_error(ended: ev.SessionEnded) -> DtpError:
    """Return the exception for what is asked of a session that has ended."""
    return ConnectionClosed(ended.close_code, ended.reason, ended.by_peer, ended.application, ended.detail)
