"""`dtp.Node`: one object that ties listener, peers and links together. Each part works without it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

from dtp.carriers.nearness import Nearness
from dtp.errors import DtpError, LocalError
from dtp.escaping import escape_text
from dtp.gossip.limits import DEFAULT as GOSSIP
from dtp.gossip.limits import GossipLimits
from dtp.identity import Identity, PeerId
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import Connecting, connect
from dtp.net.listener import Handler, Listener, listen
from dtp.net.resolver import HostResolver, Resolver, StaticResolver
from dtp.node.clock import ClockWatch
from dtp.node.exchange import PROTOCOL as PEER_EXCHANGE
from dtp.node.exchange import PUSH_PROTOCOL, PeerExchange, RecordPush
from dtp.node.finding import SUCCESSION, WAYS, PeerFinding, dht_host
from dtp.node.networks import network_of_link, network_of_teller, networks_of_record
from dtp.node.places import LinkedRelays
from dtp.node.reaching import NodeReach
from dtp.node.upkeep import PeerUpkeep, Target, UpkeepLimits
from dtp.peers.book import BOOK, BookNotKept, PeerBook
from dtp.peers.clocks import ClockDifference
from dtp.peers.lan.interfaces import dialled_urls
from dtp.peers.lan.multicast import Lan
from dtp.peers.links import NODE_SERVICE, LinkLimits, PeerLink, PeerLinks
from dtp.peers.private import PrivateNetwork
from dtp.peers.reach.dialability import Dialability
from dtp.peers.reach.messages import RELAY_SERVICE
from dtp.peers.reach.port_mapping import PortMapping
from dtp.peers.reach.reach import Reach
from dtp.peers.reach.relay_client import ConnectRelay
from dtp.peers.record import PeerRecord, host_of_endpoint
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

#: Where a node listens by default: any port, so that there may be many on a machine.
ANYWHERE: Final = "tcp://0.0.0.0:0"


class NodeError(LocalError, ValueError):
    """A node can't be made of this; the message says what to change."""

    code: ClassVar[str] = "node"


@dataclass(frozen=True, slots=True)
class NodeLimits:
    """Limits of a node, and of its parts; each has its reason. Seconds."""

    links: LinkLimits = field(default_factory=LinkLimits)
    upkeep: UpkeepLimits = field(default_factory=UpkeepLimits)
    connection: Limits = DEFAULT
    gossip: GossipLimits = GOSSIP
    #: How long a record is good for: who was offline for an evening still knows where to begin.
    record: float = 6 * 3600.0
    #: How long before the node signs the next one.
    renewal: float = 3 * 3600.0
    #: Seconds from a change of the book until it is written: many come together.
    save: float = 30.0
    #: Before another node of this identity is told of: a process may take this one's place, and this one ends then.
    succession: float = SUCCESSION
    #: Between two looks at neighbours' clocks. A difference is told at the second: after a machine has slept, old
    #: messages come first.
    clock_look: float = 60.0
    #: Between two looks whether this machine's clock was set or it is in other networks, at least; they come before
    #: peers are dialled, and cost a quarter of a millisecond.
    surroundings_look: float = 1.0
    #: ... and at most: nobody else notices while nothing happens. One more time a minute that the node wakes up.
    longest_surroundings_look: float = LOOK


@dataclass(frozen=True, slots=True)
class KnownPeer:
    """What a node knows of a peer."""

    record: PeerRecord
    #: Who told it, such as "lan 192.0.2.7".
    source: str
    #: True while there is a link to it.
    linked: bool


def _each(given: str | Collection[T]) -> tuple[str | T, ...]:
    """Return what was given as a tuple: one text alone is not a collection of letters."""
    return (given,) if isinstance(given, str) else tuple(given)


