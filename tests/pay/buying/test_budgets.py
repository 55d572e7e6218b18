"""What a budget allows: too little is refused before any transaction, a channel that is used up gets more, once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dtp.chain import KeySigner, Program
from dtp.chain.errors import (
    InsufficientFunds,
    NodeUnavailable,
    OutcomeUnknown,
    SignerError,
    StaleObject,
    TransactionFailed,
)
from dtp.chain.host import Bearer, Terms
from dtp.chain.node.coins import coins_for
from dtp.chain.wallet import send
from dtp.errors import DtpError, LocalError
from dtp.pay.client import channel_purchase
from dtp.pay.client.budget import Budget, least_budget
from dtp.pay.client.channel_purchase import ChannelPurchase
from dtp.pay.client.lane_in_use import LaneInUse
from dtp.pay.client.lane_lock import LaneLock
from dtp.pay.client.lane_start import PayerLane
from dtp.pay.client.top_up import LaneMoney
from dtp.pay.errors import (
    BudgetSpent,
    BudgetTooSmall,
    DayLimit,
    HostLimit,
    MoneyNotAdded,
    OpeningBusy,
    OtherCoin,
)
from dtp.pay.serving import Selling
from dtp.pay.store import Bought, Store
from dtp.pay.store.journal import Journal
from dtp.pay.terms import MIB, Prices, Spending, Usage
from dtp.sui.transaction import SplitCoins

from ..conftest import CHEAP, TERMS, Market, Play, withheld
from ..meters import CHANNEL, KEY, PRICES, voucher
from ..selling.test_claims import channel
from ..stored import alter
from .test_paid import cost_of, fetch, give

LEAST = PRICES.cost_of(Usage(1, 4096)) + 1


async def spent(buyer: Any, work: Any) -> Any:
    """What an account loses by some work that fails with `BudgetTooSmall`; the error."""
    chain = buyer["network"]
    before = (await chain.balance(chain.address)).total
    with pytest.raises(BudgetTooSmall) as error:
        await work
    assert (await chain.balance(chain.address)).total == before
    return error.value


@pytest.mark.parametrize(
    "options", [{"budget": 1}, {"budget": LEAST - 1}, {"deposit": 1}, {"deposit": 0}, {"budget": -1}]
)
def test_a_budget_that_is_of_no_use_is_refused_before_any_transaction(market: Play, options: Any) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        error = await spent(buyer, market.connect(buyer, **options).__aenter__())
        assert error.least == LEAST
        assert f"{LEAST}" in str(error)
        assert error.code == "budget-too-small"
        assert buyer["store"].bought_channels() == []
        async with market.connect(buyer, budget=LEAST) as connection:
            assert await fetch(connection, 2000) == 2000

    market(scenario)


def test_a_budget_is_of_its_coin(market: Play) -> None:
    """So many units of another coin may be a fortune."""

    async def scenario(market: Market) -> None:
        coin = f"{market.chain.deployments.original_id('transport')}::host::Host"
        await market.serve(give, terms=replace(TERMS, coin=coin))
        buyer = await market.buyer()
        chain = buyer["network"]
        before = (await chain.balance(chain.address)).total
        for budget in (500_000_000, "0.5SUI"):
            with pytest.raises(OtherCoin, match=r"::host::Host, and the budget is in 0x0.*2::sui::SUI"):
                await market.connect(buyer, budget=budget)
        with pytest.raises(InsufficientFunds, match=r"has 0 of .*::host::Host"):
            await market.connect(buyer, coin=coin)
        assert not buyer["store"].kept_keys()
        with pytest.raises(InsufficientFunds, match="has 0 of"):
            await coins_for(chain, Program(), coin, 0)
        with pytest.raises(LocalError, match="is not a number of the smallest unit of"):
            market.connect(buyer, budget="0.5SUI", coin=coin)
        with pytest.raises(InsufficientFunds, match="less than 70000"):
            await market.connect(buyer, budget="80000", deposit="70000", coin=coin)
        assert (await chain.balance(chain.address)).total == before

    market(scenario)


def test_a_channel_of_another_coin_is_not_used_again(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, keep=True) as connection:
            await fetch(connection, 10)
        with pytest.raises(OtherCoin):
            await market.connect(buyer, coin="0x2::other::COIN")
        assert [each.state for each in buyer["store"].bought_channels()] == ["open"]

    market(scenario)


def test_the_least_budget() -> None:
    assert least_budget(Terms()) == 0
    assert least_budget(Terms(min_deposit=7)) == 7
    assert least_budget(Terms(price_request=10, min_deposit=7)) == 10  # a budget of one request is enough
    assert least_budget(TERMS) == LEAST
    assert least_budget(replace(TERMS, min_deposit=10**9)) == 10**9
    # What the client bears of transport is paid out of it, too.
    borne = replace(TERMS, bearer=Bearer.CLIENT, credit=100)
    assert least_budget(borne) == LEAST + 6400 * 4096 // MIB  # for bytes; a request is evidence of nothing
    assert least_budget(replace(borne, bearer=Bearer.SERVER)) == LEAST


@pytest.mark.slow
@pytest.mark.parametrize("keep", [True, False])
def test_a_channel_that_is_used_up_gets_more_and_no_lanes(market: Play, keep: Any) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, budget=cost_of(MIB), keep=True) as connection:
            assert await fetch(connection, MIB) == MIB
        budget = cost_of(MIB)
        async with market.connect(buyer, budget=budget, keep=keep) as connection:
            assert await fetch(connection, MIB) == MIB
            (channel,) = await market.channels(buyer)
            assert len(channel.lanes) == 1
            assert channel.deposited == 2 * budget
        assert connection.paid == cost_of(MIB, MIB)

    market(scenario)


def test_a_rest_that_pays_for_no_request_is_no_end(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, budget=cost_of(MIB) + 900, keep=True) as connection:
            await fetch(connection, MIB)
        async with market.connect(buyer, budget=cost_of(MIB), keep=True) as connection:
            assert await fetch(connection, MIB) == MIB
            with pytest.raises(BudgetSpent):
                await fetch(connection, MIB)

    market(scenario)


def test_a_request_waits_for_money_that_is_still_to_be_had(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        budget = 20 * TERMS.price_request + cost_of(20_000)
        async with market.connect(buyer, budget=budget, deposit=LEAST) as connection:
            for _ in range(20):
                assert await fetch(connection, 0) == 0
        assert connection.paid == 20 * 1000 + PRICES.cost_of(Usage(0, 40))

    market(scenario)


# ---- two at once


class Chain:
    """A chain where adding money takes a moment."""

    def __init__(self) -> None:
        self.added: list[Any] = []
        self.chain_id, self.address = "c", "0xb"
        self.channel = channel(deposited=1000, balance=1000)

    def noted_by(self, notes: Any) -> Any:
        return self

    async def read(self, schema: Any, cls: Any, id: Any) -> Any:
        return self.channel

    async def execute(self, program: Any, *, signed: Any) -> None:
        await asyncio.sleep(0)
        self.added.append(deposit_of(program))

    async def balance(self, owner: Any) -> Any:
        return SimpleNamespace(total=10**18)


def deposit_of(program: Any) -> Any:
    """What a program splits off the coin that pays for gas first, for the channel."""
    split = next(each for each in program.commands(lambda _: "0x0") if isinstance(each, SplitCoins))
    return int.from_bytes(program.inputs[split.amounts[0].index].data, "little")


@contextlib.asynccontextmanager
async def purchase_on(
    chain: Any, budget: Any, funds: Any, newest: Any = None, known: Any = None, path: str = ":memory:"
) -> AsyncIterator[Any]:
    """A connection's purchase on a lane of a channel that only this test knows."""
    with Store(path) as store:
        store.keep_key(KEY, 1)
        store.add_bought(Bought(CHANNEL, "c", "0xa", 1, "0xb", "open", 1), 0, KEY.public)
        store.count_moved("c", "0xb", {}, 0)  # the chain's history was looked at
        journal, lock = Journal(store), LaneLock(":memory:", CHANNEL, 0)
        lane = PayerLane(CHANNEL, 0, newest)
        in_use = LaneInUse(chain, journal, known or chain.channel, KEY, lane, lock)
        yield ChannelPurchase(in_use, LaneMoney(in_use, budget, funds), Prices(1000, 0), True)
        await journal.close()


