"""Replicas of a part of a graph: what is in it is right and genuine, and none is taken for a full one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import partial_second as second
import pytest
from graph_fixtures import ALICE, BOB, CAROL, identity
from hypothesis import given
from hypothesis import strategies as st
from postgres import server

import dtp
from dtp.crdt import Link
from dtp.graph import (
    Graph,
    GraphError,
    GraphPartial,
    Part,
    QueryBudget,
    QueryError,
    SyncError,
)
from dtp.graph.frames import envelope as envelopes
from dtp.identity import Identity
from dtp.testing.clock import run as run_virtual

NOTES = Part(prefixes=["note/"])


@asynccontextmanager
async def linked(one: Graph, other: Graph, **terms: Any) -> AsyncIterator[dtp.Connection]:
    """A connection of one graph to another, which serves it."""
    name = f"memory://partial-{other.identity.id.short}-{one.identity.id.short}"

    async def serve(connection: dtp.Connection) -> None:
        await other.serve(connection, **terms)

    async with (
        await dtp.listen(name, serve, identity=other.identity) as listener,
        dtp.connect(listener.address(), identity=one.identity) as connection,
    ):
        yield connection


async def sync(one: Graph, other: Graph, **terms: Any) -> Any:
    async with linked(one, other, **terms) as connection:
        return await one.sync(connection)


async def opened(who: Identity, part: Part | None = None, place: str = "memory:") -> Graph:
    return await Graph.open(place, identity=who, name="g", part=part)


def shown(graph: Graph, part: Part | None = None) -> dict[str, Any]:
    """All that a graph shows, or what of it is in a part."""
    return {
        soul: {key: {kind: _plain(value) for kind, value in kinds.items()} for key, kinds in here.items()}
        for soul in graph.souls(internal=True)
        if part is None or part.has_soul(soul)
        for here in (graph.everything(soul),)
    }


def _plain(value: Any) -> Any:
    return sorted(map(repr, value)) if isinstance(value, list) and not value else repr(value)


def run(main: Any) -> None:
    run_virtual(main())


# ---- the value ----------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    ["note/1", "note/", "n", "user/a", "user/", "~dtp1x/post/1", "~dtp1x/post/", "", "a/b/c"]
)
NAMED = st.sets(NAMES.filter(bool), max_size=3)
PARTS = st.builds(Part, NAMED, st.sets(st.sampled_from(["note", "post", "user"]), max_size=2), NAMED)


@given(PARTS, PARTS, NAMES)
def test_a_part_that_covers_another_has_all_of_it(one: Part, other: Part, soul: str) -> None:
    assert Part.decode(one.encode()) == one
    assert one.covers_part(one)
    both = one.union(other)
    assert both.covers_part(one)
    assert both.covers_part(other)
    assert both.has_soul(soul) == (one.has_soul(soul) or other.has_soul(soul))
    if one.covers_part(other) and other.has_soul(soul):
        assert one.has_soul(soul)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_part_or_refused(data: bytes) -> None:
    try:
        found = Part.decode(data)
    except SyncError:
        return
    assert Part.decode(found.encode()) == found


@pytest.mark.parametrize(
    "packed",
    [
        [2, [], [], []],
        [1, [], []],
        [1, [], [], 7],
        [1, [""], [], []],
        [1, ["x" * 1025], [], []],
        [1, [7], [], []],
        [1, [str(n) for n in range(257)], [], []],
        [1, [], [], [str(n) for n in range(50_001)]],
        7,
    ],
    ids=lambda packed: str(packed)[:30],
)
def test_parts_that_are_none(packed: Any) -> None:
    with pytest.raises(SyncError):
        Part.decode(msgpack.packb(packed))


def test_a_part_by_label_has_what_people_own() -> None:
    part = Part(labels=["post"])
    assert part.has_soul("post/1")
    assert part.has_soul(f"~{ALICE.id}/post/1")
    assert not part.has_soul("posts/1")
    assert not part.has_soul(f"~{ALICE.id}/draft/1")
    assert part.has_soul(f"~{ALICE.id}")
    assert part.has_soul("%access/x")
    with pytest.raises(GraphError, match="several"):
        Part(prefixes="note/")


# ---- replicas -----------------------------------------------------------------------------------------------------


async def fill(graph: Graph, who: str, rounds: int = 20) -> None:
    """Frames of many kinds, some with notes and others in one."""
    for number in range(rounds):
        kind = ("note", "place", "place", "big")[number % 4]
        graph.node(f"{kind}/{number % 5}")["by"] = who
        graph.node(f"{kind}/{number % 5}")["text"] = "x" * (4000 if kind == "big" else 10)
        if number % 4 == 3:
            graph.set("note/tags").add(f"{who} {number}")
            graph.set("note/tags").discard(f"{who} {number - 4}")
            graph.text("note/text").insert(0, f"{who} {number} ")
        await graph.commit()


def test_a_part_is_what_a_full_replica_shows_of_it_and_costs_less() -> None:
    async def main() -> None:
        async with (
            await opened(ALICE) as full,
            await opened(BOB, NOTES) as part,
            await opened(CAROL) as whole,
        ):
            await fill(full, "alice")
            for number in range(100):
                full.node(f"place/{number}")["map"] = str(number) * 1000
                await full.commit()
            done = await sync(part, full)
            everything = await sync(whole, full)
            assert done.is_whole
            assert done.bytes_received < everything.bytes_received / 4
            assert part.frames.heads() == full.frames.heads()
            assert shown(part) == shown(full, NOTES)
            assert {one.partition("/")[0] for one in part.souls()} == {"note"}
            full.node("note/new")["k"] = 1
            full.node("place/new")["k"] = 1
            await full.commit()
            again = await sync(part, full)
            assert again.received >= 1
            assert shown(part) == shown(full, NOTES)
            assert await part.verify() > 0
            last = await sync(part, full)
            assert (last.received, last.sent) == (0, 0)
            assert last.bytes_received < 200

    run(main)


def test_what_is_not_here_is_said() -> None:
    async def main() -> None:
        async with await opened(ALICE) as full, await opened(BOB, NOTES) as part:
            full.put_many([("note/1", "to", Link("place/1")), ("place/1", "k", 1)])  # in one frame
            await full.commit()
            with part.watch() as watch:
                await sync(part, full)
                assert (await anext(watch)).soul == "note/1"
            for read in (
                part.node,
                part.text,
                part.list,
                part.set,
                part.map,
                part.counter,
                part.multi_value,
                part.everything,
            ):
                with pytest.raises(GraphPartial, match="place/1"):
                    read("place/1")
            with pytest.raises(GraphPartial):
                await part.history.versions("place/1")
            with pytest.raises(GraphPartial):
                await part.history.as_of("place/1", 2e9)
            with pytest.raises(GraphPartial):
                await part.history.restore("place/1", 2e9)
            for whole in (part.upkeep.compact(), part.files.export("x"), part.files.export_chunks()):
                with pytest.raises(GraphPartial):
                    await whole
            assert part.souls() == ["note/1"]
            assert part.query("MATCH (n) WHERE n.k = 1 RETURN n") == []
            assert await part.query_async("MATCH (n) WHERE n.k = 1 RETURN n") == []
            part.put_many([("place/2", "k", 2)])  # writes stay possible
            part.node("note/2")["k"] = 2
            await part.commit()
            await sync(part, full)
            assert (full.node("place/2")["k"], full.node("note/2")["k"]) == (2, 2)

    asyncio.run(main())  # for a query beside the loop


def test_it_is_never_taken_for_a_full_one() -> None:
    """Another gets from it what it has whole, from the front on, and is told that this isn't all."""

    async def main() -> None:
        async with (
            await opened(ALICE) as full,
            await opened(BOB, NOTES) as part,
            await opened(CAROL) as other,
        ):
            full.node("note/0")["k"] = 0
            await full.commit()
            await fill(full, "alice")
            await sync(part, full)
            part.node("note/mine")["k"] = 1
            await part.commit()
            done = await sync(other, part)
            assert not done.is_whole
            assert other.node("note/mine")["k"] == 1
            assert other.node("note/0")["k"] == 0
            assert other.frames.vector()[ALICE.id.key] < full.frames.vector()[ALICE.id.key]
            done = await sync(other, full)
            assert done.is_whole
            await sync(full, part)
            await sync(other, full)
            assert shown(other) == shown(full)
            assert other.replica.save() == full.replica.save()

    run(main)


