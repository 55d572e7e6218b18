"""The PROXY protocol's version 2: who came, in front of the bytes of a backend's connection. No IO.

Source: "The PROXY protocol, versions 1 & 2" (HAProxy), section 2.2. The caller's identity is in type-length-values of
the range that is kept for applications.
"""

from __future__ import annotations

import ipaddress
import struct

from dtp.daemon.policies import Caller
from dtp.identity import PeerId

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_VERSION_2_LOCAL, _VERSION_2_PROXY = 0x20, 0x21
_UNSPEC, _TCP4, _TCP6 = 0x00, 0x11, 0x21
#: PP2_TYPE_AUTHORITY is the name the client asked for: the service. The others are ours.
AUTHORITY, IDENTITY, ACCOUNT, LOGIN, LOGIN_IDENTITY = 0x02, 0xE0, 0xE1, 0xE2, 0xE3
#: The header for a connection that is the daemon's own, such as a check.
LOCAL = SIGNATURE + struct.pack("!BBH", _VERSION_2_LOCAL, _UNSPEC, 0)


def header(caller: Caller, service: str, destination: tuple[str, int] | None) -> bytes:
    """Return the header for a connection of `caller`; `destination` is the backend's IP address and port, if it has
    one.

    A caller's port isn't known, and is 0. Without an IP address on both sides, or of two families, the header has the
    identity alone.
    """
    family, addresses = _addresses(caller.source, destination)
    body = addresses + b"".join(
        struct.pack("!BH", kind, len(value)) + value
        for kind, value in (
            (AUTHORITY, service.encode()),
            (IDENTITY, str(caller.peer).encode()),
            (ACCOUNT, caller.account.encode()),
            *_logged_in(caller),
        )
    )
    return SIGNATURE + struct.pack("!BBH", _VERSION_2_PROXY, family, len(body)) + body


def _logged_in(caller: Caller) -> tuple[tuple[int, bytes], ...]:
    if caller.login is None:
        return ()
    name, identity = caller.login
    return (LOGIN, name.encode()), (LOGIN_IDENTITY, str(PeerId(identity)).encode())


def _addresses(source: str, destination: tuple[str, int] | None) -> tuple[int, bytes]:
    if destination is None:
        return _UNSPEC, b""
    try:
        near, far = ipaddress.ip_address(source), ipaddress.ip_address(destination[0])
    except ValueError:
        return _UNSPEC, b""
    if near.version != far.version:
        return _UNSPEC, b""
    family = _TCP4 if near.version == 4 else _TCP6
    return family, near.packed + far.packed + struct.pack("!HH", 0, destination[1])