class Node:
    """A program's place among others: it is found, it finds, it links to other nodes. `async with` opens it.

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
        bootstrap = (bootstrap,) if isinstance(bootstrap, Address) else _each(bootstrap)
        for way in discover:
            if way not in WAYS:
                raise NodeError(f"there is no way {way!r} to find peers; known: {', '.join(WAYS)}")
        self.identity = identity or Identity.generate()
        self.services = dict(services or {})
        self._map_ports, self._connect_relay = map_ports, connect_relay
        if relay:
            from dtp.peers.reach.relay import Relay  # with its limits a part of a node's memory

            self.services.setdefault(RELAY_SERVICE, Relay().serve_connection)
        if NODE_SERVICE in self.services:
            raise NodeError(f"the service {NODE_SERVICE!r} is the node's own; choose another name")
        for name in announce:
            if listener is None and name not in self.services and "*" not in self.services:
                raise NodeError(f"{name!r} is announced and not among the services")
        self.limits = limits or NodeLimits()
        self._listen = tuple(listen)
        self._announce = tuple(dict.fromkeys((*announce, *([RELAY_SERVICE] if relay else []))))
        self._endpoints = [each for each in bootstrap if isinstance(each, str) and "://" not in each]
        if self._endpoints and "dht" not in discover:
            raise NodeError(
                f"{self._endpoints[0]!r} is not an address of a node, such as dtp+tcp://dtp1...@HOST:PORT; HOST:PORT "
                "alone is a node of the DHT, and 'dht' isn't among the ways to find others"
            )
        nodes = [each for each in bootstrap if each not in self._endpoints]
        self._bootstrap = [Address.parse(each) if isinstance(each, str) else each for each in nodes]
        self._private = private
        self._options = {"lan": dict(lan or {}), "dht": dict(dht or {})}
        self._store = None if store is None else Path(store)
        self._stack = AsyncExitStack()
        self._tasks = TaskSet()
        self._upkeep = PeerUpkeep(self.identity.id, self.limits.upkeep)
        #: Nodes to begin with of which it was said that they can't be reached.
        self._told: set[Address] = set()
        self._wake = asyncio.Event()
        self._keeper = SupervisedTask(self._run_upkeep, name="dtp-node-upkeep")
        self._writer = SupervisedTask(self._save_book, name="dtp-node-book")
        self._changed = asyncio.Event()
        self._given, self._listener = listener, listener
        #: What others can see and use; `leave` ends it before the rest.
        self._mesh = AsyncExitStack()
        #: The peers that are known.
        self._surroundings = surroundings or Surroundings()
        self.book = PeerBook(clock=self._surroundings.wall)
        self._links: PeerLinks | None = None
        hosts = [host_of_endpoint(each) for each in self._endpoints]
        hosts += [each.host for each in self._bootstrap]
        self._finding = PeerFinding(self.identity, self.book, discover, hosts, self._surroundings.wall)
        self._clock = ClockWatch(self.limits.clock_look, self._surroundings.wall)
        self._exchange = PeerExchange(self.book, lambda: self.record, self._clock.clocks)
        self._push = RecordPush(self._exchange, lambda: self.links)
        self._topics: Topics | None = None
        self._psk: bytes | None = None
        self._reach: NodeReach | None = None
        self._finding.on_superseded = self._on_twin_suspected
        #: Whether it was found, and logged, that another node goes by this identity.
        self.has_twin = False
        self._suspects = False
        #: When it was looked last whether the clock or the networks are others.
        self._looked = -math.inf

    # ---- life -------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Node:
        """Open it. Raise `ListenError` for an address that can't be had, `NetworkKeyError` for no key."""
        async with AsyncExitStack() as stack:
            await self._open_parts(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _open_parts(self, stack: AsyncExitStack) -> None:
        network = None
        if self._private is not None:  # a passphrase takes a while: not on the loop
            network = await asyncio.to_thread(PrivateNetwork.parse, self._private)
        self._psk = network.psk if network is not None else None
        path = None if self._store is None else self._store / (BOOK if network is None else network.book)
        if path is not None:
            await asyncio.to_thread(self.book.load, path)  # checks a signature for each peer
        stack.push_async_callback(self._write_book)
        resolver = PeerResolver(self.book)
        self._reach = reach = NodeReach(
            self.identity,
            psk=self._psk,
            on_change=self._on_reach_changed,
            record_of=self.book.get,
            connect_relay=self._connect_relay,
            map_port=PortMapping if self._map_ports else None,
        )
        stack.push_async_callback(reach.close)
        self._mesh = stack = await stack.enter_async_context(AsyncExitStack())
        self._links = links = PeerLinks(
            self.identity,
            resolvers=(StaticResolver(), resolver, HostResolver(), LinkedRelays(reach.list_relays)),
            limits=self.limits.links,
            dial=self._dial_link,
            teller_of=self._finding.teller_of,
        )
        reach.use_links(links)
        stack.push_async_callback(links.close)
        listener = self._given
        if listener is None:
            listener = await self._listen_itself(links, reach.other_urls(self._listen))
            stack.push_async_callback(listener.close)
        self._listener = listener
        stack.push_async_callback(reach.release_places)
        await reach.open(listener, self._listen)
        stack.callback(self.book.on_change(self._on_record))
        stack.callback(self.book.on_nearer(self._on_nearer))
        stack.callback(self.book.on_told(self._on_told))
        stack.callback(links.listen(self._on_link, self._on_lost))
        links.protocols[PEER_EXCHANGE] = self._exchange.serve_stream
        links.protocols[PUSH_PROTOCOL] = self._exchange.serve_push
        from dtp.node.topics import Topics

        self._topics = Topics(
            self.identity,
            self.book,
            links,
            lambda: self.record,
            self.limits.gossip,
            self._clock.clocks,
            self._surroundings.wall,
        )
        stack.callback(resolver.finders.clear)
        dht = {"bind": (dht_host(listener.urls), 0), **self._options["dht"]}
        options = {**self._options, "dht": dht}
        resolver.finders += await self._finding.open(stack, network, self._endpoints, options)
        await self._topics.open(stack, self._finding.dht)
        self._begin_upkeep(stack)

    async def _listen_itself(self, links: PeerLinks, urls: Sequence[str]) -> Listener:
        return await listen(
            urls,
            {**self.services, NODE_SERVICE: links.accept},
            identity=self.identity,
            psk=self._psk,
            limits=self.limits.connection,
        )

    async def leave(self, *, goodbye: bool = True) -> None:
        """End links and announcements. Connections that were made by the node go on until it closes.

        Without `goodbye` nobody is told: another process goes on as this node. Idempotent.
        """
        self._finding.says_goodbye = goodbye
        await self._mesh.aclose()

    def _begin_upkeep(self, stack: AsyncExitStack) -> None:
        now = asyncio.get_running_loop().time()
        self.book.note_addresses(self._surroundings.addresses)
        for address in self._bootstrap:
            self._upkeep.add_bootstrap(address, now)
        self._renew_record()
        if self.lan is not None:
            self.lan.ask_everybody()
        self._wish_for_known()
        stack.push_async_callback(self._tasks.stop)
        for task in (self._keeper, self._writer, self._push):
            stack.push_async_callback(task.stop)
            task.start()

    # ---- what it is -------------------------------------------------------------------------------------

    @property
    def links(self) -> PeerLinks:
        """The links to other nodes. Raise `NodeError` if it isn't open."""
        if self._links is None:
            raise NodeError("the node isn't open; use it within 'async with'")
        return self._links

    @property
    def listener(self) -> Listener:
        """What others dial. Raise `NodeError` if it isn't open."""
        if self._listener is None:
            raise NodeError("the node isn't open; use it within 'async with'")
        return self._listener

    @property
    def lan(self) -> Lan | None:
        """The LAN, where it is a way to find others."""
        return self._finding.lan

    @property
    def dht(self) -> Dht:
        """The DHT. Raise `NodeError` if it isn't a way to find others, or the node isn't open."""
        if self._finding.dht is None:
            raise NodeError(
                'the node has no DHT; give discover=["lan", "dht"], and use it within \'async with\''
            )
        return self._finding.dht

    @property
    def gossip(self) -> Gossip:
        """The topics. Raise `NodeError` if the node isn't open."""
        return self._open_topics.gossip

    @property
    def _open_topics(self) -> Topics:
        if self._topics is None:
            raise NodeError("the node isn't open; use it within 'async with'")
        return self._topics

    @property
    def record(self) -> PeerRecord:
        """What it says of itself. Raise `NodeError` if it isn't open."""
        if self._finding.record is None:
            raise NodeError("the node isn't open; use it within 'async with'")
        return self._finding.record

    @property
    def addresses(self) -> list[Address]:
        """Where others dial it, one for each network and carrier."""
        return [Address.direct(self.identity.id, each) for each in dialled_urls(self.listener.urls)]

    @property
    def address(self) -> Address:
        """The first of `addresses`; where there is none, the one that a resolver has to find."""
        return next(iter(self.addresses), Address("dtp", peer=self.identity.id))

    @property
    def clock_difference(self) -> ClockDifference | None:
        """How the clocks of most neighbours differ from this machine's; as text it is a sentence. None if they don't,
        or fewer than three do."""
        return self._clock.find_difference(asyncio.get_running_loop().time())

    def peers(self) -> list[KnownPeer]:
        """Return the peers that are known and say where they are, linked ones first."""
        found = [
            KnownPeer(each.record, each.source, self.links.get(each.record.peer) is not None)
            for each in self.book
            if each.record.addresses and each.record.peer != self.identity.id
        ]
        return sorted(found, key=lambda each: (not each.linked, each.record.peer))

    def teller_of(self, peer: PeerId) -> Nearness:
        """Return how near they are who told where a peer is, or may tell where it isn't known: what is dialled since
        others name the peer is no nearer."""
        return self._finding.teller_of(peer)

    def connect(
        self,
        address: str | Address,
        *,
        service: str | None = None,
        resolvers: Sequence[Resolver] | None = None,
    ) -> Connecting:
        """Connect to a service of a peer, as `dtp.connect` does, by all that this node knows and can ask.

        With `resolvers` these say where the peer is.
        """
        return connect(
            address,
            identity=self.identity,
            service=service,
            psk=self._psk,
            limits=self.limits.connection,
            resolvers=self.links.resolvers if resolvers is None else resolvers,
            dial_carrier=self.reach.dial_carrier,
            on_connected=None if self._reach is None else self._reach.on_connected,
        )

    @property
    def reach(self) -> Reach:
        """Where others see it, and how relayed connections became direct. Raise `NodeError` if it isn't open."""
        if self._reach is None:
            raise NodeError("the node isn't open; use it within 'async with'")
        return self._reach.reach

    async def _dial_link(self, address: Address) -> Connection:
        return await connect(
            address,
            identity=self.identity,
            psk=self._psk,
            limits=self.limits.connection,
            resolvers=self.links.resolvers,
            dial_carrier=self.reach.dial_carrier,
        )

    @property
    def dialability(self) -> Dialability:
        """What those have found who tried to dial it. Raise `NodeError` if it isn't open."""
        if self._reach is None:
            raise NodeError("the node isn't open; use it within 'async with'")
        return self._reach.dialability

    def topic(
        self,
        name: str,
        *,
        key: bytes | str | None = None,
        overflow: Overflow = "wait",
        history: float = 0.0,
        validator: Validator | None = None,
    ) -> Topic:
        """Return a topic, to be joined by `async with`; the arguments are those of `Gossip.topic`."""
        return self.gossip.topic(name, key=key, overflow=overflow, history=history, validator=validator)

    def share(self, graph: Graph, *, topic: str, key: bytes | str | None = None) -> Sharing:
        """Share a graph with all who share it in this topic: by `await` until the node closes, or `async with`.

        Either gives the `GraphShare`. Raise `ShareError`, `TopicError`.
        """
        return self._open_topics.share(self._stack, graph, topic, key)

    # ---- upkeep -----------------------------------------------------------------------------------------

    def announce(self, services: str | Collection[str]) -> None:
        """Announce these services from now on, and the node's addresses anew: its listener may have changed."""
        self._announce = _each(services)
        self._renew_record()

    def _renew_record(self) -> None:
        """Sign a new record of the node, and announce it."""
        reached = [] if self._reach is None else self._reach.urls
        self._finding.publish_record(
            (*self.listener.urls, *reached), (NODE_SERVICE, *self._announce), self.limits.record
        )
        self._push.on_record_changed()

    def _on_reach_changed(self) -> None:
        """Announce that the node is dialled elsewhere than before, or was found to be hidden, or not."""
        if self._finding.dht is not None:
            self._finding.dht.set_barred(self.dialability.verdict is False)
        if self._finding.record is not None:
            self._renew_record()

    def _wish_for_known(self) -> None:
        """Make use of the book: of those first that this node has dialled before, since anybody may name others."""
        for known in reversed(list(self.book)[-self.limits.upkeep.remembered :]):
            self._on_record(known.record)

    def _on_record(self, record: PeerRecord) -> None:
        self._changed.set()
        if record.peer == self.identity.id and self._finding.is_of_another(record):
            self._on_twin_suspected(record)
        if record.peer == self.identity.id or NODE_SERVICE not in record.services:
            if not record.addresses:
                self._upkeep.remove_peer(record.peer)
            return
        self._finding.on_record(record)
        self._wish_for(record)
        self._wake.set()

    def _wish_for(self, record: PeerRecord) -> None:
        peer, now = record.peer, asyncio.get_running_loop().time()
        known = self.book.get_known(peer)
        self._upkeep.add_peer(
            peer,
            now,
            networks_of_record(record, self._finding.teller_of(peer)),
            is_met=self.book.is_useful(peer),
            teller="" if known is None else network_of_teller(known.source),
        )

    def _on_told(self, record: PeerRecord, source: str) -> None:
        self._upkeep.add_teller(record.peer, network_of_teller(source))

    def _on_nearer(self, record: PeerRecord) -> None:
        """Make use of what a record says that wasn't dialled, or asked, since it was told from afar alone."""
        self._changed.set()
        if record.peer == self.identity.id or NODE_SERVICE not in record.services:
            return
        self._finding.on_record(record)
        self._wish_for(record)
        self._note_told(record.peer)
        self._wake.set()

    def _note_told(self, peer: PeerId) -> None:
        self._upkeep.on_told(peer, self._finding.teller_of(peer), asyncio.get_running_loop().time())

    def _on_twin_suspected(self, record: PeerRecord | None = None) -> None:
        """Warn soon that another node uses this identity; `record` is the one that it signed, if known."""
        if not self._suspects:
            self._suspects = True
            self._tasks.start(self._warn_of_twin(record), name="dtp-node-twin")

    async def _warn_of_twin(self, record: PeerRecord | None) -> None:
        """Log once that another node uses this identity, unless it is a process that replaces this one."""
        await asyncio.sleep(self.limits.succession)
        self.has_twin = True
        places = [] if record is None else list(record.addresses)
        log.warning(
            "another node has the identity %s%s: others reach now one, now the other. Give each node an identity of "
            "its own. Where there is no other, this machine's clock was set back",
            *(self.identity.id.short, f" ({', '.join(map(escape_text, places))})" if places else ""),
            extra={"fields": {"event": "identity-twice", "peer": str(self.identity.id), "addresses": places}},
        )

    def _on_link(self, link: PeerLink) -> None:
        network = network_of_link(link)
        self._upkeep.on_link(link.peer, network, outgoing=link.outgoing)
        if self._reach is not None:
            self._reach.on_link(link)
        if link.outgoing:  # who has come may be anybody, as often as they like
            self.book.mark_useful(link.peer, network)
            link.connection.keep_within(self.listener.held)
            asking = self._exchange.keep_asking(link, self._upkeep.count_dialled)
            self._tasks.start(asking, name="dtp-node-exchange")
        self._changed.set()
        self._wake.set()
        log.info("linked: %r", link)

    def _on_lost(self, link: PeerLink) -> None:
        if self._reach is not None:
            self._reach.on_lost(link)
        if link.outgoing:
            self.listener.held.forget_key(link.connection)
        if self.links.get(link.peer) is None:
            self._clock.clocks.forget_peer(link.peer.key)
        self._upkeep.on_lost(link.peer, asyncio.get_running_loop().time(), unwanted=link.unwanted)
        self._wake.set()
        log.info("lost: %r", link)

    def _look_around(self, now: float) -> None:
        """Make use of a clock that was set, or of other networks: the record and what is known may be of before."""
        self._looked = now
        changes = self._surroundings.look()
        self.book.note_addresses(self._surroundings.addresses)
        if changes.was_clock_set:
            self._wish_for_known()  # those that didn't hold until now
        if changes.has_moved:
            self._upkeep.on_moved(now)
        if any(changes):
            self._renew_record()
            if self.lan is not None:
                self.lan.ask_everybody()

    async def _run_upkeep(self) -> None:
        """Dial the peers that are due, sign a new record in time, look at what others say of the time."""
        loop = asyncio.get_running_loop()
        renewal = loop.time() + self.limits.renewal
        while True:
            now = loop.time()
            if now - self._looked >= self.limits.surroundings_look:
                self._look_around(now)
            if now >= renewal:
                self._renew_record()
                renewal = now + self.limits.renewal
            for target in self._upkeep.take_due(now):
                self._tasks.start(self._dial_target(target), name="dtp-node-dial")
            self._wake.clear()
            look = min(
                self._clock.check_clock(now, len(self.links)),
                self._looked + self.limits.longest_surroundings_look,
            )
            wait = min(renewal, self._upkeep.next_time(), look) - now
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if wait == math.inf else max(wait, 0.0)):
                    await self._wake.wait()

    async def _dial_target(self, target: Target) -> None:
        peer: PeerId | None = None
        told = Nearness.PROCESS if isinstance(target, Address) else self._finding.teller_of(target)
        try:
            if isinstance(target, Address):
                peer = (await self.links.connect(target)).peer
            else:
                peer = (await self.links.connect_told(target)).peer
        except DtpError as fault:
            # Once at a person's terminal for a node that the user named: nothing else shows that it isn't there.
            is_news = isinstance(target, Address) and target not in self._told
            log.log(logging.WARNING if is_news else logging.INFO, "no link to %s: %s", target, fault)
            if isinstance(target, Address):
                self._told.add(target)
        finally:
            spare = self._upkeep.on_dialled(target, peer, asyncio.get_running_loop().time(), told)
            if not isinstance(target, Address):
                self._note_told(target)  # who was asked meanwhile may be nearer
            self._wake.set()
        if spare is not None:
            await self.links.disconnect(spare)

    async def _save_book(self) -> None:
        """Write the book some time after it has changed."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(self.limits.save)
            self._changed.clear()
            await self._write_book()

    async def _write_book(self) -> None:
        """Write the book; where that can't be, as on a full disk, say so: a node works without its cache."""
        try:
            await self.book.save()
        except BookNotKept as error:
            log.warning("%s; it is tried again when it changes", error)
