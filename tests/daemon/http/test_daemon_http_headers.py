"""What a daemon says of callers to backends: headers, and the PROXY protocol."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from dtp.daemon.config.values import LocalPlace
from dtp.daemon.http.headers import to_backend, to_client, tokens
from dtp.daemon.policies import Caller
from dtp.daemon.relays import sockets
from dtp.daemon.relays.backends import proxy_protocol
from dtp.daemon.relays.backends.dialer import BackendDialer
from dtp.daemon.relays.backends.direct import connect_now
from dtp.daemon.server import Daemon

from ..conftest import NEAR, Backend, Pair, Run, echo
from ..streams.test_daemon_relay import until
from .test_daemon_http import CALLER, expose

# ---- headers -----------------------------------------------------------------------------------------------------


def test_spoofed_headers_are_removed_and_true_ones_set() -> None:
    spoofed = [b"dtp-peer", b"dtp_peer", b"dtp-anything", b"x-forwarded-for", b"x_forwarded_for", b"x-real-ip",
               b"forwarded", b"via"]  # fmt: skip
    headers = [(b"host", b"x"), (b"accept", b"*/*"), *((name, b"evil") for name in spoofed)]
    found = to_backend(headers, CALLER, "api")
    assert b"evil" not in [value for _, value in found]
    assert dict(found) == {
        b"host": b"x",
        b"accept": b"*/*",
        b"dtp-peer": str(NEAR.id).encode(),
        b"dtp-account": NEAR.id.sui_address.encode(),
        b"dtp-service": b"api",
        b"x-forwarded-for": b"192.0.2.7",
        b"via": b"1.1 dtpd",
    }


def test_headers_of_one_hop_stay_there() -> None:
    headers = [
        (b"host", b"x"),
        (b"connection", b"keep-alive, X-Secret"),
        (b"keep-alive", b"timeout=5"),
        (b"x-secret", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"te", b"trailers"),
        (b"content-type", b"text/plain"),
    ]
    kept = dict(to_backend(headers, CALLER, "api"))
    assert b"x-secret" not in kept
    assert b"connection" not in kept
    assert kept[b"transfer-encoding"] == b"chunked"
    assert dict(to_client(headers)) == {b"host": b"x", b"content-type": b"text/plain", b"via": b"1.1 dtpd"}


@pytest.mark.parametrize(
    "name",
    [b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
     b"transfer-encoding", b"upgrade"],
)  # fmt: skip
def test_fields_of_one_hop_need_not_be_named(name: bytes) -> None:
    headers = [(b"host", b"x"), (name, b"1")]
    assert name not in dict(to_backend(headers, CALLER, "api"))
    assert name not in dict(to_client(headers))


def test_who_says_little_is_told_of_all_the_same() -> None:
    """HTTP/1.0 needs no Host, and a caller may have no address."""
    found = to_backend([], Caller(NEAR.id, NEAR.id.sui_address, ""), "\u00fcber")
    assert found[0] == (b"host", b"localhost")
    assert (b"dtp-service", "\u00fcber".encode()) in found
    assert (b"x-forwarded-for", b"unknown") in found


def test_elements_of_lists() -> None:
    assert tokens([(b"a", b" X, ,,y\t"), (b"a", b""), (b"b", b"z")], b"a") == {b"x", b"y"}


# ---- the PROXY protocol ------------------------------------------------------------------------------------------


def tlvs(body: bytes) -> dict[int, bytes]:
    found = {}
    while body:
        size = int.from_bytes(body[1:3])
        found[body[0]] = body[3 : 3 + size]
        body = body[3 + size :]
    return found


@pytest.mark.parametrize(
    ("source", "destination", "family", "addresses"),
    [
        ("192.0.2.7", ("127.0.0.1", 80), 0x11, bytes([192, 0, 2, 7, 127, 0, 0, 1, 0, 0, 0, 80])),
        (
            "2001:db8::1",
            ("::1", 80),
            0x21,
            bytes.fromhex("20010db8" + "0" * 23 + "1" + "0" * 31 + "1" + "00000050"),
        ),
        ("unix:uid=0", ("127.0.0.1", 80), 0x00, b""),
        ("192.0.2.7", None, 0x00, b""),
        ("192.0.2.7", ("::1", 80), 0x00, b""),
    ],
)
def test_proxy_header(
    source: str, destination: tuple[str, int] | None, family: int, addresses: bytes
) -> None:
    caller = Caller(NEAR.id, NEAR.id.sui_address, source)
    header = proxy_protocol.header(caller, "api", destination)
    assert header[:12] == bytes.fromhex("0d0a0d0a000d0a515549540a")  # section 2.2
    assert header[12] == 0x21
    assert header[13] == family
    assert int.from_bytes(header[14:16]) == len(header) - 16
    assert header[16 : 16 + len(addresses)] == addresses
    assert tlvs(header[16 + len(addresses) :]) == {
        0x02: b"api",
        0xE0: str(NEAR.id).encode(),
        0xE1: NEAR.id.sui_address.encode(),
    }


def test_a_backend_gets_the_proxy_header_first(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readexactly(16)
            received.append(head + await reader.readexactly(int.from_bytes(head[14:])))
            writer.write(await reader.read(5))

        received: list[Any] = []
        async with Backend(serve) as backend:
            port = await pair.start(expose(backend.port, "tcp", "proxy-protocol = true"))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            assert await reader.read() == b"hello"
            writer.close()
            assert received == [
                proxy_protocol.header(
                    Caller(NEAR.id, NEAR.id.sui_address, "127.0.0.1"), "api", ("127.0.0.1", backend.port)
                )
            ]

    run(scenario)


class Lost(socket.socket):
    """A socket whose other end has reset."""

    def getpeername(self) -> None:
        raise OSError(errno.ENOTCONN, "not connected")


def losing(port: Callable[..., Any], lost: list[Any] | None = None) -> BackendDialer:
    """A dialer whose backend at that port breaks off as soon as it is there; `lost` gets the sockets."""

    def lose(sock: socket.socket) -> Lost | socket.socket:
        if sock is None or sock.getpeername()[1] != port():
            return sock
        sock = Lost(fileno=sock.detach())
        if lost is not None:
            lost.append(sock)
        return sock

    async def connect(place: LocalPlace) -> Lost | socket.socket:
        return lose(await sockets.connect(place))

    return BackendDialer(lambda place: lose(connect_now(place)), connect)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_a_backend_that_breaks_off_before_its_header_is_passed_over(run: Run, kind: str) -> None:
    """A socket whose other end has reset has no peer's name: it ended all of the caller's connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(16)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    gone, there = Backend(serve), Backend(serve)

    async def scenario(pair: Pair) -> None:
        pair.make = partial(Daemon, dialer=losing(lambda: gone.port))
        async with gone, there:
            both = "proxy-protocol = true\nconcurrency = { service = 1 }"
            text = expose(there.port, kind, both).replace(
                'backend = ["', f'backend = ["127.0.0.1:{gone.port}", "'
            )
            port = await pair.start(text)
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert (await reader.read()).endswith(b"ok")
                writer.close()
                await pair.exposed.ledger.wait_empty()
            assert pair.exposed.active == 0
            assert [one.active for one in pair.exposed.backends.balancer.backends] == [0, 0]
            assert pair.exposed.backends.balancer.backends[0].failures > 0

    run(scenario)


def test_backends_that_all_break_off_are_asked_once_each(run: Run) -> None:
    lost: list[Any] = []

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            pair.make = partial(Daemon, dialer=losing(lambda: backend.port, lost))
            port = await pair.start(expose(backend.port, "tcp", "proxy-protocol = true"))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
            assert (pair.exposed.active, pair.exposed.ledger.failed) == (0, 1)
            assert [sock.fileno() for sock in lost] == [-1]

    run(scenario)


@pytest.mark.parametrize(
    ("more", "first"),
    # Section 2.2: version 2, LOCAL, no family, nothing more.
    [("proxy-protocol = true", b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"), ("", b"")],
)
def test_a_check_says_that_it_is_the_daemons_own(run: Run, more: str, first: bytes) -> None:
    """A backend that wants a header would be down for ever."""
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(65536))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async def scenario(pair: Pair) -> None:
        async with Backend(serve) as backend:
            await pair.start(expose(backend.port, "tcp", more + '\nhealth = { http = "/health" }'))
            await until(lambda: asked)

    run(scenario)
    assert asked[0].startswith(first + b"GET /health HTTP/1.1\r\n")
