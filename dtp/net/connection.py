"""A connection: what a program holds. It drives a session over carriers and survives the loss of any of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from dtp import carriers
from dtp.carriers.base import Carrier
from dtp.carriers.watch import socket_watcher
from dtp.core import Buffer, sockets_supported
from dtp.errors import CarrierError, DtpError, LocalError, PeerError
from dtp.identity import PeerId
from dtp.net.driver import Buffers, LinkDriver, OnEstablished, yield_processor
from dtp.net.held import HeldBudget, Keeper
from dtp.net.retries import Retries
from dtp.net.stream import Stream
from dtp.net.taps import Taps
from dtp.net.turn_budget import LOW
from dtp.net.turns import MUCH, Turns
from dtp.net.watch import Watch
from dtp.session import events as ev
from dtp.session.codes import (
    CloseCode,
    ConnectionClosed,
    ConnectionLost,
    HandshakeRefused,
    StreamReset,
    TooManyStreams,
    check_code,
)
from dtp.session.datagrams import DatagramQueue
from dtp.session.handshake import Established
from dtp.session.limits import Limits
from dtp.session.link import Link
from dtp.session.session import Session, Traffic
from dtp.session.state import NEVER
from dtp.tasks import start_task

log = logging.getLogger("dtp.net")

#: How long `close` waits for what was finished to arrive.
LINGER = 5.0
#: Seconds for the peer to hear that it may open no more streams.
HEARD = 1.0

#: Metering frames kept until somebody takes them: a peer may send its first one before we are ready for it.
_EARLY_METER = 16

#: Dials a carrier for a connection that exists (its id) and runs the handshake; calls back when it is done.
Redial = Callable[[bytes, OnEstablished], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the connection began, and how it stands. Bytes are of records on carriers; times seconds.

    `handshake` is the Noise protocol's full name, such as `Noise_IK_25519_AESGCM_SHA256`.
    """

    bytes_sent: int
    bytes_received: int
    carriers: tuple[str, ...]
    cipher: str
    handshake: str
    resumes: int
    rtt: float | None
    streams: int


