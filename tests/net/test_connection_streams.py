"""Streams and datagrams of connections: their limits, who takes them, how they are read and break off."""

from __future__ import annotations

import asyncio
import random
import traceback
from dataclasses import replace

import pytest
from echo_service import both_ends, echo, idle, on_fake_clock, roundtrip
from hypothesis import given
from hypothesis import strategies as st

import dtp
from dtp.session.codes import (
    CloseCode,
    ConnectionClosed,
    StreamReset,
)
from dtp.session.limits import DEFAULT
from dtp.testing import clock
from dtp.testing.pairs import BOB

# ---- streams, datagrams, limits -----------------------------------------------------------------------------


@on_fake_clock
async def test_slow_reader_stops_its_writer() -> None:
    async with both_ends() as (connection, far):
        stream = await connection.open_stream()
        written = 0

        async def flood() -> None:
            nonlocal written
            while True:
                stream.write(bytes(100_000))
                written += 100_000
                await stream.drain()

        task = asyncio.create_task(flood())
        await asyncio.sleep(1000)
        most = DEFAULT.stream_window + DEFAULT.write_high + 200_000
        assert DEFAULT.stream_window < written < most
        slow = await far.accept_stream()
        held = slow._size
        assert held <= DEFAULT.stream_window
        received = 0
        while received < 5_000_000:
            received += len(await slow.read(70_000))
        assert written > 5_000_000
        other = await connection.open_stream()  # a stream that stands still does not stop the others
        other.write(b"beside")
        assert await (await far.accept_stream()).readexactly(6) == b"beside"
        task.cancel()


@on_fake_clock
async def test_who_waits_for_room_is_told_that_the_peer_wants_no_more() -> None:
    """Nothing waits to be sent any more then, as if all of it had gone."""
    async with both_ends() as (connection, far):
        stream = await connection.open_stream()
        stream.write(bytes(DEFAULT.stream_window + 2 * DEFAULT.write_high))
        draining = asyncio.create_task(stream.drain())
        slow = await far.accept_stream()
        await asyncio.sleep(1)
        assert not draining.done()
        slow.reset(7)
        with pytest.raises(StreamReset, match="7"):
            await draining


@on_fake_clock
async def test_who_waits_for_a_long_line_gets_it_where_others_keep_most_of_the_window() -> None:
    """It reads nothing before the line is there, and was given no more credit than one that nobody reads."""
    async with both_ends() as (connection, far):
        for _ in range(40):
            (await connection.open_stream()).write(bytes(DEFAULT.first_window))
        await asyncio.sleep(1)
        others = [await far.accept_stream() for _ in range(40)]
        assert sum(each.buffered for each in others) > DEFAULT.connection_window // 2
        line = bytes(8 * DEFAULT.first_window) + b"\n"
        (await connection.open_stream()).write(line)
        stream = await far.accept_stream()
        async with asyncio.timeout(60):
            assert await stream.readuntil(b"\n", limit=len(line)) == line


@on_fake_clock
async def test_a_line_that_no_window_holds_is_an_error_and_is_not_waited_for() -> None:
    """Nothing more may be sent before some of it is read, and nothing of it is read before its end is there."""
    limits = replace(DEFAULT, stream_window=DEFAULT.first_window)
    async with both_ends(limits=limits) as (connection, far):
        (await connection.open_stream()).write(bytes(2 * DEFAULT.first_window) + b"\n")
        stream = await far.accept_stream()
        async with asyncio.timeout(60):
            with pytest.raises(asyncio.LimitOverrunError, match=r"raise limits\.stream_window") as caught:
                await stream.readuntil(b"\n", limit=DEFAULT.connection_window)
        assert caught.value.consumed == stream.buffered == DEFAULT.first_window
        await stream.readexactly(2 * DEFAULT.first_window)
        assert await stream.readline() == b"\n"


@on_fake_clock
async def test_a_line_that_just_fits_the_window_is_read() -> None:
    limits = replace(DEFAULT, stream_window=DEFAULT.first_window)
    async with both_ends(limits=limits) as (connection, far):
        line = bytes(DEFAULT.first_window - 1) + b"\n"
        (await connection.open_stream()).write(line)
        assert await (await far.accept_stream()).readuntil(b"\n", limit=len(line)) == line


@on_fake_clock
async def test_streams_are_given_to_who_takes_them_from_the_first_on() -> None:
    async with both_ends() as (connection, far):
        early = await connection.open_stream()
        early.write(b"early")
        await connection.ping()
        taken: list[dtp.Stream] = []
        far.take_streams(taken.append)
        assert [stream.id for stream in taken] == [early.id]
        late = await connection.open_stream()
        late.write(b"late")
        await connection.ping()
        assert [stream.id for stream in taken] == [early.id, late.id]
        assert [await stream.readexactly(4) for stream in taken] == [b"earl", b"late"]


