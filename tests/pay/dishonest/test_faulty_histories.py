"""Random histories over several lanes of a channel, whose nodes break calls on both sides: no MIST is lost."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from dtp.chain import ChainClient, find_network
from dtp.chain.node.endpoints import Retry
from dtp.pay.serving import Selling
from dtp.pay.terms import MIB

from ..buying.test_paid import cost_of, fetch, give
from ..conftest import CHEAP, Play
from ..hostile_node import KINDS, FaultyNode
from .test_faulty_nodes import SILENCE, check_all_work, play

#: Three connections ask at the same time here: one of them can be the one that is broken many times in a row.
RETRY = Retry(attempts=24, first_pause=0.01, longest_pause=0.1)


async def history(sessions: Any, other: Any, rng: Any) -> None:
    """Several connections after and beside each other, on lanes of one channel, over nodes that break calls on both
    sides; nobody has lost or gained a MIST beyond what was signed, by the true chain."""
    market, mine = sessions.market, sessions.node
    server = await sessions.client(market.server_wallet, "server")
    network = find_network(other.url)
    client = await market.stack.enter_async_context(
        ChainClient(
            network, market.chain.wallet(), deployments=market.chain.deployments, timeout=SILENCE, retry=RETRY
        )
    )
    began = market.height()
    before = [sessions.purse(each.address) for each in (server, client)]
    for node in (mine, other):
        node.arm(rng.choice(KINDS), rng.randint(4, 9), rng.choice(["before", "after"]), True)
    selling = Selling(policy=CHEAP, recheck=3600, claim_every=3600)
    serving = await market.serve(give, network=server, selling=selling)
    buyer = {"wallet": client.signer, "network": client, "store": market.store()}

    async def use(keep: Any) -> Any:
        sizes = [rng.randint(1, MIB) for _ in range(rng.randint(1, 3))]
        async with market.connect(
            buyer, deposit=cost_of(2 * MIB), budget=cost_of(8 * MIB), keep=keep
        ) as connection:
            for size in sizes:
                assert await fetch(connection, size) == size
        return sizes

    sizes = await use(True)
    for _ in range(2):
        for node in (mine, other):
            node.arm(rng.choice(KINDS), rng.randint(4, 9), rng.choice(["before", "after"]), True)
        for found in await asyncio.gather(*(use(True) for _ in range(rng.randint(1, 3)))):
            sizes += found
        await serving.heartbeat.send_heartbeat()
        await serving.cashier.poll()
        check_all_work()
    sizes += await use(False)
    await serving.close()
    for node in (mine, other):
        node.disarm()
    paid = cost_of(*sizes)
    channels = [each for each in await market.channels(buyer) if each is not None]
    locked = sum(each.balance for each in channels)
    claimed = sum(each.claimed for each in channels)
    gas = [sessions.gas(each.address, began) for each in (server, client)]
    after = [sessions.purse(each.address) for each in (server, client)]
    gained, spent = after[0] - before[0] + gas[0], before[1] - after[1] - gas[1]
    assert gained + locked == spent  # nothing is lost on the way
    store = buyer["store"]
    lanes = [lane for each in store.bought_channels() for _, lane in store.payer_lanes(each.channel)]
    signed = sum(lane.newest.voucher.amount for lane in lanes if lane.newest is not None)
    assert paid - len(lanes) < signed <= paid  # each lane's sum is rounded down
    assert claimed <= gained <= signed
    vouched: dict[Any, Any] = {}
    for each in serving.store.sold_lanes():
        vouched[each.channel] = vouched.get(each.channel, 0) + each.newest.voucher.amount
    assert signed - gained <= sum(vouched.get(each.id, 0) - each.claimed for each in channels)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(n, marks=pytest.mark.long) for n in range(3, 40))])
def test_histories_over_several_lanes_and_nodes_that_break_calls(market: Play, seed: Any) -> None:
    async def scenario(sessions: Any) -> None:
        port = int(sessions.market.chain.network.endpoints[0].rpartition(":")[2])
        async with FaultyNode(port) as other:
            await history(sessions, other, random.Random(seed))

    play(market, "server", scenario)
