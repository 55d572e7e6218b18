"""How a node finds others and is found: by its record, on the LAN and in the DHT, as the user has chosen."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple
from urllib.parse import urlsplit

from dtp.carriers.nearness import Nearness
from dtp.errors import DtpError
from dtp.identity import Identity, PeerId
from dtp.net.address import Address
from dtp.net.reachable import is_any
from dtp.peers.book import PeerBook
from dtp.peers.lan.interfaces import dialled_urls
from dtp.peers.lan.multicast import Lan
from dtp.peers.private import PrivateNetwork
from dtp.peers.record import MAX_ADDRESSES, MAX_SKEW, PeerRecord, host_of_endpoint
from dtp.peers.resolver import Finder
from dtp.tasks import TaskSet

if TYPE_CHECKING:
    from dtp.peers.dht import Dht
    from dtp.peers.lan.mdns import Mdns

log = logging.getLogger("dtp.node")

#: Ways to find others.
WAYS: Final = ("lan", "mdns", "dht")
#: Seconds for which two processes may have one identity while one replaces the other.
SUCCESSION: Final = 10.0
#: The number of own records that are recognized as such: each change of the node's addresses makes several.
_SIGNED: Final = 64
#: All addresses of the machine.
ANY: Final = "0.0.0.0"


def dht_host(urls: Iterable[str]) -> str:
    """Return the address for the DHT socket of a node that listens at these URLs, which is the URLs' if there is
    only one.

    It is all addresses if there are several or none: a node that doesn't listen can still ask others.
    """
    hosts = {urlsplit(each).hostname or "" for each in urls} - {""}
    return hosts.pop() if len(hosts) == 1 else ANY


def _choose_addresses(urls: Sequence[str]) -> list[str]:
    """Return as many addresses as a record has room for. On a machine with many networks its own addresses are left
    out first, since those at relays can be reached from everywhere."""
    relayed = [url for url in urls if url.startswith("relay:")][:MAX_ADDRESSES]
    own = [url for url in urls if not url.startswith("relay:")]
    return [*own[: MAX_ADDRESSES - len(relayed)], *relayed]


def how_near_finders_are(hosts: Iterable[str], ways: Collection[str]) -> Nearness:
    """Return how near others may be at most who are asked for peers: as near as the farthest of the DHT's bootstrap
    nodes at `hosts`, or within this network if others are found there."""
    here = Nearness.NETWORK if {"lan", "mdns"}.intersection(ways) else Nearness.ANYWHERE
    return max(map(Nearness.of_host, hosts), default=here)


class DhtFinder:
    """Looks peers up in the DHT."""

    source: ClassVar[str] = "dht"

    def __init__(self, dht: Dht, how_near: Callable[[], Nearness]) -> None:
        """`how_near` returns how near the nodes of the DHT may be at most."""
        self._dht, self._how_near = dht, how_near

    @property
    def teller(self) -> Nearness:
        """How near those who answer may be at most."""
        return self._how_near()

    async def find_record(self, peer: PeerId) -> PeerRecord | None:
        """Return the newest record of `peer` in the DHT, or None."""
        return await self._dht.find(peer)


class Bootstrap(NamedTuple):
    """The bootstrap nodes: their addresses, and DHT endpoints such as "seed.example:9001"."""

    addresses: tuple[Address, ...] = ()
    endpoints: tuple[str, ...] = ()

    @classmethod
    def parse(cls, given: Collection[str | Address]) -> Bootstrap:
        """Return the given nodes, sorted by kind. Raise `AddressError`."""
        endpoints = tuple(each for each in given if isinstance(each, str) and "://" not in each)
        nodes = (each for each in given if each not in endpoints)
        return cls(tuple(Address.parse(each) if isinstance(each, str) else each for each in nodes), endpoints)

    @property
    def hosts(self) -> list[str]:
        """The hosts of all of them."""
        return [*map(host_of_endpoint, self.endpoints), *(each.host for each in self.addresses)]


#: No bootstrap nodes.
NOBODY: Final = Bootstrap()


class PeerFinding:
    """The discovery methods in use, and what the node announces there. Used within the node's `AsyncExitStack`."""

    def __init__(
        self,
        identity: Identity,
        book: PeerBook,
        ways: Collection[str],
        bootstrap: Bootstrap = NOBODY,
        clock: Callable[[], float] = time.time,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """`bootstrap` are the bootstrap nodes; `clock` is this machine's Unix time in seconds; `options` are
        further arguments of `Lan` and `Dht`, under "lan" and "dht"."""
        self.identity, self.book, self._clock = identity, book, clock
        self._bootstrap, self._options = bootstrap, {"lan": {}, "dht": {}, **(options or {})}
        self.lan: Lan | None = None
        self.mdns: Mdns | None = None
        self.dht: Dht | None = None
        #: The node's own record; None before `publish_record`.
        self.record: PeerRecord | None = None
        #: Called where the DHT has a newer record of this node than its own.
        self.on_superseded: Callable[[], object] | None = None
        #: The `sequence` of the first record that it signed, and its latest records.
        self._first = 0
        self._signed: deque[PeerRecord] = deque(maxlen=_SIGNED)
        #: Whether the LAN is told when the node closes.
        self.says_goodbye = True
        self._ways = frozenset(ways)
        #: How near those may be at most, to begin with, by whom others are found.
        self._first_finders = how_near_finders_are(bootstrap.hosts if "dht" in self._ways else (), self._ways)
        self._tasks = TaskSet()

    async def open(
        self, stack: AsyncExitStack, network: PrivateNetwork | None, urls: Iterable[str] = ()
    ) -> list[Finder]:
        """Open the discovery methods, and return what finds peers by them. The DHT's socket is at the address of
        `urls`, where the node listens, unless the options say otherwise."""
        lan_options = self._options["lan"]
        finders: list[Finder] = []
        stack.push_async_callback(self._tasks.stop)
        if "lan" in self._ways:
            self.lan = Lan(self.book, network=network, **lan_options)
            await stack.enter_async_context(self.lan)
            stack.callback(self._say_goodbye, self.lan)
            finders.append(self.lan)
        if "mdns" in self._ways:
            from dtp.peers.lan.mdns import Mdns

            self.mdns = Mdns(self.book, network=network, interfaces=lan_options.get("interfaces", ()))
            finders.append(await stack.enter_async_context(self.mdns))
        if "dht" in self._ways:
            from dtp.peers.dht import Dht

            options = {"bind": (dht_host(urls), 0), **self._options["dht"]}
            self.dht = Dht(self.identity, bootstrap=self._bootstrap.endpoints, network=network, **options)
            await stack.enter_async_context(self.dht)
            finders.append(DhtFinder(self.dht, self._how_near_finders_are))
        return finders

    def publish_record(self, urls: Iterable[str], services: Sequence[str], ttl: float) -> None:
        """Sign the node's record, and announce it by all methods."""
        self.record = PeerRecord.sign(
            self.identity,
            now=self._next_moment(),
            ttl=ttl,
            addresses=_choose_addresses(dialled_urls(urls)),
            services=services,
            dht=self._dht_endpoint(),
        )
        self._first = self._first or self.record.sequence
        self._signed.append(self.record)
        if self.lan is not None:
            self.lan.publish_record(self.record, to_all=True)
        if self.mdns is not None:
            self.mdns.publish_record(self.record)
        self.publish_to_dht()

    def is_of_another(self, record: PeerRecord) -> bool:
        """True if a record of this identity was signed after this node started, but neither by it nor by a process
        that it replaces: that one listens at the same sockets, and ends within `SUCCESSION`."""
        if not 0 < self._first < record.sequence or record in self._signed:
            return False
        ours = {each for own in self._signed for each in own.addresses}
        elsewhere = any(each not in ours and not each.startswith("relay:") for each in record.addresses)
        return elsewhere or record.sequence > self._first + 1000 * SUCCESSION

    def teller_of(self, peer: PeerId) -> Nearness:
        """Return how near those are who reported where a peer is, or may report it where it isn't known."""
        known = self.book.get_known(peer)
        return self._how_near_finders_are() if known is None else known.teller

    def _how_near_finders_are(self) -> Nearness:
        """Return how near those are by whom others are found. Peers of this network may have led the DHT
        farther."""
        return self._first_finders if self.dht is None else max(self._first_finders, self.dht.farthest)

    def publish_to_dht(self) -> None:
        """Publish the record in the DHT, if there is one. While this node is alone there, do so once another is
        found."""
        if self.dht is not None and self.record is not None:
            self.dht.publish_later(self.record)  # at once: what is provided in this turn needs it
            self._tasks.start(self._publish_to_dht(self.dht, self.record), name="dtp-node-publish")

    async def _publish_to_dht(self, dht: Dht, record: PeerRecord) -> None:
        from dtp.peers.dht import DhtSuperseded

        try:
            await dht.publish(record)
        except DhtSuperseded as fault:
            log.info("the record isn't in the DHT: %s", fault)
            if self.on_superseded is not None:
                self.on_superseded()
        except DtpError as fault:
            log.info("the record isn't in the DHT: %s", fault)

    def on_record(self, record: PeerRecord) -> None:
        """Add a node that was found by another method to the DHT."""
        if self.dht is None or not record.dht:
            return
        if Nearness.of_host(host_of_endpoint(record.dht)) >= self.teller_of(record.peer):
            was_alone = not len(self.dht.node.table)
            self.dht.add_node(record)
            if was_alone:
                self._tasks.start(self._wait_joined(self.dht), name="dtp-node-join")

    async def _wait_joined(self, dht: Dht) -> None:
        try:
            await dht.wait_joined()
        except DtpError as fault:
            log.info("the DHT: %s", fault)
        self.publish_to_dht()

    def _dht_endpoint(self) -> str:
        """Return the DHT's endpoint as it can be reached from this machine's networks; "" if there is none."""
        if self.dht is None:
            return ""
        host, _, port = self.dht.endpoint.rpartition(":")
        if not is_any(host.strip("[]")):
            return self.dht.endpoint
        reached = dialled_urls([f"tcp://0.0.0.0:{port}"])
        return reached[0].removeprefix("tcp://") if reached else ""

    def _say_goodbye(self, lan: Lan) -> None:
        """Announce on the LAN, by a record without addresses, that the node is closing."""
        if self.record is not None and self.says_goodbye:
            lan.withdraw_record(PeerRecord.sign(self.identity, now=self._next_moment(), ttl=60))

    def _next_moment(self) -> float:
        """Return the current time, but later than the previous record's: two records in one millisecond would count
        as one. If that record is from the future, since this machine's clock was ahead, peers accept neither it nor
        anything later."""
        now = self._clock()
        last = 0.0 if self.record is None else (self.record.sequence + 1.5) / 1000
        return now if last > now + MAX_SKEW else max(now, last)
