"""What an author deleted of its own in a text or a list, and sums tell with its content all the same."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

from dtp.crdt.list import List
from dtp.crdt.operations import EditStep, Span, steps_of
from dtp.crdt.sums.holding import Untold, find_untold
from dtp.crdt.text import Text


def untold(*edits: bytes) -> Untold:
    return find_untold(step for edit in edits for step in steps_of(edit))


def both_have(one: Any, other: Any) -> tuple[bytes, bytes]:
    """What each has made since the last time, which the other one takes."""
    edits = one.take_changes(), other.take_changes()
    one.merge(edits[1])
    other.merge(edits[0])
    return edits


def lists() -> tuple[List, List]:
    clock = itertools.count(1).__next__
    return List(b"one", clock=clock), List(b"other", clock=clock)


def test_what_was_deleted_alone_is_not_told() -> None:
    text = Text(b"one")
    text.insert(0, "some words")
    text.mark(0, 4, "bold")
    text.delete(2, 5)
    assert untold(text.take_changes()) == Untold([], [])


def test_a_deletion_that_waits_for_others_is_loose() -> None:
    """One that its author made when it had built on others', while what it deleted is older."""
    one, other = Text(b"one"), Text(b"other")
    one.insert(0, "some words")
    other.insert(0, "others' ")
    edits = [both_have(one, other)[0]]
    one.delete(str(one).index("rds"), 2)
    edits.append(both_have(one, other)[0])
    assert untold(*edits) == Untold([], [])
    one.insert(str(one).index("ers'"), "xy")  # between characters of the other
    one.delete(str(one).index("so"), 2)
    edits.append(both_have(one, other)[0])
    assert untold(*edits) == Untold([Span(b"one", 0, 2)], [])


def test_the_first_marker_about_what_others_made_is_needed() -> None:
    """All that its author made behind it waits for that; markers that say the same later are not needed for it."""
    one, other = lists()
    one.extend(["a", "b"])
    other.extend(["c", "d"])
    edits = [both_have(one, other)[0]]
    at = list(one).index("c")
    for value in range(3):
        one[at] = value
        edits.append(both_have(one, other)[0])
    marker = next(step.span for step in steps_of(edits[1]) if step.subjects)
    assert untold(*edits) == Untold([], [marker])


def test_what_is_made_to_cost_much_is_told_whole() -> None:
    """Many agents that each delete the same, which needs something else each time: it ends soon, and nothing is
    left out that might be needed."""
    steps = [
        EditStep(Span(b"one", number, number + 1), ((b"%d" % number, 0),), (), None, False)
        for number in range(3_000)
    ]
    for agent in range(3_000):
        names = (b"one", 0), (b"one", 2_999)
        steps.append(EditStep(Span(b"x%d" % agent, 0, 3_000), names, (), Span(b"one", 0, 3_000), False))
    assert find_untold(steps) == Untold([Span(b"one", 0, 3_000)], [])


def test_what_is_made_to_take_much_memory_takes_little() -> None:
    """Many agents that each build on what needs something of a thousand others: they took 30 KB for each of their
    operations, which an edit tells by some 20 bytes."""
    steps = [
        EditStep(Span(b"one", number, number + 1), ((b"%d" % number, 0),), (), None, False)
        for number in range(1_000)
    ]
    for agent in range(3_000):
        steps.append(EditStep(Span(b"x%d" % agent, 0, 1), ((b"one", 999),), (), None, False))
    steps.append(EditStep(Span(b"one", 1_000, 1_001), (), (), Span(b"one", 0, 1_000), False))
    tracemalloc.start()
    try:
        assert find_untold(steps) == Untold([Span(b"one", 0, 1_000)], [])
        assert tracemalloc.get_traced_memory()[1] < 3_000 * len(steps)
    finally:
        tracemalloc.stop()
