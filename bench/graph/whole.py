"""`python -m bench.graph.whole`: what a `dtp.Graph` does beside merging: signatures, SQLite, sync, live replication.

Wall-clock time where a disk or a peer is waited for, else processor time; medians of rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import dtp
from bench.graph.work import Work
from dtp.graph import envelope as envelopes

#: What is promised: row -> (number, at least?).
TARGETS: dict[str, tuple[float, bool]] = {
    "signed frames checked, frames/s": (20_000, True),
    "durable merge into SQLite, updates/s": (250_000, True),
    "1 % changed, both ways, KB": (30, False),
    "already in sync, bytes": (200, False),
    "put to visible at a replica, p50 ms": (2, False),
}


async def _frames(work: Work, size: int) -> list[bytes]:
    """The remote updates as one author's envelopes."""
    async with await dtp.Graph.open("memory:", identity=dtp.Identity.generate()) as graph:
        for at in range(0, len(work.remote), size):
            graph.put_many(work.remote[at : at + size])
            await graph.commit()
        return await graph.read(graph.identity.id.key, 1, len(work.remote))


async def checked(work: Work) -> float:
    """Signatures of frames of 1,000 updates, by one core."""
    batch = [envelopes.decode("", one) for one in await _frames(work, 1000)]
    start = time.process_time()
    assert all(one.is_genuine() for one in batch)
    return len(batch) / (time.process_time() - start)


async def durable(work: Work) -> float:
    """Signed frames of 1,000 updates, as they come from a peer, 64 at a time."""
    frames = await _frames(work, 1000)
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / "graph.db")
        async with await dtp.Graph.open(place, identity=dtp.Identity.generate()) as graph:
            start = time.perf_counter()
            for at in range(0, len(frames), 64):
                await graph.receive(frames[at : at + 64])
            return len(work.remote) / (time.perf_counter() - start)


async def _pair(
    work: Work, then: Callable[[dtp.Graph, dtp.Graph, dtp.Connection], Awaitable[float]]
) -> float:
    one, other = dtp.Identity.generate(), dtp.Identity.generate()
    async with (
        await dtp.Graph.open("memory:", identity=one) as ours,
        await dtp.Graph.open("memory:", identity=other) as theirs,
        await dtp.listen("tcp://127.0.0.1:0", theirs.serve, identity=other) as listener,
        dtp.connect(listener.address(), identity=one) as connection,
    ):
        ours.put_many((soul, "score", node["score"]) for soul, node in work.initial.items())
        await ours.sync(connection)
        return await then(ours, theirs, connection)


async def changed(work: Work) -> float:
    """One value in a hundred, half of them at either end, each end's in one frame."""

    async def then(ours: dtp.Graph, theirs: dtp.Graph, connection: dtp.Connection) -> float:
        some = len(work.initial) // 200
        for graph, rows in ((ours, work.remote[:some]), (theirs, work.remote[some : 2 * some])):
            graph.put_many((soul, "score", value) for soul, _, value in rows)
            await graph.commit()
        done = await ours.sync(connection)
        return (done.bytes_sent + done.bytes_received) / 1000

    return await _pair(work, then)


async def same(work: Work) -> float:
    """A sync of what is the same."""

    async def then(ours: dtp.Graph, theirs: dtp.Graph, connection: dtp.Connection) -> float:
        done = await ours.sync(connection)
        return done.bytes_sent + done.bytes_received

    return await _pair(work, then)


async def visible(work: Work) -> float:
    """From a put to its change at the other end, both in this process."""

    async def then(ours: dtp.Graph, theirs: dtp.Graph, connection: dtp.Connection) -> float:
        replicating = asyncio.create_task(ours.replicate(connection))
        watch, taken = theirs.watch("here"), []
        for number in range(200):
            start = time.perf_counter()
            ours.node("here")["k"] = number
            await anext(watch)
            taken.append(time.perf_counter() - start)
        replicating.cancel()
        return 1000 * statistics.median(taken[20:])

    return await _pair(work, then)


ROWS: tuple[Callable[[Work], Awaitable[float]], ...] = (checked, durable, changed, same, visible)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.graph.whole", description=__doc__)
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    work = Work(options.nodes, options.nodes)
    print("| | promised | measured |\n|---|---|---|")
    for (name, (goal, more)), measure in zip(TARGETS.items(), ROWS, strict=True):
        value = statistics.median(asyncio.run(_once(measure, work)) for _ in range(options.rounds))
        met = value >= goal if more else value <= goal
        print(
            f"| {name} | {'≥' if more else '≤'} {goal:,} | {value:,.1f}{'' if met else ' (missed)'} |",
            flush=True,
        )


async def _once(measure: Callable[[Work], Awaitable[float]], work: Work) -> float:
    return await measure(work)


if __name__ == "__main__":
    main()
