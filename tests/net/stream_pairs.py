"""Servers of streams for tests, and both ends of one stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import dtp

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
