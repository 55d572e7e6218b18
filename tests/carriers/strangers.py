"""Whoever is at the other end of a WebSocket carrier, played by hand: raw frames, raw HTTP, raw TCP."""

import asyncio
import base64
import hashlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from loops import LoopFactory

from dtp.carriers import Carrier, CarrierListener, listen
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
            carrier._below.abort()  # type: ignore[attr-defined]  # one that has failed still sends its last words


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
