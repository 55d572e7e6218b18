"""Nodes that share a graph, in one process with virtual time: links over memory, a topic that loses what it is to."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Any

import dtp
from dtp.gossip import Verdict
from dtp.graph import Graph
from dtp.identity import Identity, PeerId
from dtp.net.address import Address
from dtp.net.dial import connect
from dtp.node.heads import ShareLimits
from dtp.node.sharing import PROTOCOL, GraphShare, GraphShares
from dtp.peers.links import NODE_SERVICE, PeerLinks
from dtp.session.limits import DEFAULT
from dtp.testing.resolvers import FakeResolver

LIMITS = ShareLimits()


def identity(name: str) -> Identity:
    """Somebody, the same each time."""
    seeds = (hashlib.sha256(f"{name}{part}".encode()).digest() for part in ("", " static"))
    return Identity(*seeds)


@dataclass(frozen=True)
class Said:
    """A message of the topic."""

    author: PeerId
    data: bytes


class Topic:
    """What one node holds of the topic. Messages take 10 ms, and go to whom the hub's `reaches` allows."""

    def __init__(self, hub: Hub, node: Node) -> None:
        self._hub = hub
        self.node = node
        self.waiting: asyncio.Queue[Said] = asyncio.Queue()

    async def publish(self, data: bytes) -> None:
        self._hub.published += 1
        said = Said(self.node.identity.id, data)
        for other in self._hub.topics:
            if other is not self and self._hub.reaches(self.node, other.node):
                asyncio.get_running_loop().call_later(0.01, other.take, said)

    def take(self, said: Said) -> None:
        self._hub.delivered += len(said.data)
        share = self.node.share
        if share is not None and share.check_announcement(said.author, said.data) is Verdict.ACCEPT:
            self.waiting.put_nowait(said)

    def __aiter__(self) -> AsyncIterator[Said]:
        return self

    async def __anext__(self) -> Said:
        return await self.waiting.get()


class Hub:
    """The topic."""

    def __init__(self) -> None:
        self.topics: list[Topic] = []
        self.published = 0
        self.delivered = 0
        self.reaches: Callable[[Node, Node], bool] = lambda one, other: True


class Node:
    """A node with one shared graph."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.identity = identity(name)
        self.share: GraphShare | None = None
        self.graph: Graph
        self.moved = 0
        self._stack = AsyncExitStack()

    async def start(
        self,
        *,
        key: str | None = None,
        shares: bool = True,
        limits: ShareLimits = LIMITS,
        connection: dtp.Limits = DEFAULT,
    ) -> None:
        known = {
            Address.parse(f"dtp://{node.identity.id}"): [Address.parse(node.address)]
            for node in self.world.nodes.values()
        }
        resolver = FakeResolver(known)
        self.links = PeerLinks(
            self.identity,
            resolvers=[resolver],
            dial=lambda address: connect(
                address, identity=self.identity, resolvers=[resolver], limits=connection
            ),
        )
        self.shares = GraphShares(self.identity, self.links, limits=limits, random=Random(self.name))
        self.links.protocols[PROTOCOL] = self.shares.serve_stream
        self.links.listen(lambda link: None, self._count)
        enter = self._stack.enter_async_context
        self.graph = await enter(
            await Graph.open(self.world.store(self.name), identity=self.identity, name="g")
        )
        await enter(
            await dtp.listen(
                f"memory://{self.world.name}-{self.name}",
                {NODE_SERVICE: self.links.accept},
                identity=self.identity,
            )
        )
        self._stack.push_async_callback(self.links.close)
        if shares:
            await self.join(key=key)

    async def join(self, *, key: str | None = None) -> None:
        """Share the graph of a node that was started without."""
        topic = Topic(self.world.hub, self)
        self.world.hub.topics.append(topic)
        self._stack.callback(self.world.hub.topics.remove, topic)
        share = self.shares.share(self.graph, topic, name="notes", key=key)
        self.share = await self._stack.enter_async_context(share)

    async def stop(self) -> None:
        await self._stack.aclose()
        self._stack = AsyncExitStack()
        self.share = None

    def _count(self, link: Any) -> None:
        self.moved += link.connection.stats.bytes_sent

    @property
    def sent(self) -> int:
        """Bytes of records on all carriers so far."""
        return self.moved + sum(link.connection.stats.bytes_sent for link in self.links)

    @property
    def address(self) -> str:
        return f"dtp+memory://{self.identity.id}@{self.world.name}-{self.name}"

    def write(self, count: int, *, size: int = 20) -> None:
        """Change the graph in as many commits."""
        for _ in range(count):
            self.world.written += 1
            self.graph.node(f"{self.name}/{self.world.written}")["text"] = "x" * size


class World:
    """All nodes, by name. `async with` stops them."""

    _number = 0

    def __init__(self, *names: str) -> None:
        World._number += 1
        self.name = f"share{World._number}"
        self.hub = Hub()
        self.nodes = {name: Node(self, name) for name in names}
        self.written = 0
        self.stores: dict[str, str] = {}

    def store(self, name: str) -> str:
        return self.stores.get(name, "memory:")

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    async def __aenter__(self) -> World:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        for node in self.nodes.values():
            await node.stop()

    async def start(self, **options: Any) -> None:
        for node in self.nodes.values():
            await node.start(**options)

    async def link(self, one: str, other: str) -> None:
        await self[one].links.connect(self[other].address)

    async def settle(self, seconds: float = 120.0) -> None:
        await asyncio.sleep(seconds)

    def agree(self, *names: str) -> bool:
        """Whether these nodes have the same frames."""
        graphs = [self[name].graph for name in names or self.nodes]
        return all(graph.frames.heads() == graphs[0].frames.heads() for graph in graphs)

    async def write(self, name: str, count: int, *, size: int = 20) -> None:
        for _ in range(count):
            self[name].write(1, size=size)
            await self[name].graph.commit()
