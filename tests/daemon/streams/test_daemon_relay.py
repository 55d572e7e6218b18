"""TCP through a pair of daemons: bytes, ends, errors, a slow reader, failover, what happens when a side goes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import hashlib
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dtp.daemon.config.model import Config
from dtp.daemon.config.values import LocalPlace
from dtp.daemon.patience import Patience
from dtp.daemon.policies import Bounds
from dtp.daemon.reasons import Reason
from dtp.daemon.relays.bounds import Meter, StreamBounds
from dtp.daemon.relays.relay import Counts, StreamRelay
from dtp.daemon.server import Daemon
from dtp.net.driver import Buffers
from dtp.net.splices import Splice, Splices
from dtp.net.turns.sizes import BRIEF, WIDE
from dtp.testing import clock

from ..conftest import FAR, Backend, Pair, Run, cut, echo
from ..programs import free_port


def expose(*ports: int, more: str = "") -> str:
    backends = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
    return f'[[expose]]\nservice = "api"\nallow = ["*"]\nbackend = [{backends}]\n{more}'


def reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other side gets a reset."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def exchange(port: int, data: bytes) -> bytes:
    """What comes back for `data`. A refusal is a `ConnectionError`, however far the caller was by then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        writer.write(data)
        try:
            writer.write_eof()
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                raise ConnectionResetError("reset before the end was said") from error
            raise
        return await reader.read()


def test_what_passes_is_padded_where_the_file_says_so(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port), top="padding = 256")
            assert await exchange(port, b"") == b""
            data = bytes(range(256)) * 20_000
            assert await exchange(port, data) == data
            [connection] = pair.listener.connections
            assert connection.limits.padding == 256

    run(scenario)


def test_bytes_and_both_ends(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port))
            data = bytes(range(256)) * 20_000
            assert await exchange(port, data) == data
            assert await exchange(port, b"") == b""
            assert backend.connections == 2
            await pair.exposed.ledger.wait_empty()
            assert (pair.exposed.ledger.sent, pair.exposed.ledger.received) == (len(data), len(data))

    run(scenario)


@pytest.mark.slow
def test_what_has_ended_leaves_nothing_to_the_collector(run: Run) -> None:
    """At thousands of connections a second its rounds would be a share of the processor's time."""

    def relays() -> set[int]:
        return {id(one) for one in gc.get_objects() if isinstance(one, StreamRelay)}

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port))
            gc.collect()
            others = relays()  # of tests before this one, if something holds them
            gc.disable()
            try:
                assert await exchange(port, b"question") == b"question"
                async with asyncio.timeout(100):
                    while relays() - others:  # noqa: ASYNC110 - only the allocator knows
                        await asyncio.sleep(0)
            finally:
                gc.enable()
            assert pair.exposed.ledger.streams == 1

    run(scenario)


def test_many_at_once_over_one_connection(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port))
            data = [bytes([number]) * (number * 1000 + 1) for number in range(100)]
            assert await asyncio.gather(*(exchange(port, one) for one in data)) == data
            assert len(pair.far.get_status()["callers"]) == 1

    run(scenario)


def test_half_close_lets_the_other_direction_go_on(run: Run) -> None:
    async def answer_behind_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read()
        for _ in range(50):
            writer.write(hashlib.sha256(request).digest() * 1000)
            await writer.drain()

    async def scenario(pair: Pair) -> None:
        async with Backend(answer_behind_the_end) as backend:
            port = await pair.start(expose(backend.port))
            assert await exchange(port, b"question") == hashlib.sha256(b"question").digest() * 50_000

    run(scenario)


def test_the_backends_end_comes_first(run: Run) -> None:
    async def greet_and_listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.write_eof()
        heard.append(await reader.read())
        done.set()

    async def scenario(pair: Pair) -> None:
        async with Backend(greet_and_listen) as backend:
            port = await pair.start(expose(backend.port))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b"hello"
            writer.write(b"still here")
            writer.write_eof()
            await done.wait()
            assert heard == [b"still here"]
            writer.close()

    heard: list[Any]
    heard, done = [], asyncio.Event()
    run(scenario)