class Connection:
    """An encrypted connection to a peer that has proven its identity. Not made directly: `connect`, `listen`.

    Leaving `async with` closes it: what was finished is still delivered.
    """

    def __init__(
        self, session: Session, driver: LinkDriver, loop: asyncio.AbstractEventLoop, redial: Redial | None
    ) -> None:
        self._session = session
        self._loop = loop
        self._redial = redial
        self._buffers = Buffers.of(loop)
        self._intake = self._buffers.streams
        self._drivers: list[LinkDriver] = []
        self._streams: dict[int, Stream] = {}
        self._accepted: deque[Stream] = deque()
        self._on_stream: Callable[[Stream], None] | None = None
        self._datagrams = DatagramQueue(session.limits)
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._pings: dict[int, asyncio.Future[float]] = {}
        limits = session.limits
        self._soonest = min(filter(None, (limits.ack_delay, limits.keepalive, limits.dead, limits.idle)))
        self._corked = False  # something was written and sent in this turn; more waits for its end
        self._flush_scheduled = False
        self._flush_follows = False  # what is going on now ends with a flush
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER
        self._error: DtpError | None = None
        self._refusal: PeerError | None = None
        self._resuming: asyncio.Task[None] | None = None
        self._resumes = 0
        self._retries = Retries(limits.resume)
        self._sent = self._received_bytes = 0
        self._cipher = session.link.suite.cipher
        self._taps: Taps | None = None
        self._receiving: Buffer | None = None  # what was read last, where tapped bytes stand
        self._on_meter_frame: Callable[[bytes], None] | None = None
        self._meter_frames: deque[bytes] = deque(maxlen=_EARLY_METER)
        #: Who counts what moves (see `traffic`), if anybody does.
        self.watch: Watch | None = None
        #: What the listener's `admit` gave for this connection (listener side).
        self.admission: object = None
        #: Called once, when the connection is over, with what ended it.
        self.on_end: Callable[[Connection], object] | None = None
        #: Called once, when the client has proven that it holds the keys (listener side).
        self.on_confirmed: Callable[[Connection], None] | None = None
        #: Called whenever a further carrier, or one instead of those before, has proven that it belongs here.
        self.on_carrier: Callable[[Connection], object] | None = None
        #: As `on_carrier`, for the listener: it is given the carrier.
        self.on_further_carrier: Callable[[Carrier], None] | None = None
        #: Called once, when the peer says that it takes up no new streams; see `peer_away`.
        self.on_peer_away: Callable[[Connection], object] | None = None
        #: True once the client has proven that (listener side).
        self.confirmed = False
        #: What all connections of a listener keep, if one made this; see `Limits.held`.
        self.budget: HeldBudget[Keeper] | None = None
        self._join(driver, session.link)

    # ---- what it is -------------------------------------------------------------------------------------

    @property
    def peer(self) -> PeerId:
        """Who is at the other end; proven."""
        return self._session.peer

    @property
    def service(self) -> str:
        """The service that the client asked for (listener side)."""
        return self._session.service

    @property
    def limits(self) -> Limits:
        """The limits of this side."""
        return self._session.limits

    @property
    def patience(self) -> float:
        """Seconds that an answer of the peer may take: `limits.handshake`, or more over slow carriers."""
        return max(self.limits.handshake, self._slowest)

    @property
    def _slowest(self) -> float:
        return max((carriers.patience(each.carrier.scheme) for each in self._drivers), default=0.0)

    @property
    def _linger(self) -> float:
        return max(LINGER, self._slowest / 2)

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
        return self._error is not None

    @property
    def source(self) -> str:
        """Where the newest carrier comes from that has proven that it belongs here, such as an IP address; "" while
        there is none."""
        for driver in reversed(self._drivers):
            if driver.link is not None and driver.link.attached:
                return driver.carrier.source
        return ""

    @property
    def held(self) -> int:
        """Bytes that are kept: of streams received and not read, or written and not acknowledged; of datagrams."""
        return self._session.held + self._datagrams.size

    @property
    def stats(self) -> Stats:
        """Counts and state, now."""
        return Stats(
            bytes_sent=self._sent,
            bytes_received=self._received_bytes,
            carriers=tuple(driver.carrier.remote for driver in self._drivers),
            cipher=self._cipher,
            handshake=self._session.protocol,
            resumes=self._resumes,
            rtt=self._session.rtt,
            streams=len(self._streams),
        )

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open" if self._drivers else "resuming"
        return f"<Connection {self.peer.short} {state}>"

    # ---- streams ----------------------------------------------------------------------------------------

    async def open_stream(self, *, patience: float | None = None) -> Stream:
        """Open a stream; waits while the peer allows no further one. Raises what ended the connection.

        Also `TooManyStreams` when that took `patience` seconds.
        """
        if (stream := self.try_open_stream()) is not None:
            return stream
        try:
            async with asyncio.timeout(patience):
                while (stream := self.try_open_stream()) is None:
                    await self._wait("streams")
        except TimeoutError:
            raise TooManyStreams(
                f"{self.peer.short} has allowed no further stream for {patience:g} s"
            ) from None
        return stream

    def try_open_stream(self) -> Stream | None:
        """A new stream, or None while the peer allows no further one. Raises what ended the connection."""
        if self._error is not None:
            raise self._error
        session = self._session
        if session.peer_away:
            raise ConnectionClosed(CloseCode.SHUTDOWN, "it takes no new streams", by_peer=True)
        stream_id = session.try_open_stream()
        if stream_id is None:
            return None
        stream = self._streams[stream_id] = Stream(self, stream_id)
        if not self._flush_scheduled:
            self._schedule_flush()
        return stream

    async def accept_stream(self) -> Stream:
        """The next stream that the peer opens. Raises what ended the connection, once none is left.

        Of all connections of a loop, 64 in one turn: whoever asks for more waits for the next.
        """
        has_room = False
        while not self._accepted or not has_room:
            if not self._accepted:
                self._check()
                await self._wait("accept")
            elif self._intake.left > LOW or self._intake.has_room():
                self._intake.left -= 1
                has_room = True
            else:
                await self._intake.wait_room()
                has_room = True
        return self._accepted.popleft()

    def take_streams(self, on_stream: Callable[[Stream], None]) -> None:
        """From now on call `on_stream` with each stream that the peer opens, starting with those that have come.

        Instead of `accept_stream`, where that need not wait: what came with the stream is not buffered, and no task
        is woken. What it raises later goes to the loop's exception handler, and the connection ends with `INTERNAL`.
        Of streams that come all at once (16 in a turn of the loop, of all connections) the rest follows in the next
        turns, except those that break off before.
        """
        self._on_stream, intake = on_stream, self._intake
        while self._accepted:
            if intake.left <= LOW and not intake.has_room():
                intake.wait(self._take_waiting)
                break
            intake.left -= 1
            on_stream(self._accepted.popleft())

    def __aiter__(self) -> Connection:
        return self

    async def __anext__(self) -> Stream:
        """`async for stream in connection`: the streams that the peer opens, until the connection is closed."""
        try:
            return await self.accept_stream()
        except ConnectionClosed:
            raise StopAsyncIteration from None

    # ---- datagrams, ping --------------------------------------------------------------------------------

    def send_datagram(self, data: bytes | bytearray | memoryview) -> None:
        """Send a message that may be lost with its carrier and is not ordered. `DatagramTooLarge`."""
        self._check()
        self._session.send_datagram(bytes(data))
        self._schedule_flush()

    async def recv_datagram(self) -> bytes:
        """The next datagram. Beyond `limits.datagrams` and `limits.datagram_buffer` the oldest were dropped."""
        while not self._datagrams:
            self._check()
            await self._wait("datagram")
        return self._datagrams.take()

    @property
    def datagrams_dropped(self) -> int:
        """Datagrams so far that went since too many waited, to be sent or to be read, or as the connection ended.

        Those that were under way when a carrier was cut are not among them: nobody knows of them.
        """
        return self._session.datagrams_dropped + self._datagrams.dropped

    async def ping(self) -> float:
        """The time to the peer and back, in seconds."""
        self._check()
        token = self._session.ping(self._loop.time())
        future: asyncio.Future[float] = self._loop.create_future()
        self._pings[token] = future
        self._schedule_flush()
        try:
            return await future
        finally:
            self._pings.pop(token, None)

    # ---- metering: opaque here, `dtp.pay` knows what it means ---------------------------------------------

    def send_meter(self, data: bytes) -> None:
        """Send a metering frame, at most 4,096 bytes. It may be lost with its carrier: say again what matters."""
        self._check()
        self._session.send_meter(data)
        self._schedule_flush()

    def take_meter(self, on_meter: Callable[[bytes], None]) -> None:
        """From now on call `on_meter` with each metering frame, starting with those that have come."""
        self._on_meter_frame = on_meter
        while self._meter_frames:
            on_meter(self._meter_frames.popleft())

    @property
    def traffic(self) -> Traffic:
        """Streams opened by the client, and bytes of streams sent and received, each counted once."""
        return self._session.traffic

    @property
    def unanswered(self) -> int:
        """Streams opened by the client of which it has got neither a byte nor an end, be they given up since."""
        return self._session.unanswered

    @property
    def moved(self) -> int:
        """Bytes of streams sent and received, as `traffic` counts them."""
        return self._session.moved

    def limit_sending(self, total: int | None) -> None:
        """Send at most so many bytes of streams in all (see `traffic`); what is above waits. None: no limit."""
        if self._session.limit_sending(total):
            self._schedule_flush()

    def limit_receiving(self, total: int | None) -> None:
        """Give the peer credit for at most so many bytes in all, and what it has credit for. None: no limit."""
        if self._session.limit_receiving(total):
            self._schedule_flush()

    # ---- carriers ---------------------------------------------------------------------------------------

    async def add_carrier(self) -> None:
        """Dial the peer once more and use both carriers at once (client side). Raises as `connect` does."""
        self._check()
        if self._redial is None:
            raise LocalError("only the side that dialled can add a carrier")
        added: list[tuple[LinkDriver, Link]] = []

        def take_over(driver: LinkDriver, established: Established) -> None:
            link = self._session.new_link(established, self._loop.time(), add=True)
            added.append((driver, link))
            self._join(driver, link)

        await self._redial(self._session.connection_id, take_over)
        driver, link = added[0]
        while not link.attached:
            if link.lost or driver.closed:
                raise CarrierError("the added carrier was lost before the peer accepted it")
            self._check()
            await self._wait("carrier")

    @property
    def link_hashes(self) -> list[bytes]:
        """The handshake hash (32 bytes) of each carrier that is attached; the peer's are the same."""
        links = [driver.link for driver in self._drivers]
        return [link.hash for link in links if link is not None and link.attached]

    def join(self, driver: LinkDriver, established: Established) -> None:
        """A carrier that is to carry this connection on, instead of all others; its session checks the proof."""
        self._join(driver, self._session.new_link(established, self._loop.time()))

    def _join(self, driver: LinkDriver, link: Link) -> None:
        link.patience = carriers.patience(driver.carrier.scheme)
        self._drivers.append(driver)
        driver.take_over(self, link)
        self._schedule_flush()

    async def _resume(self) -> None:
        """Client: get a carrier again and let the session go on; gives up when the session does."""
        assert self._redial is not None
        self._retries.lost(self._loop.time(), self._session.moved, self._session.buffered)
        while self._error is None and not self._session.attached:
            pause = self._retries.pause(self._loop.time())
            if pause is None:
                log.info(
                    "%r: carriers come and go, and nothing gets through: no more attempts to resume", self
                )
                break
            await asyncio.sleep(pause)
            try:
                await self._redial(self._session.connection_id, self.join)
            except (CarrierError, PeerError) as error:
                log.debug("%r: an attempt to resume failed: %s", self, error)
                if isinstance(error, PeerError) and not self._session.ready:
                    self._give_up(error)  # lost before we were admitted, and now refused: that is why
                    break
                continue
            while self._drivers and not self._session.attached and self._error is None:
                await self._wait("carrier")
        self._resuming = None

    # ---- the end ----------------------------------------------------------------------------------------

    async def close(self, code: int = 0, reason: str = "") -> None:
        """Close the connection. Finished streams are delivered first (see `delivered`), others break off.

        `code` and `reason` (0 to 2^32 - 1; at most 256 bytes) are the application's and reach the peer's
        `ConnectionClosed`. Idempotent.
        """
        check_code(code)
        await self.delivered()
        self.abort(code, reason, application=code != 0)
        await self.wait_gone()

    async def delivered(self) -> None:
        """Wait until the peer has all streams that were finished, or the connection is over.

        At most 5 s; 30 s over carriers that are slow by nature.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._linger):
                while self._error is None and any(map(self._session.finishing, self._streams)):
                    await self._wait("written")

    async def wait_gone(self) -> None:
        """After the end: wait until the carriers have sent the last word and are closed. At most as `delivered`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._linger):
                while self._drivers:
                    await self._wait("gone")

    def abort(self, code: int = 0, reason: str = "", *, application: bool = False, detail: int = 0) -> None:
        """Close now: the peer is told, what was not sent is dropped. `detail` is a `CloseDetail`. Idempotent."""
        if self._error is None:
            self._session.close(code, reason, application=application, detail=detail)
            self._after(self._loop.time())

    async def wait_closed(self) -> None:
        """Wait until the connection is over, however it ended."""
        while self._error is None:
            await self._wait("closed")

    async def go_away(self) -> None:
        """Tell the peer to open no new streams; those that are open go on.

        Returns once the peer knows and what it opened before is taken up, or after a second for each; what comes
        later is refused. Nothing happens when the connection is over.
        """
        if self._error is not None:
            return
        self._session.warn_away()
        # Where the connection is over by then, the next lines change nothing.
        with contextlib.suppress(TimeoutError, DtpError):
            async with asyncio.timeout(HEARD):
                await self.ping()
        self._session.go_away()
        self._schedule_flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARD):
                while self._on_stream is not None and self._accepted:
                    await self._wait("taken")

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.abort(CloseCode.INTERNAL)
        await self.close()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    async def _wait(self, what: str) -> None:
        future = self._loop.create_future()
        self._waiters.setdefault(what, []).append(future)
        try:
            await future
        finally:
            waiting = self._waiters.get(what)
            if waiting is not None and future in waiting:
                waiting.remove(future)

    def _wake(self, what: str) -> None:
        for future in self._waiters.pop(what, ()):
            if not future.done():
                future.set_result(None)

    # ---- streams ask ------------------------------------------------------------------------------------

    def _write(self, stream_id: int, data: bytes | memoryview) -> None:
        """The first write of a turn goes out at once, which saves an answer a round of the loop; what is written
        after it in the same turn is sent together at the turn's end."""
        session = self._session
        if self._flush_scheduled or self._flush_follows:
            session.write(stream_id, data)
        elif self._corked:
            session.write(stream_id, data)
            self._schedule_flush()
        else:
            self._corked = True
            if len(self._drivers) == 1 and type(data) is bytes:  # a message by itself, the shortest way
                driver, out = self._drivers[0], self._buffers.seal
                link = driver.link
                if driver.writable and link is not None:
                    size = session.seal_write(link, stream_id, data, out, self._loop.time())
                    if size:
                        self._sent += size
                        driver.writable = driver.carrier.write(out.view[:size])
                        if self.watch is not None:
                            self._tell_watch()
                        return
            session.write(stream_id, data)
            self._send(self._loop.time())
            if session.has_events:
                self._schedule_flush()

    @property
    def turns(self) -> Turns:
        """How much a turn of its loop may move. For relays."""
        return self._buffers.turns

    @property
    def taps(self) -> Taps | None:
        """Sockets joined with its streams; None where the system can't. For `dtp.net.taps`."""
        if self._taps is None and self._error is None and sockets_supported():
            self._taps = Taps(
                socket_watcher(self._loop),
                self._buffers.gather,
                self._write_pieces,
                self._consumed_all,
                self._buffers.turns,
                self._loop.time,
            )
        return self._taps

    def _write_pieces(self, pieces: Iterable[tuple[int, int, int]], block: bytes) -> list[int]:
        """What one turn has read from taps goes out at once; gives the streams that had to queue their piece."""
        session, now = self._session, self._loop.time()
        driver = self._drivers[0] if len(self._drivers) == 1 and self._drivers[0].writable else None
        out = self._buffers.seal
        link = None if driver is None else driver.link
        size, queued = session.seal_pieces(link, pieces, block, out, now)
        if driver is not None and size:
            self._sent += size
            driver.writable = driver.carrier.write(out.view[:size])
            self._tell_watch()
        self._send(now)
        if session.has_events:
            self._schedule_flush()
        return queued

    def _consumed_all(self, stream_ids: list[int], sizes: list[int]) -> None:
        if self._session.consumed_all(stream_ids, sizes):
            self._schedule_flush()

    def _finish(self, stream_id: int) -> None:
        self._session.finish(stream_id)
        self._schedule_flush()

    def _reset_stream(self, stream_id: int, error_code: int) -> None:
        self._session.reset(stream_id, error_code)
        self._schedule_flush()

    def _stop_stream(self, stream_id: int, error_code: int) -> None:
        self._session.stop(stream_id, error_code)
        self._schedule_flush()

    def _consumed(self, stream_id: int, size: int) -> None:
        if self._session.consumed(stream_id, size) and not self._flush_scheduled:
            self._schedule_flush()

    def _set_low(self, stream_id: int, low: int) -> None:
        self._session.set_low(stream_id, low)

    def _queued(self, stream_id: int) -> int:
        return self._session.queued(stream_id)

    def _acknowledged(self, stream_id: int) -> bool:
        return self._session.acknowledged(stream_id)

    # ---- bytes ------------------------------------------------------------------------------------------

    def _received(
        self, driver: LinkDriver, buffer: Buffer, start: int, end: int, most: int
    ) -> tuple[int, int]:
        assert driver.link is not None
        self._corked = False
        now = self._loop.time()
        self._receiving = buffer
        used, frames = self._session.receive(driver.link, buffer, start, end, now, most)
        self._received_bytes += used - start
        self._after(now)
        if used - start >= MUCH:
            self._buffers.movers.count()
        if self._buffers.turns.moved(used - start, now):
            yield_processor()
        return used, frames

    def _carrier_lost(self, driver: LinkDriver, error: CarrierError | None) -> None:
        if driver in self._drivers:
            self._drivers.remove(driver)
        if driver.link is not None:
            self._session.link_lost(driver.link, self._loop.time(), str(error or "closed by the other side"))
        self._wake("gone")
        self._wake("carrier")
        self._after(self._loop.time())

    def _schedule_flush(self) -> None:
        if not self._flush_scheduled and not self._flush_follows:
            self._flush_scheduled = True
            self._loop.call_soon(self._scheduled_flush)

    def _scheduled_flush(self) -> None:
        self._flush_scheduled = False
        self._corked = False
        self._after(self._loop.time())

    def _flush(self) -> None:
        """Send what waits, and tell what came of it."""
        self._send(self._loop.time())
        if self._session.has_events:
            self._dispatch()

    def _send(self, now: float) -> None:
        """Seal once for every carrier that can take more.

        When that was not all, the rest follows in the next turn of the loop, so that others have theirs between.
        """
        session, watch, sealed = self._session, self.watch, 0
        for driver in self._drivers:
            link = driver.link
            if not driver.writable or link is None or not session.may_seal(link):
                continue
            if watch is not None and watch.going is not None and session.moved >= watch.along:
                self._along(watch.going, now)
            out, most = self._buffers.seal, self._buffers.turns.room
            size = session.seal(link, out, now, most)
            if size:
                sealed += size
                driver.writable = driver.carrier.write(out.view[:size])
                if size >= MUCH:
                    self._buffers.movers.count()
                if size > most // 2 and driver.writable and not self._flush_scheduled:
                    self._flush_scheduled = True
                    self._loop.call_soon(self._scheduled_flush)
        if sealed:
            self._sent += sealed
            self._tell_watch()
        if self.budget is not None:
            self._driver_keeps()

    def _driver_keeps(self) -> None:
        """Have all that is kept for this connection counted."""
        if self.budget is not None and self._error is None:
            kept = self._session.buffered + self._datagrams.size
            for driver in self._drivers:
                kept += driver.held
            self.budget.note(self, self.source, kept)

    def _tell_watch(self) -> None:
        """Something came or was sealed: tell the watch if it is to know."""
        watch = self.watch
        if watch is not None and self._session.passed(watch.opened, watch.received, watch.total):
            watch.moved()

    def _along(self, going: Callable[[int, float], bytes | None], now: float) -> None:
        """Something is to be sealed: let a frame of the watch go along with it, unless it is the last."""
        session = self._session
        if self._error is not None or session.ended is not None:
            return
        self._flush_follows = True
        try:
            frame = going(session.moved, now)
        finally:
            self._flush_follows = False
        if frame is not None:
            session.send_meter(frame)

    def _after(self, now: float) -> None:
        """After anything happened: tell what did, send what waits, set the timer."""
        session = self._session
        if session.has_events or self.watch is not None:
            self._flush_follows = True
            try:
                if session.has_events:
                    self._dispatch()
                self._tell_watch()  # what it says about what came goes with what is sent anyway
            finally:
                self._flush_follows = False
        self._send(now)
        if session.has_events:
            self._dispatch()
        if session.ended is not None:
            self._finish_drivers()
        elif now + self._soonest < self._timer_at:  # else nothing can be due before the timer
            self._set_timer()

    def _set_timer(self) -> None:
        deadline = self._session.deadline()
        if self._timer_at <= deadline:
            return  # it comes earlier, looks, and is set again
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._tick)
        self._timer_at = deadline

    def _tick(self) -> None:
        self._timer, self._timer_at = None, NEVER
        self._session.tick(self._loop.time())
        self._after(self._loop.time())

    def _finish_drivers(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, NEVER
        for driver in self._drivers:
            driver.close()
        if self._resuming is not None and self._resuming is not asyncio.current_task():
            self._resuming.cancel()

    # ---- events -----------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        confirmed = self.confirmed
        for event in self._session.events():
            _HANDLERS[type(event)](self, event)
        if self.confirmed and not confirmed and self.on_confirmed is not None:
            self.on_confirmed(self)  # last: it may end the connection

    def _on_ready(self, event: ev.Ready) -> None:
        self._wake("ready")

    async def wait_ready(self) -> None:
        """Client: wait until the server has admitted this connection; raises its refusal."""
        while not self._session.ready:
            self._check()
            await self._wait("ready")

    def refuse_once_confirmed(self, code: int, reason: str) -> None:
        """Listener side: close when the client has proven that it holds the keys, whatever it says. Until then say
        nothing, since its first message may be another's that is sent again."""
        self._session.refuse_once_confirmed(code, reason)

    def admit(self) -> None:
        """Listener side: let the client go on."""
        self._session.admit()
        self._schedule_flush()

    def _on_confirmed(self, event: ev.Confirmed) -> None:
        self.confirmed = True
        for driver in self._drivers:
            driver.settle()

    def _on_stream_opened(self, event: ev.StreamOpened) -> None:
        stream_id = event.stream_id
        stream = self._streams[stream_id] = Stream(self, stream_id)
        intake = self._intake
        if self._on_stream is None:
            self._accepted.append(stream)
            self._wake("accept")
        elif intake.left > LOW or intake.has_room():
            intake.left -= 1
            try:
                self._on_stream(stream)
            except Exception as error:  # noqa: BLE001 - foreign code: what came with the stream is still to be told
                self._not_taken(error)
        else:
            if not self._accepted:
                intake.wait(self._take_waiting)
            self._accepted.append(stream)

    def _take_waiting(self) -> bool:
        """Take up one of the streams that wait for a turn of the loop; whether others do."""
        waiting = self._accepted
        if waiting and self._on_stream is not None:
            stream = waiting.popleft()
            if stream._read_error is not None:  # the peer has given it up
                stream.reset()
            else:
                try:
                    self._on_stream(stream)
                except Exception as error:  # noqa: BLE001 - foreign code, as above
                    self._not_taken(error)
        if waiting:
            return True
        self._wake("taken")
        return False

    def _not_taken(self, error: Exception) -> None:
        self._loop.call_exception_handler(
            {"message": f"taking a stream of service {self.service!r} failed", "exception": error}
        )
        self._loop.call_soon(self.abort, CloseCode.INTERNAL)

    def _on_stream_data(self, event: ev.StreamData) -> None:
        self._streams[event.stream_id]._feed(event.data)

    def _on_tap_data(self, event: ev.TapData) -> None:
        assert self._taps is not None
        assert self._receiving is not None
        self._taps.deliver(event, self._receiving)

    def _on_stream_finished(self, event: ev.StreamFinished) -> None:
        self._streams[event.stream_id]._feed_eof()

    def _on_stream_reset(self, event: ev.StreamWasReset) -> None:
        self._streams[event.stream_id]._fail_reset(StreamReset(event.error_code))

    def _on_stream_stopped(self, event: ev.StreamStopped) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            error = StreamReset(event.error_code, stopped=True)
            stream._fail_write(error, delivered=self._acknowledged(stream.id))

    def _on_stream_writable(self, event: ev.StreamWritable) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream._writable()
        if "written" in self._waiters:
            self._wake("written")

    def _on_stream_done(self, event: ev.StreamDone) -> None:
        stream = self._streams.pop(event.stream_id, None)
        if stream is not None:
            stream._done()
        if "written" in self._waiters:
            self._wake("written")

    def _on_streams_allowed(self, event: ev.StreamsAllowed) -> None:
        self._wake("streams")

    def _on_datagram(self, event: ev.DatagramReceived) -> None:
        self._datagrams.put(event.data)
        self._wake("datagram")

    def _on_meter(self, event: ev.MeterReceived) -> None:
        if self._on_meter_frame is not None:
            self._on_meter_frame(event.data)
        else:
            self._meter_frames.append(event.data)

    def _on_pong(self, event: ev.Pong) -> None:
        future = self._pings.get(event.token)
        if future is not None and not future.done():
            future.set_result(event.rtt)

    def _on_going_away(self, event: ev.GoingAway) -> None:
        self._wake("streams")
        if self.on_peer_away is not None:
            self.on_peer_away(self)

    def _on_link_attached(self, event: ev.LinkAttached) -> None:
        for driver in self._drivers:
            if driver.link is event.link and self.confirmed:
                driver.settle()
                if self.on_further_carrier is not None:
                    # Not now: it may end the connection, and what came with this is still to be told.
                    self._loop.call_soon(self.on_further_carrier, driver.carrier)
        self._wake("carrier")
        if self.on_carrier is not None:
            self.on_carrier(self)

    def _on_link_lost(self, event: ev.LinkLost) -> None:
        log.debug("%r: link %d lost: %s", self, event.link.number, event.reason)
        if event.refusal is not None and not self._session.ready:
            self._give_up(HandshakeRefused(event.refusal))
        self._flush()
        for driver in list(self._drivers):
            if driver.link is event.link:
                self._drivers.remove(driver)
                driver.close()
        self._wake("carrier")
        self._wake("gone")

    def _give_up(self, error: PeerError) -> None:
        """Client: end what was never admitted, and give the reason to all that waits."""
        self._refusal = error
        self._loop.call_soon(self.abort)

    def _on_detached(self, event: ev.Detached) -> None:
        if self._redial is not None and self._resuming is None:
            self._resuming = start_task(self._resume(), name="dtp-resume", loop=self._loop)

    def _on_resumed(self, event: ev.Resumed) -> None:
        self._resumes += 1
        self._retries.resumed(self._loop.time())

    def _explain(self, closed: ConnectionClosed) -> DtpError:
        """Return what all that waits here is told of the end: another error where its cause is known here."""
        return closed

    def _on_ended(self, event: ev.Ended) -> None:
        if event.lost:
            self._error = ConnectionLost(f"connection to {self.peer.short} is lost: {event.reason}")
        else:
            closed = ConnectionClosed(
                event.close_code, event.reason, event.by_peer, event.application, event.detail
            )
            self._error = self._explain(closed) if self._refusal is None else self._refusal
        for stream in self._streams.values():
            stream._fail_read(self._error)
            stream._fail_write(self._error, delivered=self._acknowledged(stream.id))
        self._streams.clear()
        if self._on_stream is not None and self._accepted:
            whole = [each for each in self._accepted if event.by_peer and each._read_error is None]
            self._accepted.clear()
            self._accepted.extend(whole)  # what the peer had finished by the time it closed, it wants done
        if self._taps is not None:
            self._taps.close()
        for future in self._pings.values():
            if not future.done():
                future.set_exception(self._error)
        for what in list(self._waiters):
            if what != "gone":
                self._wake(what)
        if self.on_end is not None:
            on_end, self.on_end = self.on_end, None
            on_end(self)


_HANDLERS: dict[type, Callable[[Connection, Any], None]] = {
    ev.Ready: Connection._on_ready,
    ev.Confirmed: Connection._on_confirmed,
    ev.StreamOpened: Connection._on_stream_opened,
    ev.StreamData: Connection._on_stream_data,
    ev.TapData: Connection._on_tap_data,
    ev.StreamFinished: Connection._on_stream_finished,
    ev.StreamWasReset: Connection._on_stream_reset,
    ev.StreamStopped: Connection._on_stream_stopped,
    ev.StreamWritable: Connection._on_stream_writable,
    ev.StreamDone: Connection._on_stream_done,
    ev.StreamsAllowed: Connection._on_streams_allowed,
    ev.DatagramReceived: Connection._on_datagram,
    ev.MeterReceived: Connection._on_meter,
    ev.Pong: Connection._on_pong,
    ev.GoingAway: Connection._on_going_away,
    ev.LinkAttached: Connection._on_link_attached,
    ev.LinkLost: Connection._on_link_lost,
    ev.Detached: Connection._on_detached,
    ev.Resumed: Connection._on_resumed,
    ev.Ended: Connection._on_ended,
}
