"""A town without a centre: cars find places to park, vans share out jobs and keep clear of a closed road.

Garages say in a topic what is free; a place is given by the garage itself, so never twice. Jobs and closed roads lie
in a shared graph: the nearest living van does a job, and another one when that van dies. The uplink is pulled before
anything begins; a garage and a van are killed later. python examples/mesh_parking.py
"""

import asyncio
import json
import logging
import os
import sys
import time

import dtp

PLACES, GARAGES, CARS, VANS, SIZE = 4, 3, 6, 3, 7
JOBS = [(6, 0), (6, 3), (6, 6), (3, 6), (0, 6), (5, 5), (4, 1)]
CLOSED = {f"3,{y}" for y in range(1, 6)}  # a road in the middle of the town
SILENCE = 2.0  # seconds after which a garage or a van is taken for dead
PARENT = os.getppid()


def open_node(others: list[str], **options) -> dtp.Node:  # type: ignore[no-untyped-def]
    return dtp.Node(listen=["tcp://127.0.0.1:0"], discover=(), bootstrap=others, **options)


async def stay(every: float):  # type: ignore[no-untyped-def]
    """Yield from time to time, until the program that began this one ends."""
    while os.getppid() == PARENT:
        yield
        await asyncio.sleep(every)


# ---- parking ----------------------------------------------------------------------------------------------------


async def garage(name: str, others: list[str]) -> None:
    """Give places to whoever asks, each for as long as the stream is open, and say how many are free."""
    free = set(range(PLACES))

    async def park(connection: dtp.Connection) -> None:
        async for stream in connection:
            place = free.pop() if free else None
            stream.write(b"full\n" if place is None else b"%d\n" % place)
            if place is not None:
                await stream.read()  # until the car drives away
                free.add(place)
            stream.close()

    async with open_node(others, services={"park": park}) as node, node.topic("parking") as topic:
        print(node.listener.address(), flush=True)
        async for _ in stay(0.1):
            if topic.members:
                said = {"garage": name, "address": str(node.listener.address()), "free": len(free)}
                await topic.publish(json.dumps(said).encode())


