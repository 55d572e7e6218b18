"""A hidden node's places at relays: which relays it asks for one, by which addresses others can use it, and whether
the node can be reached there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, Self
from urllib.parse import urlsplit

from dtp.carriers.nearness import Nearness, network_of_host
from dtp.errors import CarrierError, PeerError
from dtp.identity import PeerId
from dtp.net.address import Address, AddressError, is_dialled_as_told
from dtp.net.listener import Listener
from dtp.net.resolver import Candidate, Resolver, for_service
from dtp.peers.links import NODE_SERVICE, PeerLink
from dtp.peers.reach.messages import RELAY_SERVICE
from dtp.peers.reach.reach import CHECK_PAUSE, Reach
from dtp.peers.reach.relay_client import RelayPlace, Reservation, source_of
from dtp.peers.record import PeerRecord
from dtp.tasks import TaskSet

log = logging.getLogger("dtp.node")

#: Carriers by which a relay is reached: which of UDP and TCP each goes by.
PROTOCOLS: Final = {"tcp": "TCP", "ws": "TCP", "quic": "UDP"}
#: Seconds for one attempt to get a place if there is another way: three round trips of 1 s each.
PLACE_TIME: Final = 3.0
#: The most addresses of relays that are asked for a peer.
MOST_RELAYS: Final = 4
#: Seconds before a relay that refused a place is asked again, at first and at most. The longest pause also applies
#: before a place that led nobody here is tried again, if there is no other.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
#: Seconds before a working place is checked again, and before a relay that led nobody here is asked again.
PLACE_RECHECK: Final = 1800.0
#: The number of linked peers, each in another network, that are asked to dial this node at its place. It also dials
#: itself.
PLACE_VOICES: Final = 3
#: If somebody reached this node at its place, its own finding counts as this many reports: two peers that lie, or
#: belong to one person, don't outvote it. Three do, since a relay may only forward those who come from here.
OWN_WEIGHT: Final = 2
#: Without a finding of its own it takes no fewer peers' word that the place leads nobody here.
LEAST_HEARSAY: Final = 2
#: The consecutive failed checks after which a place is given up, since a network may fail for a moment.
PLACE_FAILURES: Final = 2
#: Seconds between two measurements of the loop's delay, and the delay up to which a check of a place counts: a
#: dial, which has `DIAL_TIME`, takes some turns of the loop on this side.
LOOK: Final = 0.25
LATE: Final = 0.25


def list_ways(record: PeerRecord | None) -> list[Address]:
    """Return the addresses at which a node relays, by its record, for each carrier. QUIC comes first, since it
    allows hole punching. Empty if the node doesn't relay, or there is no record."""
    relays = record is not None and RELAY_SERVICE in record.services
    return list_direct(record, RELAY_SERVICE) if relays else []


def list_told(record: PeerRecord | None, teller: Nearness) -> list[Address]:
    """Return the addresses without a relay that a record gives for its peer, as far as somebody this near is
    trusted to have them dialled."""
    return [each for each in list_direct(record) if is_dialled_as_told(each, teller)]


def list_direct(record: PeerRecord | None, service: str = NODE_SERVICE) -> list[Address]:
    """Return the addresses without a relay that a record gives for its peer, QUIC first; empty without a record."""
    if record is None:
        return []
    found = []
    for url in record.addresses:
        with contextlib.suppress(AddressError):  # the record's signer may have written anything
            found.append(Address.direct(record.peer, url, service))
    found = [each for each in found if urlsplit(each.carrier_url).scheme in (*PROTOCOLS, "memory")]
    return sorted(found, key=lambda each: not each.carrier_url.startswith("quic:"))


def list_other_ways(
    places: Iterable[str], record_of: Callable[[PeerId], PeerRecord | None], me: PeerId
) -> Iterator[str]:
    """Yield the URLs by which `me` can be dialled at these places over other carriers, at the same address of the
    relay. The dialling side may have no UDP, and a relay forwards to a place over whatever carrier it is reached
    by."""
    for place in map(RelayPlace.parse, places):
        here = urlsplit(place.address.carrier_url)
        for way in list_ways(record_of(place.relay)):
            there = urlsplit(way.carrier_url)
            if there.hostname == here.hostname and there.scheme != here.scheme:
                yield RelayPlace(place.relay, way, None).url_for(me)


