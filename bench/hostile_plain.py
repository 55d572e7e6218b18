"""The control of `bench.hostile`: the same attacks over plain TCP, against a plain server of asyncio.

What it makes a visitor wait is what the machine costs, with as many processes that want its processors: an echo and
a pouring, or a proxy of HTTP by h11, as anybody would write them, without identities, encryption, rules or fairness.
A ratio to it says what is the listener's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import time
from collections.abc import AsyncIterator
from typing import Any

import h11

from bench.hostile_http import ANSWER_END, ASKED, STREAMS, input_ended

#: Bytes that are poured at once.
_MUCH = bytes(1 << 20)
#: A round trip or a newcomer that takes longer is given up.
GIVE_UP = 5.0
_HOST = "127.0.0.1"
#: The attacks that can be made without the protocol.
ATTACKS = ("honest and busy", "memory holders", "HTTP given up", "busy HTTP, one caller", "busy HTTP")

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


async def _echo(reader: Reader, writer: Writer) -> None:
    """Echo what comes; who says "p" first has as much poured over it as it takes."""
    with contextlib.closing(writer), contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            while data == b"p":
                writer.write(_MUCH)
                await writer.drain()
            await writer.drain()


async def _event(http: h11.Connection, reader: Reader) -> Any:
    """What comes next of one side."""
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await reader.read(65536))
    return event


async def _proxy(reader: Reader, writer: Writer, port: int) -> None:
    """Pass requests on to the backend at `port`, and their answers back."""
    client = h11.Connection(h11.SERVER)
    back_reader, back_writer = await asyncio.open_connection(_HOST, port)
    quiet = contextlib.suppress(OSError, h11.RemoteProtocolError, h11.LocalProtocolError)
    with contextlib.closing(writer), contextlib.closing(back_writer), quiet:
        while True:
            backend = h11.Connection(h11.CLIENT)
            while not isinstance(event := await _event(client, reader), h11.EndOfMessage):
                if isinstance(event, h11.ConnectionClosed):
                    return
                back_writer.write(backend.send(event) or b"")
            back_writer.write(backend.send(event) or b"")
            while not isinstance(event := await _event(backend, back_reader), h11.EndOfMessage):
                writer.write(client.send(event) or b"")
            writer.write(client.send(event) or b"")
            await writer.drain()
            client.start_next_cycle()


def _take_all_descriptors() -> None:
    """A stream of an attacker is a connection here, and two of the server's."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def serve(port: int) -> None:
    """Serve, before the backend at `port` if there is one; prints its own, and ends with the standard input."""
    _take_all_descriptors()

    async def take(reader: Reader, writer: Writer) -> None:
        await (_proxy(reader, writer, port) if port else _echo(reader, writer))

    server = await asyncio.start_server(take, _HOST, 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, input_ended)
    os._exit(0)


@contextlib.asynccontextmanager
async def _connected(port: int) -> AsyncIterator[tuple[Reader, Writer]]:
    reader, writer = await asyncio.open_connection(_HOST, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _ask(reader: Reader, writer: Writer, *, http: bool) -> None:
    """One round trip: of 64 bytes, or a request of HTTP."""
    writer.write(ASKED if http else bytes(64))
    await (reader.readuntil(ANSWER_END) if http else reader.readexactly(64))


async def visit(port: int, until: float, *, http: bool) -> list[float]:
    """Return the seconds of round trips over one connection; begins anew when that ends."""
    times: list[float] = []
    while time.monotonic() < until:
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            async with _connected(port) as (reader, writer):
                while (began := time.monotonic()) < until:
                    async with asyncio.timeout(GIVE_UP):
                        await _ask(reader, writer, http=http)
                    times.append(time.monotonic() - began)
                    await asyncio.sleep(0.001)
    return times


async def _busy(reader: Reader, writer: Writer) -> None:
    while True:
        await _ask(reader, writer, http=False)


async def _hold(reader: Reader, writer: Writer) -> None:
    writer.write(b"p")
    while await reader.read(1 << 20):
        pass


async def _request(reader: Reader, writer: Writer) -> None:
    await _ask(reader, writer, http=True)


async def _give_up(reader: Reader, writer: Writer) -> None:
    writer.write(ASKED)
    await writer.drain()


_DOING = {"honest and busy": _busy, "memory holders": _hold, "HTTP given up": _give_up, "busy HTTP": _request}


async def attack(name: str, count: int, port: int) -> None:
    """Attack as so many do it over the protocol; a stream of theirs is a connection here."""
    _take_all_descriptors()
    act, streams = _DOING[name.partition(",")[0]], STREAMS if "HTTP" in name else 1

    async def one() -> None:
        while True:
            try:
                async with _connected(port) as (reader, writer):
                    await act(reader, writer)
            except (OSError, EOFError):
                await asyncio.sleep(0.05)

    await asyncio.gather(*(one() for _ in range(count * streams)))
