"""What is over is freed at once, without a collection: a flood of those that come and go would fill the memory."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

import dtp
from dtp import carriers
from dtp.session.codes import CloseCode
from dtp.testing.pairs import ALICE, BOB

#: Kinds of objects of which each connection has some.
KINDS = (
    "Connection", "Stream", "Session", "SessionStream", "Link", "LinkDriver", "Sealer", "LinkOpener",
    "ServerHandshake", "ClientHandshake", "NoiseHandshake", "NoiseProtocol", "HandshakeState", "CipherState",
    "TcpCarrier", "WebSocketCarrier", "MemoryCarrier", "_Direction", "QuicCarrier", "Task", "Future", "frame",
    "traceback",
)  # fmt: skip


def alive() -> Counter[str]:
    """How many objects there are of each kind."""
    return Counter(name for each in gc.get_objects() if (name := type(each).__name__) in KINDS)


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


async def echo(connection: dtp.Connection) -> None:
    async for stream in connection:
        stream.write(await stream.read())
        stream.write_eof()


async def wait_for_end(connection: dtp.Connection) -> None:
    stream = await connection.accept_stream()
    await stream.readexactly(1 << 20)


async def leave(connection: dtp.Connection) -> None:
    (await connection.accept_stream()).write(b"x")
    connection.abort(CloseCode.LIMIT, "enough")


async def close(connection: dtp.Connection) -> None:
    async with connection, await connection.open_stream() as stream:
        stream.write(b"hello")
        stream.write_eof()
        assert await stream.read() == b"hello"


async def break_off(connection: dtp.Connection) -> None:
    stream = await connection.open_stream()
    stream.write(b"half of it")
    await stream.drain()
    connection.abort()
    await connection.wait_gone()


async def be_left(connection: dtp.Connection) -> None:
    stream = await connection.open_stream()
    stream.write(b"hello")
    with contextlib.suppress(dtp.ConnectionClosed):
        while await stream.read():
            pass
    with contextlib.suppress(dtp.ConnectionClosed):
        await connection.open_stream()
    await connection.wait_gone()


WAYS: dict[
    str, tuple[Callable[[dtp.Connection], Awaitable[None]], Callable[[dtp.Connection], Awaitable[None]]]
]
WAYS = {
    "both have said all": (echo, close),
    "the client breaks off": (wait_for_end, break_off),
    "the server breaks off": (leave, be_left),
}


@contextlib.asynccontextmanager
async def listening(
    url: str, handler: Callable[[dtp.Connection], Awaitable[None]]
) -> AsyncIterator[dtp.Listener]:
    async with await dtp.listen(url, {"": handler}, identity=BOB) as listener:
        yield listener


async def gone(listener: dtp.Listener) -> None:
    """Wait until a listener has nothing to do for anybody."""
    while listener.connections or len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - turns are what passes
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)


async def left_by(
    count: int,
    url: str,
    handler: Callable[[dtp.Connection], Awaitable[None]],
    come: Callable[[dtp.Listener], Awaitable[None]],
) -> Counter[str]:
    """Return what more there is after `come` was called so many times than after a few."""

    async with listening(url, handler) as listener:

        async def come_often(times: int) -> None:
            for _ in range(times):
                await come(listener)
            await gone(listener)

        await come_often(3)
        with no_collections():
            before = alive()
            await come_often(count)
            return alive() - before


async def left_by_way(count: int, url: str, way: str) -> Counter[str]:
    """Return what connections that end in one of `WAYS` leave."""
    handler, visit = WAYS[way]

    async def come(listener: dtp.Listener) -> None:
        with contextlib.suppress(ConnectionError, EOFError):
            await visit(await dtp.connect(listener.address(), identity=ALICE))

    return await left_by(count, url, handler, come)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "url",
    [
        "tcp://127.0.0.1:0",
        pytest.param("ws://127.0.0.1:0/x", marks=pytest.mark.slow),
        "quic://127.0.0.1:0",
        pytest.param("memory://x", marks=pytest.mark.slow),
    ],
)
def test_a_connection_that_is_over_leaves_nothing(url: str, way: str) -> None:
    left = asyncio.run(left_by_way(20, url, way))
    assert all(count < 10 for count in left.values()), left


@pytest.mark.slow
def test_a_thousand_that_are_over_leave_nothing() -> None:
    left = asyncio.run(left_by_way(1000, "tcp://127.0.0.1:0", "both have said all"))
    assert all(count < 10 for count in left.values()), left


def test_one_that_is_refused_leaves_nothing() -> None:
    async def come(listener: dtp.Listener) -> None:
        with pytest.raises(dtp.ConnectionRefused):
            await dtp.connect(listener.address("nowhere"), identity=ALICE)

    left = asyncio.run(left_by(20, "tcp://127.0.0.1:0", echo, come))
    assert all(count < 10 for count in left.values()), left


def test_half_a_handshake_leaves_nothing() -> None:
    """Strangers cost most of what comes in a flood: what is made for them goes with their carrier."""

    class Silent:
        """Reads what comes, and says nothing to it."""

        def __init__(self) -> None:
            self.heard = asyncio.Event()

        def carrier_buffer(self) -> memoryview:
            return memoryview(bytearray(4096))

        def carrier_received(self, size: int) -> None:
            self.heard.set()

        def carrier_writable(self) -> None: ...

        def carrier_packet(self, data: bytes) -> None: ...

        def carrier_lost(self, error: Exception | None) -> None:
            self.heard.set()

    async def come(listener: dtp.Listener) -> None:
        carrier = await carriers.dial(listener.urls[0])
        silent = Silent()
        carrier.start(silent)
        carrier.write(memoryview(b"DTP\x01\x01\x02\x0f\x00\x20" + bytes(range(1, 33))))
        await silent.heard.wait()  # the second message
        carrier.abort()

    left = asyncio.run(left_by(20, "tcp://127.0.0.1:0", echo, come))
    assert all(count < 10 for count in left.values()), left
