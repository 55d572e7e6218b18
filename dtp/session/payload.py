"""The payload inside the handshake: who I am, what I want, what I allow. MessagePack, bounded, typed.

Source: docs/wire.md, section "Payload". Unknown keys are skipped, so a newer peer can say more.
"""

from __future__ import annotations

from dataclasses import dataclass

from dtp.identity import PeerId, PeerIdError
from dtp.packing import pack, unpack
from dtp.session.codes import HandshakeError
from dtp.session.limits import STREAMS_AHEAD, Limits

#: Versions of what flows inside the records, newest first. The hello's version byte is that of the handshake.
VERSIONS = (1,)
#: The longest service name, bytes of UTF-8.
MAX_SERVICE = 255
#: The length of a connection's id, bytes.
CONNECTION_ID = 16

_PROOF = 64
_MAX_FEATURES = 64
_MAX_DEPTH = 16
_OF_CLIENTS = ("service", "ticket", "resume")


@dataclass(frozen=True, slots=True)
class Params:
    """What this side allows the other: the limits that are told (see `dtp.session.limits`)."""

    stream_window: int
    connection_window: int
    streams: int
    datagram: int

    @classmethod
    def from_limits(cls, limits: Limits) -> Params:
        """Return the told part of `limits`."""
        streams = min(limits.streams, STREAMS_AHEAD)
        return cls(limits.first_credit, limits.connection_window, streams, limits.datagram)


@dataclass(frozen=True, slots=True)
class Payload:
    """One side's payload.

    `proof` is the identity's signature over its static key (64 bytes). `service`, `ticket` and `resume` (the id
    of the connection to go on with, 16 bytes, or empty) are sent by the client only.
    """

    peer: PeerId
    proof: bytes
    params: Params
    versions: tuple[int, ...] = VERSIONS
    features: frozenset[str] = frozenset()
    service: str = ""
    ticket: bytes = b""
    resume: bytes = b""


def build_payload(payload: Payload) -> bytes:
    """Return the bytes of a payload; keys that would be empty are left out."""
    params = payload.params
    fields: dict[str, object] = {
        "id": payload.peer.key,
        "proof": payload.proof,
        "versions": list(payload.versions),
        "params": [params.stream_window, params.connection_window, params.streams, params.datagram],
    }
    if payload.features:
        fields["features"] = sorted(payload.features)
    if payload.service:
        fields["service"] = payload.service
    if payload.ticket:
        fields["ticket"] = payload.ticket
    if payload.resume:
        fields["resume"] = payload.resume
    return pack(fields)


def parse_payload(data: bytes, limits: Limits, *, from_server: bool = False) -> Payload:
    """Return a payload from the peer, every field checked. `HandshakeError` names the field that is wrong.

    What only a client says is skipped where it is `from_server`, as unknown keys are.
    """
    if len(data) > limits.payload:
        raise HandshakeError(f"payload of {len(data)} bytes is above {limits.payload}")
    fields = unpack(data, HandshakeError, "payload", object_pairs_hook=_map_of)
    if not isinstance(fields, dict) or not all(isinstance(key, str) for key in fields):
        raise HandshakeError("payload is not a map whose keys are strings")
    if _depth(fields) > _MAX_DEPTH:
        raise HandshakeError(f"payload nests more than {_MAX_DEPTH} deep")
    if from_server:
        fields = {key: value for key, value in fields.items() if key not in _OF_CLIENTS}
    try:
        peer = PeerId(_bytes(fields, "id", 32))
    except PeerIdError as error:
        raise HandshakeError(f"payload field 'id': {error}") from None
    return Payload(
        peer=peer,
        proof=_bytes(fields, "proof", _PROOF),
        params=_params(fields),
        versions=tuple(_integers(fields, "versions", maximum=16)),
        features=_features(fields),
        service=_service(fields),
        ticket=_bytes(fields, "ticket", None),
        resume=_bytes(fields, "resume", CONNECTION_ID) if "resume" in fields else b"",
    )


def _map_of(pairs: list[tuple[object, object]]) -> dict[object, object]:
    """Return a map of MessagePack; raise `ValueError` where a key comes twice: readers would differ in what it is."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _depth(value: object) -> int:
    """Return how deep arrays and maps are in each other, or `_MAX_DEPTH` and one where it is more."""
    level, deep = [value], 0
    while deep <= _MAX_DEPTH:
        held = [each for each in level if isinstance(each, dict | list)]
        if not held:
            return deep
        level = [one for each in held for one in (each.values() if isinstance(each, dict) else each)]
        deep += 1
    return deep


def choose_version(ours: tuple[int, ...], theirs: tuple[int, ...]) -> int:
    """Return the newest version that both know; `HandshakeError` when there is none."""
    common = set(ours) & set(theirs)
    if not common:
        raise HandshakeError(f"no common version: we speak {list(ours)}, the peer {list(theirs)}")
    return max(common)


def _bytes(fields: dict[object, object], name: str, size: int | None) -> bytes:
    value = fields.get(name, b"")
    if not isinstance(value, bytes) or (size is not None and len(value) != size):
        raise HandshakeError(f"payload field {name!r} must be {size if size is not None else 'any'} bytes")
    return value


def _integers(fields: dict[object, object], name: str, maximum: int) -> list[int]:
    value = fields.get(name)
    if not isinstance(value, list) or not 0 < len(value) <= maximum:
        raise HandshakeError(f"payload field {name!r} must be a list of 1 to {maximum} integers")
    if not all(type(item) is int and 0 <= item < 2**62 for item in value):
        raise HandshakeError(f"payload field {name!r} must hold integers from 0 to 2^62 - 1")
    return value


def _params(fields: dict[object, object]) -> Params:
    values = _integers(fields, "params", maximum=16)
    if len(values) < 4:
        raise HandshakeError("payload field 'params' must have at least 4 integers")
    return Params(*values[:4])


def _features(fields: dict[object, object]) -> frozenset[str]:
    value = fields.get("features", [])
    if (
        not isinstance(value, list)
        or len(value) > _MAX_FEATURES
        or not all(isinstance(item, str) for item in value)
    ):
        raise HandshakeError(f"payload field 'features' must be a list of at most {_MAX_FEATURES} strings")
    return frozenset(value)


def _service(fields: dict[object, object]) -> str:
    value = fields.get("service", "")
    if not isinstance(value, str) or len(value.encode(errors="replace")) > MAX_SERVICE:
        raise HandshakeError(f"payload field 'service' must be text of at most {MAX_SERVICE} bytes")
    return value
