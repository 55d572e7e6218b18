"""After a revocation a graph is what its frames say, from the kept state on or from the first frame."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB, CAROL, told

from dtp.core.errors import NotOwner
from dtp.graph import Graph
from dtp.graph.stores import loading


def replayed(graph: Graph) -> bytes:
    """The state that the stored frames alone give, taken until nothing in it is void."""
    replica = graph.replica.empty_copy()
    loading.merge_all_stored(graph.frames.store, replica)
    while replica.must_rebuild:
        fresh = replica.empty_copy()
        loading.merge_all_stored(graph.frames.store, fresh)
        replica = fresh
    return replica.save()


def unread(*_: Any) -> None:
    raise AssertionError("all frames were taken again")


@pytest.mark.parametrize("kept", ["before", "after", "never"])
def test_what_was_let_in_since_the_state_was_kept_is_taken_back_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    async def main() -> None:
        path = str(tmp_path / "carol.db")
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
        ):
            board = alice.own("board")
            grant = alice.access.grant(BOB.id, "board")
            for graph in (alice, bob):
                graph.text("t").insert(0, "typed")
            await told(alice, ALICE, bob)
            bob.node(board)["early"] = 1
            await told(bob, BOB, alice)
            carol = await Graph.open(path, identity=CAROL)

            async def kept_now(when: str) -> Graph:
                if kept != when:
                    return carol
                await carol.close()
                return await Graph.open(path, identity=CAROL)

            await told(alice, ALICE, carol)
            await told(bob, BOB, carol)
            carol = await kept_now("before")
            bob.node(board)["late"] = 2
            bob.node("free")["k"] = 3
            await told(bob, BOB, carol)
            carol = await kept_now("after")
            alice.access.revoke(grant)
            if kept == "before":
                monkeypatch.setattr(loading, "merge_all_stored", unread)
            await told(alice, ALICE, carol)
            monkeypatch.undo()
            assert carol.node(board).to_dict() == {"early": 1}
            assert carol.replica.get("free", "k") == 3
            assert carol.replica.save() == replayed(carol)
            await told(bob, BOB, alice)
            assert alice.replica.save() == carol.replica.save()
            await carol.close()
            async with await Graph.open(path, identity=CAROL) as carol:
                assert carol.replica.save() == alice.replica.save()

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(12))
def test_random_revocations(tmp_path: Path, seed: int) -> None:
    """A store that is closed and opened again between, and one in memory that takes all frames again each time."""

    async def main() -> None:
        rng, path = random.Random(seed), str(tmp_path / "carol.db")
        grants: list[Any] = []
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
            await Graph.open("memory:", identity=ALICE) as memory,
        ):
            carol = await Graph.open(path, identity=CAROL)
            for number in range(40):
                match rng.randrange(7):
                    case 0:
                        grants.append(alice.access.grant(BOB.id, rng.choice(["a", "b", ""])))
                        await told(alice, ALICE, bob)
                    case 1 if grants:
                        alice.access.revoke(grants.pop(rng.randrange(len(grants))))
                    case 2 | 3 if grants:
                        soul = alice.own(rng.choice(["a", "b"]))
                        with contextlib.suppress(NotOwner):
                            bob.node(soul)[rng.choice("xy")] = number
                            bob.text(soul, "t").insert(0, "w")
                    case 4:
                        alice.node(alice.own("a"))["x"] = number
                        bob.set("s").add(number)
                    case 5:
                        await carol.close()
                        carol = await Graph.open(path, identity=CAROL)
                    case _:
                        await told(bob, BOB, carol)
                        await told(alice, ALICE, carol)
                        if rng.random() < 0.3:
                            await told(bob, BOB, alice)
                assert carol.replica.save() == replayed(carol)
            await told(alice, ALICE, bob)
            await told(bob, BOB, alice)
            for graph in (carol, memory):
                await told(bob, BOB, graph)
                await told(alice, ALICE, graph)
            assert carol.replica.save() == memory.replica.save() == replayed(carol)
            await carol.close()

    asyncio.run(main())
