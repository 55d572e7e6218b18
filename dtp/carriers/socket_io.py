"""Awaiting a few bytes on a non-blocking socket, plain or TLS: for the handshakes that come before a
carrier."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dtp.carriers.watch import socket_watcher

T = TypeVar("T")

#: Bytes per read.
READ_SIZE = 16384


class SocketIO:
    """Reads and writes on `sock`, which stays the caller's. `OSError` and `ssl.SSLError` pass through."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._watcher = socket_watcher(asyncio.get_running_loop())

    async def read(self) -> bytes:
        """Some bytes; none at the end."""
        return await self._call(lambda: self._sock.recv(READ_SIZE), self._readable)

    async def write(self, data: bytes) -> None:
        """All of `data`."""
        while data:
            sent = await self._call(lambda: self._sock.send(data), self._writable)  # noqa: B023  # awaited here
            data = data[sent:]

    async def finish(self) -> None:
        """End the writing direction, then read to the other side's end, so that it sees all that was
        written."""
        self._sock.shutdown(socket.SHUT_WR)
        while await self.read():
            pass

    async def start_tls(self) -> None:
        """The handshake of a TLS socket."""
        assert isinstance(self._sock, ssl.SSLSocket)
        await self._call(self._sock.do_handshake, self._readable)

    async def _call(self, operation: Callable[[], T], ready: Callable[[], Awaitable[None]]) -> T:
        while True:
            try:
                return operation()
            except ssl.SSLWantReadError:
                await self._readable()
            except ssl.SSLWantWriteError:
                await self._writable()
            except (BlockingIOError, InterruptedError):
                await ready()

    async def _readable(self) -> None:
        fd = self._sock.fileno()
        ready = asyncio.Event()
        self._watcher.add_reader(fd, ready.set)
        try:
            await ready.wait()
        finally:
            self._watcher.remove_reader(fd)

    async def _writable(self) -> None:
        fd = self._sock.fileno()
        ready = asyncio.Event()
        self._watcher.add_writer(fd, ready.set)
        try:
            await ready.wait()
        finally:
            self._watcher.remove_writer(fd)
