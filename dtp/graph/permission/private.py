"""Private nodes: names and values sealed to named readers, merged and passed on by replicas that can't read them.

Each private node has a ring: a key for names and one for each time that somebody left, sealed to the static keys of
its readers by its owner. docs/graph.md, "Private nodes".
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgpack

from dtp.crdt import Value, values
from dtp.crdt.permission.owners import RINGS, STATIC_KEY, owned_soul, owner_name
from dtp.graph.errors import GraphError, KeyLost, NotReader, ReaderUnknown
from dtp.graph.permission.access import key_of
from dtp.graph.permission.rings import RING_KEY, ring_soul
from dtp.identity import CardError, PeerId, verify_static
from dtp.identity.card import PREFIX, account_name, parse_account
from dtp.identity.sealing import KEY_BYTES, MAX_RECIPIENTS, SealBroken, open_sealed, seal

if TYPE_CHECKING:
    from dtp.graph.graph import Graph

log = logging.getLogger("dtp.graph")

RING_DOMAIN: Final = "dtp.graph.ring.v1"
VALUE_DOMAIN: Final = "dtp.graph.value.v1"
#: Times that somebody may leave a node.
MAX_KEYS: Final = 1000
_VERSION: Final = 1
_HEAD: Final = 5
_PROOF: Final = 64
_NAME: Final = 16

#: Somebody's name: as an identity, as text or as 32 bytes; an account's as text.
Peer = PeerId | str | bytes


@dataclass(frozen=True)
class Reader:
    """Who may read: an identity, or an account, of which it is each of the devices that the ring was sealed to."""

    key: bytes
    devices: tuple[bytes, ...] | None = None

    @property
    def is_account(self) -> bool:
        """Whether it is one, and not an identity."""
        return self.devices is not None

    @property
    def identities(self) -> tuple[bytes, ...]:
        """The identities that can open what is sealed to it."""
        return (self.key,) if self.devices is None else self.devices

    def is_same(self, other: Reader) -> bool:
        """Return whether it is the same identity or account, whatever devices there are."""
        return (self.key, self.is_account) == (other.key, other.is_account)

    @property
    def name(self) -> PeerId | str:
        """Its name."""
        return account_name(self.key) if self.is_account else PeerId(self.key)

    def encode(self) -> bytes | list[Any]:
        """Return it as a ring has it: a key, or `[account, [device...]]`."""
        return self.key if self.devices is None else [self.key, list(self.devices)]

    @classmethod
    def decode(cls, told: Any) -> Reader:
        """Return what `encode` gave. Raises `SealBroken`."""
        match told:
            case bytes() if _is_key(told):
                return cls(told)
            case [bytes(account), [*devices]] if _is_key(account) and all(map(_is_key, devices)):
                return cls(account, tuple(devices))
        raise SealBroken(f"not a ring of version {_VERSION}")


def _reader(peer: Peer) -> Reader:
    """Return whom a name is of. Raises `GraphError`."""
    if isinstance(peer, str) and peer.startswith(f"{PREFIX}1"):
        try:
            return Reader(parse_account(peer), ())
        except CardError as error:
            raise GraphError(str(error)) from error
    return Reader(key_of(peer))


@dataclass(frozen=True)
class Ring:
    """What the readers of a node share. The last key is for new values, those before it for older ones."""

    readers: tuple[Reader, ...]
    names: bytes
    keys: tuple[bytes, ...]

    def hidden_key(self, key: str) -> str:
        """Return how a key of the node is named for those who can't read."""
        digest = hashlib.blake2b(key.encode(), digest_size=_NAME, key=self.names).digest()
        return base64.b32encode(digest).decode().rstrip("=").lower()


