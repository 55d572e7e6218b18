"""Awaiting a few bytes on a non-blocking socket, plain or TLS: for the handshakes that come before a
carrier."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dtp.carriers.crowd import source_group
from dtp.carriers.watch import socket_watcher

T = TypeVar("T")

#: Bytes per read.
READ_SIZE = 16384


class StepsOfTurn:
    """How many steps of opening handshakes one turn of the loop does; the others wait for theirs, in order.

    One of TLS takes 0.3 to 1 ms: as many as there are strangers would hold up all who are connected. Of those who
    wait each source has a step, then each the next: who comes from elsewhere than a flood isn't behind it.
    """

    def __init__(self, most: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._most = self._left = most
        self._renewing = False
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def wait_for_step(self, source: str) -> None:
        """Wait for a turn with room, and take a step of it, for somebody of this source."""
        self._renew_soon()
        if self._left > 0 and not self._waiting:
            self._left -= 1
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.setdefault(source_group(source), deque()).append(future)
        await future

    def _renew_soon(self) -> None:
        if not self._renewing:
            self._renewing = True
            self._loop.call_soon(self._renew_steps)

    def _renew_steps(self) -> None:
        self._renewing, self._left = False, self._most
        while self._waiting and self._left > 0:
            source, futures = self._waiting.popitem(last=False)
            future = futures.popleft()
            if futures:
                self._waiting[source] = futures
            if not future.done():  # else it was given up
                future.set_result(None)
                self._left -= 1
        if self._waiting:
            self._renew_soon()


class SocketIO:
    """Reads and writes on `sock`, which stays the caller's. `OSError` and `ssl.SSLError` pass through."""

    def __init__(self, sock: socket.socket, steps: StepsOfTurn | None = None, source: str = "") -> None:
        """With `steps` what was read is given back, and a step of TLS done, in a turn with room for `source`."""
        self._sock = sock
        self._steps, self._source = steps, source
        self._watcher = socket_watcher(asyncio.get_running_loop())

    async def read(self) -> bytes:
        """Return some bytes; none at the end."""
        data = await self._call_when_ready(lambda: self._sock.recv(READ_SIZE), self._wait_readable)
        if self._steps is not None:
            await self._steps.wait_for_step(self._source)
        return data

    async def write(self, data: bytes) -> None:
        """Write all of `data`."""
        while data:
            sent = await self._call_when_ready(lambda: self._sock.send(data), self._wait_writable)  # noqa: B023  # awaited here
            data = data[sent:]

    async def finish(self) -> None:
        """End the writing direction, then read to the other side's end, so that it sees all that was
        written."""
        self._sock.shutdown(socket.SHUT_WR)
        while await self.read():
            pass

    async def start_tls(self) -> None:
        """Do the handshake of a TLS socket."""
        assert isinstance(self._sock, ssl.SSLSocket)
        if self._steps is not None:
            await self._wait_readable()
            await self._steps.wait_for_step(self._source)
        await self._call_when_ready(self._sock.do_handshake, self._wait_readable)

    async def _call_when_ready(self, operation: Callable[[], T], ready: Callable[[], Awaitable[None]]) -> T:
        while True:
            try:
                return operation()
            except ssl.SSLWantReadError:
                await self._wait_readable()
                if self._steps is not None:
                    await self._steps.wait_for_step(self._source)
            except ssl.SSLWantWriteError:
                await self._wait_writable()
            except (BlockingIOError, InterruptedError):
                await ready()

    async def _wait_readable(self) -> None:
        fd = self._sock.fileno()
        ready = asyncio.Event()
        self._watcher.add_reader(fd, ready.set)
        try:
            await ready.wait()
        finally:
            self._watcher.remove_reader(fd)

    async def _wait_writable(self) -> None:
        fd = self._sock.fileno()
        ready = asyncio.Event()
        self._watcher.add_writer(fd, ready.set)
        try:
            await ready.wait()
        finally:
            self._watcher.remove_writer(fd)