class LinkedRelays(Resolver):
    """Resolves peers to the relays that this node is linked to, after everything known about a peer has failed: it
    may have got a place there after it signed its record."""

    name = "relays"

    def __init__(self, list_relays: Callable[[], Iterable[RelayPlace]]) -> None:
        """`list_relays` returns the linked relays, each with the addresses that lead to it."""
        self._list_relays = list_relays

    async def resolve(self, address: Address) -> list[Candidate]:
        """Return an empty list: relays aren't asked for a peer that was never heard of."""
        return []

    async def resolve_again(self, address: Address) -> list[Candidate]:
        """Return one candidate for each address, at most `MOST_RELAYS`. The others are no worse, and each is
        asked."""
        peer = address.peer
        if peer is None:
            return []
        urls = [place.url_for(peer) for place in islice(self._list_relays(), MOST_RELAYS)]
        return [
            Candidate(for_service(Address.direct(peer, url), address), priority, source=self.name)
            for priority, url in enumerate(urls)
        ]


async def take_first(urls: Iterable[str], take: Callable[[str], Awaitable[bool]]) -> bool:
    """Ask for places one after another until `take` returns True; return whether it did. All but the last have
    `PLACE_TIME` seconds, since a firewall may drop UDP silently."""
    waiting = list(urls)
    while waiting:
        url = waiting.pop(0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PLACE_TIME if waiting else None):
                if await take(url):
                    return True
    return False


def list_proven_ways(link: PeerLink | None, record: PeerRecord | None) -> list[RelayPlace]:
    """Return the addresses of a linked relay that are proven: those by which it was reached, or at the address from
    which it connected. Others in its record may be anybody's. Empty if there is no link."""
    if link is None or link.closed:
        return []
    connection = link.connection
    return [
        RelayPlace(link.peer, way, None)
        for way in list_ways(record)
        if way.carrier_url in connection.stats.carriers
        or urlsplit(way.carrier_url).hostname == connection.source
    ]


def choose_voices(links: Iterable[PeerLink], relay: PeerId) -> list[PeerLink]:
    """Return the links over which peers are asked about a place at `relay`: those that this node dialled, since
    anybody can connect to it, and a random one of each network, since a network may be many peers of one owner."""
    by_network: dict[str, list[PeerLink]] = {}
    for link in links:
        if link.outgoing and not link.closed and link.peer != relay:
            # Peers without an address, and relays, count as one network, since they cost nothing.
            by_network.setdefault(network_of_host(link.source.partition("/")[0]), []).append(link)
    networks = random.sample(list(by_network.values()), min(PLACE_VOICES, len(by_network)))
    return [random.choice(each) for each in networks]


def judge_place(own: bool | None, said: Collection[bool]) -> bool | None:
    """Return whether a node can be reached at a place, by the majority (at least half) of those who tried: the node
    itself, whose success counts as `OWN_WEIGHT`, and peers. None if nobody can tell."""
    if own is None:
        known = [*said] if len(said) >= LEAST_HEARSAY or any(said) else []
    else:
        known = [*said, *[own] * (OWN_WEIGHT if own else 1)]
    return 2 * sum(known) >= len(known) if known else None


class LoopDelay:
    """Measures the longest delay of this loop within a `with` statement, in seconds."""

    def __init__(self) -> None:
        self.most = 0.0
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Self:
        self._look_later()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._measure_delay()

    def _look_later(self) -> None:
        self._due = self._loop.time() + LOOK
        self._timer = self._loop.call_at(self._due, self._on_time)

    def _on_time(self) -> None:
        self._measure_delay()
        self._look_later()

    def _measure_delay(self) -> None:
        self.most = max(self.most, self._loop.time() - self._due)


@dataclass(slots=True)
class _Place:
    """One place, and what is known about it."""

    where: RelayPlace
    #: False if the user has named it.
    chosen: bool
    reservation: Reservation
    #: False once nobody could be reached there `PLACE_FAILURES` times in a row.
    works: bool = True

    async def wait_until_due(self, pause: float) -> None:
        """Wait until it is due to be checked: after `pause` seconds, or `CHECK_PAUSE` after its relay was lost,
        which may be back by then."""
        lost = asyncio.Event()
        self.reservation.on_lost = lost.set
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await lost.wait()
                await asyncio.sleep(CHECK_PAUSE)


def _came_by(link: PeerLink, relay: PeerId, since: float) -> bool:
    return not link.outgoing and link.since >= since and link.source == source_of(relay)


