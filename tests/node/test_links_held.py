"""What a node keeps for its links, those that it has dialled among them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.node.node import Node, NodeLimits
from dtp.peers.links import NODE_SERVICE
from dtp.session.limits import DEFAULT
from dtp.testing.clock import run

MOST = 1024 * 1024
LIMITS = NodeLimits(connection=replace(DEFAULT, held=MOST))


def test_what_peers_do_not_acknowledge_is_bounded_on_links_that_were_dialled() -> None:
    """Who reads all, acknowledges nothing and now and then says something had 128 MiB kept for it, each."""

    async def main() -> None:
        quiet: dict[str, Any] = {"discover": (), "map_ports": False}
        async with (
            Node(listen=["memory://there"], **quiet) as there,
            Node(listen=None, limits=LIMITS, **quiet) as here,
        ):
            slow = Address.direct(there.identity.id, "memory://there?delay=2", NODE_SERVICE)
            held = here.listener.held

            async def send(size: int) -> Connection:
                link = await here.links.connect(slow)
                for _ in range(size // LIMITS.connection.first_window):
                    stream = await link.connection.open_stream()
                    stream.write(bytes(LIMITS.connection.first_window))
                await asyncio.sleep(0.1)
                return link.connection

            ended = await send(MOST // 4)
            assert held.total > MOST // 8
            ended.abort()
            await asyncio.sleep(5)
            assert held.total == 0
            greedy = await send(MOST)
            async with asyncio.timeout(60):
                await greedy.wait_closed()

    run(main())
