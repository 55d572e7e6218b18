"""Records and packets: handles that hold a key and a counter, and nothing else per link.

A frame to seal is a tuple `(type, flags, stream, offset, data)`; an opened one is `(type, flags, stream, offset,
start, length)` with the place of its body in the buffer. For STREAM, `data` and the body are without the stream's
header. One call seals all that is queued, one opens all that was read; the GIL is free meanwhile. A handle serves
one thread at a time. docs/wire.md is the specification.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from struct import Struct
from struct import error as StructError
from typing import Any

from dtp.core._dtp_core import ffi, lib
from dtp.core.buffer import Buffer
from dtp.core.errors import SpaceError, opening_error, sealing_error
from dtp.core.long_records import wipe
from dtp.core.providers import suite_number
from dtp.errors import DtpError, LocalError

#: The most plaintext in one record or packet, bytes.
MAX_PLAINTEXT: int = lib.DTP_MAX_PLAINTEXT
#: What a record adds to its plaintext, bytes: length and tag.
RECORD_OVERHEAD: int = lib.DTP_RECORD_HEADER + lib.DTP_TAG
#: What a packet adds to its plaintext, bytes: counter and tag.
PACKET_OVERHEAD: int = lib.DTP_PACKET_HEADER + lib.DTP_TAG
#: What a record must have room for beyond the data that `Sealer.seal_stream` puts into it, bytes.
STREAM_ROOM: int = lib.DTP_STREAM_ROOM
#: What a STREAM frame adds to its data, bytes.
STREAM_OVERHEAD: int = lib.DTP_FRAME_HEADER + lib.DTP_STREAM_HEADER

#: A frame to seal: type, flags, stream, offset, data.
Outgoing = tuple[int, int, int, int, bytes | bytearray | memoryview]
#: An opened frame: type, flags, stream, offset, start and length of its body in the buffer.
Frame = tuple[int, int, int, int, int, int]

_INCOMING = Struct("@BB6xQQII")
_OPENED_ONE = Struct("@NNNIIBB6xQQII")  # dtp_opened, and the first frame right behind it
_OUTGOING_TAIL = Struct("@NQQBB")  # behind the pointer
_OUTGOING_SIZE: int = ffi.sizeof("dtp_outgoing")
_RESULT = Struct("@NNNN")  # dtp_sealed
_BYTES = ffi.typeof("uint8_t[]")
_POINTER_SIZE: int = ffi.sizeof("void *")
_INCOMING_SIZE = _INCOMING.size
_NO_DATA = b""

# Looked up once: a record of 64 bytes is sealed in less time than three attribute look-ups take.
_seal, _seal_stream, _seal_pieces = lib.dtp_seal, lib.dtp_seal_stream, lib.dtp_seal_pieces
_open, _from_buffer = lib.dtp_open, ffi.from_buffer
_NUMBERS, _SIZES = ffi.typeof("uint64_t[]"), ffi.typeof("uint32_t[]")
_pack_tail, _unpack_result = _OUTGOING_TAIL.pack_into, _RESULT.unpack_from
_unpack_opened_one, _iter_incoming = _OPENED_ONE.unpack_from, _INCOMING.iter_unpack

#: Records that take as much time as a frame, whatever is in them.
RECORDS_OF_FRAME: int = lib.DTP_RECORDS_OF_FRAME
#: Frames in one record or packet at most, PADDING and REKEY apart.
RECORD_FRAMES: int = lib.DTP_RECORD_FRAMES
#: Frames listed by one `open`. Untouched pages of the list cost nothing.
_MAX_LISTED = 64 * RECORD_FRAMES
_untouched = ffi.new_allocator(should_clear_after_alloc=False)


def _check_key(key: bytes) -> None:
    if len(key) != lib.DTP_KEY:
        raise LocalError(f"a key has {lib.DTP_KEY} bytes, not {len(key)}")


class _Scratch:
    """What one C call needs beside its handle; a few per process, for calls overlap only in threads."""

    __slots__ = (
        "incoming",
        "incoming_view",
        "items",
        "listed",
        "listed_view",
        "opened",
        "outgoing",
        "outgoing_view",
        "result",
        "result_view",
        "room",
    )

    def __init__(self) -> None:
        # The result of opening stands right before the list, so that one look reads both.
        self.listed = _untouched("dtp_incoming[]", 1 + _MAX_LISTED)
        self.listed_view = memoryview(ffi.buffer(self.listed))
        self.opened = ffi.cast("dtp_opened *", self.listed)
        self.incoming = self.listed + 1
        self.incoming_view = self.listed_view[_INCOMING_SIZE:]
        self.result = ffi.new("dtp_sealed *")
        self.result_view = memoryview(ffi.buffer(self.result))
        self.reserve_frames(64)

    def reserve_frames(self, count: int) -> None:
        """Make room for `count` outgoing frames."""
        self.room = count
        self.outgoing = ffi.new("dtp_outgoing[]", count)
        self.outgoing_view = memoryview(ffi.buffer(self.outgoing))
        self.items = [self.outgoing[i] for i in range(count)]


_idle: list[_Scratch] = []  # append and pop are atomic


def _borrow() -> _Scratch:
    try:
        return _idle.pop()
    except IndexError:
        return _Scratch()


def _put(scratch: _Scratch, frames: Sequence[Outgoing]) -> list[Any]:
    """Write the frames where C finds them. The list that is returned keeps their data in place."""
    view, at = scratch.outgoing_view, _POINTER_SIZE
    kept: list[Any] = []
    try:
        if len(frames) == 1:  # the usual case of small messages, where it saves a tenth of the whole call
            kind, flags, stream, offset, data = frames[0]
            scratch.items[0].data = pointer = _from_buffer(_BYTES, data)
            _pack_tail(view, at, len(pointer), stream, offset, kind, flags)
            return [pointer]
        if len(frames) > scratch.room:
            scratch.reserve_frames(2 * len(frames))
            view = scratch.outgoing_view
        for (kind, flags, stream, offset, data), item in zip(frames, scratch.items, strict=False):
            if data is _NO_DATA:  # the end of a stream, mostly: C doesn't look where it is
                _pack_tail(view, at, 0, stream, offset, kind, flags)
                kept.append(data)
                at += _OUTGOING_SIZE
                continue
            item.data = pointer = _from_buffer(_BYTES, data)
            _pack_tail(view, at, len(pointer), stream, offset, kind, flags)
            kept.append(pointer)
            at += _OUTGOING_SIZE
    except StructError as error:
        raise LocalError(
            f"frame {len(kept)} can't be written: type and flags have 8 bits, stream and offset 64"
        ) from error
    return kept


def _opened(scratch: _Scratch, start: int) -> tuple[int, list[Frame], int, int]:
    """Return what C made of a read: bytes taken, the frames with their places counted from the buffer's beginning,
    and how many records it was, of which how many had a REKEY."""
    both = _unpack_opened_one(scratch.listed_view)
    taken, _, count, records, rekeys = both[:5]
    if count == 1 and not start:
        return taken, [both[5:]], records, rekeys
    found = _iter_incoming(scratch.incoming_view[: count * _INCOMING_SIZE])
    if not start:
        return taken, list(found), records, rekeys
    frames = [
        (kind, flags, stream, offset, at + start, length) for kind, flags, stream, offset, at, length in found
    ]
    return taken, frames, records, rekeys


class _Handle:
    """One direction's key and counter, in C's memory."""

    __slots__ = ("_cipher", "_fresh")

    def __init__(self, suite: str, key: bytes, rekey_bytes: int) -> None:
        self._fresh: Any = None  # where the fresh key stands, as long as C points to it
        self._cipher: Any = ffi.gc(ffi.new("dtp_cipher *"), wipe)
        _check_key(key)
        code = lib.dtp_cipher_init(self._cipher, suite_number(suite), key, rekey_bytes)
        if code < 0:
            raise sealing_error(code)

    @property
    def counter(self) -> int:
        """Counter of the next record."""
        return int(self._cipher.counter)

    @property
    def rekeys(self) -> int:
        """How many keys came before the present one."""
        return int(self._cipher.rekeys)

    @property
    def waits_for_fresh(self) -> bool:
        """True between `set_fresh` and the REKEY that takes that key."""
        return bool(self._cipher.fresh)

    def close(self) -> None:
        """Wipe the key; whatever is called after this raises or gives `UnsupportedSuite`. Idempotent."""
        wipe(self._cipher)

    def _set_fresh(self, key: bytes) -> None:
        _check_key(key)
        before, self._fresh = self._fresh, ffi.new("uint8_t[]", key)
        lib.dtp_cipher_set_fresh(self._cipher, self._fresh)  # which wipes the one before
        del before


class Sealer(_Handle):
    """The sending direction of a link over a carrier that keeps the order.

    `suite` is `AESGCM` or `ChaChaPoly`, `key` 32 bytes. With `rekey_bytes`, the next key is taken when that much
    plaintext was sealed under one (at most one record later); 0 leaves it to `rekey` alone. With `padding` (1 to
    65,535) every record is as long as a full one, or `padding` bytes times a power of two.
    Raises `UnsupportedSuite`, `LocalError`.
    """

    __slots__ = ()

    def __init__(self, suite: str, key: bytes, rekey_bytes: int = 0, padding: int = 0) -> None:
        super().__init__(suite, key, rekey_bytes)
        self._cipher.padding = padding

    def set_fresh(self, key: bytes) -> None:
        """Have the next REKEY take `key` (32 bytes) instead of the one that follows from the present, and say so."""
        self._set_fresh(key)

    def seal(self, frames: Sequence[Outgoing], out: Buffer, record_size: int, rekey: bool = False) -> int:
        """Seal all frames into `out`, in records of at most `record_size` plaintext bytes; bytes written.

        No frames make one empty record. `rekey` ends with a REKEY frame. Raises `FrameTooLong`, `SpaceError` and
        `CounterExhausted` with nothing sealed; but when only a part went into `out`, that part is lost with the
        `SpaceError`, the counter has moved on and the link must end: leave room, or call `seal_some`.
        """
        length, sealed, _ = self.seal_some(frames, out, record_size, rekey)
        if sealed != len(frames):
            raise SpaceError(f"only {sealed} of {len(frames)} frames fit {out.size} bytes; the link must end")
        return length

    def seal_some(
        self, frames: Sequence[Outgoing], out: Buffer, record_size: int, rekey: bool = False
    ) -> tuple[int, int, int]:
        """Seal what fits `out`: bytes written, frames wholly sealed, bytes sealed of the STREAM frame after them.

        `rekey` takes effect only when all went in. Raises `FrameTooLong`, `SpaceError` (not one frame fits) and
        `CounterExhausted`, with nothing sealed.
        """
        scratch = _borrow()
        try:
            kept = _put(scratch, frames)
            code = _seal(
                self._cipher,
                scratch.outgoing,
                len(kept),
                record_size,
                rekey,
                out.pointer,
                out.size,
                scratch.result,
            )
            length, sealed, partial, _ = _unpack_result(scratch.result_view)
        finally:
            _idle.append(scratch)
        if code < 0:
            raise sealing_error(code)
        return length, sealed, partial

    def seal_stream(self, stream: int, offset: int, data: bytes, out: Buffer, record_size: int) -> int:
        """Seal `data` as one STREAM frame in one record: bytes written. The usual case of small messages, made short.

        Raises `SpaceError` when record_size is below len(data) + `STREAM_ROOM`, or `out` too small, and
        `CounterExhausted`, with nothing sealed.
        """
        length: int = _seal_stream(
            self._cipher, stream, offset, data, len(data), record_size, out.pointer, out.size
        )
        if length < 0:
            raise sealing_error(length)
        return length

    def seal_pieces(
        self,
        streams: Sequence[int],
        offsets: Sequence[int],
        starts: Sequence[int],
        sizes: Sequence[int],
        data: bytes,
        out: Buffer,
        record_size: int,
    ) -> int:
        """Seal many small STREAM frames, whose data is `data` at `starts` for `sizes` bytes: bytes written.

        Raises `SpaceError` when a span is not within `data` (nothing is sealed) or when only a part went into `out`
        (the link must end: leave room), `FrameTooLong` and `CounterExhausted`.
        """
        count = len(streams)
        scratch = _borrow()
        try:
            if count > scratch.room:
                scratch.reserve_frames(2 * count)
            code = _seal_pieces(
                self._cipher,
                scratch.outgoing,
                _from_buffer(_NUMBERS, array("Q", streams)),
                _from_buffer(_NUMBERS, array("Q", offsets)),
                _from_buffer(_SIZES, array("I", starts)),
                _from_buffer(_SIZES, array("I", sizes)),
                count,
                data,
                len(data),
                record_size,
                out.pointer,
                out.size,
                scratch.result,
            )
            length, sealed, _, _ = _unpack_result(scratch.result_view)
        finally:
            _idle.append(scratch)
        if code < 0:
            raise sealing_error(code)
        if sealed != count:
            raise SpaceError(f"only {sealed} of {count} pieces fit {out.size} bytes; the link must end")
        return int(length)


class LinkOpener(_Handle):
    """The receiving direction of a link over a carrier that keeps the order. Arguments and errors as `Sealer`'s."""

    __slots__ = ("rekeyed", "weight")

    def __init__(self, suite: str, key: bytes) -> None:
        super().__init__(suite, key, 0)
        #: Of the last `open`: how many REKEYs there were.
        self.rekeyed = 0
        #: ... and what it took, in frames: those listed, one for each REKEY, and one for `RECORDS_OF_FRAME` records.
        self.weight = 0

    def set_fresh(self, key: bytes) -> None:
        """Take `key` (32 bytes) at the next REKEY that says that it is a fresh one, a `FrameError` without."""
        self._set_fresh(key)

    def open(
        self, buffer: Buffer, start: int, end: int, most: int = _MAX_LISTED
    ) -> tuple[int, list[Frame], DtpError | None]:
        """Open the whole records in `buffer[start:end]`, in place: bytes taken, their frames, and what was wrong.

        Opens no further record once its `weight` is above `most` (16,384 if that is less), so call again with what
        is left until nothing is taken. PADDING, REKEY and the types from 0x80 on are dealt with and not listed;
        STREAM frames that continue each other may be joined. The error is given, not raised: `RecordForged`,
        `RecordLengthError`, `FrameError`, `TooManyFrames`, `CounterExhausted`, `UnsupportedSuite` (closed) or
        `ProviderError`. What was opened before it is genuine; the record that failed is spoiled.
        """
        if not 0 <= start <= end <= buffer.size:
            raise LocalError(f"{start}:{end} is not within a buffer of {buffer.size} bytes")
        capacity = min(most + RECORD_FRAMES, _MAX_LISTED)
        scratch = _borrow()
        try:
            code = _open(
                self._cipher,
                buffer.pointer + start if start else buffer.pointer,
                end - start,
                scratch.incoming,
                capacity,
                scratch.opened,
            )
            taken, frames, records, self.rekeyed = _opened(scratch, start)
        finally:
            _idle.append(scratch)
        self.weight = len(frames) + self.rekeyed + records // RECORDS_OF_FRAME
        return taken, frames, opening_error(code) if code < 0 else None


