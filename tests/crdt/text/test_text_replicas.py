"""Many replicas: whatever is edited anywhere and however messages travel, all come to the same text and bytes."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.text_reference import Delete, Insert, Model, decode, encode, put
from text_checks import exchange, patched

from dtp.crdt.list import List
from dtp.crdt.text import (
    Text,
    TextDiverged,
    TextFormat,
    TextReference,
    TextStale,
    TextUnseen,
    TextWaiting,
    Version,
)

PIECES = ("a", "bc", "é", "漢字", "😀", "\n", "x" * 30, "é" * 600)


@dataclass
class Replica:
    """A text, the model that follows its patches, what it sent, and the versions that it told others."""

    text: Text
    shown: str = ""
    sent: list[bytes] = field(default_factory=list)
    reports: list[Version] = field(default_factory=lambda: [Version()])

    def receive(self, data: bytes) -> None:
        self.shown = patched(self.shown, self.text.apply(data))
        assert str(self.text) == self.shown

    def edit(self, rng: random.Random) -> None:
        size = len(self.shown)
        at = rng.choice([0, size, size // 2, rng.randint(0, size)])
        if rng.random() < 0.55:
            piece = rng.choice(PIECES)
            self.text.insert(at, piece)
            self.shown = self.shown[:at] + piece + self.shown[at:]
        else:
            count = min(size - at, rng.choice([1, 1, 2, 10, 1000]))
            self.text.delete(at, count)
            self.shown = self.shown[:at] + self.shown[at + count :]

    def undo(self, rng: random.Random) -> None:
        patches = self.text.undo() if rng.random() < 0.6 else self.text.redo()
        self.shown = patched(self.shown, patches or [])
        assert str(self.text) == self.shown

    def send(self) -> None:
        message = self.text.take_changes()
        if message:
            self.sent.append(message)
        self.reports.append(self.text.version)


def check_loading(text: Text) -> None:
    """Whatever is compacted and what isn't, what was saved is what is loaded."""
    copy = Text.load(text.save(), b"copy")
    copy.check_structure()
    assert str(copy) == str(text)
    assert copy.version == text.version
    assert copy.save() == text.save()


def history(rng: random.Random, count: int, steps: int, *, compacting: bool) -> list[Replica]:
    """Some life: edits, undo, messages late, twice, out of order or never, sync in parts, compaction by some."""
    names = [bytes([65 + i]) for i in range(count)]
    rng.shuffle(names)
    replicas = [Replica(Text(name)) for name in names]
    compactors = rng.sample(replicas, rng.randint(1, count)) if compacting else []
    for _ in range(steps):
        one, other = rng.choice(replicas), rng.choice(replicas)
        what = rng.random()
        if what < 0.5:
            one.edit(rng)
        elif what < 0.58:
            one.undo(rng)
        elif what < 0.75 and other.sent:
            one.receive(rng.choice(other.sent[-5:]))
        elif what < 0.9:
            one.receive(other.text.changes_since(one.text.version))
        elif one in compactors:
            version = one.text.version
            known = [next(r for r in reversed(x.reports) if r <= version) for x in replicas if x is not one]
            one.text.compact(known)
            check_loading(one.text)
        one.send()
        one.text.check_structure()
    return replicas


@given(st.randoms(use_true_random=False), st.integers(2, 5), st.sampled_from([10, 40, 120]))
def test_all_come_to_the_same_bytes(rng: random.Random, count: int, steps: int) -> None:
    texts = [replica.text for replica in history(rng, count, steps, compacting=False)]
    exchange(texts)
    for text in texts:
        text.check_structure()
    assert len({str(text) for text in texts}) == 1
    assert len({text.save() for text in texts}) == 1
    loaded = Text.load(texts[0].save(), b"late")
    loaded.check_structure()
    assert loaded.save() == texts[0].save()
    assert str(loaded) == str(texts[0])


