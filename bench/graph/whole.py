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
from dtp.graph.frames import envelope as envelopes
from dtp.graph.stores import loading

#: What is promised: row -> (number, at least?); no number: only told.
TARGETS: dict[str, tuple[float | None, bool]] = {
    "signed frames of 1,000 updates checked (hash, signature), frames/s": (20_000, True),
    "signed frames of 1,000 updates taken (read, checked, merged), frames/s": (None, True),
    "signed frames of one update taken, frames/s": (None, True),
    "durable merge into SQLite, updates/s": (250_000, True),
    "1 % changed, both ways, KB": (30, False),
    "already in sync, bytes": (200, False),
    "put to visible at a replica, p50 ms": (2, False),
}


#: Frames that come together.
_AT_ONCE = 64


async def _frames(work: Work, size: int, most: int | None = None) -> list[bytes]:
    """The remote updates, or so many of them, as one author's envelopes."""
    async with await dtp.Graph.open("memory:", identity=dtp.Identity.generate()) as graph:
        for at in range(0, len(work.remote[:most]), size):
            graph.put_many(work.remote[at : at + size])
            await graph.commit()
        return await graph.frames.read(graph.identity.id.key, 1, len(work.remote))


async def checked(work: Work) -> float:
    """Each frame's hash and signature, 64 at a time, by one core."""
    frames, spent = await _frames(work, 1000), 0.0
    for at in range(0, len(frames), _AT_ONCE):
        batch = [envelopes.decode("", one) for one in frames[at : at + _AT_ONCE]]
        start = time.process_time()
        assert await loading.first_forged(batch) is None
        spent += time.process_time() - start
    return len(frames) / spent


async def _taken(frames: list[bytes]) -> float:
    async with await dtp.Graph.open("memory:", identity=dtp.Identity.generate()) as graph:
        start = time.process_time()
        for at in range(0, len(frames), _AT_ONCE):
            await graph.receive(frames[at : at + _AT_ONCE])
        return len(frames) / (time.process_time() - start)


async def taken(work: Work) -> float:
    """All that a replica in memory does with them, by one core."""
    return await _taken(await _frames(work, 1000))


async def taken_alone(work: Work) -> float:
    """The same for the smallest frames."""
    return await _taken(await _frames(work, 1, most=5000))


async def durable(work: Work) -> float:
    """Signed frames of 1,000 updates, as they come from a peer, 64 at a time."""
    frames = await _frames(work, 1000)
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / "graph.db")
        async with await dtp.Graph.open(place, identity=dtp.Identity.generate()) as graph:
            start = time.perf_counter()
            for at in range(0, len(frames), _AT_ONCE):
                await graph.receive(frames[at : at + _AT_ONCE])
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


ROWS: tuple[Callable[[Work], Awaitable[float]], ...] = (
    checked,
    taken,
    taken_alone,
    durable,
    changed,
    same,
    visible,
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.graph.whole", description=__doc__)
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    work = Work(options.nodes, options.nodes)
    print("| | promised | measured |\n|---|---|---|")
    for (name, (goal, more)), measure in zip(TARGETS.items(), ROWS, strict=True):
        value = statistics.median(asyncio.run(_once(measure, work)) for _ in range(options.rounds))
        promised, verdict = "", ""
        if goal is not None:
            promised = f"{'≥' if more else '≤'} {goal:,}"
            verdict = "" if (value >= goal if more else value <= goal) else " (missed)"
        print(f"| {name} | {promised} | {value:,.1f}{verdict} |", flush=True)


async def _once(measure: Callable[[Work], Awaitable[float]], work: Work) -> float:
    return await measure(work)


if __name__ == "__main__":
    main()
