"""Money that is added is noted before it is sent, and a node that lies about a channel gets no more of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dtp.chain.channel import SCHEMA, Channel
from dtp.errors import DtpError
from dtp.pay.client.budget import Budget, least_budget
from dtp.pay.client.lane_in_use import believable
from dtp.pay.client.top_up import add_noted, room_for, settle_doubted
from dtp.pay.errors import BudgetSpent, DayLimit
from dtp.pay.serving import Selling
from dtp.pay.store import Bought, Store
from dtp.pay.store.journal import Journal
from dtp.pay.terms import MIB, Exposure

from ..conftest import CHEAP, Market, Play
from ..dishonest.test_lying_nodes import lying
from ..meters import CHANNEL, KEY
from ..selling.test_claims import channel
from ..stored import alter
from ..stores.test_store_formats import drop_names
from .test_budgets import LEAST, Chain, purchase_on
from .test_paid import cost_of, fetch, give

DEPOSIT = cost_of(MIB)
BUDGET = 4 * DEPOSIT
SUI = "0x" + "2".rjust(64, "0") + "::sui::SUI"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Any]:
    with Store(tmp_path / "pay.sqlite") as made:
        made.keep_key(KEY, 1)
        made.add_bought(
            Bought(CHANNEL, "c", "0xa", 1, "0xb", "open", 1, SUI, deposited=1_000_000), 0, KEY.public
        )
        yield made


def test_a_deposit_is_doubted_until_the_chain_has_it(store: Any) -> None:
    store.add_deposit(CHANNEL, 5, 300, "first")
    for _ in range(2):  # the same, signed again
        store.add_deposit(CHANNEL, 6, 200, "second")
    with Store(store.path) as other:
        assert other.deposited_sum(CHANNEL) == 1_000_500
        assert other.deposited_since("c", "0xb", SUI, 2) == 500
        assert other.doubted_deposits(CHANNEL) == {"first": 300, "second": 200}
        other.settle_deposit(CHANNEL, "first")
        other.settle_deposit("0xc", "second")
    assert (store.doubted_deposits(CHANNEL), store.deposited_sum(CHANNEL)) == ({"second": 200}, 1_000_500)


def test_a_channel_was_topped_up_by_what_came_behind_its_opening(store: Any) -> None:
    assert not store.was_topped_up(CHANNEL, 0)
    store.add_deposit(CHANNEL, 5, -300)
    assert not store.was_topped_up(CHANNEL, 0)
    store.add_deposit(CHANNEL, 7, 300, "doubted")
    assert [store.was_topped_up(CHANNEL, since) for since in (0, 7, 8)] == [True, True, False]


def test_deposits_of_the_format_before_are_not_doubted(store: Any) -> None:
    drop_names(store)
    alter(store, "ALTER TABLE deposits DROP COLUMN digest")
    alter(store, "PRAGMA user_version=7")
    with Store(store.path) as other:
        assert (other.deposited_sum(CHANNEL), other.doubted_deposits(CHANNEL)) == (1_000_000, {})


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        (0, 1_000_000),
        (1_000_000, 1_000_000),
        (1_000_100, 1_000_100),
        (1_000_500, 1_000_500),
        (10**15, 1_000_500),
    ],
)
def test_a_deposit_is_believed_as_far_as_it_was_signed(store: Any, said: Any, believed: Any) -> None:
    store.add_deposit(CHANNEL, 5, 500, "doubted")
    assert believable(store, replace(channel(), deposited=said)).deposited == believed


def test_of_a_channel_without_any_note_the_node_is_believed(store: Any) -> None:
    other = replace(channel(), id="0x" + "9" * 64, deposited=77)
    assert believable(store, other) == other
    assert room_for(store, other, 0, Budget(50)) == 50


def test_room_counts_what_is_noted_and_not_what_a_node_says(store: Any) -> None:
    budget, said = Budget(1_500_000), replace(channel(), deposited=0)
    most = budget.most + least_budget(said.terms)
    assert room_for(store, said, 0, budget) == most - 1_000_000
    store.add_deposit(CHANNEL, 5, 400_000, "denied")
    assert room_for(store, said, 0, budget) == most - 1_400_000


# ---- all that is wanted, or nothing


def test_of_what_is_needed_as_a_whole_no_part_is_added() -> None:
    """It took gas and was locked up, and paid for nothing."""

    async def scenario() -> None:
        chain = Chain()
        async with purchase_on(chain, Budget(4000, 1000), 1000) as purchase:
            assert await purchase.money.add_money(3001, whole=True) is None
            assert (chain.added, purchase.money.funds) == ([], 1000)
            assert await purchase.money.add_money(2000, whole=True) == 3000
            assert await purchase.money.add_money(1001) == 4000
        assert chain.added == [2000, 1000]

    asyncio.run(scenario())


def test_what_the_channel_has_of_what_is_needed_is_made_whole() -> None:
    async def scenario() -> None:
        chain = Chain()
        has = replace(chain.channel, deposited=2500, balance=2500)
        async with purchase_on(chain, Budget(6000, 1000), 1000, known=has) as purchase:
            assert await purchase.money.add_money(3000, whole=True) == 4000
        assert chain.added == [1500]

    asyncio.run(scenario())


def test_a_request_that_the_budget_does_not_cover_adds_nothing_and_ends_nothing(market: Play) -> None:
    async def answer(stream: Any) -> None:
        stream.write(bytes(int(await stream.readline())))
        stream.write_eof()

    async def handler(connection: Any) -> None:
        async with asyncio.TaskGroup() as group:
            async for stream in connection:
                group.create_task(answer(stream))

    async def scenario(market: Market) -> None:
        await market.serve(handler)
        buyer = await market.buyer()
        async with market.connect(buyer, budget=LEAST + 100, deposit=LEAST, keep=True) as connection:
            waiting = await connection.open_stream()
            for _ in range(7):
                await fetch(connection, 0)
            with pytest.raises(BudgetSpent):
                await fetch(connection, 0)
            assert await deposited(market, buyer) == [LEAST]
            left = connection.meter.payer.funds.bytes_left(connection.meter.payer.used)
            size = left + 20  # for these the rest of the budget is added
            waiting.write(b"%d\n" % size)
            assert len(await waiting.read()) == size
            waiting.close()
        assert await deposited(market, buyer) == [LEAST + 100]

    market(scenario)


# ---- with a chain


async def kept(market: Market, buyer: Any, size: int = 1000, **options: Any) -> None:
    options = {"deposit": DEPOSIT, "budget": BUDGET, "keep": True} | options
    async with market.connect(buyer, **options) as connection:
        assert await fetch(connection, size) == size


async def deposited(market: Market, buyer: Any) -> Any:
    """What is in the buyer's channels by the true chain."""
    return [each.deposited for each in await market.channels(buyer) if each is not None]


