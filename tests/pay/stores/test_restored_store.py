"""A server whose store was restored from a backup: closes that it agreed on since are unknown to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dtp.pay.client.lost import count_unknown
from dtp.pay.errors import DayLimit
from dtp.pay.server.gate import AGREEMENT_MS
from dtp.pay.settling import close_agreed
from dtp.pay.store import Store
from dtp.pay.store.journal import Journal
from dtp.pay.terms import MIB, Usage
from dtp.session.codes import CloseCode, CloseDetail, ConnectionRefused

from ..buying.test_limits import COIN
from ..buying.test_paid import cost_of, fetch, give
from ..conftest import Market, Play
from ..dishonest.test_disputes import paid_channel, vanish


async def restore(market: Market, copy: Any) -> None:
    await market.serving.close(claim=False)
    await market.serve(give, store=market.stack.enter_context(Store(copy)))


def test_a_restored_server_serves_no_channel_whose_close_it_may_have_agreed_on(
    market: Play, tmp_path: Path
) -> None:
    """10 million were lost: the client closed by the agreement that the copy didn't have."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, channel = await paid_channel(market)
        copy = tmp_path / "copy.sqlite"
        market.serving.store.backup(copy)
        agreed = await connection.meter.request_agreement()
        await vanish(connection)
        await restore(market, copy)
        assert market.serving.store.end_of(channel.id) is None
        for _ in range(2):  # a server that starts again waits again
            with pytest.raises(ConnectionRefused, match="restored from a backup") as refused:
                await market.connect(buyer, keep=True)
            assert (refused.value.close_code, refused.value.detail) == (
                CloseCode.BUSY,
                CloseDetail.SERVER_RESTORED,
            )
            await restore(market, copy)
        before = await market.balance(market.server_wallet.address)
        await close_agreed(buyer["network"], channel, agreed)
        assert await market.balance(market.server_wallet.address) - before == agreed.total
        # Channels that were opened since are served at once, also by a server that starts once more.
        newcomer = await market.buyer()
        async with market.connect(newcomer, keep=True) as other:
            assert await fetch(other, 1000) == 1000
        await restore(market, copy)
        async with market.connect(newcomer, keep=True) as other:
            assert await fetch(other, 1000) == 1000
        assert len(newcomer["store"].bought_channels()) == 1

    market(scenario)


def test_a_restored_server_serves_all_channels_once_no_agreement_can_be_used(
    market: Play, tmp_path: Path
) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, channel = await paid_channel(market)
        copy = tmp_path / "copy.sqlite"
        market.serving.store.backup(copy)
        await vanish(connection)
        await restore(market, copy)
        market.chain.advance(AGREEMENT_MS + 120_000)
        await market.serving.firewall.refresh()
        async with market.connect(buyer, keep=True) as again:
            assert again.meter.payer.lane.channel == channel.id
            assert await fetch(again, 1000) == 1000
            assert again.paid or await again.meter.pay_rest()
        assert market.serving.store.is_copy()
        await market.serving.close(claim=False)
        assert not market.serving.store.is_copy()

    market(scenario)


def test_a_restored_server_waits_by_its_own_clock(market: Play, tmp_path: Path) -> None:
    """A node that said it was twelve minutes later had it serve what was closed away then."""

    async def scenario(market: Market) -> None:
        seconds = [market.chain.now()]
        clock = {"clock": lambda: seconds[0]}
        await market.serve(give, **clock)
        buyer, connection, channel = await paid_channel(market)
        copy = tmp_path / "copy.sqlite"
        market.serving.store.backup(copy)
        await vanish(connection)
        await market.serving.close(claim=False)
        await market.serve(give, store=market.stack.enter_context(Store(copy)), **clock)
        market.chain.advance(AGREEMENT_MS + 120_000)
        await market.serving.firewall.refresh()
        with pytest.raises(ConnectionRefused, match="restored from a backup"):
            await market.connect(buyer, keep=True)
        seconds[0] += AGREEMENT_MS / 1000 + 120
        async with market.connect(buyer, keep=True) as again:
            assert again.meter.payer.lane.channel == channel.id
            assert await fetch(again, 1000) == 1000

    market(scenario)


