"""Opening handshakes: from a connected socket to an open WebSocket, on either side, and through HTTP proxies.

What a stranger can send before it is through is bounded by `MAX_HEAD` bytes and, by the callers,
`UPGRADE_TIMEOUT`.
"""

from __future__ import annotations

import base64
import ipaddress
import logging
import urllib.request
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from websockets.client import ClientProtocol
from websockets.http11 import Request
from websockets.protocol import SEND_EOF, Protocol
from websockets.server import ServerProtocol
from websockets.uri import WebSocketURI

from dtp.carriers.errors import CarrierUrlError, HeadSizeError, OriginError, UpgradeError
from dtp.carriers.socket_io import SocketIO
from dtp.carriers.url import format_host
from dtp.carriers.websocket_carrier import MAX_MESSAGE

log = logging.getLogger("dtp.carriers.websocket")

#: Seconds for a whole opening handshake, TLS and proxy included. The field's strict default (5 to 10 s).
UPGRADE_TIMEOUT = 10.0

#: Most bytes of an HTTP request or response up to the empty line. nginx takes 32 KiB, Apache 8 KiB a line;
#: ours have less than one, and a proxy's cookies and tokens fit.
MAX_HEAD = 16 * 1024

#: Most bytes of the text that comes with a refusal.
MAX_REFUSAL = 64 * 1024

_HEAD_END = b"\r\n\r\n"


async def _read_head(io: SocketIO, protocol: Protocol | None) -> tuple[bytes, bytes]:
    """Read up to the empty line that ends an HTTP head, feeding `protocol` as it comes, so that it can refuse
    nonsense early. Gives the head and what came behind it. Raises `UpgradeError` when it ends
    first, `HeadSizeError` past `MAX_HEAD`."""
    head = b""
    while True:
        data = await io.read()
        if not data:
            raise UpgradeError(f"the other side ended after {len(head)} bytes of HTTP")
        searched_from = max(0, len(head) - len(_HEAD_END) + 1)
        before = len(head)
        head += data
        found = head.find(_HEAD_END, searched_from)
        end = len(head) if found < 0 else found + len(_HEAD_END)
        if end > MAX_HEAD:
            raise HeadSizeError(f"more than {MAX_HEAD} bytes of HTTP header")
        if protocol is not None:
            protocol.receive_data(head[before:end])
            if protocol.handshake_exc is not None:
                return head[:end], b""
        if found >= 0:
            return head[:end], head[end:]


async def _send(io: SocketIO, protocol: Protocol) -> None:
    for data in protocol.data_to_send():
        if data != SEND_EOF:
            await io.write(data)


async def upgrade_client(io: SocketIO, uri: WebSocketURI) -> tuple[ClientProtocol, bytes]:
    """Ask for a WebSocket. Gives the open protocol and what came right behind the answer.

    Raises `UpgradeError` for a refusal or an answer that isn't one; `OSError` passes through.
    """
    protocol = ClientProtocol(uri, max_size=MAX_MESSAGE, logger=log)
    protocol.send_request(protocol.connect())
    await _send(io, protocol)
    head, rest = await _read_head(io, protocol)
    received = len(rest)
    while not protocol.events_received() and protocol.handshake_exc is None:
        # A refusal comes with a text, which the protocol wants to see whole.
        if received > MAX_REFUSAL:
            raise UpgradeError(f"refused with more than {MAX_REFUSAL} bytes of text")
        if not rest:
            rest = await io.read()
            received += len(rest)
        if not rest:
            protocol.receive_eof()
            break
        protocol.receive_data(rest)
        rest = b""
    if protocol.handshake_exc is not None:
        status = head.split(b"\r\n", 1)[0].decode("latin-1")
        raise UpgradeError(
            f"no WebSocket there: {protocol.handshake_exc} ({status})"
        ) from protocol.handshake_exc
    return protocol, rest


@dataclass(frozen=True)
class WebSocketPolicy:
    """What a listener asks of those that come: `path` is the only one that is served (None: any).

    `origins` are the web pages that may come (RFC 6454, as browsers write it: `https://host` or `https://host:port`).
    Programs name no origin and need none.
    """

    path: str | None
    trust_forwarded: bool
    origins: tuple[str, ...] = ()