def test_money_that_is_added_twice_at_once_stays_within_the_budget() -> None:
    async def scenario() -> None:
        chain = Chain()
        async with purchase_on(chain, Budget(4000, 1000), 1000) as purchase:
            got = await asyncio.gather(*map(purchase.money.add_money, (2000, 3000, 4000, 4000, 1000)))
        assert sum(chain.added) == 3000
        assert got == [3000, 4000, None, None, 4000]  # what was added for others does for who wanted less
        assert purchase.money.funds == 4000

    asyncio.run(scenario())


def test_a_budget_that_is_lent_is_spent_from_what_the_channel_has_before_money_is_added() -> None:
    async def scenario() -> None:
        chain, asked = Chain(), []

        async def lend(amount: Any) -> Any:
            asked.append(amount)
            return min(amount, 5000 - sum(asked[:-1]))

        has = replace(chain.channel, deposited=4000, balance=4000)
        async with purchase_on(chain, Budget(1000, 1000), 1000, known=has) as purchase:
            assert await purchase.money.add_money(2000) is None
            purchase.money.lend = lend
            assert [await purchase.money.add_money(2000) for _ in range(4)] == [3000, 4000, 6000, None]
        assert chain.added == [2000]
        assert (purchase.money.budget.most, asked) == (6000, [2000, 2000, 1000, 2000])

    asyncio.run(scenario())


