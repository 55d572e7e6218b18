"""Groups of the nodes of one pattern, by columns that the core gives, are what the rows themselves give."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from graph_fixtures import ALICE
from graph_people import called
from test_query_scanning import graph_of
from variants import slow_after

from dtp.crdt import Change, Link, Replica
from dtp.graph import Graph, QueryBudget, QueryError
from dtp.graph.query.errors import QueryLimit
from dtp.graph.query.run import Queries

MATCHES = (
    "(n:x)",
    "(n)",
    "(n:x|y) WHERE n.u > 1",
    "(n {v: 'a'})",
    "(n:x) WHERE n.u = n.v",
    "(n:y) WHERE n.u <> 2",
)
RETURNS = (
    "n.u, count(*)",
    "n.u AS a, n.v AS b, count(*) AS c ORDER BY c DESC, a, b",
    "count(n)",
    "count(n.u), count(DISTINCT n.u), count(DISTINCT n.v)",
    "n . u, count(n) + 1 AS more",
    "min(n.u), max(n.v)",
    "n.v, min(n.u), max(n.u), count(n.u)",
    "DISTINCT n.u",
    "DISTINCT n.u, n.v ORDER BY n.v, n.u SKIP 1 LIMIT 3",
    "n.u = 1 AS one, count(*) AS c",
    "CASE WHEN n.u IS NULL THEN 'none' ELSE 'some' END AS what, count(*)",
    "n.`u`, count(*)",
    "`n`.u, count(*)",
    "n.nothing, count(*)",
    "toString(n.v) AS text, count(*) AS c",
    # of other kinds: rows, or the order of them, count
    "collect(n.u) AS all",
    "count(DISTINCT n)",
    "n, n.u, count(*)",
    "id(n) AS soul, count(*)",
    "n.u AS a, size([x IN collect(n.v) WHERE x = n.u | x]) AS c",
)


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    """The same rows, in whatever order, by what is shown of them."""
    assert sorted(map(repr, map(of_equals, one))) == sorted(map(repr, map(of_equals, other)))


def of_equals(row: dict[str, Any]) -> dict[str, Any]:
    """Numbers that are equal as one of them: which one stands for a group depends on the order of rows."""
    return {key: float(one) if type(one) is int and abs(one) < 1 << 53 else one for key, one in row.items()}


def told(queries: Queries, text: str) -> Any:
    try:
        return queries.run(text, {})
    except QueryError as error:
        return str(error)


@pytest.mark.parametrize("returned", slow_after(8, RETURNS))
def test_groups_are_those_of_rows(returned: str) -> None:
    """`WITH n` makes another query of it, which goes the way of rows."""
    for seed in range(12):
        queries = Queries(graph_of(random.Random(seed)))
        for match in MATCHES:
            quick = told(queries, f"MATCH {match} RETURN {returned}")
            slow = told(queries, f"MATCH {match} WITH n RETURN {returned}")
            if isinstance(quick, str) or isinstance(slow, str):
                assert isinstance(quick, str) == isinstance(slow, str), (seed, match, quick, slow)
            elif "LIMIT" in returned:
                assert len(quick) == len(slow)
            else:
                same(quick, slow)
                assert list(quick[0] if quick else ()) == list(slow[0] if slow else ())


def test_sums_and_means() -> None:
    replica = Replica(bytes(32))
    for number in range(200):
        replica.put(f"x/{number}", "u", number % 7 if number % 3 else number % 7 + 0.5)
        replica.put(f"x/{number}", "v", ["a", "b", None][number % 3])
    queries = Queries(replica)
    for returned in (
        "sum(n.u) AS s, avg(n.u) AS a",
        "n.v AS v, sum(n.u) AS s, avg(n.u + 1) AS a, sum(DISTINCT n.u) AS d",
    ):
        quick = queries.run(f"MATCH (n:x) RETURN {returned}", {})
        slow = queries.run(f"MATCH (n:x) WITH n RETURN {returned}", {})
        for one, other in zip(sorted(quick, key=repr), sorted(slow, key=repr), strict=True):
            assert one == pytest.approx(other)


def test_nodes_that_are_only_linked_to_are_counted() -> None:
    replica = Replica(bytes(32))
    replica.put("x/1", "u", 1)
    for target in ("x/2", "x/3", "y/4"):
        replica.node("x/1").link("k", target)
    found = Queries(replica).run("MATCH (n:x) RETURN n.u AS u, count(*) AS c", {})
    assert {row["u"]: row["c"] for row in found} == {1: 1, None: 2}
    assert Queries(replica).run("MATCH (n:x) WHERE n.u = 1 RETURN n.u AS u, count(*) AS c", {}) == [
        {"u": 1, "c": 1}
    ]


def test_what_the_core_cannot_tell_is_grouped_by_rows() -> None:
    """A list, a text that isn't committed, a counter: each is a property."""

    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            graph.node("x/1")["u"] = [1, 2]
            graph.counter("x/2", "u").add(3)
            graph.set("x/3", "u").add("one")
            await graph.commit()
            graph.text("x/4", "u").insert(0, "typed")
            graph.node("x/5")["u"] = Link("x/1")
            for found in (
                graph.query("MATCH (n:x) RETURN n.u AS u, count(*) AS c"),
                await graph.query_async("MATCH (n:x) RETURN n.u AS u, count(*) AS c"),
            ):
                assert sorted(repr(row["u"]) for row in found) == [
                    "'typed'",
                    "3",
                    "None",
                    "['one']",
                    "[1, 2]",
                ]

    asyncio.run(main())


