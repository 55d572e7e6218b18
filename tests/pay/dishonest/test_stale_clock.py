"""The end of the time for claims, on a node whose clock stands still while nobody uses it, and by a clock here that
is ahead of the chain's."""

from __future__ import annotations

from typing import Any

import pytest

from dtp.chain.channel import ChannelState
from dtp.pay.client.ends import close_due, close_further
from dtp.pay.store.journal import Journal

from ..buying.test_paid import give
from ..conftest import TERMS, Market, Play
from .test_disputes import paid_channel, vanish


@pytest.mark.parametrize("passed", [True, False])
def test_a_channel_is_finalized_when_its_time_is_over_by_the_clock_here_and_the_chain_agrees(
    market: Play, passed: Any
) -> None:
    """'dtp channel close' read the time of the newest checkpoint, which nobody made."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, channel = await paid_channel(market)
        await vanish(connection)
        chain, store = buyer["network"], buyer["store"]
        before = market.chain.now_ms()
        step = await close_further(chain, store, channel, before, ask=True)
        assert (step.event, step.seconds) == ("closing", TERMS.claim_ms / 1000)
        (found,) = await market.channels(buyer)
        assert found.state == ChannelState.CLOSING

        def clock() -> float:
            return (found.claims_until_ms + 1) / 1000

        if passed:
            market.chain.advance(TERMS.claim_ms + 1000)
        step = await close_further(chain, store, found, before, ask=False, clock=clock)
        if passed:
            assert step.event == "closed"
            assert step.paid.to_client > 0
            return
        assert step.event == "closing"
        assert 0 < step.seconds <= TERMS.claim_ms / 1000 + 1
        failed = []
        journal = Journal(store)
        note = lambda id, fault: failed.append(fault)  # noqa: E731
        assert await close_due(chain, journal, before, note, clock=clock) == []
        await journal.close()
        assert failed == []

    market(scenario)
