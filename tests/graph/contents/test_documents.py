"""Documents: maps, lists and texts within one another merge by their parts, and nobody can make a knot of them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack
import pytest
from graph_fixtures import ALICE, BOB, CAROL, run_with, tell_each_other
from hypothesis import given, settings
from hypothesis import strategies as st

from dtp.core.errors import NotOwner
from dtp.crdt import GraphValueError, Link, parts
from dtp.crdt.permission.rules import RuleBroken
from dtp.graph import Graph, GraphError, NestedList, NestedMap, NestingError, NewText, NotSealed, Rule, Rules


def run(main: Callable[..., Awaitable[None]], count: int = 2) -> None:
    run_with(main, count, history=True)


BOARD: dict[str, Any] = {
    "title": "Board",
    "columns": [
        {"name": "to do", "cards": [{"text": NewText("buy milk"), "tags": ["home"]}]},
        {"name": "done", "cards": []},
    ],
    "settings": {"colour": {"r": 1, "g": 2}},
}


def test_it_is_what_was_put_and_merges_by_parts() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        board = alice.document("board/1")
        board.update(BOARD)
        await tell_each_other(alice, bob)
        his = bob.document("board/1")
        assert his.to_plain() == board.to_plain() == BOARD
        assert his == bob.document("board/1")
        assert his != board
        board.at("columns", 0, "cards", 0, "text").insert(0, "please ")
        board.at("columns").move(1, 0)
        board["settings"]["colour"]["b"] = 3
        his.at("columns", 0, "cards", 0, "text").append(" and eggs")
        his.at("columns", 0, "cards").append({"text": "a value"})
        his["settings"]["colour"]["r"] = 9
        his["settings"]["size"] = [1, 2]
        await tell_each_other(alice, bob)
        assert (
            his.to_plain()
            == board.to_plain()
            == {
                "title": "Board",
                "columns": [
                    {"name": "done", "cards": []},
                    {
                        "name": "to do",
                        "cards": [
                            {"text": "please buy milk and eggs", "tags": ["home"]},
                            {"text": "a value"},
                        ],
                    },
                ],
                "settings": {"colour": {"r": 9, "g": 2, "b": 3}, "size": [1, 2]},
            }
        )

    run(main)


def test_the_same_key_is_the_same_part() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        alice.document("d")["a"] = {"x": 1, "both": "hers"}
        bob.document("d")["a"] = {"y": 2}
        bob.document("d").list("l").append("his")
        alice.document("d").list("l").append("hers")
        alice.document("d")["k"] = {"m": 1}
        bob.document("d")["k"] = [1]
        alice.document("d").text("t").append("x")
        await tell_each_other(alice, bob)
        for graph in (alice, bob):
            found = graph.document("d")
            assert found["a"].to_plain() == {"x": 1, "y": 2, "both": "hers"}
            assert sorted(found["l"]) == ["hers", "his"]
            assert sorted(map(type, found.conflicts("k")), key=str) == [NestedList, NestedMap]
            assert str(found["t"]) == "x"
        assert alice.document("d").to_plain() == bob.document("d").to_plain()

    run(main)


def test_deleting_replacing_and_making_again() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        doc = alice.document("d")
        doc["a"] = {"x": [1, {"y": NewText("deep")}], "z": 1}
        old = doc.at("a", "x")
        doc["a"] = {"new": 1}
        assert doc.to_plain() == {"a": {"new": 1}}
        assert list(old) == []
        doc["a"] = [1, {"b": 2}, [3]]
        doc["a"][1] = {"c": 3}
        doc["a"][0] = [0]
        del doc["a"][2]
        assert doc.to_plain() == {"a": [[0], {"c": 3}]}
        doc["a"] = 5
        assert doc.to_plain() == {"a": 5}
        doc["a"] = {}
        doc["a"]["x"] = {"kept": 1}
        await tell_each_other(alice, bob)
        del doc["a"]
        bob.document("d")["a"]["x"]["meanwhile"] = 2
        await tell_each_other(alice, bob)
        assert doc.to_plain() == bob.document("d").to_plain() == {}
        assert doc.map("a").map("x").to_plain() == {"meanwhile": 2}  # nothing was lost
        with pytest.raises(KeyError):
            del doc["b"]
        doc.clear()
        assert dict(doc) == {}
        assert alice.souls(parts_too=True) == ["d"] or not alice.souls()

    run(main)


def test_lists() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        items = alice.document("d").list("l")
        items.extend([{"n": number} for number in range(5)])
        items.insert(-1, "v")
        items.append([])
        assert len(items) == 7
        assert items.to_plain() == [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}, "v", {"n": 4}, []]
        assert [one["n"] for one in items[0:2]] == [0, 1]
        del items[1:4]
        assert items.to_plain() == [{"n": 0}, "v", {"n": 4}, []]
        with pytest.raises(NestingError, match="slices"):
            items[0:1] = [1]
        with pytest.raises(IndexError):
            items[9]
        copied = items[0]
        items[3] = copied  # a copy, at its own place
        copied["n"] = 7
        assert items.to_plain() == [{"n": 7}, "v", {"n": 4}, {"n": 0}]
        items.reverse()
        assert items.to_plain() == [{"n": 0}, {"n": 4}, "v", {"n": 7}]
        assert items.pop() == {"n": 7}
        assert items.pop(1) == {"n": 4}
        items.clear()
        assert items.to_plain() == []
        doc = alice.document("d")
        doc["t"] = NewText("text")
        assert doc.pop("t") == "text"
        assert doc.pop("t", None) is None
        assert doc.popitem() == ("l", [])
        with pytest.raises(KeyError):
            doc.popitem()

    run(main)


def test_a_moved_element_keeps_its_parts() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        alice.document("d")["l"] = [{"n": 0}, {"n": 1}, {"n": 2}]
        await tell_each_other(alice, bob)
        alice.document("d")["l"].move(0, 2)
        bob.document("d")["l"].move(0, 1)
        bob.document("d")["l"][1]["seen"] = True
        await tell_each_other(alice, bob)
        found = alice.document("d")["l"].to_plain()
        assert found == bob.document("d")["l"].to_plain()
        assert sorted(one["n"] for one in found) == [0, 1, 2]
        assert {"n": 0, "seen": True} in found

    run(main)


def test_what_is_put_elsewhere_keeps_its_texts() -> None:
    """A card goes from one column into another: what was a text is one there."""

    async def main(graph: Graph) -> None:
        board = graph.document("board/1")
        board["todo"] = [{"title": NewText("milk"), "notes": [NewText(""), "a value"]}]
        board["done"] = []
        board["done"].append(board["todo"].pop(0))
        board["copy"] = board["done"].to_plain()
        for card in (board.at("done", 0), board.at("copy", 0)):
            card["title"].append("!")
            card["notes"][0].append("2 l")
            assert card.to_plain() == {"title": "milk!", "notes": ["2 l", "a value"]}
            assert isinstance(card["notes"][1], str)

    run(main, 1)


def test_paths() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        doc = alice.document("d")
        doc.update(BOARD)
        assert doc.at() is doc
        assert doc.at("columns", 1, "name") == "done"
        for path, words in (
            (("columns", 7), r"nothing at \['columns', 7\]"),
            (("no",), r"nothing at \['no'\]"),
            (("title", 0), r"no 0 at \['title'\]: a str"),
            (("columns", "x"), r"no 'x' at \['columns'\]: a NestedList"),
            ((0,), r"no 0 at \[\]: a NestedMap"),
        ):
            with pytest.raises(NestingError, match=words):
                doc.at(*path)

    run(main)


def test_it_is_seen_everywhere() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        alice.node("board/1")["owner"] = "Alice"
        alice.document("board/1").update(BOARD)
        await alice.commit()
        shown = alice.everything("board/1")
        assert shown["columns"] == {"values": [BOARD["columns"]]}
        assert shown["owner"] == {"register": "Alice"}
        assert alice.souls() == ["board/1"]
        assert len(alice.souls(parts_too=True)) == 10  # what is empty has nothing
        rows = alice.query("MATCH (b:board) RETURN b.title AS title, b.settings AS s, b.columns AS c")
        assert rows == [{"title": "Board", "s": BOARD["settings"], "c": BOARD["columns"]}]
        assert alice.query("MATCH (b) RETURN count(*) AS n") == [{"n": 1}]
        assert alice.query("MATCH (b:board) RETURN count(*) AS n") == [{"n": 1}]
        alice.document("board/1").at("settings", "colour")["b"] = 3
        (row,) = alice.query("MATCH (b:board) RETURN b.settings AS s")
        assert row["s"] == {"colour": {"r": 1, "g": 2, "b": 3}}

    run(main)


def test_files_of_others_have_it(tmp_path: Any) -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        alice.document("board/1").update(BOARD)
        for name in ("json", "csv", "graphml", "rdf"):
            path = tmp_path / f"board.{name}"
            await alice.files.export_contents(path, format=name)
            async with await Graph.open("memory:", identity=CAROL) as other:
                await other.files.import_contents(path, format=name)
                assert other.document("board/1").to_plain() == BOARD

    run(main)


def test_it_is_known_what_it_was() -> None:
    clock = [1_000.0]

    async def main() -> None:
        from dtp.crdt import Clock

        async with await Graph.open(
            "memory:", identity=ALICE, clock=Clock(lambda: clock[0]), history=True
        ) as alice:
            doc = alice.document("d")
            doc.update(BOARD)
            await alice.commit()
            clock[0] = 2_000.0
            doc["columns"][0]["cards"][0]["text"].append("!")
            doc["columns"].move(0, 1)
            del doc["settings"]
            await alice.commit()
            now = doc.to_plain()
            clock[0] = 3_000.0
            then = await alice.history.as_of("d", 1_500.0)
            assert {key: kinds["values"][0] for key, kinds in then.items()} == BOARD
            changed = await alice.history.diff("d", 1_500.0, 2_500.0)
            assert sorted(changed) == ["columns", "settings"]
            assert changed["settings"]["values"].before == [BOARD["settings"]]
            assert changed["columns"]["values"].after == [now["columns"]]
            await alice.history.restore("d", 1_500.0)
            assert doc.to_plain() == BOARD
            await alice.history.restore("d", 2_500.0)
            assert doc.to_plain() == now

    asyncio.run(main())


def test_undo() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        doc = alice.document("d")
        doc.update(BOARD)
        with alice.undo_manager() as undo:
            with undo.step("edit"):
                doc["columns"][0]["cards"][0]["text"].append("!")
                doc["columns"].move(0, 1)
                doc["columns"].append({"name": "later", "cards": [1]})
                doc["settings"] = {"none": []}
                del doc["title"]
            now = doc.to_plain()
            undo.undo()
            assert doc.to_plain() == BOARD
            undo.redo()
            assert doc.to_plain() == now

    run(main)


def test_undo_hides_nothing_that_others_put_into_a_part() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        doc, there = alice.document("d"), bob.document("d")
        with alice.undo_manager() as undo:
            with undo.step("make"):
                doc["board"] = {
                    "title": "mine",
                    "cards": [{"name": "a"}, {"name": "b"}],
                    "note": NewText("hi"),
                }
                doc["empty"] = {"deep": {"deeper": [1]}}
            await tell_each_other(alice, bob)
            there["board"]["cards"][1]["done"] = True
            there["board"]["note"].append(" there")
            await tell_each_other(alice, bob)
            done = undo.undo()
            assert done is not None
            assert {where.space for where in done.kept} == {"list", "values"}
            assert doc.to_plain() == {"board": {"cards": [{"done": True}], "note": " there"}}
            undo.redo()
            assert doc.to_plain()["empty"] == {"deep": {"deeper": [1]}}
            assert doc["board"]["title"] == "mine"
            assert sorted(map(str, doc["board"]["cards"].to_plain())) == [
                "{'done': True, 'name': 'b'}",
                "{'name': 'a'}",
            ]
            await tell_each_other(alice, bob)
            assert there.to_plain() == doc.to_plain()

    run(main)


def test_undo_of_what_nobody_else_touched_leaves_nothing() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        doc = alice.document("d")
        with alice.undo_manager() as undo:
            with undo.step("outer"):
                doc.map("a").map("b")["c"] = 1
            with undo.step("inner"):
                doc["a"]["b"]["list"] = [[1], [2]]
            now = doc.to_plain()
            undo.undo()
            done = undo.undo()
            assert done is not None
            assert (done.kept, doc.to_plain()) == ((), {})
            undo.redo()
            undo.redo()
            assert doc.to_plain() == now

    run(main)


def test_souls_of_parts_are_as_the_page_says() -> None:
    """docs/graph.md, "Documents", without the product's code."""

    def letters(data: bytes) -> str:
        return base64.b32encode(data).decode().lower().rstrip("=")

    def soul(parent: str, place: str | bytes, kind: str) -> str:
        told = msgpack.packb([parent, place], use_bin_type=True)
        nonce = letters(place) if isinstance(place, bytes) else ""
        hashed = hashlib.blake2b(told, digest_size=20, person=b"dtp-graph-part-1").digest()
        return f"{parent.rpartition('/@')[0] or parent}/@{kind}{nonce}{letters(hashed)}"

    async def main(alice: Graph, bob: Graph) -> None:
        doc = alice.document("board/1")
        doc.update({"a": {"b": [NewText("x"), {"y": 1}]}})
        below = soul("board/1", "a", "m")
        assert alice.map("board/1")["a"] == Link(below)
        items = soul(below, "b", "l")
        assert alice.map(below)["b"] == Link(items)
        for link, kind in zip(alice.list(items), "tm", strict=True):
            nonce = base64.b32decode(link.soul.rpartition("/@")[2][1:17].upper())
            assert link.soul == soul(items, nonce, kind)
        assert str(alice.text(alice.list(items)[0].soul)) == "x"
        assert alice.map(alice.list(items)[1].soul)["y"] == 1
        alice.document("x" * parts.MAX_DOCUMENT)["a"] = {"b": [{"c": 1}]}
        assert parts.MAX_DOCUMENT == 973

    run(main)


