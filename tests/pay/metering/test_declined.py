"""What ends for want of payment: both ends are told why, by a name of their own."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from dtp.chain.host import Terms
from dtp.pay.errors import ChargeDeclined
from dtp.pay.terms import Spending
from dtp.session.codes import CloseCode, CloseDetail, ConnectionClosed

from ..conftest import Market, Play


@pytest.mark.parametrize("options", [{}, {"on_charge": lambda *_: False}], ids=["unasked", "asked"])
def test_a_client_is_told_what_it_declined(market: Play, options: Any) -> None:
    """It was told that the peer had closed the connection, since "the client" had declined."""

    async def answer(connection: Any) -> None:
        async for request in connection.requests():
            await request.charge(3)

    async def scenario(market: Market) -> None:
        await market.serve(answer)
        buyer = await market.buyer()
        async with market.connect(buyer, **options) as connection:
            stream = await connection.open_stream()
            stream.write(b"a")
            with pytest.raises(ChargeDeclined, match=r"asked for 0\.000003 SUI \(3 requests\).*`on_charge`"):
                await stream.read()

    market(scenario)


@pytest.mark.parametrize("answered", [False, True], ids=["made", "answered"])
@pytest.mark.parametrize("deposit", [3000, 2000])
def test_a_charge_leaves_the_money_for_requests_that_were_made(
    market: Play, answered: bool, deposit: int
) -> None:
    """It was agreed to with the money of requests that are paid once they are answered: nothing came of either."""

    async def answer_both(connection: Any) -> None:
        both = connection.requests()
        first, second = await anext(both), await anext(both)
        with pytest.raises(ChargeDeclined):
            await second.charge(2)
        await second.charge(1)
        for each in (first, second):
            each.stream.write(b"answer")
            each.stream.write_eof()

    async def scenario(market: Market) -> None:
        await market.serve(answer_both, terms=Terms(price_request=1000, min_deposit=1000))
        buyer = await market.buyer()
        spending = Spending(when_answered=answered, charge_units=4)
        async with market.connect(buyer, budget=3000, deposit=deposit, spending=spending) as connection:
            streams = [await connection.open_stream() for _ in range(2)]
            for each in streams:
                each.write(b"a")
            assert [await each.read() for each in streams] == [b"answer"] * 2
        assert connection.paid == 3000

    market(scenario)


async def tell_end(market: Market, answer: Any, text: str) -> None:
    """Have a client that asks for something be told, by this server, that the connection ended so."""
    await market.serve(answer)
    buyer = await market.buyer()
    async with market.connect(buyer) as connection:
        stream = await connection.open_stream()
        stream.write(b"a")
        with pytest.raises(ConnectionClosed, match=text):
            await stream.read()


def test_what_ends_later_for_another_reason_is_not_blamed_on_a_charge(market: Play) -> None:
    """Any end for want of payment was told as the charge that had been declined last, however long before."""

    async def answer(connection: Any) -> None:
        async for request in connection.requests():
            with pytest.raises(ChargeDeclined):
                await request.charge(3)
            connection.abort(CloseCode.PAYMENT, "the pass is over", detail=CloseDetail.PASS_OVER)

    market(partial(tell_end, answer=answer, text="the pass is over"))


def test_a_server_that_says_that_money_is_used_up_which_is_left_is_not_believed(market: Play) -> None:
    async def answer(connection: Any) -> None:
        async for _ in connection.requests():
            connection.abort(CloseCode.PAYMENT, "used up", detail=CloseDetail.DEPOSIT_USED_UP)

    market(partial(tell_end, answer=answer, text="used up"))
