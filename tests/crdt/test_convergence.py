"""Replicas that saw the same ops are the same, to the byte, and hold what the specification's reader works out."""

from __future__ import annotations

import random

import pytest
from crdt_replicas import Wall, contents, replica
from crdt_second import Model
from hypothesis import given
from hypothesis import strategies as st

from dtp.crdt import Clock, Frame, Replica
from dtp.crdt.permission.owners import owned_soul

SOULS = ["a", "user/alice", "user/bob", "ü"]
KEYS = ["", "k", "name"]
VALUES = [None, 0, -7, 1.5, "x", "a text that is longer", b"\x00", [1, ["2"]], {"k": 1}, 1 << 90, True]


TYPES = ("register", "values", "counter", "set", "map", "list", "text")


def act(one: Replica, rng: random.Random, only: str | None = None) -> None:
    """Some op of some kind, or of the only type that this history is about."""
    soul, key, value = rng.choice([*SOULS, owned_soul(one.author, "x")]), rng.choice(KEYS), rng.choice(VALUES)
    match only or rng.choices(TYPES, (2, 2, 1, 2, 1, 4, 2))[0]:
        case "register":
            one.put(soul, key, value) if rng.randrange(2) else one.delete(soul, key)
        case "values":
            held = one.multi_value(soul, key)
            held.set(value) if rng.randrange(3) else held.clear()
        case "counter":
            one.counter(soul, key).add(rng.choice([1, -1, 200, -70_000, 1 << 40]))
        case "set":
            members = one.set(soul, key)
            members.add(value) if rng.randrange(2) else members.discard(value)
        case "map":
            act_on_map(one, soul, key, value, rng)
        case "list":
            act_on_list(one, soul, key, value, rng)
        case _:
            text = one.text(soul, key)
            if len(text) > 4 and rng.randrange(2):
                text.delete(rng.randrange(len(text) - 2), 2)
            else:
                text.insert(rng.randint(0, len(text)), rng.choice(["a", "bc", "d\u00e9f"]))


def act_on_map(one: Replica, soul: str, key: str, value: object, rng: random.Random) -> None:
    entries = one.map(soul)
    if key in entries and rng.randrange(2):
        del entries[key]
    else:
        entries[key] = value


def act_on_list(one: Replica, soul: str, key: str, value: object, rng: random.Random) -> None:
    items = one.list(soul, key)
    size, kind = len(items), rng.randrange(4)
    if kind == 0 or not size:
        items.insert(rng.randint(0, size), value)
    elif kind == 1:
        items[rng.randrange(size)] = value
    elif kind == 2:
        items.move(rng.randrange(size), rng.randrange(size))
    else:
        del items[rng.randrange(size)]


def run(seed: int, authors: int, steps: int, only: str | None = None) -> None:
    """Random ops on some replicas that now and then hear of each other, in any order, twice or not."""
    rng = random.Random(seed)
    walls = [Wall(1_000 + rng.choice([0, 0, 0.5, -30, 20])) for _ in range(authors)]
    replicas = [replica(number, walls[number]) for number in range(authors)]
    frames: list[Frame] = []
    for _ in range(steps):
        number = rng.randrange(authors)
        for _ in range(rng.choice([1, 1, 2, 5])):
            act(replicas[number], rng, only)
        walls[number].seconds += rng.choice([0, 0, 0.001, 1])
        frames += replicas[number].commit()
        for _ in range(rng.randrange(3) if frames else 0):
            frame = rng.choice(frames)
            rng.choice(replicas).merge(frame.author, frame.body)
    model, order = Model(), list(frames)
    for one, wall in zip(replicas, walls, strict=True):
        rng.shuffle(order)
        for frame in order + order[:3]:
            one.merge(frame.author, frame.body)
        wall.seconds = 10_000  # what was too far in the future by this clock is due
        assert all(changed >= 0 for changed in one.take_due())
        one.core.release_memory()
    for frame in frames:
        model.merge(frame.author, frame.body)
    states = {one.save() for one in replicas}
    assert len(states) == 1
    for one in replicas:
        assert contents(one) == model.read()
    for soul in SOULS:
        assert all(len({str(one.text(soul, key)) for one in replicas}) == 1 for key in KEYS)
    (state,) = states
    loaded = Replica.load(replicas[0].author, state)
    assert loaded.save() == state
    assert contents(loaded) == model.read()