# ---- what is refused ---------------------------------------------------------------------------------------------


def test_what_can_not_be_a_document_or_in_one() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        alice.access.publish_key()
        alice.private("diary", readers=[])
        with pytest.raises(NotSealed):
            alice.document(alice.own("diary"))
        doc = alice.document("d")
        doc["a"] = {"x": 1}
        for soul in ("", "x" * 1000, doc["a"].soul):
            with pytest.raises(GraphError, match="no document"):
                alice.document(soul)
        endless: list[Any] = []
        endless.append(endless)
        deep: Any = 1
        for _ in range(32):
            deep = {"d": deep}
        for wrong, error in (
            (object(), GraphValueError),
            ({1: 2}, GraphValueError),
            ({"k" * 1025: 2}, GraphValueError),
            (b"x" * (1 << 20), GraphValueError),
            ({"a": {"b": [1, {"c": object()}]}}, GraphValueError),
            (endless, NestingError),
            (deep, NestingError),
        ):
            with pytest.raises(error):
                doc["b"] = wrong
            with pytest.raises(error):
                doc.update(a=5, b=wrong)
            with pytest.raises(error):
                doc.list("l").append(wrong)
            assert doc.to_plain() in ({"a": {"x": 1}}, {"a": {"x": 1}, "l": []})
        doc["deep"] = deep["d"]
        assert doc.to_plain()["deep"] == deep["d"]

    run(main)


