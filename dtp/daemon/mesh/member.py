"""The daemon as a node: it is found and linked at its own listener, and its forwards use what the node knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

from dtp import config as places
from dtp.daemon.config import model
from dtp.daemon.mesh.absent import Member
from dtp.daemon.mesh.carried import CarriedTopics
from dtp.gossip.limits import DEFAULT as GOSSIP
from dtp.gossip.limits import GossipLimits
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.listener import Listener
from dtp.net.resolver import Resolver
from dtp.node.node import KnownPeer, Node, NodeLimits
from dtp.peers.dht import Dht
from dtp.peers.links import PeerLink
from dtp.peers.private import PrivateNetwork
from dtp.peers.reach.messages import RELAY_SERVICE
from dtp.session.codes import CloseCode
from dtp.session.limits import Limits

#: The most peers that a status lists. Those with a link come first.
_SHOWN: Final = 100


class NodeMember(Member):
    """The node of one daemon."""

    is_node = True

    def __init__(
        self, config: model.NodeSettings, identity: Identity, limits: Limits, network: PrivateNetwork | None
    ) -> None:
        self._config, self._identity, self._network = config, identity, network
        gossip = GossipLimits(held_time=max(GOSSIP.held_time, config.history), held=config.history_size)
        self._limits = NodeLimits(connection=limits, gossip=gossip)
        self._node: Node | None = None
        self._topics: CarriedTopics | None = None
        self.takes_links = False
        self.dial = self._dial_address

    async def open(self, listener: Listener, config: model.Config) -> None:
        """Be found where `listener` listens. Raise `ListenError` or `TopicError`."""
        if self._node is not None:
            return
        assert config.node is not None
        dht = {} if config.node.dht is None else {"bind": (config.node.dht.host, config.node.dht.port)}
        self._node = node = Node(
            identity=self._identity,
            listen=config.node.relays,
            discover=config.node.discover,
            bootstrap=config.node.bootstrap,
            private=self._network,
            announce=announced(config),
            store=config.node.store or places.data_dir(),
            limits=self._limits,
            lan={"interfaces": config.node.interfaces},
            dht=dht,
            map_ports=config.node.map_ports,
            listener=listener,
        )
        await node.__aenter__()
        self.takes_links = True
        self._topics = CarriedTopics(node, config.node.history)
        await self._topics.carry_topics((*config.node.topics, *config.node.private_topics))

    async def change_config(self, config: model.Config) -> None:
        """Announce services, listen and carry topics as `config` says now. Raise `TopicError`."""
        if self._node is None or self._topics is None or config.node is None:
            return
        self._node.reach.use_listener(self._node.listener)
        self._node.announce(announced(config))
        await self._topics.carry_topics((*config.node.topics, *config.node.private_topics))

    async def leave_network(self, *, goodbye: bool = True) -> None:
        """Stop being found, and end the links; connections of forwards go on. Idempotent."""
        self.takes_links = False
        if self._topics is not None:
            await self._topics.close()
        if self._node is not None:
            await self._node.leave(goodbye=goodbye)

    async def close(self) -> None:
        """Close everything. Idempotent."""
        await self.leave_network()
        if self._node is not None:
            await self._node.__aexit__(None, None, None)

    # ---- connections --------------------------------------------------------------------------------------

    async def serve_connection(self, connection: Connection) -> None:
        """Serve a connection of another node until it ends; abort it while this node isn't open."""
        if self._node is None:
            connection.abort(CloseCode.SHUTDOWN, "the node isn't open yet")
        else:
            await self._node.links.accept(connection)

    async def _dial_address(self, address: Address, resolvers: Sequence[Resolver] | None) -> Connection:
        """Connect as the node does: by addresses that it knows or asks for, directly or through a relay. See
        `Dial`."""
        assert self._node is not None, "forwards dial once the node is open"
        return await self._node.connect(address, resolvers=resolvers)

    @property
    def links(self) -> Iterable[PeerLink]:
        """The open links to other nodes."""
        return () if self._node is None else self._node.links

    @property
    def node(self) -> Node | None:
        """The node, while it is open."""
        return self._node

    @property
    def dht(self) -> Dht | None:
        """The DHT of the open node, if it uses one."""
        return self._node.dht if self._node is not None and "dht" in self._config.discover else None

    # ---- status --------------------------------------------------------------------------------------------

    def get_status(self) -> dict[str, Any]:
        """Return peers, topics and the DHT as `dtpd status` shows them; empty while this is not a node."""
        node = self._node
        if node is None or self._topics is None or not self.takes_links:
            return {}
        known = node.peers()
        reach, difference = node.reach, node.clock_difference
        found: dict[str, Any] = {
            "discover": list(self._config.discover),
            "private": self._network is not None,
            "announced": list(node.record.services),
            "addresses": list(node.record.addresses),
            "dialled": node.dialability.verdict,
            "has_twin": node.has_twin,
            "clock": None
            if difference is None
            else {"seconds": difference.seconds, "message": str(difference)},
            "observed": reach.observations.observed_urls(),
            "known": len(known),
            "links": len(node.links),
            "peers": _peers(node, known),
            "topics": self._topics.list_status(),
            "gossip": dict(node.gossip.counts),
            "upgrades": {name: reach.counters[name] for name in ("upgrades", "direct", "relayed", "punched")},
        }
        if node.lan is not None:
            found["lan"] = {"sent": node.lan.sent, "heard": node.lan.heard}
        if "dht" in self._config.discover:
            dht = node.dht
            found["dht"] = {
                "endpoint": dht.endpoint,
                "contacts": len(dht.node.table),
                "serves": not dht.node.client,
            }
        return {"node": found}


def _peers(node: Node, known: list[KnownPeer]) -> list[dict[str, Any]]:
    """Return what is known of each peer, those with a link first. Peers that can't be dialled may still have a
    link."""
    linked = {each.peer: each for each in node.links}
    records = {each.record.peer: each for each in known}
    found: list[dict[str, Any]] = []
    for peer in islice(dict.fromkeys((*linked, *records)), _SHOWN):
        link, said = linked.get(peer), records.get(peer)
        found.append(
            {
                "peer": str(peer),
                "services": [] if said is None else list(said.record.services),
                "addresses": [] if said is None else list(said.record.addresses),
                "source": "" if said is None else said.source,
                "linked": link is not None,
                "carriers": [] if link is None else list(link.connection.stats.carriers),
            }
        )
    return found


def announced(config: model.Config) -> tuple[str, ...]:
    """Return the services that the node announces: those in the file, and a relay that is open to everybody."""
    assert config.node is not None
    relays = [
        each.service
        for each in config.expose
        if each.kind == "relay" and each.service == RELAY_SERVICE and each.rules.access.everyone
    ]
    return tuple(dict.fromkeys((*config.node.announce, *relays)))
