"""A state as its author signs it, and as bytes. docs/presence.md, "States"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgpack
from blake3 import blake3

from dtp.core.sequence import TextFormat
from dtp.core.signatures import SignedMessage, first_forged
from dtp.crdt.replicated import Anchor
from dtp.crdt.values import BlobRef, GraphValueError, Link, Value, decode_extension, encode
from dtp.graph.errors import GraphError, SyncError
from dtp.identity import Identity, PeerId
from dtp.identity.peer_id import PeerIdError

#: Goes before what is signed. No other signature of this project begins so.
CONTEXT: Final = b"dtp.graph.presence.v1"
#: Bytes of a state's value, at most.
MAX_VALUE: Final = 4096
#: Bytes of a session's id.
SESSION: Final = 16
#: How deep lists and dicts may be in each other.
MAX_DEPTH: Final = 32
#: The extension of MessagePack that an anchor is, in states alone.
ANCHOR: Final = 4
_KEY: Final = 32
#: What a state has besides None, anchors, lists and dicts. Dates have an extension that is an anchor's here.
_SAID: Final = (bool, int, float, str, bytes, bytearray, Link, BlobRef)
_SIGNATURE: Final = 64
_MOST: Final = (1 << 63) - 1


class Key(NamedTuple):
    """Whose state it is: an author (public key), and one run of its program."""

    author: bytes
    session: bytes


@dataclass(frozen=True, slots=True)
class PresenceState:
    """What an author says of itself in one session, and that it said so."""

    author: bytes
    session: bytes
    #: Of the session's states: each is above the one before.
    sequence: int
    #: When it was signed by its author's clock, ms since 1970.
    date: int
    #: MessagePack of a map; nothing when the author has gone.
    value: bytes
    signature: bytes

    @property
    def key(self) -> Key:
        """Whose it is."""
        return Key(self.author, self.session)

    def signed_bytes(self, graph: str) -> bytes:
        """Return the bytes under the signature, in the graph of this name."""
        name = graph.encode()
        parts = (
            CONTEXT,
            bytes((len(name),)),
            name,
            self.author,
            self.session,
            self.sequence.to_bytes(8, "big"),
            self.date.to_bytes(8, "big"),
            blake3(self.value).digest(),
        )
        return b"".join(parts)

    def encode(self) -> tuple[bytes, bytes, int, int, bytes, bytes]:
        """Return it as it is packed into a message."""
        return self.author, self.session, self.sequence, self.date, self.value, self.signature


def sign(
    identity: Identity, graph: str, session: bytes, sequence: int, date: int, value: bytes
) -> PresenceState:
    """Return a state of one's own."""
    unsigned = PresenceState(identity.id.key, session, sequence, date, value, b"")
    signature = identity.sign(unsigned.signed_bytes(graph))
    return PresenceState(identity.id.key, session, sequence, date, value, signature)


def decode(parts: Any) -> PresenceState:
    """Return the state that a message has, not checked yet (`check_genuine`). Raises `SyncError`."""
    kinds = (bytes, bytes, int, int, bytes, bytes)
    whole = isinstance(parts, list) and len(parts) == len(kinds)
    if not whole or not all(type(part) is kind for part, kind in zip(parts, kinds, strict=True)):
        raise SyncError("the peer passes on something that is not a state")
    state = PresenceState(*parts)
    sizes = len(state.author) == _KEY and len(state.session) == SESSION and len(state.signature) == _SIGNATURE
    if not sizes or not (1 <= state.sequence <= _MOST and 0 <= state.date <= _MOST):
        raise SyncError("the peer passes on something that is not a state")
    if len(state.value) > MAX_VALUE:
        raise SyncError(
            f"the peer passes on a state of {len(state.value)} bytes; at most {MAX_VALUE} are taken"
        )
    try:
        PeerId(state.author)
    except PeerIdError as error:
        raise SyncError("the peer passes on a state of an author who can't be") from error
    return state


def check_genuine(states: Iterable[PresenceState], graph: str) -> None:
    """Raise `SyncError` unless all are signed by their authors, for the graph of this name, and can be read."""
    batch = list(states)
    for state in batch:
        if state.value:
            decode_state(state.value)
    if first_forged([SignedMessage(s.author, s.signature, s.signed_bytes(graph)) for s in batch]) is not None:
        raise SyncError(f"the peer passes on a state that its author did not sign for graph {graph!r}")


def encode_state(state: Mapping[str, Value]) -> bytes:
    """Return the value of a state as bytes. Raises `GraphValueError`, `GraphError` when it is too large."""
    value = encode({key: _packed(one, MAX_DEPTH - 1) for key, one in state.items()})
    if len(value) > MAX_VALUE:
        raise GraphError(
            f"a state has at most {MAX_VALUE} bytes, not {len(value)}; put what is larger into a node"
        )
    return value


def _packed(value: Value, depth: int) -> Value:
    """Return the value with anchors as MessagePack has them."""
    if isinstance(value, Anchor):
        return msgpack.ExtType(ANCHOR, value.encode())
    if isinstance(value, list | tuple | dict):
        if not depth:
            raise GraphValueError(f"lists and dicts are at most {MAX_DEPTH} deep in a state")
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise GraphValueError("the keys of dicts are text in a state")
            return {key: _packed(one, depth - 1) for key, one in value.items()}
        return [_packed(one, depth - 1) for one in value]
    if value is None or isinstance(value, _SAID):
        return value
    raise GraphValueError(
        f"{value!r:.100} can't be in a state, which has None, numbers, text, bytes, links, anchors, lists and dicts:"
        " say it as text"
    )


def decode_state(value: bytes) -> dict[str, Value]:
    """Return what a state says. Raises `SyncError` for bytes that `encode_state` would not have given."""
    try:
        found = msgpack.unpackb(value, ext_hook=_extension)
    except (ValueError, TypeError, TextFormat) as error:
        raise SyncError(f"the peer passes on a state that can't be read: {error}") from error
    if type(found) is not dict or not _is_value(found, MAX_DEPTH):
        raise SyncError("the peer passes on a state that is not a map of values")
    return found


def _extension(code: int, data: bytes) -> Any:
    return Anchor.decode(data) if code == ANCHOR else decode_extension(code, data)


def _is_value(value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        within = depth > 0 and all(type(key) is str for key in value)
        return within and all(_is_value(one, depth - 1) for one in value.values())
    if isinstance(value, list):
        return depth > 0 and all(_is_value(one, depth - 1) for one in value)
    return value is None or type(value) in (bool, int, float, str, bytes, Link, BlobRef, Anchor)
