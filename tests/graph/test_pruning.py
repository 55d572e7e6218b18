"""Frames of which nothing counts any more are dropped; what stands, stays, whatever is done in between."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import random
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB, CAROL, identity, told
from postgres import server
from test_passing import served

from dtp.crdt import Clock, Replica
from dtp.crdt.rules import Rule, Rules
from dtp.graph import Graph, GraphError, loading, passing, pruning
from dtp.graph import envelope as envelopes
from dtp.graph.envelope import Summary
from dtp.graph.pruning import Pruned
from dtp.graph.sqlite_store import SqliteStore
from dtp.identity import Identity


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with server() as url:
        yield url


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return str(tmp_path / "graph.db")
    return str(request.getfixturevalue("postgres"))


def replayed(graph: Graph) -> bytes:
    """The state that the stored frames alone give, signatures and chains checked."""
    fresh = graph.replica.fresh()
    loading.replay(graph._store, fresh)
    return fresh.save()


async def check(graph: Graph) -> None:
    """All that is here can be had from the store."""
    await graph.commit()
    await graph.verify()
    assert replayed(graph) == graph.replica.save()


async def positions(graph: Graph, count: int, at: int = 0) -> None:
    for number in range(at, at + count):
        graph.node(f"thing/{number % 4}").update(x=number, y=-number)
        await graph.commit()


async def size(graph: Graph) -> int:
    return sum([await graph.stored_bytes(author, 1, last) for author, last in graph.vector().items()])


def test_what_was_overwritten_is_dropped(place: str) -> None:
    async def main() -> None:
        name = os.urandom(4).hex()
        async with await Graph.open(place, identity=ALICE, name=name) as alice:
            await positions(alice, 400)
            state, before, heads = alice.replica.save(), await size(alice), alice.heads()
            could = await alice.prunable()
            assert could.stored == before
            assert could.overwritten > before * 0.95
            done = await alice.prune()
            assert done.frames >= 399
            assert await size(alice) == before - done.bytes < 2000
            assert await alice.prune() == Pruned(0, 0)
            assert (await alice.prunable()).overwritten < 1000
            assert (alice.replica.save(), alice.heads()) == (state, heads)
            await check(alice)
            await positions(alice, 3, 400)
            await check(alice)
            state = alice.replica.save()
        if place == "memory:":
            return
        async with await Graph.open(place, identity=ALICE, name=name) as alice:
            assert alice.replica.save() == state
            await positions(alice, 100, 403)
            await alice.prune()
            await check(alice)
            assert len(await alice.read(ALICE.id.key, 1, 1000)) <= 2

    asyncio.run(main())


def on_disk(path: Path) -> int:
    return sum(
        one.stat().st_size
        for one in path.parent.iterdir()
        if one.name.startswith(path.name + "-wal") or one == path
    )


def test_the_file_shrinks(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "a.db"
        async with await Graph.open(str(path), identity=ALICE) as alice:
            for number in range(30):
                alice.put_many((f"n/{at}", "k", f"{number} {at}" * 20) for at in range(300))
                await alice.commit()
            before = on_disk(path)
            async with await Graph.open(str(path), identity=BOB, read_only=True) as beside:
                await alice.prune()
                assert len(beside.souls()) == 300
            assert on_disk(path) < before / 5
            await check(alice)

    asyncio.run(main())


@asynccontextmanager
async def following(author: Graph, follower: Graph, name: str) -> AsyncIterator[None]:
    async with served(author, name) as client:
        task = asyncio.create_task(follower.replicate(client))
        yield
        task.cancel()


def test_a_store_stays_small_as_positions_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the policy alone: the author's store, and that of a replica which only receives; then the author is away."""
    monkeypatch.setattr(passing, "LEAST", 8 * 1024)
    monkeypatch.setattr(pruning, "LEAST", 8 * 1024)

    async def main() -> None:
        mine, theirs = str(tmp_path / "mine.db"), str(tmp_path / "theirs.db")
        async with await Graph.open(theirs, identity=BOB, prune=True) as bob:
            async with (
                await Graph.open(mine, identity=ALICE, prune=True) as alice,
                following(alice, bob, "positions"),
            ):
                watch = bob.watch("thing/3")
                most = [0, 0]
                for number in range(0, 1000, 4):
                    await positions(alice, 4, number)
                    change = await anext(watch)
                    while change.key != "y" or bob.replica.get("thing/3", "y") != -number - 3:
                        change = await anext(watch)
                    most = [max(most[0], await size(alice)), max(most[1], await size(bob))]
                assert max(most) < 40 * 1024  # of some 250 KiB that were made
                state = alice.replica.save()
            assert bob.replica.save() == state  # she is away
            await bob.prune()
            await check(bob)
            async with (
                await Graph.open("memory:", identity=CAROL) as carol,
                served(bob, "newcomer") as client,
            ):
                await carol.sync(client)
                assert carol.replica.save() == bob.replica.save()
                assert await size(carol) < 24 * 1024

    asyncio.run(main())