@pytest.mark.slow
@given(st.randoms(use_true_random=False), st.integers(2, 5), st.sampled_from([40, 120, 200]))
def test_compacting_or_not_makes_no_difference(rng: random.Random, count: int, steps: int) -> None:
    texts = [replica.text for replica in history(rng, count, steps, compacting=True)]
    exchange(texts)
    for text in texts:
        text.check_structure()
    assert len({str(text) for text in texts}) == 1
    assert len({text.version for text in texts}) == 1
    for text in texts[1:]:
        text.compact([other.version for other in texts])
    late = Text.load(texts[1].save(), b"late")  # from a compacted one; the first isn't
    late.check_structure()
    texts.append(late)
    for _ in range(30):
        text = rng.choice(texts)
        if rng.random() < 0.7:
            text.insert(rng.randint(0, len(text)), rng.choice(PIECES[:5]))
        elif len(text):
            text.delete(rng.randrange(len(text)))
    exchange(texts)
    assert len({str(text) for text in texts}) == 1
    assert len({late.version for late in texts}) == 1


@pytest.mark.long
@pytest.mark.parametrize("compacting", [False, True])
def test_ten_thousand_histories(compacting: bool) -> None:
    for seed in range(10_000):
        rng = random.Random(seed)
        texts = [
            r.text for r in history(rng, rng.choice([2, 3, 5]), rng.choice([20, 60]), compacting=compacting)
        ]
        exchange(texts)
        assert len({str(text) for text in texts}) == 1, f"seed {seed}"
        assert len({text.version for text in texts}) == 1, f"seed {seed}"
        for text in texts if compacting else ():
            text.compact([other.version for other in texts])
        late = Text.load(texts[0].save(), b"late")
        late.check_structure()
        assert compacting or len({text.save() for text in (*texts, late)}) == 1, f"seed {seed}"
        assert str(late) == str(texts[0]), f"seed {seed}"


@pytest.mark.slow
@given(st.randoms(use_true_random=False), st.integers(1, 4), st.sampled_from([20, 60]))
def test_operation_by_operation_in_any_order(rng: random.Random, count: int, steps: int) -> None:
    text = history(rng, count, steps, compacting=False)[0].text
    _, operations = decode(text.save()) if len(text.version) else (None, [])
    rng.shuffle(operations)
    other = Text(b"other")
    shown = ""
    for operation in operations:
        shown = patched(shown, other.apply(encode([operation])))
        if rng.random() < 0.2:
            other.merge(encode([rng.choice(operations)]))
            shown = str(other)
    assert other.waiting == 0
    assert shown == str(other) == str(text)
    assert other.save() == text.save()
    other.check_structure()


@given(st.randoms(use_true_random=False), st.booleans())
def test_is_the_tree_that_the_specification_says(rng: random.Random, evil: bool) -> None:
    names = [b"A", b"B", b"C"]
    rng.shuffle(names)
    texts, models = [Text(name) for name in names], [Model() for _ in names]
    for _ in range(60):
        i = rng.randrange(3)
        name, text, model = names[i], texts[i], models[i]
        what = rng.random()
        if evil and what < 0.3 and model.nodes:
            # Any parent, side and origin: whoever makes such operations can't make replicas differ.
            parent = rng.choice(list(model.nodes))
            side = rng.choice(["left", "right"])
            origin = parent if side == "left" else rng.choice([None, *model.nodes])
            operation = Insert(model.next.get(name, 0), side, parent, origin, rng.choice("xyz"))
            model.apply(name, operation)
            text.merge(encode([(name, operation)]))
        elif what < 0.6:
            at = rng.randint(0, len(text))
            text.insert(at, "ab")
            model.apply(name, model.insertion(name, at, "a"))
            model.apply(name, model.insertion(name, at + 1, "b"))
        elif what < 0.75 and len(text):
            at = rng.randrange(len(text))
            text.delete(at)
            model.apply(name, model.deletion(name, at))
        else:
            message = rng.choice(texts).changes_since(text.version)
            text.merge(message)
            for author, made in decode(message)[1] if message else []:
                model.apply(author, made)
        assert str(text) == model.text()
    for text, model in zip(texts, models, strict=True):
        saved = (
            {(author, op.number): op for author, op in decode(text.save())[1]} if len(text.version) else {}
        )
        for author, op in model.log:
            if isinstance(op, Insert):
                found = saved[author, op.number]
                assert isinstance(found, Insert)
                assert (found.side, found.parent, found.origin) == (op.side, op.parent, op.origin)
            else:
                assert saved[author, op.number] == op


# ---- the laws of a merge


@given(st.randoms(use_true_random=False))
def test_merging_is_idempotent_commutative_and_associative(rng: random.Random) -> None:
    a, b, c = (replica.text.save() for replica in history(rng, 3, 60, compacting=False))
    assert saved(a, b) == saved(b, a)
    assert saved(a, a) == a or not a
    assert saved(saved(a, b), c) == saved(a, saved(b, c))


