"""Turns of the loop by processor time: what costs much is done over turns, and who asks for little is served first.

The clock is the test's: a callback that works says how long it took (`FakeClockLoop.work`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from echo_service import echo, on_fake_clock, roundtrip
from test_heavy_turns import TALKATIVE, until
from test_intake import Turns

import dtp
from dtp.identity import Identity
from dtp.net.turns.budget import SHARE, STEP_FRAMES, TURN, StreamBudget, TurnBudget
from dtp.net.turns.clock import LONG, TurnClock
from dtp.net.turns.steps import Charged, Steps
from dtp.net.watch import ByteWatch
from dtp.session.limits import DEFAULT, MIB
from dtp.testing.clock import FakeClockLoop
from dtp.testing.pairs import BOB

CROWD = 8
#: Frames that each of the crowd sends at once, and what one costs here, seconds.
FRAMES, DEAR = 20, 0.0001


def running_loop() -> FakeClockLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FakeClockLoop)
    return loop


class TurnTimes(Turns):
    """How much processor time each turn has taken."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self._began = running_loop().processor_time()
        super().__init__()

    def _next(self) -> None:
        now = running_loop().processor_time()
        self.taken.append(now - self._began)
        self._began = now
        super()._next()


@on_fake_clock
async def test_a_turn_is_busy_once_it_has_taken_long_and_not_for_ever() -> None:
    loop = running_loop()
    clock = TurnClock.of_loop(loop)
    called: list[str] = []
    clock.call_at_end(lambda: called.append("end"))
    assert clock.has_time
    assert clock.spent == 0
    loop.work(LONG)
    assert not clock.has_time
    assert clock.spent == pytest.approx(LONG)
    await until(lambda: called)
    assert clock.busy
    assert clock.has_time  # the next one
    await asyncio.sleep(0.01)
    assert not clock.busy


@on_fake_clock
async def test_the_processor_time_is_read_where_that_much_time_has_passed_at_all() -> None:
    clock = TurnClock.of_loop(running_loop())
    used, passed, reads = 0.0, 0.0, list[float]()

    def read() -> float:
        reads.append(used)
        return used

    clock.read, clock.passed = read, lambda: passed
    clock.call_at_end(lambda: None)
    reads.clear()
    passed = LONG / 2
    assert clock.has_time
    assert not reads
    passed = LONG
    used = LONG / 2
    assert clock.has_time  # others had the processor for the rest
    passed = 1.4 * LONG
    assert clock.has_time
    assert len(reads) == 1
    passed, used = 1.5 * LONG, LONG
    assert not clock.has_time


@on_fake_clock
async def test_long_turns_are_noticed_though_nobody_asks_for_their_end() -> None:
    loop = running_loop()
    clock = TurnClock.of_loop(loop)
    for _ in range(200):
        clock.note_read()
        loop.work(LONG)
        await asyncio.sleep(0)
        if clock.busy:
            return
    raise AssertionError("nobody noticed")


@on_fake_clock
async def test_one_call_that_raises_keeps_none_of_the_others_from_theirs() -> None:
    loop = running_loop()
    clock, called, told = TurnClock.of_loop(loop), list[str](), list[object]()
    loop.set_exception_handler(lambda _loop, context: told.append(context.get("exception")))

    def fail() -> None:
        raise ValueError("a bug")

    for call in (lambda: called.append("first"), fail, lambda: called.append("last")):
        clock.call_at_end(call)
    await until(lambda: len(called) == 2)
    assert called == ["first", "last"]
    assert [type(each) for each in told] == [ValueError]


@on_fake_clock
async def test_dear_steps_are_done_one_in_a_turn_and_cheap_ones_of_others_before() -> None:
    loop = running_loop()
    clock = TurnClock.of_loop(loop)
    budget, order, turns = TurnBudget(16, each=1, keep=0), list[tuple[int, str]](), Turns()

    def step(name: str, cost: float) -> bool:
        loop.work(cost)
        order.append((turns.now, name))
        return name == "flood"

    account = clock.shares.get_account
    budget.wait_turn(lambda: step("flood", 2 * LONG), account("192.0.2.1", "flood"))
    await until(lambda: len(order) >= 3)
    budget.wait_turn(lambda: step("visitor", LONG / 100), account("192.0.2.1", "visitor"))
    began = len(order)
    await until(lambda: len(order) >= began + 4)
    turns.running = False
    assert order[began][1] == "visitor"
    flood = Counter(turn for turn, name in order if name == "flood")
    assert set(flood.values()) == {1}


@on_fake_clock
async def test_a_stream_of_who_has_had_more_waits_in_a_long_turn() -> None:
    loop = running_loop()
    clock = TurnClock.of_loop(loop)
    streams = StreamBudget()
    greedy, visitor = clock.shares.get_account("192.0.2.1"), clock.shares.get_account("198.51.100.1")
    greedy.charge_seconds(0.05)
    assert streams.has_room(greedy)
    loop.work(LONG)
    await until(lambda: clock.busy)
    loop.work(LONG)
    assert not streams.has_room(greedy)
    assert streams.has_room(visitor)


