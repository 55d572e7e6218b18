"""What a client sends is paid as well: it stops at what its money pays for, to the byte."""

from __future__ import annotations

from typing import Any

import pytest

from dtp.errors import LocalError
from dtp.pay.errors import BudgetSpent
from dtp.pay.terms import MIB, Spending

from ..buying.test_paid import cost_of, within
from ..conftest import TERMS, Market, Play


async def take(connection: Any) -> None:
    """Read all that comes, and answer with nothing."""
    async for request in connection.requests():
        while await request.stream.read(MIB):
            pass
        request.stream.write_eof()


async def give(connection: Any) -> None:
    """Answer with more than anybody pays for."""
    async for request in connection.requests():
        request.stream.write(bytes(64 * MIB))
        request.stream.write_eof()


async def end_and_take(connection: Any) -> None:
    """End the answer at once, and read on."""
    async for request in connection.requests():
        request.stream.write_eof()
        while await request.stream.read(MIB):
            pass


async def echo(connection: Any) -> None:
    """Answer with what comes."""
    async for request in connection.requests():
        while data := await request.stream.read(MIB):
            request.stream.write(data)
            await request.stream.drain()


@pytest.mark.parametrize("answered", [False, True], ids=["made", "answered"])
def test_no_more_is_sent_than_the_budget_pays_for(market: Play, answered: bool) -> None:
    """Nothing is owed then, so the channel is closed by agreement."""

    async def scenario(market: Market) -> None:
        await market.serve(take)
        buyer = await market.buyer()
        budget = cost_of(MIB // 2)
        spending = Spending(when_answered=answered)
        async with market.connect(buyer, budget=budget, spending=spending, keep=False) as connection:
            stream = await connection.open_stream()
            stream.write(bytes(8 * MIB))
            with pytest.raises(BudgetSpent, match="larger budget") as spent:
                await stream.drain()
            assert "more" not in str(spent.value).partition(";")[0]
            assert spent.value.bytes == within(budget)
        assert connection.paid <= budget
        assert connection.usage.bytes == within(budget)
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_who_sent_all_that_a_budget_pays_for_goes_on_with_another(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(take)
        buyer = await market.buyer()
        async with market.connect(buyer, budget=cost_of(MIB // 2), keep=True) as connection:
            stream = await connection.open_stream()
            stream.write(bytes(8 * MIB))
            with pytest.raises(BudgetSpent):
                await stream.drain()
        async with market.connect(buyer, budget=cost_of(MIB // 2), keep=False) as connection:
            stream = await connection.open_stream()
            stream.write(bytes(MIB // 4))
            stream.write_eof()
            assert await stream.read() == b""
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_what_is_sent_waits_for_money_that_is_added(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(take)
        buyer = await market.buyer()
        budget, deposit = cost_of(6 * MIB), cost_of(MIB)
        async with market.connect(buyer, budget=budget, deposit=deposit, keep=False) as connection:
            stream = await connection.open_stream()
            stream.write(bytes(5 * MIB))
            stream.write_eof()
            assert await stream.read() == b""
        assert connection.usage.bytes == 5 * MIB
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_who_sends_on_behind_an_end_is_told_that_the_money_is_used_up(market: Play) -> None:
    """Nothing is waited for when the money ends, so nothing is looked at until more is written."""

    async def scenario(market: Market) -> None:
        await market.serve(end_and_take)
        buyer = await market.buyer()
        budget = cost_of(MIB // 2)
        async with market.connect(buyer, budget=budget) as connection:
            stream = await connection.open_stream()
            stream.write(bytes(within(budget)))
            assert await stream.read() == b""
            await stream.flush()
            stream.write(bytes(8 * MIB))
            with pytest.raises(BudgetSpent):
                await stream.drain()

    market(scenario)


def test_a_service_that_asks_nothing_for_bytes_takes_any_number(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(take, terms=TERMS.__class__(price_request=1000, min_deposit=1000))
        buyer = await market.buyer()
        async with market.connect(buyer, budget=1000) as connection:
            stream = await connection.open_stream()
            stream.write(bytes(5 * MIB))
            stream.write_eof()
            assert await stream.read() == b""

    market(scenario)


def test_who_opens_another_stream_once_all_is_used_up_is_told(market: Play) -> None:
    """The first stream ends in order while its last bytes are paid, so the connection stays."""

    async def scenario(market: Market) -> None:
        await market.serve(take, terms=TERMS.__class__(price_mib=2_000_000, min_deposit=1000))
        buyer = await market.buyer()
        async with market.connect(buyer, budget=1_000_000) as connection:
            stream = await connection.open_stream()
            stream.write(bytes(MIB // 2))
            stream.write_eof()
            assert await stream.read() == b""
            another = await connection.open_stream()
            another.write(bytes(8 * MIB))
            with pytest.raises(BudgetSpent):
                await another.drain()

    market(scenario)


def test_an_echo_pays_all_of_a_budget_that_ends_within_it(market: Play) -> None:
    """Neither end knows what is under way to it, so more may have moved than is paid: a step of vouchers was left
    unpaid then, and the channel wasn't closed by agreement."""

    async def scenario(market: Market) -> None:
        await market.serve(echo)
        buyer = await market.buyer()
        budget = cost_of(MIB // 2)
        async with market.connect(buyer, budget=budget, keep=False) as connection:
            stream = await connection.open_stream()

            async def talk() -> None:
                while True:
                    stream.write(bytes(MIB // 16))
                    await stream.drain()
                    await stream.read(1)

            with pytest.raises(BudgetSpent):
                await talk()
        assert budget - 2 < connection.paid <= budget
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_what_is_written_in_the_turn_of_its_opening_stops_at_the_byte_too(market: Play) -> None:
    """It went beyond by as much as the request costs, since that wasn't counted yet."""

    async def scenario(market: Market) -> None:
        await market.serve(take)
        buyer = await market.buyer()
        budget = cost_of(100_000)
        connection = await market.connect(buyer, budget=budget, keep=False)
        stream = connection.try_open_stream()
        stream.write(bytes(200_000))
        with pytest.raises(BudgetSpent):
            await stream.flush()
        assert connection.usage.bytes == within(budget)
        await connection.close()
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_who_closes_with_more_than_the_money_delivers_is_told(market: Play) -> None:
    """Nothing was said, and what was finished was lost. All is closed all the same."""

    async def scenario(market: Market) -> None:
        await market.serve(take)
        buyer = await market.buyer()
        budget = cost_of(MIB // 2)
        connection = await market.connect(buyer, budget=budget, keep=False)
        stream = await connection.open_stream()
        stream.write(bytes(8 * MIB))
        stream.write_eof()
        with pytest.raises(BudgetSpent, match="larger budget"):
            await connection.close()
        assert budget - 2 < connection.paid <= budget
        assert await market.channels(buyer) == [None]
        await connection.close()

    market(scenario)


def test_an_error_of_the_program_is_not_hidden_by_what_the_money_does_not_deliver(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(take)
        buyer = await market.buyer()

        async def fail() -> None:
            async with market.connect(buyer, budget=cost_of(MIB // 2)) as connection:
                stream = await connection.open_stream()
                stream.write(bytes(8 * MIB))
                stream.write_eof()
                raise LocalError("mine")

        with pytest.raises(LocalError, match="mine"):
            await fail()

    market(scenario)


@pytest.mark.parametrize("keep", [True, False])
def test_what_was_finished_before_closing_is_delivered_and_paid(market: Play, keep: bool) -> None:
    """The last words were said first: what went behind them was not paid, and the channel not closed by agreement."""

    async def scenario(market: Market) -> None:
        await market.serve(take)
        buyer = await market.buyer()
        async with market.connect(buyer, keep=keep) as connection:
            stream = await connection.open_stream()
            stream.write(bytes(30 * MIB))
            stream.write_eof()
        assert connection.usage.bytes == 30 * MIB
        assert not any(connection.unpaid)
        assert [each is None for each in await market.channels(buyer)] == [not keep]

    market(scenario)


def test_who_opens_a_stream_behind_the_end_of_the_money_is_told_so(market: Play) -> None:
    """Where a request costs nothing it was told that the connection was closed."""

    async def scenario(market: Market) -> None:
        await market.serve(take, terms=TERMS.__class__(price_mib=2_000_000, min_deposit=1000))
        buyer = await market.buyer()
        async with market.connect(buyer, budget=1_000_000) as connection:
            stream = await connection.open_stream()
            stream.write(bytes(4 * MIB))
            with pytest.raises(BudgetSpent):
                await stream.drain()
            with pytest.raises(BudgetSpent):
                connection.try_open_stream()
            with pytest.raises(BudgetSpent):
                await connection.open_stream()

    market(scenario)


@pytest.mark.parametrize("handler", [give, echo])
def test_a_channel_that_holds_more_than_the_budget_is_closed_by_agreement(market: Play, handler: Any) -> None:
    """The server sent beyond it, which stayed unpaid, so it didn't agree, and close() waited 10 s for that."""

    async def scenario(market: Market) -> None:
        served: list[Any] = []

        async def handle(connection: Any) -> None:
            served.append(connection)
            await handler(connection)

        await market.serve(handle)
        buyer = await market.buyer()
        async with market.connect(buyer, budget=cost_of(8 * MIB), keep=True) as connection:
            await connection.open_stream()
        budget = cost_of(MIB // 2)
        connection = await market.connect(buyer, budget=budget, keep=False)
        paid = connection.paid
        stream = await connection.open_stream()
        stream.write(bytes(2 * MIB) if handler is echo else b"all")
        with pytest.raises(BudgetSpent):
            await stream.readexactly(64 * MIB)
        await connection.close()
        assert budget - 2 < connection.paid - paid <= budget
        assert await market.channels(buyer) == [None]
        assert handler is echo or not any(served[-1].unpaid)

    market(scenario)
