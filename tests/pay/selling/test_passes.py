"""Which pass opens a service, and what periods cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dtp.chain import Program
from dtp.chain import host as host_module
from dtp.chain import pass_ as pass_module
from dtp.chain.errors import MoveAborted
from dtp.chain.host import Mode
from dtp.chain.model import SUI_COIN, canonical_id
from dtp.chain.pass_ import Pass, PassAccount
from dtp.chain.values import codec
from dtp.pay.errors import OtherCoin, PriceTooHigh
from dtp.pay.passes import (
    HeldPass,
    NoPass,
    PassHeld,
    PeriodsOutOfRange,
    account_of,
    buy,
    cancel,
    find_pass,
    held_passes,
    renew,
)
from dtp.pay.terms import QUOTA_USED_UP
from dtp.session.codes import ConnectionRefused
from dtp.sui.transaction import SplitCoins

from ..buying.test_paid import fetch, give, sell_plan, serve_subscribers
from ..conftest import TERMS, Market, Play, withheld

HOUR = 3_600_000
NOW = 100 * HOUR


def held(id: str = "0x1", host: str = "0xa", service: int = 1, start: Any = NOW, periods: int = 2) -> Any:
    plan = SimpleNamespace(id="0x9", host=host, period_ms=HOUR, price=50)
    return HeldPass(
        Pass(id, "0x9", host, service), plan, PassAccount("0xc", start, periods, 0, False), "0x2::sui::SUI"
    )


class Chain:
    """A chain with these passes, whose plans know their accounts."""

    address = "0xc"

    def __init__(self, there: Any = (), price: int = 50) -> None:
        self.there, self.price = {canonical_id(each.pass_.id): each for each in there}, price

    async def epoch(self) -> Any:
        return SimpleNamespace(epoch=3)

    async def owned(self, schema: Any, cls: Any, holder: Any) -> Any:
        return [each.pass_ for each in self.there.values()]

    async def object(self, id: Any) -> Any:
        return SimpleNamespace(type=f"0x1::pass::Plan<{SUI_COIN}>", id=id)

    def decode(self, schema: Any, cls: Any, data: Any) -> Any:
        plan = {"id": data.id, "host": "0xa", "period_ms": HOUR, "price": self.price}
        return SimpleNamespace(**plan, accounts=SimpleNamespace(id="0x8"))

    async def dynamic_fields(self, parent: Any) -> AsyncIterator[Any]:
        for id, each in self.there.items():
            value = pass_module.SCHEMA.encode(each.account)
            yield SimpleNamespace(name=codec("address").encode(id), value=value)


def find(*there: Any, without: Any = ()) -> Any:
    return asyncio.run(find_pass(cast(Any, Chain(there)), "0xa", 1, NOW, without)).pass_.id


def test_the_pass_that_fits_is_found() -> None:
    good, more = held("0x3"), held("0x4")
    others = [held("0x5", host="0xb"), held("0x6", service=2), held("0x7", start=NOW - 2 * HOUR)]
    assert find(*others, good, more) == "0x3"
    assert find(*others, good, more, without=["0x3"]) == "0x4"


@pytest.mark.parametrize("other", [{"host": "0xb"}, {"service": 2}, {"start": NOW - 2 * HOUR}])
def test_a_pass_that_does_not_fit_opens_nothing(other: Any) -> None:
    with pytest.raises(NoPass):
        find(held(**other))


def test_who_holds_a_pass_that_is_over_is_told_how_to_renew_it() -> None:
    over = held(start=NOW - 2 * HOUR)
    with pytest.raises(NoPass, match="pass 0x1 is over: 'dtp pass buy 0x9' renews it"):
        find(over)
    revoked = replace(over, account=replace(over.account, revoked=True))
    with pytest.raises(NoPass, match="holds no pass"):  # nothing renews that
        find(revoked)


def test_a_plan_knows_a_pass_by_its_id() -> None:
    one, two = held("0x" + "1" * 64, periods=1), held("0x" + "2" * 64, periods=2)
    chain, plan = cast(Any, Chain([one, two])), SimpleNamespace(accounts=SimpleNamespace(id="0x9"))
    known = asyncio.run(account_of(chain, cast(Any, plan), two.pass_.id))
    assert known is not None
    assert known.periods == 2
    assert asyncio.run(account_of(chain, cast(Any, plan), "0x" + "3" * 64)) is None


def test_a_pass_that_its_plan_does_not_know_is_none() -> None:
    class Forgetful(Chain):
        async def dynamic_fields(self, parent: Any) -> AsyncIterator[Any]:
            for _ in ():
                yield

    async def count() -> Any:
        return [each async for each in held_passes(cast(Any, Forgetful([held()])), "0xc")]

    assert asyncio.run(count()) == []


def test_periods_are_paid_one_by_one() -> None:
    class Enough(Exception):
        pass

    class Paying(Chain):
        async def execute(self, program: Any, **options: Any) -> None:
            split = next(each for each in program.commands(lambda _: "0x0") if isinstance(each, SplitCoins))
            raise Enough(int.from_bytes(program.inputs[split.amounts[0].index].data, "little"))

    for work in (buy(cast(Any, Paying()), "0x9", 7), renew(cast(Any, Paying()), held(), 7)):
        with pytest.raises(Enough) as paid:
            asyncio.run(work)
        assert paid.value.args == (350,)


@pytest.mark.parametrize("periods", [-1, 0, pass_module.MAX_PERIODS + 1, 2**64 - 1, 2**64])
def test_more_periods_than_a_pass_has_are_refused_before_the_chain_is_asked(periods: Any) -> None:
    """Nothing is paid for a plan without a price, so no sum bounded them."""
    for work in (buy(None, "0x9", periods), renew(None, held(), periods)):
        with pytest.raises(PeriodsOutOfRange) as refused:
            asyncio.run(work)
        assert (refused.value.code, refused.value.periods) == ("periods-out-of-range", periods)


def test_a_plan_without_a_price_gives_as_many_periods_as_a_pass_has(market: Play) -> None:
    async def scenario(market: Market) -> None:
        plan = await serve_subscribers(market, price=0)
        chain = (await market.buyer())["network"]
        await buy(chain, plan, pass_module.MAX_PERIODS)
        (bought,) = [each async for each in held_passes(chain, chain.address)]
        assert bought.account.periods == pass_module.MAX_PERIODS
        with pytest.raises(MoveAborted) as refused:
            await renew(chain, bought, 1)
        assert refused.value.error is pass_module.PassError.TOO_MANY_PERIODS
        assert refused.value.simulated

    market(scenario)


@pytest.mark.parametrize("is_signed", [False, True])
def test_a_pass_that_was_bought_by_a_call_that_was_cancelled_is_not_bought_twice(
    market: Play, is_signed: Any
) -> None:
    async def scenario(market: Market) -> None:
        plan = await serve_subscribers(market)
        chain = (await market.buyer())["network"]
        with withheld(chain, "execute" if is_signed else "simulate") as (reached, go_on):
            buying = asyncio.create_task(buy(chain, plan, 1))
            await reached.wait()
            buying.cancel()
            if is_signed:
                go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await buying
        if is_signed:
            (held,) = await chain.owned(pass_module.SCHEMA, Pass, chain.address)
            with pytest.raises(PassHeld, match="renew it") as refused:
                await buy(chain, plan, 1)
            assert refused.value.pass_ == held.id
        else:
            await buy(chain, plan, 1)
        assert len([each async for each in held_passes(chain, chain.address)]) == 1

    market(scenario)


@pytest.mark.slow
def test_no_period_costs_more_than_agreed_nor_another_coin(market: Play) -> None:
    """The host has chosen the price and the coin of its plan, and anybody can send the plan's id."""

    async def scenario(market: Market) -> None:
        plan = await serve_subscribers(market)
        buyer = (await market.buyer())["network"]
        with pytest.raises(PriceTooHigh, match=r"0\.003 SUI"):
            await buy(buyer, plan, 3, most=2_999_999)
        with pytest.raises(OtherCoin):
            await buy(buyer, plan, 3, coin="0x2::clock::Clock")
        assert [each async for each in held_passes(buyer, buyer.address)] == []
        await buy(buyer, plan, 3, most=3_000_000)
        (held,) = [each async for each in held_passes(buyer, buyer.address)]
        with pytest.raises(PriceTooHigh):
            await renew(buyer, held, 1, most=999_999)
        with pytest.raises(OtherCoin):
            await renew(buyer, replace(held, coin="0x2::clock::Clock"), 1)
        await renew(buyer, held, 1, most=1_000_000)

    market(scenario)


