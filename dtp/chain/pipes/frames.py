"""A byte stream over pipes as values: the header of a frame, cutting, putting together, what may be acknowledged.

No chain, no clock, no IO: the carrier (`dtp.chain.pipes.carrier`) feeds it what events bring and sends what it cuts.
`docs/chain-carrier.md` is the specification.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntFlag
from typing import ClassVar, Final

from dtp.carriers.errors import BrokenError

__all__ = [
    "CREDITED_BYTES",
    "DEFAULT_WINDOW",
    "FRAME_BYTES",
    "MAX_PIPES",
    "MAX_WINDOW",
    "Acks",
    "Flags",
    "Header",
    "IncomingPipe",
    "OutgoingPipe",
    "PipeFrameError",
    "PipeGapError",
    "PipePiece",
    "ReceivedSequences",
    "decode",
    "encode",
    "frames_ahead",
    "newest",
]

#: Bytes of the stream in one frame: what fits into a transaction of 128 KiB beside header, acknowledgements, inputs.
FRAME_BYTES: Final = 120_000
#: Bytes in a frame whose sender is credited for it. Several go into one transaction; with its header one is a single
#: argument of it.
CREDITED_BYTES: Final = 16_256
#: Pipes of a channel in one direction, as the package has it.
MAX_PIPES: Final = 16
#: Frames that a pipe sends ahead where the service sets no window: bounds what a slow receiver has to keep.
DEFAULT_WINDOW: Final = 16
#: The most frames that a pipe sends ahead, whatever the service allows, and the most that are kept for it.
MAX_WINDOW: Final = 64
#: Frames after a gap that are kept while it is filled, for each pipe.
MAX_AHEAD: Final = 1024
#: Frames of a stream that are kept, waiting or to be taken: what all pipes send ahead at most.
_MAX_PIECES: Final = MAX_WINDOW * MAX_PIPES

_VERSION: Final = 1
_FIXED = struct.Struct(">BQQB")
_ACK = struct.Struct(">BQ")
_OPENING = struct.Struct(">32sB")
_MAX_U64: Final = 2**64 - 1


class PipeFrameError(BrokenError):
    """The other side sent something that is not a frame, or that contradicts what it sent before."""

    code: ClassVar[str] = "pipe-frame"


class PipeGapError(BrokenError):
    """Frames are missing, and the chain's history doesn't give them any more."""

    code: ClassVar[str] = "pipe-gap"


class Flags(IntFlag):
    """The `flags` of a frame."""

    #: Begins a link. Only by the client, with TO; no bytes of the stream.
    OPEN = 1
    #: The server takes the link.
    ACCEPT = 2
    #: The stream of this direction ends behind this frame's bytes; nothing follows either way.
    END = 4
    #: The link is broken off, or unknown here.
    RESET = 8
    #: The header names the endpoint that is meant. On every frame of the client.
    TO = 16


def frames_ahead(window: int) -> int:
    """Return how many frames a pipe sends ahead of the acknowledgements, by the service's window."""
    return min(window or DEFAULT_WINDOW, MAX_WINDOW)


@dataclass(frozen=True)
class Header:
    """What stands in front of a frame's bytes.

    `link` numbers the carrier within its channel, rising; `offset` is that of the frame's first byte in the stream of
    its direction; `acks` are what the same transaction acknowledges: (index of the pipe, sequence). With TO, `to` is
    the key of the endpoint that is meant (32 bytes, zeros for any) and `pipes` how many pipes the client has.
    """

    link: int
    offset: int = 0
    acks: tuple[tuple[int, int], ...] = ()
    to: bytes = bytes(32)
    pipes: int = 1


def encode(header: Header, flags: int, data: bytes | memoryview = b"") -> bytes:
    """Return a frame's bytes."""
    parts = [_FIXED.pack(_VERSION, header.link, header.offset, len(header.acks))]
    parts += [_ACK.pack(index, sequence) for index, sequence in header.acks]
    if flags & Flags.TO:
        parts.append(_OPENING.pack(header.to, header.pipes))
    parts.append(bytes(data))
    return b"".join(parts)


