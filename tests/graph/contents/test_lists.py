"""Lists of graphs: heard of by patches, taken over from before format 4, kept over restarts and sync."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB, run, told

from dtp.crdt import Clock, Kind, ListPatch, SequenceChange
from dtp.crdt.ops import ops_of
from dtp.graph import Graph
from dtp.graph.stores.old_lists import merge, read_old_lists

VECTORS = json.loads((Path(__file__).parents[3] / "docs" / "vectors" / "graph.json").read_text())


def patched(view: list[Any], change: SequenceChange) -> None:
    for position, deleted, inserted in change.patches:
        assert position + deleted <= len(view)
        view[position : position + deleted] = inserted


def test_what_comes_and_what_is_made_here() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as here,
            await Graph.open("memory:", identity=BOB) as there,
        ):
            items = here.list("todo")
            assert here.list("todo") is items
            items.extend(["a", "b", "c"])
            with items.changes() as changes:
                items.move(0, 2)
                assert await anext(changes) == SequenceChange(
                    [ListPatch(0, 1, []), ListPatch(2, 0, ["a"])], True
                )
                await told(here, ALICE, there)
                there.list("todo")[0] = "bread"
                del there.list("todo")[1]
                await told(there, BOB, here)
                view = ["b", "c", "a"]
                patched(view, await anext(changes))
                assert view == list(items) == ["bread", "a"]
                items.insert(1, 1)
                assert await anext(changes) == SequenceChange([ListPatch(1, 0, [1])], True)
                items.clear()
                assert await anext(changes) == SequenceChange([ListPatch(0, 3, [])], True)

    run(main())


def test_what_is_heard_is_what_is_read() -> None:
    """Not the caller's own objects, which may be other ones by then."""

    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            items, view = graph.list("l"), list[Any]()
            with items.changes() as changes:
                given = ("a", [1])
                items.append(given)
                items[0] = given
                given[1].append(2)
                items.move(0, 0)
                for _ in range(2):
                    patched(view, await anext(changes))
            assert view == list(items) == [["a", [1]]]

    run(main())


@pytest.mark.parametrize("seed", range(10))
def test_whoever_takes_all_patches_has_the_list(tmp_path: Path, seed: int) -> None:
    """Two edit by turns and at the same time, one of them is opened anew now and then."""
    rng = random.Random(seed)

    async def main() -> None:
        place = str(tmp_path / "here.db")
        here = await Graph.open(place, identity=ALICE, name="g")
        there = await Graph.open("memory:", identity=BOB, name="g")
        view: list[Any] = []
        changes = here.list("l").changes()
        for number in range(60):
            graph = rng.choice([here, there])
            items = graph.list("l")
            count = len(items)
            match rng.randrange(4) if count else 0:
                case 0:
                    items.insert(rng.randint(0, count), number)
                case 1:
                    items[rng.randrange(count)] = [number]
                case 2:
                    items.move(rng.randrange(count), rng.randrange(count))
                case _:
                    del items[rng.randrange(count)]
            if rng.randrange(3) == 0:
                await told(here, ALICE, there)
                await told(there, BOB, here)
            if rng.randrange(12) == 0:
                await here.close()
                async for change in changes:
                    patched(view, change)
                here = await Graph.open(place, identity=ALICE)
                assert list(here.list("l")) == view
                changes = here.list("l").changes()
        await told(here, ALICE, there)
        await told(there, BOB, here)
        assert list(there.list("l")) == list(here.list("l"))
        await here.close()
        async for change in changes:
            patched(view, change)
        assert view == list(there.list("l"))
        await there.close()

    run(main())


def test_two_by_turns_for_as_long_as_they_like() -> None:
    """A list ended after 409 of these."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE, name="g") as here,
            await Graph.open("memory:", identity=BOB, name="g") as there,
        ):
            for number in range(600):
                here.list("l").append(number)
                here.list("front").insert(0, number)
                await told(here, ALICE, there)
                there.list("l").append(-number)
                there.list("front").insert(0, -number)
                await told(there, BOB, here)
            expected = [sign * number for number in range(600) for sign in (1, -1)]
            for graph in (here, there):
                assert list(graph.list("l")) == expected
                assert list(graph.list("front")) == expected[::-1]
            assert here.replica.save() == there.replica.save()

    run(main())


def test_lists_before_format_4(tmp_path: Path) -> None:
    """They do nothing any more; what they held can be read, and written into lists."""
    (vector,) = [one for one in VECTORS["frames"] if one["name"] == "a list before format 4"]

    async def main() -> None:
        place = tmp_path / "notes.db"
        async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
            graph.node("page")["k"] = 1
            await graph.commit()
            ops = ops_of(graph.replica.core, bytes.fromhex(vector["author"]), bytes.fromhex(vector["body"]))
            for order in permutations(ops):
                assert dict(merge(order)) == {("todo", ""): ["six eggs", "milk"]}
        with closing(sqlite3.connect(place)) as database:
            database.execute("PRAGMA user_version = 3")
        async with await Graph.open(str(place), identity=ALICE) as graph:
            assert graph.node("page")["k"] == 1
            assert await read_old_lists(graph) == {}
            assert await graph.verify() == 1

    run(main())


def test_lists_as_they_were() -> None:
    now = [1_000.0]

    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE, clock=Clock(lambda: now[0])) as graph:
            items = graph.list("l", "k")
            items.extend(["a", "b"])
            await graph.commit()
            now[0] = 2_000.0
            items.move(0, 1)
            items[0] = "c"
            items.append("waits")
            assert graph.everything("l") == {"k": {"list": ["c", "a", "waits"]}}
            await graph.commit()
            assert (await graph.history.as_of("l", 1_500))["k"]["list"] == ["a", "b"]
            assert (await graph.history.as_of("l", 2_500))["k"]["list"] == ["c", "a", "waits"]
            now[0] = 3_000.0
            await graph.history.restore("l", 1_500)
            assert list(items) == ["a", "b"]
            written = [one.op for one in await graph.history.versions("l", "k")]
            assert [op.kind for op in written] == [Kind.LIST_EDIT] * 3
            assert written[1].value == ["c", "waits"]

    run(main())
