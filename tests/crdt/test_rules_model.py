"""Rules against a plain model: ops of authors who keep no rules, in any order, twice, with loading in between."""

from __future__ import annotations

import random
from typing import NamedTuple

from crdt_replicas import Wall
from hypothesis import given
from hypothesis import strategies as st
from test_rules import IDENTITIES, KEYS, NAMES, forger, frame, orders, replica, take

from dtp.crdt import Replica
from dtp.crdt.permission.grants import make_grant
from dtp.crdt.permission.rules import Rule, RuleBroken, Rules, Schema
from dtp.crdt.replica import Frame

DOCUMENT = Rules(
    "thing",
    [
        Rule(path="a/*", key="{author}", once="soul", value=Schema(one_of=(1, 2, 3))),
        Rule(path="b", rate=(2, 5.0), value=Schema(type="int")),
        Rule(path="once/**", once="rule", removes="any"),
    ],
)
PATHS = ("a/x", "a/y", "b", "once/1", "once/2", "c")


class Put(NamedTuple):
    """One op of an author, at a second of its clock."""

    author: int
    second: int
    #: "" is the document's own soul, None somebody's free soul.
    path: str | None
    key: str
    value: int | None


def soul_of(put: Put) -> str:
    return "free" if put.path is None else DOCUMENT.soul(put.path)


def row(put: Put) -> tuple[object, ...]:
    if put.path == "":
        return DOCUMENT.root, "rules", DOCUMENT.document
    return (soul_of(put), put.key) if put.value is None else (soul_of(put), put.key, put.value)


class Model:
    """What the specification says, one author's ops after the other."""

    def __init__(self) -> None:
        self.accepted: list[Put] = []

    def author(self, puts: list[Put]) -> None:
        shipped, once, rates = False, set(), []
        for put in puts:
            mine = NAMES[put.author]
            if put.path is None:
                self.accepted.append(put)
            elif put.path == "":
                shipped = True
            elif not shipped:
                continue
            elif put.path in ("a/x", "a/y"):
                if put.key == mine and put.value in (1, 2, 3) and put.path not in once:
                    once.add(put.path)
                    self.accepted.append(put)
            elif put.path == "b":
                recent = [second for second in rates if second > put.second - 5]
                if put.value is not None and len(recent) < 2:
                    rates.append(put.second)
                    self.accepted.append(put)
            elif put.path.startswith("once/") and "once" not in once:
                once.add("once")
                self.accepted.append(put)

    def registers(self) -> dict[tuple[str, str], int]:
        latest: dict[tuple[str, str], Put] = {}
        for put in sorted(self.accepted, key=lambda put: (put.second, KEYS[put.author])):
            latest[soul_of(put), put.key] = put
        return {name: put.value for name, put in latest.items() if put.value is not None}


PUTS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(1, 3),
        st.sampled_from([*PATHS, None, ""]),
        st.integers(0, 3),
        st.sampled_from([1, 2, 3, 4, None]),
    ),
    max_size=30,
)


def scene(drawn: list[tuple[int, int, str | None, int, int | None]]) -> tuple[list[Frame], Model]:
    model, frames = Model(), []
    for author in range(3):
        second, puts, maker = 1_000, [], forger(author)
        for by, later, path, key, value in drawn:
            if by == author:
                second += later
                puts.append(Put(author, second, path, NAMES[key], value))
        frames += [frame(maker, [row(put)], float(put.second)) for put in puts]
        model.author(puts)
    return frames, model


@given(PUTS, st.integers(0, 1 << 32))
def test_replicas_let_in_what_the_model_does(
    drawn: list[tuple[int, int, str | None, int, int | None]], seed: int
) -> None:
    frames, model = scene(drawn)
    states, expected = set(), model.registers()
    for number in range(3):
        one = replica(3, Wall(5_000.0))
        order = orders(frames, seed + number)
        half = random.Random(seed).randint(0, len(order))
        take(one, order[:half])
        one = Replica.load(KEYS[3], one.save(), clock=one.clock, graph="test")
        take(one, order[half:])
        found = {
            (soul, key): value
            for soul in one.souls()
            if soul != DOCUMENT.root
            for key, value in one.node(soul).items()
        }
        assert found == expected
        states.add(one.save())
        for offence in one.access.list_offences():
            assert offence.shipped < offence.clock
            assert all(offence.shipped < at < offence.clock for at in offence.earlier)
    assert len(states) == 1


def test_what_honest_software_makes_is_let_in_by_the_same_rules() -> None:
    """What a replica lets its own program do is what others let it do: nothing more, nothing less."""
    rng = random.Random(7)
    wall = Wall(1_000.0)
    one, other = replica(0, wall), replica(1, wall)
    one.permits.rules[DOCUMENT.root] = DOCUMENT
    made = refused = 0
    for _ in range(400):
        wall.seconds += rng.randint(0, 3)
        put = Put(0, 0, rng.choice([*PATHS, None]), NAMES[rng.randrange(2)], rng.choice([1, 2, 4, None]))
        try:
            one.put_many([row(put)])  # type: ignore[list-item]
            made += 1
        except RuleBroken:
            refused += 1
        if rng.random() < 0.3:
            take(other, one.commit())
            assert one.access.list_offences() == other.access.list_offences() == []
            assert one.save() == other.save()
    assert made > 50
    assert refused > 50


def test_the_bytes_that_are_specified() -> None:
    """docs/graph.md has them: another implementation must come to the same."""
    small = Rules("vote", [Rule(path="*", key="{author}", once="soul")])
    assert (
        small.document.hex()
        == "9301a4766f74659183a470617468a12aa36b6579a87b617574686f727da46f6e6365a4736f756c"
    )
    assert small.root == "%vote:eya3ofy5akmmgph2r7nhnwlkeqwicvqr6lsrcp3bxbfgl5vau5oq"
    grant = make_grant(IDENTITIES[0], "test", KEYS[1], "board", 5)
    assert grant.encode()[:7] == b"\x98\x01\xa4test"
    assert len(grant.id) == 32
