"""Pairs of daemons with real sockets: everything listens on loopback, at ports of the kernel's choice."""

from __future__ import annotations

import asyncio
import contextlib
import io
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import pytest
from rich.console import Console

from dtp.daemon.config.load import load_text
from dtp.daemon.config.model import Config
from dtp.daemon.relays.expose import Exposed
from dtp.daemon.relays.forward import Forwarded
from dtp.daemon.relays.pool import Pool
from dtp.daemon.server import Daemon
from dtp.identity import Identity
from dtp.net.connection import Connection
from dtp.net.listener import Listener
from dtp.testing import clock

if TYPE_CHECKING:
    from .talk import Talk

NEAR, FAR, OTHER = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
#: Seconds for anything that has to happen; only a failing test waits so long.
PATIENCE = 120


def config(tmp_path: Path, text: str) -> Config:
    """A configuration; the identity file in it is never read."""
    if "[identity]" not in text:
        text = f'[identity]\nfile = "unused.pem"\n{text}'
    return load_text(text, tmp_path / "dtpd.toml")


@contextlib.asynccontextmanager
async def serving(settings: Config, identity: Identity = FAR) -> AsyncIterator[Daemon]:
    """A daemon with these settings, until the block ends."""
    daemon = Daemon(settings, identity)
    await daemon.start()
    try:
        yield daemon
    finally:
        await daemon.close()


def listener_of(daemon: Daemon) -> Listener:
    """Where a daemon lets peers in."""
    assert daemon.listener is not None
    return daemon.listener


def printed(console: Console) -> str:
    """What was printed into a buffer."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def run_scenario(scenario: Callable[[], Awaitable[object]]) -> None:
    """Run a scenario in real time."""

    async def main() -> None:
        async with asyncio.timeout(2 * PATIENCE):
            await scenario()

    asyncio.run(main())


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="dtp-", dir="/tmp") as folder:
        yield Path(folder)


class Pair:
    """A far daemon, a near one that leads to it, and where the near one listens."""

    far: Daemon
    near: Daemon

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.expose = self.top = ""
        #: What makes both.
        self.make: Callable[[Config, Identity], Daemon] = Daemon

    async def start(
        self,
        expose: str,
        *,
        service: str = "api",
        forward: str = "",
        identity: Identity = NEAR,
        top: str = "",
    ) -> int:
        self.expose, self.top = expose, top
        self.far = self.make(self.far_config(expose), FAR)
        await self.far.start()
        self.near = self.make(self.near_config(service, forward), identity)
        await self.near.start()
        return self.port

    @property
    def listener(self) -> Listener:
        """Where the far one lets peers in."""
        return listener_of(self.far)

    def far_config(self, expose: str, listen: str = "tcp://127.0.0.1:0") -> Config:
        return config(self.tmp_path, f'[daemon]\nlisten = ["{listen}"]\n{self.top}\n{expose}')

    def near_config(self, service: str = "api", forward: str = "") -> Config:
        to = self.listener.address(service)
        return config(self.tmp_path, f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{to}"\n{forward}')

    @property
    def port(self) -> int:
        """Where the near one listens."""
        return int(self.forwarded.places[0].rpartition(":")[2])

    @property
    def forwarded(self) -> Forwarded:
        (forwarded,) = self.near.forwarded.values()
        return forwarded

    @property
    def pool(self) -> Pool:
        """The connections of the near one."""
        assert self.forwarded.pool is not None
        return self.forwarded.pool

    @property
    def exposed(self) -> Exposed:
        (exposed,) = self.far.exposed.values()
        return exposed

    async def close(self) -> None:
        for name in ("near", "far"):
            if (daemon := self.__dict__.pop(name, None)) is not None:
                await daemon.close()


class Run(Protocol):
    """Runs a scenario with a pair of daemons, which are closed then."""

    def __call__(self, scenario: Callable[[Pair], Awaitable[object]], patience: float = PATIENCE) -> None: ...


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `scenario(pair)` on a loop of its own; what callbacks raise fails the test, too."""

    def run_it(scenario: Callable[[Pair], Awaitable[object]], patience: float = PATIENCE) -> None:
        stray: list[dict[str, Any]] = []

        async def main() -> None:
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


#: What serves a connection, as for `asyncio.start_server`.
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]


class Backend:
    """A TCP server for one test."""

    port: int

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.connections = 0

    async def __aenter__(self) -> Self:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            # Of a client that is gone `write_eof` may say ENOTCONN, which is no ConnectionError.
            with contextlib.closing(writer), contextlib.suppress(OSError, EOFError):
                await self._handler(reader, writer)
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()  # or asyncio may say that nobody asked how it went

        self._server = await asyncio.start_server(handle, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()


def cut(connections: Iterable[Connection]) -> None:
    """Have every carrier of these connections break, as when a network goes."""
    for connection in connections:
        for driver in list(connection.outlet.drivers):
            driver.carrier.abort()
            driver.carrier_lost(None)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


class RunTalk(Protocol):
    """Runs a scenario with a session by a clock that jumps; `how` is what `Talk` takes."""

    def __call__(self, scenario: Callable[[Talk], Coroutine[Any, Any, object]], **how: Any) -> None: ...


@pytest.fixture
def talk(tmp_path: Path) -> RunTalk:
    """Run `scenario(talk)`, with what `Talk` takes."""
    from .talk import Talk

    def run_it(scenario: Callable[[Talk], Coroutine[Any, Any, object]], **how: Any) -> None:
        async def main() -> None:
            talk = Talk(tmp_path, **how)
            async with asyncio.timeout(2000):
                await scenario(talk)
            talk.running.cancel()
            await asyncio.wait([talk.running])

        clock.run(main())

    return run_it
