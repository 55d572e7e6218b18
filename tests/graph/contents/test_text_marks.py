"""Marks of texts in a graph: they travel as edits, editors hear of them, and views, history and exports show them."""

from __future__ import annotations

import random
from typing import Any

from graph_fixtures import ALICE, BOB, run, told

from dtp.crdt import Clock, SequenceChange
from dtp.crdt.marks import Format
from dtp.graph import Graph


def applied(
    document: list[tuple[str, dict[str, Any]]], change: SequenceChange
) -> list[tuple[str, dict[str, Any]]]:
    """What an editor shows that takes deltas, character by character."""
    for delta in change.deltas():
        at = 0
        for operation in delta:
            attributes = operation.get("attributes", {})
            if "insert" in operation:
                document[at:at] = [(char, dict(attributes)) for char in operation["insert"]]
                at += len(operation["insert"])
            elif "delete" in operation:
                assert at + operation["delete"] <= len(document)
                del document[at : at + operation["delete"]]
            else:
                assert at + operation["retain"] <= len(document)
                for place in range(at, at + operation["retain"]):
                    both = {**document[place][1], **attributes}
                    document[place] = (
                        document[place][0],
                        {name: value for name, value in both.items() if value is not None},
                    )
                at += operation["retain"]
    return document


def test_editors_hear_of_marks() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as here,
            await Graph.open("memory:", identity=BOB) as there,
        ):
            text = here.text("note")
            text.insert(0, "The quick fox")
            with text.changes() as changes:
                text.mark(4, 9, "bold")
                change = await anext(changes)
                assert change == SequenceChange([], True, (Format(4, 5, {"bold": True}),))
                assert change.deltas() == [[{"retain": 4}, {"retain": 5, "attributes": {"bold": True}}]]
                text.insert(9, "er")
                assert (await anext(changes)).deltas() == [
                    [{"retain": 9}, {"insert": "er", "attributes": {"bold": True}}]
                ]
                await told(here, ALICE, there)
                other = there.text("note")
                assert other.spans() == text.spans()
                other.replace(0, 3, "A")
                other.unmark(2, 7, "bold")
                other.mark(0, 1, "italic")
                await told(there, BOB, here)
                change = await anext(changes)
                assert not change.is_local
                assert text.spans() == other.spans()
                assert change.deltas()[-1][0] == {"insert": "A", "attributes": {"italic": True}}
                text.undo()
                assert (await anext(changes)).deltas() == [[{"retain": 7}, {"delete": 2}]]

    run(main())


def test_whoever_takes_all_deltas_shows_what_is_there() -> None:
    async def main() -> None:
        for seed in range(20):
            rng = random.Random(seed)
            async with (
                await Graph.open("memory:", identity=ALICE) as here,
                await Graph.open("memory:", identity=BOB) as there,
            ):
                text, other = here.text("note"), there.text("note")
                with text.changes() as changes:
                    for _ in range(30):
                        edit(rng.choice([text, other]), rng)
                        if rng.randrange(4) == 0:
                            await told(here, ALICE, there)
                            await told(there, BOB, here)
                shown: list[tuple[str, dict[str, Any]]] = []
                async for change in changes:
                    shown = applied(shown, change)
                assert shown == [(char, attributes) for piece, attributes in text.spans() for char in piece]

    run(main())


def edit(text: Any, rng: random.Random) -> None:
    size = len(text)
    at = rng.randint(0, size)
    stop = rng.randint(at, size)
    match rng.randrange(7):
        case 0 | 1:
            text.insert(at, "xyz"[: rng.randint(1, 3)])
        case 2:
            text.delete(at, min(2, size - at))
        case 3:
            text.undo()
        case 4:
            text.apply_delta([{"retain": at}, {"insert": "Q", "attributes": {"code": True}}])
        case _:
            text.mark(at, stop, rng.choice(["bold", "link"]), rng.choice([True, None, "u"]))


def test_marks_are_in_a_graph_that_is_opened_again(tmp_path: Any) -> None:
    async def main() -> None:
        path = str(tmp_path / "graph.db")
        async with await Graph.open(path, identity=ALICE) as graph:
            graph.text("note").insert(0, "hello")
            graph.text("note").mark(0, 5, "link", "https://x")
        async with await Graph.open(path, identity=ALICE) as graph:
            assert graph.text("note").spans() == [("hello", {"link": "https://x"})]

    run(main())


def test_views_history_and_files_have_marks(tmp_path: Any) -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            text = graph.text("note", "body")
            text.insert(0, "hello world")
            await graph.commit()
            before = graph.replica.clock.wall()
            text.mark(0, 5, "bold")
            text.mark(5, 8, "bold")
            text.mark(2, 7, "link", "https://x")
            shown = [[0, 8, "bold", True], [2, 7, "link", "https://x"]]
            assert graph.everything("note")["body"]["marks"] == shown
            await graph.commit()
            assert graph.everything("note") == {"body": {"text": "hello world", "marks": shown}}
            after = graph.replica.clock.wall() + 1
            assert await graph.history.as_of("note", after) == graph.everything("note")
            for name in ("all.json", "all.csv", "all.graphml", "all.nt"):
                path = tmp_path / name
                await graph.files.export_contents(path)
                async with await Graph.open("memory:", identity=BOB) as other:
                    await other.files.import_contents(path)
                    assert other.everything("note") == graph.everything("note")
                    again = await other.files.import_contents(path)
                    assert again.changed == 0
            assert before


def test_what_was_marked_once_is_known_and_can_be_restored() -> None:
    now = [1_000.0]

    async def main() -> None:
        async with await Graph.open(
            "memory:", identity=ALICE, clock=Clock(lambda: now[0]), history=True
        ) as graph:
            text = graph.text("note")
            text.insert(0, "hello")
            await graph.commit()
            now[0] = 2_000.0
            text.mark(0, 5, "bold")
            await graph.commit()
            now[0] = 3_000.0
            text.unmark(0, 2, "bold")
            await graph.commit()
            now[0] = 4_000.0
            assert "marks" not in (await graph.history.as_of("note", 1_500.0))[""]
            assert (await graph.history.as_of("note", 2_500.0))[""]["marks"] == [[0, 5, "bold", True]]
            changed = (await graph.history.diff("note", 2_500.0, 3_500.0))[""]
            assert changed.keys() == {"marks"}
            assert changed["marks"].after == [[2, 5, "bold", True]]
            await graph.history.restore("note", 2_500.0)
            assert text.spans() == [("hello", {"bold": True})]
            await graph.history.restore("note", 1_500.0)
            assert text.spans() == [("hello", {})]

    run(main())