def test_a_reset_by_the_backend_is_one_for_the_client(run: Run) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        reset(writer)

    async def scenario(pair: Pair) -> None:
        async with Backend(break_off) as backend:
            port = await pair.start(expose(backend.port))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"more than four bytes")
            with pytest.raises(ConnectionResetError):
                await reader.read()
            assert pair.exposed.ledger.failed == 1
            writer.close()

    run(scenario)


def test_a_backend_that_takes_no_more_has_broken_off_at_both_ends(run: Run) -> None:
    """Where a write found that it was gone, and reading its end alone, the daemon in front of it counted nothing."""

    async def say_bye(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.close()

    async def talk_on(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"never read")
            await writer.drain()
            await asyncio.sleep(0)

    async def scenario(pair: Pair) -> None:
        async with Backend(say_bye) as backend:
            port = await pair.start(expose(backend.port))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b"bye"
            with pytest.raises(ConnectionError):
                await talk_on(writer)
            for ledger in (pair.exposed.ledger, pair.forwarded.ledger):
                await ledger.wait_empty()
                assert (ledger.streams, ledger.failed) == (1, 1)
            writer.close()

    run(scenario)


def test_a_reset_by_the_client_is_one_for_the_backend(run: Run) -> None:
    async def until_it_breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"x")
            while await reader.read(100):
                pass
        except ConnectionResetError:
            broken.set()

    async def scenario(pair: Pair) -> None:
        async with Backend(until_it_breaks) as backend:
            port = await pair.start(expose(backend.port))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await reader.readexactly(1)
            reset(writer)
            await broken.wait()

    broken = asyncio.Event()
    run(scenario)


def test_a_slow_reader_stops_the_backend(run: Run) -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        piece = bytes(1 << 20)
        try:
            while poured[0] < 400 << 20:
                writer.write(piece)
                await writer.drain()
                poured[0] += len(piece)
        except ConnectionError:
            ended.set()

    async def scenario(pair: Pair) -> None:
        async with Backend(pour) as backend:
            port = await pair.start(expose(backend.port))
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            await reader.readexactly(1)
            before = -1
            while poured[0] != before:  # until everything between is full
                before = poured[0]
                for _ in range(2000):
                    await asyncio.sleep(0)
            assert poured[0] < 64 << 20
            reset(writer)
            await ended.wait()

    poured, ended = [0], asyncio.Event()
    run(scenario)


def test_small_messages_keep_their_order_when_a_socket_is_full(run: Run) -> None:
    """What comes behind bytes that a socket did not take waits with them; a reader that comes back gets all."""

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(60_000):
            writer.write(number.to_bytes(4) * 25)
            if number % 50 == 0:
                await writer.drain()
        writer.write_eof()

    async def scenario(pair: Pair) -> None:
        async with Backend(pour) as backend:
            port = await pair.start(expose(backend.port))
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            data = await reader.readexactly(100)
            for _ in range(500):  # until everything between is full
                await asyncio.sleep(0)
            data += await reader.read()
            assert data == b"".join(number.to_bytes(4) * 25 for number in range(60_000))
            writer.close()

    run(scenario)


