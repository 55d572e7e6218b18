"""Texts within a replica: edits travel in frames with all else, and are there after saving and loading."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from crdt_replicas import exchange, replica
from hypothesis import given
from hypothesis import strategies as st

from dtp.core import crdt as core
from dtp.core.errors import StateLimit
from dtp.crdt import Frame, Replica
from dtp.crdt.sequences import GraphList, GraphText
from dtp.crdt.text import Text
from dtp.crdt.values import GraphValueError


def test_two_write_into_one_text() -> None:
    one, other = replica(0), replica(1)
    one.text("note/1").insert(0, "hello")
    exchange(one, other)
    other.text("note/1").insert(5, " world")
    one.text("note/1").insert(0, "> ")
    one.node("note/1")["title"] = "a note"
    exchange(one, other)
    assert str(one.text("note/1")) == str(other.text("note/1")) == "> hello world"
    assert other.node("note/1")["title"] == "a note"
    assert one.save() == other.save()
    assert one.text("note/1") is one.text("note/1")
    assert str(one.text("note/1", "another")) == ""


def test_a_change_is_told() -> None:
    one, other = replica(0), replica(1)
    told: list[str] = []
    one.on_edited = lambda name: told.append(name[1])
    one.text("note").insert(0, "hello")
    one.text("note").delete(0, 1)
    one.text("note").undo()
    one.text("note").redo()
    one.text("note").edit([(0, 0, "x")])
    assert told == ["note"] * 5
    (frame,) = one.commit()
    assert other.merge(frame.author, frame.body) == 1
    (change,) = other.take_changes()
    assert change[:3] == ("note", "", "text")
    assert other.souls() == ["note"]
    assert str(other.text("note")) == "xello"


def test_saving_needs_a_commit_first() -> None:
    one = replica(0)
    one.text("note").insert(0, "hello")
    with pytest.raises(StateLimit, match="commit"):
        one.save()
    one.commit()
    again = Replica.load(one.author, one.save(), clock=one.clock)
    assert again.save() == one.save()
    assert str(again.text("note")) == "hello"
    again.text("note").append(" again")
    (frame,) = again.commit()
    one.merge(frame.author, frame.body)  # as if of another machine that was this one before
    assert str(one.text("note")) == "hello again"


def test_edits_that_come_too_early_are_kept_through_saving() -> None:
    one, other, late = replica(0), replica(1), replica(2)
    one.text("note").insert(0, "abc")
    (first,) = one.commit()
    other.merge(first.author, first.body)
    other.text("note").insert(1, "x")
    (second,) = other.commit()
    late.merge(second.author, second.body)
    assert str(late.text("note")) == ""
    late = Replica.load(late.author, late.save(), clock=late.clock)
    late.merge(first.author, first.body)
    assert str(late.text("note")) == "axbc"
    assert late.save() == other.save()


def test_random_edits_on_three_replicas() -> None:
    rng = random.Random(3)
    replicas = [replica(number) for number in range(3)]
    frames = []
    for _ in range(300):
        one = rng.choice(replicas)
        text = one.text("note")
        if len(text) > 3 and rng.random() < 0.3:
            text.delete(rng.randrange(len(text) - 2), 2)
        else:
            text.insert(rng.randint(0, len(text)), rng.choice(["a", "bc", "déf"]))
        frames += one.commit()
        frame = rng.choice(frames)
        rng.choice(replicas).merge(frame.author, frame.body)
    for one in replicas:
        rng.shuffle(frames)
        for frame in frames:
            one.merge(frame.author, frame.body)
    assert len({str(one.text("note")) for one in replicas}) == 1
    assert len({one.save() for one in replicas}) == 1


def test_the_text_is_the_text_engines_own() -> None:
    assert isinstance(replica(0).text("note"), Text)


@pytest.mark.parametrize("hidden", [False, True])
def test_a_whole_text_is_no_edit(hidden: bool) -> None:
    """Its author could put it in the place of what others wrote."""
    hostile = Text(b"hostile")
    hostile.insert(0, "mine alone")
    first = hostile.take_changes()
    hostile.delete(0, 4)
    hostile.compact([])
    victim = replica(0)
    victim.text("note").insert(0, "hello")
    victim.commit()
    victim.sequences.apply_edit((core.TEXT, "note", ""), (first if hidden else b"") + hostile.save())
    assert "hello" in str(victim.text("note"))
    victim.text("note").append("!")
    assert str(victim.text("note")).endswith("!")
    assert Replica.load(victim.author, _committed(victim), clock=victim.clock).save() == victim.save()


def _committed(one: Replica) -> bytes:
    one.commit()
    return one.save()


@given(st.integers(0, 1 << 32))
def test_states_are_the_same_while_edits_wait(seed: int) -> None:
    """Whatever came first, and whatever came between the edits that wait."""
    rng = random.Random(seed)
    authors = [replica(number) for number in range(3)]
    frames: list[Frame] = []
    for number in range(12):
        one = rng.choice(authors)
        for frame in frames:
            if rng.randrange(3):
                one.merge(frame.author, frame.body)
        text, items = one.text("note"), one.list("l")
        text.insert(rng.randint(0, len(text)), f"{number}")
        items.insert(rng.randint(0, len(items)), number)
        if len(items) > 1:
            items.move(0, rng.randrange(len(items)))
        frames += one.commit()
    some = [frame for frame in frames if rng.randrange(4)]
    late = [replica(7), replica(8), replica(9)]
    for one in late:
        rng.shuffle(some)
        for number, frame in enumerate(some):
            one.merge(frame.author, frame.body)
            if number == 6 and one is late[2]:
                one = late[2] = Replica.load(one.author, one.save(), clock=one.clock)
    assert len({one.save() for one in late}) == 1


@pytest.mark.parametrize(
    "name",
    [("",), (1025 * "s",), ("note", 1025 * "k"), ("half \ud800",), ("note", "half \ud800")],
    ids=["no soul", "long soul", "long key", "soul not Unicode", "key not Unicode"],
)
@pytest.mark.parametrize("kind", [Replica.text, Replica.list])
def test_no_edit_is_taken_that_can_never_be_committed(
    kind: Callable[..., GraphText | GraphList], name: tuple[str, ...]
) -> None:
    """It failed at each commit from then on, so nothing else of the graph was signed or stored any more."""
    one = replica(0)
    with pytest.raises(GraphValueError):
        kind(one, *name).insert(0, "x")
    one.node("note/1")["title"] = "a note"
    assert len(one.commit()) == 1
