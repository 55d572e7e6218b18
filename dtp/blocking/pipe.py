"""A stream between an event loop in one thread and callers that block in others: the inside of `dtp.socket`."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
import time
from collections import deque
from typing import ClassVar, Protocol

from dtp.aio.transport import StreamTransport
from dtp.blocking.loop_thread import LoopThread, TimedOut
from dtp.errors import LocalError
from dtp.session.codes import StreamClosed

#: `recv` hands out a received piece of at least this size as it is, rather than join it with the next.
_WHOLE = 16 * 1024
#: Received and not yet read: above the first the peer is stopped, at the second it may go on.
_READ_HIGH = 1024 * 1024
_READ_LOW = 256 * 1024
#: Handed to the loop's thread at a time, and the most that waits there to be picked up.
PIECE = 1024 * 1024


class SocketClosed(LocalError, OSError):
    """This socket was closed on this side; `errno` is EBADF, as for Python's sockets."""

    code: ClassVar[str] = "socket-closed"

    def __init__(self, what: str = "the socket") -> None:
        super().__init__(errno.EBADF, f"{what} is closed")


class WouldBlock(LocalError, BlockingIOError):
    """The timeout is 0, and the call could not be done at once; nothing was sent or lost."""

    code: ClassVar[str] = "would-block"

    def __init__(self) -> None:
        super().__init__(errno.EAGAIN, "the call would block")


class _Readiness:
    """A descriptor that `select` finds readable while something is there to be read or accepted."""

    def __init__(self, ready: bool) -> None:
        self.reader, self._writer = os.pipe()
        self._ready = False
        self.set_ready(ready)

    def set_ready(self, ready: bool) -> None:
        if ready != self._ready:
            self._ready = ready
            if ready:
                os.write(self._writer, b"\0")
            else:
                os.read(self.reader, 1)

    def close(self) -> None:
        os.close(self.reader)
        os.close(self._writer)


class BlockingWait:
    """What threads wait for: a condition over its own lock, deadlines, and the descriptor for `select`."""

    def __init__(self, thread: LoopThread) -> None:
        self.thread = thread
        self.changed = threading.Condition(threading.Lock())
        self._readiness: _Readiness | None = None

    def is_readable(self) -> bool:
        raise NotImplementedError

    def wait_change(self, timeout: float | None, deadline: float) -> None:
        """Wait for a change, with the lock held; the caller looks again. `TimedOut`, `WouldBlock`."""
        if timeout is None:
            self.changed.wait()
        elif not timeout:
            raise WouldBlock
        elif (left := deadline - time.monotonic()) <= 0 or not self.changed.wait(left):
            raise TimedOut(f"timed out after {timeout:g} s")

    def notify(self) -> None:
        """Wake who waits, since something has changed; with the lock held."""
        self.changed.notify_all()
        if self._readiness is not None:
            self._readiness.set_ready(self.is_readable())

    def fileno(self) -> int:
        with self.changed:
            if self._readiness is None:
                self._readiness = _Readiness(self.is_readable())
            return self._readiness.reader

    def close_readiness(self) -> None:
        """Close the descriptor; with the lock held."""
        if self._readiness is not None:
            self._readiness.close()
            self._readiness = None


def deadline_of(timeout: float | None) -> float:
    return time.monotonic() + timeout if timeout else 0.0


class Acceptor(Protocol):
    """Takes the pipes that a server makes."""

    def on_stream_opened(self, pipe: BlockingPipe) -> None:
        """Called in the loop's thread when a client has opened a stream."""