@on_fake_clock
async def test_who_fails_to_take_a_stream_ends_the_connection() -> None:
    def take(stream: dtp.Stream) -> None:
        raise ValueError("a bug")

    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    told: list[Exception] = []
    async with (
        await dtp.listen("memory://x", identity=BOB) as listener,
        dtp.connect(listener.address()) as connection,
    ):
        (await listener.accept()).take_streams(take)
        stream = await connection.open_stream()
        stream.write(b"to nobody")
        with pytest.raises(ConnectionClosed) as error:
            await stream.read()
        assert error.value.close_code == CloseCode.INTERNAL
    assert [str(one) for one in told] == ["a bug"]


@on_fake_clock
async def test_stream_limit_waits_for_one_to_end() -> None:
    limits = replace(DEFAULT, streams=3)
    async with (
        await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener,
        dtp.connect(listener.address()) as connection,
    ):
        streams = [await connection.open_stream() for _ in range(3)]
        fourth = asyncio.create_task(connection.open_stream())
        await asyncio.sleep(10)
        assert not fourth.done()
        streams[0].write_eof()
        assert await streams[0].read() == b""
        await fourth
        for stream in [*streams[1:], await fourth]:
            stream.write_eof()
            assert await stream.read() == b""
        for _ in range(50):
            assert await roundtrip(connection, b"x") == b"x"


@on_fake_clock
async def test_reset_and_stop_reach_the_peer() -> None:
    async with both_ends() as (connection, far):
        stream = await connection.open_stream()
        stream.write(b"half")
        other = await far.accept_stream()
        assert await other.readexactly(4) == b"half"
        stream.reset(7)
        with pytest.raises(StreamReset, match="error code 7") as error:
            await other.read()
        assert (error.value.error_code, error.value.stopped) == (7, False)
        with pytest.raises(StreamReset, match="stopped reading"):
            while True:
                other.write(b"x")
                await asyncio.sleep(0.01)
        second = await connection.open_stream()
        second.write(b"x" * 10)
        (await far.accept_stream()).stop(9)
        with pytest.raises(StreamReset, match=r"stopped reading .*error code 9"):
            while True:
                second.write(b"x")
                await asyncio.sleep(0.01)
        assert not connection.closed


@on_fake_clock
async def test_datagrams_are_bounded_by_their_bytes() -> None:
    with pytest.raises(dtp.ConfigError, match="'datagram_buffer' must be at least 'datagram'"):
        replace(DEFAULT, datagram_buffer=DEFAULT.datagram - 1)
    limits = replace(DEFAULT, datagram=1000, datagram_buffer=2500)
    async with both_ends(limits=limits) as (connection, far):
        for i in range(5):
            connection.send_datagram(bytes([i]) * 1000)
        await asyncio.sleep(1)
        assert far.held == 2000
        assert [(await far.recv_datagram())[0] for _ in range(2)] == [3, 4]
        assert far.held == 0
        connection.send_datagram(bytes([5]) * 1000)
        await asyncio.sleep(1)
        assert (await far.recv_datagram())[0] == 5


@on_fake_clock
async def test_datagrams_drop_the_oldest_and_refuse_the_largest() -> None:
    limits = replace(DEFAULT, datagrams=10, datagram=1000)
    async with both_ends(limits=limits) as (connection, far):
        with pytest.raises(dtp.LimitError, match="1001 bytes, the most is 1000"):
            connection.send_datagram(bytes(1001))
        for i in range(30):
            connection.send_datagram(bytes([i]))
        await asyncio.sleep(1)
        assert [await far.recv_datagram() for _ in range(10)] == [bytes([i]) for i in range(20, 30)]
        assert (connection.datagrams_dropped, far.datagrams_dropped) == (0, 20)
        for i in range(20):
            for j in range(2):
                connection.send_datagram(bytes([i, j]))
            await asyncio.sleep(1)
        assert (connection.datagrams_dropped, far.datagrams_dropped) == (0, 50)
        connection.send_datagram(b"never sent")
        connection.abort()
        assert connection.datagrams_dropped == 1