async def upgrade_server(io: SocketIO, policy: WebSocketPolicy) -> tuple[ServerProtocol, str | None]:
    """Answer somebody who should want a WebSocket. Gives the open protocol, and the address in
    `X-Forwarded-For` when the policy trusts it.

    Raises `UpgradeError` after having answered with the fitting status; `OSError` passes through.
    """
    protocol = ServerProtocol(max_size=MAX_MESSAGE, logger=log)
    try:
        _, rest = await _read_head(io, protocol)
    except HeadSizeError as error:
        protocol.send_response(protocol.reject(431, f"{error}\n"))
        await _send(io, protocol)
        raise
    if protocol.handshake_exc is not None:
        await _send(io, protocol)
        raise UpgradeError(f"not a WebSocket request: {protocol.handshake_exc}") from protocol.handshake_exc
    (request,) = protocol.events_received()
    assert isinstance(request, Request)
    page = next((each for each in request.headers.get_all("Origin") if each not in policy.origins), None)
    if page is not None:
        protocol.send_response(protocol.reject(403, "Pages of this origin may not connect.\n"))
        await _send(io, protocol)
        raise OriginError(
            f"a web page of {page!r} wants in; origins= in the listener's URL lists those that may"
        )
    if policy.path is not None and request.path.partition("?")[0] != policy.path:
        response = protocol.reject(404, "No carrier at this path.\n")
    elif rest:
        response = protocol.reject(400, "Data before the WebSocket was open.\n")
    else:
        response = protocol.accept(request)
    protocol.send_response(response)
    await _send(io, protocol)
    if response.status_code != 101:
        raise UpgradeError(f"refused with {response.status_code}: {response.body.decode().strip()}")
    forwarded = forwarded_for(request.headers.get_all("X-Forwarded-For")) if policy.trust_forwarded else None
    return protocol, forwarded


def forwarded_for(headers: list[str]) -> str | None:
    """Return the address that the nearest proxy saw: the last one; those before it are what the client claims. None
    when there is none or it isn't an IP address."""
    if not headers:
        return None
    last = headers[-1].rpartition(",")[2].strip()
    try:
        return str(ipaddress.ip_address(last))
    except ValueError:
        return None


@dataclass(frozen=True)
class HttpProxy:
    """An HTTP proxy that is asked to CONNECT. `credentials` are `user:password`, or empty."""

    host: str
    port: int
    credentials: str


def find_proxy(url: str, host: str, port: int, secure: bool, option: str | None) -> HttpProxy | None:
    """Return the proxy to dial through: the one in the URL's option `proxy` (none of them with `proxy=none`), else
    the one that the environment names (`https_proxy`, for `ws://` also `http_proxy`; `no_proxy` is respected,
    and this machine is never reached through a proxy). Raises `CarrierUrlError` for one that isn't HTTP; no
    message quotes it, since it may hold a password.
    """
    if option == "none":
        return None
    if option is None:
        if _is_loopback(host) or urllib.request.proxy_bypass(f"{host}:{port}"):
            return None
        known = urllib.request.getproxies()
        names = ("wss", "https") if secure else ("ws", "https", "http")
        option = next((known[name] for name in names if known.get(name)), None)
        if option is None:
            return None
    parts = urlsplit(option if "://" in option else f"http://{option}")
    try:
        proxy_port = parts.port or 80
    except ValueError as error:
        raise CarrierUrlError(f"{url}: the proxy has no usable port: {error}") from error
    if parts.scheme != "http" or not parts.hostname:
        raise CarrierUrlError(f"{url}: the proxy is not http://host:port; proxy=none goes without")
    user = unquote(parts.username or "")
    return HttpProxy(parts.hostname, proxy_port, f"{user}:{unquote(parts.password or '')}" if user else "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


async def connect_through(io: SocketIO, proxy: HttpProxy, host: str, port: int) -> None:
    """Ask a proxy to CONNECT to `host:port` (RFC 9110, 9.3.6). Raises `UpgradeError` when it doesn't."""
    target = format_host(host, port)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.credentials:
        token = base64.b64encode(proxy.credentials.encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {token}")
    await io.write("\r\n".join([*lines, "", ""]).encode())
    head, rest = await _read_head(io, None)
    status = head.split(b"\r\n", 1)[0].decode("latin-1")
    version, _, code = status.partition(" ")
    if not version.startswith("HTTP/1.") or not code.startswith("2") or rest:
        raise UpgradeError(f"the proxy {proxy.host}:{proxy.port} did not connect to {target}: {status!r}")