@given(st.integers(0, 1 << 32), st.integers(1, 4), st.integers(1, 40))
def test_any_history_converges(seed: int, authors: int, steps: int) -> None:
    run(seed, authors, steps)


@pytest.mark.parametrize("only", TYPES)
def test_some_histories_of_each_type(only: str) -> None:
    for seed in range(20):
        run(seed, 1 + seed % 5, 5 + seed % 50, only)


@pytest.mark.long
@pytest.mark.parametrize("only", [None, *TYPES])
def test_ten_thousand_histories(only: str | None) -> None:
    for seed in range(10_000):
        run(seed, 1 + seed % 5, 5 + seed % 50, only)


@given(st.integers(0, 1 << 32))
def test_going_on_after_loading_converges_too(seed: int) -> None:
    """A replica that is saved and loaded in the middle, with frames that came too early in it, ends as the others."""
    rng = random.Random(seed)
    one, other = replica(0), replica(1)
    frames: list[Frame] = []
    for _ in range(12):
        for _ in range(3):
            act(one, rng)
        frames += one.commit()
    late = Replica.load(other.author, other.save())
    for frame in rng.sample(frames, 6):
        late.merge(frame.author, frame.body)
    late = Replica.load(other.author, late.save())
    for frame in frames:
        late.merge(frame.author, frame.body)
        other.merge(frame.author, frame.body)
    late.core.release_memory()
    assert late.save() == other.save() == one.save()


def test_a_thousand_replicas_gossip() -> None:
    rng = random.Random(5)
    replicas = [
        Replica(number.to_bytes(32, "big"), random=random.Random(number).randbytes) for number in range(1000)
    ]
    frames: list[Frame] = []
    for number, one in enumerate(replicas):
        one.put("shared", "last", number)
        one.counter("hits").add(1)
        one.set("tags").add(number % 7)
        frames += one.commit()
        if number % 3 == 0:
            one.set("tags").discard(number % 5)
            frames += one.commit()
        for frame in rng.sample(frames, min(len(frames), 5)):
            replicas[(number + 1) % 1000].merge(frame.author, frame.body)
    watched = [replicas[number] for number in (0, 1, 500, 999)]
    for one in watched:
        rng.shuffle(frames)
        for frame in frames:
            one.merge(frame.author, frame.body)
        one.core.release_memory()
    assert len({one.save() for one in watched}) == 1
    assert watched[0].counter("hits").value == 1000


@pytest.mark.long
def test_a_thousand_replicas_that_lose_half_of_what_they_hear() -> None:
    """All are compared: each writes some of everything, and tells others now and then, in two halves at first."""
    rng = random.Random(6)
    count = 1000
    replicas = [
        Replica(number.to_bytes(32, "big"), random=random.Random(number).randbytes, clock=Clock(Wall()))
        for number in range(count)
    ]
    frames: list[Frame] = []
    known: list[set[int]] = [set() for _ in replicas]
    for turn in range(60):
        if turn > 16 and all(len(one) == len(frames) for one in known):
            break
        for number, one in enumerate(replicas):
            if turn < 3:
                act(one, rng)
                for frame in one.commit():
                    known[number].add(len(frames))
                    frames.append(frame)
            half = number // 500 if turn < 8 else 0
            other = half * 500 + rng.randrange(500) if turn < 8 else rng.randrange(count)
            for at in known[number] - known[other]:
                if turn >= 16 or rng.random() < 0.5:  # the rest is lost on its way
                    replicas[other].merge(frames[at].author, frames[at].body)
                    known[other].add(at)
    assert all(len(one) == len(frames) for one in known)
    for one in replicas:
        one.core.release_memory()
    assert len({one.save() for one in replicas}) == 1
    assert len(frames) > 2000


def test_equal_times_are_decided_the_same_everywhere() -> None:
    wall = Wall()
    one, other = replica(0, wall), replica(1, wall)
    one.put("a", "k", "first")
    other.put("a", "k", "second")
    (mine,), (theirs,) = one.commit(), other.commit()
    assert mine.last == theirs.last
    one.merge(theirs.author, theirs.body)
    other.merge(mine.author, mine.body)
    assert one.get("a", "k") == other.get("a", "k") == "second"  # of the author whose key is larger
    assert one.save() == other.save()
