"""Names, values and envelopes as docs/graph.md has them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgpack
from blake3 import blake3
from crdt_second import Op, decode
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from dtp.identity import bech32  # has tests of its own, by the vectors of its specification

CONTEXT = b"dtp.graph.frame.v1"
NONE = bytes(32)


class Linked(NamedTuple):
    """A value that refers to a node."""

    soul: str


class Other(NamedTuple):
    """A value of an extension type that the histories don't write."""

    type: int
    data: bytes


@functools.cache
def name_of(key: bytes) -> str:
    """An author's name."""
    return bech32.encode("dtp", key)


def read_value(data: bytes | None) -> Any:
    """The value in an op's bytes."""
    return None if data is None else msgpack.unpackb(data, ext_hook=_extension)


def _extension(code: int, data: bytes) -> Any:
    if code == 1:
        return Linked(data.decode())
    return int.from_bytes(data, "big", signed=True) if code == 2 else Other(code, data)


@dataclass(frozen=True)
class Signed:
    """A frame that somebody signed, and its place in the author's chain."""

    author: bytes
    sequence: int
    previous: bytes
    hash: bytes
    before: int
    last: int
    ops: tuple[Op, ...]


class Forged(Exception):
    """An envelope that isn't what it says."""


def covered(data: bytes) -> tuple[int, int]:
    """The first and the last of the frames that are in an envelope, or that a summary stands for; 0 and 0 for frames
    that were skipped."""
    version, _, first, second, *_ = msgpack.unpackb(data)
    return (first, first) if version == 1 else (first, second) if version == 2 else (0, 0)


def read_envelope(data: bytes, graph: str) -> Signed | None:
    """The frame in an envelope; None if it is a summary."""
    version, author, *rest = msgpack.unpackb(data)
    if version != 1:
        return None
    sequence, previous, body, signature = rest
    name = graph.encode()
    message = CONTEXT + bytes([len(name)]) + name + author + sequence.to_bytes(8, "big") + previous
    message += blake3(body).digest()
    try:
        Ed25519PublicKey.from_public_bytes(author).verify(signature, message)
    except InvalidSignature:
        raise Forged from None
    before, last, ops = decode(author, body)
    return Signed(author, sequence, previous, blake3(message).digest(), before, last, tuple(ops))
