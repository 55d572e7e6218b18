"""A hidden node's places at relays: whom it asks for one, by which ways others hear of it, and whether it is reached
there."""

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
#: Seconds that one way to ask for a place has, where there is another one: three round trips of 1 s each.
PLACE_TIME: Final = 3.0
#: Ways to relays that are asked for a peer.
MOST_RELAYS: Final = 4
#: Seconds until a relay that didn't give a place is asked again, at first and at most. At most so long also until a
#: place that led nobody here is tried again, where there is no other.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
#: Seconds until a place that works is tried again, and a relay that led nobody here is asked again.
PLACE_RECHECK: Final = 1800.0
#: Linked peers that are asked to dial this node at its place, each in another network; it dials by itself, too.
PLACE_VOICES: Final = 3
#: What this node finds itself counts as so many who say the same, where somebody came to it by its place: two peers
#: that lie, or their owner, don't outvote it. All three do: a relay may lead only those there who come from here.
OWN_WEIGHT: Final = 2
#: Without a word of its own it believes no fewer.
LEAST_HEARSAY: Final = 2
#: A place is given up after so many tries that led nobody here, one after another: a network may fail for a moment.
PLACE_FAILURES: Final = 2
#: Seconds between two looks at how late the loop is, and by how much it may be while a place is tried: a dial, which
#: has `DIAL_TIME`, takes some turns of it on this side.
LOOK: Final = 0.25
LATE: Final = 0.25


def list_ways(record: PeerRecord | None) -> list[Address]:
    """Return where a node relays, as its record says, by each carrier; QUIC comes first, since holes can be punched
    then. Empty where it doesn't, or there is no record."""
    relays = record is not None and RELAY_SERVICE in record.services
    return list_direct(record, RELAY_SERVICE) if relays else []


def list_told(record: PeerRecord | None, teller: Nearness) -> list[Address]:
    """Return where a record says that its peer is dialled without a relay, as far as somebody this near may have it
    dialled."""
    return [each for each in list_direct(record) if is_dialled_as_told(each, teller)]


def list_direct(record: PeerRecord | None, service: str = NODE_SERVICE) -> list[Address]:
    """Return where a record says that its peer is dialled without a relay, QUIC first; empty without a record."""
    if record is None:
        return []
    found = []
    for url in record.addresses:
        with contextlib.suppress(AddressError):  # whoever signed the record wrote what they liked
            found.append(Address.direct(record.peer, url, service))
    found = [each for each in found if urlsplit(each.carrier_url).scheme in (*PROTOCOLS, "memory")]
    return sorted(found, key=lambda each: not each.carrier_url.startswith("quic:"))


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


def list_proven_ways(link: PeerLink | None, record: PeerRecord | None) -> list[RelayPlace]:
    """Return the ways to a linked relay: those by which it was reached, or at the address from which it comes. What
    else its record says may be anybody's address. Empty where there is no link."""
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
    """Return the links by which peers are asked about a place at `relay`: those that this node dialled, as anybody
    can come, and one at random of each network, whose owner may be many."""
    by_network: dict[str, list[PeerLink]] = {}
    for link in links:
        if link.outgoing and not link.closed and link.peer != relay:
            # Addresses of none, and relays, are one: they cost nothing.
            by_network.setdefault(network_of_host(link.source.partition("/")[0]), []).append(link)
    networks = random.sample(list(by_network.values()), min(PLACE_VOICES, len(by_network)))
    return [random.choice(each) for each in networks]


def judge_place(own: bool | None, said: Collection[bool]) -> bool | None:
    """Return whether a node is reached at a place, as at least half of those say who have tried: it itself, who
    counts as `OWN_WEIGHT` if it is, and peers. None where nobody can tell."""
    if own is None:
        known = [*said] if len(said) >= LEAST_HEARSAY or any(said) else []
    else:
        known = [*said, *[own] * (OWN_WEIGHT if own else 1)]
    return 2 * sum(known) >= len(known) if known else None


