"""What the stored frames of a graph give."""

from __future__ import annotations

from dtp.graph import Graph
from dtp.graph.stores import loading


def replayed(graph: Graph) -> bytes:
    """The state that the stored frames alone give, signatures and chains checked."""
    fresh = graph.replica.empty_copy()
    loading.merge_all_stored(graph.frames.store, fresh)
    return fresh.save()


async def check(graph: Graph) -> None:
    """All that is here can be had from the store."""
    await graph.commit()
    await graph.verify()
    assert replayed(graph) == graph.replica.save()


async def size(graph: Graph) -> int:
    return sum(
        [await graph.frames.stored_bytes(author, 1, last) for author, last in graph.frames.vector().items()]
    )
