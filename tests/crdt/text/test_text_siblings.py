"""Insertions whose authors knew nothing of what stands there: they come to the place that the specification says, and
what that costs doesn't grow with what they have to pass."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.text_reference import Delete, Id, Insert, Model, Operation, decode, encode, put
from variants import slow_after

from dtp.core.sequence import TextFull
from dtp.crdt.text import Text, TextFormat

Made: TypeAlias = tuple[bytes, Operation]

#: So many pieces are passed, and so much is looked at for one insertion, at most: some 50. A walk looks at each.
COUNT = 6_000
MOST = 400


class Authors:
    """Whoever writes, with the number that comes next of each."""

    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}

    def number(self, author: bytes) -> int:
        number = self.numbers.get(author, 0)
        self.numbers[author] = number + 1
        return number

    def below(self, author: bytes, side: str, parent: Id | None, origin: Id | None = None) -> Made:
        """A child."""
        origin = parent if side == "left" else origin
        return author, Insert(self.number(author), side, parent, origin, chr(97 + self.numbers[author] % 26))

    def anything(self, rng: random.Random, ids: list[Id]) -> Made:
        """Something about these: often the first or the last ones, so that there are wide and deep families."""
        author = rng.choice([b"A", b"B", b"C"])
        if not ids:
            return self.below(author, "right", None)
        if rng.random() < 0.15:
            return author, Delete(self.number(author), rng.choice(ids))
        parent = rng.choice([None, *ids[:2], *ids[-2:], *rng.choices(ids, k=2)])
        side = rng.choice(["left", "right"]) if parent else "right"
        return self.below(author, side, parent, rng.choice([None, None, *ids]))


def at(made: Made) -> list[Id]:
    return [(made[0], made[1].number)] if isinstance(made[1], Insert) else []


# ---- places


@given(st.randoms(use_true_random=False), st.integers(1, 120))
def test_whatever_is_said_the_order_is_the_one_that_the_specification_says(
    rng: random.Random, size: int
) -> None:
    authors, model, text = Authors(), Model(), Text(b"reader")
    ids: list[Id] = []
    story: list[Made] = []
    for _ in range(size):
        made = authors.anything(rng, ids)
        ids += at(made)
        story.append(made)
        model.apply(*made)
        text.merge(encode([made]))
        text.check_structure()
        if rng.random() < 0.1:
            text = Text.load(text.save(), b"reader")
            text.check_structure()
    assert str(text) == model.text()
    other = Text(b"other")
    for made in rng.sample(story, len(story)):
        other.merge(encode([made]))
    other.check_structure()
    assert other.save() == text.save()


@given(st.randoms(use_true_random=False), st.integers(1, 60), st.integers(1, 60))
def test_who_has_forgotten_the_same_agrees_on_what_is_newer(
    rng: random.Random, before: int, after: int
) -> None:
    authors, texts = Authors(), [Text(b"one"), Text(b"two")]
    ids: list[Id] = []
    for _ in range(before):
        made = authors.anything(rng, ids)
        ids += at(made)
        for text in texts:
            text.merge(encode([made]))
    for text in texts:
        text.compact([text.version])
        text.check_structure()
    base = decode(texts[0].save())[0]
    assert base is not None
    held = [name for name, _, _ in base.characters]
    story: list[Made] = []
    for _ in range(after):
        story.append(authors.anything(rng, held))
        held += at(story[-1])
    for text, order in zip(texts, [story, rng.sample(story, len(story))], strict=True):
        for made in order:
            text.merge(encode([made]))
            text.check_structure()
    texts.append(Text.load(texts[0].save(), b"three"))
    for _ in range(2):
        assert len({text.save() for text in texts}) == 1
        for text in texts:
            text.check_structure()
            text.compact([text.version])


# ---- what they cost


def siblings(authors: Authors, count: int, hub: Id, side: str, *, by: str) -> Iterator[Made]:
    for i in range(count):
        yield authors.below(b"s%05d" % i if by == "many" else b"s", side, hub)


def chain(authors: Authors, count: int, last: Id, sides: str) -> Iterator[Made]:
    """Two by turns, each below the other."""
    for i in range(count):
        made = authors.below((b"b", b"t")[i % 2], {"<": "left", ">": "right"}[sides[i % len(sides)]], last)
        last = at(made)[0]
        yield made


def families(authors: Authors, count: int, hub: Id, sides: str) -> Iterator[Made]:
    """Siblings, each with a chain below it, as deep as they are many."""
    width = int(count**0.5)
    for i in range(width):
        first = authors.below(b"s%05d" % i, {"<": "left", ">": "right"}[sides[i % len(sides)]], hub)
        yield first
        yield from chain(authors, width, at(first)[0], sides[i // 2 % len(sides)])


SHAPES: dict[str, Callable[[Authors, int, Id], Iterator[Made]]] = {
    "right, by many": partial(siblings, side="right", by="many"),
    "left, by many": partial(siblings, side="left", by="many"),
    "right, by one": partial(siblings, side="right", by="one"),
    "left, by one": partial(siblings, side="left", by="one"),
    "appended by turns": partial(chain, sides=">"),
    "put in front by turns": partial(chain, sides="<"),
    "to and fro": partial(chain, sides="<>"),
    "twice and twice": partial(chain, sides="<<>>"),
    "families on the right": partial(families, sides=">"),
    "families on the left": partial(families, sides="<"),
    "families on both sides": partial(families, sides="<>"),
}


def strangers(authors: Authors, hub: Id) -> list[Made]:
    """What those write who know of the hub alone, some before all others by name, some between them, some behind."""
    made = []
    for author in (b"a", b"s00100", b"s005", b"z"):
        for _ in range(8):
            made.append(authors.below(author, "right", hub))
            made.append(authors.below(author, "left", hub))
            made.append(authors.below(author, "right", None))
            made.append(authors.below(author, "right", hub, hub))
    return made


def cost(text: Text, story: list[Made]) -> float:
    """How much is looked at for each, one by one."""
    searched = 0
    for made in story:
        text.merge(encode([made]))
        searched += text.searched
    text.check_structure()
    return searched / len(story)


@pytest.mark.parametrize("state", ["as it came", "deleted", "loaded", "half forgotten"])
@pytest.mark.parametrize("shape", slow_after(3, SHAPES))
def test_what_a_stranger_writes_costs_the_same_whatever_it_passes(shape: str, state: str) -> None:
    authors, text = Authors(), Text(b"reader")
    start = authors.below(b"hub", "right", None)
    story = [start, *SHAPES[shape](authors, COUNT, at(start)[0])]
    text.merge(encode(story))
    if state == "deleted":
        text.merge(encode([(b"d", Delete(authors.number(b"d"), at(made)[0])) for made in story[1:]]))
    if state == "half forgotten":
        text.compact([text.version])
        start = authors.below(b"hub", "right", at(story[-1])[0])
        text.merge(encode([start, *SHAPES[shape](authors, COUNT, at(start)[0])]))
    if state == "loaded":
        text = Text.load(text.save(), b"reader")
    copy = Text.load(text.save(), b"copy")
    story = strangers(authors, at(start)[0])
    assert cost(text, story) < MOST
    assert cost(copy, sorted(story, key=lambda made: made[1].number)) < MOST
    assert copy.save() == text.save()


# ---- what can't be


def test_no_character_is_deeper_than_its_depth_can_be_told() -> None:
    """A few bytes can say that 2^31 - 2 deleted characters were inserted, each below the one before."""
    most = (1 << 31) - 2
    void = b"\xd1\x01\x01A\x01\x00" + b"\x19" + put(most) + b"\x03\x00\x00"
    text = Text(b"reader")
    text.merge(void)
    text.check_structure()
    for made in [
        (b"B", Insert(0, "right", (b"A", most - 2), None, "b")),
        (b"B", Insert(1, "left", (b"A", most - 2), (b"A", most - 2), "c")),
        (b"C", Insert(0, "left", (b"A", 5), (b"A", 5), "d")),
    ]:
        text.merge(encode([made]))
        text.check_structure()
    assert str(text) == "dcb"
    for made in [
        (b"D", Insert(0, "right", (b"A", most - 1), None, "e")),
        (b"D", Insert(0, "right", (b"B", 0), None, "e")),
    ]:
        with pytest.raises(TextFull):
            text.merge(encode([made]))
        text.check_structure()
    with pytest.raises(TextFull):
        Text(b"other").merge(
            void
            + b"\xd1\x02\x01A\x01B\x02\x00"
            + b"\x11"
            + put(2)
            + b"\x00"
            + put(most - 1)
            + b"\x03\x00\x00"
        )
    assert str(text) == "dcb"


@pytest.mark.parametrize(
    ("order", "flags", "possible"),
    [
        ("ABC", (4, 0, 0), True),
        ("ACB", (4, 0, 0), False),
        ("ABC", (4, 2, 0), False),
        ("ABC", (4, 4, 0), False),
    ],
)
def test_a_state_in_an_order_that_its_operations_do_not_give_is_refused(
    order: str, flags: tuple[int, ...], possible: bool
) -> None:
    """B's is below A's, so C's, which is below nothing, can't be between; who is said to have children has some."""
    spans = b"".join(
        bytes([128 | 2 << 3 | flag, "ABC".index(name), 0]) for name, flag in zip(order, flags, strict=True)
    )
    groups = b"\x01\x00\x98\x03" + b"\x02\x00\x90\x00\x00\x03" + b"\x03\x00\x98\x03" + b"\x00"
    state = (
        b"\xd2\x03\x01A\x01B\x01C"
        + b"\x00\x00\x00"
        + b"\x03"
        + spans
        + groups
        + b"\x03"
        + order.lower().encode()
    )
    if possible:
        assert str(Text.load(state, b"reader")) == "abc"
        return
    with pytest.raises(TextFormat):
        Text.load(state, b"reader")
