"""The messages between peers and relays: small MessagePack arrays, each after its length (docs/wire.md, "Reach")."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final

from dtp.errors import DtpError
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.packing import pack, unpack
from dtp.peers.reach.errors import REFUSALS, ReachError, ReachMalformed, RelayRefused

#: The name of the relay's service, by convention.
RELAY_SERVICE: Final = "dtp.relay"
#: The longest message, in bytes: four addresses and a nonce.
MAX_MESSAGE: Final = 2048
#: The longest address in a message, in bytes.
MAX_ADDRESS: Final = 256


class ReachKind(IntEnum):
    """The kind of a message, which is its first element."""

    RESERVE = 1
    RESERVED = 2
    CONNECT = 3
    INCOMING = 4
    ACCEPTED = 5
    OBSERVE = 6
    OBSERVED = 7
    CHECK = 8
    CHECKED = 9
    PUNCH = 10
    PUNCHING = 11
    CHECK_PLACE = 12
    CHECKED_PLACE = 13
    REFUSED = 15


#: The fields of each kind after its number.
FIELDS: Final[Mapping[ReachKind, tuple[type, ...]]] = {
    ReachKind.RESERVE: (int,),  # seconds that are wanted
    ReachKind.RESERVED: (int, str, int, int),  # seconds, observed address, bytes and seconds of a circuit
    ReachKind.CONNECT: (bytes,),  # the target, 32 bytes
    ReachKind.INCOMING: (bytes, str),  # who asks, and where the relay sees it
    ReachKind.ACCEPTED: (str,),  # where the relay sees the target
    ReachKind.OBSERVE: (),
    ReachKind.OBSERVED: (str,),
    ReachKind.CHECK: (list,),  # addresses
    ReachKind.CHECKED: (list,),  # those that were reached
    ReachKind.PUNCH: (),
    ReachKind.PUNCHING: (),
    ReachKind.CHECK_PLACE: (bytes,),  # the relay, 32 bytes
    ReachKind.CHECKED_PLACE: (int,),  # 1 if the asker was reached there, 0 if not
    ReachKind.REFUSED: (int,),
}


def encode(kind: ReachKind, *fields: object) -> bytes:
    """Return a message with its length in front."""
    body = pack([int(kind), *fields])
    return len(body).to_bytes(2) + body


def decode(body: bytes) -> tuple[ReachKind, tuple[Any, ...]]:
    """Return the kind and fields of a message. Raise `ReachMalformed`. Surplus fields are ignored."""
    match unpack(body, ReachMalformed, "a message", max_array_len=64, max_str_len=MAX_MESSAGE):
        case [int(number), *fields] if number in FIELDS:
            kind = ReachKind(number)
        case _:
            raise ReachMalformed("a message of an unknown kind")
    wanted = FIELDS[kind]
    if len(fields) < len(wanted):
        raise ReachMalformed(f"{kind.name} with {len(fields)} fields of {len(wanted)}")
    if not all(_fits(field, form) for field, form in zip(fields, wanted, strict=False)):
        raise ReachMalformed(f"{kind.name} with a malformed field")
    return kind, tuple(fields[: len(wanted)])


def _fits(field: Any, form: type) -> bool:
    """Return True if a field is of its type, and within its limits."""
    if form is int:
        return type(field) is int and field >= 0
    if form is list:
        return isinstance(field, list) and all(_fits(each, str) for each in field)
    return isinstance(field, (str, bytes)) and type(field) is form and len(field) <= MAX_ADDRESS


async def read(stream: Stream) -> tuple[ReachKind, tuple[Any, ...]]:
    """Return the next message. Raise `ReachMalformed`, `EOFError` at the end, or the error that broke the stream."""
    size = int.from_bytes(await stream.readexactly(2))
    if not 0 < size <= MAX_MESSAGE:
        raise ReachMalformed(f"a message of {size} bytes")
    return decode(await stream.readexactly(size))


async def expect(stream: Stream, kind: ReachKind) -> tuple[Any, ...]:
    """Return the fields of the next message, which has to be of this kind. Raise `RelayRefused` for a refusal."""
    found, fields = await read(stream)
    if found is ReachKind.REFUSED:
        raise RelayRefused(fields[0], REFUSALS.get(fields[0], "for a reason that isn't known here"))
    if found is not kind:
        raise ReachMalformed(f"{found.name} where {kind.name} was due")
    return fields


def send_refusal(stream: Stream, code: int) -> None:
    """Refuse a request, and end the stream."""
    try:
        stream.write(encode(ReachKind.REFUSED, code))
        stream.close()
    except DtpError:  # the peer is gone
        return


def udp_address(url: str) -> tuple[str, int] | None:
    """Return the host and port of `quic://ip:port`; None for any other URL, and for host names."""
    scheme, _, place = url.partition("://")
    host, colon, port = place.rpartition(":")
    if (
        scheme != "quic"
        or not colon
        or not port.isascii()
        or not port.isdecimal()
        or not 0 < int(port) < 65536
    ):
        return None
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    return str(address), int(port)


__all__ = [
    "FIELDS",
    "MAX_ADDRESS",
    "MAX_MESSAGE",
    "ReachError",
    "ReachKind",
    "decode",
    "encode",
    "expect",
    "read",
    "send_refusal",
    "udp_address",
]


def observed_url(connection: Connection) -> str:
    """Return the source of a connection's newest carrier, such as "quic://192.0.2.7:9000"; "" if it has none."""
    carriers = connection.stats.carriers
    return carriers[-1] if carriers else ""