def test_groups_of_many_nodes_take_few_steps_in_the_loop_and_beside() -> None:
    """Of rows each is a step at least."""

    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            graph.put_many((f"x/{number}", "u", number % 5) for number in range(40_000))
            await graph.commit()
            graph.query_budget = QueryBudget(None, 100, 10_000, None)
            text = "MATCH (n:x) RETURN n.u AS u, count(*) AS c, max(n.u) AS m ORDER BY u"
            wanted = [{"u": u, "c": 8000, "m": u} for u in range(5)]
            assert graph.query(text) == await graph.query_async(text) == wanted
            with pytest.raises(QueryLimit):
                graph.query(text.replace("RETURN", "WITH n RETURN"))
            graph.put_many((f"x/{number}", "u", number) for number in range(40_000))
            with pytest.raises(QueryLimit):  # as many groups as nodes
                graph.query(text)

    asyncio.run(main())


@pytest.mark.parametrize("down", ["", " DESC"])
@pytest.mark.parametrize("key", slow_after(1, ["u", "v"]))
def test_the_first_in_order_beside_the_loop(key: str, down: str) -> None:
    """Those that are only linked to, and those without the property, are among them where they come first."""
    for seed in range(80):
        replica = graph_of(random.Random(seed))
        beside = Queries(replica, ask=called)
        for match in MATCHES[:3]:
            for most in ("LIMIT 1", "SKIP 1 LIMIT 3"):
                text = f"MATCH {match} RETURN id(n) AS soul, n.u AS u ORDER BY n.{key}{down}, soul {most}"
                assert repr(beside.run(text, {})) == repr(Queries(replica).run(text, {})), (seed, text)
                replica.put("x/new", key, seed)
                replica.put(f"x/{seed}", key, -seed)
                beside.index.on_changed(
                    [Change(soul, key, "register", bytes(32), 0) for soul in ("x/new", f"x/{seed}")]
                )


def test_only_those_that_may_be_first_are_read_beside_the_loop() -> None:
    replica = Replica(bytes(32))
    for number in range(3000):
        replica.put(f"x/{number}", "u", number)
        replica.node(f"x/{number}").link("k", f"x/{number + 1}")
    beside = Queries(replica, ask=called)
    steps = QueryBudget(None, None, 2000, None)
    text = "MATCH (n:x) RETURN n.u AS u ORDER BY n.u DESC LIMIT 3"
    assert beside.run(text, {}, steps) == [{"u": None}, {"u": 2999}, {"u": 2998}]  # x/3000 is only linked to
    with pytest.raises(QueryLimit):
        beside.run(text.replace("LIMIT 3", ""), {}, steps)


def test_an_explained_query_is_told_as_ever() -> None:
    replica = Replica(bytes(32))
    replica.put("x/1", "u", 1)
    plan = Queries(replica).run("PROFILE MATCH (n:x) RETURN n.u, count(*)", {})
    assert plan
    with pytest.raises(QueryError, match="stands beside an aggregate"):
        Queries(replica).run("MATCH (n:x) RETURN n.u + count(*)", {})
