"""What was emptied or deleted is listed nowhere, and comes back whole when somebody writes there again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB, told
from hypothesis import given, settings
from hypothesis import strategies as st

from dtp.core.errors import NotOwner
from dtp.crdt import Replica
from dtp.crdt.permission.rules import Rule, RuleBroken, Rules
from dtp.graph import Graph

Write = Callable[[Graph], object]
#: A type -> what puts something there, what empties it again.
TYPES: dict[str, tuple[Write, Write]] = {
    "register": (
        lambda graph: graph.node("n").update(k=1),
        lambda graph: graph.node("n").pop("k"),
    ),
    "link": (
        lambda graph: graph.node("n").link("to", "m"),
        lambda graph: graph.node("n").unlink("to", "m"),
    ),
    "counter": (lambda graph: graph.counter("n").add(5), lambda graph: graph.counter("n").add(-5)),
    "set": (lambda graph: graph.set("n").add("a"), lambda graph: graph.set("n").clear()),
    "map": (lambda graph: graph.map("n").update(k=1), lambda graph: graph.map("n").clear()),
    "values": (lambda graph: graph.multi_value("n").set(1), lambda graph: graph.multi_value("n").clear()),
    "list": (lambda graph: graph.list("n").extend([1, 2]), lambda graph: graph.list("n").clear()),
    "text": (lambda graph: graph.text("n").insert(0, "ab"), lambda graph: graph.text("n").delete(0, 2)),
}


def seen(graph: Graph) -> tuple[Any, ...]:
    found = graph.query("MATCH (n) RETURN id(n)")
    return graph.souls(), graph.everything("n"), [row["id(n)"] for row in found]


@pytest.mark.parametrize("kind", TYPES)
def test_what_is_emptied_is_listed_nowhere(kind: str, tmp_path: Path) -> None:
    fill, clear = TYPES[kind]

    async def main() -> None:
        path = str(tmp_path / "a.db")
        async with (
            await Graph.open(path, identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
        ):
            for _ in range(2):
                fill(alice)
                await told(alice, ALICE, bob)
                for graph in (alice, bob):
                    assert graph.souls() == ["n"]
                    assert seen(graph)[1]
                clear(alice)
                assert (alice.souls(), alice.everything("n")) == ([], {})
                await told(alice, ALICE, bob)
                assert seen(alice) == seen(bob) == ([], {}, [])
            state = alice.replica.save()
            assert bob.replica.save() == state
            assert Replica.load(ALICE.id.key, state).souls() == []
        async with await Graph.open(path, identity=ALICE) as alice:
            assert seen(alice) == ([], {}, [])
            assert alice.replica.save() == state
            fill(alice)
            await alice.commit()
            assert alice.souls() == ["n"]

    asyncio.run(main())


@pytest.mark.parametrize("ours", TYPES)
def test_what_others_write_meanwhile_stays(ours: str) -> None:
    """Who deletes a node takes away what it has seen."""
    fill, _ = TYPES[ours]

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
        ):
            for one, _ in TYPES.values():
                one(alice)
            await told(alice, ALICE, bob)
            if ours != "register":  # of which the last one to write wins
                fill(bob)
            assert alice.delete("n")
            assert not alice.delete("n")
            assert not alice.delete("never")
            await told(alice, ALICE, bob)
            await told(bob, BOB, alice)
            assert alice.replica.save() == bob.replica.save()
            assert alice.souls() == bob.souls() == ([] if ours == "register" else ["n"])

    asyncio.run(main())


def test_deleting_is_whole() -> None:
    """Where rules let some of it go and some not, nothing goes; nor where all is somebody else's."""
    rules = Rules("note", [Rule(path="*", key="kept", removes="nothing"), Rule(path="*")])

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
        ):
            alice.access.allow(rules)
            soul = rules.soul("1")
            alice.node(soul).update(kept=1, other=2)
            with pytest.raises(RuleBroken):
                alice.delete(soul)
            assert alice.everything(soul).keys() == {"kept", "other"}
            alice.node(alice.own("mine"))["k"] = 1
            alice.text(alice.own("mine")).insert(0, "typed")
            await told(alice, ALICE, bob)
            with pytest.raises(NotOwner):
                bob.delete(alice.own("mine"))
            assert alice.delete(alice.own("mine"))
            assert alice.souls("~") == []

    asyncio.run(main())


def test_what_is_typed_and_not_committed_is_listed() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            for soul, edited in (("n/text", graph.text("n/text")), ("n/list", graph.list("n/list"))):
                edited.extend("ab") if soul == "n/list" else edited.insert(0, "ab")
                assert graph.souls() == graph.souls("n/") == [soul]
                assert graph.souls("m/") == []
                await graph.commit()
                del edited[:]
                assert graph.souls() == []
                edited.insert(0, "c")
                assert graph.souls() == [soul]
                del edited[:]

    asyncio.run(main())


def test_what_is_typed_and_not_committed_is_deleted() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as alice:
            alice.text("n").insert(0, "typed")
            alice.list("n", "l").append(1)
            assert alice.delete("n")
            assert alice.everything("n") == {}
            await alice.commit()
            assert alice.souls() == []

    asyncio.run(main())


def test_book_keeping_is_listed_when_asked_for() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as alice:
            alice.access.grant(BOB.id, "board")
            alice.private("diary", readers=[])["monday"] = "rain"
            alice.text("t").insert(0, "gone")
            alice.text("t").delete(0, 2)
            await alice.upkeep.compact()
            await alice.commit()
            shown, book = set(alice.souls()), set(alice.souls(internal=True))
            assert shown == {"t", alice.own("diary")}
            assert {one.partition("/")[2].partition("/")[0] for one in book - shown} >= {".rings", ".seen"}
            assert any(one.startswith("%access/") for one in book - shown)
            assert not {row["n"] for row in alice.query("MATCH (n) RETURN id(n) AS n")} & (book - shown)

    asyncio.run(main())


_TOTALS = st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=4)


@settings(max_examples=60)
@given(_TOTALS, st.booleans())
def test_a_counter_is_there_unless_its_sum_is_nothing(totals: list[int], balanced: bool) -> None:
    """Also where the sum has more than 64 bits."""
    if balanced:
        rest = -sum(totals)
        while rest:
            part = max(-(1 << 63), min((1 << 63) - 1, rest))
            totals.append(part)
            rest -= part
    shown = Replica(bytes(32))
    for number, total in enumerate(totals):
        one = Replica(bytes([number + 1]) * 32)
        one.counter("c").add(total)
        for frame in one.commit():
            shown.merge(frame.author, frame.body)
    assert shown.counter("c").value == sum(totals)
    assert shown.souls() == (["c"] if sum(totals) else [])