def decode(flags: int, frame: bytes) -> tuple[Header, memoryview]:
    """Return header and bytes of a frame. Raises `PipeFrameError`."""
    try:
        version, link, offset, count = _FIXED.unpack_from(frame)
        if version != _VERSION:
            raise PipeFrameError(f"a frame of version {version}; this side speaks {_VERSION}")
        at = _FIXED.size
        acks = []
        for _ in range(count):
            acks.append(_ACK.unpack_from(frame, at))
            at += _ACK.size
        to, pipes = bytes(32), 1
        if flags & Flags.TO:
            to, pipes = _OPENING.unpack_from(frame, at)
            at += _OPENING.size
    except struct.error as fault:
        raise PipeFrameError(f"a frame of {len(frame)} bytes is too short for its header") from fault
    if count > MAX_PIPES or any(index >= MAX_PIPES for index, _ in acks) or not 0 < pipes <= MAX_PIPES:
        raise PipeFrameError(
            f"a frame with {count} acknowledgements and {pipes} pipes; there are {MAX_PIPES} pipes"
        )
    data = memoryview(frame)[at:]
    if offset + len(data) > _MAX_U64:
        raise PipeFrameError(f"a frame at offset {offset} is beyond the end of any stream")
    return Header(link, offset, tuple(acks), to, pipes), data


# ------------------------------------------------------------------------------------------------------ receiving


@dataclass
class ReceivedSequences:
    """Which frames of one pipe have come: each once, in any order."""

    #: All up to here have come.
    last: int = 0
    ahead: set[int] = field(default_factory=set)
    started: bool = False

    def add_sequence(self, sequence: int) -> bool:
        """Note a frame; return whether it is new. The first begins the count. `PipeGapError` for too many ahead."""
        if not self.started:
            self.started = True
            self.last = max(self.last, sequence - 1)
        if sequence <= self.last or sequence in self.ahead:
            return False
        if len(self.ahead) >= MAX_AHEAD:
            raise PipeGapError(f"{len(self.ahead)} frames came behind frame {self.last + 1}, which didn't")
        self.ahead.add(sequence)
        while self.last + 1 in self.ahead:
            self.last += 1
            self.ahead.remove(self.last)
        return True

    @property
    def gap(self) -> bool:
        """Whether a frame is missing before one that has come."""
        return bool(self.ahead)


class IncomingPipe:
    """The stream of one direction, out of frames that come in any order and any number of times.

    Holds at most `limit` bytes that wait for earlier ones, or for `take`.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: dict[int, memoryview] = {}
        self._ready: deque[memoryview] = deque()
        self._held = 0
        #: Offset up to which the stream is complete, and up to which it was taken.
        self.complete = 0
        self.taken = 0
        #: Where it ends, once that is known.
        self.end: int | None = None

    def add_piece(self, offset: int, data: memoryview, *, end: bool = False) -> None:
        """Put a frame's bytes in their place; what came before is ignored.

        Raises `PipeFrameError`; then the link is to be broken off.
        """
        stop = offset + len(data)
        if end:
            if self.end not in (None, stop):
                raise PipeFrameError(f"the stream was to end at {self.end}, and now at {stop}")
            self.end = stop
        if self.end is not None and (stop > self.end or self.complete > self.end):
            raise PipeFrameError(f"bytes up to {max(stop, self.complete)} behind the end at {self.end}")
        known = self._pieces.get(offset)
        if not data or stop <= self.complete or (known is not None and len(known) == len(data)):
            return
        if offset < self.complete or known is not None:
            raise PipeFrameError(f"the bytes at {offset} were cut in another way before")
        # Each piece costs memory beside its bytes, and frames may have few.
        if self._held + len(data) > self._limit or len(self._pieces) + len(self._ready) >= _MAX_PIECES:
            raise PipeFrameError(
                f"more than {self._limit:,} bytes or {_MAX_PIECES:,} frames wait: the other side minds no window"
            )
        self._pieces[offset] = data
        self._held += len(data)
        while (piece := self._pieces.pop(self.complete, None)) is not None:
            self._ready.append(piece)
            self.complete += len(piece)
        if self._pieces and min(self._pieces) < self.complete:
            raise PipeFrameError(f"frames overlap before {self.complete}")

    def read_into(self, buffer: memoryview) -> int:
        """Copy the next bytes to the front of `buffer`; return how many."""
        size = 0
        while self._ready and size < len(buffer):
            piece = self._ready[0]
            part = piece[: len(buffer) - size]
            buffer[size : size + len(part)] = part
            size += len(part)
            if len(part) == len(piece):
                self._ready.popleft()
            else:
                self._ready[0] = piece[len(part) :]
        self._held -= size
        self.taken += size
        return size

    @property
    def held(self) -> int:
        """Bytes that wait for earlier ones, or for `take`."""
        return self._held

    @property
    def has_ready(self) -> bool:
        """Whether `take` would give something."""
        return bool(self._ready)

    @property
    def hole(self) -> bool:
        """Whether something waits for earlier bytes, or the end does."""
        return bool(self._pieces) or (self.end is not None and self.complete < self.end)

    @property
    def finished(self) -> bool:
        """Whether all was taken, up to the end."""
        return self.end is not None and self.taken >= self.end


class Acks:
    """What may be acknowledged of one incoming pipe: frames whose bytes were taken, without a gap before them."""

    def __init__(self, acked: int = 0) -> None:
        #: What the chain has.
        self.acked = acked
        #: Whether a frame came yet.
        self.started = False
        self._due = 0
        self._waiting: dict[int, int] = {}

    def begin(self, before: int) -> None:
        """Note that the first frame came: all up to `before` are of a time that is over, and nobody waits for their
        bytes."""
        self.started = True
        self._due = before

    @property
    def crowded(self) -> bool:
        """Whether so many frames wait that one more can't be noted before `due` has looked at them."""
        return len(self._waiting) >= MAX_AHEAD

    def frame_received(self, sequence: int, until: int) -> None:
        """Note a frame whose bytes end at offset `until` of the live link; 0 for one that nobody waits for.

        Raises `PipeGapError` for too many that can't be acknowledged: no window lets them be sent.
        """
        if self.crowded and sequence not in self._waiting:
            raise PipeGapError(f"{len(self._waiting)} frames came behind one that nobody has taken yet")
        self._waiting[sequence] = until

    def release(self) -> None:
        """Note that the link is gone: nobody takes the bytes any more."""
        self._waiting = dict.fromkeys(self._waiting, 0)

    def sequence_to_acknowledge(self, last: int, taken: int) -> int:
        """Return the newest sequence that may be acknowledged, `acked` if none: `last` came without a gap, `taken` is
        the stream's offset up to which bytes were taken."""
        while self._due < last and self._waiting.get(self._due + 1, 0) <= taken:
            self._due += 1
            self._waiting.pop(self._due, None)
        return max(self._due, self.acked)


