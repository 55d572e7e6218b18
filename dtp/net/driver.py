"""Where a carrier meets the protocol: the receiver that runs the handshake and then passes records on.

One `LinkDriver` per carrier. It owns nothing but the start of a record that has not come whole; the buffers for
reading and sealing are shared by everything on one event loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Protocol
from weakref import WeakKeyDictionary

from dtp.carriers.base import Carrier
from dtp.carriers.crowd import source_group
from dtp.core import Buffer
from dtp.errors import CarrierError
from dtp.net.held import STEP
from dtp.net.splices import GATHER
from dtp.net.turns.budget import (
    FEW,
    FIRST_RECORDS,
    HANDSHAKES,
    HEAVY,
    LEAST,
    LITTLE,
    REQUEST,
    STEP_FRAMES,
    FrameBudget,
    MoverCount,
    StreamBudget,
    TurnBudget,
)
from dtp.net.turns.clock import TurnClock
from dtp.net.turns.fair_queue import ProcessorAccount
from dtp.net.turns.sizes import MOST, Turns
from dtp.net.turns.steps import Steps
from dtp.session.codes import HandshakeError, Refusal
from dtp.session.handshake import ClientHandshake, Established, ServerHandshake
from dtp.session.link import Link, Unread

#: The start of a record left from the read before.
_TAIL = 66 * 1024
#: Bytes of the first read of a carrier, and behind one that had more frames than a share. Each that is filled doubles
#: it: what can't be taken in one turn has to be copied.
_FIRST_READ = 64 * 1024


def _has_record(view: memoryview, start: int, end: int) -> bool:
    """True if a whole record is at `start`, or what can't be one."""
    return end - start >= 2 and end - start - 2 >= (view[start] << 8 | view[start + 1])


def yield_processor() -> None:
    """Let other programs run before this one goes on, where the system can do that."""
    if hasattr(os, "sched_yield"):
        os.sched_yield()


class Buffers:
    """The buffers of one event loop, for reading carriers, sealing and reading splices: used within one callback,
    never across two. With them, how much of what one turn does."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        #: How much of `read` and `seal` is to be used in a turn. What never is takes no memory.
        self.turns = Turns()
        self.clock = clock = TurnClock.of_loop(loop)
        self.steps = Steps(clock)
        self.streams = StreamBudget(clock)
        self.frames = FrameBudget(clock)
        self.movers = MoverCount(self.turns.share_turn)
        #: First messages of handshakes, and what comes behind our answer.
        self.first_messages = TurnBudget(HANDSHAKES, each=1, keep=0, clock=clock)
        self.last_messages = TurnBudget(HANDSHAKES, each=1, keep=0, clock=clock)
        #: First records: whoever holds the keys asks to be let in, or on with a connection, here or not.
        self.first_records = TurnBudget(FIRST_RECORDS, each=1, keep=0, clock=clock)
        self.read = Buffer(MOST + _TAIL)
        self.seal = Buffer(MOST)
        self.gather = Buffer(GATHER)
        # glibc maps blocks of 128 KiB and more anew each time, and gives the end of its heap back whenever twice as
        # much is free there, until a larger one was freed: from then on it keeps as much (mallopt(3)). Page faults
        # cost a tenth of a bulk transfer otherwise, with what is kept of it until it is acknowledged.
        bytes(4 * MOST)

    @classmethod
    def of_loop(cls, loop: asyncio.AbstractEventLoop) -> Buffers:
        """Return the buffers of `loop`."""
        buffers = _BUFFERS.get(loop)
        if buffers is None:
            buffers = _BUFFERS[loop] = cls(loop)
        return buffers


_BUFFERS: WeakKeyDictionary[asyncio.AbstractEventLoop, Buffers] = WeakKeyDictionary()

#: Called when the handshake has finished, and records may be next: a connection takes over at once, or nobody will.
OnEstablished = Callable[["LinkDriver", Established], None]
#: Called when the carrier or the handshake ends before a connection took over.
OnFailed = Callable[["LinkDriver", Exception], None]
#: Called once, when the carrier is no longer half-open: its peer has proven itself, or it is gone. After a handshake
#: that failed it stays half-open until its last words are out, since until then it has a descriptor.
OnSettled = Callable[["LinkDriver"], None]


class ClosedInHandshake(CarrierError):
    """The other side has closed the carrier before the handshake was done, and said nothing: it may want a pre-shared
    key, or another one."""

    code = "closed-in-handshake"


class LinkOwner(Protocol):
    """What a driver passes records to once the handshake is done: a `Connection`, mostly."""

    @property
    def closed(self) -> bool:
        """It takes nothing more."""

    def _receive_records(
        self, driver: LinkDriver, buffer: Buffer, start: int, end: int, most: int
    ) -> tuple[int, int]:
        """Take what can be taken of the buffer from `start` to `end`, of about `most` frames; return where the
        records end that were opened, and how many frames that took. More of them may be left in `link.unread`."""

    def _received_packet(self, driver: LinkDriver, packet: bytes) -> None:
        """Take what came over the carrier's lossy path."""

    def _flush_writes(self) -> None:
        """Note that the carrier can take more."""

    def _driver_keeps(self) -> None:
        """Note that what a driver, or its carrier, keeps of what came has grown."""

    def _carrier_lost(self, driver: LinkDriver, error: CarrierError | None) -> None:
        """Note that the carrier has ended."""


