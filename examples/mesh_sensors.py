"""Sensors without a broker: a hub sums up what they measure, and when it dies the next one by rank takes over.

Each station measures, and any may be the hub: the one with the lowest rank that was heard of lately. Two hubs for a
moment do no harm, for both write the same sums. python examples/mesh_sensors.py
"""

import asyncio
import math
import os
import sys
import time

import dtp

STATIONS = 4
SILENCE = 1.0  # seconds after which a hub is taken for dead


async def station(rank: int, others: list[str]) -> None:
    me = dtp.Identity.generate()
    async with (
        dtp.Node(identity=me, listen=["tcp://127.0.0.1:0"], discover=(), bootstrap=others) as node,
        await dtp.Graph.open("memory:", identity=me, name="farm") as graph,
        node.topic("who is there", overflow="drop-oldest") as topic,
    ):
        await node.share(graph, topic="farm")
        print(node.listener.address(), flush=True)
        heard = {rank: math.inf}  # rank -> when

        async def listen() -> None:
            async for message in topic:
                heard[int(message.data)] = time.monotonic()

        listening = asyncio.create_task(listen())
        minute, parent = 0, os.getppid()
        while os.getppid() == parent:  # until the program that began it ends
            minute += 1
            graph.node(f"sensor/{rank}")["soil"] = round(20 + rank + math.sin(minute), 2)
            alive = [each for each, when in heard.items() if when > time.monotonic() - SILENCE]
            if min(alive) == rank:
                (row,) = graph.query("MATCH (s:sensor) RETURN count(s) AS sensors, avg(s.soil) AS mean")
                graph.node("sum")["hub"] = rank
                graph.node("sum")["of"] = f"{row['sensors']} sensors"
                graph.node("sum")["mean"] = round(row["mean"], 1)
            if len(node.links):
                await topic.publish(str(rank).encode())
            await asyncio.sleep(0.2)
        listening.cancel()


async def start(rank: int, others: list[str]) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", __file__, str(rank), *others, stdout=asyncio.subprocess.PIPE
    )
    return process, (await process.stdout.readline()).decode().strip()


async def main() -> None:
    addresses: list[str] = []
    stations = []
    for rank in range(STATIONS):
        process, address = await start(rank, addresses)
        stations.append(process)
        addresses.append(address)
    me = dtp.Identity.generate()
    async with (
        dtp.Node(identity=me, listen=None, discover=(), bootstrap=addresses) as node,
        await dtp.Graph.open("memory:", identity=me, name="farm") as screen,
    ):
        await node.share(screen, topic="farm")
        total = screen.node("sum")

        async def see(hub: int) -> None:
            async with asyncio.timeout(240), screen.watch("sum") as changes:
                while (total.get("hub"), total.get("of")) != (hub, f"{STATIONS} sensors"):
                    await anext(changes)
            print(f"hub {total['hub']}: {total['of']}, {'a mean' if 15 < total['mean'] < 30 else 'nonsense'}")

        await see(hub=0)
        stations[0].kill()
        print("hub 0 is killed")
        await see(hub=1)
    for process in stations[1:]:
        process.terminate()
    await asyncio.gather(*(process.wait() for process in stations))


if __name__ == "__main__":
    asyncio.run(station(int(sys.argv[1]), sys.argv[2:]) if sys.argv[1:] else main())
