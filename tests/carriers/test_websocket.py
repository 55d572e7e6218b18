"""WebSocket carriers against honest strangers, hostile ones, proxies, and the passing of time."""

import asyncio
import base64
import hashlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loops import LoopFactory, on_every_loop
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from dtp.carriers import Carrier, CarrierListener, dial, listen, memory, websocket, websocket_carrier
from dtp.carriers.errors import (
    CarrierUrlError,
    ControlFloodError,
    DialError,
    HeadSizeError,
    MessageSizeError,
    PingTimeoutError,
    TextMessageError,
    TlsError,
    UpgradeError,
    UpgradeTimeoutError,
    WebSocketError,
)
from dtp.carriers.memory import Link
from dtp.carriers.websocket_carrier import MAX_MESSAGE, PING_INTERVAL, PING_TIMEOUT, WebSocketCarrier
from dtp.carriers.websocket_upgrade import MAX_HEAD, forwarded_for
from dtp.errors import DtpError
from dtp.testing.carriers import End
from dtp.testing.clock import run

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
)


def on_sockets(main, loop_factory: LoopFactory = asyncio.SelectorEventLoop) -> None:
    run(main, loop_factory=loop_factory)


def frame(opcode: int, payload: bytes, *, fin: bool = True, mask: bool = True) -> bytes:
    """A WebSocket frame written by hand (RFC 6455, 5.2), masked with zeros."""
    length = len(payload)
    head = bytes([opcode | (0x80 if fin else 0)])
    masked = 0x80 if mask else 0
    if length < 126:
        head += bytes([masked | length])
    elif length < 65536:
        head += bytes([masked | 126]) + struct.pack("!H", length)
    else:
        head += bytes([masked | 127]) + struct.pack("!Q", length)
    return head + (bytes(4) if mask else b"") + payload


def accept_key(key: str) -> str:
    return base64.b64encode(
        hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    ).decode()


def port_of(url: str) -> int:
    return int(url.split("/")[2].rpartition(":")[2])


class Stranger:
    """A plain TCP connection to a listener, written and read by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def upgraded(self) -> None:
        self.writer.write(REQUEST + b"\r\n")
        assert (await self.head()).startswith(b"HTTP/1.1 101 ")


@asynccontextmanager
async def stranger_at(
    url: str = "ws://127.0.0.1:0",
) -> AsyncIterator[tuple[Stranger, asyncio.Queue[Carrier], CarrierListener]]:
    """A listener, what it accepts, and somebody connected to it by TCP who has said nothing yet."""
    accepted: asyncio.Queue[Carrier] = asyncio.Queue()
    all_accepted: list[Carrier] = []

    def accept(carrier: Carrier) -> None:
        all_accepted.append(carrier)
        accepted.put_nowait(carrier)

    listener = await listen(url, accept)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(listener.urls[0]))
    try:
        yield Stranger(reader, writer), accepted, listener
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        await listener.close()
        for carrier in all_accepted:
            carrier.abort()
            carrier._below.abort()  # one that has failed still sends its last words


@asynccontextmanager
async def server_that(
    answer: Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A TCP server that reads an HTTP head and then does `answer(head, reader, writer)`; its URL."""
    writers: list[asyncio.StreamWriter] = []
    tasks: list[asyncio.Task[None] | None] = []

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        tasks.append(asyncio.current_task())
        # The client may leave at any time.
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await answer(await reader.readuntil(b"\r\n\r\n"), reader, writer)
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(task for task in tasks if task is not None))


# Honest strangers: the library's own client and server, which share no IO code with the carrier.


