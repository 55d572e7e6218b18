"""Paid connections that break off at their beginning or at their end: nothing of them stays behind."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from dtp.pay import buying, dial
from dtp.pay.client_meter import ClientMeter
from dtp.pay.errors import StoreError
from dtp.pay.store import Store
from dtp.session.codes import CloseCode, ConnectionRefused

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
