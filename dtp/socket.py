"""Blocking sockets over DTP, for programs without an event loop: functions and methods as in Python's `socket`.

    import dtp

    with dtp.socket.create_connection("dtp+tcp://dtp1...@127.0.0.1:9000/echo", timeout=5) as sock:
        sock.sendall(b"hello")
        sock.recv(4096)

All of them share one event loop in a background thread, started at first use. `http.client`, `socketserver`,
`xmlrpc` and whatever else uses sockets by these methods works with them. Any thread may use any socket.
"""

from __future__ import annotations

import asyncio
import errno
import io
import socket as _stdlib
import warnings
from collections import deque
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any, ClassVar, Unpack

from dtp.aio.streams import ConnectOptions, ListenOptions, StreamServer
from dtp.aio.streams import create_connection as _create_connection
from dtp.aio.streams import create_server as _create_server
from dtp.aio.transport import Bytes
from dtp.blocking.loop_thread import LoopGone, LoopThread, TimedOut, shared
from dtp.blocking.pipe import PIECE, BlockingPipe, BlockingWait, SocketClosed, WouldBlock, deadline_of
from dtp.errors import LocalError
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = [
    "LoopGone",
    "NoSuchOption",
    "Server",
    "Socket",
    "SocketClosed",
    "TimedOut",
    "WouldBlock",
    "create_connection",
    "create_server",
]


class NoSuchOption(LocalError, OSError):
    """DTP has no such socket option; `errno` is ENOPROTOOPT, which programs expect where an option is missing."""

    code: ClassVar[str] = "no-such-option"

    def __init__(self, level: int, option: int) -> None:
        super().__init__(errno.ENOPROTOOPT, f"a DTP socket has no option {option} at level {level}")


#: Options that DTP fulfils always, so that programs may ask for them.
_GIVEN = {(_stdlib.IPPROTO_TCP, _stdlib.TCP_NODELAY), (_stdlib.SOL_SOCKET, _stdlib.SO_KEEPALIVE)}


class _File(io.RawIOBase):
    """What `makefile` puts its buffers on. The socket lives on until all its files are closed."""

    def __init__(self, sock: Socket, mode: str) -> None:
        super().__init__()
        self._sock: Socket | None = sock
        self._mode = mode
        self._timed_out = False
        sock._files += 1

    def readable(self) -> bool:
        return "r" in self._mode

    def writable(self) -> bool:
        return "w" in self._mode

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        sock = self._check_open("r", "reading")
        if self._timed_out:
            # As for Python's sockets: the buffer above may have lost what it had put together before.
            raise OSError("cannot read from timed out object")
        try:
            return sock._pipe.recv_into(memoryview(buffer).cast("B"), sock._timeout)
        except WouldBlock:
            return None
        except TimedOut:
            self._timed_out = True
            raise

    def write(self, data: Any) -> int | None:
        sock = self._check_open("w", "writing")
        try:
            return sock._send(data)
        except WouldBlock:
            return None

    def _check_open(self, mode: str, what: str) -> Socket:
        if self._sock is None:
            raise ValueError("I/O operation on closed file")
        self._sock._pipe.thread.check_running()
        if mode not in self._mode:
            raise io.UnsupportedOperation(f"the file was not opened for {what}")
        return self._sock

    def fileno(self) -> int:
        return self._check_open(self._mode[0], "this")._pipe.fileno()

    def close(self) -> None:
        if not self.closed:
            super().close()
            sock, self._sock = self._sock, None
            if sock is not None:
                sock._file_closed()


