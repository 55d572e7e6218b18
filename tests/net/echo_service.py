"""Services that tests connect to, what they say to them, and virtual time for a whole test."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import dtp
from dtp.testing import clock
from dtp.testing.pairs import BOB


async def echo(connection: dtp.Connection) -> None:
    """Send back what comes on each stream."""

    async def serve(stream: dtp.Stream) -> None:
        with contextlib.suppress(ConnectionError):
            async for data in stream:
                stream.write(data)
                await stream.drain()
            stream.write_eof()

    async with asyncio.TaskGroup() as group:
        async for stream in connection:
            group.create_task(serve(stream))


async def idle(connection: dtp.Connection) -> None:
    await connection.wait_closed()


async def roundtrip(connection: dtp.Connection, data: bytes) -> bytes:
    stream = await connection.open_stream()

    async def send() -> None:
        stream.write(data)
        await stream.drain()
        stream.write_eof()

    async with asyncio.TaskGroup() as group:
        group.create_task(send())
        return await stream.read()


@contextlib.asynccontextmanager
async def both_ends(**options: Any) -> AsyncIterator[tuple[dtp.Connection, dtp.Connection]]:
    """A connection in memory: the end that has dialled, and the one of a listener with these options."""
    async with (
        await dtp.listen("memory://x", identity=BOB, **options) as listener,
        dtp.connect(listener.address()) as connection,
    ):
        yield connection, await listener.accept()


def on_fake_clock(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on virtual time: it may wait for hours, and says so at once when it waits for ever."""

    @functools.wraps(test)
    def run(**arguments: object) -> None:
        clock.run(test(**arguments))

    return run
