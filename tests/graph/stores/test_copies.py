"""Copies and backups: nothing is changed in a store that may lack what its identity signed."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from graph_fixtures import ALICE, BOB, run

import dtp
from dtp.graph import Graph, GraphBehind
from dtp.identity import Identity


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What this machine remembers is in a folder of its own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "machine"))
    return tmp_path / "machine"


async def opened(place: Path, who: Identity = ALICE) -> Graph:
    return await Graph.open(str(place), identity=who, name="g")


@asynccontextmanager
async def serving(graph: Graph) -> AsyncIterator[dtp.Connection]:
    name = f"memory://copies-{id(graph)}"
    async with (
        await dtp.listen(name, graph.serve, identity=graph.identity) as listener,
        dtp.connect(listener.address(), identity=ALICE) as connection,
    ):
        yield connection


async def write(place: Path, count: int, peer: Graph | None = None) -> None:
    async with await opened(place) as graph:
        for number in range(count):
            graph.node("page")[f"k{number}"] = number
            await graph.commit()
        if peer is not None:
            async with serving(peer) as connection:
                await graph.sync(connection)


@asynccontextmanager
async def restored(place: Path) -> AsyncIterator[Graph]:
    """Restore a store to where 2 of its 7 frames are in it; give the graph of somebody who has all."""
    backup = place.with_name("backup.db")
    await write(place, 2)
    shutil.copy(place, backup)
    async with await opened(place.with_name("bob.db"), BOB) as bob:
        await write(place, 5, bob)
        shutil.copy(backup, place)
        yield bob


async def refused(place: Path, why: str) -> None:
    async with await opened(place) as graph:
        with pytest.raises(GraphBehind, match=why):
            graph.node("page")["more"] = 1
        assert isinstance(graph.failed, GraphBehind)
        assert dict(graph.node("page"))  # it can be read


async def accepted(place: Path) -> None:
    async with await opened(place) as graph:
        assert graph.failed is None
        graph.node("page")["more"] = 1


def test_a_restored_backup_waits_for_a_peer_and_goes_on_where_it_was(tmp_path: Path) -> None:
    async def main() -> None:
        place = tmp_path / "notes.db"
        async with restored(place) as bob:
            await refused(place, "7 frames in it, and 2 are there: it was restored")
            async with await opened(place) as graph, serving(bob) as connection:
                await graph.sync(connection)
                assert graph.failed is None
                graph.node("page")["more"] = "after"
                await graph.sync(connection)
                assert (
                    dict(bob.node("page"))
                    == dict(graph.node("page"))
                    == {f"k{n}": n for n in range(5)} | {"more": "after"}
                )
                assert not bob.forks
        await accepted(place)

    run(main())


@pytest.mark.parametrize("knows_all", [True, False])
def test_the_last_backup_restored_after_an_older_one_was(tmp_path: Path, knows_all: bool) -> None:
    """It has all that was signed when it was made, and not what was since the older one went on in its place."""

    async def main() -> None:
        place, older, last = (tmp_path / name for name in ("notes.db", "older.db", "last.db"))
        bob_place = tmp_path / "bob.db"
        async with await opened(bob_place, BOB) as bob:
            await write(place, 2, bob)
            shutil.copy(place, older)
            await write(place, 3, bob)
            shutil.copy(place, last)
            shutil.copy(older, place)
            async with await opened(place) as graph, serving(bob) as connection:
                await graph.sync(connection)
                graph.node("page")["since"] = 1
                await graph.commit()
                if knows_all:
                    await graph.sync(connection)
            shutil.copy(last, place)
            await refused(place, "was restored from before another backup")
            async with await opened(place) as graph, serving(bob) as connection:
                await graph.sync(connection)
                assert (
                    graph.failed is None
                ) == knows_all  # else somebody else may know what was signed since
                assert not bob.forks

    run(main())


def test_live_replication_is_enough_too(tmp_path: Path) -> None:
    async def main() -> None:
        place = tmp_path / "notes.db"
        async with restored(place) as bob, await opened(place) as graph, serving(bob) as connection:
            live = asyncio.ensure_future(graph.replicate(connection))
            heard = asyncio.Event()
            graph.listen(heard.set)
            while graph.behind is not None:
                await asyncio.wait({asyncio.ensure_future(heard.wait()), live}, timeout=0.01)
            graph.node("page")["more"] = 1
            live.cancel()

    run(main())


def test_a_peer_that_does_not_know_the_identity_clears_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        place, backup = tmp_path / "notes.db", tmp_path / "backup.db"
        await write(place, 2)
        shutil.copy(place, backup)
        await write(place, 5)
        shutil.copy(backup, place)
        async with await opened(tmp_path / "bob.db", BOB) as bob:
            bob.node("other")["k"] = 1
            async with await opened(place) as graph, serving(bob) as connection:
                await graph.sync(connection)
                assert graph.node("other")["k"] == 1
                assert isinstance(graph.failed, GraphBehind)
                await graph.recover()
                graph.node("page")["more"] = 1
        await accepted(place)

    run(main())


def test_a_peer_that_lacks_what_was_signed_last_clears_nothing(tmp_path: Path) -> None:
    """Others may have it: it would be signed a second time."""

    async def main() -> None:
        place, backup = tmp_path / "notes.db", tmp_path / "backup.db"
        await write(place, 1)
        shutil.copy(place, backup)
        bob_place, all_place = tmp_path / "bob.db", tmp_path / "all.db"
        async with await opened(bob_place, BOB) as bob, await opened(all_place, BOB) as other:
            await write(place, 2, bob)
            await write(place, 2, other)
            shutil.copy(backup, place)
            async with await opened(place) as graph:
                async with serving(bob) as connection:
                    await graph.sync(connection)
                with pytest.raises(GraphBehind, match="signed 5 frames in it, and 3 are there"):
                    graph.node("page")["more"] = 1
                async with serving(other) as connection:
                    await graph.sync(connection)
                assert graph.failed is None
                graph.node("page")["more"] = 1

    run(main())


def test_a_restored_backup_signs_again_as_soon_as_a_peer_has_synced_with_it(tmp_path: Path) -> None:
    """Which the peer began, and says it is done: it hangs up then."""

    async def main() -> None:
        place = tmp_path / "notes.db"
        async with (
            restored(place) as bob,
            await opened(place) as graph,
            await dtp.listen("memory://restored", graph.serve, identity=ALICE) as listener,
            dtp.connect(listener.address(), identity=BOB) as connection,
        ):
            await bob.sync(connection)
            assert graph.failed is None
            graph.node("page")["more"] = 1

    run(main())


def test_a_copy_beside_the_file_is_told_from_it(tmp_path: Path) -> None:
    async def main() -> None:
        place, copy = tmp_path / "notes.db", tmp_path / "copy.db"
        await write(place, 2)
        shutil.copy(place, copy)
        await refused(copy, "it is a copy of .*notes.db, which is still there")
        await accepted(place)
        async with await opened(copy) as graph:
            await graph.recover()
        await accepted(copy)
        await accepted(place)

    run(main())


def test_a_copy_on_another_machine_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        place, copy = tmp_path / "notes.db", tmp_path / "elsewhere.db"
        await write(place, 2)
        shutil.copy(place, copy)
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "another machine"))
        await refused(copy, "it is a copy, or was restored on another machine")
        async with await opened(copy, BOB) as graph:  # somebody who has signed nothing in it may write
            graph.node("page")["bob"] = 1

    run(main())


def test_a_file_that_was_moved_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        place, there = tmp_path / "notes.db", tmp_path / "folder" / "there.db"
        await write(place, 2)
        there.parent.mkdir()
        place.rename(there)
        await accepted(there)
        shutil.copy(there, place)  # to another file system
        there.unlink()
        await accepted(place)

    run(main())


def test_nothing_remembered_is_no_reason_to_refuse_the_same_file(tmp_path: Path, machine: Path) -> None:
    """A container begins with an empty home each time, and its volume has the file."""

    async def main() -> None:
        place = tmp_path / "notes.db"
        await write(place, 2)
        shutil.rmtree(machine)
        await accepted(place)
        shutil.rmtree(machine)
        os.close(os.open(machine, os.O_CREAT))  # nothing can be written there
        await accepted(place)

    run(main())


def test_what_is_remembered_survives_a_kill(tmp_path: Path, machine: Path) -> None:
    async def main() -> None:
        place, killed = tmp_path / "notes.db", tmp_path / "killed"
        await write(place, 1)
        backup = tmp_path / "backup.db"
        shutil.copy(place, backup)
        async with await opened(place) as graph:
            for number in range(3):
                graph.node("page")["more"] = number
                await graph.commit()
            shutil.copytree(machine, killed)  # as it is at that moment
        shutil.rmtree(machine)
        killed.rename(machine)
        shutil.copy(backup, place)
        await refused(place, "4 frames in it, and 1 are there")

    run(main())
