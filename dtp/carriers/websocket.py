"""WebSocket: `ws://host:port/path` and, inside TLS, `wss://host:port/path`. Passes HTTP proxies and web
servers.

Options when dialling, taken out of the query (the rest of it is sent along): `ca=/ca.pem` trusts only the
authorities in that file; `proxy=http://user:password@host:port` dials through an HTTP proxy, `proxy=none`
through none; without it the environment decides as it does for other programs (`https_proxy`, `no_proxy`).

When listening: `cert=/chain.pem` and `key=/key.pem` (wss), `reuse_port=1`, `backlog=N`, `trust_forwarded=1`
(only behind a proxy of one's own: take `source` from the last `X-Forwarded-For`),
`origins=https://a.example,https://b.example:8443` (web pages that may connect: browsers say where a page is from, and
without this none may; programs say nothing, and may). With a path, only that one is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import ssl
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from websockets.protocol import Protocol
from websockets.uri import parse_uri

from dtp.carriers.base import Accept, CarrierListener
from dtp.carriers.crowd import Crowd, part_of_reserve
from dtp.carriers.errors import (
    CarrierUrlError,
    DialError,
    TlsError,
    UpgradeError,
    UpgradeTimeoutError,
    reason,
)
from dtp.carriers.nearness import dialled_as_told
from dtp.carriers.socket_io import SocketIO, StepsOfTurn
from dtp.carriers.stream_socket import SocketListener, hand_over
from dtp.carriers.tcp import TcpCarrier, connect_socket, listening_sockets, set_options, socket_url
from dtp.carriers.tls import ServerTls, TlsSocketCarrier, client_context, explain_tls_error
from dtp.carriers.url import CarrierUrl, format_host, parse_url, plain_ip
from dtp.carriers.watch import socket_watcher
from dtp.carriers.websocket_carrier import SecureWebSocketCarrier, WebSocketCarrier
from dtp.carriers.websocket_upgrade import (
    UPGRADE_TIMEOUT,
    WebSocketPolicy,
    connect_through,
    find_proxy,
    upgrade_client,
    upgrade_server,
)
from dtp.tasks import start_task

log = logging.getLogger("dtp.carriers.websocket")

#: Opening handshakes under way in one listener, and those of one source; one more ends one of them, by lot. Whoever
#: is honest takes milliseconds, so a flood of silent connections doesn't keep anyone out.
MAX_UPGRADES = 512
MAX_OF_A_SOURCE = MAX_UPGRADES // 2

#: Steps of opening handshakes in a turn of the loop, of TLS and of the request: 0.3 ms each, and more with long keys.
STEPS_PER_TURN = 4

#: Seconds for somebody who was refused to read why.
REFUSAL_LINGER = 1.0

#: What browsers say of a page: scheme, host, and the port where it isn't the scheme's own (RFC 6454, 6.2).
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")

_DIAL_OPTIONS = {"ca", "proxy"}
_LISTEN_OPTIONS = {"reuse_port", "backlog", "trust_forwarded", "origins"}


async def dial(url: str, patience: float = UPGRADE_TIMEOUT) -> WebSocketCarrier:
    """Dial `ws://host:port/path` or `wss://`. Raises `DialError` (`UpgradeError`, `TlsError`),
    `CarrierUrlError`.

    Names, addresses and the connection have no time limit of their own, what follows has `patience` seconds.
    """
    parts = parse_url(url, None)
    sent = _without_options(url)  # also for messages: an option may hold a proxy's password
    if not parts.host:
        raise CarrierUrlError(f"{sent}: to dial takes a host: ws://host:port/path")
    secure = parts.scheme == "wss"
    if "ca" in parts.options and not secure:
        raise CarrierUrlError(f"{sent}: ca is for wss; ws is not encrypted")
    port = parts.port or (443 if secure else 80)
    context = client_context(sent, parts.options.get("ca")) if secure else None
    proxy = find_proxy(sent, parts.host, port, secure, parts.options.get("proxy"))
    if proxy is None:
        sock, source = await connect_socket(parts.host, port)
    else:
        with dialled_as_told(None):  # the proxy is of this side's own choice
            sock, source = await connect_socket(proxy.host, proxy.port)
        source = f"proxy:{source}"  # whoever is behind it may be anywhere
    try:
        async with asyncio.timeout(patience):
            if proxy is not None:
                await connect_through(SocketIO(sock), proxy, parts.host, port)
            if context is not None:
                sock = await _start_tls(sock, context, parts.host)
            protocol, early = await upgrade_client(SocketIO(sock), parse_uri(sent))
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):  # CarrierError, TimeoutError and ssl.SSLError are
            raise _dial_error(sent, error, patience) from error
        raise
    return _carrier(sock, protocol, early, source=source, remote=sent)


def _dial_error(url: str, error: OSError, patience: float) -> DialError:
    """Return what went wrong in an opening handshake, with the URL."""
    if isinstance(error, UpgradeError):
        return type(error)(f"{url}: {error}")
    if isinstance(error, TimeoutError):
        return UpgradeTimeoutError(f"{url}: the opening handshake took over {patience:g} s")
    if isinstance(error, ssl.SSLError):
        return TlsError(f"{url}: {explain_tls_error(error)}")
    return UpgradeError(f"{url}: {reason(error)}")


async def listen(url: str, accept: Accept) -> CarrierListener:
    """Listen at `ws://host:port/path` or `wss://`. Raises `ListenError` and `CarrierUrlError`."""
    parts, policy, tls = _listen_options(url)
    socks = await listening_sockets(parts)
    return _listener(socks, parts, policy, tls, accept)


def listen_sockets(socks: list[socket.socket], accept: Accept, url: str) -> CarrierListener:
    """Accept on listening sockets, which the listener owns from here on, with path and options of `url`.
    Raises `CarrierUrlError`, and then the sockets are still the caller's."""
    socket_watcher(asyncio.get_running_loop())
    return _listener(socks, *_listen_options(url), accept)


