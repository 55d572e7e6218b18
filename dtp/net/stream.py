"""A stream of a connection: ordered bytes both ways, read and written as with asyncio's own streams."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from dtp.errors import DtpError, LocalError, fresh
from dtp.net.splices import Splice, SpliceOwner
from dtp.session.codes import StreamRefused, StreamReset

if TYPE_CHECKING:
    from dtp.net.connection import Connection

#: `read` hands out a received piece of at least this size as it is, rather than join it with the next.
_WHOLE = 16 * 1024
#: Pieces of less are kept joined: by itself a piece of one byte takes fifty.
_JOINED = 512
#: Of every stream that has kept nothing yet, or has a sink: nothing is ever put in.
_NO_CHUNKS: deque[bytes] = deque(maxlen=0)


def rest_of(piece: bytes | memoryview, taken: int) -> bytes | memoryview:
    """Return what is left of a piece of which the first `taken` bytes are done with.

    A view keeps all of what it is of, while only the rest counts as unread: where that is the lesser part, it is
    copied.
    """
    rest = memoryview(piece)[taken:]
    return bytes(rest) if 2 * len(rest) < memoryview(rest.obj).nbytes else rest


class Sink(Protocol):
    """Takes a stream's bytes at once instead of its buffer (see `dtp.aio.transport`)."""

    def stream_data(self, data: bytes) -> None:
        """Take the next bytes; the sink reports to `Stream.consumed` when it has them."""

    def stream_eof(self) -> None:
        """Note that the peer has finished."""

    def stream_error(self, error: DtpError) -> None:
        """Note that the stream or its connection has broken off."""

    def stream_writable(self) -> None:
        """Note that what waits to be sent fell below the low mark."""


def _fixed(data: bytes | bytearray | memoryview) -> bytes | memoryview:
    """Return the bytes of `data` as nobody can change them any more."""
    if type(data) is memoryview and type(data.obj) is bytes and data.c_contiguous:
        return data.cast("B")  # a view of our own: the caller may release theirs
    return bytes(memoryview(data))  # bytes() alone takes numbers and lists, too


