"""The session: streams, datagrams and control over one carrier after another, as a value.

Bytes and the time go in, events and bytes come out; no socket, clock, `await` or randomness in here. Source:
docs/wire.md. Who drives it (dtp/net/connection.py, or a test) calls

- `receive(link, ...)` with what a carrier brought, `seal(link, ...)` for what it is to carry,
- `tick(now)` when `deadline()` has come,
- and after each call `events()`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import deque
from collections.abc import Callable
from typing import Any

from dtp.core import Buffer
from dtp.core import Frame as Received
from dtp.core.errors import FrameError
from dtp.errors import DtpError
from dtp.identity import PeerId
from dtp.session import events as ev
from dtp.session.codes import (
    CloseCode,
    ConnectionClosed,
    DatagramTooLarge,
    ProtocolError,
    StreamClosed,
    TooManyStreams,
    describe,
)
from dtp.session.frames import (
    ADD,
    AWAY,
    CONNECTION,
    FIN,
    FIXED,
    LISTED,
    PING,
    RESET,
    STATE,
    STOP,
    STREAMS,
    WINDOW,
    Close,
    Frame,
    Outgoing,
    build_close,
    control,
    parse_close,
    parse_fixed,
    unknown,
)
from dtp.session.handshake import Established
from dtp.session.limits import Limits
from dtp.session.link import Link, attach_proof, build_attach
from dtp.session.noise import protocol_name
from dtp.session.payload import CONNECTION_ID
from dtp.session.streams import SessionStream

_NEVER = float("inf")
_STREAM = int(Frame.STREAM)
#: What one frame adds at most to what is sealed: its header, and a share of its record's.
_FRAME_COST = 64
#: Pings that wait for an answer; older ones are given up.
_MAX_PINGS = 64


class Session:
    """One end of a connection. Times are seconds of any clock that only goes forward.

    Made from a finished handshake; `link` is the link of that handshake, attached and ready.
    """

    def __init__(self, established: Established, limits: Limits, now: float, *, client: bool) -> None:
        self.client = client
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
        self._datagrams: deque[bytes | memoryview] = deque()
        self._close: Close | None = None
        self.ended: ev.Ended | None = None
        self._undelivered: frozenset[int] = frozenset()  # once ended: streams the peer has not all of
        #: Client: the server has admitted us. Server: we have admitted the client.
        self.ready = False
        self._confirmed = False  # the peer has sent a record, so it holds the keys

        self._streams: dict[int, SessionStream] = {}
        self._turns: deque[SessionStream] = deque()
        self._windows: dict[int, None] = {}  # streams whose WINDOW is to be sent, an ordered set
        self._ack_due: dict[int, None] = {}  # streams with data that is not yet acknowledged
        self._next_own = 0 if client else 1
        self._next_peer = 1 if client else 0
        self._own_allowed = self._params.streams
        self._peer_allowed = limits.streams
        self._peer_closed = 0
        self._away: int | None = None
        self._peer_away = False

        self._sent_total = 0
        self._send_limit = self._params.connection_window
        self._received_total = 0
        self._consumed_total = 0
        self._receive_limit = limits.connection_window
        self._grant_at = limits.connection_window // 4

        self._links: dict[int, Link] = {}
        self._next_link = 0
        self._used_links = {0}
        self._unanswered: set[int] = set()  # lost links whose STATE has not come: the peer may not know
        self._told_lost: set[int] = set()  # lost links that the peer was sent a list for
        self._awaiting_state = False
        self._detached_at: float | None = None
        self._ack_at = _NEVER
        self._active_at = now
        self._ping_token = 0
        self._pings: dict[int, float] = {}
        self.rtt: float | None = None
        self.link = self.new_link(established, now)
        self._attach(self.link)
        # An IK client is the first to be able to send records; the server waits for one as proof of the keys.
        self.link.first_record_due = client

    # ---- what the application asks for ------------------------------------------------------------------

    def open_stream(self) -> int:
        """Open a stream and give its id. `TooManyStreams` when the peer's limit is reached."""
        self._check_open()
        stream_id = self._next_own
        if stream_id >> 1 >= self._own_allowed:
            raise TooManyStreams(f"the peer allows {self._params.streams} streams at once; close one first")
        self._next_own += 2
        stream = self._add_stream(stream_id)
        stream.announce = True
        self._take_turn(stream)
        return stream_id

    @property
    def can_open(self) -> bool:
        """True when the peer's limit allows another stream now."""
        return self._next_own >> 1 < self._own_allowed

    @property
    def peer_away(self) -> bool:
        """True when the peer has said that it takes no new streams."""
        return self._peer_away

    def write(self, stream_id: int, data: bytes | memoryview) -> int:
        """Queue bytes, which must not change any more; gives how many bytes of this stream wait to be sent."""
        stream = self._streams.get(stream_id)
        if stream is None or self.ended is not None or not stream.send.open:
            stream = self._sending(stream_id)  # says why not
        send = stream.send
        if len(data):
            send.write(data)
            if not stream.queued:
                stream.queued = True
                self._turns.append(stream)
        return send.end - send.sent

    def queued(self, stream_id: int) -> int:
        """Bytes of this stream that wait to be sent; 0 for one that is gone."""
        stream = self._streams.get(stream_id)
        return stream.send.queued if stream is not None else 0

    def set_low(self, stream_id: int, low: int) -> None:
        """`StreamWritable` comes when `low` bytes or less wait to be sent (at first `limits.write_low`)."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.low = low

    def acknowledged(self, stream_id: int) -> bool:
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

    def finish(self, stream_id: int) -> None:
        """Nothing more will be written: the peer sees the end behind all data. Idempotent."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.send.reset_code is None and not stream.send.finished:
            self._check_open()
            stream.send.finished = True
            self._take_turn(stream)

    def reset(self, stream_id: int, error_code: int) -> None:
        """Give up sending; the peer gets `error_code`. What waits to be sent is dropped. Idempotent."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.send.reset_code is None and not stream.send.done:
            stream.send.reset(error_code)
            self._queue(Frame.RESET, RESET.pack(stream_id, error_code, stream.send.highest))

    def stop(self, stream_id: int, error_code: int) -> None:
        """Nothing more will be read: the peer is asked to stop sending. Idempotent."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.receive.stop_code is None and not stream.receive.ended:
            receive = stream.receive
            receive.stop_code = error_code
            self._give_credit(stream, receive.next - receive.consumed)
            self._control.extend(self._acks_due(stream_id))
            self._queue(Frame.STOP, STOP.pack(stream_id, error_code))

    def finishing(self, stream_id: int) -> bool:
        """True when the end of this stream was queued and the peer hasn't acknowledged it yet."""
        stream = self._streams.get(stream_id)
        return stream is not None and stream.send.finished and not stream.send.done

    def consumed(self, stream_id: int, size: int) -> bool:
        """The application has read (or dropped) `size` bytes of `StreamData`: the peer may send as many more.

        True when that is to be told to the peer now.
        """
        stream = self._streams.get(stream_id)
        if stream is not None and stream.receive.stop_code is None:
            self._give_credit(stream, size)
        elif stream is None:
            self._give_connection_credit(size)
        return bool(self._windows)

    def send_datagram(self, data: bytes | memoryview) -> None:
        """Queue a datagram; when `limits.datagrams` wait, the oldest is dropped. `DatagramTooLarge`."""
        self._check_open()
        largest = min(self._params.datagram, self.limits.record - 4)
        if len(data) > largest:
            raise DatagramTooLarge(f"datagram of {len(data)} bytes, the most is {largest}")
        if len(self._datagrams) >= self.limits.datagrams:
            self._datagrams.popleft()
        self._datagrams.append(data)

    def send_meter(self, data: bytes) -> None:
        """Queue a metering frame (at most 4 KiB, opaque here)."""
        self._check_open()
        self._queue(Frame.METER, data)

    def ping(self, now: float) -> int:
        """Ask the peer for an answer; `Pong` with the returned token follows."""
        self._check_open()
        self._queue(Frame.PING, self._new_ping(now))
        return self._ping_token

    def _new_ping(self, now: float) -> bytes:
        self._ping_token += 1
        self._pings[self._ping_token] = now
        if len(self._pings) > _MAX_PINGS:
            del self._pings[next(iter(self._pings))]
        return PING.pack(self._ping_token)

    def admit(self) -> None:
        """Server: tell the client that it may go on."""
        self.ready = True
        self._queue(Frame.READY)

    def go_away(self) -> None:
        """Take no new streams from the peer; those it has opened go on. Idempotent."""
        if self._away is None:
            self._away = self._next_peer
            self._queue(Frame.AWAY, AWAY.pack(self._away))

    def close(self, code: int = 0, reason: str = "", *, application: bool = False) -> None:
        """End the session. One CLOSE frame is still to be sealed on each link; then the carriers may go."""
        if self.ended is None:
            acks = self._acks_due(*self._ack_due)
            self._end(ev.Ended(code, reason, by_peer=False, application=application))
            self._close = Close(code, reason, application)
            for link in self._links.values():
                link.control += acks
                link.control.append(build_close(self._close))

    # ---- links ------------------------------------------------------------------------------------------

    def new_link(self, established: Established, now: float, *, add: bool = False) -> Link:
        """A link from another handshake of the same two identities, to resume the session or (`add`) to widen it.

        On the client's side ATTACH is queued on it at once; on the server's the link waits for the client's.
        """
        if established.peer != self.peer:
            raise ProtocolError("another identity tries to take over a connection", CloseCode.RESUME_PROOF)
        # The client numbers the links; a server's link has no number until ATTACH tells it.
        number = self._next_link if self.client or not self._next_link else -1
        link = Link(number, established, self.limits, now)
        if number > 0:
            self._used_links.add(number)
            link.adding = add
            link.control.append(build_attach(self.connection_id, self._secret, link, client=True))
            if not add:
                self._replace_links(link)
                if self._detached_at is None:
                    self._detached_at = now
        self._next_link += 1
        return link

    def link_lost(self, link: Link, now: float, reason: str = "carrier lost") -> None:
        """This carrier is gone. With others left they take over; else `Detached` until resumed. Idempotent."""
        if link.lost:
            return
        link.close()
        if self._links.pop(link.number, None) is None or self.ended is not None:
            return
        self._events.append(ev.LinkLost(link, reason))
        self._unanswered.add(link.number)
        if not self.client and not self._confirmed:
            # Whoever sent the first message never proved to be alive: nothing to resume.
            self._end(ev.Ended(CloseCode.IDLE, reason, by_peer=True, lost=True))
        elif self._links:
            self._send_lists(next(iter(self._links.values())))
        elif self._detached_at is None:
            self._detached_at = now
            self._events.append(ev.Detached())

    @property
    def attached(self) -> bool:
        """True while at least one link carries the session."""
        return bool(self._links)

    def _attach(self, link: Link) -> None:
        link.attached = True
        self._links[link.number] = link
        self._detached_at = None
        self._events.append(ev.LinkAttached(link))

    def _replace_links(self, link: Link) -> None:
        """`link` is to take the place of all others: both sides begin it with their lists."""
        for old in list(self._links.values()):
            old.close()
            self._events.append(ev.LinkLost(old, "replaced by a newer carrier"))
        self._links.clear()
        self._awaiting_state = True
        self._unanswered = {link.number}
        self._told_lost.clear()
        self._send_lists(link)

    def _send_lists(self, link: Link) -> None:
        """A list for each lost link that the peer has not answered for: an earlier one may have been lost, too."""
        for lost in sorted(self._unanswered):
            self._told_lost.add(lost)
            link.control += self._state_frames(lost)

    def _state_frames(self, lost: int) -> list[Outgoing]:
        """All that the peer must know to go on without what was in flight: docs/wire.md, section "Resume"."""
        frames: list[Outgoing] = []
        for stream_id, stream in self._streams.items():
            frames.append(self._window(stream_id, stream.receive.acked, stream.receive.limit, LISTED))
            if stream.send.reset_code is not None and not stream.send.done:
                body = RESET.pack(stream_id, stream.send.reset_code, stream.send.highest)
                frames.append(control(Frame.RESET, body))
            if stream.receive.stop_code is not None and not stream.receive.ended:
                frames.append(control(Frame.STOP, STOP.pack(stream_id, stream.receive.stop_code)))
        frames.append(self._window(CONNECTION, self._received_total, self._receive_limit))
        frames.append(control(Frame.STREAMS, STREAMS.pack(self._peer_allowed)))
        if not self.client and self.ready:
            frames.append(control(Frame.READY))
        frames += [control(Frame.PING, PING.pack(token)) for token in self._pings]
        if self._away is not None:
            frames.append(control(Frame.AWAY, AWAY.pack(self._away)))
        frames.append(control(Frame.STATE, STATE.pack(self._next_peer >> 1, self._next_own >> 1, lost)))
        return frames

    # ---- bytes in ---------------------------------------------------------------------------------------

    def receive(self, link: Link, buffer: Buffer, start: int, end: int, now: float) -> int:
        """Open what a carrier brought into `buffer[start:end]`; the records are opened in place.

        Gives the index behind the last whole record; what follows is the start of one and belongs in front of
        what comes next. An error ends the link or the session; see the events.
        """
        used = start
        while used < end and not link.lost and not link.refused:
            taken, frames, error = link.opener.open(buffer, used, end)
            used += taken
            if taken:
                link.last_received = now
                link.ping_sent = None
                if not link.confirmed:
                    link.confirmed = True
                    if not self.client and not self._confirmed:
                        self._confirmed = True
                        self._events.append(ev.Confirmed())
            try:
                self._frames(link, buffer.view, frames, now)
            except ProtocolError as broken:
                self._fail(link, broken)
                break
            if isinstance(error, FrameError):  # in a genuine record: the peer's doing, not the carrier's
                self._fail(link, ProtocolError(str(error)))
                break
            if error is not None:
                self.link_lost(link, now, str(error))
                break
            if not taken:
                break
        return used

    def _frames(self, link: Link, view: memoryview, frames: list[Received], now: float) -> None:
        for frame, flags, stream_id, offset, start, length in frames:
            body = bytes(view[start : start + length])
            if frame == _STREAM and not flags and length and link.attached and self.ended is None:
                stream = self._streams.get(stream_id)
                if stream is not None and stream.receive.takes(offset, length):  # the usual case, made short
                    self._received_total += length
                    self._check_total()
                    self._events.append(ev.StreamData(stream_id, body))
                    self._note_data(stream_id, now)
                    continue
            if not link.attached:
                self._on_fresh_link(link, frame, flags, body, now)
            elif self.ended is not None:
                return
            elif frame == _STREAM:
                self._on_stream(stream_id, offset, body, bool(flags & FIN), now)
            elif frame in _HANDLERS:
                fields = parse_fixed(frame, body) if frame in FIXED else (body,)
                _HANDLERS[frame](self, link, flags, now, *fields)
            elif (error := unknown(frame)) is not None:
                raise error

    def _on_stream(self, stream_id: int, offset: int, data: bytes, fin: bool, now: float) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._peer_stream(stream_id)
            if stream is None:
                return  # over and forgotten: a repetition after a resume
        receive = stream.receive
        known_end = receive.ended
        pieces, rise = receive.receive(offset, data, fin)
        self._received_total += rise
        self._check_total()
        if receive.stop_code is not None:
            self._give_credit(stream, sum(map(len, pieces)))
        else:
            for piece in pieces:
                if piece:
                    self._events.append(ev.StreamData(stream_id, piece))
        if receive.ended:
            self._windows[stream_id] = None
            if not known_end:
                self._events.append(ev.StreamFinished(stream_id))
            self._forget_if_done(stream)
        else:
            self._note_data(stream_id, now)

    def _check_total(self) -> None:
        if self._received_total > self._receive_limit:
            raise ProtocolError("more data than the connection's credit allows", CloseCode.FLOW)

    def _note_data(self, stream_id: int, now: float) -> None:
        """Data came: it is to be acknowledged some time soon."""
        self._active_at = now
        self._ack_due[stream_id] = None
        if self._ack_at == _NEVER:
            self._ack_at = now + self.limits.ack_delay

    def _peer_stream(self, stream_id: int) -> SessionStream | None:
        """The peer's stream with this id, opened now together with those before it; None if it is over."""
        if (stream_id & 1) == (0 if self.client else 1):
            if stream_id >= self._next_own:
                raise ProtocolError(f"frame for stream {stream_id}, which was never opened")
            return None
        if stream_id < self._next_peer:
            return None
        if stream_id >> 1 >= self._peer_allowed:
            raise ProtocolError(f"stream {stream_id} is above the limit", CloseCode.LIMIT)
        while self._next_peer <= stream_id:
            opened = self._next_peer
            self._next_peer += 2
            stream = self._add_stream(opened)
            if self._away is not None and opened >= self._away:
                self.reset(opened, CloseCode.SHUTDOWN)
                self.stop(opened, CloseCode.SHUTDOWN)
            else:
                self._events.append(ev.StreamOpened(opened))
        return stream

    def _on_fresh_link(self, link: Link, frame: int, flags: int, body: bytes, now: float) -> None:
        """The first frame of a link that wants to carry this session: it must prove that it may."""
        if link.lost:  # by a CLOSE before, in the same batch
            return
        if frame == Frame.CLOSE:
            self._on_fresh_close(link, parse_close(flags, body))
            return
        if frame != Frame.ATTACH:
            raise ProtocolError("a new carrier must begin with ATTACH", CloseCode.RESUME_PROOF)
        connection, number, proof = parse_fixed(frame, body)
        add = bool(flags & ADD)
        expected = attach_proof(self._secret, link.hash, client=not self.client)
        if connection != self.connection_id or not hmac.compare_digest(expected, bytes(proof)):
            raise ProtocolError("a new carrier can't prove that it belongs here", CloseCode.RESUME_PROOF)
        assert isinstance(number, int)
        if not self.client:
            self._attach_server(link, number, add=add)
        elif (number, add) != (link.number, link.adding):
            raise ProtocolError("the server's ATTACH does not answer ours")
        if link.adding and not self._links:
            self._send_lists(link)  # those there were have been lost meanwhile
        self._attach(link)

    def _on_fresh_close(self, link: Link, close: Close) -> None:
        """The link is not taken. The session ends only with the last way to go on: nothing has proven the secret."""
        if self.client and not self._links:
            self._closed_by_peer(close)
            return
        link.close()
        self._events.append(
            ev.LinkLost(link, f"refused: {describe(close.close_code)} {close.reason}".rstrip())
        )

    def _attach_server(self, link: Link, number: int, *, add: bool) -> None:
        if number in self._used_links:
            raise ProtocolError(f"link number {number} was used before")
        if add and len(self._links) >= self.limits.links:
            raise ProtocolError(f"there are {len(self._links)} links already", CloseCode.LIMIT)
        self._used_links.add(number)
        link.number, link.adding = number, add
        link.control.append(build_attach(self.connection_id, self._secret, link, client=False))
        if not add:
            self._replace_links(link)

    # ---- control frames from the peer -------------------------------------------------------------------

    def _on_ping(self, link: Link, flags: int, now: float, token: int) -> None:
        if len(link.control) >= self.limits.control:
            raise ProtocolError("too many pings", CloseCode.LIMIT)
        link.control.append(control(Frame.PONG, PING.pack(token)))

    def _on_pong(self, link: Link, flags: int, now: float, token: int) -> None:
        sent = self._pings.pop(token, None)
        if sent is not None:
            self.rtt = now - sent
            self._events.append(ev.Pong(token, now - sent))

    def _on_reset(self, link: Link, flags: int, now: float, stream_id: int, code: int, final: int) -> None:
        stream = self._streams.get(stream_id) or self._peer_stream(stream_id)
        if stream is None:
            return
        receive = stream.receive
        receive.check_final(final, True)
        if receive.ended:
            return
        rise = max(0, final - receive.highest)
        missing = receive.end_by_reset(final)
        self._received_total += rise
        if self._received_total > self._receive_limit:
            raise ProtocolError("reset goes beyond the connection's credit", CloseCode.FLOW)
        self._give_connection_credit(missing)
        self._windows[stream_id] = None
        self._events.append(ev.StreamWasReset(stream_id, code))
        self._forget_if_done(stream)

    def _on_stop(self, link: Link, flags: int, now: float, stream_id: int, code: int) -> None:
        stream = self._streams.get(stream_id) or self._peer_stream(stream_id)
        if stream is not None and not stream.send.done and stream.send.reset_code is None:
            self.reset(stream_id, code)
            self._events.append(ev.StreamStopped(stream_id, code))

    def _on_window(self, link: Link, flags: int, now: float, stream_id: int, acked: int, limit: int) -> None:
        if stream_id == CONNECTION:
            self._send_limit = max(self._send_limit, limit)
            return
        stream = self._streams.get(stream_id) or self._peer_stream(stream_id)
        if stream is None:
            return
        send = stream.send
        stream.listed |= bool(flags & LISTED)
        waiting = send.queued
        send.acknowledge(acked)
        send.limit = max(send.limit, limit)
        if send.ready:
            self._take_turn(stream)
        if send.acked >= send.end or (waiting > stream.low >= send.queued):
            self._events.append(ev.StreamWritable(stream_id))
        self._forget_if_done(stream)

    def _on_streams(self, link: Link, flags: int, now: float, allowed: int) -> None:
        if allowed > self._own_allowed:
            self._own_allowed = allowed
            self._events.append(ev.StreamsAllowed())

    def _on_datagram(self, link: Link, flags: int, now: float, data: bytes) -> None:
        if len(data) > self.limits.datagram:
            raise ProtocolError(f"datagram of {len(data)} bytes", CloseCode.LIMIT)
        self._active_at = now
        self._events.append(ev.DatagramReceived(data))

    def _on_meter(self, link: Link, flags: int, now: float, data: bytes) -> None:
        self._events.append(ev.MeterReceived(data))

    def _on_close(self, link: Link, flags: int, now: float, body: bytes) -> None:
        self._closed_by_peer(parse_close(flags, body))

    def _closed_by_peer(self, close: Close) -> None:
        lost = close.close_code == CloseCode.RESUME_UNKNOWN and not close.application
        self._end(ev.Ended(close.close_code, close.reason, True, close.application, lost))

    def _on_away(self, link: Link, flags: int, now: float, first_refused: int) -> None:
        if not self._peer_away:
            self._peer_away = True
            self._events.append(ev.GoingAway())

    def _on_ready(self, link: Link, flags: int, now: float) -> None:
        if not self.client:
            raise ProtocolError("READY from a client: only a server admits")
        if not self.ready:
            self.ready = True
            self._events.append(ev.Ready())

    def _on_attach(self, link: Link, flags: int, now: float, *fields: object) -> None:
        raise ProtocolError("ATTACH on a link that is attached")

    def _on_state(self, link: Link, flags: int, now: float, seen: int, opened: int, lost: int) -> None:
        """The end of the peer's list: send again what it has not, forget what it has done with."""
        gone = self._links.get(lost)
        if lost not in self._used_links or (gone is link and not self._awaiting_state):
            raise ProtocolError(f"STATE of link {lost}, which is not lost")
        if seen > self._next_own >> 1:
            raise ProtocolError(f"STATE has seen {seen} streams, of which {self._next_own >> 1} were opened")
        if gone is not None and gone is not link:
            self.link_lost(gone, now, "the peer lost this carrier")
        elif lost not in self._told_lost:  # lost before it was attached here
            self._unanswered.add(lost)
            self._send_lists(link)
        self._unanswered.discard(lost)
        for stream in list(self._streams.values()):
            own = (stream.stream_id & 1) == (0 if self.client else 1)
            # A stream of the peer's may be newer than this list, and have come over a faster link.
            told = stream.stream_id >> 1 < (seen if own else opened)
            if told and not stream.listed:
                if not stream.may_be_forgotten:
                    raise ProtocolError(f"STATE has done with stream {stream.stream_id}, which has not ended")
                stream.send.forget()
                self._forget_if_done(stream)
                continue
            if own and not told and stream.send.acked:
                raise ProtocolError(f"STATE has not seen stream {stream.stream_id}, which was acknowledged")
            stream.listed = False
            if stream.send.reset_code is None:
                stream.send.rewind()
        self._turns.clear()
        for stream in self._streams.values():
            stream.queued = False
            if stream.send.ready or stream.announce:
                self._take_turn(stream)
        if self._awaiting_state:
            self._awaiting_state = False
            self._events.append(ev.Resumed())

    # ---- bytes out --------------------------------------------------------------------------------------

    def seal(self, link: Link, out: Buffer, now: float) -> int:
        """Seal what waits for this link into `out`; gives how many bytes, 0 when there is nothing.

        At most `out` full, so ask again until it is 0.
        """
        if link.lost or not self._may_seal(link):
            return 0
        frames: list[Outgoing] = []
        record = self.limits.record
        room = (out.size - 1024) * record // (record + _FRAME_COST)
        if link.control:
            room = self._take_control(link.control, frames, room)
        if link.attached and self.ended is None:
            if self._control:
                room = self._take_control(self._control, frames, room)
            if self._windows:
                room = self._take_windows(frames, room)
            if self._datagrams:
                room = self._take_datagrams(frames, room)
            if self._turns and not self._awaiting_state:
                self._take_streams(frames, room)
        if not frames and not link.first_record_due:
            return 0
        link.first_record_due = False
        rekey = now >= link.rekey_at
        if rekey:
            link.rekey_at = now + self.limits.rekey_time
        return link.sealer.seal(frames, out, record, rekey)

    def _may_seal(self, link: Link) -> bool:
        """False when certainly nothing waits for this link: the usual answer, so it is to be a quick one."""
        if link.control or link.first_record_due:
            return True
        return (
            link.attached
            and self.ended is None
            and bool(self._control or self._windows or self._turns or self._datagrams)
        )

    def _take_control(self, queue: deque[Outgoing], frames: list[Outgoing], room: int) -> int:
        while queue and room > 4096:
            frame = queue.popleft()
            frames.append(frame)
            room -= len(frame[4]) + _FRAME_COST
        return room

    def _take_windows(self, frames: list[Outgoing], room: int) -> int:
        windows = self._windows
        while windows and room > 4096:
            stream_id, _ = windows.popitem()
            if stream_id == CONNECTION:
                frames.append(self._window(CONNECTION, self._received_total, self._receive_limit))
            else:
                receive = self._streams[stream_id].receive
                frames.append(self._window(stream_id, receive.acked, receive.limit))
            room -= _FRAME_COST
        return room

    def _take_datagrams(self, frames: list[Outgoing], room: int) -> int:
        datagrams = self._datagrams
        while datagrams and room >= len(datagrams[0]) + _FRAME_COST:
            data = datagrams.popleft()
            frames.append(control(Frame.DATAGRAM, data))
            room -= len(data) + _FRAME_COST
        return room

    def _take_streams(self, frames: list[Outgoing], room: int) -> None:
        """Round robin: each stream a quantum at a time, or all the room when it is alone."""
        turns = self._turns
        without_credit = 0
        while room > _FRAME_COST and without_credit < len(turns):
            stream = turns.popleft()
            send = stream.send
            if send.reset_code is not None:
                stream.queued = False
                continue
            before, waiting = send.highest, send.queued
            quantum = self.limits.quantum if turns else room
            offset, piece, fin = send.take(min(quantum, room), self._send_limit - self._sent_total)
            self._sent_total += send.highest - before
            if len(piece) or fin or stream.announce:
                stream.announce = False
                frames.append((_STREAM, FIN if fin else 0, stream.stream_id, offset, piece))
                room -= len(piece) + _FRAME_COST
                without_credit = 0
                if waiting > stream.low >= send.queued:
                    self._events.append(ev.StreamWritable(stream.stream_id))
            elif send.ready:
                without_credit += 1  # waits for the connection's credit
            if send.ready:
                turns.append(stream)
            else:
                stream.queued = False

    # ---- time -------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """When `tick` is to be called next; infinity for never."""
        if self.ended is not None:
            return _NEVER
        times = [self._ack_at]
        limits = self.limits
        if self._detached_at is not None:
            times.append(self._detached_at + limits.resume)
        if limits.idle:
            times.append(self._active_at + limits.idle)
        for link in self._links.values():
            if link.ping_sent is not None:
                times.append(link.ping_sent + limits.dead)
            elif limits.keepalive:
                times.append(link.last_received + limits.keepalive)
        return min(times)

    def tick(self, now: float) -> None:
        """Do what is due: acknowledge, ask whether the peer lives, give up."""
        if self.ended is not None:
            return
        limits = self.limits
        if now >= self._ack_at:
            self._ack_at = _NEVER
            self._windows.update((key, None) for key in self._ack_due if key in self._streams)
            self._ack_due.clear()
        if limits.idle and now >= self._active_at + limits.idle:
            self.close(CloseCode.IDLE, f"no data for {limits.idle:g} s")
            return
        if self._detached_at is not None and now >= self._detached_at + limits.resume:
            reason = f"no carrier for {limits.resume:g} s"
            self._end(ev.Ended(CloseCode.IDLE, reason, by_peer=False, lost=True))
            return
        for link in list(self._links.values()):
            if link.ping_sent is not None:
                if now >= link.ping_sent + limits.dead:
                    self.link_lost(link, now, f"no answer for {limits.dead:g} s")
            elif limits.keepalive and now >= link.last_received + limits.keepalive:
                link.ping_sent = now
                link.control.append(control(Frame.PING, self._new_ping(now)))

    @property
    def has_events(self) -> bool:
        """True when `events()` would give any."""
        return bool(self._events)

    def events(self) -> list[ev.Event]:
        """What has happened since the last call."""
        events, self._events = self._events, []
        return events

    # ---- inner things -----------------------------------------------------------------------------------

    def _check_open(self) -> None:
        ended = self.ended
        if ended is not None:
            raise closed_error(ended)

    def _sending(self, stream_id: int) -> SessionStream:
        self._check_open()
        stream = self._streams.get(stream_id)
        if stream is None or not stream.send.open:
            raise StreamClosed(f"stream {stream_id} can't be written to: it was finished or reset")
        return stream

    def _add_stream(self, stream_id: int) -> SessionStream:
        limits = self.limits
        stream = SessionStream(
            stream_id, self._params.stream_window, limits.stream_window, limits.write_low
        )
        self._streams[stream_id] = stream
        return stream

    def _take_turn(self, stream: SessionStream) -> None:
        if not stream.queued:
            stream.queued = True
            self._turns.append(stream)

    def _queue(self, frame: int, body: bytes = b"") -> None:
        if len(self._control) < self.limits.control + len(self._streams):
            self._control.append(control(frame, body))
        else:
            self.close(CloseCode.LIMIT, "too many control frames wait")

    def _window(self, stream_id: int, acked: int, limit: int, flags: int = 0) -> Outgoing:
        self._ack_due.pop(stream_id, None)
        return control(Frame.WINDOW, WINDOW.pack(stream_id, acked, limit), flags)

    def _acks_due(self, *stream_ids: int) -> list[Outgoing]:
        """What was received of these streams and not yet acknowledged: with a goodbye it is said at once."""
        due = [self._streams[key] for key in stream_ids if key in self._ack_due and key in self._streams]
        return [self._window(each.stream_id, each.receive.acked, each.receive.limit) for each in due]

    def _give_credit(self, stream: SessionStream, size: int) -> None:
        receive = stream.receive
        receive.consumed += size
        if receive.consumed >= receive.grant_at and receive.grant():
            self._windows[stream.stream_id] = None
        self._give_connection_credit(size)

    def _give_connection_credit(self, size: int) -> None:
        self._consumed_total += size
        if self._consumed_total >= self._grant_at:
            window = self.limits.connection_window
            self._receive_limit = self._consumed_total + window
            self._grant_at = self._consumed_total + window // 4
            self._windows[CONNECTION] = None

    def _forget_if_done(self, stream: SessionStream) -> None:
        if not stream.done or stream.stream_id not in self._streams:
            return
        del self._streams[stream.stream_id]
        self._events.append(ev.StreamDone(stream.stream_id))
        # The peer learns from this last word that it may forget the stream, too.
        if self._windows.pop(stream.stream_id, 0) is None:
            self._control.append(self._window(stream.stream_id, stream.receive.acked, stream.receive.limit))
        if (stream.stream_id & 1) == (1 if self.client else 0):
            self._peer_closed += 1
            allowed = self._peer_closed + self.limits.streams
            if allowed - self._peer_allowed >= max(1, self.limits.streams // 4):
                self._peer_allowed = allowed
                self._queue(Frame.STREAMS, STREAMS.pack(allowed))

    def _fail(self, link: Link, error: ProtocolError) -> None:
        """The peer broke the rules. On a link that never proved itself only the link suffers."""
        if link.attached:
            self.close(error.close_code, str(error))
        else:
            close = build_close(Close(error.close_code, str(error), application=False))
            link.control = deque([close])
            link.refused = True
            self._events.append(ev.LinkLost(link, str(error)))

    def _end(self, ended: ev.Ended) -> None:
        if self.ended is None:
            self.ended = ended
            self._undelivered = frozenset(
                key
                for key, stream in self._streams.items()
                if not self.acknowledged(key) and (ended.lost or stream.send.acked < stream.send.end)
            )
            self._streams.clear()
            self._turns.clear()
            self._control.clear()
            self._windows.clear()
            self._datagrams.clear()
            self._events.append(ended)


_HANDLERS: dict[int, Callable[..., None]] = {
    Frame.PING: Session._on_ping,
    Frame.PONG: Session._on_pong,
    Frame.RESET: Session._on_reset,
    Frame.STOP: Session._on_stop,
    Frame.WINDOW: Session._on_window,
    Frame.STREAMS: Session._on_streams,
    Frame.DATAGRAM: Session._on_datagram,
    Frame.CLOSE: Session._on_close,
    Frame.AWAY: Session._on_away,
    Frame.READY: Session._on_ready,
    Frame.ATTACH: Session._on_attach,
    Frame.STATE: Session._on_state,
    Frame.METER: Session._on_meter,
}


def closed_error(ended: ev.Ended) -> DtpError:
    """The exception for what is asked of a session that has ended."""
    return ConnectionClosed(ended.close_code, ended.reason, ended.by_peer, ended.application)
