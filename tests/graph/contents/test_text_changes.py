"""Editors follow a text by patches: whoever takes all of them has the text, whatever was made where."""

from __future__ import annotations

import asyncio
import random

import pytest
from graph_fixtures import ALICE, BOB, CAROL, run, told

from dtp.core.sequence import TextRange
from dtp.crdt import SequenceChange
from dtp.graph import Graph


def patched(view: str, change: SequenceChange) -> str:
    for position, deleted, inserted in change.patches:
        assert position + deleted <= len(view)
        view = view[:position] + inserted + view[position + deleted :]
    return view


def test_what_comes_and_what_is_made_here() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as here,
            await Graph.open("memory:", identity=BOB) as there,
        ):
            text = here.text("note")
            text.insert(0, "hello")
            text.end_step()
            with text.changes() as changes:
                text.append(" world")
                await told(here, ALICE, there)
                there.text("note").insert(5, ",")
                await told(there, BOB, here)
                assert await anext(changes) == SequenceChange([(5, 0, " world")], True)
                assert await anext(changes) == SequenceChange([(5, 0, ",")], False)
                text.undo()
                assert await anext(changes) == SequenceChange([(6, 6, "")], True)
                text[0:5] = "hallo"
                assert await anext(changes) == SequenceChange([(1, 1, "a")], True)
                with pytest.raises(TextRange):
                    text.edit([(0, 1, "H"), (99, 1, "")])
                assert await anext(changes) == SequenceChange([(0, 1, "H")], True)
                del text[0]
                assert await anext(changes) == SequenceChange([(0, 1, "")], True)
                text.insert(0, "")
            text.insert(0, "not heard of")
            with pytest.raises(StopAsyncIteration):
                await anext(changes)

    run(main())


def test_it_ends_with_the_graph_and_only_once_all_is_read() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            changes = graph.text("note").changes()
            waiting = asyncio.ensure_future(anext(graph.text("note").changes(), None))
            graph.text("note").insert(0, "x")
            graph.text("note").insert(1, "y")
            assert await waiting == SequenceChange([(0, 0, "x")], True)
        assert [change.patches async for change in changes] == [[(0, 0, "x")], [(1, 0, "y")]]

    run(main())


@pytest.mark.parametrize("seed", range(8))
def test_random_histories(seed: int) -> None:
    """Three people write and sync in any order; each follows its own text by its changes alone."""

    async def main() -> None:
        chosen = random.Random(seed)
        people = [ALICE, BOB, CAROL]
        graphs = [await Graph.open("memory:", identity=one) for one in people]
        followed = [graph.text("note").changes() for graph in graphs]
        for _ in range(300):
            at = chosen.randrange(3)
            text, what = graphs[at].text("note"), chosen.random()
            if what < 0.4:
                text.insert(chosen.randint(0, len(text)), chosen.choice(["a", "bc", "déf", "😀"]))
            elif what < 0.6 and len(text):
                position = chosen.randrange(len(text))
                text.delete(position, chosen.randint(1, min(3, len(text) - position)))
            elif what < 0.7:
                chosen.choice([text.undo, text.redo])()
            elif what < 0.8 and len(text) > 2:
                text.edit([(1, 1, "x"), (0, 0, "yz")])
            else:
                other = chosen.choice([one for one in range(3) if one != at])
                await told(graphs[at], people[at], graphs[other])
        for graph in graphs:
            await graph.close()
        for graph, changes in zip(graphs, followed, strict=True):
            view = ""
            async for change in changes:
                view = patched(view, change)
            assert view == str(graph.text("note")), f"seed {seed}"

    run(main())


def test_a_text_that_is_built_again() -> None:
    """What was let in and is void now goes by a patch, too."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
        ):
            grant = alice.access.grant(BOB.id, "page")
            soul = alice.own("page")
            alice.text(soul).insert(0, "mine. ")
            await told(alice, ALICE, bob)
            bob.text(soul).append("yours.")
            changes = alice.text(soul).changes()
            view = str(alice.text(soul))
            alice.access.revoke(grant)
            await told(bob, BOB, alice)
            assert str(alice.text(soul)) == "mine. "
            changes.close()
            async for change in changes:
                view = patched(view, change)
            assert view == "mine. "

    run(main())
