"""What this program made is taken back in steps, whatever others did since, and made again."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB, run_with, tell_each_other, told
from hypothesis import given, settings
from hypothesis import strategies as st

from dtp.graph import Graph, GraphError, NotReader
from dtp.graph.undo.edits import Where
from dtp.graph.undo.manager import Undone


def shown(graph: Graph) -> dict[str, Any]:
    """All that the graph shows, also what isn't committed, without what is empty."""
    found: dict[str, Any] = {}
    for soul in sorted({*graph.souls(), "note", "todo", "text", "list"}):
        for key, kinds in graph.everything(soul).items():
            for kind, value in kinds.items():
                if kind == "register" or value not in ([], "", 0):
                    found[f"{soul} {key} {kind}"] = value
    return found


def test_all_types_in_one_step() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        alice.node("a").update(x=1, gone="soon")
        alice.list("todo").extend(["milk", "bread", "eggs"])
        alice.text("note").insert(0, "hello world")
        alice.map("m")["colour"] = "red"
        alice.set("tags").add("old")
        before = shown(alice)
        with alice.undo_manager() as undo:
            with undo.step("everything"):
                alice.node("a").update(x=2, y=3)
                alice.node("a")["x"] = 4
                del alice.node("a")["gone"]
                alice.list("todo").move(2, 0)
                alice.list("todo")[1] = "oat milk"
                del alice.list("todo")[2]
                alice.list("todo").append("tea")
                alice.text("note").insert(5, ", dear")
                alice.text("note").delete(0, 1)
                alice.map("m").update(colour="blue", size=5)
                alice.set("tags").add("new")
                alice.set("tags").discard("old")
                alice.counter("hits").add(3)
                alice.multi_value("v").set(1)
                alice.node("a").link("to", "b")
            after = shown(alice)
            assert after != before
            assert undo.undo_steps == ["everything"]
            await alice.commit()
            done = undo.undo()
            assert done is not None
            assert (done.name, done.kept) == ("everything", ())
            assert shown(alice) == before
            assert (undo.undo_steps, undo.redo_steps) == ([], ["everything"])
            await alice.commit()
            assert undo.redo() is not None
            assert shown(alice) == after
            assert undo.undo() is not None
            assert shown(alice) == before
            assert undo.undo() is None
        await told(alice, ALICE, bob)
        assert shown(bob) == before

    run_with(main)


def test_others_later_changes_stay() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        alice.list("todo").extend(["a", "b", "c"])
        await tell_each_other(alice, bob)
        with alice.undo_manager() as undo:
            with undo.step("mine"):
                alice.node("n").update(x=1, y=1)
                alice.counter("hits").add(2)
                alice.set("tags").add("t")
                alice.map("m")["k"] = "mine"
                alice.list("todo")[0] = "A"
                alice.list("todo").move(2, 0)
                alice.list("todo").append("mine")
                alice.text("note").insert(0, "mine")
            await tell_each_other(alice, bob)
            bob.node("n")["x"] = 2
            bob.counter("hits").add(5)
            bob.set("tags").add("t")
            bob.map("m")["k"] = "his"
            bob.list("todo")[1] = "his A"
            bob.list("todo").move(0, 2)
            bob.list("todo").insert(0, "his")
            bob.text("note").insert(2, " his ")
            await tell_each_other(alice, bob)
            done = undo.undo()
            assert done is not None
            assert {(one.soul, one.space) for one in done.kept} == {
                ("n", "register"),
                ("tags", "set"),
                ("m", "values"),
                ("todo", "list"),
            }
            await tell_each_other(alice, bob)
            for graph in (alice, bob):
                assert graph.node("n").to_dict() == {"x": 2}
                assert graph.counter("hits").value == 5
                assert list(graph.set("tags")) == ["t"]
                assert dict(graph.map("m")) == {"k": "his"}
                assert list(graph.list("todo")) == ["his", "his A", "b", "c"]
                assert str(graph.text("note")) == " his "

    run_with(main)


def test_an_element_that_came_back_is_known_to_earlier_steps() -> None:
    """Step 1 inserts, step 2 assigns, step 3 moves, step 4 deletes: each is taken back, and made again, twice."""

    async def main(alice: Graph, bob: Graph) -> None:
        items = alice.list("todo")
        items.extend(["a", "z"])
        with alice.undo_manager() as undo:
            states = [list(items)]
            for edit in (
                lambda: items.insert(1, "b"),
                lambda: items.__setitem__(1, "B"),
                lambda: items.move(1, 0),
                lambda: items.__delitem__(0),
                lambda: items.clear(),
            ):
                with undo.step():
                    edit()
                states.append(list(items))
            for _ in range(2):
                for state in reversed(states[:-1]):
                    assert undo.undo() is not None
                    assert list(items) == state
                for state in states[1:]:
                    assert undo.redo() is not None
                    assert list(items) == state

    run_with(main)


