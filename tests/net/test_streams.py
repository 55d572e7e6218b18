"""Readers, writers, protocols and servers over DTP: as over TCP, and where streams know more, as promised."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

import dtp
from dtp.errors import LocalError
from dtp.net.stream import Stream
from dtp.session.codes import CloseCode, StreamClosed
from dtp.session.limits import DEFAULT, MIB
from dtp.testing.clock import run

ME = dtp.Identity(bytes(range(32)))
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def server_of_pairs(
    url: str = "memory://pairs", **options: Any
) -> AsyncIterator[tuple[dtp.StreamServer, asyncio.Queue[Pair]]]:
    """A server, and what clients have opened there."""
    accepted: asyncio.Queue[Pair] = asyncio.Queue()
    server = await dtp.start_server(lambda r, w: accepted.put_nowait((r, w)), url, identity=ME, **options)
    try:
        yield server, accepted
    finally:
        server.close()
        server.abort_clients()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def pair(url: str = "memory://pairs", **options: Any) -> AsyncIterator[tuple[Pair, Pair]]:
    """Both ends of one stream."""
    async with server_of_pairs(url, **options) as (server, accepted):
        client = await dtp.open_connection(server.address)
        try:
            yield client, await accepted.get()
        finally:
            client[1].transport.abort()
            with contextlib.suppress(ConnectionError):
                await client[1].wait_closed()


# ---- the same as over TCP -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """What one end does: writes (and the end), beside reads."""

    writes: tuple[bytes, ...]
    reads: tuple[tuple[str, Any], ...]


TEXT = st.lists(st.sampled_from([b"", b"a", b"\n", b"line\n", b"\r\n", b"x" * 700, b"--", b"-"])).map(tuple)
READS = st.lists(
    st.one_of(
        st.tuples(st.just("readexactly"), st.integers(0, 900)),
        st.tuples(st.just("readuntil"), st.sampled_from([b"\n", b"--", b"\r\n"])),
        st.tuples(st.just("readline"), st.none()),
    )
).map(tuple)


async def play(side: Side, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[object]:
    """Do what `side` says; the results, exceptions by name and with what they carry."""

    async def write() -> None:
        for index, data in enumerate(side.writes):
            # asyncio's own `writelines` spins on empty pieces in 3.12 and 3.13.
            if index % 3 or len(data) < 2:
                writer.write(data)
            else:
                writer.writelines([data[:1], data[1:]])
            await writer.drain()
        writer.write_eof()

    async def read() -> list[object]:
        results: list[object] = []
        for method, argument in side.reads:
            try:
                results.append(await getattr(reader, method)(*[] if argument is None else [argument]))
            except asyncio.IncompleteReadError as error:
                results.append((type(error).__name__, error.partial, error.expected))
        results += [await reader.read(), reader.at_eof(), await reader.read(10), await reader.readline()]
        return results

    _, results = await asyncio.gather(write(), read())
    writer.close()
    await writer.wait_closed()
    results.append(writer.is_closing())
    return results


async def over_tcp(client: Side, server: Side) -> list[list[object]]:
    played: asyncio.Future[list[object]] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        played.set_result(await play(server, reader, writer))

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        ours = await play(client, *await asyncio.open_connection("127.0.0.1", port))
        return [ours, await played]


async def over_dtp(client: Side, server: Side, options: str) -> list[list[object]]:
    played: asyncio.Future[list[object]] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        played.set_result(await play(server, reader, writer))

    async with await dtp.start_server(serve, "memory://same", identity=ME) as listening:
        address = f"{listening.address}?{options}"
        ours = await play(client, *await dtp.open_connection(address))
        return [ours, await played]


@given(
    client=st.builds(Side, TEXT, READS),
    server=st.builds(Side, TEXT, READS),
    options=st.sampled_from(
        ["", "carrier.chunk=7", "carrier.delay=0.2", "carrier.delay=0.1&carrier.jitter=0.1&carrier.chunk=333"]
    ),
)
def test_the_same_results_as_over_tcp(client: Side, server: Side, options: str) -> None:
    expected = run(over_tcp(client, server), loop_factory=asyncio.SelectorEventLoop)
    assert run(over_dtp(client, server, options)) == expected


def test_a_line_above_the_limit_is_refused_as_over_tcp() -> None:
    async def main() -> None:
        async with pair(limit=100) as ((_, writer), (reader, _)):
            writer.write(b"x" * 1000 + b"\n")
            with pytest.raises(asyncio.LimitOverrunError):
                await reader.readuntil(b"\n")
            assert await reader.readexactly(1001) == b"x" * 1000 + b"\n"

    run(main())


# ---- readers and writers --------------------------------------------------------------------------------


def test_what_was_written_arrives_though_the_writer_was_closed_at_once() -> None:
    async def main() -> None:
        async with server_of_pairs() as (server, accepted):
            _, writer = await dtp.open_connection(server.address)
            data = bytes(range(256)) * 40_000  # 10 MB: far above every window
            writer.write(data)
            writer.close()
            reader, _ = await accepted.get()
            received, _ = await asyncio.gather(reader.read(), writer.wait_closed())
            assert received == data
            assert not server.listener.connections

    run(main())


def test_half_close_leaves_the_other_direction_open() -> None:
    async def main() -> None:
        async with pair() as ((reader, writer), (far_reader, far_writer)):
            assert writer.can_write_eof()
            writer.write(b"question")
            writer.write_eof()
            writer.write_eof()
            assert await far_reader.read() == b"question"
            far_writer.write(b"answer")
            far_writer.write_eof()
            assert await reader.read() == b"answer"
            with pytest.raises(RuntimeError, match="write_eof"):
                writer.write(b"more")

    run(main())


def test_a_slow_reader_stops_the_writer_and_memory_stays_bounded() -> None:
    async def main() -> None:
        limits = replace(DEFAULT, stream_window=MIB, connection_window=MIB)
        async with pair(limits=limits) as ((_, writer), (reader, far_writer)):
            written = 0

            async def flood() -> None:
                nonlocal written
                while written < 64 * MIB:
                    writer.write(bytes(65536))
                    written += 65536
                    await writer.drain()

            flooding = asyncio.ensure_future(flood())
            done, _ = await asyncio.wait([flooding], timeout=60)
            assert not done
            transport = far_writer.transport
            held = sum(map(len, transport._held))  # type: ignore[attr-defined]
            assert held <= limits.stream_window
            # The window, what the reader took before it paused its transport, and what waits to be sent.
            most = limits.stream_window + 2 * 65536 + 2 * 65536 + DEFAULT.write_high + 2 * 65536
            assert limits.stream_window < written <= most
            assert writer.transport.get_write_buffer_size() <= DEFAULT.write_high + 65536
            received = 0
            while received < 64 * MIB:
                received += len(await reader.read(MIB))
            await flooding

    run(main())


def test_bytes_are_not_lost_when_a_read_is_cancelled() -> None:
    async def main() -> None:
        async with pair() as ((_, writer), (reader, _)):
            reading = asyncio.ensure_future(reader.readexactly(4))
            writer.write(b"ab")
            await asyncio.wait([reading], timeout=1)
            reading.cancel()
            await asyncio.wait([reading])
            writer.write(b"cd")
            assert await reader.readexactly(4) == b"abcd"

    run(main())


def test_a_cancelled_open_leaves_nothing_behind() -> None:
    async def main() -> None:
        refuse: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def admit(_: dtp.Request) -> None:
            await refuse

        async with server_of_pairs(admit=admit) as (server, accepted):
            opening = asyncio.ensure_future(dtp.open_connection(server.address))
            await asyncio.wait([opening], timeout=1)
            assert len(server.listener.connections) == 1
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            await asyncio.wait([asyncio.ensure_future(asyncio.sleep(1))])  # virtual time
            assert not server.listener.connections
            assert accepted.empty()
            refuse.set_result(None)

    run(main())


def test_many_pairs_share_a_connection() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(10_000):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def main() -> None:
        async with (
            await dtp.start_server(echo, "memory://many", identity=ME) as server,
            dtp.connect(server.address) as connection,
        ):

            async def talk(number: int) -> bool:
                reader, writer = await dtp.open_connection(connection)
                data = number.to_bytes(2) * 50_000
                writer.write(data)
                writer.write_eof()
                same = await reader.read() == data
                writer.close()
                await writer.wait_closed()
                return same

            assert all(await asyncio.gather(*map(talk, range(100))))
            assert not connection.closed
            assert connection.stats.streams == 0
            assert len(server.listener.connections) == 1

    run(main())


def test_options_that_an_open_connection_can_not_take() -> None:
    async def main() -> None:
        async with server_of_pairs() as (server, _), dtp.connect(server.address) as connection:
            with pytest.raises(LocalError, match="service, psk: the connection is open already"):
                await dtp.open_connection(connection, service="x", psk=bytes(32))

    run(main())


# ---- how streams break off ------------------------------------------------------------------------------


def test_an_aborted_peer_is_a_reset_connection() -> None:
    async def main() -> None:
        async with pair() as ((reader, writer), (_, far_writer)):
            far_writer.transport.abort()
            with pytest.raises(ConnectionResetError) as caught:
                await reader.read()
            assert isinstance(caught.value, dtp.StreamReset)
            with pytest.raises(ConnectionResetError):
                await writer.drain()
            with pytest.raises(dtp.StreamReset):
                await writer.wait_closed()

    run(main())


def test_an_aborted_client_is_a_reset_stream_on_the_server_and_takes_its_connection_along() -> None:
    async def main() -> None:
        async with server_of_pairs() as (server, accepted):
            _, writer = await dtp.open_connection(server.address)
            reader, far_writer = await accepted.get()
            connection: dtp.Connection = far_writer.get_extra_info("dtp_connection")
            writer.transport.abort()
            with pytest.raises(dtp.StreamReset):
                await reader.read()
            await connection.wait_closed()
            await writer.wait_closed()

    run(main())


def test_the_end_of_the_connection_breaks_its_streams_off() -> None:
    async def main() -> None:
        async with pair() as ((reader, _), (far_reader, far_writer)):
            connection: dtp.Connection = far_writer.get_extra_info("dtp_connection")
            connection.abort(CloseCode.DENIED, "enough")
            for each in (reader, far_reader):
                with pytest.raises(dtp.ConnectionClosed, match="enough"):
                    await each.read()

    run(main())


def test_a_lost_connection_is_told_by_name() -> None:
    async def main() -> None:
        async with server_of_pairs(limits=replace(DEFAULT, resume=1.0)) as (server, accepted):
            _, writer = await dtp.open_connection(server.address, limits=replace(DEFAULT, resume=0.5))
            reader, far_writer = await accepted.get()
            client: dtp.Connection = writer.get_extra_info("dtp_connection")
            client._redial = None  # nothing brings this client back
            for driver in list(client._drivers):
                driver.carrier.abort()
            with pytest.raises(dtp.ConnectionLost):
                await reader.read()
            with pytest.raises(dtp.ConnectionLost):
                await writer.wait_closed()
            far_writer.write(b"x")
            with pytest.raises(ConnectionError):
                await far_writer.drain()

    run(main())


def test_a_reader_keeps_what_came_before_an_orderly_end() -> None:
    """The peer wrote, closed and is gone before anybody read: nothing of it is lost."""

    async def main() -> None:
        async with server_of_pairs() as (server, accepted):
            _, writer = await dtp.open_connection(server.address)
            reader, far_writer = await accepted.get()
            writer.write(b"x" * 500_000)  # more than the reader's limit: the rest waits in the transport
            writer.close()
            await writer.wait_closed()
            connection: dtp.Connection = far_writer.get_extra_info("dtp_connection")
            await connection.wait_closed()
            assert await reader.read() == b"x" * 500_000
            far_writer.write(b"too late")
            with pytest.raises(ConnectionResetError):
                await far_writer.drain()

    run(main())


def test_a_peer_that_stops_reading_is_told_at_the_next_write() -> None:
    async def main() -> None:
        async with server_of_pairs() as (server, accepted), dtp.connect(server.address) as connection:
            stream = await connection.open_stream()
            reader, writer = await accepted.get()
            stream.stop(7)
            stream.write(b"last words")
            assert await reader.readexactly(10) == b"last words"  # also after our sending side has failed
            writer.write(b"x")
            with pytest.raises(ConnectionResetError):
                await writer.drain()
            with pytest.raises(dtp.StreamReset) as caught:
                await writer.wait_closed()
            assert (caught.value.error_code, caught.value.stopped) == (7, True)
            assert await stream.read() == b""

    run(main())


# ---- protocols ------------------------------------------------------------------------------------------


@dataclass
class Recorder(asyncio.Protocol):
    """Writes down what it is told."""

    calls: list[object] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    keep_open: bool = False
    transport: dtp.StreamTransport = field(init=False)

    def __post_init__(self) -> None:
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.resumed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, dtp.StreamTransport)
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        if self.calls[-1] != "data":
            self.calls.append("data")
        self.data += data

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return self.keep_open

    def connection_lost(self, error: Exception | None) -> None:
        self.calls.append(("lost", type(error)))
        self.lost.set_result(error)

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")
        self.resumed.set()


@contextlib.asynccontextmanager
async def protocols(
    ours: Callable[[], Any] = Recorder, theirs: Callable[[], Any] = Recorder, **options: Any
) -> AsyncIterator[tuple[Any, Any]]:
    """Two protocols that talk over one stream."""
    made: asyncio.Queue[Any] = asyncio.Queue()

    def factory() -> Any:
        protocol = theirs()
        made.put_nowait(protocol)
        return protocol

    server = await dtp.create_server(factory, "memory://protocols", identity=ME, **options)
    transport, protocol = await dtp.create_connection(ours, server.address)
    assert transport.get_protocol() is protocol
    yield protocol, await made.get()
    transport.abort()
    server.close()
    server.abort_clients()
    await server.wait_closed()


def test_the_protocol_is_called_in_order_and_lost_once() -> None:
    async def main() -> None:
        async with protocols() as (ours, theirs):
            ours.transport.write(b"hello")
            ours.transport.write_eof()
            assert await theirs.lost is None  # `eof_received` gave False, so its transport closes by itself
            assert await ours.lost is None
            assert theirs.calls == ["made", "data", "eof", ("lost", type(None))]
            assert ours.calls == ["made", "eof", ("lost", type(None))]
            ours.transport.close()
            ours.transport.abort()
            ours.transport.write(b"dropped")
            ours.transport.write_eof()
            await asyncio.sleep(0)
            assert ours.calls[-2:] == ["eof", ("lost", type(None))]

    run(main())


@dataclass
class Buffered(asyncio.BufferedProtocol):
    """Takes bytes through a small buffer, and pauses after each if asked to."""

    size: int = 7
    pausing: bool = False
    data: bytearray = field(default_factory=bytearray)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> bytearray:
        assert sizehint > 0
        self.buffer = bytearray(self.size)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]
        if self.pausing:
            self.transport.pause_reading()
            assert not self.transport.is_reading()
            asyncio.get_running_loop().call_soon(self.transport.resume_reading)

    def eof_received(self) -> None:
        self.ended.set_result(None)


@pytest.mark.parametrize("pausing", [False, True])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_buffered_protocol_gets_every_byte_once(size: int, pausing: bool) -> None:
    async def main() -> None:
        async with protocols(theirs=lambda: Buffered(size, pausing)) as (ours, theirs):
            data = bytes(range(256)) * 20
            ours.transport.writelines([data[:1000], memoryview(data)[1000:]])
            ours.transport.write_eof()
            await theirs.ended
            assert bytes(theirs.data) == data

    run(main())


@pytest.mark.parametrize("fault", ["data_received", "get_buffer", "empty", "eof_received", "connection_made"])
def test_a_protocol_that_fails_ends_its_own_stream_only(fault: str) -> None:
    class Faulty(Recorder):
        pass

    def fail(*_: object) -> None:
        raise ZeroDivisionError(fault)

    async def main() -> None:
        reported: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(repr(context["exception"])))
        kind: Any = type("Faulty", (Recorder,), {fault: fail})
        if fault == "get_buffer":
            kind = type("Faulty", (Buffered,), {fault: fail})
        elif fault == "empty":
            kind = lambda: Buffered(size=0)  # noqa: E731
        first = True

        def theirs() -> Any:
            nonlocal first
            first, faulty = False, first
            return kind() if faulty else Recorder()

        async with (
            await dtp.create_server(theirs, "memory://faulty", identity=ME) as server,
            dtp.connect(server.address) as connection,
        ):
            transport, broken = await dtp.create_connection(Recorder, connection)
            transport.write(b"x")
            transport.write_eof()
            assert isinstance(await broken.lost, dtp.StreamReset)
            reader, writer = await dtp.open_connection(connection)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        expected = "RuntimeError('get_buffer() returned an empty buffer')"
        assert reported == [expected if fault == "empty" else f"ZeroDivisionError('{fault}')"]

    run(main())


def test_reading_pauses_and_goes_on_with_the_end_behind_the_data() -> None:
    async def main() -> None:
        async with protocols() as (ours, theirs):
            theirs.transport.pause_reading()
            theirs.transport.pause_reading()
            ours.transport.write(b"x" * 100_000)
            ours.transport.write_eof()
            done, _ = await asyncio.wait([theirs.lost], timeout=5)
            assert not done
            assert theirs.calls == ["made"]
            theirs.transport.resume_reading()
            assert await theirs.lost is None
            assert theirs.calls == ["made", "data", "eof", ("lost", type(None))]
            assert bytes(theirs.data) == b"x" * 100_000

    run(main())


@pytest.mark.parametrize(("high", "low"), [(1000, 100), (100_000, 0), (0, 0)])
def test_write_limits_pause_and_resume_the_protocol(high: int, low: int) -> None:
    async def main() -> None:
        async with protocols() as (ours, theirs):
            transport = ours.transport
            assert transport.get_write_buffer_limits() == (DEFAULT.write_low, DEFAULT.write_high)
            transport.set_write_buffer_limits(high, low)
            started = asyncio.get_running_loop().time()
            transport.write(b"x")  # the first write of a turn may go out at once
            transport.write(b"x" * (high + 1))
            assert ours.calls[-1] == "pause"
            assert transport.get_write_buffer_size() == high + 1
            await ours.resumed.wait()
            assert ours.calls[-1] == "resume"
            # By sealing, not by the peer's acknowledgement, which comes later.
            assert asyncio.get_running_loop().time() == started
            assert transport.get_write_buffer_size() <= low
            with pytest.raises(ValueError, match="must be >="):
                transport.set_write_buffer_limits(1, 2)
            assert theirs.calls[0] == "made"

    run(main())


def test_a_writer_that_waits_is_woken_when_the_peer_resets() -> None:
    async def main() -> None:
        async with pair() as ((_, writer), (_, far_writer)):
            writer.write(bytes(8 * MIB))
            draining = asyncio.ensure_future(writer.drain())
            await asyncio.wait([draining], timeout=1)
            assert not draining.done()
            far_writer.transport.abort()
            with pytest.raises(ConnectionResetError):
                await draining

    run(main())


def test_what_a_transport_tells_about_itself() -> None:
    async def main() -> None:
        async with protocols() as (ours, theirs):
            transport = ours.transport
            assert transport.get_extra_info("peername") == (str(ME.id), 0)
            assert transport.get_extra_info("dtp_peer") == ME.id
            assert isinstance(transport.get_extra_info("dtp_connection"), dtp.Connection)
            assert isinstance(transport.get_extra_info("dtp_stream"), Stream)
            assert transport.get_extra_info("socket") is None
            assert transport.get_extra_info("sslcontext", 5) == 5
            assert repr(transport).endswith("open>")
            with pytest.raises(TypeError, match="str"):
                transport.write("text")
            transport.write_eof()
            with pytest.raises(StreamClosed):
                transport.get_extra_info("dtp_stream").write(b"x")
            assert theirs.transport.get_extra_info("peername")[0] != str(ME.id)

    run(main())


# ---- servers --------------------------------------------------------------------------------------------


def test_close_leaves_open_streams_and_wait_closed_waits_for_them() -> None:
    async def main() -> None:
        async with server_of_pairs() as (server, accepted):
            idle = await dtp.connect(server.address)
            reader, writer = await dtp.open_connection(server.address)
            _, far_writer = await accepted.get()
            assert server.is_serving()
            assert server.get_loop() is asyncio.get_running_loop()
            server.close()
            server.close()
            assert not server.is_serving()
            await idle.wait_closed()  # it had no stream
            waiting = asyncio.ensure_future(server.wait_closed())
            await asyncio.wait([waiting], timeout=5)
            assert not waiting.done()
            with pytest.raises(dtp.CarrierError):
                await dtp.open_connection(server.address)
            with pytest.raises(dtp.ConnectionClosed, match="no new streams"):
                await dtp.open_connection(writer.get_extra_info("dtp_connection"))
            far_writer.write(b"still here")
            assert await reader.readexactly(10) == b"still here"
            far_writer.close()
            assert await reader.read() == b""
            await waiting
            writer.close()
            await writer.wait_closed()

    run(main())


@pytest.mark.parametrize("how", ["close_clients", "abort_clients"])
def test_the_streams_of_a_server_are_ended_on_request(how: str) -> None:
    async def main() -> None:
        async with server_of_pairs() as (server, accepted):
            reader, writer = await dtp.open_connection(server.address)
            _, far_writer = await accepted.get()
            far_writer.write(b"goodbye")
            server.close()
            getattr(server, how)()
            await server.wait_closed()
            if how == "close_clients":
                assert await reader.read() == b"goodbye"
            else:
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            writer.close()

    run(main())


def test_serve_forever_ends_by_cancelling_or_closing() -> None:
    async def main() -> None:
        async with server_of_pairs() as (server, _):
            await server.start_serving()
            forever = asyncio.ensure_future(server.serve_forever())
            await asyncio.sleep(0)
            with pytest.raises(LocalError, match="already"):
                await server.serve_forever()
            forever.cancel()
            with pytest.raises(asyncio.CancelledError):
                await forever
            assert not server.is_serving()
            with pytest.raises(LocalError, match="closed"):
                await server.serve_forever()

    run(main())


def test_services_on_one_listener_are_chosen_by_name() -> None:
    def greeting(text: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(text)
            writer.close()

        return serve

    async def main() -> None:
        services = {name: dtp.stream_handler(greeting(name.encode())) for name in ("one", "two")}
        async with await dtp.listen("memory://services", services, identity=ME) as listener:
            for name in services:
                reader, writer = await dtp.open_connection(listener.address(name))
                assert await reader.read() == name.encode()
                writer.close()
                await writer.wait_closed()
            with pytest.raises(dtp.ConnectionRefused, match="UNKNOWN_SERVICE"):
                await dtp.open_connection(listener.address("three"))

    run(main())


def test_the_address_of_a_server_names_its_service() -> None:
    async def main() -> None:
        async with server_of_pairs(service="time") as (server, accepted):
            assert server.address.service == "time"
            assert server.peer == ME.id
            _, writer = await dtp.open_connection(server.addresses[0])
            _, far_writer = await accepted.get()
            assert far_writer.get_extra_info("dtp_connection").service == "time"
            writer.close()
            await writer.wait_closed()

    run(main())


# ---- what only asyncio's own transports can do ----------------------------------------------------------


def test_sendfile(tmp_path: Path) -> None:
    async def main() -> None:
        async with pair("tcp://127.0.0.1:0") as ((_, writer), (reader, _)):
            path = tmp_path / "file"
            path.write_bytes(bytes(range(256)) * 4000)
            with path.open("rb") as file:
                sent = await asyncio.get_running_loop().sendfile(writer.transport, file)
            writer.write_eof()
            assert sent == 1_024_000
            assert await reader.read() == path.read_bytes()

    asyncio.run(main())


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A PEM file with the key and the self-signed certificate of "localhost"."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(datetime(2020, 1, 1)).not_valid_after(datetime(2120, 1, 1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    encoding = serialization.Encoding.PEM
    path = tmp_path / "localhost.pem"
    path.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + builder.sign(key, hashes.SHA256()).public_bytes(encoding)
    )
    return path


def test_tls_within_a_stream(certificate: Path) -> None:
    """`loop.start_tls`, as database clients and mail clients use it, runs over a stream."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with server_of_pairs("tcp://127.0.0.1:0") as (server, accepted):
            _, writer = await dtp.open_connection(server.address)
            _, far_writer = await accepted.get()
            server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            server_side.load_cert_chain(certificate)
            client_side = ssl.create_default_context(cafile=str(certificate))
            ours, theirs = Recorder(), Recorder()
            near, far = await asyncio.gather(
                loop.start_tls(writer.transport, ours, client_side, server_hostname="localhost"),
                loop.start_tls(far_writer.transport, theirs, server_side, server_side=True),
            )
            assert near is not None
            assert far is not None
            theirs.calls.append("upgraded")  # as with TCP, there is no second `connection_made`
            near.write(b"secret" * 10_000)
            near.close()
            assert [await theirs.lost, await ours.lost] == [None, None]
            assert bytes(theirs.data) == b"secret" * 10_000

    asyncio.run(main())
