"""A client that dies while it opens something: what it has paid for is found again."""

import pytest

from dtp.pay.errors import StoreError
from dtp.pay.lost import find_lost
from dtp.pay.store import Store

from .test_paid import fetch, give


def died(*_):
    raise StoreError("died here")


def test_a_channel_that_was_opened_and_not_noted_is_found_and_used(market, monkeypatch):
    async def scenario(market):
        await market.serve(give)
        buyer = await market.buyer()
        with monkeypatch.context() as patch:
            patch.setattr(Store, "add_bought", died)
            with pytest.raises(StoreError, match="died here"):
                await market.connect(buyer)
        assert buyer["store"].bought() == []
        (found,) = await find_lost(buyer["network"], buyer["store"])
        assert (found.client, found.deposited) == (buyer["network"].address, 500_000_000)
        assert await find_lost(buyer["network"], buyer["store"]) == []
        async with market.connect(buyer) as connection:
            assert await fetch(connection, 1000) == 1000
            assert connection.meter.deal.channel.id == found.id
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_a_lane_that_was_added_and_not_noted_is_found(market, monkeypatch):
    async def scenario(market):
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, keep=True) as first:
            with monkeypatch.context() as patch:
                patch.setattr(Store, "add_lane", died)
                with pytest.raises(StoreError, match="died here"):
                    await market.connect(buyer, keep=True)
            id = first.meter.deal.channel.id
            assert len(buyer["store"].lanes(id)) == 1
            (found,) = await find_lost(buyer["network"], buyer["store"])
            assert found.id == id
            assert [lane.lane for _, lane in buyer["store"].lanes(id)] == [0, 1]
            async with market.connect(buyer, keep=True) as second:
                assert second.meter.payer.lane.lane == 1

    market(scenario)


def test_keys_of_what_was_never_opened_find_nothing(market):
    async def scenario(market):
        from .meters import KEY

        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, keep=True) as connection:
            await fetch(connection, 10)
        buyer["store"].keep_key(KEY, 1)
        assert await find_lost(buyer["network"], buyer["store"]) == []
        assert set(buyer["store"].kept_keys()) == {KEY.public}

    market(scenario)
