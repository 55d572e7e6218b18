"""A client that dies while it opens something: what it has paid for is found again."""

import pytest

from dtp.chain.errors import InsufficientFunds, NodeUnavailable, OutcomeUnknown, TransactionFailed
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


def test_a_key_whose_transaction_was_never_sent_is_forgotten(market):
    """Or whoever tries again and again, with an empty wallet, would fill the disk with keys."""

    async def scenario(market):
        await market.serve(give)
        buyer = await market.buyer()
        for budget in (10**18, 10**15):
            with pytest.raises(InsufficientFunds):
                await market.connect(buyer, budget=budget)
        assert buyer["store"].kept_keys() == {}
        async with market.connect(buyer, keep=True):
            chain = buyer["network"]
            with pytest.MonkeyPatch.context() as patch:
                for fault, kept in (
                    (NodeUnavailable("no node"), 0),
                    (TransactionFailed("no", kind="MOVE_ABORT"), 0),
                    (OutcomeUnknown("lost", digest="d", transaction=b"t", signatures=()), 1),
                ):
                    patch.setattr(chain, "execute", failing(fault))
                    with pytest.raises(type(fault)):
                        await market.connect(buyer, keep=True)
                    assert len(buyer["store"].kept_keys()) == kept

    market(scenario)


def failing(fault):
    async def fail(*_, **__):
        raise fault

    return fail


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