def test_owned_and_ruled_documents() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        alice.document(alice.own("board")).update(BOARD)
        await tell_each_other(alice, bob)
        his = bob.document(alice.own("board"))
        assert his.to_plain() == BOARD
        with pytest.raises(NotOwner):
            his["columns"][0]["name"] = "mine"
        grant = alice.access.grant(BOB.id, "board")
        await tell_each_other(alice, bob)
        his["columns"][0]["name"] = "ours"
        await tell_each_other(alice, bob)
        assert alice.document(alice.own("board")).at("columns", 0, "name") == "ours"
        alice.access.revoke(grant)
        rules = alice.access.allow(Rules("doc", [Rule(path="*", space="values", removes="any")]))
        flat = alice.document(rules.soul("one"))
        flat["x"] = 1
        with pytest.raises(RuleBroken):
            flat["m"] = {"y": 1}
        assert flat.to_plain() == {"x": 1}

    run(main)


def test_hostile_parts() -> None:
    """A link to a part of another place, to a part above, or the same twice is a link, and nothing more."""

    async def main(alice: Graph, bob: Graph) -> None:
        doc = alice.document("d")
        doc["a"] = {"b": {"c": 1}, "l": [{"x": 1}, {"y": [1] * 10}]}
        inner, items = doc.at("a", "b"), doc.at("a", "l")
        raw = bob.replica
        await tell_each_other(alice, bob)
        raw.map(inner.soul)["up"] = Link(doc["a"].soul)  # a cycle
        raw.map(inner.soul)["root"] = Link("d")
        raw.map("other")["stolen"] = Link(inner.soul)
        raw.map("d")["a2"] = Link(doc["a"].soul)  # the same part at another key
        element = raw.list(items.soul)[1]
        for _ in range(3):
            raw.list(items.soul).append(element)
        raw.list(items.soul).append(Link(items.soul))
        raw.list(items.soul).append(Link(items.soul[:-1] + "1"))
        raw.list(items.soul).append(Link("x/@t" + "a" * 48))
        raw.map(inner.soul)["kind"] = Link(parts.in_map(inner.soul, "kind", "l"))
        raw.map(parts.in_map(inner.soul, "kind", "l"))["not"] = "a list"
        await tell_each_other(alice, bob)
        found = doc.to_plain()
        assert found["a2"] == Link(doc["a"].soul)
        assert found["a"]["b"] == {"c": 1, "up": Link(doc["a"].soul), "root": Link("d"), "kind": []}
        assert found["a"]["l"][1] == {"y": [1] * 10}
        assert found["a"]["l"][2:5] == [element] * 3
        assert alice.everything("other") == {"stolen": {"values": [Link(inner.soul)]}}
        alice.everything("d")
        soul = "d"
        for _ in range(100):  # deeper than any program of ours makes it
            below = parts.in_map(soul, "deep", "m")
            raw.map(soul)["deep"] = Link(below)
            soul = below
        await tell_each_other(alice, bob)
        depth, at = 0, doc.to_plain()
        while isinstance(at, dict):
            depth, at = depth + 1, at["deep"]
        assert depth == parts.MAX_DEPTH
        assert isinstance(at, Link)
        doc.clear()
        assert doc.to_plain() == {}

    run(main)


