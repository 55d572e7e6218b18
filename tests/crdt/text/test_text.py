"""One replica: a text behaves like a `str` that is edited, in all its units; undo, places, errors, memory."""

from __future__ import annotations

import random
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from text_checks import patched

from dtp.core.sequence import TextBusy, TextMemory
from dtp.crdt.text import Anchor, AnchorGone, Text, TextFormat, TextRange, Version
from dtp.errors import LocalError
from dtp.unicode import TextNotUnicode

#: One, two, three and four bytes in UTF-8; one and two units in UTF-16.
LETTERS = st.sampled_from("ab é漢😀\n")
PIECES = st.text(LETTERS, max_size=5) | st.builds(lambda c: c * 700, LETTERS)


@st.composite
def edits(draw: st.DrawFn) -> list[tuple[str, int, Any]]:
    """A script: (what, position, text or count); positions are taken modulo what is there."""
    one = st.one_of(
        st.tuples(st.just("insert"), st.integers(0, 5000), PIECES),
        st.tuples(st.just("delete"), st.integers(0, 5000), st.sampled_from([1, 1, 2, 5, 900])),
        st.tuples(st.just("replace"), st.integers(0, 5000), PIECES),
    )
    return draw(st.lists(one, max_size=40))


def perform(text: Text, model: str, what: str, at: int, more: Any) -> str:
    """Do one edit to both; gives the model's new value."""
    if what == "insert":
        at %= len(model) + 1
        text.insert(at, more)
        return model[:at] + more + model[at:]
    at %= len(model) + 1
    if what == "delete":
        count = min(more, len(model) - at)
        text.delete(at, count)
        return model[:at] + model[at + count :]
    count = min(3, len(model) - at)
    text.replace(at, count, more)
    return model[:at] + more + model[at + count :]


