"""Drops mDNS datagrams that don't come from the local link (RFC 6762, section 11): otherwise a host elsewhere could
be taken for a neighbour by sending one packet to this port. Needs `ifaddr`, which zeroconf installs.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, TypeAlias

#: Seconds between two readings of this machine's networks, so that a flood from elsewhere doesn't cause one for
#: each packet.
_LOOK: Final = 10.0

#: Returns the networks of this machine.
ListNetworks: TypeAlias = Callable[[], list[ipaddress.IPv4Network]]


def own_networks() -> list[ipaddress.IPv4Network]:
    """Return the IPv4 networks that this machine has an interface in."""
    import ifaddr

    return [
        ipaddress.IPv4Network((each.ip, each.network_prefix), strict=False)
        for adapter in ifaddr.get_adapters()
        for each in adapter.ips
        if isinstance(each.ip, str)
    ]


class LinkFilter(asyncio.DatagramProtocol):
    """Passes the datagrams that come from the local link to `listener`, and counts the others as "off-link"."""

    def __init__(
        self,
        listener: asyncio.DatagramProtocol,
        counters: Counter[str],
        list_networks: ListNetworks = own_networks,
    ) -> None:
        self._listener, self._counters, self._list_networks = listener, counters, list_networks
        self._networks = list_networks()
        self._looked = asyncio.get_running_loop().time()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Process a datagram from a host and port."""
        if self._is_on_link(str(addr[0])):
            self._listener.datagram_received(data, addr)
        else:
            self._counters["off-link"] += 1

    def error_received(self, exc: Exception) -> None:
        """Pass on an error that the network reports about a sent datagram."""
        self._listener.error_received(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on that the socket is closed."""
        self._listener.connection_lost(exc)

    def _is_on_link(self, host: str) -> bool:
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped is None:
                return address.is_link_local  # no router passes it on
            address = address.ipv4_mapped  # it came by a socket for both
        if any(address in each for each in self._networks):
            return True
        now = asyncio.get_running_loop().time()
        if now - self._looked < _LOOK:
            return False
        self._networks, self._looked = self._list_networks(), now  # the machine may have moved
        return any(address in each for each in self._networks)