class LinkDriver:
    """The `Receiver` of one carrier: first the handshake, then `Connection`'s records."""

    __slots__ = (
        "_backlog",
        "_backlog_at",
        "_backlog_end",
        "_buffers",
        "_handshake",
        "_heavy_until",
        "_loop",
        "_on_established",
        "_on_failed",
        "_on_settled",
        "_read_size",
        "_tail",
        "account",
        "carrier",
        "closed",
        "connection",
        "link",
        "writable",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        carrier: Carrier,
        handshake: ClientHandshake | ServerHandshake | None,
        on_established: OnEstablished,
        on_failed: OnFailed,
        on_settled: OnSettled | None = None,
    ) -> None:
        self.carrier = carrier
        self.connection: LinkOwner | None = None
        self.link: Link | None = None
        self.writable = True
        self.closed = False
        self._loop = loop
        self._buffers = Buffers.of_loop(loop)
        #: What is spent for whoever is at the other end: of its source until it has proven who it is.
        self.account: ProcessorAccount = self._buffers.clock.shares.get_account(source_group(carrier.source))
        self._read_size = _FIRST_READ
        self._heavy_until = 0.0  # it has brought many frames at once lately
        self._handshake: ClientHandshake | ServerHandshake | None = handshake
        self._on_established = on_established
        self._on_failed: OnFailed | None = on_failed
        self._on_settled = on_settled
        self._tail = b""
        self._backlog: Buffer | None = None  # whole records that wait for a turn, and how far it is taken
        self._backlog_at = self._backlog_end = 0

    def start_carrier(self) -> None:
        """Start the carrier, and send what the handshake begins with."""
        self.carrier.start(self)
        self._send_handshake()

    def adopt_carrier(self, established: Established, unsent: bytes, received: bytes) -> None:
        """Take over, instead of `start`, a carrier whose handshake another process has done, which gave its socket.

        `unsent` are its bytes that have to go out first, `received` those that came behind the handshake.
        """
        self._handshake = None
        self.carrier.start(self)
        if unsent:
            self.writable = self.carrier.write(memoryview(unsent))
        self._on_established(self, established)
        self._tail = received
        self.take_waiting()

    def detach_carrier(self) -> tuple[socket.socket, bytes, bytes] | None:
        """Give the carrier's socket to another process, after the handshake and before a connection takes over.

        Gives the socket, and what `adopt_carrier` wants there. None for a carrier that is more than its socket; then
        nothing has changed.
        """
        found = self.carrier.detach()
        if found is None:
            return None
        self.closed = True
        self._on_failed = None
        self.mark_settled()
        return *found, self.take_tail()

    def take_waiting(self) -> None:
        """Take what has come while there was nobody to take it, as if it came now."""
        tail, self._tail = self._tail, b""
        if tail and not self.closed:
            self._buffers.read.view[: len(tail)] = tail
            self._take_bytes(len(tail))

    def take_tail(self) -> bytes:
        """Return the bytes that have come and nobody has taken."""
        tail, self._tail = self._tail, b""
        return tail

    def take_over(self, connection: LinkOwner, link: Link | None, peer: object = None) -> None:
        """Hand records of `link` to `connection`, which is with `peer`, from now on."""
        self.connection = connection
        self.account = self._buffers.clock.shares.get_account(source_group(self.carrier.source), peer)
        self.link = link
        self._on_failed = None
        self.carrier.on_kept = connection._driver_keeps

    def refuse_handshake(self, refusal: Refusal | None) -> None:
        """Tell the other side, instead of `start`, that we won't, unless it is None, and close."""
        self._handshake = self._on_failed = self._on_settled = None
        self.carrier.start(self)
        if refusal is not None:
            self.carrier.write(memoryview(bytes(2) + int(refusal).to_bytes(2)))
        self.close_carrier()

    @property
    def _unread(self) -> Unread | None:
        """Frames that were opened already and wait for a turn."""
        return None if self.link is None else self.link.unread

    @property
    def held(self) -> int:
        """Bytes that are kept here and in the carrier."""
        backlog = 0 if self._backlog is None else self._backlog_end
        unread = self._unread
        return len(self._tail) + backlog + (0 if unread is None else unread.size) + self.carrier.held

    def mark_settled(self) -> None:
        """Note that the peer has proven itself, or the carrier is gone. Idempotent."""
        if self._on_settled is not None:
            on_settled, self._on_settled = self._on_settled, None
            on_settled(self)

    # ---- the carrier reports ----------------------------------------------------------------------------

    def carrier_buffer(self) -> memoryview:
        buffers = self._buffers
        view = buffers.read.view
        tail = self._tail
        size = min(buffers.turns.room, self._read_size)
        if tail:
            view[: len(tail)] = tail
            return view[len(tail) : len(tail) + size]
        return view[:size]

    def carrier_received(self, size: int) -> None:
        total = len(self._tail) + size
        if size >= self._read_size and size < MOST:
            self._read_size *= 2
        budget = self._budget_of_stranger() if self._on_settled is not None else None
        if budget is not None:
            if self._lacks_more(total):
                self._tail = bytes(self._buffers.read.view[:total])
                return
            if self._buffers.clock.has_to_wait(self.account) or not budget.try_take():
                # Many strangers came, or the turn is long: those who are connected come first.
                self._tail = bytes(self._buffers.read.view[:total])
                self.carrier.pause_reading()
                budget.wait_turn(self._go_on_with_stranger, self.account)
                return
        clock = self._buffers.clock
        clock.note_read()
        if clock.busy or total > REQUEST:
            account, began = self.account, clock.read()
            self._take_bytes(total)
            account.charge_seconds(clock.read() - began)
        else:
            self._take_bytes(total)

    def _lacks_more(self, total: int) -> bool:
        """True if a carrier that is half-open can't take its next step with what has come, so that it needs no place
        among those of the turn."""
        view = self._buffers.read.view[:total]
        if isinstance(self._handshake, ServerHandshake):
            return self._handshake.lacks_more(view)
        return not _has_record(view, 0, total)

    def _budget_of_stranger(self) -> TurnBudget | None:
        """Return what bounds how many half-open carriers take their next step in a turn."""
        buffers = self._buffers
        if isinstance(self._handshake, ServerHandshake):
            return buffers.last_messages if self._handshake.has_answered else buffers.first_messages
        return None if self.connection is None else buffers.first_records

    def _go_on_with_stranger(self) -> bool | None:
        """Take what has come of one that had to wait for a turn with room, unless it is gone: then nobody would hear
        the answer, without which no record can follow. Most of a flood is gone by the time it would be its turn."""
        if self.closed:
            return None
        handshake = self._handshake
        unanswered = isinstance(handshake, ServerHandshake) and not handshake.has_answered
        if self.carrier.has_ended() if unanswered else self.carrier.broken_off():
            self.abort_carrier(
                ClosedInHandshake(f"{self.carrier.remote} has gone before its turn in the handshake")
            )
            return None
        self.carrier.resume_reading()
        self.take_waiting()
        return False

    def _take_bytes(self, total: int) -> None:
        """Take the first `total` bytes of the buffer, and keep what is the start of more."""
        buffer = self._buffers.read
        used = 0
        if self._handshake is not None:
            used = self._receive_handshake(buffer.view[:total])
        if self.connection is not None and not self.closed:
            buffers = self._buffers
            more = (buffers.clock.busy or buffers.frames.left < LEAST) and self._has_to_wait(used, total)
            if not more:
                used, more = self._pass_to_connection(buffer, used, total)
            if more:
                self._keep_for_later(buffer, used, total)
                return
        self._tail = b"" if used == total or self.closed else bytes(buffer.view[used:total])
        if len(self._tail) >= STEP and self.connection is not None:
            self.connection._driver_keeps()

    def _has_to_wait(self, start: int, end: int) -> bool:
        """True if there are records, and no room in this turn for as many frames as they may have, or no time: then a
        request of whoever has had less than others is all that is read."""
        buffers = self._buffers
        clock, size = buffers.clock, end - start
        has_room = buffers.frames.has_room(size, heavy=self._heavy_until > self._loop.time())
        has_time = clock.has_time or (size <= REQUEST and not clock.has_to_wait(self.account, LITTLE))
        if has_room and has_time:
            return False
        return _has_record(buffers.read.view, start, end)

    def _pass_to_connection(self, buffer: Buffer, start: int, end: int) -> tuple[int, bool]:
        """Give the connection its share of this turn, or a step of it where turns are long; return where that ends,
        and whether there are more frames or records."""
        assert self.connection is not None
        budget = self._buffers.frames
        most = min(budget.share, STEP_FRAMES) if self._buffers.clock.busy else budget.share
        used, frames = self.connection._receive_records(self, buffer, start, end, most)
        if frames > FEW:
            budget.count_frames(frames)
            if frames > LEAST:
                self._heavy_until = self._loop.time() + HEAVY
        if self.closed:
            return used, False
        more = self._unread is not None or (frames >= most and _has_record(buffer.view, used, end))
        if more:
            self.account.note_much()
        return used, more

    def _keep_for_later(self, buffer: Buffer, start: int, end: int) -> None:
        """Keep what was too much for one turn, and read nothing more until it is taken."""
        self.carrier.pause_reading()
        self._read_size = _FIRST_READ
        self._tail = b""
        size = end - start
        self._backlog, self._backlog_at, self._backlog_end = Buffer(max(1, size)), 0, size
        self._backlog.view[:size] = buffer.view[start:end]
        assert self.connection is not None
        self.connection._driver_keeps()
        little = size <= REQUEST and self._unread is None
        self._buffers.frames.wait_turn(self._go_on, self.account, little=little)

    def _go_on(self) -> bool:
        """Take a share of what was kept; True if there is more, for a turn to come."""
        backlog = self._backlog
        if backlog is None or self.closed or self.connection is None or self.carrier.broken_off():
            self._backlog = None
            return False
        used, more = self._pass_to_connection(backlog, self._backlog_at, self._backlog_end)
        if more:
            self._backlog_at = used
            return True
        self._backlog = None
        if not self.closed:
            self._tail = bytes(backlog.view[used : self._backlog_end])
            self.carrier.resume_reading()
        return False

    def carrier_packet(self, data: bytes) -> None:
        if self.connection is not None and not self.closed:
            self.connection._received_packet(self, data)

    def carrier_writable(self) -> None:
        self.writable = True
        if self.connection is not None:
            self.connection._flush_writes()

    def carrier_lost(self, error: CarrierError | None) -> None:
        self.closed = True
        self._tail = b""
        self.mark_settled()
        if self.connection is not None:
            connection, self.connection, self.carrier.on_kept = self.connection, None, None
            connection._carrier_lost(self, error)
        else:
            self._report_failure(
                error
                or ClosedInHandshake(f"{self.carrier.remote} closed the connection during the handshake")
            )

    # ---- the handshake ----------------------------------------------------------------------------------

    def _receive_handshake(self, view: memoryview) -> int:
        handshake = self._handshake
        assert handshake is not None
        try:
            used = handshake.receive_data(view)
        except HandshakeError as error:
            self._send_handshake()
            self.carrier.close()
            self.closed = True
            self._report_failure(error)
            return 0
        self._send_handshake()
        if handshake.established is not None:
            self._handshake = None
            self._on_established(self, handshake.established)
        return used

    def _send_handshake(self) -> None:
        assert self._handshake is not None
        out = self._handshake.data_to_send()
        if out:
            self.writable = self.carrier.write(memoryview(out))

    def _report_failure(self, error: Exception) -> None:
        self._handshake = None
        if self._on_failed is not None:
            on_failed, self._on_failed = self._on_failed, None
            on_failed(self, error)

    def close_carrier(self) -> None:
        """Let the carrier send what was written, then end it. Idempotent."""
        self.closed = True
        self._tail = b""
        self.carrier.close()

    def abort_carrier(self, error: Exception) -> None:
        """End the carrier now; before a connection took over, `error` is reported. Idempotent."""
        self.closed = True
        self._tail = b""
        self.carrier.abort()
        self.mark_settled()
        self._report_failure(error)