@on_every_loop
def test_the_librarys_client_talks_to_a_listener(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        listener = await listen("ws://127.0.0.1:0/here", accepted.put_nowait)
        async with connect(listener.urls[0], proxy=None) as client:  # offers compression, which isn't taken
            end = End(await accepted.get()).start()
            await client.send(b"to the carrier " * 1000)
            await end.until_received(b"to the carrier " * 1000)
            await client.send([b"in ", b"frag", b"ments"])
            await end.until_received(b"to the carrier " * 1000 + b"in fragments")
            end.write(b"back" * 50_000)
            got = b""
            while len(got) < 200_000:
                got += await client.recv()
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
            end = End(await dial(f"ws://127.0.0.1:{port}/a%20path?token=x%26y&proxy=none&empty=")).start()
            data = bytes(range(256)) * 2000
            await end.send(data)
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
                end = End(await dial(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")).start()
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
            assert not listener._upgrades

    on_sockets(main())


def test_a_flood_of_silent_strangers_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(websocket, "MAX_UPGRADES", 10)
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        listener = await listen("ws://127.0.0.1:0", accepted.put_nowait)
        silent = [socket.create_connection(("127.0.0.1", port_of(listener.urls[0]))) for _ in range(50)]
        (await dial(listener.urls[0])).abort()
        (await accepted.get()).abort()
        for sock in silent[:40]:  # the oldest had to go
            assert sock.recv(1) == b""
        assert len(listener._upgrades) <= 10
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
            end = End(await accepted.get()).start()
            stranger.writer.write(frame(2, b"fine, ") + sent)
            lost = await end.until_lost()
            assert type(lost) is error
            assert end.recorder.received[:6] == b"fine, "
            assert not end.write(b"x")
            answer = await stranger.reader.read()
            assert answer[0] == 0x88
            assert int.from_bytes(answer[2:4], "big") == code

    on_sockets(main())


def test_an_end_without_the_closing_handshake_is_an_error() -> None:
    async def main() -> None:
        async with stranger_at() as (stranger, accepted, _listener):
            await stranger.upgraded()
            end = End(await accepted.get()).start()
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
            end = End(await accepted.get()).start()
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
        below, far = memory.pair(back=Link(chunks=[rng.randrange(1, 50) for _ in range(5)]))
        peer = End(far).start()
        end = End(server_carrier(below)).start()
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
        end, peer = End(server_carrier(below)).start(), End(client_carrier(far)).start()
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
        peer = End(far).start()
        end = End(server_carrier(below)).start()
        lost = await end.until_lost_within(1e4)
        assert isinstance(lost, PingTimeoutError)
        assert peer.recorder.received == frame(9, b"", mask=False) * 3
        return asyncio.get_running_loop().time()

    assert PING_TIMEOUT <= run(main()) <= PING_TIMEOUT + PING_INTERVAL


def test_a_peer_that_does_not_read_is_not_silent_by_that() -> None:
    async def main() -> None:
        below, far = memory.pair(Link(capacity=1000))
        end = End(server_carrier(below)).start()
        assert not end.write(bytes(2000))
        await asyncio.sleep(10 * PING_TIMEOUT)
        assert not end.recorder.ended
        peer = End(client_carrier(far)).start()
        await peer.until_received(bytes(2000))
        await end.until(lambda: end.recorder.writable == 1, "carrier_writable")
        end.abort()
        await peer.until_lost()

    run(main())


def test_pings_without_reading_the_answers_lose_the_carrier() -> None:
    async def main() -> None:
        below, far = memory.pair(Link(capacity=1000))
        end = End(server_carrier(below)).start()
        assert not end.write(bytes(2000))
        for _ in range(200):  # far has not started: it reads nothing
            far.write(memoryview(frame(9, bytes(125))))
        assert isinstance(await end.until_lost(), ControlFloodError)
        far.abort()

    run(main())


@pytest.mark.parametrize("carrier", [server_carrier, client_carrier])
def test_a_closing_handshake_that_is_never_answered_ends_after_the_linger(
    carrier: Callable[[Carrier], WebSocketCarrier],
) -> None:
    async def main() -> float:
        below, far = memory.pair()
        End(far).start()
        end = End(carrier(below)).start()
        end.close()
        assert await end.until_lost() is None
        return asyncio.get_running_loop().time()

    assert run(main()) == websocket_carrier.LINGER


def test_a_server_that_says_close_and_stays_is_left_after_the_linger() -> None:
    async def main() -> float:
        below, far = memory.pair()
        peer = End(far).start()
        end = End(client_carrier(below)).start()
        peer.write(frame(8, struct.pack("!H", 1001), mask=False))
        assert await end.until_lost() is None
        assert not end.write(b"x")
        return asyncio.get_running_loop().time()

    assert run(main()) == websocket_carrier.LINGER


def test_what_came_with_the_handshake_comes_first_and_not_before_start() -> None:
    async def main() -> None:
        below, far = memory.pair()
        peer = End(far).start()
        end = End(client_carrier(below, early=frame(2, b"first ", mask=False)))
        peer.write(frame(2, b"second", mask=False))
        await asyncio.sleep(1)
        assert not end.recorder.received
        end.start()
        assert not end.recorder.received
        await end.until_received(b"first second")
        end.abort()
        await peer.until_lost()

    run(main())


# Hostile servers.


@pytest.mark.parametrize(
    ("answer", "error", "match"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", UpgradeError, r"HTTP/1\.1 200 OK"),
        (b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", UpgradeError, "404"),
        (b"HTTP/1.1 302 Found\r\nLocation: ws://elsewhere/\r\nContent-Length: 0\r\n\r\n", UpgradeError, "302"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n" + b"x" * 200_000, UpgradeError, "more than 65536 bytes of text"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         b"Sec-WebSocket-Accept: AAAA\r\n\r\n", UpgradeError, "Sec-WebSocket-Accept"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", UpgradeError, "valid HTTP response"),
        (b"HTTP/1.1 101 X\r\n" + (b"X: " + b"y" * 4000 + b"\r\n") * 8, HeadSizeError, "more than 16384 bytes"),
        (None, UpgradeError, "ended after 0 bytes"),
    ],
)  # fmt: skip
def test_servers_that_are_no_websocket_are_refused(
    answer: bytes | None, error: type[UpgradeError], match: str
) -> None:
    async def respond(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is None:
            writer.write_eof()
        else:
            writer.write(answer)

    async def main() -> None:
        async with server_that(respond) as url:
            with pytest.raises(error, match=match) as caught:
                await dial(url)
            assert type(caught.value) is error
            assert url in str(caught.value)

    on_sockets(main())


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silence(_head: bytes, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> None:
        monkeypatch.setattr(websocket, "UPGRADE_TIMEOUT", 0.02)
        async with server_that(silence) as url:
            with pytest.raises(UpgradeTimeoutError):
                await dial(url)

    on_sockets(main())


def test_frames_in_the_same_read_as_the_answer_are_kept() -> None:
    async def respond(head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key = next(line for line in head.decode().split("\r\n") if line.startswith("Sec-WebSocket-Key: "))
        writer.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept_key(key.partition(' ')[2])}\r\n\r\n".encode()
            + frame(2, b"early bird", mask=False)
        )

    async def main() -> None:
        async with server_that(respond) as url:
            end = End(await dial(url)).start()
            await end.until_received(b"early bird")
            end.abort()

    on_sockets(main())


def test_a_port_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(DialError, match="refused"):
        on_sockets(dial(f"ws://127.0.0.1:{port}"))


# TLS.


@asynccontextmanager
async def secure_listener(certificates) -> AsyncIterator[tuple[str, asyncio.Queue[Carrier]]]:
    accepted: asyncio.Queue[Carrier] = asyncio.Queue()
    keys = f"?cert={certificates.server}&key={certificates.server}"
    listener = await listen(f"wss://127.0.0.1:0/{keys}", accepted.put_nowait)
    try:
        yield listener.urls[0], accepted
    finally:
        await listener.close()


def test_a_certificate_is_verified(certificates) -> None:
    async def main() -> None:
        async with secure_listener(certificates) as (url, accepted):
            for untrusted in (url, f"{url}?ca={certificates.other_ca}"):
                with pytest.raises(TlsError, match="certificate verify failed"):
                    await dial(untrusted)
            with pytest.raises(TlsError, match="certificate is not valid for 'localhost'"):
                await dial(f"{url.replace('127.0.0.1', 'localhost')}?ca={certificates.ca}")
            assert accepted.empty()
            near = await dial(f"{url}?ca={certificates.ca}")
            far = await accepted.get()
            assert near.scheme == far.scheme == "wss"
            near.abort(), far.abort()

    on_sockets(main())


def test_a_plain_stranger_at_a_tls_listener_is_ended(certificates) -> None:
    async def main() -> None:
        async with secure_listener(certificates) as (url, accepted):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
            writer.write(REQUEST + b"\r\n")
            try:
                answer = await reader.read()  # an alert at most
            except ConnectionResetError:
                answer = b""
            assert b"HTTP" not in answer
            assert accepted.empty()
            writer.close()
            with pytest.raises(DialError):
                await dial(url.replace("wss:", "ws:"))

    on_sockets(main())


def test_a_tls_client_at_a_plain_listener_is_refused(certificates) -> None:
    async def main() -> None:
        listener = await listen("ws://127.0.0.1:0", lambda _carrier: None)
        with pytest.raises(DialError):
            await dial(f"{listener.urls[0].replace('ws:', 'wss:')}?ca={certificates.ca}")
        await listener.close()

    on_sockets(main())


def test_tls_older_than_1_2_is_refused(certificates) -> None:
    async def main() -> None:
        async with secure_listener(certificates) as (url, _accepted):
            context = ssl.create_default_context(cafile=certificates.ca)
            context.set_ciphers("ALL:@SECLEVEL=0")
            with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
                context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await asyncio.open_connection("127.0.0.1", port_of(url), ssl=context)

    on_sockets(main())


def test_files_that_are_no_certificates(certificates, tmp_path) -> None:
    (tmp_path / "empty").touch()
    for wrong in ("missing", "empty"):
        with pytest.raises(CarrierUrlError, match="is not a PEM file"):
            on_sockets(dial(f"wss://127.0.0.1:1?ca={tmp_path}/{wrong}"))
        with pytest.raises(CarrierUrlError, match="can't be used"):
            on_sockets(listen(f"wss://127.0.0.1:0?cert={tmp_path}/{wrong}", lambda _carrier: None))
    with pytest.raises(CarrierUrlError, match="can't be used"):  # a certificate without a key
        on_sockets(listen(f"wss://127.0.0.1:0?cert={certificates.ca}", lambda _carrier: None))


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("ws://", "takes a host"), ("ws:///path", "takes a host"), ("ws://h?ca=/x", "ws is not encrypted"),
        ("ws://h?proxy=socks5://p:1", "http://host:port"), ("ws://h?proxy=http://p:x", "no usable port"),
        ("ws://h#x", "fragment"), ("ws://u:p@h", "user part"),
    ],
)  # fmt: skip
def test_urls_that_cannot_be_dialled(url: str, match: str) -> None:
    with pytest.raises(CarrierUrlError, match=match):
        on_sockets(dial(url))


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("wss://127.0.0.1:0", "takes cert="), ("ws://127.0.0.1:0?cert=/x", "unknown option 'cert'"),
        ("ws://127.0.0.1", "a port is missing"), ("ws://127.0.0.1:0?trust_forwarded=2", "trust_forwarded=1"),
    ],
)  # fmt: skip
def test_urls_that_cannot_be_listened_at(url: str, match: str) -> None:
    with pytest.raises(CarrierUrlError, match=match):
        on_sockets(listen(url, lambda _carrier: None))


# Proxies.


@pytest.mark.parametrize(
    ("option", "source"),
    [("", "127.0.0.1"), ("?trust_forwarded=1", "2001:db8::1")],
    ids=["not trusted", "trusted"],
)
def test_forwarded_addresses_count_only_when_asked_for(option: str, source: str) -> None:
    async def main() -> None:
        async with stranger_at(f"ws://127.0.0.1:0{option}") as (stranger, accepted, _listener):
            stranger.writer.write(
                REQUEST + b"X-Forwarded-For: 10.1.1.1\r\nX-Forwarded-For: 10.2.2.2, 2001:db8::1\r\n\r\n"
            )
            assert (await stranger.head()).startswith(b"HTTP/1.1 101 ")
            carrier = await accepted.get()
            assert carrier.source == source
            carrier.abort()

    on_sockets(main())


@pytest.mark.parametrize(
    ("headers", "address"),
    [([], None), (["10.0.0.1"], "10.0.0.1"), (["a", "b, 10.0.0.2 "], "10.0.0.2"), (["10.0.0.1, unknown"], None),
     ([""], None), (["10.0.0.1:80"], None)],
)  # fmt: skip
def test_the_last_forwarded_address_is_the_one(headers: list[str], address: str | None) -> None:
    assert forwarded_for(headers) == address


def test_nginx_tells_the_address_of_the_client(nginx) -> None:
    async def main() -> None:
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        listener = await listen("ws://127.0.0.1:0/?trust_forwarded=1", accepted.put_nowait)
        near = End(await dial(nginx.through(listener.urls[0]))).start()
        far = End(await accepted.get()).start()
        assert far.carrier.source == "127.0.0.1"
        near.write(b"through nginx")
        await far.until_received(b"through nginx")
        near.close()
        assert await near.until_lost() is None
        assert await far.until_lost() is None
        await listener.close()

    on_sockets(main())


def test_nginx_without_a_listener_behind_it_is_a_refusal(nginx) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(UpgradeError, match="502"):
        on_sockets(dial(nginx.through(f"ws://127.0.0.1:{port}/")))


@asynccontextmanager
async def connect_proxy(credentials: str = "") -> AsyncIterator[tuple[str, list[bytes]]]:
    """An HTTP proxy that only knows CONNECT; its URL, and the requests it got."""
    requests: list[bytes] = []

    async def answer(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(head)
        wanted = f"Proxy-Authorization: Basic {base64.b64encode(credentials.encode()).decode()}".encode()
        if credentials and wanted not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        host, _, port = head.split()[1].decode().rpartition(":")
        up_reader, up_writer = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.write(b"HTTP/1.0 200 Connection established\r\nVia: test\r\n\r\n")
        await asyncio.gather(_pump(reader, up_writer), _pump(up_reader, writer))

    async with server_that(answer) as url:
        yield url.replace("ws:", "http:"), requests


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@pytest.mark.parametrize("secure", [False, True])
def test_an_http_proxy_is_dialled_through(secure: bool, certificates) -> None:
    async def main() -> None:
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        keys = f"?cert={certificates.server}&key={certificates.server}" if secure else ""
        listener = await listen(f"{'wss' if secure else 'ws'}://127.0.0.1:0/{keys}", accepted.put_nowait)
        url = listener.urls[0]
        async with connect_proxy("me:a secret") as (proxy, requests):
            proxy_option = proxy.replace("//", "//me:a%2520secret@")
            trust = f"&ca={certificates.ca}" if secure else ""
            near = End(await dial(f"{url}?proxy={proxy_option}{trust}")).start()
            far = End(await accepted.get()).start()
            assert requests[0].startswith(f"CONNECT 127.0.0.1:{port_of(url)} HTTP/1.1\r\n".encode())
            await near.send(b"through the proxy" * 1000)
            await far.until_received(b"through the proxy" * 1000)
            near.close()
            assert await far.until_lost() is None
            assert await near.until_lost() is None
            with pytest.raises(UpgradeError, match="407"):
                await dial(f"{url}?proxy={proxy}{trust}")
        await listener.close()

    on_sockets(main())


@pytest.mark.parametrize(
    "url",
    ["ws://127.0.0.1:1?proxy=http://u:secret@127.0.0.1:1", "ws://h?proxy=http://u:secret@p:x",
     "ws://h?proxy=ftp://u:secret@p", "ws://h?ca=x&proxy=http://u:secret@p", "ws://u:secret@h"],
)  # fmt: skip
def test_no_message_tells_a_password(url: str) -> None:
    with pytest.raises(DtpError) as caught:
        on_sockets(dial(url))
    assert "secret" not in str(caught.value)


def test_the_environment_names_the_proxy_but_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async def refuse(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 403 Not there\r\n\r\n")

        async with server_that(refuse) as proxy_url, stranger_at() as (_stranger, accepted, listener):
            monkeypatch.setenv("https_proxy", proxy_url.replace("ws:", "http:"))
            for url in ("ws://a.invalid", "wss://a.invalid:9/x"):
                with pytest.raises(UpgradeError, match=r"did not connect to a\.invalid:.*403 Not there"):
                    await dial(url)
            with pytest.raises(DialError, match="can't be resolved"):
                await dial("ws://a.invalid?proxy=none")
            monkeypatch.setenv("no_proxy", "a.invalid")
            with pytest.raises(DialError, match="can't be resolved"):
                await dial("ws://a.invalid")
            (await dial(listener.urls[0])).abort()
            (await accepted.get()).abort()

    on_sockets(main())
