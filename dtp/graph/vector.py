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
        rest = vector[author]
        while rest > 127:
            out.append(rest & 127 | 128)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def decode(data: bytes) -> Vector:
    """The vector in `data`. Raises `ValueError` for anything that `encode` would not have written."""
    vector: Vector = {}
    at, before = 0, b""
    while at < len(data):
        author, at = data[at : at + _KEY], at + _KEY
        if len(author) < _KEY or author <= before:
            raise ValueError("authors of a vector are 32 bytes each and in order")
        before, last, shift = author, 0, 0
        while True:
            if at >= len(data) or shift > 56:
                raise ValueError("a vector ends within a number, or one is too large")
            byte, at = data[at], at + 1
            last |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if last == 0 or byte == 0:
            raise ValueError("a sequence in a vector is at least 1, in the shortest form")
        vector[author] = last
    return vector


def missing(ours: Mapping[bytes, int], theirs: Mapping[bytes, int]) -> Iterator[tuple[bytes, int, int]]:
    """What we have and they don't: (author, first, last)."""
    for author in sorted(ours):
        have = theirs.get(author, 0)
        if have < ours[author]:
            yield author, have + 1, ours[author]
