"""Two worlds without a server: what is found in one is worth something in the other, when the first is long gone.

Where somebody is goes by datagrams over QUIC: a lost one holds up none, and only the newest counts. What somebody
owns lies in a shared graph, below two names: who gave it says so, and who has it; nobody else can write either.
python examples/mesh_worlds.py
"""

import asyncio
import os
import sys

import dtp

GEMS = {0: (2, 1), 1: (4, 4), 2: (1, 5)}
HERE = ("quic://127.0.0.1:0",)


class Keeper:
    """Who keeps a world: sees players move, gives them what they stand at, and opens the gate for what they own."""

    def __init__(self, me: dtp.Identity, bags: dtp.Graph) -> None:
        self.me, self.bags = me, bags
        self.places: dict[dtp.PeerId, tuple[int, int, int]] = {}

    async def play(self, connection: dtp.Connection) -> None:
        watching = asyncio.create_task(self.watch(connection))
        try:
            async for stream in connection:
                verb, *words = (await stream.readline()).decode().split()
                acts = {"pick": self.pick, "gate": self.gate}
                stream.write(acts[verb](connection.peer, *words).encode())
                stream.close()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def watch(self, connection: dtp.Connection) -> None:
        """Take in where a player is, and say what was seen."""
        while True:
            place = tuple(map(int, (await connection.recv_datagram()).split()))
            self.places[connection.peer] = max(place, self.places.get(connection.peer, place))
            connection.send_datagram(b"%d %d %d" % self.places[connection.peer])

    def pick(self, player: dtp.PeerId, gem: str) -> str:
        given = self.bags.node(f"~{self.me.id}/given/{gem}")
        _, x, y = self.places.get(player, (0, 0, 0))
        if (x, y) != GEMS[int(gem)] or "to" in given:
            return "no"
        given["to"] = str(player)
        return given.soul

    def gate(self, player: dtp.PeerId, keeper: str) -> str:
        """Open for who has a gem of another world's keeper that she says she has, and that he gave her."""
        has = [self.bags.node(f"~{player}/bag/{gem}").get("given") for gem in GEMS]
        gave = [self.bags.node(f"~{keeper}/given/{gem}").get("to") for gem in GEMS]
        good = all(soul is not None and soul.startswith(f"~{keeper}/given/") for soul in has)
        return "open" if good and set(gave) == {str(player)} else "shut"


async def world(others: list[str]) -> None:
    me = dtp.Identity.generate()
    async with await dtp.Graph.open("memory:", identity=me, name="bags") as bags:
        services = {"play": Keeper(me, bags).play}
        async with dtp.Node(
            identity=me, listen=HERE, discover=(), bootstrap=others, services=services
        ) as node:
            await node.share(bags, topic="bags")
            print(node.listener.address(), flush=True)
            parent = os.getppid()
            while os.getppid() == parent:  # until the program that began it ends
                await asyncio.sleep(0.2)


async def start(others: list[str]) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", __file__, "world", *others), stdout=asyncio.subprocess.PIPE
    )
    return process, (await process.stdout.readline()).decode().strip()


async def ask(connection: dtp.Connection, *words: object) -> str:
    stream = await connection.open_stream()
    stream.write(" ".join(map(str, words)).encode() + b"\n")
    stream.write_eof()
    return (await stream.read()).decode()


async def walk(connection: dtp.Connection, number: int, place: tuple[int, int]) -> int:
    """Be at a place until the keeper has seen it; return the number of the next datagram."""
    while True:
        number += 1
        connection.send_datagram(b"%d %d %d" % (number, *place))
        try:
            seen = await asyncio.wait_for(connection.recv_datagram(), 1)
        except TimeoutError:
            continue  # lost: say it again
        if tuple(map(int, seen.split()[1:])) == place:
            return number


async def main() -> None:
    forest, forest_address = await start([])
    castle, castle_address = await start([forest_address])
    keeper = dtp.Address.parse(forest_address).peer
    ada = dtp.Identity.generate()
    async with (
        asyncio.timeout(240),
        dtp.Node(identity=ada, listen=HERE, discover=(), bootstrap=[forest_address, castle_address]) as node,
        await dtp.Graph.open("memory:", identity=ada, name="bags") as bags,
    ):
        share = await node.share(bags, topic="bags")
        async with node.connect(castle_address, service="play") as connection:
            print("the castle's gate is", await ask(connection, "gate", keeper))
        async with node.connect(forest_address, service="play") as connection:
            number = 0
            for gem, place in GEMS.items():
                assert await ask(connection, "pick", gem) == "no"  # it lies elsewhere
                number = await walk(connection, number, place)
                bags.node(f"~{ada.id}/bag/{gem}")["given"] = await ask(connection, "pick", gem)
        print(f"Ada is seen moving in the forest, and has {len(GEMS)} gems")
        while any(bags.node(f"~{keeper}/given/{gem}").get("to") != str(ada.id) for gem in GEMS):
            await share.wait_current()
        forest.kill()
        await forest.wait()
        print("the forest is gone")
        try:
            bags.node(f"~{keeper}/given/3")["to"] = str(ada.id)
        except dtp.DtpError as error:
            print("Ada can't give herself more:", error.code)
        async with node.connect(castle_address, service="play") as connection:
            while (gate := await ask(connection, "gate", keeper)) != "open":
                await asyncio.sleep(0.1)
        print("the castle's gate is", gate)
    castle.terminate()
    await castle.wait()


if __name__ == "__main__":
    asyncio.run(world(sys.argv[2:]) if sys.argv[1:] else main())
