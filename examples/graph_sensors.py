"""A sensor net: sensors write readings where they are, a gateway gathers them, and a screen follows live.

python examples/graph_sensors.py
"""

import asyncio
import math

import dtp

SENSORS = 3
READINGS = 5


async def sensor(number: int, gateway: dtp.Address) -> None:
    """Measure for a while without a network, then hand all over."""
    me = dtp.Identity.generate()
    async with await dtp.Graph.open("memory:", identity=me) as graph:
        here = graph.node(f"sensor/{number}")
        here["place"] = ("roof", "cellar", "garden")[number]
        for minute in range(READINGS):
            here[f"t{minute:03}"] = round(15 + 5 * math.sin(minute + number), 2)
            graph.counter("readings").add(1)
        async with dtp.connect(gateway, identity=me) as connection:
            await graph.sync(connection)


async def main() -> None:
    keeper, reader = dtp.Identity.generate(), dtp.Identity.generate()
    async with (
        await dtp.Graph.open("memory:", identity=keeper) as gateway,
        await dtp.Graph.open("memory:", identity=reader) as screen,
        await dtp.listen("tcp://127.0.0.1:0", gateway.serve, identity=keeper) as listener,
        dtp.connect(listener.address(), identity=reader) as connection,
    ):
        following = asyncio.create_task(screen.replicate(connection))
        async with screen.watch("readings") as watch:
            await asyncio.gather(*(sensor(number, listener.address()) for number in range(SENSORS)))
            async for _ in watch:
                if screen.counter("readings").value == SENSORS * READINGS:
                    break
        for soul in screen.souls("sensor/"):
            node = screen.node(soul).to_dict()
            values = [value for key, value in node.items() if key.startswith("t")]
            print(f"{node['place']}: {len(values)} readings, {min(values)} to {max(values)} degrees")
        following.cancel()


if __name__ == "__main__":
    asyncio.run(main())
