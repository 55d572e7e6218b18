"""EXPLAIN and PROFILE: plans that can be read, with what each clause takes."""

from __future__ import annotations

import pytest
from graph_people import people

from dtp.graph import QueryBudget, QueryError, QueryLimit
from dtp.graph.query.run import Queries


@pytest.fixture(scope="module")
def queries() -> Queries:
    return Queries(people())


def test_explain(queries: Queries) -> None:
    text = (
        "EXPLAIN MATCH (a:user)-[:follows]->(b) WHERE EXISTS { (b)-->() } AND a.age > 30 "
        "WITH a, count(*) AS n RETURN a.name ORDER BY n"
    )
    plan = queries.run(text, {})
    assert [row["operator"] for row in plan if row["operator"].strip().isupper()] == [
        "MATCH",
        "  EXISTS",
        "WITH",
        "RETURN",
    ]
    assert [list(row) for row in plan] == [["operator", "details"]] * len(plan)
    told = {row["details"]: row["operator"] for row in plan}
    assert told["(b)-->()"] == "  EXISTS"
    assert told["a.age by key=? AND value>?"] == "  look up"
    assert told["a, count(*) AS n"] == "WITH"
    assert told["a.name ORDER BY n"] == "RETURN"


def test_what_nothing_narrows_down_is_told(queries: Queries) -> None:
    assert {"operator": "  go through all", "details": "(a)"} in queries.run("EXPLAIN MATCH (a) RETURN a", {})


def test_explain_runs_nothing(queries: Queries) -> None:
    budget = QueryBudget(seconds=None, memory=None, steps=3000)
    endless = "MATCH (a), (b), (c), (d), (e), (f), (g) RETURN count(*)"
    assert queries.run(f"explain {endless}", {}, budget)[0]["operator"] == "MATCH"
    with pytest.raises(QueryLimit):
        queries.run(f"PROFILE {endless}", {}, budget)
    with pytest.raises(QueryError, match="not defined"):
        queries.run("EXPLAIN MATCH (a) RETURN b", {})


def test_profile_counts_rows_and_steps_of_each_clause(queries: Queries) -> None:
    plan = queries.run(
        "PROFILE MATCH (a:user) UNWIND [1, 2, 3] AS x WITH a, x WHERE x > 1 "
        "CALL { WITH a MATCH (a)-->(b) RETURN b } RETURN a.name, b.name, x",
        {},
    )
    counted = [(row["operator"], row["rows"]) for row in plan if row["rows"] is not None]
    assert counted == [
        ("MATCH", 4),
        ("UNWIND", 12),
        ("WITH", 8),
        ("CALL", 10),
        ("  MATCH", 10),
        ("  RETURN", 10),
        ("RETURN", 10),
    ]
    steps = {row["operator"]: row["steps"] for row in plan if row["rows"] is not None}
    assert steps["MATCH"] == 4
    assert steps["UNWIND"] == 12
    assert steps["RETURN"] == 0
    assert queries.run("RETURN 1 AS explain, 2 AS profile", {}) == [{"explain": 1, "profile": 2}]


def test_the_parts_of_a_union_and_shortest_paths_are_told(queries: Queries) -> None:
    plan = queries.run(
        "EXPLAIN MATCH p = shortestPath((a:user)-[*]->(b:place)) RETURN p UNION RETURN 1 AS p", {}
    )
    operators = [row["operator"] for row in plan]
    assert operators[-2:] == ["UNION", "RETURN"]
    assert {"operator": "  shortest path", "details": "shortestPath((a:user)-[*]->(b:place))"} in plan