async def cars(name: str, others: list[str]) -> None:
    """Half of the cars, each of which is to be in a garage that is there."""
    heard: dict[str, tuple[float, dict]] = {}
    me = dtp.Identity.generate()
    async with (
        open_node(others, identity=me) as node,
        await dtp.Graph.open("memory:", identity=me, name="town") as town,
        node.topic("parking", overflow="drop-oldest") as topic,
    ):
        await node.share(town, topic="town")
        print(node.listener.address(), flush=True)

        def alive() -> dict[str, dict]:
            return {each: said for each, (when, said) in heard.items() if time.time() - when < SILENCE}

        async def listen() -> None:
            async for message in topic:
                said = json.loads(message.data)
                heard[said["garage"]] = time.time(), said

        async def drive(number: int) -> None:
            mine = town.node(f"car/{name}{number}")
            while True:
                await asyncio.sleep(0.1)
                best = max(alive().values(), key=lambda each: each["free"], default={"free": 0})
                if not best["free"]:
                    continue
                try:
                    async with node.connect(best["address"], service="park") as connection:
                        stream = await connection.open_stream()
                        place = (await asyncio.wait_for(stream.readline(), SILENCE)).decode().strip()
                        if place != "full":
                            mine["at"] = f"{best['garage']}/{place}"
                            while best["garage"] in alive():
                                await asyncio.sleep(0.1)
                            connection.abort()  # nobody is there to be told
                except (dtp.DtpError, TimeoutError):
                    pass  # it is gone: another one

        tasks = [asyncio.create_task(each) for each in (listen(), *(drive(n) for n in range(CARS // 2)))]
        async for _ in stay(0.2):
            pass
        for task in tasks:
            task.cancel()


# ---- a fleet ----------------------------------------------------------------------------------------------------


def way(begin: tuple[int, int], end: tuple[int, int], closed: set[str]) -> list[tuple[int, int]]:
    """Return the shortest way from place to place that leaves out what is closed."""
    ways, seen = [[begin]], {begin}
    for path in ways:
        x, y = path[-1]
        if (x, y) == end:
            return path[1:]
        for place in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
            if (
                place not in seen
                and min(place) >= 0
                and max(place) < SIZE
                and "{},{}".format(*place) not in closed
            ):
                seen.add(place)
                ways.append([*path, place])
    return []


async def van(name: str, others: list[str]) -> None:
    me = dtp.Identity.generate()
    async with (
        open_node(others, identity=me) as node,
        await dtp.Graph.open("memory:", identity=me, name="town") as town,
    ):
        share = await node.share(town, topic="town")
        print(node.listener.address(), flush=True)
        await share.wait_current()
        mine, place = town.node(f"van/{name}"), (0, int(name))
        async for _ in stay(0.1):
            mine["place"], mine["seen"] = list(place), time.time()
            mine["drove {},{}".format(*place)] = True
            closed = {soul.removeprefix("closed/") for soul in town.souls("closed/")}
            vans = [town.node(soul) for soul in town.souls("van/")]
            living = [each for each in vans if each.get("seen", 0) > time.time() - SILENCE]
            todo = [each for soul in town.souls("job/") if "by" not in (each := town.node(soul))]

            def nearest(job, living=living, closed=closed) -> str:  # type: ignore[no-untyped-def]
                """All replicas choose alike; two that differ for a moment do a job twice, and one counts."""
                return min(
                    (len(way(tuple(each["place"]), tuple(job["place"]), closed)), each.soul)
                    for each in living
                )[1]

            jobs = [job for job in todo if nearest(job) == mine.soul]
            if not jobs:
                continue
            job = min(jobs, key=lambda each: len(way(place, tuple(each["place"]), closed)))
            if path := way(place, tuple(job["place"]), closed):
                place = path[0]
            else:
                job["by"] = name


# ---- the town ---------------------------------------------------------------------------------------------------


async def start(role: str, name: str, others: list[str]) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", __file__, role, name, *others), stdout=asyncio.subprocess.PIPE
    )
    return process, (await process.stdout.readline()).decode().strip()


async def kill(process: asyncio.subprocess.Process) -> None:
    process.kill()
    await process.wait()


async def main() -> None:
    addresses: list[str] = []
    running: dict[str, asyncio.subprocess.Process] = {}

    async def add(role: str, name: str) -> None:
        running[role + name], address = await start(role, name, addresses)
        addresses.append(address)

    for number in range(GARAGES):
        await add("garage", str(number))
    await add("garage", "uplink")
    await kill(running.pop("garageuplink"))
    addresses.pop()
    print("the uplink is pulled")
    for name in "AB":
        await add("cars", name)
    me = dtp.Identity.generate()
    async with (
        asyncio.timeout(240),
        dtp.Node(identity=me, listen=None, discover=(), bootstrap=addresses) as node,
        await dtp.Graph.open("memory:", identity=me, name="town") as town,
    ):
        await node.share(town, topic="town")

        async def parked(gone: str) -> None:
            """Wait until all cars are in places, no two in one, and none in a garage that is gone."""
            while True:
                at = [town.node(soul).get("at", gone) for soul in town.souls("car/")]
                if len(at) == len(set(at)) == CARS and not any(each.startswith(gone) for each in at):
                    return
                await asyncio.sleep(0.1)

        await parked("uplink")
        print(CARS, "cars are parked, each in a place of its own")
        full = max(range(GARAGES), key=lambda n: sum(  # the one with most cars
            town.node(soul)["at"].startswith(f"{n}/") for soul in town.souls("car/")))  # fmt: skip
        await kill(running.pop(f"garage{full}"))
        del addresses[full]
        print("a garage is closed")
        await parked(f"{full}/")
        print(CARS, "cars are parked elsewhere, each in a place of its own")

        for place in CLOSED:
            town.node(f"closed/{place}")["since"] = time.time()
        for number, place in enumerate(JOBS):
            town.node(f"job/{number}")["place"] = list(place)
        for number in range(VANS):
            await add("van", str(number))

        async def done(count: int) -> None:
            while sum("by" in town.node(soul) for soul in town.souls("job/")) < count:
                await asyncio.sleep(0.05)

        await done(1)
        await kill(running.pop("van0"))
        print("a job is done, and a van is killed")
        await done(len(JOBS))
        drove = {each for soul in town.souls("van/") for each in town.node(soul) if each.startswith("drove")}
        on_closed = drove & {f"drove {place}" for place in CLOSED}
        print(len(JOBS), "jobs are done,", f"on closed roads: {on_closed}" if on_closed else "on open roads")
    for process in running.values():
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    logging.getLogger("dtp").setLevel(logging.ERROR)  # of what is gone others are told
    roles = {"garage": garage, "cars": cars, "van": van}
    asyncio.run(roles[sys.argv[1]](sys.argv[2], sys.argv[3:]) if sys.argv[1:] else main())
