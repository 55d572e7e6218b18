"""A host, its server's client and a user's, with pipes between them, as the tests of this folder want them."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from chain_resolver.hosts import Hosted, make_host

from dtp.carriers.base import CarrierKind
from dtp.chain import ChainClient
from dtp.chain.errors import HistoryPruned
from dtp.chain.pipes.carrier import dial, listen
from dtp.chain.pipes.hub import PipeHub
from dtp.chain.pipes.where import Timing
from dtp.identity import Identity
from dtp.testing.nodes import ScriptedNode

#: Patient enough for a busy machine, and quick where a test waits for it.
TIMING = Timing(dial=20, check=0.2, gap=20, quiet=1, stall=20, linger=20, pause=0.05)


@dataclass
class World:
    """`server` owns the host and has service `echo`; its endpoint's key is `me`'s."""

    server: ChainClient
    user: ChainClient
    hosted: Hosted
    number: int
    me: Identity = field(default_factory=lambda: Identity(bytes([7]) * 32))
    #: What the nodes of both answer in place of the truth.
    server_node: ScriptedNode = field(default_factory=ScriptedNode)
    user_node: ScriptedNode = field(default_factory=ScriptedNode)

    @property
    def url(self):
        return f"pipe://{self.hosted.id}?service={self.number}"

    @property
    def kind(self):
        """Dials as the user, listens as the server."""

        async def dial_it(url):
            return await dial(url, chain=self.user)

        async def listen_at(url, accept):
            return await listen(url, accept, chain=self.server)

        return CarrierKind("pipe", dial_it, listen_at)

    async def pair(self, options=""):
        """A listener, a dialled carrier and the accepted one, neither started."""
        accepted = asyncio.Queue()
        listener = await listen(self.url, accepted.put_nowait, chain=self.server)
        near = await dial(self.url + options, chain=self.user)
        return listener, near, await accepted.get()


def tuned(chain, **changes):
    """A client's hub with the tests' timing."""
    how = {name: changes.pop(name) for name in ("follow", "most_idle", "clock") if name in changes}
    return PipeHub(chain, timing=replace(TIMING, **changes), **how).install()


def end_of(carrier, chain):
    """The end that a carrier of this client lives on."""
    return PipeHub.hub_of(chain).ends.find(carrier.channel)


async def forgetful(genuine, *args, after=b"", **options):
    """Answer as a node does that has what there is, and nothing of before what was read last."""
    if after:
        raise HistoryPruned("the node begins later")
    async for frame in genuine(*args, after=after, **options):
        yield frame


@asynccontextmanager
async def world(client, wallet, *, window=0, rate=None, timing=None, **terms):
    """A world that is served from now on."""
    async with AsyncExitStack() as stack:
        nodes = ScriptedNode(), ScriptedNode()
        server, user = [await stack.enter_async_context(client(wallet(), rpc=each)) for each in nodes]
        hosted = await make_host(server)
        number = await hosted.service("echo", window=window, rate=rate, **terms)
        made = World(server, user, hosted, number, server_node=nodes[0], user_node=nodes[1])
        await hosted.endpoint(made.me.id.key)
        for each in (server, user):
            tuned(each, **(timing or {}))
        yield made
