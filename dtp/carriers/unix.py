"""Unix sockets: `unix:///path/of/socket`.

Option when listening: `mode=0660` sets the permissions of the socket's file; without it the umask decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar
from urllib.parse import quote, unquote

from dtp.carriers.base import Accept, CarrierListener
from dtp.carriers.errors import CarrierUrlError, DialError, EventLoopError, ListenError, reason
from dtp.carriers.stream_socket import (
    BACKLOG,
    SocketListener,
    StreamSocketCarrier,
    hand_over,
)
from dtp.carriers.url import CarrierUrl, parse_url
from dtp.carriers.watch import socket_watcher

#: Seconds between tries while the queue of the listener is full: connecting to a Unix socket doesn't wait.
QUEUE_FULL_DELAYS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)

#: Bytes of the longest path that fits into `sockaddr_un` on Linux, without the final zero. Others have less.
LONGEST_PATH = 107


class UnixCarrier(StreamSocketCarrier):
    """A carrier over one Unix stream socket."""

    scheme: ClassVar[str] = "unix"


def peer_source(sock: socket.socket) -> str:
    """Return who is at the other end: "unix:uid=1000" where the system tells, else "unix"."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return "unix"
    _pid, uid, _gid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("iII")))
    return f"unix:uid={uid}"


def _parse(url: str, options: set[str]) -> tuple[CarrierUrl, str]:
    parts = parse_url(url, options)
    if not hasattr(socket, "AF_UNIX"):
        raise CarrierUrlError(f"{url}: this system has no Unix sockets; use tcp://127.0.0.1:port")
    path = unquote(parts.path)
    if parts.host or not path.startswith("/"):
        raise CarrierUrlError(f"{url}: a unix URL is unix:///absolute/path, with three slashes")
    if len(os.fsencode(path)) > LONGEST_PATH or "\0" in path:
        raise CarrierUrlError(
            f"{url}: the path of a Unix socket has at most {LONGEST_PATH} bytes and no zero"
        )
    return parts, path


async def dial(url: str, delays: Sequence[float] = QUEUE_FULL_DELAYS) -> UnixCarrier:
    """Dial `unix:///path`; where the queue of new connections is full, again after each of these delays (seconds).
    Raises `DialError` and `CarrierUrlError`."""
    _, path = _parse(url, set())
    socket_watcher(asyncio.get_running_loop())
    # Not `loop.sock_connect`: it takes the EAGAIN of a full queue for "in progress", and then for connected.
    for delay in (*delays, None):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.connect(path)
            return UnixCarrier(sock, source=peer_source(sock), remote=url)
        except BlockingIOError as error:
            sock.close()
            if delay is None:
                raise DialError(f"{url}: its queue of new connections stays full") from error
            await asyncio.sleep(delay)
        except OSError as error:
            sock.close()
            raise DialError(f"{url}: {reason(error)}") from error
    raise AssertionError("unreachable")


async def listen(url: str, accept: Accept) -> CarrierListener:
    """Listen at `unix:///path`. A file left by a listener that is gone is replaced; the file is removed at
    the end.

    Raises `ListenError`, also when somebody listens there or another kind of file is in the way, and
    `CarrierUrlError`.
    """
    sock, remove = listening_socket(url)
    return _listener(sock, os.fsdecode(sock.getsockname()), accept, remove)


def listening_socket(url: str) -> tuple[socket.socket, Callable[[], None]]:
    """Return a socket that listens at `unix:///path`, and what removes its file at the end. Raises as `listen`
    does."""
    parts, path = _parse(url, {"mode"})
    mode = parts.get_integer("mode", 0, base=8) if "mode" in parts.options else None
    if mode is not None and mode > 0o777:
        raise CarrierUrlError(f"{url}: mode is {parts.options['mode']!r}, write it like mode=0660")
    socket_watcher(asyncio.get_running_loop())
    try:
        with _locked(os.path.dirname(path)):
            sock = _bind(path, mode)
            made = os.stat(path)
    except ListenError:  # which is an OSError too
        raise
    except OSError as error:
        raise ListenError(f"{url}: {reason(error)}") from error
    return sock, lambda: _remove(path, made)


def listen_sockets(socks: list[socket.socket], accept: Accept) -> CarrierListener:
    """Accept Unix carriers on a listening socket, which the listener owns from here on; its file stays."""
    socket_watcher(asyncio.get_running_loop())
    (sock,) = socks
    return _listener(sock, os.fsdecode(sock.getsockname()), accept, None)


def _listener(
    sock: socket.socket, path: str, accept: Accept, on_close: Callable[[], None] | None
) -> CarrierListener:
    url = f"unix://{quote(path)}"

    def on_socket(connected: socket.socket) -> None:
        hand_over(UnixCarrier(connected, source=peer_source(connected), remote=url), accept)

    return SocketListener([sock], [url], on_socket, on_close, answers=True)


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Alone among the processes that start to listen in `folder`: else two that find the same stale file
    could both replace it, and one would listen at a file that is gone."""
    try:
        import fcntl
    except ImportError as error:  # Windows has Unix sockets, but Python there doesn't offer them
        raise EventLoopError("Unix sockets need a POSIX system; use tcp://127.0.0.1:port") from error
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _bind(path: str, mode: int | None) -> socket.socket:
    """Return a listening socket at `path`. Raises `ListenError` when it is taken; `OSError` passes through."""
    with contextlib.ExitStack() as undo:
        sock = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _require_stale(path)
            os.unlink(path)
            sock.bind(path)
        undo.callback(os.unlink, path)
        if mode is not None:
            os.chmod(path, mode)  # before `listen`: until then nobody can connect
        sock.listen(BACKLOG)
        undo.pop_all()
    return sock


def _require_stale(path: str) -> None:
    """Raise `ListenError` unless `path` is a socket that no process has open; `OSError` passes through."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise ListenError(f"{path}: a file that is not a socket is in the way")
    # Asked with a datagram socket: a living stream socket answers EPROTOTYPE, without seeing a connection.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return
        except OSError as error:
            if error.errno != errno.EPROTOTYPE:
                raise
    raise ListenError(f"{path}: somebody listens there already")


def _remove(path: str, made: os.stat_result) -> None:
    """Remove the socket's file, unless another has taken its place."""
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
            os.unlink(path)
