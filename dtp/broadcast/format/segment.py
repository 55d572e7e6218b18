"""Segments: a signed and chained head, the hashes of the pieces, and the pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntFlag
from hashlib import blake2b
from struct import Struct
from typing import Final

from dtp.broadcast.errors import SegmentError, SegmentForged
from dtp.broadcast.format.merkle import HASH_SIZE, leaf_hash, root_of
from dtp.identity.keys import SIGNATURE_SIZE

VERSION: Final = 1
DOMAIN: Final = b"dtp.segment.v1"
PIECE_SIZE: Final = 16 * 1024
#: The most bytes of a segment: four seconds of 32 Mbit/s, with 32 KiB of hashes.
MAX_SIZE: Final = 16 * 1024 * 1024
#: The link before the first segment.
FIRST_LINK: Final = bytes(HASH_SIZE)
#: The `init` of a segment that can be decoded without another one.
NO_INIT: Final = 2**64 - 1
#: The longest duration, a day. A longer one is a fault.
MAX_DURATION_MS: Final = 86_400_000

#: version, stream, number, init, slot, time, duration, size, epoch, flags, root, link of the one before
_HEAD: Final = Struct(">B32sQQQQIIIB32s32s")
HEAD_SIZE: Final = _HEAD.size
SIGNED_SIZE: Final = HEAD_SIZE + SIGNATURE_SIZE
_MAX_NUMBER: Final = 2**63 - 1


class Flag(IntFlag):
    """Properties of a segment beside its bytes."""

    #: Decoding can begin here, after the segment that `init` names.
    START = 1
    #: It only has init data, which a decoder needs first, and nothing to play.
    INIT = 2
    #: It is the last segment.
    LAST = 4
    #: It only has the key of its epoch, sealed to those who may listen, and nothing to play.
    KEYS = 8


_KNOWN_FLAGS: Final = int(Flag.START | Flag.INIT | Flag.LAST | Flag.KEYS)


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment's head, its signature, and the hashes of its pieces. `decode` checks all but the signature."""

    stream: bytes
    #: The number of the segment, which rises by one from 0.
    number: int
    #: The number of the segment with the init data that this one needs, or `NO_INIT`.
    init: int
    #: The slot of the show in which it was sent, from 0; 0 in a show without slots.
    slot: int
    #: When it was complete, Unix ms by the producer's clock.
    time_ms: int
    #: How long it plays, in ms; 0 where that isn't known.
    duration_ms: int
    size: int
    #: The number of the key that seals it; 0 if it isn't sealed.
    epoch: int
    flags: Flag
    root: bytes
    #: The `link` of the previous segment.
    previous: bytes
    #: Head and signature as bytes.
    signed: bytes
    hashes: tuple[bytes, ...]

    @classmethod
    def decode(cls, data: bytes) -> Segment:
        """Return the segment with this head, signature and hashes. Raise `SegmentError`, or `SegmentForged` where
        the hashes aren't those that were signed."""
        segment = cls.decode_signed(data[:SIGNED_SIZE])
        rest = data[SIGNED_SIZE:]
        if len(rest) != HASH_SIZE * segment.pieces:
            raise SegmentError(
                f"segment {segment.number} has {len(rest)} bytes of hashes for {segment.pieces} pieces"
            )
        hashes = tuple(rest[at : at + HASH_SIZE] for at in range(0, len(rest), HASH_SIZE))
        if root_of(hashes) != segment.root:
            raise SegmentForged(f"the hashes of segment {segment.number} are not those that were signed")
        return segment.with_hashes(hashes)

    @classmethod
    def decode_signed(cls, data: bytes) -> Segment:
        """Return the segment with this head and signature, and without hashes. Raise `SegmentError`."""
        if len(data) != SIGNED_SIZE:
            raise SegmentError(f"a head and its signature are {SIGNED_SIZE} bytes, not {len(data)}")
        version, stream, number, init, slot, time_ms, duration_ms, size, epoch, flags, root, previous = (
            _HEAD.unpack_from(data)
        )
        if version != VERSION or flags & ~_KNOWN_FLAGS:
            raise SegmentError(
                f"a segment of version {version} with flags {flags:#x}; this reads version {VERSION}"
            )
        if max(number, slot, time_ms) > _MAX_NUMBER or size > MAX_SIZE or duration_ms > MAX_DURATION_MS:
            raise SegmentError(f"segment {number} has a number, a time or a size out of range")
        if flags & Flag.KEYS and (not epoch or flags != Flag.KEYS):
            raise SegmentError(
                f"segment {number} is marked as keys, but has no epoch or is also marked as something else"
            )
        if init != NO_INIT and init > number:
            raise SegmentError(f"segment {number} needs segment {init}, which comes later")
        if not number and previous != FIRST_LINK:
            raise SegmentError("segment 0 has a link of a segment before it")
        return cls(
            *(stream, number, init, slot, time_ms, duration_ms, size, epoch, Flag(flags), root, previous),
            signed=bytes(data),
            hashes=(),
        )

    def with_hashes(self, hashes: tuple[bytes, ...]) -> Segment:
        """Return the same segment with the hashes of its pieces."""
        return replace(self, hashes=hashes)

    @property
    def pieces(self) -> int:
        """The number of its pieces, each of `PIECE_SIZE` bytes, except for the last."""
        return -(-self.size // PIECE_SIZE)

    @property
    def link(self) -> bytes:
        """What the next segment names as its predecessor, 32 bytes. It stands for all segments up to this one."""
        return blake2b(self.signed[:HEAD_SIZE], digest_size=HASH_SIZE).digest()

    @property
    def encoded(self) -> bytes:
        """Head, signature and hashes."""
        return self.signed + b"".join(self.hashes)

    def check_piece(self, index: int, piece: bytes | memoryview) -> None:
        """Raise `SegmentForged` unless this is piece `index` as it was signed, `SegmentError` if there is no such
        piece."""
        if not 0 <= index < self.pieces:
            raise SegmentError(f"segment {self.number} has {self.pieces} pieces, and no piece {index}")
        if (
            len(piece) != min(PIECE_SIZE, self.size - index * PIECE_SIZE)
            or leaf_hash(piece) != self.hashes[index]
        ):
            raise SegmentForged(f"piece {index} of segment {self.number} is not the one that was signed")


def pieces_of(data: bytes) -> Iterator[memoryview]:
    """Yield the pieces of a segment's bytes, in order."""
    view = memoryview(data)
    for at in range(0, len(view), PIECE_SIZE):
        yield view[at : at + PIECE_SIZE]


def signed_message(head: bytes) -> bytes:
    """Return what a producer signs for a head."""
    return bytes((len(DOMAIN),)) + DOMAIN + head


def pack_head(
    stream: bytes,
    number: int,
    *,
    init: int,
    slot: int,
    time_ms: int,
    duration_ms: int,
    size: int,
    epoch: int,
    flags: int,
    root: bytes,
    previous: bytes,
) -> bytes:
    """Return a segment's head as bytes."""
    return _HEAD.pack(
        VERSION, stream, number, init, slot, time_ms, duration_ms, size, epoch, flags, root, previous
    )