@given(edits())
def test_is_what_a_string_would_be(script: list[tuple[str, int, Any]]) -> None:
    text, model = Text(b"a"), ""
    for what, at, more in script:
        model = perform(text, model, what, at, more)
        assert str(text) == model
        assert len(text) == len(model)
    text.check_structure()
    for start in range(0, len(model) + 1, max(1, len(model) // 7)):
        assert text[start:] == model[start:]
        assert text[start : start + 3] == model[start : start + 3]
        assert text.utf8_offset(start) == len(model[:start].encode())
        assert text.utf16_offset(start) == len(model[:start].encode("utf-16-le")) // 2
        assert text.from_utf8(text.utf8_offset(start)) == start
        assert text.from_utf16(text.utf16_offset(start)) == start
    assert Text.load(text.save(), b"b").save() == text.save()


@given(edits(), st.randoms(use_true_random=False))
def test_undo_takes_back_step_by_step_and_redo_brings_again(
    script: list[tuple[str, int, Any]], rng: random.Random
) -> None:
    text, model = Text(b"a"), ""
    states = [""]
    for what, at, more in script:
        with text.step():
            model = perform(text, model, what, at, more)
        if model != states[-1]:
            states.append(model)
    at = len(states) - 1
    for _ in range(3 * len(states)):
        before = str(text)
        back = rng.random() < 0.55
        patches = text.undo() if back else text.redo()
        if patches is None:
            assert at == (0 if back else len(states) - 1)
            continue
        assert patched(before, patches) == str(text)
        if str(text) != before:
            at += -1 if back else 1
        assert str(text) == states[at]
    text.check_structure()


def test_typing_is_one_step_until_the_line_ends() -> None:
    text = Text(b"a")
    for i, c in enumerate("one\ntwo"):
        text.insert(i, c)
    for _ in range(2):
        text.delete(len(text) - 1)
    assert str(text) == "one\nt"
    text.undo()
    assert str(text) == "one\ntwo"
    text.undo()
    assert str(text) == "one\n"
    text.undo()
    assert str(text) == ""
    assert text.undo() is None
    assert text.undo_steps == 0
    assert text.redo_steps == 3
    text.insert(0, "x")
    assert text.redo() is None  # an edit ends what could be done again


def test_a_step_ends_when_told_or_elsewhere() -> None:
    text = Text(b"a")
    text.insert(0, "ab")
    text.end_step()
    text.insert(2, "c")
    text.insert(0, "_")
    text.undo()
    assert str(text) == "abc"
    text.undo()
    assert str(text) == "ab"


def test_text_typed_within_other_text_comes_back_where_it_was() -> None:
    """Deleted one behind the other, what was around it has numbers side by side, and yet it was between them."""
    text = Text(b"a")
    text.insert(0, "def")
    text.end_step()
    text.insert(2, "bc")
    text.end_step()
    with text.step():
        text.delete(2, 3)
        text.delete(1, 1)
    assert text.undo()
    assert str(text) == "debcf"
    assert text.redo()
    assert str(text) == "d"


def test_undo_depth() -> None:
    text = Text(b"a", undo_depth=10)
    for i in range(100):
        text.insert(i, "x")
        text.end_step()
    assert 10 <= text.undo_steps <= 20
    while text.undo():
        pass
    assert 80 <= len(text) <= 90
    none = Text(b"b", undo_depth=0)
    none.insert(0, "x")
    none.delete(0)
    assert none.undo() is None


def test_undo_leaves_what_others_wrote() -> None:
    here, there = Text(b"here"), Text(b"there")
    here.insert(0, "hello")
    there.merge(here.take_changes())
    there.insert(2, "--")
    there.delete(6)
    here.merge(there.take_changes())
    here.undo()
    assert str(here) == "--"
    here.redo()
    assert str(here) == "he--ll"
    there.merge(here.take_changes())
    there.undo()
    assert str(there) == "he--llo"


def test_undone_deletions_can_be_undone_with_their_insertion() -> None:
    text = Text(b"a")
    text.insert(0, "abcdef")
    text.end_step()
    text.delete(2, 2)
    text.undo()
    assert str(text) == "abcdef"
    text.undo()
    assert str(text) == ""  # the characters that came back were meant, too
    text.redo()
    assert str(text) == "abcdef"
    text.redo()
    assert str(text) == "abef"


def test_undo_after_compaction() -> None:
    text = Text(b"a")
    text.insert(0, "abcdefgh")
    for position, count in ((2, 1), (2, 2)):
        text.end_step()
        text.delete(position, count)
    assert text.compact([]) == 2  # d and e, beside which the second step was
    text.undo()
    assert str(text) == "abdefgh"
    text.undo()
    assert str(text) == "abcdefgh"
    text.redo()
    text.redo()
    assert str(text) == "abfgh"
    text.check_structure()


def test_as_a_sequence() -> None:
    text = Text(b"a")
    text.append("hello world")
    text[0] = "J"
    text[5:] = ", you"
    assert str(text) == "Jello, you"
    del text[-1]
    del text[0:2]
    assert str(text) == "llo, yo"
    assert list(text) == list("llo, yo")
    assert "lo," in text
    assert text[-1] == "o"
    assert text[3:1] == ""
    assert repr(text) == "<Text of 7: 'llo, yo'>"
    with pytest.raises(TextRange):
        text[7]
    with pytest.raises(LocalError):
        text[::2]


def test_replace_touches_only_what_differs() -> None:
    text = Text(b"a")
    text.insert(0, "the quick fox")
    before = text.version[b"a"]
    text[:] = "the quiet fox"
    assert str(text) == "the quiet fox"
    assert text.version[b"a"] - before == 4
    text[:] = str(text)
    assert text.version[b"a"] - before == 4


@pytest.mark.parametrize(
    ("position", "count"), [(4, 1), (0, 4), (3, 1), (-1, 1), (0, -1), (2**64, 1), (1, 2**64 - 1)]
)
def test_deleting_what_is_not_there(position: int, count: int) -> None:
    text = Text(b"a")
    text.insert(0, "abc")
    with pytest.raises(TextRange):
        text.delete(position, count)
    assert str(text) == "abc"


@pytest.mark.parametrize("position", [4, -1, 2**63, 2**64])
def test_inserting_outside(position: int) -> None:
    text = Text(b"a")
    text.insert(0, "abc")
    with pytest.raises(TextRange):
        text.insert(position, "x")
    with pytest.raises(IndexError):  # as of any sequence
        text.anchor(position)
    assert str(text) == "abc"


def test_half_a_surrogate_pair() -> None:
    text = Text(b"a")
    with pytest.raises(TextNotUnicode, match="index 1"):
        text.insert(0, "a\ud800b")
    with pytest.raises(TextNotUnicode):
        text.edit([(0, 0, "\udfff")])
    assert str(text) == ""


def test_many_edits_in_one_call() -> None:
    text = Text(b"a")
    text.edit([(0, 0, "hello"), (5, 0, " wörld"), (0, 1, "J"), (2, 0, "")])
    assert str(text) == "Jello wörld"
    with pytest.raises(TextRange, match="1 of 2 edits"):
        text.edit([(0, 0, ">"), (99, 0, "x")])
    assert str(text) == ">Jello wörld"
    with pytest.raises(TextRange):
        text.edit([(-1, 0, "x")])
    text.check_structure()


@pytest.mark.parametrize("agent", [b"", b"x" * 65])
def test_an_author_needs_a_name(agent: bytes) -> None:
    with pytest.raises(LocalError, match="1 to 64 bytes"):
        Text(agent)


# ---- places


@given(edits(), st.integers(0, 60), st.integers(0, 60))
def test_anchors_stay_with_their_characters(
    script: list[tuple[str, int, Any]], first: int, second: int
) -> None:
    text, model = Text(b"a"), "0123456789" * 3
    text.insert(0, model)
    # The model knows its characters by identity: one object for each.
    marks = [object() for _ in model]
    spots = [(p % 31, side) for p in (first, second) for side in ("left", "right")]
    anchors = [text.anchor(p, side) for p, side in spots]  # type: ignore[arg-type]
    tied = [
        (marks[p - 1] if p else None) if side == "left" else (marks[p] if p < 30 else None)
        for p, side in spots
    ]
    kept = list(marks)
    for what, at, more in script:
        at %= len(kept) + 1
        if what == "insert":
            text.insert(at, more)
            kept[at:at] = [object() for _ in more]
        elif what == "delete":
            count = min(more, len(kept) - at)
            text.delete(at, count)
            del kept[at : at + count]
    for anchor, (_, side), mark in zip(anchors, spots, tied, strict=True):
        found = text.position(Anchor.decode(anchor.encode()))
        if mark is None:
            assert found == (0 if side == "left" else len(kept))
        elif mark in kept:
            assert found == kept.index(mark) + (side == "left")
        else:
            rest = marks[marks.index(mark) + 1 :]
            behind = [kept.index(m) for m in rest if m in kept]
            before = [kept.index(m) for m in marks[: marks.index(mark)] if m in kept]
            assert max(before, default=-1) < found <= min(behind, default=len(kept))


def test_anchors_on_other_replicas() -> None:
    here, there = Text(b"here"), Text(b"there")
    here.insert(0, "abc")
    cursor = here.anchor(2).encode()
    with pytest.raises(AnchorGone):
        there.position(Anchor.decode(cursor))
    there.merge(here.take_changes())
    there.insert(0, ">>")
    assert there.position(Anchor.decode(cursor)) == 4


def test_anchors_survive_compaction() -> None:
    text = Text(b"a")
    text.insert(0, "abcdefgh")
    left, right = text.anchor(4), text.anchor(6, "right")
    foreign = text.anchor(4).encode()
    text.delete(2, 5)
    assert text.compact([]) == 4
    assert text.position(left) == 2
    assert text.position(right) == 2
    text.insert(0, "__")
    assert text.position(left) == 4
    with pytest.raises(AnchorGone):
        text.position(Anchor.decode(foreign))


@pytest.mark.parametrize(
    "data", [b"", b"\x02", b"\0\0", b"\0\x02a", b"\0\x01a", b"\0\x01a\x01x", b"\1\x01a\xff\xff\xff\xff\x7f"]
)
def test_anchors_are_read_strictly(data: bytes) -> None:
    with pytest.raises(TextFormat):
        Anchor.decode(data)


# ---- versions


@given(st.dictionaries(st.binary(min_size=1, max_size=64), st.integers(0, 2**31 - 2)))
def test_versions_as_bytes(numbers: dict[bytes, int]) -> None:
    version = Version(numbers)
    assert Version.decode(version.encode()) == version
    assert (version | Version()) == version
    assert (version & version) == version
    assert not (version & Version())


def test_versions_are_a_lattice() -> None:
    a, b = Version({b"x": 3, b"y": 1}), Version({b"x": 1, b"z": 2})
    assert a | b == Version({b"x": 3, b"y": 1, b"z": 2})
    assert a & b == Version({b"x": 1})
    assert a & b <= a <= a | b
    assert a | b >= b
    assert not a <= b
    assert len({a, Version({b"y": 1, b"x": 3})}) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"\x01",
        b"\x02\1a\1\1a\2",
        b"\x02\1b\1\1a\2",
        b"\x01\1a\0",
        b"\x01\0\1",
        b"\x01\1a\1\0",
        b"\x81\0",
        b"\x01\1a\xff\xff\xff\xff\x07",
    ],
)
def test_versions_are_read_strictly_on_both_sides(data: bytes) -> None:
    with pytest.raises(TextFormat):
        Version.decode(data)
    text = Text(b"a")
    text.insert(0, "x")
    with pytest.raises(TextFormat):
        text.changes_since(data)


