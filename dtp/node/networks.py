"""Whose links may be one's: identities cost nothing, networks on the internet do."""

from __future__ import annotations

from typing import Final

from dtp.carriers.nearness import Nearness, network_of_host, network_of_source
from dtp.identity import PeerId
from dtp.net.address import Address, AddressError, is_ip_address
from dtp.peers.links import PeerLink
from dtp.peers.reach.errors import RelayUrlError
from dtp.peers.reach.relay_client import RelayPlace, source_of
from dtp.peers.record import PeerRecord

#: All names: they lead where their owner likes, and there are as many as that wants.
NAMES: Final = "names"
_RELAYED: Final = "relay:"


def network_of_link(link: PeerLink) -> str:
    """Return the network, or the relay, that a link leads to; "" for those in this network and on this machine."""
    source = link.source
    return source if source.startswith(_RELAYED) else network_of_host(source.partition("/")[0])


def network_of_teller(source: str) -> str:
    """Return the network of whoever told a record, by its source in the book such as "exchange 192.0.2.7": those of
    one on the internet count as one; so do all of a way such as "dht" that doesn't say who has told."""
    return network_of_source(source.partition(" ")[2]) or source


def networks_of_record(record: PeerRecord, teller: Nearness) -> frozenset[str]:
    """Return the networks and relays where a record that somebody so near has told has its peer dialled. None for a
    peer that is dialled in this network or on this machine, wherever else it may be."""
    places = [_place_of_url(record.peer, url) for url in record.addresses]
    if any(teller <= nearness < Nearness.ANYWHERE for nearness, _ in places):
        return frozenset()
    return frozenset(network for _, network in places) - {""}


def _place_of_url(peer: PeerId, url: str) -> tuple[Nearness, str]:
    """Return how near a place is, and its network or relay on the internet."""
    try:
        if url.startswith(_RELAYED):
            return Nearness.ANYWHERE, source_of(RelayPlace.parse(url).relay)
        address = Address.direct(peer, url)
    except (AddressError, RelayUrlError):  # this version doesn't dial it
        return Nearness.ANYWHERE, ""
    if address.nearness is not Nearness.ANYWHERE:
        return address.nearness, ""
    return Nearness.ANYWHERE, network_of_host(address.host) if is_ip_address(address.host) else NAMES
