"""Who asks for much and reads nothing, of each kind of service: what is kept is bounded, and others are served.

What a backend could send is counted, not how long anything took.
"""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest
from hpack import Encoder
from hyperframe import frame as h2

from dtp.daemon.http.frames import PREFACE
from dtp.daemon.server import LIMITS

from ..conftest import Backend, Pair, Run
from ..http.test_daemon_http import expose as expose_kind
from .test_daemon_relay import exchange

#: Bytes that the sockets, windows and buffers on the way take at most: the kernel gives a socket of this machine up
#: to some 6 MiB each way, two sockets are on it, and each daemon keeps a window of its streams.
MOST = 32 * 1024 * 1024
#: What is poured at a time.
PIECE = bytes(65536)
#: Looks within which nothing more is taken: then the way is full.
STILL = 25
#: A connection's window is that of four streams.
DEAF = 3
#: So many who read nothing leave others room; and so many have all of it, by what each may have at first.
SEVERAL, CROWD = 20, 80
#: Of what a program takes, so much is to be seen.
NOTICED = 128 * 1024

HEAD = b"Host: x\r\n\r\n"
#: What the windows of HTTP/2 are opened by, as far as they go.
_WIDE = h2.SettingsFrame(0, settings={h2.SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1})
_WIDER = h2.WindowUpdateFrame(0, window_increment=2**31 - 1 - 65535)