def test_what_is_added_is_no_small_part_and_goes_by_what_the_lane_came_to_before() -> None:
    async def nobody(amount: Any) -> int:
        raise AssertionError("nothing has to be lent")

    async def scenario() -> None:
        chain = Chain()
        async with purchase_on(chain, Budget(4000, 1000), 3000, KEY.sign(voucher(1, 2))) as purchase:
            purchase.money.lend = nobody
            assert await purchase.money.add_money(1) == 3250
            assert await purchase.money.add_money(2000) == 5250
            purchase.money.lend = None
            assert await purchase.money.add_money(2000) == 6000  # what it came to, and the budget
            assert await purchase.money.add_money(1) is None
        assert chain.added == [250, 2000, 750]

    asyncio.run(scenario())


def test_money_that_could_not_be_added_is_kept_from_nobody() -> None:
    class Empty(Chain):
        async def execute(self, program: Any, *, signed: Any) -> None:
            raise InsufficientFunds("the wallet is empty")

    async def scenario() -> None:
        chain = Empty()
        async with purchase_on(chain, Budget(4000, 1000), 1000) as purchase:
            with pytest.raises(InsufficientFunds):
                await purchase.money.add_money(2000)
            counted_on = []
            purchase.in_use.journal.store.hold_deposit(CHANNEL, 1, lambda held: counted_on.append(held) or 0)
            assert counted_on == [{0: 1000}]

    asyncio.run(scenario())


def test_a_channel_that_another_connection_gave_up_just_before_is_replaced(tmp_path: Path) -> None:
    """Both were refused on it: that is one channel, and not a second one."""

    async def scenario() -> None:
        path, newest = tmp_path / "pay.sqlite", KEY.sign(voucher(1, 2))
        async with purchase_on(Chain(), Budget(4000, 1000), 1000, newest, path=path) as purchase:
            store, now = purchase.in_use.journal.store, round(time.time() * 1000)
            alter(store, "UPDATE bought SET opened_ms = ?, state = 'refused'", (now,))
            assert await purchase.can_replace(time.time())
            store.keep_key(KEY, 1)
            store.add_bought(replace(store.bought_channels()[0], channel="0x" + "9" * 64), 0, KEY.public)
            assert not await purchase.can_replace(time.time())

    asyncio.run(scenario())


def test_nothing_is_added_under_a_pass() -> None:
    async def scenario() -> None:
        chain = Chain()
        under = replace(chain.channel, pass_="0x" + "9" * 64)
        async with purchase_on(chain, Budget(4000, 1000), 1000, known=under) as purchase:
            assert await purchase.money.add_money(2000) is None
        assert chain.added == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("age_ms", "new"),
    [(0, True), (300_000, True), (-300_000, True), (660_000, False), (-660_000, False), (-(10**9), False)],
)
def test_a_channel_is_new_for_ten_minutes_by_a_wrong_clock_too(age_ms: Any, new: Any) -> None:
    """A clock behind the chain's sees a channel that is opened in the future."""
    assert channel_purchase.is_new(1_000_000_000 - age_ms, 1_000_000.0) is new


UNKNOWN = OutcomeUnknown("every answer was lost", digest="d", transaction=b"t", signatures=(b"s",))


