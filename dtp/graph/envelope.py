"""Signed frames: who made it, the how-manieth of its author it is, and what the author signed before it.

Sequence and previous hash make each author's frames a chain: a missing one shows, and who signs two different ones
for one place has signed the proof. docs/graph.md, "Envelopes".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import msgpack

from dtp.core import crdt as core
from dtp.graph.errors import EnvelopeError
from dtp.identity import Identity, PeerId
from dtp.identity.peer_id import PeerIdError

#: Goes before what is signed. No other signature of this project begins so.
CONTEXT: Final = b"dtp.graph.frame.v1"
VERSION: Final = 1
HASH_SIZE: Final = 32
#: What the first frame of an author names as the one before.
NONE_BEFORE: Final = bytes(HASH_SIZE)
#: UTF-8 bytes of a graph's name, at most.
MAX_NAME: Final = 255
_SIGNATURE: Final = 64
_MAX_SEQUENCE: Final = (1 << 63) - 1
#: Bytes of an envelope beside its body, at most.
OVERHEAD: Final = 256


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@dataclass(frozen=True)
class Envelope:
    """A frame with its author's signature. `graph` is the name of the graph that it was signed for."""

    graph: str
    author: bytes
    #: From 1 on, without gaps.
    sequence: int
    #: `hash` of the author's envelope before this one; zeros for the first.
    previous: bytes
    body: bytes
    signature: bytes

    @cached_property
    def signed(self) -> bytes:
        """The bytes under the signature."""
        name = self.graph.encode()
        return b"".join(
            (
                CONTEXT,
                bytes((len(name),)),
                name,
                self.author,
                self.sequence.to_bytes(8, "big"),
                self.previous,
                _hash(self.body),
            )
        )

    @cached_property
    def hash(self) -> bytes:
        """What the author's next envelope names: SHA-256 of what is signed."""
        return _hash(self.signed)

    def is_genuine(self) -> bool:
        """Whether the signature is the author's."""
        try:
            return PeerId(self.author).verify(self.signature, self.signed)
        except PeerIdError:
            return False

    def encode(self) -> bytes:
        """MessagePack `[version, author, sequence, previous, body, signature]`."""
        return msgpack.packb(  # type: ignore[no-any-return]
            (VERSION, self.author, self.sequence, self.previous, self.body, self.signature)
        )


def seal(identity: Identity, graph: str, sequence: int, previous: bytes, body: bytes) -> Envelope:
    """Sign a frame as its author."""
    unsigned = Envelope(graph, identity.id.key, sequence, previous, body, b"")
    return Envelope(graph, identity.id.key, sequence, previous, body, identity.sign(unsigned.signed))


def decode(graph: str, data: bytes) -> Envelope:
    """The envelope in `data`, whose signature and frame have still to be checked. Raises `EnvelopeError`."""
    limit = core.FRAME_BYTES + OVERHEAD
    if len(data) > limit:
        raise EnvelopeError(f"an envelope has at most {limit} bytes, not {len(data)}")
    try:
        parts = msgpack.unpackb(data, use_list=False, max_bin_len=core.FRAME_BYTES, max_array_len=6)
    except ValueError as error:
        raise EnvelopeError(f"not an envelope: {error}") from error
    if not isinstance(parts, tuple) or len(parts) != 6 or parts[0] != VERSION or type(parts[0]) is not int:
        raise EnvelopeError(f"not an envelope of version {VERSION}")
    _, author, sequence, previous, body, signature = parts
    sizes = ((author, core.AUTHOR_SIZE), (previous, HASH_SIZE), (signature, _SIGNATURE))
    if not all(isinstance(part, bytes) and len(part) == size for part, size in sizes):
        raise EnvelopeError("an envelope's author, hash or signature has another length")
    if type(sequence) is not int or not 1 <= sequence <= _MAX_SEQUENCE or not isinstance(body, bytes):
        raise EnvelopeError("an envelope's sequence or body is none")
    if (sequence == 1) != (previous == NONE_BEFORE):
        raise EnvelopeError("the first envelope of an author, and only that, has none before it")
    return Envelope(graph, author, sequence, previous, body, signature)


@dataclass(frozen=True)
class Proof:
    """Two envelopes that one author can't honestly have signed both: anyone can check it."""

    first: Envelope
    second: Envelope

    @property
    def author(self) -> bytes:
        """Whose they are."""
        return self.first.author

    def is_valid(self) -> bool:
        """Whether both are genuine and contradict each other."""
        a, b = sorted((self.first, self.second), key=lambda one: one.sequence)
        return (
            a.author == b.author
            and a.graph == b.graph
            and contradict(a, b)
            and a.is_genuine()
            and b.is_genuine()
        )


def contradict(a: Envelope, b: Envelope) -> bool:
    """Whether two envelopes of one author, the lower sequence first, tell different histories.

    Two of one sequence do unless they are the same; two in a row when the second names another as the one before
    it. (What lies farther apart can't be told from two alone.)
    """
    if a.sequence == b.sequence:
        return a.hash != b.hash
    return b.sequence == a.sequence + 1 and b.previous != a.hash
