"""Marks of a text: what Peritext's paper asks for, alike everywhere, for any history, and what strangers may send."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import mark_reference, text_reference
from text_checks import patched

from dtp.crdt import GraphValueError
from dtp.crdt import values as encoding
from dtp.crdt.marks import Expand, Format, TextDeltaError, TextMarkError, TextMarksLimit
from dtp.crdt.text import Text, TextFormat, TextRange, TextStale

NAMES = ("bold", "link", "comment:1", "comment:2")
EXPANDS: tuple[Expand, ...] = ("after", "before", "both", "none")
Shown = list[tuple[str, dict[str, Any]]]


def characters(text: Text) -> Shown:
    """Each character with its attributes."""
    return [(char, attributes) for piece, attributes in text.spans() for char in piece]


def formatted(view: Shown, patches: Sequence[Any], formats: list[Format]) -> Shown:
    """What somebody shows who takes what a text tells."""
    plain = patched("".join(char for char, _ in view), patches)
    for position, deleted, inserted in patches:
        view = view[:position] + [(char, {}) for char in inserted] + view[position + deleted :]
    assert "".join(char for char, _ in view) == plain
    for position, count, attributes in formats:
        assert position + count <= len(view)
        for at in range(position, position + count):
            both = {**view[at][1], **attributes}
            view[at] = view[at][0], {name: value for name, value in both.items() if value is not None}
    return view


def edit(text: Text, rng: random.Random) -> None:
    size = len(text)
    at = rng.choice([0, size, rng.randint(0, size)])
    what = rng.random()
    if what < 0.3 or not size:
        text.insert(at, rng.choice(["a", "bc", "\u00e9", "x" * 5]))
    elif what < 0.5:
        text.delete(at, min(size - at, rng.choice([1, 1, 3])))
    else:
        stop = rng.randint(at, min(size, at + 6))
        value = rng.choice([True, True, None, "http://x", 1])
        text.mark(at, stop, rng.choice(NAMES), value, expand=rng.choice(EXPANDS))


def agree(text: Text, expected: Shown) -> None:
    text.check_structure()
    assert characters(text) == expected


def decoded(found: list[tuple[str, dict[bytes, bytes]]]) -> Shown:
    return [
        (char, {name.decode(): encoding.decode(value) for name, value in attributes.items()})
        for char, attributes in found
    ]


@given(st.integers(0, 1 << 32), st.integers(4, 4), st.integers(1, 60))
def test_any_history_is_shown_as_the_second_implementation_shows_it(
    seed: int, count: int, steps: int
) -> None:
    rng = random.Random(seed)
    texts = [Text(bytes((65 + number,))) for number in range(count)]
    views: list[Shown] = [[] for _ in texts]
    sent: list[bytes] = []
    for _ in range(steps):
        which = rng.randrange(count)
        text = texts[which]
        if sent and rng.randrange(2):
            patches = text.apply(rng.choice(sent))
            views[which] = formatted(views[which], patches, text.formats())
        elif rng.randrange(5) == 0:
            undone = text.undo() if rng.randrange(2) else text.redo()
            views[which] = formatted(views[which], undone or [], text.formats())
        else:
            edit(text, rng)
            views[which] = characters(text)
        agree(text, views[which])
        if rng.randrange(3) and (changes := text.take_changes()):
            sent.append(changes)
    sent += [changes for text in texts if (changes := text.take_changes())]
    for text, view in zip(texts, views, strict=True):
        rng.shuffle(sent)
        for message in sent:
            patches = text.apply(message)
            view = formatted(view, patches, text.formats())
        assert text.waiting == 0
        agree(text, view)
    model = mark_reference.merge(sent)
    expected = decoded(mark_reference.shown(model))
    for text in texts:
        agree(text, expected)
    assert {text.save() for text in texts} == {text_reference.canonical(model.log, {})}
    version = texts[0].version
    for text in texts:
        text.compact([version])
        agree(text, expected)
    assert len({text.save() for text in texts}) == 1
    loaded = Text.load(texts[0].save(), b"loaded")
    agree(loaded, expected)
    assert loaded.save() == texts[0].save()
    for text in texts:
        edit(text, rng)
        edit(text, rng)
    late = [changes for text in texts if (changes := text.take_changes())]
    for text in (*texts, loaded):
        for message in late:
            text.merge(message)
        agree(text, characters(texts[0]))


@given(st.randoms(use_true_random=False), st.integers(2, 4), st.integers(10, 80))
def test_compacting_here_and_there_makes_no_difference(rng: random.Random, count: int, steps: int) -> None:
    texts = [Text(bytes((65 + number,))) for number in range(count)]
    for _ in range(steps):
        text, other = rng.choice(texts), rng.choice(texts)
        if rng.random() < 0.6:
            edit(text, rng)
        elif rng.random() < 0.3:
            text.undo()
        else:
            text.merge(other.changes_since(text.version))
        if rng.random() < 0.15 and all(one.version <= text.version for one in texts):
            before = characters(text)
            text.compact([one.version for one in texts])
            agree(text, before)
            agree(Text.load(text.save(), b"copy"), before)
    for _ in range(2):
        for text in texts:
            for other in texts:
                text.merge(other.changes_since(text.version))
    for text in texts:
        agree(text, characters(texts[0]))


def pair(words: str) -> tuple[Text, Text]:
    """Two who know the same text."""
    one, other = Text(b"A"), Text(b"B")
    one.insert(0, words)
    other.merge(one.take_changes())
    return one, other


def sync(one: Text, other: Text) -> Shown:
    """What both show once they know everything."""
    for here, there in ((one, other), (other, one)):
        here.merge(there.changes_since(here.version))
        here.check_structure()
    assert one.spans() == other.spans()
    return one.spans()


def test_overlapping_marks_of_one_kind_join() -> None:
    one, other = pair("The fox jumped.")
    one.mark(0, 7, "bold")
    other.mark(4, 14, "bold")
    assert sync(one, other) == [("The fox jumped", {"bold": True}), (".", {})]


def test_overlapping_marks_of_two_kinds_hold_both() -> None:
    one, other = pair("The fox jumped.")
    one.mark(0, 7, "bold")
    other.mark(4, 14, "italic")
    assert sync(one, other) == [
        ("The ", {"bold": True}),
        ("fox", {"bold": True, "italic": True}),
        (" jumped", {"italic": True}),
        (".", {}),
    ]


def test_of_two_colours_the_later_holds_and_comments_are_kept() -> None:
    one, other = pair("The fox jumped.")
    one.mark(0, 7, "colour", "red")
    one.mark(0, 7, "comment:1", "why?")
    other.mark(4, 14, "colour", "blue")
    other.mark(4, 14, "comment:2", "oh")
    other.mark(4, 14, "colour", "green")
    found = dict(sync(one, other))
    assert found["fox"] == {"colour": "green", "comment:1": "why?", "comment:2": "oh"}
    assert found["The "] == {"colour": "red", "comment:1": "why?"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("bold", [("The ", {}), ("[fox]", None), (" jumped.", {})]), ("link", [("The ", {}), ("[fox]", None)])],
)
def test_what_is_inserted_at_the_edges_meanwhile(name: str, expected: object) -> None:
    one, other = pair("The fox jumped.")
    one.mark(4, 7, name)
    other.insert(7, "]")
    other.insert(4, "[")
    marked = "fox]" if name == "bold" else "fox"
    assert [piece for piece, attributes in sync(one, other) if attributes] == [marked]


def test_each_way_to_expand() -> None:
    for expand, expected in (("after", "fox]"), ("before", "[fox"), ("both", "[fox]"), ("none", "fox")):
        for name in ("bold", "link"):
            one, other = pair("The fox jumped.")
            one.mark(4, 7, name, expand=expand)  # type: ignore[arg-type]
            one.insert(7, "]")
            one.insert(4, "[")
            assert [piece for piece, attributes in sync(one, other) if attributes] == [expected]


def test_all_of_a_text_is_marked_to_its_ends() -> None:
    one, other = pair("fox")
    one.mark(0, 3, "bold", expand="both")
    other.insert(3, "!")
    other.insert(0, "The ")
    assert sync(one, other) == [("The fox!", {"bold": True})]


def test_a_hole_in_a_link_has_the_edges_of_links() -> None:
    one, other = pair("abc")
    one.mark(0, 3, "link", "u")
    one.unmark(1, 2, "link")
    other.merge(one.take_changes())
    other.insert(2, "y")
    other.insert(1, "x")
    assert sync(one, other) == [("a", {"link": "u"}), ("xby", {}), ("c", {"link": "u"})]


def test_a_link_whose_last_characters_are_deleted_does_not_grow() -> None:
    one, other = pair("see here now")
    one.mark(4, 8, "link", "u")
    other.merge(one.take_changes())
    one.delete(6, 2)
    one.insert(6, "X")  # before the deleted characters, so within the link's ends
    one.insert(7, "Y")
    other.insert(0, "- ")
    assert sync(one, other) == [("- see ", {}), ("he", {"link": "u"}), ("XY now", {})]


def test_marks_survive_the_deletion_of_their_ends_and_compaction() -> None:
    one, other = pair("The quick fox")
    one.mark(4, 9, "bold")
    other.merge(one.take_changes())
    other.delete(8, 2)
    other.delete(4, 1)
    assert sync(one, other) == [("The ", {}), ("uic", {"bold": True}), ("fox", {})]
    for text in (one, other):
        text.compact([one.version])
        text.check_structure()
    one.insert(7, "!")
    assert sync(one, other)[1] == ("uic!", {"bold": True})
    loaded = Text.load(other.save(), b"C")
    loaded.check_structure()
    assert loaded.spans() == other.spans()


def test_undo_gives_back_what_was_marked_before() -> None:
    one, other = pair("abcdef")
    one.mark(0, 3, "colour", "red")
    one.mark(1, 5, "colour", "blue")
    other.merge(one.take_changes())
    other.mark(4, 6, "colour", "green")
    sync(one, other)
    assert one.undo() == []
    assert one.spans() == [("abc", {"colour": "red"}), ("d", {}), ("ef", {"colour": "green"})]
    assert one.formats() == [Format(1, 2, {"colour": "red"}), Format(3, 1, {"colour": None})]
    one.redo()
    assert one.spans() == [("a", {"colour": "red"}), ("bcd", {"colour": "blue"}), ("ef", {"colour": "green"})]
    one.undo()
    one.undo()
    assert one.spans() == [("abcd", {}), ("ef", {"colour": "green"})]
    sync(one, other)


def test_text_that_comes_back_is_marked_as_it_was() -> None:
    text = Text(b"A")
    text.insert(0, "one two three")
    text.mark(4, 7, "bold")
    text.mark(0, 5, "link", "u", expand="none")
    before = text.spans()
    text.delete(2, 8)
    text.undo()
    text.check_structure()
    assert text.spans() == before


def test_a_mark_waits_for_its_characters() -> None:
    one, other = Text(b"A"), Text(b"B")
    one.insert(0, "fox")
    first = one.take_changes()
    other.merge(first)
    other.mark(0, 3, "bold")
    late = Text(b"C")
    late.merge(other.take_changes())
    assert late.waiting == 1
    late.merge(first)
    assert late.waiting == 0
    assert late.spans() == [("fox", {"bold": True})]


def test_marks_that_hold_nothing_are_forgotten() -> None:
    one, other = pair("hello world")
    for number in range(2000):
        one.mark(0, 5, "colour", number)
        one.mark(2, 11, "bold", number % 2 == 0 or None)
    other.merge(one.take_changes())
    assert one.spans() == other.spans()
    for text in (one, other):
        text.compact([one.version])
        text.check_structure()
    assert len(one.save()) < 20_000
    assert sync(one, other) == [("hello", {"colour": 1999}), (" world", {})]


def deleting(name: bytes, victim: bytes, number: int, at: int) -> bytes:
    """A message of somebody who deletes what no honest replica deletes."""
    return text_reference.encode([(name, text_reference.Delete(at, (victim, number)))])


def test_a_mark_that_a_stranger_deletes_uncovers_what_was_below() -> None:
    one, _ = pair("abc")
    one.mark(0, 3, "bold", 1)
    one.mark(1, 2, "bold", 2)
    assert one.apply(deleting(b"X", b"A", 4, 0)) == []
    one.check_structure()
    assert one.spans() == [("abc", {"bold": 1})]
    assert one.formats() == [Format(0, 3, {"bold": None}), Format(0, 3, {"bold": 1})]
    one.apply(deleting(b"X", b"A", 3, 1))
    assert one.spans() == [("abc", {})]
    assert one.formats() == [Format(0, 3, {"bold": None})]


def test_inverted_marks_and_marks_of_marks_do_nothing() -> None:
    one, _ = pair("abc")
    forged = [
        mark_reference.Mark(5, 0, (b"A", 2), (b"A", 0), b"bold", b"\xc3"),
        mark_reference.Mark(1 << 61, 2, (b"A", 1), (b"A", 1), b"bold", b"\xc3"),
        mark_reference.Mark(5, 0, (b"X", 0), (b"X", 1), b"bold", b"\xc3"),
    ]
    for number, mark in enumerate(forged):
        insert = text_reference.Insert(
            number, "right", None, (b"A", 0), mark_reference.mark_char(mark), marker=True
        )
        one.merge(text_reference.encode([(b"X", insert)]))
        one.check_structure()
    assert one.spans() == [("a", {}), ("b", {"bold": True}), ("c", {})]
    one.mark(0, 3, "bold", None)  # above what the stranger claims
    assert one.spans() == [("abc", {})]


def test_a_mark_of_what_is_forgotten_is_stale() -> None:
    one, other = pair("abc")
    one.delete(0, 2)
    sync(one, other)
    one.compact([other.version])
    mark = mark_reference.Mark(5, 0, (b"A", 1), (b"A", 2), b"bold", b"\xc3")
    insert = text_reference.Insert(0, "right", None, None, mark_reference.mark_char(mark), marker=True)
    with pytest.raises(TextStale):
        one.merge(text_reference.encode([(b"X", insert)]))
    one.check_structure()


def test_what_is_no_mark_is_refused() -> None:
    text = Text(b"A")
    text.insert(0, "abc")
    for name, value, error in (
        ("", True, TextMarkError),
        ("n" * 256, True, TextMarkError),
        ("\ud800", True, TextMarkError),
        (5, True, TextMarkError),
        ("bold", "x" * 16384, TextMarkError),
        ("bold", object(), GraphValueError),
        ("bold", {1: 2}, GraphValueError),
    ):
        with pytest.raises(error):
            text.mark(0, 3, name, value)  # type: ignore[arg-type]
    with pytest.raises(TextMarkError):
        text.mark(0, 3, "bold", expand="sideways")  # type: ignore[arg-type]
    for start, stop in ((2, 1), (0, 4), (-1, 2)):
        with pytest.raises(TextRange):
            text.mark(start, stop, "bold")
    text.mark(1, 1, "bold")
    assert text.spans() == [("abc", {})]
    assert text.undo_steps == 1


def test_too_many_attributes_at_once_are_refused_and_parts_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    text = Text(b"A")
    text.insert(0, "ab")
    for number in range(50):
        text.mark(0, 2, f"comment:{number}")
    text.mark(0, 1, "bold")
    monkeypatch.setattr("dtp.crdt.marks.MOST_ATTRIBUTES", 60)
    with pytest.raises(TextMarksLimit):
        text.spans()
    assert len(text.spans(1, 2)[0][1]) == 50


def test_deltas_are_what_quill_has() -> None:
    text = Text(b"A")
    text.apply_delta([{"insert": "Gandalf", "attributes": {"bold": True}}, {"insert": " the Grey"}])
    assert text.to_delta() == [
        {"insert": "Gandalf", "attributes": {"bold": True}},
        {"insert": " the Grey"},
    ]
    text.apply_delta(
        [
            {"retain": 7, "attributes": {"bold": None, "italic": True}},
            {"retain": 5},
            {"insert": "White", "attributes": {"colour": "#fff"}},
            {"delete": 4},
        ]
    )
    assert text.to_delta() == [
        {"insert": "Gandalf", "attributes": {"italic": True}},
        {"insert": " the "},
        {"insert": "White", "attributes": {"colour": "#fff"}},
    ]
    text.undo()
    assert str(text) == "Gandalf the Grey"
    assert text.spans()[0] == ("Gandalf", {"bold": True})
    before = text.save()
    for wrong in (
        [{"retain": 100}],
        [{"insert": {"image": "x"}}],
        [{"insert": "a", "delete": 1}],
        [{"retain": -1}],
        [{"retain": True}],
        [{"insert": "a", "attributes": [1]}],
        [3],
        "abc",
    ):
        with pytest.raises(TextDeltaError):
            text.apply_delta(wrong)  # type: ignore[arg-type]
    assert text.save() == before


def test_html_escapes_and_takes_safe_links_only() -> None:
    text = Text(b"A")
    text.insert(0, "a <b> c")
    text.mark(0, 1, "bold")
    text.mark(2, 5, "link", "javascript:alert(1)")
    text.mark(6, 7, "link", 'https://x/"')
    assert text.to_html() == '<strong>a</strong> &lt;b&gt; <a href="https://x/&quot;">c</a>'


def test_a_list_has_no_marks() -> None:
    text = Text(b"A")
    text.insert(0, "abc")
    text.mark(0, 1, "bold")
    message = text.save()
    with pytest.raises(TextFormat):
        Text(b"B").merge(b"\xd3" + message[1:])
