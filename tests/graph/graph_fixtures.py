"""What the tests of this folder share: identities that are the same each time, running, and graphs that meet."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any

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
