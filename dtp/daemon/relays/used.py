"""Connections with counted streams. A retired one is closed when its last stream is over."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Final

from dtp.errors import DtpError
from dtp.net.connection import Connection
from dtp.pay.errors import UNPAID
from dtp.tasks import start_task

#: Seconds for which a host's endpoint may be unreachable before its streams are given up for another endpoint.
GIVE_UP: Final = 5.0


class UsedConnections:
    """Counts each connection's streams, and closes retired connections with their last one. Has to be closed."""

    def __init__(self, is_replaced: Callable[[Connection], bool]) -> None:
        """`is_replaced` returns True if another endpoint serves in place of a connection's."""
        self._is_replaced = is_replaced
        self._streams: Counter[Connection] = Counter()
        self._retired: set[Connection] = set()
        self._closing: dict[Connection, asyncio.Task[None]] = {}
        self._giving_up: dict[Connection, asyncio.TimerHandle] = {}

    @property
    def retired(self) -> set[Connection]:
        """Retired connections that aren't closed yet."""
        return self._retired

    def add_stream(self, connection: Connection) -> None:
        """Count a stream that was opened."""
        self._streams[connection] += 1

    def release_stream(self, connection: Connection) -> None:
        """Note that a stream is over."""
        self._streams[connection] = left = self._streams[connection] - 1
        if left <= 0:
            self._close_if_done(connection)

    def retire(self, connection: Connection) -> None:
        """Close a connection once its streams are over. This is also for one that the peer has closed, to release
        what it holds, such as a payment lane. Idempotent."""
        if connection not in self._retired:
            self._retired.add(connection)
            if not connection.source:
                later = asyncio.get_running_loop().call_later(GIVE_UP, self._give_up, connection)
                self._giving_up[connection] = later
            self._close_if_done(connection)

    def _give_up(self, connection: Connection) -> None:
        """Break off the streams of an endpoint that is still unreachable, if another endpoint of the service has
        been found.

        If the same endpoint is back, it has said whether it knows the connection. If there is none, the streams may
        still be resumed.
        """
        self._giving_up.pop(connection, None)
        if not connection.closed and not connection.source and self._is_replaced(connection):
            connection.abort()

    def _close_if_done(self, connection: Connection) -> None:
        if self._streams[connection] <= 0:
            del self._streams[connection]
            if connection in self._retired and connection not in self._closing:
                task = start_task(_part(connection), name="dtpd-leave")
                self._closing[connection] = task
                task.add_done_callback(lambda _: self._closed_one(connection))

    def _closed_one(self, connection: Connection) -> None:
        self._retired.discard(connection)
        del self._closing[connection]
        if (later := self._giving_up.pop(connection, None)) is not None:
            later.cancel()  # which also drops the reference to the connection

    async def cancel(self) -> None:
        """Interrupt closing, and give up nothing later. The connections count as `retired` no more."""
        tasks = list(self._closing.values())
        for task in tasks:
            task.cancel()
        for later in self._giving_up.values():
            later.cancel()
        self._giving_up.clear()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _part(connection: Connection) -> None:
    """Close a connection, after it is resumed if it has no carrier now: otherwise the peer would wait for it for a
    minute."""
    if not connection.source:
        with contextlib.suppress(DtpError):
            await connection.ping()
    await close_used(connection)


async def close_used(connection: Connection) -> None:
    """Close a connection. Its streams tell what its money was too little to deliver."""
    with contextlib.suppress(*UNPAID):
        await connection.close()