def test_pieces_and_small_messages_take_turns(run: Run) -> None:
    """A socket whose reads come back full is read by itself until they are small again: nothing shows of it."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for size in (64, 16 * 1024, 64, 600_000, 1, 20_000, 64, 300, 16 * 1024, 5):
                data = (size % 251).to_bytes() * size
                writer.write(data)
                assert await reader.readexactly(size) == data
            writer.close()

    run(scenario)


def test_turns_are_brief_beside_an_exchange_and_long_beside_a_download(run: Run) -> None:
    """One large answer is no exchange; a few small ones in a row are."""

    async def size_asked_for(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(b"x" * int(line))

    async def scenario(pair: Pair) -> None:
        async with Backend(size_asked_for) as backend:
            port = await pair.start(expose(backend.port))
            turns = Buffers.of_loop(asyncio.get_running_loop()).turns  # of both daemons: they share the loop
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(5):
                writer.write(b"600000\n")
                await reader.readexactly(600_000)
            assert turns.size == WIDE
            for _ in range(5):
                writer.write(b"64\n")
                await reader.readexactly(64)
            assert turns.size == BRIEF
            writer.write(b"6000000\n")
            assert await reader.readexactly(6_000_000) == b"x" * 6_000_000
            writer.close()

    run(scenario)


def test_a_stream_is_read_with_the_others_again_while_turns_are_brief(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read by itself, because it came in large pieces, is an exchange afterwards like any other."""
    monkeypatch.setattr("dtp.net.turns.sizes.HOLD", 3600.0)  # turns stay brief, however slow the machine is

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port))
            turns = Buffers.of_loop(asyncio.get_running_loop()).turns
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for size in (64, 64, 64, 64, 64, 600_000, 64, 64):
                writer.write(b"x" * size)
                await reader.readexactly(size)
            assert turns.size == BRIEF
            splices = [splice for splice in gc.get_objects() if type(splice) is Splice and splice.reading]
            assert len(splices) == 2  # the client's socket at the near end, the backend's at the far one
            writer.close()

    run(scenario)


@pytest.mark.parametrize("way", ["at once", "later", "never"])
def test_what_goes_in_front_of_a_stream_is_no_credit_for_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A PROXY header never came by the stream: the peer may send as much as it had sent, and no more."""
    given = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if way == "never":
            reset(writer)
        else:
            await reader.readuntil(b"hello")
            writer.write(b"done")

    class Slow(StreamRelay):
        def _on_writable(self) -> None:
            if way == "at once" or self.counts.received:
                super()._on_writable()
            elif way == "never":
                self.splice_broken(errno.EPIPE)

    monkeypatch.setattr("dtp.daemon.relays.expose.StreamRelay", Slow)

    async def scenario(pair: Pair) -> None:
        async with Backend(serve) as backend:
            port = await pair.start(expose(backend.port, more="proxy-protocol = true"))
            with contextlib.suppress(ConnectionError):
                await exchange(port, b"hello")
            (connection,) = pair.listener.connections
            outlet = connection.outlet

            class Counting:
                def __getattr__(self, name: str) -> Callable[..., Any] | Splices | None:
                    found: Callable[..., Any] | Splices | None = getattr(outlet, name)
                    return found

                def grant_credit(self, stream: int, size: int) -> None:
                    given.append(size)
                    outlet.grant_credit(stream, size)

            connection.outlet = Counting()
            for _ in range(3):
                with contextlib.suppress(ConnectionError):
                    assert await exchange(port, b"hello") == b"done"
                await pair.exposed.ledger.wait_empty()
            assert sum(given) <= 15

    run(scenario)


@pytest.mark.parametrize("way", ["both end", "backend resets"])
def test_what_waits_for_its_rate_is_credit_once_the_stream_is_over(run: Run, way: str) -> None:
    """The window is of the whole connection: what never came back into it stopped all streams of the caller."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(100_000)
        if way == "both end":
            await reader.read()
        else:
            reset(writer)

    async def scenario(pair: Pair) -> None:
        async with Backend(serve) as backend:
            port = await pair.start(expose(backend.port, more='rate = { bandwidth = "1B/h" }'))
            await until(lambda: pair.listener.connections)
            (connection,) = pair.listener.connections
            with contextlib.suppress(ConnectionError):
                await exchange(port, bytes(200_000))
            await pair.exposed.ledger.wait_empty()
            session = connection._session
            await until(lambda: not session.streams.by_id)
            assert session.streams.receive_credit.consumed >= 100_000
            assert session.streams.receive_credit.unread == 0

    run(scenario)


