"""Whole nodes at addresses of the internet, in one process with virtual time: `dtp.Node` as it is, over carriers in
memory. What a test says passes, and who is where, is exact."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import dtp
from dtp.carriers.base import Accept, Carrier, CarrierKind, CarrierListener
from dtp.carriers.errors import BrokenError, DialError
from dtp.carriers.memory import MemoryCarrier, MemoryLink, pair
from dtp.identity import Identity
from dtp.net.connection import Connection
from dtp.net.listener import listen
from dtp.peers.links import NODE_SERVICE
from dtp.peers.surroundings import Surroundings

#: Seconds one way.
HOP = 0.02
PORT = 9000


def identity(name: str) -> Identity:
    """Somebody, the same each time."""
    seeds = (hashlib.sha256(f"{name}{part}".encode()).digest() for part in ("", " static"))
    return Identity(*seeds)


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


class Internet:
    """Places at which somebody listens. `passes` says what gets from where to which address, `cut` ends what gets
    there no more."""

    def __init__(self) -> None:
        self.passes: Callable[[str, str], bool] = lambda one, other: True
        #: What a machine says that its addresses are, by the host that it listens at, where that isn't the one.
        self.addresses: dict[str, set[str]] = {}
        #: How often somebody has dialled.
        self.dials = 0
        self._places: dict[str, Accept] = {}
        self._carriers: list[tuple[MemoryCarrier, MemoryCarrier]] = []
        loop = asyncio.get_running_loop()
        began = time.time() - loop.time()
        #: Unix time here.
        self.wall: Callable[[], float] = lambda: began + loop.time()

    async def dial(self, source: str, url: str) -> Carrier:
        """Return a carrier from an address to a place; none where nothing passes. Raise `DialError`."""
        self.dials += 1
        if not self.passes(source, _host(url)):
            await asyncio.Event().wait()
        await asyncio.sleep(2 * HOP)
        accept = self._places.get(url)
        if accept is None:
            raise DialError(f"{url}: refused")
        near, far = pair(MemoryLink(delay=HOP), MemoryLink(delay=HOP), remote=url)
        near.source, far.source = _host(url), source
        self._carriers = [each for each in self._carriers if not each[0].has_ended()]
        self._carriers.append((near, far))
        accept(far)
        return near

    def cut(self) -> None:
        """End carriers where nothing passes any more."""
        for near, far in self._carriers:
            if not self.passes(far.source, near.source):
                for each in (near, far):
                    each.cut_link(BrokenError("nothing passes"))

    def carriers_at(self, host: str) -> CarrierKind:
        """Return how somebody at an address listens and dials."""
        places = self._places

        class Place(CarrierListener):
            def __init__(self, url: str, accept: Accept) -> None:
                self.urls = [url]
                places[url] = accept

            async def close(self) -> None:
                places.pop(self.urls[0], None)

        async def listen_here(url: str, accept: Accept) -> CarrierListener:
            return Place(url, accept)

        async def dial_from_here(url: str) -> Carrier:
            return await self.dial(host, url)

        return CarrierKind("tcp", dial_from_here, listen_here)

    @asynccontextmanager
    async def node(self, host: str, *, port: int = PORT, **options: Any) -> AsyncIterator[dtp.Node]:
        """A node that listens at `host` and dials from there."""
        me, kind = identity(f"{host}:{port}"), self.carriers_at(host)
        around = Surroundings(
            wall=self.wall,
            steady=asyncio.get_running_loop().time,
            list_addresses=lambda: frozenset(self.addresses.get(host, {host})),
        )

        async def accept(connection: Connection) -> None:
            await node.links.accept(connection)

        async with AsyncExitStack() as stack:
            listener = await listen([], {NODE_SERVICE: accept}, identity=me)
            stack.push_async_callback(listener.close)
            node = dtp.Node(
                identity=me,
                listener=listener,
                surroundings=around,
                discover=(),
                **{"map_ports": False, **options},
            )
            await stack.enter_async_context(node)
            node.reach.dial_carrier = kind.dial
            await listener.add(f"tcp://{host}:{port}", kind)
            node.announce(())
            yield node