def test_parts_sync_with_parts() -> None:
    """The smaller from the larger all that it wants; the other way round what is there, and it says so."""

    async def main() -> None:
        both = Part(prefixes=["note/", "place/"])
        async with (
            await opened(ALICE) as full,
            await opened(BOB, both) as larger,
            await opened(CAROL, NOTES) as smaller,
            await opened(identity("dave"), Part(labels=["big"])) as apart,
        ):
            await fill(full, "alice")
            await sync(larger, full)
            done = await sync(smaller, larger)
            assert done.is_whole
            assert shown(smaller) == shown(full, NOTES)
            done = await sync(apart, smaller)
            assert not done.is_whole
            await sync(apart, full)
            smaller.node("note/x")["k"] = 1
            await smaller.commit()
            await sync(smaller, larger)
            await sync(larger, full)
            assert full.node("note/x")["k"] == 1
            await sync(apart, full)
            assert shown(apart) == shown(full, Part(labels=["big"]))

    run(main)


def test_a_full_replica_goes_on_with_what_a_part_has_whole_behind_its_own_end() -> None:
    """Whoever lacks what the part skipped gets nothing of that author."""

    async def main() -> None:
        async with (
            await opened(ALICE) as alice,
            await opened(BOB, NOTES) as part,
            await opened(CAROL) as carol,
            await opened(identity("dave")) as fresh,
        ):
            alice.node("place/1")["k"] = 1
            await alice.commit()
            await sync(carol, alice)
            alice.node("note/1")["k"] = 2
            await alice.commit()
            await sync(part, alice)
            for graph, frames in ((carol, 2), (fresh, 0)):
                await sync(graph, part)
                assert graph.frames.vector().get(ALICE.id.key, 0) == frames
            assert carol.node("note/1")["k"] == 2

    run(main)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with server() as url:
        yield url


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Somewhere that keeps graphs of any name."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres"))
    return "memory:" if request.param == "memory" else str(tmp_path / "part.db")


