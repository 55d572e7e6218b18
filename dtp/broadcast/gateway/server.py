"""A gateway's HTTP server: the page, the playlist, segments, and the state of the show."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, ClassVar, Final

import h11

from dtp.broadcast.errors import ShowSealed
from dtp.broadcast.format import NO_INIT, Flag, Segment
from dtp.broadcast.gateway.playlist import playlist, window
from dtp.broadcast.held import HeldSegments
from dtp.carriers.crowd import source_group
from dtp.carriers.errors import reason
from dtp.carriers.stream_socket import answering_through
from dtp.errors import LocalError
from dtp.session.limits import GATEWAY_UNTAKEN
from dtp.tasks import TaskSet

#: Seconds for a client to send a request, and to stay connected without one.
_PATIENCE: Final = 30.0
#: The most clients at once; a browser uses six connections.
_MOST: Final = 64
_READ: Final = 64 * 1024
#: Scripts and styles come from the page, video from what the page has made; no other site may frame it.
_HEADERS: Final = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src 'self' blob:; "
        "frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)
_FILES: Final = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
_DISMISS: Final = re.compile(r"/line/([0-9]{1,18})/dismiss")
_SEGMENT: Final = re.compile(r"/segments/([0-9]{1,18})(?:\.(?:mp4|m4s))?")
#: Media types that a player accepts, without control characters, which are illegal in headers.
_PLAYED: Final = re.compile(r"(?:audio|video)/[!-~][ -~]*")
_PLAYLIST: Final = "application/vnd.apple.mpegurl"


class GatewayError(LocalError):
    """A gateway can't listen at the given address."""

    code: ClassVar[str] = "gateway"


