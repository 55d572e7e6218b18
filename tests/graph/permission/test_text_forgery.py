"""Edits of texts under signatures: those in another's name are refused by everyone; copies of a file don't mix."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from graph_fixtures import ALICE, BOB, CAROL, run

from dtp.core import crdt as core
from dtp.core.crdt import GraphCore
from dtp.core.errors import EncodingError
from dtp.crdt import values
from dtp.crdt.text import Text
from dtp.graph import Equivocation, Graph
from dtp.graph.frames import envelope as envelopes
from dtp.identity import Identity


async def everything(graph: Graph, author: Identity) -> list[bytes]:
    return await graph.frames.read(author.id.key, 1, graph.frames.vector().get(author.id.key, 0))


def forged(seen: bytes) -> bytes:
    """Bob's signature over a frame in which Alice takes back what she wrote (`seen`), and writes something else."""
    as_alice = Text(ALICE.id.key + b"replica1")
    as_alice.merge(seen)
    as_alice.delete(0, len(as_alice))
    as_alice.insert(0, "I owe Bob 1,000")
    maker = GraphCore(BOB.id.key)
    edit = values.encode(as_alice.take_changes())
    maker.write_op(core.TEXT_EDIT, b"note", b"", 1 << 16, value=edit)
    maker.put_registers(values.encode_rows([("note", "title", "taken")]), 1 << 16)
    made = maker.commit()
    assert made is not None
    return envelopes.sign_frame(BOB, "", 1, envelopes.NONE_BEFORE, made[0]).encode()


def test_bob_can_not_write_as_alice() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=CAROL) as carol,
        ):
            alice.text("note").insert(0, "hello")
            await alice.commit()
            await carol.receive(await everything(alice, ALICE))
            states = alice.replica.save(), carol.replica.save()
            evil = forged(alice.text("note").save())
            for one in (alice, carol):
                with pytest.raises(EncodingError):
                    await one.receive([evil])
                assert str(one.text("note")) == "hello"
                assert "title" not in one.node("note")
                assert one.frames.vector() == {ALICE.id.key: 1}  # nobody stores it, or passes it on
                assert await one.verify() == 1
            assert (alice.replica.save(), carol.replica.save()) == states
            async with await Graph.open("memory:", identity=BOB) as bob:  # his honest frames are taken
                await bob.receive(await everything(alice, ALICE))
                bob.text("note").append("!")
                await bob.commit()
                for one in (alice, carol):
                    assert await one.receive(await everything(bob, BOB)) == 1
                    assert str(one.text("note")) == "hello!"

    run(main())


def test_a_copied_file_is_written_on_in_turns(tmp_path: Path) -> None:
    """Two devices of one identity that take turns, and see each other's frames first."""
    here, there = str(tmp_path / "here.db"), str(tmp_path / "there.db")

    async def begin() -> None:
        async with await Graph.open(here, identity=ALICE) as graph:
            graph.text("note").insert(0, "one")
        shutil.copy(here, there)

    async def turns() -> None:
        async with await Graph.open(here, identity=ALICE) as graph:
            graph.text("note").append(" two")
            await graph.commit()
            made = await everything(graph, ALICE)
        async with await Graph.open(there, identity=ALICE) as other:
            opened = other.text("note")
            await other.recover()
            assert await other.receive(made) == 1
            opened.append(" three")
            await other.commit()
            made = await everything(other, ALICE)
            async with await Graph.open(here, identity=ALICE) as graph:
                assert await graph.receive(made) == 1
                assert str(graph.text("note")) == str(opened) == "one two three"
                assert graph.replica.save() == other.replica.save()
                assert (
                    len(graph.text("note").version) == 3
                )  # an agent for each time it was opened and written

    run(begin())
    run(turns())


def test_copies_that_write_at_once_are_a_fork_that_shows_and_texts_stay_alike(tmp_path: Path) -> None:
    """All who have the same frames have the same text; who has the other half holds the proof."""

    async def main() -> None:
        here, there = str(tmp_path / "here.db"), str(tmp_path / "there.db")
        async with await Graph.open(here, identity=ALICE) as graph:
            graph.text("note").insert(0, "one")
        shutil.copy(here, there)
        halves = []
        for path, word in ((here, " two"), (there, " three")):
            async with await Graph.open(path, identity=ALICE) as graph:
                await graph.recover()
                graph.text("note").append(word)
                await graph.commit()
                halves.append(await everything(graph, ALICE))
        one, other = halves
        for first, second, text in ((one, other, "one two"), (other, one, "one three")):
            async with await Graph.open("memory:", identity=BOB) as bob:
                await bob.receive(first)
                with pytest.raises(Equivocation):
                    await bob.receive(second)
                assert str(bob.text("note")) == text
                (proof,) = await bob.frames.proofs()
                assert proof.is_valid()
                assert proof.author == ALICE.id.key

    run(main())
