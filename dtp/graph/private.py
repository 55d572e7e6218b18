"""Private nodes: names and values sealed to named readers, merged and passed on by replicas that can't read them.

Each private node has a ring: a key for names and one for each time that somebody left, sealed to the static keys of
its readers by its owner. docs/graph.md, "Private nodes".
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgpack

from dtp.crdt import Value, values
from dtp.crdt.owners import RINGS, STATIC_KEY, owned, owner_name
from dtp.graph.access import key_of
from dtp.graph.errors import GraphError, KeyLost, NotReader, ReaderUnknown
from dtp.graph.rings import RING_KEY, ring_soul
from dtp.identity import PeerId, verify_static
from dtp.identity.sealing import KEY_BYTES, MAX_RECIPIENTS, SealBroken, open_sealed, seal

if TYPE_CHECKING:
    from dtp.graph.graph import Graph

RING_DOMAIN: Final = "dtp.graph.ring.v1"
VALUE_DOMAIN: Final = "dtp.graph.value.v1"
#: Times that somebody may leave a node.
MAX_KEYS: Final = 1000
_VERSION: Final = 1
_HEAD: Final = 5
_PROOF: Final = 64
_NAME: Final = 16

#: Somebody's name: as an identity, as text or as 32 bytes.
Peer = PeerId | str | bytes


@dataclass(frozen=True)
class Ring:
    """What the readers of a node share. The last key is for new values, those before it for older ones."""

    readers: tuple[bytes, ...]
    names: bytes
    keys: tuple[bytes, ...]

    def hidden(self, key: str) -> str:
        """How a key of the node is named for those who can't read."""
        digest = hashlib.blake2b(key.encode(), digest_size=_NAME, key=self.names).digest()
        return base64.b32encode(digest).decode().rstrip("=").lower()