# ---- memory and threads


def test_memory_is_capped() -> None:
    text = Text(b"a", memory_limit=200_000)
    edits = [(i % (100 * i + 1), 0, "0123456789" * 10) for i in range(10_000)]
    with pytest.raises(TextMemory, match="of 10000 edits"):
        text.edit(edits)
    held = str(text)
    assert text.memory <= 200_000
    text.check_structure()
    text.memory_limit = 0
    text.delete(0, len(text) - 10)
    assert str(text) == held[-10:]


def test_memory_is_given_back() -> None:
    small = Text(b"a", undo_depth=0)
    small.insert(0, "x" * 1_000_000)
    small.delete(0, 999_999)
    small.compact([])
    assert small.memory < 20_000


@pytest.mark.parametrize("limit", range(4_000, 44_000, 1_000))
def test_no_memory_at_any_moment_breaks_nothing(limit: int) -> None:
    rng = random.Random(limit)
    text, model = Text(b"a", memory_limit=limit), ""
    other = Text(b"b")
    for _ in range(400):
        at = rng.randint(0, len(model))
        piece = rng.choice("abcé漢") * rng.choice([1, 1, 3, 40])
        try:
            if rng.random() < 0.6:
                text.insert(at, piece)
                model = model[:at] + piece + model[at:]
            elif rng.random() < 0.5:
                count = min(len(model) - at, rng.choice([1, 2, 30]))
                text.delete(at, count)
                model = model[:at] + model[at + count :]
            else:
                other.insert(rng.randint(0, len(other)), piece)
                text.merge(other.take_changes())
                model = str(text)
        except TextMemory:
            assert str(text) == model
        assert text.memory <= limit
        text.check_structure()


def test_two_threads_at_once_are_told() -> None:
    text = Text(b"a")
    text.insert(0, "x" * 2_000_000)
    faults: list[BaseException] = []
    done = threading.Event()

    def hammer() -> None:
        while not done.is_set():
            try:
                text.insert(0, "y")
            except TextBusy as error:
                faults.append(error)

    thread = threading.Thread(target=hammer)
    thread.start()
    for _ in range(200):
        try:
            text.encoded_version()
            str(text)
        except TextBusy as error:
            faults.append(error)
        except LocalError:
            pass  # it grew between two calls
    done.set()
    thread.join()
    text.check_structure()
    assert str(text).count("x") == 2_000_000


# ---- the document


def test_code_in_the_document() -> None:
    document = Path(__file__).parents[3] / "docs" / "text.md"
    programs = re.findall(r"^```python\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)
    assert programs
    for program in programs:
        exec(compile(program, str(document), "exec"), {"__name__": "text"})
