"""Replicating for as long as a graph is open: whenever a connection ends, or can't be made, another one is tried."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final

from dtp.errors import DtpError, LocalError

if TYPE_CHECKING:
    from dtp.graph.graph import Graph
    from dtp.net.connection import Connection

log = logging.getLogger("dtp.graph")

Connect = Callable[[], "AbstractAsyncContextManager[Connection]"]
#: Seconds before the second attempt, and at most. Each pause is twice the one before, less up to half of it at
#: random: not all peers of one that was away shall come at once.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
#: Seconds that a connection has to last for the pauses to be short again.
SETTLED: Final = 30.0


async def keep_replicating(graph: Graph, connect: Connect, *, blobs: bool) -> None:
    """Replicate over one connection after the other until the graph is closed, as `Graph.keep_replicating` says."""
    loop = asyncio.get_running_loop()
    pause = FIRST_PAUSE
    while not graph.closed:
        began = loop.time()
        try:
            async with connect() as connection:
                await graph.replicate(connection, blobs=blobs)
            why = "the connection ended"
        except LocalError:
            raise  # trying again won't mend it
        except DtpError as error:
            why = str(error)
        if loop.time() - began >= SETTLED:
            pause = FIRST_PAUSE
        if not graph.closed:
            shorter = pause * (1 - random.random() / 2)  # nobody gains by knowing it
            log.info("graph %r is replicated again in %.1f s: %s", graph.name, shorter, why)
            await _pause(graph, shorter)
            pause = min(LONGEST_PAUSE, 2 * pause)


async def _pause(graph: Graph, seconds: float) -> None:
    """Wait so long, or until the graph is closed."""
    ended = asyncio.Event()
    forget = graph.listen(lambda: ended.set() if graph.closed else None)
    try:
        async with asyncio.timeout(seconds):
            await ended.wait()
    except TimeoutError:
        return
    finally:
        forget()
