"""Summaries: who takes what still counts of an author's frames has what who took the frames has, to the byte."""

from __future__ import annotations

import random

import pytest
from crdt_replicas import Wall, contents, replica
from hypothesis import given
from hypothesis import strategies as st
from test_convergence import act

from dtp.core import crdt as core
from dtp.core.crdt import AccountCore, Told
from dtp.core.errors import EncodingError, StateLimit
from dtp.crdt import Frame, Replica, values
from dtp.crdt.permission.owners import owner_name
from dtp.crdt.sums.alone import Alone
from dtp.crdt.sums.summing import Summing


def summed(frames: list[Frame]) -> tuple[bytes, int, int]:
    """What a sum keeps of frames in a row, and the clocks that they cover."""
    alone = Alone(frames[0].author)
    for frame in frames:
        alone.add_frame(frame.body)
    summing = Summing(alone, frames[0].after)
    for frame in frames:
        assert summing.add_frame(frame.body)
    return summing.finish_frame(), frames[0].after, frames[-1].last


def told(sequences: range, part: tuple[bytes, int, int]) -> Told:
    body, after, last = part
    return Told(body, sequences[0] + 1, sequences[-1] + 1, (after, last))


def assert_no_contradiction(one: Replica, frames: list[Frame], rng: random.Random) -> None:
    """What an honest author sums up agrees with its frames, and with what else it sums up, then or later."""
    summaries = []
    for _ in range(3 if frames else 0):
        start = rng.randrange(len(frames))
        sequences = range(start, rng.randint(start + 1, len(frames)))
        summaries.append(told(sequences, summed([frames[at] for at in sequences])))
        act(one, rng)  # so that something else is overwritten by the next
    for summary in summaries:
        account = AccountCore(one.author, owner_name(one.author).encode(), summary)
        assert all(account.agrees_with(other) for other in summaries)
        assert all(account.agrees_with(Told(f.body, at + 1, at + 1, None)) for at, f in enumerate(frames))


def assert_same_without_some(some: list[list[Frame]]) -> None:
    """Where only some authors count, their sums give what their frames do."""
    framed, whole = replica(98, Wall(10_000)), replica(99, Wall(10_000))
    for frames in some:
        for frame in frames:
            framed.merge(frame.author, frame.body)
        whole.merge_summary(frames[0].author, *summed(frames))
    assert contents(framed) == contents(whole)
    assert sorted(framed.souls()) == sorted(whole.souls())
    for soul in framed.souls():
        for space in (core.TEXT, core.LIST):
            for key in values.decode(framed.core.read_keys(space, soul.encode())):
                name = space, soul, key
                assert (
                    framed.sequences.open_sequence(name).comparable_contents()
                    == whole.sequences.open_sequence(name).comparable_contents()
                )


def run(seed: int, authors: int, steps: int) -> None:
    """Replicas write and hear of each other; then one that knows some of it gets the rest as summaries."""
    rng = random.Random(seed)
    walls = [Wall(1_000 + rng.choice([0, 0, 0.5, -30, 20])) for _ in range(authors)]
    replicas = [replica(number, walls[number]) for number in range(authors)]
    made: list[list[Frame]] = [[] for _ in replicas]
    for _ in range(steps):
        number = rng.randrange(authors)
        for _ in range(rng.choice([1, 1, 2, 5])):
            act(replicas[number], rng)
        walls[number].seconds += rng.choice([0, 0, 0.001, 1])
        made[number] += replicas[number].commit()
        other = rng.randrange(authors)
        for frame in made[number] if rng.random() < 0.5 else []:
            replicas[other].merge(frame.author, frame.body)
    for one, wall in zip(replicas, walls, strict=True):
        wall.seconds = 10_000  # nothing is too far in the future by any clock
        for frame in (frame for frames in made for frame in frames):
            one.merge(frame.author, frame.body)
        assert all(changed >= 0 for changed in one.take_due())
        one.core.release_memory()
    late = replica(99, Wall(10_000))
    order = [number for number in range(authors) if made[number]]
    rng.shuffle(order)
    for number in order:
        known = rng.randrange(len(made[number]) + 1)  # what it has of this author
        for frame in made[number][:known]:
            late.merge(frame.author, frame.body)
    rng.shuffle(order)
    for number in order:
        start = rng.randrange(len(made[number]))  # often before what it knows
        known = sum(
            late.core.has_all(late.core.author_number(f.author), f.after, f.last) for f in made[number]
        )
        frames = made[number][min(start, known) :]
        if not frames:
            continue
        cut = rng.randrange(len(frames)) + 1
        for part in (frames[:cut], frames[cut:]):
            if part:
                late.merge_summary(part[0].author, *summed(part))
    late.core.release_memory()
    (state,) = {one.save() for one in replicas}
    assert contents(late) == contents(replicas[0])
    twin = replica(99, Wall(10_000))
    for frame in (frame for frames in made for frame in frames):
        twin.merge(frame.author, frame.body)
    twin.core.release_memory()
    assert late.save() == twin.save()
    assert Replica.load(late.author, late.save()).save() == late.save()
    assert len(state) > 0
    for _ in range(2):
        assert_same_without_some([made[number] for number in order if rng.random() < 0.6])
    for number, one in enumerate(replicas):
        assert_no_contradiction(one, made[number], rng)


@given(st.integers(0, 1 << 32), st.integers(1, 4), st.integers(1, 40))
def test_a_summary_gives_what_the_frames_give(seed: int, authors: int, steps: int) -> None:
    run(seed, authors, steps)


@pytest.mark.long
def test_ten_thousand_summaries() -> None:
    for seed in range(10_000):
        run(seed, 1 + seed % 5, 5 + seed % 50)


def test_what_is_no_summary_is_refused_and_changes_nothing() -> None:
    wall = Wall()
    one, other = replica(0, wall), replica(1, wall)
    for value in range(3):
        one.put("a", "k", value)
        one.set("s").add(value)
    frames = one.commit()
    body, after, last = summed(frames)
    before = other.save()
    for wrong in (
        (body, after + 1, last),
        (body, after, last - 1),
        (body, last, last),
        (body, after, 1 << 63),
        (body[:-1], after, last),
        (b"\x00", after, last),
    ):
        with pytest.raises(EncodingError):
            other.merge_summary(one.author, *wrong)
    wall.seconds -= 1000
    with pytest.raises(StateLimit, match="future"):  # a summary doesn't wait, it comes again
        other.merge_summary(one.author, body, after, last)
    assert contents(other) == {}
    wall.seconds += 1000
    assert other.merge_summary(one.author, body, after, last) == 4
    assert other.merge_summary(one.author, body, after, last) == 0
    assert before != other.save()


def test_what_is_not_in_it_is_removed_where_it_was() -> None:
    """Who saw an addition and then gets a summary of the addition's and the removal's frame has neither."""
    one, other = replica(0), replica(1)
    one.set("s").add("gone")
    one.multi_value("l").set("gone")
    first = one.commit()
    for frame in first:
        other.merge(frame.author, frame.body)
    one.set("s").discard("gone")
    one.multi_value("l").clear()
    body, after, last = summed(first + one.commit())
    assert body == b""
    assert other.merge_summary(one.author, body, after, last) == 2
    assert {change.space for change in other.take_changes()} == {"set", "values"}
    assert (set(other.set("s")), other.multi_value("l").values) == (set(), [])
