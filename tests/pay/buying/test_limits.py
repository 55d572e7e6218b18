"""What may be locked up, and gas, are agreed to before anything is signed; what nothing uses is closed by itself."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dtp.chain import Program
from dtp.chain import channel as channel_module
from dtp.chain.errors import GasTooHigh
from dtp.chain.node.gas import GasAllowance
from dtp.pay.client.budget import GAS_PER_DAY, Budget, check_gas, check_limits, is_in_use
from dtp.pay.client.ends import close_due, close_further
from dtp.pay.client.lane_in_use import in_turn
from dtp.pay.dial import PaidDialer
from dtp.pay.errors import DayLimit, HostLimit, LockTooLong, NotApproved
from dtp.pay.store import Bought, Store
from dtp.pay.store.journal import Journal
from dtp.pay.terms import MIB
from dtp.pay.voucher import LaneKey
from dtp.session.codes import ConnectionRefused

from ..clients import RefusedDialer
from ..conftest import TERMS, Market, Play
from ..stored import alter
from .test_paid import cost_of, fetch, give

DAY = 24 * 3_600_000
SUI = 1_000_000_000
COIN = "0x0000000000000000000000000000000000000000000000000000000000000002::sui::SUI"


async def balance(buyer: Any) -> Any:
    return (await buyer["network"].balance(buyer["wallet"].address)).total


@pytest.mark.parametrize(
    ("terms", "options", "fault"),
    [
        ({"claim_ms": 30 * DAY, "idle_ms": 40 * DAY}, {}, LockTooLong),
        ({}, {"longest_lock": 60.0}, LockTooLong),
        ({}, {"max_gas": "0.001SUI"}, GasTooHigh),
        ({}, {"max_gas_price": 1}, GasTooHigh),
        ({}, {"most_per_host": 499_999_999}, HostLimit),
        ({}, {"most_per_day": "0.4SUI"}, DayLimit),
        ({}, {"on_opening": lambda opening: False}, NotApproved),
    ],
)
def test_what_is_not_agreed_to_is_refused_before_anything_is_signed(
    market: Play, terms: Any, options: Any, fault: Any
) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give, terms=replace(TERMS, **terms))
        buyer = await market.buyer()
        before = await balance(buyer)
        with pytest.raises(fault):
            await market.connect(buyer, **options)
        assert await balance(buyer) == before
        assert (buyer["store"].bought_channels(), buyer["store"].kept_keys()) == ([], {})

    market(scenario)


def test_an_opening_says_what_it_costs_before_it_is_agreed_to(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, asked = await market.buyer(), []

        async def agree(opening: Any) -> Any:
            asked.append(opening)
            return True

        before = await balance(buyer)
        async with market.connect(buyer, on_opening=agree) as connection:
            await fetch(connection, 100)
        ((opening),) = asked
        assert (opening.deposit, opening.terms.claim_ms, opening.service) == (500_000_000, 120_000, "files")
        gas = before - await balance(buyer) - connection.paid
        assert connection.meter.purchase.in_use.gas == gas  # with opening and closing
        assert gas / 2 < opening.gas < gas * 2
        (bought,) = buyer["store"].bought_channels()
        assert (bought.state, bought.gas, bought.deposited) == ("closed", gas, connection.paid)

    market(scenario)


def test_a_host_that_refuses_every_ticket_locks_no_more_than_its_limit(market: Play) -> None:
    """Each try had another deposit made, and none was ever closed."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        codes = []
        for _ in range(12):
            # As if each were long ago, or a lying node knew nothing of the channel.
            for each in buyer["store"].bought_channels():
                buyer["store"].set_state(each.channel, "refused")
                alter(buyer["store"], "UPDATE bought SET opened_ms = 1")
            with pytest.raises((ConnectionRefused, HostLimit)) as fault:
                await market.connect(buyer, budget=400_000_000, make_dialer=RefusedDialer)
            codes.append(fault.value.code)
        assert codes[-1] == "host-limit"
        held = [each.balance for each in await market.channels(buyer) if each is not None]
        assert sum(held) <= max(3 * 400_000_000, SUI)

    market(scenario)


