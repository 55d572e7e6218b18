"""One side of `python -m bench.dht`: a network of nodes of one kind in this process, measured; prints JSON.

It runs in the rivals' environment too, so it imports nothing of this project but where it measures that.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

#: Seconds from the last node's beginning to the first measurement.
SETTLE = 2.0
#: Operations of each node that are not measured: with its first ones it meets others for the first time.
WARM = 2
HOST = "127.0.0.1"
#: A phase ends after so many seconds, but for the first operations: a rival may wait 5 s for each dead node.
BUDGET = 15.0
AT_LEAST = 12


class Network:
    """Nodes of one kind. `put` and `get` say which node does it, and wait for the result."""

    async def start(self, nodes: int) -> None:
        """Start so many nodes, each by the first."""
        raise NotImplementedError

    async def put(self, node: int, number: int, value: bytes) -> None:
        """Let a node put a value; return when it says that it is done."""
        raise NotImplementedError

    async def get(self, node: int, number: int) -> bytes | None:
        """Let a node get a value; return it as soon as it is there."""
        raise NotImplementedError

    async def stop(self, node: int) -> None:
        """Switch a node off."""
        raise NotImplementedError


class Ours(Network):
    """`dtp.peers.dht`: signed values; a get waits for three paths."""

    async def start(self, nodes: int) -> None:
        from dtp.identity import Identity
        from dtp.peers.dht import Dht

        self.nodes: list[Any] = []
        self.authors: dict[int, Any] = {}
        for _ in range(nodes):
            bootstrap = [self.nodes[0].endpoint] if self.nodes else []
            node = Dht(Identity.generate(), bind=(HOST, 0), bootstrap=bootstrap)
            await node.__aenter__()
            self.nodes.append(node)
            if bootstrap:
                await node.wait_joined()

    async def put(self, node: int, number: int, value: bytes) -> None:
        self.authors[number] = self.nodes[node].identity.id
        await self.nodes[node].put(value, name=str(number), sequence=1)

    async def get(self, node: int, number: int) -> bytes | None:
        found = await self.nodes[node].get(self.authors[number], str(number))
        return None if found is None else bytes(found.value)

    async def stop(self, node: int) -> None:
        await self.nodes[node].close()


class Kademlia(Network):
    """`kademlia` of PyPI: unsigned values."""

    async def start(self, nodes: int) -> None:
        from kademlia.network import Server  # type: ignore[import-not-found, unused-ignore]

        self.nodes: list[Any] = []
        for _ in range(nodes):
            node = Server()
            await node.listen(0, interface=HOST)
            if self.nodes:
                port = self.nodes[0].transport.get_extra_info("sockname")[1]
                await node.bootstrap([(HOST, port)])
            self.nodes.append(node)

    async def put(self, node: int, number: int, value: bytes) -> None:
        await self.nodes[node].set(str(number), value)

    async def get(self, node: int, number: int) -> bytes | None:
        found: bytes | None = await self.nodes[node].get(str(number))
        return found

    async def stop(self, node: int) -> None:
        self.nodes[node].stop()


class OpenDht(Network):
    """`opendht` (C++): unsigned values; each node has threads of its own, and a get ends with the first value."""

    async def start(self, nodes: int) -> None:
        import opendht  # type: ignore[import-not-found, unused-ignore]

        self._library = opendht
        self.nodes: list[Any] = []
        for _ in range(nodes):
            config = opendht.DhtConfig()
            config.setRateLimit(-1, -1)
            node = opendht.DhtRunner()
            node.run(port=0, config=config)
            if self.nodes:
                node.bootstrap(HOST, str(self.nodes[0].getBound().getPort()))
            self.nodes.append(node)
            await asyncio.sleep(0.05)

    async def put(self, node: int, number: int, value: bytes) -> None:
        key = self._library.InfoHash.get(str(number))
        done = self.nodes[node].put(key, self._library.Value(value))
        if done is False:
            raise RuntimeError("opendht could not put the value")

    async def get(self, node: int, number: int) -> bytes | None:
        key, found, ended = self._library.InfoHash.get(str(number)), [], threading.Event()

        def got(value: Any) -> bool:
            found.append(bytes(value.data))
            ended.set()
            return False

        self.nodes[node].get(key, got, lambda *what: ended.set())
        ended.wait(30)
        return found[0] if found else None

    async def stop(self, node: int) -> None:
        self.nodes[node].join()


KINDS: dict[str, type[Network]] = {"dtp": Ours, "opendht": OpenDht, "kademlia": Kademlia}


async def timed(times: list[float], work: Callable[[], Awaitable[Any]]) -> Any:
    """Do it and add how many ms it took."""
    began = time.perf_counter()
    result = await work()
    times.append(1000 * (time.perf_counter() - began))
    return result


async def measure(kind: str, nodes: int, count: int) -> dict[str, Any]:
    """Return what puts, gets, and gets with a quarter of the nodes dead took, ms each, and the processor's share."""
    network = KINDS[kind]()
    await network.start(nodes)
    await asyncio.sleep(SETTLE)
    warm = WARM * nodes
    values = [os.urandom(32) for _ in range(warm + count)]
    result: dict[str, Any] = {"put": [], "get": [], "dead": [], "missing": 0}
    began = time.process_time()
    for number, value in enumerate(values):
        times = result["put"] if number >= warm else []
        await timed(times, lambda n=number, v=value: network.put(n % nodes, n, v))  # type: ignore[misc]
        await asyncio.sleep(0.005)  # what goes on behind is not the next one's
    result["put cpu"] = 1000 * (time.process_time() - began) / len(values)
    began = time.process_time()
    for number, value in enumerate(values):
        times = result["get"] if number >= warm else []
        found = await timed(times, lambda n=number: network.get((n + nodes // 2) % nodes, n))  # type: ignore[misc]
        result["missing"] += found != value
        await asyncio.sleep(0.002)
    result["get cpu"] = 1000 * (time.process_time() - began) / len(values)
    dead = nodes // 4
    for node in range(dead):
        await network.stop(nodes - 1 - node)
    alive = nodes - dead
    ends = time.monotonic() + BUDGET
    for number, value in enumerate(values):
        if number >= AT_LEAST and time.monotonic() > ends:
            break
        found = await timed(result["dead"], lambda n=number: network.get((n * 7) % alive, n))  # type: ignore[misc]
        result["missing"] += found != value
    return result


def main() -> None:
    """`dht_side.py KIND NODES COUNT`."""
    kind, nodes, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    print(json.dumps(asyncio.run(measure(kind, nodes, count))), flush=True)
    os._exit(0)  # threads of a rival may not end


if __name__ == "__main__":
    main()