def test_what_is_made_in_one_turn_is_a_step_and_typing_goes_on() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        with alice.undo_manager() as undo:
            alice.node("n").update(x=1)
            alice.node("n").update(y=1)
            await alice.commit()
            for letter in "hello":
                alice.text("note").append(letter)
                await alice.commit()
            alice.node("n")["z"] = 1
            await alice.commit()
            alice.text("note").append("!")
            await alice.commit()
            assert len(undo.undo_steps) == 4
            undo.undo()
            assert str(alice.text("note")) == "hello"
            undo.undo()
            assert dict(alice.node("n")) == {"x": 1, "y": 1}
            undo.undo()
            assert str(alice.text("note")) == ""
            undo.redo()
            assert str(alice.text("note")) == "hello"
            alice.text("other").append("x")
            await alice.commit()
            assert undo.redo_steps == []
            assert undo.redo() is None
            undo.undo()
            undo.undo()
            undo.undo()
            assert shown(alice) == {}

    run_with(main)


def test_steps_within_steps_and_steps_that_fail() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        with alice.undo_manager() as undo:
            with contextlib.suppress(ZeroDivisionError), undo.step("outer"):
                alice.node("n")["x"] = 1
                with undo.step("inner"):
                    alice.node("n")["y"] = 1
                with pytest.raises(GraphError, match="'outer' isn't over"):
                    undo.undo()
                with pytest.raises(ValueError, match="value"):
                    alice.node("n")["z"] = object()
                raise ZeroDivisionError
            with undo.step("nothing"):
                pass
            assert undo.undo_steps == ["outer"]
            assert undo.undo() == Undone("outer", 2, ())
            assert shown(alice) == {}

    run_with(main)


def test_a_step_that_others_overwrote_is_passed_over() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        with alice.undo_manager() as undo:
            with undo.step("one"):
                alice.node("n")["x"] = 1
            with undo.step("two"):
                alice.node("n")["y"] = 1
            await tell_each_other(alice, bob)
            bob.node("n")["y"] = 2
            await tell_each_other(alice, bob)
            assert undo.undo() == Undone("one", 1, (Where("n", "y", "register"),))
            assert dict(alice.node("n")) == {"y": 2}
            assert undo.undo() is None
            with undo.step("three"):
                alice.node("n")["y"] = 3
            await tell_each_other(alice, bob)
            bob.node("n")["y"] = 4
            await tell_each_other(alice, bob)
            assert undo.undo() == Undone("three", 0, (Where("n", "y", "register"),))
            assert undo.undo() is None

    run_with(main)


def test_what_may_not_be_written_any_more_is_kept_and_named() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        soul = bob.own("board")
        grant = bob.access.grant(ALICE.id, "board")
        await tell_each_other(alice, bob)
        with alice.undo_manager() as undo:
            with undo.step("both"):
                alice.node(soul)["x"] = 1
                alice.node("n")["x"] = 1
            await tell_each_other(alice, bob)
            bob.access.revoke(grant)
            await tell_each_other(alice, bob)
            assert undo.undo() == Undone("both", 1, (Where(soul, "x", "register"),))
            assert dict(alice.node(soul)) == {"x": 1}

    run_with(main)


def test_private_nodes() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        alice.access.publish_key()
        bob.access.publish_key()
        await tell_each_other(alice, bob)
        diary = alice.private("diary", readers=[BOB.id])
        diary["monday"] = "rain"
        await tell_each_other(alice, bob)
        with alice.undo_manager() as undo:
            with undo.step("week"):
                diary["monday"] = "sun"
                diary["tuesday"] = 1
                diary["monday"] = "snow"
            with undo.step("gone"):
                del diary["tuesday"]
            diary.remove_reader(BOB.id)
            assert undo.undo() == Undone("gone", 1, ())
            assert dict(diary) == {"monday": "snow", "tuesday": 1}
            assert undo.undo() == Undone("week", 2, ())
            assert dict(diary) == {"monday": "rain"}
            assert undo.redo() == Undone("week", 2, ())
            assert dict(diary) == {"monday": "snow", "tuesday": 1}
            await tell_each_other(alice, bob)
            with pytest.raises(NotReader):  # what was put back is sealed to who reads it now
                dict(bob.private(diary.soul))

    run_with(main)


