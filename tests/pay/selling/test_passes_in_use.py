"""Passes that change while a connection under them is open, or just before: real servers on the chain."""

from __future__ import annotations

from typing import Any

import pytest

from dtp.chain import Program
from dtp.chain import host as host_module
from dtp.chain import pass_ as pass_module
from dtp.pay.passes import buy, cancel, held_passes, renew
from dtp.pay.terms import MIB
from dtp.session.codes import CloseDetail, ConnectionClosed, ConnectionRefused

from ..buying.test_paid import fetch, serve_subscribers
from ..conftest import Market, Play, owned_by
from ..dishonest.test_hostile import honest, knock

PERIOD = 600_000


async def held_by(chain: Any) -> Any:
    (found,) = [each async for each in held_passes(chain, chain.address)]
    return found


@pytest.mark.parametrize("gives_back", [True, False])
def test_who_gives_the_next_period_back_just_before_it_begins_is_not_served_in_it(
    market: Play, gives_back: Any
) -> None:
    """The server had read of it seconds before, and served all of its quota until it looked again."""

    async def scenario(market: Market) -> None:
        plan = await serve_subscribers(market, size=2 * MIB)
        buyer = await market.buyer()
        chain = buyer["network"]
        await buy(chain, plan, 2)
        async with market.connect(buyer, budget=0, keep=True) as connection:
            assert await fetch(connection, MIB) == MIB
        purchase = connection.meter.purchase
        account = (await held_by(chain)).account
        market.chain.advance(account.start + PERIOD - 3000 - market.chain.now_ms())
        await market.send_heartbeat()
        await market.serving.firewall.refresh()
        if gives_back:
            assert (await cancel(chain, await held_by(chain)))[0] == 1
        market.chain.advance(4000)
        if gives_back:
            with pytest.raises(ConnectionRefused) as refused:
                await fetch(await knock(market, honest(purchase)), 1000)
            assert refused.value.detail == CloseDetail.PASS_OVER
        else:
            assert await fetch(await knock(market, honest(purchase)), 1000) == 1000

    market(scenario)


@pytest.mark.parametrize(
    ("change", "detail"),
    [("deny", CloseDetail.ON_DENY_LIST), ("revoke", CloseDetail.PASS_OVER), ("cancel", None)],
)
def test_a_transfer_under_a_pass_ends_with_it_and_goes_on_in_a_period_that_stays_paid(
    market: Play, change: Any, detail: Any
) -> None:
    async def scenario(market: Market) -> None:
        plan = await serve_subscribers(market)
        buyer = await market.buyer()
        await buy(buyer["network"], plan, 2)
        held, serving = await held_by(buyer["network"]), market.serving
        async with market.connect(buyer, budget=0) as connection:
            stream = await connection.open_stream()
            size = 16 * MIB
            stream.write(b"%d\n" % size)
            got = len(await stream.read(1))
            if change == "cancel":
                assert (await cancel(buyer["network"], held))[0] == 1
            else:
                program, cap = Program(), (await owned_by(serving)).operator
                if change == "deny":
                    host_module.deny(program, serving.host, cap, [buyer["network"].address])
                else:
                    pass_module.revoke(program, plan, serving.host, cap, held.pass_.id)
                await serving.chain.execute(program)
            await serving.ledger.check_open_channels(await serving.firewall.refresh())
            if detail is None:
                assert got + len(await stream.read()) == size
            else:
                with pytest.raises(ConnectionClosed) as closed:
                    await stream.read()
                assert closed.value.detail == detail

    market(scenario)


@pytest.mark.parametrize("at", [-1000, 0])
def test_programs_that_renew_a_pass_as_it_ends_pay_for_a_period_each_and_one_comes_back(
    market: Play, at: Any
) -> None:
    """Before its end and after it: neither has read what the other one did."""

    async def scenario(market: Market) -> None:
        plan = await serve_subscribers(market)
        buyer = await market.buyer()
        chain = buyer["network"]
        await buy(chain, plan, 1)
        held = await held_by(chain)
        market.chain.advance(held.account.start + PERIOD + at - market.chain.now_ms())
        for program in (chain, await market.client(buyer["wallet"])):
            await renew(program, held, 1)
        renewed = (await held_by(chain)).account
        assert renewed.periods == (2 if at == 0 else 3)
        assert (renewed.start == held.account.start) == (at < 0)
        given_back = (await cancel(chain, await held_by(chain)))[0]
        assert given_back == (1 if at == 0 else 2)

    market(scenario)
