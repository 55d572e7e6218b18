"""What the tests of this folder share: identities that are the same each time, and running with virtual time."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

from dtp.graph import Graph
from dtp.graph.frames.vector import MARK, Head, Vector
from dtp.identity import Identity


def identity(name: str) -> Identity:
    """Somebody."""
    return Identity(
        hashlib.sha256(name.encode()).digest(), hashlib.sha256(name.encode() + b" static").digest()
    )


ALICE, BOB, CAROL = identity("alice"), identity("bob"), identity("carol")


async def told(graph: Graph, who: Identity, other: Graph) -> None:
    """The other graph takes what somebody signed since."""
    key = who.id.key
    await graph.commit()
    await other.receive(
        await graph.frames.read(key, other.frames.vector().get(key, 0) + 1, graph.frames.vector().get(key, 0))
    )


def head(author: bytes, sequence: int, history: int = 0) -> Head:
    """The end of an author's chain in one of the histories that it may have signed."""
    told = author + sequence.to_bytes(8, "big") + bytes([history])
    return Head(sequence, hashlib.sha256(told).digest()[:MARK])


def vector(sequences: Mapping[bytes, int], *, forked: Collection[bytes] = ()) -> Vector:
    """What a replica has of whom; of the `forked` authors another history than others have."""
    return {author: head(author, last, author in forked) for author, last in sequences.items()}
