"""Places in the DHT: 256-bit numbers, compared by exclusive or. A node's place follows from its key, a record's
from its name.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

from dtp.unicode import encode_text

BITS: Final = 256
SIZE: Final = BITS // 8
_REMEMBERED: Final = 8192

#: BLAKE2b's personalization for each kind of place, so that none is taken for another.
NODE: Final = b"dtp.dht.node"
PEER: Final = b"dtp.dht.peer"
MUTABLE: Final = b"dtp.dht.mutable"
PROVIDERS: Final = b"dtp.dht.provide"


def place_of(person: bytes, *parts: bytes) -> bytes:
    """Return BLAKE2b-256 of the concatenated parts with a personalization, 32 bytes."""
    return hashlib.blake2b(b"".join(parts), digest_size=SIZE, person=person).digest()


@lru_cache(maxsize=_REMEMBERED)
def node_id(key: bytes) -> int:
    """Return the place of the node with this public key (32 bytes). It can only be chosen by trying many keys."""
    return int.from_bytes(place_of(NODE, key), "big")


def peer_target(key: bytes) -> bytes:
    """Return the place of the record of the peer with this public key."""
    return place_of(PEER, key)


def mutable_target(key: bytes, name: str) -> bytes:
    """Return the place of a value, by its name, of the peer with this public key."""
    return place_of(MUTABLE, key, encode_text(name, "a name in the DHT"))


def provider_target(content_hash: bytes) -> bytes:
    """Return the place of the providers of a content. The nodes that keep them don't learn the content's hash."""
    return place_of(PROVIDERS, content_hash)