def test_a_private_key_that_another_wrote_since_is_kept_and_named() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        bob.access.publish_key()
        await tell_each_other(alice, bob)
        diary = alice.private("diary", readers=[BOB.id])
        grant = alice.access.grant(BOB.id, "diary")
        await tell_each_other(alice, bob)
        with alice.undo_manager() as undo:
            with undo.step("both"):
                diary["x"] = 1
                diary["y"] = 1
            await tell_each_other(alice, bob)
            bob.private(diary.soul)["x"] = 2
            await tell_each_other(alice, bob)
            alice.access.revoke(grant)
            assert undo.undo() == Undone("both", 1, (Where(diary.soul, "x", "register"),))
            assert dict(diary) == {"x": 2}

    run_with(main)


def test_book_keeping_is_left_out() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        with alice.undo_manager() as undo:
            alice.access.publish_key()
            alice.private("diary", readers=[])
            alice.access.grant(BOB.id, "board")
            alice.text("note").append("x")
            alice.text("note").delete(0, 1)
            await alice.upkeep.compact()
            undo.undo()
            assert undo.undo() is None
            assert alice.private("diary").readers == [ALICE.id]
            assert len(alice.access.grants()) == 1

    run_with(main)


def test_bounds() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        with alice.undo_manager(depth=3) as undo:
            for number in range(5):
                with undo.step(str(number)):
                    alice.node("n")["x"] = number
            assert undo.undo_steps == ["2", "3", "4"]
            while undo.undo():
                pass
            assert alice.node("n")["x"] == 1
        with alice.undo_manager(memory=100_000) as undo:
            for number in range(5):
                with undo.step(str(number)):
                    alice.node("n")["x"] = str(number) * 20_000
            assert undo.undo_steps == ["3", "4"]
            with undo.step("too large"):
                alice.node("n")["x"] = "x" * 200_000
            assert undo.undo_steps == []

    run_with(main)


def test_a_text_that_forgot_its_oldest_steps() -> None:
    """A text keeps some thousand steps; those of the manager are counted on."""

    async def main(alice: Graph, bob: Graph) -> None:
        with alice.undo_manager(depth=5) as undo:
            for number in range(1600):
                with undo.step():
                    alice.text("note").insert(0, f"{number} ")
            for number in range(1599, 1594, -1):
                assert str(alice.text("note")).startswith(f"{number} ")
                assert undo.undo() is not None
            assert str(alice.text("note")).startswith("1594 ")
            assert undo.undo() is None

    run_with(main)


def test_marks_are_a_step_like_any_other() -> None:
    """A step of marks alone was passed over, and the one before was taken back with it."""

    async def main(alice: Graph, bob: Graph) -> None:
        text = alice.text("note")
        text.insert(0, "hello world")
        with alice.undo_manager() as undo:
            with undo.step("before"):
                alice.node("n")["x"] = 1
            with undo.step("bold"):
                text.mark(0, 5, "bold", True)
            assert undo.undo() == Undone("bold", 1, ())
            assert dict(alice.node("n")) == {"x": 1}
            assert undo.redo() == Undone("bold", 1, ())
            assert undo.undo_steps == ["before", "bold"]

    run_with(main)


def test_one_manager_at_a_time() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        text = alice.text("note")
        with alice.undo_manager() as undo:
            with pytest.raises(GraphError, match="close that one"):
                alice.undo_manager()
            text.append("x")
            with pytest.raises(GraphError, match="use its undo"):
                text.undo()
            undo.clear()
            assert undo.undo() is None
        assert text.undo() is not None
        alice.undo_manager().close()

    run_with(main)


def test_a_text_that_was_built_again() -> None:
    """A revocation takes away what was written, and the texts' own steps with it: nothing else is taken instead."""

    async def main(alice: Graph, bob: Graph) -> None:
        soul = bob.own("board")
        grant = bob.access.grant(ALICE.id, "board")
        await tell_each_other(alice, bob)
        with alice.undo_manager() as undo:
            with undo.step("granted"):
                alice.node(soul)["x"] = 1
            with undo.step("text"):
                alice.text("note").append("before ")
            bob.access.revoke(grant)
            await tell_each_other(bob, alice)
            await told(bob, BOB, alice)
            assert dict(alice.node(soul)) == {}
            with undo.step("more"):
                alice.text("note").append("after")
            assert undo.undo() is not None
            assert str(alice.text("note")) == "before "
            done = undo.undo()
            assert done is not None
            assert (done.edits, len(done.kept)) == (0, 2)
            assert str(alice.text("note")) == "before "

    run_with(main)


