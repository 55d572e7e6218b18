"""What of whom a replica has: author -> the last sequence, as all before it are there. What sync compares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Final

Vector = dict[bytes, int]

_KEY: Final = 32


def digest(vector: Mapping[bytes, int]) -> bytes:
    """16 bytes, the same for the same frames."""
    state = hashlib.blake2b(digest_size=16)
    for author in sorted(vector):
        state.update(author + vector[author].to_bytes(8, "big"))
    return state.digest()


def encode(vector: Mapping[bytes, int]) -> bytes:
    """`author (32 bytes) || varint` for each author, in their order."""
    out = bytearray()
    for author in sorted(vector):
        out += author
        put_varint(out, vector[author])
    return bytes(out)


def put_varint(out: bytearray, number: int) -> None:
    """Append a number, LEB128."""
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, in its shortest form, and where it ends. Raises `ValueError`."""
    number, shift = 0, 0
    while True:
        if at >= len(data) or shift > 56:
            raise ValueError("it ends within a number, or one is too large")
        byte, at = data[at], at + 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    if byte == 0 and shift > 7:
        raise ValueError("a number is not in the shortest form")
    return number, at


def decode(data: bytes) -> Vector:
    """The vector in `data`. Raises `ValueError` for anything that `encode` would not have written."""
    vector: Vector = {}
    at, before = 0, b""
    while at < len(data):
        author, at = data[at : at + _KEY], at + _KEY
        if len(author) < _KEY or author <= before:
            raise ValueError("authors of a vector are 32 bytes each and in order")
        before = author
        last, at = read_varint(data, at)
        if last == 0:
            raise ValueError("a sequence in a vector is at least 1")
        vector[author] = last
    return vector


def missing(ours: Mapping[bytes, int], theirs: Mapping[bytes, int]) -> Iterator[tuple[bytes, int, int]]:
    """What we have and they don't: (author, first, last)."""
    for author in sorted(ours):
        have = theirs.get(author, 0)
        if have < ours[author]:
            yield author, have + 1, ours[author]
