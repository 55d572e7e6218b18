"""Who hears of a graph's changes hears of each commit once, and of what came at one time once: all of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

import pytest
from graph_fixtures import ALICE, BOB, CAROL, run_with, told

from dtp.errors import DtpError
from dtp.graph import Batch, ChangesMissed, Graph, GraphError, StoreError
from dtp.graph.frames.envelope import Signed
from dtp.graph.stores.sqlite_store import SqliteStore


def places(batch: Batch) -> list[tuple[str, str, str]]:
    return [change[:3] for change in batch.changes]


def test_a_commit_is_one_batch() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        with alice.changes() as changes:
            alice.node("a").update(x=1, y=2)
            alice.node("a")["x"] = 3
            alice.text("note").insert(0, "hello")
            alice.list("todo").append("milk")
            alice.set("tags").add("home")
            await alice.commit()
            alice.counter("hits").add(1)
            await alice.commit()
            first, second = await anext(changes), await anext(changes)
        assert [batch async for batch in changes] == []
        assert sorted(places(first)) == [
            ("a", "x", "register"),
            ("a", "y", "register"),
            ("note", "", "text"),
            ("tags", "", "set"),
            ("todo", "", "list"),
        ]
        assert first.is_local
        assert second.is_local
        assert {change.author for change in first.changes} == {ALICE.id.key}
        clocks = {change[:3]: change.clock for change in first.changes}
        assert clocks["a", "x", "register"] == alice.node("a").written("x")[1]
        assert min(second.changes).clock > max(clocks.values())
        assert places(second) == [("hits", "", "counter")]

    run_with(main)


def test_what_comes_is_one_batch() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        async with bob.changes("user/*") as changes:
            for number in range(3):
                alice.node("user/1")["age"] = number
                alice.node(f"place/{number}")["name"] = "elsewhere"
                await alice.commit()
            bob.node("user/2")["age"] = 5
            await bob.receive(await alice.frames.read(ALICE.id.key, 1, 3))  # while that isn't committed
            came = next(batch for batch in [await anext(changes), await anext(changes)] if not batch.is_local)
            assert came == Batch(came.changes, is_local=False)
            assert [change[:4] for change in came.changes] == [("user/1", "age", "register", ALICE.id.key)]
            await bob.receive(await alice.frames.read(ALICE.id.key, 1, 3))  # nothing new
        assert [batch async for batch in changes] == []

    run_with(main)


def test_a_text_edit_tells_of_no_other_change_again() -> None:
    """What was told of last was told once more with each edit of a text."""

    async def main(alice: Graph, bob: Graph) -> None:
        alice.node("a")["x"] = 1
        await alice.commit()
        await told(alice, ALICE, bob)
        with bob.changes() as changes, bob.watch() as watch:
            bob.text("note").insert(0, "hello")
            await bob.commit()
        assert [places(batch) async for batch in changes] == [[("note", "", "text")]]
        assert [change[:4] async for change in watch] == [("note", "", "text", BOB.id.key)]

    run_with(main)


class FullStore(SqliteStore):
    """A store in a file that takes nothing while it is full."""

    is_full = False

    def add_frames(self, some: Iterable[Signed], *, synced: bool) -> None:
        if self.is_full:
            raise StoreError("full")
        super().add_frames(some, synced=synced)


def test_what_fails_to_be_stored_is_told_once_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        store = FullStore(tmp_path / "a.db")
        async with await Graph.open(store, identity=ALICE) as alice:
            with alice.changes() as changes:
                alice.node("a")["x"] = 1
                store.is_full = True
                with pytest.raises(StoreError):
                    await alice.commit()
                store.is_full = False
                alice.node("b")["x"] = 1
                await alice.commit()
            assert [places(batch) async for batch in changes] == [
                [("a", "x", "register")],
                [("b", "x", "register")],
            ]

    asyncio.run(main())


def test_what_a_revocation_takes_away_is_told() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        grant = alice.access.grant(BOB.id, "board")
        await told(alice, ALICE, bob)
        bob.node(alice.own("board"))["x"] = 1
        alice.access.revoke(grant)
        await told(bob, BOB, alice)
        with bob.changes("~*/board") as changes:
            await told(alice, ALICE, bob)
        assert [places(batch) async for batch in changes] == [[(alice.own("board"), "x", "register")]]

    run_with(main)


def test_a_slow_reader_is_told_what_it_missed(caplog: pytest.LogCaptureFixture) -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        with (
            caplog.at_level(logging.WARNING, "dtp.graph"),
            alice.changes(name="the board's view", limit=3) as slow,
            alice.changes() as quick,
        ):
            alice.put_many((f"n/{number}", "x", 1) for number in range(5))  # more than fit: one batch goes in
            await alice.commit()
            assert len((await anext(slow)).changes) == 5
            for number in range(5):
                alice.put_many([(f"n/{number}", "x", 2), (f"n/{number}", "y", 2)])
                await alice.commit()
            with pytest.raises(ChangesMissed, match=r"the board's view .* missed 8") as caught:
                await anext(slow)
            assert isinstance(caught.value, DtpError)
            assert places(await anext(slow)) == [("n/4", "x", "register"), ("n/4", "y", "register")]
        assert [len(batch.changes) async for batch in quick] == [5, 2, 2, 2, 2, 2]
        assert len([1 for record in caplog.records if "the board's view" in record.getMessage()]) == 1

    run_with(main)


def test_it_ends_with_the_graph() -> None:
    async def main() -> None:
        graph = await Graph.open("memory:", identity=CAROL)
        changes = graph.changes()
        graph.node("a")["x"] = 1
        await graph.close()
        assert [places(batch) async for batch in changes] == [[("a", "x", "register")]]
        with pytest.raises(GraphError, match="closed"):
            graph.changes()

    asyncio.run(main())