def run_at(place: str, main: Any) -> None:
    """In virtual time where there are no threads of a driver."""
    asyncio.run(main()) if place.startswith("postgres") else run(main)


def test_a_part_grows(place: str) -> None:
    async def main() -> None:
        path = place
        both = Part(prefixes=["note/", "place/"])
        async with await opened(ALICE) as full, await opened(BOB, NOTES, path) as part:
            await fill(full, "alice")
            await sync(part, full)
            part.node("note/mine")["k"] = 1
            await part.commit()
            with pytest.raises(GraphError, match="only grow"):
                await part.grow(Part(prefixes=["place/"]))
            await part.grow(both)
            assert part.part == both
            assert part.node("note/mine")["k"] == 1
            await sync(part, full)
            assert shown(part) == shown(full, both)
            assert await part.verify() > 0

    run_at(place, main)


def test_programs_that_share_a_database_have_one_part(postgres: str) -> None:
    """What one of them has synced, and what was skipped, is the other's, too."""

    async def main() -> None:
        both, name = Part(prefixes=["note/", "place/"]), "shared part"

        async def at(who: Identity, place: str = postgres, part: Part | None = None) -> Graph:
            return await Graph.open(place, identity=who, name=name, part=part)

        async with await at(ALICE, "memory:") as full:
            await fill(full, "alice")
            async with await at(BOB, part=NOTES) as part, await at(CAROL) as beside:
                assert beside.part == NOTES
                await sync(part, full)
                async with asyncio.timeout(60):
                    while beside.frames.vector() != full.frames.vector():  # noqa: ASYNC110 - no event tells
                        await asyncio.sleep(0.02)
                beside.node("note/carol")["k"] = 1
                await beside.commit()
                assert beside.node("note/1")["by"] == "alice"
                with pytest.raises(GraphPartial):
                    beside.node("place/1")
                with pytest.raises(GraphError, match="no other program"):
                    await part.grow(both)
                assert part.part == NOTES
            with pytest.raises(GraphError, match="store of its own"):
                await at(ALICE)  # whose frames were skipped
            async with await at(CAROL) as beside:
                assert beside.part == NOTES
                await beside.grow(both)
                await sync(beside, full)
                assert shown(beside) == shown(full, both)
                await beside.verify()
        async with await Graph.open(postgres, identity=BOB, name=name, read_only=True) as read:
            assert read.part == both
            assert read.node("place/1")["by"] == "alice"

    asyncio.run(main())


