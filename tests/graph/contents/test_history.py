"""What was: versions of a node, its state at a time, files that carry a graph, and checking a store."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB

from dtp.crdt import Clock, Kind, values
from dtp.crdt.replica import owner_name
from dtp.graph import Graph, GraphError, StoreError
from dtp.graph.formats import files
from dtp.graph.stores.sqlite_format import frame_sum


def test_versions_of_a_node_and_going_back() -> None:
    wall = [1_000.0]

    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE, clock=Clock(lambda: wall[0])) as graph:
            page = graph.node("page/1")
            page["title"] = "Draft"
            page["body"] = "hello"
            wall[0] = 1_010.0
            page["title"] = "Final"
            del page["body"]
            page["tags"] = None
            graph.node("page/2")["title"] = "another"
            graph.set("page/1", "links").add("x")
            versions = await graph.history.versions("page/1", "title")
            shown = [(v.op.value, v.before, v.had_value, v.when, v.sequence) for v in versions]
            assert shown == [("Draft", None, False, 1_000.0, 1), ("Final", "Draft", True, 1_010.0, 1)]
            assert {v.op.author for v in versions} == {ALICE.id.key}
            everything = await graph.history.versions("page/1")
            assert [v.op.kind for v in everything].count(Kind.SET_ADD) == 1
            gone = next(v for v in everything if v.op.key == "body" and not v.op.has_value)
            assert (gone.before, gone.had_value) == ("hello", True)
            assert await graph.history.as_of("page/1", 1_005.0) == {
                "title": {"register": "Draft"},
                "body": {"register": "hello"},
            }
            assert await graph.history.as_of("page/1", 999.0) == {}
            assert await graph.history.diff("page/1", 1_005.0, 1_010.0) == {
                "body": {"register": ("hello", None, True, False)},
                "links": {"set": (None, ["x"], False, True)},
                "tags": {"register": (None, None, False, True)},
                "title": {"register": ("Draft", "Final", True, True)},
            }
            assert await graph.history.diff("page/1", 1_001.0, 1_005.0) == {}
            await graph.history.restore("page/1", 1_005.0)
            assert page.to_dict() == {"title": "Draft", "body": "hello"}
            assert list(graph.set("page/1", "links")) == []
            assert graph.frames.vector() == {ALICE.id.key: 2}

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(8))
def test_a_time_of_all_types_is_what_was_there_then(seed: int) -> None:
    """Two people change everything at random; each moment that was looked at comes back, and can be restored. What is
    empty, or at its beginning again, isn't there, as then."""
    wall = [1_000.0]
    rng = random.Random(seed)

    def change(graph: Graph) -> None:
        what = rng.randrange(8)
        if what == 0:
            graph.node("p")[rng.choice("ab")] = rng.choice([1, None, "x", [1]])
        elif what == 1:
            graph.node("p").pop(rng.choice("ab"), None)
        elif what == 2:
            graph.counter("p", "n").add(rng.randrange(-3, 4))
        elif what == 3:
            graph.set("p", "s").add(rng.randrange(4))
        elif what == 4:
            graph.set("p", "s").discard(rng.randrange(4))
        elif what == 5:
            value = graph.multi_value("p", "v")
            value.clear() if rng.random() < 0.2 else value.set(rng.randrange(9))
        elif what == 6:
            items = graph.list("p", "l")
            if len(items) < 2 or rng.random() < 0.5:
                items.insert(rng.randrange(len(items) + 1), rng.randrange(9))
            elif rng.random() < 0.5:
                items.move(rng.randrange(len(items)), rng.randrange(len(items)))
            else:
                del items[rng.randrange(len(items))]
        else:
            text = graph.text("p", "t")
            at = rng.randrange(len(text) + 1)
            text.edit([(at, min(3, len(text) - at), rng.choice(["", "", "abc", "é"]))])

    async def main() -> None:
        clock = Clock(lambda: wall[0])
        async with (
            await Graph.open("memory:", identity=ALICE, clock=clock) as one,
            await Graph.open("memory:", identity=BOB, clock=clock) as other,
        ):
            moments = []
            for _ in range(25):
                wall[0] += 1
                for graph in (one, other):
                    for _ in range(3):
                        change(graph)
                    await graph.commit()
                await one.receive(await other.frames.read(BOB.id.key, 1, 99))
                await other.receive(await one.frames.read(ALICE.id.key, 1, 99))
                now = one.everything("p")
                assert now == other.everything("p")
                moments.append((wall[0] + 0.5, now))
            for seconds, then in moments:
                assert await one.history.as_of("p", seconds) == then
            (first, before), (last, after) = moments[4], moments[-1]
            assert await one.history.diff("p", last, last) == {}
            differing = await one.history.diff("p", first, last)
            assert {(key, kind) for key, kinds in differing.items() for kind in kinds} == {
                (key, kind)
                for key in before | after
                for kind in before.get(key, {}) | after.get(key, {})
                if before.get(key, {}).get(kind, "gone") != after.get(key, {}).get(kind, "gone")
            }
            wall[0] += 10
            await one.history.restore("p", first)
            assert one.everything("p") == before
            wall[0] += 10
            await one.history.restore("p", last)
            assert one.everything("p").get("t") == after.get("t")

    asyncio.run(main())


