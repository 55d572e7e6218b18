"""What goes out: what streams write is queued in the session, and sealed for the carriers that can take more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from dtp.carriers.watch import socket_watcher
from dtp.core import sockets_supported
from dtp.net.driver import Buffers
from dtp.net.parts.link_drivers import LinkDrivers
from dtp.net.splices import Splice, SpliceOwner, Splices
from dtp.net.turns.budget import LITTLE, REQUEST
from dtp.net.turns.fair_queue import ProcessorAccount
from dtp.net.turns.sizes import MUCH
from dtp.net.watch import ByteWatch
from dtp.session.session import Session


class Outlet:
    """The sending side of a connection, as its streams use it.

    Whatever is queued goes out by the end of the turn, by one `seal` for each carrier: `flush_soon` was called, or
    what is going on ends with a flush. The first write of a turn goes out at once, which saves an answer a round of
    the loop; what is written after it in the same turn is sent together at the turn's end.
    """

    __slots__ = (
        "_buffers",
        "_corked",
        "_flush",
        "_follows",
        "_loop",
        "_scheduled",
        "_session",
        "_splices",
        "account",
        "drivers",
        "on_sent",
        "sent",
        "watch",
    )

    def __init__(
        self,
        session: Session,
        loop: asyncio.AbstractEventLoop,
        buffers: Buffers,
        flush: Callable[[float], object],
        account: ProcessorAccount,
    ) -> None:
        """`flush` is called with the time when what was scheduled is due; it calls `send_sealed`, and tells
        events."""
        self._session, self._loop, self._buffers, self._flush = session, loop, buffers, flush
        #: For whom it is sealed.
        self.account = account
        #: The carriers. Whoever owns the connection adds and removes them.
        self.drivers = LinkDrivers()
        #: Bytes of records that were given to carriers.
        self.sent = 0
        #: Who counts what moves, if anybody does.
        self.watch: ByteWatch | None = None
        #: Called when what is kept for the connection may have changed.
        self.on_sent: Callable[[], object] | None = None
        self._corked = False  # something was written and sent in this turn; more waits for its end
        self._scheduled = False
        self._follows = False  # what is going on now ends with a flush
        self._splices: Splices | None = None

    # ---- streams ----------------------------------------------------------------------------------------

    def write_data(self, stream_id: int, data: bytes | memoryview) -> None:
        """Queue bytes of a stream, and send them if they are the first of the turn."""
        session = self._session
        if self._scheduled or self._follows:
            session.write_stream(stream_id, data)
        elif self._corked or self._has_to_wait(len(data)):
            session.write_stream(stream_id, data)
            self.flush_soon()
        else:
            self._corked = True
            if len(self.drivers) == 1 and type(data) is bytes:  # a message by itself, the shortest way
                driver, out = self.drivers[0], self._buffers.seal
                link = driver.link
                if driver.writable and link is not None:
                    size = session.seal_write(link, stream_id, data, out, self._loop.time())
                    if size:
                        self.sent += size
                        driver.writable = driver.carrier.write(out.view[:size])
                        if self.watch is not None:
                            self.tell_watch()
                        return
            session.write_stream(stream_id, data)
            self.send_sealed(self._loop.time())
            if session.has_events:
                self.flush_soon()

    def _has_to_wait(self, size: int) -> bool:
        """True if so much is sent at the end of a turn: of what is little only where others come first; bulk while
        turns are long, or whoever reads a request in this turn would answer it behind two of them."""
        clock = self._buffers.clock
        if not clock.busy:
            return False
        return size > MUCH or clock.has_to_wait(self.account, LITTLE if size <= REQUEST else 0.0)

    def finish_stream(self, stream_id: int) -> None:
        """Queue the end of a stream."""
        self._session.finish_stream(stream_id)
        self.flush_soon()

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """Give up what a stream would send."""
        self._session.reset_stream(stream_id, error_code)
        self.flush_soon()

    def stop_stream(self, stream_id: int, error_code: int) -> None:
        """Ask the peer to send no more of a stream."""
        self._session.stop_stream(stream_id, error_code)
        self.flush_soon()

    def grant_credit(self, stream_id: int, size: int) -> None:
        """Give the peer credit for bytes of a stream that were read."""
        if self._session.consume_data(stream_id, size) and not self._scheduled:
            self.flush_soon()

    def want_more(self, stream_id: int) -> None:
        """Give the peer credit for more of a stream than has come, though nothing of it was read."""
        if self._session.want_more(stream_id) and not self._scheduled:
            self.flush_soon()

    def set_low(self, stream_id: int, low: int) -> None:
        """Have a stream told that it is writable once so few bytes are queued."""
        self._session.set_low(stream_id, low)

    def delay_acks(self, stream_id: int) -> None:
        """Acknowledge late what comes on a stream while it is little."""
        self._session.delay_acks(stream_id)

    def tell_credit_often(self, stream_id: int) -> None:
        """Tell of credit for a stream as soon as a little was read."""
        self._session.tell_credit_often(stream_id)

    def queued_bytes(self, stream_id: int) -> int:
        """Return the bytes of a stream that were written and not yet sealed."""
        return self._session.queued_bytes(stream_id)

    def unread_bytes(self, stream_id: int) -> int:
        """Return the bytes of a stream that came and were not consumed."""
        return self._session.unread_bytes(stream_id)

    def received_bytes(self, stream_id: int) -> int:
        """Return the bytes of a stream that came."""
        return self._session.received_bytes(stream_id)

    def acknowledged_bytes(self, stream_id: int) -> int:
        """Return the bytes of a stream that the peer has."""
        return self._session.acknowledged_bytes(stream_id)

    def is_acknowledged(self, stream_id: int) -> bool:
        """True if the peer has everything that was written, and the end."""
        return self._session.is_acknowledged(stream_id)

    # ---- sockets joined with streams ----------------------------------------------------------------------

    @property
    def splices(self) -> Splices | None:
        """Sockets joined with streams; None where the system can't, or the connection is over."""
        if self._splices is None and self._session.ended is None and sockets_supported():
            self._splices = Splices(
                socket_watcher(self._loop),
                self._buffers.gather,
                self.write_pieces,
                self._consume_pieces,
                self._buffers.turns,
                self._loop.time,
            )
        return self._splices

    def splice_socket(self, stream_id: int, fd: int, owner: SpliceOwner) -> Splice | None:
        """Join a socket with a stream; see `Stream.splice_socket`."""
        splices = self._splices or self.splices
        if splices is None:
            return None
        splice = Splice(splices, stream_id, fd, owner)
        self._session.splice_stream(stream_id, splice)
        return splice

    def close_taps(self) -> None:
        """End the splices: the connection is over."""
        if self._splices is not None:
            self._splices.close()

    def let_go(self) -> None:
        """Send nothing any more, and tell nobody: the connection is over and has no carrier."""
        self._flush, self._splices, self.watch, self.on_sent = _do_nothing, None, None, None

    def write_pieces(self, pieces: Iterable[tuple[int, int, int]], block: bytes) -> list[int]:
        """Send what one turn has read from splices at once; return the streams that had to queue their piece."""
        session, now = self._session, self._loop.time()
        driver = self.drivers[0] if len(self.drivers) == 1 and self.drivers[0].writable else None
        out = self._buffers.seal
        link = None if driver is None else driver.link
        size, queued = session.seal_pieces(link, pieces, block, out, now)
        if driver is not None and size:
            self.sent += size
            driver.writable = driver.carrier.write(out.view[:size])
            self.tell_watch()
        self.send_sealed(now)
        if session.has_events:
            self.flush_soon()
        return queued

    def _consume_pieces(self, stream_ids: list[int], sizes: list[int]) -> None:
        consume_data, due = self._session.consume_data, False
        for stream_id, size in zip(stream_ids, sizes, strict=True):
            due = consume_data(stream_id, size)
        if due:
            self.flush_soon()

    # ---- carriers -----------------------------------------------------------------------------------------

    def begin_turn(self) -> None:
        """Begin a turn, since something came: the next write is the first one again."""
        self._corked = False

    def flush_soon(self) -> None:
        """Have what is queued sent by the end of this turn, or of one to come where this one is long and others have
        had less of the processor. Idempotent until then."""
        if not self._scheduled and not self._follows:
            self._scheduled = True
            self._loop.call_soon(self._flush_now)

    def put_off(self) -> bool:
        """True if others come first in this turn: then what is queued is sent in one to come."""
        has_to_wait = self._has_to_wait(self._session.buffered)
        if has_to_wait:
            self.flush_soon()
        return has_to_wait

    def _flush_now(self) -> None:
        buffers = self._buffers
        clock = buffers.clock
        if not clock.busy:
            self._flush_scheduled()
        elif self._has_to_wait(size := self._session.buffered):
            if size > MUCH:
                self.account.note_much()
            buffers.frames.wait_turn(self._flush_scheduled, self.account, little=size <= MUCH)
        else:
            began = clock.read()
            self._flush_scheduled()
            self.account.charge_seconds(clock.read() - began)

    def _flush_scheduled(self) -> bool:
        """Send what is due; return False, since nothing of it waits for another turn."""
        self._scheduled = False
        self._corked = False
        self._flush(self._loop.time())
        return False

    def hold_sending(self) -> bool:
        """Send nothing from now to `release_sending`, since that ends with a flush; return what `release_sending`
        wants."""
        follows, self._follows = self._follows, True
        return follows

    def release_sending(self, follows: bool) -> None:
        """End what `hold_sending` began, with what it returned."""
        self._follows = follows

    def send_sealed(self, now: float) -> None:
        """Seal once for every carrier that can take more.

        When that was not all, the rest follows in the next turn of the loop, so that others have theirs between.
        """
        session, watch, sealed = self._session, self.watch, 0
        if session.datagrams_wait:
            sealed = self._send_packets(now)
        for driver in self.drivers:
            link = driver.link
            if not driver.writable or link is None or not session.may_seal(link):
                continue
            if watch is not None and watch.going is not None and session.moved >= watch.along:
                self._send_along(watch.going, now)
            out, most = self._buffers.seal, self._buffers.turns.room
            size = session.seal_records(link, out, now, most)
            if size:
                sealed += size
                driver.writable = driver.carrier.write(out.view[:size])
                if size >= MUCH:
                    self._buffers.movers.count_mover()
                if size > most // 2 and driver.writable and not self._scheduled:
                    self._scheduled = True
                    self._loop.call_soon(self._flush_now)
        if sealed:
            if session.datagrams_wait:  # small ones behind a large one, or the other way
                self.flush_soon()
            self.sent += sealed
            self.tell_watch()
        if self.on_sent is not None:
            self.on_sent()

    def _send_packets(self, now: float) -> int:
        """Send the datagrams that wait over a carrier's lossy path, where there is one; return how many bytes."""
        out, sealed = self._buffers.seal, 0
        for driver in self.drivers:
            if driver.link is not None and driver.carrier.packet_size:
                while size := self._session.seal_packet(driver.link, out, now):
                    driver.carrier.write_packet(out.view[:size])
                    sealed += size
        return sealed

    def tell_watch(self) -> None:
        """Tell the watch that something came or was sealed, if it is to know."""
        watch = self.watch
        if watch is not None and self._session.has_passed(watch.opened, watch.received, watch.total):
            watch.moved()

    def _send_along(self, going: Callable[[int, float], bytes | None], now: float) -> None:
        """Let a frame of the watch go along with what is to be sealed, unless it is the last."""
        session = self._session
        if session.ended is not None:
            return
        follows = self.hold_sending()
        try:
            frame = going(session.moved, now)
        finally:
            self.release_sending(follows)
        if frame is not None:
            session.send_meter(frame)


def _do_nothing(now: float) -> None:
    """Do nothing: the connection is over."""
