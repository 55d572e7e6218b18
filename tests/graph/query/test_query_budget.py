"""Queries that don't end, or fill memory, are ended by name; by steps in the same place on every machine."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from graph_fixtures import ALICE

from dtp.crdt import Link, Replica
from dtp.graph import Graph, QueryBudget, QueryError, QueryLimit
from dtp.graph.query.budget import Meter
from dtp.graph.query.run import Queries

#: No limit but steps, so that it doesn't depend on the machine.
STEPS = QueryBudget(seconds=None, memory=None, steps=200_000)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


@pytest.fixture(scope="module")
def clique() -> Queries:
    """Thirty nodes, each linked to each."""
    replica = Replica(ALICE.id.key)
    for one in range(30):
        replica.put(f"n/{one}", "number", one)
        for other in range(30):
            replica.put(f"n/{one}", f"to{other}", Link(f"n/{other}"))
    return Queries(replica)


ENDLESS = {
    "paths in a clique": "MATCH (a)-[*1..7]->(b) RETURN count(*)",
    "long paths that are sorted": "MATCH (a {number: 1})-[r*1..9]-(b) RETURN size(r) AS n ORDER BY n DESC",
    "a cartesian product": "MATCH (a), (b), (c), (d), (e) RETURN count(*)",
    "a product that is filtered": "MATCH (a), (b), (c), (d), (e) WHERE a.number + b.number = -1 RETURN a",
    "clauses that multiply": "MATCH (a) MATCH (b) WITH a, b MATCH (c) WITH a, b, c MATCH (d), (e) RETURN count(*)",
    "lists by UNWIND": "UNWIND range(1, 4000) AS a UNWIND range(1, 4000) AS b RETURN sum(a * b)",
    "a comprehension": "RETURN [a IN range(1, 4000) | size([b IN range(1, 4000) WHERE b = a])] AS x",
    "a quantifier": "UNWIND range(1, 4000) AS a WITH a WHERE any(b IN range(1, 4000) WHERE b < 0) RETURN a",
    "reduce that doubles a text": "RETURN size(reduce(t = 'ab', i IN range(1, 60) | t + t)) AS n",
    "reduce that doubles a list": "RETURN size(reduce(t = [1], i IN range(1, 60) | t + t)) AS n",
    "replace that doubles": "RETURN size(reduce(t = 'a', i IN range(1, 60) | replace(t, 'a', 'aa'))) AS n",
    "a list that has itself twice": "RETURN reduce(t = [1], i IN range(1, 60) | [t, t]) AS x",
    "two of those compared": "WITH reduce(t = [1], i IN range(1, 60) | [t, t]) AS x RETURN x = [x, 1] OR x = x AS y",
    "one of those grouped": "WITH reduce(t = [1], i IN range(1, 60) | [t, t]) AS x RETURN DISTINCT x",
    "one of those sorted by": "WITH reduce(t = [1], i IN range(1, 60) | [t, t]) AS x RETURN 1 AS n ORDER BY x",
    "a map that has itself twice": "RETURN reduce(t = {a: 1}, i IN range(1, 60) | {a: t, b: t}) AS x",
    "patterns within patterns": "MATCH (a) WHERE size([(a)-->(b)-->(c)-->(d) | 1]) < 0 RETURN a",
}


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS)
def test_what_does_not_end_is_ended_by_steps(clique: Queries, text: str) -> None:
    with pytest.raises(QueryLimit, match=r"more than 200,000 steps.*query_budget") as caught:
        clique.run(text, {}, STEPS)
    assert caught.value.what == "steps"
    assert clique.run("MATCH (a {number: 7}) RETURN id(a) AS id", {}, STEPS) == [{"id": "n/7"}]


@pytest.mark.parametrize(
    "text",
    [
        "RETURN reduce(n = 3, i IN range(1, 60) | n * n) AS n",
        "WITH reduce(t = 'a', i IN range(1, 20) | t + t) AS t RETURN size(replace(t, 'a', left(t, 100))) AS n",
    ],
)
def test_what_grows_in_one_step_is_refused_before(clique: Queries, text: str) -> None:
    with pytest.raises(QueryError, match="at most"):
        clique.run(text, {}, QueryBudget(None, None, None, None))


def test_an_error_about_a_huge_value_is_short(clique: Queries) -> None:
    with pytest.raises(QueryError, match="takes numbers") as caught:
        clique.run("WITH reduce(t = [1], i IN range(1, 60) | [t, t]) AS x RETURN x - 1 AS n", {}, STEPS)
    assert len(str(caught.value)) < 300


def test_the_same_steps_each_time(clique: Queries) -> None:
    """One step less is too few, however often it is asked."""
    text = "MATCH (a)-->(b) WHERE a.number < b.number RETURN count(*) AS n"

    def fits(steps: int) -> bool:
        try:
            return bool(clique.run(text, {}, QueryBudget(None, None, steps, None)) == [{"n": 435}])
        except QueryLimit:
            return False

    few, enough = 0, 1 << 20
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if fits(middle) else (middle, enough)
    assert [fits(enough), fits(enough - 1)] * 3 == [True, False] * 3


def test_rows(clique: Queries) -> None:
    budget = QueryBudget(rows=100)
    assert len(clique.run("MATCH (a)-->(b) RETURN a LIMIT 100", {}, budget)) == 100
    with pytest.raises(QueryLimit, match="more than 100 rows") as caught:
        clique.run("MATCH (a)-->(b) RETURN a LIMIT 101", {}, budget)
    assert caught.value.what == "rows"


def steps(meter: Meter, count: int) -> None:
    for _ in range(count):
        meter.count_step()


def test_time_and_memory_are_looked_at_by_and_by() -> None:
    now, there = [0.0], [1000]
    budget = QueryBudget(seconds=2.0, memory=5 << 20)
    meter = Meter(budget, lambda: now[0], lambda: there[0])
    steps(meter, 5000)
    now[0] = 2.5
    with pytest.raises(QueryLimit, match="longer than 2 s"):
        steps(meter, 5000)
    meter = Meter(budget, lambda: now[0], lambda: there[0])
    assert not meter.count_instructions()
    there[0] += (5 << 20) + 1
    assert meter.count_instructions()
    assert isinstance(meter.limit, QueryLimit)
    assert meter.limit.what == "memory"
    with pytest.raises(QueryLimit, match="more than 5 MiB"):
        meter.count_size("x" * (1 << 20))


def test_a_graph_has_a_budget_of_its_own() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            for number in range(100):
                graph.node(f"n/{number}")["k"] = number
            assert graph.query("MATCH (a), (b) RETURN count(*) AS n") == [{"n": 10_000}]
            graph.query_budget = QueryBudget(steps=5000)
            with pytest.raises(QueryLimit):
                graph.query("MATCH (a), (b) RETURN count(*) AS n")
            assert graph.query("MATCH (a) RETURN count(*) AS n") == [{"n": 100}]

    run(main())


def test_limit_takes_no_more_than_it_needs(clique: Queries) -> None:
    """Rows are looked for as they are wanted: the first of a product cost no more than those of one node."""
    budget = QueryBudget(seconds=None, memory=None, steps=3000)
    assert len(clique.run("MATCH (a), (b), (c), (d), (e) RETURN a LIMIT 5", {}, budget)) == 5
