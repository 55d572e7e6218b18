"""Pairs of daemons with real sockets: everything listens on loopback, at ports of the kernel's choice."""

import asyncio
import contextlib
import tempfile
from pathlib import Path

import pytest

from dtp.daemon.config.load import load_text
from dtp.daemon.server import Daemon
from dtp.identity import Identity
from dtp.testing import clock

NEAR, FAR, OTHER = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
#: Seconds for anything that has to happen; only a failing test waits so long.
PATIENCE = 120


def config(tmp_path, text):
    """A configuration; the identity file in it is never read."""
    if "[identity]" not in text:
        text = f'[identity]\nfile = "unused.pem"\n{text}'
    return load_text(text, tmp_path / "dtpd.toml")


@contextlib.asynccontextmanager
async def serving(settings, identity=FAR):
    """A daemon with these settings, until the block ends."""
    daemon = Daemon(settings, identity)
    await daemon.start()
    try:
        yield daemon
    finally:
        await daemon.close()


def run_scenario(scenario):
    """Run a scenario in real time."""

    async def main():
        async with asyncio.timeout(2 * PATIENCE):
            await scenario()

    asyncio.run(main())


@pytest.fixture
def short():
    """A folder whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="dtp-", dir="/tmp") as folder:
        yield Path(folder)


class Pair:
    """A far daemon, a near one that leads to it, and where the near one listens."""

    def __init__(self, tmp_path):
        self.tmp_path = tmp_path
        self.far = self.near = None
        self.top = ""
        #: What makes both.
        self.make = Daemon

    async def start(self, expose, *, service="api", forward="", identity=NEAR, top=""):
        self.expose, self.top = expose, top
        self.far = self.make(self.far_config(expose), FAR)
        await self.far.start()
        self.near = self.make(self.near_config(service, forward), identity)
        await self.near.start()
        return self.port

    def far_config(self, expose, listen="tcp://127.0.0.1:0"):
        return config(self.tmp_path, f'[daemon]\nlisten = ["{listen}"]\n{self.top}\n{expose}')

    def near_config(self, service="api", forward=""):
        to = self.far.listener.address(service)
        return config(self.tmp_path, f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{to}"\n{forward}')

    @property
    def port(self):
        (forwarded,) = self.near.forwarded.values()
        return int(forwarded.places[0].rpartition(":")[2])

    @property
    def exposed(self):
        (exposed,) = self.far.exposed.values()
        return exposed

    async def close(self):
        for daemon in (self.near, self.far):
            if daemon is not None:
                await daemon.close()


@pytest.fixture
def run(tmp_path):
    """Run `scenario(pair)` on a loop of its own; what callbacks raise fails the test, too."""

    def run_it(scenario, patience=PATIENCE):
        stray = []

        async def main():
            asyncio.get_running_loop().set_exception_handler(lambda _, context: stray.append(context))
            pair = Pair(tmp_path)
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(pair.close)
                async with asyncio.timeout(patience):
                    await scenario(pair)
            leftover = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            await asyncio.gather(*leftover, return_exceptions=True)

        asyncio.run(main())
        assert stray == []

    return run_it


class Backend:
    """A TCP server for one test; `handler` is as for `asyncio.start_server`."""

    def __init__(self, handler):
        self._handler = handler
        self.connections = 0

    async def __aenter__(self):
        async def handle(reader, writer):
            self.connections += 1
            # Of a client that is gone `write_eof` may say ENOTCONN, which is no ConnectionError.
            with contextlib.closing(writer), contextlib.suppress(OSError, EOFError):
                await self._handler(reader, writer)
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()  # or asyncio may say that nobody asked how it went

        self._server = await asyncio.start_server(handle, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()


def cut(connections):
    """Have every carrier of these connections break, as when a network goes."""
    for connection in connections:
        for driver in list(connection.outlet.drivers):
            driver.carrier.abort()
            driver.carrier_lost(None)


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


@pytest.fixture
def talk(tmp_path):
    """Run `scenario(talk)`, with what `Talk` takes."""
    from .talk import Talk

    def run_it(scenario, **how):
        async def main():
            talk = Talk(tmp_path, **how)
            async with asyncio.timeout(2000):
                await scenario(talk)
            talk.running.cancel()
            await asyncio.wait([talk.running])

        clock.run(main())

    return run_it
