"""Peer records: what a peer signs to say where it can be reached. One format for LAN, DHT, gossip and the cache on
disk.

Source: docs/peers.md, "The peer record". Anybody may pass a record on: it expires by itself, and its signature
proves who made it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Final

from dtp.errors import LocalError, PeerError
from dtp.identity import Identity, PeerId, PeerIdError
from dtp.identity.keys import SIGNATURE_SIZE
from dtp.packing import pack, unpack

DOMAIN: Final = b"dtp.peer.v1"
#: The largest record, in bytes. With a header it fits into a UDP packet of 1,280 bytes, which every network
#: carries.
MAX_BYTES: Final = 1100
#: More addresses than a machine with several networks and relays has.
MAX_ADDRESSES: Final = 16
MAX_ADDRESS_BYTES: Final = 256
MAX_SERVICES: Final = 32
MAX_SERVICE_BYTES: Final = 64
#: A host name (RFC 1035: 253 bytes), a colon and a port.
MAX_DHT_BYTES: Final = 259
#: Seconds for which a record is valid, at most, so that a peer that has moved is found again within a day.
MAX_TTL: Final = 86_400
#: Seconds for which a record is valid by default. A peer signs the next one long before.
DEFAULT_TTL: Final = 3_600
#: Seconds by which clocks may differ, as in Kerberos (RFC 4120, 1.6).
MAX_SKEW: Final = 300
_MAX_NUMBER: Final = 2**63 - 1
#: Records whose valid signature is remembered, since the same record comes with each hello. About 2 KB each.
_REMEMBERED: Final = 512

#: The keys of a record's map. Others are covered by the signature, and ignored.
PEER, SEQUENCE, EXPIRES, ADDRESSES, SERVICES, DHT = range(1, 7)


class RecordNotSigned(LocalError, ValueError):
    """A record can't have these contents; the message says which limit they exceed."""

    code: ClassVar[str] = "record-not-signed"


class PeerRecordError(PeerError):
    """A peer record can't be used: it is malformed, or one of the errors below."""

    code: ClassVar[str] = "peer-record"


class PeerRecordForged(PeerRecordError):
    """A peer record was not signed by the peer that it names."""

    code: ClassVar[str] = "peer-record-forged"


class PeerRecordExpired(PeerRecordError):
    """A peer record has expired."""

    code: ClassVar[str] = "peer-record-expired"


class PeerRecordFromFuture(PeerRecordError):
    """A peer record was signed in the future, by more than clocks may differ."""

    code: ClassVar[str] = "peer-record-future"


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """The addresses at which `peer` says it can be reached. Made by `sign` and `decode`, which check it."""

    peer: PeerId
    #: Unix time in ms at which the record was signed. It rises with each record of a peer.
    sequence: int
    #: Unix time in seconds from which the record isn't valid any more.
    expires: int
    #: The URLs at which it can be dialled, as `Address.carrier_url` has them: "tcp://192.0.2.7:9000". They aren't
    #: parsed here, since other versions have other carriers.
    addresses: tuple[str, ...]
    #: Names of services that are meant to be public.
    services: tuple[str, ...]
    #: "host:port" of its DHT endpoint (UDP), "" for none.
    dht: str
    #: The signed record as bytes.
    encoded: bytes

    @classmethod
    def sign(
        cls,
        identity: Identity,
        *,
        now: float,
        ttl: float = DEFAULT_TTL,
        addresses: Iterable[str] = (),
        services: Iterable[str] = (),
        dht: str = "",
    ) -> PeerRecord:
        """Return a record of `identity`, signed at Unix time `now` and valid for `ttl` seconds.

        Raise `RecordNotSigned` for contents that exceed a limit.
        """
        sequence, expires = int(now * 1000), int(now + ttl)
        fields: dict[int, object] = {PEER: identity.id.key, SEQUENCE: sequence, EXPIRES: expires}
        optional = {ADDRESSES: list(addresses), SERVICES: list(services), DHT: dht}
        fields.update({key: value for key, value in optional.items() if value})
        body = pack(fields)
        encoded = body + identity.sign(_message(body))
        try:
            _check_size(encoded)
            return cls(*_fields(fields), encoded=encoded)
        except PeerRecordError as fault:
            raise RecordNotSigned(f"this can't be signed: {fault}") from None

    @classmethod
    def decode(cls, data: bytes, *, now: float | None) -> PeerRecord:
        """Return the decoded record, which has to be valid at Unix time `now`; if `now` is None, its time isn't
        checked.

        Raise `PeerRecordError` for a malformed record, and its subclasses for one that is forged, has expired, or
        is from the future.
        """
        _check_size(data)
        record = _verified(bytes(data))
        if now is not None:
            record.check_time(now)
        return record

    def check_time(self, now: float) -> None:
        """Raise `PeerRecordExpired` or `PeerRecordFromFuture` unless the record is valid at Unix time `now`."""
        if self.expires <= now:
            raise PeerRecordExpired(f"the record of {self.peer} expired {now - self.expires:.0f} s ago")
        ahead = self.sequence / 1000 - now
        if ahead > MAX_SKEW:
            raise PeerRecordFromFuture(f"the record of {self.peer} was signed {ahead:.0f} s from now")

    def supersedes(self, other: PeerRecord) -> bool:
        """True if the record is newer than `other`, of the same peer.

        Two of the same sequence are ordered by their bytes, so that everybody keeps the same one.
        """
        return (self.sequence, self.encoded) > (other.sequence, other.encoded)


