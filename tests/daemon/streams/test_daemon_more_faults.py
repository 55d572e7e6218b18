"""More of what may go wrong, with real processes where it takes some: kills, stops, floods, a full disk, a clock."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import resource
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from dtp.daemon.policies import Moment
from dtp.daemon.server import LIMITS, Daemon
from dtp.daemon.state import make
from dtp.net.address import Address

from ..conftest import Backend, Pair, Run, echo
from ..http.test_daemon_http import site
from ..process.test_daemon_programs import ask, connected, echo_server
from ..programs import PATIENCE, Place, free_port, place
from .test_daemon_faults import descriptors
from .test_daemon_relay import exchange, expose

__all__ = ["place"]


# ---- kills ---------------------------------------------------------------------------------------------------------

POUR = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as server:
    print('{"event": "ready", "port": %d}' % server.getsockname()[1], flush=True)
    while True:
        client, _ = server.accept()
        try:
            while True:
                client.sendall(bytes(65536))
        except OSError:
            pass
"""


def read_to_the_end(sock: socket.socket) -> tuple[int, bool]:
    """How many bytes still come, and whether it ended by a reset."""
    size = 0
    try:
        while data := sock.recv(1 << 20):
            size += len(data)
    except ConnectionResetError:
        return size, True
    return size, False


def test_a_backend_that_is_killed(place: Place) -> None:
    """Who is served by it sees the end, as without daemons; everybody after that is served by the other one."""
    pouring = place.program(sys.executable, "-c", POUR)
    first, second = pouring.event("ready")["port"], echo_server(place)
    _, _, port = place.pair(f'127.0.0.1:{first}", "127.0.0.1:{second}')
    with connected(port) as client, connected(port) as other:
        client.recv(100_000)
        ask(other, b"the second backend")
        pouring.process.kill()
        read_to_the_end(client)  # returns: it ended, in one way or the other
        ask(other, b"is not touched")
        for _ in range(20):
            with connected(port) as late:
                ask(late, b"served by the one that is left")


def test_a_far_daemon_that_is_killed_in_the_midst(place: Place) -> None:
    """Once another one answers in its place, what was open breaks off by a reset: it must not look whole."""
    pouring = place.program(sys.executable, "-c", POUR)
    backend, listen = pouring.event("ready")["port"], f"tcp://127.0.0.1:{free_port()}"
    text = f"""[daemon]
listen = ["{listen}"]
[[expose]]
service = "api"
backend = "127.0.0.1:{backend}"
allow = ["{place.identity("near").id}"]
"""
    far, exposed = place.dtpd("far", text)
    _, places = place.dtpd("near", f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{exposed[0]["address"]}"\n')
    port = int(places[0]["listen"].rpartition(":")[2])
    with connected(port) as client:
        client.recv(100_000)
        far.process.kill()
        far.process.wait()
        (place.folder / "far.sock").unlink()
        place.dtpd("far", text)
        _, was_reset = read_to_the_end(client)
        assert was_reset
    with connected(port) as client:
        assert client.recv(100)


@pytest.mark.slow
def test_a_far_daemon_that_falls_silent(place: Place) -> None:
    """Stopped, not ended: no socket says so. It is noticed and shown; when it goes on, so does what was open."""
    far, _, port = place.pair(f"127.0.0.1:{echo_server(place)}")
    near_file = place.folder / "near.toml"
    with connected(port) as client:
        ask(client, b"before")
        far.process.send_signal(signal.SIGSTOP)
        place.stack.callback(far.process.send_signal, signal.SIGCONT)
        began = time.monotonic()
        while json.loads(place.command("status", "--json", "-c", near_file))["forwarded"][0]["connected"]:
            assert time.monotonic() - began < PATIENCE
        far.process.send_signal(signal.SIGCONT)
        ask(client, b"resumed")
    with connected(port) as client:
        ask(client, b"after")


# ---- slow ones -----------------------------------------------------------------------------------------------------


def test_slow_ones_hold_up_nobody_else(run: Run) -> None:
    """One that reads nothing, one that writes a byte a turn: the others are served, and both get all in the end."""

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1) == b"p":
            for _ in range(64):
                writer.write(bytes(1 << 20))
                await writer.drain()
        else:
            writer.write(b"." + await reader.read())
        writer.write_eof()

    async def scenario(pair: Pair) -> None:
        async with Backend(pour) as backend:
            port = await pair.start(expose(backend.port))
            deaf, to_deaf = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            to_deaf.write(b"p")
            await deaf.readexactly(1)
            slow, to_slow = await asyncio.open_connection("127.0.0.1", port)
            to_slow.write(b"w")
            for number in range(200):
                to_slow.write(b"x")
                await to_slow.drain()
                if number % 20 == 0:
                    assert await exchange(port, b"w" + bytes(100_000)) == b"." + bytes(100_000)
            to_slow.write_eof()
            assert await slow.read() == b"." + b"x" * 200
            left = (64 << 20) - 1
            while left:
                left -= len(await deaf.read(1 << 20))
            for writer in (to_deaf, to_slow):
                writer.close()

    run(scenario)


