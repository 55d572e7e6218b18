"""Tasks that serve peers in long turns: whose steps wait, in which order they are done, and that none is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import cast

import pytest
from echo_service import on_fake_clock
from test_fair_turns import running_loop
from test_heavy_turns import until
from test_intake import Turns

from dtp.net.turns.clock import LONG, TurnClock
from dtp.net.turns.fair_queue import ProcessorAccount
from dtp.net.turns.steps import Charged, Fitting, Steps

CROWD = 100
#: What one step of the crowd costs, seconds.
DEAR = LONG / 4


async def made_busy(clock: TurnClock) -> None:
    """Have a turn that is long."""
    clock.call_at_end(lambda: None)
    running_loop().work(LONG)
    await until(lambda: clock.busy)


@on_fake_clock
async def test_the_clock_of_a_turn_that_is_long_is_read_no_more() -> None:
    """Each read is a system call, and in a flood some thirty were made for each handshake."""
    loop, reads = running_loop(), 0

    def read() -> float:
        nonlocal reads
        reads += 1
        return loop.processor_time()

    clock = TurnClock(cast(asyncio.AbstractEventLoop, SimpleNamespace(processor_time=read, time=loop.time)))
    clock.call_at_end(lambda: None)
    assert clock.has_time
    loop.work(LONG)
    assert not clock.has_time
    before = reads
    assert not any(clock.has_time for _ in range(9))
    assert reads == before
    await until(lambda: clock.busy)
    assert clock.has_time  # the next turn has


@on_fake_clock
async def test_steps_of_a_crowd_are_done_over_turns_and_a_visitor_s_between() -> None:
    loop = running_loop()
    clock = TurnClock.of_loop(loop)
    steps, turns, order = Steps(clock), Turns(), list[tuple[int, str]]()
    crowd, visitor = clock.shares.get_account("192.0.2.1"), clock.shares.get_account("198.51.100.1")
    await made_busy(clock)

    async def work(name: str, cost: float) -> None:
        for _ in range(3):
            loop.work(cost)
            order.append((turns.now, name))
            await asyncio.sleep(0)

    def start(name: str, cost: float, account: ProcessorAccount) -> asyncio.Task[None]:
        return asyncio.ensure_future(asyncio.create_task(Charged(work(name, cost), steps, account)))

    tasks = [start("crowd", DEAR, crowd) for _ in range(CROWD)]
    await until(lambda: len(order) >= CROWD)
    began = turns.now
    await start("visitor", DEAR / 100, visitor)
    await asyncio.gather(*tasks)
    turns.running = False
    assert Counter(name for _, name in order) == {"crowd": 3 * CROWD, "visitor": 3}
    by_turn = Counter(turn for turn, name in order if name == "crowd" and turn > 2)
    assert max(by_turn.values()) <= 2 * LONG / DEAR
    visits = [turn for turn, name in order if name == "visitor"]
    assert visits[-1] - began <= 4  # a turn for each of its steps, and none behind the crowd


@on_fake_clock
async def test_whoever_waits_alone_is_never_put_off_for_ever() -> None:
    loop = running_loop()
    clock = TurnClock.of_loop(loop)
    steps, account = Steps(clock), clock.shares.get_account("192.0.2.1")
    await made_busy(clock)
    done = 0

    async def work() -> None:
        nonlocal done
        for _ in range(10):
            loop.work(20 * LONG)
            done += 1
            await asyncio.sleep(0)

    await asyncio.gather(*(asyncio.create_task(Charged(work(), steps, account)) for _ in range(3)))
    assert done == 30
    assert not steps


@on_fake_clock
async def test_a_step_that_waits_can_be_cancelled() -> None:
    loop = running_loop()
    clock = TurnClock.of_loop(loop)
    steps, account = Steps(clock), clock.shares.get_account("192.0.2.1")
    await made_busy(clock)
    other = clock.shares.get_account("198.51.100.1")
    told: list[str] = []

    async def work(name: str) -> str:
        try:
            loop.work(LONG)
            await asyncio.sleep(0)
            loop.work(LONG)
            return name
        except asyncio.CancelledError:
            told.append(name)
            raise

    tasks = [asyncio.create_task(Charged(work(str(each)), steps, account)) for each in range(6)]
    keeping = asyncio.create_task(Charged(work("other"), steps, other))
    await until(lambda: len(steps) > 2)
    tasks[-1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[-1]
    assert await asyncio.gather(*tasks[:-1]) == ["0", "1", "2", "3", "4"]
    assert await keeping == "other"
    assert told in ([], ["5"])  # it may not have begun


def test_as_many_fit_as_took_no_longer_than_a_turn() -> None:
    fitting = Fitting(64)
    assert fitting.count_fitting(0, 0.0) == 64
    assert fitting.count_fitting(64, 4 * LONG) == 16
    assert fitting.count_fitting(16, 40 * LONG) == 1
    assert [fitting.count_fitting(1, 0.0) for _ in range(8)] == [2, 4, 8, 16, 32, 64, 64, 64]
    assert fitting.count_fitting(0, 9 * LONG) == 64  # it was others who took so long