def saved(*states: bytes) -> bytes:
    """What one replica saves that merged these."""
    text = Text(b"merger")
    for state in states:
        text.merge(state)
    return text.save()


# ---- waiting, and what is refused


def test_operations_wait_for_their_causes_within_bounds() -> None:
    author, reader = Text(b"a"), Text(b"r", waiting_limit=2000)
    messages = []
    for i in range(100):
        author.insert(i, "x")
        messages.append(author.take_changes())
    with pytest.raises(TextWaiting):
        reader.merge(b"".join(messages[1:]))
    held = reader.waiting
    assert 0 < held < 99
    assert str(reader) == ""
    assert reader.version == Version()
    assert reader.apply(messages[0]) == [(0, 0, "x" * (held + 1))]
    assert reader.waiting == 0
    reader.merge(b"".join(messages))
    assert reader.save() == author.save()


@pytest.mark.parametrize("order", ["backwards", "odd first", "shuffled"])
@pytest.mark.parametrize("kind", ["one author", "each by another author", "markers"])
def test_what_waits_is_applied_as_soon_as_it_can_be(kind: str, order: str) -> None:
    """Each operation builds on the one before, of the same author or another: the first one lets all go."""
    authors: list[Any] = [Text(b"0")]
    if kind == "each by another author":
        authors += [Text(b"%d" % number) for number in range(1, 60)]
    elif kind == "markers":
        clock = itertools.count(1).__next__
        authors = [List(b"%d" % number, clock=clock) for number in range(20)]
        authors[0].append("made")
    messages = [authors[0].take_changes()] if kind == "markers" else []
    while len(messages) < 180:
        one = authors[len(messages) % len(authors)]
        for message in messages[-len(authors) :]:
            one.merge(message)
        if kind == "markers":
            one[0] = len(messages)
        else:
            one.insert(len(one), "x")
        messages.append(one.take_changes())
    later = list(range(1, len(messages)))
    if order == "backwards":
        later.reverse()
    elif order == "odd first":
        later = later[::2] + later[1::2]
    else:
        random.Random(7).shuffle(later)
    reader = type(authors[0])(b"reader")
    for at in later + later[:50]:
        reader.merge(messages[at])
        reader.check_structure()
    #: Each assignment but the first deletes the marker before it, too.
    assert reader.waiting == (2 * len(later) - 1 if kind == "markers" else len(later))
    assert reader.version == Version()
    reader.merge(messages[0])
    reader.check_structure()
    assert reader.waiting == 0
    last = authors[(len(messages) - 1) % len(authors)]
    last.merge(b"".join(messages))
    assert reader.save() == last.save()


def test_the_same_waits_once() -> None:
    author, reader = Text(b"a"), Text(b"r")
    author.insert(0, "one")
    first = author.take_changes()
    author.insert(3, "two")
    second = author.take_changes()
    for _ in range(5):
        reader.merge(second)
    assert reader.waiting == 1
    reader.merge(author.save())
    assert reader.waiting == 0
    reader.merge(first)
    assert str(reader) == "onetwo"


def test_what_a_peer_is_sent_does_not_grow_with_what_was_deleted() -> None:
    one, two = Text(b"one"), Text(b"two")
    one.insert(0, "stays")
    two.merge(one.take_changes())
    sizes = []
    for _ in range(5):
        for i in range(200):
            one.insert(i % 5, "gone")
            one.delete(i % 5, 4)
        two.merge(one.take_changes())
        one.compact([two.version])
        sizes.append(len(one.save()))
        assert str(Text.load(one.save(), b"new")) == "stays"
    assert max(sizes) < 60
    assert max(sizes) - min(sizes) <= 15  # the numbers in it get longer, by the logarithm
    assert one.changes_since(two.version) == b""
    assert one.memory < 100_000


def test_compaction_keeps_what_something_newer_refers_to() -> None:
    start = Text(b"S")
    start.insert(0, "pqr")
    one, two = Text.load(start.save(), b"B"), Text.load(start.save(), b"C")
    one.insert(1, "y")  # a left child of q
    two.insert(1, "lt")  # another one, behind it
    two.delete(2, 2)  # t and q: in a gap that y isn't in
    for text in (start, one):
        text.merge(two.changes_since(text.version))
    start.merge(one.changes_since(start.version))
    assert str(start) == "pylr"
    start.compact([one.version, two.version])  # all but y is stable
    start.check_structure()
    check_loading(start)
    late = Text.load(start.save(), b"late")
    late.insert(1, "!")
    exchange([start, one, two, late])
    assert str(start) == str(one) == str(two) == str(late) == "p!ylr"