def test_a_body_that_trickles_in_is_cut_off(run: Run) -> None:
    """Slowloris behind the head: the rule about time ends it, and its backend's connection."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(text="whole")

    async def scenario(pair: Pair) -> None:
        async with site(take=take) as backend:
            rules = 'kind = "http"\nlimits = { time = "300ms" }'
            port = await pair.start(expose(backend, more=rules))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
            assert sum(one.active for one in pair.exposed.backends.balancer.backends) == 0
            # A machine that is busy must not be cut off as well.
            await pair.far.reload(pair.far_config(expose(backend, more='kind = "http"')))
            url = f"http://127.0.0.1:{port}/take"
            async with aiohttp.ClientSession() as client, client.post(url, data=bytes(1000)) as answer:
                assert await answer.text() == "whole"

    run(scenario)


# ---- strangers -----------------------------------------------------------------------------------------------------


async def until(true: Callable[..., Any]) -> None:
    """What nobody tells of; the test's own patience ends it if it never comes."""
    while not true():  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0)


def first_bytes(chance: random.Random, good: bytes) -> bytes:
    """What a stranger may say first: noise, another protocol, or a handshake with something wrong in it."""
    kind = chance.randrange(4)
    if kind == 0:
        return chance.randbytes(chance.randrange(1, 300))
    if kind == 1:
        return chance.choice(
            [
                b"GET / HTTP/1.1\r\n\r\n",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                b"SSH-2.0-x\r\n",
                b"\0" * 200,
            ]
        )
    wrong = bytearray(good)
    if kind == 2:
        wrong[chance.randrange(len(wrong))] ^= 1 << chance.randrange(8)
        return bytes(wrong)
    return bytes(wrong[: chance.randrange(1, len(wrong))])


async def overheard(pair: Pair) -> bytes:
    """The first bytes of a handshake that the far daemon would take."""
    heard = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set_result(await reader.read(4096))

    async with Backend(listen) as tap:
        config = pair.near_config()
        to = re.sub(r":\d+/", f":{tap.port}/", str(config.forward[0].to[0]))
        forward = replace(config.forward[0], to=(Address.parse(to),))
        near = type(pair.near)(replace(config, forward=(forward,)), pair.near.identity)
        await near.start()
        data = await heard
        await near.close()
    found: bytes = data
    return found


async def say_wrong_things(pair: Pair, count: int, at_once: int) -> None:
    """`count` strangers with wrong first bytes, `at_once` at a time; a caller has to be served all the while."""
    good = await overheard(pair)
    host, port = pair.listener.urls[0].removeprefix("tcp://").split(":")
    chance = random.Random(20261121)

    async def stranger(data: bytes) -> None:
        # From many addresses of loopback: one of them has only so many ports in a minute.
        source = f"127.1.{chance.randrange(256)}.{chance.randrange(1, 255)}"
        reader, writer = await asyncio.open_connection(host, int(port), local_addr=(source, 0))
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            writer.write_eof()
            while await reader.read(4096):
                pass
        writer.close()

    before = None
    for number in range(0, count, at_once):
        await asyncio.gather(
            *(stranger(first_bytes(chance, good)) for _ in range(min(at_once, count - number)))
        )
        if number // at_once % 20 == 0:
            assert await exchange(pair.port, b"hello") == b"hello"
            await until(lambda: not pair.listener.half_open)
            if before is None:
                before = descriptors(), len(asyncio.all_tasks())
    await until(lambda: not pair.listener.half_open)
    assert await exchange(pair.port, b"hello") == b"hello"
    await pair.exposed.ledger.wait_empty()
    await until(lambda: descriptors() <= before[0] and len(asyncio.all_tasks()) <= before[1])  # type: ignore[index]
    assert not pair.listener.half_open.by_source


