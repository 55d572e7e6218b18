"""Reading a store beside the program that has it: one moment, whole, and nothing is changed."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB, CAROL
from postgres import server

from dtp.graph import Graph, GraphReadOnly, StoreError


def files_in(folder: Path) -> dict[str, bytes]:
    """All that is below a folder."""
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


async def reading(place: str | Path, name: str | None = None) -> Graph:
    return await Graph.open(str(place), identity=BOB, name=name, read_only=True)


async def fill(graph: Graph) -> None:
    graph.node("page/1")["title"] = "Draft"
    graph.counter("page/1", "seen").add(2)
    graph.text("page/1", "body").insert(0, "hello")
    graph.list("page/1", "tags").extend(["a", 1])
    await graph.commit()


def test_what_was_stored_is_read_beside_its_program(tmp_path: Path) -> None:
    place = str(tmp_path / "notes.db")

    async def main() -> None:
        async with await Graph.open(place, identity=ALICE, name="notes") as graph:
            await fill(graph)
            async with await reading(place) as beside:
                assert beside.name == "notes"
                assert beside.everything("page/1") == graph.everything("page/1")
                graph.node("page/1")["title"] = "Final"
                await graph.commit()
                assert beside.node("page/1")["title"] == "Draft"
                assert [one.op.value for one in await beside.history.versions("page/1", "title")] == ["Draft"]
                assert await beside.verify() == 2  # what is stored now
                async with await reading(place) as later:
                    assert later.node("page/1")["title"] == "Final"
                    assert await later.files.export(tmp_path / "notes.dtpg") == 2
        async with await reading(place) as alone:
            assert alone.node("page/1")["title"] == "Final"

    asyncio.run(main())
    assert sorted(one.name for one in tmp_path.iterdir()) == ["notes.db", "notes.dtpg"]


Attempt = Callable[[Graph], Awaitable[Any]]


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param(lambda graph: _now(graph.node("a").__setitem__, "k", 1), id="put"),
        pytest.param(lambda graph: _now(graph.put_many, [("a", "k", 1)]), id="put_many"),
        pytest.param(lambda graph: _now(graph.counter("a").add, 1), id="counter"),
        pytest.param(lambda graph: _now(graph.set("a").add, 1), id="set"),
        pytest.param(lambda graph: _now(graph.list("page/1", "tags").append, 1), id="list"),
        pytest.param(lambda graph: _now(graph.text("page/1", "body").insert, 0, "x"), id="text"),
        pytest.param(lambda graph: _now(graph.access.publish_key), id="publish_key"),
        pytest.param(lambda graph: graph.recover(), id="recover"),
        pytest.param(lambda graph: graph.receive([]), id="receive"),
        pytest.param(lambda graph: graph.blobs.add(b"x"), id="add_blob"),
        pytest.param(lambda graph: graph.blobs.collect(), id="collect_blobs"),
        pytest.param(lambda graph: graph.upkeep.compact(), id="compact"),
        pytest.param(lambda graph: graph.history.restore("page/1", 0), id="restore"),
        pytest.param(lambda graph: graph.verify(repair=True), id="repair"),
        pytest.param(lambda graph: graph.take_proof(b"", b""), id="take_proof"),
    ],
)
def test_nothing_is_changed(tmp_path: Path, attempt: Attempt) -> None:
    place = tmp_path / "notes.db"

    async def main() -> None:
        async with await Graph.open(str(place), identity=ALICE) as graph:
            await fill(graph)
        before = files_in(tmp_path)
        async with await reading(place) as beside:
            shown = beside.everything("page/1")
            with pytest.raises(GraphReadOnly, match="read_only"):
                await attempt(beside)
            assert beside.everything("page/1") == shown
        assert files_in(tmp_path) == before

    asyncio.run(main())


async def _now(change: Callable[..., object], *arguments: object) -> None:
    change(*arguments)


def test_peers_are_neither_asked_nor_served(tmp_path: Path) -> None:
    place = tmp_path / "notes.db"

    async def main() -> None:
        async with await Graph.open(str(place), identity=ALICE) as graph:
            await fill(graph)
        async with await reading(place) as beside:
            connection: Any = None
            for exchange in (beside.sync, beside.replicate, beside.serve, beside.keep_replicating):
                with pytest.raises(GraphReadOnly):
                    await exchange(connection)

    asyncio.run(main())


def test_one_program_at_a_time_writes(tmp_path: Path) -> None:
    place = str(tmp_path / "notes.db")

    async def main() -> None:
        async with await Graph.open(place, identity=ALICE) as graph:
            for who in (ALICE, BOB):
                with pytest.raises(StoreError, match="another process has it"):
                    await Graph.open(place, identity=who)
            await fill(graph)
        async with await Graph.open(place, identity=BOB) as graph:
            assert graph.node("page/1")["title"] == "Draft"
        with pytest.raises(StoreError, match="no graph"):
            await reading(tmp_path / "none.db")
        for reads in (reading(place, "other"), Graph.open(place, identity=BOB, name="other")):
            with pytest.raises(
                StoreError, match="without a name, and one named 'other' was asked for: give no"
            ):
                await reads
        (tmp_path / "no.db").write_bytes(b"something else" * 99)
        with pytest.raises(StoreError, match=r"no\.db"):
            await reading(tmp_path / "no.db")

    asyncio.run(main())
    assert sorted(one.name for one in tmp_path.iterdir()) == ["no.db", "notes.db"]


WRITER = """
import asyncio, sys
from graph_fixtures import identity
from dtp.graph import Graph