class Stream:
    """Ordered bytes both ways within a connection.

    Not made directly: `Connection.open_stream()` and `Connection.accept_stream()` give streams. Leaving
    `async with` finishes the sending side and waits until the peer has everything; leaving it by an exception
    resets the stream.
    """

    def __init__(self, connection: Connection, stream_id: int) -> None:
        self.connection = connection
        self._outlet = connection.outlet
        #: The number of the stream within the connection.
        self.id = stream_id
        self._chunks = _NO_CHUNKS  # until there are some: most streams of a relay never have any here
        self._at = 0  # what of the first chunk was read
        self._size = 0
        self._eof = False
        # All streams of a connection share the error of its end: each raises it without the way it took elsewhere.
        self._read_error: DtpError | None = None
        self._write_error: DtpError | None = None
        self._delivered = False  # with a write error: the peer had everything before
        self._read_waiter: asyncio.Future[None] | None = None
        self._write_waiters: list[asyncio.Future[None]] = []
        self._sink: Sink | None = None

    # ---- reading ----------------------------------------------------------------------------------------

    async def read(self, n: int = -1) -> bytes:
        """Return up to `n` bytes as soon as there are any; all up to the end when `n` is negative; b"" at the end.

        Raises `StreamReset`, `ConnectionClosed` or `ConnectionLost` when the bytes break off.
        """
        if n == 0:
            return b""
        if n < 0:
            parts = []
            while part := await self.read(1 << 30):
                parts.append(part)
            return b"".join(parts)
        if not self._size:
            if not self._eof:
                await self._wait_data()
            if not self._size:
                return b""
        whole = len(self._chunks[0]) - self._at
        return self._take_bytes(min(n, self._size if whole < _WHOLE else whole))

    async def readexactly(self, n: int) -> bytes:
        """Return exactly `n` bytes. `asyncio.IncompleteReadError` (with `.partial`) when the stream ends before."""
        if n < 0:
            raise LocalError("readexactly needs a size of 0 or more")
        if not self._size and n:
            await self._wait_data()
        if 0 < n <= self._size:  # the usual case, made short
            return self._take_bytes(n)
        parts: list[bytes] = []
        missing = n
        while missing:
            part = await self.read(missing)
            if not part:
                raise asyncio.IncompleteReadError(b"".join(parts), n)
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    async def readuntil(self, separator: bytes = b"\n", limit: int = 64 * 1024) -> bytes:
        """Return bytes up to and with `separator`.

        `asyncio.IncompleteReadError` at the end of the stream, `asyncio.LimitOverrunError` when `limit` bytes, or
        `limits.stream_window`, hold no separator; they stay in the buffer.
        """
        if not separator:
            raise LocalError("readuntil needs a separator of at least one byte")
        most = self.connection.limits.stream_window
        searched = 0
        while True:
            if len(self._chunks) > 1:
                joined = b"".join(self._chunks)
                self._chunks.clear()
                self._chunks.append(joined)
            data, at = (self._chunks[0] if self._chunks else b""), self._at
            found = data.find(separator, at + max(0, searched - len(separator) + 1))
            if found >= 0:
                return self._take_bytes(found - at + len(separator))
            searched = self._size
            if searched > limit:
                raise asyncio.LimitOverrunError(f"no separator within {limit} bytes", searched)
            if self._eof:
                raise asyncio.IncompleteReadError(self._take_bytes(searched), None)
            if searched >= most:  # the peer may send no more before some is read
                raise asyncio.LimitOverrunError(
                    f"no separator within {searched} bytes, and no more may be unread: raise"
                    " limits.stream_window, or read in pieces",
                    searched,
                )
            if searched:
                self.want_more()
            await self._wait_data(beyond=searched)

    async def readline(self) -> bytes:
        """Return a line with its newline; what is left at the end of the stream; b"" behind it."""
        try:
            return await self.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            return error.partial

    @property
    def buffered(self) -> int:
        """Bytes that have come and were not read."""
        return self._size

    def at_eof(self) -> bool:
        """True when the peer has finished and all was read."""
        return self._eof and not self._size

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece, of whatever size it came in. (asyncio's StreamReader gives lines here.)"""
        data = await self.read(1 << 30)
        if not data:
            raise StopAsyncIteration
        return data

    def stop(self, error_code: int = 0) -> None:
        """Read nothing more: drop what came, ask the peer to stop sending. Idempotent."""
        if not self._eof and self._read_error is None:
            self._outlet.stop_stream(self.id, error_code)
        self._drop_buffered()
        self._eof = True
        self._wake_reader()

    async def _wait_data(self, beyond: int = 0) -> None:
        while self._size <= beyond and not self._eof:
            if self._read_error is not None:
                raise fresh(self._read_error)
            if self._read_waiter is not None:
                raise LocalError("another task is already reading from this stream")
            self._read_waiter = self.connection.loop.create_future()
            try:
                await self._read_waiter
            finally:
                self._read_waiter = None

    def _take_bytes(self, size: int) -> bytes:
        """Return the next `size` bytes, which are there."""
        if not size:
            return b""
        chunks, at = self._chunks, self._at
        self._size -= size
        chunk, end = chunks[0], at + size
        if end < len(chunk):
            data, self._at = chunk[at:end], end
        elif end == len(chunk):  # the usual case: if it is a whole piece, no copy
            chunks.popleft()
            data, self._at = chunk[at:], 0
        else:
            data = self._take_joined(size)
        self._outlet.grant_credit(self.id, size)
        return data

    def _take_joined(self, size: int) -> bytes:
        chunks = self._chunks
        parts = [chunks.popleft()[self._at :]]
        missing = size - len(parts[0])
        while len(chunks[0]) <= missing:
            parts.append(chunks.popleft())
            missing -= len(parts[-1])
            if not missing:
                break
        self._at = missing
        if missing:
            parts.append(chunks[0][:missing])
        return b"".join(parts)

    def _drop_buffered(self) -> None:
        self.consumed(self._size)
        self._chunks.clear()
        self._size = self._at = 0

    def consumed(self, size: int) -> None:
        """Tell the peer that `size` bytes were read and it may send as many more. For sinks."""
        if size:
            self._outlet.grant_credit(self.id, size)

    def want_more(self) -> None:
        """Let the peer send more than has come, up to the stream's window, though nothing of that was read.

        For whoever waits for the rest of something before it reads any of it, again whenever some has come: where
        others keep much of the connection's window a stream gets no more by itself (docs/wire.md, "Credit").
        """
        self._outlet.want_more(self.id)

    # ---- writing ----------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue `data` to be sent at the end of this turn of the event loop. Follow it with `await drain()`.

        `bytes` and views of them are kept as they are, anything else is copied. Raises what broke the stream,
        `StreamClosed` after `write_eof`.
        """
        if self._write_error is not None:
            raise fresh(self._write_error)
        self._outlet.write_data(self.id, data if type(data) is bytes else _fixed(data))

    def writelines(self, lines: Iterable[bytes | bytearray | memoryview]) -> None:
        """Queue all of them, as `write` does."""
        self.write(b"".join(lines))

    async def drain(self) -> None:
        """Wait until less than `limits.write_high` bytes wait to be sent. Raises what broke the stream, before or
        meanwhile."""
        outlet, high = self._outlet, self.connection.limits.write_high
        while outlet.queued_bytes(self.id) > high:
            await self._wait_written()
        if self._write_error is not None:
            raise fresh(self._write_error)

    def write_eof(self) -> None:
        """Finish: the peer reads all that was written, then the end. Idempotent."""
        if self._write_error is None:
            self._outlet.finish_stream(self.id)

    def can_write_eof(self) -> bool:
        """True: a stream has two directions that end separately."""
        return True

    async def flush(self) -> None:
        """Wait until the peer has received everything that was written (and the end, after `write_eof`)."""
        while not self._outlet.is_acknowledged(self.id):
            await self._wait_written()
        if self._write_error is not None and not self._delivered:
            raise fresh(self._write_error)

    async def _wait_written(self) -> None:
        if self._write_error is not None:
            raise fresh(self._write_error)
        waiter = self.connection.loop.create_future()
        self._write_waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._write_waiters:
                self._write_waiters.remove(waiter)

    def reset(self, error_code: int = 0) -> None:
        """Give up both directions at once: the peer gets `StreamReset` with `error_code`. Idempotent."""
        self._outlet.reset_stream(self.id, error_code)
        self.stop(error_code)

    def close(self) -> None:
        """Finish sending, and stop reading what still comes. Does not wait; see `wait_closed`."""
        self.write_eof()
        self.stop()

    async def wait_closed(self) -> None:
        """Wait until the peer has everything. Raises what broke the stream."""
        await self.flush()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.reset()
            return
        self.write_eof()
        await self.flush()
        self.stop()

    # ---- what the connection reports --------------------------------------------------------------------

    def splice_socket(self, fd: int, owner: SpliceOwner) -> Splice | None:
        """Join a non-blocking socket with this stream, whose sink `owner` is, too (see `dtp.net.splices`).

        None where the system can't: then the owner does all by `attach_sink` and `write`.
        """
        return self._outlet.splice_socket(self.id, fd, owner)

    @property
    def queued(self) -> int:
        """Bytes written and not yet sealed for a carrier. `drain` waits while they are above `limits.write_high`."""
        return self._outlet.queued_bytes(self.id)

    @property
    def unread(self) -> int:
        """Bytes that came in order and were not read yet, for which the peer has no new credit."""
        return self._outlet.unread_bytes(self.id)

    @property
    def received(self) -> int:
        """Bytes that came in order, whether or not they were read; 0 once the stream is over."""
        return self._outlet.received_bytes(self.id)

    @property
    def awaited(self) -> bool:
        """True while somebody waits for bytes of the peer."""
        return self._read_waiter is not None

    @property
    def acknowledged(self) -> int:
        """Bytes written that the peer has, as far as it has said."""
        return self._outlet.acknowledged_bytes(self.id)

    @property
    def broken(self) -> bool:
        """True if the bytes of the peer have broken off, by its own doing or with the connection."""
        return self._read_error is not None

    def set_low_mark(self, low: int) -> None:
        """Tell the sink `stream_writable` when what waits to be sent has fallen to `low` bytes; `limits.write_low` at
        first."""
        self._outlet.set_low(self.id, low)

    def delay_acks(self) -> None:
        """Acknowledge what comes after up to a second instead of 0.1 s, while it is little: 16 KiB of the connection.

        For protocols whose senders never wait until something has arrived (`flush`, `acknowledged`): a message by
        itself costs as much to acknowledge as to receive. The end is acknowledged at once all the same.
        """
        self._outlet.delay_acks(self.id)

    def tell_credit_often(self) -> None:
        """Tell the peer of each 64th of the window that was read, not of each quarter.

        For whoever is between the two and goes by that, as a relay, which ends circuits that take nothing.
        """
        self._outlet.tell_credit_often(self.id)

    @property
    def waiting(self) -> bool:
        """True while bytes or an end are still to come, or bytes to go."""
        return not (self._eof or self._read_error) or self.queued > 0

    @property
    def delivered(self) -> bool:
        """True if writing has ended by an error, and the peer had all that was written before."""
        return self._delivered

    @property
    def write_error(self) -> DtpError | None:
        """Why nothing more can be written, such as `StreamReset` when the peer wants no more; None while it can."""
        return self._write_error

    def attach_sink(self, sink: Sink) -> None:
        """Hand everything from now on to `sink`, starting with what is buffered."""
        self._sink = sink
        while self._chunks:
            chunk, self._at = self._chunks.popleft()[self._at :], 0
            self._size -= len(chunk)
            sink.stream_data(chunk)
        self._chunks = _NO_CHUNKS  # an empty deque of its own would be a fifth of an idle stream's memory
        if self._read_error is not None:
            sink.stream_error(self._read_error)
        elif self._eof:
            sink.stream_eof()

    def _feed_data(self, data: bytes) -> None:
        if self._sink is not None:
            self._sink.stream_data(data)
            return
        if self._eof:
            self.consumed(len(data))
            return
        if self._chunks is _NO_CHUNKS:
            self._chunks = deque()
        if self._size and len(data) < _JOINED and len(self._chunks[-1]) < _JOINED:
            self._chunks[-1] += data
        else:
            self._chunks.append(data)
        self._size += len(data)
        waiter = self._read_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _feed_eof(self) -> None:
        self._eof = True
        if self._sink is not None:
            self._sink.stream_eof()
        if self._read_waiter is not None:
            self._wake_reader()

    def _fail_reset(self, code: int) -> None:
        """Note that the peer gave up: what it sent and nobody has read yet is void."""
        self._drop_buffered()
        self._fail_read(StreamReset(code))

    def _fail_stopped(self, code: int) -> None:
        """Note that the peer wants no more."""
        self._fail_write(StreamReset(code, stopped=True), delivered=self._outlet.is_acknowledged(self.id))

    def _fail_unread(self, unread: bytes | None) -> None:
        """Note that the peer took nothing of what was written here."""
        error = StreamRefused(unread)
        self._drop_buffered()
        self._fail_read(error)
        self._fail_write(error)

    def fail(self, error: DtpError) -> None:
        """End both directions by this error, as the end of the connection does: whoever waits for them gets it."""
        self._fail_read(error)
        self._fail_write(error, delivered=self._outlet.is_acknowledged(self.id))

    def drop_unread(self, error: DtpError) -> None:
        """Drop what came and nobody has read, after the end: whoever reads on gets `error`, also where all had
        come."""
        self._drop_buffered()
        self._eof = False
        if self._sink is not None and self._read_error is not None:
            self._sink.stream_error(error)
        self._fail_read(error)

    def _fail_read(self, error: DtpError) -> None:
        """End reading by this error: no more bytes will come; what is buffered may still be read."""
        if self._eof or self._read_error is not None:
            return
        self._read_error = error
        if self._sink is not None:
            self._sink.stream_error(error)
        self._wake_reader()

    def _fail_write(self, error: DtpError, *, delivered: bool = False) -> None:
        """End writing by this error; `delivered` says that the peer has all that was written."""
        if self._write_error is None:
            self._write_error = error
            self._delivered = delivered
        if self._sink is not None:
            self._sink.stream_writable()
        self._wake_writers()

    def _handle_writable(self) -> None:
        if self._sink is not None:
            self._sink.stream_writable()
        if self._write_waiters:
            self._wake_writers()

    def _finish_stream(self) -> None:
        """Note that nothing comes or goes any more. The sink is let go, so that nothing of both is left to the
        collector."""
        if self._sink is not None:
            self._sink.stream_writable()
            self._sink = None
        if self._write_waiters:
            self._wake_writers()

    def _wake_reader(self) -> None:
        if self._read_waiter is not None and not self._read_waiter.done():
            self._read_waiter.set_result(None)

    def _wake_writers(self) -> None:
        for waiter in self._write_waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._write_waiters.clear()
