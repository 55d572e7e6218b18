"""Mixed load with cuts, for long: what is open in the end is what was open after the first round, and no more.

The default run takes seconds; `-m long` takes ten minutes. Between rounds everything settles, so that what
is counted (tasks, descriptors, objects that come and go, memory that Python gave out) doesn't depend on chance.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import os
import random
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self, cast

import aiohttp
import pytest
from aiohttp import web

from dtp.daemon.server import Daemon

from ..conftest import FAR, NEAR, Backend, config, cut, echo, listener_of
from ..http.test_daemon_http import site
from ..programs import free_port
from ..streams.test_daemon_faults import descriptors
from ..streams.test_daemon_relay import reset
from ..streams.test_daemon_udp import Endpoint

SEED = 20261121
#: What comes with a client and has to go with it.
KINDS = {
    *(
        "Relay",
        "Stream",
        "UdpSession",
        "HttpSession",
        "RpcSession",
        "GrpcSession",
        "Filter",
        "Link",
        "BackendSocket",
    ),
    *("Connection", "LinkDriver", "Hub", "TcpCarrier", "Exposed", "Forwarded", "Pool"),
}
#: Bytes that may be more after a round than after the one before: tables of dicts that grow in steps, caches.
SLACK = 400_000


class Site:
    """Two daemons with a service of each kind, and what their clients do."""

    def __init__(self, folder: Path, backends: Any) -> None:
        self.folder, self.backends = folder, backends
        self.chance = random.Random(SEED)
        self.broken: collections.Counter[str] = collections.Counter()
        self.done: collections.Counter[str] = collections.Counter()

    def far_config(self, more: str = "") -> Any:
        services = "".join(
            f"""[[expose]]
