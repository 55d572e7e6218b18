"""A hidden node's places at relays: whom it asks for one, and by which ways others hear of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import islice
from typing import Final
from urllib.parse import urlsplit

from dtp.identity import PeerId
from dtp.net.address import Address
from dtp.net.resolver import Candidate, Resolver, for_service
from dtp.peers.reach.messages import RELAY_SERVICE
from dtp.peers.reach.relay_client import RelayPlace
from dtp.peers.record import PeerRecord

#: Carriers by which a relay is reached: which of UDP and TCP each goes by.
PROTOCOLS: Final = {"tcp": "TCP", "ws": "TCP", "quic": "UDP"}
#: Seconds that one way to ask for a place has, where there is another one: three round trips of 1 s each.
PLACE_TIME: Final = 3.0
#: Ways to relays that are asked for a peer.
MOST_RELAYS: Final = 4


def list_ways(record: PeerRecord | None) -> list[Address]:
    """Return where a node relays, as its record says, by each carrier; QUIC comes first, since holes can be punched
    then. Empty where it doesn't, or there is no record."""
    if record is None or RELAY_SERVICE not in record.services:
        return []
    urls = [url for url in record.addresses if urlsplit(url).scheme in PROTOCOLS]
    urls.sort(key=lambda url: not url.startswith("quic:"))
    return [Address.direct(record.peer, url, RELAY_SERVICE) for url in urls]


def list_other_ways(
    places: Iterable[str], record_of: Callable[[PeerId], PeerRecord | None], me: PeerId
) -> Iterator[str]:
    """Yield the URLs by which `me` is dialled at these places over another carrier, at the same address of the relay.
    Who dials may have no UDP, and a relay leads to a place by whatever it is reached."""
    for place in map(RelayPlace.parse, places):
        here = urlsplit(place.address.carrier_url)
        for way in list_ways(record_of(place.relay)):
            there = urlsplit(way.carrier_url)
            if there.hostname == here.hostname and there.scheme != here.scheme:
                yield RelayPlace(place.relay, way, None).url_for(me)


class LinkedRelays(Resolver):
    """Leads to peers by the relays that this node is linked to, where all that is known of a peer has led nowhere. It
    may have a place there that it hadn't when it signed what is known."""

    name = "relays"

    def __init__(self, list_relays: Callable[[], Iterable[RelayPlace]]) -> None:
        """`list_relays` gives the linked ones, each by the ways that lead to it."""
        self._list_relays = list_relays

    async def resolve(self, address: Address) -> list[Candidate]:
        """Return an empty list: who was never heard of isn't asked for everywhere."""
        return []

    async def resolve_again(self, address: Address) -> list[Candidate]:
        """Return one candidate for each way, of `MOST_RELAYS` at most. The others are no worse, and each is asked."""
        peer = address.peer
        if peer is None:
            return []
        urls = [place.url_for(peer) for place in islice(self._list_relays(), MOST_RELAYS)]
        return [
            Candidate(for_service(Address.direct(peer, url), address), priority, source=self.name)
            for priority, url in enumerate(urls)
        ]


async def take_first(urls: Iterable[str], take: Callable[[str], Awaitable[bool]]) -> bool:
    """Ask for places, one after another, until `take` has one; return whether it has. All but the last have
    `PLACE_TIME` seconds: where a firewall swallows UDP nobody says so."""
    waiting = list(urls)
    while waiting:
        url = waiting.pop(0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PLACE_TIME if waiting else None):
                if await take(url):
                    return True
    return False
