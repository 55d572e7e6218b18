"""Plain sockets of this machine: listening where local programs come in, connecting to backends."""

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
#: Whether what is accepted has the listening socket's options of TCP.
_INHERITED = sys.platform == "linux"
#: Of a congestion control's name (TCP_CA_NAME_MAX).
_NAME_SIZE = 16
#: The congestion control that every Linux has and, unless forbidden, lets every program choose.
_UNPACED = b"reno"
#: Bytes that the kernel keeps for a program or backend behind those that it has taken. Without it the kernel keeps
#: several MiB, and says that it has room again once a third of that is taken, so what it takes is seen late. A
#: program that reads steadily at 2 Mbit/s seemed to take nothing for 3 s then, as those do that hold up others
#: (`dtp.net.stuck`). A transfer of 600 MB took as much of the processor as without. Only on Linux: by the option
#: macOS tells of room later, and a write fills its whole buffer all the same.
UNSENT = 128 * 1024
_UNSENT_OPTION = socket.TCP_NOTSENT_LOWAT if sys.platform == "linux" else None
#: Seconds until a Unix socket whose queue is full is tried again.
_QUEUE_FULL = 0.02


#: `errno` where a descriptor was missing: of this process, or of the system.
_NONE_LEFT = (errno.EMFILE, errno.ENFILE)


class NoDescriptors(LimitError):
    """This process, or the system, may open no more files: whoever was dialled is not to blame."""

    code = "no-descriptors"


def undialled(place: str, error: OSError) -> DtpError:
    """Return what to raise where `place` can't be connected to: `NoDescriptors`, else `DialError`."""
    if number := _missing(error):
        return NoDescriptors(
            f"{os.strerror(number)}: raise the limit of open files (LimitNOFILE, ulimit -n; fs.file-max)"
        )
    return DialError(f"{place}: {reason(error)}")


def _missing(error: BaseException | None) -> int:
    """Return the `errno` of `_NONE_LEFT` that is behind an error; 0 for another."""
    while error is not None:
        if isinstance(error, socket.gaierror):  # whose number doesn't say
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
    """Return the congestion control for TCP between programs of this machine; None for the system's own choice.

    BBR measures a network and paces what is sent, by a timer for each few packets. Over loopback there is nothing to
    measure, and the timers cost a tenth of the processor time of a bulk transfer (docs/decisions/0081). Asked once.
    """
    if sys.platform != "linux":
        return None
    with socket.socket() as probe:
        try:
            name = probe.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _NAME_SIZE)
            if not name.startswith(b"bbr"):
                return None
            probe.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _UNPACED)
        except OSError:  # not for us to choose
            return None
    return _UNPACED


def bound_unsent(sock: socket.socket) -> None:
    """Have the kernel keep no more than `UNSENT` bytes of a TCP socket that it can't send yet, on Linux."""
    if _UNSENT_OPTION is not None:
        with contextlib.suppress(OSError):  # it was reset, as whoever uses it hears
            sock.setsockopt(socket.IPPROTO_TCP, _UNSENT_OPTION, UNSENT)


async def listen(place: LocalPlace, on_socket: Callable[[socket.socket], None]) -> SocketListener:
    """Give `on_socket` every connection that comes in at `place`, non-blocking. Raises `ListenError`."""
    if place.path:
        sock, remove = unix.listening_socket(f"unix://{place.path}?mode=0660")
        return SocketListener([sock], [str(place)], on_socket, remove)
    socks = await tcp.listening_sockets(parse_url(f"tcp://{format_host(place.host, place.port)}", ()))
    return adopt(socks, on_socket)


def adopt(socks: list[socket.socket], on_socket: Callable[[socket.socket], None]) -> SocketListener:
    """Give `on_socket` what comes in at sockets that listen already. Those of TCP send small writes at once, and
    those that other machines reach notice when one has vanished: nothing else ends a connection that is idle."""
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
        except OSError:  # reset before we got to it
            sock.close()
            return
        on_socket(sock)

    return accept


def name_of(sock: socket.socket) -> str:
    """Return where `sock` is bound, as a `LocalPlace` spells it."""
    bound = sock.getsockname()
    return f"unix:{bound}" if isinstance(bound, str) else format_host(bound[0], bound[1])


async def connect(place: LocalPlace) -> socket.socket:
    """Return a non-blocking socket connected to `place`. Has no time limit of its own.

    Raises `DialError`, `NoDescriptors`.
    """
    loop = asyncio.get_running_loop()
    socket_watcher(loop)
    if not place.path:
        dialled = await _connect_tcp(loop, place)
        bound_unsent(dialled)
        return dialled
    while (sock := _connect_unix(place)) is None:  # noqa: ASYNC110 - nobody tells when there is room
        await asyncio.sleep(_QUEUE_FULL)
    return sock


def _connect_unix(place: LocalPlace) -> socket.socket | None:
    """Return a socket; None where the queue is full."""
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
    """Ask for a name each time, so that a backend that moves is found."""
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
    """Close `sock` so that the other side sees a reset, not an orderly end, where sockets have one."""
    if sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):  # BSDs refuse it after a reset from there
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    sock.close()


class BackendLink:
    """A connection to a backend, by asyncio's streams."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, backend: Backend, flush: float
    ) -> None:
        """`flush`: seconds that the backend has to take what was written to it before the end."""
        self.reader, self.writer, self._backend, self._flush = reader, writer, backend, flush

    def close(self) -> None:
        """Give it up, once."""
        self._backend.active -= 1
        self.writer.close()
        if self.writer.transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(self._flush, self._abort_transport)

    def _abort_transport(self) -> None:
        """Abort what is left: a backend that takes no more would keep the socket for ever; one that has taken all
        has ended by itself."""
        transport = self.writer.transport
        if transport.get_write_buffer_size():
            transport.abort()