class PrivateNode(MutableMapping[str, Value]):
    """A node that only its readers can read: `Graph.private`. A mapping of keys to values, as a node is.

    Others see that it is there, how many keys it has, how long values are, who its readers are, who writes and when.
    Raises `NotReader` and `KeyLost` to who can't read it, `SealBroken` for a value that somebody made up. What does
    not open is left out where all is read; `broken` counts it.
    """

    def __init__(self, graph: Graph, owner: Reader, path: str) -> None:
        """Open the sealed node at a soul, as `Graph.private` does."""
        self._graph = graph
        self._owner = owner
        self._path = path
        #: Of the node; its ring is elsewhere.
        self.soul = f"~{owner.name}/{path}"
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
    def is_mine(self) -> bool:
        """Whether this identity, or an account that it is a device of, owns it."""
        graph, owner = self._graph, self._owner
        if not owner.is_account:
            return owner.key == graph.identity.id.key
        return any(card.account == owner.key for card in graph.accounts.mine())

    @property
    def readers(self) -> list[PeerId | str]:
        """Who may read it, the owner first; names of accounts are text. Known to all."""
        return [one.name for one in self._read_ring()[1]]

    def _read_ring(self) -> tuple[int, list[Reader], bytes, bytes]:
        """Return the number of keys, the readers, the sealed part, and all of the ring."""
        node = self._graph.replica.node(self.ring_soul)
        data = node.get(RING_KEY)
        if data is None:
            raise GraphError(f"{self.soul!r} is not a private node, or hasn't come here yet")
        if not self._owner.is_account and node.written(RING_KEY)[0] != self._owner.key:
            raise SealBroken("a ring that isn't its owner's")
        try:
            version, count, readers, sealed = values.decode(data)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise SealBroken("not a ring") from error
        whole = version == _VERSION and type(count) is int and isinstance(sealed, bytes)
        if not whole or not isinstance(readers, list):
            raise SealBroken(f"not a ring of version {_VERSION}")
        return count, [Reader.decode(one) for one in readers], sealed, data

    def _seal_context(self, count: int, readers: Iterable[Reader]) -> bytes:
        told = [one.encode() for one in readers]
        return values.encode([RING_DOMAIN, self._graph.name, self.soul, count, told])

    def _open_ring(self) -> Ring:
        """Return the ring, opened. Raises `NotReader`, `KeyLost`, `SealBroken`, `GraphError`."""
        count, readers, sealed, data = self._read_ring()
        if self._opened is not None and self._opened[0] == data:
            return self._opened[1]
        identity = self._graph.identity
        try:
            plain = open_sealed(sealed, identity.static_private, self._seal_context(count, readers))
        except SealBroken as error:
            if not any(identity.id.key in one.identities for one in readers):
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

    def _seal_ring(self, names: bytes, keys: list[bytes], readers: Iterable[Reader]) -> None:
        if not self.is_mine:
            raise GraphError("only the owner of a private node says who reads it")
        if len(keys) > MAX_KEYS:
            raise GraphError(f"a private node has at most {MAX_KEYS} keys; make another one")
        now = [self._with_devices(one) for one in readers]
        machines = [machine for one in now for machine in one.identities]
        if len(machines) > MAX_RECIPIENTS:
            raise GraphError(
                f"a private node has at most {MAX_RECIPIENTS} readers, the owner and each device among them"
            )
        statics = {machine: self._static_of(machine) for machine in machines}
        sealed = seal(names + b"".join(keys), list(statics.values()), self._seal_context(len(keys), now))
        data = values.encode([_VERSION, len(keys), [one.encode() for one in now], sealed])
        self._graph.replica.node(self.ring_soul)[RING_KEY] = data

    def _with_devices(self, reader: Reader) -> Reader:
        """Return a reader as it is now: of an account, with the devices whose static keys are known. Raises
        `ReaderUnknown`, `GraphError`."""
        if not reader.is_account:
            return reader
        name, accounts = account_name(reader.key), self._graph.accounts
        devices = [one.peer.key for one in accounts.devices(name) if one.is_named and one.ended is None]
        found = tuple(sorted(one for one in devices if self._published_key(one) is not None))
        if not found:
            raise ReaderUnknown(
                f"no device of {name} has published a static key in this graph that has come here; they do by "
                "`graph.access.publish_key()`"
            )
        return Reader(reader.key, found)

    def _published_key(self, machine: bytes) -> bytes | None:
        """Return the static key of an identity, None if it isn't known."""
        if machine == self._graph.identity.id.key:
            return kept_static(self._graph)
        data = self._graph.replica.node(owned_soul(machine)).get(STATIC_KEY)
        if isinstance(data, bytes) and len(data) == KEY_BYTES + _PROOF:
            static, proof = data[:KEY_BYTES], data[KEY_BYTES:]
            if verify_static(PeerId(machine), static, proof):
                return static
        return None

    def _static_of(self, machine: bytes) -> bytes:
        """Return the key to seal to. Raises `ReaderUnknown`, `GraphError`."""
        static = self._published_key(machine)
        if static is None:
            raise ReaderUnknown(
                f"{owner_name(machine)} has published no static key in this graph that has come here; it does by "
                "`graph.access.publish_key()`"
            )
        return static

    def renew(self) -> bool:
        """Seal the node to the devices that accounts among its readers have now; return whether they are others.

        Under a new key, if one is gone: that reads nothing that is written from then on. Done by itself when the
        owner writes, or hears of another card. Only the owner can; raises `GraphError`, `ReaderUnknown`.
        """
        ring = self._open_ring()
        now = [self._with_devices(one) for one in ring.readers]
        before, after = ({m for one in each for m in one.identities} for each in (ring.readers, now))
        if before == after:
            return False
        fresh = [os.urandom(KEY_BYTES)] if before - after else []
        self._seal_ring(ring.names, [*ring.keys, *fresh], now)
        return True

    def make(self, readers: Iterable[Peer]) -> None:
        """Make it, with these readers beside the owner. Raises `ReaderUnknown`, `GraphError`."""
        if self.exists:
            raise GraphError(f"{self.soul!r} is there already; use add_reader and remove_reader")
        others = dict.fromkeys(_reader(one) for one in readers)
        found = [self._owner, *(one for one in others if not one.is_same(self._owner))]
        self._seal_ring(os.urandom(KEY_BYTES), [os.urandom(KEY_BYTES)], found)

    def add_reader(self, peer: Peer) -> None:
        """Let somebody, or an account's devices, read all that is there and to come; of a reader, seal to its new
        static key."""
        ring, new = self._open_ring(), _reader(peer)
        readers = [*ring.readers, *([] if any(one.is_same(new) for one in ring.readers) else [new])]
        self._seal_ring(ring.names, list(ring.keys), readers)

    def remove_reader(self, peer: Peer) -> None:
        """Write under a new key from now on, which this reader doesn't get. What it could read it may have kept.

        Writers that haven't heard of it yet still use the key before. Raises `GraphError` for whoever isn't a reader,
        and for the owner.
        """
        ring, gone = self._open_ring(), _reader(peer)
        if gone.is_same(self._owner) or not any(one.is_same(gone) for one in ring.readers):
            raise GraphError(f"{gone.name} is the owner, or no reader")
        readers = [one for one in ring.readers if not one.is_same(gone)]
        self._seal_ring(ring.names, [*ring.keys, os.urandom(KEY_BYTES)], readers)

    # ---- the mapping --------------------------------------------------------------------------------------------

    def _value_context(self, name: str, number: int, author: bytes) -> bytes:
        """Return what a sealed value is bound to."""
        return values.encode([VALUE_DOMAIN, self._graph.name, self.soul, name, number, author])

    def _open_value(self, ring: Ring, name: str, data: Value, author: bytes) -> tuple[str, Value]:
        """Return key and value. Raises `SealBroken`."""
        from nacl.exceptions import CryptoError
        from nacl.secret import Aead

        if not isinstance(data, bytes) or len(data) < _HEAD or data[0] != _VERSION:
            raise SealBroken("a value in a private node that isn't sealed")
        number = int.from_bytes(data[1:_HEAD], "big")
        if not 1 <= number <= len(ring.keys):
            raise SealBroken(
                "a value is sealed under a key that isn't in this ring; a newer ring may still come"
            )
        try:
            plain = Aead(ring.keys[number - 1]).decrypt(
                data[_HEAD:], self._value_context(name, number, author)
            )
            key, value = values.decode(plain)
        except (CryptoError, ValueError, TypeError, msgpack.UnpackException) as error:
            raise SealBroken("a value in a private node was changed after it was sealed") from error
        if not isinstance(key, str) or ring.hidden_key(key) != name:
            raise SealBroken("a value in a private node that is at another key than it says")
        return key, value

    def __getitem__(self, key: str) -> Value:
        name = self._open_ring().hidden_key(key)
        if name not in self._graph.replica.node(self.soul):
            raise KeyError(key)
        return self.open_hidden(name)[1]

    def open_hidden(self, name: str) -> tuple[str, Value]:
        """Return the key that has a hidden name, which has to be there, and its value. Raises `SealBroken`."""
        node = self._graph.replica.node(self.soul)
        return self._open_value(self._open_ring(), name, node[name], node.written(name)[0])

    def __setitem__(self, key: str, value: Value) -> None:
        from nacl.secret import Aead

        if self.is_mine:
            self.renew()
        ring = self._open_ring()
        name, number = ring.hidden_key(key), len(ring.keys)
        bound = self._value_context(name, number, self._graph.identity.id.key)
        sealed = bytes(Aead(ring.keys[-1]).encrypt(values.encode([key, value]), bound))
        self._graph.replica.node(self.soul)[name] = bytes((_VERSION,)) + number.to_bytes(4, "big") + sealed

    def __delitem__(self, key: str) -> None:
        name = self._open_ring().hidden_key(key)
        node = self._graph.replica.node(self.soul)
        if name not in node:
            raise KeyError(key)
        del node[name]

    def to_dict(self) -> dict[str, Value]:
        """Return all keys and values that open."""
        ring, node = self._open_ring(), self._graph.replica.node(self.soul)
        found: dict[str, Value] = {}
        for name, data in node.to_dict().items():
            try:
                key, value = self._open_value(ring, name, data, node.written(name)[0])
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
        return isinstance(key, str) and self._open_ring().hidden_key(key) in self._graph.replica.node(
            self.soul
        )


