"""Two histories of one author: whoever has one learns of the other at once, and so does the author."""

from __future__ import annotations

import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgpack
import pytest
from graph_fixtures import ALICE, BOB, CAROL, run

import dtp
from dtp.graph import EnvelopeError, Graph, GraphForked
from dtp.identity import Identity


@asynccontextmanager
async def serving(graph: Graph, client: Identity = ALICE) -> AsyncIterator[dtp.Connection]:
    """A connection of `client` to somebody who serves the graph."""
    name = f"memory://forks-{id(graph)}"
    async with (
        await dtp.listen(name, graph.serve, identity=graph.identity) as listener,
        dtp.connect(listener.address(), identity=client) as connection,
    ):
        yield connection


async def restored(place: Path, frames: int, copied_at: int) -> tuple[Graph, Graph]:
    """Alice's graph after so many commits, and the copy that was made after the first `copied_at` of them."""
    async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
        for number in range(copied_at):
            graph.node("page")["k"] = number
            await graph.commit()
    copy = place.with_name("copy.db")
    shutil.copy(place, copy)
    graph = await Graph.open(str(place), identity=ALICE, name="g")
    for number in range(copied_at, frames):
        graph.node("page")["k"] = f"first {number}"
        await graph.commit()
    other = await Graph.open(str(copy), identity=ALICE, name="g")
    await other.recover()  # what its user says who forgot the first one
    return graph, other