def test_a_client_whose_store_is_a_backup_counts_what_it_put_in_since(market: Play, tmp_path: Path) -> None:
    """The limit of a day began anew with each restored copy."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, copy = await market.buyer(), tmp_path / "copy.sqlite"
        sums = {"budget": cost_of(MIB), "most_per_day": cost_of(4 * MIB), "most_per_host": cost_of(9 * MIB)}
        async with market.connect(buyer, keep=True, **sums) as connection:
            await fetch(connection, 1000)
        first = connection.meter.purchase.channel.id
        buyer["store"].backup(copy)
        async with market.connect(buyer, keep=True, **sums) as connection:
            await fetch(connection, MIB - 10_000)
        async with market.connect(buyer, keep=True, **sums) as connection:  # tops it up
            await fetch(connection, 100_000)
            async with market.connect(await market.buyer(), keep=True, **sums) as other:
                await fetch(other, 1000)
        buyer["store"].set_state(first, "refused")
        async with market.connect(buyer, keep=True, **sums) as connection:
            await fetch(connection, 1000)
        chain, store = buyer["network"], buyer["store"]
        place = chain.chain_id, chain.address, COIN
        buyer["store"] = restored = market.stack.enter_context(Store(copy))
        restored.set_state(first, "refused")
        with pytest.raises(DayLimit) as limit:
            await market.connect(buyer, **{**sums, "most_per_day": cost_of(2 * MIB)})
        assert limit.value.locked == restored.deposited_since(*place, 0) == store.deposited_since(*place, 0)
        assert not restored.lacks_deposits(*place[:2])
        async with market.connect(buyer, **sums) as connection:
            await fetch(connection, 1000)

    market(scenario)


@pytest.mark.parametrize("when", ["before", "within"])
def test_a_client_whose_disk_is_set_back_pays_what_it_used_and_no_more(
    market: Play, tmp_path: Path, when: Any
) -> None:
    """A snapshot lacks what was signed since: the server shows it, and no number is used for two sums."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, copy = await market.buyer(), tmp_path / "copy.sqlite"
        async with market.connect(buyer, keep=True) as connection:
            await fetch(connection, 1000)
            if when == "within":
                buyer["store"].backup(copy)
                await fetch(connection, 2 * MIB)
        if when == "before":
            buyer["store"].backup(copy)
            async with market.connect(buyer, keep=True) as connection:
                await fetch(connection, 2 * MIB)
        (sold,) = market.serving.store.sold_lanes()
        assert sold.newest.voucher.amount == cost_of(1000, 2 * MIB)
        buyer["store"] = market.stack.enter_context(Store(copy))
        async with market.connect(buyer) as again:
            assert again.meter.payer.lane.channel == sold.channel
            await fetch(again, MIB)
            # A bill is of what this connection used, as its sum is.
            used = again.usage.above(again.meter.payer.counts.base)
            assert used == Usage(1, MIB + len(b"%d\n" % MIB))
        assert again.meter.purchase.closing.closed.to_server == cost_of(1000, 2 * MIB, MIB)
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_a_client_whose_disk_is_set_back_leaves_a_channel_that_was_claimed_since(
    market: Play, tmp_path: Path
) -> None:
    """What was claimed is above all that it knows of: a node that makes claims up would say the same."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, copy = await market.buyer(), tmp_path / "copy.sqlite"
        async with market.connect(buyer, keep=True) as connection:
            await fetch(connection, 1000)
        buyer["store"].backup(copy)
        async with market.connect(buyer, keep=True) as connection:
            await fetch(connection, 2 * MIB)
        await market.serving.cashier.poll(closing=True)
        (found,) = await market.channels(buyer)
        assert found.claimed == cost_of(1000, 2 * MIB)
        buyer["store"] = market.stack.enter_context(Store(copy))
        async with market.connect(buyer) as again:
            assert again.meter.payer.lane.channel != found.id
            await fetch(again, MIB)
        assert again.meter.purchase.closing.closed.to_server == cost_of(MIB)
        assert [each.state for each in buyer["store"].bought_channels()] == ["refused", "closed"]

    market(scenario)


def test_a_new_store_counts_what_a_lost_one_had_put_in_and_says_so(
    market: Play, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit of a day began anew with each file that was lost, unless somebody ran 'dtp channel find'."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        sums = {"budget": cost_of(MIB), "most_per_day": 2 * cost_of(MIB)}
        for _ in range(2):
            async with market.connect(buyer, keep=True, **sums) as connection:
                await fetch(connection, 1000)
            buyer["store"].set_state(connection.meter.purchase.channel.id, "refused")
        assert "is new" not in caplog.text  # there was nothing to find
        buyer["store"] = new = market.stack.enter_context(Store(tmp_path / "new.sqlite"))
        with pytest.raises(DayLimit, match="dtp channel find"):
            await market.connect(buyer, **sums)
        place = buyer["network"].chain_id, buyer["network"].address
        assert new.deposited_since(*place, COIN, 0) == 2 * cost_of(MIB)
        assert "2 channels of" in caplog.text
        assert "with another store" in caplog.text
        assert not new.lacks_deposits(*place)
        async with market.connect(buyer, **{**sums, "most_per_day": 3 * cost_of(MIB)}) as connection:
            await fetch(connection, 1000)
        assert caplog.text.count("with another store") == 1  # it is read once

    market(scenario)


def test_a_new_store_is_used_though_the_history_is_without_end(
    market: Play, caplog: pytest.LogCaptureFixture
) -> None:
    """A newcomer pays all the same; nobody waits for it twice."""

    async def scenario(market: Market) -> None:
        await market.serve(give)

        async def endless(genuine: Any, *args: Any, **options: Any) -> AsyncIterator[Any]:
            await asyncio.Event().wait()
            yield

        buyer = await market.buyer()
        chain, journal = buyer["network"], Journal(buyer["store"])
        with chain.node.answering(list_events=endless):
            await count_unknown(chain, journal, patience=0.01)
        await journal.close()
        async with market.connect(buyer) as connection:
            await fetch(connection, 1000)
        assert "could not be read" in caplog.text
        assert not buyer["store"].lacks_deposits(buyer["network"].chain_id, buyer["network"].address)

    market(scenario)