class PrivateNode(MutableMapping[str, Value]):
    """A node that only its readers can read: `Graph.private`. A mapping of keys to values, as a node is.

    Others see that it is there, how many keys it has, how long values are, who its readers are, who writes and when.
    Raises `NotReader` and `KeyLost` to who can't read it, `SealBroken` for a value that somebody made up. What does
    not open is left out where all is read; `broken` counts it.
    """

    def __init__(self, graph: Graph, owner: bytes, path: str) -> None:
        """See `Graph.private`."""
        self._graph = graph
        self._owner = owner
        self._path = path
        #: Of the node; its ring is elsewhere.
        self.soul = owned(owner, path)
        self._opened: tuple[bytes, Ring] | None = None

    def __repr__(self) -> str:
        return f"<PrivateNode {self.soul!r}>"

    # ---- the ring -----------------------------------------------------------------------------------------------

    @property
    def ring_soul(self) -> str:
        """The soul of the node's ring."""
        return ring_soul(self.soul)

    @property
    def exists(self) -> bool:
        """Whether it was made, as far as is known here."""
        return RING_KEY in self._graph.replica.node(self.ring_soul)

    @property
    def readers(self) -> list[PeerId]:
        """Who may read it, the owner first. Known to all."""
        return [PeerId(one) for one in self._read_ring()[1]]

    def _read_ring(self) -> tuple[int, list[bytes], bytes, bytes]:
        """Number of keys, readers, what is sealed, all of it."""
        node = self._graph.replica.node(self.ring_soul)
        data = node.get(RING_KEY)
        if data is None:
            raise GraphError(f"{self.soul!r} is no private node, or hasn't come here yet")
        if node.written(RING_KEY)[0] != self._owner:
            raise SealBroken("a ring that isn't its owner's")
        try:
            version, count, readers, sealed = values.decode(data)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise SealBroken("not a ring") from error
        whole = version == _VERSION and type(count) is int and isinstance(sealed, bytes)
        if not whole or not isinstance(readers, list) or not all(map(_is_key, readers)):
            raise SealBroken(f"not a ring of version {_VERSION}")
        return count, readers, sealed, data

    def _context(self, count: int, readers: Iterable[bytes]) -> bytes:
        return values.encode([RING_DOMAIN, self._graph.name, self.soul, count, list(readers)])

    def _ring(self) -> Ring:
        """The ring, opened. Raises `NotReader`, `KeyLost`, `SealBroken`, `GraphError`."""
        count, readers, sealed, data = self._read_ring()
        if self._opened is not None and self._opened[0] == data:
            return self._opened[1]
        identity = self._graph.identity
        try:
            plain = open_sealed(sealed, identity.static_private, self._context(count, readers))
        except SealBroken as error:
            if identity.id.key not in readers:
                raise NotReader(
                    f"{self.soul!r} is sealed to others; its owner can add {identity.id}"
                ) from error
            raise KeyLost(
                f"{self.soul!r} is sealed to another static key of this identity; load the identity file that has "
                "it, or publish the new one (`publish_key`) and have the owner add it again"
            ) from error
        if len(plain) != KEY_BYTES * (count + 1) or not 1 <= count <= MAX_KEYS:
            raise SealBroken("a ring with another number of keys than it says")
        parts = [plain[at : at + KEY_BYTES] for at in range(0, len(plain), KEY_BYTES)]
        ring = Ring(tuple(readers), parts[0], tuple(parts[1:]))
        self._opened = data, ring
        return ring

    def _seal_ring(self, names: bytes, keys: list[bytes], readers: list[bytes]) -> None:
        identity = self._graph.identity
        if identity.id.key != self._owner:
            raise GraphError("only the owner of a private node says who reads it")
        if len(keys) > MAX_KEYS:
            raise GraphError(f"a private node has at most {MAX_KEYS} keys; make another one")
        if len(readers) > MAX_RECIPIENTS:
            raise GraphError(f"a private node has at most {MAX_RECIPIENTS} readers, the owner among them")
        statics = [self._static_of(reader) for reader in readers]
        sealed = seal(names + b"".join(keys), statics, self._context(len(keys), readers))
        data = values.encode([_VERSION, len(keys), readers, sealed])
        self._graph.replica.node(self.ring_soul)[RING_KEY] = data

    def _static_of(self, reader: bytes) -> bytes:
        """The key to seal to. Raises `ReaderUnknown`, `GraphError`."""
        identity = self._graph.identity
        if reader == identity.id.key:
            return kept_static(self._graph)
        data = self._graph.replica.node(owned(reader)).get(STATIC_KEY)
        if isinstance(data, bytes) and len(data) == KEY_BYTES + _PROOF:
            static, proof = data[:KEY_BYTES], data[KEY_BYTES:]
            if verify_static(PeerId(reader), static, proof):
                return static
        raise ReaderUnknown(
            f"{owner_name(reader)} has published no static key in this graph that has come here; it does by "
            "`graph.publish_key()`"
        )

    def make(self, readers: Iterable[Peer]) -> None:
        """Make it, with these readers beside the owner. Raises `ReaderUnknown`, `GraphError`."""
        if self.exists:
            raise GraphError(f"{self.soul!r} is there already; use add_reader and remove_reader")
        others = dict.fromkeys(key_of(one) for one in readers)
        others.pop(self._owner, None)
        self._seal_ring(os.urandom(KEY_BYTES), [os.urandom(KEY_BYTES)], [self._owner, *others])

    def add_reader(self, peer: Peer) -> None:
        """Let somebody read all that is there and to come; of a reader, seal to its new static key."""
        ring = self._ring()
        readers = list(dict.fromkeys([*ring.readers, key_of(peer)]))
        self._seal_ring(ring.names, list(ring.keys), readers)

    def remove_reader(self, peer: Peer) -> None:
        """From now on write under a new key that this reader doesn't get. What it could read it may have kept.

        Writers that haven't heard of it yet still use the key before. Raises `GraphError` for who is no reader, and
        for the owner.
        """
        ring, gone = self._ring(), key_of(peer)
        if gone == self._owner or gone not in ring.readers:
            raise GraphError(f"{owner_name(gone)} is the owner, or no reader")
        readers = [one for one in ring.readers if one != gone]
        self._seal_ring(ring.names, [*ring.keys, os.urandom(KEY_BYTES)], readers)

    # ---- the mapping --------------------------------------------------------------------------------------------

    def _bound(self, name: str, number: int, author: bytes) -> bytes:
        """What a sealed value is bound to."""
        return values.encode([VALUE_DOMAIN, self._graph.name, self.soul, name, number, author])

    def _open(self, ring: Ring, name: str, data: Value, author: bytes) -> tuple[str, Value]:
        """Key and value. Raises `SealBroken`."""
        from nacl.exceptions import CryptoError
        from nacl.secret import Aead

        if not isinstance(data, bytes) or len(data) < _HEAD or data[0] != _VERSION:
            raise SealBroken("a value in a private node that isn't sealed")
        number = int.from_bytes(data[1:_HEAD], "big")
        if not 1 <= number <= len(ring.keys):
            raise SealBroken("a value under a key that this ring doesn't have; the newer ring may be to come")
        try:
            plain = Aead(ring.keys[number - 1]).decrypt(data[_HEAD:], self._bound(name, number, author))
            key, value = values.decode(plain)
        except (CryptoError, ValueError, TypeError, msgpack.UnpackException) as error:
            raise SealBroken("a value in a private node that isn't what was sealed there") from error
        if not isinstance(key, str) or ring.hidden(key) != name:
            raise SealBroken("a value in a private node that is at another key than it says")
        return key, value

    def __getitem__(self, key: str) -> Value:
        ring, node = self._ring(), self._graph.replica.node(self.soul)
        name = ring.hidden(key)
        data = node.get(name)
        if data is None:
            raise KeyError(key)
        return self._open(ring, name, data, node.written(name)[0])[1]

    def __setitem__(self, key: str, value: Value) -> None:
        from nacl.secret import Aead

        ring = self._ring()
        name, number = ring.hidden(key), len(ring.keys)
        bound = self._bound(name, number, self._graph.identity.id.key)
        sealed = bytes(Aead(ring.keys[-1]).encrypt(values.encode([key, value]), bound))
        self._graph.replica.node(self.soul)[name] = bytes((_VERSION,)) + number.to_bytes(4, "big") + sealed

    def __delitem__(self, key: str) -> None:
        name = self._ring().hidden(key)
        node = self._graph.replica.node(self.soul)
        if name not in node:
            raise KeyError(key)
        del node[name]

    def to_dict(self) -> dict[str, Value]:
        """All keys and values that open."""
        ring, node = self._ring(), self._graph.replica.node(self.soul)
        found: dict[str, Value] = {}
        for name, data in node.to_dict().items():
            try:
                key, value = self._open(ring, name, data, node.written(name)[0])
            except SealBroken:
                continue
            found[key] = value
        return found

    @property
    def broken(self) -> int:
        """How many values are there that don't open."""
        return len(self._graph.replica.node(self.soul)) - len(self.to_dict())

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._ring().hidden(key) in self._graph.replica.node(self.soul)