def test_compaction_keeps_what_not_all_know_to_be_deleted() -> None:
    start = Text(b"S")
    start.insert(0, "abcd")
    one, two = Text.load(start.save(), b"B"), Text.load(start.save(), b"C")
    start.compact([one.version, two.version])
    one.delete(1, 2)
    start.merge(one.take_changes())
    assert start.compact([one.version, two.version]) == 0
    two.insert(3, "!")
    exchange([start, one, two])
    assert str(start) == str(one) == str(two) == "a!d"
    assert start.compact([one.version, two.version]) == 1  # of b and c the first stays
    check_loading(start)


def test_compaction_asks_for_what_is_missing() -> None:
    one, two = Text(b"one"), Text(b"two")
    two.insert(0, "x")
    with pytest.raises(TextUnseen):
        one.compact([two.version])


def test_who_was_not_asked_is_told() -> None:
    one, stranger = Text(b"one"), Text(b"stranger")
    one.insert(0, "abcdef")
    stranger.merge(one.take_changes())
    one.delete(1, 4)
    stranger.insert(3, "!")
    one.compact([])
    with pytest.raises(TextStale):
        one.merge(stranger.take_changes())
    with pytest.raises(TextDiverged):
        stranger.merge(one.changes_since(stranger.version))
    assert str(stranger) == "abc!def"
    assert str(one) == "af"
    reloaded = Text.load(one.save(), b"stranger2")
    reloaded.insert(1, "!")
    one.merge(reloaded.take_changes())
    assert str(one) == "a!f"


def test_one_that_only_lags_is_replaced() -> None:
    one, lagging = Text(b"one"), Text(b"lagging")
    one.insert(0, "hello wörld")
    lagging.merge(one.take_changes())
    one.delete(4, 5)
    one.insert(4, "!")
    one.compact([])
    one.insert(0, ">")
    assert str(one) == ">hell!ld"
    assert patched("hello wörld", lagging.apply(one.changes_since(lagging.version))) == str(one)
    assert lagging.save() == one.save()
    lagging.insert(0, "x")
    one.merge(lagging.take_changes())
    assert str(one) == "x>hell!ld"


def test_a_thousand_replicas() -> None:
    rng = random.Random(7)
    start = Text(b"start")
    start.insert(0, "0123456789" * 30)
    texts = [Text.load(start.save(), i.to_bytes(2, "big"), undo_depth=0) for i in range(1000)]
    for text in texts:
        text.insert(rng.randint(0, 300), rng.choice("abcdefgh") * 3)
    for _ in range(6):  # gossip: twice as many know after each round
        for i, text in enumerate(texts):
            other = texts[rng.randrange(1000)]
            text.merge(other.changes_since(text.encoded_version()))
            if i % 100 == 0 and len(text):
                text.delete(rng.randrange(len(text)))
    everything = Text(b"all")
    for text in texts:
        everything.merge(text.changes_since(everything.encoded_version()))
    for text in texts[::97]:
        text.merge(everything.changes_since(text.encoded_version()))
        assert text.save() == everything.save()
    assert everything.waiting == 0
    everything.check_structure()


def test_deletions_of_the_same_text_at_once() -> None:
    one, two = Text(b"one"), Text(b"two")
    one.insert(0, "abcdefgh")
    exchange([one, two])
    one.delete(2, 4)
    two.delete(3, 4)
    exchange([one, two])
    assert str(one) == str(two) == "abh"
    made = [op for _, op in decode(one.save())[1] if isinstance(op, Delete)]
    assert len(made) == 8
    one.compact([two.version])
    two.compact([one.version])
    assert one.save() == two.save()


