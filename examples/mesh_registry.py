"""Discovery among servers without a server for it: a service that moves, and a leader that dies.

Servers write into a shared graph what they run. The living one with the lowest rank leads: it has services run by
somebody who is alive. A client finds a service in the graph wherever it is by now. python examples/mesh_registry.py
"""

import asyncio
import os
import sys
import time

import dtp

SERVICES = ("web", "mail")
SILENCE = 2.0  # seconds after which a server is taken for dead


async def server(rank: int, others: list[str]) -> None:
    async def answer(connection: dtp.Connection) -> None:
        async for stream in connection:
            stream.write(f"{connection.service} at server {rank}".encode())
            stream.close()

    me = dtp.Identity.generate()
    services = dict.fromkeys(SERVICES, answer)
    async with (
        dtp.Node(
            identity=me, listen=["tcp://127.0.0.1:0"], discover=(), bootstrap=others, services=services
        ) as node,
        await dtp.Graph.open("memory:", identity=me, name="cluster") as graph,
    ):
        await node.share(graph, topic="cluster")
        print(node.listener.address(), flush=True)
        parent = os.getppid()
        while os.getppid() == parent:  # until the program that began it ends
            mine = graph.node(f"server/{rank}")
            mine["address"], mine["seen"] = str(node.listener.address()), time.time()
            alive = graph.query(
                "MATCH (s:server) WHERE s.seen > $since RETURN s ORDER BY s.seen", since=time.time() - SILENCE
            )
            ranks = sorted(int(row["s"].soul.partition("/")[2]) for row in alive)
            if ranks[0] == rank:
                lead(graph, ranks)
            await asyncio.sleep(0.2)


def lead(graph: dtp.Graph, ranks: list[int]) -> None:
    """Have each service run by somebody alive. Two leaders for a moment decide alike, or the later one counts."""
    graph.node("leader")["rank"], graph.node("leader")["alive"] = ranks[0], len(ranks)
    for number, name in enumerate(SERVICES):
        if graph.node(f"service/{name}").get("rank") not in ranks:
            chosen = ranks[number % len(ranks)]
            graph.node(f"service/{name}")["rank"] = chosen


async def start(rank: int, others: list[str]) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", __file__, str(rank), *others, stdout=asyncio.subprocess.PIPE
    )
    return process, (await process.stdout.readline()).decode().strip()


async def main() -> None:
    addresses: list[str] = []
    servers = []
    for rank in range(3):
        process, address = await start(rank, addresses)
        servers.append(process)
        addresses.append(address)
    me = dtp.Identity.generate()
    async with (
        dtp.Node(identity=me, listen=None, discover=(), bootstrap=addresses) as node,
        await dtp.Graph.open("memory:", identity=me, name="cluster") as graph,
    ):
        await node.share(graph, topic="cluster")

        async def ask(name: str, *, leader: int) -> None:
            """Ask the service where the registry says that it is, once there is such a leader."""
            place = graph.node(f"service/{name}")
            async with asyncio.timeout(240):
                while (
                    graph.node("leader").get("rank") != leader
                    or place.get("rank", -1) < leader
                    or (address := graph.node(f"server/{place['rank']}").get("address")) is None
                ):
                    await asyncio.sleep(0.05)
                async with node.connect(address, service=name) as connection:
                    stream = await connection.open_stream()
                    stream.write_eof()
                    print(f"leader {leader}: {(await stream.read()).decode()}")

        await ask("web", leader=0)
        async with asyncio.timeout(240):
            while graph.node("leader").get("alive") != len(servers):
                await asyncio.sleep(0.05)
        graph.node("service/web")["rank"] = 2  # an operator moves it
        await ask("web", leader=0)
        servers[0].kill()
        print("server 0, the leader, is killed")
        await ask("web", leader=1)
        await ask("mail", leader=1)
    for process in servers[1:]:
        process.terminate()
    await asyncio.gather(*(process.wait() for process in servers))


if __name__ == "__main__":
    asyncio.run(server(int(sys.argv[1]), sys.argv[2:]) if sys.argv[1:] else main())
