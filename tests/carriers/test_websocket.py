"""WebSocket carriers against honest strangers, hostile ones, and the passing of time."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loops import LoopFactory, on_every_loop
from strangers import REQUEST, frame, on_sockets, port_of, server_that, stranger_at
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from dtp.carriers import Carrier, dial, listen, memory, websocket, websocket_carrier
from dtp.carriers.errors import (
    ControlFloodError,
    MessageSizeError,
    PingTimeoutError,
    TextMessageError,
    WebSocketError,
)
from dtp.carriers.memory import MemoryLink
from dtp.carriers.stream_socket import LINGER
from dtp.carriers.websocket_carrier import (
    LEAST_READ,
    MAX_MESSAGE,
    PING_INTERVAL,
    PING_TIMEOUT,
    READ_SIZE,
    WebSocketCarrier,
)
from dtp.carriers.websocket_upgrade import MAX_HEAD
from dtp.errors import CarrierError
from dtp.testing.carrier_ends import CarrierEnd
from dtp.testing.clock import run

# Honest strangers: the library's own client and server, which share no IO code with the carrier.


@on_every_loop
def test_the_librarys_client_talks_to_a_listener(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        listener = await listen("ws://127.0.0.1:0/here", accepted.put_nowait)
        async with connect(listener.urls[0], proxy=None) as client:  # offers compression, which isn't taken
            end = CarrierEnd(await accepted.get()).start()
            await client.send(b"to the carrier " * 1000)
            await end.until_received(b"to the carrier " * 1000)
            await client.send([b"in ", b"frag", b"ments"])
            await end.until_received(b"to the carrier " * 1000 + b"in fragments")
            end.write(b"back" * 50_000)
            got = b""
            while len(got) < 200_000:
                got += await client.recv(decode=False)
            assert got == b"back" * 50_000
            await (await client.ping())
        assert await end.until_lost() is None
        await listener.close()

    on_sockets(main(), loop_factory)


@on_every_loop
def test_a_carrier_talks_to_the_librarys_server(loop_factory: LoopFactory) -> None:
    paths: list[str] = []

    async def echo(connection: ServerConnection) -> None:
        paths.append(connection.request.path)
        await (await connection.ping())
        async for message in connection:
            await connection.send(message)

    async def main() -> None:
        async with serve(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            end = CarrierEnd(
                await dial(f"ws://127.0.0.1:{port}/a%20path?token=x%26y&proxy=none&empty=")
            ).start()
            data = bytes(range(256)) * 2000
            await end.send_all(data)
            await end.until_received(data)
            end.close()
            assert await end.until_lost() is None
        assert paths == ["/a%20path?token=x%26y&empty="]

    on_sockets(main(), loop_factory)


def test_the_servers_going_away_is_an_orderly_end_and_its_failure_is_not() -> None:
    async def main() -> None:
        async def leave(connection: ServerConnection) -> None:
            await connection.close(int(await connection.recv()), "because")

        async with serve(leave, "127.0.0.1", 0) as server:
            for code in (1000, 1001, 1011, 1008, 4000):
                end = CarrierEnd(await dial(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")).start()
                end.write(b"%d" % code)
                lost = await end.until_lost()
                if code <= 1001:
                    assert lost is None
                else:
                    assert isinstance(lost, WebSocketError)
                    assert str(code) in str(lost)
                    assert "because" in str(lost)

    on_sockets(main())


# Hostile strangers at a listener.


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not for you \r\n", b""),
        (b"SSH-2.0-OpenSSH_9.2\r\n", b""),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b""),
        (b"GET / HTTP/2.0\r\n\r\n", b""),
        (b"POST /only HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"426"),
        (REQUEST.replace(b"13", b"12") + b"\r\n", b"400"),
        (REQUEST.replace(b"AAAA", b"AA") + b"\r\n", b"400"),
        (REQUEST.replace(b"GET / ", b"GET /elsewhere ") + b"\r\n", b"404"),
        (REQUEST + b"\r\n" + frame(2, b"too early"), b"400"),
        (b"GET /" + b"x" * MAX_HEAD, b"414"),
        (REQUEST + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 4000) for i in range(8)), b"431"),
        (REQUEST + b"X: " + b"y" * MAX_HEAD, b"431"),
    ],
)
def test_garbage_is_refused_and_others_get_in(sent: bytes, status: bytes) -> None:
    async def main() -> None:
        async with stranger_at("ws://127.0.0.1:0/only") as (stranger, accepted, listener):
            stranger.writer.write(sent.replace(b"GET / HTTP/1.1\r\nHost", b"GET /only HTTP/1.1\r\nHost"))
            answer = await stranger.reader.read()
            # Before version 17 the library ended some of these without a word.
            silent = status in (b"", b"405", b"414", b"431")
            assert answer.startswith(b"HTTP/1.1 " + (status or b"?")) or (silent and answer == b"")
            assert accepted.empty()
            (await dial(listener.urls[0])).abort()
            (await accepted.get()).abort()

    on_sockets(main())


@pytest.mark.parametrize("said", [b"", b"GET / HTT", REQUEST])
def test_whoever_never_finishes_the_upgrade_is_ended(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(websocket, "UPGRADE_TIMEOUT", 0.02)
        async with stranger_at() as (stranger, accepted, _listener):
            stranger.writer.write(said)
            assert await stranger.reader.read() == b""
            assert accepted.empty()

    on_sockets(main())


def test_whoever_hangs_up_in_the_upgrade_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with stranger_at() as (stranger, accepted, listener):
            stranger.writer.write(b"GET / HTTP/1.1\r\n")
            stranger.writer.write_eof()
            assert await stranger.reader.read() == b""
            assert accepted.empty()
            assert not listener._upgrades  # type: ignore[attr-defined]

    on_sockets(main())


def test_a_flood_of_silent_strangers_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(websocket, "MAX_OF_A_SOURCE", 5)
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        listener = await listen("ws://127.0.0.1:0", accepted.put_nowait)
        silent = [socket.create_connection(("127.0.0.1", port_of(listener.urls[0]))) for _ in range(50)]
        (await dial(listener.urls[0])).abort()
        (await accepted.get()).abort()
        gone = 0
        for sock in silent:  # by lot
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                gone += sock.recv(1) == b""
        assert gone >= 45  # its source has half of the places
        assert len(listener._upgrades) <= 5  # type: ignore[attr-defined]
        await listener.close()
        for sock in silent:
            sock.close()

    on_sockets(main())


@pytest.mark.parametrize(
    ("sent", "error", "code"),
    [
        (frame(1, b"text"), TextMessageError, 1003),
        (frame(2, b"some") + frame(1, b"text"), TextMessageError, 1003),
        (frame(1, b"te", fin=False) + frame(0, b"xt"), TextMessageError, 1003),
        (frame(2, bytes(MAX_MESSAGE + 1)), MessageSizeError, 1009),
        (frame(2, bytes(MAX_MESSAGE), fin=False) + frame(0, b"x"), MessageSizeError, 1009),
        (frame(2, b"x", mask=False), WebSocketError, 1002),
        (frame(0, b"of what?"), WebSocketError, 1002),
        (frame(0x42, b"reserved bit"), WebSocketError, 1002),
        (frame(3, b"no such opcode"), WebSocketError, 1002),
        (frame(9, bytes(126)), WebSocketError, 1002),
        (frame(8, b"\x03"), WebSocketError, 1002),
    ],
)  # fmt: skip
def test_broken_frames_lose_the_carrier_by_name(sent: bytes, error: type[WebSocketError], code: int) -> None:
    async def main() -> None:
        async with stranger_at() as (stranger, accepted, _listener):
            await stranger.upgraded()
            end = CarrierEnd(await accepted.get()).start()
            stranger.writer.write(frame(2, b"fine, ") + sent)
            lost = await end.until_lost()
            assert type(lost) is error
            assert end.recorder.received[:6] == b"fine, "
            assert not end.write(b"x")
            answer = await stranger.reader.read()
            assert answer[0] == 0x88
            assert int.from_bytes(answer[2:4], "big") == code

    on_sockets(main())


def test_messages_of_every_size_up_to_a_mebibyte_are_taken_and_empty_ones_skipped() -> None:
    async def main() -> None:
        async with stranger_at() as (stranger, accepted, _listener):
            await stranger.upgraded()
            end = CarrierEnd(await accepted.get()).start()
            largest = bytes(range(256)) * (MAX_MESSAGE // 256)
            parts = frame(2, largest[:-1], fin=False) + frame(0, b"", fin=False) + frame(0, largest[-1:])
            stranger.writer.write(frame(2, b"") + frame(2, largest) + frame(2, b"") + parts + frame(2, b"x"))
            await end.until_received(largest + largest + b"x")
            end.abort()

    on_sockets(main())


def test_nothing_is_asked_for_beside_the_websocket_and_nothing_is_taken() -> None:
    offers = b"Sec-WebSocket-Protocol: dtp, chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
    dialled: list[bytes] = []

    async def note(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.append(head.lower())
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    async def main() -> None:
        async with stranger_at() as (stranger, accepted, _listener):
            stranger.writer.write(REQUEST + offers + b"\r\n")
            head = (await stranger.head()).lower()
            assert head.startswith(b"http/1.1 101 ")
            assert b"sec-websocket-protocol" not in head
            assert b"sec-websocket-extensions" not in head
            end = CarrierEnd(await accepted.get()).start()
            for size in (1, 64 * 1024, 3 * MAX_MESSAGE):
                end.write(bytes(size))
                left = size
                while left:
                    first, length = await stranger.reader.readexactly(2)
                    assert first == 0x82  # one whole binary message after the other
                    if length >= 126:
                        length = int.from_bytes(await stranger.reader.readexactly(2 if length == 126 else 8))
                    assert 0 < length <= MAX_MESSAGE
                    left -= len(await stranger.reader.readexactly(length))
            end.abort()
        async with server_that(note) as url:
            with pytest.raises(CarrierError, match="404"):
                await dial(url)
        assert b"sec-websocket-key" in dialled[0]
        assert b"sec-websocket-protocol" not in dialled[0]
        assert b"sec-websocket-extensions" not in dialled[0]

    on_sockets(main())


def test_an_end_without_the_closing_handshake_is_an_error() -> None:
    async def main() -> None:
        async with stranger_at() as (stranger, accepted, _listener):
            await stranger.upgraded()
            end = CarrierEnd(await accepted.get()).start()
            stranger.writer.write(frame(2, b"cut"))
            stranger.writer.write_eof()
            lost = await end.until_lost()
            assert type(lost) is WebSocketError
            assert "without the closing handshake" in str(lost)
            assert end.recorder.received == b"cut"

    on_sockets(main())


def test_pings_are_answered() -> None:
    async def main() -> None:
        async with stranger_at() as (stranger, accepted, _listener):
            await stranger.upgraded()
            end = CarrierEnd(await accepted.get()).start()
            stranger.writer.write(frame(9, b"are you there?"))
            assert await stranger.reader.readexactly(16) == frame(10, b"are you there?", mask=False)
            end.abort()

    on_sockets(main())


@given(st.lists(st.integers(0, 400), max_size=30), st.randoms(use_true_random=False))
def test_frames_may_come_in_any_split(lengths: list[int], rng) -> None:
    payloads = [rng.randbytes(length) for length in lengths]
    stream = b"".join(
        frame(9, b"p") * rng.randrange(2) + frame(2, payload[: len(payload) // 2], fin=False)
        + frame(0, payload[len(payload) // 2 :])
        for payload in payloads
    )  # fmt: skip

    async def main() -> None:
        below, far = memory.pair(back=MemoryLink(chunks=[rng.randrange(1, 50) for _ in range(5)]))
        peer = CarrierEnd(far).start()
        end = CarrierEnd(server_carrier(below)).start()
        peer.write(stream)
        await end.until_received(b"".join(payloads))
        peer.write(frame(8, b""))
        assert await end.until_lost() is None

    run(main())


# What only happens with time, over memory and on the virtual clock.


def server_carrier(below: Carrier) -> WebSocketCarrier:
    protocol = ServerProtocol(state=State.OPEN, max_size=MAX_MESSAGE)
    return WebSocketCarrier(below, protocol, early=b"", source="memory", remote="memory:")


def client_carrier(below: Carrier, early: bytes = b"") -> WebSocketCarrier:
    protocol = ClientProtocol(parse_uri("ws://x/"), state=State.OPEN, max_size=MAX_MESSAGE)
    return WebSocketCarrier(below, protocol, early=early, source="memory", remote="memory:")


def test_an_idle_connection_is_kept_open_by_pings() -> None:
    async def main() -> None:
        below, far = memory.pair()
        end, peer = CarrierEnd(server_carrier(below)).start(), CarrierEnd(client_carrier(far)).start()
        await asyncio.sleep(10 * PING_TIMEOUT)
        end.write(b"still there")
        await peer.until_received(b"still there")
        end.close()
        assert await peer.until_lost() is None
        assert await end.until_lost() is None

    run(main())


def test_a_silent_peer_is_given_up() -> None:
    async def main() -> float:
        below, far = memory.pair()
        peer = CarrierEnd(far).start()
        end = CarrierEnd(server_carrier(below)).start()
        lost = await end.until_lost_within(1e4)
        assert isinstance(lost, PingTimeoutError)
        assert peer.recorder.received == frame(9, b"", mask=False) * 3
        return asyncio.get_running_loop().time()

    assert PING_TIMEOUT <= run(main()) <= PING_TIMEOUT + PING_INTERVAL


def test_a_peer_that_does_not_read_is_not_silent_by_that() -> None:
    async def main() -> None:
        below, far = memory.pair(MemoryLink(capacity=1000))
        end = CarrierEnd(server_carrier(below)).start()
        assert not end.write(bytes(2000))
        await asyncio.sleep(10 * PING_TIMEOUT)
        assert not end.recorder.ended
        peer = CarrierEnd(client_carrier(far)).start()
        await peer.until_received(bytes(2000))
        await end.wait_until(lambda: end.recorder.writable == 1, "carrier_writable")
        end.abort()
        await peer.until_lost()

    run(main())


def test_pings_without_reading_the_answers_lose_the_carrier() -> None:
    async def main() -> None:
        below, far = memory.pair(MemoryLink(capacity=1000))
        end = CarrierEnd(server_carrier(below)).start()
        assert not end.write(bytes(2000))
        for _ in range(200):  # far has not started: it reads nothing
            far.write(memoryview(frame(9, bytes(125))))
        assert isinstance(await end.until_lost(), ControlFloodError)
        far.abort()

    run(main())


def test_small_frames_are_read_few_at_a_time() -> None:
    """Each takes as long to parse as a large one, and nobody else has a turn before all are."""

    async def main() -> None:
        below, far = memory.pair()
        CarrierEnd(carrier := server_carrier(below)).start()
        rooms = []

        def read(data: bytes) -> bytes:
            room = carrier.carrier_buffer()
            rooms.append(len(room))
            part = data[: len(room)]
            room[: len(part)] = part
            carrier.carrier_received(len(part))
            return data[len(part) :]

        endless = frame(2, bytes(200_000))
        end, endless = endless[-10:], endless[:-10]
        while endless:
            endless = read(endless)
        assert set(rooms) == {LEAST_READ}
        bulk = end + frame(2, bytes(3000)) * 300
        while bulk:
            bulk = read(bulk)
        assert rooms == sorted(rooms)
        assert (rooms[0], rooms[-1]) == (LEAST_READ, READ_SIZE)
        read(frame(2, bytes(100)))  # one by itself says nothing
        read(frame(2, b"") * 100)
        read(frame(2, bytes(100)))
        read(frame(2, b""))
        assert rooms[-3:] == [READ_SIZE, LEAST_READ, LEAST_READ]
        far.abort()

    run(main())


@pytest.mark.parametrize("carrier", [server_carrier, client_carrier])
def test_a_closing_handshake_that_is_never_answered_ends_after_the_linger(
    carrier: Callable[[Carrier], WebSocketCarrier],
) -> None:
    async def main() -> float:
        below, far = memory.pair()
        CarrierEnd(far).start()
        end = CarrierEnd(carrier(below)).start()
        end.close()
        assert await end.until_lost() is None
        return asyncio.get_running_loop().time()

    assert run(main()) == LINGER


@pytest.mark.parametrize("said", [frame(1, b"text"), frame(8, b"x"), frame(2, b"x", mask=False)])
def test_who_breaks_the_protocol_and_stays_is_left_after_a_second(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner has let it go by then and counts it no more: each would hold a descriptor for as long as an honest
    one that is closed. What it is told can be read before."""

    async def main() -> None:
        below, far = memory.pair()
        loop, ended = asyncio.get_running_loop(), []
        abort = below.abort
        monkeypatch.setattr(below, "abort", lambda: (ended.append(loop.time()), abort()))
        peer = CarrierEnd(far).start()
        end = CarrierEnd(server_carrier(below)).start()
        far.pause_reading()
        peer.write(said)
        assert isinstance(await end.until_lost(), WebSocketError)
        assert loop.time() < 0.1
        await asyncio.sleep(LINGER)
        assert ended == [pytest.approx(websocket_carrier.FAULT_LINGER, abs=0.1)]
        far.abort()

    run(main())


def test_a_server_that_says_close_and_stays_is_left_after_the_linger() -> None:
    async def main() -> float:
        below, far = memory.pair()
        peer = CarrierEnd(far).start()
        end = CarrierEnd(client_carrier(below)).start()
        peer.write(frame(8, struct.pack("!H", 1001), mask=False))
        assert await end.until_lost() is None
        assert not end.write(b"x")
        return asyncio.get_running_loop().time()

    assert run(main()) == LINGER


def test_what_came_with_the_handshake_comes_first_and_not_before_start() -> None:
    async def main() -> None:
        below, far = memory.pair()
        peer = CarrierEnd(far).start()
        end = CarrierEnd(client_carrier(below, early=frame(2, b"first ", mask=False)))
        peer.write(frame(2, b"second", mask=False))
        await asyncio.sleep(1)
        assert not end.recorder.received
        end.start()
        assert not end.recorder.received
        await end.until_received(b"first second")
        end.abort()
        await peer.until_lost()

    run(main())
