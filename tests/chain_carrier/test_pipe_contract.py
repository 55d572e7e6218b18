"""Pipes keep the carriers' contract: the same check as for TCP."""

import pytest
from chain_resolver.hosts import run

from chain_carrier.worlds import world
from dtp.testing.carriers import check_carrier


@pytest.mark.slow
@pytest.mark.parametrize("window", [0, 2], ids=["no window", "a window of two frames"])
def test_pipes(client, wallet, window):
    async def scenario():
        async with world(client, wallet, window=window, timing={"dial": 1.5}) as made:
            await check_carrier(made.kind, made.url, transfer=400_000, patience=60)

    run(scenario())
