"""What several type at the same place: words stay whole, and all have them in the same order."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.text_reference import Model, decode, encode
from text_checks import exchange

from dtp.crdt.text import Text


def concurrent(first: list[tuple[int, str]], second: list[tuple[int, str]], start: str = "") -> set[str]:
    """Two replicas type (position, text) at once from the same start: the results, under both orders of names."""
    results = set()
    for names in ((b"A", b"B"), (b"B", b"A")):
        texts = [Text(name) for name in names]
        texts[0].insert(0, start)
        exchange(texts)
        for text, edits in zip(texts, (first, second), strict=True):
            for position, piece in edits:
                text.insert(position, piece)
        exchange(texts)
        assert str(texts[0]) == str(texts[1])
        results.add(str(texts[0]))
    return results


def forwards(word: str, at: int = 0) -> list[tuple[int, str]]:
    return [(at + i, c) for i, c in enumerate(word)]


def backwards(word: str, at: int = 0) -> list[tuple[int, str]]:
    return [(at, c) for c in reversed(word)]


@pytest.mark.parametrize("start", ["", "()", "(((", ")))"])
@pytest.mark.parametrize("one", [forwards, backwards])
@pytest.mark.parametrize("other", [forwards, backwards])
def test_words_typed_at_once_stay_whole(start: str, one: object, other: object) -> None:
    at = len(start) // 2
    results = concurrent(one("hello", at), other("WORLD", at), start)  # type: ignore[operator]
    for result in results:
        assert result in {start[:at] + both + start[at:] for both in ("helloWORLD", "WORLDhello")}


def test_words_typed_from_the_middle_stay_whole() -> None:
    def inside_out(word: str) -> list[tuple[int, str]]:
        middle = len(word) // 2
        return [(0, word[middle]), *((0, c) for c in reversed(word[:middle])), *enumerate(word)][
            : middle + 1
        ] + [(i, c) for i, c in enumerate(word) if i > middle]

    for result in concurrent(inside_out("hello"), inside_out("WORLD")):
        assert result in {"helloWORLD", "WORLDhello"}


@given(
    st.lists(st.integers(0, 8), min_size=2, max_size=12), st.lists(st.integers(0, 8), min_size=2, max_size=12)
)
def test_whatever_way_a_block_is_typed_it_stays_whole(first: list[int], second: list[int]) -> None:
    # Each types one block, inserting its characters anywhere within what the block has by then.
    one, other = (
        [(p % (i + 1), char) for i, p in enumerate(places)] for places, char in ((first, "a"), (second, "B"))
    )
    for result in concurrent(one, other):
        assert result in {"a" * len(first) + "B" * len(second), "B" * len(second) + "a" * len(first)}


def test_maximally_non_interleaving() -> None:
    # Where Fugue without right origins interleaves backwards: see "The Art of the Fugue" by Weidner and Kleppmann.
    # Three insert at once; the middle one's author saw one of the others.
    for names in ((b"A", b"B", b"C"), (b"C", b"B", b"A"), (b"B", b"A", b"C"), (b"B", b"C", b"A")):
        one, two, three = (Text(name) for name in names)
        one.insert(0, "b")
        two.insert(0, "xy")
        three.merge(one.take_changes())
        three.insert(0, "a")  # right before b: nothing that knew neither may come between
        exchange([one, two, three])
        assert str(one) in {"abxy", "xyab"}


@pytest.mark.parametrize("word", ["x", "word", "é"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_many_at_the_same_place_stand_by_their_names(word: str, side: str) -> None:
    rng = random.Random(len(word))
    start = Text(b"start")
    start.insert(0, "()" if side == "left" else "(")
    messages = []
    for i in range(1500):
        author = Text.load(start.save(), b"%04d" % i, undo_depth=0)
        author.insert(1, f"<{i:04d}{word}>")
        if i % 3 == 0:
            author.insert(1, "-" if i % 2 else "_")  # a left child of the first
            author.insert(4, "+")
        if i % 7 == 0:
            author.delete(2, 2)
        messages.append((i, author.take_changes(), str(author)[1 : -1 if side == "left" else None]))
    expected = "(" + "".join(shown for _, _, shown in messages) + (")" if side == "left" else "")
    saves = set()
    for _ in range(2):
        rng.shuffle(messages)
        text = Text.load(start.save(), b"reader")
        for _, message, _ in messages:
            text.merge(message)
        assert str(text) == expected
        text.check_structure()
        saves.add(text.save())
    assert len(saves) == 1


def test_many_at_the_same_place_with_several_right_origins() -> None:
    rng = random.Random(5)
    start = Text(b"start")
    start.insert(0, "(")
    start.insert(1, ")")
    start.delete(1)
    others = [Text.load(start.save(), b"o%d" % i) for i in range(40)]
    texts = [Text.load(start.save(), b"%04d" % i, undo_depth=0) for i in range(700)]
    for other in others:
        other.insert(1, "|")
    messages = [other.take_changes() for other in others]
    for text in texts:
        text.merge(rng.choice(messages))  # so that they differ in what they find behind
        at = rng.choice([1, 1, len(text)])
        text.insert(at, "ab")
        text.insert(at + rng.choice([0, 1, 2]), "c")
    messages += [text.take_changes() for text in texts]
    results = set()
    for _ in range(3):
        rng.shuffle(messages)
        reader = Text.load(start.save(), b"reader")
        model = Model()
        for message in messages:
            reader.merge(message)
        reader.check_structure()
        results.add((str(reader), reader.save()))
        assert reader.waiting == 0
    assert len(results) == 1
    ready = decode(reader.save())[1]
    for author, operation in ready[:300]:
        model.apply(author, operation)
    part = Text(b"part")
    part.merge(encode(ready[:300]))
    assert str(part) == model.text()
