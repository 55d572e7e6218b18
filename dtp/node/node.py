"""`dtp.Node`: one object that ties listener, peers and links together. Each part works without it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

from dtp.carriers.nearness import Nearness
from dtp.errors import LocalError
from dtp.gossip.limits import DEFAULT as GOSSIP
from dtp.gossip.limits import GossipLimits
from dtp.gossip.topics import ROOM
from dtp.identity import Identity, PeerId
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import Connecting, connect
from dtp.net.listener import Handler, Listener, listen
from dtp.net.resolver import HostResolver, Resolver, StaticResolver
from dtp.node.book_writer import BookWriter
from dtp.node.dialler import PeerDialler
from dtp.node.exchange import PROTOCOL as PEER_EXCHANGE
from dtp.node.exchange import PUSH_PROTOCOL, PeerExchange, RecordPush
from dtp.node.finding import SUCCESSION, WAYS, Bootstrap, PeerFinding
from dtp.node.places import LinkedRelays
from dtp.node.reaching import NodeReach
from dtp.node.upkeep import UpkeepLimits
from dtp.node.watches import ClockWatch, SurroundingsWatch, TwinWatch
from dtp.peers.book import PeerBook
from dtp.peers.clocks import ClockDifference
from dtp.peers.lan.interfaces import dialled_urls
from dtp.peers.lan.multicast import Lan
from dtp.peers.links import NODE_SERVICE, LinkLimits, PeerLink, PeerLinks
from dtp.peers.own_networks import has_left
from dtp.peers.private import PrivateNetwork
from dtp.peers.reach.dialability import Dialability
from dtp.peers.reach.messages import RELAY_SERVICE
from dtp.peers.reach.port_mapping import PortMapping
from dtp.peers.reach.reach import Reach
from dtp.peers.reach.relay_client import ConnectRelay
from dtp.peers.record import PeerRecord
from dtp.peers.resolver import PeerResolver
from dtp.peers.surroundings import LOOK, Surroundings
from dtp.session.limits import DEFAULT, Limits
from dtp.tasks import SupervisedTask, TaskSet

if TYPE_CHECKING:
    from dtp.gossip import Gossip, Topic
    from dtp.gossip.topics import Overflow, Validator
    from dtp.graph import Graph
    from dtp.node.topics import Sharing, Topics
    from dtp.peers.dht import Dht

log = logging.getLogger("dtp.node")

T = TypeVar("T")

#: Where a node listens by default: at all addresses of the machine, IPv4 and IPv6, and any port, so that one
#: machine can have many nodes.
ANYWHERE: Final = "tcp://:0"


class NodeError(LocalError, ValueError):
    """A node can't be made from these arguments; the message says what to change."""

    code: ClassVar[str] = "node"


@dataclass(frozen=True, slots=True)
class NodeLimits:
    """Limits of a node and of its parts, with reasons. In seconds."""

    links: LinkLimits = field(default_factory=LinkLimits)
    upkeep: UpkeepLimits = field(default_factory=UpkeepLimits)
    connection: Limits = DEFAULT
    gossip: GossipLimits = GOSSIP
    #: How long a record is valid. A program that was offline for an evening still knows where to begin.
    record: float = 6 * 3600.0
    #: How long before the node signs a new one.
    renewal: float = 3 * 3600.0
    #: Seconds from a change of the book until it is written, together with other changes.
    save: float = 30.0
    #: Seconds before another node with this identity is reported, since a process may be replacing this one, which
    #: then ends.
    succession: float = SUCCESSION
    #: Seconds between two checks of neighbours' clocks. A difference is reported at the second check, since after a
    #: machine has slept, old messages arrive first.
    clock_look: float = 60.0
    #: The least seconds between two checks whether this machine's clock was set, or its networks have changed. They
    #: precede dials, and cost a quarter of a millisecond.
    surroundings_look: float = 1.0
    #: The most seconds between them. While nothing happens nobody else notices, so the node wakes up once a minute
    #: for this.
    longest_surroundings_look: float = LOOK


@dataclass(frozen=True, slots=True)
class KnownPeer:
    """What a node knows of a peer."""

    record: PeerRecord
    #: Who reported it, such as "lan 192.0.2.7".
    source: str
    #: True while there is a link to it.
    linked: bool


@dataclass(frozen=True, slots=True)
class _OpenParts:
    """What a node has while it is open."""

    links: PeerLinks
    listener: Listener
    reach: NodeReach
    topics: Topics
    psk: bytes | None


