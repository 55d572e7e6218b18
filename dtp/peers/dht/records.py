"""The records of the DHT, which prove themselves, whoever passes them on. Source: docs/dht.md, "Records".

`PeerRecord` says where a peer is, `Mutable` is a peer's value under a name, and `Provider` says who has a content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final, TypeAlias

from dtp.carriers.nearness import Nearness
from dtp.identity import Identity, PeerId, PeerIdError
from dtp.identity.keys import SIGNATURE_SIZE
from dtp.packing import pack, unpack
from dtp.peers.dht import ids
from dtp.peers.dht.errors import (
    DhtError,
    DhtRecordError,
    DhtRecordExpired,
    DhtRecordForged,
    DhtRecordFromFuture,
)
from dtp.peers.passing_on import may_be_passed_on, where_it_leads_again
from dtp.peers.record import (
    MAX_SKEW,
    MAX_TTL,
    PeerRecord,
    PeerRecordError,
    PeerRecordExpired,
    PeerRecordForged,
    PeerRecordFromFuture,
)
from dtp.unicode import encode_text

MUTABLE_DOMAIN: Final = b"dtp.dht.mutable.v1"
PROVIDER_DOMAIN: Final = b"dtp.dht.provider.v1"
#: The largest value, in bytes: it fits into one packet with its name, its signature and the headers.
MAX_VALUE: Final = 800
#: The longest name of a value, in bytes of UTF-8.
MAX_NAME: Final = 64
#: The largest record, in bytes (`PeerRecord` has its own limit, which is the same as that of messages).
MAX_BYTES: Final = 1100
#: Seconds for which a record is valid by default: longer than its author is likely to be offline overnight.
DEFAULT_TTL: Final = 24 * 3600
_MAX_NUMBER: Final = 2**63 - 1
#: Records whose signature was verified and is remembered, since they come again with each republishing.
_REMEMBERED: Final = 1024


class RecordKind(IntEnum):
    """The kinds of records. Each has places of its own."""

    PEER = 1
    MUTABLE = 2
    PROVIDER = 3


@dataclass(frozen=True, slots=True)
class Mutable:
    """A value of `peer` under `name`. A higher `sequence` replaces it."""

    peer: PeerId
    name: str
    sequence: int
    #: Unix time in seconds: when it was signed, and until when it is believed.
    issued: int
    expires: int
    value: bytes
    #: The record as bytes, signed.
    encoded: bytes

    @classmethod
    def sign(
        cls,
        identity: Identity,
        value: bytes,
        *,
        name: str,
        sequence: int,
        now: float,
        ttl: float = DEFAULT_TTL,
    ) -> Mutable:
        """Return the record, signed at Unix time `now` and valid for `ttl` seconds. Raise `DhtError` for contents
        that exceed a limit.
        """
        if not isinstance(value, bytes) or len(value) > MAX_VALUE:
            raise DhtError(f"a value of the DHT is bytes, {MAX_VALUE} at most")
        size = len(encode_text(name, "a name in the DHT", DhtError))
        if not 0 < size <= MAX_NAME:
            raise DhtError(f"a name in the DHT has 1 to {MAX_NAME} bytes, not {size}")
        if not 0 <= sequence <= _MAX_NUMBER:
            raise DhtError("a sequence is between 0 and 2^63 - 1")
        issued, expires = _times(now, ttl)
        fields = [identity.id.key, name, sequence, issued, expires, value]
        return cls(
            identity.id, name, sequence, issued, expires, value, _sign(identity, MUTABLE_DOMAIN, fields)
        )


@dataclass(frozen=True, slots=True)
class Provider:
    """The statement that `peer` has the content whose providers are kept at `target`."""

    target: bytes
    peer: PeerId
    #: Unix time in seconds: when it was signed, and until when it is believed.
    issued: int
    expires: int
    #: The record as bytes, signed.
    encoded: bytes

    @classmethod
    def sign(
        cls, identity: Identity, content_hash: bytes, *, now: float, ttl: float = DEFAULT_TTL
    ) -> Provider:
        """Return the record, signed at Unix time `now`. Raise `DhtError` unless the hash has 32 bytes."""
        if len(content_hash) != ids.SIZE:
            raise DhtError(f"the hash of a content has {ids.SIZE} bytes, not {len(content_hash)}")
        issued, expires = _times(now, ttl)
        target = ids.provider_target(content_hash)
        fields = [target, identity.id.key, issued, expires]
        return cls(target, identity.id, issued, expires, _sign(identity, PROVIDER_DOMAIN, fields))


Value: TypeAlias = PeerRecord | Mutable | Provider


@dataclass(frozen=True, slots=True)
class Record:
    """Any record, as the nodes that keep it see it."""

    kind: RecordKind
    target: bytes
    #: The author's public key. There is one record of each author at a target.
    author: bytes
    #: A record with a greater order replaces one with a lesser.
    order: tuple[int, int, bytes]
    expires: int
    encoded: bytes
    value: Value

    @classmethod
    def from_value(cls, value: Value) -> Record:
        """Return the record of `value`, with its kind, target and order."""
        match value:
            case PeerRecord():
                kind, target = RecordKind.PEER, ids.peer_target(value.peer.key)
                sequence = value.sequence
            case Mutable():
                kind, target = RecordKind.MUTABLE, ids.mutable_target(value.peer.key, value.name)
                sequence = value.sequence
            case Provider():
                kind, target = RecordKind.PROVIDER, value.target
                sequence = value.issued
        order = (sequence, value.expires, value.encoded)
        return cls(kind, target, value.peer.key, order, value.expires, value.encoded, value)

    def is_for(self, hearer: Nearness, teller: Nearness) -> bool:
        """Return True if a peer at `hearer` may be told the record, which a peer at `teller` has told: see
        `passing_on`.
        """
        if hearer >= teller or not isinstance(self.value, PeerRecord):
            return True
        return may_be_passed_on(where_it_leads_again(self.value), teller, hearer)

    def is_from_future(self, now: float) -> bool:
        """True if nobody whose clock says `now` accepts the record: it was signed by a clock that is or was ahead."""
        value = self.value
        issued = value.sequence / 1000 if isinstance(value, PeerRecord) else value.issued
        return issued > now + MAX_SKEW


def decode_record(kind: int, data: bytes, now: float) -> Record:
    """Return the decoded record, which has to be valid at Unix time `now`.

    Raise `DhtRecordError` for a malformed record, and its subclasses for one that is forged, has expired, or is
    from the future.
    """
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise DhtRecordError(f"a record of unknown kind {kind}")
    if not 0 < len(data) <= MAX_BYTES:
        raise DhtRecordError(f"a record of {len(data)} bytes; {MAX_BYTES} are the most")
    return decoder(data, now)


def sign_again(value: Value, identity: Identity, now: float) -> Value:
    """Return the record of `identity`, signed anew with the same lifetime. A `Mutable` keeps its sequence."""
    match value:
        case PeerRecord():
            ttl = value.expires - value.sequence / 1000
            return PeerRecord.sign(identity, now=now, ttl=min(ttl + 1, MAX_TTL), addresses=value.addresses,
                                   services=value.services, dht=value.dht)  # fmt: skip
        case Mutable():
            return Mutable.sign(identity, value.value, name=value.name, sequence=value.sequence, now=now,
                                ttl=value.expires - value.issued)  # fmt: skip
        case Provider():
            issued, expires = _times(now, value.expires - value.issued)
            fields = [value.target, identity.id.key, issued, expires]
            return Provider(
                value.target, identity.id, issued, expires, _sign(identity, PROVIDER_DOMAIN, fields)
            )


# ----------------------------------------------------------------------------------------------------------- pieces


def _times(now: float, ttl: float) -> tuple[int, int]:
    if not 1 <= ttl <= MAX_TTL:
        raise DhtError(f"a record is valid for 1 to {MAX_TTL} s, not {ttl:g}")
    return int(now), int(now + ttl)


def _sign(identity: Identity, domain: bytes, fields: list[Any]) -> bytes:
    body = pack(fields)
    return body + identity.sign(_message(domain, body))


def _message(domain: bytes, body: bytes) -> bytes:
    return bytes((len(domain),)) + domain + body


def _peer(data: bytes, now: float) -> Record:
    try:
        return _of_peer(PeerRecord.decode(data, now=now))
    except PeerRecordForged as fault:
        raise DhtRecordForged(str(fault)) from None
    except PeerRecordExpired as fault:
        raise DhtRecordExpired(str(fault)) from None
    except PeerRecordFromFuture as fault:
        raise DhtRecordFromFuture(str(fault)) from None
    except PeerRecordError as fault:
        raise DhtRecordError(str(fault)) from None


@lru_cache(maxsize=_REMEMBERED)
def _of_peer(record: PeerRecord) -> Record:
    return Record.from_value(record)


def _mutable(data: bytes, now: float) -> Record:
    return _in_time(_verified_mutable(data), now)


def _provider(data: bytes, now: float) -> Record:
    return _in_time(_verified_provider(data), now)


def _in_time(record: Record, now: float) -> Record:
    value = record.value
    assert not isinstance(value, PeerRecord)
    if value.expires <= now:
        raise DhtRecordExpired(f"a record of {value.peer} expired {now - value.expires:.0f} s ago")
    if value.issued > now + MAX_SKEW:
        raise DhtRecordFromFuture(f"a record of {value.peer} was signed {value.issued - now:.0f} s from now")
    return record


# A refused record raises an exception, so it isn't cached: strangers can't fill the cache.


@lru_cache(maxsize=_REMEMBERED)
def _verified_mutable(data: bytes) -> Record:
    body, signature = data[:-SIGNATURE_SIZE], data[-SIGNATURE_SIZE:]
    match unpack(body, DhtRecordError, "a record"):
        case [bytes(key), str(name), int(sequence), int(issued), int(expires), bytes(value), *_]:
            pass
        case _:
            raise DhtRecordError("a value of the DHT is malformed")
    if not 0 < len(name.encode("utf-8", "surrogatepass")) <= MAX_NAME or len(value) > MAX_VALUE:
        raise DhtRecordError("a value of the DHT, or its name, is larger than it may be")
    peer = _author(key, signature, MUTABLE_DOMAIN, body, (sequence, issued, expires))
    return Record.from_value(Mutable(peer, name, sequence, issued, expires, value, data))


@lru_cache(maxsize=_REMEMBERED)
def _verified_provider(data: bytes) -> Record:
    body, signature = data[:-SIGNATURE_SIZE], data[-SIGNATURE_SIZE:]
    match unpack(body, DhtRecordError, "a record"):
        case [bytes(target), bytes(key), int(issued), int(expires), *_] if len(target) == ids.SIZE:
            pass
        case _:
            raise DhtRecordError("a provider record is malformed")
    peer = _author(key, signature, PROVIDER_DOMAIN, body, (issued, issued, expires))
    return Record.from_value(Provider(target, peer, issued, expires, data))


def _author(key: bytes, signature: bytes, domain: bytes, body: bytes, numbers: tuple[object, ...]) -> PeerId:
    """Return the author that has signed the body. `numbers` are checked too: the last two are the times of signing
    and of expiry.
    """
    _, issued, expires = _checked_numbers(numbers)
    if not issued < expires <= issued + MAX_TTL:
        raise DhtRecordError(f"a record is valid for at most {MAX_TTL} s from when it was signed")
    try:
        peer = PeerId(key)
    except PeerIdError as fault:
        raise DhtRecordError(f"a record names no peer: {fault}") from None
    if not peer.verify(signature, _message(domain, body)):
        raise DhtRecordForged(f"a record that names {peer} isn't signed by it")
    return peer


def _checked_numbers(numbers: tuple[object, ...]) -> list[int]:
    found = [each for each in numbers if type(each) is int and 0 <= each <= _MAX_NUMBER]
    if len(found) != len(numbers):
        raise DhtRecordError("a number of a record is out of bounds")
    return found


_DECODERS: Final[Mapping[int, Callable[[bytes, float], Record]]] = {
    RecordKind.PEER: _peer,
    RecordKind.MUTABLE: _mutable,
    RecordKind.PROVIDER: _provider,
}