service = "{name}"
kind = "{kind}"
backend = "127.0.0.1:{self.backends[name]}"
allow = ["*"]
rate = {{ requests = "100000/s", bandwidth = "1GiB/s" }}
concurrency = {{ identity = 1000 }}
{more}
"""
            for name, kind in (("tcp", "tcp"), ("web", "http"), ("rpc", "json-rpc"), ("udp", "udp"))
        )
        return config(self.folder, f'[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n{services}')

    async def __aenter__(self) -> Self:
        far = Daemon(self.far_config(), FAR)
        await far.start()
        self.far = far
        # A forward is known by its place, so each has a port of its own.
        forwards = "".join(
            f'[[forward]]\nlisten = "127.0.0.1:{free_port()}"\nto = "{listener_of(far).address(name)}"\n'
            f'kind = "{"udp" if name == "udp" else "tcp"}"\n'
            for name in self.backends
        )
        self.near = Daemon(config(self.folder, forwards), NEAR)
        await self.near.start()
        self.ports = {
            one.config.to[0].service: int(one.places[0].rpartition(":")[2])
            for one in self.near.forwarded.values()
        }
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.near.close()
        await self.far.close()

    # ---- clients ------------------------------------------------------------------------------------------

    async def tcp(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports["tcp"])
        data = self.chance.randbytes(self.chance.randrange(1, 100_000))
        writer.write(data)
        way = self.chance.randrange(4)
        if way == 0:
            writer.write_eof()
            assert await reader.read() == data
        elif way == 1:
            assert await reader.readexactly(len(data)) == data
        if way == 2:
            reset(writer)
        else:
            writer.close()

    async def web(self) -> None:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{self.ports['web']}") as client:
            for _ in range(self.chance.randrange(1, 4)):
                size = self.chance.randrange(50_000)
                async with client.post("/size", data=bytes(size)) as answer:
                    assert await answer.text() == str(size)

    async def rpc(self) -> None:
        url, call = f"http://127.0.0.1:{self.ports['rpc']}/rpc", {"jsonrpc": "2.0", "method": "a", "id": 1}
        async with aiohttp.ClientSession() as client, client.post(url, json=call) as answer:
            assert (await answer.json())["id"] == 1

    async def udp(self) -> None:
        client = await Endpoint().open(to=("127.0.0.1", self.ports["udp"]))
        with contextlib.suppress(TimeoutError):  # the network loses datagrams, and so do cuts
            async with asyncio.timeout(0.5):
                assert await client.ask(b"datagram") == b"DATAGRAM"
        client.close()

    async def one(self, kind: str) -> None:
        try:
            await getattr(self, kind)()
            self.done[kind] += 1
        except (OSError, aiohttp.ClientError, asyncio.IncompleteReadError) as error:
            self.broken[f"{kind}: {type(error).__name__}"] += 1

    def cut(self) -> None:
        cut(listener_of(self.far).connections)

    # ---- rounds -------------------------------------------------------------------------------------------

    async def round(self, clients: int) -> None:
        """So many clients of each kind, some of them at once; cuts and reloads in between."""
        for number in range(0, clients, 10):
            kinds = [kind for kind in self.backends for _ in range(10)]
            working = asyncio.gather(*(self.one(kind) for kind in kinds))
            if number % 20 == 10:
                self.cut()
            await working
            if number % 40 == 20:
                await self.far.reload(self.far_config(f'limits = {{ time = "{1 + number}h" }}'))

    def whole(self) -> Any:
        """Each forward has one connection, both ends know of no other, and each has a carrier."""
        near = [one for forward in self.near.forwarded.values() for one in forward.pool.connections]
        far = listener_of(self.far).connections
        return len(near) == len(far) == len(self.backends) and all(one.source for one in (*near, *far))

    async def settle(self) -> None:
        """Until nobody has anything open: what ends only after silence is ended here."""
        for daemon in (self.near, self.far):
            for part in daemon.list_parts():
                for session in list(part.ledger.open):
                    session.abort(120)  # type: ignore[arg-type]  # UDP sessions, which wait for more
        for daemon in (self.near, self.far):
            for part in daemon.list_parts():
                await part.ledger.wait_empty()
        # A connection that was cut is closed, or resumed, when both sides have noticed.
        quiet = 0
        before = None
        while quiet < 40:
            now = len(asyncio.all_tasks()), descriptors()
            quiet = quiet + 1 if now == before and self.whole() else 0
            before = now
            await asyncio.sleep(0.005 if quiet else 0)


class Count:
    """What there is now."""

    def __init__(self) -> None:
        gc.collect()
        self.tasks = collections.Counter(
            cast(Any, task.get_coro()).__qualname__ for task in asyncio.all_tasks() if not task.done()
        )
        self.descriptors = descriptors()
        self.objects = collections.Counter(
            kind for one in gc.get_objects() if (kind := type(one).__name__) in KINDS
        )
        self.memory = tracemalloc.get_traced_memory()[0]
        with open("/proc/self/statm") as file:
            self.resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def compare(self, later: Any) -> None:
        assert later.tasks - self.tasks == collections.Counter(), later.tasks
        assert later.descriptors <= self.descriptors
        assert later.objects - self.objects == collections.Counter(), (self.objects, later.objects)
        assert later.memory - self.memory < SLACK


async def soak(folder: Path, rounds: Iterable[int], clients: int) -> Any:
    """Rounds for as long as `rounds` gives them; the first one warms up. Gives what was counted after each."""

    async def size(request: web.Request) -> Any:
        return web.Response(text=str(len(await request.read())))

    async def call(request: web.Request) -> Any:
        return web.json_response({"jsonrpc": "2.0", "id": (await request.json())["id"], "result": 1})

    server = await Endpoint(bytes.upper).open()
    async with Backend(echo) as tcp, site(size=size, rpc=call) as http:
        backends = {"tcp": tcp.port, "web": http, "rpc": http, "udp": server.port}
        async with Site(folder, backends) as work:
            counts = []
            for _ in rounds:
                await work.round(clients)
                await work.settle()
                while not server.received.empty():  # what the server of the test has kept
                    server.received.get_nowait()
                counts.append(Count())
            print("done", dict(work.done), "broken", dict(work.broken))
            assert all(work.done[kind] > clients * len(counts) // 4 for kind in backends)
    server.close()
    return counts


@pytest.fixture(autouse=True)
def traced() -> Iterator[None]:
    """So that the process's own memory is counted, by the byte."""
    print(f"seed {SEED}")
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.slow
def test_rounds_leave_nothing_behind(tmp_path: Path) -> None:
    """Three rounds, of which the first two fill caches: the last adds no task, no descriptor, no object."""
    counts = asyncio.run(asyncio.wait_for(soak(tmp_path, range(3), 40), 120))
    counts[1].compare(counts[-1])


@pytest.mark.long
def test_ten_minutes_leave_nothing_behind(tmp_path: Path) -> None:
    """The same for ten minutes: memory after the last round is what it was after a tenth of them."""

    def until_late() -> Any:
        number, end = 0, time.monotonic() + 600
        while time.monotonic() < end:
            yield number
            number += 1

    counts = asyncio.run(asyncio.wait_for(soak(tmp_path, until_late(), 200), 1200))
    tenth = counts[len(counts) // 10]
    print(f"{len(counts)} rounds; bytes {tenth.memory} then {counts[-1].memory}; resident {tenth.resident}"
          f" then {counts[-1].resident}")  # fmt: skip
    tenth.compare(counts[-1])
    assert counts[-1].resident - tenth.resident < 16 << 20
