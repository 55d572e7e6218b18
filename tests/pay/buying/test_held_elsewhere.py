"""A channel of ours that another process of the server has, where our connection to that goes on or waits in vain."""

from __future__ import annotations

from typing import Any

from dtp.pay.client.lane_lock import LaneLock
from dtp.pay.dial import PaidDialer
from dtp.pay.store.holding import Holds
from dtp.session.codes import ConnectionRefused

from ..conftest import Market, Play
from .test_paid import fetch, give


class SoonDialer(PaidDialer):
    """A dialer that waits for nobody."""

    held = (0.0, 0.0)


async def used_elsewhere(market: Market) -> Any:
    """Serve, and have another process serve our only channel, which a connection of ours uses: both locks, its id."""
    serving = await market.serve(give)
    buyer = await market.buyer()
    async with market.connect(buyer, keep=True) as connection:
        await fetch(connection, 10)
    await serving.ledger.wait_settled()
    (bought,) = buyer["store"].bought_channels()
    held, lane = Holds(serving.store.path), LaneLock(buyer["store"].path, bought.channel, 0)
    assert held.hold_channel(bought.channel)
    assert lane.try_acquire()
    return buyer, held, lane, bought.channel


async def paid_from(market: Market, buyer: Any, make_dialer: Any = SoonDialer) -> Any:
    async with market.connect(buyer, keep=True, make_dialer=make_dialer) as connection:
        assert await fetch(connection, 1000) == 1000
    return connection.meter.purchase.channel.id


def test_another_channel_is_paid_from_while_a_process_keeps_ours(market: Play) -> None:
    """As behind an upgrade with a stream in the old process: new connections were refused until it ended."""

    async def scenario(market: Market) -> None:
        buyer, held, lane, channel = await used_elsewhere(market)
        (first, second) = [await paid_from(market, buyer) for _ in range(2)]
        assert channel != first == second
        assert [each.state for each in buyer["store"].bought_channels()] == ["open"] * 2
        held.close()
        lane.release()
        assert await paid_from(market, buyer) == channel

    market(scenario)


def test_a_channel_is_waited_for_that_a_process_gives_up(market: Play) -> None:
    """As one that was killed, with vouchers on a Redis server, though our connection to it waits yet."""

    async def scenario(market: Market) -> None:
        buyer, held, _, channel = await used_elsewhere(market)
        refusals = []

        class Dialer(SoonDialer):
            async def begin(self, *args: Any, **options: Any) -> None:
                try:
                    await super().begin(*args, **options)
                except ConnectionRefused as refused:
                    refusals.append(refused)
                    held.close()
                    raise

        assert await paid_from(market, buyer, Dialer) == channel
        assert len(refusals) == 1

    market(scenario)