def test_a_file_keeps_its_part(tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "part.db")
        async with await opened(ALICE) as full:
            await fill(full, "alice")
            async with await opened(BOB, NOTES, path) as part:
                await sync(part, full)
            async with await opened(BOB, None, path) as part:
                assert part.part == NOTES
                assert shown(part) == shown(full, NOTES)
                with pytest.raises(GraphPartial):
                    part.node("place/1")
                await part.verify(repair=True)
            async with await Graph.open(path, identity=BOB, read_only=True) as part:
                assert part.part == NOTES
            with pytest.raises(GraphError, match="only grow"):
                await opened(BOB, Part(labels=["place"]), path)
            both = Part(prefixes=["note/", "place/"])
            async with await opened(BOB, both, path) as part:
                await sync(part, full)
                assert shown(part) == shown(full, both)
            whole = str(tmp_path / "whole.db")
            async with await opened(CAROL, None, whole) as other:
                await sync(other, full)
            with pytest.raises(GraphError, match="all of the graph"):
                await opened(CAROL, NOTES, whole)

    run(main)


def test_a_file_that_has_only_skipped_frames_is_opened_again(tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "part.db")
        async with await opened(ALICE) as full:
            full.node("place/1")["k"] = 1
            await full.commit()
            async with await opened(BOB, NOTES, path) as part:
                await sync(part, full)
            async with await opened(BOB, NOTES, path) as part:
                assert part.damage is None
                assert part.frames.heads() == full.frames.heads()
                full.node("note/1")["k"] = 1
                await full.commit()
                await sync(part, full)
                assert part.node("note/1")["k"] == 1

    run(main)


def test_live_replication_of_a_part() -> None:
    async def main() -> None:
        async with await opened(ALICE) as full, await opened(BOB, NOTES) as part:
            async with linked(part, full) as connection:
                replicating = asyncio.ensure_future(part.replicate(connection))
                changes = part.watch()
                for number in range(20):
                    full.node(f"place/{number}")["k"] = number
                    await full.commit()
                    full.node(f"note/{number}")["k"] = number
                    assert (await anext(changes)).soul == f"note/{number}"
                    part.node("note/answer")["k"] = number
                    await anext(changes)
                    await asyncio.sleep(0.1)
                    assert full.node("note/answer")["k"] == number
                await part.grow(Part(prefixes=["note/", "place/"]))
                await replicating  # what is asked for is another
            await sync(part, full)
            assert part.node("place/7")["k"] == 7

    run(main)


# ---- serving a part, or to read -----------------------------------------------------------------------------------


def test_who_is_served_to_read_writes_nothing() -> None:
    async def main() -> None:
        async with await opened(ALICE) as full, await opened(BOB) as reader:
            full.node("a")["k"] = 1
            reader.node("b")["k"] = 1
            async with linked(reader, full, read_only=True) as connection:
                done = await reader.sync(connection)
                assert (done.sent, done.received) == (0, 1)
                assert len(full.node("b")) == 0
                replicating = asyncio.ensure_future(reader.replicate(connection))
                changes = reader.watch()
                full.node("c")["k"] = 1
                assert (await anext(changes)).soul == "c"
                reader.node("d")["k"] = 1
                await asyncio.sleep(1)
                assert not replicating.done()
                assert len(full.node("d")) == 0
                replicating.cancel()
                await asyncio.wait([replicating])

    run(main)


def test_only_a_part_is_served() -> None:
    async def main() -> None:
        async with (
            await opened(ALICE) as full,
            await opened(BOB) as all_of_it,
            await opened(CAROL, NOTES) as part,
            await opened(identity("dave"), Part(prefixes=["note/", "place/"])) as more,
        ):
            await fill(full, "alice")
            done = await sync(part, full, part=NOTES)
            assert done.is_whole
            assert shown(part) == shown(full, NOTES)
            for other in (all_of_it, more):
                other.node("note/mine")["k"] = 1
                await other.commit()
                done = await sync(other, full, part=NOTES)
                assert not done.is_whole
                assert full.node("note/mine")["k"] == 1
                for data in await other.frames.read(ALICE.id.key, 1, 1000):
                    body = envelopes.decode("g", data).body
                    assert not body or b"note/" in body
            with pytest.raises(GraphError, match="within"):
                await part.serve(None, part=Part(prefixes=["place/"]))  # type: ignore[arg-type]

    run(main)


