"""The WebSocket carrier itself: binary messages over another carrier, once the opening handshake is done.

The frames are those of the library `websockets` in its form without IO (docs/decisions/0002). Message borders
mean nothing: the payload of all messages is one stream of bytes.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Hashable
from enum import Enum, auto
from typing import Any, ClassVar

from websockets.exceptions import PayloadTooBig
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import SEND_EOF, Protocol

from dtp.carriers.base import Carrier, Receiver
from dtp.carriers.crowd import source_group
from dtp.carriers.errors import (
    ControlFloodError,
    MessageSizeError,
    PingTimeoutError,
    TextMessageError,
    WebSocketError,
)
from dtp.carriers.stream_socket import LINGER
from dtp.carriers.turns import MOST_WAITING, SharedTurns
from dtp.errors import CarrierError

#: Seconds for somebody who broke the protocol to read why. The carrier is lost for its owner at once, who counts it
#: no more: whoever stays would hold a descriptor that nobody knows of.
FAULT_LINGER = 1.0

#: Most bytes in a message we send. A receiver holds a message until it is whole, so smaller means less
#: waiting and less memory; of 4 to 256 KiB this took the least CPU on both sides together.
MESSAGE_SIZE = 64 * 1024

#: Most bytes in a message, or all fragments of one, that we take. Larger ones lose the carrier.
MAX_MESSAGE = 1024 * 1024

#: Seconds between pings. Proxies end connections on which nothing moves, most of them after 60.
PING_INTERVAL = 20.0

#: Seconds of silence, pings included, after which the other side counts as gone.
PING_TIMEOUT = 3 * PING_INTERVAL

#: Bytes of answers to pings that may wait for a peer that doesn't read. An honest one sends few pings.
MAX_UNSENT_CONTROL = 16 * 1024

#: A frame takes its reader 3 to 10 us, whatever is in it, and is worth that if it has so many bytes: no record that
#: says anything is shorter. What comes beyond is taken so often at once, and so often a second.
WORTH, LITTLE, LITTLE_RATE = 16, 4096, 1024.0

#: Bytes per read from the carrier below: few at first, and more as large frames come.
READ_SIZE, LEAST_READ = 256 * 1024, 4096
#: Most bytes, and those while many tiny frames come, that are parsed before it is looked at what that took: a frame
#: takes 3 to 10 us, whatever is in it.
LARGEST_PIECE, PIECE = 8192, 512
#: More than so many frames in a read, of fewer bytes than this on average, make the next one small.
_FEW, _LARGE = 16, 1024

_ORDERLY = (CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RCVD)

# One per thread: it is only used between a read and the return to the loop.
_read_buffers = threading.local()


def _read_buffer() -> memoryview:
    if not hasattr(_read_buffers, "view"):
        _read_buffers.view = memoryview(bytearray(READ_SIZE))
    view: memoryview = _read_buffers.view
    return view


class _State(Enum):
    OPEN = auto()
    CLOSING = auto()  # by `close`; the closing handshake runs
    LEAVING = auto()  # the other side has begun the closing handshake
    ENDED = auto()


class MessageInbox:
    """What has come in frames and isn't handed on yet, and how much of it was worth the time that frames take."""

    def __init__(self, now: float) -> None:
        #: What messages carried, in its order.
        self.parts: deque[memoryview] = deque()
        #: Bytes that came since the last frame that was whole.
        self.unparsed = 0
        #: True where a text message came behind what is here.
        self.is_text_next = False
        self._little, self._little_since = 0.0, now  # frames that weren't worth their time

    @property
    def size(self) -> int:
        """Bytes, with those of a frame that hasn't come whole."""
        return self.unparsed + sum(map(len, self.parts))

    def take_frames(self, protocol: Protocol, data: bytes) -> tuple[int, int]:
        """Parse this. Return how many frames ended, and how many of them too many for the bytes that were in them."""
        protocol.receive_data(data)
        frames = [frame for frame in protocol.events_received() if isinstance(frame, Frame)]
        if not frames:
            self.unparsed += len(data)
            return 0, 0
        self.unparsed = 0
        if any(frame.opcode is Opcode.TEXT for frame in frames):
            self.is_text_next = True
            frames = frames[: next(i for i, frame in enumerate(frames) if frame.opcode is Opcode.TEXT)]
        self.parts.extend(
            memoryview(frame.data) for frame in frames if frame.opcode in (Opcode.BINARY, Opcode.CONT)
        )
        little = len(frames) - sum(len(frame.data) for frame in frames) // WORTH
        self._little = max(0.0, self._little + little)
        return len(frames), little

    def is_flooded(self, now: float) -> bool:
        """True if more frames that carry little have come than time has made up for."""
        if self._little <= LITTLE:
            return False
        self._little = max(0.0, self._little - (now - self._little_since) * LITTLE_RATE)
        self._little_since = now
        return self._little > LITTLE

    def fill_buffer(self, buffer: memoryview) -> int:
        """Move as much as there is room for to `buffer`; return how many bytes."""
        parts, used = self.parts, 0
        while parts and used < len(buffer):
            part = parts[0][: len(buffer) - used]
            buffer[used : used + len(part)] = part
            used += len(part)
            if len(part) == len(parts[0]):
                parts.popleft()
            else:
                parts[0] = parts[0][len(part) :]
        return used


