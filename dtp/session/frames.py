"""The frame table of docs/wire.md, and how control frames are built and read.

STREAM frames are cut, joined and parsed in C (`dtp.core`); every other frame reaches Python as a body.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sized
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from dtp.escaping import escape_text
from dtp.session.codes import CloseCode, ProtocolError


class FrameType(IntEnum):
    """Frame types. 0x80 to 0xff may be ignored by whoever doesn't know them; other unknown types are an error."""

    PADDING = 0x00
    PING = 0x01
    PONG = 0x02
    STREAM = 0x03
    RESET = 0x04
    STOP = 0x05
    WINDOW = 0x06
    STREAMS = 0x07
    DATAGRAM = 0x08
    CLOSE = 0x09
    AWAY = 0x0A
    REKEY = 0x0B
    READY = 0x0C
    ATTACH = 0x0D
    STATE = 0x0E
    EXCHANGE = 0x0F
    METER = 0x10


#: Flag of STREAM: the stream ends behind this data.
FIN = 1
#: Flag of CLOSE: the code is the application's own.
APPLICATION = 1
#: Flag of WINDOW: part of the list that STATE closes.
LISTED = 1
#: Flag of ATTACH: beside the carriers that are there, not instead of them.
ADD = 1

#: In WINDOW: not a stream but the whole connection.
CONNECTION = 2**64 - 1
#: Offsets and totals stay below this, so that sums never wrap.
MAX_OFFSET = 2**62
#: The longest METER frame, bytes: a voucher has under 200.
MAX_METER = 4096
#: The longest reason in a CLOSE frame, bytes of UTF-8.
MAX_REASON = 256

PING = Struct(">Q")
RESET = Struct(">QIQ")
STOP = Struct(">QI")
WINDOW = Struct(">QQQ")
STREAMS = Struct(">Q")
CLOSE = Struct(">II")
AWAY = Struct(">Q")
ATTACH = Struct(">16sI32s")
STATE = Struct(">QQI")
EXCHANGE = Struct(">32s64s")

#: Exact body length of each fixed frame; the others have their own rule.
FIXED: dict[int, Struct] = {
    FrameType.PING: PING,
    FrameType.PONG: PING,
    FrameType.RESET: RESET,
    FrameType.STOP: STOP,
    FrameType.WINDOW: WINDOW,
    FrameType.STREAMS: STREAMS,
    FrameType.AWAY: AWAY,
    FrameType.READY: Struct(""),
    FrameType.ATTACH: ATTACH,
    FrameType.STATE: STATE,
    FrameType.EXCHANGE: EXCHANGE,
}

#: A frame to seal: type, flags, stream, offset, body (STREAM: data without header).
Outgoing = tuple[int, int, int, int, bytes | memoryview]


def control(frame: int, body: bytes | memoryview = b"", flags: int = 0) -> Outgoing:
    """Return a frame other than STREAM, ready to be sealed."""
    return (frame, flags, 0, 0, body)


class ControlQueue(deque[Outgoing]):
    """Frames of a session, other than those of one link, that wait to be sent: bounded by `queue_frame`."""

    __slots__ = ("_most", "_streams")

    def __init__(self, most: int, streams: Sized) -> None:
        """`most` may wait, and one for each of the `streams` there are."""
        super().__init__()
        self._most, self._streams = most, streams

    def queue_frame(self, frame: int, body: bytes = b"") -> None:
        """Queue a frame. `ProtocolError` (LIMIT) where too many wait."""
        if len(self) >= self._most + len(self._streams):
            raise ProtocolError("too many control frames wait", CloseCode.LIMIT)
        self.append(control(frame, body))


@dataclass(frozen=True, slots=True)
class CloseFrame:
    """A CLOSE frame: who has closed says why."""

    close_code: int
    reason: str
    application: bool = False
    detail: int = 0


def build_close(close: CloseFrame) -> Outgoing:
    """CLOSE; a reason above `MAX_REASON` bytes is cut."""
    # Cut between characters: what is not UTF-8 may be refused.
    reason = close.reason.encode(errors="replace")[:MAX_REASON].decode(errors="ignore").encode()
    return control(
        FrameType.CLOSE,
        CLOSE.pack(close.close_code, close.detail) + reason,
        APPLICATION if close.application else 0,
    )


def parse_close(flags: int, body: bytes) -> CloseFrame:
    """CLOSE from the peer. The reason is for people: broken UTF-8 is shown as such, and so are control characters."""
    if len(body) < CLOSE.size or len(body) > CLOSE.size + MAX_REASON:
        raise ProtocolError(f"CLOSE frame of {len(body)} bytes")
    code, detail = CLOSE.unpack_from(body)
    reason = escape_text(body[CLOSE.size :].decode(errors="backslashreplace"))
    return CloseFrame(code, reason, bool(flags & APPLICATION), detail)


def parse_fixed(frame: int, body: bytes) -> tuple[int | bytes, ...]:
    """Return the fields of a frame of `FIXED`; `ProtocolError` when its length is off."""
    shape = FIXED[frame]
    if len(body) != shape.size:
        raise ProtocolError(f"{FrameType(frame).name} frame of {len(body)} bytes, must be {shape.size}")
    return shape.unpack(body)
