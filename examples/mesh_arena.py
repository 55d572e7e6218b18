"""A shared world without a server: bots in three processes pick up what lies about, and agree who has what.

Where somebody is goes through a topic and is forgotten. What lies in the world is a shared graph. What a bot owns
lies below its own name, where only it writes: it travels to any world. python examples/mesh_arena.py
"""

import asyncio
import os
import random
import sys

import dtp

SIZE, GEMS = 6, 12


async def bot(name: str, others: list[str]) -> None:
    me = dtp.Identity.generate()
    async with (
        dtp.Node(identity=me, listen=["tcp://127.0.0.1:0"], discover=(), bootstrap=others) as node,
        await dtp.Graph.open("memory:", identity=me, name="arena") as world,
        node.topic("where", overflow="drop-oldest") as where,
    ):
        await node.share(world, topic="arena")
        print(node.listener.address(), flush=True)
        bag = world.node(f"~{me.id}/bag/1")
        bag["owner"] = name
        x, y = random.randrange(SIZE), random.randrange(SIZE)
        parent = os.getppid()
        while os.getppid() == parent:  # until the program that began it ends
            x, y = (x + random.choice((0, 1))) % SIZE, (y + random.choice((0, 1))) % SIZE
            if len(node.links):
                await where.publish(f"{name} {x} {y}".encode())
            for soul in world.souls("gem/"):
                gem = world.node(soul)
                if (gem["x"], gem["y"]) == (x, y) and "taken by" not in gem:
                    gem["taken by"] = str(me.id)  # two at once: all replicas agree on one
                if gem.get("taken by") == str(me.id):
                    bag[soul] = True
                elif soul in bag:
                    del bag[soul]  # it was somebody else's in the end
            await asyncio.sleep(0.05)


async def start(name: str, others: list[str]) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", __file__, name, *others, stdout=asyncio.subprocess.PIPE
    )
    return process, (await process.stdout.readline()).decode().strip()


async def main() -> None:
    addresses: list[str] = []
    bots = []
    for name in ("Ada", "Bo", "Cy"):
        process, address = await start(name, addresses)
        bots.append(process)
        addresses.append(address)
    me = dtp.Identity.generate()
    async with (
        dtp.Node(identity=me, listen=None, discover=(), bootstrap=addresses) as node,
        await dtp.Graph.open("memory:", identity=me, name="arena") as world,
        node.topic("where", overflow="drop-oldest") as where,
    ):
        await node.share(world, topic="arena")
        for number in range(GEMS):
            gem = world.node(f"gem/{number}")
            gem["x"], gem["y"] = random.randrange(SIZE), random.randrange(SIZE)
        seen = set()
        async with asyncio.timeout(240):
            while len(seen) < len(bots):
                seen.add((await anext(where)).data.split()[0].decode())
        print("seen moving:", *sorted(seen))
        async with asyncio.timeout(240):
            while True:
                bags = [world.node(row["b"].soul) for row in world.query("MATCH (b:bag) RETURN b")]
                if sum(len(bag) - 1 for bag in bags if "owner" in bag) == GEMS:
                    break
                await asyncio.sleep(0.1)
        print(f"{GEMS} gems are in {len(bags)} bags, each in one")
    for process in bots:
        process.terminate()
    await asyncio.gather(*(process.wait() for process in bots))


if __name__ == "__main__":
    asyncio.run(bot(sys.argv[1], sys.argv[2:]) if sys.argv[1:] else main())
