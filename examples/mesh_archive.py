"""An archive that can't be taken down: papers by hash, kept by supporters, found in the DHT without their origin.

The catalogue is a shared graph that whoever wants has; the papers are blobs that supporters fetch and say in the DHT
to have. A reader who comes when the origin is gone gets the catalogue from anybody, and the paper from whoever the
DHT names: its hash says that it is whole. python examples/mesh_archive.py
"""

import asyncio
import os
import sys
from contextlib import AsyncExitStack

import dtp

PAPERS = {f"paper/{number}": f"What was found in {1990 + number}. ".encode() * 4000 for number in range(3)}


async def opened(stack: AsyncExitStack, begin_with: list[str]) -> tuple[dtp.Node, dtp.Graph, object]:
    """A node in the DHT that shares the catalogue."""
    me = dtp.Identity.generate()
    node = dtp.Node(identity=me, listen=["tcp://127.0.0.1:0"], discover=["dht"], bootstrap=begin_with)
    await stack.enter_async_context(node)
    graph = await stack.enter_async_context(await dtp.Graph.open("memory:", identity=me, name="archive"))
    return node, graph, await node.share(graph, topic="archive")


async def run(role: str, begin_with: list[str]) -> None:
    """One process: the origin, which has the papers; the catalogue, which has none of them; or a supporter."""
    async with AsyncExitStack() as stack:
        node, graph, share = await opened(stack, begin_with)
        print(node.listener.address(), node.dht.endpoint, flush=True)
        if role == "origin":
            for name, text in PAPERS.items():
                graph.node(name)["text"] = await graph.blobs.add(text)
            await graph.commit()
        parent = os.getppid()
        kept = set()
        while os.getppid() == parent:  # until the program that began it ends
            for name in PAPERS if role == "supporter" else ():
                ref = graph.node(name).get("text")
                if ref is not None and name not in kept:
                    try:
                        await share.fetch(ref)
                        kept.add(name)
                    except dtp.DtpError:  # nobody gives it now: the next look may find it
                        continue
            if role == "supporter" and len(kept) == len(PAPERS):
                print("keeps all", flush=True)
                role = "keeper"
            await asyncio.sleep(0.2)


async def start(role: str, begin_with: list[str]) -> tuple[asyncio.subprocess.Process, list[str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", __file__, role, *begin_with, stdout=asyncio.subprocess.PIPE
    )
    return process, (await process.stdout.readline()).decode().split()


async def main() -> None:
    catalogue, known = await start("catalogue", [])
    origin, _ = await start("origin", known)
    supporters = [(await start("supporter", known))[0] for _ in range(3)]
    async with asyncio.timeout(240):
        for each in supporters:
            await each.stdout.readline()
    print("3 supporters keep the papers")
    origin.kill()
    await origin.wait()
    supporters[0].kill()
    await supporters[0].wait()
    print("the origin is gone, and a supporter with it")
    async with AsyncExitStack() as stack, asyncio.timeout(240):
        node, graph, share = await opened(stack, known)
        await share.wait_current()
        ref = graph.node("paper/1")["text"]
        while not await node.dht.providers(ref.id):
            await asyncio.sleep(0.2)
        print("a reader who came later finds in the DHT who has the paper")
        text = await (await share.fetch(ref)).read()
        print("it is whole" if text == PAPERS["paper/1"] else "it is not what it was")
    for process in (catalogue, *supporters[1:]):
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2:]) if sys.argv[1:] else main())
