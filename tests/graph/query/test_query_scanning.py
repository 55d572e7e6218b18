"""What the core looks for by itself is what the tables say: counts, and rows that come early."""

from __future__ import annotations

import asyncio
import datetime as python
import random
from typing import Any

import pytest
from graph_fixtures import ALICE
from hypothesis import given, settings
from hypothesis import strategies as st
from test_query_types import TYPES, write

from dtp.crdt import Change, DateTime, Duration, Link, LocalTime, Replica
from dtp.crdt.permission.owners import owned_soul
from dtp.graph import Graph, QueryBudget, QueryLimit
from dtp.graph.query.run import Queries

COMPARISONS = ("=", "<>", "<", "<=", ">", ">=")
NUMBERS: tuple[Any, ...] = (
    1,
    1.0,
    2,
    -3.5,
    float("nan"),
    float("inf"),
    (1 << 53) + 1,
    float(1 << 53),
    1 << 70,
    -0.0,
)
DATES: tuple[Any, ...] = (
    python.date(2026, 1, 1), python.date(1969, 12, 31), LocalTime(1), python.time(1, tzinfo=python.UTC),
    python.datetime(2026, 1, 1), DateTime(0, 0), DateTime(0, 3600), DateTime(-1, 0), Duration(1),
    Duration(0, 30), Duration(0, 31),
)  # fmt: skip
OTHERS: tuple[Any, ...] = ("a", "ab", "", "é", b"\xc3", True, False, None, [1], {"k": 1}, Link("x/1"))


def graph_of(rng: random.Random) -> Replica:
    """Nodes of two labels and none, with links in sets and registers, also twice, to themselves and to nothing."""
    replica, other = Replica(bytes(32)), Replica(bytes([1] * 32))
    souls = [f"{rng.choice(('x/', 'y/', ''))}{number}" for number in range(rng.randrange(1, 8))]
    for _ in range(rng.randrange(40)):
        writer, soul = rng.choice((replica, other)), rng.choice(souls)
        if rng.random() < 0.5:
            writer.put(soul, rng.choice("uv"), rng.choice(NUMBERS + OTHERS + DATES))
        elif rng.random() < 0.1:
            write(writer, rng.choice(TYPES), soul, rng.choice("uv"), rng)
        else:
            target = rng.choice([*souls, "x/nothing", "y/nothing", "nothing"])
            if rng.random() < 0.3:
                writer.put(soul, rng.choice("kl"), Link(target))
            else:
                writer.set(soul, rng.choice("kl")).add(Link(target))
    own = owned_soul(bytes(32))
    for soul in (f"{own}/.seen", f"{own}/x/1", own):  # the first is the graph's own book-keeping
        replica.put(soul, "u", rng.choice(NUMBERS))
        replica.set(soul, "k").add(Link(rng.choice(souls)))
    for frame in other.commit():
        replica.merge(frame.author, frame.body)
    replica.commit()
    return replica


def condition_of(rng: random.Random, names: str) -> tuple[str, dict[str, Any]]:
    one, comparison = f"{rng.choice(names)}.{rng.choice('uv')}", rng.choice(COMPARISONS)
    if rng.random() < 0.4:
        return f"{one} {comparison} {rng.choice(names)}.{rng.choice('uv')}", {}
    value = rng.choice([value for value in NUMBERS + OTHERS + DATES if not isinstance(value, Link)])
    return (f"{one} {comparison} $p" if rng.random() < 0.7 else f"$p {comparison} {one}"), {"p": value}


def pattern_of(rng: random.Random) -> tuple[str, str]:
    """A pattern and the names of its nodes."""
    names = "abc"[: rng.randrange(1, 4)]
    nodes = [f"({name}{rng.choice(('', '', ':x', ':x|y', ':z'))})" for name in names]
    link = rng.choice(("-[]->", "-[:k]->", "-[:k|l]->", "<-[]-", "<-[:l]-"))
    return link.join(nodes), names


@given(st.integers(0, 1 << 32))
def test_counts_and_rows_are_those_of_the_tables(seed: int) -> None:
    rng = random.Random(seed)
    replica = graph_of(rng)
    queries, beside = Queries(replica), Queries(replica, ask=lambda function, *given: function(*given))
    for _ in range(4):
        pattern, names = pattern_of(rng)
        condition, given_ = condition_of(rng, names) if rng.random() < 0.7 else (f"{names[0]}:x", {})
        shown = ", ".join(f"id({name}) AS {name}" for name in names)
        # the core doesn't look for what stands beside `true`
        plain = queries.run(
            f"MATCH {pattern} WHERE {condition} AND true RETURN {shown} ORDER BY {', '.join(names)}", given_
        )
        rows = queries.run(
            f"MATCH {pattern} WHERE {condition} RETURN {shown} ORDER BY {', '.join(names)}", given_
        )
        assert rows == plain, (pattern, condition, given_)
        count = f"MATCH {pattern} WHERE {condition} RETURN count(*) AS n, count({names[-1]}) AS m"
        for one in (queries, beside):
            assert one.run(count, given_) == [{"n": len(plain), "m": len(plain)}], (
                pattern,
                condition,
                given_,
            )