def _each(given: str | Collection[T]) -> tuple[str | T, ...]:
    """Return what was given as a tuple; a single string is one item."""
    return (given,) if isinstance(given, str) else tuple(given)


def _serve(services: Mapping[str, Handler], *, relay: bool) -> dict[str, Handler]:
    """Return the given services, with that of a relay if the node is one. Raise `NodeError`."""
    found = dict(services)
    if relay:
        from dtp.peers.reach.relay import Relay  # which takes part of a node's memory, with its limits

        found.setdefault(RELAY_SERVICE, Relay().serve_connection)
    if NODE_SERVICE in found:
        raise NodeError(f"the service {NODE_SERVICE!r} is the node's own; choose another name")
    return found


class Node:
    """A program's place in a network of nodes: it finds others and is found, and links to other nodes. `async with`
    opens it.

    - `identity` is who it is; without it a new one is made.
    - `listen` are carrier URLs; by default any TCP port on all networks. None: others can't dial it.
    - `discover` names the ways to find others and be found: "lan", "mdns" (with the extra `dtp-sockets[lan]`), "dht".
    - `bootstrap` are nodes to begin with: addresses such as "dtp+tcp://dtp1...@seed.example:9000", and DHT endpoints
      such as "seed.example:9001".
    - `private` is the key of a private network (`PrivateNetwork.parse`): others see, join and read nothing.
    - `services` are served beside the node's own; those in `announce` are named in its public record.
    - `relay` lets peers that can't be dialled be reached here; a `relay:` URL in `listen` is a place at another node.
    - `store` is a folder for what outlives the node: the peers that it knows.
    - `listener` is one that somebody else has and closes, of the same identity: the node announces where it listens,
      and is given connections for `NODE_SERVICE` by `node.links.accept`. `announce` may name its services.

    One text alone may stand for a list of one: `listen="tcp://0.0.0.0:9000"`.

    LAN, DHT and linked nodes are told its identity, its addresses and the services in `announce`. With `discover=()`
    only those are whom it links to.
    """

    def __init__(
        self,
        *,
        identity: Identity | None = None,
        listen: str | Sequence[str] | None = (ANYWHERE,),
        discover: str | Collection[str] = ("lan",),
        bootstrap: str | Address | Sequence[str | Address] = (),
        private: bytes | str | PrivateNetwork | None = None,
        services: Mapping[str, Handler] | None = None,
        announce: str | Collection[str] = (),
        relay: bool = False,
        store: str | Path | None = None,
        limits: NodeLimits | None = None,
        lan: Mapping[str, object] | None = None,
        dht: Mapping[str, object] | None = None,
        listener: Listener | None = None,
        map_ports: bool = True,
        connect_relay: ConnectRelay | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        """`lan` are further arguments of `Lan`, such as `interfaces` and `port`; `dht` of `Dht`, such as
        `bind`: by default its socket is at the address that the node listens at, at any port.

        A node that others can't dial asks the router for ports by UPnP (with the extra `dtp-sockets[upnp]`), unless
        `map_ports` is False, and takes a place at a linked node that relays. `connect_relay` gives connections to
        relays, for those that have a price. `surroundings` are this machine's clock and networks.
        """
        listen, discover, announce = _each(listen or ()), _each(discover), _each(announce)
        for way in discover:
            if way not in WAYS:
                raise NodeError(f"there is no way {way!r} to find peers; known: {', '.join(WAYS)}")
        first = Bootstrap.parse((bootstrap,) if isinstance(bootstrap, Address) else _each(bootstrap))
        if first.endpoints and "dht" not in discover:
            raise NodeError(
                f"{first.endpoints[0]!r} is not an address of a node, such as dtp+tcp://dtp1...@HOST:PORT; HOST:PORT "
                "alone is a node of the DHT, and 'dht' isn't among the ways to find others"
            )
        self.identity = identity or Identity.generate()
        self.services = _serve(services or {}, relay=relay)
        for name in announce:
            if listener is None and name not in self.services and "*" not in self.services:
                raise NodeError(f"{name!r} is announced and not among the services")
        self.limits = limits = limits or NodeLimits()
        self._listen, self._listener = tuple(listen), listener
        self._announce = tuple(dict.fromkeys((*announce, *([RELAY_SERVICE] if relay else []))))
        self._private = private
        surroundings = surroundings or Surroundings()
        self._watch = SurroundingsWatch(
            surroundings, limits.surroundings_look, limits.longest_surroundings_look
        )
        #: The peers that are known.
        self.book = PeerBook(clock=surroundings.wall)
        self._writer = BookWriter(self.book, store, limits.save)
        self._make_reach = partial(
            NodeReach,
            self.identity,
            on_change=self._on_reach_changed,
            record_of=self.book.get,
            connect_relay=connect_relay,
            map_port=PortMapping if map_ports else None,
        )
        options = {"lan": lan or {}, "dht": dht or {}}
        self._finding = PeerFinding(self.identity, self.book, discover, first, surroundings.wall, options)
        self._tasks = TaskSet()
        self._dialler = PeerDialler(self._finding, limits.upkeep, lambda: self.links, self._tasks)
        self._dialler.add_bootstrap(first.addresses)
        self._keeper = SupervisedTask(self._run_upkeep, name="dtp-node-upkeep")
        self._twin = TwinWatch(self.identity.id, limits.succession, self._tasks)
        self._finding.on_superseded = self._twin.suspect
        self._clock = ClockWatch(limits.clock_look, surroundings.wall)
        self._exchange = PeerExchange(self.book, lambda: self.record, self._clock.clocks)
        self._push = RecordPush(self._exchange, lambda: self.links)
        self._opened: _OpenParts | None = None
        self._stack = AsyncExitStack()
        #: What others can see and use, which `leave` closes before the rest.
        self._mesh = AsyncExitStack()

    # ---- life -------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Node:
        """Open the node. Raise `ListenError` for an address that can't be bound, `NetworkKeyError` for an invalid
        key."""
        async with AsyncExitStack() as stack:
            await self._open_parts(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _open_parts(self, stack: AsyncExitStack) -> None:
        network = None
        if self._private is not None:  # deriving a key from a passphrase takes a while: not on the loop
            network = await asyncio.to_thread(PrivateNetwork.parse, self._private)
        await self._writer.load(stack, network)
        psk = None if network is None else network.psk
        reach = self._make_reach(psk=psk)
        stack.push_async_callback(reach.close)
        self._mesh = stack = await stack.enter_async_context(AsyncExitStack())
        resolver = PeerResolver(self.book)
        links = PeerLinks(
            self.identity,
            resolvers=(StaticResolver(), resolver, HostResolver(), LinkedRelays(reach.list_relays)),
            limits=self.limits.links,
            dial=self._dial_link,
            teller_of=self._finding.teller_of,
        )
        reach.use_links(links)
        stack.push_async_callback(links.close)
        listener = self._listener
        if listener is None:
            listener = await self._listen_itself(links, reach.other_urls(self._listen), psk)
            stack.push_async_callback(listener.close)
        self._opened = parts = _OpenParts(links, listener, reach, self._make_topics(links), psk)
        stack.push_async_callback(reach.release_places)
        await reach.open(listener, self._listen)
        self._follow_events(stack, links)
        stack.callback(resolver.finders.clear)
        resolver.finders.extend(await self._finding.open(stack, network, listener.urls))
        await parts.topics.open(stack, self._finding.dht)
        self._begin_upkeep(stack)

    async def _listen_itself(self, links: PeerLinks, urls: Sequence[str], psk: bytes | None) -> Listener:
        return await listen(
            urls,
            {**self.services, NODE_SERVICE: links.accept},
            identity=self.identity,
            psk=psk,
            limits=self.limits.connection,
        )

    def _make_topics(self, links: PeerLinks) -> Topics:
        from dtp.node.topics import Topics

        return Topics(
            self.identity,
            self.book,
            links,
            lambda: self.record,
            self.limits.gossip,
            self._clock.clocks,
            self._watch.surroundings.wall,
        )

    def _follow_events(self, stack: AsyncExitStack, links: PeerLinks) -> None:
        """Process changes of the book, and of links, from now on."""
        stack.callback(self.book.on_change(self._on_record))
        stack.callback(self.book.on_nearer(self._on_nearer))
        stack.callback(self.book.on_told(self._dialler.on_told))
        stack.callback(links.listen(self._on_link, self._on_lost))
        links.protocols[PEER_EXCHANGE] = self._exchange.serve_stream
        links.protocols[PUSH_PROTOCOL] = self._exchange.serve_push

    async def leave(self, *, goodbye: bool = True) -> None:
        """End links and announcements. Connections that were made by the node go on until it closes.

        Without `goodbye` nobody is told: another process goes on as this node. Idempotent.
        """
        self._finding.says_goodbye = goodbye
        await self._mesh.aclose()

    def _begin_upkeep(self, stack: AsyncExitStack) -> None:
        self.book.note_addresses(self._watch.surroundings.addresses)
        self._renew_record()
        if self.lan is not None:
            self.lan.ask_everybody()
        self._dial_known()
        stack.push_async_callback(self._tasks.stop)
        for task in (self._keeper, self._writer, self._push):
            stack.push_async_callback(task.stop)
            task.start()

    # ---- what it is -------------------------------------------------------------------------------------

    @property
    def links(self) -> PeerLinks:
        """The links to other nodes. Raise `NodeError` if the node isn't open."""
        return self._parts.links

    @property
    def listener(self) -> Listener:
        """The listener that others dial. Raise `NodeError` if the node isn't open."""
        return self._parts.listener

    @property
    def _parts(self) -> _OpenParts:
        if self._opened is None:
            raise NodeError("the node isn't open; use it within 'async with'")
        return self._opened

    @property
    def lan(self) -> Lan | None:
        """The LAN discovery; None if it isn't used."""
        return self._finding.lan

    @property
    def dht(self) -> Dht:
        """The DHT. Raise `NodeError` if it isn't used, or the node isn't open."""
        if self._finding.dht is None:
            raise NodeError(
                'the node has no DHT; give discover=["lan", "dht"], and use it within \'async with\''
            )
        return self._finding.dht

    @property
    def gossip(self) -> Gossip:
        """The topics. Raise `NodeError` if the node isn't open."""
        return self._parts.topics.gossip

    @property
    def has_twin(self) -> bool:
        """True once another node with this identity was detected, and logged."""
        return self._twin.found

    @property
    def record(self) -> PeerRecord:
        """The node's own record. Raise `NodeError` if the node isn't open."""
        if self._finding.record is None:
            raise NodeError("the node isn't open; use it within 'async with'")
        return self._finding.record

    @property
    def addresses(self) -> list[Address]:
        """The addresses at which others dial it, one for each network and carrier."""
        return [Address.direct(self.identity.id, each) for each in dialled_urls(self.listener.urls)]

    @property
    def address(self) -> Address:
        """The first of `addresses`; without any, an address that a resolver has to look up."""
        return next(iter(self.addresses), Address("dtp", peer=self.identity.id))

    @property
    def clock_difference(self) -> ClockDifference | None:
        """How most neighbours' clocks differ from this machine's; as a string it is a sentence. None if they don't.
        With one or two neighbours all have to differ, and it isn't known whose clock is wrong."""
        return self._clock.find_difference(asyncio.get_running_loop().time())

    def peers(self) -> list[KnownPeer]:
        """Return the known peers that announce addresses, linked ones first."""
        found = [
            KnownPeer(each.record, each.source, self.links.get(each.record.peer) is not None)
            for each in self.book
            if each.record.addresses and each.record.peer != self.identity.id
        ]
        return sorted(found, key=lambda each: (not each.linked, each.record.peer))

    def teller_of(self, peer: PeerId) -> Nearness:
        """Return how near those are who reported where a peer is, or may report it where it isn't known. What is
        dialled because others named the peer is no nearer than they are."""
        return self._finding.teller_of(peer)

    def connect(
        self,
        address: str | Address,
        *,
        service: str | None = None,
        resolvers: Sequence[Resolver] | None = None,
    ) -> Connecting:
        """Connect to a peer's service as `dtp.connect` does, using everything that this node knows and can ask.

        With `resolvers`, these look the peer up instead.
        """
        return connect(
            address,
            identity=self.identity,
            service=service,
            psk=self._parts.psk,
            limits=self.limits.connection,
            resolvers=self.links.resolvers if resolvers is None else resolvers,
            dial_carrier=self.reach.dial_carrier,
            on_connected=self._parts.reach.on_connected,
        )

    @property
    def reach(self) -> Reach:
        """How others see the node, and how relayed connections became direct. Raise `NodeError` if the node isn't
        open."""
        return self._parts.reach.reach

    async def _dial_link(self, address: Address) -> Connection:
        return await connect(
            address,
            identity=self.identity,
            psk=self._parts.psk,
            limits=self.limits.connection,
            resolvers=self.links.resolvers,
            dial_carrier=self.reach.dial_carrier,
        )

    @property
    def dialability(self) -> Dialability:
        """The results of peers that tried to dial the node. Raise `NodeError` if it isn't open."""
        return self._parts.reach.dialability

    def topic(
        self,
        name: str,
        *,
        key: bytes | str | None = None,
        overflow: Overflow = "wait",
        history: float = 0.0,
        validator: Validator | None = None,
        room: int = ROOM,
    ) -> Topic:
        """Return a topic, to be joined by `async with`; the arguments are those of `Gossip.topic`."""
        return self.gossip.topic(
            name, key=key, overflow=overflow, history=history, validator=validator, room=room
        )

    def share(self, graph: Graph, *, topic: str, key: bytes | str | None = None) -> Sharing:
        """Share a graph with everybody who shares it in this topic: until the node closes with `await`, or within
        `async with`.

        Both return the `GraphShare`. Raise `ShareError`, `TopicError`.
        """
        return self._parts.topics.share(self._stack, graph, topic, key)

    # ---- upkeep -----------------------------------------------------------------------------------------

    def announce(self, services: str | Collection[str]) -> None:
        """Announce these services from now on, and the node's current addresses, since its listener may have
        changed."""
        self._announce = _each(services)
        self._renew_record()

    def _renew_record(self) -> None:
        """Sign a new record of the node, and announce it."""
        self._finding.publish_record(
            (*self.listener.urls, *self._parts.reach.urls),
            (NODE_SERVICE, *self._announce),
            self.limits.record,
        )
        self._push.on_record_changed()

    def _on_reach_changed(self) -> None:
        """Announce that the node's addresses have changed, or that it was found to be hidden or not."""
        if self._finding.dht is not None:
            self._finding.dht.set_barred(self.dialability.verdict is False)
        if self._finding.record is not None:
            self._renew_record()

    def _dial_known(self) -> None:
        """Use the peers in the book. Those that this node has dialled before come first, since anybody may report
        others."""
        for known in reversed(list(self.book)[-self.limits.upkeep.remembered :]):
            self._on_record(known.record)

    def _on_record(self, record: PeerRecord) -> None:
        self._writer.note_change()
        if record.peer == self.identity.id and self._finding.is_of_another(record):
            self._twin.suspect(record)
        self._dialler.on_record(record)

    def _on_nearer(self, record: PeerRecord) -> None:
        self._writer.note_change()
        self._dialler.on_nearer(record)

    def _on_link(self, link: PeerLink) -> None:
        self._dialler.on_link(link)
        self._parts.reach.on_link(link)
        if link.outgoing:
            link.connection.keep_within(self.listener.held)
            asking = self._exchange.keep_asking(link, self._dialler.count_dialled)
            self._tasks.start(asking, name="dtp-node-exchange")
        self._writer.note_change()
        log.info("linked: %r", link)

    def _on_lost(self, link: PeerLink) -> None:
        self._parts.reach.on_lost(link)
        if link.outgoing:
            self.listener.held.forget_key(link.connection)
        if self.links.get(link.peer) is None:
            self._clock.clocks.forget_peer(link.peer.key)
        self._dialler.on_lost(link)
        log.info("lost: %r", link)

    def _look_around(self, now: float) -> None:
        """React to a clock that was set, or to other networks: the record, and what is known, may be outdated."""
        before = self._watch.surroundings.addresses
        changes = self._watch.look(now)
        if changes is None:
            return
        addresses = self._watch.surroundings.addresses
        self.book.note_addresses(addresses)
        if changes.was_clock_set:
            self._dial_known()  # records that weren't valid until now
        if changes.has_moved:
            self._dialler.on_moved(now)
            if has_left(before, addresses):  # an additional network doesn't take the old ones away
                self._parts.reach.on_moved()
        if any(changes):
            self._renew_record()
            if self.lan is not None:
                self.lan.ask_everybody()

    async def _run_upkeep(self) -> None:
        """Dial peers that are due, sign new records in time, and check what others say about the time."""
        loop = asyncio.get_running_loop()
        renewal = loop.time() + self.limits.renewal
        while True:
            now = loop.time()
            self._look_around(now)
            if now >= renewal:
                self._renew_record()
                renewal = now + self.limits.renewal
            self._dialler.dial_due(now)
            look = min(self._clock.check_clock(now, len(self.links)), self._watch.next_time())
            await self._dialler.wait_until(min(renewal, look))
