"""What the tests of this folder share: identities that are the same each time, running, and graphs that meet."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import dtp
from dtp.graph import Graph
from dtp.graph.frames.vector import MARK, Head, Vector
from dtp.identity import Identity


def identity(name: str) -> Identity:
    """Somebody."""
    return Identity(
        hashlib.sha256(name.encode()).digest(), hashlib.sha256(name.encode() + b" static").digest()
    )


ALICE, BOB, CAROL = identity("alice"), identity("bob"), identity("carol")


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Return what `main` does, within a minute."""

    async def limited() -> Any:
        async with asyncio.timeout(60):
            return await main

    return asyncio.run(limited())


def run_with(main: Callable[..., Awaitable[None]], count: int = 2, *, history: bool = False) -> None:
    """Run `main` with graphs in memory of Alice, Bob and Carol, or of as many of them."""

    async def opened() -> None:
        async with AsyncExitStack() as stack:
            opening = [
                Graph.open("memory:", identity=one, history=history) for one in (ALICE, BOB, CAROL)[:count]
            ]
            await main(*[await stack.enter_async_context(await each) for each in opening])

    run(opened())


async def stored_frames(graph: Graph) -> list[bytes]:
    """Return all envelopes that the graph has stored."""
    return [
        one
        for author, last in graph.frames.vector().items()
        for one in await graph.frames.read(author, 1, last)
    ]


async def everything(graph: Graph) -> list[bytes]:
    """Return all envelopes of the graph, once what was made is signed and stored."""
    await graph.commit()
    return await stored_frames(graph)


async def meet(*graphs: Graph) -> None:
    """All get what each has, and have the same then."""
    made = [await everything(graph) for graph in graphs]
    for graph in graphs:
        for some in made:
            await graph.receive(some)
    assert len({graph.replica.save() for graph in graphs}) == 1


async def tell_each_other(*graphs: Graph) -> None:
    """Each gets what the others' own authors signed."""
    for one in graphs:
        for other in graphs:
            if one is not other:
                await told(one, one.identity, other)


async def told(graph: Graph, who: Identity, other: Graph) -> None:
    """The other graph takes what somebody signed since."""
    key = who.id.key
    await graph.commit()
    await other.receive(
        await graph.frames.read(key, other.frames.vector().get(key, 0) + 1, graph.frames.vector().get(key, 0))
    )


def head(author: bytes, sequence: int, history: int = 0) -> Head:
    """The end of an author's chain in one of the histories that it may have signed."""
    told = author + sequence.to_bytes(8, "big") + bytes([history])
    return Head(sequence, hashlib.sha256(told).digest()[:MARK])


def vector(sequences: Mapping[bytes, int], *, forked: Collection[bytes] = ()) -> Vector:
    """What a replica has of whom; of the `forked` authors another history than others have."""
    return {author: head(author, last, author in forked) for author, last in sequences.items()}


@asynccontextmanager
async def connected(name: str) -> AsyncIterator[tuple[dtp.Connection, dtp.Connection]]:
    """Two ends of a connection in memory."""
    async with (
        await dtp.listen(f"memory://{name}", identity=BOB) as listener,
        dtp.connect(listener.address(), identity=ALICE) as client,
    ):
        yield client, await listener.accept()


async def churn(graph: Graph, rounds: int, nodes: int = 100) -> None:
    """Write the same nodes again and again, each time in a commit."""
    for number in range(rounds):
        graph.put_many((f"n/{at}", "k", f"{number} {at}") for at in range(nodes))
        await graph.commit()


@asynccontextmanager
async def served(graph: Graph, name: str) -> AsyncIterator[Any]:
    """A connection to a graph that is served."""
    async with connected(name) as (client, server):
        serving = asyncio.create_task(graph.serve(server))
        yield client
        await client.close()
        await serving


async def three(name: str = "") -> tuple[Graph, Graph, Graph]:
    """Graphs in memory of Alice, Bob and Carol."""
    return (
        await Graph.open("memory:", identity=ALICE, name=name),
        await Graph.open("memory:", identity=BOB, name=name),
        await Graph.open("memory:", identity=CAROL, name=name),
    )


async def close(*graphs: Graph) -> None:
    """Close all of them."""
    for graph in graphs:
        await graph.close()
