"""What stays in the wallet for closing a channel: as much as its transactions have to have ahead."""

from __future__ import annotations

from typing import Any

import pytest

from dtp.chain import Program
from dtp.chain import channel as module
from dtp.chain.channel import Channel
from dtp.chain.node.gas import GasAllowance
from dtp.pay import settling
from dtp.pay.voucher import LaneKey

from ..conftest import TERMS, Play


@pytest.mark.parametrize("lanes", [1, 16])
def test_asking_and_finalizing_fit_what_is_kept_for_them(market: Play, lanes: Any) -> None:
    """It was 0.02 SUI for each channel, which only one of sixteen lanes takes ahead."""
    ahead = []

    class Purse(GasAllowance):
        def sign(self, budget: int) -> None:
            ahead.append(max(0, self.spent) + budget)
            super().sign(budget)

    async def idle(connection: Any) -> None:
        await connection.accept_stream()

    async def scenario(made: Any) -> None:
        await made.serve(idle)
        buyer = await made.buyer()
        await (await made.connect(buyer, keep=True)).close()
        chain, (ours,) = buyer["network"], buyer["store"].bought_channels()
        for _ in range(lanes - 1):
            program = Program()
            module.add_lane(program, ours.channel, LaneKey.generate().public, coin=ours.coin)
            await chain.execute(program)
        paying = chain.paying_from(Purse())
        await settling.request_close(paying, await chain.read(module.SCHEMA, Channel, ours.channel))
        made.chain.advance(TERMS.claim_ms + 1000)
        await settling.finalize(paying, await chain.read(module.SCHEMA, Channel, ours.channel))
        kept = settling.gas_to_close(lanes)
        assert kept * 3 // 4 < max(ahead) <= kept

    market(scenario)