def test_history_is_kept_where_it_is_wanted() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE, history=True) as alice:
            await positions(alice, 50)
            with pytest.raises(GraphError, match="keeps its history"):
                await alice.prune()
            assert len(await alice.history("thing/1", "x")) > 10
        with pytest.raises(GraphError, match="can't be pruned"):
            await Graph.open("memory:", identity=ALICE, history=True, prune=True)
        with pytest.raises(GraphError, match="can't be pruned"):
            await Graph.open("memory:", identity=ALICE, read_only=True, prune=True)

    asyncio.run(main())


def test_what_rules_decide_about_stays() -> None:
    """Such frames are in no summary; the others around them go."""
    votes = Rules("vote", [Rule(path="*", key="{author}", once="soul")])

    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as alice:
            alice.allow(votes)
            await positions(alice, 60)
            alice.node(votes.soul("lunch"))[str(ALICE.id)] = "yes"
            await positions(alice, 60, 60)
            state = alice.replica.save()
            assert (await alice.prune()).frames > 100
            assert alice.replica.save() == state
            await check(alice)

    asyncio.run(main())


# ---- who lies --------------------------------------------------------------------------------------------------


def changed(identity: Identity, one: Summary, **parts: Any) -> bytes:
    unsigned = dataclasses.replace(one, **parts, signature=b"")
    return dataclasses.replace(unsigned, signature=identity.sign(unsigned.signed)).encode()


@pytest.mark.parametrize("lie", ["leaves out", "makes up", "clocks", "no frame", "other chain", "honest"])
def test_a_summary_that_lies_drops_nothing(lie: str) -> None:
    """The author signs what it likes, also of its own frames that are here."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
        ):
            await positions(alice, 100)
            await told(alice, ALICE, bob)
            await alice.prune()
            (data,) = await alice.read(ALICE.id.key, 1, 1 << 40)
            honest = envelopes.decode("", data)
            assert isinstance(honest, Summary)
            liar = Replica(ALICE.id.key, clock=alice.replica.clock)
            liar.put("thing/0", "x", "made up")
            lies: dict[str, dict[str, Any]] = {
                "leaves out": {"body": b""},
                "makes up": {"body": liar.commit()[0].body},
                "clocks": {"after": honest.after + 1},
                "no frame": {"body": honest.body[:-1]},
                "other chain": {"tip": bytes(32)},
                "honest": {},
            }
            said = changed(ALICE, honest, **lies[lie])
            bob.passed.put(ALICE.id.key, honest.sequence, [said])
            done = await bob.prune()
            assert done.frames == (99 if lie == "honest" else 0)
            await check(bob)
            assert bob.replica.save() == alice.replica.save()

    asyncio.run(main())


def test_what_a_summary_lacks_and_stands_here_keeps_the_frames() -> None:
    """Its author has seen what overwrote it, and this replica hasn't yet: it waits for that."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
            await Graph.open("memory:", identity=CAROL) as carol,
        ):
            await positions(alice, 100)
            await told(alice, ALICE, bob)
            await told(alice, ALICE, carol)
            carol.node("thing/0").update(x="hers", y="hers")
            await told(carol, CAROL, alice)
            await alice.prune()
            parts = await alice.read(ALICE.id.key, 1, 1 << 40)
            bob.passed.put(ALICE.id.key, 100, parts)
            assert (await bob.prune()).frames == 0
            await told(carol, CAROL, bob)
            assert (await bob.prune()).frames == 99
            await check(bob)

    asyncio.run(main())


def test_a_clock_that_was_set_back(tmp_path: Path) -> None:
    """What was summed up is there at the next start, whatever the clock says then; and nothing is summed up ahead."""

    async def main() -> None:
        path, wall = str(tmp_path / "a.db"), [1_700_000_000.0]
        async with await Graph.open(path, identity=ALICE, clock=Clock(lambda: wall[0])) as alice:
            await positions(alice, 50)
            assert (await alice.prune()).frames == 49
            state = alice.replica.save()
        wall[0] -= 86_400
        async with await Graph.open(path, identity=ALICE, clock=Clock(lambda: wall[0])) as alice:
            assert alice.replica.save() == state == replayed(alice)
            await positions(alice, 50, 50)
            assert (await alice.prune()).frames == 0
            wall[0] += 90_000
            assert (await alice.prune()).frames == 50
            await check(alice)

    asyncio.run(main())


# ---- random histories --------------------------------------------------------------------------------------------


