"""Paid connections that break off at their beginning or at their end: nothing of them stays behind."""

import asyncio
import contextlib
import time
from types import SimpleNamespace

import pytest

from dtp.errors import DtpError
from dtp.pay import buying, dial
from dtp.pay.client_meter import ClientMeter
from dtp.pay.errors import StoreError
from dtp.pay.store import Store
from dtp.session.codes import CloseCode, ConnectionClosed, ConnectionRefused

from .test_paid import cost_of, fetch, give


def test_a_connection_whose_beginning_can_t_be_noted_is_not_left_open(market, monkeypatch):
    def full(*_):
        raise StoreError("the disk is full")

    async def scenario(market):
        await market.serve(give)
        buyer, made = await market.buyer(), []
        genuine = dial._PaidDialer._dial

        async def dialled(*args):
            made.append(await genuine(*args))
            return made[-1]

        monkeypatch.setattr(dial._PaidDialer, "_dial", dialled)
        with monkeypatch.context() as patch:
            patch.setattr(Store, "begin_lane", full)
            with pytest.raises(StoreError, match="full"):
                await market.connect(buyer)
        assert [each.closed for each in made] == [True]
        async with market.connect(buyer) as connection:
            assert await fetch(connection, 1000) == 1000
        assert len(buyer["store"].bought()) == 1

    market(scenario)


def test_a_close_that_is_cancelled_leaves_nothing_open_but_the_channel(market, monkeypatch):
    async def scenario(market):
        await market.serve(give)
        buyer = await market.buyer()
        connection = await market.connect(buyer)
        await fetch(connection, 100_000)
        with monkeypatch.context() as patch:
            patch.setattr(ClientMeter, "last_words", lambda meter: asyncio.Event().wait())
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await connection.close()
        assert connection.closed
        (bought,) = buyer["store"].bought()
        ((_, lane),) = buyer["store"].lanes(bought.channel)
        assert (bought.state, lane.used) == ("open", connection.usage)
        async with market.connect(buyer) as again:
            await fetch(again, 1000)
        assert again.meter.deal.channel.id == bought.channel
        assert again.paid == cost_of(100_000, 1000)
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_a_close_that_is_cancelled_twice_lets_go_of_the_lane(market, monkeypatch):
    """By a timeout, and by the end of the program."""

    async def scenario(market):
        await market.serve(give)
        buyer = await market.buyer()
        connection = await market.connect(buyer)
        await fetch(connection, 1000)
        with monkeypatch.context() as patch:
            patch.setattr(connection.meter, "last_words", asyncio.Event().wait)
            patch.setattr(connection.meter, "settled", asyncio.Event().wait)
            closing = asyncio.ensure_future(connection.close())
            for _ in range(2):
                await asyncio.sleep(0)
                closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
        await connection.meter.settled()
        async with market.connect(buyer) as again:
            await fetch(again, 1000)
        assert again.meter.deal.channel.id == connection.meter.deal.channel.id

    market(scenario)


def test_a_close_that_is_cancelled_when_the_server_has_signed_it_gives_the_channel_up(market, monkeypatch):
    """The server takes it no more."""

    async def scenario(market):
        await market.serve(give)
        buyer = await market.buyer()
        connection = await market.connect(buyer)
        await fetch(connection, 1000)
        genuine, signed = ClientMeter.last_words, asyncio.Event()

        async def late(meter):
            assert await genuine(meter) is not None
            signed.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(ClientMeter, "last_words", late)
            closing = asyncio.ensure_future(connection.close())
            await signed.wait()
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
        (bought,) = buyer["store"].bought()
        assert bought.state == "refused"
        async with market.connect(buyer) as again:
            await fetch(again, 1000)
        assert again.meter.deal.channel.id != bought.channel

    market(scenario)


def test_an_answer_that_is_bought_while_the_connection_ends_was_not_declined(market):
    """But what ended the connection is what is wrong."""
    connections = []

    async def sell(connection):
        connections.append(connection)
        async for request in connection.requests():
            with contextlib.suppress(DtpError):
                await request.deliver(b"secret")

    async def scenario(market):
        await market.serve(sell)
        buyer, asked = await market.buyer(), asyncio.Event()

        async def decide(units, amount, locked):
            asked.set()
            return await asyncio.get_running_loop().create_future()

        connection = await market.connect(buyer, on_charge=decide)
        buying = asyncio.ensure_future(connection.buy(await connection.open_stream()))
        await asked.wait()
        connections[0].abort(CloseCode.INTERNAL, "the power is gone", application=False)
        with pytest.raises(ConnectionClosed, match="the power is gone"):
            await buying
        await connection.close()

    market(scenario)


@pytest.mark.parametrize("used", [False, True])
def test_a_server_that_refuses_every_channel_gets_one_deposit_after_another_only_slowly(
    market, monkeypatch, used
):
    """Or whoever dials again and again, as a daemon does, would have all its money in channels."""

    async def refuse(*_):
        raise ConnectionRefused(CloseCode.TICKET, "go away")

    async def scenario(market):
        await market.serve(give)
        buyer = await market.buyer()
        if used:
            async with market.connect(buyer, keep=True) as connection:
                await fetch(connection, 1000)
        monkeypatch.setattr(dial._PaidDialer, "_dial", refuse)
        known = []
        for hours in (0, 0, 0, 1, 0):
            clock = SimpleNamespace(time=lambda hours=hours: time.time() + hours * 3600)
            monkeypatch.setattr(buying, "time", clock)
            with pytest.raises(ConnectionRefused, match="go away"):
                await market.connect(buyer, budget=1_000_000)
            known.append(sorted(each.state for each in buyer["store"].bought()))
        first = ["open", "refused"] if used else ["open"]
        second = sorted([*first, "refused"])
        assert known == [first, first, first, second, second]

    market(scenario)


def test_a_server_that_lets_each_channel_in_once_gets_one_deposit_after_another_only_slowly(
    market, monkeypatch
):
    async def refuse(*_):
        raise ConnectionRefused(CloseCode.TICKET, "go away")

    async def scenario(market):
        await market.serve(give)
        buyer, known = await market.buyer(), []
        for hours in (0, 0, 0, 1):
            clock = SimpleNamespace(time=lambda hours=hours: time.time() + hours * 3600)
            monkeypatch.setattr(buying, "time", clock)
            async with market.connect(buyer, budget=1_000_000, keep=True) as connection:
                await fetch(connection, 100)
            with monkeypatch.context() as patch:
                patch.setattr(dial._PaidDialer, "_dial", refuse)
                with pytest.raises(ConnectionRefused, match="go away"):
                    await market.connect(buyer, budget=1_000_000, keep=True)
            known.append(sorted(each.state for each in buyer["store"].bought()))
        twice = ["open", "refused"]
        assert known == [twice, twice, twice, ["open", "refused", "refused"]]

    market(scenario)
