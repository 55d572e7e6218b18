"""A server whose node shows deposits that aren't there, to the good of a client that signs above its own."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest

from dtp.chain.channel import ChannelState
from dtp.errors import DtpError
from dtp.pay.claims import Action, Decision, Policy, claimable
from dtp.pay.client.budget import DAY_MS
from dtp.pay.server.backing import believed, contradiction
from dtp.pay.serving import Selling
from dtp.pay.settling import finalize, request_close, settle
from dtp.pay.terms import MIB, Exposure, Prices, Usage

from .. import lies
from ..buying.test_paid import cost_of, fetch, give
from ..conftest import CHEAP, TERMS, TRUSTING, Market, Play
from ..meters import KEY
from ..selling.test_claims import channel, lane
from .test_faulty_nodes import play

#: Of which the default lets 10 MiB be served by a node's word alone.
DEAR = replace(TERMS, price_mib=20_000_000)
DEPOSIT = 25_000_000
#: ... and 10 MiB of usual ones.
UNCLAIMED = 20_000_000
EXTRA = 10**12


def more_in_it(found: Any) -> Any:
    """So much more went in, and is still there."""
    return replace(found, deposited=found.deposited + EXTRA, balance=found.balance + EXTRA)


def all_paid(found: Any) -> Any:
    """So much more went in, and what was claimed was paid out of it."""
    shown = more_in_it(found)
    return replace(shown, owed=0, claimed=found.claimed + found.owed, balance=shown.balance - found.owed)


async def take(connection: Any, most: Any) -> Any:
    """Fetch so many MiB, or until the connection is ended; bytes that came in whole answers."""
    got = 0
    try:
        for _ in range(most):
            got += await fetch(connection, MIB)
    except DtpError:
        pass
    return got


@pytest.mark.slow
@pytest.mark.parametrize("lie", [more_in_it, all_paid])
def test_a_deposit_that_is_not_there_is_served_for_up_to_what_is_believed(
    market: Play, lie: Any, bound: Any
) -> None:
    """It was served for as long as the client liked: vouchers above the deposit are worth nothing."""

    async def scenario(sessions: Any) -> None:
        market = sessions.market
        server = await sessions.client(market.server_wallet, "server")
        exposure = Exposure(first_amount=3_000_000, patience=3)
        selling = Selling(exposure=exposure, recheck=3600, claim_every=3600)
        serving = await market.serve(give, network=server, selling=selling, terms=DEAR)
        buyer = await market.buyer()
        sessions.node.lie(lies.channels(lie))
        for _ in range(3):  # it comes again, with a new channel where this one isn't taken any more
            connection = await market.connect(buyer, budget=DEPOSIT, keep=True)
            connection.meter.payer.update_funds(EXTRA, connection.meter.loop.time())
            got = await take(connection, 60)
            assert got < 60 * MIB
            await connection.close()
            assert Prices(DEAR.price_request, DEAR.price_mib).cost_of(Usage(0, got)) - DEPOSIT <= bound
            known = [each.channel for each in buyer["store"].bought_channels()]
        assert len(known) == 3  # none was taken twice
        await serving.ledger.wait_settled()
        sessions.node.lie({})
        # Who is honest is served all the same.
        other = await market.buyer()
        async with market.connect(other, budget=500_000_000) as connection:
            assert await fetch(connection, 8 * MIB) == 8 * MIB

    play(market, "server", scenario)


@pytest.mark.slow
def test_a_close_that_is_kept_from_the_server_costs_it_what_is_not_claimed(market: Play, bound: Any) -> None:
    """It was served as long as the node hid that the channel had its end: what was vouched was worth nothing."""

    async def scenario(sessions: Any) -> None:
        market = sessions.market
        server = await sessions.client(market.server_wallet, "server")
        exposure = Exposure(first_amount=3_000_000, patience=3)
        selling = Selling(exposure=exposure, recheck=3600, claim_every=3600)
        serving = await market.serve(give, network=server, selling=selling, terms=DEAR)
        buyer = await market.buyer()
        chain, first = buyer["network"], {}

        def as_it_was(found: Any) -> Any:
            return first.setdefault(found.id, found)

        sessions.node.lie(lies.channels(as_it_was))
        connection = await market.connect(buyer, budget=2_000_000_000, keep=True)
        got = await take(connection, 1)
        (found,) = await market.channels(buyer)
        await request_close(chain, found)
        market.chain.advance(DEAR.claim_ms)
        got += await take(connection, 60)
        await connection.close()
        await serving.ledger.wait_settled()
        assert got < 60 * MIB
        assert Prices(DEAR.price_request, DEAR.price_mib).cost_of(Usage(0, got)) <= bound
        sessions.node.lie({})
        paid = await finalize(chain, found)  # nothing could be claimed
        assert (paid.to_server, paid.to_client) == (0, 2_000_000_000)

    play(market, "server", scenario)


async def sell(sessions: Any) -> tuple[Any, Any, Any, Any]:
    """Sell 2 MiB to somebody who keeps the channel: the server's client, what serves, the buyer, the
    connection that is over."""
    market = sessions.market
    server = await sessions.client(market.server_wallet, "server")
    selling = Selling(exposure=TRUSTING, recheck=3600, claim_every=3600)
    serving = await market.serve(give, network=server, selling=selling)
    buyer = await market.buyer()
    async with market.connect(buyer, keep=True) as connection:
        assert await fetch(connection, 2 * MIB) == 2 * MIB
    await serving.ledger.wait_settled()
    return server, serving, buyer, connection


def ended(state: Any) -> Any:
    return lies.channels(lambda found: replace(found, state=state, closing_ms=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "lie",
    [
        ended(ChannelState.CLOSED),
        ended(ChannelState.CLOSING),
        lies.together(lies.time(400 * DAY_MS), lies.without(lambda kind: "::channel::Channel<" in kind)),
        lies.together(lies.time(400 * DAY_MS), ended(ChannelState.DRAINING)),
    ],
)
def test_a_node_that_says_that_a_channel_is_over_costs_what_is_not_claimed_and_claim_looks_again(
    market: Play, lie: Any, bound: Any
) -> None:
    """It was forgotten for good, and no command claimed it."""

    async def scenario(sessions: Any) -> None:
        market = sessions.market
        server, serving, buyer, connection = await sell(sessions)
        sessions.node.lie(lie)
        for _ in range(3):
            with contextlib.suppress(DtpError):
                await serving.firewall.refresh()
                await serving.cashier.poll()
        sessions.node.lie({})
        await serving.firewall.refresh()
        (found,) = await market.channels(buyer)
        assert connection.paid - found.claimed <= bound
        view = await serving.cashier.view_of(found.id)
        (paid,) = [
            paid
            for paid, _ in await settle(
                server, [Decision(view, Action.CLAIM, claimable(view, market.chain.now_ms()))], 16
            )
        ]
        assert paid.to_server == connection.paid == cost_of(2 * MIB)

    play(market, "server", scenario)


@pytest.mark.slow
def test_more_than_is_believed_is_served_as_it_is_claimed(market: Play) -> None:
    async def scenario(market: Market) -> None:
        policy = replace(CHEAP, most_unclaimed=UNCLAIMED)
        serving = await market.serve(give, selling=Selling(policy=policy, recheck=3600, claim_every=3600))
        buyer = await market.buyer()
        async with market.connect(buyer, budget=cost_of(80 * MIB)) as connection:
            for _ in range(3):
                assert await fetch(connection, 20 * MIB) == 20 * MIB
        assert connection.paid == cost_of(*[20 * MIB] * 3)
        assert serving.cashier.claimed["0x" + "0" * 63 + "2::sui::SUI"] >= connection.paid - UNCLAIMED

    market(scenario)


def test_what_of_a_channel_contradicts_itself() -> None:
    sound = channel(deposited=1000, balance=600, claimed=400)
    assert contradiction(sound) is None
    assert "contradict" in str(contradiction(replace(sound, deposited=10**9)))
    assert "contradict" in str(contradiction(replace(sound, balance=601)))
    assert "didn't pay" in str(contradiction(replace(sound, owed=1)))
    capped = replace(sound.terms, epoch_cap=400)
    assert contradiction(replace(sound, owed=600, terms=capped)) is None
    assert "didn't pay" in str(contradiction(replace(sound, owed=601, terms=capped)))


def test_what_is_believed_is_what_was_claimed_and_a_limit() -> None:
    of = channel(lanes=(lane(amount=100), replace(lane(amount=50), key=KEY.public)))
    assert believed(of, 0, 1000) == 1150
    assert believed(of, 60, 1000) == 1090
    assert believed(of, 2000, 1000) == 0
    assert believed(of, 60, None) is None


def test_the_limit_is_in_the_coin_that_is_paid() -> None:
    coin = "0x2::other::COIN"
    assert Policy().unclaimed_in("0x2::sui::SUI") == Policy().most_unclaimed == 200_000_000
    assert Policy(sui_in={coin: 5_000_000}).unclaimed_in(coin) == 1_000_000
    assert Policy().unclaimed_in(coin) is None
    assert Policy(most_unclaimed=None).unclaimed_in("0x2::sui::SUI") is None
    assert channel().state == ChannelState.OPEN