def _is_key(data: object) -> bool:
    return isinstance(data, bytes) and len(data) == KEY_BYTES


def private(graph: Graph, place: str, readers: Iterable[Peer] | None) -> PrivateNode:
    """Return the sealed node at a soul, made if it is one's own and not there."""
    if place.startswith("~"):
        name, _, path = place[1:].partition("/")
        node = PrivateNode(graph, _reader(name), path)
    else:
        node = PrivateNode(graph, Reader(graph.identity.id.key), place)
    if not node._path or node._path.partition("/")[0] == RINGS:
        raise GraphError("a private node must be at a path of its owner's")
    if readers is not None and not node.is_mine:
        raise GraphError(
            f"{node.soul!r} is another's: its owner says who reads it; leave out `readers` to open it"
        )
    if readers is not None and not node.exists:
        node.make(readers)
    return node


def renew_all(graph: Graph) -> None:
    """Seal what this identity, or its account, owns to the devices that readers have now. What can't be is told to
    the log: the next write says so."""
    owners = [str(graph.identity.id), *(card.name for card in graph.accounts.mine())]
    for owner in owners:
        root = f"~{owner}/{RINGS}/"
        for soul in graph.replica.souls(root):
            node = PrivateNode(graph, _reader(owner), soul.removeprefix(root))
            try:
                if node.exists and any(one.is_account for one in node._read_ring()[1]):
                    node.renew()
            except (GraphError, NotReader, KeyLost, ReaderUnknown, SealBroken) as error:
                log.warning("%s is not sealed anew: %s", node.soul, error)


def publish_key(graph: Graph) -> None:
    """Publish this identity's static key, to which private nodes are sealed, with its proof."""
    data = kept_static(graph) + graph.identity.static_proof
    node = graph.node(owned_soul(graph.identity.id.key))
    if node.get(STATIC_KEY) != data:
        node[STATIC_KEY] = data


def kept_static(graph: Graph) -> bytes:
    """Return the own static key. Raises `GraphError` for one that is gone with this process."""
    if not graph.identity.static_stored:
        raise GraphError(
            "this identity has no static key that is kept, and what is sealed to one made up now could never be "
            "opened again: make a file with both keys (`dtp keygen --import`)"
        )
    return graph.identity.static_public
