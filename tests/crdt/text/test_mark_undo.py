"""Undo and redo of marks where text comes and goes with them: what was shown is shown again."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.crdt.marks import Expand
from dtp.crdt.text import Text

NAMES = ("bold", "link", "comment:1")
EXPANDS: tuple[Expand | None, ...] = (None, "both", "none", "before")


def edit(text: Text, rng: random.Random) -> None:
    size, what = len(text), rng.random()
    if not size or what < 0.35:
        letters = (rng.choice("abcd\u00e9\U0001f600") for _ in range(rng.randint(1, 4)))
        text.insert(rng.randint(0, size), "".join(letters))
    elif what < 0.6:
        at = rng.randrange(size)
        text.delete(at, rng.randint(1, min(4, size - at)))
    else:
        start = rng.randrange(size)
        stop = rng.randint(start + 1, size)
        text.mark(start, stop, rng.choice(NAMES), rng.choice([True, None, 1]), expand=rng.choice(EXPANDS))


def write_step(text: Text, rng: random.Random) -> None:
    with text.step():
        for _ in range(rng.randint(1, 3)):
            edit(text, rng)


@given(st.integers(0, 1 << 40), st.integers(1, 12))
def test_each_step_of_an_author_alone_is_undone_and_made_again_exactly(seed: int, steps: int) -> None:
    rng = random.Random(seed)
    text = Text(b"A")
    shown = [text.spans()]
    for _ in range(steps):
        write_step(text, rng)
        if text.undo_steps == len(shown):
            shown.append(text.spans())
        else:
            shown[-1] = text.spans()
    at = len(shown) - 1
    for _ in range(30):
        if rng.random() < 0.55:
            assert (text.undo() is not None) == (at > 0)
            at = max(0, at - 1)
        else:
            assert (text.redo() is not None) == (at < len(shown) - 1)
            at = min(len(shown) - 1, at + 1)
        assert text.spans() == shown[at]
    text.check_structure()
    copy = Text.load(text.save(), b"B")
    assert copy.spans() == text.spans()


@given(st.integers(0, 1 << 40))
def test_undo_and_redo_leave_marks_of_others_on_text_of_others(seed: int) -> None:
    rng = random.Random(seed)
    one, other = Text(b"A"), Text(b"B")
    other.insert(0, "theirs")
    one.merge(other.take_changes())
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(7)
        one.insert(at, "x")
        start = rng.randrange(len(one))
        one.mark(start, rng.randint(start + 1, len(one)), rng.choice(NAMES), expand=rng.choice(EXPANDS))
    other.merge(one.take_changes())
    start = rng.randrange(len(other))
    other.mark(start, len(other), "theirs", rng.choice([True, 1]), expand="none")
    one.merge(other.take_changes())
    before = [(char, found.get("theirs")) for piece, found in one.spans() for char in piece if char != "x"]
    for _ in range(rng.randint(1, 10)):
        one.undo()
        now = [(char, found.get("theirs")) for piece, found in one.spans() for char in piece if char != "x"]
        assert now == before
    while one.redo() is not None:
        pass
    assert [
        (char, found.get("theirs")) for piece, found in one.spans() for char in piece if char != "x"
    ] == before
    other.merge(one.take_changes())
    assert other.spans() == one.spans()


def test_text_and_its_mark_in_one_step_come_back_together() -> None:
    text = Text(b"A")
    with text.step():
        text.insert(0, "abc")
        text.mark(0, 3, "bold")
    for _ in range(3):
        text.undo()
        assert text.spans() == []
        text.redo()
        assert text.spans() == [("abc", {"bold": True})]


def test_a_mark_of_text_that_went_and_came_is_taken_back() -> None:
    text = Text(b"A")
    text.insert(0, "one two")
    text.mark(0, 7, "link", "u")
    text.mark(4, 7, "link", "v")
    text.delete(2, 4)
    text.undo()
    assert text.spans() == [("one ", {"link": "u"}), ("two", {"link": "v"})]
    text.undo()
    assert text.spans() == [("one two", {"link": "u"})]
    text.undo()
    assert text.spans() == [("one two", {})]
    text.redo()
    text.redo()
    text.redo()
    assert text.spans() == [("on", {"link": "u"}), ("o", {"link": "v"})]


def test_what_others_marked_meanwhile_holds_for_text_that_comes_back() -> None:
    one, other = Text(b"A"), Text(b"B")
    one.insert(0, "one two three")
    one.mark(0, 3, "bold")
    other.merge(one.take_changes())
    one.delete(4, 4)
    other.mark(0, 13, "link", "u", expand="none")
    one.merge(other.take_changes())
    one.undo()
    assert one.spans() == [("one", {"bold": True, "link": "u"}), (" two three", {"link": "u"})]


def test_a_part_without_characters_has_no_spans_though_marks_came() -> None:
    text = Text(b"A")
    text.insert(0, "a")
    text.mark(0, 1, "link", 1)
    assert text.spans(1, 1) == []
    text.delete(0, 1)
    text.undo()
    text.undo()
    text.undo()
    assert text.spans() == []


# ---- beside others -----------------------------------------------------------------------------------------------

Shown = list[tuple[str, dict[str, object]]]


def sync(one: Text, other: Text) -> None:
    changes = one.take_changes(), other.take_changes()
    one.merge(changes[1])
    other.merge(changes[0])


def edit_beside(text: Text, rng: random.Random, letters: str, what: str) -> None:
    size = len(text)
    if what == "type" or not size:
        text.insert(rng.randint(0, size), "".join(rng.choice(letters) for _ in range(rng.randint(1, 4))))
    elif what == "delete":
        at = rng.randrange(size)
        text.delete(at, rng.randint(1, min(4, size - at)))
    else:
        start = rng.randrange(size)
        stop, name, value = rng.randint(start + 1, size), rng.choice(NAMES), rng.choice([True, None, 1])
        text.mark(start, stop, name, value, expand=rng.choice(EXPANDS))


def shown(text: Text, *, of_others_too: bool = True) -> Shown:
    """Each character with what marks it; what the other one types is in capitals."""
    return [
        (char, found)
        for piece, found in text.spans()
        for char in piece
        if of_others_too or not char.isupper()
    ]


def undone_beside(seed: int, mine: list[str], theirs: list[str]) -> tuple[Shown, Shown, Shown, Shown]:
    """What is shown when two have written at the same time, all of it and without what the other one typed; then the
    same after one of them has undone all and made it again."""
    rng = random.Random(seed)
    one, other = Text(b"A"), Text(b"B")
    other.insert(0, "theirs")
    sync(one, other)
    for _ in range(rng.randint(1, 6)):
        with one.step():
            for _ in range(rng.randint(1, 3)):
                edit_beside(one, rng, "abcd", rng.choice(mine))
        for _ in range(rng.randint(0, 2)):
            edit_beside(other, rng, "WXYZ", rng.choice(theirs))
        if rng.random() < 0.6:
            sync(one, other)
    sync(one, other)
    before = shown(one), shown(one, of_others_too=False)
    while one.undo() is not None:
        pass
    while one.redo() is not None:
        pass
    sync(one, other)
    assert other.spans() == one.spans()
    return *before, shown(one), shown(one, of_others_too=False)


ALL = ["type", "delete", "mark"]


def check_beside(seed: int) -> None:
    """Decision 230: the text always; marks but of what others typed, and of that, too, where nobody typed beside what
    was deleted."""
    before, mine, after, mine_after = undone_beside(seed, ALL, ALL)
    assert [char for char, _ in after] == [char for char, _ in before]
    assert mine_after == mine
    for one, other in ((["type", "mark"], ALL), (ALL, ["delete", "mark"]), (["type", "delete"], ALL)):
        before, _, after, _ = undone_beside(seed, one, other)
        assert after == before


@given(st.integers(0, 1 << 40))
def test_what_is_undone_and_made_again_beside_others_is_as_it_was(seed: int) -> None:
    check_beside(seed)


@pytest.mark.slow
def test_three_thousand_histories_beside_others_are_undone_and_made_again_as_they_were() -> None:
    for seed in range(3000):
        check_beside(seed)


def test_what_gave_back_a_mark_of_others_is_known_when_its_text_comes_back() -> None:
    one, other = Text(b"A"), Text(b"B")
    one.insert(0, "abth")
    sync(one, other)
    other.unmark(0, 3, "bold", expand="both")
    sync(one, other)
    with one.step():
        one.mark(1, 4, "bold")
    with one.step():
        one.delete(0, 2)
    for _ in range(2):
        one.undo()
        assert one.spans() == [("a", {}), ("bth", {"bold": True})]
        one.undo()
        assert one.spans() == [("abth", {})]
        one.redo()
        one.redo()
        assert one.spans() == [("th", {"bold": True})]