class Gateway:
    """Serves one show to browsers. `async with` opens it.

    Browsers trust what they are given. Segments are checked here, so the gateway should run on the viewer's own
    machine, or on one that they trust.
    """

    def __init__(
        self,
        held: HeldSegments,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        money: Callable[[], Mapping[str, Any]] | None = None,
        open: Callable[[Segment, bytes], bytes] = lambda _, data: data,
        dismiss: Callable[[int], object] | None = None,
    ) -> None:
        """`money` returns the state of the show on the chain for the page (`ShowWatcher.make_page`). `open` opens
        segments of a sealed show, and raises `ShowSealed` if it can't. With `dismiss`, whoever sees the page
        moderates the audience line: such a gateway only listens on this machine, or raises `GatewayError`.
        """
        if dismiss is not None and not _is_loopback(host):
            raise GatewayError(
                f"who reaches {host} would moderate the audience line; serve the page at 127.0.0.1"
            )
        self.held = held
        self._dismiss = dismiss
        self._host, self._port = host, port
        self._money, self._open = money, open
        #: Why nothing more is played, for the page; "" while more may come.
        self.fault = ""
        self._clients = TaskSet(on_error=lambda *_: None)
        #: The address of each client, oldest first.
        self._sources: dict[asyncio.StreamWriter, str] = {}
        self._server: asyncio.Server | None = None
        #: Held while answering, so that there is one answer per turn of the loop. Passing on a segment takes a
        #: dozen turns, which would be slow if all clients were answered in each.
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Gateway:
        """Raise `GatewayError` if the address can't be bound."""
        try:
            self._server = await asyncio.start_server(self._accept_client, self._host, self._port)
        except OSError as fault:
            raise GatewayError(
                f"can't listen at {self._host}:{self._port}: {reason(fault, listening=self._port)}"
            ) from fault
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        await self._clients.stop()

    @property
    def url(self) -> str:
        """The URL of the page."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/"

    def state(self) -> dict[str, Any]:
        """Return the show's state, as shown on the page."""
        told = self.held.announcement
        shown = window(self.held)
        newest = self.held.get_segment(self.held.edge)
        return {
            "title": told.title,
            "producer": str(told.producer),
            "show": told.show.hex(),
            "media": told.media,
            "segments": [
                {
                    "number": each.number,
                    "init": None if each.init == NO_INIT else each.init,
                    "start": Flag.START in each.flags,
                    "ms": each.duration_ms,
                }
                for each in shown
            ],
            "edge": self.held.edge,
            "edge_ms": None if newest is None else newest.segment.time_ms,
            "ended": self.held.ended,
            "fault": str(self.held.fault or self.fault) or None,
            "money": None if self._money is None else dict(self._money()),
            "moderated_here": self._dismiss is not None,
        }

    def _accept_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve another client. If that is too many, the oldest client of the address with most clients is
        dropped."""
        if len(self._sources) >= _MOST:
            ((most, _),) = Counter(self._sources.values()).most_common(1)
            self._drop_client(next(each for each, source in self._sources.items() if source == most))
        task = self._clients.start(self._serve_client(reader, writer), name="dtp-show-gateway")
        self._sources[writer] = source_group((writer.get_extra_info("peername") or ("",))[0])
        task.add_done_callback(lambda _: self._sources.pop(writer, None))

    async def _serve_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=16 * 1024)
        with answering_through(writer), contextlib.suppress(OSError, TimeoutError, h11.ProtocolError):
            while http.our_state is not h11.MUST_CLOSE:
                async with asyncio.timeout(_PATIENCE):
                    request = await _request(http, reader)
                if request is None:
                    return
                async with self._turn:
                    self._write_answer(http, request, writer)
                    await asyncio.sleep(0)
                async with asyncio.timeout(_PATIENCE):
                    await writer.drain()
                if http.our_state is h11.DONE and http.their_state is h11.DONE:
                    http.start_next_cycle()
                else:
                    return

    def _write_answer(self, http: h11.Connection, request: h11.Request, writer: asyncio.StreamWriter) -> None:
        status, kind, body = self._make_answer(request)
        headers = [*_HEADERS, ("Content-Type", kind), ("Content-Length", str(len(body)))]
        answer: list[h11.Event] = [h11.Response(status_code=status, headers=headers)]
        if request.method != b"HEAD":
            self._make_room(len(body), writer)
            answer.append(h11.Data(data=body))
        for each in (*answer, h11.EndOfMessage()):
            writer.write(http.send(each) or b"")

    @property
    def unread_bytes(self) -> int:
        """Bytes of answers that clients haven't read."""
        return sum(each.transport.get_write_buffer_size() for each in self._sources)

    def _make_room(self, size: int, writer: asyncio.StreamWriter) -> None:
        """Close clients that are slow to read, until there is room for `size` more bytes."""
        while self.unread_bytes + size > GATEWAY_UNTAKEN:
            slow = {
                each: each.transport.get_write_buffer_size() for each in self._sources if each is not writer
            }
            by_source = Counter[str]()
            for each, kept in slow.items():
                by_source[self._sources[each]] += kept
            if not by_source.total():
                return
            ((most, _),) = by_source.most_common(1)
            self._drop_client(
                max((each for each in slow if self._sources[each] == most), key=slow.__getitem__)
            )

    def _drop_client(self, writer: asyncio.StreamWriter) -> None:
        del self._sources[writer]
        writer.transport.abort()  # a task that is cancelled before its first step would close nothing

    def _make_answer(self, request: h11.Request) -> tuple[int, str, bytes]:
        text = "text/plain; charset=utf-8"
        headers = dict(request.headers)
        if not self._is_here(headers.get(b"host", b"")):
            return 403, text, b"this gateway has another name\n"
        if request.method == b"POST" and self._dismiss is not None:
            return self._dismiss_entry(request.target, headers)
        if request.method not in (b"GET", b"HEAD"):
            return 405, text, b"read only\n"
        path = request.target.decode("ascii", "replace").partition("?")[0]
        if path in _FILES:
            name, kind = _FILES[path]
            return 200, kind, resources.files(__package__).joinpath(name).read_bytes()
        if path == "/state":
            return 200, "application/json", json.dumps(self.state()).encode()
        if path == "/live.m3u8":
            return 200, _PLAYLIST, playlist(self.held).encode()
        if (match := _SEGMENT.fullmatch(path)) is not None:
            data = self._segment_data(int(match[1]))
            if data is not None:
                return 200, self._media_type(), data
        return 404, text, b"not found\n"

    def _dismiss_entry(self, target: bytes, headers: Mapping[bytes, bytes]) -> tuple[int, str, bytes]:
        """Dismiss an entry of the line if the page itself requests it, which a browser's headers show."""
        text = "text/plain; charset=utf-8"
        if headers.get(b"origin") != b"http://" + headers[b"host"]:
            return 403, text, b"only the page moderates\n"
        match = _DISMISS.fullmatch(target.decode("ascii", "replace"))
        if match is None or self._dismiss is None:
            return 404, text, b"not found\n"
        try:
            self._dismiss(int(match[1]))
        except LocalError as fault:
            return 500, text, f"{fault}\n".encode()
        return 200, text, b"dismissed\n"

    def _media_type(self) -> str:
        """Return the media type of segments: the producer's if it is audio or video, since a stranger's HTML or
        script must not run here."""
        media = self.held.announcement.media
        return media if _PLAYED.fullmatch(media) else "application/octet-stream"

    def _segment_data(self, number: int) -> bytes | None:
        held = self.held.get_segment(number)
        if held is None or not held.whole:
            return None
        try:
            return self._open(held.segment, held.data)
        except ShowSealed:
            return None

    def _is_here(self, host: bytes) -> bool:
        """Return False for a host name other than this server's: a site whose name points here could read
        everything."""
        name = host.decode("ascii", "replace").rpartition(":")[0].strip("[]") or host.decode(
            "ascii", "replace"
        )
        if name in ("localhost", self._host):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _request(http: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """Return the next request, once it is complete; None when the client is done."""
    request: h11.Request | None = None
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(_READ))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            return request
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            return None
