"""What idle presence costs: people on one server who do nothing. `python -m bench.graph.presence`, virtual time."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import dtp
from dtp.crdt import clock
from dtp.graph import Graph
from dtp.testing.clock import run

#: Seconds of virtual time that are measured, and before that.
MEASURED, SETTLING = 100, 60


async def measure(people: int, *, present: bool) -> tuple[float, float]:
    """Return bytes a second to each, with those of the connection, and ms of processor time of all a second."""
    loop = asyncio.get_running_loop()
    wall = clock.Clock(lambda: 1_800_000_000 + loop.time())
    async with AsyncExitStack() as stack:

        async def opened(who: dtp.Identity) -> Graph:
            return await stack.enter_async_context(
                await Graph.open("memory:", identity=who, name="g", clock=wall)
            )

        me = dtp.Identity.generate()
        server = await opened(me)
        listener = await stack.enter_async_context(
            await dtp.listen("memory://idle", server.serve, identity=me)
        )
        connections, replicating = [], []
        for number in range(people):
            who = dtp.Identity.generate()
            graph = await opened(who)
            connections.append(await stack.enter_async_context(dtp.connect(listener.address(), identity=who)))
            replicating.append(asyncio.ensure_future(graph.replicate(connections[-1])))
            if present:
                graph.presence.set(
                    name=f"person {number}", colour="#aabbcc", cursor=graph.text("t").anchor(0)
                )
        await asyncio.sleep(SETTLING)
        before, began = sum(one.stats.bytes_received for one in connections), time.process_time()
        await asyncio.sleep(MEASURED)
        spent = time.process_time() - began
        received = sum(one.stats.bytes_received for one in connections) - before
        for one in replicating:
            one.cancel()
        await asyncio.gather(*replicating, return_exceptions=True)
    return received / MEASURED / people, spent * 1000 / MEASURED


def main() -> None:
    print("| people | there | bytes/s to each | processor, all, ms/s |\n|---|---|---|---|")
    for people in (10, 100):
        for present in (False, True):
            received, spent = run(measure(people, present=present))
            print(f"| {people} | {'all' if present else 'nobody'} | {received:,.0f} | {spent:,.1f} |")


if __name__ == "__main__":
    main()