def _listen_options(url: str) -> tuple[CarrierUrl, WebSocketPolicy, ServerTls | None]:
    """Return the parts of a URL: all that can be wrong with it is looked at before anything is opened."""
    secure = urlsplit(url).scheme == "wss"
    parts = parse_url(url, _LISTEN_OPTIONS | ({"cert", "key"} if secure else set()))
    tls = ServerTls(url, parts.options.get("cert"), parts.options.get("key")) if secure else None
    path = parts.path if parts.path not in ("", "/") else None
    return parts, WebSocketPolicy(path, parts.get_flag("trust_forwarded"), _origins(parts)), tls


def _origins(parts: CarrierUrl) -> tuple[str, ...]:
    """Return the option `origins`. Raise `CarrierUrlError` for what no browser would say."""
    listed = tuple(filter(None, parts.options.get("origins", "").split(",")))
    for each in listed:
        if not _ORIGIN.fullmatch(each):
            raise CarrierUrlError(
                f"{parts.text}: {each!r} is not an origin of web pages; write https://host or https://host:port, "
                "in small letters and without a path"
            )
    return listed


def _listener(
    socks: list[socket.socket],
    parts: CarrierUrl,
    policy: WebSocketPolicy,
    tls: ServerTls | None,
    accept: Accept,
) -> WebSocketListener:
    urls = [socket_url(parts.scheme, sock, parts.path) for sock in socks]
    return WebSocketListener(socks, urls, policy, tls, accept)


