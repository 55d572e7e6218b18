"""Libraries that were written for asyncio's streams and protocols run over DTP as they are: h11, aiohttp."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import aiohttp
import h11
from aiohttp import web

import dtp
from dtp.testing.clock import run

ME = dtp.Identity(bytes(range(32)))

# ---- h11, over readers and writers: nothing below but `open_connection` and `start_server` is of DTP ---------


async def next_event(connection: h11.Connection, reader: asyncio.StreamReader) -> Any:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(65536))
    return event


async def serve_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with its own body, as long as the client keeps the connection."""
    connection = h11.Connection(h11.SERVER)
    while True:
        request = await next_event(connection, reader)
        if isinstance(request, h11.ConnectionClosed):
            break
        assert isinstance(request, h11.Request)
        body = b""
        while isinstance(event := await next_event(connection, reader), h11.Data):
            body += event.data
        headers = [(b"Content-Length", b"%d" % len(body)), (b"X-Target", bytes(request.target))]
        for answer in (
            h11.Response(status_code=200, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            writer.write(connection.send(answer))
            await writer.drain()
        if connection.our_state is h11.MUST_CLOSE:
            break
        connection.start_next_cycle()
    writer.close()
    await writer.wait_closed()


async def fetch(
    connection: h11.Connection,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    target: str,
    body: bytes,
) -> tuple[int, dict[bytes, bytes], bytes]:
    headers = [("Host", "example"), ("Transfer-Encoding", "chunked")]
    writer.write(connection.send(h11.Request(method="POST", target=target, headers=headers)))
    for start in range(0, len(body), 100_000):
        writer.write(connection.send(h11.Data(data=body[start : start + 100_000])))
        await writer.drain()
    writer.write(connection.send(h11.EndOfMessage()))
    response = await next_event(connection, reader)
    received = b""
    while isinstance(event := await next_event(connection, reader), h11.Data):
        received += event.data
    connection.start_next_cycle()
    return response.status_code, dict(response.headers), received


def test_h11_over_streams() -> None:
    async def main() -> None:
        async with await dtp.start_server(serve_http, "memory://h11", identity=ME, service="http") as server:
            reader, writer = await dtp.open_connection(server.address)
            connection = h11.Connection(h11.CLIENT)
            for target, body in (("/small", b"ping"), ("/large", bytes(range(256)) * 4000), ("/none", b"")):
                status, headers, received = await fetch(connection, reader, writer, target, body)
                assert (status, headers[b"x-target"], received) == (200, target.encode(), body)
            writer.close()
            await writer.wait_closed()

    run(main())


# ---- aiohttp, by its protocols ------------------------------------------------------------------------------


class DtpConnector(aiohttp.BaseConnector):
    """All hosts are at one DTP address; what differs from aiohttp's `UnixConnector` is the one call."""

    def __init__(self, address: dtp.Address) -> None:
        super().__init__()
        self._address = address

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109
        _, protocol = await dtp.create_connection(self._factory, self._address)
        return protocol


async def hello(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    return web.Response(text=f"{request.method} {request.path} {len(body)} from {request.remote}")


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(100):
        await response.write(bytes(50_000))
    return response


async def talk(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data.upper())
    return socket


def test_aiohttp_over_protocols() -> None:
    async def main() -> None:
        app = web.Application(client_max_size=4_000_000)
        app.add_routes([web.post("/hello", hello), web.get("/stream", stream), web.get("/talk", talk)])
        runner = web.AppRunner(app)
        await runner.setup()
        assert runner.server is not None
        server = await dtp.create_server(runner.server, "tcp://127.0.0.1:0", identity=ME)
        async with aiohttp.ClientSession(connector=DtpConnector(server.address)) as session:
            for size in (0, 10, 3_000_000):
                async with session.post("http://anything/hello", data=io.BytesIO(bytes(size))) as response:
                    text = await response.text()
                assert text.startswith(f"POST /hello {size} from dtp1")
            assert len(server.listener.connections) == 1  # aiohttp kept it alive, and knew that it could
            async with session.get("http://anything/stream") as response:
                assert len(await response.read()) == 5_000_000
            async with session.ws_connect("http://anything/talk") as socket:
                await socket.send_str("hello")
                assert await socket.receive_str() == "HELLO"
        await runner.cleanup()
        server.close()
        await server.wait_closed()

    asyncio.run(main())
