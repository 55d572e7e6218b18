"""Which networks links and reports belong to. Identities cost nothing, but networks on the internet do."""

from __future__ import annotations

from typing import Final

from dtp.carriers.nearness import Nearness, network_of_host, network_of_source
from dtp.identity import PeerId
from dtp.net.address import Address, AddressError, is_ip_address
from dtp.peers.links import PeerLink
from dtp.peers.reach.errors import RelayUrlError
from dtp.peers.reach.relay_client import RelayPlace, source_of
from dtp.peers.record import PeerRecord

#: Stands for all host names: their owners choose where they lead, and can have any number of them.
NAMES: Final = "names"
_RELAYED: Final = "relay:"


def network_of_link(link: PeerLink) -> str:
    """Return the network, or the relay, of a link; "" for links within this network or this machine."""
    source = link.source
    return source if source.startswith(_RELAYED) else network_of_host(source.partition("/")[0])


def network_of_teller(source: str) -> str:
    """Return the network of whoever reported a record, given its source in the book, such as "exchange 192.0.2.7".
    Sources in one network on the internet count as one, as does a whole method such as "dht" that doesn't say who
    reported it."""
    return network_of_source(source.partition(" ")[2]) or source


def networks_of_record(record: PeerRecord, teller: Nearness) -> frozenset[str]:
    """Return the networks and relays in which the peer of a record is dialled, if somebody this near reported it.
    Empty for a peer that is dialled in this network or on this machine, whatever else it has."""
    places = [_place_of_url(record.peer, url) for url in record.addresses]
    if any(teller <= nearness < Nearness.ANYWHERE for nearness, _ in places):
        return frozenset()
    return frozenset(network for _, network in places) - {""}


def _place_of_url(peer: PeerId, url: str) -> tuple[Nearness, str]:
    """Return how near an address is, and its network on the internet or its relay."""
    try:
        if url.startswith(_RELAYED):
            return Nearness.ANYWHERE, source_of(RelayPlace.parse(url).relay)
        address = Address.direct(peer, url)
    except (AddressError, RelayUrlError):  # this version doesn't dial it
        return Nearness.ANYWHERE, ""
    if address.nearness is not Nearness.ANYWHERE:
        return address.nearness, ""
    return Nearness.ANYWHERE, network_of_host(address.host) if is_ip_address(address.host) else NAMES
