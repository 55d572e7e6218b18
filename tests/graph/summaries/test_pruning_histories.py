"""Random histories in which replicas prune, and one that is killed at every write of that."""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB, CAROL, identity, told
from replaying import check, size

from dtp.graph import Graph
from dtp.graph.stores.sqlite_store import SqliteStore
from dtp.identity import Identity

# ---- random histories --------------------------------------------------------------------------------------------


SOULS = ("n/0", "n/1", "n/2")


def act(graph: Graph, rng: random.Random) -> None:
    soul, key = rng.choice(SOULS), rng.choice("ab")
    match rng.randrange(9):
        case 0 | 1:
            graph.node(soul)[key] = rng.randrange(100)
        case 2:
            graph.node(soul).pop(key, None)
        case 3:
            graph.counter(soul, key).add(rng.choice([-1, 1]))
        case 4:
            graph.set(soul, key).add(rng.randrange(4))
        case 5:
            graph.set(soul, key).discard(rng.randrange(4))
        case 6:
            graph.map(soul)[key] = rng.randrange(100)
        case 7:
            graph.delete(soul)
        case _:
            text = graph.text(soul, key)
            text.insert(rng.randrange(len(text) + 1), "ab")
            if len(text) > 4:
                text.delete(0, 3)


async def compare_behind_ban(banned: Identity, graphs: list[Graph]) -> None:
    """What others than the banned author show is the same, whatever they have dropped; and so it is afterwards."""
    others = [graph for graph in graphs if graph.identity != banned]
    for end in (False, True):
        for graph in others:
            await (graph.admission.unban(banned.id) if end else graph.admission.ban(banned.id))
            await check(graph)
        shown = [[graph.everything(soul) for soul in SOULS] for graph in others]
        assert shown == shown[:1] * len(others)
    assert len({graph.replica.save() for graph in others}) == 1


async def history(seed: int, path: Path, who: list[Identity]) -> int:
    """Replicas that write, tell each other, prune, let go and are opened again; one keeps all frames beside them, and
    one what they told it first. In the end they ban each other."""
    rng, dropped = random.Random(seed), 0
    async with AsyncExitStack() as stack:
        keeper = await stack.enter_async_context(
            await Graph.open("memory:", identity=identity("keeper"), history=True)
        )
        whole = await stack.enter_async_context(await Graph.open("memory:", identity=identity("whole")))
        graphs = [await Graph.open(str(path / f"{seed}-0.db"), identity=who[0])]
        graphs += [await Graph.open("memory:", identity=one) for one in who[1:]]
        for graph in graphs:
            await graph.admission.set_reach(rng.choice((0.0, None)))
        for _ in range(rng.randrange(10, 40)):
            at = rng.randrange(len(graphs))
            for _ in range(rng.choice([1, 3, 12])):
                act(graphs[at], rng)
                if rng.random() < 0.7:
                    await graphs[at].commit()
            await told(graphs[at], who[at], keeper)
            await told(graphs[at], who[at], whole)
            other = rng.randrange(len(graphs))
            if other != at:
                about = rng.randrange(len(graphs))
                await told(graphs[at], who[about], graphs[other])
            if rng.random() < 0.4:
                some = rng.choice(graphs)
                dropped += (await some.upkeep.prune()).frames
                await check(some)
            if rng.random() < 0.2:
                giver, taker = rng.sample(graphs, 2)  # an offer, taken as `SummaryOffers` does
                for author in giver.passed.list_authors():
                    if giver.passed.last_of(author) <= taker.frames.vector().get(author, 0):
                        taker.passed.put_summary(
                            author, giver.passed.last_of(author), giver.passed.parts_of(author)
                        )
            if rng.random() < 0.2:
                await graphs[0].close()
                graphs[0] = await Graph.open(str(path / f"{seed}-0.db"), identity=who[0])
        for graph in (*graphs, whole):
            for one, writer in zip(graphs, who, strict=True):
                await told(one, writer, graph)
            await check(graph)
        for one, writer in zip(graphs, who, strict=True):
            assert keeper.frames.vector().get(writer.id.key, 0) <= one.frames.vector().get(writer.id.key, 0)
        assert len({graph.replica.save() for graph in (*graphs, whole)}) == 1
        for banned in who:
            await compare_behind_ban(banned, [*graphs, whole])
        for graph in graphs:
            await graph.close()
    return dropped


@pytest.mark.slow
def test_random_histories_with_two_stores(tmp_path: Path) -> None:
    dropped = [asyncio.run(history(seed, tmp_path, [ALICE, BOB])) for seed in range(12)]
    assert sum(dropped) > 100


@pytest.mark.slow
def test_many_random_histories(tmp_path: Path) -> None:
    for seed in range(1000, 1150):
        asyncio.run(history(seed, tmp_path, [ALICE, BOB, CAROL]))


# ---- killed at every write -----------------------------------------------------------------------------------------


def watched_store(path: Path, into: Path) -> tuple[SqliteStore, list[Path]]:
    """Return a store, and its folder as it was after each of SQLite's steps, which is filled from now on: what a kill
    would leave.

    Each differs from the one before.
    """
    found: list[Path] = []
    folder = path.parent
    seen: set[bytes] = set()

    def copy() -> int:
        files = [path for path in folder.iterdir() if path.is_file() and path.suffix != ".db-shm"]
        whole = b"".join(path.name.encode() + path.read_bytes() for path in sorted(files))
        if (digest := hashlib.sha256(whole).digest()) not in seen:
            seen.add(digest)
            found.append(into / str(len(found)))
            shutil.copytree(folder, found[-1], ignore=shutil.ignore_patterns("*-shm", "*-lock"))
        return 0

    class Watched(SqliteStore):
        def _connect_to(self, place: str) -> Any:
            database = super()._connect_to(place)
            database.execute("PRAGMA cache_size = 2")  # what is written goes to the disk soon
            database.set_progress_handler(copy, 20)
            database.set_trace_callback(lambda _: copy() and None)
            return database

    return Watched(path), found


def test_killed_at_every_write(tmp_path: Path) -> None:
    async def main() -> None:
        (folder := tmp_path / "graph").mkdir()
        async with (
            await Graph.open(str(folder / "a.db"), identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
        ):
            for number in range(150):
                bob.node(f"b/{number % 2}")["k"] = f"{number}" * 300
                await bob.commit()
                alice.node(f"a/{number % 2}")["k"] = f"{number}" * 300
                await alice.commit()
            await told(bob, BOB, alice)
            await bob.upkeep.prune()
            alice.passed.put_summary(BOB.id.key, 150, await bob.frames.read(BOB.id.key, 1, 150))
            state = alice.replica.save()
        store, left = watched_store(folder / "a.db", tmp_path / "killed")
        async with await Graph.open(store, identity=ALICE) as alice:
            before = len(left)
            assert (await alice.upkeep.prune()).frames == 298
        assert len(left) > before + 6
        sizes = set()
        for place in left[before:]:
            async with await Graph.open(str(place / "a.db"), identity=ALICE) as alice:
                assert alice.damage is None
                assert alice.replica.save() == state
                sizes.add(await size(alice) > 50_000)
                await alice.recover()  # the other one is still there
                await alice.upkeep.prune()
                await check(alice)
                assert alice.replica.save() == state
        assert sizes == {True, False}

    asyncio.run(main())
