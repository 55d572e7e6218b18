"""Signed frames: who made it, its number among its author's, and what the author signed before it.

Sequence and previous hash make each author's frames a chain: a missing one shows, and who signs two different ones
for one place has signed the proof. A summary stands for several frames in a row: what of them still counts, signed
by the same author. docs/graph.md, "Envelopes" and "Summaries".
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Final

import msgpack
from blake3 import blake3

from dtp.core import crdt as core
from dtp.graph.errors import EnvelopeError
from dtp.graph.frames.vector import MARK, Head
from dtp.identity import Identity, PeerId
from dtp.identity.peer_id import PeerIdError
from dtp.packing import unpack
from dtp.unicode import encode_text

#: Goes before what is signed. No other signature of this project begins so.
CONTEXT: Final = b"dtp.graph.frame.v1"
SUMMARY_CONTEXT: Final = b"dtp.graph.summary.v1"
VERSION: Final = 1
#: What a summary has in the place of the version.
SUMMARY_VERSION: Final = 2
#: And what stands for frames that are skipped.
SKIPPED_VERSION: Final = 3
#: What these begin with as bytes.
SKIPPED: Final = b"\x9b\x03"
#: Bytes of what is signed, at most.
_MAX_STATEMENT: Final = 512
HASH_SIZE: Final = 32
#: What the first frame of an author names as the one before.
NONE_BEFORE: Final = bytes(HASH_SIZE)
#: UTF-8 bytes of a graph's name, at most.
MAX_NAME: Final = 255
_SIGNATURE: Final = 64
_MAX_SEQUENCE: Final = (1 << 63) - 1
_MAX_CLOCK: Final = (1 << 63) - 1
_DIGEST: Final = 16
#: Bytes of an envelope beside its body, at most.
OVERHEAD: Final = 320


def _hash(data: bytes) -> bytes:
    digest: bytes = blake3(data).digest()
    return digest


@lru_cache(maxsize=64)
def _named(context: bytes, graph: str) -> bytes:
    name = encode_text(graph, "a graph's name")
    return context + bytes((len(name),)) + name


@dataclass(frozen=True)
class Signed:
    """What an author signed for the graph named `graph`: up to which of its frames, and what is in them."""

    graph: str
    author: bytes
    #: Of the frame, or of the last one that a summary stands for: from 1 on.
    sequence: int
    #: `hash` of the author's frame before the first of these; zeros when that has sequence 1.
    previous: bytes
    #: A frame of the merge core; of a summary it may be empty.
    body: bytes
    signature: bytes

    @property
    @abstractmethod
    def first_sequence(self) -> int:
        """The sequence of the first frame that this stands for."""

    @property
    @abstractmethod
    def signed_bytes(self) -> bytes:
        """The bytes under the signature."""

    @property
    @abstractmethod
    def hash(self) -> bytes:
        """What the author's next frame names as the one before it."""

    @cached_property
    def head(self) -> Head:
        """The end of the author's chain for whoever has this last."""
        return Head(self.sequence, self.hash[:MARK])

    @abstractmethod
    def encode(self) -> bytes:
        """Return the bytes that are sent and stored."""

    def is_genuine(self) -> bool:
        """Return whether the signature is the author's."""
        try:
            return PeerId(self.author).verify(self.signature, self.signed_bytes)
        except PeerIdError:
            return False

    @property
    @abstractmethod
    def op_statement(self) -> core.Told:
        """What it says of its ops, to be compared with other statements."""

    @property
    def chain_hashes(self) -> dict[int, bytes]:
        """Sequence -> hash, of what it says about the author's chain."""
        return {self.first_sequence - 1: self.previous, self.sequence: self.hash}


@dataclass(frozen=True)
class Envelope(Signed):
    """A frame with its author's signature."""

    @property
    def first_sequence(self) -> int:
        return self.sequence

    @cached_property
    def signed_bytes(self) -> bytes:
        """The bytes under the signature."""
        return b"".join(
            (
                _named(CONTEXT, self.graph),
                self.author,
                self.sequence.to_bytes(8, "big"),
                self.previous,
                _hash(self.body),
            )
        )

    @cached_property
    def hash(self) -> bytes:
        """BLAKE3 of what is signed."""
        return _hash(self.signed_bytes)

    @property
    def op_statement(self) -> core.Told:
        return core.Told(self.body, self.sequence, self.sequence, None)

    def encode(self) -> bytes:
        """Return MessagePack `[1, author, sequence, previous, body, signature]`."""
        return msgpack.packb(  # type: ignore[no-any-return]
            (VERSION, self.author, self.sequence, self.previous, self.body, self.signature)
        )


