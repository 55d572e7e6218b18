"""Keys of sealed shows over paid connections: each key costs a request, and who stops paying hears no more."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest
from chain_resolver.hosts import run
from shows import all_of, hear, produce, until

import dtp
from dtp.broadcast import frames
from dtp.broadcast import messages as m
from dtp.broadcast.errors import BroadcastError, KeysTooFast, SegmentError, ShowSealed
from dtp.broadcast.money.key_sale import selling_keys
from dtp.broadcast.sealed.admission import Guests, Refusal
from dtp.identity import Identity
from dtp.pay.errors import BudgetSpent, PriceTooHigh
from dtp.pay.store import Store

pytestmark = pytest.mark.slow
PRICE = 1_000_000
INVITED = Identity(bytes([7]) * 32)


@pytest.fixture
def sale(client, wallet, tmp_path):
    """A sealed show on air, whose keys are sold; gives it, the sale, and what makes listeners that pay."""

    @asynccontextmanager
    async def begin(guests=(), price=PRICE):
        async with AsyncExitStack() as stack, produce(admission=Guests(guests)) as on_air:
            chain = await stack.enter_async_context(client(seller := wallet()))

            async def payer(budget, key_lasts=3600.0, **options):
                account = wallet()
                paying = await stack.enter_async_context(client(account))
                store = stack.enter_context(Store(tmp_path / f"{account.address}.sqlite"))
                options |= {"wallet": account, "network": paying, "store": store, "budget": budget}
                return hear(
                    *on_air.addresses, buy=partial(dtp.connect, **options), key_lasts=key_lasts, back_ms=10**6
                ), store

            options = {"wallet": seller, "network": chain, "store": tmp_path / "seller.sqlite"}
            async with selling_keys(on_air, price, **options) as serving:
                yield on_air, serving, payer

    return begin


async def write(on_air, *bodies):
    """Send each body under a key of its own."""
    for each in bodies:
        await on_air.rotate_key()
        await on_air.write(each)


def words(heard):
    return [data for _, data in heard if data]


def test_each_key_costs_a_request_and_the_channel_is_closed_at_the_end(sale):
    async def work():
        async with sale() as (on_air, _, payer):
            await write(on_air, b"one", b"two", b"three")
            await on_air.end()
            stream, store = await payer(100 * PRICE)
            assert words(await all_of(stream)) == [b"one", b"two", b"three"]
            (channel,) = store.bought_channels()
            (lane,) = store.payer_lanes(channel.channel)
            assert (channel.state, lane[1].most_signed) == ("closed", 3 * PRICE)

    run(work())


def test_whose_budget_is_spent_hears_no_more_and_resumes_with_another_one(sale):
    async def work():
        async with sale() as (on_air, _, payer):
            await write(on_air, b"one", b"two", b"three")
            heard = []
            stream, _ = await payer(2 * PRICE)
            with pytest.raises(BudgetSpent):
                await all_of(stream, heard)
            assert words(heard) == [b"one", b"two"]
            await on_air.end()
            stream, _ = await payer(10 * PRICE)
            assert words(await all_of(stream)) == [b"one", b"two", b"three"]

    run(work())


def test_who_says_that_keys_need_not_last_buys_as_many_as_there_are(sale):
    async def work():
        async with sale() as (on_air, _, payer):
            await write(on_air, *(b"%d" % each for each in range(8)))
            stream, _ = await payer(100 * PRICE, key_lasts=0.0)
            heard = []
            task = asyncio.create_task(all_of(stream, heard))
            for each in range(8, 10):
                await until(lambda each=each: task.done() or len(words(heard)) >= each)
                await write(on_air, b"%d" % each)
            await on_air.end()
            await task
            assert len(words(heard)) == 10

    run(work())


def test_a_producer_that_changes_its_keys_at_once_sells_eight(sale):
    """Keys are paid one by one, so a budget for an hour would be gone in a second."""

    async def work():
        async with sale() as (on_air, _, payer):
            stream, store = await payer(100 * PRICE)
            heard = []

            await write(on_air, b"0")
            task = asyncio.create_task(all_of(stream, heard))
            for each in range(1, 9):
                await until(lambda each=each: task.done() or len(words(heard)) >= each)
                await write(on_air, b"%d" % each)
            with pytest.raises(KeysTooFast, match="--key-lasts"):
                await task
            assert len(words(heard)) == 8
            (channel,) = store.bought_channels()
            (lane,) = store.payer_lanes(channel.channel)
            assert lane[1].most_signed == 8 * PRICE

    run(work())


def test_nobody_pays_more_than_agreed_and_nobody_without_a_budget(sale):
    async def work():
        async with sale() as (on_air, _, payer):
            await write(on_air, b"one")
            stream, store = await payer(100 * PRICE, most_per_request=PRICE - 1)
            with pytest.raises(PriceTooHigh):
                await all_of(stream)
            assert store.bought_channels() == []
            with pytest.raises(ShowSealed, match="listen with a budget") as caught:
                await all_of(hear(*on_air.addresses, back_ms=10**6))
            assert caught.value.refusal == Refusal.FOR_SALE

    run(work())


def test_who_is_invited_pays_nothing(sale):
    async def work():
        async with sale([INVITED.id]) as (on_air, _, _payer):
            await write(on_air, b"one")
            await on_air.end()

            def buy(address):
                raise AssertionError(address)

            stream = hear(*on_air.addresses, identity=INVITED, buy=buy, back_ms=10**6)
            assert words(await all_of(stream)) == [b"one"]

    run(work())


def test_a_seller_of_wrong_keys_has_one_price_and_no_more(sale, monkeypatch):
    async def work():
        async with sale() as (on_air, _, payer):
            await write(on_air, b"one", b"two")
            monkeypatch.setattr(type(on_air.issuer), "key_of", lambda issuer, epoch: bytes(32))
            stream, store = await payer(100 * PRICE)
            with pytest.raises(SegmentError, match="isn't sealed with the key"):
                await all_of(stream)
            (channel,) = store.bought_channels()
            (lane,) = store.payer_lanes(channel.channel)
            assert lane[1].most_signed == PRICE

    run(work())


def test_a_key_that_is_kept_no_more_is_said(sale):
    async def work():
        async with sale() as (on_air, _, payer):
            await write(on_air, *(b"%d" % each for each in range(10)))
            stream, _ = await payer(100 * PRICE)
            with pytest.raises(ShowSealed, match="begin with what is live"):
                await all_of(stream)

    run(work())


def test_an_open_show_has_no_keys_to_sell(client, wallet):
    async def work():
        async with produce() as on_air:
            with pytest.raises(BroadcastError, match="no keys to sell"):
                async with selling_keys(on_air, PRICE, wallet=wallet()):
                    pass

    run(work())


def test_what_asks_for_no_epoch_gets_nothing(sale, client, wallet, tmp_path):
    async def work():
        async with sale() as (on_air, serving, _payer):
            await write(on_air, b"one")
            options = {"budget": 10 * PRICE, "store": tmp_path / "hostile.sqlite"}
            async with (
                client(account := wallet()) as paying,
                dtp.connect(serving.address, wallet=account, network=paying, **options) as connection,
            ):
                for each in (m.KeyWanted(()), m.RoomReport(())):
                    async with await connection.open_stream() as stream:
                        frames.write(stream, each)
                        with pytest.raises(dtp.StreamReset):
                            await frames.read(stream)

    run(work())