def act(graph: Graph, rng: random.Random) -> None:
    soul, key = f"n/{rng.randrange(3)}", rng.choice("ab")
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


async def history(seed: int, path: Path, who: list[Identity]) -> int:
    """Replicas that write, tell each other, prune and are opened again; one keeps all frames beside them."""
    rng, dropped = random.Random(seed), 0
    async with AsyncExitStack() as stack:
        keeper = await stack.enter_async_context(
            await Graph.open("memory:", identity=identity("keeper"), history=True)
        )
        graphs = [await Graph.open(str(path / f"{seed}-0.db"), identity=who[0])]
        graphs += [await Graph.open("memory:", identity=one) for one in who[1:]]
        for _ in range(rng.randrange(10, 40)):
            at = rng.randrange(len(graphs))
            for _ in range(rng.choice([1, 3, 12])):
                act(graphs[at], rng)
                if rng.random() < 0.7:
                    await graphs[at].commit()
            await told(graphs[at], who[at], keeper)
            other = rng.randrange(len(graphs))
            if other != at:
                about = rng.randrange(len(graphs))
                await told(graphs[at], who[about], graphs[other])
            if rng.random() < 0.4:
                some = rng.choice(graphs)
                dropped += (await some.prune()).frames
                await check(some)
            if rng.random() < 0.2:
                giver, taker = rng.sample(graphs, 2)  # an offer, taken as `_Session` does
                for author in giver.passed.authors():
                    if giver.passed.upto(author) <= taker.vector().get(author, 0):
                        taker.passed.put(author, giver.passed.upto(author), giver.passed.parts(author))
            if rng.random() < 0.2:
                await graphs[0].close()
                graphs[0] = await Graph.open(str(path / f"{seed}-0.db"), identity=who[0])
        for graph in graphs:
            for one, author in zip(graphs, who, strict=True):
                await told(one, author, graph)
            await check(graph)
        for one, author in zip(graphs, who, strict=True):
            assert keeper.vector().get(author.id.key, 0) <= one.vector().get(author.id.key, 0)
        states = {graph.replica.save() for graph in graphs}
        assert len(states) == 1
        for graph in graphs:
            await graph.close()
    return dropped


def test_random_histories_with_two_stores(tmp_path: Path) -> None:
    dropped = [asyncio.run(history(seed, tmp_path, [ALICE, BOB])) for seed in range(12)]
    assert sum(dropped) > 100


@pytest.mark.slow
def test_many_random_histories(tmp_path: Path) -> None:
    for seed in range(1000, 1150):
        asyncio.run(history(seed, tmp_path, [ALICE, BOB, CAROL]))


# ---- killed at every write -----------------------------------------------------------------------------------------


def snapshots(monkeypatch: pytest.MonkeyPatch, folder: Path, into: Path) -> list[Path]:
    """Return the folder as it was after each of SQLite's steps, which is filled from now on: what a kill would leave.

    Each differs from the one before.
    """
    found: list[Path] = []
    connected = SqliteStore._connected
    seen: set[bytes] = set()

    def copy() -> int:
        files = [path for path in folder.iterdir() if path.is_file() and path.suffix != ".db-shm"]
        whole = b"".join(path.name.encode() + path.read_bytes() for path in sorted(files))
        if (digest := hashlib.sha256(whole).digest()) not in seen:
            seen.add(digest)
            found.append(into / str(len(found)))
            shutil.copytree(folder, found[-1], ignore=shutil.ignore_patterns("*-shm", "*-lock"))
        return 0

    def watched(store: SqliteStore, place: str) -> Any:
        database = connected(store, place)
        database.execute("PRAGMA cache_size = 2")  # what is written goes to the disk soon
        database.set_progress_handler(copy, 20)
        database.set_trace_callback(lambda _: copy() and None)
        return database

    monkeypatch.setattr(SqliteStore, "_connected", watched)
    return found


def test_killed_at_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
            await bob.prune()
            alice.passed.put(BOB.id.key, 150, await bob.read(BOB.id.key, 1, 150))
            state = alice.replica.save()
        with monkeypatch.context() as patched:
            left = snapshots(patched, folder, tmp_path / "killed")
            async with await Graph.open(str(folder / "a.db"), identity=ALICE) as alice:
                before = len(left)
                assert (await alice.prune()).frames == 298
        assert len(left) > before + 6
        sizes = set()
        for place in left[before:]:
            async with await Graph.open(str(place / "a.db"), identity=ALICE) as alice:
                assert alice.damage is None
                assert alice.replica.save() == state
                sizes.add(await size(alice) > 50_000)
                alice.recover()  # the other one is still there
                await alice.prune()
                await check(alice)
                assert alice.replica.save() == state
        assert sizes == {True, False}

    asyncio.run(main())
