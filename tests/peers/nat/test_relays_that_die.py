"""Relays that die while connections go by them: these go on by another one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from dtp import carriers
from dtp.carriers.base import Carrier
from dtp.carriers.errors import BrokenError, DialError
from dtp.carriers.memory import MemoryCarrier
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import connect
from dtp.node.node import Node
from dtp.peers.reach.reach import CHECK_PAUSE
from dtp.peers.reach.relay_client import RelayPlace
from dtp.testing.clock import run

QUIET: dict[str, Any] = {"discover": (), "map_ports": False}


async def echo(connection: Connection) -> None:
    async for stream in connection:
        while data := await stream.read(100):
            stream.write(data)


def relays_of(node: Node) -> list[str]:
    """The relays that its record names."""
    assert node.record is not None
    places = [url for url in node.record.addresses if url.startswith("relay:")]
    return [RelayPlace.parse(url).relay.short for url in places]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(600):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.5)


class Wires:
    """How nodes reach relays, one of which dies: what goes to it is cut, and then refused, or unanswered."""

    def __init__(self, *, refuses: bool) -> None:
        self.refuses = refuses
        self.dead = ""
        self._dialled: list[tuple[str, MemoryCarrier]] = []

    def connect_as(self, me: Identity) -> Callable[[Address], Awaitable[Connection]]:
        """Return what connects to relays as `me`."""
        return lambda address: asyncio.ensure_future(self._connect(me, address))

    async def _connect(self, me: Identity, address: Address) -> Connection:
        return await connect(address, identity=me, dial_carrier=self._dial)

    async def _dial(self, url: str) -> Carrier:
        if url == self.dead:
            if not self.refuses:
                await asyncio.Event().wait()
            raise DialError(f"{url}: refused")
        carrier = await carriers.dial(url)
        assert isinstance(carrier, MemoryCarrier)
        self._dialled.append((url, carrier))
        return carrier

    def kill(self, dead: str) -> None:
        """Have the relay at a URL die."""
        self.dead = dead
        for url, carrier in self._dialled:
            if url == dead:
                carrier.cut_link(BrokenError("dead"))


@pytest.mark.parametrize("refuses", [True, False], ids=["refuses", "says nothing"])
@pytest.mark.parametrize("knows_both", [True, False], ids=["linked to both", "linked to the other"])
def test_a_connection_outlives_its_relay(*, refuses: bool, knows_both: bool) -> None:
    async def main() -> None:
        wires = Wires(refuses=refuses)
        first, second = (Node(listen=[f"memory://{name}"], relay=True, **QUIET) for name in ("one", "two"))
        async with first, second, AsyncExitStack() as stack:
            seeds = [
                f"dtp+memory://{each.identity.id}@{name}" for each, name in ((first, "one"), (second, "two"))
            ]
            place = f"relay://one?relay={first.identity.id}&via=memory"
            me, other = Identity.generate(), Identity.generate()
            hidden = Node(
                identity=me,
                listen=[place],
                bootstrap=seeds[1:],
                services={"echo": echo},
                connect_relay=wires.connect_as(me),
                **QUIET,
            )
            await stack.enter_async_context(hidden)
            await until(lambda: relays_of(hidden) == [first.identity.id.short])
            dialler = Node(
                identity=other,
                listen=["memory://dialler"],
                bootstrap=seeds if knows_both else seeds[1:],
                connect_relay=wires.connect_as(other),
                **QUIET,
            )
            await stack.enter_async_context(dialler)
            await asyncio.sleep(3 * CHECK_PAUSE)
            async with dialler.connect(f"dtp://{hidden.identity.id}/echo") as connection:
                stream = await connection.open_stream()
                stream.write(b"before")
                assert await stream.readexactly(6) == b"before"
                wires.kill("memory://one")
                began = asyncio.get_running_loop().time()
                stream.write(b"after")
                assert await stream.readexactly(5) == b"after"
                assert asyncio.get_running_loop().time() - began < 4 * CHECK_PAUSE
                await until(lambda: relays_of(hidden) == [second.identity.id.short])

    run(main())