class PacketSealer(_Handle):
    """The sending direction of a link over a carrier that loses and reorders. Arguments and errors as `Sealer`'s."""

    __slots__ = ()

    def __init__(self, suite: str, key: bytes, rekey_bytes: int = 0) -> None:
        super().__init__(suite, key, rekey_bytes)

    def seal(
        self, frames: Sequence[Outgoing], out: Buffer, packet_size: int, rekey: bool = False
    ) -> tuple[int, int, int]:
        """Seal one packet of at most `packet_size` bytes in all; gives what `Sealer.seal_some` does.

        `rekey` moves to the next key with this packet. The receiver follows over at most 4 keys that it has seen
        no packet of, so don't ask again before an answer has come. Raises as `Sealer.seal_some`.
        """
        scratch = _borrow()
        try:
            kept = _put(scratch, frames)
            size = min(packet_size, out.size)
            code = lib.dtp_seal_packet(
                self._cipher, scratch.outgoing, len(kept), rekey, out.pointer, size, scratch.result
            )
            length, sealed, partial, _ = _unpack_result(scratch.result_view)
        finally:
            _idle.append(scratch)
        if code < 0:
            raise sealing_error(code)
        return length, sealed, partial


class PacketOpener:
    """The receiving direction of a link over a carrier that loses and reorders; remembers 2,048 packets back."""

    __slots__ = ("_opener",)

    def __init__(self, suite: str, key: bytes) -> None:
        self._opener: Any = ffi.gc(ffi.new("dtp_packet_opener *"), lib.dtp_packet_opener_wipe)
        _check_key(key)
        code = lib.dtp_packet_opener_init(self._opener, suite_number(suite), key)
        if code < 0:
            raise sealing_error(code)

    @property
    def newest(self) -> int:
        """The highest counter opened, 0 before the first."""
        return int(self._opener.newest)

    @property
    def rekeys(self) -> int:
        """How many keys came before the present one."""
        return int(self._opener.current.rekeys)

    def open(self, buffer: Buffer, start: int, end: int) -> tuple[list[Frame], DtpError | None]:
        """Open the packet `buffer[start:end]` in place: its frames, or what was wrong, and then nothing changed.

        The errors are those of `LinkOpener.open`, and `PacketReplayed`. None of them ends the link by itself: anyone
        can send packets. Drop it and go on.
        """
        if not 0 <= start <= end <= buffer.size:
            raise LocalError(f"{start}:{end} is not within a buffer of {buffer.size} bytes")
        scratch = _borrow()
        try:
            code = lib.dtp_open_packet(
                self._opener,
                buffer.pointer + start,
                end - start,
                scratch.incoming,
                _MAX_LISTED,
                scratch.opened,
            )
            frames = _opened(scratch, start)[1]
        finally:
            _idle.append(scratch)
        return frames, opening_error(code) if code < 0 else None

    def close(self) -> None:
        """Wipe the keys. Idempotent."""
        lib.dtp_packet_opener_wipe(self._opener)
