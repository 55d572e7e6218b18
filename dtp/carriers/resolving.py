"""The addresses behind a host's name."""

from __future__ import annotations

import asyncio
import socket
from typing import Any


async def resolve_host(
    host: str | None, port: int, kind: socket.SocketKind, *, family: int = 0, flags: int = 0
) -> list[tuple[Any, ...]]:
    """Return what `socket.getaddrinfo` has for a host's name or IP address; None: any address.

    An IP address is looked up by nobody: neither the loop's threads nor the tables for international names are
    loaded for it. Raise `OSError` or `UnicodeError`.
    """
    numeric = host.encode() if host is not None and host.isascii() else None
    if host is None or numeric is not None:
        try:
            return socket.getaddrinfo(
                numeric, port, family, kind, flags=flags | socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            )
        except socket.gaierror:
            pass  # it is a name
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, port, family=family, type=kind, flags=flags)


def what_failed(error: OSError | UnicodeError) -> str:
    """Return why a name can't be resolved, in words: without the resolver's number for it."""
    return getattr(error, "strerror", None) or str(error)
