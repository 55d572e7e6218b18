"""The tree of hashes over a segment's pieces: the Merkle Tree Hash of RFC 6962, section 2.1, with SHA-256."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

HASH_SIZE: Final = 32


def leaf_hash(piece: bytes | memoryview) -> bytes:
    """Return the hash of a piece as a leaf of the tree."""
    state = sha256(b"\0")
    state.update(piece)
    return state.digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root over hashes of leaves, in order; without leaves, the hash of the empty string."""
    if not leaves:
        return sha256().digest()
    # Joining neighbours, and passing on a last one without a neighbour, gives the same tree as the RFC's splits.
    level = list(leaves)
    while len(level) > 1:
        paired = [
            sha256(b"\1" + left + right).digest()
            for left, right in zip(level[::2], level[1::2], strict=False)
        ]
        level = paired + level[len(level) & ~1 :]
    return level[0]
