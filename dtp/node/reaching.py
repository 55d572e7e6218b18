"""What a node does to be reached: its UDP port, places at relays, direct carriers instead of relayed ones.

Whether it can be dialled it asks those it is linked to. Where it cannot, it asks the router for ports, and a linked
node that relays for a place, and says so in its record.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Final
from urllib.parse import SplitResult, urlsplit
from weakref import WeakKeyDictionary

from dtp.carriers.errors import MissingLibraryError
from dtp.carriers.nearness import Nearness, dialled_as_told, who_tells
from dtp.errors import DtpError
from dtp.identity import Identity, PeerId
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.listener import Listener
from dtp.net.resolver import Candidate
from dtp.node.networks import network_of_link
from dtp.node.places import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    PROTOCOLS,
    RelayPlaces,
    list_other_ways,
    list_proven_ways,
    list_told,
    list_ways,
)
from dtp.peers.lan.interfaces import dialled_urls, own_addresses
from dtp.peers.links import NODE_SERVICE, PeerLink, PeerLinks
from dtp.peers.reach.dialability import Dialability, DialOrigin, DialReport, is_outside, urls_to_try
from dtp.peers.reach.errors import ReachRefusal, RelayRefused
from dtp.peers.reach.place_check import DIAL_TIME
from dtp.peers.reach.port_mapping import PortMapping, PortMappingError
from dtp.peers.reach.reach import CHECK_PAUSE, REACH_PROTOCOL, Reach, is_relay
from dtp.peers.reach.relay_client import ConnectRelay, RelayPlace, Reservation
from dtp.peers.record import PeerRecord
from dtp.tasks import TaskSet

log = logging.getLogger("dtp.node")

#: Peers that are asked to dial, and of those on the internet as many, each in another network: more say nothing new.
MOST_ASKED: Final = 8
#: Seconds until a hidden node asks again.
RECHECK: Final = 1800.0
#: Seconds until a connection that has stayed relayed is tried again, at first; then twice as long each time, up to
#: `RECHECK`. What kept it so may be over: a machine has moved, a firewall is gone.
RETRY: Final = 30.0
#: Addresses of a peer's record that are dialled then, one after another.
MOST_DIALLED: Final = 8
#: The names of tasks that ask peers: those on the internet, and others.
_CHECK_AFAR: Final = "dtp-node-check-afar"
_CHECK: Final = "dtp-node-check"
#: Carriers that `dtp.net.listener.listen` doesn't open for a node.
_OWN: Final = ("quic:", "relay:")
#: Carriers that come in only where whoever dials reaches the listener: by UDP a NAT lets in whoever was sent to.
_THROUGH_NO_NAT: Final = ("tcp", "ws", "wss")


class NodeReach:
    """The `Reach` of a node, and the tasks that use it: `open`, then `release_places` and `close`."""

    def __init__(
        self,
        identity: Identity,
        *,
        psk: bytes | None,
        on_change: Callable[[], object],
        record_of: Callable[[PeerId], PeerRecord | None],
        connect_relay: ConnectRelay | None = None,
        map_port: Callable[[int, str], PortMapping] | None = None,
    ) -> None:
        """`on_change` is called when it is dialled at another place than before, or is found to be hidden or not.
        `connect_relay` gives connections to relays; None: they are free. `map_port` asks the router for a port; None:
        it isn't asked."""
        self.reach = Reach(identity, psk=psk, connect_relay=connect_relay)
        #: What those have found who tried to dial this node.
        self.dialability = Dialability()
        self._on_change, self._record_of, self._map_port = on_change, record_of, map_port
        self._links: PeerLinks | None = None
        self._tasks = TaskSet()
        self._upgrades: WeakKeyDictionary[Connection, asyncio.Task[None] | None] = WeakKeyDictionary()
        #: Each URL at which it listens and for which the router was asked, with what keeps the port.
        self._ports: list[tuple[SplitResult, PortMapping]] = []
        #: Held while the router is asked for ports, or given some back.
        self._mapping = asyncio.Lock()
        #: How often the machine has left a network.
        self._moves = 0
        #: Whether the machine is in another network than when the router was asked.
        self._is_elsewhere = False
        self._places = RelayPlaces(
            self.reach,
            list_relays=self.list_relays,
            list_links=lambda: self._links or (),
            is_wanted=lambda: self.dialability.verdict is not True,
            on_change=lambda: self._on_change(),
        )
        self._listener: Listener | None = None
        self._stack = AsyncExitStack()
        self._hiding: asyncio.Task[None] | None = None
        self._told: tuple[object, ...] = (False,)

    @staticmethod
    def other_urls(urls: Sequence[str]) -> list[str]:
        """Return the URLs that `NodeReach.open` doesn't listen at."""
        return [url for url in urls if not url.startswith(_OWN)]

    def use_links(self, links: PeerLinks) -> None:
        """Answer on these links, and ask by them."""
        self._links = links
        links.protocols[REACH_PROTOCOL] = self.reach.serve_stream
        self.reach.list_ways = lambda relay: list_proven_ways(links.get(relay), self._record_of(relay))

    async def open(self, listener: Listener, urls: Sequence[str]) -> None:
        """Listen at the `quic:` URLs, and begin to ask for places at the `relay:` ones. Raise `ListenError`.

        Where the listener has a UDP port already, that one is used for dialling, too.
        """
        self._listener = listener
        listener.on_silent = self._on_silent
        self.reach.use_listener(listener)
        self._places.use_listener(listener)
        for url in urls:
            if url.startswith("quic:"):
                await self.reach.listen(listener, url)
        for url in urls:
            if url.startswith("relay:"):
                self._places.keep_place(url)

    def _on_silent(self, connection: Connection) -> None:
        """Find out what else has lost its way with this connection: the others to the same peer, and places at
        relays. Where the NAT here has another address, the next packet tells a relay of it, which sends to where
        nobody is until then."""
        for other in self._upgrades:
            if other.peer == connection.peer:
                other.silence.ask_for_life()
        if self._listener is not None:
            for reservation in self._listener.listeners_of(Reservation):
                reservation.ask_for_life()

    # ---- connections that are relayed -----------------------------------------------------------------------

    def on_connected(self, connection: Connection) -> None:
        """Get a connection a direct carrier whenever it is relayed: now, and after it has lost one."""
        self._watch_carriers(connection, None)

    def on_link(self, link: PeerLink) -> None:
        """Get a new link a direct carrier, if it is relayed; else ask where the peer sees and can dial this node."""
        if link.outgoing:
            self._watch_carriers(link.connection, link)
        if link.outgoing and _is_relayed(link.connection):
            return
        self._ask_soon(link)

    def _ask_soon(self, link: PeerLink) -> None:
        """Ask the peer of a link whether it can dial this node, unless enough others have said, or are asked: of
        those on the internet, if it is there, since beside them nobody else counts."""
        is_afar = link.nearness is Nearness.ANYWHERE
        origin, name = (DialOrigin.AFAR, _CHECK_AFAR) if is_afar else (DialOrigin.HERE, _CHECK)
        few = self._links is None or len(self._links) <= MOST_ASKED
        asked = self.dialability.count_voices(origin) + sum(each.get_name() == name for each in self._tasks)
        if self._listening_urls() and (few or asked < MOST_ASKED or self.hidden):
            self._tasks.start(self._check_dialability(link), name=name)

    def on_moved(self) -> None:
        """Forget what peers have reported, since this machine is in another network, and ask those anew whose links
        have outlived that; links whose carriers have not ask when they have another one. Ports of the router that was
        left are given back; the one there is asked where the node is found to be hidden again."""
        self._moves += 1
        self.dialability.forget_reports()
        self._ports.clear()
        ports, self._stack = self._stack, AsyncExitStack()
        self._stack.push_async_callback(ports.aclose)  # where the node ends before that has
        self._tasks.start(self._give_ports_back(ports), name="dtp-node-ports")
        self._is_elsewhere = True
        self._update_reach()
        self._tasks.start(self._check_again(), name=_CHECK)

    def on_lost(self, link: PeerLink) -> None:
        """Remove what the peer of a lost link has reported: the node, or the peer, may have moved."""
        self.dialability.remove_report(link.peer)

    def _watch_carriers(self, connection: Connection, link: PeerLink | None) -> None:
        teller = who_tells()

        def on_carrier(connection: Connection) -> None:
            if _is_relayed(connection):
                before = self._upgrades.get(connection)
                if before is not None:
                    before.cancel()
                self._upgrades[connection] = self._tasks.start(
                    self._keep_upgrading(connection, link, teller), name="dtp-node-direct"
                )

        def on_next_carrier(connection: Connection) -> None:
            on_carrier(connection)
            if link is not None and not _is_relayed(connection):  # either side may be elsewhere by now
                self._ask_soon(link)

        self._upgrades[connection] = None
        connection.silence.on_silent = lambda: self._on_silent(connection)
        connection.callbacks.on_carrier = on_next_carrier
        on_carrier(connection)

    async def _keep_upgrading(
        self, connection: Connection, link: PeerLink | None, teller: Nearness | None
    ) -> None:
        """Get a connection a direct carrier, and try again now and then where that fails. What is dialled is as told
        as the connection was."""
        pause = RETRY
        while not connection.closed and _is_relayed(connection):
            try:
                with dialled_as_told(teller):
                    there = link or await self._link_to(connection)
                    if await self.reach.upgrade_connection(connection, there) or await self._dial_recorded(
                        connection
                    ):
                        return
            except DtpError as error:
                log.info("%r stays relayed: %s", connection, error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await connection.wait_closed()
            pause = min(2 * pause, RECHECK)

    async def _dial_recorded(self, connection: Connection) -> bool:
        """Dial where the peer's record says that it is reached without a relay; True if that gave the connection a
        direct carrier. Two that are in one network reach each other there, though its NAT leads nobody back in."""
        told = list_told(self._record_of(connection.peer), who_tells() or Nearness.PROCESS)
        for address in told[:MOST_DIALLED]:
            try:
                async with asyncio.timeout(DIAL_TIME):
                    await connection.add_carrier(Candidate(address))
            except (TimeoutError, DtpError) as error:
                log.debug("%r isn't reached at %s: %s", connection, address, error)
                continue
            self.reach.give_relays_up(connection)
            return True
        return False

    async def _link_to(self, connection: Connection) -> PeerLink:
        assert self._links is not None
        (relay, *_) = connection.stats.carriers
        there = Address.direct(connection.peer, relay, NODE_SERVICE)
        return self._links.get(connection.peer) or await self._links.connect(there)

    # ---- whether it can be dialled --------------------------------------------------------------------------

    @property
    def urls(self) -> list[str]:
        """Where it is dialled besides where it listens: ports of the router, what others have reached, and its places
        at relays by their other carriers."""
        own = dialled_urls(() if self._listener is None else self._listener.urls)
        ways = list_other_ways(self._places, self._record_of, self.reach.identity.id)
        found = dict.fromkeys((*self._mapped_urls(), *self.dialability.urls, *ways))
        return [url for url in found if url not in own]

    @property
    def hidden(self) -> bool:
        """True if peers that tried could not dial it."""
        return self.dialability.verdict is False

    def _mapped_urls(self) -> list[str]:
        """Return where the router's ports are dialled that it has given and confirmed."""
        return [url._replace(netloc=port.address).geturl() for url, port in self._ports if port.address]

    def _listening_urls(self) -> list[str]:
        """Return the URLs at which the node itself listens."""
        urls = [] if self._listener is None else self._listener.urls
        return [url for url in urls if urlsplit(url).scheme in PROTOCOLS]

    async def _check_dialability(self, link: PeerLink) -> None:
        """Ask a peer to dial this node, and act on the result. Who has come by a relay isn't asked: it sees the node
        there alone, and as many as somebody likes may come so, to say that it can be dialled."""
        if not link.outgoing and link.source.startswith("relay:"):
            return
        try:
            seen, reached = await self._ask_reached(link)
        except (DtpError, EOFError, TimeoutError) as error:
            log.info("%r doesn't say whether it can dial this node: %s", link, error)
            return
        if not seen:
            return
        outside = is_outside(seen, own_addresses().values())
        if outside:
            # A NAT may let in by UDP whoever was sent to before, as this peer was, by the DHT if by nothing else.
            reached = [url for url in reached if not url.startswith("quic:") or url in self._mapped_urls()]
        origin = DialOrigin.BEHIND_NAT if outside else DialOrigin.HERE
        if link.nearness is Nearness.ANYWHERE:
            origin = DialOrigin.AFAR
        report = DialReport(origin, tuple(reached), network_of_link(link), _has_come(link))
        self.dialability.add_report(link.peer, report)
        self._update_reach()

    async def _ask_reached(self, link: PeerLink, *, again: bool = True) -> tuple[str, list[str]]:
        """Return where a peer sees this node, and at which URLs it reaches it there; "" where it sees none, or that
        is of before a move. One that was asked too often, as where this node was restarted at once or its link is
        new, is asked once more when it may be."""
        moves = self._moves
        seen = await self.reach.ask_endpoint(link)
        tried = urls_to_try(seen, self._listening_urls(), self._mapped_urls())
        try:
            reached = await self.reach.check_urls(link, tried) if tried else []
        except RelayRefused as refused:
            if not again or refused.number != ReachRefusal.TOO_OFTEN:
                raise
        else:
            return seen if moves == self._moves else "", reached
        await asyncio.sleep(CHECK_PAUSE)
        return await self._ask_reached(link, again=False)

    def _update_reach(self) -> None:
        """Announce what has changed, and start the task that makes a hidden node reachable."""
        told = (self.hidden, *self.urls)
        if told != self._told:
            self._told = told
            self._on_change()
        if not self.hidden:
            return
        if self._hiding is None or self._hiding.done():
            self._hiding = self._tasks.start(self._run_hidden(), name="dtp-node-hidden")
        elif self._is_elsewhere:
            self._tasks.start(self._map_ports(), name="dtp-node-ports")
        self._is_elsewhere = False

    async def _run_hidden(self) -> None:
        """Ask the router for ports, linked nodes that relay for a place, and peers again, until it can be dialled."""
        if not self._ports:
            await self._map_ports()
        loop, pause = asyncio.get_running_loop(), FIRST_PAUSE
        due = loop.time() + RECHECK
        while self.dialability.verdict is not True:
            await asyncio.sleep(RECHECK if await self._places.find_place() else pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            if loop.time() >= due:
                await self._check_again()
                due = loop.time() + RECHECK
        await self._places.give_back(chosen=True)

    async def _map_ports(self) -> None:
        """Ask the router for ports that lead here, unless it has given some, and have them tried."""
        async with self._mapping:
            if not self._ports:
                await self._request_ports(self._stack)
        if self._ports:
            await self._try_ports()

    async def _try_ports(self) -> None:
        """Announce the ports that the router gives, and have them tried."""
        self._update_reach()
        await asyncio.sleep(CHECK_PAUSE)  # nobody tries more often
        await self._check_again()

    async def _request_ports(self, ports: AsyncExitStack) -> None:
        for url in self._listening_urls() if self._map_port is not None else ():
            parts = urlsplit(url)
            try:
                assert self._map_port is not None
                mapping = self._map_port(parts.port or 0, PROTOCOLS[parts.scheme])
                await ports.enter_async_context(mapping)
            except MissingLibraryError as error:
                log.info("the router isn't asked for ports: %s", error)
                return
            except PortMappingError as error:
                log.info("%s", error)
                return
            if ports is not self._stack:  # the machine has left that router meanwhile
                return
            self._ports.append((parts, mapping))
            mapping.on_change = self._on_port_changed

    def _on_port_changed(self) -> None:
        """Tell where it is reached now that the router, which was restarted, gives another port or none."""
        self._tasks.start(self._try_ports(), name="dtp-node-ports")

    async def _give_ports_back(self, ports: AsyncExitStack) -> None:
        async with self._mapping:
            await ports.aclose()

    async def _check_again(self) -> None:
        """Ask peers whether they can dial this node, those on the internet first."""
        links = sorted(self._links or (), key=lambda link: link.nearness, reverse=True)[:MOST_ASKED]
        await asyncio.gather(*(self._check_dialability(link) for link in links))

    def list_relays(self) -> Iterator[RelayPlace]:
        """Yield the linked nodes that relay, each by the ways that lead to it."""
        for link in self._links or ():
            for way in () if link.closed else list_ways(self._record_of(link.peer)):
                yield RelayPlace(link.peer, way, None)

    # ---- the end ----------------------------------------------------------------------------------------------

    async def release_places(self) -> None:
        """Give places at relays and ports of the router back, and ask for none. What came by them goes on.
        Idempotent."""
        await self._tasks.stop()
        await self._places.close()
        for connection in self._upgrades:
            connection.callbacks.on_carrier = None
        self._on_change = lambda: None
        await self._places.give_back()
        await self._stack.aclose()
        self._ports.clear()

    async def close(self) -> None:
        """End what is under way. Idempotent."""
        await self._tasks.stop()
        await self._places.close()
        await self._stack.aclose()
        await self.reach.close()


def _has_come(link: PeerLink) -> bool:
    """Return True if a peer has dialled this node by a carrier that no NAT lets in that isn't told to."""
    carriers = link.connection.stats.carriers
    return not link.outgoing and any(urlsplit(each).scheme in _THROUGH_NO_NAT for each in carriers)


def _is_relayed(connection: Connection) -> bool:
    """Return True if a connection is over relays alone; False also while it has no carrier."""
    found = connection.stats.carriers
    return bool(found) and all(map(is_relay, found))