@pytest.mark.parametrize("count", [1_050, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_wrong_first_bytes(run: Run, count: int) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            await pair.start(expose(backend.port))
            await say_wrong_things(pair, count, 50)

    run(scenario, 3600 if count > 10_000 else PATIENCE)


def test_a_flood_of_handshakes_that_stop_halfway(run: Run) -> None:
    """Each says the first half of a true handshake, then nothing. From one source they have their bound."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            await pair.start(expose(backend.port))
            good = await overheard(pair)
            host, port = pair.listener.urls[0].removeprefix("tcp://").split(":")
            flood = []
            for _ in range(300):
                _, writer = await asyncio.open_connection(host, int(port), local_addr=("127.0.0.2", 0))
                writer.write(good[: len(good) // 2])
                flood.append(writer)
            near = pair.near
            await near.close()
            pair.near = type(near)(near.config, near.identity)
            await pair.near.start()
            assert await exchange(pair.port, b"hello") == b"hello"
            listener = pair.listener
            assert len(listener.half_open) <= LIMITS.half_open_per_source
            for writer in flood:
                writer.close()
            await until(lambda: not listener.half_open)

    run(scenario)


# ---- the machine ---------------------------------------------------------------------------------------------------


def small_files() -> None:
    """Files of this process end at 50 KB: as on a full disk, what is written beyond fails."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


async def prepared(url: str) -> None:
    """The store's tables, made while there was room. Their pages are larger than what may still be written."""
    store = make(url, "host")
    await store.open()
    await store.close()


def test_a_disk_that_is_full_of_counts(place: Place) -> None:
    """The database can't grow: quotas go on from memory, and it is said once rather than for every request."""
    backend = echo_server(place)
    caller, state = place.identity("near").id, place.folder / "state.db"
    text = f"""[daemon]
listen = ["tcp://127.0.0.1:{free_port()}"]
[state]
url = "sqlite://{state}"
[[expose]]
service = "api"
backend = "127.0.0.1:{backend}"
allow = ["{caller}"]
quota = {{ requests = 30, every = "7d" }}
"""
    with contextlib.closing(sqlite3.connect(state)) as database:
        database.executescript("pragma page_size = 65536; create table filler (data); vacuum;")
    asyncio.run(prepared(f"sqlite://{state}"))
    far, exposed = place.dtpd("far", text, preexec_fn=small_files)
    _, forwarded = place.dtpd("near", f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{exposed[0]["address"]}"')
    port = int(forwarded[0]["listen"].rpartition(":")[2])
    served = 0
    for _ in range(40):
        # Who is refused may see the reset while it still connects.
        with contextlib.suppress(ConnectionError, AssertionError), connected(port) as client:
            ask(client, b"hello")
            served += 1
    assert served == 30
    far.log("counted here alone")
    assert far.errors.count(b"counted here alone") == 1
    assert far.process.poll() is None


def test_a_clock_that_jumps(run: Run) -> None:
    """A year ahead, ten years back, and to where it was: nothing breaks off, rates and quotas hold."""
    jump = 0.0

    async def scenario(pair: Pair) -> None:
        nonlocal jump
        pair.make = partial(Daemon, clock=lambda: Moment(time.monotonic(), 1_800_000_000 + jump))
        async with Backend(echo) as backend:
            rules = 'quota = { requests = 6, every = "1h" }\nrate = { requests = "1000/s" }'
            port = await pair.start(expose(backend.port, more=rules))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for seconds in (0, 31_536_000, -315_360_000, 0):
                jump = seconds
                writer.write(b"still")
                assert await reader.readexactly(5) == b"still"
                assert await exchange(port, b"x") == b"x"
            jump = 3600
            for _ in range(6):
                assert await exchange(port, b"x") == b"x"
            with pytest.raises(ConnectionResetError):
                await exchange(port, b"x")
            jump = 7200
            assert await exchange(port, b"x") == b"x"
            writer.close()

    run(scenario)
