"""A node of the NAT lab, as a program: what to do as arguments, what happens as lines of JSON on standard output.

`relay`; `server RELAY_URL`; `client ADDRESS [PIECES]`, which goes on
over a relayed connection while it gets a direct carrier.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import dtp
from dtp.carriers.quic.endpoint import QuicEndpoint
from dtp.net.connection import Connection
from dtp.net.dial import connect
from dtp.net.listener import listen
from dtp.net.relay import copy
from dtp.peers.links import NODE_SERVICE, PeerLinks
from dtp.peers.reach.messages import RELAY_SERVICE
from dtp.peers.reach.reach import REACH_PROTOCOL, Reach
from dtp.peers.reach.relay import Relay

#: Bytes that go there and back before, while and after the carrier changes.
PIECE, PIECES = 20_000, 200


def slow_down(seconds: float) -> None:
    """Have each UDP packet of this program leave so much later: kernels have no `netem` everywhere."""
    plain = QuicEndpoint.send_packets

    def send(endpoint: QuicEndpoint, packets: Iterable[tuple[bytes, tuple[object, ...]]]) -> None:
        kept = list(packets)
        if kept:
            asyncio.get_running_loop().call_later(seconds, lambda: endpoint.closed or plain(endpoint, kept))

    QuicEndpoint.send_packets = send


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def until_told() -> None:
    """Until the parent closes our standard input."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await reader.read()


async def relay() -> None:
    service = Relay()
    me = dtp.Identity.generate()
    async with await listen(
        ["quic://203.0.113.1:7000", "tcp://203.0.113.1:7000"],
        {RELAY_SERVICE: service.serve_connection},
        identity=me,
    ):
        say(relay=f"relay://203.0.113.1:7000?relay={me.id}&via=quic")
        await until_told()
        say(counters=service.counters)


async def echo(connection: Connection) -> None:
    async for stream in connection:
        await copy(stream, stream)


async def node(me: dtp.Identity) -> tuple[Reach, PeerLinks, dtp.Listener]:
    reach = Reach(me)

    async def dial(address: dtp.Address) -> Connection:
        return await connect(address, identity=me, dial_carrier=reach.dial_carrier)

    links = PeerLinks(me, dial=dial)
    links.protocols[REACH_PROTOCOL] = reach.serve_stream
    listener = await listen([], {NODE_SERVICE: links.accept, "echo": echo}, identity=me)
    await reach.listen(listener, "quic://0.0.0.0:9000")
    return reach, links, listener


async def server(relay_url: str) -> None:
    reach, links, listener = await node(dtp.Identity.generate())
    async with listener:
        (url,) = (await reach.reserve(listener, relay_url)).urls
        say(address=str(dtp.Address.direct(listener.peer, url)), observed=reach.observations.observed_urls())
        await until_told()
        say(counters=reach.counters)
        await links.close()
        await reach.close()


async def client(text: str, pieces: str = str(PIECES)) -> None:
    reach, links, listener = await node(dtp.Identity.generate())
    address = dtp.Address.parse(text)
    loop = asyncio.get_running_loop()
    async with listener:
        link = await links.connect(address)
        async with connect(
            address.with_service("echo"), identity=reach.identity, dial_carrier=reach.dial_carrier
        ) as connection:
            stream = await connection.open_stream()
            sent, heard = hashlib.sha256(), hashlib.sha256()

            async def talk(pieces: int) -> None:
                for number in range(pieces):
                    data = number.to_bytes(4) * (PIECE // 4)
                    sent.update(data)
                    stream.write(data)
                    heard.update(await stream.readexactly(len(data)))

            await talk(3)
            say(relayed=connection.stats.carriers)
            began = loop.time()

            async def upgrade() -> tuple[bool, float]:
                return await reach.upgrade_connection(connection, link), loop.time() - began

            upgrading = asyncio.ensure_future(upgrade())
            await talk(int(pieces))
            direct, seconds = await upgrading
            say(direct=direct, seconds=seconds, carriers=connection.stats.carriers)
            await talk(3)
            say(whole=sent.digest() == heard.digest(), resumes=connection.stats.resumes)
        say(seen=await reach.ask_endpoint(link), counters=reach.counters)
        await links.close()
        await reach.close()


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    if late := float(os.environ.get("NAT_LAB_DELAY", "0")):
        slow_down(late)
    roles: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
        "relay": relay,
        "server": server,
        "client": client,
    }
    asyncio.run(roles[role](*arguments))