class Watched:
    """A stream that is bounded, as its relay has it: when it is ended, and the credit that is given for it."""

    def __init__(self, meter: Meter | None = None, idle: float | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.over, self.counts, self.given = loop.create_future(), Counts(), list[int]()
        stream: Any = SimpleNamespace(consumed=self.given.append)
        self.bounds = StreamBounds(loop, stream, self.counts, self.over.set_result, meter, Bounds(idle=idle))


def test_a_stream_is_idle_when_nothing_has_moved_since_it_was_looked_at_first() -> None:
    """Of 10 s a quarter, at most, is lost to looking seldom; a byte begins it anew."""

    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        watched = Watched(idle=10)
        loop.call_later(6, setattr, watched.counts, "sent", 1)
        assert await watched.over is Reason.IDLE
        return loop.time()

    assert clock.run(scenario()) == 17.5


def test_who_is_held_back_is_not_idle() -> None:
    """By its rate, which is the daemon's doing: silence begins when the bytes may go on."""

    async def scenario() -> float:
        watched = Watched(lambda size: 35.0, idle=10)
        watched.bounds.give_credit(1000)
        assert await watched.over is Reason.IDLE
        return asyncio.get_running_loop().time()

    assert clock.run(scenario()) == 45.0


def test_credit_that_a_rate_holds_back_is_given_once() -> None:
    """Also where the end comes between: whoever got more could send more than there is room for."""

    async def scenario() -> None:
        waits = [1.0, 3.0, 5.0]
        watched = Watched(lambda _: waits.pop(0))
        for size in (1, 10, 100):
            watched.bounds.give_credit(size)
        await asyncio.sleep(2)
        assert watched.given == [1]
        assert watched.bounds.take_owed() == 110
        await asyncio.sleep(10)
        assert watched.given == [1]

    clock.run(scenario())


def test_a_dead_backend_is_passed_over(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(free_port(), backend.port, free_port()))
            for number in range(6):
                assert await exchange(port, b"%d" % number) == b"%d" % number
            assert backend.connections == 6

    run(scenario)


def test_without_a_backend_the_client_is_reset(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        port = await pair.start(expose(free_port(), more='connect-timeout = "1s"'))
        with pytest.raises(ConnectionResetError):
            await exchange(port, b"anyone?")
        assert pair.exposed.ledger.failed == 1

    run(scenario)


def test_unix_sockets_on_both_sides(run: Run, tmp_path: Path) -> None:
    async def scenario(pair: Pair) -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer):
                await echo(reader, writer)

        server = await asyncio.start_unix_server(handle, tmp_path / "backend")
        text = f'[[expose]]\nservice = "api"\nallow = ["*"]\nbackend = "unix:{tmp_path}/backend"'
        pair.expose, pair.top = text, ""
        pair.far = Daemon(pair.far_config(text), FAR)
        await pair.far.start()
        near = pair.near_config()
        pair.near = Daemon(_at(near, tmp_path / "local"), FAR)
        await pair.near.start()
        reader, writer = await asyncio.open_unix_connection(tmp_path / "local")
        writer.write(b"hello" * 100_000)
        writer.write_eof()
        assert await reader.read() == b"hello" * 100_000
        writer.close()
        server.close()

    run(scenario)


def _at(config: Config, path: Path) -> Config:
    return replace(config, forward=(replace(config.forward[0], listen=LocalPlace(path=str(path))),))


def test_the_far_daemon_starts_anew_and_nobody_notices(run: Run) -> None:
    """A connection that is there at the time breaks off; the next client gets through, without a restart here."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port))
            assert await exchange(port, b"one") == b"one"
            url = pair.listener.urls[0]
            await pair.far.close()
            waiting = asyncio.ensure_future(exchange(port, b"two"))
            pair.far = Daemon(pair.far_config(pair.expose, url), FAR)
            await pair.far.start()
            assert await waiting == b"two"

    run(scenario)


async def until(true: Callable[..., Any]) -> None:
    """What nobody tells of; the test's own patience ends it if it never comes."""
    while not true():  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0)


