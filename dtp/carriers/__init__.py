"""Carriers: they move opaque bytes and know no sessions. A new one is one file and one line in `CARRIERS`."""

from __future__ import annotations

import importlib
import re
import socket
from typing import cast

from dtp.carriers.base import Accept, Carrier, CarrierKind, CarrierListener, Receiver
from dtp.carriers.errors import CarrierUrlError

__all__ = [
    "CARRIERS",
    "Accept",
    "Carrier",
    "CarrierKind",
    "CarrierListener",
    "Receiver",
    "dial",
    "listen",
    "listen_socket",
    "patience",
]


def _kind(scheme: str, module: str, *, patience: float = 0.0) -> CarrierKind:
    """Return a row of `CARRIERS` whose module is loaded when it is first used, so that `import dtp` stays fast."""

    async def dial(url: str) -> Carrier:
        return cast(Carrier, await importlib.import_module(module).dial(url))

    async def listen(url: str, accept: Accept) -> CarrierListener:
        return cast(CarrierListener, await importlib.import_module(module).listen(url, accept))

    return CarrierKind(scheme, dial, listen, patience)


#: Every kind of carrier there is, by the scheme of its URLs.
CARRIERS: dict[str, CarrierKind] = {
    "tcp": _kind("tcp", "dtp.carriers.tcp"),
    "quic": _kind("quic", "dtp.carriers.quic"),
    "unix": _kind("unix", "dtp.carriers.unix"),
    "ws": _kind("ws", "dtp.carriers.websocket"),
    "wss": _kind("wss", "dtp.carriers.websocket"),
    "memory": _kind("memory", "dtp.carriers.memory"),
    # Streams of connections to relays, above this room, too. By URL alone one dials as nobody in particular.
    "relay": _kind("relay", "dtp.peers.reach.relay_client"),
    # Lives with the chain, which is above this room, and is loaded when somebody dials or listens at such a URL.
    # A handshake is seven transactions one after the other, each a second or two on a busy day; and each costs money.
    "pipe": _kind("pipe", "dtp.chain.pipes.carrier", patience=60.0),
}

#: What people write who forget the scheme.
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:/?#\[\]\s]+):[0-9]{1,5}")


def _lookup(url: str) -> CarrierKind:
    scheme = url.partition(":")[0]
    kind = CARRIERS.get(scheme)
    if kind is None:
        meant = f"; did you mean tcp://{url}?" if _HOST_PORT.fullmatch(url) else ""
        known = ", ".join(CARRIERS)
        raise CarrierUrlError(f"{url!r}: no carrier is called {scheme!r}; there are {known}{meant}")
    return kind


def patience(scheme: str) -> float:
    """Return `CarrierKind.patience` of a scheme, in seconds; 0 for one that isn't in the table."""
    kind = CARRIERS.get(scheme)
    return kind.patience if kind is not None else 0.0


async def dial(url: str) -> Carrier:
    """Connect to `url`; gives a carrier that is not started.

    Raises `CarrierError` for what the network does and `LocalError` for a URL that can't be meant. Has no
    time limit of its own: cancel it to give up.
    """
    return await _lookup(url).dial(url)


async def listen(url: str, accept: Accept) -> CarrierListener:
    """Listen at `url` and call `accept(carrier)` for each carrier that comes in; `accept` has to start it.

    Raises `CarrierError` for what the network does and `LocalError` for a URL that can't be meant.
    """
    return await _lookup(url).listen(url, accept)


def listen_socket(sock: socket.socket, accept: Accept, url: str | None = None) -> CarrierListener:
    """Accept on a socket that is bound and listening already, such as one from systemd or from the process
    before this one. The listener owns it from here on; a Unix socket's file is left where it is.

    With a `ws:` or `wss:` URL it serves WebSockets as `listen` would at that URL (host and port are the
    socket's); with another URL, or without one, what the socket is decides. Raises `LocalError` for a socket
    that is neither a TCP nor a Unix socket, or a URL that doesn't fit it. A UDP socket is one of QUIC.
    """
    if sock.type == socket.SOCK_DGRAM and url is not None and url.startswith("quic:"):
        return cast(
            CarrierListener, importlib.import_module("dtp.carriers.quic").listen_sockets([sock], accept)
        )
    kinds = {"AF_INET": "tcp", "AF_INET6": "tcp", "AF_UNIX": "unix"}
    kind = kinds.get(sock.family.name) if sock.type == socket.SOCK_STREAM else None
    if kind is None:
        raise CarrierUrlError(f"can't listen on {sock!r}: neither a TCP nor a Unix stream socket")
    scheme = _lookup(url).scheme if url is not None else kind
    if kind == "tcp" and scheme in ("ws", "wss"):
        adopted = importlib.import_module("dtp.carriers.websocket").listen_sockets([sock], accept, url)
    elif scheme == kind:
        adopted = importlib.import_module(f"dtp.carriers.{kind}").listen_sockets([sock], accept)
    else:
        raise CarrierUrlError(f"{url}: the socket that is open for it is a {kind} socket")
    return cast(CarrierListener, adopted)
