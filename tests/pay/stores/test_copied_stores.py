"""Two machines of one client with a copy of one store each, both paying: rows of the table in `docs/paying.md`."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import replace
from typing import Any

import pytest

from dtp.pay.serving import Selling
from dtp.pay.store import Store
from dtp.pay.terms import MIB, Exposure, Spending, Usage
from dtp.session.codes import CloseCode, ConnectionClosed
from dtp.session.limits import DEFAULT

from ..buying.test_paid import PRICES, fetch, give
from ..clients import pay_and_break_off
from ..conftest import CHEAP, PATIENCE, Market, Play

SIZE = 300_000
EXPOSURE = Exposure(patience=PATIENCE).at_prices(PRICES)
#: What a server lets be unpaid of a lane's bytes and requests, however much that has paid.
NO_MORE_TRUST = replace(EXPOSURE, most_bytes=EXPOSURE.first_bytes, most_requests=EXPOSURE.first_requests)
#: Of a client that waits for the agreed end however long a busy machine takes for it.
PATIENT = {"limits": replace(DEFAULT, handshake=2 * PATIENCE), "spending": Spending(patience=PATIENCE)}


def copy_of(market: Market, buyer: Any) -> Any:
    """The same client on another machine: its wallet, and what is in its store, by a way that leaves no mark."""
    path = market.tmp_path / "copied.sqlite"
    whole = sqlite3.connect(buyer["store"].path)
    with contextlib.closing(whole), contextlib.closing(sqlite3.connect(path)) as copy:
        whole.backup(copy)
    path.chmod(0o600)
    return {**buyer, "store": market.stack.enter_context(Store(path))}


class Taken:
    """What came to a client and what it sent, whatever became of the connections."""

    def __init__(self) -> None:
        self.requests = self.bytes = 0

    @property
    def cost(self) -> Any:
        return PRICES.cost_of(Usage(self.requests, self.bytes))

    async def begin(self, connection: Any) -> Any:
        """Ask for an answer."""
        stream = await connection.open_stream()
        words = b"%d\n" % SIZE
        stream.write(words)
        self.requests += 1
        self.bytes += len(words)
        return stream

    async def read(self, stream: Any, size: Any = SIZE) -> None:
        """Read so much of an answer."""
        while size and (data := await stream.read(min(size, 64 * 1024))):
            self.bytes += len(data)
            size -= len(data)

    async def take(self, connection: Any) -> None:
        await self.read(await self.begin(connection))


async def first_purchase(market: Market, taken: Any, **options: Any) -> Any:
    """A channel that was opened, used and kept on one machine, and its store's copy."""
    await market.serve(give, **options)
    buyer = await market.buyer()
    async with market.connect(buyer, keep=True) as connection:
        await taken.take(connection)
    await market.serving.ledger.wait_settled()
    return buyer, copy_of(market, buyer)


def vouched(market: Market, *buyers: Any) -> Any:
    """What the server holds vouchers for, of all channels of these stores."""
    channels = {each.channel for buyer in buyers for each in buyer["store"].bought_channels()}
    return sum(sum(market.serving.store.vouched_sums(channel).values()) for channel in channels)


def test_copies_that_pay_one_after_the_other_pay_for_what_came(market: Play) -> None:
    """Each goes on from the newest voucher that the server shows, whoever has signed it."""

    async def scenario(market: Market) -> None:
        taken = Taken()
        buyers = await first_purchase(market, taken)
        for buyer in (*buyers, *buyers):
            async with market.connect(buyer, keep=True) as connection:
                await taken.take(connection)
            await market.serving.ledger.wait_settled()
        assert [len(each["store"].bought_channels()) for each in buyers] == [1, 1]
        assert vouched(market, *buyers) == taken.cost

    market(scenario)


async def cut_off(connection: Any) -> None:
    """Wait until the connection is gone: the other machine has its lane."""
    await connection.wait_gone()
    with pytest.raises(ConnectionClosed) as cut:
        await connection.open_stream()
    assert cut.value.close_code == CloseCode.SHUTDOWN
    await connection.close()


def test_copies_that_pay_at_once_take_one_exposure(market: Play, bound: Any) -> None:
    """Each time one comes while the other is in the midst of an answer, and ends it: the server has all vouchers."""

    async def scenario(market: Market) -> None:
        taken = Taken()
        selling = Selling(exposure=NO_MORE_TRUST, policy=CHEAP, recheck=3600, claim_every=3600)
        first, second = await first_purchase(market, taken, selling=selling)
        older = await market.connect(first, keep=True)
        for buyer in (second, first, second, first):
            stream = await taken.begin(older)
            await taken.read(stream, SIZE // 3)
            newer = await market.connect(buyer, keep=True)
            await taken.take(newer)
            await cut_off(older)
            older = newer
        # What one closes, the other one uses: it ends with what was vouched on both, and the other one opens another.
        closing = await market.connect(second, keep=False, **PATIENT)
        await taken.take(closing)
        await cut_off(older)
        await closing.close()
        assert taken.cost - vouched(market, first, second) <= bound
        # What was under way when one was cut off came to nobody, and the server counts it: then it signs no close.
        closed, is_agreed = closing.meter.purchase.closing.closed, closing.meter.payer.agrees_on_counts
        assert (closed is not None) == is_agreed
        if closed is not None:
            assert closed.to_server == vouched(market, first, second)
            assert closed.to_server + closed.to_client == 500_000_000
        async with market.connect(first) as again:
            assert again.meter.purchase.channel.id != closing.meter.purchase.channel.id
            assert await fetch(again, SIZE) == SIZE

    market(scenario)


def test_a_server_that_counts_more_to_each_copy_is_paid_a_step_by_each(market: Play, bound: Any) -> None:
    """What is believed of it over all breaks of a lane is noted in the store: each copy has a note of its own."""

    async def scenario(market: Market) -> None:
        taken = Taken()
        buyers = await first_purchase(market, taken)
        ((channel, number),) = {(each.channel, 0) for each in buyers[0]["store"].bought_channels()}
        for buyer in buyers * 3:
            lane = market.serving.store.sold_lane(channel, number)
            market.serving.store.save_served(channel, number, lane.used.plus(2, MIB // 8))
            connection = await market.connect(buyer, keep=True)
            await pay_and_break_off(connection)
            await connection.close()
            await market.serving.ledger.wait_settled()
        assert bound // 2 < vouched(market, *buyers) - taken.cost <= bound

    market(scenario)
