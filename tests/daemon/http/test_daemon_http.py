"""HTTP, WebSocket and JSON-RPC through a pair of daemons; headers, messages and the PROXY protocol by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from dtp.daemon.http.conversation import Conversation, Ended
from dtp.daemon.policies import Bounds, Caller
from dtp.daemon.reasons import Reason
from dtp.testing import clock

from ..conftest import NEAR, Backend, Pair, Run
from ..streams.test_daemon_relay import reset, until

CALLER = Caller(NEAR.id, NEAR.id.sui_address, "192.0.2.7")


# ---- HTTP through a pair -----------------------------------------------------------------------------------------


def expose(port: int, kind: str, more: str = "") -> str:
    return f'[[expose]]\nservice = "api"\nkind = "{kind}"\nallow = ["*"]\nbackend = ["127.0.0.1:{port}"]\n{more}\n'


@contextlib.asynccontextmanager
async def site(**handlers: Any) -> AsyncIterator[int]:
    """An aiohttp server; gives its port."""
    app = web.Application(client_max_size=1 << 30)
    for name, handler in handlers.items():
        app.router.add_route("*", f"/{name}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        await web.SockSite(runner, sock).start()
        try:
            yield sock.getsockname()[1]
        finally:
            await runner.cleanup()


async def mirror(request: web.Request) -> web.Response:
    body = await request.read()
    return web.json_response({"method": request.method, "headers": dict(request.headers), "size": len(body)})


def test_requests_and_who_sent_them(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with site(mirror=mirror) as backend:
            port = await pair.start(expose(backend, "http"))
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                async with client.get("/mirror", headers={"DTP-Peer": "evil", "X-Mine": "1"}) as answer:
                    seen = {name.lower(): value for name, value in (await answer.json())["headers"].items()}
                    assert answer.headers["Via"] == "1.1 dtpd"
                assert seen["dtp-peer"] == str(NEAR.id)
                assert seen["dtp-account"] == NEAR.id.sui_address
                assert seen["x-forwarded-for"] == "127.0.0.1"
                assert seen["x-mine"] == "1"
                async with client.post("/mirror", data=io.BytesIO(bytes(5_000_000))) as answer:
                    assert (await answer.json())["size"] == 5_000_000

                async def pieces() -> AsyncIterator[bytes]:
                    for _ in range(10):
                        yield bytes(100_000)

                async with client.put("/mirror", data=pieces()) as answer:  # chunked
                    assert (await answer.json())["size"] == 1_000_000
                async with client.head("/mirror") as answer:
                    assert answer.status == 200
                async with client.get("/none") as answer:
                    assert answer.status == 404
            assert pair.exposed.ledger.streams == 1

    run(scenario)


def test_policies_judge_each_request(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with site(mirror=mirror, secret=mirror) as backend:
            rules = (
                'methods = { deny = ["* /secret", "DELETE"] }\nrate = { requests = "2/h", per = "service" }'
            )
            port = await pair.start(expose(backend, "http", rules))
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                for method, path, status in (
                    ("GET", "/mirror", 200),
                    ("GET", "/secret", 403),
                    ("POST", "/secret", 403),
                    ("DELETE", "/mirror", 403),
                    ("GET", "/mirror", 200),
                    ("GET", "/mirror", 429),
                ):
                    async with client.request(method, path, data=b"x" * 1000) as answer:
                        assert answer.status == status, (method, path)
                        text = await answer.text()
                assert text.startswith("rate: 2 requests in 3600 s")
                assert 1700 < int(answer.headers["Retry-After"]) <= 1800
            assert pair.exposed.denials == {"methods": 3, "rate": 1}
            assert len(pair.exposed.ledger.open) <= 1

    run(scenario)


def test_each_request_may_have_so_many_bytes(run: Run) -> None:
    """And its answer with it; the connection may have many of them."""

    async def scenario(pair: Pair) -> None:
        async with site(mirror=mirror) as backend:
            port = await pair.start(expose(backend, "http", 'limits = { bytes = "100KB" }'))
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                for _ in range(4):
                    async with client.post("/mirror", data=bytes(60_000)) as answer:
                        assert (await answer.json())["size"] == 60_000
                assert pair.exposed.ledger.streams == 1
                with pytest.raises(aiohttp.ClientError):
                    await client.post("/mirror", data=bytes(200_000))
            assert pair.exposed.ledger.failed == 1

    run(scenario)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["reset", "end", "malformed"])
@pytest.mark.parametrize("kind", ["http", "json-rpc"])
def test_a_client_that_breaks_off_within_its_body(run: Run, way: str, kind: str) -> None:
    """The backend that waits for the rest is let go, and nothing stays."""

    async def scenario(pair: Pair) -> None:
        async with Backend(swallow) as backend:
            port = await pair.start(expose(backend.port, kind))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            if kind == "http":
                await came.wait()
            await until(lambda: pair.exposed.ledger.open)
            open_: Any
            (open_,) = pair.exposed.ledger.open
            if way == "reset":
                reset(writer)
            elif way == "end":
                writer.write_eof()
            else:
                writer.write(b"nonsense\r\n")
            await pair.exposed.ledger.wait_empty()
            assert pair.exposed.active == 0
            assert sum(one.active for one in pair.exposed.backends.balancer.backends) == 0
            if way == "reset":
                assert open_.why == "the client broke off (there)"
            else:
                assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
            writer.close()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            came.set()

    came = asyncio.Event()
    run(scenario)


def test_a_backend_that_is_away_is_502(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        port = await pair.start(expose(1, "http"))
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            for _ in range(2):
                async with client.post("/x", data=b"body") as answer:
                    assert answer.status == 502
                    assert await answer.text() == "no backend can be reached\n"

    run(scenario)


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_a_kept_connection_that_the_backend_closes(run: Run) -> None:
    """It closes when the second request comes: what changes nothing is asked again, anything else is 502."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")

    async def scenario(pair: Pair) -> None:
        async with Backend(once) as backend:
            port = await pair.start(expose(backend.port, "http"))
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                for _ in range(3):
                    async with client.get("/") as answer:
                        assert (answer.status, await answer.text()) == (200, "ok")
                assert backend.connections == 3
                async with client.post("/", data=b"once") as answer:
                    assert answer.status == 502
                    assert await answer.text() == "the backend broke off\n"
                assert backend.connections == 3
                async with client.get("/") as answer:
                    assert answer.status == 200

    run(scenario)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"", 502),
        (b"garbage\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbroken", None),
    ],
)
def test_a_backend_that_breaks_off(run: Run, answer: bytes, status: int | None) -> None:
    """Before its answer: 502. In its midst: the client sees that it is not whole."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async def scenario(pair: Pair) -> None:
        async with Backend(serve) as backend:
            port = await pair.start(expose(backend.port, "http"))
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                if status is None:
                    with pytest.raises(aiohttp.ClientError):
                        async with client.get("/") as got:
                            await got.read()
                else:
                    async with client.get("/") as got:
                        assert got.status == status
            assert backend.connections == 1  # it was asked once

    run(scenario)


def test_what_is_not_http_is_400(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        port = await pair.start(expose(1, "http"))
        for request in (b"\x16\x03\x01garbage\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
                        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"):  # fmt: skip
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 40_000)
        assert (await reader.read()).startswith(b"HTTP/1.1 431 ")
        writer.close()

    run(scenario)


def test_a_websocket(run: Run) -> None:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(request.headers["DTP-Peer"])
        async for message in socket:
            await socket.send_bytes(message.data)
        return socket

    async def scenario(pair: Pair) -> None:
        async with site(echo=echo) as backend:
            port = await pair.start(expose(backend, "http"))
            async with (
                aiohttp.ClientSession() as client,
                client.ws_connect(f"http://127.0.0.1:{port}/echo", max_msg_size=0) as socket,
            ):
                assert await socket.receive_str() == str(NEAR.id)
                for size in (1, 1000, 1_000_000):
                    await socket.send_bytes(bytes(size))
                    assert await socket.receive_bytes() == bytes(size)

    run(scenario)


async def echo_frames(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_bytes(message.data)
    return socket


def test_websockets_that_end_in_any_way(run: Run) -> None:
    """By either side's close, by a reset of either side: nothing is left, and nobody hears of an exception."""

    async def scenario(pair: Pair) -> None:
        async with site(echo=echo_frames) as backend:
            port = await pair.start(expose(backend, "http"))
            for way in ("close", "client", "backend"):
                async with (
                    aiohttp.ClientSession() as client,
                    client.ws_connect(f"http://127.0.0.1:{port}/echo") as socket,
                ):
                    await socket.send_bytes(b"x" * 1000)
                    assert await socket.receive_bytes() == b"x" * 1000
                    session: Any
                    (session,) = pair.exposed.ledger.open
                    assert session.counts.sent > 1000
                    ends = socket._writer.transport
                    if way == "client":
                        reset(SimpleNamespace(get_extra_info=ends.get_extra_info, transport=ends))  # type: ignore[arg-type]
                    elif way == "backend":
                        reset(session.link.writer)
                        assert (await socket.receive()).type in (
                            aiohttp.WSMsgType.CLOSED,
                            aiohttp.WSMsgType.ERROR,
                        )
                await pair.exposed.ledger.wait_empty()

    run(scenario)