def test_a_channel_under_a_pass_is_of_the_plans_coin_and_closes(market: Play) -> None:
    """The service's terms are in another coin by then: the channel named that one, and couldn't be closed."""

    async def scenario(market: Market) -> None:
        plan = await serve_subscribers(market)
        await market.serving.close()
        other = replace(TERMS, coin="0x2::clock::Clock")
        await market.serve(give, mode=Mode.PASS, plans=[plan], terms=other)
        buyer = await market.buyer()
        await buy(buyer["network"], plan, 1)
        async with market.connect(buyer, budget=0) as connection:
            assert await fetch(connection, 1000) == 1000
            assert connection.meter.purchase.channel.coin == SUI_COIN
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_what_a_denied_holder_cannot_use_comes_back(market: Play) -> None:
    """Also the running period: the host kept it."""

    async def scenario(market: Market) -> None:
        plan = await serve_subscribers(market)
        buyer = (await market.buyer())["network"]
        await buy(buyer, plan, 3)
        (held,) = [each async for each in held_passes(buyer, buyer.address)]
        assert (await cancel(buyer, held))[0] == 2
        async with await market.client(market.server_wallet) as seller:
            caps = await seller.owned(host_module.SCHEMA, host_module.OpCap, seller.address)
            may = host_module.Rights.FIREWALL
            cap = next(each for each in caps if each.host == held.plan.host and each.rights & may)
            program = Program()
            host_module.deny(program, held.plan.host, cap.id, [buyer.address])
            await seller.execute(program)
        (held,) = [each async for each in held_passes(buyer, buyer.address)]
        assert (await cancel(buyer, held))[0] == 1

    market(scenario)


def test_a_pass_is_used_where_others_pay_and_the_budget_when_it_gives_no_more(market: Play) -> None:
    """As of a plan that was made with --keep-mode: who had bought it paid all the same."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        plan = await sell_plan(market, requests=2)
        await market.serving.close()
        await market.serve(give, plans=[plan])
        buyer = await market.buyer()

        async def used(**options: Any) -> Any:
            """What a request cost, and by which channel it came."""
            async with market.connect(buyer, keep=True, **options) as connection:
                assert await fetch(connection, 1000) == 1000
            return connection.paid, connection.meter.purchase.channel

        cost, paying = await used()
        assert cost > 0
        pass_, _ = await buy(buyer["network"], plan, 1)
        under = [await used(), await used(budget=0)]
        assert [(paid, channel.pass_) for paid, channel in under] == [(0, pass_)] * 2
        assert under[0][1].id == under[1][1].id
        cost, again = await used()
        assert cost > 0
        assert again.id == paying.id
        with pytest.raises(ConnectionRefused, match=QUOTA_USED_UP):
            await used(budget=0)

    market(scenario)
