"""What is open while a daemon drains, is reloaded or is about to be replaced."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from dtp.daemon.config.values import LocalPlace
from dtp.daemon.policies.base import Caller, Open
from dtp.daemon.relays.backends.dialer import BackendDialer
from dtp.daemon.relays.pool import Pool
from dtp.daemon.relays.sockets import connect
from dtp.daemon.server import Daemon
from dtp.net.stream import Stream
from dtp.session.codes import CloseCode, ConnectionClosed, ConnectionRefused

from ..conftest import Backend, Pair, Run, echo
from ..http.test_daemon_http import site
from ..programs import PATIENCE, place
from ..streams.test_daemon_relay import exchange, expose, until

__all__ = ["place"]


class Slow:
    """What waits, when it has begun, until it may go on."""

    def __init__(self) -> None:
        self.began, self.go_on = asyncio.Event(), asyncio.Event()

    async def page(self, request: web.Request) -> web.Response:
        self.began.set()
        await self.go_on.wait()
        return web.Response(text="done")

    def call(self, real: Callable[..., Any]) -> Callable[..., Any]:
        async def wait(*args: LocalPlace) -> Stream | socket.socket:
            self.began.set()
            await self.go_on.wait()
            found: Stream | socket.socket = await real(*args)
            return found

        return wait


class Waiting:
    """In the place of a pool: each stream is asked for by `get_stream`."""

    def __init__(self, pool: Pool, get_stream: Callable[..., Any]) -> None:
        self._pool, self.get_stream = pool, get_stream

    def __getattr__(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(self._pool, name)
        return found


@pytest.mark.slow
def test_a_drain_lets_requests_finish_and_takes_no_more(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with site(slow=slow.page) as backend:
            port = await pair.start(expose(backend, more='kind = "http"'))
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                async with client.get("/nothing") as answer:
                    assert answer.status == 404
                asking = asyncio.ensure_future(client.get("/slow"))
                await slow.began.wait()
                idle, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
                await idle.readuntil(b"\r\n\r\n")
                draining = asyncio.ensure_future(pair.far.drain(PATIENCE))
                await idle.read()  # the idle connection is ended at once
                assert not draining.done()
                slow.go_on.set()
                async with await asking as answer:
                    assert await answer.text() == "done"
                    assert answer.headers["Connection"] == "close"  # or the next request meets the end
                assert await draining
                writer.close()

    slow = Slow()
    run(scenario)


@pytest.mark.parametrize("end", ["far", "near"])
def test_a_drain_waits_for_who_is_being_connected(run: Run, end: str) -> None:
    """With a backend that isn't there at once, or a stream that isn't."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            if end == "far":
                pair.make = partial(Daemon, dialer=BackendDialer(lambda place: None, slow.call(connect)))
            port = await pair.start(expose(backend.port))
            if end == "near":
                (forwarded,) = pair.near.forwarded.values()
                forwarded.pool = cast(Pool, Waiting(pair.pool, slow.call(pair.pool.get_stream)))
            asking = asyncio.ensure_future(exchange(port, b"x"))
            await slow.began.wait()
            draining = asyncio.ensure_future((pair.far if end == "far" else pair.near).drain(PATIENCE))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not draining.done()
            slow.go_on.set()
            assert await asking == b"x"
            assert await draining

    slow = Slow()
    run(scenario)


@pytest.mark.parametrize(
    "about_to_end",
    [
        ConnectionRefused(CloseCode.SHUTDOWN, "the daemon is about to end"),
        ConnectionClosed(CloseCode.SHUTDOWN, "the listener closes", by_peer=True),
    ],
)
def test_a_program_waits_while_the_process_that_it_comes_to_is_about_to_end(
    run: Run, about_to_end: ConnectionClosed | ConnectionRefused
) -> None:
    """Another has its place in a moment, as at an upgrade; the program had a reset."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port))
            (forwarded,) = pair.near.forwarded.values()
            pool, answers = pair.pool, [about_to_end] * 2
            get_stream = pool.get_stream

            async def refused_at_first() -> Stream:
                if answers:
                    raise answers.pop()
                return await get_stream()

            forwarded.pool = cast(Pool, Waiting(pair.pool, refused_at_first))
            assert await exchange(port, b"x") == b"x"

    run(scenario)


def test_a_reload_holds_for_requests_to_come_on_what_is_open(run: Run) -> None:
    """What is being answered is answered; the next request of the same connection meets the new rules."""

    async def scenario(pair: Pair) -> None:
        async with site(slow=slow.page) as backend:
            kind = 'kind = "http"'
            port = await pair.start(expose(backend, more=kind))
            idle, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"404" in await idle.readuntil(b"\r\n\r\n")
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                asking = asyncio.ensure_future(client.get("/slow"))
                await slow.began.wait()
                rules = kind + '\nmethods = { deny = ["GET *"] }'
                await pair.far.reload(pair.far_config(expose(backend, more=rules)))
                writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
                assert b" 403 " in await idle.readuntil(b"\r\n\r\n")
                slow.go_on.set()
                async with await asking as answer:
                    assert await answer.text() == "done"
                async with client.get("/slow") as answer:
                    assert answer.status == 403
            writer.close()

    slow = Slow()
    run(scenario)


@pytest.mark.parametrize("asks", [True, False])
def test_a_reload_holds_for_who_waited_for_its_rate(run: Run, asks: bool) -> None:
    """What it asks, then or later, is answered by the new rules."""

    async def scenario(pair: Pair) -> None:
        async with site() as backend:
            kind = 'kind = "http"'
            port = await pair.start(expose(backend, more=kind))
            exposed, go_on, delayed = pair.exposed, asyncio.Event(), []

            async def wait(caller: Caller, stream: Stream, opened: Open) -> None:
                await until(lambda: not asks or stream._size == len(request))
                delayed.append(stream)
                await go_on.wait()
                exposed._begin_stream(caller, stream, opened)

            exposed._begin_delayed, exposed.compute_delay = wait, lambda caller, size: 0.0 if delayed else 1.0
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request if asks else b"")
            await until(lambda: delayed)
            await pair.far.reload(pair.far_config(expose(backend, more=kind + '\nlimits = { time = "1h" }')))
            assert pair.exposed is not exposed
            go_on.set()
            writer.write(b"" if asks else request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 404 ")
            assert b"connection: close" not in head.lower()
            assert (exposed.get_status(0)["open"], pair.exposed.get_status(0)["open"]) == (0, 1)
            writer.close()

    request = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
    run(scenario)
