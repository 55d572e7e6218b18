"""One QUIC connection as a carrier: ordered bytes on a stream each way, and packets that may be lost beside them.

docs/wire.md, "Carriers", has what goes where. QUIC's own windows open by themselves as data comes in, whether or not
anybody reads it, so each side tells the other on a second stream how much it has taken: whoever is paused stops
the other, and holds `WINDOW` bytes at most.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from qh3.quic import events
from qh3.quic.connection import QuicConnection, QuicConnectionError

from dtp.carriers.base import CarrierState
from dtp.carriers.crowd import source_group
from dtp.carriers.errors import BrokenError, CreditError, DialError, PacketFloodError
from dtp.carriers.pushed import PushedCarrier, ReceiveBuffer
from dtp.carriers.quic.idle import DEAR, TAKES, IdlePackets
from dtp.carriers.url import format_host, plain_ip
from dtp.errors import CarrierError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

#: Bytes that may be under way to a side that doesn't read: 10 MB/s over 0.2 s. Part of the protocol.
WINDOW: Final = 2 * 1024 * 1024
#: Bytes that the library may have and not have sent: above that `write` says to wait.
UNSENT: Final = 256 * 1024
#: The most of a packet on the lossy path. A UDP payload of 1,200 bytes goes everywhere (RFC 9000, 14); QUIC's header,
#: number, tag and frame take 40 of it at most.
PACKET: Final = 1160
#: Bytes of packets that may wait for the network.
MOST_PACKETS_WAIT: Final = 64 * 1024
#: Packets that the library has at a time: one takes it up to 8 ms, and it is looked at the time in between.
AT_ONCE: Final = 2
#: Packets that it sends at a time: 0.5 ms. Those behind them follow in turns to come.
SENDS: Final = 128
#: Things that happened, such as datagrams that came, of which a turn of the loop tells.
EVENTS_PER_TURN: Final = 64
#: Bytes of packets that moved nothing. While a lost one is missing, all of a window may wait behind it; a quarter of
#: one again may have been sent twice.
MOST_IDLE: Final = WINDOW + WINDOW // 4
#: ... of a stranger, of whom nobody counts what is kept: a whole handshake has a tenth.
MOST_OF_STRANGERS: Final = 128 * 1024
#: Seconds of silence after which something is sent: many a NAT forgets a UDP mapping after 30 s.
KEEPALIVE: Final = 20.0
#: Codes of CONNECTION_CLOSE: of an orderly end, of an abort, of a listener that takes nobody.
CLOSED, ABORTED, REFUSED = 0, 1, 2
#: How often the last packet is sent: nobody stays to send it again.
_FAREWELLS = 2
_CREDIT = 8

Address = tuple[Any, ...]


def url_of(address: Address) -> str:
    """Return the URL of a host and port."""
    return f"quic://{format_host(str(address[0]), int(address[1]))}"


class BoundedConnection(QuicConnection):
    """A connection of the library that gives no more than `SENDS` packets at a time: one acknowledgement may let a
    whole window go. Nor does it read the header of each to log it where nobody logs, a fifth of what sending took.
    """

    #: True if the last call of `datagrams_to_send` may have left some.
    has_more = False

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """Return the next packets and where each goes."""
        found = list[tuple[bytes, Address]]()
        core = self._core
        while core is not None and len(found) < SENDS:
            packet = self._call_core(core.poll_transmit, now)
            if packet is None:
                break
            found.append(packet[:2])
        self.has_more = len(found) == SENDS
        return found


class PacketSender(Protocol):
    """What a carrier has below it: the UDP socket that it shares."""

    def send_packets(self, packets: Iterable[tuple[bytes, Address]]) -> None:
        """Send them; what the system doesn't take is lost."""

    def forget_carrier(self, carrier: QuicCarrier) -> None:
        """Forget a carrier that is over: nothing of it comes here any more."""

    def note_due(self, carrier: QuicCarrier) -> None:
        """Call `carrier.take_rest` soon: something is due."""

    def add_id(self, carrier: QuicCarrier, connection_id: bytes) -> None:
        """Take packets to this connection id for `carrier` as well."""

    def remove_id(self, carrier: QuicCarrier, connection_id: bytes) -> None:
        """Take none to this one any more."""


