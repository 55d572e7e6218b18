"""Connections of one program that pay for one service, through the chain itself, over a channel that is kept."""

from __future__ import annotations

from typing import Any

import pytest

from dtp.chain.pipes.where import ChannelInUse
from dtp.net.address import Address
from dtp.session.limits import Limits

from ..conftest import Market, Play
from .test_paid import fetch, give


def test_pipes_of_a_channel_that_is_kept_are_one_connection_s_at_a_time(market: Play) -> None:
    """Each has a client of its own, unless it is given one; when one has ended its pipes are the next one's."""

    async def scenario(market: Market) -> None:
        limits = Limits(handshake=60)
        await market.serve(give, pipe=True, limits=limits)
        buyer = await market.buyer()
        address = Address.parse(f"{market.serving.address}?via=pipe")

        async def connect() -> Any:
            own = {**buyer, "network": await market.client(buyer["wallet"])}
            return await market.connect(own, address=address, limits=limits, keep=True)

        for _ in range(2):
            async with await connect() as connection:
                assert await fetch(connection, 20_000) == 20_000
                with pytest.raises(ChannelInUse, match="another connection of this program"):
                    await connect()
        (channel,) = await market.channels(buyer)
        assert channel.state == 0

    market(scenario)
