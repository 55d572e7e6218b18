"""Tiny frames in great numbers: read over turns of the loop, whole and in order, and nobody waits behind them."""

from __future__ import annotations

import asyncio

import pytest
from echo_service import echo, roundtrip
from test_intake import Turns, pairs, until

import dtp
from dtp.net.turns.budget import LEAST, SHARE, TURN, FrameBudget
from dtp.session.limits import Limits
from dtp.testing import clock
from dtp.testing.pairs import ALICE, BOB

MANY = 900


def test_a_turn_has_so_many_frames_and_the_rest_waits() -> None:
    async def scenario() -> None:
        budget, turns, order = FrameBudget(), Turns(), []

        def reader(name: str, frames: int) -> None:
            left = [frames]

            def go_on() -> bool:
                share = min(budget.share + 1, left[0])  # a record more
                order.append((turns.now, name, share))
                budget.count_frames(share)
                left[0] -= share
                return left[0] > 0

            budget.wait_turn(go_on)

        for name in "abcd":
            reader(name, SHARE + 100)
        await until(lambda: sum(share for _, _, share in order) == 4 * (SHARE + 100))
        turns.running = False
        by_turn: dict[int, int] = {}
        for turn, _, share in order:
            by_turn[turn] = by_turn.get(turn, 0) + share
        assert max(by_turn.values()) <= TURN + SHARE
        assert [name for _, name, _ in order[:4]] == list("abcd")  # each has its share before any has another

    clock.run(scenario())


def test_whoever_comes_to_a_full_turn_has_a_few_at_once() -> None:
    async def scenario() -> None:
        budget = FrameBudget()
        assert budget.share == SHARE
        budget.count_frames(TURN + 1000)
        assert budget.share == LEAST
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert budget.share == SHARE

    clock.run(scenario())


@pytest.mark.parametrize("chunk", [0, 700])
def test_frames_that_waited_are_all_there_and_in_order(chunk: int) -> None:
    """More streams than a turn reads, each with a little in each flush."""

    async def scenario() -> None:
        async with pairs(1) as [(near, far)]:
            streams = [await near.open_stream() for _ in range(MANY)]
            for round_ in range(5):
                for stream in streams:
                    stream.write(b"%d.%d " % (stream.id, round_))
                await asyncio.sleep(0)
            for stream in streams:
                stream.write_eof()
            for stream in streams:
                there = await far.accept_stream()
                assert there.id == stream.id
                assert await there.read() == b"".join(b"%d.%d " % (stream.id, each) for each in range(5))

    clock.run(scenario())


def test_a_visitor_waits_few_turns_beside_tiny_frames() -> None:
    async def scenario() -> None:
        limits = Limits(streams=2000)
        async with (
            await dtp.listen("memory://x", {"*": echo}, identity=BOB, limits=limits) as listener,
            dtp.connect(listener.address(), identity=ALICE, limits=limits) as visitor,
        ):
            crowd = [await dtp.connect(listener.address(), identity=ALICE, limits=limits) for _ in range(4)]
            streams = [[await each.open_stream() for _ in range(MANY)] for each in crowd]

            async def flood(mine: list[dtp.Stream]) -> None:
                for _ in range(40):
                    for stream in mine:
                        stream.write(b"x")
                    await asyncio.sleep(0)

            floods = [asyncio.create_task(flood(each)) for each in streams]
            turns, waited = Turns(), []
            while not all(each.done() for each in floods):
                before = turns.now
                assert await roundtrip(visitor, b"hello") == b"hello"
                waited.append(turns.now - before)
            turns.running = False
            for each in crowd:
                each.abort()
            assert max(waited) <= 12

    clock.run(scenario())


def test_a_carrier_that_ends_behind_much_is_read_to_the_end() -> None:
    """The end is not told before what came before it was taken."""

    async def scenario() -> None:
        async with pairs(1) as [(near, far)]:
            streams = [await near.open_stream() for _ in range(MANY)]
            for stream in streams:
                stream.write(b"last words")
                stream.write_eof()
            closing = asyncio.create_task(near.close())
            read = [await (await far.accept_stream()).read() for _ in streams]
            assert read == [b"last words"] * MANY
            await closing

    clock.run(scenario())
