"""A weather network: thousands of sensors, aggregates by query, a station that joins late, forged readings refused.

Each sensor is simulated here with a key of its own, and signs what it measures below its own name. Stations are real
nodes that share one graph. python examples/mesh_weather.py
"""

import asyncio
import math
import random

import dtp
from dtp.graph import EnvelopeError

SENSORS, STATIONS = 2000, 3
AREAS = ("coast", "hills", "plain")


async def measure(number: int) -> list[bytes]:
    """Return what a sensor sends by radio: its reading, signed."""
    me = dtp.Identity.generate()
    async with await dtp.Graph.open("memory:", identity=me, name="weather") as graph:
        reading = graph.node(f"~{me.id}/reading/now")
        reading["area"] = AREAS[number % 3]
        reading["celsius"] = round(10 + 5 * (number % 3) + math.sin(number), 2)
        await graph.commit()
        return await graph.frames.read(me.id.key, 1, 1)


async def main() -> None:
    names = [dtp.Identity.generate() for _ in range(STATIONS + 1)]
    nodes = [dtp.Node(identity=me, listen=["tcp://127.0.0.1:0"], discover=()) for me in names[:STATIONS]]
    async with nodes[0], nodes[1], nodes[2]:
        for node in nodes[1:]:
            await node.links.connect(nodes[0].listener.address())
        graphs = [await dtp.Graph.open("memory:", identity=me, name="weather") for me in names]
        for node, graph in zip(nodes, graphs[:STATIONS], strict=True):
            await node.share(graph, topic="weather")

        for number in range(SENSORS):
            sent = await measure(number)
            station = random.choice(graphs[:STATIONS])
            if number % 100 == 7:  # somebody changes a reading on its way
                try:
                    await station.receive([sent[0][:-90] + bytes([sent[0][-90] ^ 1]) + sent[0][-89:]])
                except (EnvelopeError, dtp.PeerError):
                    continue  # this sensor is not heard any other way
            await station.receive(sent)

        bootstrap = [str(nodes[1].listener.address())]
        async with dtp.Node(identity=names[-1], listen=None, discover=(), bootstrap=bootstrap) as late:
            await late.share(graphs[-1], topic="weather")
            wanted = "r.area AS area, count(r) AS sensors, round(avg(r.celsius)) AS mean"
            question = f"MATCH (r:reading) RETURN {wanted} ORDER BY area"
            honest = SENSORS - SENSORS // 100
            async with asyncio.timeout(240):
                while sum(row["sensors"] for row in graphs[-1].query(question)) < honest:
                    await asyncio.sleep(0.2)
            for row in graphs[-1].query(question):
                print(f"{row['area']}: {row['sensors']} sensors, {row['mean']:g} degrees")
            print(f"a station that came late has {honest} readings of {SENSORS}; forged ones were refused")
        for graph in graphs:
            await graph.close()


if __name__ == "__main__":
    asyncio.run(main())