def _call() -> bytes:
    """A call of gRPC with windows that never close."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/test.Echo/Out"), (":authority", "x"),
              ("content-type", "application/grpc"), ("te", "trailers")]  # fmt: skip
    head = h2.HeadersFrame(1, Encoder().encode(fields), flags=["END_HEADERS", "END_STREAM"])
    return PREFACE + b"".join(each.serialize() for each in (_WIDE, _WIDER, head))


def _answer_of_call() -> bytes:
    fields = [(":status", "200"), ("content-type", "application/grpc")]
    head = h2.HeadersFrame(1, Encoder().encode(fields), flags=["END_HEADERS"])
    return h2.SettingsFrame(0).serialize() + head.serialize()


_UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
_UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

#: Kind of service: what asks for much, how the answer begins, and what it goes on with.
ASKED: dict[str, tuple[bytes, bytes, bytes]] = {
    "tcp": (b"much\r\n\r\n", b"", PIECE),
    "http": (b"GET /much HTTP/1.1\r\n" + HEAD, _CHUNKED, b"%x\r\n" % len(PIECE) + PIECE + b"\r\n"),
    "json-rpc": (
        b"POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 40\r\n" + HEAD
        + b'{"jsonrpc":"2.0","id":1,"method":"much"}',
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"%x\r\n" % len(PIECE) + PIECE + b"\r\n",
    ),
    "websocket": (b"GET /much HTTP/1.1\r\n" + _UPGRADE + HEAD, _UPGRADED, b"\x82\x7f" + (65536).to_bytes(8) + PIECE),
    "grpc": (_call(), _answer_of_call(), 4 * h2.DataFrame(1, PIECE[:16384]).serialize()),
}  # fmt: skip


class Fountain:
    """A backend that answers who asks for much without end, and says `ok` to everybody else."""

    def __init__(self, start: bytes, piece: bytes) -> None:
        self._start, self._piece = start, piece
        self.poured = self.pouring = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        asked = await reader.read(65536)
        if b"much" not in asked and b"PRI *" not in asked:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            return
        writer.write(self._start)
        self.pouring += 1
        try:
            while True:
                writer.write(self._piece)
                await writer.drain()
                self.poured += len(self._piece)
        finally:
            self.pouring -= 1


async def _filled(fountain: Fountain) -> int:
    """Wait until nothing more is taken; return how much was."""
    before, still = -1, 0
    while still < STILL:
        before, now = fountain.poured, before
        still = still + 1 if before == now and fountain.pouring else 0
        await asyncio.sleep(0.01)
    return fountain.poured


def _deaf(port: int, asked: bytes, room: int | None = None) -> socket.socket:
    """A program that asks, and reads nothing; its kernel has `room` for so much, or decides itself."""
    sock = socket.socket()
    if room is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    sock.connect(("127.0.0.1", port))
    sock.sendall(asked)
    return sock


@pytest.mark.parametrize("kind", ASKED)
def test_who_reads_nothing_stops_its_backend_and_nobody_else(run: Run, kind: str) -> None:
    asked, start, piece = ASKED[kind]

    async def scenario(pair: Pair) -> None:
        fountain = Fountain(start, piece)
        async with Backend(fountain.serve) as backend:
            port = await pair.start(expose_kind(backend.port, kind=kind))
            deaf = [await asyncio.to_thread(_deaf, port, asked) for _ in range(DEAF)]
            poured = await _filled(fountain)
            assert fountain.pouring == DEAF
            assert 0 < poured < DEAF * MOST
            far, near = (max(each.governor.held().values()) for each in (pair.far, pair.near))
            assert max(far, near) < (DEAF + 1) * (LIMITS.stream_window + len(piece))
            if kind in ("tcp", "http"):
                for _ in range(3):
                    said = await exchange(port, b"GET / HTTP/1.1\r\nConnection: close\r\n" + HEAD)
                    assert said.endswith(b"\r\n\r\nok")
            else:  # a ping over the same connection is answered
                (connection,) = pair.pool.connections
                await connection.ping()
            assert fountain.poured == poured
            for each in deaf:
                each.close()
            await pair.exposed.ledger.wait_empty()
            while fountain.pouring:  # noqa: ASYNC110 - the backend hears of it by itself
                await asyncio.sleep(0.01)

    run(scenario)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a write back for that")
def test_what_a_program_takes_is_seen_while_much_waits_for_it(run: Run) -> None:
    """The kernel kept MiB for a program, and told of room again when a third of that was taken: whoever read steadily
    at 2 Mbit/s took nothing for seconds, by what was seen, and was cut off with those who read nothing."""
    asked, start, piece = ASKED["tcp"]

    async def scenario(pair: Pair) -> None:
        fountain, loop = Fountain(start, piece), asyncio.get_running_loop()
        async with Backend(fountain.serve) as backend:
            port = await pair.start(expose_kind(backend.port, kind="tcp"))
            # Else its kernel takes more and more by itself, the more it reads.
            with await asyncio.to_thread(_deaf, port, asked, 65536) as program:
                program.setblocking(False)
                await _filled(fountain)
                (session,) = pair.forwarded.ledger.open
                unread, taken = session.stream.unread, 0
                while taken < 4 * NOTICED:
                    taken += len(await loop.sock_recv(program, NOTICED))
                while session.stream.unread >= unread:  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0.01)
            await pair.exposed.ledger.wait_empty()

    run(scenario)


def test_programs_that_read_nothing_are_left_alone_while_others_have_room(run: Run) -> None:
    """Of fourteen five were cut off: those whose kernels took something first had most of the window."""
    asked, start, piece = ASKED["tcp"]

    async def scenario(pair: Pair) -> None:
        fountain = Fountain(start, piece)
        async with Backend(fountain.serve) as backend:
            port = await pair.start(expose_kind(backend.port, kind="tcp"))
            deaf = [await asyncio.to_thread(_deaf, port, asked) for _ in range(SEVERAL)]
            await _filled(fountain)
            (connection,) = pair.pool.connections
            for _ in range(3):
                said = await exchange(port, b"GET / HTTP/1.1\r\nConnection: close\r\n" + HEAD)
                assert said.endswith(b"\r\n\r\nok")
            assert connection.blocked_at is None
            assert pair.forwarded.ledger.failed == 0
            for each in deaf:
                each.close()
            await pair.exposed.ledger.wait_empty()

    run(scenario)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_a_crowd_that_reads_nothing_is_cut_off_where_others_wait_for_it(
    run: Run, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Programs that read nothing had the window of the one connection that all programs of a forward share: no
    other got a byte, for as long as they liked."""
    asked, start, piece = ASKED[kind]
    caplog.set_level("WARNING", "dtpd")

    async def scenario(pair: Pair) -> None:
        fountain = Fountain(start, piece)
        async with Backend(fountain.serve) as backend:
            port = await pair.start(expose_kind(backend.port, kind=kind))
            crowd = [await asyncio.to_thread(_deaf, port, asked) for _ in range(CROWD)]
            (connection,) = pair.pool.connections
            while not connection.blocked_at:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
            for _ in range(3):
                said = await exchange(port, b"GET / HTTP/1.1\r\nConnection: close\r\n" + HEAD)
                assert said.endswith(b"\r\n\r\nok")
            assert 0 < pair.forwarded.ledger.failed <= CROWD  # all of them on a slow machine
            assert pair.pool.connections == [connection]
            for each in crowd:
                each.close()
            await pair.exposed.ledger.wait_empty()

    run(scenario)
    assert "of the same connection: ended, with" in caplog.text