@pytest.mark.parametrize("by_peer", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_a_restored_store_that_writes_learns_of_it_at_the_first_sync(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, frames: int, *, by_peer: bool
) -> None:
    """Whether it wrote as many frames as there were, fewer or more, and whoever dials: both know, with one proof."""
    caplog.set_level(logging.WARNING, logger="dtp.graph")

    async def main() -> None:
        original, copy = await restored(tmp_path / "notes.db", 4, 1)
        async with original, copy, await Graph.open("memory:", identity=BOB, name="g") as bob:
            async with serving(bob) as connection:
                await original.sync(connection)
            for number in range(frames):
                copy.node("page")["k"] = f"second {number}"
                await copy.commit()
            assert copy.failed is None
            if by_peer:
                async with serving(copy, BOB) as connection:
                    await bob.sync(connection)
            else:
                async with serving(bob) as connection:
                    with pytest.raises(GraphForked, match="another identity"):
                        await copy.sync(connection)
            assert isinstance(copy.failed, GraphForked)
            for graph in (bob, copy):
                (proof,) = await graph.frames.proofs()
                assert proof.author == ALICE.id.key
                assert proof.is_valid()
                assert list(graph.forks) == [ALICE.id.key]
            assert "signed what can't both be true" in caplog.text
        async with await Graph.open(str(tmp_path / "copy.db"), identity=ALICE) as again:
            assert isinstance(again.failed, GraphForked)

    run(main())


def test_each_commit_of_a_forked_identity_says_that_others_do_not_take_it(tmp_path: Path) -> None:
    """Also where the loop has signed it before, and where nobody syncs by hand. All is stored, and nothing is said of
    a commit that has nothing new."""

    async def main() -> None:
        original, copy = await restored(tmp_path / "notes.db", 2, 1)
        async with original, await Graph.open("memory:", identity=BOB, name="g") as bob:
            async with serving(bob) as connection:
                await original.sync(connection)
            original.node("other")["x"] = 1
            await original.commit()
            copy.node("page")["k"] = "second"
            async with serving(copy, BOB) as connection:
                await bob.sync(connection)
            assert isinstance(copy.failed, GraphForked)
            await copy.commit()  # nothing was made since
            for number in range(3):
                copy.node("page")["more"] = number
                if number == 1:
                    await copy.files.export(tmp_path / "all.dtpg")  # signs it, and has its own work to do
                with pytest.raises(GraphForked, match="another identity") as caught:
                    await copy.commit()
                assert caught.value.proof is not None
                await copy.commit()
            assert copy.frames.vector()[ALICE.id.key] == 5
            copy.node("page")["more"] = "last"
            with pytest.raises(GraphForked):
                await copy.close()
            await copy.close()
        async with await Graph.open(str(tmp_path / "copy.db"), identity=ALICE) as again:
            assert again.node("page")["more"] == "last"
            done = await again.recover_from(str(tmp_path / "notes.db"))  # who mends it knows
            assert done.ops == 1
            assert isinstance(again.failed, GraphForked)

    run(main())


def test_the_author_hears_of_it_from_whoever_has_the_proof(tmp_path: Path) -> None:
    """Bob has both histories' proof; Alice's first machine, whose history Bob has, asks for nothing and learns it."""

    async def main() -> None:
        original, copy = await restored(tmp_path / "notes.db", 2, 1)
        bob = await Graph.open("memory:", identity=BOB, name="g")
        async with original, copy, bob, serving(bob) as connection:
            await original.sync(connection)
            copy.node("page")["k"] = "second"
            with pytest.raises(GraphForked):
                await copy.sync(connection)
            assert original.failed is None
            with pytest.raises(GraphForked):
                await original.sync(connection)

    run(main())


def test_two_last_frames_are_noticed_by_those_who_have_one_each(tmp_path: Path) -> None:
    """A double vote as the author's last frame: strangers who met different histories find out when they meet."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE, name="g") as left,
            await Graph.open("memory:", identity=ALICE, name="g") as right,
            await Graph.open("memory:", identity=BOB, name="g") as bob,
            await Graph.open("memory:", identity=CAROL, name="g") as carol,
        ):
            for graph, other, vote in ((left, bob, "yes"), (right, carol, "no")):
                graph.node("vote")["alice"] = vote
                await graph.commit()
                await other.receive(await graph.frames.read(ALICE.id.key, 1, 1))
                other.node("seen")[other.identity.id.key.hex()] = vote
            async with serving(carol, BOB) as connection:
                await bob.sync(connection)
            assert set(bob.node("seen")) == set(carol.node("seen"))  # everything else is exchanged
            for graph, vote in ((bob, "yes"), (carol, "no")):
                assert graph.node("vote")["alice"] == vote  # what came first is kept
                assert [one.author for one in await graph.frames.proofs()] == [ALICE.id.key]
                assert graph.failed is None
            async with serving(carol, BOB) as connection:  # and nothing of it goes round and round
                again = await bob.sync(connection)
            assert (again.received, again.sent) == (0, 1)

    run(main())


@pytest.mark.slow
def test_many_authors_with_two_histories_do_not_keep_others_from_syncing() -> None:
    """Vectors that are reconciled tell of other heads at the same sequence, too."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=BOB, name="g") as bob,
            await Graph.open("memory:", identity=CAROL, name="g") as carol,
        ):
            for number in range(520):
                author = Identity(number.to_bytes(32, "big"))
                forked = number in (3, 77, 400)
                async with await Graph.open("memory:", identity=author, name="g") as graph:
                    graph.node(f"n/{number}")["k"] = number
                    await graph.commit()
                    frames = await graph.frames.read(author.id.key, 1, 1)
                await bob.receive(frames)
                if forked:
                    async with await Graph.open("memory:", identity=author, name="g") as graph:
                        graph.node(f"n/{number}")["k"] = "other"
                        await graph.commit()
                        frames = await graph.frames.read(author.id.key, 1, 1)
                await carol.receive(frames)
            carol.node("news")["k"] = 1
            async with serving(carol, BOB) as connection:
                await bob.sync(connection)
            assert bob.node("news")["k"] == 1
            assert len(bob.forks) == len(carol.forks) == 3

    run(main())


def test_a_proof_that_proves_nothing_is_refused_and_one_of_strangers_left() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE, name="g") as graph,
            await Graph.open("memory:", identity=ALICE, name="g") as twin,
            await Graph.open("memory:", identity=BOB, name="g") as bob,
        ):
            for one in (graph, twin):
                for number in range(2):
                    one.node("page")["k"] = f"{number} {one is twin}"
                    await one.commit()
            first, second = await graph.frames.read(ALICE.id.key, 1, 2)
            (other,) = await twin.frames.read(ALICE.id.key, 2, 2)
            await bob.take_proof(second, other)
            assert bob.forks == {}  # nothing of Alice is here: any number of such authors can be made up
            await bob.receive([first, second])
            parts = msgpack.unpackb(other)
            forged = msgpack.packb([*parts[:-1], bytes(64)])
            for pair in ((first, second), (second, second), (second, forged), (b"", b"")):
                with pytest.raises(EnvelopeError):
                    await bob.take_proof(*pair)
            assert await bob.frames.proofs() == []
            await bob.take_proof(second, other)
            (proof,) = await bob.frames.proofs()
            assert proof.is_valid()

    run(main())
