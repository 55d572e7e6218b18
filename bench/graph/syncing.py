"""`python -m bench.graph.syncing`: bytes that a sync of two graphs takes, over a connection, both ways together.

Bytes don't depend on how busy the machine is; one round is enough.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

import dtp
from dtp.graph.frames.vector import MARK, Head
from dtp.graph.sync.protocol import SyncSide

KEY = "score"


class Measured(NamedTuple):
    """Bytes beside what is promised, and what else there is to say."""

    measured: int
    promised: int | None
    note: str = ""


def identity(name: str) -> dtp.Identity:
    """Somebody, the same each time."""
    seeds = (hashlib.sha256((name + end).encode()).digest() for end in ("", " static"))
    return dtp.Identity(*seeds)


@asynccontextmanager
async def pair(nodes: int) -> AsyncIterator[tuple[dtp.Graph, dtp.Graph, dtp.Connection]]:
    """Two graphs of so many keys that are in sync."""
    one, other = identity("one"), identity("other")
    rng = random.Random(1)
    async with (
        await dtp.Graph.open("memory:", identity=one) as ours,
        await dtp.Graph.open("memory:", identity=other) as theirs,
        await dtp.listen("tcp://127.0.0.1:0", theirs.serve, identity=other) as listener,
        dtp.connect(listener.address(), identity=one) as connection,
    ):
        ours.put_many((f"node/{at}", KEY, rng.random()) for at in range(nodes))
        await ours.sync(connection)
        yield ours, theirs, connection


async def change(graph: dtp.Graph, nodes: list[int], times: int, commits: int = 1) -> None:
    """Overwrite these keys so often, each time in so many commits."""
    rng = random.Random(len(nodes))
    for _ in range(times):
        rng.shuffle(nodes)
        for start in range(commits):
            graph.put_many((f"node/{at}", KEY, rng.random()) for at in nodes[start::commits])
            await graph.commit()


async def both_ways(nodes: int, times: int, commits: int = 1) -> int:
    """One key in a hundred, half of them at either end."""
    async with pair(nodes) as (ours, theirs, connection):
        some = random.Random(2).sample(range(nodes), nodes // 100)
        await change(ours, some[::2], times, commits)
        await change(theirs, some[1::2], times, commits)
        done = await ours.sync(connection)
        assert ours.replica.save() == theirs.replica.save()
        return done.bytes_sent + done.bytes_received


async def percent(nodes: int) -> Measured:
    return Measured(await both_ways(nodes, 1), 30_000)


async def churned(nodes: int) -> Measured:
    return Measured(await both_ways(nodes, 50), 30_000, "each of them overwritten 50 times since")


async def small_commits(nodes: int) -> Measured:
    return Measured(await both_ways(nodes, 1, nodes // 200), 30_000, "each in a frame of its own")


async def many_authors(nodes: int) -> Measured:
    """Changes of 50 authors that came to one end each, after 50 times as many before."""
    async with pair(nodes) as (ours, theirs, connection):
        authors = [await dtp.Graph.open("memory:", identity=identity(f"author {n}")) for n in range(50)]
        some = random.Random(2).sample(range(nodes), nodes // 100)
        for turn in range(51):
            for number, author in enumerate(authors):
                await change(author, some[number::50], 1)
                key, last = author.identity.id.key, turn + 1
                await (ours if number % 2 else theirs).receive(await author.frames.read(key, last, last))
            if turn == 49:
                await ours.sync(connection)
        done = await ours.sync(connection)
        assert ours.replica.save() == theirs.replica.save()
        for author in authors:
            await author.close()
        return Measured(done.bytes_sent + done.bytes_received, 30_000, "by 50 authors, after 50 such rounds")


async def everything(nodes: int) -> Measured:
    """Every key overwritten 50 times while the peer was away."""
    async with pair(nodes) as (ours, theirs, connection):
        await change(ours, list(range(nodes)), 50, max(1, nodes // 1000))
        start = time.process_time()
        done = await ours.sync(connection)
        took = time.process_time() - start
        assert ours.replica.save() == theirs.replica.save()
        return Measured(
            done.bytes_sent + done.bytes_received,
            None,
            f"{done.bytes_sent / nodes:.1f} bytes a key, {took:.1f} s of processor time",
        )


async def relayed(nodes: int) -> Measured:
    """A newcomer at a replica that saw all keys overwritten 50 times, frame by frame, by somebody who is away."""
    away, newcomer = identity("away"), identity("newcomer")
    async with (
        pair(nodes) as (_, theirs, _),
        await dtp.Graph.open("memory:", identity=away) as author,
        await dtp.Graph.open("memory:", identity=newcomer) as late,
        await dtp.listen("tcp://127.0.0.1:0", theirs.serve, identity=theirs.identity) as listener,
        dtp.connect(listener.address(), identity=away) as meeting,
        dtp.connect(listener.address(), identity=newcomer) as coming,
    ):
        await change(author, list(range(nodes)), 50, max(1, nodes // 1000))
        frames = author.frames.vector()[away.id.key]
        for start in range(1, frames + 1, 100):
            await theirs.receive(await author.frames.read(away.id.key, start, min(frames, start + 99)))
        await author.sync(meeting)
        done = await late.sync(coming)
        assert late.replica.save() == theirs.replica.save()
        return Measured(done.bytes_received, None, f"{done.bytes_received / nodes:.1f} bytes a key")


async def in_sync(nodes: int) -> Measured:
    async with pair(nodes) as (ours, _, connection):
        done = await ours.sync(connection)
        return Measured(done.bytes_sent + done.bytes_received, 200)


async def strangers(nodes: int) -> Measured:
    """By value: as many authors as keys, of whom 1,000 in 100,000 have another frame at one end."""
    ours = {
        hashlib.sha256(number.to_bytes(8, "big")).digest(): Head(5, bytes(MARK)) for number in range(nodes)
    }
    theirs = dict(ours)
    for number, author in enumerate(sorted(ours)[: nodes // 100]):
        (ours if number % 2 else theirs)[author] = Head(6, b"x" * MARK)
    sides, have = (SyncSide(""), SyncSide("")), (ours, theirs)
    ways = [[sides[0].start(ours)], [sides[1].start(theirs)]]
    size = count = 0
    start = time.process_time()
    while ways[0] or ways[1]:
        for at in (0, 1):
            arriving, ways[1 - at] = ways[1 - at], []
            for message in arriving:
                size, count = size + len(message) + 4, count + 1
                ways[at] += sides[at].receive(message, partial(have.__getitem__, at)).replies
    assert sum(len(side.to_send(has)) for side, has in zip(sides, have, strict=True)) == nodes // 100
    return Measured(
        size, 60_000, f"{count} messages, {time.process_time() - start:.1f} s of processor time of both"
    )


ROWS: dict[str, Callable[[int], Awaitable[Measured]]] = {
    "1 % changed, both ways": percent,
    "1 % changed, after churn": churned,
    "1 % changed, in small commits": small_commits,
    "1 % changed, by many": many_authors,
    "already in sync": in_sync,
    "strangers, 1 % of the authors differ": strangers,
    "100 % changed, after churn": everything,
    "newcomer at a relay, after churn": relayed,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.graph.syncing", description=__doc__)
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--only", action="append", choices=ROWS, help="repeatable")
    options = parser.parse_args()
    print("| bytes | promised | measured | |\n|---|---|---|---|")
    for name in options.only or ROWS:
        found = asyncio.run(_once(ROWS[name], options.nodes))
        promised = "" if found.promised is None else f"≤ {found.promised:,}"
        missed = found.promised is not None and found.measured > found.promised
        print(
            f"| {name} | {promised} | {found.measured:,}{' (missed)' if missed else ''} | {found.note} |",
            flush=True,
        )


async def _once(measure: Callable[[int], Awaitable[Measured]], nodes: int) -> Measured:
    return await measure(nodes)


if __name__ == "__main__":
    main()
