"""Peer records: what a peer signs to say where it is reached. One format for LAN, DHT, gossip and the cache on disk.

Source: docs/peers.md, "The peer record". Anybody may carry a record: it ends by itself, and proves who said it.
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
#: A record and the head of whatever carries it fit in one UDP packet of 1,280 bytes, which every network takes.
MAX_BYTES: Final = 1100
#: More addresses than a machine with several networks and relays has.
MAX_ADDRESSES: Final = 16
MAX_ADDRESS_BYTES: Final = 256
MAX_SERVICES: Final = 32
MAX_SERVICE_BYTES: Final = 64
#: A host name (RFC 1035: 253 bytes), a colon and a port.
MAX_DHT_BYTES: Final = 259
#: Seconds that a record is believed for, at most: whoever moves is found at the new place within a day.
MAX_TTL: Final = 86_400
#: Seconds that a record is signed for by default: a peer that is there signs the next one long before.
DEFAULT_TTL: Final = 3_600
#: Seconds that clocks may differ, as Kerberos has it (RFC 4120, 1.6).
MAX_SKEW: Final = 300
_MAX_NUMBER: Final = 2**63 - 1
#: Records whose signature is remembered as good, since the same one comes with each hello. About 2 KB each.
_REMEMBERED: Final = 512

#: The keys of a record's map. Others are signed over and not looked at.
PEER, SEQUENCE, EXPIRES, ADDRESSES, SERVICES, DHT = range(1, 7)


class RecordNotSigned(LocalError, ValueError):
    """A record can't say this; the message says which bound it breaks."""

    code: ClassVar[str] = "record-not-signed"


class PeerRecordError(PeerError):
    """A peer record can't be used: it is malformed, or one of the errors below."""

    code: ClassVar[str] = "peer-record"


class PeerRecordForged(PeerRecordError):
    """A peer record was not signed by the peer that it names."""

    code: ClassVar[str] = "peer-record-forged"


class PeerRecordExpired(PeerRecordError):
    """A peer record has ended."""

    code: ClassVar[str] = "peer-record-expired"


class PeerRecordFromFuture(PeerRecordError):
    """A peer record was signed later than now, by more than clocks differ."""

    code: ClassVar[str] = "peer-record-future"


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """Where `peer` says that it is reached. Made by `sign` and `decode`, which check it."""

    peer: PeerId
    #: Rises with each record of this peer: Unix time in milliseconds when it was signed.
    sequence: int
    #: Unix time in seconds after which it is not believed any more.
    expires: int
    #: Where it is dialled, as `Address.carrier_url` gives it: "tcp://192.0.2.7:9000". They are not parsed here: other
    #: versions have other carriers.
    addresses: tuple[str, ...]
    #: Names of services that are meant to be public.
    services: tuple[str, ...]
    #: "host:port" of its DHT endpoint (UDP), "" for none.
    dht: str
    #: The record as bytes, signed.
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
        """Return the record of `identity` as of Unix time `now`, good for `ttl` seconds.

        Raise `RecordNotSigned` for what breaks a bound.
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
        """Return the record that these bytes are, at Unix time `now`; whenever it holds, where that is None.

        Raise `PeerRecordError` for what is malformed, and its subclasses for what is forged, has expired, or is from
        the future.
        """
        _check_size(data)
        record = _verified(bytes(data))
        if now is not None:
            record.check_time(now)
        return record

    def check_time(self, now: float) -> None:
        """Raise `PeerRecordExpired` or `PeerRecordFromFuture` unless it holds at Unix time `now`."""
        if self.expires <= now:
            raise PeerRecordExpired(f"the record of {self.peer} ended {now - self.expires:.0f} s ago")
        ahead = self.sequence / 1000 - now
        if ahead > MAX_SKEW:
            raise PeerRecordFromFuture(f"the record of {self.peer} was signed {ahead:.0f} s from now")

    def supersedes(self, other: PeerRecord) -> bool:
        """True if it is newer than `other`, of the same peer.

        Two of one sequence are told apart by their bytes, so that everybody keeps the same one.
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
    """Return the record, whenever it holds. What is refused isn't remembered."""
    body, signature = data[:-SIGNATURE_SIZE], data[-SIGNATURE_SIZE:]
    unpacked = unpack(body, PeerRecordError, "a peer record", strict_map_key=False, object_pairs_hook=_map_of)
    if not isinstance(unpacked, dict):
        raise PeerRecordError("a peer record is not a map")
    fields = _fields(unpacked)
    if not fields[0].verify(signature, _message(body)):
        raise PeerRecordForged(f"a record that names {fields[0]} isn't signed by it")
    return PeerRecord(*fields, encoded=data)


def _map_of(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Refuse keys that come twice: readers would differ about which of them counts."""
    found = dict(pairs)
    if len(found) != len(pairs) or not {type(key) for key in found} <= {int, str}:
        raise PeerRecordError("a peer record has a key twice, or one that is neither number nor text")
    return found


def _fields(told: dict[Any, Any]) -> tuple[PeerId, int, int, tuple[str, ...], tuple[str, ...], str]:
    """Return what a map of a record says, checked."""
    try:
        peer = PeerId(told.get(PEER, b""))
    except PeerIdError as fault:
        raise PeerRecordError(f"a peer record names no peer: {fault}") from None
    sequence, expires = _number(told, SEQUENCE), _number(told, EXPIRES)
    if not sequence <= expires * 1000 + 999 <= sequence + (MAX_TTL + 1) * 1000:
        raise PeerRecordError(f"a peer record is good for {MAX_TTL} s at most, from when it was signed")
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
