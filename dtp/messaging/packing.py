"""MessagePack of devices and mailboxes, and of what they keep: on streams with its length in front. Maps may have
keys of any kind."""

from __future__ import annotations

from typing import Any

from dtp import packing
from dtp.errors import PeerError
from dtp.messaging.errors import StoreFailed
from dtp.net.stream import Stream
from dtp.packing import pack

__all__ = [
    "MAX_NUMBER",
    "domain_tag",
    "is_number",
    "pack",
    "pack_frame",
    "read_frame",
    "unpack",
    "unpack_saved",
]

#: The bounds of a number that is counted with, as SQLite has them.
MAX_NUMBER = 2**63 - 1


def pack_frame(*fields: object) -> bytes:
    """Return what `read_frame` reads: an array of the fields, with its length in front."""
    body = pack(list(fields))
    return len(body).to_bytes(4, "big") + body


async def read_frame(stream: Stream, most: int, fault: type[PeerError]) -> bytes:
    """Return the next array's bytes, b"" at the end. Raise `fault` for one above `most` bytes."""
    try:
        size = int.from_bytes(await stream.readexactly(4), "big")
        if size > most:
            raise fault(f"a message of {size} bytes; {most} are the most")
        return await stream.readexactly(size)
    except EOFError:
        return b""


def unpack(data: bytes, fault: type[PeerError], what: str) -> Any:
    """Return the value that these bytes are. Raise `fault`, which says that `what` is not MessagePack."""
    return packing.unpack(data, fault, what, strict_map_key=False)


def unpack_saved(data: bytes) -> Any:
    """Return the value that this program has saved as these bytes. Raise `StoreFailed`."""
    return packing.unpack(data, StoreFailed, "what was saved is damaged: it", strict_map_key=False)


def is_number(value: object, most: int = MAX_NUMBER) -> bool:
    """True for a whole number from 0 to `most`, which True and False are not."""
    return type(value) is int and 0 <= value <= most


def domain_tag(domain: bytes) -> bytes:
    """Return what goes before a body that is signed: the domain and its length."""
    return bytes((len(domain),)) + domain
