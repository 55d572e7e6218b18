"""A commit is whole: what it can't sign or store stays, each commit says so, and what is made reaches everybody."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from graph_fixtures import ALICE, BOB

from dtp.crdt import Clock, Replica
from dtp.graph import Graph, GraphError, GraphForked

NOW = 1_800_000_000.0


class Wall:
    """A wall clock that tests set."""

    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> float:
        return self.time


async def passed_on(graph: Graph) -> list[bytes]:
    """Return all envelopes that are stored."""
    return [
        one
        for author, last in graph.frames.vector().items()
        for one in await graph.frames.read(author, 1, last)
    ]


async def seen_by_bob(graph: Graph, key: str = "") -> str:
    """Return the text as somebody else has it who gets all that is stored."""
    async with await Graph.open("memory:", identity=BOB, name=graph.name, clock=graph.replica.clock) as other:
        await other.receive(await passed_on(graph))
        return str(other.text("notes", key))


@pytest.mark.parametrize("turn", [False, True])
def test_more_than_a_value_of_edits_is_split_over_ops(tmp_path: Path, *, turn: bool) -> None:
    """A text of 5 MiB, edited all over, arrives whole, with and without a turn of the loop before the commit."""

    async def work() -> None:
        place = str(tmp_path / "notes.db")
        async with await Graph.open(place, identity=ALICE) as graph:
            text = graph.text("notes")
            for part in range(5):
                text.insert(0, chr(0x61 + part) * (1 << 20))
            for at in range(0, 5 << 20, 9973):
                text.insert(at, "\u20ac")
                text.delete(at + 7, 3)
            if turn:
                await asyncio.sleep(0)
            await graph.commit()
            written = str(text)
            assert await seen_by_bob(graph) == written
        async with await Graph.open(place, identity=ALICE) as graph:
            assert str(graph.text("notes")) == written

    asyncio.run(work())


def test_pending_changes_are_given_until_they_are_marked() -> None:
    replica = Replica(bytes(32))
    text = replica.text("notes")
    text.insert(0, "one")
    first = text.pending_changes()
    assert first[0]
    assert text.pending_changes() == first
    text.mark_taken(first[1])
    assert text.pending_changes()[0] == b""


def test_a_clock_that_was_set_back_loses_nothing(tmp_path: Path) -> None:
    """What is made then is signed and kept; others show it when it is due, also those that were closed meanwhile."""

    async def work() -> None:
        wall = Wall()
        place = str(tmp_path / "bob.db")
        async with await Graph.open("memory:", identity=ALICE, name="g", clock=Clock(wall)) as graph:
            graph.text("notes").insert(0, "first ")
            await graph.commit()
            assert graph.clock_ahead <= 1
            wall.time -= 3600
            graph.text("notes").insert(6, "second ")
            await graph.commit()
            graph.text("notes").insert(13, "third")
            graph.node("page")["title"] = "made in time"
            await graph.commit()
            assert graph.failed is None
            assert graph.clock_ahead == pytest.approx(3600, abs=1)
            async with await Graph.open(place, identity=BOB, name="g", clock=Clock(wall)) as bob:
                await bob.receive(await passed_on(graph))
                assert bob.waiting_frames(ALICE.id.key) == 3
                assert bob.souls() == []
            wall.time += 3600
            async with await Graph.open(place, identity=BOB, name="g", clock=Clock(wall)) as bob:
                assert str(bob.text("notes")) == "first second third"
                assert bob.node("page")["title"] == "made in time"
                assert bob.waiting_frames(ALICE.id.key) == 0

    asyncio.run(work())


def test_a_commit_in_the_background_that_fails_is_told() -> None:
    """`failed` says why, the loop's handler hears of it, and each commit tries again and says it again."""

    async def work() -> None:
        heard: list[object] = []
        told = asyncio.Event()

        def hear(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
            heard.append(context["exception"])
            told.set()

        asyncio.get_running_loop().set_exception_handler(hear)
        graph = await Graph.open("memory:", identity=ALICE, name="g")
        async with await Graph.open("memory:", identity=ALICE, name="g") as copy:
            copy.node("page")["title"] = "copy"
            await copy.commit()
            frames = await passed_on(copy)
        graph.node("page")["title"] = "ours"
        await graph.receive(frames)
        assert graph.failed is None
        graph.node("page")["title"] = "ours again"
        await told.wait()
        assert isinstance(graph.failed, GraphForked)
        assert str(heard[-1]) == str(graph.failed)
        for title in "and", "again":
            graph.node("page")["title"] = title
            await asyncio.sleep(0)  # the commit in the background begins, and ends before the next
            with pytest.raises(GraphForked, match="another machine"):
                await graph.commit()
        assert len(heard) == 1  # a full disk would fill the log with tracebacks
        with pytest.raises(GraphForked):
            await graph.close()

    asyncio.run(work())


def test_what_another_machine_made_impossible_to_sign_is_said_each_time(tmp_path: Path) -> None:
    """A copy of the store writes as the same identity, and its frames come here before ours are signed."""

    async def work() -> None:
        graph = await Graph.open("memory:", identity=ALICE, name="g")
        async with await Graph.open("memory:", identity=ALICE, name="g") as copy:
            copy.node("page")["title"] = "copy"
            await copy.commit()
            frames = await passed_on(copy)
        graph.replica.put("page", "title", "ours")
        await graph.receive(frames)
        for _ in range(3):
            with pytest.raises(GraphError, match="another machine"):
                await graph.commit()
        assert graph.frames.vector()[ALICE.id.key] == 1
        graph.node("page")["more"] = "is kept, too"
        with pytest.raises(GraphError, match="another machine"):
            await graph.commit()
        with pytest.raises(GraphError, match="another machine"):
            await graph.close()

    asyncio.run(work())