class WebSocketCarrier(Carrier):
    """A carrier over an open WebSocket.

    `below` is the carrier that moves the frames, not started; `protocol` the library's object after the
    opening handshake, made with `max_size=MAX_MESSAGE` and without extensions; `early` what came right behind
    the handshake. It is the `Receiver` of `below`.
    """

    scheme: ClassVar[str] = "ws"

    def __init__(self, below: Carrier, protocol: Protocol, *, early: bytes, source: str, remote: str) -> None:
        self.source = source
        self.remote = remote
        self._loop = asyncio.get_running_loop()
        self._below = below
        self.descriptor = below.descriptor
        self._protocol = protocol
        self._early: bytes | None = early  # None once it was read
        self._receiver: Receiver | None = None
        self._state = _State.OPEN
        self._lost: CarrierError | None = None
        self._paused = False
        self._inbox = MessageInbox(self._loop.time())
        self._below_full = False
        self._owner_waits = False
        self._unsent_control = 0
        self._room = LEAST_READ
        self._turns = SharedTurns.of_loop(self._loop)
        self._waiting = 0  # bytes that wait their turn to be parsed
        self._silent = 0.0
        self._ping: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None

    # The contract.

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver
        if self._state is _State.ENDED:
            self._loop.call_soon(receiver.carrier_lost, self._lost)
        else:
            self._loop.call_soon(self._begin_reading)

    def write(self, data: memoryview) -> bool:
        if self._state is not _State.OPEN:
            return False
        for at in range(0, len(data), MESSAGE_SIZE):
            self._protocol.send_binary(data[at : at + MESSAGE_SIZE])
        self._flush_protocol()
        self._owner_waits = self._below_full
        return not self._below_full

    def pause_reading(self) -> None:
        self._paused = True
        self._below.pause_reading()

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._loop.call_soon(self._go_on)

    def close(self) -> None:
        if self._state in (_State.CLOSING, _State.ENDED):
            return
        if self._paused:
            self._paused = False
            self._read_on()
        leaving = self._state is _State.LEAVING
        self._state = _State.CLOSING
        if not leaving:
            self._linger = self._loop.call_later(LINGER, self._give_up)
            if self._protocol.close_rcvd is None:  # else the answer to it is already queued
                self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush_protocol()
        self._loop.call_soon(self._begin_reading)

    def abort(self) -> None:
        if self._state is _State.ENDED:
            return
        self._stop_timers()
        self._below.abort()
        receiver, self._receiver = self._receiver, None  # which has this carrier: neither would go by itself
        if receiver is not None:
            self._loop.call_soon(receiver.carrier_lost, None)

    def broken_off(self) -> bool:
        return self._below.broken_off()

    def has_ended(self) -> bool:
        return not self.held and self._below.has_ended()

    @property
    def held(self) -> int:
        """Bytes received and not read yet, with those of a message that hasn't come whole."""
        return self._below.held + self._waiting + self._inbox.size

    # What the carrier below reports.

    def carrier_buffer(self) -> memoryview:
        return _read_buffer()[: self._room]

    def carrier_received(self, size: int) -> None:
        if self._state is _State.ENDED:
            return
        data, at, frames = bytes(_read_buffer()[:size]), 0, 0
        piece = min(self._room * PIECE // LEAST_READ, LARGEST_PIECE)
        while at < size and not self._turns.is_full and self._has_not_ended():
            frames += self._feed_protocol(data[at : at + piece])
            at += piece
        self._note_read(size, frames)
        if at < size and self._has_not_ended():
            self._wait_turn(data[at:])

    def carrier_packet(self, data: bytes) -> None:
        """Ignore a packet: a WebSocket has no lossy path, whatever is below it."""

    def carrier_writable(self) -> None:
        self._below_full = False
        self._unsent_control = 0
        if self._state is _State.OPEN and self._owner_waits and self._receiver is not None:
            self._owner_waits = False
            self._receiver.carrier_writable()

    def carrier_lost(self, error: CarrierError | None) -> None:
        self._end_carrier(self._judge_end(error))

    # Its turn, while many tiny frames come.

    #: All that waits comes from the other side.
    peer: tuple[Any, ...] = ()
    has_rest = False
    #: Its answers are the socket's: none of them count.
    sent = 0

    def take_rest(self) -> None:
        """Do nothing: there is no rest."""

    @property
    def account(self) -> Hashable:
        """Who is charged for the time that parsing takes: its source until somebody counts what is kept here. Whoever
        comes again and again would have had nothing each time."""
        return source_group(self.source) if self.is_stranger else self

    @property
    def is_stranger(self) -> bool:
        """True until somebody counts what is kept here."""
        return self.on_kept is None

    def receive_packets(self, packets: list[bytes], peer: tuple[Any, ...]) -> int:
        """Parse what was read."""
        data = b"".join(packets)
        self._waiting -= len(data)
        self._feed_protocol(data)
        self._read_on()
        return len(packets)

    # Inside.

    def _read_on(self) -> None:
        """Have the carrier below report again, unless something here isn't done with what it has reported."""
        if not self._paused and not self._waiting and self._state is not _State.ENDED:
            self._below.resume_reading()

    def _begin_reading(self) -> None:
        """Start to read: what came with the handshake, then what comes."""
        if (early := self._early) is None or self._state is _State.ENDED:
            return
        self._early = None
        self._ping = self._loop.call_later(PING_INTERVAL, self._on_ping_time)
        if early:
            self._feed_protocol(early)
        self._below.start(self)

    def _has_not_ended(self) -> bool:
        return self._state is not _State.ENDED

    def _note_read(self, size: int, frames: int) -> None:
        """Choose the size of the next read by what was in one of so many bytes."""
        if self._state is not _State.OPEN or (frames > _FEW and frames * _LARGE > size):
            self._room = LEAST_READ
        elif frames and size >= self._room:  # a message that never ends says nothing of what follows
            self._room = min(2 * self._room, READ_SIZE)

    def _wait_turn(self, data: bytes) -> None:
        """Parse this piece by piece in turns to come, and read nothing more meanwhile."""
        self._waiting, self._room = len(data), LEAST_READ
        self._below.pause_reading()
        piece = max(PIECE, len(data) * 2 // MOST_WAITING)
        for at in range(0, len(data), piece):
            self._turns.put_packet(self, data[at : at + piece], self.peer)
        self._turns.give_soon()

    def _feed_protocol(self, data: bytes) -> int:
        """Parse this, and hand on what was in it; return how many frames ended."""
        self._silent = 0.0
        if self._inbox.is_text_next:
            return 0
        frames, little = self._inbox.take_frames(self._protocol, data)
        if little > _FEW:
            self._turns.count_tiny(little)
        if self._inbox.unparsed and self.on_kept is not None:
            self.on_kept()
        self._hand_on()
        return frames

    def _hand_on(self) -> None:
        """Report what is held, then do what came behind it; the rest after a pause."""
        self._deliver_pending()
        if self._paused or self._state is _State.ENDED:  # paused or aborted from a report
            return
        if self._inbox.is_text_next:
            self._protocol.fail(CloseCode.UNSUPPORTED_DATA, "binary messages only")
            self._flush_protocol()
            self._fail_with(TextMessageError("the other side sent a text message; carriers move binary ones"))
            return
        if self._inbox.is_flooded(self._loop.time()):
            self._protocol.fail(CloseCode.POLICY_VIOLATION, "too many frames that carry little")
            self._flush_protocol()
            self._fail_with(
                ControlFloodError("the other side sends frames without end that carry next to nothing")
            )
            return
        self._flush_protocol(control=True)
        if (fault := self._protocol.parser_exc) is not None:
            wrong = MessageSizeError if isinstance(fault, PayloadTooBig) else WebSocketError
            self._fail_with(wrong(f"the other side broke the WebSocket protocol: {fault}"), fault)
        elif self._protocol.close_rcvd is not None and self._state is _State.OPEN:
            self._state = _State.LEAVING
            self._linger = self._loop.call_later(LINGER, self._give_up)

    def _go_on(self) -> None:
        """Report what was held while reading was paused, then read again."""
        self._hand_on()
        self._read_on()

    def _deliver_pending(self) -> None:
        """Hand on what is held, as much in one report as the receiver's buffer takes, until reading is paused."""
        inbox, receiver = self._inbox, self._receiver
        while inbox.parts and not self._paused:
            if self._state in (_State.CLOSING, _State.ENDED) or receiver is None:
                inbox.parts.clear()
                return
            if used := inbox.fill_buffer(receiver.carrier_buffer()):
                receiver.carrier_received(used)

    def _flush_protocol(self, control: bool = False) -> None:
        """Send what the protocol has to say. `control`: it was not the owner who wrote it."""
        said = self._protocol.data_to_send()
        if control and said and said[-1] != SEND_EOF:
            said = [b"".join(said)]  # answers to many pings are one write
        for data in said:
            if data == SEND_EOF:
                self._below.close()
                continue
            if control and self._below_full:
                self._unsent_control += len(data)
                if self._unsent_control > MAX_UNSENT_CONTROL:
                    self._below.abort()
                    self._fail_with(
                        ControlFloodError("the other side sends pings and does not read the answers")
                    )
                    return
            if not self._below.write(memoryview(data)):
                self._below_full = True

    def _on_ping_time(self) -> None:
        self._ping = self._loop.call_later(PING_INTERVAL, self._on_ping_time)
        if self._below_full or self._state is not _State.OPEN:
            return  # a ping would only queue up behind the data
        if self._silent >= PING_TIMEOUT:
            self._below.abort()
            self._fail_with(PingTimeoutError(f"the other side has been silent for {self._silent:.0f} s"))
            return
        self._silent += PING_INTERVAL
        self._protocol.send_ping(b"")
        self._flush_protocol()

    def _judge_end(self, error: CarrierError | None) -> CarrierError | None:
        """Return what the end of the carrier below means: only a closing handshake makes an orderly end."""
        close = self._protocol.close_rcvd
        if close is not None and close.code in _ORDERLY:
            return None
        if close is not None:
            return WebSocketError(f"the other side closed the WebSocket: {close}")
        return error or WebSocketError("the other side ended without the closing handshake")

    def _give_up(self) -> None:
        """End, since the other side does not finish the closing handshake."""
        self._below.abort()
        self._end_carrier(self._judge_end(None))

    def _fail_with(self, error: WebSocketError, cause: BaseException | None = None) -> None:
        """End by an error. The carrier below goes on by itself until the last words are out, for `FAULT_LINGER`."""
        error.__cause__ = cause
        self._below.close()
        self._loop.call_later(FAULT_LINGER, self._below.abort)  # which does nothing once it has ended
        self._end_carrier(error)

    def _end_carrier(self, error: CarrierError | None) -> None:
        """End and report it. Only from the loop, never inside a call to this carrier."""
        if self._state is _State.ENDED:
            return
        self._lost = None if self._state is _State.CLOSING else error
        self._stop_timers()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.carrier_lost(self._lost)

    def _stop_timers(self) -> None:
        self._state = _State.ENDED
        self._turns.forget_taker(self)
        for timer in (self._ping, self._linger):
            if timer is not None:
                timer.cancel()
        self._ping = self._linger = None


class SecureWebSocketCarrier(WebSocketCarrier):
    """The same inside TLS."""

    scheme: ClassVar[str] = "wss"
