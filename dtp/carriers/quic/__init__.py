"""QUIC: `quic://host:port` over UDP, by the library `qh3` (`pip install 'dtp-sockets[quic]'`).

For networks where a TCP connection can't come about, as through most NATs (`dtp.peers.reach`), for datagrams that no
lost packet may hold up, and for machines that change their address while they talk.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from dtp.carriers.base import Accept, CarrierListener
from dtp.carriers.errors import CarrierUrlError, DialError, ListenError, MissingLibraryError, reason
from dtp.carriers.resolving import resolve_host, what_failed
from dtp.carriers.url import CarrierUrl, format_host, parse_url
from dtp.errors import CarrierError

try:
    from dtp.carriers.quic.carrier import QuicCarrier
    from dtp.carriers.quic.endpoint import (
        QuicEndpoint,
        adopt_endpoint,
        connected_endpoint,
        open_endpoint,
    )
except ModuleNotFoundError as missing:  # said again by whoever dials or listens, with what to do
    if missing.name is None or missing.name.partition(".")[0] != "qh3":
        raise
    _MISSING: ModuleNotFoundError | None = missing
else:
    _MISSING = None

if TYPE_CHECKING:
    from typing import Any

#: Seconds that an address of a name has, where there is another one.
_EACH_ADDRESS = 3.0


def _parse(url: str) -> CarrierUrl:
    if _MISSING is not None:
        raise MissingLibraryError(
            f"{url}: QUIC needs the library qh3: pip install 'dtp-sockets[quic]'"
        ) from _MISSING
    parts = parse_url(url, ())
    if not parts.host or parts.port is None or parts.path not in ("", "/"):
        raise CarrierUrlError(f"{url}: a QUIC URL is quic://host:port")
    return parts


async def _lookup(parts: CarrierUrl, *, listening: bool = False) -> list[tuple[Any, ...]]:
    flags = socket.AI_PASSIVE if listening else 0
    assert parts.port is not None
    return await resolve_host(parts.host, parts.port, socket.SOCK_DGRAM, flags=flags)


async def dial(url: str) -> QuicCarrier:
    """Dial `quic://host:port`. Raises `DialError`, `CarrierUrlError`, `MissingLibraryError`."""
    parts = _parse(url)
    if not parts.port:
        raise CarrierUrlError(f"{url}: there is no port 0 to dial")
    try:
        found = await _lookup(parts)
    except (OSError, UnicodeError) as error:
        raise DialError(f"{url}: the name can't be resolved: {what_failed(error)}") from error
    failure: CarrierError = DialError(f"{url}: the name has no address")
    for number, (family, *_, address) in enumerate(found, 1):
        last = number == len(found)
        try:
            async with asyncio.timeout(None if last else _EACH_ADDRESS):
                return await connected_endpoint(family, address).dial(address, url)
        except TimeoutError:
            failure = DialError(f"{url}: no answer in {_EACH_ADDRESS:g} s")
        except CarrierError as error:
            failure = DialError(f"{url}: {error}") if url not in str(error) else error
    raise failure


class QuicListener(CarrierListener):
    """Accepts at the addresses of one URL. `endpoints` are its sockets, from which one can dial as well."""

    def __init__(self, endpoints: list[QuicEndpoint], accept: Accept) -> None:
        self.endpoints = endpoints
        self.urls = [f"quic://{format_host(*endpoint.address)}" for endpoint in endpoints]
        for endpoint in endpoints:
            endpoint.listen(accept)

    @property
    def sockets(self) -> list[socket.socket]:
        """The UDP sockets that it listens on, one for each address."""
        return [endpoint.sock for endpoint in self.endpoints]

    def keep_place(self) -> None:
        """Leave the port to a process that has taken over. Two can't read from one socket: all carriers end."""
        for endpoint in self.endpoints:
            endpoint.end_carriers()

    async def close(self) -> None:
        """Accept nothing more. The port is free once the last carrier that came in by it has ended; this process
        may listen there again at once."""
        endpoints, self.endpoints = self.endpoints, []
        for endpoint in endpoints:
            endpoint.stop_listening()


def listen_sockets(socks: list[socket.socket], accept: Accept) -> QuicListener:
    """Listen at UDP sockets that are bound already. Raises `MissingLibraryError`."""
    if _MISSING is not None:
        raise MissingLibraryError("QUIC needs the library qh3: pip install 'dtp-sockets[quic]'") from _MISSING
    return QuicListener([adopt_endpoint(sock) for sock in socks], accept)


async def listen(url: str, accept: Accept) -> QuicListener:
    """Listen at `quic://host:port`. Raises `ListenError`, `CarrierUrlError`, `MissingLibraryError`."""
    parts = _parse(url)
    endpoints: list[QuicEndpoint] = []
    try:
        port = parts.port
        for family, *_, address in dict.fromkeys(await _lookup(parts, listening=True)):
            endpoint = open_endpoint(family, (address[0], port, *address[2:]))
            port = endpoint.address[1]
            endpoints.append(endpoint)
    except (OSError, UnicodeError) as error:
        for endpoint in endpoints:
            with contextlib.suppress(OSError):
                endpoint.stop_listening()
        raise ListenError(f"{url}: {reason(error, listening=parts.port)}") from error
    return QuicListener(endpoints, accept)
