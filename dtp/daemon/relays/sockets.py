"""Plain local sockets: listening for local programs, connecting to backends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Callable
from functools import cache

from dtp.carriers import tcp, unix
from dtp.carriers.errors import DialError, reason
from dtp.carriers.stream_socket import SocketListener
from dtp.carriers.url import format_host, parse_url
from dtp.carriers.watch import socket_watcher
from dtp.daemon.config.values import LocalPlace
from dtp.daemon.relays.backends.balancing import Backend
from dtp.errors import DtpError, LimitError

#: `struct linger`: on, for 0 seconds.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
#: Whether accepted sockets inherit the TCP options of the listening one.
_INHERITED = sys.platform == "linux"
#: The size of a congestion control's name (TCP_CA_NAME_MAX).
_NAME_SIZE = 16
#: The congestion control that every Linux has and, unless forbidden, lets every program choose.
_UNPACED = b"reno"
#: The most bytes that the kernel buffers for a program or backend beyond what it has received. By default the
#: kernel buffers several MiB, and reports room only after a third of that was read, so it is seen late what the
#: program reads. A program that read steadily at 2 Mbit/s then seemed to read nothing for 3 s, like those that
#: block others (`dtp.net.stuck`). A transfer of 600 MB took the same processor time either way. Only on Linux: on
#: macOS the option delays reports of room, and a write still fills the whole buffer.
UNSENT = 128 * 1024
_UNSENT_OPTION = socket.TCP_NOTSENT_LOWAT if sys.platform == "linux" else None
#: Seconds before a Unix socket whose queue is full is tried again.
_QUEUE_FULL = 0.02


#: The `errno` values for a lack of descriptors, of this process or of the system.
_NONE_LEFT = (errno.EMFILE, errno.ENFILE)


class NoDescriptors(LimitError):
    """This process, or the system, can't open more files. The dialled peer isn't to blame."""

    code = "no-descriptors"


def undialled(place: str, error: OSError) -> DtpError:
    """Return the exception for a failed connection to `place`: `NoDescriptors` or `DialError`."""
    if number := _missing(error):
        return NoDescriptors(
            f"{os.strerror(number)}: raise the limit of open files (LimitNOFILE, ulimit -n; fs.file-max)"
        )
    return DialError(f"{place}: {reason(error)}")


def _missing(error: BaseException | None) -> int:
    """Return the `errno` of `_NONE_LEFT` that caused an error, or 0."""
    while error is not None:
        if isinstance(error, socket.gaierror):  # whose number doesn't tell
            return _try_one()
        if isinstance(error, OSError) and error.errno in _NONE_LEFT:
            return error.errno
        error = error.__cause__
    return 0


def _try_one() -> int:
    try:
        os.close(os.dup(0))
    except OSError as error:
        return error.errno if error.errno in _NONE_LEFT else 0
    return 0


@cache
def local_congestion() -> bytes | None:
    """Return the congestion control for TCP between local programs; None for the system's default.

    BBR measures a network and paces packets, with a timer for every few of them. Over loopback there is nothing to
    measure, and the timers take a tenth of the processor time of a bulk transfer (docs/decisions/0081). The result
    is cached.
    """
    if sys.platform != "linux":
        return None
    with socket.socket() as probe:
        try:
            name = probe.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _NAME_SIZE)
            if not name.startswith(b"bbr"):
                return None
            probe.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _UNPACED)
        except OSError:  # choosing it isn't allowed
            return None
    return _UNPACED


def bound_unsent(sock: socket.socket) -> None:
    """Limit what the kernel buffers of a TCP socket's unsent data to `UNSENT` bytes, on Linux."""
    if _UNSENT_OPTION is not None:
        with contextlib.suppress(OSError):  # it was reset, which its user will notice
            sock.setsockopt(socket.IPPROTO_TCP, _UNSENT_OPTION, UNSENT)


