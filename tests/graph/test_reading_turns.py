"""Whatever is read of what was signed, the loop has its turns: a full frame takes a second to read."""

from __future__ import annotations

import pytest
from counting import lines_of_longest_turn
from graph_fixtures import ALICE, BOB, identity, run

from dtp.crdt.permission.owners import owned_soul
from dtp.graph import Graph, Rule, Rules

OPS = 5_000
#: Lines of this package in one turn of the loop. An op takes 10 to read.
MOST = 2_000


@pytest.mark.parametrize("ruled", [False, True])
def test_history(ruled: bool) -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            soul = "page"
            if ruled:
                notes = Rules("note", [Rule(key="*")])
                graph.access.allow(notes)
                soul = notes.soul("page")
            graph.put_many([(soul, str(number), number) for number in range(OPS)])
            await graph.commit()
            assert await lines_of_longest_turn(graph.history.versions(soul)) < MOST
            assert len(await graph.history.versions(soul)) == OPS
            assert await lines_of_longest_turn(graph.history.diff(soul, 0.0, 4e9)) < MOST
            assert len(await graph.history.diff(soul, 0.0, 4e9)) == OPS

    run(main())


def test_words_of_those_who_are_asked() -> None:
    """They wait for what is before them, and are read before that comes."""

    async def main() -> None:
        dave = identity("dave")
        async with (
            await Graph.open("memory:", identity=BOB, name="g") as bob,
            await Graph.open("memory:", identity=dave, name="g") as judge,
        ):
            await judge.admission.set_agreement(1, [BOB.id])
            bob.node("page")["k"] = 0
            await bob.commit()
            bob.put_many([("page", str(number), number) for number in range(OPS)])
            bob.node(owned_soul(BOB.id.key, ".agreed"))[str(ALICE.id)] = [bytes(16)]
            await bob.commit()
            sent = await bob.frames.read(BOB.id.key, 2, bob.frames.vector()[BOB.id.key])
            assert await lines_of_longest_turn(judge.receive(sent)) < MOST
            assert judge.admission.pending_statements.has_agreed(BOB.id.key, ALICE.id.key, bytes(16))

    run(main())
