"""What edits tell of operations, read by a second reader; and an author's operations told as one edit."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.core.errors import EncodingError
from dtp.crdt.list import List
from dtp.crdt.operations import Content, Operations, Span, find_content, joined_spans, spans_of, steps_of
from dtp.crdt.text import Text

Kind = type[Text] | type[List]


def edit_text(text: Text, rng: random.Random) -> None:
    what, at = rng.random(), rng.randint(0, len(text))
    if what < 0.5 or not len(text):
        text.insert(at, "".join(rng.choices("aé字🙂", k=rng.randint(1, 5))))
    elif what < 0.8:
        at = rng.randrange(len(text))
        text.delete(at, rng.randint(1, min(4, len(text) - at)))
    else:
        start = rng.randrange(len(text))
        text.mark(
            start, rng.randint(start + 1, len(text)), rng.choice(("bold", "link")), rng.choice((True, "x"))
        )


def edit_list(items: List, rng: random.Random) -> None:
    what = rng.random()
    if what < 0.5 or not len(items):
        items.insert(rng.randint(0, len(items)), rng.choice((1, "two", [3])))
    elif what < 0.65:
        del items[rng.randrange(len(items))]
    elif what < 0.85:
        items.move(rng.randrange(len(items)), rng.randrange(len(items)))
    else:
        items[rng.randrange(len(items))] = rng.randint(0, 9)


EDITS: list[tuple[Kind, Callable[..., None]]] = [(Text, edit_text), (List, edit_list)]


def told(*edits: bytes) -> Operations:
    found = Operations()
    for each in edits:
        found.add_edit(each)
    return found


def history(kind: Kind, edit: Callable[..., None], seed: int) -> tuple[Any, Any, dict[bytes, list[bytes]]]:
    """Two replicas that edited by turns and at the same time, and all edits of each."""
    rng = random.Random(seed)
    both = kind(b"one"), kind(b"two")
    made: dict[bytes, list[bytes]] = {b"one": [], b"two": []}
    for _ in range(rng.randint(1, 12)):
        turn = [at for at in (0, 1) if rng.random() < 0.7]
        for at in turn:
            for _ in range(rng.randint(1, 3)):
                edit(both[at], rng)
        for at in turn:
            message = both[at].take_changes()
            if message:
                made[(b"one", b"two")[at]].append(message)
                both[1 - at].merge(message)
    return *both, made


@pytest.mark.parametrize(("kind", "edit"), EDITS)
@given(seed=st.integers(0, 1 << 32))
def test_all_edits_of_an_author_are_told_by_one(kind: Kind, edit: Callable[..., None], seed: int) -> None:
    one, other, made = history(kind, edit, seed)
    fresh = kind(b"fresh")
    for author, edits in made.items():
        spans = [span for each in edits for span in spans_of(each)]
        assert [span.first for span in spans[1:]] == [span.end for span in spans[:-1]]
        if not spans:
            continue
        whole = one.changes_of(author, 0, spans[-1].end)
        assert whole == other.changes_of(author, 0, spans[-1].end)
        assert spans_of(whole) == [Span(author, 0, spans[-1].end)]
        before, now = told(*edits), told(whole)
        assert now.has_all_of(before)
        assert before.has_all_of(now)
        assert now.is_consistent(before)
        assert before.is_consistent(now)
        fresh.merge(whole)
        cut = random.Random(seed).randint(0, spans[-1].end)
        parts = [
            part
            for part in (one.changes_of(author, 0, cut), one.changes_of(author, cut, spans[-1].end))
            if part
        ]
        assert told(*parts).has_all_of(before)
        assert told(b"".join(parts)).is_consistent(before)
    assert fresh.save() == one.save()


@pytest.mark.parametrize(("kind", "edit"), EDITS)
@given(seed=st.integers(0, 1 << 32))
def test_content_of_what_was_deleted_can_be_told_as_well(
    kind: Kind, edit: Callable[..., None], seed: int
) -> None:
    """Any part of it: the operations are the same, and so is what they give."""
    one, _, made = history(kind, edit, seed)
    rng, fresh = random.Random(seed), kind(b"fresh")
    for author, edits in made.items():
        if not edits:
            continue
        whole = one.changes_of(author, 0, spans_of(edits[-1])[-1].end)
        gone = {
            (agent, number)
            for agent, first, end in told(whole).without_content(told(*edits))
            for number in range(first, end)
        }
        chosen = sorted(id for id in gone if rng.random() < 0.5)
        wanted = joined_spans(Span(agent, number, number + 1) for agent, number in chosen)
        units = dict(found for each in edits for found in find_content(each, wanted))
        assert sorted(units) == chosen
        more = Content(units).put_into(whole)
        assert spans_of(more) == spans_of(whole)
        assert told(more).is_consistent(told(*edits))
        left = {
            (agent, number)
            for agent, first, end in told(more).without_content(told(*edits))
            for number in range(first, end)
        }
        assert left == gone - set(chosen)
        fresh.merge(more)
    assert fresh.save() == one.save()


@pytest.mark.parametrize(("kind", "edit"), EDITS)
@given(seed=st.integers(0, 1 << 32), place=st.integers(0, 1 << 20), flip=st.integers(1, 255))
def test_another_edit_is_told_from_it(
    kind: Kind, edit: Callable[..., None], seed: int, place: int, flip: int
) -> None:
    """Whatever byte is changed: what can be read says something else, unless it says the same by other bytes."""
    _, _, made = history(kind, edit, seed)
    edits = [each for some in made.values() for each in some]
    if not edits:
        return
    whole = edits[place % len(edits)]
    changed = bytearray(whole)
    changed[place % len(changed)] ^= flip
    try:
        kind(b"reader").has_changes(bytes(changed))
    except Exception:  # noqa: BLE001 - the core refuses it, so it is in no frame
        return
    before, now = told(whole), told(bytes(changed))
    if (
        now.is_consistent(before)
        and now.has_all_of(before)
        and before.has_all_of(now)
        and before.is_consistent(now)
    ):
        assert len(spans_of(bytes(changed))) == len(spans_of(whole))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for start in (b"", b"\xd1\x01\x01a", b"\xd3\x01\x01a"):
        try:
            told(start + data)
            spans_of(start + data)
            steps_of(start + data)
            Content({(b"a", 1): b"x"}).put_into(start + data)
        except EncodingError:
            continue


def test_what_is_compacted_or_unknown_is_not_told() -> None:
    text = Text(b"one")
    text.insert(0, "hello")
    text.delete(0, 5)
    text.insert(0, "x")
    assert text.changes_of(b"one", 0, 11)
    assert text.changes_of(b"one", 0, 12) == b""
    assert text.changes_of(b"nobody", 0, 1) == b""
    assert text.changes_of(b"one", 3, 3) == b""
    text.compact([text.version])
    assert text.changes_of(b"one", 0, 11) == b""


def test_what_came_and_went_is_told_in_a_few_bytes() -> None:
    text = Text(b"one")
    for number in range(10_000):
        text.insert(number, "x")
    text.delete(0, 10_000)
    assert len(text.changes_of(b"one", 0, 20_000)) < 40


def test_a_run_of_a_billion_costs_no_more_than_one_of_two() -> None:
    """Whoever signs such an edit keeps nobody busy."""

    def deleted(length: bytes, first: bytes = b"\0") -> bytes:
        return b"\xd1\x01\x01a\x01" + first + b"\x19" + length + b"\x03\x00\x00"

    many = b"\xff\xff\xff\xff\x07"
    one, other = told(deleted(many)), told(deleted(b"\x02"))
    assert spans_of(deleted(many)) == [Span(b"a", 0, (1 << 31) - 1)]
    assert one.has_all_of(other)
    assert not other.has_all_of(one)
    assert one.is_consistent(other)
    assert other.is_consistent(one)
    content = Content({(b"a", 1_000_000_000): b"x"})
    assert told(content.put_into(deleted(many))).content_size == 1
    with pytest.raises(EncodingError, match="less text"):
        told(b"\xd1\x01\x01a\x01\x00\x18" + many + b"\x03\x00\x01x")


def test_what_overlaps_is_compared() -> None:
    text = Text(b"a")
    text.insert(0, "hello world")
    text.delete(2, 3)
    whole = told(text.changes_of(b"a", 0, 14))
    for first in range(14):
        for end in range(first + 1, 15):
            part = told(text.changes_of(b"a", first, end))
            assert whole.is_consistent(part)
            assert part.is_consistent(whole)
            assert whole.has_all_of(part)
            assert part.has_all_of(whole) == ((first, end) == (0, 14))
    another = Text(b"a")
    another.insert(0, "hello world")
    another.delete(3, 3)
    changed = told(another.changes_of(b"a", 0, 14))
    assert not whole.is_consistent(changed)
    assert not changed.is_consistent(whole)


def test_whose_content_is_told_no_more() -> None:
    text = Text(b"a")
    text.insert(0, "hello world")
    before = text.changes_of(b"a", 0, 11)
    text.delete(2, 3)
    text.delete(7, 1)
    after = text.changes_of(b"a", 0, 11)
    assert list(told(after).without_content(told(before))) == [Span(b"a", 2, 5), Span(b"a", 10, 11)]
    assert list(told(before).without_content(told(after))) == []
    assert list(told().without_content(told(after))) == [Span(b"a", 0, 2), Span(b"a", 5, 10)]
    pieces = [text.changes_of(b"a", at, at + 3) for at in (8, 5, 0)]
    assert list(told(*pieces).without_content(told(before))) == [Span(b"a", 2, 5), Span(b"a", 10, 11)]
    assert told(text.changes_of(b"a", 2, 5)).content_size == 0


def test_a_list_s_values_that_were_replaced_are_told_no_more() -> None:
    items = List(b"a")
    items.extend(["one", "two"])
    items[0] = "first"
    before = told(items.changes_of(b"a", 0, 3))
    items[0] = "best"
    del items[1]
    after = told(items.changes_of(b"a", 0, items.version[b"a"]))
    assert list(after.without_content(before)) == [Span(b"a", 1, 3)]


def calls(edits: int) -> int:
    """How many functions are called to compare so many edits, each of runs of its own, with the sum of all."""
    text, rng = Text(b"one"), random.Random(1)
    made = []
    for _ in range(edits):
        text.insert(rng.randint(0, len(text)), "word")
        made.append(text.take_changes())
    everything, each = told(*made), [told(one) for one in made]
    count = 0

    def called(_frame: Any, event: str, _what: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        found = all(everything.has_all_of(one) and everything.is_consistent(one) for one in each)
    finally:
        sys.setprofile(None)
    assert found
    return count


def test_edits_are_compared_with_their_sum_in_a_time_that_grows_with_them() -> None:
    """Each edit was compared with all: a draft of an hour held up its program for minutes."""
    assert calls(1200) < 6 * calls(300)
