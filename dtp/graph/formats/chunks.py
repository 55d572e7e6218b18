"""Bytes as a list of short texts that fit QR codes: for two machines that share nothing but a screen and a camera.

Chunks may come in any order, more than once, and from several readings; a damaged one is named. docs/graph.md,
"Chunks".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from typing import Final

from dtp.graph.errors import ChunkError, GraphError

#: Characters of a chunk, at most: a QR code of version 20 holds so many with error correction L.
MAX_CHUNK: Final = 1200
#: Chunks of one set, at most.
MAX_CHUNKS: Final = 4096
#: Bytes that a set stands for, at most: it is compressed, and a small set could stand for very many.
MAX_BYTES: Final = 64 << 20
_PREFIX: Final = "DTPG1"
_SET: Final = 10
_CHECK: Final = 5
#: What is left for data beside `DTPG1/`, the set (16 characters), two numbers, the check (8) and their slashes.
_DATA: Final = (MAX_CHUNK - len(_PREFIX) - 16 - 8 - 8 - 5) // 8 * 5


def _text(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b32decode(text + "=" * (-len(text) % 8))


def _check(head: str, data: bytes) -> bytes:
    return hashlib.blake2b(head.encode() + data, digest_size=_CHECK).digest()


def split(data: bytes, *, size: int = MAX_CHUNK) -> list[str]:
    """Return the chunks of some bytes, each of at most `size` characters (100 to `MAX_CHUNK`) of QR's alphanumeric
    set.

    Raises `GraphError` for more than `MAX_BYTES`, or when they are more than `MAX_CHUNKS`.
    """
    if not 100 <= size <= MAX_CHUNK:
        raise GraphError(f"a chunk has 100 to {MAX_CHUNK} characters, not {size}")
    if len(data) > MAX_BYTES:
        raise GraphError(f"{len(data)} bytes are too many for chunks (at most {MAX_BYTES}); use a file")
    packed = zlib.compress(data, 9)
    step = _DATA - (MAX_CHUNK - size) // 8 * 5 - (5 if (MAX_CHUNK - size) % 8 else 0)
    parts = [packed[at : at + step] for at in range(0, len(packed), step)]
    if len(parts) > MAX_CHUNKS:
        raise GraphError(f"{len(parts)} chunks would be needed; use a file for more than {MAX_CHUNKS}")
    name = _text(hashlib.blake2b(data, digest_size=_SET).digest())
    chunks = []
    for number, part in enumerate(parts, 1):
        head = f"{_PREFIX}/{name}/{number}/{len(parts)}/"
        chunks.append(f"{head}{_text(_check(head, part))}/{_text(part)}")
    return chunks


class Collector:
    """Chunks of one set, until all are there."""

    def __init__(self) -> None:
        self._head: tuple[str, int] | None = None
        self._parts: dict[int, bytes] = {}

    def add(self, chunk: str) -> bool:
        """Take a chunk; whether it was new. Raises `ChunkError` for one that is damaged, or of another set."""
        name, number, count, data = _parse(chunk.strip())
        if self._head is None:
            self._head = name, count
        if (name, count) != self._head:
            raise ChunkError(f"chunk {number} of {count} is of another set; begin anew, or take the others")
        is_new = number not in self._parts
        self._parts[number] = data
        return is_new

    @property
    def missing(self) -> list[int]:
        """The numbers of the chunks that are still to come; none are known before the first one came."""
        return (
            [] if self._head is None else [at for at in range(1, self._head[1] + 1) if at not in self._parts]
        )

    @property
    def is_complete(self) -> bool:
        """Whether all chunks are there."""
        return self._head is not None and len(self._parts) == self._head[1]

    def data(self) -> bytes:
        """Return what the chunks stand for. Raises `ChunkError` when some are missing, or they don't fit together."""
        if self._head is None or not self.is_complete:
            missing = ", ".join(map(str, self.missing[:20])) or "all"
            raise ChunkError(f"chunks are missing: {missing}")
        packed = b"".join(self._parts[number] for number in sorted(self._parts))
        unpacking = zlib.decompressobj()
        try:
            data = unpacking.decompress(packed, MAX_BYTES)
        except zlib.error as error:
            raise ChunkError(f"the chunks don't fit together: {error}") from error
        if not unpacking.eof or unpacking.unused_data:
            raise ChunkError(f"the chunks stand for more than {MAX_BYTES} bytes, or were cut off")
        if _text(hashlib.blake2b(data, digest_size=_SET).digest()) != self._head[0]:
            raise ChunkError("the chunks don't give the bytes that were split")
        return data


def _parse(chunk: str) -> tuple[str, int, int, bytes]:
    """Return (set, number, count, data) of a chunk."""
    parts = chunk.split("/")
    if len(chunk) > MAX_CHUNK or len(parts) != 6 or parts[0] != _PREFIX:
        raise ChunkError(f"not a chunk: it begins with {chunk[:12]!r}, not with {_PREFIX}/")
    _, name, number, count, check, data = parts
    place = f"chunk {number[:4]} of {count[:4]}"
    try:
        found = _bytes(data)
        told = _bytes(check)
        at, of = int(number), int(count)
    except (binascii.Error, ValueError) as error:
        raise ChunkError(f"{place} is damaged; read it once more") from error
    head = f"{_PREFIX}/{name}/{at}/{of}/"
    if told != _check(head, found) or _text(found) != data or not 1 <= at <= of <= MAX_CHUNKS:
        raise ChunkError(f"{place} is damaged; read it once more")
    return name, at, of, found
