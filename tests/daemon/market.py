"""A daemon that sells and one that buys, on a chain of their own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Self, cast

import pytest

from dtp.chain import ChainClient, KeySigner, Program, host
from dtp.daemon.config.model import Config
from dtp.daemon.relays.pool import Pool
from dtp.daemon.server import Daemon
from dtp.daemon.state import make
from dtp.daemon.state.errors import StateError
from dtp.identity import Identity
from dtp.localnet.grpc.localnet import LocalnetThread
from dtp.pay.hosting import make_host

from .conftest import FAR, NEAR, Pair, config

#: Makes a client of the chain that signs by a key.
MakeClient = Callable[..., ChainClient]

HOST = "0x" + "1" * 64


MIB = 1024 * 1024


FILE = "far.sqlite"


@pytest.fixture(params=["file", "postgresql"])
def vouchers(request: pytest.FixtureRequest) -> str:
    return FILE if request.param == "file" else str(request.getfixturevalue("postgresql_url"))


class Market:
    """A host on chain, a far daemon that sells, a near one that buys; both in this process."""

    host: str
    cap: str
    far_chain: ChainClient
    near_chain: ChainClient

    def __init__(self, pair: Pair, client: MakeClient, net: LocalnetThread) -> None:
        self.pair, self._client, self._net = pair, client, net
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        for identity in (FAR, NEAR):
            self._net.fund(identity.id.sui_address, 10_000_000_000, 3)
        self.far_chain, self.near_chain = [
            await self._stack.enter_async_context(self._client(KeySigner.from_identity(identity)))
            for identity in (FAR, NEAR)
        ]
        made = await make_host(self.far_chain)
        self.host, self.cap = made.host.id, made.cap
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.pair.close()
        await self._stack.aclose()

    vouchers = FILE

    async def keep(self, vouchers: str) -> None:
        """What the far daemon is paid is kept there: in a file, or a database that has to be up first."""
        self.vouchers = vouchers
        if vouchers != FILE:
            await is_up(vouchers)

    def far_config(
        self,
        backend: Any,
        price: str,
        more: str = "",
        listen: str = "tcp://127.0.0.1:0",
        endpoint: str = "",
    ) -> Config:
        endpoint = endpoint or "tcp://127.0.0.1:9"
        return config(
            self.pair.tmp_path,
            f"""[daemon]
listen = ["{listen}"]
[chain]
host = "{self.host}"
vouchers = "{self.vouchers}"
endpoint = "{endpoint}"
refresh = "100ms"
[[expose]]
service = "api"
allow = ["*"]
backend = ["127.0.0.1:{backend.port}"]
{f"price = {price}" if price else ""}
{more}
""",
        )

    async def sell(self, backend: Any, price: str, more: str = "") -> None:
        """Start the far daemon, and say where it is."""
        self.pair.far = Daemon(self.far_config(backend, price, more), FAR, client=self.far_chain)
        await self.pair.far.start()
        beacon = (await self.far_chain.read(host.SCHEMA, host.Host, self.host)).beacon
        program = Program()
        operator = cast(Any, self.pair.far.side.announcer)._beats._operator
        host.configure(
            program,
            beacon,
            operator,
            FAR.id.key,
            weight=1,
            role=host.Role.ACTIVE,
            hint=self.pair.listener.urls[0].encode(),
        )
        await self.far_chain.execute(program)

    def near_config(self, budget: str) -> Config:
        return config(
            self.pair.tmp_path,
            f"""[chain]
vouchers = "near.sqlite"
[[forward]]
listen = "127.0.0.1:0"
to = "dtp://{self.host}/api"
budget = {budget}
""",
        )

    async def buy(self, budget: str) -> int:
        self.pair.near = Daemon(self.near_config(budget), NEAR, client=self.near_chain)
        await self.pair.near.start()
        return self.pair.port

    async def balance(self, identity: Identity) -> int:
        return (await self.far_chain.balance(identity.id.sui_address)).total

    def sold(self) -> dict[str, Any]:
        found: dict[str, Any] = self.pair.far.get_status()["exposed"][0]
        return found

    def bought(self) -> dict[str, Any]:
        found: dict[str, Any] = self.pair.near.get_status()["forwarded"][0]
        return found


async def is_up(url: str) -> None:
    """Until the database has begun."""
    for _ in range(2400):
        store = make(url, "host")
        with contextlib.suppress(StateError):
            await store.open()
            await store.close()
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it never began")


def pool_of(pair: Pair) -> Pool:
    return pair.pool


async def push(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], size: int) -> None:
    """Send so much to an echo and read what comes until it ends, however."""
    reader, writer = streams

    async def send() -> None:
        for _ in range(size // 65536):
            writer.write(bytes(65536))
            await writer.drain()
        writer.write_eof()

    sending = asyncio.create_task(send())
    with contextlib.suppress(OSError):
        while await reader.read(65536):
            pass
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    writer.close()


async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A backend that answers each request."""
    while await reader.read(65536):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask, and have an answer; another one may follow."""
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    assert await reader.readexactly(2) == b"ok"