class Socket:
    """A connected socket; made by `create_connection` and `Server.accept`.

    Its methods are those of Python's `socket.socket` for a stream, with the same results and, apart from the
    connection's own errors (`StreamReset`, `ConnectionClosed`, `ConnectionLost`: all `ConnectionError`), the same
    exceptions.
    """

    def __init__(self, pipe: BlockingPipe, timeout: float | None) -> None:
        self._pipe = pipe
        self._timeout = timeout
        self._files = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<dtp.socket.Socket {'closed' if self._closed else 'to ' + self.peer_name}>"

    # ---- moving bytes -----------------------------------------------------------------------------------

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Return up to `bufsize` bytes as soon as there are any; b"" at the end of the stream.

        `TimedOut` (a `TimeoutError`), after which nothing is lost; `WouldBlock` at a timeout of 0.
        """
        self._check(flags)
        if bufsize < 0:
            raise LocalError("recv needs a size of 0 or more")
        return self._pipe.recv(bufsize, self._timeout) if bufsize else b""

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Fill the front of `buffer` (at most `nbytes` of it unless 0) with what is there; how many bytes came."""
        self._check(flags)
        view = memoryview(buffer).cast("B")
        if not 0 <= nbytes <= len(view):
            raise LocalError(f"nbytes must be between 0 and the buffer's {len(view)}")
        view = view[: nbytes or len(view)]
        return self._pipe.recv_into(view, self._timeout) if len(view) else 0

    def send(self, data: Bytes, flags: int = 0) -> int:
        """Send what there is room for, at least a byte; how many bytes were taken."""
        self._check(flags)
        return self._send(data)

    def _send(self, data: Bytes) -> int:
        view = memoryview(data).cast("B")[:PIECE]
        self._pipe.send(_fixed(view), self._timeout, deadline_of(self._timeout))
        return len(view)

    def sendall(self, data: Bytes, flags: int = 0) -> None:
        """Send all of `data`. The timeout is for the whole; when it is over, a part may have been sent."""
        self._check(flags)
        view = memoryview(data).cast("B")
        deadline = deadline_of(self._timeout)
        for start in range(0, len(view) or 1, PIECE):  # also nothing is sent, to raise what has happened
            self._pipe.send(_fixed(view[start : start + PIECE]), self._timeout, deadline)

    def makefile(
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """Return a file object over this socket, as Python's `socket.makefile`. It keeps the socket open until
        closed."""
        if not set(mode) <= {"r", "w", "b"}:
            raise LocalError(f"invalid mode {mode!r}: only r, w and b are possible")
        self._check(0)
        writing = "w" in mode
        reading = "r" in mode or not writing
        size = io.DEFAULT_BUFFER_SIZE if buffering is None or buffering < 0 else buffering
        if not size and "b" not in mode:
            raise LocalError("unbuffered files must be binary: add b to the mode")
        raw = _File(self, ("r" if reading else "") + ("w" if writing else ""))
        if not size:
            return raw  # type: ignore[return-value]
        buffer: io.BufferedIOBase
        if reading and writing:
            buffer = io.BufferedRWPair(raw, raw, size)
        elif reading:
            buffer = io.BufferedReader(raw, size)
        else:
            buffer = io.BufferedWriter(raw, size)
        if "b" in mode:
            return buffer  # type: ignore[return-value]
        text = io.TextIOWrapper(buffer, encoding, errors, newline)  # type: ignore[type-var]
        text.mode = mode  # type: ignore[misc]
        return text

    # ---- state ------------------------------------------------------------------------------------------

    def settimeout(self, value: float | None) -> None:
        """Set how long a call may take, in seconds: None for any time, 0 for none."""
        self._timeout = _checked(value)

    def gettimeout(self) -> float | None:
        """Return the timeout in seconds."""
        return self._timeout

    @property
    def timeout(self) -> float | None:
        """The timeout in seconds."""
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        """Do `settimeout(None)`, or `settimeout(0)` where `flag` is false."""
        self._timeout = None if flag else 0.0

    def getblocking(self) -> bool:
        """Return False at a timeout of 0, else True."""
        return self._timeout != 0

    def getpeername(self) -> tuple[str, int]:
        """Return the peer's id as text, and the number of the stream within its connection."""
        self._check(0)
        name: tuple[str, int] = self._pipe.transport.get_extra_info("peername")
        return name

    @property
    def peer_name(self) -> str:
        """The peer's id as text, also once the socket is closed."""
        return str(self._pipe.transport.get_extra_info("dtp_peer"))

    @property
    def connection(self) -> Connection:
        """The connection below. It lives in the background thread: look (`peer`, `service`, `stats`), don't call."""
        connection: Connection = self._pipe.transport.get_extra_info("dtp_connection")
        return connection

    def setsockopt(self, level: int, optname: int, value: object, optlen: int | None = None) -> None:
        """Take TCP_NODELAY and SO_KEEPALIVE, which always hold; `NoSuchOption` (ENOPROTOOPT) for others."""
        if (level, optname) not in _GIVEN:
            raise NoSuchOption(level, optname)

    def fileno(self) -> int:
        """Return a descriptor for `select` and `selectors` only: readable when `recv` won't wait; -1 once closed.

        Bytes can't be read from it or written to it. It costs a pipe, made at the first call.
        """
        return -1 if self._closed else self._pipe.fileno()

    # ---- the end ----------------------------------------------------------------------------------------

    def shutdown(self, how: int) -> None:
        """End sending (`SHUT_WR`: the peer reads the end behind all that was sent), drop what comes (`SHUT_RD`), or
        both (`SHUT_RDWR`)."""
        self._check(0)
        if how not in (_stdlib.SHUT_RD, _stdlib.SHUT_WR, _stdlib.SHUT_RDWR):
            raise LocalError("how must be socket.SHUT_RD, SHUT_WR or SHUT_RDWR")
        self._pipe.shutdown(how)

    def close(self) -> None:
        """Close. Returns at once; what was sent is delivered in the background, at the latest before the process
        ends (which waits up to 5 s for it). With open files the socket lives until the last is closed."""
        self._closed = True
        if not self._files:
            self._really_close()

    def _file_closed(self) -> None:
        self._files -= 1
        if self._closed and not self._files:
            self._really_close()

    def _really_close(self) -> None:
        if self._pipe.thread.alive:
            self._pipe.close()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed and self._pipe.thread.alive:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self._really_close()

    def _check(self, flags: int) -> None:
        if self._closed:
            raise SocketClosed
        if flags:
            raise LocalError("flags must be 0: DTP has none")
        self._pipe.thread.check_running()


def _fixed(view: memoryview) -> bytes | memoryview:
    """Return `view` as nobody can change it any more."""
    whole = view.obj
    if type(whole) is not bytes:
        return bytes(view)
    return whole if len(whole) == len(view) else view


def _checked(timeout: float | None) -> float | None:
    if timeout is not None and timeout < 0:
        raise LocalError("a timeout must be None, 0 or more seconds")
    return timeout


class Server(BlockingWait):
    """A listening socket; made by `create_server`. Each stream that a client opens is a socket of its own.

    `close` ends the listening; sockets that were accepted live on.
    """

    def __init__(self, thread: LoopThread, backlog: int) -> None:
        super().__init__(thread)
        self._backlog = backlog
        self._waiting: deque[BlockingPipe] = deque()
        self._timeout: float | None = None
        self._closed = False
        self._server: StreamServer

    def __repr__(self) -> str:
        return f"<dtp.socket.Server {'closed' if self._closed else self.address}>"

    @property
    def addresses(self) -> list[Address]:
        """What clients dial, one per carrier."""
        return self._server.addresses

    @property
    def address(self) -> Address:
        """The first of `addresses`."""
        return self._server.address

    def getsockname(self) -> tuple[str, int]:
        """Return this side's id as text, and 0."""
        return str(self._server.peer), 0

    def is_readable(self) -> bool:
        return bool(self._waiting) or self._closed

    def on_stream_opened(self, pipe: BlockingPipe) -> None:
        """Called in the loop's thread when a client has opened a stream."""
        with self.changed:
            if self._closed or len(self._waiting) >= self._backlog:
                pipe.transport.abort()
                return
            self._waiting.append(pipe)
            self.notify()

    def accept(self) -> tuple[Socket, tuple[str, int]]:
        """Return the next socket, and its `getpeername()`. Raise `TimedOut`, `WouldBlock` or `SocketClosed`."""
        self.thread.check_running()
        deadline = deadline_of(self._timeout)
        with self.changed:
            while True:
                if self._closed:
                    raise SocketClosed("the server")
                if self._waiting:
                    break
                self.wait_change(self._timeout, deadline)
            pipe = self._waiting.popleft()
            self.notify()
        pipe.resume_reading()
        sock = Socket(pipe, None)
        return sock, sock.getpeername()

    def settimeout(self, value: float | None) -> None:
        """Set how long `accept` may take, in seconds: None for any time, 0 for none."""
        self._timeout = _checked(value)

    def gettimeout(self) -> float | None:
        """Return the timeout in seconds."""
        return self._timeout

    def fileno(self) -> int:
        """Return a descriptor for `select` and `selectors` only: readable when `accept` won't wait; -1 once
        closed."""
        return -1 if self._closed else super().fileno()

    def finish(self) -> asyncio.Future[None]:
        self._server.close()
        done = self.thread.loop.create_future()
        done.set_result(None)
        return done

    def close(self) -> None:
        """Stop listening, and reset what nobody has accepted. Idempotent."""
        with self.changed:
            if self._closed:
                return
            self._closed = True
            waiting, self._waiting = self._waiting, deque()
            self.changed.notify_all()
            self.close_readiness()
        if self.thread.alive:
            self.thread.call_in_loop(self._close, waiting)

    def _close(self, waiting: deque[BlockingPipe]) -> None:
        for pipe in waiting:
            pipe.transport.abort()
        self._server.close()
        self.thread.lasting.discard(self)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def create_connection(
    address: str | Address, timeout: float | None = None, **options: Unpack[ConnectOptions]
) -> Socket:
    """Connect to a DTP address and give a socket. `timeout` (seconds) holds for connecting and for the socket.

    `options` and errors are those of `dtp.connect`; besides `TimedOut`.
    """
    thread = shared()
    opening = _create_connection(lambda: BlockingPipe(thread), address, **options)
    _, pipe = thread.run_coroutine(opening, _checked(timeout) or None)
    return Socket(pipe, timeout)


def create_server(
    urls: str | Sequence[str],
    *,
    identity: Identity,
    service: str = "",
    backlog: int = 128,
    **options: Unpack[ListenOptions],
) -> Server:
    """Listen at carrier URLs such as `tcp://127.0.0.1:9000` and give a server to `accept` sockets from.

    `service` is the name that clients have to ask for, `"*"` takes any. While `backlog` streams wait to be accepted,
    further ones are reset. `options` and errors are those of `dtp.listen`.
    """
    thread = shared()
    server = Server(thread, backlog)

    async def start() -> None:
        server._server = await _create_server(
            lambda: BlockingPipe(thread, server), urls, identity=identity, service=service, **options
        )
        thread.lasting.add(server)

    thread.run_coroutine(start())
    return server
