"""A whole local network: node, gRPC service and faucet. For `dtp localnet`, and in a thread for tests.

with LocalnetThread() as net:            # in memory, free ports; ends with the block
    ChainClient(net.url, signer)
    net.fund(signer.address)
    net.advance_clock(60_000)
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from errno import EADDRINUSE
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from dtp.carriers.errors import ListenError
from dtp.errors import LocalError
from dtp.localnet.grpc.faucet import FAUCET_AMOUNT, Faucet
from dtp.localnet.grpc.server import NodeServer
from dtp.localnet.node import LocalNode
from dtp.sui.names import format_digest, parse_address

T = TypeVar("T")
STATE_FILE: Final = "localnet.sqlite"


class PortTaken(ListenError):
    """An address to listen on is taken, or isn't this machine's."""

    code = "port-taken"


class StateFolderError(LocalError):
    """The folder for the state can't be made."""

    code = "state-folder"


class Localnet:
    """A node with its service and its faucet, on the running event loop. Ports of 0 are free ones.

    `state` is a folder that keeps the chain; without it the chain is in memory and ends with `close`.
    """

    def __init__(self, state: Path | None = None, *, now: Callable[[], int] | None = None) -> None:
        self._state = state
        self._now = now
        self._node: LocalNode | None = None
        self._server: NodeServer | None = None
        self._faucet: Faucet | None = None
        self.host = "127.0.0.1"

    async def start(self, host: str = "127.0.0.1", port: int = 0, faucet_port: int = 0) -> None:
        """Open the chain and listen. Raises `PortTaken`, `StateFolderError`, `NodeStateError`."""
        self.host = host
        self._node = self._open_node()
        tried = port
        try:
            self._server = NodeServer(self._node)
            await self._server.start(host, port)
            tried = faucet_port
            self._faucet = Faucet(self._node)
            self._faucet.start(host, faucet_port)
        except OSError as fault:
            await self.close()
            # asyncio's own text names the address again; errors of names have no number of the system's.
            known = fault.errno is not None and fault.errno > 0
            why = (
                os.strerror(fault.errno)
                if known and fault.errno is not None
                else fault.strerror or str(fault)
            )
            advice = (
                "; is another localnet running? Port 0 takes a free one" if fault.errno == EADDRINUSE else ""
            )
            raise PortTaken(f"can't listen on {_joined(host, tried)}: {why}{advice}") from fault

    def _open_node(self) -> LocalNode:
        if self._state is None:
            return LocalNode.open(now=self._now) if self._now is not None else LocalNode.open()
        try:
            self._state.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise StateFolderError(
                f"can't make the folder {self._state}: {fault.strerror or fault}"
            ) from fault
        path = self._state / STATE_FILE
        return LocalNode.open(path, now=self._now) if self._now is not None else LocalNode.open(path)

    async def close(self) -> None:
        """Stop listening, end all streams, close the chain."""
        if self._faucet is not None:
            await self._faucet.close()
        if self._server is not None:
            await self._server.close()
        if self._node is not None:
            self._node.close()
        self._faucet = self._server = self._node = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def node(self) -> LocalNode:
        """The node. Raises `RuntimeError` when it isn't running."""
        if self._node is None:
            raise RuntimeError("the localnet isn't running")
        return self._node

    @property
    def url(self) -> str:
        """Where the gRPC service is."""
        return f"http://{_joined(self.host, self._server.port if self._server else 0)}"

    @property
    def faucet_url(self) -> str:
        """Where the faucet is."""
        return f"http://{_joined(self.host, self._faucet.port if self._faucet else 0)}/v2/gas"

    @property
    def chain_id(self) -> str:
        """The chain's id, base58."""
        return format_digest(self.node.service_info().chain)


def _joined(host: str, port: int) -> str:
    """Host and port as URLs write them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class LocalnetThread:
    """A `Localnet` in a thread of its own, for tests and programs without an event loop of their own."""

    def __init__(
        self,
        state: Path | None = None,
        *,
        port: int = 0,
        faucet_port: int = 0,
        now: Callable[[], int] | None = None,
    ) -> None:
        self._localnet = Localnet(state, now=now)
        self._ports = (port, faucet_port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dtp-localnet", daemon=True)
        self.url = ""
        self.faucet_url = ""
        self.chain_id = ""

    def start(self) -> Self:
        """Start it. Raises as `Localnet.start` does."""
        self._thread.start()
        try:
            self._run_coroutine(self._localnet.start("127.0.0.1", *self._ports))
        except BaseException:
            self._stop_loop()
            raise
        self.url, self.faucet_url = self._localnet.url, self._localnet.faucet_url
        self.chain_id = self.run(lambda node: format_digest(node.service_info().chain))
        return self

    def close(self) -> None:
        """End it."""
        if not self._loop.is_closed():
            self._run_coroutine(self._localnet.close())
            self._stop_loop()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run_coroutine(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def run(self, work: Callable[[LocalNode], T]) -> T:
        """Do something with the node, on its thread, and give what it gives."""

        async def on_loop() -> T:
            return work(self._localnet.node)

        return self._run_coroutine(on_loop())

    def fund(self, address: str, amount: int = FAUCET_AMOUNT, coins: int = 1) -> None:
        """Send an address `coins` new coins of `amount` MIST."""
        self.run(lambda node: node.fund_address(parse_address(address), [amount] * coins))

    def advance_clock(self, ms: int) -> None:
        """Move the chain's clock forward."""
        self.run(lambda node: node.advance_clock(ms))

    def advance_epoch(self) -> int:
        """End the epoch; the number of the new one."""
        return self.run(lambda node: node.advance_epoch()).epoch

    def now_ms(self) -> int:
        """Return the time of the newest checkpoint."""
        return self.run(lambda node: node.service_info()).timestamp_ms
