"""Clients and servers of gRPC in two implementations, for a pair of daemons between them: bytes in, bytes out."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import grpclib.server
import pytest
from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError
from hpack import Encoder
from hyperframe import frame as h2

from dtp.daemon.http import frames

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")


PACKAGE = "/test.Echo"


#: What a client says first.
HELLO = frames.PREFACE + h2.SettingsFrame(0).serialize()


#: A GOAWAY frame's type, flags and stream, behind its size.
GOING_AWAY = b"\x07\x00\x00\x00\x00\x00"


def expose(port: int, more: str = "") -> str:
    return (
        f'[[expose]]\nservice = "api"\nkind = "grpc"\nallow = ["*"]\nbackend = ["127.0.0.1:{port}"]\n{more}\n'
    )


# ---- a server in each implementation: bytes in, bytes out ---------------------------------------------------------


class Raw(CodecBase):
    """Messages of grpclib are bytes."""

    __content_subtype__ = "proto"

    def encode(self, message: bytes, message_type: object) -> bytes:
        return message

    def decode(self, data: bytes, message_type: object) -> bytes:
        return data


def core(method: str) -> Any:
    """A server's side of `method`, for grpcio."""

    async def unary(request: bytes, context: Any) -> bytes:
        if request == b"fail":
            await context.abort(grpc.StatusCode.NOT_FOUND, "näh: 100%")
        if request == b"who":
            return json.dumps(dict(context.invocation_metadata())).encode()
        return request

    async def stream_out(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number
        if int(request) == 0:
            await asyncio.Event().wait()

    async def stream_in(requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b"%d" % sum([len(one) async for one in requests])

    async def both(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for one in requests:
            yield one

    return {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Out": grpc.unary_stream_rpc_method_handler(stream_out),
        "In": grpc.stream_unary_rpc_method_handler(stream_in),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "Secret": grpc.unary_unary_rpc_method_handler(unary),
    }[method]


class Handlers(grpc.GenericRpcHandler):  # type: ignore[name-defined]
    def service(self, details: Any) -> Any:
        return core(details.method.rpartition("/")[2])


OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@contextlib.asynccontextmanager
async def core_server() -> AsyncIterator[int]:
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((Handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


class Service:
    """The same, for grpclib."""

    def __mapping__(self) -> dict[str, Any]:
        async def unary(stream: Any) -> None:
            request = await stream.recv_message()
            if request == b"fail":
                raise GRPCError(Status.NOT_FOUND, "näh: 100%")
            if request == b"who":
                request = json.dumps(dict(stream.metadata)).encode()
            await stream.send_message(request)

        async def out(stream: Any) -> None:
            count = int(await stream.recv_message())
            for number in range(count):
                await stream.send_message(b"%d" % number)
            if not count:
                await asyncio.Event().wait()

        async def into(stream: Any) -> None:
            await stream.send_message(b"%d" % sum([len(one) async for one in stream]))

        async def both(stream: Any) -> None:
            async for one in stream:
                await stream.send_message(one)

        kinds = grpclib.const.Cardinality
        table = {
            "Unary": (unary, kinds.UNARY_UNARY),
            "Out": (out, kinds.UNARY_STREAM),
            "In": (into, kinds.STREAM_UNARY),
            "Both": (both, kinds.STREAM_STREAM),
            "Secret": (unary, kinds.UNARY_UNARY),
        }
        return {
            f"{PACKAGE}/{name}": grpclib.const.Handler(serve, kind, None, None)
            for name, (serve, kind) in table.items()
        }


@contextlib.asynccontextmanager
async def lib_server() -> AsyncIterator[int]:
    server = grpclib.server.Server([Service()], codec=Raw())
    await server.start("127.0.0.1", 0)
    port = cast(asyncio.Server, server._server).sockets[0].getsockname()[1]
    try:
        yield port
    finally:
        server.close()
        await server.wait_closed()


SERVERS = {"grpcio": core_server, "grpclib": lib_server}


@contextlib.asynccontextmanager
async def core_client(port: int) -> AsyncIterator[Any]:
    # No proxy of the environment, and no connection that another test has left.
    options = [*OPTIONS, ("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield channel


async def failure(call: Any) -> Any:
    """The error that a call of grpcio ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def rest(call: Any) -> None:
    """Read a stream of grpcio to its end."""
    while await call.read() is not grpc.aio.EOF:
        pass


async def pieces(*several: bytes) -> AsyncIterator[bytes]:
    for one in several:
        yield one


def call_head(encoder: Encoder, stream: int, method: str) -> bytes:
    """The head of a call, which has messages yet."""
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", f"{PACKAGE}/{method}".encode()),
              (b":authority", b"x"), (b"content-type", b"application/grpc"), (b"te", b"trailers")]  # fmt: skip
    head: bytes = h2.HeadersFrame(stream, data=encoder.encode(fields), flags=["END_HEADERS"]).serialize()
    return head
