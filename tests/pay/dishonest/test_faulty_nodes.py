"""Nodes that break calls in a paid session's life, on either side: the money is right, and all goes on working."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from dtp.chain import ChainClient, find_network
from dtp.chain.node.endpoints import Retry
from dtp.pay.serving import Selling
from dtp.pay.terms import MIB
from dtp.sui.objects import SUI_TYPE
from dtp.tasks import supervised

from ..buying.test_paid import cost_of, fetch, give
from ..conftest import CHEAP, Market, Play
from ..hostile_node import KINDS, FaultyNode

#: What a server of paid streams has at work all the time.
LONG_LIVED = {"dtp-cashier", "dtp-pay-recheck", "dtp-heartbeat"}
#: A node that is silent is given up after so many seconds.
SILENCE = 1.0
RETRY = Retry(attempts=8, first_pause=0.01, longest_pause=0.1)


def check_all_work() -> None:
    """What works all the time does so, and never had to begin again."""
    found = {each.name: each for each in supervised()}
    assert found.keys() >= LONG_LIVED
    assert [each for each in found.values() if not each.running or each.restarts] == []


class Sessions:
    """Paid sessions in a market, one side of which asks a node that breaks calls."""

    def __init__(self, market: Market, node: Any, side: Any) -> None:
        self.market, self.node, self.side = market, node, side

    async def client(self, signer: Any, side: Any) -> Any:
        network = find_network(self.node.url) if side == self.side else self.market.chain.network
        deployments = self.market.chain.deployments
        return await self.market.stack.enter_async_context(
            ChainClient(network, signer, deployments=deployments, timeout=SILENCE, retry=RETRY)
        )

    def purse(self, address: Any) -> Any:
        """What an account has of SUI, by the node itself."""
        raw = bytes.fromhex(address[2:])
        return self.market.chain.localnet.run(lambda node: node.get_balance(raw, SUI_TYPE).amount)

    def gas(self, address: Any, since: Any) -> Any:
        """What an account's transactions after a checkpoint cost it in gas."""

        def read(node: Any) -> Any:
            numbers = range(since + 1, node.find_checkpoint().sequence + 1)
            return [each.transaction for one in numbers for each in node.checkpoint_transactions(one)]

        sent = self.market.chain.localnet.run(read)
        return sum(each.effects.gas_used.net for each in sent if f"0x{each.data.sender.hex()}" == address)

    async def play(self, *plan: Any) -> Any:
        """Serve, open, fetch, look at everything once, add money, fetch, close; the calls that were broken.

        The money is right to the MIST by the true chain, and what works all the time does so at the end.
        """
        market, node = self.market, self.node
        server = await self.client(market.server_wallet, "server")
        client = await self.client(market.chain.wallet(), "client")
        began = market.height()
        before = [self.purse(each.address) for each in (server, client)]
        sizes, paid = (1000, 2 * MIB), cost_of(1000, 2 * MIB)
        selling = Selling(policy=CHEAP, recheck=3600, claim_every=3600)
        if plan:
            node.arm(*plan)
        serving = await market.serve(give, network=server, selling=selling)
        buyer = {"wallet": client.signer, "network": client, "store": market.store()}
        async with market.connect(buyer, deposit=cost_of(MIB), budget=cost_of(8 * MIB)) as connection:
            assert await fetch(connection, sizes[0]) == sizes[0]
            await serving.heartbeat.send_heartbeat()
            await serving.ledger.check_open_channels(await serving.firewall.refresh())
            await serving.cashier.poll()
            assert await fetch(connection, sizes[1]) == sizes[1]
            check_all_work()
        assert connection.paid == paid
        await serving.cashier.poll()
        check_all_work()
        await serving.close()
        node.disarm()
        assert await market.channels(buyer) == [None]  # closed by agreement
        gas = [self.gas(each.address, began) for each in (server, client)]
        after = [self.purse(each.address) for each in (server, client)]
        assert after == [before[0] + paid - gas[0], before[1] - paid - gas[1]]
        return list(node.broken)


def play(market: Play, side: Any, scenario: Any, **options: Any) -> None:
    async def work(market: Market) -> None:
        if market.chain.localnet is None:
            pytest.skip("a proxy stands in front of a localnet")
        port = int(market.chain.network.endpoints[0].rpartition(":")[2])
        async with FaultyNode(port) as node:
            await scenario(Sessions(market, node, side))

    market(work, **options)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["server", "client"])
def test_a_session_in_which_calls_break_all_the_time_is_paid_to_the_mist(
    market: Play, side: Any, kind: Any, when: Any
) -> None:
    async def scenario(sessions: Any) -> None:
        rarely = kind == "silence"  # it takes its time
        broken = await sessions.play(kind, 6 if rarely else 3, when, True)
        assert len(broken) >= (2 if rarely else 4)

    play(market, side, scenario)


@pytest.mark.long
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["server", "client"])
def test_each_call_of_a_session_may_break(market: Play, side: Any, kind: Any, when: Any) -> None:
    """Every call of its life in turn, one in each session."""

    async def scenario(sessions: Any) -> None:
        await sessions.play()  # makes the host
        await sessions.play(kind, 10**6, when)
        usual, seen = set(sessions.node.calls), Counter()
        for number in range(1000):
            broken = await sessions.play(kind, number, when)
            if not broken:
                break
            seen.update(broken)
        assert "ExecuteTransaction" in usual
        assert usual <= seen.keys()

    play(market, side, scenario, patience=3600)