@dataclass(frozen=True)
class Summary(Signed):
    """What still counts of an author's frames `start` to `sequence`, said by the author."""

    start: int
    #: `hash` of the frame `sequence`.
    tip: bytes
    #: The clocks that the frames cover: above `after`, up to `last`.
    after: int
    last: int
    #: `vector.digest` of what the author had seen.
    seen: bytes

    @property
    def first_sequence(self) -> int:
        return self.start

    @property
    def hash(self) -> bytes:
        return self.tip

    @cached_property
    def signed_bytes(self) -> bytes:
        """The bytes under the signature."""
        numbers = (self.start, self.sequence, self.after, self.last)
        return b"".join(
            (
                _named(SUMMARY_CONTEXT, self.graph),
                self.author,
                *(number.to_bytes(8, "big") for number in numbers),
                self.previous,
                self.tip,
                self.seen,
                _hash(self.body),
            )
        )

    @property
    def op_statement(self) -> core.Told:
        return core.Told(self.body, self.start, self.sequence, (self.after, self.last))

    def encode(self) -> bytes:
        """Return MessagePack `[2, author, start, sequence, after, last, previous, tip, seen, body, signature]`."""
        return msgpack.packb(  # type: ignore[no-any-return]
            (
                SUMMARY_VERSION,
                self.author,
                self.start,
                self.sequence,
                self.after,
                self.last,
                self.previous,
                self.tip,
                self.seen,
                self.body,
                self.signature,
            )
        )


@dataclass(frozen=True)
class Skipped(Summary):
    """Frames of which nothing is in somebody's part: what the author signed for the last of them, without its frame.

    It says that there are such frames, and which hash the last has, by the author's own signature; who gave it says
    that nothing in them is in the part. It has no body and no clocks.
    """

    #: What is under the signature of the last frame, or of a summary that ends with it.
    statement: bytes

    @classmethod
    def spanning(cls, first: Signed, last: Signed) -> Skipped:
        """Return what stands for all from `first` to `last`, in the same order of one author."""
        return cls(
            graph=last.graph,
            author=last.author,
            sequence=last.sequence,
            previous=first.previous,
            body=b"",
            signature=last.signature,
            start=first.first_sequence,
            tip=last.hash,
            after=0,
            last=0,
            seen=bytes(_DIGEST),
            statement=last.signed_bytes,
        )

    @cached_property
    def signed_bytes(self) -> bytes:
        """The bytes under the signature; none where they say something else than this."""
        place = self.author + self.sequence.to_bytes(8, "big")
        frame = _named(CONTEXT, self.graph) + place
        if self.statement.startswith(frame) and len(self.statement) == len(frame) + 2 * HASH_SIZE:
            return self.statement if _hash(self.statement) == self.tip else b""
        named = _named(SUMMARY_CONTEXT, self.graph) + self.author
        at = len(named) + 8
        told = self.statement[at : at + 8], self.statement[at + 56 : at + 56 + HASH_SIZE]
        whole = self.statement.startswith(named) and len(self.statement) == at + 88 + _DIGEST + HASH_SIZE
        return self.statement if whole and told == (place[-8:], self.tip) else b""

    @property
    def chain_hashes(self) -> dict[int, bytes]:
        return {self.sequence: self.tip}  # what was before, its author has not signed here

    def encode(self) -> bytes:
        """Return MessagePack `[3, author, start, sequence, 0, 0, previous, tip, statement, "", signature]`."""
        return msgpack.packb(  # type: ignore[no-any-return]
            (
                SKIPPED_VERSION,
                self.author,
                self.start,
                self.sequence,
                0,
                0,
                self.previous,
                self.tip,
                self.statement,
                b"",
                self.signature,
            )
        )