@on_fake_clock
async def test_reading_a_stream_in_every_way() -> None:
    async def say(connection: dtp.Connection) -> None:
        stream = await connection.accept_stream()
        for part in (b"one\ntw", b"o\nthree", b"four", b"\n", b"tail"):
            stream.write(part)
            await stream.flush()
        stream.write_eof()
        await stream.read()

    async with await dtp.listen("memory://x", say, identity=BOB) as listener:
        async with dtp.connect(listener.address()) as connection, await connection.open_stream() as stream:
            assert await stream.readline() == b"one\n"
            assert await stream.readuntil(b"o\nth") == b"two\nth"
            assert await stream.readexactly(3) == b"ree"
            assert await stream.read(2) == b"fo"
            with pytest.raises(asyncio.LimitOverrunError):
                await stream.readuntil(b"?", limit=1)
            with pytest.raises(asyncio.IncompleteReadError) as short:
                await stream.readexactly(100)
            assert short.value.partial == b"ur\ntail"
            assert await stream.read() == b""
            assert await stream.readline() == b""
            assert stream.at_eof()
            for bad in (stream.readexactly(-1), stream.readuntil(b"")):
                with pytest.raises(dtp.LocalError):
                    await bad


@given(
    pieces=st.lists(st.integers(1, 40_000), min_size=1, max_size=8),
    reads=st.lists(
        st.tuples(st.sampled_from(["read", "exactly", "until"]), st.integers(0, 30_000)), max_size=30
    ),
)
def test_any_reads_give_the_bytes_in_order(pieces: list[int], reads: list[tuple[str, int]]) -> None:
    data = random.Random(sum(pieces)).randbytes(sum(pieces))

    async def say(connection: dtp.Connection) -> None:
        stream, at = await connection.accept_stream(), 0
        for size in pieces:
            stream.write(data[at : at + size])
            at += size
            await stream.flush()
        stream.write_eof()
        await stream.flush()

    async def read() -> bytes:
        got = bytearray()
        async with await dtp.listen("memory://x", say, identity=BOB) as listener:
            async with (
                dtp.connect(listener.address()) as connection,
                await connection.open_stream() as stream,
            ):
                for how, size in reads:
                    if how == "exactly" and len(got) + size <= len(data):
                        got += await stream.readexactly(size)
                    elif how == "until" and data.find(bytes([size % 256]), len(got)) >= 0:
                        part = await stream.readuntil(bytes([size % 256]), limit=len(data))
                        assert part.index(size % 256) == len(part) - 1
                        got += part
                    elif how == "read" and size:
                        part = await stream.read(size)
                        assert len(part) <= size
                        assert part or len(got) == len(data)
                        got += part
                return bytes(got) + await stream.read()

    assert clock.run(read()) == data


@on_fake_clock
async def test_only_one_task_may_read() -> None:
    async with (
        await dtp.listen("memory://x", idle, identity=BOB) as listener,
        dtp.connect(listener.address()) as c,
    ):
        stream = await c.open_stream()
        first = asyncio.create_task(stream.read())
        await asyncio.sleep(0)
        with pytest.raises(dtp.LocalError, match="another task"):
            await stream.read()
        first.cancel()


@on_fake_clock
async def test_a_traceback_of_the_end_is_of_one_task_alone() -> None:
    """It was of all that had been told: 900 entries for 300 streams, which each of them printed."""
    async with both_ends() as (near, far):
        for _ in range(50):
            (await near.open_stream()).write(b"x")
        reading = [asyncio.create_task((await far.accept_stream()).readexactly(2)) for _ in range(50)]
        await near.ping()
        near.abort()
        ends = await asyncio.gather(*reading, return_exceptions=True)
        assert all(isinstance(each, ConnectionClosed) for each in ends)
        last = ends[-1]
        assert isinstance(last, ConnectionClosed)
        assert len(traceback.extract_tb(last.__traceback__)) < 10


class Pieces:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def stream_data(self, data: bytes) -> None:
        self.given.append(data)

    def stream_eof(self) -> None:
        pass

    def stream_error(self, error: dtp.DtpError) -> None:
        pass

    def stream_writable(self) -> None:
        pass


@on_fake_clock
async def test_many_small_pieces_are_kept_as_few() -> None:
    """By itself a piece of one byte takes fifty: what is counted as unread would be a small part of what is kept."""
    async with both_ends() as (near, far):
        written = [await near.open_stream(), await near.open_stream()]
        for _ in range(1500):
            for stream in written:  # in turns, so that what comes of one doesn't follow on itself
                stream.write(b"x")
            await asyncio.sleep(0)
        await asyncio.gather(*(each.flush() for each in written))
        for _ in written:
            stream, pieces = await far.accept_stream(), Pieces()
            assert await stream.readexactly(100) == b"x" * 100
            stream.attach_sink(pieces)
            assert b"".join(pieces.given) == b"x" * 1400
            assert len(pieces.given) <= 4