@pytest.mark.parametrize("exposure", [Exposure(), Exposure(0, 0, 0, 0)], ids=["trusting", "paid ahead"])
def test_money_that_another_connection_added_counts_in_the_next(market: Play, exposure: Any) -> None:
    """The server has read the channel before, and remembers it: it is told of the money, or looks again."""

    async def scenario(market: Market) -> None:
        await market.serve(give, selling=Selling(policy=CHEAP, recheck=3600, exposure=exposure))
        buyer = await market.buyer()
        await kept(market, buyer)
        (channel,) = await market.channels(buyer)
        journal = Journal(buyer["store"])
        await add_noted(buyer["network"], journal, channel, Budget(BUDGET), BUDGET - DEPOSIT)
        await journal.close()
        await kept(market, buyer, 2 * MIB)
        assert await deposited(market, buyer) == [BUDGET]

    market(scenario)


def test_a_node_that_says_a_channel_is_empty_gets_no_top_up(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        await kept(market, buyer)
        before = await deposited(market, buyer)
        stop = lying(buyer, deposited=0, balance=0)
        for _ in range(3):
            await kept(market, buyer)
        stop()
        assert await deposited(market, buyer) == before

    market(scenario)


@pytest.mark.parametrize("what", ["claims", "credits"])
def test_a_node_that_says_a_channel_is_used_up_gets_a_budget_at_most(market: Play, what: Any) -> None:
    """Claims and credits of a channel aren't known otherwise; what was signed is."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        await kept(market, buyer)
        (found,) = await market.channels(buyer)
        lies: dict[str, Any] = {"credited": 10**12, "terms": replace(found.terms, bearer=1, credit=1)}
        if what == "claims":
            lies = {"lanes": (replace(found.lanes[0], amount=BUDGET),)}
        stop = lying(buyer, **lies)
        for _ in range(6):
            try:
                await kept(market, buyer)
            except DtpError:
                continue
        stop()
        amounts = await deposited(market, buyer)
        assert all(each <= BUDGET + DEPOSIT for each in amounts)
        assert sum(amounts) <= max(3 * BUDGET, 10**9)  # of a host

    market(scenario)


@pytest.mark.slow
def test_a_node_that_says_more_is_there_keeps_nobody_from_adding(market: Play) -> None:
    async def scenario(market: Market) -> None:
        selling = Selling(policy=CHEAP, recheck=3600, claim_every=3600, exposure=Exposure(patience=60))
        await market.serve(give, selling=selling)
        buyer = await market.buyer()
        lying(buyer, deposited=10**15, balance=10**15)
        await kept(market, buyer, size=3 * MIB)
        assert [DEPOSIT < each <= BUDGET for each in await deposited(market, buyer)] == [True]

    market(scenario)


def test_a_node_that_shows_an_older_version_gets_no_second_top_up(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        options = {"deposit": DEPOSIT, "budget": DEPOSIT}
        await kept(market, buyer, size=MIB, **options)  # all of it
        chain = buyer["network"]
        genuine, (old,) = chain.read, await market.channels(buyer)
        await kept(market, buyer, **options)  # adds money
        after = await deposited(market, buyer)
        assert after[0] > old.deposited == DEPOSIT

        async def read(schema: Any, cls: Any, id: Any) -> Any:
            return old if cls is Channel else await genuine(schema, cls, id)

        chain.read = read
        for _ in range(3):
            await kept(market, buyer, **options)
        chain.read = genuine
        assert await deposited(market, buyer) == after

    market(scenario)


class Killed(Exception):
    """The program is no more."""


class Dying:
    """A journal that dies at its nth call, before the write or behind it."""

    def __init__(self, journal: Any, number: Any, behind: Any) -> None:
        self.journal, self.left, self.behind = journal, number, behind

    @property
    def store(self) -> Any:
        return self.journal.store

    async def run(self, work: Any) -> Any:
        self.left -= 1
        if self.left < 0 and not self.behind:
            raise Killed
        found = await self.journal.run(work)
        if self.left < 0:
            raise Killed
        return found


@pytest.mark.parametrize("behind", [False, True])
def test_a_top_up_counts_whenever_its_program_is_killed(market: Play, behind: Any) -> None:
    """The chain has it, and the limit of a day forgot it."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        await kept(market, buyer)
        chain, store = buyer["network"], buyer["store"]
        journal, (bought,) = Journal(store), store.bought_channels()
        (before,) = await deposited(market, buyer)
        number, ended = 0, False
        while not ended:
            known = await chain.read(SCHEMA, Channel, bought.channel)
            try:
                await add_noted(chain, Dying(journal, number, behind), known, Budget(BUDGET), 1000)
                ended = True
            except Killed:
                number += 1
            (now,) = await deposited(market, buyer)
            assert now in (before, before + 1000)
            noted, before = store.deposited_sum(bought.channel), now
            assert noted >= now
            await settle_doubted(chain, journal, bought.channel)
            sure = noted - sum(store.doubted_deposits(bought.channel).values())
            assert sure == now
            spent = store.deposited_since(chain.chain_id, chain.address, bought.coin, 0)
            assert spent == noted
            with pytest.raises(DayLimit):
                await add_noted(chain, journal, known, Budget(BUDGET, per_day=spent + 999), 1000)
        assert number >= 3  # checked, noted, settled
        await journal.close()

    market(scenario)