# -------------------------------------------------------------------------------------------------------- sending


@dataclass(frozen=True)
class PipePiece:
    """Bytes for one transaction. Sent again as they are, until they are on the chain."""

    offset: int
    data: bytes
    end: bool = False

    def split_into(self, size: int) -> list[PipePiece]:
        """Return its bytes in pieces of at most `size`, one at least; the end stands on the last."""
        starts = range(0, len(self.data), size) or range(1)
        return [
            PipePiece(self.offset + at, self.data[at : at + size], self.end and at + size >= len(self.data))
            for at in starts
        ]


class OutgoingPipe:
    """The stream of one direction, to be cut into frames."""

    def __init__(self, size: int = FRAME_BYTES) -> None:
        self._size = size
        self._buffer = bytearray()
        self._offset = 0
        self._under_way: set[int] = set()
        self._ending = False
        self._ended = False

    def write(self, data: memoryview) -> None:
        """Take bytes."""
        self._buffer += data

    def finish(self) -> None:
        """Note that nothing follows: the last frame says so."""
        self._ending = True

    def drop_uncut(self) -> None:
        """Forget what wasn't cut."""
        self._buffer.clear()

    @property
    def waiting(self) -> int:
        """Bytes that are not cut yet."""
        return len(self._buffer)

    @property
    def ready(self) -> bool:
        """Whether `cut` gives something now. A part of a frame waits while others are under way, to become more."""
        if len(self._buffer) >= self._size:
            return True
        if self._under_way:
            return False
        return bool(self._buffer) or (self._ending and not self._ended)

    def cut_next(self, most: int) -> PipePiece:
        """Return the next bytes for one transaction, at most `most`; call it only when `ready`."""
        size = min(self._size, most)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        end = self._ending and not self._buffer
        self._ended |= end
        made = PipePiece(self._offset, data, end)
        self._offset += len(data)
        self._under_way.add(made.offset)
        return made

    def mark_on_chain(self, cut: PipePiece) -> None:
        """Note that the frame is on the chain."""
        self._under_way.discard(cut.offset)

    @property
    def under_way(self) -> int:
        """Frames that were cut and are not on the chain yet."""
        return len(self._under_way)

    @property
    def finished(self) -> bool:
        """Whether all is on the chain, the end included."""
        return self._ended and not self._under_way


def newest(acks: Iterable[tuple[int, int]], known: dict[int, int]) -> None:
    """Note acknowledgements of the other side; an older one changes nothing."""
    for index, sequence in acks:
        known[index] = max(known.get(index, 0), sequence)
