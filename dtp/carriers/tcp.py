"""TCP: `tcp://host:port`, IPv4 and IPv6.

Options when listening: `reuse_port=1` lets several processes listen on one port and share what comes in;
`backlog=N` sets how many connections the kernel holds before they are accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import Any, ClassVar

from dtp.carriers.base import Accept, CarrierListener
from dtp.carriers.errors import CarrierUrlError, DialError, ListenError, reason
from dtp.carriers.resolving import resolve_host, what_failed
from dtp.carriers.stream_socket import (
    BACKLOG,
    SocketListener,
    StreamSocketCarrier,
    hand_over,
)
from dtp.carriers.url import CarrierUrl, format_host, parse_url, plain_ip
from dtp.carriers.watch import socket_watcher

#: Seconds until the next address of a name is tried beside the one before it (RFC 8305, section 5).
HAPPY_EYEBALLS_DELAY = 0.25

#: Keepalive: first probe after this many idle seconds, then at this interval, dead after this many
#: unanswered. About two minutes, under the idle limits of common firewalls.
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 60, 15, 4

#: How often a port chosen by the kernel for one address is tried on the other addresses of the same name.
PORT_TRIES = 8


class TcpCarrier(StreamSocketCarrier):
    """A carrier over one TCP connection."""

    scheme: ClassVar[str] = "tcp"


def set_options(sock: socket.socket) -> None:
    """Set a TCP socket up for a carrier: no waiting for small writes to fill a packet, keepalive."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL),
        ("TCP_KEEPCNT", KEEPALIVE_COUNT),
    ):
        if hasattr(socket, name):  # not on every system
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def is_self_connected(sock: socket.socket) -> bool:
    """True if a socket is connected to itself, which a dial to a free local port can do (simultaneous
    open)."""
    return bool(sock.getsockname() == sock.getpeername())


async def connect_socket(host: str, port: int) -> tuple[socket.socket, str]:
    """Connect by TCP to the first of a name's addresses that answers (RFC 8305).

    Gives a non-blocking socket with carrier options, and the IP address it leads to. Raises `DialError`; has
    no time limit of its own: cancel it to give up.
    """
    from aiohappyeyeballs import start_connection

    loop = asyncio.get_running_loop()
    socket_watcher(loop)
    where = format_host(host, port)
    try:
        found = await resolve_host(host, port, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DialError(f"{where}: the name can't be resolved: {what_failed(error)}") from error
    try:
        sock = await start_connection(found, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY, loop=loop)
    except (OSError, RuntimeError) as error:  # uvloop raises RuntimeError for some
        raise DialError(f"{where}: {reason(error)}") from error
    try:
        set_options(sock)
        source = plain_ip(sock.getpeername())
        alone = is_self_connected(sock)
    except OSError as error:  # reset meanwhile
        sock.close()
        raise DialError(f"{where}: {reason(error)}") from error
    if alone:
        sock.close()
        raise DialError(f"{where}: nobody listens there")
    return sock, source


def socket_url(scheme: str, sock: socket.socket, suffix: str = "") -> str:
    """Return the URL of what `sock` is bound to."""
    host, port, *_ = sock.getsockname()
    return f"{scheme}://{format_host(host, port)}{suffix}"


def _has_family(family: int, kind: int, anywhere: str) -> bool:
    """True if this machine has addresses of a family: all addresses of the machine may be those of the other one."""
    try:
        with socket.socket(family, kind) as probe:
            probe.bind((anywhere, 0))
    except OSError:
        return False
    return True


def bind_sockets(url: CarrierUrl, found: list[tuple[Any, ...]]) -> list[socket.socket]:
    """Bind and listen on each of the addresses in `found` (as from `getaddrinfo`), all on one port.

    Raises `OSError` with nothing left open.
    """
    socks: list[socket.socket] = []
    with contextlib.ExitStack() as undo:
        port = 0
        for family, kind, proto, _, address in dict.fromkeys(found):
            if not url.host and not _has_family(family, kind, address[0]):
                continue
            sock = undo.enter_context(socket.socket(family, kind, proto))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if url.get_flag("reuse_port"):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                # So that 0.0.0.0 and :: may both be listened at, whatever the system's default.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address[0], address[1] or port, *address[2:]))
            sock.listen(url.get_integer("backlog", BACKLOG))
            port = sock.getsockname()[1]
            socks.append(sock)
        undo.pop_all()
    return socks


async def listening_sockets(url: CarrierUrl) -> list[socket.socket]:
    """Listen at every address of the host in `url`, on its port; port 0 takes any free one.

    Raises `ListenError`, and `CarrierUrlError` when there is no port.
    """
    if url.port is None:
        raise CarrierUrlError(f"{url.text}: a port is missing; 0 takes any free one")
    if url.get_flag("reuse_port") and not hasattr(socket, "SO_REUSEPORT"):
        raise CarrierUrlError(f"{url.text}: this system has no SO_REUSEPORT; leave reuse_port out")
    socket_watcher(asyncio.get_running_loop())
    try:
        found = await resolve_host(url.host or None, url.port, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ListenError(f"{url.text}: the name can't be resolved: {what_failed(error)}") from error
    for tries_left in reversed(range(PORT_TRIES)):
        try:
            return bind_sockets(url, found)
        except OSError as error:
            # A port that the kernel found free for IPv4 may be taken for IPv6: ask for another.
            if url.port != 0 or error.errno != errno.EADDRINUSE or not tries_left:
                raise ListenError(f"{url.text}: {reason(error, listening=url.port)}") from error
    raise AssertionError("unreachable")


def listen_sockets(socks: list[socket.socket], accept: Accept) -> CarrierListener:
    """Accept TCP carriers on listening sockets, which the listener owns from here on."""
    socket_watcher(asyncio.get_running_loop())

    def on_socket(sock: socket.socket) -> None:
        try:
            set_options(sock)
            peer = sock.getpeername()
        except OSError:  # reset before we got to it
            sock.close()
            return
        remote = f"tcp://{format_host(peer[0], peer[1])}"
        hand_over(TcpCarrier(sock, source=plain_ip(peer), remote=remote), accept)

    return SocketListener(socks, [socket_url("tcp", sock) for sock in socks], on_socket, answers=True)


def _parse(url: str, options: set[str]) -> CarrierUrl:
    parts = parse_url(url, options)
    if parts.path not in ("", "/"):
        raise CarrierUrlError(f"{url}: a tcp URL has no path ({parts.path})")
    return parts


async def dial(url: str) -> TcpCarrier:
    """Dial `tcp://host:port`. Raises `DialError` and `CarrierUrlError`."""
    parts = _parse(url, set())
    if not parts.host or not parts.port:
        raise CarrierUrlError(f"{url}: to dial takes a host and a port: tcp://host:port")
    sock, source = await connect_socket(parts.host, parts.port)
    return TcpCarrier(sock, source=source, remote=url)


async def listen(url: str, accept: Accept) -> CarrierListener:
    """Listen at `tcp://host:port`; an empty host means every address of this machine.

    Raises `ListenError` and `CarrierUrlError`.
    """
    return listen_sockets(await listening_sockets(_parse(url, {"reuse_port", "backlog"})), accept)
