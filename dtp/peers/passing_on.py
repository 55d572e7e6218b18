"""Decides to whom a record is passed on. Peers nearby would take it as this node's own word, and might dial or ask
addresses in their network, though somebody farther away has told them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from functools import lru_cache
from typing import Final

from dtp.carriers.nearness import Nearness
from dtp.identity import PeerId
from dtp.net.address import Address, AddressError, is_ip_address
from dtp.peers.record import PeerRecord, host_of_endpoint

_ANYWHERE: Final = frozenset({Nearness.ANYWHERE})
#: A host name leads to whatever it resolves to where it is looked up.
_NAMED: Final = frozenset(Nearness) - {Nearness.PROCESS}
_REMEMBERED: Final = 1024


def where_it_leads(record: PeerRecord) -> frozenset[Nearness]:
    """Return how near the addresses are that a record causes to be dialled or asked, by the nearest that
    each may be.
    """
    found = {each for url in record.addresses for each in _where_url_leads(record.peer, url)}
    return frozenset(found | _where_host_leads(host_of_endpoint(record.dht)) if record.dht else found)


#: The same with a cache, for records about which nothing else is kept.
where_it_leads_again: Final = lru_cache(maxsize=_REMEMBERED)(where_it_leads)


def may_be_passed_on(leads: Collection[Nearness], teller: Nearness, hearer: Nearness) -> bool:
    """Return True if a record with these addresses, told by somebody as near as `teller`, may be told to somebody
    as near as `hearer`.
    """
    return not any(hearer <= each < teller for each in leads)


def hosts_of(record: PeerRecord) -> list[str]:
    """Return the hosts at which a record's peer is dialled, as far as this version supports them."""
    found = []
    for url in record.addresses:
        with contextlib.suppress(AddressError):
            found.append(Address.direct(record.peer, url).host)
    return found


def _where_url_leads(peer: PeerId, url: str) -> frozenset[Nearness]:
    try:
        address = Address.direct(peer, url)
    except AddressError:  # this version doesn't dial it
        return _ANYWHERE
    if address.nearness is Nearness.ANYWHERE and not address.costs_money:
        return _where_host_leads(address.host)
    return frozenset({address.nearness})


def _where_host_leads(host: str) -> frozenset[Nearness]:
    found = Nearness.of_host(host)
    return _NAMED if found is Nearness.ANYWHERE and not is_ip_address(host) else frozenset({found})