class Losing(Chain):
    """A chain that loses the answer to the first top-up; `then` is what sending it again raises, None for nothing."""

    def __init__(self, then: Any, known: Any) -> None:
        super().__init__()
        self.then, self.known, self.resent = then, known, 0

    async def execute(self, program: Any, *, signed: Any) -> None:
        await super().execute(program, signed=signed)
        if len(self.added) == 1:
            raise UNKNOWN

    async def resubmit(self, unknown: Any) -> None:
        assert unknown is UNKNOWN
        self.resent += 1
        if self.then is not None:
            raise self.then

    async def transaction(self, digest: Any) -> Any:
        assert digest == "d"
        return self.known

    async def read(self, schema: Any, cls: Any, id: Any) -> None:
        raise NodeUnavailable("no node")


@pytest.mark.parametrize(
    ("then", "known", "added"),
    [
        (None, None, [2000]),
        (StaleObject("used"), "executed", [2000]),  # by itself
        (StaleObject("used"), None, [2000, 2000]),
        (TransactionFailed("aborted", kind="MOVE_ABORT"), None, [2000, 2000]),
    ],
)
def test_money_whose_outcome_is_unknown_is_added_once(then: Any, known: Any, added: Any) -> None:
    async def scenario() -> None:
        chain = Losing(then, known)
        async with purchase_on(chain, Budget(6000, 1000), 1000) as purchase:
            with pytest.raises(OutcomeUnknown):
                await purchase.money.add_money(2000)
            assert purchase.money.funds == 1000
            assert await purchase.money.add_money(2000) == 3000
            assert (chain.added, chain.resent) == (added, 1)
            # The next is another, within the budget, of which what wasn't added by the node's word counts as a part.
            assert await purchase.money.add_money(2000) == (5000 if len(added) == 1 else 4000)
            assert chain.resent == 1

    asyncio.run(scenario())


def test_a_node_that_says_no_to_what_was_signed_gets_no_more_than_the_budget() -> None:
    class Denying(Chain):
        async def execute(self, program: Any, *, signed: Any) -> None:
            await super().execute(program, signed=signed)
            fault = StaleObject("not available for consumption")
            fault.digest = "d"
            raise fault

    async def scenario() -> None:
        chain = Denying()
        async with purchase_on(chain, Budget(6000, 1000), 1000) as purchase:
            for _ in range(3):
                with pytest.raises(StaleObject):
                    await purchase.money.add_money(2000)
            assert await purchase.money.add_money(2000) is None
        assert sum(chain.added) == 5000

    asyncio.run(scenario())


def test_money_isn_t_added_anew_while_an_outcome_stays_unknown() -> None:
    async def scenario() -> None:
        chain = Losing(UNKNOWN, None)
        async with purchase_on(chain, Budget(6000, 1000), 1000) as purchase:
            for _ in range(3):
                with pytest.raises(OutcomeUnknown):
                    await purchase.money.add_money(2000)
        assert (chain.added, chain.resent, purchase.money.funds) == ([2000], 2, 1000)

    asyncio.run(scenario())


def test_streams_that_are_given_up_while_money_is_added_add_it_once(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give, terms=replace(TERMS, price_request=1_000_000, price_mib=0))
        buyer = await market.buyer()
        async with market.connect(buyer, budget=4_500_000, deposit=1_500_000) as connection:
            await fetch(connection, 100)
            with withheld(buyer["network"]) as (executed, answered):
                for _ in range(3):
                    opening = asyncio.create_task(connection.open_stream())
                    await executed.wait()
                    for _ in range(20):
                        await asyncio.sleep(0)
                    opening.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await opening
                answered.set()
                stream = await connection.open_stream()
            (channel,) = await market.channels(buyer)
            # Ahead: for what the next requests are signed for, and what the server trusts the client with.
            assert channel.deposited == connection.meter.purchase.money.funds == 3_000_000
            stream.close()

    market(scenario)


@pytest.mark.slow
def test_a_stream_waits_while_nodes_are_away_during_a_top_up(market: Play) -> None:
    """One that never sends the money, and one whose answers are lost."""
    faults = [NodeUnavailable("no node"), StaleObject("in use"), UNKNOWN]

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        chain = buyer["network"]
        chain.faults["top_up"] = iter(faults)

        async def execute(genuine: Any, data: Any, signatures: Any) -> Any:
            if data == UNKNOWN.transaction:
                raise TransactionFailed("aborted", kind="MOVE_ABORT")
            return await genuine(data, signatures)

        chain.node.answers["execute"] = execute
        deposit = cost_of(3 * MIB)
        spending = Spending(repeat=0.01)
        async with market.connect(
            buyer, budget=5 * deposit, deposit=deposit, spending=spending
        ) as connection:
            assert await fetch(connection, 8 * MIB) == 8 * MIB
        assert list(chain.faults["top_up"]) == []
        assert connection.paid == cost_of(8 * MIB)

    market(scenario)


