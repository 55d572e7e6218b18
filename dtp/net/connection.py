"""A connection: what a program holds. It drives a session over carriers and survives the loss of any of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from dtp import carriers
from dtp.carriers.base import Carrier
from dtp.core import Buffer
from dtp.errors import CarrierError, DtpError, PeerError, fresh
from dtp.identity import PeerId
from dtp.net.driver import Buffers, LinkDriver, yield_processor
from dtp.net.held import BudgetHolder, HeldBudget
from dtp.net.parts.callbacks import Callbacks
from dtp.net.parts.deadline import Deadline
from dtp.net.parts.ending import ConnectionEnd
from dtp.net.parts.intake import StreamIntake
from dtp.net.parts.leftover import UnreadBytes
from dtp.net.parts.meter_inbox import MeterInbox
from dtp.net.parts.outlet import Outlet
from dtp.net.parts.pings import Pings
from dtp.net.parts.resumption import Redial, Resumption
from dtp.net.parts.silence import Silence
from dtp.net.parts.stats import Stats
from dtp.net.parts.waiters import Waiters
from dtp.net.stream import Stream
from dtp.net.turns.fair_queue import ProcessorAccount
from dtp.net.turns.sizes import MUCH, Turns
from dtp.net.turns.steps import Charged
from dtp.net.watch import ByteWatch
from dtp.session import events as ev
from dtp.session.codes import (
    CloseCode,
    ConnectionClosed,
    ConnectionLost,
    HandshakeRefused,
    TooManyStreams,
    check_code,
)
from dtp.session.datagrams import DatagramQueue
from dtp.session.handshake import Established
from dtp.session.limits import Limits
from dtp.session.link import Link
from dtp.session.session import Session, Traffic
from dtp.session.state import closed_error

if TYPE_CHECKING:
    from dtp.net.resolver import Candidate

log = logging.getLogger("dtp.net")
T = TypeVar("T")

#: How long `close` waits for what was finished to arrive.
LINGER = 5.0
#: Seconds for the peer to hear of the end that a connection has had before, and for streams to be taken up.
HEARD = 1.0
#: Seconds for the peer to hear that it may open no more streams. What it opens meanwhile is taken, and what it opens
#: later is refused, with whatever a program has said: on a busy machine one needs more than a second.
TOLD = 5.0


class Connection:
    """An encrypted connection to a peer that has proven its identity. Not made directly: `connect`, `listen`.

    Leaving `async with` closes it: what was finished is still delivered.
    """

    def __init__(
        self, session: Session, driver: LinkDriver, loop: asyncio.AbstractEventLoop, redial: Redial | None
    ) -> None:
        self._session = session
        self._loop = loop
        self._buffers = Buffers.of_loop(loop)
        #: How its streams send.
        self.outlet = Outlet(session, loop, self._buffers, self._send_due, driver.account)
        self._drivers = self.outlet.drivers
        self._streams: dict[int, Stream] = {}
        self._waiters = Waiters(loop)
        #: Where it is counted what is spent of the processor for this peer.
        self.account: ProcessorAccount = driver.account
        self._intake = StreamIntake(self._buffers.streams, self._waiters, self.account, self._not_taken)
        self._resumption = Resumption(session, redial, self._waiters, self.join_carrier, self._give_up)
        dial = None if redial is None else self.add_carrier
        self.silence = Silence(session, loop, self._drivers, dial, self.drop_carriers, self._after_change)
        self._deadline = Deadline(session, loop, self._after_change)
        self._datagrams = DatagramQueue(session.limits)
        self._unread = UnreadBytes(session.streams.receive_credit, self._datagrams)
        self._pings = Pings(session, loop)
        self._end = ConnectionEnd()
        self._received_bytes = 0
        self._cipher = session.link.suite.cipher
        self._receiving: Buffer | None = None  # what was read last, where spliced bytes stand
        self._meter_inbox = MeterInbox()
        #: What the listener's `admit` gave for this connection (listener side).
        self.admission: object = None
        #: Who is called when something happens to it; `add_end_callback` is for its end.
        self.callbacks: Callbacks[Connection] = Callbacks()
        #: True once the client has proven that (listener side).
        self.confirmed = False
        self._budget: HeldBudget[BudgetHolder] | None = None
        self._attach_driver(driver, session.link)

    # ---- what it is -------------------------------------------------------------------------------------

    @property
    def peer(self) -> PeerId:
        """Who is at the other end; proven."""
        return self._session.peer

    @property
    def service(self) -> str:
        """The service that the client asked for (listener side)."""
        return self._session.facts.service

    @property
    def limits(self) -> Limits:
        """The limits of this side."""
        return self._session.limits

    @property
    def patience(self) -> float:
        """Seconds that an answer of the peer may take: `limits.handshake`, or more over slow carriers."""
        return max(self.limits.handshake, self._drivers.slowest)

    def _at_most(self, seconds: float) -> float:
        return max(seconds, self._drivers.slowest / 2)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it runs on, where all its methods are called."""
        return self._loop

    @property
    def peer_away(self) -> bool:
        """True once the peer has said that it takes up no new streams, since it is about to end (`go_away` there)."""
        return self._session.peer_away

    @property
    def admitted(self) -> bool:
        """True once the server has admitted the client."""
        return self._session.ready

    @property
    def closed(self) -> bool:
        """True when the connection is over."""
        return self._end.error is not None

    @property
    def ended_by(self) -> DtpError | None:
        """What ended it; None while it goes on."""
        return None if self._end.error is None else fresh(self._end.error)

    def add_end_callback(self, callback: Callable[[], object]) -> None:
        """Call `callback` once, when the connection is over: behind those that were added before, and at once where
        it is over already."""
        self._end.add_callback(callback)

    @property
    def source(self) -> str:
        """Where the newest carrier that has proven to belong here comes from, such as an IP address; "" before."""
        return self._drivers.source

    @property
    def active_at(self) -> float:
        """When something moved on it last, by the loop's clock; at first, when it began."""
        return self._session.active_at

    @property
    def at_work(self) -> bool:
        """True while a stream of it is open."""
        return bool(self._streams)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams that are open."""
        return tuple(self._streams.values())

    @property
    def watch(self) -> ByteWatch | None:
        """Who counts what moves (see `traffic`), if anybody does."""
        return self.outlet.watch

    @watch.setter
    def watch(self, watch: ByteWatch | None) -> None:
        self.outlet.watch = watch

    def keep_within(self, budget: HeldBudget[BudgetHolder]) -> None:
        """Have what is kept for this connection counted in what all of a listener keep; see `Limits.held`."""
        self._budget = budget
        self.outlet.on_sent = self._driver_keeps

    @property
    def held(self) -> int:
        """Bytes that are kept: of streams received and not read, or written and not acknowledged; of datagrams."""
        return self._session.held + self._datagrams.size

    @property
    def blocked_at(self) -> int | None:
        """Bytes that the peer has sent on streams so far, where it may send no more until some are read; or None."""
        return self._session.blocked_at

    @property
    def stats(self) -> Stats:
        """Counts and state, now."""
        return Stats(
            bytes_sent=self.outlet.sent,
            bytes_received=self._received_bytes,
            carriers=tuple(driver.carrier.remote for driver in self._drivers),
            cipher=self._cipher,
            handshake=self._session.facts.protocol,
            resumes=self._resumption.count,
            rtt=self._session.rtt,
            streams=len(self._streams),
        )

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open" if self._drivers else "resuming"
        return f"<Connection {self.peer.short} {state}>"

    # ---- streams ----------------------------------------------------------------------------------------

    async def open_stream(self, *, patience: float | None = None) -> Stream:
        """Open a stream; waits while the peer allows no further one. Raises what ended the connection, and
        `TooManyStreams` when that took `patience` seconds."""
        if (stream := self.try_open_stream()) is not None:
            return stream
        try:
            async with asyncio.timeout(patience):
                while (stream := self.try_open_stream()) is None:
                    await self._waiters.wait_for("streams")
        except TimeoutError:
            raise TooManyStreams(
                f"{self.peer.short} has allowed no further stream for {patience:g} s"
            ) from None
        return stream

    def try_open_stream(self) -> Stream | None:
        """Return a new stream, or None while the peer allows no further one. Raises what ended the connection."""
        if self._end.error is not None:
            raise fresh(self._end.error)
        session = self._session
        if session.peer_away:
            raise ConnectionClosed(CloseCode.SHUTDOWN, "it takes no new streams", by_peer=True)
        stream_id = session.try_open_stream()
        if stream_id is None:
            return None
        stream = self._streams[stream_id] = Stream(self, stream_id)
        self.outlet.flush_soon()
        return stream

    async def accept_stream(self) -> Stream:
        """Return the next stream that the peer opens. Raises what ended the connection, once none is left.

        Of all connections of a loop, 64 in one turn: whoever asks for more waits for the next.
        """
        return await self._intake.accept_stream(self._check_open)

    def take_streams(self, on_stream: Callable[[Stream], None]) -> None:
        """Call `on_stream` from now on with each stream that the peer opens, starting with those that have come.

        Instead of `accept_stream`, where that need not wait: what came with the stream is not buffered, and no task
        is woken. What it raises later goes to the loop's exception handler, and the connection ends with `INTERNAL`.
        Of streams that come all at once (16 in a turn of the loop, of all connections) the rest follows in the next
        turns, except those that break off before.
        """
        self._intake.take_streams(on_stream)

    def __aiter__(self) -> Connection:
        return self

    async def __anext__(self) -> Stream:
        """Return the next stream that the peer opens, for `async for`, which ends with the connection."""
        try:
            return await self.accept_stream()
        except ConnectionClosed:
            raise StopAsyncIteration from None

    # ---- datagrams, ping --------------------------------------------------------------------------------

    def send_datagram(self, data: bytes | bytearray | memoryview) -> None:
        """Send a message that may be lost with its carrier and is not ordered. `DatagramTooLarge`."""
        self._check_open()
        self._session.send_datagram(bytes(data))
        self.outlet.flush_soon()

    async def recv_datagram(self) -> bytes:
        """Return the next datagram. Beyond `limits.datagrams` and `limits.datagram_buffer` the oldest were
        dropped."""
        while not self._datagrams:
            self._check_open()
            await self._waiters.wait_for("datagram")
        return self._datagrams.take_datagram()

    @property
    def datagrams_dropped(self) -> int:
        """Datagrams so far that went since too many waited, to be sent or to be read, or as the connection ended.

        Those that were under way when a carrier was cut are not among them: nobody knows of them.
        """
        return self._session.datagrams_dropped + self._datagrams.dropped

    async def ping(self) -> float:
        """Return the time to the peer and back, in seconds."""
        self._check_open()
        return await self._pings.send_ping(self.outlet.flush_soon)

    # ---- metering: opaque here, `dtp.pay` knows what it means ---------------------------------------------

    def send_meter(self, data: bytes) -> None:
        """Send a metering frame, at most 4,096 bytes. It may be lost with its carrier: say again what matters."""
        self._check_open()
        self._session.send_meter(data)
        self.outlet.flush_soon()

    def take_meter(self, on_meter: Callable[[bytes], None]) -> None:
        """Call `on_meter` from now on with each metering frame, starting with those that have come."""
        self._meter_inbox.take_frames(on_meter)

    @property
    def traffic(self) -> Traffic:
        """Streams opened by the client, and bytes of streams sent and received, each counted once."""
        return self._session.traffic

    @property
    def unanswered(self) -> int:
        """Streams opened by the client on which nothing was sent to it, not even an end, also if it gave them up."""
        return self._session.unanswered

    @property
    def moved(self) -> int:
        """Bytes of streams sent and received, as `traffic` counts them."""
        return self._session.moved

    def limit_sending(self, total: int | None) -> None:
        """Send at most so many bytes of streams in all (see `traffic`); what is above waits. None: no limit."""
        if self._session.limit_sending(total):
            self.outlet.flush_soon()

    def limit_receiving(self, total: int | None) -> None:
        """Give the peer credit for at most so many bytes in all, and what it has credit for. None: no limit."""
        if self._session.limit_receiving(total):
            self.outlet.flush_soon()

    # ---- carriers ---------------------------------------------------------------------------------------

    async def add_carrier(self, candidate: Candidate | None = None) -> None:
        """Dial the peer once more, at `candidate` where one is given, and use both carriers at once (client side).

        Raises as `connect` does.
        """
        self._check_open()
        await self._resumption.add_carrier(self._attach_driver, self._check_open, candidate)

    def drop_carriers(self, unwanted: Callable[[Carrier], bool]) -> int:
        """Do without the carriers that are `unwanted`, as long as another one is left; return how many went.

        Streams go on over what is left: nothing is lost, nothing comes twice.
        """
        dropped = [] if self._end.error is not None else self._drivers.list_unwanted(unwanted)
        for driver in dropped:
            driver.close_carrier()
            self._carrier_lost(driver, None)
        return len(dropped)

    def join_carrier(self, driver: LinkDriver, established: Established) -> None:
        """Take a carrier that is to carry this connection on, instead of all others; its session checks the proof."""
        self._attach_driver(driver, self._session.new_link(established, self._loop.time()))

    def _attach_driver(self, driver: LinkDriver, link: Link) -> None:
        link.patience = carriers.patience(driver.carrier.scheme)
        if driver.carrier.packet_size:
            self._session.carry_packets(link, driver.carrier.packet_size, self._loop.time())
        self._drivers.append(driver)
        driver.take_over(self, link, self.peer)
        self.account = self._intake.account = self.outlet.account = driver.account
        self.outlet.flush_soon()

    # ---- the end ----------------------------------------------------------------------------------------

    async def close(self, code: int = 0, reason: str = "") -> None:
        """Close the connection. Finished streams are delivered first (see `delivered`), others break off.

        `code` and `reason` (0 to 2^32 - 1; at most 256 bytes) are the application's and reach the peer's
        `ConnectionClosed`. Idempotent.
        """
        check_code(code)
        await self.delivered()
        most = HEARD if self._end.error is not None else LINGER
        self.abort(code, reason, application=code != 0)
        await self.wait_gone(most)

    async def delivered(self) -> bool:
        """Wait 5 s at most (30 over slow carriers) until finished streams are delivered; return whether they are."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._at_most(LINGER)):
                while self._end.error is None:
                    if not any(map(self._session.is_finishing, self._streams)):
                        return True
                    await self._waiters.wait_for("written")
        return False

    async def wait_gone(self, most: float = LINGER) -> None:
        """Wait, after the end, until the carriers have sent the last word and are closed. Those whose peer takes
        nothing, as one that was killed, are cut off after `most` seconds (30 over slow ones)."""
        try:
            async with asyncio.timeout(self._at_most(most)):
                while self._drivers:
                    await self._waiters.wait_for("gone")
        except TimeoutError:
            for driver in list(self._drivers):
                driver.carrier.abort()

    def abort(self, code: int = 0, reason: str = "", *, application: bool = False, detail: int = 0) -> None:
        """Close now: the peer is told, what was not sent is dropped. `detail` is a `CloseDetail`. Idempotent."""
        if self._end.error is None:
            self._session.close(code, reason, application=application, detail=detail)
            self._after_change(self._loop.time())

    async def wait_closed(self) -> None:
        """Wait until the connection is over, however it ended."""
        while self._end.error is None:
            await self._waiters.wait_for("closed")

    async def go_away(self) -> None:
        """Tell the peer to open no new streams; those that are open go on.

        Returns once the peer knows, after 5 s at most (one while it has no carrier), and what it opened before is
        taken up, or after another second; what comes later is refused. Nothing happens when the connection is over.
        """
        if self._end.error is not None:
            return
        self._session.warn_away()
        # Where the connection is over by then, the next lines change nothing.
        with contextlib.suppress(TimeoutError, DtpError):
            async with asyncio.timeout(TOLD if self.source else HEARD):
                await self.ping()
        self._session.go_away()
        self.outlet.flush_soon()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARD):
                while self._intake.taking:
                    await self._waiters.wait_for("taken")

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.abort(CloseCode.INTERNAL)
        await self.close()

    def _check_open(self) -> None:
        if self._end.error is not None:
            raise fresh(self._end.error)

    def count_work(self, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """Return `work` for a task that serves this peer: its steps count as processor time spent for it, and wait
        for a turn to come where this one is long and others have had less."""
        return Charged(work, self._buffers.steps, self.account)

    @property
    def turns(self) -> Turns:
        """How much a turn of its loop may move. For relays."""
        return self._buffers.turns

    # ---- bytes ------------------------------------------------------------------------------------------

    def _receive_records(
        self, driver: LinkDriver, buffer: Buffer, start: int, end: int, most: int
    ) -> tuple[int, int]:
        assert driver.link is not None
        self.outlet.begin_turn()
        now = self._loop.time()
        self._receiving = buffer
        used, frames = self._session.receive_records(driver.link, buffer, start, end, now, most)
        self._received_bytes += used - start
        self._after_change(now)
        if used - start >= MUCH:
            self._buffers.movers.count_mover()
        if self._buffers.turns.note_moved(used - start, now):
            yield_processor()
        return used, frames

    def _received_packet(self, driver: LinkDriver, packet: bytes) -> None:
        assert driver.link is not None
        now = self._loop.time()
        self._received_bytes += len(packet)
        self._session.receive_packet(driver.link, packet, now)
        self._after_change(now)

    def _carrier_lost(self, driver: LinkDriver, error: CarrierError | None) -> None:
        if driver in self._drivers:
            self._drivers.remove(driver)
        if driver.link is not None:
            self._session.link_lost(driver.link, self._loop.time(), str(error or "closed by the other side"))
        self._waiters.wake_for("gone")
        self._waiters.wake_for("carrier")
        self._after_change(self._loop.time())

    def _flush_writes(self) -> None:
        if not self.outlet.put_off():
            self._send_waiting(self._loop.time())

    def _send_waiting(self, now: float) -> None:
        """Send what waits, and tell what came of it."""
        self.outlet.send_sealed(now)
        if self._session.has_events:
            self._dispatch_events()

    def _driver_keeps(self) -> None:
        """Have all that is kept for this connection counted."""
        if self._budget is not None and self._end.error is None:
            kept = self._session.buffered + self._datagrams.size + self._drivers.held
            if not self._budget.is_near(self, kept):  # as after most of what comes: no source is looked up
                self._budget.note_kept(self, self.source, kept)

    def _after_change(self, now: float) -> None:
        """Tell what has happened, send what waits unless others come first, set the timer."""
        self._tell_events()
        if self._session.ended is not None or not self.outlet.put_off():
            self._send_due(now)

    def _tell_events(self) -> None:
        session, outlet = self._session, self.outlet
        if session.has_events or outlet.watch is not None:
            follows = outlet.hold_sending()
            try:
                if session.has_events:
                    self._dispatch_events()
                outlet.tell_watch()  # what it says about what came goes with what is sent anyway
            finally:
                outlet.release_sending(follows)

    def _send_due(self, now: float) -> None:
        self._tell_events()
        self._send_waiting(now)
        if self._session.ended is None:
            self._deadline.reset_timer(now)
            return
        self._deadline.cancel()
        self._drivers.close_all()
        self._resumption.cancel()
        if not self._drivers:
            self._let_go()

    def _let_go(self) -> None:
        """Let nothing that this has refer back to it, after the end and without a carrier, so that it is freed with
        whoever uses it last. What ends in great numbers would wait for a collection otherwise."""
        parts = (self.outlet, self._intake, self._resumption, self.silence, self._meter_inbox, self.callbacks)
        for part in parts:
            part.let_go()
        self._budget = self._receiving = None

    # ---- events -----------------------------------------------------------------------------------------

    def _dispatch_events(self) -> None:
        confirmed = self.confirmed
        for event in self._session.take_events():
            _HANDLERS[type(event)](self, event)
        if self.confirmed and not confirmed and self.callbacks.on_confirmed is not None:
            self.callbacks.on_confirmed(self)  # last: it may end the connection

    async def wait_ready(self) -> None:
        """Wait, as the client, until the server has admitted this connection; raises its refusal."""
        while not self._session.ready:
            self._check_open()
            await self._waiters.wait_for("ready")

    def refuse_once_confirmed(self, code: int, reason: str) -> None:
        """Listener side: close when the client has proven that it holds the keys, whatever it says. Until then say
        nothing, since its first message may be another's that is sent again."""
        self._session.refuse_once_confirmed(code, reason)

    def admit(self) -> None:
        """Let the client go on, as its listener."""
        self._session.admit_client()
        self.outlet.flush_soon()

    def _on_confirmed(self, event: ev.Confirmed) -> None:
        self.confirmed = True
        self._drivers.settle_all()

    def _on_stream_opened(self, event: ev.StreamOpened) -> None:
        stream = self._streams[event.stream_id] = Stream(self, event.stream_id)
        self._intake.note_opened(stream)

    def _not_taken(self, error: Exception) -> None:
        told = {"message": f"taking a stream of service {self.service!r} failed", "exception": error}
        self._loop.call_exception_handler(told)
        self._loop.call_soon(self.abort, CloseCode.INTERNAL)

    def _on_spliced_data(self, event: ev.SplicedData) -> None:
        assert self.outlet.splices is not None
        assert self._receiving is not None
        self.outlet.splices.deliver_data(event, self._receiving)

    def _on_stream_stopped(self, event: ev.StreamStopped) -> None:
        if (stream := self._streams.get(event.stream_id)) is not None:
            stream._fail_stopped(event.error_code)

    def _on_stream_writable(self, event: ev.StreamWritable) -> None:
        if (stream := self._streams.get(event.stream_id)) is not None:
            stream._handle_writable()
        self._waiters.wake_for("written")

    def _on_stream_done(self, event: ev.StreamDone) -> None:
        if (stream := self._streams.pop(event.stream_id, None)) is not None:
            stream._finish_stream()
            self._unread.note_done(stream)
        self._waiters.wake_for("written")

    def _on_datagram(self, event: ev.DatagramReceived) -> None:
        self._datagrams.put_datagram(event.data)
        self._waiters.wake_for("datagram")

    def _on_going_away(self, event: ev.GoingAway) -> None:
        self._waiters.wake_for("streams")
        if self.callbacks.on_peer_away is not None:
            self.callbacks.on_peer_away(self)

    def _on_link_attached(self, event: ev.LinkAttached) -> None:
        for driver in self._drivers:
            if driver.link is event.link and self.confirmed:
                driver.mark_settled()
                if self.callbacks.on_further_carrier is not None:
                    # Not now: it may end the connection, and what came with this is still to be told.
                    self._loop.call_soon(self.callbacks.on_further_carrier, driver.carrier)
        self._waiters.wake_for("carrier")
        if self.callbacks.on_carrier is not None:
            self.callbacks.on_carrier(self)

    def _on_link_lost(self, event: ev.LinkLost) -> None:
        log.debug("%r: link %d lost: %s", self, event.link.number, event.reason)
        if event.refusal is not None and not self._session.ready:
            self._give_up(HandshakeRefused(event.refusal))
        self._send_waiting(self._loop.time())
        self._drivers.close_lost(event.link)
        self.silence.note_lost()
        self._waiters.wake_for("carrier")
        self._waiters.wake_for("gone")

    def _give_up(self, error: PeerError) -> None:
        """End what was never admitted, as the client, and give the reason to all that waits."""
        self._end.refusal = error
        self._loop.call_soon(self.abort)

    def _explain_end(self, closed: ConnectionClosed) -> DtpError:
        """Return what all that waits here is told of the end: another error where its cause is known here."""
        return closed

    def _on_ended(self, event: ev.SessionEnded) -> None:
        end = self._end
        if event.lost:
            error: DtpError = ConnectionLost(f"connection to {self.peer.short} is lost: {event.reason}")
        else:
            error = self._explain_end(closed_error(event)) if end.refusal is None else end.refusal
        end.error = error
        for stream in self.streams:
            stream.fail(error)
        self._unread.end(self, self._budget, self.streams)
        self._streams.clear()
        self._intake.keep_whole(by_peer=event.by_peer)
        self.outlet.close_taps()
        self._pings.fail_all(error)
        self._waiters.wake_all(but="gone")
        end.run_callbacks()


_HANDLERS: dict[type, Callable[[Connection, Any], None]] = {
    ev.Ready: lambda connection, _: connection._waiters.wake_for("ready"),
    ev.Confirmed: Connection._on_confirmed,
    ev.StreamOpened: Connection._on_stream_opened,
    ev.StreamData: lambda connection, event: connection._streams[event.stream_id]._feed_data(event.data),
    ev.SplicedData: Connection._on_spliced_data,
    ev.StreamFinished: lambda connection, event: connection._streams[event.stream_id]._feed_eof(),
    ev.StreamWasReset: lambda connection, event: connection._streams[event.stream_id]._fail_reset(
        event.error_code
    ),
    ev.StreamStopped: Connection._on_stream_stopped,
    ev.StreamDeclined: lambda connection, event: connection._streams[event.stream_id]._fail_unread(
        event.data
    ),
    ev.StreamWritable: Connection._on_stream_writable,
    ev.StreamDone: Connection._on_stream_done,
    ev.StreamsAllowed: lambda connection, _: connection._waiters.wake_for("streams"),
    ev.DatagramReceived: Connection._on_datagram,
    ev.MeterReceived: lambda connection, event: connection._meter_inbox.put_frame(event.data),
    ev.Pong: lambda connection, event: connection._pings.note_pong(event.token, event.rtt),
    ev.GoingAway: Connection._on_going_away,
    ev.LinkAttached: Connection._on_link_attached,
    ev.LinkSilent: lambda connection, _: connection.silence.note_silent(),
    ev.LinkLost: Connection._on_link_lost,
    ev.Detached: lambda own, _: own._resumption.start_redialing(own._loop, own._drivers, own),
    ev.Resumed: lambda connection, _: connection._resumption.note_resumed(connection._loop.time()),
    ev.SessionEnded: Connection._on_ended,
}
