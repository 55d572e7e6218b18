"""Deletions that come before their text: shown is what the operations say that are here, and it costs little."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from reference.text_reference import apply_known, canonical, decode, encode_version, put, references

from dtp.core.sequence import TextMemory
from dtp.crdt.text import Text


def deletion(name: bytes, number: int, first: int, count: int) -> bytes:
    """Return a message in which an author deletes characters of the author "typing", upwards."""
    how = b"\x92" if count == 1 else b"\x12" + put(count)
    heading = b"\xd1\2" + put(len(name)) + name + b"\6typing"
    return heading + b"\1" + put(number) + how + b"\1" + put(first) + b"\3\0\0"


def typed_in_pieces(rng: random.Random, count: int) -> list[bytes]:
    typing = Text(b"typing")
    pieces = []
    for _ in range(count):
        typing.insert(rng.randint(0, len(typing)), "".join(rng.choices("abcdef", k=rng.randint(1, 4))))
        pieces.append(typing.take_changes())
    return pieces


def deletions_of(rng: random.Random, size: int) -> list[bytes]:
    """Return deletions by some authors, who all tell each of theirs in several overlapping ways."""
    made = []
    for number in range(8):
        first = rng.randrange(size)
        count = rng.randint(1, size - first)
        cuts = sorted({0, *(rng.randrange(count) for _ in range(rng.randrange(3)))})
        for start, stop in [*pairwise(cuts), (cuts[-1], count), (rng.choice(cuts), count)]:
            made.append(deletion(b"%d" % number, start, first + start, stop - start))
    return made


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("seed", range(40))
def test_each_moment_shows_what_the_operations_say_that_are_here(seed: int, step: int) -> None:
    rng = random.Random(seed)
    messages = typed_in_pieces(rng, 12)
    size = sum(len(decode(piece)[1]) for piece in messages)
    messages += deletions_of(rng, size)
    rng.shuffle(messages)
    reader, known = Text(b"reader"), {}
    while messages:
        together, messages = messages[:step], messages[step:]
        reader.merge(b"".join(together))
        for author, operation in [told for message in together for told in decode(message)[1]]:
            known.setdefault(author, {})[operation.number] = operation
        model = apply_known(known, references)
        assert str(reader) == model.text()
        if rng.random() < 0.2:
            reader.check_structure()
        if rng.random() < 0.2:
            assert reader.version.encode() == encode_version(model.next)
            assert reader.save() == canonical(model.log, {})
            for message in together:
                assert reader.has_changes(message) == all(
                    operation.number < model.next.get(author, 0) for author, operation in decode(message)[1]
                )
    assert reader.waiting == 0
    assert reader.save() == canonical(model.log, {})
    reader.check_structure()


def test_what_waits_for_the_same_text_costs_little_as_that_comes() -> None:
    """Each character that came was deleted by all who were to delete it, though it was gone with the first: 1.6 MB
    of made-up edits took 13 s, longer with the square of what there was."""
    typing, reader = Text(b"typing"), Text(b"reader")
    for number in range(500):
        reader.merge(deletion(b"a%03d" % number, 0, 0, 1000))
    assert reader.waiting == 500
    merged = []
    for _ in range(1000):
        typing.append("x")
        reader.merge(typing.take_changes())
        merged.append(reader.merged)
        assert str(reader) == ""
    assert max(merged[:-1]) == 2  # the character, and one deletion of it
    assert (sum(merged), reader.waiting) == (1000 + 500 * 1000, 0)
    reader.check_structure()


def what_three_delete_by_one() -> Text:
    """Return a text in which all three were to delete the letters behind the first, and one of them did so."""
    typing, reader = Text(b"typing"), Text(b"reader")
    for name, count in ((b"one", 3), (b"two", 9), (b"three", 5)):
        reader.merge(deletion(name, 0, 1, count))
    for letters in "abc":
        typing.append(letters)
        reader.merge(typing.take_changes())
    assert (str(reader), reader.merged, reader.waiting) == ("a", 2, 3)
    return reader


ALL_THREE = {b"typing": 3, b"one": 2, b"two": 2, b"three": 2}


def test_who_asks_for_the_version_hears_of_all_that_deleted() -> None:
    reader = what_three_delete_by_one()
    assert dict(reader.version) == ALL_THREE
    other = Text.load(reader.save(), b"other")
    assert (str(other), dict(other.version)) == ("a", ALL_THREE)


def test_who_asks_for_changes_gets_what_all_three_deleted() -> None:
    other = Text(b"other")
    other.merge(what_three_delete_by_one().changes_since(other.version))
    assert (str(other), dict(other.version)) == ("a", ALL_THREE)


def test_who_asks_for_the_changes_of_one_gets_them_whoever_deleted_first() -> None:
    for name in (b"one", b"two", b"three"):
        assert what_three_delete_by_one().changes_of(name, 0, 2)


def test_what_all_three_deleted_can_be_compacted() -> None:
    stable = what_three_delete_by_one().version
    text = what_three_delete_by_one()
    assert text.compact([stable]) > 0
    assert dict(text.version) == ALL_THREE


def test_a_state_whose_past_is_here_but_for_deletions_that_change_nothing_is_merged() -> None:
    """What waits on would be lost with all that is here."""
    other = Text.load(what_three_delete_by_one().save(), b"other")
    other.compact([other.version])
    text = what_three_delete_by_one()
    text.merge(other.save())
    assert (str(text), dict(text.version), text.waiting) == ("a", ALL_THREE, 3)


@pytest.mark.parametrize("others", [(), ((b"longer", 1, 9),), ((b"longer", 3, 9), (b"shorter", 0, 4))])
def test_a_deletion_of_what_turns_out_to_be_none_of_characters_deletes_up_to_there(
    others: tuple[tuple[bytes, int, int], ...],
) -> None:
    """The third operation of their author deletes something itself."""
    typing, reader = Text(b"typing"), Text(b"reader")
    reader.merge(deletion(b"wrong", 0, 0, 5))
    for name, first, count in others:
        reader.merge(deletion(name, 0, first, count))
    typing.insert(0, "ab")
    reader.merge(typing.take_changes())
    assert str(reader) == ""
    typing.delete(0, 1)
    typing.insert(0, "c")
    reader.merge(typing.take_changes())
    assert reader.version[b"wrong"] == 2
    assert str(reader) == ("" if len(others) == 2 else "c")
    typing.append("d" * 12)
    reader.merge(typing.take_changes())
    assert (reader.waiting, reader.version[b"wrong"]) == (0, 2)
    reader.check_structure()


def test_one_that_reaches_farther_takes_no_place_of_what_has_not_deleted_what_came_with_it() -> None:
    """What came before it was shown, until somebody asked for the version."""
    typing, reader = Text(b"typing"), Text(b"reader")
    reader.merge(deletion(b"first", 0, 0, 50))
    reader.merge(deletion(b"farther", 1, 2, 98))  # it waits for the one before it, too
    typing.insert(0, "abc")
    assert len(reader.apply(typing.take_changes() + deletion(b"farther", 0, 2, 1))) <= 2
    assert str(reader) == ""
    reader.check_structure()
    assert dict(reader.version) == {b"typing": 3, b"first": 3, b"farther": 2}


def test_what_has_become_the_same_waits_once() -> None:
    """They stood in a row, through which each one went that came to it."""
    typing, reader = Text(b"typing"), Text(b"reader")
    for number in range(300):
        reader.merge(deletion(b"other", number, number, 300 - number))
    assert reader.waiting == 300
    typing.insert(0, "x" * 299)
    reader.merge(typing.take_changes())
    assert (reader.waiting, str(reader)) == (1, "")
    reader.check_structure()


def test_deletions_that_differ_in_nothing_but_how_many_they_delete_stand_in_no_row() -> None:
    reader = Text(b"reader")
    for count in range(2, 302):
        reader.merge(deletion(b"other", 0, 1000, count))
    assert reader.waiting == 300
    reader.check_structure()


def test_want_of_memory_while_what_waited_is_applied_shows_nothing_that_was_deleted() -> None:
    """Each allocation fails once; whatever was to be done then is done the next time."""
    typing = Text(b"typing")
    typing.insert(0, "abc")
    told = typing.take_changes() + deletion(b"farther", 0, 2, 1)
    for room in range(0, 20_000, 8):
        reader = Text(b"reader")
        reader.merge(deletion(b"first", 0, 0, 50))
        reader.merge(deletion(b"late", 0, 1, 9))
        reader.merge(deletion(b"farther", 1, 2, 98))
        reader.memory_limit = reader.memory + room
        try:
            reader.merge(told)
        except TextMemory:
            reader.check_structure()
            reader.memory_limit = 0
            reader.merge(told)
        else:
            break
        assert str(reader) == ""
        reader.check_structure()
        assert dict(reader.version) == {b"typing": 3, b"first": 3, b"late": 2, b"farther": 2}
    assert room > 100
