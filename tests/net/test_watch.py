"""Who counts what moves on a connection: told at the counts it named, and its frames go along with what is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

import dtp
from dtp.net.watch import NO_COUNT, ByteWatch
from dtp.testing.pairs import ALICE, BOB

KIB = 1024
SIZE = 2048 * KIB


async def send(connection: dtp.Connection) -> None:
    async for stream in connection:
        await stream.readline()
        stream.write(bytes(SIZE))
        stream.write_eof()


def watched(set_up: Callable[[dtp.Connection, ByteWatch], None]) -> tuple[ByteWatch, list[bytes]]:
    """A client that fetches `SIZE` bytes with a watch; gives it back, and the metering frames that the server got."""
    frames: list[bytes] = []

    async def server(connection: dtp.Connection) -> None:
        connection.take_meter(frames.append)
        await send(connection)

    async def work() -> ByteWatch:
        async with await dtp.listen("tcp://127.0.0.1:0", server, identity=BOB) as listener:
            connection = await dtp.connect(listener.address(), identity=ALICE)
            async with connection:
                watch = ByteWatch(lambda: None, total=NO_COUNT, received=NO_COUNT, opened=1)
                set_up(connection, watch)
                stream = await connection.open_stream()
                connection.watch = watch
                stream.write(b"\n")
                assert len(await stream.read(-1)) == SIZE
                await connection.ping()
                return watch

    return asyncio.run(work()), frames


@pytest.mark.parametrize("counts", [{"total": 700 * KIB}, {"received": 700 * KIB - 1}])
def test_it_is_told_when_so_much_has_moved_and_no_sooner(counts: dict[str, int]) -> None:
    told: list[int] = []

    def set_up(connection: dtp.Connection, watch: ByteWatch) -> None:
        def moved() -> None:
            told.append(connection.moved)
            watch.total = watch.received = NO_COUNT  # once

        watch.moved = moved
        for name, value in counts.items():
            setattr(watch, name, value)

    watched(set_up)
    (count,) = told
    assert 700 * KIB <= count <= SIZE + 1


def test_a_stream_that_the_client_opens_is_told() -> None:
    told: list[int] = []

    def set_up(connection: dtp.Connection, watch: ByteWatch) -> None:
        def moved() -> None:
            watch.opened = connection.traffic.opened
            told.append(watch.opened)

        watch.moved, watch.opened = moved, 0

    watched(set_up)
    assert told == [1]


def test_its_frame_goes_with_what_is_sent_once_so_much_has_moved() -> None:
    counts: list[int] = []
    nothing: list[int] = []  # every second time it has nothing to say

    def set_up(connection: dtp.Connection, watch: ByteWatch) -> None:
        def going(moved: int, now: float) -> bytes | None:
            assert moved == connection.moved
            assert now <= connection.loop.time()
            watch.along += 256 * KIB
            if len(counts) == len(nothing):
                nothing.append(moved)
                return None
            counts.append(moved)
            return b"%d" % moved

        watch.going, watch.along = going, 512 * KIB

    _, frames = watched(set_up)
    assert [int(frame) for frame in frames] == counts
    assert counts
    assert all(count >= 512 * KIB * n for n, count in enumerate(counts, 1))


def test_it_goes_in_the_same_record_and_needs_no_turn_of_the_loop() -> None:
    sizes: list[tuple[int, int]] = []

    def set_up(connection: dtp.Connection, watch: ByteWatch) -> None:
        def going(moved: int, now: float) -> bytes:
            before = connection.outlet.sent
            connection.loop.call_soon(lambda: sizes.append((before, connection.outlet.sent)))
            watch.along = NO_COUNT
            return b"x" * 1000

        watch.going, watch.along = going, 256 * KIB

    _, frames = watched(set_up)
    assert frames == [b"x" * 1000]
    ((before, after),) = sizes
    assert after >= before + 1000


@pytest.mark.parametrize("how", ["a write", "the flush of a second one", "pieces"])
def test_it_is_told_behind_what_was_sealed_in_the_same_call(how: str) -> None:
    """Whoever only writes reads nothing that would tell it."""

    async def hear(connection: dtp.Connection) -> None:
        async for stream in connection:
            assert len(await stream.read(-1)) == 2001

    async def work() -> None:
        listener = await dtp.listen("tcp://127.0.0.1:0", hear, identity=BOB)
        async with listener, dtp.connect(listener.address(), identity=ALICE) as connection:
            stream = await connection.open_stream()
            stream.write(b"\n")
            await connection.ping()
            told: list[int] = []
            before = connection.moved
            connection.watch = ByteWatch(lambda: told.append(connection.moved), 1, NO_COUNT, before + 2000)
            if how == "pieces":
                assert connection.outlet.write_pieces([(stream.id, 0, 2000)], bytes(2000)) == []
            elif how == "a write":
                stream.write(bytes(2000))
            else:
                stream.write(bytes(1000))
                stream.write(bytes(1000))
                assert told == []
                connection._flush_writes()
            assert told == [before + 2000]
            stream.write_eof()

    asyncio.run(work())


def test_a_frame_that_comes_with_the_end_can_be_answered_in_vain() -> None:
    """Else the end behind it would never be told, and whoever serves the connection would wait for ever."""

    async def work() -> None:
        heard: list[bytes] = []
        ended = asyncio.get_running_loop().create_future()

        async def server(connection: dtp.Connection) -> None:
            def answer(frame: bytes) -> None:
                heard.append(frame)
                connection.send_meter(frame)

            connection.take_meter(answer)
            try:
                await connection.accept_stream()
            except dtp.ConnectionClosed as closed:
                ended.set_result(closed.reason)

        async with await dtp.listen("tcp://127.0.0.1:0", server, identity=BOB) as listener:
            connection = await dtp.connect(listener.address(), identity=ALICE)
            connection.send_meter(b"the last words")
            await asyncio.sleep(0)  # it is on its way
            connection.abort(reason="bye")
            assert await asyncio.wait_for(ended, 120) == "bye"
            assert heard == [b"the last words"]

    asyncio.run(work())
