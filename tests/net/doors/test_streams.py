"""Readers, writers and servers over DTP: as over TCP, and where streams know more, as promised."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stream_pairs import ME, pair, server_of_pairs

import dtp
from dtp.errors import LocalError
from dtp.session.codes import CloseCode
from dtp.session.limits import DEFAULT, MIB
from dtp.testing.clock import run

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
            held = sum(map(len, transport._held))  # type: ignore[attr-defined, arg-type]
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
            client._resumption.redial = None  # nothing brings this client back
            for driver in list(client.outlet.drivers):
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