def host_of_endpoint(endpoint: str) -> str:
    """Return the host of "host:port" or "[address]:port"."""
    return endpoint.rpartition(":")[0].strip("[]")


def _message(body: bytes) -> bytes:
    return bytes((len(DOMAIN),)) + DOMAIN + body


def _check_size(data: bytes) -> None:
    if not SIGNATURE_SIZE < len(data) <= MAX_BYTES:
        raise PeerRecordError(f"a peer record of {len(data)} bytes; {MAX_BYTES} are the most")


@lru_cache(maxsize=_REMEMBERED)
def _verified(data: bytes) -> PeerRecord:
    """Return the record without checking its time. Refused ones aren't remembered."""
    body, signature = data[:-SIGNATURE_SIZE], data[-SIGNATURE_SIZE:]
    unpacked = unpack(body, PeerRecordError, "a peer record", strict_map_key=False, object_pairs_hook=_map_of)
    if not isinstance(unpacked, dict):
        raise PeerRecordError("a peer record is not a map")
    fields = _fields(unpacked)
    if not fields[0].verify(signature, _message(body)):
        raise PeerRecordForged(f"a record that names {fields[0]} isn't signed by it")
    return PeerRecord(*fields, encoded=data)


def _map_of(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return the map. Raise `PeerRecordError` for duplicate keys, since readers would differ about which of them
    counts.
    """
    found = dict(pairs)
    if len(found) != len(pairs) or not {type(key) for key in found} <= {int, str}:
        raise PeerRecordError("a peer record has a key twice, or one that is neither number nor text")
    return found


def _fields(told: dict[Any, Any]) -> tuple[PeerId, int, int, tuple[str, ...], tuple[str, ...], str]:
    """Return the checked fields of a record's map."""
    try:
        peer = PeerId(told.get(PEER, b""))
    except PeerIdError as fault:
        raise PeerRecordError(f"a peer record names no peer: {fault}") from None
    sequence, expires = _number(told, SEQUENCE), _number(told, EXPIRES)
    if not sequence <= expires * 1000 + 999 <= sequence + (MAX_TTL + 1) * 1000:
        raise PeerRecordError(f"a peer record is valid for at most {MAX_TTL} s from when it was signed")
    addresses = _texts(told, ADDRESSES, MAX_ADDRESSES, MAX_ADDRESS_BYTES)
    for each in addresses:
        if not each.isascii() or "://" not in each:
            raise PeerRecordError(f"a peer record has an address that isn't a URL: {each!r}")
    services = _texts(told, SERVICES, MAX_SERVICES, MAX_SERVICE_BYTES)
    dht = told.get(DHT, "")
    if not isinstance(dht, str) or not _is_endpoint(dht):
        raise PeerRecordError(f"a peer record has {dht!r} for its DHT endpoint; it has to be host:port")
    return peer, sequence, expires, addresses, services, dht


def _number(told: dict[Any, Any], key: int) -> int:
    value = told.get(key)
    if type(value) is not int or not 0 <= value <= _MAX_NUMBER:
        raise PeerRecordError("a number of a peer record is missing or out of bounds")
    return value


def _texts(told: dict[Any, Any], key: int, most: int, size: int) -> tuple[str, ...]:
    found = told.get(key, [])
    if not isinstance(found, list) or len(found) > most:
        raise PeerRecordError(f"a peer record lists {most} of a kind at most")
    for each in found:
        if not isinstance(each, str) or not 0 < len(each.encode("utf-8", "surrogatepass")) <= size:
            raise PeerRecordError(
                f"a peer record has a text that is empty, malformed or longer than {size} bytes"
            )
        if not each.isprintable():
            raise PeerRecordError(f"a peer record has a text with control characters: {each!r}")
    if len(set(found)) != len(found):
        raise PeerRecordError("a peer record lists something twice")
    return tuple(found)


def _is_endpoint(text: str) -> bool:
    if not text:
        return True
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and len(text) <= MAX_DHT_BYTES):
        return False
    return text.isascii() and text.isprintable() and " " not in text and 0 < int(port[:6]) < 65_536
