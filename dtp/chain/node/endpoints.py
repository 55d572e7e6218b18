"""Several nodes of one network as one: who is asked, how often, and whether it is the right network.

A question goes to the endpoint that answered last. When it doesn't answer, the next one is asked, after a pause that
grows. Each endpoint is asked once which chain it serves.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from dtp.chain.errors import NodeUnavailable, WrongNetwork
from dtp.chain.model import ServiceInfo
from dtp.chain.node._wire import NodeRpc
from dtp.chain.node.networks import NETWORKS, Network
from dtp.plurals import count_of

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

#: What speaks with the node at a URL, each call for so many seconds (`timeout`): `NodeRpc`, or a test's.
MakeRpc: TypeAlias = Callable[..., NodeRpc]


@dataclass(frozen=True)
class Retry:
    """How often a question is asked before it is given up. Times are in seconds; half of each pause is random.

    Once each endpoint was asked no further attempt begins after `most_seconds`: nodes that are silent take all their
    time.
    """

    attempts: int = 6
    most_seconds: float = 15.0
    first_pause: float = 0.1
    factor: float = 2.0
    longest_pause: float = 5.0

    def pause(self, attempt: int) -> float:
        """Return the pause after failed attempt number `attempt`, from 0."""
        whole = min(self.first_pause * self.factor**attempt, self.longest_pause)
        return whole * (0.5 + random.random() / 2)


class Endpoints:
    """The nodes of a network. `timeout` is in seconds, for each single call."""

    def __init__(
        self,
        network: Network,
        *,
        timeout: float,
        retry: Retry,
        sleep: Sleep = asyncio.sleep,
        rpc: MakeRpc = NodeRpc,
    ) -> None:
        self.network = network
        self.retry = retry
        self.sleep = sleep
        self._wires = [rpc(url, timeout=timeout) for url in network.endpoints]
        self._checked: set[str] = set()
        self._turn = 0
        #: The chain that is talked to; empty before the first answer.
        self.chain_id = network.chain_id
        self.info: ServiceInfo | None = None

    @property
    def wire(self) -> NodeRpc:
        """The endpoint whose turn it is."""
        return self._wires[self._turn % len(self._wires)]

    def next(self) -> None:
        """Let the next endpoint have its turn."""
        self._turn += 1

    async def checked_wire(self) -> NodeRpc:
        """Return the endpoint whose turn it is, known to serve the right chain. Raises `WrongNetwork`."""
        wire = self.wire
        if wire.url not in self._checked:
            info = await wire.service_info()
            if self.chain_id and info.chain_id != self.chain_id:
                raise WrongNetwork(
                    f"{wire.url} serves chain {info.chain_id} ({info.chain or 'unnamed'}), but "
                    f"{self.network.name} is {self.chain_id}: give the network that is meant, or another endpoint"
                )
            self.chain_id = info.chain_id
            self.info = info
            self._checked.add(wire.url)
        return wire

    async def pause(self, tried: int, begun: float) -> bool:
        """Let the next endpoint have its turn, and return True after a pause; False at once where `tried` attempts,
        the first at `begun` of the loop's clock, were enough."""
        retry = self.retry
        self.next()
        late = asyncio.get_running_loop().time() - begun >= retry.most_seconds
        if tried >= retry.attempts or (late and tried >= len(self._wires)):
            return False
        await self.sleep(retry.pause(tried - 1))
        return True

    async def ask(self, question: Callable[[NodeRpc], Awaitable[T]]) -> T:
        """Return the answer to a question, which is asked several times if need be. Raises `NodeUnavailable`, and
        what the question raises."""
        tried, begun = 0, asyncio.get_running_loop().time()
        while tried == 0 or await self.pause(tried, begun):
            tried += 1
            try:
                return await question(await self.checked_wire())
            except NodeUnavailable as fault:
                lost = fault
        raise NodeUnavailable(
            f"{self.network.name}: no answer in {count_of(tried, 'attempt')} ({lost}); "
            + (
                "'dtp localnet' starts a node here"
                if self.network == NETWORKS["localnet"]
                else "is the node running, and the network up?"
            )
        ) from lost

    def open(self) -> None:
        """Let questions make connections, again after `close`."""
        for wire in self._wires:
            wire.open()

    def close(self) -> None:
        """Close all connections. Questions that are under way, and later ones, end with `ClientClosed`."""
        for wire in self._wires:
            wire.close()
