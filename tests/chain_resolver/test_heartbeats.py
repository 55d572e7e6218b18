"""Heartbeats that go on whatever went wrong with one of them."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from dtp.chain.client import ChainClient
from dtp.chain.commands import Program
from dtp.chain.errors import NodeUnavailable
from dtp.chain.heartbeat import Heartbeats
from dtp.errors import LocalError


class Chain:
    """Refuses the first transaction, and counts."""

    def __init__(self) -> None:
        self.tries = 0
        self.third = asyncio.Event()

    async def execute(self, program: Program) -> None:
        self.tries += 1
        if self.tries == 1:
            raise NodeUnavailable("no node")
        if self.tries == 3:
            self.third.set()


def test_a_heartbeat_that_fails_is_not_the_last(caplog: Any) -> None:
    chain, looked = Chain(), [LocalError("the store is away")]

    async def check_apart() -> None:
        if looked:
            raise looked.pop()

    async def scenario() -> None:
        place = ("0x" + "1" * 64, "0x" + "2" * 64, bytes(32))
        beats = Heartbeats(
            cast(ChainClient, chain), *place, lambda error: None, check_apart=check_apart, clock=lambda: 1.0
        )
        task = asyncio.create_task(beats._run(0))
        third = asyncio.create_task(chain.third.wait())
        done, _ = await asyncio.wait((task, third), return_when=asyncio.FIRST_COMPLETED)
        assert done == {third}
        task.cancel()

    asyncio.run(scenario())
    told = [record.getMessage().rsplit(": ", 1)[1] for record in caplog.records]
    assert told == ["the store is away", "no node"]