async def listen(place: LocalPlace, on_socket: Callable[[socket.socket], None]) -> SocketListener:
    """Call `on_socket` with every connection to `place`, as a non-blocking socket. Raise `ListenError`."""
    if place.path:
        sock, remove = unix.listening_socket(f"unix://{place.path}?mode=0660")
        return SocketListener([sock], [str(place)], on_socket, remove)
    socks = await tcp.listening_sockets(parse_url(f"tcp://{format_host(place.host, place.port)}", ()))
    return adopt(socks, on_socket)


def adopt(socks: list[socket.socket], on_socket: Callable[[socket.socket], None]) -> SocketListener:
    """Call `on_socket` with connections to sockets that are already listening. TCP sockets send small writes at
    once, and those that other machines can reach detect vanished peers, since nothing else ends an idle
    connection."""
    tcp_socket = socks[0].family != socket.AF_UNIX
    names = [name_of(sock) for sock in socks]
    if tcp_socket and _INHERITED:
        for sock in socks:
            bound_unsent(sock)
            if not ipaddress.ip_address(sock.getsockname()[0]).is_loopback:
                tcp.set_options(sock)
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if name := local_congestion():
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name)
        tcp_socket = False
    return SocketListener(socks, names, _with_options(on_socket) if tcp_socket else on_socket)


def _with_options(on_socket: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    def accept(sock: socket.socket) -> None:
        try:
            tcp.set_options(sock)
            bound_unsent(sock)
        except OSError:  # reset before it was accepted
            sock.close()
            return
        on_socket(sock)

    return accept


def name_of(sock: socket.socket) -> str:
    """Return the address of `sock`, spelt as a `LocalPlace`."""
    bound = sock.getsockname()
    return f"unix:{bound}" if isinstance(bound, str) else format_host(bound[0], bound[1])


async def connect(place: LocalPlace) -> socket.socket:
    """Return a non-blocking socket connected to `place`. There is no timeout.

    Raise `DialError`, `NoDescriptors`.
    """
    loop = asyncio.get_running_loop()
    socket_watcher(loop)
    if not place.path:
        dialled = await _connect_tcp(loop, place)
        bound_unsent(dialled)
        return dialled
    while (sock := _connect_unix(place)) is None:  # noqa: ASYNC110 - there is no event for room in the queue
        await asyncio.sleep(_QUEUE_FULL)
    return sock


def _connect_unix(place: LocalPlace) -> socket.socket | None:
    """Return a socket; None if the queue is full."""
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise undialled(str(place), error) from error
    sock.setblocking(False)
    try:
        sock.connect(place.path)
    except BlockingIOError:
        sock.close()
        return None
    except OSError as error:
        sock.close()
        raise undialled(str(place), error) from error
    return sock


async def _connect_tcp(loop: asyncio.AbstractEventLoop, place: LocalPlace) -> socket.socket:
    """Return a connected socket. The name is looked up each time, so that a backend that moves is found."""
    try:
        family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
        if place.host.replace(".", "").isdecimal() or family is socket.AF_INET6:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, (place.host, place.port))
                tcp.set_options(sock)
            except BaseException:
                sock.close()
                raise
        else:
            sock, _ = await tcp.connect_socket(place.host, place.port)
    except OSError as error:
        raise undialled(str(place), error) from error
    return sock


def reset(sock: socket.socket) -> None:
    """Close `sock` so that the other side sees a reset rather than an orderly end, where sockets have resets."""
    if sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):  # BSDs refuse it after a reset by the peer
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    sock.close()


class BackendLink:
    """A connection to a backend through asyncio's streams."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, backend: Backend, flush: float
    ) -> None:
        """`flush`: the seconds for the backend to read what was written before the end."""
        self.reader, self.writer, self._backend, self._flush = reader, writer, backend, flush

    def close(self) -> None:
        """Close it. Call once."""
        self._backend.active -= 1
        self.writer.close()
        if self.writer.transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(self._flush, self._abort_transport)

    def _abort_transport(self) -> None:
        """Abort what is left. A backend that reads nothing would keep the socket for ever; one that has read
        everything has closed by itself."""
        transport = self.writer.transport
        if transport.get_write_buffer_size():
            transport.abort()