async def main():
    graph = await Graph.open(sys.argv[1], identity=identity("alice"))
    number = graph.node("a").get("made", 0)
    while number < int(sys.argv[2]):
        number += 1
        graph.node("a")["made"] = number
        graph.counter("a").add(1)
        graph.list("a").append(number)
        await graph.commit()
        if number % 7 == 0:
            graph.commits.note_taken(1 << 30)  # keep the state often: that is a write, too
        print(number, flush=True)
    sys.stdin.read()
asyncio.run(main())
"""


def writer(place: str | Path, count: int) -> subprocess.Popen[str]:
    """A program that writes so often, and waits then, still open, until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", WRITER, str(place), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "", "HOME": str(Path(place).parent)},
    )


def killed_after(place: Path, count: int) -> None:
    """Leave a file as a program does that is killed."""
    with writer(place, count) as child:
        assert child.stdout is not None
        for _ in range(count):
            child.stdout.readline()
        child.kill()


async def made_at_least(place: str | Path, told: int) -> int:
    async with await reading(place) as beside:
        made = beside.node("a").get("made", 0)
        assert list(beside.list("a")) == list(range(1, made + 1))
        assert beside.counter("a").value == made >= told
        return int(made)


def test_each_reading_is_of_one_moment(tmp_path: Path) -> None:
    place = tmp_path / "notes.db"
    with writer(place, 150) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        told = 0
        seen = set()
        while told < 150:
            told = int(child.stdout.readline())
            if told % 10 == 0:
                seen.add(asyncio.run(made_at_least(place, told)))
        assert asyncio.run(made_at_least(place, 150)) == 150
        child.stdin.close()
        assert child.wait(30) == 0
    assert len(seen) > 1  # how many depends on how quick the readers are


def test_what_a_killed_program_left_is_read_and_left(tmp_path: Path) -> None:
    place = tmp_path / "notes.db"
    killed_after(place, 20)
    before = place.read_bytes(), Path(f"{place}-wal").read_bytes()
    assert asyncio.run(made_at_least(place, 20)) == 20
    assert (place.read_bytes(), Path(f"{place}-wal").read_bytes()) == before
    with writer(place, 25) as child:
        assert child.communicate("")[0].splitlines() == ["21", "22", "23", "24", "25"]
    assert asyncio.run(made_at_least(place, 25)) == 25


def test_damage_is_told_and_nothing_wrong_is_shown(tmp_path: Path) -> None:
    """A byte of what a killed program left is another: all is as it was, or it is told."""
    place = tmp_path / "notes.db"
    killed_after(place, 20)
    whole = {end: Path(f"{place}{end}").read_bytes() for end in ("", "-wal")}
    rng = random.Random(7)
    told = 0
    for _ in range(40):
        end = rng.choice(list(whole))
        data = bytearray(whole[end])
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        for name, kept in whole.items():
            Path(f"{place}{name}").write_bytes(data if name == end else kept)
        Path(f"{place}-shm").unlink(missing_ok=True)
        try:
            assert asyncio.run(made_at_least(place, 20)) == 20
        except StoreError:
            told += 1
        assert sorted(one.name for one in tmp_path.glob("notes.db*damaged*")) == []
    assert told > 10


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0, reason="takes root, to be somebody who may not write"
)
def test_where_nobody_can_write_it_is_read_too() -> None:
    async def make(place: str) -> None:
        async with await Graph.open(place, identity=ALICE) as graph:
            await fill(graph)

    async def look(place: str) -> Any:
        async with await reading(place) as beside:
            return beside.node("page/1")["title"]

    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / "notes.db")
        asyncio.run(make(place))
        os.chmod(place, 0o444)
        os.chmod(folder, 0o555)
        os.seteuid(65534)
        try:
            assert asyncio.run(look(place)) == "Draft"
        finally:
            os.seteuid(0)
        assert [one.name for one in Path(folder).iterdir()] == ["notes.db"]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with server() as url:
        yield url


def test_postgresql_is_read_beside_its_programs(postgres: str) -> None:
    import psycopg

    async def main() -> None:
        with pytest.raises(StoreError, match="no graph"):
            await reading(postgres)
        async with await Graph.open(postgres, identity=ALICE) as graph:
            await fill(graph)
            with pytest.raises(StoreError, match="no graph 'other'"):
                await reading(postgres, "other")
            async with (
                await reading(postgres) as beside,
                await reading(postgres) as another,  # as the same identity
                await Graph.open(postgres, identity=CAROL) as third,
            ):
                third.node("page/1")["title"] = "Final"
                await third.commit()
                assert beside.everything("page/1")["title"] == {"register": "Draft"}
                assert another.souls() == ["page/1"]
                with pytest.raises(GraphReadOnly):
                    beside.node("page/1")["title"] = "x"
                with pytest.raises(GraphReadOnly):
                    await beside.receive([])
            async with await reading(postgres) as later:
                assert later.node("page/1")["title"] == "Final"
        with psycopg.connect(postgres) as database:
            locks = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory'"
            assert database.execute(locks).fetchone() == (0,)

    asyncio.run(main())