def test_a_node_that_stays_away_ends_the_connection_with_a_name(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        buyer["network"].faults["top_up"] = repeat(NodeUnavailable("no node"))
        deposit = cost_of(2 * MIB)
        spending = Spending(repeat=0.01, funding=0.05)
        async with market.connect(
            buyer, budget=5 * deposit, deposit=deposit, spending=spending
        ) as connection:
            # What is there is spent first, however long the node is away.
            assert await fetch(connection, MIB) == MIB
            with pytest.raises(DtpError):
                await fetch(connection, 8 * MIB)
            error = connection.meter.error
            assert isinstance(error, MoneyNotAdded)
            assert error.code == "money-not-added"
            assert isinstance(error.__cause__, NodeUnavailable)
            assert connection.meter.payer.spent

    market(scenario)


async def fetch_many(connection: Any, count: Any) -> None:
    for _ in range(count):
        await fetch(connection, 0)


@pytest.mark.parametrize("fault", [InsufficientFunds, SignerError])
def test_an_empty_wallet_ends_nothing_before_the_deposit_is_spent(market: Play, fault: Any) -> None:
    """Or one whose owner declines."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, tried = await market.buyer(), asyncio.Event()

        def faults() -> Iterator[Any]:
            tried.set()
            while True:
                yield fault("the wallet is empty")

        buyer["network"].faults["top_up"] = faults()
        deposit = cost_of(2 * MIB)
        async with market.connect(buyer, budget=5 * deposit, deposit=deposit) as connection:
            assert await fetch(connection, MIB) == MIB
            await tried.wait()
            with pytest.raises(MoneyNotAdded, match="the wallet is empty") as error:
                await fetch(connection, 8 * MIB)
            assert isinstance(error.value.__cause__, fault)
        assert deposit - 2 <= connection.paid <= deposit
        assert await market.channels(buyer) == [None]  # closed by agreement
        async with market.connect(buyer, budget=5 * deposit, deposit=LEAST) as connection:
            with pytest.raises(MoneyNotAdded, match="the wallet is empty"):
                await fetch_many(connection, 20)

    market(scenario)


@pytest.mark.parametrize(
    ("limit", "fault"), [("most_per_day", DayLimit), ("most_per_host", HostLimit), ("busy", OpeningBusy)]
)
def test_what_the_channel_has_is_spent_before_a_limit_ends_the_connection(
    market: Play, monkeypatch: pytest.MonkeyPatch, limit: Any, fault: Any
) -> None:
    """It ended as soon as money was to be added ahead, with half of the deposit unspent, and no code of its own."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, deposit, sums = await market.buyer(), cost_of(2 * MIB), {}
        if limit == "busy":
            buyer["network"].faults["top_up"] = repeat(OpeningBusy("others are opening"))
        else:
            sums = {limit: deposit + 5000}
        if limit == "most_per_host":  # what connections use isn't counted
            monkeypatch.setattr("dtp.pay.client.budget.is_in_use", lambda *_: False)
        async with market.connect(buyer, budget=5 * deposit, deposit=deposit, **sums) as connection:
            assert await fetch(connection, 2 * MIB - 20_000) == 2 * MIB - 20_000
            with pytest.raises(MoneyNotAdded) as error:
                await fetch(connection, 8 * MIB)
            assert isinstance(error.value.__cause__, fault)
        assert deposit - 2 <= connection.paid <= deposit
        assert await market.channels(buyer) == [None]  # closed by agreement

    market(scenario)


def test_a_budget_that_is_too_small_for_a_kept_channel_names_its_service(market: Play) -> None:
    """It named the number."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, keep=True) as connection:
            await fetch(connection, 1000)
        with pytest.raises(BudgetTooSmall, match=r"^service 'files' wants"):
            await market.connect(buyer, budget=1)

    market(scenario)


def test_who_has_got_money_since_is_told_what_the_budget_is(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        once = iter([InsufficientFunds("the wallet is empty")])
        buyer["network"].faults["top_up"] = once
        async with market.connect(buyer, budget=3 * LEAST, deposit=LEAST) as connection:
            with pytest.raises(BudgetSpent):
                await fetch_many(connection, 200)
        assert list(once) == []

    market(scenario)


def test_two_lanes_in_use_count_on_different_money(market: Play) -> None:
    """Else both would stand still when the deposit ends, and none would add to it."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, budget = await market.buyer(), cost_of(MIB)
        async with market.connect(buyer, budget=budget, keep=True) as first:
            await fetch(first, 1000)
            async with market.connect(buyer, budget=budget, keep=True) as second:
                assert second.meter.payer.funds.most == budget
                assert await fetch(second, MIB) == MIB
                assert await fetch(first, MIB // 2) == MIB // 2
            (channel,) = await market.channels(buyer)
            assert channel.deposited == 2 * budget
        # What one hasn't used is there for the next.
        async with market.connect(buyer, budget=LEAST, keep=True) as third:
            await fetch(third, 0)
        (channel,) = await market.channels(buyer)
        assert channel.deposited == 2 * budget

    market(scenario)


def test_a_charge_above_the_deposit_is_paid_when_more_was_added(market: Play) -> None:
    """The voucher comes before the server has looked at the chain again."""

    async def scenario(market: Market) -> None:
        async def handler(connection: Any) -> None:
            async for request in connection.requests():
                await request.charge(50)
                request.stream.write_eof()

        await market.serve(handler)
        buyer = await market.buyer()
        async with market.connect(
            buyer, budget=200_000, deposit=LEAST, spending=Spending(charge_units=51)
        ) as connection:
            assert await fetch(connection, 0) == 0
        assert connection.paid == PRICES.cost_of(Usage(51, 2))

    market(scenario)


def test_a_channel_is_not_used_whose_claims_the_store_does_not_know(market: Play) -> None:
    """It is an old copy of the store, or a node makes them up: their counts would be signed for."""

    async def scenario(market: Market) -> None:
        await market.serve(
            give, selling=Selling(policy=replace(CHEAP, worth=1), recheck=3600, claim_every=3600)
        )
        buyer = await market.buyer()
        async with market.connect(buyer, keep=True) as connection:
            await fetch(connection, 2 * MIB)
        await market.serving.close()
        (found,) = await market.channels(buyer)
        claimed = found.lanes[0]
        assert claimed.sequence > 0
        alter(
            buyer["store"],
            "UPDATE lanes SET message = NULL, signature = NULL, requests = 0, bytes = 0, reserved_sequence = 0, "
            "reserved_amount = 0",
        )
        await market.serve(give)  # of a store of its own: it shows nothing
        async with market.connect(buyer, keep=True) as connection:
            assert await fetch(connection, MIB) == MIB
        assert connection.meter.purchase.channel.id != found.id
        assert connection.paid == cost_of(MIB)
        assert [each.state for each in buyer["store"].bought_channels()] == ["refused", "open"]

    market(scenario)


async def poor_buyer(market: Market, amount: Any) -> Any:
    """A buyer whose account has so many MIST, in one coin."""
    rich, buyer = await market.buyer(), await market.buyer(KeySigner.generate())
    await send(rich["network"], buyer["wallet"].address, amount)
    return buyer


def test_gas_for_closing_stays_in_the_wallet(market: Play) -> None:
    """Else all of the deposit is stuck until somebody sends gas."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        budget = cost_of(MIB)
        buyer = await poor_buyer(market, budget + 18_000_000)
        with pytest.raises(
            InsufficientFunds, match="is missing: send it, or give a smaller deposit"
        ) as refused:
            await market.connect(buyer, budget=budget)
        assert buyer["store"].bought_channels() == []
        assert not buyer["store"].kept_keys()
        rich = await market.buyer()
        await send(rich["network"], buyer["wallet"].address, refused.value.missing)
        async with market.connect(buyer, budget=budget) as connection:
            assert await fetch(connection, MIB) == MIB
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_gas_for_closing_stays_when_money_is_added(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await poor_buyer(market, LEAST + 50_000_000)
        async with market.connect(buyer, budget=50_000_000, deposit=LEAST) as connection:
            with pytest.raises(InsufficientFunds, match="gas for closing"):
                await connection.meter.purchase.money.add_money(25_000_000)
            assert await fetch(connection, 1000) == 1000
        assert await market.channels(buyer) == [None]

    market(scenario)
