"""A server whose node shows passes that nobody bought, to the good of who comes under one."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest

from dtp.chain import ChainClient, find_network
from dtp.chain import pass_ as pass_module
from dtp.chain.errors import NodeUnavailable, TransactionFailed
from dtp.chain.firewall import HolderOfPass
from dtp.chain.pass_ import Pass, PassAccount, Plan
from dtp.errors import DtpError
from dtp.pay import passes
from dtp.pay.server.book import BookLimits
from dtp.pay.server.pass_proofs import PassProofs
from dtp.pay.server.quota import period_of
from dtp.pay.serving import Selling
from dtp.pay.terms import Usage

from .. import lies
from ..buying.test_paid import give, sell_plan, serve_subscribers
from ..conftest import CHEAP, Market, Play
from ..dishonesty import QUOTA
from .test_faulty_nodes import play

#: Of which a few are worth more than is believed of all.
PRICE = 60_000_000


def made_up_id(number: Any) -> Any:
    return "0x" + bytes([0xBA, number]).hex() * 16


async def use(connection: Any, wanted: Any) -> Any:
    """Take what comes of one request of so many bytes; what was served."""
    stream = await connection.open_stream()
    got = 0
    with contextlib.suppress(DtpError):
        stream.write(b"%d\n" % wanted)
        while data := await stream.read(65_536):
            got += len(data)
    return Usage(1, got) if got else Usage()


async def use_up(market: Market, buyer: Any) -> Any:
    """Come under a pass as long as something comes; what was used."""
    used = Usage()
    for _ in range(3):
        with contextlib.suppress(DtpError):
            async with market.connect(buyer, budget=0, keep=True) as connection:
                used = used.plus(*await use(connection, QUOTA.bytes))
    return used


def worth(used: Any, price: Any = PRICE) -> Any:
    """What so much of a plan's period costs, by the count that costs more."""
    return max(-(-price * part // most) for part, most in zip(used, QUOTA, strict=True))


async def stranger(market: Market, node: Any) -> Any:
    """A client that asks the server's node, and has a channel that was honest to begin with."""
    signer = market.chain.wallet()
    chain = ChainClient(find_network(node.url), signer, deployments=market.chain.deployments)
    await market.stack.enter_async_context(chain)
    buyer = {"wallet": signer, "network": chain, "store": market.store()}
    async with market.connect(buyer, keep=True):
        pass  # what was vouched for would be more than a pass asks for
    return buyer


@pytest.mark.slow
def test_passes_that_a_node_makes_up_are_served_for_what_is_believed_and_no_more(
    market: Play, bound: Any
) -> None:
    """Each was served its quota, in each of its periods. Those that were bought are served all the same."""

    async def scenario(sessions: Any) -> None:
        market = sessions.market
        server = await sessions.client(market.server_wallet, "server")
        await market.serve(give, network=server)
        plan = await sell_plan(market, PRICE, requests=QUOTA.requests, size=QUOTA.bytes)
        await market.serving.close()
        # What is known of channels is read again each time.
        selling = Selling(policy=CHEAP, book=BookLimits(max_age=-1), recheck=3600, claim_every=3600)
        await market.serve(give, network=server, plans=[plan], selling=selling)
        number = market.serving.gate.firewall.rules.state.find_service("files")[0]
        served = []
        for at in range(6):
            buyer = await stranger(market, sessions.node)
            chain = buyer["network"]
            account = PassAccount(chain.address, market.chain.now_ms() - 1000, 1000, 0, False)
            made_up = Pass(made_up_id(at), plan, market.serving.host, number)
            type = chain.type_of(pass_module.SCHEMA, Pass)
            sessions.node.lie(lies.made_up_pass(plan, made_up, account, type, at + 1))
            await market.serving.firewall.refresh()
            served.append(worth(await use_up(market, buyer)))
            sessions.node.lie({})
        assert bound // 2 < sum(served) <= bound
        assert max(served) <= PRICE
        assert served[-1] == 0
        assert sessions.node.told
        honest = await market.buyer()
        await passes.buy(honest["network"], plan, 1)
        await market.serving.firewall.refresh()
        assert PRICE // 2 < worth(await use_up(market, honest)) <= PRICE

    play(market, "server", scenario)


class Subscriber:
    """A pass that was bought of a plan, as the server hears of it."""

    def __init__(self, market: Market, plan: Any, found: Any, pass_: Any, account: Any) -> None:
        self.chain, self.plan, self.found = market.serving.chain, plan, found
        self.held = HolderOfPass(pass_, plan, found.service, found.period_ms, account)
        self.now_ms = market.chain.now_ms()

    async def allowed(self, proofs: Any, more: Any = QUOTA, **account: Any) -> Any:
        held = replace(self.held, account=replace(self.held.account, **account))
        await proofs.load_plan(self.plan)
        return await proofs.has_quota(held, self.found, period_of(held, self.now_ms, 0), more)

    async def sent(self) -> Any:
        """Whether the server's account has paid gas since it was asked last."""
        before, self.had = getattr(self, "had", None), (await self.chain.balance(self.chain.address)).total
        return before is not None and self.had < before


async def subscribed(market: Market, periods: int = 2) -> Any:
    plan = await serve_subscribers(market, requests=QUOTA.requests, size=QUOTA.bytes)
    buyer = await market.buyer()
    pass_, _ = await passes.buy(buyer["network"], plan, periods)
    chain = market.serving.chain
    found = await chain.read(pass_module.SCHEMA, Plan, plan)
    account = await passes.account_of(chain, found, pass_)
    return Subscriber(market, plan, found, pass_, account)


def limited(chain: Any, most: Any, **options: Any) -> Any:
    return PassProofs(chain, lambda coin: most, **options)


def test_a_pass_is_held_against_the_chain_once_for_each_of_its_periods(market: Play) -> None:
    async def scenario(market: Market) -> None:
        buyer = await subscribed(market)
        proofs = limited(buyer.chain, 0)
        await buyer.sent()
        assert await buyer.allowed(proofs)
        assert await buyer.sent()
        assert await buyer.allowed(proofs)
        assert not await buyer.sent()
        buyer.now_ms += buyer.found.period_ms  # the next one may have been cancelled
        assert await buyer.allowed(proofs)
        assert await buyer.sent()

    market(scenario)


@pytest.mark.parametrize("lie", [{"periods": 1000}, {"start": 1}])
def test_a_node_that_shows_more_of_a_pass_than_was_bought_has_nothing_served(market: Play, lie: Any) -> None:
    async def scenario(market: Market) -> None:
        buyer = await subscribed(market)
        now = [0.0]
        proofs = limited(buyer.chain, 0, steady=lambda: now[0])
        await buyer.sent()
        assert not await buyer.allowed(proofs, **lie)
        assert not await buyer.allowed(proofs, **lie)
        assert not await buyer.sent()  # a simulation says so
        now[0] += 61
        assert await buyer.allowed(proofs)

    market(scenario)


def test_one_that_is_made_up_keeps_no_others_from_being_proven(market: Play) -> None:
    async def scenario(market: Market) -> None:
        buyer = await subscribed(market)
        proofs = limited(buyer.chain, buyer.found.price * 3)
        found, part = buyer.held, Usage(1, 0)
        for at in range(3):
            buyer.held = replace(found, pass_id=made_up_id(at))
            assert await buyer.allowed(proofs, part)  # believed
        buyer.held = found
        assert await buyer.allowed(proofs)  # brings all of them to more than half
        for at in range(3):
            buyer.held = replace(found, pass_id=made_up_id(at))
            assert not await buyer.allowed(proofs, part)
        buyer.held = found
        await buyer.sent()
        assert await buyer.allowed(proofs)
        assert not await buyer.sent()

    market(scenario)


class Broken:
    """A chain whose transactions end so."""

    def __init__(self, chain: Any, fault: Any) -> None:
        self._chain, self.fault, self.asked = chain, fault, 0

    async def object(self, id: Any) -> Any:
        return await self._chain.object(id)

    async def execute(self, program: Any) -> None:
        self.asked += 1
        raise self.fault


def test_a_chain_that_cannot_be_asked_is_asked_again_later(market: Play) -> None:
    async def scenario(market: Market) -> None:
        buyer = await subscribed(market)
        now = [0.0]
        broken = Broken(buyer.chain, NodeUnavailable("away"))
        proofs = limited(broken, 0, steady=lambda: now[0])
        assert not await buyer.allowed(proofs)
        assert not await buyer.allowed(proofs)
        assert broken.asked == 1
        now[0] += 10
        assert not await buyer.allowed(proofs)
        assert broken.asked == 2
        now[0] += 10
        broken.execute = buyer.chain.execute
        assert await buyer.allowed(proofs)

    market(scenario)


def test_gas_that_a_lying_simulation_costs_is_spent_once_a_minute(market: Play) -> None:
    async def scenario(market: Market) -> None:
        buyer = await subscribed(market)
        now = [0.0]
        broken = Broken(buyer.chain, TransactionFailed("made up", kind="MOVE_ABORT", executed=object()))
        proofs = limited(broken, 0, steady=lambda: now[0])
        for _ in range(3):
            assert not await buyer.allowed(proofs)
        assert broken.asked == 1
        now[0] += 61
        assert not await buyer.allowed(proofs)
        assert broken.asked == 2

    market(scenario)


def test_what_is_believed_of_passes_is_a_sum_for_each_of_their_periods(market: Play) -> None:
    async def scenario(market: Market) -> None:
        buyer = await subscribed(market)
        now = [0.0]
        broken = Broken(buyer.chain, NodeUnavailable("away"))
        proofs = limited(broken, buyer.found.price + 2, steady=lambda: now[0])  # each is rounded up
        found = buyer.held

        async def allowed(at: Any, requests: Any) -> Any:
            buyer.held = replace(found, pass_id=made_up_id(at))
            return await buyer.allowed(proofs, Usage(requests, 0))

        assert await allowed(0, 1)
        assert await allowed(1, 2)
        assert not await allowed(2, 1)
        assert not await allowed(0, 1)
        now[0] += buyer.found.period_ms / 1000
        assert await allowed(2, 3)
        assert not await allowed(0, 1)

    market(scenario)


def test_nothing_is_asked_where_nothing_is_sold_or_no_worth_is_known(market: Play) -> None:
    async def scenario(market: Market) -> None:
        buyer = await subscribed(market)
        broken = Broken(buyer.chain, NodeUnavailable("away"))
        assert await buyer.allowed(PassProofs(broken, lambda coin: None))
        buyer.found = replace(buyer.found, price=0)
        assert await buyer.allowed(limited(broken, 0))
        assert not broken.asked

    market(scenario)


def test_a_pass_without_a_quota_counts_with_all_of_its_price(market: Play) -> None:
    async def scenario(market: Market) -> None:
        buyer = await subscribed(market)
        broken = Broken(buyer.chain, NodeUnavailable("away"))
        buyer.found = replace(buyer.found, quota_bytes=0)
        assert not await buyer.allowed(limited(broken, buyer.found.price - 1), Usage())
        assert await buyer.allowed(limited(broken, buyer.found.price), Usage())

    market(scenario)