def last_clock(handle: core.GraphCore, one: Envelope | Summary) -> int:
    """Return the highest clock that it covers."""
    return one.last if isinstance(one, Summary) else handle.check_frame(one.body)[1]


def sign_frame(identity: Identity, graph: str, sequence: int, previous: bytes, body: bytes) -> Envelope:
    """Sign a frame as its author."""
    unsigned = Envelope(graph, identity.id.key, sequence, previous, body, b"")
    return replace(unsigned, signature=identity.sign(unsigned.signed_bytes))


def sum_up(
    identity: Identity,
    first: Envelope | Summary,
    last: Envelope | Summary,
    clocks: tuple[int, int],
    seen: bytes,
    body: bytes,
) -> Summary:
    """Sign what still counts of the own frames `first` to `last`, which cover these clocks."""
    unsigned = Summary(
        graph=first.graph,
        author=identity.id.key,
        sequence=last.sequence,
        previous=first.previous,
        body=body,
        signature=b"",
        start=first.first_sequence,
        tip=last.hash,
        after=clocks[0],
        last=clocks[1],
        seen=seen,
    )
    return replace(unsigned, signature=identity.sign(unsigned.signed_bytes))


def decode(graph: str, data: bytes) -> Envelope | Summary:
    """Return the envelope or summary in `data`, whose signature and frame have still to be checked.
    `EnvelopeError`."""
    limit = core.FRAME_BYTES + OVERHEAD
    if len(data) > limit:
        raise EnvelopeError(f"an envelope has at most {limit} bytes, not {len(data)}")
    bounds = {"max_bin_len": core.FRAME_BYTES, "max_array_len": 11}
    parts = unpack(data, EnvelopeError, "an envelope", use_list=False, **bounds)
    if not isinstance(parts, tuple) or not parts or type(parts[0]) is not int:
        raise EnvelopeError("not an envelope")
    if parts[0] == VERSION and len(parts) == 6:
        _, author, sequence, previous, body, signature = parts
        _check(author, sequence, sequence, previous, body, signature)
        return Envelope(graph, author, sequence, previous, body, signature)
    if parts[0] == SUMMARY_VERSION and len(parts) == 11:
        _, author, start, sequence, after, last, previous, tip, seen, body, signature = parts
        _check(author, start, sequence, previous, body, signature)
        if not all(type(clock) is int for clock in (after, last)) or not 0 <= after < last <= _MAX_CLOCK:
            raise EnvelopeError("a summary's clocks are not clocks, or out of order")
        _check_sizes((tip, HASH_SIZE), (seen, _DIGEST))
        return Summary(graph, author, sequence, previous, body, signature, start, tip, after, last, seen)
    if parts[0] == SKIPPED_VERSION and len(parts) == 11 and parts[4:6] == (0, 0) and parts[9] == b"":
        _, author, start, sequence, _, _, previous, tip, statement, body, signature = parts
        _check(author, start, sequence, previous, body, signature)
        _check_sizes((tip, HASH_SIZE))
        if not isinstance(statement, bytes) or len(statement) > _MAX_STATEMENT:
            raise EnvelopeError("what is skipped has no statement")
        seen = bytes(_DIGEST)
        return Skipped(graph, author, sequence, previous, body, signature, start, tip, 0, 0, seen, statement)
    raise EnvelopeError(f"not an envelope of version {VERSION}, nor a summary of version {SUMMARY_VERSION}")


def _check(author: Any, first: Any, sequence: Any, previous: Any, body: Any, signature: Any) -> None:
    _check_sizes((author, core.AUTHOR_SIZE), (previous, HASH_SIZE), (signature, _SIGNATURE))
    numbers = type(first) is int and type(sequence) is int
    if not numbers or not 1 <= first <= sequence <= _MAX_SEQUENCE or not isinstance(body, bytes):
        raise EnvelopeError("an envelope's sequence is not a number of a frame, or its body is not bytes")
    if (first == 1) != (previous == NONE_BEFORE):
        raise EnvelopeError("the first envelope of an author, and only that, has none before it")


def _check_sizes(*parts: tuple[Any, int]) -> None:
    if not all(isinstance(part, bytes) and len(part) == size for part, size in parts):
        raise EnvelopeError("an envelope's author, hash or signature has another length")