class WebSocketListener(CarrierListener):
    """Accepts carriers whose opening handshake has succeeded."""

    def __init__(
        self,
        socks: list[socket.socket],
        urls: list[str],
        policy: WebSocketPolicy,
        tls: ServerTls | None,
        accept: Accept,
    ) -> None:
        self.urls = urls
        self._policy = policy
        self._tls = tls
        self._accept = accept
        most = part_of_reserve(MAX_UPGRADES)
        # Behind a proxy all have its address.
        of_source = most if policy.trust_forwarded else min(MAX_OF_A_SOURCE, (most + 1) // 2)
        self._upgrades = Crowd[asyncio.Task[WebSocketCarrier]](most, of_source)
        self._steps = StepsOfTurn(STEPS_PER_TURN)
        self._below = SocketListener(socks, self.urls, self._on_socket, answers=True)

    @property
    def sockets(self) -> list[socket.socket]:
        """The sockets that the listener below has."""
        return self._below.sockets

    async def close(self) -> None:
        await self._below.close()
        for task in self._upgrades:
            task.cancel()
        await asyncio.gather(*self._upgrades, return_exceptions=True)

    def _on_socket(self, sock: socket.socket) -> None:
        try:
            address = sock.getpeername()
        except OSError:  # reset before we got to it
            sock.close()
            return
        source = plain_ip(address)
        if not self._upgrades.has_room(source) and (drawn := self._upgrades.draw_one(source)) is not None:
            self._upgrades.discard(drawn)
            drawn.cancel()
        task = start_task(self._upgrade_socket(sock, address), name=f"upgrade at {self.urls[0]}")
        self._upgrades.add(task, source)
        task.add_done_callback(partial(self._on_done, sock))

    def _on_done(self, sock: socket.socket, task: asyncio.Task[WebSocketCarrier]) -> None:
        self._upgrades.discard(task)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            sock.close()  # here, since a task that is cancelled before its first step never runs
        if isinstance(error, OSError):  # CarrierError, TimeoutError and ssl.SSLError are
            log.info("no WebSocket at %s from this connection: %s", self.urls[0], error or "too slow")
        elif not task.cancelled():
            hand_over(task.result(), self._accept)

    async def _upgrade_socket(self, sock: socket.socket, address: tuple[Any, ...]) -> WebSocketCarrier:
        """Make a carrier of a connection from `address`."""
        set_options(sock)
        scheme = "ws" if self._tls is None else "wss"
        remote = f"{scheme}://{format_host(address[0], address[1])}"
        async with asyncio.timeout(UPGRADE_TIMEOUT):
            if self._tls is not None:
                sock = await _start_tls(sock, self._tls.context, None, self._steps, plain_ip(address))
            try:
                protocol, forwarded = await self._answer_upgrade(
                    SocketIO(sock, self._steps, plain_ip(address))
                )
            except BaseException:
                sock.close()  # the TLS one, which has taken the place of the other
                raise
        return _carrier(sock, protocol, b"", source=forwarded or plain_ip(address), remote=remote)

    async def _answer_upgrade(self, io: SocketIO) -> tuple[Protocol, str | None]:
        try:
            return await upgrade_server(io, self._policy)
        except UpgradeError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFUSAL_LINGER):
                    await io.finish()
            raise


async def _start_tls(
    sock: socket.socket,
    context: ssl.SSLContext,
    host: str | None,
    steps: StepsOfTurn | None = None,
    source: str = "",
) -> ssl.SSLSocket:
    """Do the TLS handshake, on a socket that takes the place of `sock`, which is closed when that fails."""
    secured = context.wrap_socket(
        sock, server_side=host is None, server_hostname=host, do_handshake_on_connect=False
    )
    try:
        await SocketIO(secured, steps, source).start_tls()
    except BaseException:
        secured.close()
        raise
    return secured


def _carrier(
    sock: socket.socket, protocol: Protocol, early: bytes, *, source: str, remote: str
) -> WebSocketCarrier:
    if isinstance(sock, ssl.SSLSocket):
        tls = TlsSocketCarrier(sock, source=source, remote=remote)
        return SecureWebSocketCarrier(tls, protocol, early=early, source=source, remote=remote)
    tcp = TcpCarrier(sock, source=source, remote=remote)
    return WebSocketCarrier(tcp, protocol, early=early, source=source, remote=remote)


def _without_options(url: str) -> str:
    """Return the URL as it is sent: without the options that are for us."""
    parts = urlsplit(url)
    if not parts.query:
        return url
    kept = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True)]
    return parts._replace(query=urlencode([item for item in kept if item[0] not in _DIAL_OPTIONS])).geturl()
