"""Programs of a LAN with a private network: `member KEY SEED [PEER]`, `stranger PEER HOST`, `tap PORT FILE`.

What they know are lines of JSON on standard output; they end with their standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
from nat_node import echo, say, until_told

import dtp
from dtp.net.address import Address

#: What nobody without the key is to learn.
SERVICE, TOPIC, SAID = "kitchen-camera", "weather-at-home", b"twenty-one degrees"
WAYS = ("lan", "mdns", "dht")


async def member(key: str, seed: str, peer: str = "") -> None:
    me = dtp.Identity(bytes([int(seed)]) * 32, bytes([int(seed)]) * 32)
    node = dtp.Node(
        identity=me,
        listen=["tcp://0.0.0.0:9000", "quic://0.0.0.0:9000"],
        discover=WAYS,
        dht={"bind": ("0.0.0.0", 9001)},
        private=bytes.fromhex(key),
        services={SERVICE: echo},
        announce=SERVICE,
    )
    async with node, node.topic(TOPIC) as topic:
        say(peer=str(me.id))
        if peer:
            async with node.connect(f"dtp://{peer}/{SERVICE}") as connection:
                stream = await connection.open_stream()
                stream.write(SAID)
                said = await stream.readexactly(len(SAID))
            await node.dht.put(SAID, name=SERVICE, sequence=1)
            await topic.publish(SAID)
            say(said=said.decode(), contacts=node.dht.stats().contacts)
        await until_told()


async def stranger(peer: str, host: str) -> None:
    """Look for everybody, ask for one that it knows, dial it, ask its DHT."""
    node = dtp.Node(discover=WAYS, bootstrap=[f"{host}:9001"])
    there = dtp.PeerId.parse(peer)
    async with node:
        assert node.lan is not None
        node.lan.ask_everybody()
        answers = [await node.lan.find_record(there)]
        why = []
        for port in ("tcp", "quic"):
            try:
                async with (
                    asyncio.timeout(10),
                    node.connect(Address.direct(there, f"{port}://{host}:9000", SERVICE)),
                ):
                    why.append("connected")
            except (dtp.DtpError, TimeoutError) as fault:
                why.append(type(fault).__name__)
        say(
            answers=[each is not None for each in answers],
            why=why,
            known=[str(each.record.peer) for each in node.book],
            contacts=node.dht.stats().contacts,
        )
        await until_told()


async def tap(port: str) -> list[bytes]:
    """Return the frames that pass at a port of the switch."""
    frames = list[bytes]()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as heard:
        heard.bind((port, 0))
        heard.setblocking(False)

        def read() -> None:
            with contextlib.suppress(BlockingIOError):
                while True:
                    frames.append(heard.recv(65536))

        asyncio.get_running_loop().add_reader(heard, read)
        say(tapped=port)
        await until_told()
        read()
    return frames


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    if role == "tap":
        found = asyncio.run(tap(arguments[0]))
        Path(arguments[1]).write_text("\n".join(each.hex() for each in found))
    else:
        roles: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {"member": member, "stranger": stranger}
        asyncio.run(roles[role](*arguments))
