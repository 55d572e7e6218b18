"""A second implementation of docs/partial.md: what is skipped, as bytes, and a reader of what a peer sends of a part.

It shares no code with the package: MessagePack, BLAKE3 and PyNaCl.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from hashlib import blake2b

import msgpack
from blake3 import blake3
from nacl.signing import VerifyKey


def framed(*parts: object) -> bytes:
    message = msgpack.packb(parts)
    return struct.pack(">I", len(message)) + message


def part(prefixes: list[str], labels: list[str], souls: list[str]) -> bytes:
    return msgpack.packb([1, sorted(prefixes), sorted(labels), sorted(souls)])


def hello(graph: str, asked: bytes) -> bytes:
    """Of somebody who has nothing yet, and asks for a part."""
    nothing = blake2b(digest_size=16).digest()
    return framed(0, 7, graph, nothing, 0, b"", False, asked, asked, True)


def _hash(data: bytes) -> bytes:
    return blake3(data).digest()


@dataclass
class Chain:
    """What came of one author."""

    end: int = 0
    hash: bytes = bytes(32)
    #: Frames that came whole, by sequence.
    whole: dict[int, bytes] = field(default_factory=dict)
    skipped: list[tuple[int, int]] = field(default_factory=list)


def take(chains: dict[bytes, Chain], graph: str, data: bytes) -> None:
    """Check what comes next of an author, by the words of the documents, and take it."""
    kind, author, *rest = msgpack.unpackb(data)
    named = bytes([len(graph)]) + graph.encode() + author
    chain = chains.setdefault(author, Chain())
    if kind == 1:
        sequence, previous, body, signature = rest
        signed = b"dtp.graph.frame.v1" + named + struct.pack(">Q", sequence) + previous + _hash(body)
        first, tip = sequence, _hash(signed)
        chain.whole[sequence] = body
    elif kind == 2:
        first, sequence, after, last, previous, tip, seen, body, signature = rest
        numbers = struct.pack(">4Q", first, sequence, after, last)
        signed = b"dtp.graph.summary.v1" + named + numbers + previous + tip + seen + _hash(body)
        chain.whole[sequence] = body
    else:
        first, sequence, zero, zero_too, previous, tip, signed, empty, signature = rest
        assert (kind, zero, zero_too, empty) == (3, 0, 0, b"")
        of_frame = b"dtp.graph.frame.v1" + named + struct.pack(">Q", sequence)
        of_summary = b"dtp.graph.summary.v1" + named
        if signed.startswith(of_frame):
            assert len(signed) == len(of_frame) + 64
            assert tip == _hash(signed)
        else:
            assert signed.startswith(of_summary)
            numbers_of = signed[len(of_summary) :]
            assert struct.unpack(">Q", numbers_of[8:16]) == (sequence,)
            assert numbers_of[64:96] == tip
        chain.skipped.append((first, sequence))
    VerifyKey(author).verify(signed, signature)
    assert first == chain.end + 1
    assert previous == chain.hash
    chain.end, chain.hash = sequence, tip