def _is_key(data: object) -> bool:
    return isinstance(data, bytes) and len(data) == KEY_BYTES


def private(graph: Graph, place: str, readers: Iterable[Peer] | None) -> PrivateNode:
    """See `Graph.private`."""
    if place.startswith("~"):
        name, _, path = place[1:].partition("/")
        node = PrivateNode(graph, key_of(name), path)
    else:
        node = PrivateNode(graph, graph.identity.id.key, place)
    if not node._path or node._path.partition("/")[0] == RINGS:
        raise GraphError("a private node is at a path of its owner's")
    if readers is not None and node._owner != graph.identity.id.key:
        raise GraphError(
            f"{node.soul!r} is another's: its owner says who reads it; leave out `readers` to open it"
        )
    if readers is not None and not node.exists:
        node.make(readers)
    return node


def publish_key(graph: Graph) -> None:
    """See `Graph.publish_key`."""
    data = kept_static(graph) + graph.identity.static_proof
    node = graph.node(owned(graph.identity.id.key))
    if node.get(STATIC_KEY) != data:
        node[STATIC_KEY] = data


def kept_static(graph: Graph) -> bytes:
    """The own static key. Raises `GraphError` for one that is gone with this process."""
    if not graph.identity.static_stored:
        raise GraphError(
            "this identity has no static key that is kept, and what is sealed to one made up now could never be "
            "opened again: make a file with both keys (`dtp keygen --import`)"
        )
    return graph.identity.static_public
