"""Sockets for workers: each worker has its own at every place, so that the kernel distributes connections.

The parent opens them (SO_REUSEPORT) and keeps them, so that connections waiting for a worker that died are there
for its replacement. Unix sockets, and sockets from elsewhere without SO_REUSEPORT, are shared by all.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from dtp.carriers import tcp, unix
from dtp.carriers.errors import ListenError, reason
from dtp.carriers.stream_socket import BACKLOG
from dtp.carriers.url import format_host, parse_url
from dtp.daemon.config.model import Config, Forward
from dtp.daemon.relays import udp

#: Carriers that listen at ports, and at paths. Others have no sockets to share, and one worker listens for them.
_PORTS, _PATHS = ("tcp", "ws", "wss"), ("unix",)


@dataclass
class OpenedPlace:
    """The sockets of one place, by worker. `remove` removes the place."""

    by_worker: list[list[socket.socket]]
    remove: Callable[[], None] | None = None
    _all: list[socket.socket] = field(init=False)

    def __post_init__(self) -> None:
        self._all = list({id(sock): sock for socks in self.by_worker for sock in socks}.values())

    @property
    def sockets(self) -> list[socket.socket]:
        """All sockets, each once."""
        return list(self._all)

    def close(self, *, keep_place: bool = False) -> None:
        """Close the parent's copies."""
        for sock in self._all:
            sock.close()
        if self.remove is not None and not keep_place:
            self.remove()


async def open_places(
    config: Config, known: dict[str, OpenedPlace], adopted: dict[str, Sequence[socket.socket]], workers: int
) -> dict[str, OpenedPlace]:
    """Return the places of `config` that aren't known, by URL and by `Forward.name`. `adopted` sockets are already
    open.

    Raise `ListenError`, after which nothing is left open.
    """
    made: dict[str, OpenedPlace] = {}
    try:
        for url in config.listen:
            if url in known or urlsplit(url).scheme not in (*_PORTS, *_PATHS):
                continue
            if url in adopted:
                made[url] = _spread(adopted[url], workers)
            else:
                made[url] = await _open(_plain(url), workers)
        for forward in config.forward:
            if forward.name in known:
                continue
            if forward.name in adopted:
                made[forward.name] = _spread(adopted[forward.name], workers)
            elif forward.kind == "udp":
                made[forward.name] = _open_udp(forward, workers)
            else:
                made[forward.name] = await _open(_url_of(forward), workers)
    except BaseException:
        for opened in made.values():
            opened.close()
        raise
    return made


def wanted_by(config: Config) -> set[str]:
    """Return the places of `config`, named as in `open_places`."""
    return {*config.listen, *(forward.name for forward in config.forward)}


def _plain(url: str) -> str:
    """Return the URL of the TCP or Unix socket under a carrier's URL."""
    parts = parse_url(url, None)
    if parts.scheme in _PATHS:
        return url
    port = parts.port if parts.port is not None else {"ws": 80, "wss": 443}.get(parts.scheme)
    if port is None:
        raise ListenError(f"{url}: a port is missing; 0 takes any free one")
    return f"tcp://{format_host(parts.host or '', port)}?backlog={parts.get_integer('backlog', BACKLOG)}"


def _url_of(forward: Forward) -> str:
    place = forward.listen
    if place.path:
        return f"unix://{place.path}?mode=0660"
    return f"tcp://{format_host(place.host, place.port)}?backlog={BACKLOG}"


async def _open(url: str, workers: int) -> OpenedPlace:
    if url.startswith("unix:"):
        sock, remove = unix.listening_socket(url)
        return OpenedPlace([[sock]] * workers, remove)
    found: list[list[socket.socket]] = []
    with contextlib.ExitStack() as undo:
        for _ in range(workers):
            socks = await tcp.listening_sockets(parse_url(f"{url}&reuse_port=1", {"backlog", "reuse_port"}))
            for sock in socks:
                undo.callback(sock.close)
            found.append(socks)
            parts = parse_url(url, {"backlog"})
            port = socks[0].getsockname()[1]  # if it was 0, the port that the kernel chose is used for all
            url = f"tcp://{format_host(parts.host or '', port)}?backlog={parts.options['backlog']}"
        undo.pop_all()
    return OpenedPlace(found)


def _open_udp(forward: Forward, workers: int) -> OpenedPlace:
    found: list[list[socket.socket]] = []
    place = forward.listen
    with contextlib.ExitStack() as undo:
        for _ in range(workers):
            sock = udp.bind(place, share=True)
            undo.callback(sock.close)
            found.append([sock])
            place = type(place)(place.host, sock.getsockname()[1])
        undo.pop_all()
    return OpenedPlace(found)


def _spread(socks: Sequence[socket.socket], workers: int) -> OpenedPlace:
    """Distribute open sockets over the workers. If they can be shared in this way, more are bound beside them."""
    by_worker: list[list[socket.socket]] = [[] for _ in range(workers)]
    by_place: dict[object, list[socket.socket]] = {}
    for sock in socks:
        by_place.setdefault((sock.family, sock.type, sock.getsockname()), []).append(sock)
    for same in by_place.values():
        if same[0].family == socket.AF_UNIX or not same[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
            for one in by_worker:
                one += same
            continue
        while len(same) < workers:
            same.append(_another(same[0]))
        for number, sock in enumerate(same):
            by_worker[number % workers].append(sock)
    return OpenedPlace(by_worker)


def _another(like: socket.socket) -> socket.socket:
    """Return a socket bound to the same address as another. Raise `ListenError`."""
    sock = socket.socket(like.family, like.type)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(like.getsockname())
        if sock.type == socket.SOCK_STREAM:
            sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ListenError(f"{like.getsockname()}: {reason(error)}") from error
    sock.setblocking(False)
    return sock
