"""What a node does so that others can reach it: its UDP port, places at relays, direct carriers in place of relayed
ones.

It asks linked peers whether they can dial it. If they can't, it asks the router for ports, and a linked node that
relays for a place, and announces those in its record.
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

#: The most peers that are asked to dial, and of peers on the internet the most, each in another network: more would
#: tell nothing new.
MOST_ASKED: Final = 8
#: Seconds until a hidden node asks again.
RECHECK: Final = 1800.0
#: Seconds before a connection that stays relayed is tried again, at first; then twice as long each time, up to
#: `RECHECK`. The reason may be gone: a machine has moved, or a firewall was changed.
RETRY: Final = 30.0
#: The most addresses in a peer's record that are then dialled one after another.
MOST_DIALLED: Final = 8
#: Names of tasks that ask peers: those on the internet, and others.
_CHECK_AFAR: Final = "dtp-node-check-afar"
_CHECK: Final = "dtp-node-check"
#: Carriers that `dtp.net.listener.listen` doesn't open for a node.
_OWN: Final = ("quic:", "relay:")
#: Carriers that can only come in if the listener can be dialled. UDP, in contrast, passes a NAT from peers that
#: were sent something.
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
        """`on_change` is called when the node's addresses have changed, or it was found to be hidden or not.
        `connect_relay` connects to relays; None if they are free. `map_port` asks the router for a port; None to
        not ask."""
        self.reach = Reach(identity, psk=psk, connect_relay=connect_relay)
        #: The results of peers that tried to dial this node.
        self.dialability = Dialability()
        self._on_change, self._record_of, self._map_port = on_change, record_of, map_port
        self._links: PeerLinks | None = None
        self._tasks = TaskSet()
        self._upgrades: WeakKeyDictionary[Connection, asyncio.Task[None] | None] = WeakKeyDictionary()
        #: Each URL at which it listens and for which the router was asked for a port, with what keeps the port.
        self._ports: list[tuple[SplitResult, PortMapping]] = []
        #: Held while the router is asked for ports, or ports are given back.
        self._mapping = asyncio.Lock()
        #: How often the machine has left a network.
        self._moves = 0
        #: Whether the machine has moved to another network since the router was asked.
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
        """Answer requests on these links, and ask peers through them."""
        self._links = links
        links.protocols[REACH_PROTOCOL] = self.reach.serve_stream
        self.reach.list_ways = lambda relay: list_proven_ways(links.get(relay), self._record_of(relay))

    async def open(self, listener: Listener, urls: Sequence[str]) -> None:
        """Listen at the `quic:` URLs, and start asking for places at the `relay:` URLs. Raise `ListenError`.

        If the listener already has a UDP port, that one is also used for dialling.
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
        """Check what else was lost together with this connection: others to the same peer, and places at relays. If
        the NAT here has changed its address, the next packet tells a relay the new one; until then the relay sends
        to the old one."""
        for other in self._upgrades:
            if other.peer == connection.peer:
                other.silence.ask_for_life()
        if self._listener is not None:
            for reservation in self._listener.listeners_of(Reservation):
                reservation.ask_for_life()

    # ---- relayed connections --------------------------------------------------------------------------------

    def on_connected(self, connection: Connection) -> None:
        """Get a direct carrier for a connection whenever it is relayed, now or later."""
        self._watch_carriers(connection, None)

    def on_link(self, link: PeerLink) -> None:
        """Get a direct carrier for a new link that is relayed; otherwise ask how the peer sees this node, and if it
        can dial it."""
        if link.outgoing:
            self._watch_carriers(link.connection, link)
        if link.outgoing and _is_relayed(link.connection):
            return
        self._ask_soon(link)

    def _ask_soon(self, link: PeerLink) -> None:
        """Ask a linked peer whether it can dial this node, unless enough others have answered or are being asked.
        For a peer on the internet only others there count."""
        is_afar = link.nearness is Nearness.ANYWHERE
        origin, name = (DialOrigin.AFAR, _CHECK_AFAR) if is_afar else (DialOrigin.HERE, _CHECK)
        few = self._links is None or len(self._links) <= MOST_ASKED
        asked = self.dialability.count_voices(origin) + sum(each.get_name() == name for each in self._tasks)
        if self._listening_urls() and (few or asked < MOST_ASKED or self.hidden):
            self._tasks.start(self._check_dialability(link), name=name)

    def on_moved(self) -> None:
        """Forget what peers have reported, since this machine is in another network, and ask again over links that
        have survived. Other links ask when they have a new carrier. The old router's ports are given back; the new
        router is asked if the node is found to be hidden again."""
        self._moves += 1
        self.dialability.forget_reports()
        self._ports.clear()
        ports, self._stack = self._stack, AsyncExitStack()
        self._stack.push_async_callback(ports.aclose)  # in case the node ends first
        self._tasks.start(self._give_ports_back(ports), name="dtp-node-ports")
        self._is_elsewhere = True
        self._update_reach()
        self._tasks.start(self._check_again(), name=_CHECK)

    def on_lost(self, link: PeerLink) -> None:
        """Remove what the peer of a lost link has reported, since the node or the peer may have moved."""
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
            if link is not None and not _is_relayed(connection):  # either side may have moved by now
                self._ask_soon(link)

        self._upgrades[connection] = None
        connection.silence.on_silent = lambda: self._on_silent(connection)
        connection.callbacks.on_carrier = on_next_carrier
        on_carrier(connection)

    async def _keep_upgrading(
        self, connection: Connection, link: PeerLink | None, teller: Nearness | None
    ) -> None:
        """Get a direct carrier for a connection, and try again from time to time if that fails. Addresses are
        trusted as far as those of the connection were."""
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
        """Dial the addresses without a relay in the peer's record; return True if that gave the connection a direct
        carrier. Two peers in one network reach each other there even if its NAT doesn't route back in."""
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
        """Additional URLs at which it can be dialled: mapped ports of the router, addresses that others have
        reached, and its places at relays by other carriers."""
        own = dialled_urls(() if self._listener is None else self._listener.urls)
        ways = list_other_ways(self._places, self._record_of, self.reach.identity.id)
        found = dict.fromkeys((*self._mapped_urls(), *self.dialability.urls, *ways))
        return [url for url in found if url not in own]

    @property
    def hidden(self) -> bool:
        """True if peers tried to dial it and couldn't."""
        return self.dialability.verdict is False

    def _mapped_urls(self) -> list[str]:
        """Return the URLs of ports that the router has mapped and that were confirmed."""
        return [url._replace(netloc=port.address).geturl() for url, port in self._ports if port.address]

    def _listening_urls(self) -> list[str]:
        """Return the URLs at which the node itself listens."""
        urls = [] if self._listener is None else self._listener.urls
        return [url for url in urls if urlsplit(url).scheme in PROTOCOLS]

    async def _check_dialability(self, link: PeerLink) -> None:
        """Ask a peer to dial this node, and act on the result. A peer that connected through a relay isn't asked:
        it only sees the node there, and one person can send any number of peers that way to claim that the node can
        be dialled."""
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
            # A NAT may let UDP in from peers that were sent something, as this peer was, by the DHT at least.
            reached = [url for url in reached if not url.startswith("quic:") or url in self._mapped_urls()]
        origin = DialOrigin.BEHIND_NAT if outside else DialOrigin.HERE
        if link.nearness is Nearness.ANYWHERE:
            origin = DialOrigin.AFAR
        report = DialReport(origin, tuple(reached), network_of_link(link), _has_come(link))
        self.dialability.add_report(link.peer, report)
        self._update_reach()

    async def _ask_reached(self, link: PeerLink, *, again: bool = True) -> tuple[str, list[str]]:
        """Return where a peer sees this node, and at which URLs it reaches the node there; "" if it can't tell, or
        its answer is from before a move. A peer that was asked too often, as after a restart or on a new link, is
        asked once more when it allows that."""
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
        """Ask the router for ports, linked relays for a place, and peers again, until the node can be dialled."""
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
        """Ask the router for ports that lead here, unless it has mapped some, and have them checked."""
        async with self._mapping:
            if not self._ports:
                await self._request_ports(self._stack)
        if self._ports:
            await self._try_ports()

    async def _try_ports(self) -> None:
        """Announce the ports that the router has mapped, and have them checked."""
        self._update_reach()
        await asyncio.sleep(CHECK_PAUSE)  # peers check no more often than that
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
        """Announce the current addresses, since the router was restarted and maps another port or none."""
        self._tasks.start(self._try_ports(), name="dtp-node-ports")

    async def _give_ports_back(self, ports: AsyncExitStack) -> None:
        async with self._mapping:
            await ports.aclose()

    async def _check_again(self) -> None:
        """Ask peers whether they can dial this node, those on the internet first."""
        links = sorted(self._links or (), key=lambda link: link.nearness, reverse=True)[:MOST_ASKED]
        await asyncio.gather(*(self._check_dialability(link) for link in links))

    def list_relays(self) -> Iterator[RelayPlace]:
        """Yield the linked relays, each with the addresses that lead to it."""
        for link in self._links or ():
            for way in () if link.closed else list_ways(self._record_of(link.peer)):
                yield RelayPlace(link.peer, way, None)

    # ---- the end ----------------------------------------------------------------------------------------------

    async def release_places(self) -> None:
        """Give back places at relays and ports of the router, and ask for no new ones. Connections that came
        through them go on. Idempotent."""
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
    """Return True if a peer has dialled this node over a carrier that no NAT lets in by itself."""
    carriers = link.connection.stats.carriers
    return not link.outgoing and any(urlsplit(each).scheme in _THROUGH_NO_NAT for each in carriers)


def _is_relayed(connection: Connection) -> bool:
    """Return True if a connection only has relayed carriers; False also while it has none."""
    found = connection.stats.carriers
    return bool(found) and all(map(is_relay, found))