# ---- random histories --------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["value", "map", "list", "text", "delete", "append", "move", "pop", "type", "meet"]),
        st.integers(0, 2),
        st.integers(0, 2),
    ),
    max_size=30,
)


def _edit(doc: NestedMap, what: str, place: int, value: int) -> None:
    keys = "abc"
    at: Any = doc
    for key in keys[: value + 1]:  # down to some part that is there
        below = at.get(key) if isinstance(at, NestedMap) else None
        if isinstance(below, NestedMap):
            at = below
    key = keys[place]
    if what == "value":
        at[key] = value
    elif what == "map":
        at[key] = {keys[value]: {"n": place}}
    elif what == "list":
        at.list(key).append([value])
    elif what == "text":
        at.text(key).append(str(value))
    elif what == "delete" and key in at:
        del at[key]
    elif isinstance(at.get(key), NestedList) and len(at[key]):
        if what == "append":
            at[key].append({"v": value})
        elif what == "move":
            at[key].move(0, len(at[key]) - 1)
        elif what == "pop":
            del at[key][0]


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_replicas_converge(steps: list[tuple[int, str, int, int]]) -> None:
    async def main(*graphs: Graph) -> None:
        for who, what, place, value in steps:
            if what == "meet":
                await tell_each_other(*graphs[: who + 1])
            else:
                _edit(graphs[who].document("d"), what, place, value)
        await tell_each_other(*graphs)
        await tell_each_other(*graphs)
        first, *others = [graph.document("d").to_plain() for graph in graphs]
        assert others == [first] * len(others)
        graph = graphs[0]
        assert {key: kinds["values"][0] for key, kinds in graph.everything("d").items()} == first
        then = await graph.history.as_of("d", 4e9)
        assert {key: kinds["values"][0] for key, kinds in then.items() if kinds["values"]} == first

    run(main, 3)