def test_counts_follow_what_changes() -> None:
    replica = Replica(bytes(32))
    for number in range(10):
        replica.put(f"n/{number}", "v", number % 2)
    queries = Queries(replica)
    count = "MATCH (n:n {v: 1}) RETURN count(*) AS n"
    assert queries.run(count, {}) == [{"n": 5}]
    replica.put("n/0", "v", 1)
    replica.put("n/new", "v", 1)
    replica.put("n/1", "v", 0)
    queries.index.on_changed([Change(f"n/{one}", "v", "register", bytes(32), 0) for one in ("0", "1", "new")])
    assert queries.run(count, {}) == [{"n": 6}]


def test_sealed_and_unwritten_values_are_counted() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            graph.private(graph.own("a/secret"), [ALICE.id])["v"] = "hidden"
            graph.text("a/1", "v").insert(0, "hidden")
            count = "MATCH (n:a) WHERE n.v >= 'hidden' RETURN count(*) AS n"
            assert graph.query(count) == await graph.query_async(count) == [{"n": 2}]

    asyncio.run(main())


def test_counts_beside_are_of_one_time() -> None:
    replica, turns = Replica(bytes(32)), [0]
    for number in range(40_000):
        replica.put(f"n/{number}", "v", 1)

    def ask(function: Any, *given: Any) -> Any:
        turns[0] += 1
        replica.put(f"n/{turns[0]}", "v", 0)
        replica.put(f"n/{39_999 - turns[0]}", "v", 1)
        replica.put(f"n/{turns[0] - 1}", "v", 1)
        return function(*given)

    count = "MATCH (n:n) WHERE n.v > 0 RETURN count(*) AS n"
    assert Queries(replica, ask=ask).run(count, {}) == [{"n": 39_999}]


def test_few_rows_take_few_steps_and_many_are_limited() -> None:
    replica = Replica(bytes(32))
    for number in range(20_000):
        replica.put(f"n/{number}", "v", number)
    queries = Queries(replica)
    budget = QueryBudget(steps=500)
    assert len(queries.run("MATCH (n:n) RETURN n.v LIMIT 10", {}, budget)) == 10
    with pytest.raises(QueryLimit, match="500 steps"):
        queries.run("MATCH (n:n) RETURN n.v", {}, budget)
    with pytest.raises(QueryLimit, match="500 steps"):
        queries.run("MATCH (n:n) WHERE n.v > 5 RETURN count(*)", {}, budget)


# ---- the first in order ----------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 1 << 32),
    pool=st.sampled_from([NUMBERS, NUMBERS[:4], OTHERS, ("a", "ab", "é"), NUMBERS + OTHERS + DATES]),
    down=st.booleans(),
    skip=st.integers(0, 5),
    limit=st.integers(0, 40),
    named=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_the_first_nodes_are_those_of_all_in_order(
    seed: int, pool: tuple[Any, ...], down: bool, skip: int, limit: int, named: bool
) -> None:
    """With LIMIT the core leaves out what can't be among them; without it, it doesn't."""
    rng, replica = random.Random(seed), Replica(bytes(32))
    for number in range(rng.choice((10, 400))):
        soul = f"{rng.choice('xxxy')}/{number}"
        replica.put(soul, "w", rng.randrange(3))
        if rng.random() < 0.9:
            replica.put(soul, "u", rng.choice(pool))
        elif rng.random() < 0.5:
            replica.set(soul, "u").add(rng.randrange(3))
        if rng.random() < 0.1:
            replica.set(soul, "to").add(Link(f"x/{rng.randrange(1000)}"))
    queries = Queries(replica)
    column, by = ("n.u AS age", "age") if named else ("n.w", "n.u")
    where = "WHERE n.w > 0 " * (seed % 2)
    text = f"MATCH (n:x) {where}RETURN id(n), {column} ORDER BY {by}{' DESC' * down}, id(n)"
    everything = queries.run(text, {})
    some = queries.run(f"{text} SKIP $skip LIMIT {limit}", {"skip": skip})
    assert repr(some) == repr(everything[skip : skip + limit])


def test_the_first_nodes_take_few_steps() -> None:
    replica = Replica(bytes(32))
    replica.put_many((f"x/{number}", "u", number * 7919 % 20_000) for number in range(20_000))
    queries, budget = Queries(replica), QueryBudget(steps=4_000)
    text = "MATCH (n:x) RETURN n.u AS u ORDER BY n.u DESC"
    assert queries.run(f"{text} LIMIT 3", {}, budget) == [{"u": 19_999}, {"u": 19_998}, {"u": 19_997}]
    with pytest.raises(QueryLimit):
        queries.run(text, {}, budget)
    named = "MATCH (n:x) RETURN n.u AS n ORDER BY n LIMIT 1"
    assert queries.run(named, {}, budget) == [{"n": 0}]
