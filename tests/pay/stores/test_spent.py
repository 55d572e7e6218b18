"""All gas that was paid is in the store: also of transactions whose program ended before it heard of them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dtp.chain.errors import OutcomeUnknown
from dtp.errors import ChainError
from dtp.pay.client.ends import close_due, close_further
from dtp.pay.dial import close_with_server
from dtp.pay.errors import StoreError
from dtp.pay.spent import settle_spent
from dtp.pay.store import Store
from dtp.pay.store.journal import Journal
from dtp.sui.names import format_digest
from dtp.sui.transaction import transaction_digest

from ..buying.test_closing_with_server import ask, echo
from ..conftest import Play


def unnoted(store: Any) -> Any:
    """Within it a program is killed before it notes what a transaction took."""
    return store.failing("transaction_took", fault=StoreError("killed"))


def unheard(chain: Any, which: Any) -> Any:
    """Within it a program is killed while it waits for the answer to its `which`th transaction."""
    count = iter(range(100))

    async def execute(genuine: Any, data: Any, signatures: Any) -> Any:
        outcome = await genuine(data, signatures)
        if next(count) == which:
            digest = format_digest(transaction_digest(data))
            raise OutcomeUnknown("killed", digest=digest, transaction=data, signatures=signatures)
        return outcome

    return chain.node.answering(execute=execute)


async def settle(buyer: Any) -> None:
    journal = Journal(buyer["store"])
    try:
        await settle_spent(buyer["network"], journal)
    finally:
        await journal.close()


async def balance(buyer: Any) -> Any:
    return (await buyer["network"].balance(buyer["network"].address)).total


def told(buyer: Any) -> Any:
    """What the store says that its owner has less than before: gas, and what is, or was, in channels."""
    store = buyer["store"]
    gas = sum(each.gas for each in store.bought_channels()) + sum(gas for _, gas in store.spent_beside("pay"))
    return gas + sum(store.deposited_sum(each.channel) for each in store.bought_channels())


async def spend(made: Any, buyer: Any) -> None:
    """Open a channel, add to it, and close it by agreement."""
    async with made.connect(buyer, budget=400_000_000, deposit=20_000_000, keep=True) as connection:
        await ask(connection)
        assert await connection.meter.purchase.money.add_money(100_000_000)
    (kept,) = buyer["store"].bought_channels()
    await close_with_server(buyer["network"], buyer["store"], kept.channel)


def test_gas_that_nobody_could_note_is_asked_of_the_chain(market: Play) -> None:
    async def scenario(made: Any) -> None:
        await made.serve(echo)
        buyer = await made.buyer()
        before = await balance(buyer)
        with unnoted(buyer["store"]):
            await spend(made, buyer)
        less = before - await balance(buyer)
        assert len(buyer["store"].unsettled_transactions()) == 3  # opened, added to, closed
        assert told(buyer) != less
        await settle(buyer)
        assert buyer["store"].unsettled_transactions() == []
        assert told(buyer) == less
        await settle(buyer)  # told twice it is one
        assert told(buyer) == less

    market(scenario)


@pytest.mark.parametrize("which", range(3))
def test_the_gas_of_a_transaction_whose_program_was_killed_is_in_the_history(
    market: Play, which: Any
) -> None:
    """Of 39 kills in a top-up 4 lost its gas."""

    async def scenario(made: Any) -> None:
        await made.serve(echo)
        buyer = await made.buyer()
        before = await balance(buyer)
        with unheard(buyer["network"], which), pytest.raises(ChainError):
            await spend(made, buyer)
        with Store(buyer["store"].path) as again:  # the next program of the same account
            buyer["store"] = again
            async with made.connect(buyer, budget=400_000_000, keep=True) as connection:
                await ask(connection)
            assert again.unsettled_transactions() == []
            gas = sum(each.gas for each in again.bought_channels()) + sum(
                gas for _, gas in again.spent_beside("pay")
            )
            held = sum(each.balance for each in await made.channels(buyer) if each is not None)
            # Of a channel whose close was executed unheard what came back isn't known here, and what it cost is.
            gone = [
                bought
                for bought, there in zip(again.bought_channels(), await made.channels(buyer), strict=True)
                if there is None
            ]
            paid = sum(
                lane.newest.voucher.amount
                for each in gone
                for _, lane in again.payer_lanes(each.channel)
                if lane.newest is not None
            )
            assert before - await balance(buyer) == gas + held + paid

    market(scenario)


def test_the_gas_of_a_close_that_the_chain_is_asked_for_is_noted_whoever_dies(market: Play) -> None:
    async def scenario(made: Any) -> None:
        await made.serve(echo)
        buyer = await made.buyer()
        before, chain, store = await balance(buyer), buyer["network"], buyer["store"]
        with unnoted(store):
            async with made.connect(buyer, budget=400_000_000, keep=True) as connection:
                await ask(connection)
            await made.serving.close()
            (found,) = await made.channels(buyer)
            await close_further(chain, store, found, made.chain.now_ms(), ask=True)
            made.chain.advance(found.terms.claim_ms + 1000)
            (found,) = await made.channels(buyer)
            await close_further(chain, store, found, made.chain.now_ms(), ask=False)
        assert len(store.unsettled_transactions()) == 4  # opened, asked for, finalized, deleted
        journal = Journal(store)
        await close_due(chain, journal, made.chain.now_ms())  # as every connection does first
        await journal.close()
        assert store.unsettled_transactions() == []
        assert told(buyer) == before - await balance(buyer)

    market(scenario)


def test_the_gas_of_claims_is_in_the_servers_store(market: Play) -> None:
    async def scenario(made: Any) -> None:
        serving = await made.serve(echo)
        buyer = await made.buyer()
        async with made.connect(buyer, budget=1_000_000_000, keep=True) as connection:
            for _ in range(3):
                await ask(connection, bytes(3_000_000))
        with unnoted(serving.store):
            await serving.cashier.poll(closing=True)
        assert serving.cashier.gas
        ((each),) = serving.store.unsettled_transactions()
        assert each.purpose == "claim"
        await serving.cashier.poll()
        assert [gas for _, gas in serving.store.spent_beside("claim")] == [serving.cashier.gas]
        assert serving.store.unsettled_transactions() == []

    market(scenario)


def test_what_was_never_executed_is_forgotten_after_a_day(market: Play) -> None:
    """A refusal is a node's word: until then it counts as possible."""

    async def scenario(made: Any) -> None:
        await made.serve(echo)
        buyer = await made.buyer()
        store, chain = buyer["store"], buyer["network"]
        await chain.connect()
        now = round(time.time() * 1000)  # by which it is judged; other tests have moved the chain's clock
        for digest, at_ms in (("8" * 43, now), ("9" * 43, now - 25 * 3_600_000)):
            store.transaction_sent(digest, "pay", "", chain.chain_id, chain.address, at_ms)
        await settle(buyer)
        assert [each.digest for each in store.unsettled_transactions()] == ["8" * 43]

    market(scenario)


def test_a_full_disk_keeps_nobody_from_claiming_or_closing(market: Play) -> None:
    async def scenario(made: Any) -> None:
        serving = await made.serve(echo)
        buyer = await made.buyer()
        async with made.connect(buyer, budget=1_000_000_000, keep=True) as connection:
            for _ in range(3):
                await ask(connection, bytes(3_000_000))

        with serving.store.failing("transaction_sent"), buyer["store"].failing("transaction_sent"):
            (paid,) = await serving.cashier.poll(closing=True)
            assert paid.to_server == connection.paid
            (kept,) = buyer["store"].bought_channels()
            assert await close_with_server(buyer["network"], buyer["store"], kept.channel)
        assert await made.channels(buyer) == [None]

    market(scenario)