@pytest.mark.parametrize("ranges", [1, 2, 40])
def test_deleting_again_what_is_deleted_costs_nothing(ranges: int) -> None:
    """A few bytes can delete thousands of pieces, which are not walked over each time."""
    count, times = 40_000, 20_000
    part = count // ranges
    again = b""
    for number in range(times):
        first = number % ranges * part
        again += b"\x0a" + put(part) + put(count + number * part - first)
    operations = b"\x98" + b"\x84" * (count - 1) + again + b"\x03"
    message = b"\xd1\x01\x01A\x01\x00" + operations + b"\x00" + put(count) + b"x" * count
    text = Text(b"B")
    text.merge(message)  # 10 ms; walking over 8,000 pieces 8,000 times took 2 s
    assert str(text) == ""
    text.insert(0, "on")
    assert Text.load(text.save(), b"C").save() == text.save()


@pytest.mark.parametrize("seed", range(6))
def test_overlapping_deletions_in_any_order(seed: int) -> None:
    rng = random.Random(seed)
    typed = Text(b"A")
    for start in range(0, 2000, 100):
        typed.insert(rng.randint(0, len(typed)), "".join(chr(0x4E00 + start + i) for i in range(100)))
    typed.insert(0, "!")
    typed.delete(0, 1)  # operation 2001
    whole, typed_here = str(typed), typed.take_changes()
    gone: set[str] = set()
    messages = []
    for number in range(40):
        count = rng.choice([1, 30, 64, 65, 200, 900])
        first = rng.randint(0, 2000 - count)
        gone |= {chr(0x4E00 + first + i) for i in range(count)}
        down = rng.random() < 0.5
        operation = bytes([0x12 | down << 2 | (count == 1) << 7]) + (put(count) if count > 1 else b"")
        named = b"\x02\x02%02d\x01A\x01\x00" % number
        target = b"\x01" + put(first + count - 1 if down else first)
        messages.append(b"\xd1" + named + operation + target + b"\x03\x00\x00")
    texts = [Text(b"X"), Text(b"Y")]
    for text in texts:
        text.merge(typed_here)
        for message in rng.sample(messages, len(messages)):
            text.merge(message)
        assert str(text) == "".join(char for char in whole if char not in gone)
    assert texts[0].save() == texts[1].save()
    left = str(texts[0])
    texts[0].compact([])
    assert str(texts[0]) == str(Text.load(texts[0].save(), b"Z")) == left
    with pytest.raises(TextReference):  # a deletion isn't a character, whatever stands before it
        texts[1].merge(b"\xd1\x02\x02zz\x01A\x01\x00\x12" + put(2002) + b"\x01\x00\x03\x00\x00")
    assert str(texts[1]) == ""  # those before it are, each by an operation of its own


@pytest.mark.parametrize("comes_first", [False, True])
def test_a_deletion_of_what_is_partly_here_deletes_that(comes_first: bool) -> None:
    """Also where it came before any of it."""
    typing, deleting = Text(b"typing"), Text(b"deleting")
    typing.insert(0, "abc")
    first = typing.take_changes()
    typing.insert(3, "def")
    second = typing.take_changes()
    deleting.merge(first + second)
    deleting.delete(1, 5)
    deletion = deleting.take_changes()
    deleting.insert(1, "!")
    alone = Text(b"reader")
    if comes_first:
        alone.merge(deletion)
    alone.merge(first)
    for _ in range(3):  # it waits once, however often it comes
        patches = alone.apply(deletion)
        assert alone.waiting == 1
    assert (str(alone), patches) == ("a", [])
    assert alone.version[b"deleting"] == 2
    alone.merge(deleting.take_changes())
    assert str(alone) == "a"  # what its author made after it waits for it
    alone.merge(second)
    assert (str(alone), alone.waiting) == ("a!", 0)
    assert alone.save() == deleting.save()
    alone.check_structure()


def test_patches_of_changes_and_a_state_behind_them() -> None:
    one, other = Text(b"A"), Text(b"B")
    one.insert(0, "abc")
    first = one.take_changes()
    one.delete(1, 1)
    one.insert(2, "d")
    one.compact([])
    view = ""
    for position, deleted, inserted in other.apply(first + one.save()):
        view = view[:position] + inserted + view[position + deleted :]
    assert view == str(other) == "acd"


def test_nothing_of_a_malformed_message_is_merged() -> None:
    one, two = Text(b"one"), Text(b"two")
    one.insert(0, "abc")
    good = one.take_changes()
    with pytest.raises(TextFormat, match=f"at byte {len(good)}"):
        two.merge(good + b"\xff")
    assert str(two) == ""
    two.merge(good)
    assert str(two) == "abc"
