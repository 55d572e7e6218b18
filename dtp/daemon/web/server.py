"""A daemon's small HTTP server: a table of paths, all read-only, with answers made in memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from importlib import resources
from typing import TYPE_CHECKING, Any, Protocol

import h11

from dtp.carriers.stream_socket import answering_through
from dtp.daemon.config.model import OWN
from dtp.daemon.config.values import LocalPlace
from dtp.daemon.observing import LEANED_ON
from dtp.daemon.relays import sockets
from dtp.tasks import TaskSet

if TYPE_CHECKING:
    from dtp.carriers.stream_socket import SocketListener

#: Seconds for a client to send a request, and to stay connected without one.
_PATIENCE = 30.0
#: The most clients at once; a browser uses six connections.
_MOST = 32
#: Scripts and styles come from the page, data from this server, and no other site may frame or read it.
_HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)


class Watched(Protocol):
    """A daemon as the page sees it."""

    async def refresh_status(self, *, callers: bool = True) -> None:
        """Update the status, for `get_status`."""

    def get_status(self, *, callers: bool = True) -> dict[str, Any]:
        """Return the status as JSON values, with `callers` including the list of callers."""


@dataclass(frozen=True)
class Answer:
    """The answer for a path."""

    body: bytes
    kind: str
    status: int = 200


def _file(name: str, kind: str) -> Callable[[Watched], Answer]:
    return lambda daemon: Answer(resources.files(__package__).joinpath(name).read_bytes(), kind)


def _status(daemon: Watched) -> Answer:
    return Answer(json.dumps(daemon.get_status()).encode(), "application/json")


def _metrics(daemon: Watched) -> Answer:
    from dtp.daemon.web import metrics

    return Answer(metrics.exposition(daemon), metrics.CONTENT_TYPE)


def _health(daemon: Watched) -> Answer:
    """Answer 200 while the daemon can serve. Answer 503 while it ends, or when a service has no backend or a
    forward no peer.

    Whether the state, the chain and the voucher store are available is reported with reasons, but isn't a fault,
    since the daemon goes on without them.
    """
    status = daemon.get_status(callers=False)
    faults = ["draining"] if status["draining"] else []
    faults += [
        f"service {one['service']}: no backend is up"
        for one in status["exposed"]
        if one.get("kind") not in OWN and not any(backend["up"] for backend in one["backends"])
    ]
    faults += [
        f"service {one['service']}: {one['broadcast']['why']}"
        for one in status["exposed"]
        if one.get("broadcast", {}).get("why")
    ]
    faults += [
        f"{', '.join(one['listen'])}: not connected" for one in status["forwarded"] if not one["connected"]
    ]
    body = {"healthy": not faults, "faults": faults}
    body |= {
        key: status[key] for what in LEANED_ON for key in (f"{what}_up", f"{what}_trouble") if key in status
    }
    return Answer(json.dumps(body).encode(), "application/json", 503 if faults else 200)


#: The paths, and what answers each.
PATHS: dict[str, Callable[[Watched], Answer]] = {
    "/": _file("page.html", "text/html; charset=utf-8"),
    "/page.js": _file("page.js", "text/javascript; charset=utf-8"),
    "/page.css": _file("page.css", "text/css; charset=utf-8"),
    "/status": _status,
    "/metrics": _metrics,
    "/health": _health,
}
#: Paths that need the status, and whether they need the list of callers.
_LOOKS = {"/status": True, "/metrics": False, "/health": False}


def _path_of(request: h11.Request) -> str:
    return request.target.decode("ascii").partition("?")[0]


class WebServer:
    """Serves `PATHS` at a place that only this machine can reach."""

    def __init__(self, daemon: Watched, place: LocalPlace, patience: float = _PATIENCE) -> None:
        self._daemon = daemon
        self._place = place
        self._patience = patience
        self._clients = TaskSet()
        self.listener: SocketListener | None = None
        self._ready = asyncio.Event()

    async def start(self, adopted: Sequence[socket.socket] = (), *, ready: bool = True) -> None:
        """Listen, at open sockets if there are any. Answer at once if `ready`, otherwise from `answer_now` on.
        Raise `ListenError`."""
        if ready:
            self.answer_now()
        if adopted:
            self.listener = sockets.adopt(list(adopted), self._on_socket)
        else:
            self.listener = await sockets.listen(self._place, self._on_socket)

    def answer_now(self) -> None:
        """Start answering clients, including those who are already waiting."""
        self._ready.set()

    @property
    def clients(self) -> int:
        """The number of clients being served."""
        return len(self._clients)

    @property
    def sockets(self) -> list[socket.socket]:
        """The listening sockets, which stay owned by the server."""
        return [] if self.listener is None else self.listener.sockets

    async def close(self) -> None:
        """Stop listening, and close open connections."""
        if self.listener is not None:
            await self.listener.close()
        await self._clients.stop()

    def _on_socket(self, sock: socket.socket) -> None:
        if self.clients >= _MOST:
            sock.close()
            return
        self._clients.start(self._serve_socket(sock), name="dtpd-web")

    async def _serve_socket(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        http = h11.Connection(h11.SERVER)
        with answering_through(writer), contextlib.suppress(OSError, TimeoutError, h11.ProtocolError):
            while True:
                async with asyncio.timeout(self._patience):
                    request = await self._read_request(http, reader)
                    if request is None:
                        return
                    await self._send_answer(http, writer, request)
                if http.our_state is not h11.DONE:
                    return
                http.start_next_cycle()

    @staticmethod
    async def _read_request(http: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
        request = None
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(16384))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.EndOfMessage):
                return request
            elif isinstance(event, h11.ConnectionClosed):
                return None

    async def _send_answer(
        self, http: h11.Connection, writer: asyncio.StreamWriter, request: h11.Request
    ) -> None:
        await self._ready.wait()
        callers = _LOOKS.get(_path_of(request))
        if callers is not None:
            await self._daemon.refresh_status(callers=callers)
        answer = self._find_answer(request)
        headers = [
            ("Content-Type", answer.kind),
            ("Content-Length", str(len(answer.body))),
            *_HEADERS,
        ]
        phrase = HTTPStatus(answer.status).phrase.encode()
        writer.write(
            http.send(h11.Response(status_code=answer.status, headers=headers, reason=phrase)) or b""
        )
        if request.method != b"HEAD":
            writer.write(http.send(h11.Data(data=answer.body)) or b"")
        writer.write(http.send(h11.EndOfMessage()) or b"")
        await writer.drain()

    def _find_answer(self, request: h11.Request) -> Answer:
        host = next((value for name, value in request.headers if name == b"host"), b"").decode(
            "ascii", "replace"
        )
        name = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
        # Another site's name that points to this machine (DNS rebinding) must not let that site's scripts read this
        # page.
        if not self._place.path and name not in ("localhost", "127.0.0.1", "[::1]", self._place.host):
            return Answer(b"ask for localhost\n", "text/plain", 421)
        if request.method not in (b"GET", b"HEAD"):
            return Answer(b"read-only\n", "text/plain", 405)
        make = PATHS.get(_path_of(request))
        if make is None:
            return Answer(f"there are {', '.join(PATHS)}\n".encode(), "text/plain", 404)
        return make(self._daemon)
