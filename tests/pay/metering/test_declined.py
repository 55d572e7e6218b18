"""A charge that a client declines: both ends are told why, by a name of their own."""

from __future__ import annotations

from typing import Any

import pytest

from dtp.pay.errors import ChargeDeclined

from ..conftest import Market, Play


@pytest.mark.parametrize("options", [{}, {"on_charge": lambda *_: False}], ids=["unasked", "asked"])
def test_a_client_is_told_what_it_declined(market: Play, options: Any) -> None:
    """It was told that the peer had closed the connection, since "the client" had declined."""

    async def answer(connection: Any) -> None:
        async for request in connection.requests():
            await request.charge(3)

    async def scenario(market: Market) -> None:
        await market.serve(answer)
        buyer = await market.buyer()
        async with market.connect(buyer, **options) as connection:
            stream = await connection.open_stream()
            stream.write(b"a")
            with pytest.raises(ChargeDeclined, match=r"asked for 0\.000003 SUI \(3 requests\).*`on_charge`"):
                await stream.read()

    market(scenario)
