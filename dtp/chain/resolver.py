"""Tells connections where a host object is served: by the endpoints that are alive, or through the chain.

    directory = HostDirectory(chain)
    for place in await directory.places("0x...", "files"): ...

`dtp.net` reaches it through its table of directories and doesn't know it; `docs/chain-carrier.md` tells the whole.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from dtp.chain.errors import ObjectMissing
from dtp.chain.host_state import (
    MAX_AGE,
    MAX_HOSTS,
    VIA,
    EndpointPlace,
    HostCache,
    OpenClient,
    RouteError,
    ServiceMissing,
    service_number,
)
from dtp.chain.node.client import ChainClient
from dtp.chain.node.endpoints import Retry
from dtp.chain.node.networks import NETWORKS, find_network

if TYPE_CHECKING:
    from dtp.carriers.base import Carrier


class HostDirectory(HostCache):
    """Hosts that are remembered, and where their services are dialled.

    `client`, `max_age` and `max_hosts` are those of `HostCache`. Pipes of its places are dialled with `client`, where
    that has a signer, instead of the environment's; over `pipe_channel`, an open channel of that account, and no
    other, where one is given: who pays for the transport has said so there. With `also_closed` services are found
    that their owner has closed or removed, for whoever has a channel of one to close.
    """

    def __init__(
        self,
        client: ChainClient | OpenClient,
        *,
        max_age: float = MAX_AGE,
        max_hosts: int = MAX_HOSTS,
        pipe_channel: str = "",
        also_closed: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(client, max_age=max_age, max_hosts=max_hosts, clock=clock)
        self._also_closed = also_closed
        self.pipe_channel = pipe_channel

    async def places(
        self, host_object: str, service: str, via: str = "direct", network: str = ""
    ) -> list[EndpointPlace]:
        """Return where `service` of the host is reached now, and nothing for a host that isn't there.

        Raises `RouteError` for a `via` that isn't in `VIA`, `HostUnusable`, and what reading raises.
        """
        if via not in VIA:
            raise RouteError(f"there is no via={via!r}: {', '.join(VIA)}")
        if network:
            raise RouteError(f"network={network!r}: this program has chosen its network already")
        try:
            state = await self.find(host_object)
        except ObjectMissing:
            return []
        if self._also_closed:
            try:
                number, _ = state.find_service(service)
            except ServiceMissing:
                number = service_number(service)
        else:
            number, _ = state.open_service(service)
        return [self._dialable_place(place) for place in state.places_of(number, via, self._clock())]

    def _dialable_place(self, place: EndpointPlace) -> EndpointPlace:
        """Return the place with how to dial it: pipes by our client where it can sign, else by the environment."""
        client = self._client
        if not place.url.startswith("pipe:") or not isinstance(client, ChainClient) or client.signer is None:
            return place

        async def dial() -> Carrier:
            from dtp.chain.pipes import carrier as pipe_carrier  # loaded by those who dial through the chain

            named = f"&channel={self.pipe_channel}" if self.pipe_channel else ""
            return await pipe_carrier.dial(place.url + named, chain=client)

        return replace(place, dial=dial)


# ------------------------------------------------------------------------------------------------ the default one

_of_loops: WeakKeyDictionary[Any, dict[str, HostDirectory]] = WeakKeyDictionary()


class _Environment:
    """The directory that `dtp.net` asks when nobody gave another: the network of the environment, or a named one."""

    def for_network(self, network: str) -> HostDirectory:
        """Return the directory of a network for the running loop. It opens a connection for each fetch and
        closes it."""
        if network and network not in NETWORKS:
            raise RouteError(
                f"network={network!r}: an address names {', '.join(NETWORKS)}; a node by URL is the user's choice "
                "($DTP_NETWORK), since a node can say anything of a host"
            )
        directories = _of_loops.setdefault(asyncio.get_running_loop(), {})
        found = find_network(network or None)
        name = ",".join((found.name, *found.endpoints))
        if name not in directories:
            # Few tries: whoever dials waits, and has other places to try.
            directories[name] = HostDirectory(lambda: ChainClient(found, retry=Retry(attempts=2)))
        return directories[name]

    async def places(
        self, host_object: str, service: str, via: str = "direct", network: str = ""
    ) -> list[EndpointPlace]:
        """Return where a service of a host is dialled, by the directory of its network. Raise as
        `HostDirectory.places` does."""
        return await self.for_network(network).places(host_object, service, via)


_ENVIRONMENT: Final = _Environment()


def default_directory() -> _Environment:
    """Return what `dtp://0x...` means without more: hosts on the network that `$DTP_NETWORK` or `?network=` names."""
    return _ENVIRONMENT
