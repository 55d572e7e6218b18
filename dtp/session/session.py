"""The session: streams, datagrams and control over one carrier after another, as a value.

Bytes and the time go in, events and bytes come out; no socket, clock, `await` or randomness in here. Source:
docs/wire.md. Whoever drives it (dtp/net/connection.py, or a test) calls

- `receive(link, ...)` with what a carrier brought, `seal(link, ...)` for what it is to carry,
- `tick(now)` when `next_deadline()` has come,
- and after each call `take_events()`.
"""

from __future__ import annotations

from typing import NamedTuple

from dtp.errors import LimitError
from dtp.identity import PeerId
from dtp.session import events as ev
from dtp.session.codes import CloseCode, DatagramTooLarge, ProtocolError, TooManyStreams
from dtp.session.exchange import Exchanges
from dtp.session.frames import AWAY, MAX_METER, MAX_OFFSET, FrameType
from dtp.session.handshake import Established
from dtp.session.limits import NEVER, Limits
from dtp.session.link import Link
from dtp.session.receiving import Receiving


class Traffic(NamedTuple):
    """What moved on streams since the session began, each byte once. What metering counts (docs/wire.md).

    `opened` streams were opened by the client; `sent` and `received` bytes were sealed into STREAM frames by this
    side, and came in them. Bytes that only a RESET's final offset tells of count in `sent` if they were sent,
    and never in `received`.
    """

    opened: int
    sent: int
    received: int


#: About what a control frame takes that waits to be sent, bytes.
_CONTROL = 192