def test_a_websocket_may_be_quiet_for_longer_than_a_request(run: Run) -> None:
    """Between requests a client has 75 s; who has changed the protocol has what the rules say."""

    async def scenario(pair: Pair) -> None:
        async with site(echo=echo_frames) as backend:
            port = await pair.start(expose(backend, "http"))
            async with (
                aiohttp.ClientSession() as client,
                client.ws_connect(f"http://127.0.0.1:{port}/echo") as socket,
            ):
                await socket.send_bytes(b"x")
                assert await socket.receive_bytes() == b"x"
                open_: Any
                (open_,) = pair.exposed.ledger.open
                assert open_._patience is None

    run(scenario)


def test_idle_means_both_directions() -> None:
    """Who only listens is not idle while the other side speaks: 10 s, looked at after 4, 8 and 12 s."""

    async def scenario() -> float:
        talk = Conversation(None, CALLER, None, Bounds(), keep=None)  # type: ignore[arg-type]
        loop = asyncio.get_running_loop()
        for seconds in (4, 8, 12):
            loop.call_later(seconds, lambda: setattr(talk, "_moved_at", loop.time()))
        began = loop.time()
        with pytest.raises(Ended, match="no bytes") as caught:
            await talk._run_in_time(lambda: asyncio.Event().wait(), 10)
        assert caught.value.reason is Reason.IDLE
        return loop.time() - began

    assert clock.run(scenario()) == pytest.approx(22)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 426),
        ({"Origin": "https://app.example"}, 101),
        ({"Origin": "https://evil.example"}, 403),
        (None, 101),
    ],
)
def test_a_service_for_websockets_alone(run: Run, headers: dict[str, str] | None, status: int) -> None:
    async def scenario(pair: Pair) -> None:
        async with site(echo=echo_frames) as backend:
            port = await pair.start(expose(backend, "websocket", 'origins = ["https://app.example"]'))
            url = f"http://127.0.0.1:{port}/echo"
            async with aiohttp.ClientSession() as client:
                if status == 426:
                    async with client.get(url, headers=headers) as answer:
                        assert (answer.status, answer.headers["Upgrade"]) == (426, "websocket")
                elif status == 403:
                    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                        await client.ws_connect(url, headers=headers)
                    assert caught.value.status == 403
                else:
                    async with client.ws_connect(url, headers=headers) as socket:
                        await socket.send_bytes(b"x")
                        assert await socket.receive_bytes() == b"x"

    run(scenario)