def test_what_was_typed_is_there_before_it_is_committed() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            graph.text("note", "body").insert(0, "hello")
            assert graph.everything("note") == {"body": {"text": "hello"}}
            await graph.commit()
            graph.text("note", "body").insert(5, "!")
            assert graph.everything("note") == {"body": {"text": "hello!"}}

    asyncio.run(main())


def test_what_others_wrote_into_an_owned_soul_is_in_no_history() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            one.node(one.own("page"))["k"] = "mine"
            await one.commit()
            name = owner_name(ALICE.id.key).encode()
            other.replica.core.set_owner(0, name)  # as software would that doesn't care
            other.node("free")["k"] = 1
            other.replica.core.put_registers(values.encode_rows([(one.own("page"), "k", "forged")]), 1 << 16)
            await other.commit()
            await one.receive(await other.frames.read(BOB.id.key, 1, 1))
            assert one.node("free")["k"] == 1
            assert one.node(one.own("page"))["k"] == "mine"
            assert [v.op.value for v in await one.history.versions(one.own("page"))] == ["mine"]

    asyncio.run(main())


def test_a_graph_as_a_file(tmp_path: Path) -> None:
    file = tmp_path / "graph.dtpg"

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            for number in range(600):
                one.node("a")[f"k{number}"] = number
                await one.commit()
            one.text("note").insert(0, "hello")
            assert await one.files.export(file) == 601
            assert await other.files.import_file(file) == 601
            assert await other.files.import_file(file) == 0
            assert other.replica.save() == one.replica.save()
            assert str(other.text("note")) == "hello"
            with pytest.raises(StoreError):
                await one.files.export(tmp_path / "no" / "folder")
            with pytest.raises(StoreError):
                await one.files.import_file(tmp_path / "none")

    asyncio.run(main())
    assert [path.name for path in tmp_path.iterdir()] == ["graph.dtpg"]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_killed_while_exporting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """What was at the target before is there still, whole."""
    file = tmp_path / "graph.dtpg"

    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            one.node("a")["k"] = 1
            await one.files.export(file)
            one.node("a")["k"] = 2
            with monkeypatch.context() as patched:
                if step == "write":
                    patched.setattr(files, "_write_all", killed)
                else:
                    patched.setattr(os, step, killed)
                with pytest.raises(Killed):
                    await one.files.export(file)
            assert await other.files.import_file(file) == 1
            assert other.node("a")["k"] == 1
            await one.files.export(file)
            assert await other.files.import_file(file) == 1

    asyncio.run(main())
    assert [path.name for path in tmp_path.iterdir()] == ["graph.dtpg"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_file_gives_nothing(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "graph.dtpg"

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            one.node("a")["k"] = 1
            await one.files.export(file)
            data = bytearray(file.read_bytes())
            if damage == "flip":
                data[20] ^= 1
            kept: bytes = {"cut": bytes(data[:-5]), "flip": bytes(data), "empty": b"", "other": b"x" * 100}[
                damage
            ]
            file.write_bytes(kept)
            with pytest.raises(GraphError):
                await other.files.import_file(file)
            assert other.frames.vector() == {}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        (None, None),
        ("DELETE FROM frames WHERE sequence = 2", "missing"),
        (
            "UPDATE frames SET (envelope, sum) = (SELECT envelope, frame_sum((SELECT key FROM authors), 2, envelope) "
            "FROM frames WHERE sequence = 1) WHERE sequence = 2",
            "signed there",
        ),
    ],
)
def test_checking_a_store(tmp_path: Path, statement: str | None, fault: str | None) -> None:
    path = str(tmp_path / "notes.db")

    async def write() -> None:
        async with await Graph.open(path, identity=ALICE) as graph:
            for number in range(3):
                graph.node("a")["k"] = number
                await graph.commit()

    async def check() -> Any:
        async with await Graph.open(path, identity=BOB) as graph:
            return await graph.verify()

    asyncio.run(write())
    if statement is None:
        assert asyncio.run(check()) == 3
        return
    db = sqlite3.connect(path)
    db.create_function("frame_sum", 3, frame_sum)
    db.execute(statement)
    db.commit()
    db.close()
    with pytest.raises(StoreError, match=fault):
        asyncio.run(check())
