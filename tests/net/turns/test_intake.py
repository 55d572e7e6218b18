"""Streams that come all at once: taken up in order, some in each turn of the loop, of whatever connections."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
from attackers import OPEN, Attacker

import dtp
from dtp.core.records import RECORD_FRAMES
from dtp.net.turns.budget import LOW, SHARE, STREAMS, StreamBudget
from dtp.session.codes import CloseCode, ProtocolError
from dtp.session.frames import FrameType, control
from dtp.session.limits import STREAMS_AHEAD
from dtp.session.receiving import STREAM_COST
from dtp.testing import clock
from dtp.testing.pairs import ALICE, BOB

#: A turn begins with what the one before has left, until the number is renewed.
MOST = LOW + STREAMS
MANY = 300


class Turns:
    """Numbers the turns of the loop."""

    def __init__(self) -> None:
        self.now = 0
        self.running = True
        self._next()

    def _next(self) -> None:
        self.now += 1
        if self.running:
            asyncio.get_running_loop().call_soon(self._next)


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - turns are what is counted
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def pairs(count: int) -> AsyncIterator[list[tuple[dtp.Connection, dtp.Connection]]]:
    """Connections to one listener: the client's end, and the listener's."""
    async with contextlib.AsyncExitStack() as stack:
        listener = await stack.enter_async_context(await dtp.listen("memory://x", identity=BOB))
        found = []
        for _ in range(count):
            near = await stack.enter_async_context(dtp.connect(listener.address(), identity=ALICE))
            found.append((near, await listener.accept()))
        yield found


async def open_many(near: dtp.Connection, count: int = MANY) -> list[dtp.Stream]:
    streams = [await near.open_stream() for _ in range(count)]
    for stream in streams:
        stream.write(b"%d" % stream.id)
    return streams


def test_what_is_taken_up_in_a_turn_is_counted() -> None:
    async def main() -> None:
        intake, turns, taken = StreamBudget(), Turns(), list[tuple[int, str]]()

        def takes(name: str, count: int) -> Callable[[], bool]:
            def take() -> bool:
                taken.append((turns.now, name))
                return sum(each == name for _, each in taken) < count

            return take

        while intake.left > LOW or intake.has_room():
            intake.left -= 1
        intake.wait_turn(takes("many", 100))
        intake.wait_turn(takes("few", 3))
        await until(lambda: len(taken) == 103)
        assert max(Counter(turn for turn, _ in taken).values()) == STREAMS
        assert [name for _, name in taken[:7]] == ["many", "few"] * 3 + ["many"]  # one of each in turn
        turns.running = False

    asyncio.run(main())


def test_a_turn_of_streams_is_short() -> None:
    """One of HTTP takes dtpd 0.4 ms; a bar of 20 ms leaves a visitor two turns."""
    assert MOST * 0.4 < 10


@pytest.mark.parametrize("early", [False, True])
def test_streams_of_all_connections_are_taken_up_over_turns(early: bool) -> None:
    async def main() -> None:
        async with pairs(3) as ends:
            turns, taken = Turns(), list[tuple[int, int, int]]()
            for number, (near, far) in enumerate(ends):

                def take(stream: dtp.Stream, number: int = number) -> None:
                    taken.append((turns.now, number, stream.id))

                if early:
                    await open_many(near)
                    await near.ping()
                    far.take_streams(take)
                else:
                    far.take_streams(take)
                    await open_many(near)
            await until(lambda: len(taken) == 3 * MANY)
            assert max(Counter(turn for turn, _, _ in taken).values()) <= MOST
            for number in range(3):
                assert [key for _, each, key in taken if each == number] == list(range(0, 2 * MANY, 2))
            turns.running = False

    clock.run(main())


def test_streams_that_are_waited_for_come_over_turns() -> None:
    async def main() -> None:
        async with pairs(2) as ends:
            turns, taken = Turns(), list[tuple[int, bytes]]()

            async def accept(far: dtp.Connection) -> None:
                for _ in range(MANY):
                    stream = await far.accept_stream()
                    taken.append((turns.now, await stream.read(9)))

            for near, _ in ends:
                await open_many(near)
                await near.ping()
            await asyncio.gather(*(accept(far) for _, far in ends))
            assert max(Counter(turn for turn, _ in taken).values()) <= MOST
            assert Counter(data for _, data in taken) == {b"%d" % key: 2 for key in range(0, 2 * MANY, 2)}
            turns.running = False

    clock.run(main())


def test_streams_that_break_off_while_they_wait_are_not_taken_up() -> None:
    async def main() -> None:
        async with pairs(1) as ((near, far),):
            taken: list[dtp.Stream] = []
            far.take_streams(taken.append)
            streams = await open_many(near)
            streams[-1].reset(7)
            await near.ping()
            await until(lambda: len(taken) == MANY - 1)
            await near.ping()
            assert streams[-1].id not in {stream.id for stream in taken}
            assert streams[-1].id not in far._streams

    clock.run(main())


@pytest.mark.parametrize("who", ["peer", "ours"])
def test_of_a_connection_that_is_closed_only_what_came_whole_is_taken_up(who: str) -> None:
    """The peer was told that it had arrived."""

    async def main() -> None:
        async with pairs(1) as ((near, far),):
            taken: list[dtp.Stream] = []
            far.take_streams(taken.append)
            streams = await open_many(near)
            for stream in streams[::2]:
                stream.write_eof()
            await until(lambda: taken)
            (near if who == "peer" else far).abort(CloseCode.SHUTDOWN)
            await until(lambda: far.closed)
            at_once = len(taken)
            assert at_once < MANY // 2
            await asyncio.sleep(1)
            rest = [stream.id for stream in taken[at_once:]]
            whole = [stream.id for stream in streams[::2] if stream.id > taken[at_once - 1].id]
            assert rest == (whole if who == "peer" else [])
            assert not far._intake

    clock.run(main())


def test_what_nobody_accepted_goes_with_a_connection_that_is_ended_here() -> None:
    """It stayed until the collector came: that went through thousands of streams of who was thrown out, in a turn."""

    async def main() -> None:
        async with pairs(1) as ((near, far),):
            whole, reset, _ = await open_many(near, 3)
            whole.write_eof()
            reset.reset(7)
            await near.ping()
            far.abort(CloseCode.LIMIT)
            await until(lambda: far.closed)
            assert (await far.accept_stream()).id == whole.id
            with pytest.raises(dtp.ConnectionClosed):
                await far.accept_stream()

    clock.run(main())


def test_an_error_of_the_peer_leaves_no_frames_of_python_to_the_collector() -> None:
    """One held the error, which held it, and with it all that had come in the same read."""

    async def main() -> None:
        async with await dtp.listen("memory://x", identity=BOB) as listener:
            attacker = await Attacker.dial(listener.urls[0])
            await until(lambda: attacker.ready)
            gc.collect()
            gc.disable()
            attacker.say([OPEN], [control(0x7F)])
            await until(lambda: attacker.ended)
            assert attacker.ended is not None
            assert attacker.ended.close_code == CloseCode.UNKNOWN_FRAME
            attacker.leave()

    try:
        clock.run(main())
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert not [each for each in gc.garbage if isinstance(each, ProtocolError)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_who_goes_away_takes_up_what_waits() -> None:
    async def main() -> None:
        async with pairs(1) as ((near, far),):
            taken: list[dtp.Stream] = []
            far.take_streams(taken.append)
            await open_many(near, 900)
            await far.go_away()
            assert len(taken) == 900

    clock.run(main())


@pytest.mark.parametrize("frame", ["one that opens all", "one for each two"])
def test_streams_that_one_record_opens_are_opened_over_turns(frame: str) -> None:
    async def scenario() -> None:
        async with await dtp.listen("memory://x", identity=BOB) as listener:
            attacker = await Attacker.dial(listener.urls[0])
            await until(lambda: attacker.ready)
            attacker.say([])
            far = await listener.accept()
            step = STREAMS_AHEAD // RECORD_FRAMES if frame == "one for each two" else STREAMS_AHEAD
            last = [2 * number - 2 for number in range(step, STREAMS_AHEAD + 1, step)]
            attacker.say([(int(FrameType.STREAM), 0, each, 0, b"") for each in last])
            turns, opened = Turns(), Counter[int]()
            before = 0
            while before < STREAMS_AHEAD:
                await asyncio.sleep(0)
                opened[turns.now] += far.stats.streams - before
                before = far.stats.streams
            turns.running = False
            assert max(opened.values()) <= 2 * SHARE // STREAM_COST  # of two turns between two looks
            assert [(await far.accept_stream()).id for _ in range(STREAMS_AHEAD)] == list(
                range(0, 2 * STREAMS_AHEAD, 2)
            )
            attacker.leave()

    clock.run(scenario())