# ---- random histories --------------------------------------------------------------------------------------------

Edit = tuple[str, int, int]
KINDS = (
    "register",
    "delete",
    "counter",
    "add",
    "discard",
    "map",
    "unmap",
    "insert",
    "remove",
    "assign",
    "move",
)
EDITS = st.lists(
    st.tuples(st.sampled_from((*KINDS, "type", "cut")), st.integers(0, 3), st.integers(0, 9)), max_size=6
)


def edit(graph: Graph, one: Edit, tag: str) -> None:
    """Make one edit; what is inserted or written has the tag."""
    what, place, value = one
    key, items, text = f"k{place}", graph.list("list"), graph.text("text")
    at = min(place * 2, len(items))
    if what == "register":
        graph.node("n")[key] = f"{tag}{value}"
    elif what == "delete":
        graph.node("n").pop(key, None)
    elif what == "counter":
        graph.counter("c").add(value)
    elif what == "add":
        graph.set("s").add(f"{value}")
    elif what == "discard":
        graph.set("s").discard(f"{value}")
    elif what == "map":
        graph.map("m")[key] = f"{tag}{value}"
    elif what == "unmap":
        graph.map("m").pop(key, None)
    elif what == "insert":
        for offset in range(value % 3 + 1):
            items.insert(at + offset, tag)
    elif what == "type":
        text.insert(min(place * 2, len(text)), tag * (value % 3 + 1))
    elif what == "cut":
        start = min(place, len(text))
        text.delete(start, min(value % 3, len(text) - start))
    elif items:
        at = min(at, len(items) - 1)
        if what == "remove":
            del items[at]
        elif what == "assign":
            items[at] = f"{items[at]}{value}"
        else:
            items.move(at, value % len(items))


@settings(max_examples=30, deadline=None)
@given(st.lists(EDITS, max_size=8), EDITS)
def test_alone_each_state_comes_back(steps: list[list[Edit]], before: list[Edit]) -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        for one in before:
            edit(alice, one, "o")
        with alice.undo_manager() as undo:
            states = [shown(alice)]
            for number, edits in enumerate(steps):
                with undo.step(str(number)):
                    for one in edits:
                        edit(alice, one, "a")
                if undo.undo_steps[-1:] == [str(number)]:
                    states.append(shown(alice))
            for _ in range(2):
                for state in reversed(states[:-1]):
                    while undo.undo_steps and shown(alice) != state:
                        assert undo.undo() is not None
                    assert shown(alice) == state
                while undo.undo():
                    pass
                assert shown(alice) == states[0]
                while undo.redo():
                    pass
                assert shown(alice) == states[-1]

    run_with(main)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["alice", "bob", "undo", "redo", "meet"]), EDITS), max_size=16),
    EDITS,
)
def test_only_own_changes_are_taken_back(history: list[tuple[str, list[Edit]]], before: list[Edit]) -> None:
    """Whatever Alice undoes and makes again, in the end she takes back all: what is left is Bob's."""

    async def main(alice: Graph, bob: Graph) -> None:
        for one in before:
            edit(bob, one, "o")
        await tell_each_other(alice, bob)
        with alice.undo_manager() as undo:
            for who, edits in history:
                if who == "undo":
                    undo.undo()
                elif who == "redo":
                    undo.redo()
                elif who == "meet":
                    await tell_each_other(alice, bob)
                elif who == "alice":
                    with undo.step():
                        for one in edits:
                            edit(alice, one, "a")
                else:
                    for one in edits:
                        edit(bob, one, "b")
            await tell_each_other(alice, bob)
            whose = {key: alice.node("n").written(key)[0] for key in alice.node("n")}
            his = {key: value for key, value in alice.node("n").items() if whose[key] == BOB.id.key}
            of_him = (list(alice.list("list")).count("b"), str(alice.text("text")).count("b"))
            while undo.undo():
                pass
            await tell_each_other(alice, bob)
        assert shown(alice) == shown(bob)
        assert alice.counter("c").by_author().get(ALICE.id.key, 0) == 0
        assert "a" not in str(alice.text("text"))
        assert not any(str(one).startswith("a") for one in alice.list("list"))
        assert {key: alice.node("n").get(key) for key in his} == his
        assert list(alice.list("list")).count("b") >= of_him[0]
        assert str(alice.text("text")).count("b") >= of_him[1]
        whose = {key: alice.node("n")[key] for key in alice.node("n")}
        assert not any(str(value).startswith("a") for value in whose.values())

    run_with(main)