class BlockingPipe(BlockingWait, asyncio.Protocol):
    """A stream between the loop's thread, which calls what asyncio's protocols have, and threads that block.

    What is received waits in `_chunks`, what is sent in `_out`, both bounded. Nothing here refers to the `Socket`,
    so that a forgotten one is noticed.
    """

    def __init__(self, thread: LoopThread, acceptor: Acceptor | None = None) -> None:
        super().__init__(thread)
        self._acceptor = acceptor
        self.transport: StreamTransport
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._paused = acceptor is not None
        self._eof = False
        self._lost = False
        self._error: Exception | None = None
        self._out: list[bytes | memoryview] = []
        self._out_size = 0
        self._blocked = False  # the transport asks us to wait
        self._pumping = False  # `_pump` is scheduled
        self._finishing = False
        self._closing = False
        self._end: asyncio.Future[None] = thread.loop.create_future()

    def is_readable(self) -> bool:
        return bool(self._chunks) or self._eof or self._lost

    # ---- in the loop's thread ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, StreamTransport)
        self.transport = transport
        self.thread.lasting.add(self)
        if self._acceptor is not None:
            transport.pause_reading()
            self._acceptor.on_stream_opened(self)

    def data_received(self, data: bytes) -> None:
        with self.changed:
            self._chunks.append(data)
            self._size += len(data)
            if self._size > _READ_HIGH:
                self._paused = True
                self.transport.pause_reading()
            self.notify()

    def eof_received(self) -> bool:
        with self.changed:
            self._eof = True
            self.notify()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        with self.changed:
            self._lost = True
            self._error = error or self.transport.get_extra_info("dtp_stream").write_error
            self.notify()
        self.thread.lasting.discard(self)
        if not self._end.done():
            self._end.set_result(None)

    def pause_writing(self) -> None:
        with self.changed:
            self._blocked = True

    def resume_writing(self) -> None:
        with self.changed:
            self._blocked = False
            self.notify()

    def _pump_writes(self) -> None:
        with self.changed:
            out, self._out, self._out_size = self._out, [], 0
            self._pumping = False
            finishing, closing = self._finishing, self._closing
        for data in out:
            self.transport.write(data)
        if finishing:
            self.transport.write_eof()
        if closing:
            self.transport.close()
        with self.changed:
            self.notify()

    def finish(self) -> asyncio.Future[None]:
        self._closing = True
        self._pump_writes()
        return self._end

    # ---- in any other thread ----------------------------------------------------------------------------

    def _wait_readable(self, timeout: float | None) -> bool:
        """True when there are bytes, False at the end; with the lock held."""
        deadline = deadline_of(timeout)
        while True:
            if self._closing:
                raise SocketClosed
            if self._chunks:
                return True
            if self._eof:
                return False
            if self._lost:
                if self._error is not None:
                    raise self._error.with_traceback(None)
                return False
            self.wait_change(timeout, deadline)

    def recv(self, size: int, timeout: float | None) -> bytes:
        with self.changed:
            if not self._wait_readable(timeout):
                return b""
            chunks = self._chunks
            first = chunks[0]
            if len(first) >= _WHOLE or len(chunks) == 1:
                size = min(size, len(first))
            parts = []
            missing = min(size, self._size)
            while missing:
                chunk = chunks.popleft()
                if len(chunk) > missing:
                    chunks.appendleft(chunk[missing:])
                    chunk = chunk[:missing]
                parts.append(chunk)
                missing -= len(chunk)
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            resume = self._on_data(len(data))
        if resume:
            self.thread.call_in_loop(self.transport.resume_reading)
        return data

    def recv_into(self, view: memoryview, timeout: float | None) -> int:
        with self.changed:
            if not self._wait_readable(timeout):
                return 0
            chunks = self._chunks
            filled = 0
            while chunks and filled < len(view):
                chunk = chunks.popleft()
                room = len(view) - filled
                if len(chunk) > room:
                    chunks.appendleft(chunk[room:])
                    chunk = chunk[:room]
                view[filled : filled + len(chunk)] = chunk
                filled += len(chunk)
            resume = self._on_data(filled)
        if resume:
            self.thread.call_in_loop(self.transport.resume_reading)
        return filled

    def _on_data(self, size: int) -> bool:
        """True when the transport is to go on reading; with the lock held."""
        self._size -= size
        if self._readiness is not None:
            self._readiness.set_ready(self.is_readable())
        if self._paused and self._size <= _READ_LOW:
            self._paused = False
            return True
        return False

    def resume_reading(self) -> None:
        """Let the bytes come, now that the socket was accepted."""
        with self.changed:
            self._paused = False
        self.thread.call_in_loop(self.transport.resume_reading)

    def send(self, data: bytes | memoryview, timeout: float | None, deadline: float) -> None:
        """Hand over all of `data`, which must not change any more, once there is room."""
        with self.changed:
            while True:
                if self._closing:
                    raise SocketClosed
                if self._finishing:
                    raise StreamClosed("this side of the socket was shut down; open another one to write on")
                if self._lost:
                    raise self._error or SocketClosed("the connection")
                if not self._blocked and self._out_size < PIECE:
                    break
                self.wait_change(timeout, deadline)
            self._out.append(data)
            self._out_size += len(data)
            self._schedule_pump()

    def _schedule_pump(self) -> None:
        if not self._pumping:
            self._pumping = True
            self.thread.call_in_loop(self._pump_writes)

    def shutdown(self, how: int) -> None:
        with self.changed:
            if how != socket.SHUT_RD and not self._finishing:
                self._finishing = True
                self._schedule_pump()
            if how != socket.SHUT_WR and not self._eof:
                self._eof = True
                self._chunks.clear()
                self._size = 0
                self.thread.call_in_loop(self.transport.get_extra_info("dtp_stream").stop)
            self.notify()

    def close(self) -> None:
        with self.changed:
            if not self._closing:
                self._closing = True
                self._schedule_pump()
                self.notify()
            self.close_readiness()