class RelayPlaces:
    """The places of a node at relays. Each is checked from outside from time to time, and given back if it doesn't
    work and there is another. Call `use_listener` first, and `close` at the end."""

    def __init__(
        self,
        reach: Reach,
        *,
        list_relays: Callable[[], Iterable[RelayPlace]],
        list_links: Callable[[], Iterable[PeerLink]],
        is_wanted: Callable[[], bool],
        on_change: Callable[[], object],
    ) -> None:
        """`list_relays` returns the linked relays, with the addresses that lead to them; `list_links` returns all
        links. `is_wanted` returns True if a place that doesn't work should be replaced, and `on_change` is called
        when the addresses of this node have changed."""
        self._reach, self._list_relays, self._list_links = reach, list_relays, list_links
        self._is_wanted, self._on_change = is_wanted, on_change
        self._listener: Listener | None = None
        self._places: dict[str, _Place] = {}
        #: Relays whose place was given back because it didn't work, and when, by the loop's clock.
        self._left: dict[PeerId, float] = {}
        self._tasks = TaskSet()

    def __iter__(self) -> Iterator[str]:
        """Yield the URLs by which this node can be dialled at its places."""
        return iter(list(self._places))

    def use_listener(self, listener: Listener) -> None:
        """Pass connections that come through places to this listener."""
        self._listener = listener

    def keep_place(self, url: str) -> None:
        """Keep a place at an address that the user has named, once there is one, for as long as it works."""
        self._tasks.start(self._take_in_time(url), name="dtp-node-relay")

    async def find_place(self) -> bool:
        """Take a place at a linked relay unless one works already; return True if there is one."""
        if any(place.works for place in self._places.values()):
            return True
        now = asyncio.get_running_loop().time()
        self._left = {relay: since for relay, since in self._left.items() if now < since + PLACE_RECHECK}
        known = {place.where.relay for place in self._places.values()} | self._left.keys()
        urls = [place.own_url for place in self._list_relays() if place.relay not in known]
        return await take_first(urls, lambda url: self._take_place(url, chosen=True))

    async def give_back(self, *, chosen: bool = False) -> None:
        """Give back all places, or with `chosen` only those that the user hasn't named."""
        for url in [url for url, place in self._places.items() if place.chosen or not chosen]:
            await self._release_place(url)

    async def close(self) -> None:
        """Stop asking for places and checking them. Idempotent."""
        await self._tasks.stop()

    async def _take_in_time(self, url: str) -> None:
        pause = FIRST_PAUSE
        while not await self._take_place(url, chosen=False):
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _take_place(self, url: str, *, chosen: bool) -> bool:
        assert self._listener is not None
        try:
            reservation = await self._reach.reserve(self._listener, url)
        except (CarrierError, PeerError, OSError) as error:
            log.info("no place at %s yet: %s", url, error)
            return False
        (own,) = reservation.urls
        place = self._places[own] = _Place(RelayPlace.parse(own), chosen, reservation)
        self._tasks.start(self._watch_place(url, own, place), name="dtp-node-place")
        self._on_change()
        return True

    async def _release_place(self, url: str) -> None:
        del self._places[url]
        if self._listener is not None:
            await self._listener.remove(url)
        self._on_change()

    # ---- checks -------------------------------------------------------------------------------------------------

    async def _watch_place(self, url: str, own: str, place: _Place) -> None:
        """Check a place until it is given back."""
        loop = asyncio.get_running_loop()
        failures, pause, tried = 0, CHECK_PAUSE, loop.time()
        while True:
            await place.wait_until_due(pause)
            if self._places.get(own) is not place:
                return
            since, tried = tried, loop.time()
            with LoopDelay() as delay:
                reached = place.reservation.held and await self._is_reached(place.where, since)
            if reached is not False and place.reservation.held:
                failures, pause, place.works = 0, PLACE_RECHECK, True
                continue
            if delay.most > LATE:  # a peer that dialled may have got no answer in time
                pause = LONGEST_PAUSE
                continue
            failures += 1
            pause = CHECK_PAUSE if failures < PLACE_FAILURES else LONGEST_PAUSE
            if failures == PLACE_FAILURES:
                what = "gives a place, and leads nobody here" if place.reservation.held else "is gone"
                log.warning("relay %s %s", place.where.relay, what)
            if failures >= PLACE_FAILURES and await self._replace_place(own, place):
                break
        if not place.chosen:
            await asyncio.sleep(PLACE_RECHECK)
            await self._take_in_time(url)

    async def _is_reached(self, place: RelayPlace, since: float) -> bool | None:
        """Return whether this node can be reached at its place, judging by its own attempt under another identity
        and by reports of some peers. A peer that connected through it after `since` (by the loop's clock) proves
        that it can. None if nobody can tell."""
        asked = choose_voices(self._list_links(), place.relay)
        own, *said = await asyncio.gather(
            self._reach.try_place(place), *(self._reach.check_place(link, place.relay) for link in asked)
        )
        if any(_came_by(link, place.relay, since) for link in self._list_links()):
            own = True
        return judge_place(own, [each for each in said if each is not None])

    async def _replace_place(self, own: str, place: _Place) -> bool:
        """Give back a place that doesn't work, if another is wanted and found; return True if it was given back."""
        place.works = False
        if not self._is_wanted() or not await self.find_place() or self._places.get(own) is not place:
            return False
        self._left[place.where.relay] = asyncio.get_running_loop().time()
        await self._release_place(own)
        return True