def test_a_program_that_has_said_nothing_outlives_the_far_daemon(run: Run) -> None:
    """It gets another stream, since neither side can tell; one that has said something can't, and is told."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port))
            quiet, quiet_writer = await asyncio.open_connection("127.0.0.1", port)
            loud, loud_writer = await asyncio.open_connection("127.0.0.1", port)
            loud_writer.write(b"word")
            assert await loud.readexactly(4) == b"word"
            (forwarded,) = pair.near.forwarded.values()
            old = {one.stream for one in forwarded.ledger.open}
            assert len(old) == 2
            url = pair.listener.urls[0]
            for connection in pair.listener.connections:
                connection.abort()  # as when it is killed: the one that starts next knows nothing of it
            await pair.far.close()
            pair.far = Daemon(pair.far_config(pair.expose, url), FAR)
            await pair.far.start()
            with pytest.raises(ConnectionError):
                await loud.read()
            await until(lambda: any(one.stream not in old for one in forwarded.ledger.open))
            quiet_writer.write(b"here I am")
            quiet_writer.write_eof()
            assert await quiet.read() == b"here I am"
            quiet_writer.close()
            loud_writer.close()

    run(scenario)


def test_a_program_that_has_said_nothing_is_turned_away_when_there_is_nobody(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        pair.make = partial(Daemon, patience=Patience(peer=0.0))
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            (forwarded,) = pair.near.forwarded.values()
            await until(lambda: forwarded.ledger.open)
            await pair.far.close()
            with pytest.raises(ConnectionError):
                await reader.readexactly(1)
            writer.close()
            assert not forwarded.ledger.open
            assert forwarded.ledger.failed == 1

    run(scenario)


def test_bytes_in_flight_survive_a_cut_carrier(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            data = bytes(range(256)) * 40_000
            got = b""
            for start in range(0, len(data), 1 << 20):
                writer.write(data[start : start + (1 << 20)])
                got += await reader.readexactly(min(1 << 20, len(data) - start))
                cut(pair.listener.connections)
            assert got == data
            assert pair.near.get_status()["forwarded"][0]["resumes"] >= 5
            writer.close()

    run(scenario)


@pytest.mark.parametrize("towards", ["backend", "program"])
def test_streams_under_way_do_not_pass_a_quota_that_is_used_up(run: Run, towards: str) -> None:
    """One read may go beyond it; then nothing passes any more, however many streams have something to say."""
    heard, sides = [], []

    async def backend_side(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sides.append(writer)
        while data := await reader.read(65536):
            heard.append(data)

    async def scenario(pair: Pair) -> None:
        async with Backend(backend_side) as backend:
            port = await pair.start(expose(backend.port, more='quota = { bytes = "1KB", every = "365d" }'))
            programs = []
            for number in range(1, 11):
                programs.append(await asyncio.open_connection("127.0.0.1", port))
                programs[-1][1].write(b"%d" % (number % 10))
                await until(lambda number=number: len(heard) == number)
            heard.clear()

            def say(number: int, data: bytes) -> None:
                side = programs[number][1] if towards == "backend" else sides[number]
                side.write(data)

            async def hear(number: int) -> bytes:
                if towards == "backend":
                    return b""
                return await programs[number][0].read(10_000)

            say(0, b"x" * 2000)  # of which the first read may be a part
            await until(lambda: pair.exposed.ledger.sent + pair.exposed.ledger.received > 1000)
            before = b"".join(heard)
            for number in range(1, 10):
                say(number, b"y" * 1000)
            for number in range(1, 10):
                if towards == "program":
                    with pytest.raises(ConnectionError):
                        assert await hear(number) == b"never"
                else:
                    with pytest.raises(ConnectionError):
                        await programs[number][0].readexactly(1)
            assert b"y" not in b"".join(heard)
            assert len(before) <= 2000
            for _, writer in programs:
                writer.transport.abort()

    run(scenario)


def test_a_stream_s_limit_of_bytes_is_passed_by_none(run: Run) -> None:
    heard = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            heard.append(data)

    async def scenario(pair: Pair) -> None:
        async with Backend(listen) as backend:
            port = await pair.start(expose(backend.port, more='limits = { bytes = "1KB" }'))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x" * 1000)
            await until(lambda: len(b"".join(heard)) == 1000)
            writer.write(b"y" * 1000)
            with pytest.raises(ConnectionError):
                await reader.readexactly(1)
            assert b"".join(heard) == b"x" * 1000

    run(scenario)
