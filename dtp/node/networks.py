"""Whose links may be one's: identities cost nothing, networks on the internet do."""

from __future__ import annotations

from typing import Final

from dtp.carriers.nearness import Nearness, network_of_host
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


def networks_of_record(record: PeerRecord) -> frozenset[str]:
    """Return the networks and relays in which a record has its peer dialled."""
    return frozenset(_network_of_url(record.peer, url) for url in record.addresses) - {""}


def _network_of_url(peer: PeerId, url: str) -> str:
    try:
        if url.startswith(_RELAYED):
            return source_of(RelayPlace.parse(url).relay)
        address = Address.direct(peer, url)
    except (AddressError, RelayUrlError):  # this version doesn't dial it
        return ""
    if address.nearness is not Nearness.ANYWHERE:
        return ""
    return network_of_host(address.host) if is_ip_address(address.host) else NAMES
