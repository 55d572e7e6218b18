"""A `dtp.Node` of the NAT lab, as a program. What it knows of itself are lines of JSON on standard output.

`public [TOPIC] [HOST]`; `hidden PUBLIC`; `mapped PUBLIC`; `asking PUBLIC PEER`; `dialling PUBLIC ADDRESS`;
`talking PUBLIC PEER`; `member PUBLIC`, where PUBLIC is what `public` says.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
from nat_node import say, until_told

from dtp.errors import CarrierError
from dtp.net.connection import Connection
from dtp.net.relay import copy
from dtp.net.resolver import NotResolved
from dtp.node.node import Node


async def echo(connection: Connection) -> None:
    async for stream in connection:
        await copy(stream, stream)


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def public(topic: str = "", host: str = "203.0.113.1") -> None:
    node = Node(
        listen=[f"tcp://{host}:7000", f"quic://{host}:7000"],
        relay=True,
        discover=["dht"],
        dht={"bind": (host, 7001)},
    )
    async with node:
        say(bootstrap=[str(node.addresses[0]), f"{host}:7001"])
        async with AsyncExitStack() as stack:
            if topic:
                await stack.enter_async_context(node.topic(topic))
            await until_told()
        say(verdict=node.dialability.verdict, serves=not node.dht.node.client)


def behind_nat(bootstrap: str, **options: Any) -> Node:
    return Node(
        listen=["tcp://0.0.0.0:9000", "quic://0.0.0.0:9000"],
        discover=["dht"],
        bootstrap=json.loads(bootstrap),
        **options,
    )


async def hidden(bootstrap: str) -> None:
    async with behind_nat(bootstrap, services={"echo": echo}) as node:
        await until(lambda: node.dialability.verdict is not None)
        verdict = node.dialability.verdict
        if not verdict:
            await until(lambda: any(url.startswith("relay:") for url in node.record.addresses))
            await until(lambda: node.dht.node.client)
        say(peer=str(node.identity.id), verdict=verdict, addresses=list(node.record.addresses))
        await until_told()


async def mapped(bootstrap: str) -> None:
    """Isn't dialled at first, asks the router for its ports, and is dialled then."""
    node = behind_nat(bootstrap, services={"echo": echo})
    async with node:
        await until(lambda: node.dialability.verdict is False)
        await until(lambda: node.dialability.verdict is True)
        say(address=str(node.identity.id), addresses=list(node.record.addresses))
        await until_told()
    say(closed=True)


async def connected(node: Node, address: str) -> Connection:
    """Connect as soon as its record is here: at first nobody may have told of it, or others have the one from before
    it had a place."""
    while True:
        try:
            return await node.connect(address)
        except (CarrierError, NotResolved):
            await asyncio.sleep(0.2)


async def asking(bootstrap: str, peer: str) -> None:
    async with behind_nat(bootstrap) as node:
        await until(lambda: len(node.links) > 0)
        async with await connected(node, f"dtp://{peer}/echo") as connection:
            stream = await connection.open_stream()
            stream.write(b"through")
            first = list(connection.stats.carriers)
            said = await stream.readexactly(7)
            await until(lambda: connection.stats.carriers[0].startswith("quic:"))
            stream.write(b"directly")
            stream.write_eof()
            said += await stream.read()
            say(first=first, last=list(connection.stats.carriers), said=said.decode())
        await until_told()


async def dialling(bootstrap: str, address: str) -> None:
    """Dials another one at an address of a relay, and says by which carriers it talks then, and at last."""
    async with behind_nat(bootstrap) as node:
        await until(lambda: len(node.links) > 0)
        async with await connected(node, address) as connection:
            stream = await connection.open_stream()
            stream.write(b"through")
            first, said = list(connection.stats.carriers), await stream.readexactly(7)
            await until(lambda: not any(url.startswith("relay:") for url in connection.stats.carriers))
            stream.write(b"directly")
            stream.write_eof()
            said += await stream.read()
            say(first=first, last=list(connection.stats.carriers), said=said.decode())
        await until_told()


class CarrierChanges:
    """Counts how often a connection that was relayed has become direct. The link to the same peer becomes so as well,
    in its own time, and isn't counted."""

    def __init__(self, connection: Connection) -> None:
        self.made = 0
        self._is_direct = False
        self._upgrade = connection.callbacks.on_carrier
        connection.callbacks.on_carrier = self._note
        self._note(connection)

    def _note(self, connection: Connection) -> None:
        is_direct = any(url.startswith("quic:") for url in connection.stats.carriers)
        self.made += is_direct and not self._is_direct
        self._is_direct = is_direct
        if self._upgrade is not None:
            self._upgrade(connection)


async def talking(bootstrap: str, peer: str) -> None:
    """Says when its carriers change while it talks, and how often it has become direct by then; at last, once all
    that was said has come back, how much that was."""
    async with behind_nat(bootstrap) as node:
        await until(lambda: len(node.links) > 0)
        async with await connected(node, f"dtp://{peer}/echo") as connection:
            changes = CarrierChanges(connection)
            stream = await connection.open_stream()
            told = asyncio.create_task(until_told())
            said: dict[str, Any] = {}
            pieces = 0
            while not told.done():
                now = {"carriers": list(connection.stats.carriers), "made": changes.made}
                if said != now:
                    said = now
                    say(**said)
                piece = pieces.to_bytes(4) * 500
                stream.write(piece)
                assert await stream.readexactly(len(piece)) == piece
                pieces += 1
                await asyncio.sleep(0.02)
            say(pieces=pieces)


async def member(bootstrap: str) -> None:
    """Has a topic with another one that nobody can dial either, and is linked to it directly at last."""
    seed = json.loads(bootstrap)[:1]  # without the DHT, which knows where everybody is
    options = {"listen": ["tcp://0.0.0.0:9000", "quic://0.0.0.0:9000"], "discover": (), "bootstrap": seed}
    async with Node(**options) as node, node.topic("stock") as topic:

        def others() -> list[str]:
            public = json.loads(bootstrap)[0]
            return [each.connection.stats.carriers[0] for each in node.links if str(each.peer) not in public]

        await until(lambda: any(each.startswith("quic://203.0.113.1") for each in others()))
        await until(lambda: len(topic.members) == 2)
        say(carriers=others())
        await until_told()


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]

    async def main() -> None:
        async with asyncio.timeout(240):  # the test, which would say less, has 300
            roles = (public, hidden, mapped, asking, dialling, talking, member)
            await {each.__name__: each for each in roles}[role](*arguments)

    asyncio.run(main())
