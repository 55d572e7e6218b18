"""Programs of one wallet that close channels at the same time, as `dtp channel close` does."""

from __future__ import annotations

import asyncio
from typing import Any

from dtp.chain import channel as channel_module
from dtp.chain.channel import Channel, ChannelState
from dtp.pay.client.ends import close_further
from dtp.pay.store import Store

from ..conftest import Market, Play
from ..dishonest.test_dishonesty import open_many
from .test_paid import give

PROGRAMS = 6


def test_channels_that_are_closed_at_once_are_closed_in_turn(market: Play) -> None:
    """Of six programs one or two ended with `stale-object`: each paid its gas by the same coin."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        ids, _ = await open_many(market, buyer["network"], PROGRAMS)
        path = buyer["store"].path

        async def program(id: Any) -> Any:
            chain = await market.client(buyer["wallet"])
            with Store(path) as store:
                found = await chain.read(channel_module.SCHEMA, Channel, id)
                return await close_further(chain, store, found, market.chain.now_ms(), ask=True)

        steps = await asyncio.gather(*map(program, ids))
        assert [each.event for each in steps] == ["closing"] * PROGRAMS
        assert len({each.digest for each in steps}) == PROGRAMS
        for id in ids:
            found = await buyer["network"].read(channel_module.SCHEMA, Channel, id)
            assert found.state == ChannelState.CLOSING
        assert {each.state for each in buyer["store"].bought_channels()} == {"closing"}

    market(scenario)