class LoopDelay:
    """How late this loop was at most within a `with` statement, in seconds."""

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
    """One place: where it is, and what is known of it."""

    where: RelayPlace
    #: False where the user has named it.
    chosen: bool
    reservation: Reservation
    #: False once it has led nobody here `PLACE_FAILURES` times.
    works: bool = True

    async def wait_until_due(self, pause: float) -> None:
        """Wait until it is to be tried: after `pause` seconds, or `CHECK_PAUSE` after its relay has gone, which may
        be back by then."""
        lost = asyncio.Event()
        self.reservation.on_lost = lost.set
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await lost.wait()
                await asyncio.sleep(CHECK_PAUSE)


def _came_by(link: PeerLink, relay: PeerId, since: float) -> bool:
    return not link.outgoing and link.since >= since and link.source == source_of(relay)


class RelayPlaces:
    """The places of a node at relays. Each is tried from outside now and then; one that leads nobody here is given
    back when there is another. `use_listener` first, `close` at the end."""

    def __init__(
        self,
        reach: Reach,
        *,
        list_relays: Callable[[], Iterable[RelayPlace]],
        list_links: Callable[[], Iterable[PeerLink]],
        is_wanted: Callable[[], bool],
        on_change: Callable[[], object],
    ) -> None:
        """`list_relays` gives the linked relays, by the ways that lead to them, `list_links` all links. `is_wanted`
        says whether another place is to be had for one that doesn't work, and `on_change` is called when where this
        node is dialled has changed."""
        self._reach, self._list_relays, self._list_links = reach, list_relays, list_links
        self._is_wanted, self._on_change = is_wanted, on_change
        self._listener: Listener | None = None
        self._places: dict[str, _Place] = {}
        #: Relays whose place was given back since it led nobody here, and when by the loop's clock.
        self._left: dict[PeerId, float] = {}
        self._tasks = TaskSet()

    def __iter__(self) -> Iterator[str]:
        """Yield the URLs by which this node is dialled at its places."""
        return iter(list(self._places))

    def use_listener(self, listener: Listener) -> None:
        """Give what comes by places to this listener."""
        self._listener = listener

    def keep_place(self, url: str) -> None:
        """Have a place where the user has said, as soon as there is one, for as long as it leads somebody here."""
        self._tasks.start(self._take_in_time(url), name="dtp-node-relay")

    async def find_place(self) -> bool:
        """Take a place at a linked relay, unless there is one that works; return whether there is one."""
        if any(place.works for place in self._places.values()):
            return True
        now = asyncio.get_running_loop().time()
        self._left = {relay: since for relay, since in self._left.items() if now < since + PLACE_RECHECK}
        known = {place.where.relay for place in self._places.values()} | self._left.keys()
        urls = [place.own_url for place in self._list_relays() if place.relay not in known]
        return await take_first(urls, lambda url: self._take_place(url, chosen=True))

    async def give_back(self, *, chosen: bool = False) -> None:
        """Give all places back, or those that nobody has named if `chosen`."""
        for url in [url for url, place in self._places.items() if place.chosen or not chosen]:
            await self._release_place(url)

    async def close(self) -> None:
        """Ask for no place, and try none any more. Idempotent."""
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

    # ---- whether they lead here ---------------------------------------------------------------------------------

    async def _watch_place(self, url: str, own: str, place: _Place) -> None:
        """Try a place until it is given back."""
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
            if delay.most > LATE:  # whoever dialled may have got no answer from this node
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
        """Return whether this node is reached at its place, by what it finds itself, as somebody else, and what some
        peers say. Who has come by it `since` then, by the loop's clock, shows that it is. None where nobody can
        tell."""
        asked = choose_voices(self._list_links(), place.relay)
        own, *said = await asyncio.gather(
            self._reach.try_place(place), *(self._reach.check_place(link, place.relay) for link in asked)
        )
        if any(_came_by(link, place.relay, since) for link in self._list_links()):
            own = True
        return judge_place(own, [each for each in said if each is not None])

    async def _replace_place(self, own: str, place: _Place) -> bool:
        """Give a place back that leads nobody here, if another is wanted and found; return whether it has gone."""
        place.works = False
        if not self._is_wanted() or not await self.find_place() or self._places.get(own) is not place:
            return False
        self._left[place.where.relay] = asyncio.get_running_loop().time()
        await self._release_place(own)
        return True