def test_a_channel_that_was_refused_is_closed_by_agreement_by_the_program_that_follows(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        with pytest.raises(ConnectionRefused):
            await market.connect(buyer, make_dialer=RefusedDialer)
        (first,) = buyer["store"].bought_channels()
        buyer["store"].set_state(first.channel, "refused")
        async with market.connect(buyer) as connection:
            await fetch(connection, 10)
        (found,) = buyer["store"].bought_channels(first.channel)
        assert (found.state, found.deposited) == ("closed", 0)
        assert await market.channels(buyer) == [None] * 2

    market(scenario)


def test_a_channel_that_was_refused_is_closed_by_the_programs_that_follow(market: Play) -> None:
    """Where the server signs no close."""

    class Disagreed(PaidDialer):
        async def close_by_agreement(self, *_: Any) -> bool:
            return False

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        with pytest.raises(ConnectionRefused):
            await market.connect(buyer, make_dialer=RefusedDialer)
        (first,) = buyer["store"].bought_channels()
        buyer["store"].set_state(first.channel, "refused")
        async with market.connect(buyer, keep=True, make_dialer=Disagreed) as connection:
            await fetch(connection, 10)
        assert [each.state for each in buyer["store"].bought_channels(first.channel)] == ["closing"]
        market.chain.advance(TERMS.claim_ms)
        journal = Journal(buyer["store"])
        ((_, step),) = await close_due(buyer["network"], journal, market.chain.now_ms())
        await journal.close()
        assert (step.event, step.paid.to_client) == ("closed", 500_000_000)
        (found,) = buyer["store"].bought_channels(first.channel)
        assert (found.state, found.deposited) == ("closed", 0)
        assert (await market.channels(buyer))[0] is None

    market(scenario)


def test_connections_that_end_together_close_in_turn(market: Play) -> None:
    """Of six one or two ended with `stale-object`: they pay their gas by the same coin."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        first = await market.buyer()
        buyers = [{**first, "network": await market.client(first["wallet"])} for _ in range(6)]
        made = [await market.connect(each, budget=20_000_000) for each in buyers]
        for each in made:
            await fetch(each, 100)
        await asyncio.gather(*(each.close() for each in made))
        assert {each.state for each in first["store"].bought_channels()} == {"closed"}
        assert await market.channels(first) == [None] * 6

    market(scenario)


def test_a_channel_is_kept_where_another_would_cost_more_than_it_locks(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        kept = []
        for budget in (10_000_000, 900_000_000):
            buyer = await market.buyer()
            async with market.connect(buyer, budget=budget, keep=None) as connection:
                await fetch(connection, 10)
            kept.append([each.state for each in buyer["store"].bought_channels()])
        assert kept == [["open"], ["closed"]]

    market(scenario)


def test_a_rest_of_the_budget_that_is_less_than_its_gas_is_not_added_unasked(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, budget=100_000_000, keep=True) as connection:
            await fetch(connection, 1000)
        since = market.height()
        async with market.connect(buyer, budget=100_000_000, keep=True) as connection:
            await fetch(connection, 1000)
        assert market.sent(since, buyer["wallet"].address) == []

    market(scenario)


# ---- without a chain


def test_an_allowance_counts_what_is_signed_until_it_is_known_what_it_took() -> None:
    allowance = GasAllowance(most=100)
    allowance.sign(60)
    with pytest.raises(GasTooHigh, match=r"come to 0\.000000101 SUI .* at most 0\.0000001 SUI") as fault:
        allowance.sign(41)
    assert (fault.value.code, fault.value.needed, fault.value.most) == ("gas-too-high", 101, 100)
    allowance.settle_gas(60, 30)
    allowance.kept = 50
    with pytest.raises(GasTooHigh):
        allowance.sign(21)
    allowance.sign(20)
    allowance.settle_gas(20, -25)
    assert allowance.spent == 5


def bought(number: Any, deposited: Any, *, host: str = "0xa", state: str = "open", opened_ms: int = 0) -> Any:
    place = ("chain", host, 1, "0xb", state, opened_ms, COIN)
    return Bought(f"0x{number:064x}", *place, deposited=deposited)


def test_limits_count_what_nothing_uses_of_the_host_and_what_went_out_in_a_day(tmp_path: Path) -> None:
    with Store(tmp_path / "pay.sqlite") as store:
        for number, each in enumerate(
            [
                bought(1, 300),
                bought(2, 200, state="refused", opened_ms=2 * DAY),
                bought(3, 100, state="closed"),
                bought(4, 50, host="0xc", opened_ms=2 * DAY),
            ]
        ):
            key = LaneKey.generate()
            store.keep_key(key, number)
            store.add_bought(each, 0, key.public)

        def fits(amount: Any, now_ms: Any = 2 * DAY, **limits: Any) -> None:
            budget = Budget(10, per_host=limits.get("host", 1000), per_day=limits.get("day", 1000))
            check_limits(store, budget, ("chain", "0xa", "0xb"), amount, now_ms)

        fits(500)
        with pytest.raises(HostLimit, match=r"in 2 channels with this host") as fault:
            fits(501)
        assert (fault.value.code, fault.value.locked) == ("host-limit", 500)
        fits(50, day=300)
        with pytest.raises(DayLimit) as fault:
            fits(51, day=300)
        assert (fault.value.code, fault.value.locked) == ("day-limit", 250)
        fits(300, day=300, now_ms=4 * DAY)


def test_a_channel_that_another_program_closes_is_in_use(tmp_path: Path) -> None:
    """It was told of as one whose connection had not ended in order, for as long as the chain takes."""

    async def scenario(store: Any) -> None:
        journal = Journal(store)
        async with in_turn(journal, "0xf1") as ours:
            assert (ours, is_in_use(store, "0xf1"), is_in_use(store, "0xf2")) == (True, True, False)
        assert not is_in_use(store, "0xf1")
        await journal.close()

    with Store(tmp_path / "pay.sqlite") as store:
        asyncio.run(scenario(store))


def test_a_chain_whose_clock_runs_ahead_begins_no_new_day(market: Play) -> None:
    """Its time is the node's word: one that was days later at each opening had the limit of a day begin anew."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, sums = await market.buyer(), {"budget": cost_of(2 * MIB), "most_per_day": cost_of(3 * MIB)}
        async with market.connect(buyer, **sums) as connection:
            await fetch(connection, 2 * MIB - 4096)
        market.chain.advance(2 * DAY)
        await market.send_heartbeat()
        with pytest.raises(DayLimit):
            await market.connect(buyer, **sums)

    market(scenario)


def test_what_comes_back_counts_when_it_came(market: Play) -> None:
    """By the chain's clock it came later than it did, and made room for more each day until then."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, budget=cost_of(4 * MIB), keep=True) as connection:
            await fetch(connection, MIB)
        await market.serving.close()
        chain, store = buyer["network"], buyer["store"]
        before = round(time.time() * 1000)
        for _ in range(2):
            (found,) = await market.channels(buyer)
            await close_further(chain, store, found, market.chain.now_ms(), ask=True)
            market.chain.advance(2 * DAY)
        (each,) = store.bought_channels()
        assert each.deposited <= cost_of(MIB, 1000)
        after = round(time.time() * 1000) + 1
        net = [
            store.deposited_since(chain.chain_id, chain.address, COIN, since)
            for since in (before - DAY, after)
        ]
        assert net == [each.deposited, 0]

    market(scenario)


async def release(server: Any, channel: Any) -> None:
    """Have the server end a channel on chain, as it alone may at any time."""
    program = Program()
    channel_module.release(program, channel)
    await server.chain.execute(program)


def test_a_server_that_ends_each_channel_takes_ten_times_the_gas_of_a_connection_in_a_day(
    market: Play, bound: Any
) -> None:
    """A forward that was ended so again and again paid 0.15 SUI of gas in 13 s, and its budget said nothing."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        store = buyer["store"]
        start, gas = await balance(buyer), []
        for _ in range(6):  # more than the limit of the host would have let be locked
            connection = await market.connect(buyer, keep=True)
            await fetch(connection, 10)
            await connection.close()
            *_, last = store.bought_channels()
            await release(market.serving, last.channel)
            gas.append(start - await balance(buyer))
        # What the chain keeps of each for good: its deposit and its storage came back, two connections later.
        assert {each.state for each in store.bought_channels()[:-2]} == {"closed"}
        assert gas[-1] - gas[-2] < gas[0] / 2
        # As if it had gone on so; who agrees to more gas may go on.
        chain, agreed = buyer["network"], bound // GAS_PER_DAY
        place = chain.chain_id, chain.address
        took = bound - store.gas_since(place[0], last.host, place[1], 0)
        store.transaction_sent("before", "pay", last.channel, *place, round(time.time() * 1000))
        store.transaction_took("before", took)
        with pytest.raises(GasTooHigh) as refused:
            await market.connect(buyer, max_gas=agreed)
        assert refused.value.most == bound < refused.value.needed
        async with market.connect(buyer, max_gas=2 * agreed) as connection:
            await fetch(connection, 10)

    market(scenario)


def test_gas_counts_for_a_day_and_its_host(tmp_path: Path) -> None:
    budget, now = Budget(400_000_000, most_gas=50_000_000), 100 * DAY
    with Store(tmp_path / "pay.sqlite") as store:
        for host, at, gas in (("0xa", now, 300), ("0xa", now - DAY // 2, 151), ("0xa", now - DAY - 1, 500)):
            key, number = LaneKey.generate(), f"{host}{at}"
            store.keep_key(key, at)
            store.add_bought(Bought(number, "chain", host, 1, "0xc", "open", at), 0, key.public)
            store.transaction_sent(number, "pay", number, "chain", "0xc", at)
            store.transaction_took(number, gas * 1_000_000)
        with pytest.raises(GasTooHigh) as refused:
            check_gas(store, budget, ("chain", "0xa", "0xc"), now)
        assert (refused.value.needed, refused.value.most) == (501_000_000, 500_000_000)
        for purpose in (("chain", "0xb", "0xc"), ("other", "0xa", "0xc"), ("chain", "0xa", "0xd")):
            check_gas(store, budget, purpose, now)
        store.transaction_took(f"0xa{now}", 299_000_000)
        check_gas(store, budget, ("chain", "0xa", "0xc"), now)


def test_what_is_worth_nothing_keeps_nothing_from_being_closed(market: Play) -> None:
    """Eight channels of dust, which were refused, were all that was looked at."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        connection = await market.connect(buyer, keep=True)
        await connection.close()
        chain, store = buyer["network"], buyer["store"]
        (large,) = store.bought_channels()
        store.set_state(large.channel, "refused")
        for number in range(1, 10):
            key = LaneKey.generate()
            store.keep_key(key, number)
            dust = replace(large, channel=f"0x{number:064x}", opened_ms=large.opened_ms + 1, deposited=1000)
            store.add_bought(replace(dust, state="refused"), 0, key.public)
        journal = Journal(store)
        steps = await close_due(chain, journal, market.chain.now_ms())
        await journal.close()
        assert [found.id for found, _ in steps] == [large.channel]

    market(scenario)
