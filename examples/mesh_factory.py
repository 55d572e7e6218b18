"""A factory floor without a cloud: a network of its own, whose hub dies while the line goes on.

Only who has the key sees the network. Machines pass workpieces on; the controller with the lowest rank releases new
ones. python examples/mesh_factory.py
"""

import asyncio
import logging
import os
import secrets
import sys
import time

import dtp

STEPS = ("cut", "drill", "paint")
SILENCE = 1.0  # seconds after which a controller is taken for dead


async def member(key: str, others: list[str], work) -> None:  # type: ignore[no-untyped-def]
    me = dtp.Identity.generate()
    async with (
        dtp.Node(
            identity=me, listen=["tcp://127.0.0.1:0"], discover=(), bootstrap=others, private=key
        ) as node,
        await dtp.Graph.open("memory:", identity=me, name="line") as graph,
    ):
        await node.share(graph, topic="line", key=key)
        print(node.listener.address(), flush=True)
        parent = os.getppid()
        while os.getppid() == parent:  # until the program that began it ends
            await work(node, graph)
            await asyncio.sleep(0.1)


async def machine(number: int, graph: dtp.Graph) -> None:
    """Take each piece that the machine before has finished."""
    for soul in graph.souls("piece/"):
        piece = graph.node(soul)
        if piece.get("done") == number:
            piece[STEPS[number]] = True
            piece["done"] = number + 1


async def controller(rank: int, graph: dtp.Graph) -> None:
    """Release a piece, unless a controller of lower rank is alive."""
    graph.node("alive")[str(rank)] = time.time()
    alive = [int(each) for each, when in graph.node("alive").items() if when > time.time() - SILENCE]
    if min(alive) == rank:  # two for a moment release the same piece, which is one
        piece = graph.node(f"piece/{len(list(graph.souls('piece/'))):04}")
        piece["done"], piece["released by"] = 0, rank


async def start(key: str, role: str, others: list[str]) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", __file__, role, key, *others, stdout=asyncio.subprocess.PIPE
    )
    return process, (await process.stdout.readline()).decode().strip()


async def main() -> None:
    key = secrets.token_hex(32)
    addresses: list[str] = []
    processes = {}
    for role in ("machine0", "machine1", "machine2", "controller0", "controller1"):
        processes[role], address = await start(key, role, addresses)
        addresses.append(address)
    me = dtp.Identity.generate()
    logging.getLogger("dtp").setLevel(logging.ERROR)  # a stranger is told of each node that turns it away
    async with dtp.Node(identity=me, listen=None, discover=(), bootstrap=addresses) as stranger:
        await asyncio.sleep(0.5)
        print("a stranger without the key sees", len(stranger.links), "nodes")
    async with (
        dtp.Node(identity=me, listen=None, discover=(), bootstrap=addresses, private=key) as node,
        await dtp.Graph.open("memory:", identity=me, name="line") as graph,
    ):
        await node.share(graph, topic="line", key=key)

        async def finished(rank: int) -> None:
            """Wait for three pieces that this controller has released."""
            pieces = "MATCH (p:piece) WHERE p.done = 3 AND p.`released by` = $rank RETURN p"
            async with asyncio.timeout(240):
                while len(graph.query(pieces, rank=rank)) < 3:
                    await asyncio.sleep(0.1)
            print(f"pieces released by controller {rank} are cut, drilled and painted")

        await finished(0)
        processes["controller0"].kill()
        print("controller 0 is killed")
        await finished(1)
    for role, process in processes.items():
        if role != "controller0":
            process.terminate()
    await asyncio.gather(*(process.wait() for process in processes.values()))


if __name__ == "__main__":
    if not sys.argv[1:]:
        asyncio.run(main())
    else:
        role, number = sys.argv[1][:-1], int(sys.argv[1][-1])
        act = machine if role == "machine" else controller
        asyncio.run(member(sys.argv[2], sys.argv[3:], lambda node, graph: act(number, graph)))