class QuicCarrier(PushedCarrier):
    """A carrier over one QUIC connection. Made by `dtp.carriers.quic.endpoint`."""

    scheme: ClassVar[str] = "quic"

    def __init__(
        self, below: PacketSender, quic: BoundedConnection, peer: Address, remote: str, *, dialled: bool
    ) -> None:
        self._dialled = dialled
        self._takes = _Incoming(3 if dialled else 2)
        super().__init__(plain_ip(peer), remote, self._takes)
        self.packet_size = PACKET
        #: Where its packets go now, and how many have gone.
        self.peer, self.sent = peer, 0
        #: Set when the handshake is done, or failed: then with an exception.
        self.connected: asyncio.Future[None] = self._loop.create_future()
        #: Called with this carrier when the handshake is done.
        self.on_connected: Callable[[QuicCarrier], object] = _nothing
        self._below = below
        self._quic = quic
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = self._timer_set = float("inf")  # when the library's is due, and when the loop calls
        self._awake = self._loop.call_later(KEEPALIVE, self._keep_awake)
        self._behind = False
        self._due: float | None = None  # when a timer had to go off that did
        self._packets_wait = 0  # bytes on the lossy path that may not be sent yet
        self._clock: Callable[[], float] = getattr(self._loop, "processor_time", time.thread_time)
        self._idle = IdlePackets(self._loop.time())
        #: Bytes that may come and move nothing, once somebody counts what is kept here.
        self.most_idle = MOST_IDLE
        self._moved = 0  # bytes that packets have brought since the last ones
        self._sends = _Outgoing(2 if dialled else 3)

    # ---- the contract -----------------------------------------------------------------------------------

    def write(self, data: memoryview) -> bool:
        if self._state is not CarrierState.OPEN:
            return False
        self._sends.pending += data
        self._transmit_pending()
        if self._sends.pending:
            self._sends.blocked = True
        return not self._sends.blocked

    def write_packet(self, data: memoryview) -> None:
        if self._state is CarrierState.OPEN and self.connected.done() and len(data) <= self.packet_size:
            if self._packets_wait > MOST_PACKETS_WAIT:
                return  # the network takes no more now, and the library would keep it without end
            self._packets_wait += len(data)
            self._idle.note_given(len(data))
            self._call_library(self._quic.send_datagram_frame, bytes(data))
            self._transmit_pending()

    @property
    def held(self) -> int:
        """Return how many bytes wait here, to be sent or to be reported, and what the library may have."""
        return len(self._sends.pending) + self._takes.size + TAKES * self._idle.size

    # ---- from the socket --------------------------------------------------------------------------------

    def receive_packets(self, packets: list[bytes], peer: Address) -> int:
        """Take packets of this connection that have come from `peer`, or the first of them where they take long;
        return how many."""
        if self._state is CarrierState.ENDED:
            return len(packets)
        now, began, took, taken = self._loop.time(), self._clock(), 0.0, 0
        if self.is_stranger:  # of which one is looked at before it has another
            packets = packets[:1]
        while taken < len(packets) and took < DEAR:  # nobody can interrupt the library
            some = packets[taken : taken + AT_ONCE]
            self._call_library(self._quic.receive_many_datagrams, some, peer[:2], now)
            taken += len(some)
            took = self._clock() - began
        self._go_on()
        idle, moved = self._idle, self._moved
        self._moved = 0
        idle.note_received(taken, sum(map(len, packets[:taken])), moved, now, took)
        if self.on_kept is not None:
            self.on_kept()
        if idle.is_flood(MOST_OF_STRANGERS if self.is_stranger else self.most_idle):
            self._end_flood()
        return taken

    def _end_flood(self) -> None:
        self._end_carrier(PacketFloodError(f"{self.remote} sends packets without end that move nothing"))

    @property
    def account(self) -> Hashable:
        """Who is charged for its packets: its source, by one account until the handshake is done, and another until
        somebody counts what is kept here. Whoever comes again and again would have had nothing each time."""
        return (source_group(self.source), self.connected.done()) if self.is_stranger else self

    @property
    def is_stranger(self) -> bool:
        """True until somebody counts what is kept here."""
        return self.on_kept is None

    def begin_handshake(self) -> None:
        """Begin the handshake (client side)."""
        self._quic.connect(self.peer[:2], now=self._loop.time())
        self._transmit_pending()

    def note_refused(self, error: CarrierError) -> None:
        """End, since the system says that nobody is there."""
        self._end_carrier(error)

    def _go_on(self) -> None:
        """Take what has happened, deliver what came, send what waits. Of much that happened the rest follows in turns
        to come: a packet has some hundred frames at most, and each of them may be a datagram."""
        left = EVENTS_PER_TURN
        while self._state is not CarrierState.ENDED and (event := self._quic.next_event()) is not None:
            handler = _HANDLERS.get(type(event))
            if handler is not None:
                handler(self, event)
            left -= 1
            if not left:
                self._behind = True
                break
        # Told as an event only after three times its longest wait for an answer, for packets that come late.
        closed = getattr(self._quic, "_close_event", None)
        if closed is not None and self._state is not CarrierState.ENDED:
            self._on_terminated(closed)
        self._deliver_received()
        if self._state is not CarrierState.ENDED:
            self._transmit_pending()
            if self._sends.blocked and not self._sends.pending and self._state is CarrierState.OPEN:
                self._sends.blocked = False
                if self._receiver is not None:
                    self._receiver.carrier_writable()

    @property
    def has_rest(self) -> bool:
        """True while the rest of what has happened follows in turns to come, or a timer is due: no more packets are
        taken meanwhile."""
        return self._state is not CarrierState.ENDED and (self._behind or self._due is not None)

    def take_rest(self) -> None:
        """Go on with that."""
        due, self._due, self._behind = self._due, None, False
        if due is not None:
            self._call_library(self._quic.handle_timer, max(due, self._loop.time()))
        self._go_on()

    def _transmit_pending(self) -> None:
        """Give the library what it may have, send what it gives, and set its timer."""
        self._feed_library()
        if self.ended:
            return
        packets = self._call_library(self._quic.datagrams_to_send, self._loop.time()) or ()
        if packets and packets[-1][1] != self.peer:
            self._note_moved(packets[-1][1])
        if self._packets_wait:
            self._packets_wait = max(0, self._packets_wait - sum(len(data) for data, _ in packets))
        self._idle.note_sent(len(packets))
        self.sent += len(packets)
        self._below.send_packets(packets)
        if self._quic.has_more:
            self._behind = True
            self._below.note_due(self)
        if self.ended or self._due is not None:  # `take_rest` comes here again
            return
        at = self._quic.get_timer()
        self._timer_at = float("inf") if at is None else at
        if self._timer_at < self._timer_set:
            self._set_timer()

    def _set_timer(self) -> None:
        """Have the loop call when the library's timer is due. One that is earlier than that stays: most are put off
        again and again, and each in the loop's heap costs more than one that goes off too early."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer_set = self._timer_at
        forever = self._timer_at == float("inf")
        self._timer = None if forever else self._loop.call_at(self._timer_at, self._handle_timer)

    def _note_moved(self, peer: Address) -> None:
        """Note where the library sends to now: whence the newest packet came that proves itself. Whoever came in is
        seen there from now on, as behind a NAT with another address; who was dialled stays what was dialled."""
        self.peer = peer
        if not self._dialled:
            self.remote = url_of(peer)

    def _feed_library(self) -> None:
        sends = self._sends
        if not self.connected.done():
            return
        room = min(sends.allowed - sends.sent, UNSENT - self._quic.get_send_buffer_size(sends.stream))
        if sends.pending and room > 0:
            piece = bytes(sends.pending[:room])
            del sends.pending[:room]
            sends.sent += len(piece)
            self._idle.note_given(len(piece))
            self._call_library(self._quic.send_stream_data, sends.stream, piece)
        if self._state is CarrierState.CLOSING and not sends.pending and not sends.finished:
            sends.finished = True
            self._call_library(self._quic.send_stream_data, sends.stream, b"", True)

    def _handle_timer(self) -> None:
        self._timer, self._timer_set = None, float("inf")
        if self._timer_at > self._loop.time():  # it was put off since
            self._set_timer()
            return
        self._due, self._timer_at = self._timer_at, float("inf")
        self._below.note_due(self)

    def _keep_awake(self) -> None:
        self._awake = self._loop.call_later(KEEPALIVE, self._keep_awake)
        if self.connected.done():
            self._call_library(self._quic.send_ping, 0)
            self._transmit_pending()

    def _call_library(self, method: Any, *arguments: Any) -> Any:
        """Call the library; what it can't do ends the carrier, in the next turn."""
        try:
            return method(*arguments)
        except QuicConnectionError as error:
            broken = BrokenError(str(error))
            broken.__cause__ = error
            self._loop.call_soon(self._end_carrier, broken)
            return None

    # ---- what happened ----------------------------------------------------------------------------------

    def _on_handshake(self, event: events.HandshakeCompleted) -> None:
        if not self.connected.done():
            self.connected.set_result(None)
            self.on_connected(self)

    def _on_data(self, event: events.StreamDataReceived) -> None:
        takes, sends = self._takes, self._sends
        self._moved += len(event.data)
        if event.stream_id == takes.stream:
            if not takes.take_data(event.data, event.end_stream):
                self._end_carrier(CreditError(f"{self.remote} sends more than was allowed"))
        elif event.stream_id == takes.stream + 4:
            sends.take_credit(event.data)
            if sends.allowed > sends.sent + WINDOW:
                self._end_carrier(CreditError(f"{self.remote} has taken more than was sent"))
        else:
            self._end_carrier(CreditError(f"{self.remote} uses stream {event.stream_id}"))

    def _on_reset(self, event: events.StreamReset) -> None:
        self._end_carrier(BrokenError("reset by the other side"))

    def _on_packet(self, event: events.DatagramFrameReceived) -> None:
        self._moved += len(event.data)
        if self._state is CarrierState.OPEN and self._receiver is not None and event.data:
            self._receiver.carrier_packet(event.data)

    def _on_id_issued(self, event: events.ConnectionIdIssued) -> None:
        self._below.add_id(self, event.connection_id)

    def _on_id_retired(self, event: events.ConnectionIdRetired) -> None:
        self._below.remove_id(self, event.connection_id)
        self._idle.note_retired()
        if self._idle.is_used_up:
            self._end_flood()

    def _on_terminated(self, event: events.ConnectionTerminated) -> None:
        if event.error_code == CLOSED and event.frame_type is None and self._state is CarrierState.CLOSING:
            self._end_carrier(None)
        elif event.error_code == REFUSED and event.frame_type is not None:
            self._end_carrier(DialError("nobody listens there any more"))
        else:
            words = event.reason_phrase or "ended by the other side"
            self._end_carrier(BrokenError(f"{words} (QUIC code {event.error_code})"))

    # ---- the end, and what is below -----------------------------------------------------------------------

    def _finish_writing(self) -> None:
        self._transmit_pending()

    def _note_taken(self, size: int) -> None:
        credit = b"" if self.ended else self._takes.next_credit()
        if credit:
            self._idle.note_given(len(credit))
            self._call_library(self._quic.send_stream_data, self._sends.stream + 4, credit)
            self._transmit_pending()

    def _end_carrier(self, error: CarrierError | None, *, aborted: bool = False) -> None:
        if not self.connected.done():
            failed = DialError(f"{self.remote}: {error or 'ended during the handshake'}")
            failed.__cause__ = error
            self.connected.set_exception(failed)
            self.connected.exception()  # looked at, also where nobody waits
        super()._end_carrier(error, aborted=aborted)

    def _let_go(self, *, aborted: bool) -> None:
        self._say_goodbye(ABORTED if aborted else CLOSED)

    def refuse_connection(self, first: bytes) -> None:
        """Answer the first packet by saying that nobody is taken, and end."""
        self._call_library(self._quic.receive_datagram, first, self.peer[:2], self._loop.time())
        self._state = CarrierState.ENDED
        self._say_goodbye(REFUSED, transport=True)

    def _say_goodbye(self, code: int, *, transport: bool = False) -> None:
        self._sends.pending.clear()
        for timer in (self._timer, self._awake):
            if timer is not None:
                timer.cancel()
        self._timer = None
        try:
            # A frame type makes it QUIC's own close, which may come before the handshake is done.
            self._quic.close(code, frame_type=0 if transport else None)
            last = list(self._quic.datagrams_to_send(self._loop.time()))
        except QuicConnectionError:
            last = []
        for _ in range(_FAREWELLS):
            self._below.send_packets(last)
        self._below.forget_carrier(self)
        _free_library(self._quic)


