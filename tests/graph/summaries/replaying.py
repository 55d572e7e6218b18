"""What the stored frames of a graph give."""

from __future__ import annotations

from dtp.crdt.sums.alone import Alone
from dtp.crdt.sums.summing import Summing
from dtp.graph import Graph
from dtp.graph.frames.envelope import Envelope, Summary
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


def alone_of(*frames: Envelope | Summary) -> Alone:
    """What frames of one author give by themselves."""
    found = Alone(frames[0].author)
    for one in frames:
        found.add_frame(one.body)
    return found


def sum_up(alone: Alone, *frames: Envelope | Summary) -> bytes:
    """What a sum of these frames, the first ones of their author, has to keep beside all of which is `alone`."""
    summing = Summing(alone, 0)
    assert all(summing.add_frame(one.body) for one in frames)
    return summing.finish_frame()


async def size(graph: Graph) -> int:
    return sum(
        [await graph.frames.stored_bytes(author, 1, last) for author, last in graph.frames.vector().items()]
    )