# ---- by a query ---------------------------------------------------------------------------------------------------

DEPTH = "MATCH (a)-[*0..2]->(b) WHERE id(a) = $soul RETURN b"


def test_a_part_is_what_a_query_finds_at_a_peer() -> None:
    """Such as what is two links away: what the peer says are names, and all else is as of any part."""

    async def main() -> None:
        async with await opened(ALICE) as full, await opened(BOB, Part()) as part:
            for number in range(10):
                full.node(f"page/{number}").update({"n": number, "next": Link(f"page/{number + 1}")})
                await full.commit()
            async with linked(part, full, queries=True) as connection:
                found = await part.ask(connection, DEPTH, soul="page/3")
                assert found.souls == {"page/3", "page/4", "page/5"}
                await part.grow(found)
                await part.sync(connection)
                assert part.souls() == sorted(found.souls)
                assert part.node("page/5")["n"] == 5
                with pytest.raises(GraphPartial):
                    part.node("page/6")
                more = await part.ask(connection, "MATCH p = (a {n: 7})-->(b) RETURN p, collect([b]) AS c")
                assert more.souls == {"page/7", "page/8"}
                await part.grow(found.union(more))
                await part.sync(connection)
                assert part.node("page/8")["n"] == 8
                with pytest.raises(QueryError, match="doesn't answer"):
                    await part.ask(connection, "MATCH nonsense")
                full.query_budget = QueryBudget(rows=1)
                with pytest.raises(QueryError, match="doesn't answer"):
                    await part.ask(connection, "MATCH (a), (b) RETURN a, b")
                with pytest.raises(GraphError, match="bytes"):
                    await part.ask(connection, "x" * 70_000)
            async with linked(part, full) as connection:
                with pytest.raises(QueryError, match="aren't served"):
                    await part.ask(connection, DEPTH, soul="page/3")
                await part.sync(connection)  # the connection goes on
            with pytest.raises(GraphError, match="any query"):
                await full.serve(None, part=NOTES, queries=True)  # type: ignore[arg-type]

    asyncio.run(main())


@pytest.mark.parametrize(
    "question",
    [
        [48, 1, "g", "RETURN 1"],
        [48, 2, "g", "RETURN 1", b"\x80"],
        [48, 1, "other", "RETURN 1", b"\x80"],
        [48, 1, "g", "RETURN 1", b"\x90"],
        [48, 1, "g", "RETURN 1", b"\xc1"],
        [48, 1, "g", "RETURN 1", b"\x81\x01\x01"],
        [48, 1, "g", 1, b"\x80"],
        [48, 1, "g", "x" * 70_000, b"\x80"],
    ],
    ids=lambda question: str(question)[:30],
)
def test_questions_that_are_none_end_their_stream(question: list[Any]) -> None:
    async def main() -> None:
        async with (
            await opened(ALICE) as full,
            await opened(BOB) as other,
            linked(other, full, queries=True) as connection,
        ):
            stream = await connection.open_stream()
            stream.write(second.framed(*question))
            with pytest.raises(dtp.StreamReset):
                await stream.read()
            full.node("a")["k"] = 1
            assert (await other.sync(connection)).received == 1

    run(main)


@pytest.mark.parametrize(
    "answer", [[49], [49, [1]], [49, [""]], [49, ["x"] * 2 + ["y" * 2000]], [50, 1], [48, []], 7]
)
def test_answers_that_are_none_are_refused(answer: Any) -> None:
    async def main() -> None:
        async def lie(connection: dtp.Connection) -> None:
            async for stream in connection:
                await stream.readexactly(4)
                message = msgpack.packb(answer)
                stream.write(len(message).to_bytes(4, "big") + message)
                stream.write_eof()

        async with (
            await opened(BOB, NOTES) as part,
            await dtp.listen("memory://partial-lie", lie, identity=ALICE) as listener,
            dtp.connect(listener.address(), identity=BOB) as connection,
        ):
            with pytest.raises(SyncError):
                await part.ask(connection, "MATCH (n) RETURN n")

    run(main)
