"""A node makes up what gas costs: nobody signs above a highest price, and no claim costs more than it brings."""

from __future__ import annotations

from typing import Any

import pytest

from dtp.chain import ChainClient, Program
from dtp.chain import host as hosts
from dtp.chain.errors import GasTooHigh
from dtp.chain.node.networks import Network
from dtp.pay.claims import Policy
from dtp.pay.serving import Selling
from dtp.pay.terms import MIB
from dtp.sui.transaction import TransactionData

from .. import lies
from ..buying.test_paid import fetch, give
from ..clients import ScriptedClient
from ..conftest import Play
from .test_faulty_nodes import play


def give_away(amount: int = 1000) -> Any:
    program = Program()
    program.transfer(list(program.split(program.gas, [amount])), "0x5")
    return program


async def client(sessions: Any, signer: Any, *urls: Any, **options: Any) -> Any:
    network = Network("several", urls or (sessions.node.url,))
    deployments = sessions.market.chain.deployments
    return await sessions.market.stack.enter_async_context(
        ScriptedClient(network, signer, deployments=deployments, **options)
    )


def make_host(chain: Any) -> Any:
    program = Program()
    hosts.create(program, chain.address)
    return program


@pytest.mark.parametrize("factor", [100, 1000])
def test_nothing_is_signed_at_a_price_that_a_node_makes_up(market: Play, factor: Any) -> None:
    async def scenario(sessions: Any) -> None:
        signer = sessions.market.chain.wallet()
        before = sessions.purse(signer.address)
        sessions.node.lie(lies.price(factor))
        chain = await client(sessions, signer)
        for work in (chain.execute(give_away()), chain.execute(make_host(chain), gas_budget=10**9)):
            with pytest.raises(GasTooHigh, match="max-gas-price") as fault:
                await work
            assert (fault.value.code, fault.value.needed, fault.value.most) == (
                "gas-too-high",
                factor * 1000,
                10_000,
            )
        with pytest.raises(GasTooHigh):  # a server has nothing made for it either
            await sessions.market.serve(give, network=chain)
        assert sessions.purse(signer.address) == before
        assert "ExecuteTransaction" not in sessions.node.calls
        # What one answer said isn't held against the node for ever.
        sessions.node.lie({})
        assert (await chain.execute(give_away())).gas.net > 0

    play(market, "client", scenario)


def test_another_endpoint_is_asked_about_the_price_first(market: Play) -> None:
    async def scenario(sessions: Any) -> None:
        signer = sessions.market.chain.wallet()
        sessions.node.lie(lies.price(1000))
        honest = sessions.market.chain.network.endpoints[0]
        chain = await client(sessions, signer, sessions.node.url, honest)
        executed = await chain.execute(give_away())
        assert executed.gas.net < 10_000_000
        assert sessions.node.told

    play(market, "client", scenario)


def test_a_highest_price_may_be_said(market: Play) -> None:
    async def scenario(sessions: Any) -> None:
        signer = sessions.market.chain.wallet()
        low = await client(sessions, signer, max_gas_price=999)
        with pytest.raises(GasTooHigh):
            await low.execute(give_away())
        sessions.node.lie(lies.price(20))
        high = await client(sessions, signer, max_gas_price=20_000)
        assert (await high.execute(give_away())).gas.computation == 20_000_000

    play(market, "client", scenario)


def test_a_budget_of_gas_follows_from_what_was_simulated(market: Play) -> None:
    """A node filled in any budget, and what didn't fit it was signed for at up to 5 SUI."""

    async def scenario(sessions: Any) -> None:
        signer = sessions.market.chain.wallet()
        chain = await client(sessions, signer)
        digests = []
        sessions.node.lie(lies.gas_budget(4_000_000_000))

        async def note(transaction: Any) -> None:
            digests.append(transaction.digest)

        executed = await chain.execute(make_host(chain), signed=note)
        data = TransactionData.decode(await chain.transaction_data(digests[0]))
        gas = executed.gas
        assert data.gas_data.budget <= gas.computation * 6 // 5 + gas.storage + 1_000_000

    play(market, "client", scenario)


async def sold(sessions: Any, mib: Any, policy: Any) -> Any:
    """A server that holds vouchers for so much, at the node; what it has."""
    market = sessions.market
    server = await client(sessions, market.server_wallet)
    selling = Selling(policy=policy, recheck=3600, claim_every=3600)
    serving = await market.serve(give, network=server, selling=selling)
    buyer = await market.buyer()
    connection = await market.connect(buyer, keep=True)
    await fetch(connection, mib * MIB)
    await connection.close()
    return serving


#: Claims all that is worth its gas, by the node's word.
EAGER = Policy(gas_base=1, gas_channel=0, gas_lane=0, gas_coin=0, worth=1, worth_last=1)


@pytest.mark.slow
@pytest.mark.parametrize("cheap", [False, True])
def test_a_claim_is_weighed_at_the_price_that_is_signed(market: Play, cheap: Any) -> None:
    """The vouchers bring more than a claim's gas at the usual price, and less than at the one that is signed."""

    async def scenario(sessions: Any) -> None:
        serving = await sold(sessions, 2, EAGER)
        vouched = sum(each.newest.voucher.amount for each in serving.store.sold_lanes())
        assert 1_100_000 < vouched < 8_000_000
        before = sessions.purse(serving.chain.address)
        told = lies.price(8) | (lies.cheap_simulations() if cheap else {})
        sessions.node.lie(told)
        assert await serving.cashier.poll() == []
        assert set(sessions.node.told) == set(told)
        assert sessions.purse(serving.chain.address) == before
        sessions.node.lie({})
        await serving.cashier.poll()
        assert sessions.purse(serving.chain.address) > before

    play(market, "server", scenario)


@pytest.mark.slow
def test_a_price_that_rises_behind_the_weighing_is_not_signed(market: Play) -> None:
    async def scenario(sessions: Any) -> None:
        serving = await sold(sessions, 2, EAGER)
        before = sessions.purse(serving.chain.address)

        async def then_raise(chain: ChainClient) -> None:
            sessions.node.lie(lies.price(8))
            await chain.epoch()

        serving.chain.on_simulated.append(then_raise)
        with pytest.raises(GasTooHigh):
            await serving.cashier.poll()
        assert sessions.purse(serving.chain.address) == before
        sessions.node.lie({})

    play(market, "server", scenario)
