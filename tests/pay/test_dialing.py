"""Paid connections that break off at their beginning or at their end: nothing of them stays behind."""

import asyncio

import pytest

from dtp.pay import dial
from dtp.pay.client_meter import ClientMeter
from dtp.pay.errors import StoreError
from dtp.pay.store import Store

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
