"""What of whom a replica has: author -> the end of its chain, as all before it is there. What sync compares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from dtp.core.varint import put_varint, read_varint

_KEY: Final = 32
DIGEST: Final = 16
#: Bytes of a hash that digests cover: enough that nobody finds two histories that look the same.
MARK: Final = 16
#: Bytes of a mark that travel: fewer do, since they are salted with what can't be known before.
_SALTED: Final = 8
#: Bytes of each author in a vector, at least.
LEAST: Final = _KEY + 1 + _SALTED
#: The mark of a head that is another than the one here.
OTHER: Final = b""


class Head(NamedTuple):
    """The end of an author's chain: the last frame's sequence, and the first bytes of its hash."""

    sequence: int
    mark: bytes


Vector = dict[bytes, Head]


def digest(vector: Mapping[bytes, Head]) -> bytes:
    """Return `DIGEST` bytes that are the same for the same frames."""
    packed = b"".join([author + pack_head(vector[author]) for author in sorted(vector)])
    return hashlib.blake2b(packed, digest_size=DIGEST).digest()


def pack_head(head: Head) -> bytes:
    """Return `u64 sequence, big-endian || mark`, to be hashed."""
    return head.sequence.to_bytes(8, "big") + head.mark


def _salt(mark: bytes, salt: bytes) -> bytes:
    return hashlib.blake2b(mark, digest_size=_SALTED, key=salt).digest()


def encode(vector: Mapping[bytes, Head], salt: bytes) -> bytes:
    """Return `author (32 bytes) || varint sequence || salted mark` of each author, in the order of their keys.

    `salt` is the `digest` that was told before.
    """
    out = bytearray()
    for author in sorted(vector):
        head = vector[author]
        out += author
        put_varint(out, head.sequence)
        out += _salt(head.mark, salt)
    return bytes(out)


def decode(data: bytes, salt: bytes, ours: Mapping[bytes, Head]) -> Vector:
    """Return the vector in `data`, with the mark `OTHER` for each head that isn't one of ours.

    Raises `ValueError` for anything that `encode` would not have written.
    """
    vector: Vector = {}
    at, before = 0, b""
    while at < len(data):
        author, at = data[at : at + _KEY], at + _KEY
        if len(author) < _KEY or author <= before:
            raise ValueError("authors of a vector are 32 bytes each and in order")
        before = author
        last, at = read_varint(data, at)
        mark, at = data[at : at + _SALTED], at + _SALTED
        if last == 0 or len(mark) < _SALTED:
            raise ValueError(f"a sequence in a vector is at least 1, and its mark has {_SALTED} bytes")
        here = ours.get(author)
        same = here is not None and here.sequence == last and _salt(here.mark, salt) == mark
        vector[author] = here if here is not None and same else Head(last, OTHER)
    return vector


def missing_frames(
    ours: Mapping[bytes, Head], theirs: Mapping[bytes, Head]
) -> Iterator[tuple[bytes, int, int]]:
    """Yield what they need of ours: (author, first, last).

    Of an author who has another head at the same sequence there that is the last frame: it proves the fork.
    """
    for author in sorted(ours):
        head, there = ours[author], theirs.get(author)
        if there is None:
            yield author, 1, head.sequence
        elif there.sequence < head.sequence:
            yield author, there.sequence + 1, head.sequence
        elif there.sequence == head.sequence and there.mark != head.mark:
            yield author, head.sequence, head.sequence