@on_fake_clock
async def test_steps_of_a_task_are_charged_while_turns_are_long() -> None:
    loop = running_loop()
    clock = TurnClock.of_loop(loop)
    account = clock.shares.get_account("", "someone")

    async def work() -> str:
        for _ in range(3):
            loop.work(LONG)
            await asyncio.sleep(0)
        return "done"

    assert await asyncio.create_task(Charged(work(), Steps(clock), account)) == "done"
    assert not account.is_ahead()  # turns were short, for all that is known
    clock.call_at_end(lambda: None)
    loop.work(LONG)
    await until(lambda: clock.busy)
    assert await asyncio.create_task(Charged(work(), Steps(clock), account)) == "done"
    assert account.is_ahead(2.9 * LONG)
    assert not account.is_ahead(3.1 * LONG)

    async def wait() -> None:
        await asyncio.sleep(1e6)

    task = asyncio.create_task(Charged(wait(), Steps(clock), account))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class Dear:
    """A listener for whom each metering frame is much work, as a handler of a program might make it."""

    def __init__(self) -> None:
        self.count = 0

    def _on_meter(self, data: bytes) -> None:
        self.count += 1
        running_loop().work(DEAR)

    async def serve(self, connection: dtp.Connection) -> None:
        connection.take_meter(self._on_meter)
        await echo(connection)

    @contextlib.asynccontextmanager
    async def crowd(self) -> AsyncIterator[tuple[list[dtp.Connection], dtp.Connection]]:
        """Many who are connected, and a visitor."""
        async with contextlib.AsyncExitStack() as stack:
            enter = stack.enter_async_context
            listener = await enter(await dtp.listen("memory://x", {"*": self.serve}, identity=BOB))
            found = [
                await enter(
                    dtp.connect(listener.address(), identity=Identity(bytes([number]) * 32), limits=TALKATIVE)
                )
                for number in range(1 + CROWD)
            ]
            for each in found:
                assert await roundtrip(each, b"hi") == b"hi"
            yield found[1:], found[0]


@on_fake_clock
async def test_a_flood_that_costs_much_has_its_turns_one_by_one() -> None:
    """All within the limits of frames, but dear: all at once they would be a turn of 16 ms."""
    dear = Dear()
    async with dear.crowd() as (crowd, visitor):
        stream = await visitor.open_stream()

        async def ask() -> float:
            """Processor time of others until the answer came."""
            began = running_loop().processor_time()
            stream.write(b"?")
            assert await stream.read(1) == b"?"
            return running_loop().processor_time() - began

        await ask()
        for rounds in range(6):
            times = TurnTimes()
            for each in crowd:
                for _ in range(FRAMES):
                    each.send_meter(b"\x91\x01")
            waited = await ask()
            await until(lambda: dear.count == (rounds + 1) * CROWD * FRAMES)  # noqa: B023
            times.running = False
            step = FRAMES * DEAR
            if rounds > 1:  # by now it is known that turns are long
                assert max(times.taken) <= LONG + 2 * step
                assert waited <= 2 * (LONG + 2 * step)
        assert CROWD * FRAMES < TURN


@on_fake_clock
async def test_of_frames_that_are_dear_a_long_turn_takes_few_though_one_peer_sends_many() -> None:
    """As many as a record may have, of one: at once they would be a turn of 25 ms."""
    dear, loop = Dear(), running_loop()
    clock = TurnClock.of_loop(loop)
    async with dear.crowd() as (crowd, visitor):
        stream = await visitor.open_stream()
        clock.call_at_end(lambda: None)
        loop.work(LONG)
        await until(lambda: clock.busy)
        times, began = TurnTimes(), loop.processor_time()
        for _ in range(SHARE):
            crowd[0].send_meter(b"\x91\x01")
        stream.write(b"?")
        assert await stream.read(1) == b"?"
        waited = loop.processor_time() - began
        await until(lambda: dear.count == SHARE)
        times.running = False
        assert max(times.taken) <= LONG + STEP_FRAMES * DEAR
        assert waited <= 2 * (LONG + STEP_FRAMES * DEAR)


@on_fake_clock
async def test_what_is_sent_of_much_has_its_turns_one_by_one() -> None:
    """Those who fetch as much as they can have a part of a turn each: all at once they made turns of 7 ms."""
    loop, waited = running_loop(), list[float]()
    limits = replace(DEFAULT, stream_window=8 * MIB, connection_window=8 * MIB)

    def going(_moved: int, _now: float) -> None:
        loop.work(LONG / 4)  # what it costs here to seal

    async def pour(connection: dtp.Connection) -> None:
        connection.watch = ByteWatch(moved=lambda: None, going=going, along=0)
        async for stream in connection:
            stream.write(bytes(4 * MIB))

    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        listener = await enter(await dtp.listen("memory://x", {"pour": pour, "*": echo}, identity=BOB))
        visitor = await enter(dtp.connect(listener.address("echo"), identity=Identity.generate()))
        stream = await visitor.open_stream()
        for each in [await enter(dtp.connect(listener.address("pour"), limits=limits)) for _ in range(32)]:
            (await each.open_stream()).write(b"go")
        times = TurnTimes()
        for _ in range(20):
            began = loop.processor_time()
            stream.write(b"?")
            assert await stream.read(1) == b"?"
            waited.append(loop.processor_time() - began)
        times.running = False
        assert max(times.taken[10:]) <= 3.01 * LONG  # by then it is known that turns are long
        assert max(waited[5:]) <= 6.01 * LONG  # its own way and back, behind what was begun


def test_charged_work_has_the_name_of_the_work() -> None:
    """Tools that list tasks ask for it."""

    async def work() -> None:
        return None

    loop = FakeClockLoop()
    clock = TurnClock(loop)
    charged = Charged(work(), Steps(clock), clock.shares.get_account("somebody", "somebody"))
    assert charged.__qualname__.endswith("work")
    charged.close()
    loop.close()