class Session(Receiving):
    """One end of a connection. Times are seconds of any clock that only goes forward.

    Made from a finished handshake; `link` is the link of that handshake, attached and ready. It consists of
    `streams`, `links`, `liveness` and small parts (`state`). What it does with them is here, in `sealing` (bytes out)
    and in `receiving` (bytes in). Without `exchanges` a client asks for no fresh keys, and a server takes being asked
    for a breach.
    """

    def __init__(
        self,
        established: Established,
        limits: Limits,
        now: float,
        *,
        client: bool,
        exchanges: Exchanges | None = None,
    ) -> None:
        super().__init__(established, limits, now, client=client, exchanges=exchanges)
        self.link = self.new_link(established, now)
        self._attach_link(self.link, now)
        # An IK client is the first to be able to send records; the server waits for one as proof of the keys.
        self.link.record_due = client

    # ---- what the application asks for ------------------------------------------------------------------

    def open_stream(self) -> int:
        """Open a stream and give its id. `TooManyStreams` when the peer's limit is reached."""
        stream_id = self.try_open_stream()
        if stream_id is None:
            raise TooManyStreams("the peer allows no further stream now; close one, or wait until it does")
        return stream_id

    def try_open_stream(self) -> int | None:
        """Open a stream and give its id; None when the peer's limit is reached."""
        if self.ended is not None:
            self._check_open()
        return self.streams.open_stream()

    @property
    def peer(self) -> PeerId:
        """Who the other side is."""
        return self.facts.peer

    @property
    def connection_id(self) -> bytes:
        """What the connection is named by when it is resumed (16 bytes, public)."""
        return self.facts.connection_id

    @property
    def ready(self) -> bool:
        """True once the server has admitted the client."""
        return self._readiness.ready

    @property
    def moved(self) -> int:
        """Bytes of streams both ways so far: those of `traffic` together."""
        return self.streams.moved

    @property
    def rtt(self) -> float | None:
        """Seconds that the last answered PING took; None before the first."""
        return self.liveness.pings.rtt

    @property
    def attached(self) -> bool:
        """True while at least one link carries the session."""
        return bool(self.links.by_number)

    def new_link(self, established: Established, now: float, *, add: bool = False) -> Link:
        """Return a link from another handshake of the same two identities, to resume the session or (`add`) to widen
        it.

        On the client's side ATTACH is queued on it at once; on the server's the link waits for the client's.
        """
        link = self.links.new_link(established, now, add=add)
        link.exchange.moved = self.streams.moved
        return link

    @property
    def stream_ids(self) -> list[int]:
        """The streams that are not over, in the order in which they were opened here or heard of."""
        return list(self.streams.by_id)

    @property
    def can_open(self) -> bool:
        """True when the peer's limit allows another stream now."""
        return self.streams.numbers.can_open

    @property
    def active_at(self) -> float:
        """When something of the program's moved last; at first, when the session began."""
        return self._active_at

    @property
    def peer_away(self) -> bool:
        """True when the peer has said that it takes no new streams."""
        return self.streams.numbers.peer_away_from is not None

    def write_stream(self, stream_id: int, data: bytes | memoryview) -> int:
        """Queue bytes, which must not change any more; gives how many bytes of this stream wait to be sent."""
        stream = self.streams.by_id.get(stream_id)
        if stream is None or self.ended is not None or not stream.send.open:
            self._check_open()
            stream = self.streams.get_writable(stream_id)  # says why not
        send = stream.send
        if len(data):
            send.write_data(data)
            if not stream.queued:
                stream.queued = True
                self.streams.turns.append(stream)
        return send.end - send.sent

    def queued_bytes(self, stream_id: int) -> int:
        """Return how many bytes of this stream wait to be sent; 0 for one that is gone."""
        stream = self.streams.by_id.get(stream_id)
        return stream.send.queued if stream is not None else 0

    def acknowledged_bytes(self, stream_id: int) -> int:
        """Return how many bytes of this stream the peer has; 0 for one that is gone."""
        stream = self.streams.by_id.get(stream_id)
        return stream.send.acked if stream is not None else 0

    def set_low(self, stream_id: int, low: int) -> None:
        """Let `StreamWritable` come when `low` bytes or less wait to be sent (at first `limits.write_low`)."""
        stream = self.streams.by_id.get(stream_id)
        if stream is not None:
            stream.low = low

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """Give up sending; the peer gets `error_code`. What waits to be sent is dropped. Idempotent. `LocalError` for
        a code that is not from 0 to 2^32 - 1, as in `stop_stream` and `close`."""
        try:
            self.streams.reset_stream(stream_id, error_code)
        except ProtocolError as crowded:
            self._end_by(crowded)

    def stop_stream(self, stream_id: int, error_code: int) -> None:
        """End reading: the peer is asked to stop sending. Idempotent."""
        try:
            self.streams.stop_stream(stream_id, error_code)
        except ProtocolError as crowded:
            self._end_by(crowded)

    def is_acknowledged(self, stream_id: int) -> bool:
        """True when the peer has everything that was written to this stream (and its end, if it has one).

        Of one that was reset, or once the session was closed: whether it had all bytes before; that it didn't wait
        for the end is its own decision.
        """
        return self.streams.is_acknowledged(stream_id)

    def finish_stream(self, stream_id: int) -> None:
        """End what this side writes: the peer sees the end behind all data. Idempotent."""
        stream = self.streams.by_id.get(stream_id)
        if stream is not None and stream.send.reset_code is None and not stream.send.finished:
            if self.ended is not None:
                self._check_open()
            stream.send.finished = True
            self.streams.take_turn(stream)

    def is_finishing(self, stream_id: int) -> bool:
        """True when the end of this stream was queued and the peer hasn't acknowledged it yet."""
        stream = self.streams.by_id.get(stream_id)
        return stream is not None and stream.send.finished and not stream.send.done

    def consume_data(self, stream_id: int, size: int) -> bool:
        """Note that the application has read (or dropped) `size` bytes of `StreamData`: the peer may send as many
        more.

        True when that is to be told to the peer now.
        """
        stream = self.streams.by_id.get(stream_id)
        if stream is None:
            self.streams.receive_credit.note_dropped(size)
        elif stream.receive.stop_code is None:
            self.streams.receive_credit.note_read(stream, size)
        return bool(self.streams.receive_credit.windows)

    def want_more(self, stream_id: int) -> bool:
        """Note that the application has looked at all that has come on this stream, and waits for more before it
        reads any of it. True when new credit is to be told to the peer now."""
        stream = self.streams.by_id.get(stream_id)
        if stream is not None:
            self.streams.receive_credit.raise_wanted(stream)
        return bool(self.streams.receive_credit.windows)

    def splice_stream(self, stream_id: int, splice: object | None) -> None:
        """Report bytes of this stream from now on as `SplicedData`, which names `splice`, where that spares a copy.

        What needs to be put together first still comes as `StreamData`. None: always as that.
        """
        stream = self.streams.by_id.get(stream_id)
        if stream is not None:
            stream.splice = splice

    def send_datagram(self, data: bytes) -> None:
        """Queue a datagram; beyond `limits.datagrams`, `datagram_buffer` the oldest go. `DatagramTooLarge`."""
        self._check_open()
        largest = min(self.facts.largest_datagram, self.limits.record - 4)
        if len(data) > largest:
            raise DatagramTooLarge(f"datagram of {len(data)} bytes, the most is {largest}")
        self._datagrams.put_datagram(data)

    def send_meter(self, data: bytes) -> None:
        """Queue a metering frame, opaque here; behind the end it is dropped. `LimitError` above `MAX_METER` bytes."""
        if len(data) > MAX_METER:
            raise LimitError(f"metering frame of {len(data)} bytes, the most is {MAX_METER}")
        # It may answer one that came in one read with the end, which is told behind it.
        if self.ended is None:
            self._queue_control(FrameType.METER, data)

    @property
    def traffic(self) -> Traffic:
        """Streams and bytes so far, as both ends count them."""
        streams = self.streams
        return Traffic(streams.numbers.opened_by_client, streams.send_credit.sent, streams.arrived)

    @property
    def unanswered(self) -> int:
        """Streams that this side opened and got neither a byte nor an end of, be they given up since."""
        return self.streams.unanswered

    def has_passed(self, opened: int, received: int, total: int) -> bool:
        """True if the client opened another number of streams than `opened`, more than `received` bytes have come, or
        `total` bytes have moved in all: what `traffic` says, for whoever looks at each read."""
        streams = self.streams
        arrived = streams.arrived
        more = arrived > received or streams.numbers.opened_by_client != opened
        return more or arrived + streams.send_credit.sent >= total

    def limit_sending(self, total: int | None) -> bool:
        """Send at most so many bytes of streams in all, whatever the credit; None for no limit of ours.

        What is above it waits, as without credit. A limit below what was sent sends nothing new. True when it is
        higher than before, so that something may be sent now.
        """
        return self.streams.send_credit.stop_at(total)

    @property
    def datagrams_wait(self) -> bool:
        """True when there are datagrams to be sent."""
        return bool(self._datagrams)

    @property
    def datagrams_dropped(self) -> int:
        """Datagrams that were to be sent and went, so far: too many waited, or the session ended."""
        return self._datagrams.dropped

    @property
    def held(self) -> int:
        """Bytes that are kept: of streams received and not consumed (with the gaps between them, and what keeping the
        order takes), or written and not acknowledged; of datagrams to be sent."""
        streams = self.streams
        return streams.kept_unread + self._datagrams.size + streams.kept_unacknowledged

    @property
    def buffered(self) -> int:
        """Bytes that are kept for the peer's sake: received and not consumed, or sent and not acknowledged; with what
        streams, control frames that wait and keeping an order take, and datagrams to be sent. As `held`, but for what
        waits to be sent; in few steps."""
        waiting = len(self._control)
        for link in self.links.by_number.values():
            waiting += len(link.control)
        return self.streams.kept_for_peer + self._datagrams.size + waiting * _CONTROL

    @property
    def blocked_at(self) -> int | None:
        """The bytes of streams that the peer may have sent so far, where it has, and waits for what came to be
        consumed; None while it may send more, or is kept from it by `limit_receiving`."""
        return self.streams.receive_credit.blocked_at

    def unread_bytes(self, stream_id: int) -> int:
        """Return how many bytes of a stream came in order and were not consumed; 0 of one that is over."""
        stream = self.streams.by_id.get(stream_id)
        return 0 if stream is None else stream.receive.next - stream.receive.consumed

    def received_bytes(self, stream_id: int) -> int:
        """Return how many bytes of a stream came in order; 0 of one that is over."""
        stream = self.streams.by_id.get(stream_id)
        return 0 if stream is None else stream.receive.next

    def limit_receiving(self, total: int | None) -> bool:
        """Give credit for at most so many bytes of streams in all; None for no limit of ours.

        Credit that was given is not taken back, so a connection window more may come. True when the peer is to be
        told of more credit now.
        """
        self.streams.receive_credit.limit_to(total)
        return bool(self.streams.receive_credit.windows)

    def send_ping(self, now: float) -> int:
        """Ask the peer for an answer; `Pong` with the returned token follows."""
        self._check_open()
        pings = self.liveness.pings
        self._queue_control(FrameType.PING, pings.new_ping(now))
        return pings.token

    def refuse_once_confirmed(self, code: int, reason: str) -> None:
        """Close with this, as the server, when the first record has come, and hear nothing of what is in it."""
        self._readiness.refusal = (code, reason)

    def admit_client(self) -> None:
        """Tell the client, as its server, that it may go on."""
        self._readiness.ready = True
        self._queue_control(FrameType.READY)

    def warn_away(self) -> None:
        """Ask the peer to open no new streams. Those that it opened before it hears of this are taken as long as
        `go_away` was not called: best when the PING that follows is answered, since it tells of them before.
        """
        if self.streams.numbers.away is None:
            self._queue_control(FrameType.AWAY, AWAY.pack(MAX_OFFSET))

    def delay_acks(self, stream_id: int) -> None:
        """Acknowledge what comes on this stream as late as `LATE_ACK` while it is little: its peer waits for none.

        Its end, and what came before a goodbye, is acknowledged at once all the same.
        """
        stream = self.streams.by_id.get(stream_id)
        if stream is not None:
            stream.acks_late = True

    def tell_credit_often(self, stream_id: int) -> None:
        """Tell the peer of new credit for this stream each time that a 64th of its window was read, not a quarter:
        where somebody between the two goes by it (docs/wire.md, "Credit")."""
        stream = self.streams.by_id.get(stream_id)
        if stream is not None:
            stream.receive.grant_often()

    def go_away(self) -> None:
        """Take no new streams from the peer; those it has opened go on. Idempotent."""
        numbers = self.streams.numbers
        if numbers.away is None:
            numbers.away = numbers.next_peer
            self._queue_control(FrameType.AWAY, AWAY.pack(numbers.away))

    # ---- time -------------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """Return when `handle_timer` is to be called next; infinity for never."""
        if self.ended is not None:
            return NEVER
        limits, detached_at = self.limits, self.links.times.detached_at
        due = min(self.streams.acks.at, self.liveness.next_deadline())
        if detached_at is not None:
            due = min(due, detached_at + limits.resume)
        return min(due, self._active_at + limits.idle) if limits.idle else due

    def handle_timer(self, now: float) -> None:
        """Do what is due: acknowledge, ask whether the peer lives, give up."""
        if self.ended is not None:
            return
        limits, times, liveness = self.limits, self.links.times, self.liveness
        if now >= self.streams.acks.at:
            self.streams.plan_due_acks()
        if limits.idle and now >= self._active_at + limits.idle:
            self.close(CloseCode.IDLE, f"no data for {limits.idle:g} s")
            return
        if times.detached_at is not None and now >= times.detached_at + limits.resume:
            never = times.attached_at <= times.detached_at
            came = "no carrier" if never else "carriers came, but nothing passed"
            reason = f"{came} for {limits.resume:g} s"
            self._end_session(ev.SessionEnded(CloseCode.IDLE, reason, by_peer=False, lost=True))
            return
        if liveness.is_overdue(now):
            self.close(CloseCode.LIMIT, "what has arrived is not acknowledged")
            return
        for link in list(self.links.by_number.values()):
            why = liveness.why_lost(link, now)
            if why is not None:
                self.link_lost(link, now, why)
            elif liveness.ask_if_quiet(link, now):
                self._events.append(ev.LinkSilent(link))

    def ask_for_life(self, now: float) -> None:
        """Have each link asked whether its peer is still there, unless one has spoken within `SILENT` or is asked
        already: something has happened to others that may have happened to them."""
        self.liveness.ask_for_life(now)

    @property
    def is_silent(self) -> bool:
        """True while there are links and none of them answers: see `LinkSilent`."""
        return self.ended is None and self.liveness.is_silent

    @property
    def has_events(self) -> bool:
        """True when `take_events()` would give any."""
        return bool(self._events)

    def take_events(self) -> list[ev.Event]:
        """Return what has happened since the last call."""
        events = self._events.copy()
        self._events.clear()
        return events