def _free_library(quic: QuicConnection) -> None:
    """Let a connection that is over go with its last user. By way of its TLS it refers to itself, and what it keeps
    outside of Python, up to a MiB, counts for no collection of garbage: those of a flood took 280 MiB, and 70 ms to
    collect."""
    bridge, quic._tls = quic._tls, None
    if bridge is not None:
        del bridge.tls


class _Outgoing:
    """What this side sends: stream, how much of it was given to the library, and how much may be."""

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.pending = bytearray()
        self.sent = 0
        self.allowed = WINDOW
        self.blocked = False
        self.finished = False
        self._credit = b""  # the beginning of a message

    def take_credit(self, data: bytes) -> None:
        """Take what the other side says of what it has read: totals of 8 bytes, the last one counts."""
        data = self._credit + data
        whole = len(data) - len(data) % _CREDIT
        self._credit = data[whole:]
        if whole:
            self.allowed = max(self.allowed, int.from_bytes(data[whole - _CREDIT : whole]) + WINDOW)


class _Incoming(ReceiveBuffer):
    """What came and was not handed on yet, and what the other side knows of that."""

    def __init__(self, stream: int) -> None:
        super().__init__()
        self.stream = stream
        self._told = 0

    def take_data(self, data: bytes, end: bool) -> bool:
        """Keep what came; False where it is more than may come."""
        self.put_data(data)
        self.finished = self.finished or end
        return self.taken + self.size <= self._told + WINDOW

    def next_credit(self) -> bytes:
        """Return what to say of how much was taken; empty while it isn't worth it."""
        if self.finished or self.taken - self._told < WINDOW // 4:
            return b""
        self._told = self.taken
        return self.taken.to_bytes(_CREDIT)


def _nothing(carrier: QuicCarrier) -> None:
    """Do nothing: nobody asked to be called."""


_HANDLERS: dict[type, Any] = {
    events.HandshakeCompleted: QuicCarrier._on_handshake,
    events.StreamDataReceived: QuicCarrier._on_data,
    events.StreamReset: QuicCarrier._on_reset,
    events.DatagramFrameReceived: QuicCarrier._on_packet,
    events.ConnectionIdIssued: QuicCarrier._on_id_issued,
    events.ConnectionIdRetired: QuicCarrier._on_id_retired,
    events.ConnectionTerminated: QuicCarrier._on_terminated,
}
