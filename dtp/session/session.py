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
from dtp.session import events as ev
from dtp.session.codes import CloseCode, DatagramTooLarge, TooManyStreams
from dtp.session.exchange import Exchanges
from dtp.session.frames import AWAY, MAX_METER, MAX_OFFSET, FrameType, control
from dtp.session.handshake import Established
from dtp.session.limits import NEVER, SILENT, WORK_BYTES, WORK_PAUSE, Limits
from dtp.session.link import Link
from dtp.session.reassembly import RUN
from dtp.session.receiving import Receiving
from dtp.session.watches import AckAction


class Traffic(NamedTuple):
    """What moved on streams since the session began, each byte once. What metering counts (docs/wire.md).

    `opened` streams were opened by the client; `sent` and `received` bytes were sealed into STREAM frames by this
    side, and came in them. Bytes that only a RESET's final offset tells of count in `sent` if they were sent,
    and never in `received`.
    """

    opened: int
    sent: int
    received: int


#: About what a stream takes, and what a control frame does that waits to be sent, bytes.
STREAM, CONTROL = 2048, 192


class Session(Receiving):
    """One end of a connection. Times are seconds of any clock that only goes forward.

    Made from a finished handshake; `link` is the link of that handshake, attached and ready. Built up from
    `state` (what it knows), `sealing` (bytes out), `linking` (carriers) and `receiving` (bytes in). Without
    `exchanges` a client asks for no fresh keys, and a server takes the question for a breach.
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
        numbers = self._numbers
        if not numbers.can_open:
            return None
        stream_id = numbers.next_own
        numbers.next_own += 2
        stream = self._add_stream(stream_id)
        stream.announce = stream.queued = True
        self._turns.append(stream)
        return stream_id

    @property
    def stream_ids(self) -> list[int]:
        """The streams that are not over, in the order in which they were opened here or heard of."""
        return list(self._streams)

    @property
    def can_open(self) -> bool:
        """True when the peer's limit allows another stream now."""
        return self._numbers.can_open

    @property
    def active_at(self) -> float:
        """When something of the program's moved last; at first, when the session began."""
        return self._active_at

    @property
    def peer_away(self) -> bool:
        """True when the peer has said that it takes no new streams."""
        return self._peer_away_from is not None

    def write_stream(self, stream_id: int, data: bytes | memoryview) -> int:
        """Queue bytes, which must not change any more; gives how many bytes of this stream wait to be sent."""
        stream = self._streams.get(stream_id)
        if stream is None or self.ended is not None or not stream.send.open:
            stream = self._get_sending(stream_id)  # says why not
        send = stream.send
        if len(data):
            send.write_data(data)
            if not stream.queued:
                stream.queued = True
                self._turns.append(stream)
        return send.end - send.sent

    def queued_bytes(self, stream_id: int) -> int:
        """Return how many bytes of this stream wait to be sent; 0 for one that is gone."""
        stream = self._streams.get(stream_id)
        return stream.send.queued if stream is not None else 0

    def acknowledged_bytes(self, stream_id: int) -> int:
        """Return how many bytes of this stream the peer has; 0 for one that is gone."""
        stream = self._streams.get(stream_id)
        return stream.send.acked if stream is not None else 0

    def set_low(self, stream_id: int, low: int) -> None:
        """Let `StreamWritable` come when `low` bytes or less wait to be sent (at first `limits.write_low`)."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.low = low

    def finish_stream(self, stream_id: int) -> None:
        """End what this side writes: the peer sees the end behind all data. Idempotent."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.send.reset_code is None and not stream.send.finished:
            if self.ended is not None:
                self._check_open()
            stream.send.finished = True
            if not stream.queued:
                stream.queued = True
                self._turns.append(stream)

    def is_finishing(self, stream_id: int) -> bool:
        """True when the end of this stream was queued and the peer hasn't acknowledged it yet."""
        stream = self._streams.get(stream_id)
        return stream is not None and stream.send.finished and not stream.send.done

    def consume_data(self, stream_id: int, size: int) -> bool:
        """Note that the application has read (or dropped) `size` bytes of `StreamData`: the peer may send as many
        more.

        True when that is to be told to the peer now.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            self._receive_credit.note_dropped(size)
        elif stream.receive.stop_code is None:
            self._receive_credit.note_read(stream, size)
        return bool(self._receive_credit.windows)

    def want_more(self, stream_id: int) -> bool:
        """Note that the application has looked at all that has come on this stream, and waits for more before it
        reads any of it. True when new credit is to be told to the peer now."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._receive_credit.raise_wanted(stream)
        return bool(self._receive_credit.windows)

    def splice_stream(self, stream_id: int, splice: object | None) -> None:
        """Report bytes of this stream from now on as `SplicedData`, which names `splice`, where that spares a copy.

        What needs to be put together first still comes as `StreamData`. None: always as that.
        """
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.splice = splice

    def send_datagram(self, data: bytes) -> None:
        """Queue a datagram; beyond `limits.datagrams`, `datagram_buffer` the oldest go. `DatagramTooLarge`."""
        self._check_open()
        largest = min(self._params.datagram, self.limits.record - 4)
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
        arrived = self._receive_credit.received - self._gaps.never_arrived
        return Traffic(self._numbers.opened_by_client, self._send_credit.sent, arrived)

    @property
    def unanswered(self) -> int:
        """Streams that this side opened and got neither a byte nor an end of, be they given up since."""
        numbers = self._numbers
        return numbers.never_answered + sum(
            numbers.is_own(each.stream_id) and not each.receive.ended and not each.receive.next
            for each in self._streams.values()
        )

    def has_passed(self, opened: int, received: int, total: int) -> bool:
        """True if the client opened another number of streams than `opened`, more than `received` bytes have come, or
        `total` bytes have moved in all: what `traffic` says, for whoever looks at each read."""
        arrived = self._receive_credit.received - self._gaps.never_arrived
        streams = self._numbers.opened_by_client
        return arrived + self._send_credit.sent >= total or arrived > received or streams != opened

    def limit_sending(self, total: int | None) -> bool:
        """Send at most so many bytes of streams in all, whatever the credit; None for no limit of ours.

        What is above it waits, as without credit. A limit below what was sent sends nothing new. True when it is
        higher than before, so that something may be sent now.
        """
        return self._send_credit.stop_at(total)

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
        waiting = self._receive_credit.unread + self._datagrams.size + self._gaps.runs * RUN
        return waiting + sum(max(0, each.send.end - each.send.acked) for each in self._streams.values())

    @property
    def buffered(self) -> int:
        """Bytes that are kept for the peer's sake: received and not consumed, or sent and not acknowledged; with what
        streams, control frames that wait and keeping an order take, and datagrams to be sent. As `held`, but for what
        waits to be sent; in few steps."""
        unread = self._receive_credit.unread + self._gaps.runs * RUN
        control = len(self._control)
        for link in self._links.values():
            control += len(link.control)
        kept = len(self._streams) * STREAM + control * CONTROL
        return unread + self._send_credit.kept + self._datagrams.size + kept

    @property
    def blocked_at(self) -> int | None:
        """The bytes of streams that the peer may have sent so far, where it has, and waits for what came to be
        consumed; None while it may send more, or is kept from it by `limit_receiving`."""
        return self._receive_credit.blocked_at

    def unread_bytes(self, stream_id: int) -> int:
        """Return how many bytes of a stream came in order and were not consumed; 0 of one that is over."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.receive.next - stream.receive.consumed

    def received_bytes(self, stream_id: int) -> int:
        """Return how many bytes of a stream came in order; 0 of one that is over."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.receive.next

    def limit_receiving(self, total: int | None) -> bool:
        """Give credit for at most so many bytes of streams in all; None for no limit of ours.

        Credit that was given is not taken back, so a connection window more may come. True when the peer is to be
        told of more credit now.
        """
        self._receive_credit.limit_to(total)
        return bool(self._receive_credit.windows)

    def send_ping(self, now: float) -> int:
        """Ask the peer for an answer; `Pong` with the returned token follows."""
        self._check_open()
        self._queue_control(FrameType.PING, self._pings.new_ping(now))
        return self._pings.token

    def refuse_once_confirmed(self, code: int, reason: str) -> None:
        """Close with this, as the server, when the first record has come, and hear nothing of what is in it."""
        self._refusal = (code, reason)

    def admit_client(self) -> None:
        """Tell the client, as its server, that it may go on."""
        self.ready = True
        self._queue_control(FrameType.READY)

    def warn_away(self) -> None:
        """Ask the peer to open no new streams. Those that it opened before it hears of this are taken as long as
        `go_away` was not called: best when the PING that follows is answered, since it tells of them before.
        """
        if self._numbers.away is None:
            self._queue_control(FrameType.AWAY, AWAY.pack(MAX_OFFSET))

    def delay_acks(self, stream_id: int) -> None:
        """Acknowledge what comes on this stream as late as `LATE_ACK` while it is little: its peer waits for none.

        Its end, and what came before a goodbye, is acknowledged at once all the same.
        """
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.acks_late = True

    def tell_credit_often(self, stream_id: int) -> None:
        """Tell the peer of new credit for this stream each time that a 64th of its window was read, not a quarter:
        where somebody between the two goes by it (docs/wire.md, "Credit")."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.receive.grant_often()

    def go_away(self) -> None:
        """Take no new streams from the peer; those it has opened go on. Idempotent."""
        numbers = self._numbers
        if numbers.away is None:
            numbers.away = numbers.next_peer
            self._queue_control(FrameType.AWAY, AWAY.pack(numbers.away))

    # ---- time -------------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """Return when `handle_timer` is to be called next; infinity for never."""
        if self.ended is not None:
            return NEVER
        times = [self._acks.at]
        limits = self.limits
        if self._send_credit.kept and self._links:
            times.append(self._ack_watch.look_at)
        if self._link_times.detached_at is not None:
            times.append(self._link_times.detached_at + limits.resume)
        if limits.idle:
            times.append(self._active_at + limits.idle)
        for link in self._links.values():
            if link.ping_sent is not None:
                dead = max(limits.dead, link.patience)
                wait = dead if link.is_silent else min(dead, self._patience_for_life(link))
                times.append(link.ping_sent + wait)
            elif self._keeps_alive:
                times.append(link.last_received + self._pause_before_ping(link))
            if link.exchange.asked_at is not None:
                times.append(link.exchange.asked_at + self._patience_for_exchange(link))
        return min(times)

    def handle_timer(self, now: float) -> None:
        """Do what is due: acknowledge, ask whether the peer lives, give up."""
        if self.ended is not None:
            return
        limits = self.limits
        if now >= self._acks.at:
            due = self._acks.take_due(self._receive_credit.received)
            self._receive_credit.windows.update((key, None) for key in due if key in self._streams)
        if limits.idle and now >= self._active_at + limits.idle:
            self.close(CloseCode.IDLE, f"no data for {limits.idle:g} s")
            return
        if self._link_times.detached_at is not None and now >= self._link_times.detached_at + limits.resume:
            came = (
                "no carrier"
                if self._link_times.attached_at <= self._link_times.detached_at
                else "carriers came, but nothing passed"
            )
            reason = f"{came} for {limits.resume:g} s"
            self._end_session(ev.SessionEnded(CloseCode.IDLE, reason, by_peer=False, lost=True))
            return
        if self._send_credit.kept and self._links and now >= self._ack_watch.look_at:
            self._look_for_acknowledgements(now)
            if self.ended is not None:
                return
        for link in list(self._links.values()):
            asked_at = link.exchange.asked_at
            if asked_at is not None and now >= asked_at + (wait := self._patience_for_exchange(link)):
                # Whoever has stolen the keys, and stands between, would keep them in use by holding this back.
                self.link_lost(link, now, f"no fresh keys for {wait:g} s")
                continue
            if link.ping_sent is not None:
                dead = max(limits.dead, link.patience)
                if now >= link.ping_sent + dead:
                    self.link_lost(link, now, f"no answer for {dead:g} s")
                elif not link.is_silent and now >= link.ping_sent + self._patience_for_life(link):
                    link.told_silent = link.ping_sent
                    self._events.append(ev.LinkSilent(link))
            elif self._keeps_alive and now >= link.last_received + self._pause_before_ping(link):
                self._ask_for_life(link, now)

    def _patience_for_life(self, link: Link) -> float:
        """Return the seconds from a PING to when its link is silent."""
        return max(SILENT, 4 * (self.rtt or 0.0), link.patience)

    def _pause_before_ping(self, link: Link) -> float:
        """Return the seconds of silence after which a PING asks for life: few while something is going on."""
        pause = self.limits.keepalive
        if self._streams and self.moved - self._pings.moved_at >= WORK_BYTES:
            pause = min(pause, WORK_PAUSE)
        return max(pause, link.patience)

    def _ask_for_life(self, link: Link, now: float) -> None:
        link.ping_sent = now
        self._pings.moved_at = self.moved
        link.control.append(control(FrameType.PING, self._pings.new_ping(now)))

    def ask_for_life(self, now: float) -> None:
        """Have each link asked whether its peer is still there, unless one has spoken within `SILENT` or is asked
        already: something has happened to others that may have happened to them."""
        for link in self._links.values():
            if link.ping_sent is None and self._keeps_alive and now >= link.last_received + SILENT:
                self._ask_for_life(link, now)

    @property
    def is_silent(self) -> bool:
        """True while there are links and none of them answers: see `LinkSilent`."""
        return (
            self.ended is None and bool(self._links) and all(link.is_silent for link in self._links.values())
        )

    def _patience_for_exchange(self, link: Link) -> float:
        """Return the seconds from asking for fresh keys to their use: half of what is between two exchanges."""
        return max(self.limits.exchange / 2, self.limits.dead, link.patience)

    @property
    def _keeps_alive(self) -> bool:
        """Whether silence is ended by pings. A server says nothing to whom it may have heard before: see
        `refuse_once_confirmed`."""
        return self.limits.keepalive > 0 and (self.client or self._confirmed)

    def _look_for_acknowledgements(self, now: float) -> None:
        credit = self._send_credit
        verdict = self._ack_watch.check_progress(now, credit.sent, credit.released)
        if verdict is AckAction.OVERDUE:
            self.close(CloseCode.LIMIT, "what has arrived is not acknowledged")
        elif verdict is AckAction.ASK:
            if any(each.send.sent < each.send.highest for each in self._streams.values()):
                self._ack_watch.reset_watch(now)  # a PONG would say nothing of what is still to be sent again
                return
            tokens = []
            for link in self._links.values():
                link.control.append(control(FrameType.PING, self._pings.new_ping(now)))
                tokens.append(self._pings.token)
                if link.ping_sent is None and self._keeps_alive:  # it may be the carrier that has lost them
                    link.ping_sent = now
            self._ack_watch.note_pings(tokens)

    @property
    def has_events(self) -> bool:
        """True when `take_events()` would give any."""
        return bool(self._events)

    def take_events(self) -> list[ev.Event]:
        """Return what has happened since the last call."""
        events, self._events = self._events, []
        return events
