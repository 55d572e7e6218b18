"""Nodes for tests: links and gossip in memory, on the virtual clock; and those of brokers, in real time."""

import asyncio
import contextlib
import hashlib
import itertools

from conditions import PATIENCE

import dtp
from dtp.gossip import PROTOCOL, Gossip
from dtp.gossip.engines.bridge import Engine
from dtp.identity import Identity
from dtp.peers.links import NODE_SERVICE, PeerLinks

WALL = 1_700_000_000.0
_numbers = itertools.count()


def identity(name):
    seed = hashlib.sha256(f"gossip test {name}".encode()).digest()
    return Identity(seed, hashlib.sha256(seed).digest())


class Node:
    """A node's links and gossip."""

    def __init__(self, links, gossip, address):
        self.links, self.gossip, self.address = links, gossip, address

    @property
    def id(self):
        return self.gossip.identity.id

    async def link(self, other):
        await self.links.connect(other.address)


@contextlib.asynccontextmanager
async def node(name, url="memory://", wall=None, **options):
    """A node that listens; at its end all is closed."""
    me = identity(name)
    loop = asyncio.get_running_loop()
    gossip = Gossip(me, wall=wall or (lambda: WALL + loop.time()), seed=1, **options)
    links = PeerLinks(me)
    links.protocols[PROTOCOL] = gossip.serve
    where = f"{url}{me.id.short}-{next(_numbers)}" if url == "memory://" else url
    async with (
        await dtp.listen(where, {NODE_SERVICE: links.accept}, identity=me) as listener,
        _closing(links),
        gossip,
    ):
        links.listen(gossip.add_link, lambda link: None)
        yield Node(links, gossip, listener.address(NODE_SERVICE))


@contextlib.asynccontextmanager
async def nodes(count, **options):
    """Nodes that are all linked."""
    async with contextlib.AsyncExitStack() as stack:
        made = [await stack.enter_async_context(node(at, **options)) for at in range(count)]
        for at, one in enumerate(made):
            for other in made[:at]:
                await one.link(other)
        yield made


@contextlib.asynccontextmanager
async def _closing(links):
    yield
    await links.close()


async def until(condition):
    """Wait until something holds; fails by the clock's own limit when it never does."""
    while not condition():  # noqa: ASYNC110  # time is virtual: it costs nothing, and is exact
        await asyncio.sleep(0.01)


async def joined(stack, made, name="weather", **options):
    """The topic of each node, joined, once all know of each other."""
    topics = [await stack.enter_async_context(one.gossip.topic(name, **options)) for one in made]
    await until(lambda: all(len(topic.members) == len(made) - 1 for topic in topics))
    return topics


def run(main):
    """Run a test in real time: brokers have no other."""

    async def whole():
        async with asyncio.timeout(PATIENCE), contextlib.AsyncExitStack() as stack:
            await main(stack)

    asyncio.run(whole())


async def lone(stack, name):
    return await stack.enter_async_context(Gossip(identity(name)))


async def carried(*topics):
    """Wait until each topic has its broker."""
    await until(lambda: all(topic._gossip.router.has_members(topic.wire_name) for topic in topics))


class Nothing(Engine):
    """A broker that carries nothing."""

    name = "nothing"

    async def start(self, on_messages, on_return):
        pass

    async def stop(self):
        pass

    async def subscribe(self, topic):
        pass

    async def unsubscribe(self, topic):
        pass

    async def send(self, topic, message_id, encoded):
        pass
