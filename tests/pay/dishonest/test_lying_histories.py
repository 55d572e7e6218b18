"""Random histories whose nodes break calls and lie, on both sides, over several endpoints and clocks that differ.

While nodes lie a connection may end in any error that says so. Nobody loses by it: the client signs for what moved,
and the server gets what was signed; once the nodes are honest again all goes on, and nothing stays locked up.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from dtp.chain import ChainClient
from dtp.chain.node.networks import Network
from dtp.errors import DtpError
from dtp.identity import Identity
from dtp.pay.client.ends import close_further
from dtp.pay.server.book import BookLimits
from dtp.pay.server.cashier import read_channels
from dtp.pay.serving import Selling
from dtp.pay.terms import MIB, STEP_AMOUNT, Usage

from .. import lies
from ..buying.test_paid import PRICES, cost_of, give
from ..conftest import CHEAP, TERMS, Play
from ..hostile_node import KINDS, FaultyNode
from .test_faulty_histories import RETRY
from .test_faulty_nodes import SILENCE, check_all_work, play
from .test_lying_servers import all_paid, more_in_it

#: What a server knows of channels is not older, ms.
MOST_KNOWN_MS = round(BookLimits().max_age * 1000) + 1000
DEPOSIT, BUDGET = cost_of(2 * MIB), cost_of(8 * MIB)


def is_channel(type: Any) -> Any:
    return "::channel::Channel<" in type


#: What a node may tell the client, and the server, for a while.
LIES: dict[str, Callable[[], Any]] = {
    "honest": dict,
    "stale": lies.stale,
    "100 x gas": lambda: lies.price(100),
    "8 x gas": lambda: lies.price(8),
    "free simulations": lies.cheap_simulations,
    "large gas budgets": lambda: lies.gas_budget(4_000_000_000),
    "empty wallets": lambda: lies.balances(0),
    "full wallets": lambda: lies.balances(100),
    "no channels": lambda: lies.without(is_channel),
    "small deposits": lambda: lies.other_numbers(DEPOSIT, DEPOSIT // 8),
    "large deposits": lambda: lies.other_numbers(DEPOSIT, DEPOSIT * 8),
    "deposits that aren't there": lambda: lies.channels(more_in_it),
    "claims that were paid": lambda: lies.channels(all_paid),
    "an hour ahead": lambda: lies.time(3_600_000),
    "an hour behind": lambda: lies.time(-3_600_000),
    "failures": lies.failures,
    "dear effects": lambda: lies.dear_effects(100),
}


class History:
    """One server, maybe at two endpoints, and one client, whose nodes are `nodes`: (server's, client's)."""

    def __init__(self, sessions: Any, nodes: Any, rng: Any, whatever: bool = False) -> None:
        self.sessions, self.market, self.rng, self.whatever = sessions, sessions.market, rng, whatever
        self.nodes = nodes
        self.moved = Usage()  # of all connections: what the client asked for and what came
        self.log: list[Any] = []

    async def client(self, node: Any, signer: Any) -> Any:
        """A client of the chain at a node that breaks calls and lies, and maybe an honest one."""
        urls = [node.url]
        if not self.whatever and self.rng.random() < 0.5:
            urls.insert(self.rng.randint(0, 1), self.market.chain.network.endpoints[0])
        made = ChainClient(
            Network("several", tuple(urls)),
            signer,
            deployments=self.market.chain.deployments,
            timeout=SILENCE,
            retry=RETRY,
        )
        return await self.market.stack.enter_async_context(made)

    async def serve(self) -> None:
        """A server, maybe a second endpoint of it, each by a clock of its own."""
        self.server = await self.client(self.nodes[0], self.market.server_wallet)
        self.servings: list[Any] = []
        for number in range(self.rng.randint(1, 2)):
            more = {}
            if number:
                first = self.servings[0]
                more = {"identity": Identity.generate(), "host": first.host, "store": first.store}
            off = self.rng.randint(-3600, 3600)
            self.log.append(f"clock {off}")
            selling = Selling(policy=CHEAP, recheck=3600, claim_every=3600, shares_store=True)
            self.servings.append(
                await self.market.serve(
                    give, network=self.server, selling=selling, clock=self._clock(off), **more
                )
            )

    def _clock(self, off: Any) -> Any:
        return lambda: self.market.chain.now() + off

    async def buy(self) -> None:
        chain = await self.client(self.nodes[1], self.market.chain.wallet())
        self.buyer = {"wallet": chain.signer, "network": chain, "store": self.market.store()}

    def disturb(self) -> None:
        """Have each node break calls or not, and tell something for a while: of `LIES`, or whatever comes to it."""
        for node in self.nodes:
            node.disarm()
            if self.rng.random() < 0.5:
                node.arm(
                    self.rng.choice(KINDS), self.rng.randint(4, 9), self.rng.choice(["before", "after"]), True
                )
            told = [self.rng.choice(list(LIES)) for _ in range(2)]
            often = self.rng.choice([0.03, 0.3]) if self.whatever else self.rng.choice([0.3, 1.0])
            self.log.append(f"{'whatever' if self.whatever else told} in {often:.0%} of the answers")
            own = random.Random(self.rng.random())
            made = lies.anything(own) if self.whatever else lies.together(*(LIES[each]() for each in told))
            node.lie(lies.sometimes(made, lambda often=often, own=own: own.random() < often))

    def appease(self) -> None:
        for node in self.nodes:
            node.disarm()
            node.lie({})
        self.market.chain.advance(MOST_KNOWN_MS)  # what was told is asked about again

    async def use(self, keep: Any) -> None:
        """A connection, with a few requests in it."""
        sizes = [self.rng.randint(1, MIB) for _ in range(self.rng.randint(1, 3))]
        address = self.rng.choice(self.servings).address
        async with self.market.connect(
            self.buyer, address=address, deposit=DEPOSIT, budget=BUDGET, keep=keep
        ) as connection:
            for size in sizes:
                await self._fetch(connection, size)

    async def _fetch(self, connection: Any, size: Any) -> None:
        stream = await connection.open_stream()
        question = b"%d\n" % size
        stream.write(question)
        self.moved = self.moved.plus(1, len(question))
        came = 0
        while data := await stream.read(65_536):
            came += len(data)
            self.moved = self.moved.plus(0, len(data))
        assert came == size
        stream.close()

    async def lied_to(self) -> None:
        """Connections, and all that a server does beside them, while nodes lie."""
        at_once = 1 if len(self.servings) > 1 else self.rng.randint(1, 3)
        keeps = [self.rng.random() < 0.7 for _ in range(at_once)]
        done = await asyncio.gather(*map(self.use, keeps), return_exceptions=True)
        for fault in done:
            self.log.append(repr(fault))
            if fault is not None and not isinstance(fault, DtpError):
                raise fault
        for serving in self.servings:
            for work in (serving.heartbeat.send_heartbeat, serving.cashier.poll):
                try:
                    await work()
                except DtpError as fault:
                    self.log.append(repr(fault))
        check_all_work()

    async def end(self) -> None:
        """Close whatever is open, as `dtp channel close` does where the server is gone."""
        for serving in self.servings:
            await serving.close()
        chain, store = self.buyer["network"], self.buyer["store"]
        for _ in range(2):
            for found in (
                await read_channels(chain, [each.channel for each in store.bought_channels()])
            ).values():
                await close_further(chain, store, found, self.market.chain.now_ms(), ask=True)
            self.market.chain.advance(TERMS.claim_ms)

    def signed(self) -> Any:
        store = self.buyer["store"]
        lanes = [lane for each in store.bought_channels() for _, lane in store.payer_lanes(each.channel)]
        return sum(lane.newest.voucher.amount for lane in lanes if lane.newest is not None), len(lanes)


async def play_history(sessions: Any, nodes: Any, rng: Any, whatever: bool = False) -> None:
    history = History(sessions, nodes, rng, whatever)
    market = sessions.market
    await history.serve()
    await history.buy()
    began = market.height()
    accounts = history.server.address, history.buyer["network"].address
    before = [sessions.purse(each) for each in accounts]
    try:
        for _ in range(6 if whatever else 3):
            history.disturb()
            await history.lied_to()
            history.appease()
            await history.use(True)
        await history.use(False)
        for serving in history.servings:
            await serving.cashier.poll()
        await history.end()
    finally:
        print(*history.log, sep="\n")
    gas = [sessions.gas(each, began) for each in accounts]
    after = [sessions.purse(each) for each in accounts]
    gained, spent = after[0] - before[0] + gas[0], before[1] - after[1] - gas[1]
    assert gained == spent  # nothing is lost on the way, and nothing is locked up any more
    signed, lanes = history.signed()
    moved = PRICES.cost_of(history.moved)
    assert signed <= moved + lanes * STEP_AMOUNT
    assert gained <= signed
    assert signed - gained <= lanes * CHEAP.gas_in("0x2::sui::SUI", 1).alone
    assert max(gas) <= 100_000_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(n, marks=pytest.mark.long) for n in range(3, 40))])
def test_histories_with_nodes_that_lie_and_break_calls(market: Play, seed: Any) -> None:
    async def scenario(sessions: Any) -> None:
        port = int(sessions.market.chain.network.endpoints[0].rpartition(":")[2])
        async with FaultyNode(port) as other:
            await play_history(sessions, (sessions.node, other), random.Random(seed))

    play(market, "server", scenario)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, *(pytest.param(n, marks=pytest.mark.long) for n in range(4, 60))])
def test_histories_with_nodes_that_lie_about_everything(market: Play, seed: Any) -> None:
    """Any fact of any answer is another one: objects, balances, events, gas, effects, the time, ids."""

    async def scenario(sessions: Any) -> None:
        port = int(sessions.market.chain.network.endpoints[0].rpartition(":")[2])
        async with FaultyNode(port) as other:
            await play_history(sessions, (sessions.node, other), random.Random(seed), whatever=True)
            assert sessions.node.told or other.told

    play(market, "server", scenario)
