"""A sum gives what its author's frames give, whoever else's are there or missing, and whatever was forgotten."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from crdt_replicas import Wall, contents, known_random, replica
from hypothesis import given
from hypothesis import strategies as st
from test_convergence import TYPES, act

from dtp.core import crdt as core
from dtp.crdt import Clock, Frame, Replica, values
from dtp.crdt.replicated import Version
from dtp.crdt.sequences import GraphText, Name
from dtp.crdt.sums.alone import Alone
from dtp.crdt.sums.summing import Summing

#: Body, and the clocks that it covers.
Sum = tuple[bytes, int, int]


@dataclass
class Written:
    """What some authors wrote. All had seen the first `shared` frames of each when they went on behind these."""

    frames: list[list[Frame]]
    shared: list[int] = field(default_factory=list)
    #: By the texts and lists that were there: what each author said then that it had seen.
    versions: dict[Name, dict[bytes, Version]] = field(default_factory=dict)

    def author(self, number: int) -> bytes:
        return self.frames[number][0].author


def mark(one: Replica, rng: random.Random) -> None:
    text = one.text(rng.choice("ab"))
    if len(text) < 3:
        text.append("some words")
    start = rng.randrange(len(text) - 1)
    name, value = rng.choice(["bold", "link"]), rng.choice([True, None])
    text.mark(start, rng.randint(start + 1, len(text)), name, value)


def write_something(one: Replica, rng: random.Random, only: str | None) -> None:
    if only == "marks" and rng.randrange(2):
        mark(one, rng)
    else:
        act(one, rng, "text" if only == "marks" else only)


def names_in(one: Replica) -> list[Name]:
    """The texts and lists of which anything is here, also those that show nothing."""
    return one.sequences.list_names()


def share_everything(replicas: list[Replica], written: Written) -> None:
    """All hear of everything, and say so."""
    for one in replicas:
        one.clock.wall.seconds += 100  # type: ignore[attr-defined]
        merge_all(one, written.frames)
    written.shared = [len(frames) for frames in written.frames]
    for name in names_in(replicas[0]):
        written.versions[name] = {one.author: one.sequences.open_sequence(name).version for one in replicas}


def merge_all(one: Replica, frames: list[list[Frame]]) -> None:
    for frame in (frame for some in frames for frame in some):
        one.merge(frame.author, frame.body)
    assert all(changed >= 0 for changed in one.take_due())


def write(rng: random.Random, authors: int, steps: int, only: str | None, *, shares: bool) -> Written:
    """Replicas write, hear of some of each other's frames, in any order, and are started again; in the middle all
    hear of everything, if it is shared then."""
    walls = [Wall(1_000 + rng.choice([0, 0, 0.5, -30, 20])) for _ in range(authors)]
    replicas = [replica(number, walls[number]) for number in range(authors)]
    written = Written([[] for _ in replicas])
    for step in range(steps):
        at = rng.randrange(authors)
        for _ in range(rng.choice([1, 1, 2, 5])):
            write_something(replicas[at], rng, only)
        walls[at].seconds += rng.choice([0, 0, 0.001, 1])
        written.frames[at] += replicas[at].commit()
        other = rng.randrange(authors)
        heard = rng.choice([written.frames[at][-1:], written.frames[at], []])
        for frame in heard:
            replicas[other].merge(frame.author, frame.body)
        if rng.random() < 0.1:  # another agent of the same author
            again = Clock(walls[other], 60.0)
            state = replicas[other].save()
            replicas[other] = Replica.load(
                replicas[other].author, state, clock=again, random=known_random(rng.randrange(1 << 40))
            )
        if shares and step == steps // 2:
            share_everything(replicas, written)
    written.frames = [frames for frames in written.frames if frames]
    return written


def shown(one: Replica) -> dict[Any, Any]:
    """All that a replica shows."""
    found: dict[Any, Any] = {**contents(one), "souls": sorted(one.souls())}
    for soul in one.souls():
        for space in (core.TEXT, core.LIST):
            for key in values.decode(one.core.read_keys(space, soul.encode())):
                text = one.sequences.open_sequence((space, soul, key))
                spans = text.spans() if isinstance(text, GraphText) else []
                found[space, soul, key, "edited"] = [*text.comparable_contents()], spans
    return found


def sum_up(alone: Alone, frames: list[Frame]) -> Sum:
    summing = Summing(alone, frames[0].after)
    assert all(summing.add_frame(frame.body) for frame in frames)
    return summing.finish_frame(), frames[0].after, frames[-1].last


def alone_of(frames: list[Frame]) -> Alone:
    alone = Alone(frames[0].author)
    for frame in frames:
        alone.add_frame(frame.body)
    return alone


def sums_of(frames: list[Frame], rng: random.Random) -> list[Sum]:
    """Sums of all of an author's frames, in one to three parts: beside all of them, beside their own, or as it went
    on."""
    cuts = sorted({0, len(frames), *(rng.randrange(len(frames)) for _ in range(rng.randrange(3)))})
    parts = [frames[first:end] for first, end in itertools.pairwise(cuts)]
    match rng.randrange(3):
        case 0:
            alone = alone_of(frames)
            return [sum_up(alone, part) for part in parts]
        case 1:
            return [sum_up(alone_of(part), part) for part in parts]
    found: list[Sum] = []
    for number, _ in enumerate(parts):
        alone = Alone(frames[0].author)
        for sum in found:
            alone.add_summary(*sum)
        for frame in parts[number]:
            alone.add_frame(frame.body)
        summing = Summing(alone, found[0][1] if found else frames[0].after)
        for body, *_ in found:
            assert not body or summing.add_frame(body)
        assert all(summing.add_frame(frame.body) for frame in parts[number])
        found = [(summing.finish_frame(), frames[0].after, parts[number][-1].last)]
    return found


def begin(written: Written, *, compacted: bool) -> Replica:
    """A replica that has nothing, or what all had seen in the middle, and has forgotten what it may."""
    one = replica(99, Wall(10_000))
    if compacted:
        merge_all(one, [frames[:end] for frames, end in zip(written.frames, written.shared, strict=False)])
        for name, reports in written.versions.items():
            one.sequences.compact_sequence(name, reports)
        assert not one.must_rebuild
    return one


def assert_same_whoever_else_is_there(written: Written, rng: random.Random) -> None:
    """Some authors' frames against their sums, among some of the others' frames."""
    numbers = list(range(len(written.frames)))
    summed = [number for number in numbers if rng.random() < 0.4] or [rng.choice(numbers)]
    compacted = bool(written.versions) and rng.random() < 0.5
    others: list[Frame] = []
    for number in numbers:
        if number not in summed:
            share = rng.choice([0.0, 1.0, 0.5, 0.9])
            others += [frame for frame in written.frames[number] if rng.random() < share]
    rng.shuffle(others)
    turns = {number: rng.randint(0, len(others)) for number in summed}
    framed, whole = begin(written, compacted=compacted), begin(written, compacted=compacted)
    for at in range(len(others) + 1):
        for number in (number for number in summed if turns[number] == at):
            merge_all(framed, [written.frames[number]])
            for sum in sums_of(written.frames[number], rng):
                whole.merge_summary(written.author(number), *sum)
        for one in (framed, whole) if at < len(others) else ():
            one.merge(others[at].author, others[at].body)
    if framed.must_rebuild or whole.must_rebuild:
        return  # they take all frames again
    assert shown(framed) == shown(whole)
    for one in (framed, whole):
        merge_all(one, written.frames)
        one.core.release_memory()
    assert shown(framed) == shown(whole)
    assert framed.save() == whole.save()


def run(seed: int, authors: int, steps: int, only: str | None = None) -> None:
    rng = random.Random(seed)
    written = write(rng, authors, steps, only, shares=seed % 2 == 0)
    for _ in range(4) if written.frames else ():
        assert_same_whoever_else_is_there(written, rng)


KINDS = (None, *TYPES, "marks")


@given(
    st.integers(0, 1 << 32), st.integers(1, 4), st.integers(1, 40), st.sampled_from([*KINDS, "list", "text"])
)
def test_a_sum_gives_what_its_frames_give_whoever_else_is_there(
    seed: int, authors: int, steps: int, only: str | None
) -> None:
    run(seed, authors, steps, only)


@pytest.mark.long
@pytest.mark.parametrize("only", KINDS, ids=str)
def test_ten_thousand_histories_summed_beside_some_of_the_others(only: str | None) -> None:
    for seed in range(10_000):
        run(seed, 1 + seed % 4, 5 + seed % 50, only)


@pytest.mark.parametrize(
    ("seed", "authors", "steps", "only"),
    [(100597, 2, 50, "list"), (101347, 4, 50, "list"), (100649, 2, 52, "text")],
)
def test_histories_that_differed_once(seed: int, authors: int, steps: int, only: str) -> None:
    """Of markers that were deleted, and of a deletion that came before what it deletes."""
    run(seed, authors, steps, only)


def test_what_a_deleted_marker_was_about_is_waited_for_still() -> None:
    """Whoever made a marker about something that isn't there made nothing behind it, as far as is shown; also where
    the marker was deleted since."""
    alice, bob = replica(0), replica(1)
    bob.list("l").append("Bob's")
    alice.list("l").append("Alice's")
    frames = [*alice.commit(), *bob.commit()]
    alice.merge(frames[1].author, frames[1].body)
    made = frames[:1]
    items = alice.list("l")
    items.move(list(items).index("Bob's"), 1 - list(items).index("Bob's"))
    made += alice.commit()
    del items[list(items).index("Alice's")]
    made += alice.commit()
    del items[0]
    made += alice.commit()
    framed, whole = replica(8), replica(9)
    merge_all(framed, [made])
    whole.merge_summary(alice.author, *sum_up(alone_of(made), made))
    assert list(framed.list("l")) == list(whole.list("l")) == ["Alice's"]
    for one in (framed, whole):
        merge_all(one, [frames[1:]])
        assert list(one.list("l")) == []
    assert framed.save() == whole.save()
