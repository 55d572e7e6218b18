"""A carrier that can't leave its process: its bytes go over a socket pair, and who doesn't read stops the sender."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from typing import Any

import pytest

from dtp.carriers import memory
from dtp.carriers.memory import MemoryCarrier
from dtp.daemon.workers.handover import CarrierBridge
from dtp.net.driver import LinkDriver
from dtp.net.held import HeldBudget
from dtp.testing.carrier_ends import CarrierEnd

from ..conftest import PATIENCE
from .test_daemon_relay import until

#: More than all buffers on the way have room for.
DATA = random.Random(6).randbytes(8 << 20)
#: Turns of the loop in which nothing moves any more.
STILL = 200


def bridged(budget: HeldBudget[Any] | None = None) -> tuple[MemoryCarrier, CarrierEnd, socket.socket]:
    """The far end of a carrier, and the socket to the other process."""
    near, far = memory.pair()
    driver = LinkDriver(asyncio.get_running_loop(), near, None, lambda *_: None, lambda *_: None)
    sock, there = socket.socketpair()
    CarrierBridge(driver, sock, budget)
    near.start(driver)
    there.setblocking(False)
    return near, CarrierEnd(far).start(), there


async def stands_still(amount: Callable[..., Any]) -> int:
    """Wait until an amount changes no more; what it is."""
    last, turns = amount(), 0
    while turns < STILL:
        await asyncio.sleep(0)
        last, turns = amount(), turns + 1 if amount() == last else 0
    found: int = last
    return found


def test_a_process_that_reads_nothing_stops_the_peer() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        near, far, there = bridged()
        sending = asyncio.ensure_future(far.send_all(DATA))
        await until(lambda: near.paused)
        for _ in range(STILL):
            await asyncio.sleep(0)
        assert near.paused
        assert not sending.done()
        got = bytearray()
        while len(got) < len(DATA):
            got += await loop.sock_recv(there, 65536)
        await sending
        assert got == DATA
        assert not near.paused
        far.abort()
        there.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_a_peer_that_reads_nothing_stops_the_process() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        _, far, there = bridged()
        far.carrier.pause_reading()
        sent = 0

        async def send() -> None:
            nonlocal sent
            while sent < len(DATA):
                await loop.sock_sendall(there, DATA[sent : sent + 65536])
                sent += 65536

        sending = asyncio.ensure_future(send())
        assert 0 < await stands_still(lambda: sent) < len(DATA) // 2
        far.carrier.resume_reading()
        await far.until_received(DATA)
        await sending
        far.abort()
        there.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_what_waits_for_the_process_counts_until_it_is_read() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        budget: HeldBudget[Any] = HeldBudget(1 << 40, lambda *_: None)
        near, far, there = bridged(budget)
        sending = asyncio.ensure_future(far.send_all(DATA))
        await until(lambda: near.paused)
        assert budget.total > 0
        read = 0
        while read < len(DATA):
            read += len(await loop.sock_recv(there, 65536))
        await sending
        await until(lambda: budget.total == 0)
        far.abort()
        there.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_who_keeps_too_much_is_cut_off() -> None:
    async def scenario() -> None:
        def end(bridge: CarrierBridge, size: int) -> None:
            asyncio.get_running_loop().call_soon(bridge.abort, 4, f"{size} bytes")

        budget = HeldBudget(32 << 10, end)
        _, far, there = bridged(budget)
        sending = asyncio.ensure_future(far.send_all(DATA))
        await far.until_lost()
        sending.cancel()
        await until(lambda: budget.total == 0)
        there.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


@pytest.mark.parametrize("which", ["peer", "process"])
def test_the_end_of_one_is_the_end_of_the_other(which: str) -> None:
    async def scenario() -> None:
        _, far, there = bridged()
        if which == "peer":
            far.abort()
            assert await asyncio.get_running_loop().sock_recv(there, 1) == b""
        else:
            there.send(b"last words")
            there.close()
            await far.until_received(b"last words")
            assert await far.until_lost() is None
        there.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))
