"""Queries: what openCypher says they mean, by hand and by a slow evaluator; what isn't supported is told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB
from graph_people import people
from hypothesis import given
from hypothesis import strategies as st

from dtp.crdt import Link, Replica
from dtp.graph import Graph
from dtp.graph.query.errors import QueryError
from dtp.graph.query.run import Queries, Relation


@pytest.fixture(scope="module")
def queries() -> Queries:
    return Queries(people())


def rows(queries: Queries, text: str, **parameters: Any) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in queries.run(text, parameters)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MATCH (u:user) RETURN u.name ORDER BY u.name", [("Alice",), ("Bob",), ("Carol",), ("Dave",)]),
        ("MATCH (u:user {age: 27}) RETURN u.name ORDER BY u.name DESC", [("Dave",), ("Carol",)]),
        ("MATCH (u:user) WHERE u.age >= 33 AND u.name <> 'Bob' RETURN u.name", [("Alice",)]),
        ("MATCH (u:user) WHERE u.name = 'Bob' OR NOT u.active RETURN id(u) ORDER BY id(u)",
         [("user/bob",), ("user/carol",), ("user/dave",)]),
        ("MATCH (a {name: 'Alice'})-[:follows]->(b) RETURN b.name ORDER BY b.name", [("Bob",), ("Carol",)]),
        ("MATCH (a)<-[:follows]-(b) WHERE a.name = 'Carol' RETURN b.name ORDER BY b.name", [("Alice",), ("Bob",)]),
        ("MATCH (a {name: 'Alice'})-[:follows]-(b) RETURN b.name ORDER BY b.name", [("Bob",), ("Carol",), ("Dave",)]),
        ("MATCH (a:user)-[:lives]->(p:place) RETURN a.name, p.name", [("Alice", "Home")]),
        ("MATCH (a)-[r:lives|follows]->(b) WHERE a.name = 'Alice' RETURN type(r), count(*) AS n ORDER BY n",
         [("lives", 1), ("follows", 2)]),
        ("MATCH (a)-[:follows]->(b)-[:follows]->(c) RETURN a.name, b.name, c.name ORDER BY a.name, b.name, c.name",
         [("Alice", "Bob", "Carol"), ("Dave", "Alice", "Bob"), ("Dave", "Alice", "Carol")]),
        ("MATCH (d {name: 'Dave'})-[:follows*1..2]->(x) RETURN x.name ORDER BY x.name",
         [("Alice",), ("Bob",), ("Carol",)]),
        ("MATCH (x)<-[:follows*2]-(d {name: 'Dave'}) RETURN x.name ORDER BY x.name", [("Bob",), ("Carol",)]),
        ("MATCH (d {name: 'Dave'})-[:follows*0..1]->(x) RETURN x.name ORDER BY x.name", [("Alice",), ("Dave",)]),
        ("MATCH (a:user) OPTIONAL MATCH (a)-[:lives]->(p) RETURN a.name, p.name ORDER BY a.name",
         [("Alice", "Home"), ("Bob", None), ("Carol", None), ("Dave", None)]),
        ("MATCH (a:user) OPTIONAL MATCH (a)-[:follows]->(b) WHERE b.age > 30 RETURN a.name, count(b) ORDER BY a.name",
         [("Alice", 1), ("Bob", 0), ("Carol", 0), ("Dave", 1)]),
        ("MATCH (u:user) RETURN count(*), sum(u.age), avg(u.age), min(u.age), max(u.name), count(DISTINCT u.age)",
         [(4, 127, 31.75, 27, "Dave", 3)]),
        ("MATCH (u:user) RETURN u.age AS age, collect(u.name) AS names ORDER BY age",
         [(27, ["Carol", "Dave"]), (33, ["Alice"]), (40, ["Bob"])]),
        ("MATCH (u:nobody) RETURN count(u), sum(u.age), collect(u.name)", [(0, 0, [])]),
        ("MATCH (u:user) RETURN DISTINCT u.age ORDER BY u.age SKIP 1 LIMIT 1", [(33,)]),
        ("MATCH (u:user) WHERE u.nick IS NULL RETURN count(u)", [(3,)]),
        ("MATCH (u:user) WHERE u.nick IS NOT NULL RETURN u.nick, u.nick + '!' , u.age + 1", [("Al", "Al!", 34)]),
        ("MATCH (u:user) RETURN u.nick ORDER BY u.nick LIMIT 2", [("Al",), (None,)]),
        ("MATCH (u:user) RETURN u.nick ORDER BY u.nick DESC LIMIT 1", [(None,)]),
        ("MATCH (u:user) WHERE u.name STARTS WITH 'A' RETURN u.active, u.age > 30, NOT u.active",
         [(True, True, False)]),
        ("MATCH (u:user) WHERE u.name ENDS WITH 'l' OR u.name CONTAINS 'av' RETURN u.name ORDER BY u.name",
         [("Carol",), ("Dave",)]),
        ("MATCH (u:user) WHERE u.name IN ['Alice', 'Eve'] RETURN u.name", [("Alice",)]),
        ("MATCH (u {name: 'Alice'}) RETURN u.tags, u.big, labels(u), toUpper(u.name), size(u.name)",
         [(["a", {"b": None}], 1 << 80, ["user"], "ALICE", 5)]),
        ("MATCH (u {name: 'Alice'}) RETURN 7 / 2, 7 % 4, 2 ^ 3, -(1 + 2) * 3, 1.5e1, 'it\\'s', \"a\\nb\"",
         [(3, 3, 8.0, -9, 15.0, "it's", "a\nb")]),
        ("MATCH (u:user) RETURN CASE WHEN u.age > 30 THEN 'old' ELSE 'young' END AS w, count(*) ORDER BY w",
         [("old", 2), ("young", 2)]),
        ("MATCH (a:user), (b:user) WHERE a.age < b.age RETURN count(*)", [(5,)]),
        ("MATCH (u:user) RETURN coalesce(u.nick, u.name) AS n ORDER BY n LIMIT 1", [("Al",)]),
        ("match (u:user) // a comment\n where u.`age` = 40 return u.name as `the name`", [("Bob",)]),
        ("MATCH (a)-[:follows]->(b), (a)-[:follows]->(c) RETURN count(*)", [(2,)]),  # no link is walked twice
    ],
)  # fmt: skip
def test_what_is_asked_is_answered(queries: Queries, text: str, expected: list[tuple[Any, ...]]) -> None:
    assert rows(queries, text) == expected


def test_nodes_and_relationships_come_as_such(queries: Queries) -> None:
    ((node, link),) = rows(queries, "MATCH (a:user)-[r:lives]->() RETURN a, r")
    assert node["name"] == "Alice"
    assert link == Relation("user/alice", "lives", "place/1")


def test_parameters(queries: Queries) -> None:
    text = "MATCH (u:user {name: $n}) WHERE u.age IN $ages RETURN u.age LIMIT $k"
    assert rows(queries, text, n="Bob", ages=[40, 41], k=1) == [(40,)]
    assert rows(queries, "MATCH (u) WHERE id(u) = $who RETURN u.name", who=Link("user/bob")) == [("Bob",)]
    hostile = "x'; DROP TABLE nodes; --"
    assert rows(queries, "MATCH (u {name: $n}) RETURN u", n=hostile) == []
    assert rows(queries, "MATCH (u:user) RETURN count(*)") == [(4,)]
    for wrong in ({}, {"n": 1, "m": 2}):
        with pytest.raises(QueryError, match=r"\$"):
            rows(queries, "MATCH (u {name: $n}) RETURN u", **wrong)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1"),
        ("MATCH (u) RETURN", "line 1"),
        ("MATCH (u)\nRETURN v", "v is not in any pattern"),
        ("CREATE (u)", "line 1, column 1"),
        ("MATCH (u) RETURN v.name", "v is not in any pattern"),
        ("MATCH (a)-[a]->(b) RETURN a", "stands for something already"),
        ("MATCH (a)-[r]->(b) MATCH (r) RETURN a", "is a relationship"),
        ("MATCH (a)-[*]->(b) RETURN a", "give a path"),
        ("MATCH (a)-[*1..]->(b) RETURN a", "give a path"),
        ("MATCH (a)-[*3..2]->(b) RETURN a", "its end isn't before"),
        ("MATCH (a)-[*1..99]->(b) RETURN a", "at most 32"),
        ("MATCH (a)-[r*1..2]->(b) RETURN a", "can't have a name"),
        ("MATCH (a) WHERE count(a) > 1 RETURN a", "belongs into RETURN"),
        ("MATCH (a) RETURN sum(count(a))", "not into another aggregate"),
        ("MATCH (a) RETURN nothing(a)", "is not known"),
        ("MATCH (a)-[r]->() RETURN r.since", "no properties"),
        ("MATCH (a) RETURN type(a)", "takes a relationship"),
        ("MATCH (a) RETURN a.x, a.x", "two columns"),
        ("MATCH (a) RETURN a LIMIT -1", "0 or more"),
        ("MATCH (a) OPTIONAL MATCH (a)-->(b) MATCH (c) RETURN a", "put it before"),
        ("OPTIONAL MATCH (a) RETURN a", "begins with MATCH"),
        ("MATCH (a) OPTIONAL MATCH (a) RETURN a", "something new"),
        ("MATCH (a) RETURN 'a\\qb'", "unknown escape"),
    ],
)
def test_what_is_not_understood_is_told(queries: Queries, text: str, words: str) -> None:
    with pytest.raises(QueryError, match=words.replace("(", r"\(").replace("$", r"\$")):
        rows(queries, text)


@given(st.text(alphabet="MATCHRETURN()[]-><:{}.*,'$ abu12", max_size=40))
def test_any_text_is_answered_or_refused(text: str) -> None:
    with contextlib.suppress(QueryError):
        assert isinstance(Queries(people()).run(text, {}), list)


# ---- against a slow evaluator ------------------------------------------------------------------------------------


def trails(links: list[tuple[str, str]], start: str, most: int) -> Iterator[list[int]]:
    """All ways of up to `most` links from a node that use none twice, as places in `links`."""
    ways: list[tuple[str, list[int]]] = [(start, [])]
    for _ in range(most):
        longer = [
            (target, [*way, at])
            for node, way in ways
            for at, (soul, target) in enumerate(links)
            if soul == node and at not in way
        ]
        yield from (way for _, way in longer)
        ways = longer


@given(st.integers(0, 1 << 32))
def test_random_graphs(seed: int) -> None:
    rng = random.Random(seed)
    names = [f"n/{number}" for number in range(6)]
    links = sorted({(rng.choice(names), rng.choice(names)) for _ in range(rng.randrange(1, 10))})
    replica = Replica(bytes(32))
    for name in names:
        replica.put(name, "v", rng.randrange(3))
    for soul, target in links:
        replica.node(soul).link("to", target)
    queries = Queries(replica)
    value = {name: replica.get(name, "v") for name in names}

    hop = rows(queries, "MATCH (a:n)-[:to]->(b {v: 1}) RETURN id(a), id(b)")
    assert sorted(hop) == [(a, b) for a, b in links if value[b] == 1]
    two = rows(queries, "MATCH (a)-[:to]->(b)-[:to]->(c) WHERE a.v <= c.v RETURN id(a), id(b), id(c)")
    pairs = [(p, q) for p, q in itertools.permutations(range(len(links)), 2) if links[p][1] == links[q][0]]
    assert sorted(two) == sorted(
        (links[p][0], links[p][1], links[q][1]) for p, q in pairs if value[links[p][0]] <= value[links[q][1]]
    )
    far = rows(queries, "MATCH (a)-[:to*1..3]->(b) RETURN id(a), id(b)")
    assert sorted(far) == sorted((a, links[way[-1]][1]) for a in names for way in trails(links, a, 3))
    back = rows(queries, "MATCH (b {v: 0})<-[:to*1..3]-(a) RETURN id(a), id(b)")
    assert sorted(back) == sorted(pair for pair in far if value[pair[1]] == 0)
    either = rows(queries, "MATCH (a)-[:to]-(b) RETURN id(a), id(b)")
    assert sorted(either) == sorted([*links, *((b, a) for a, b in links if a != b)])


# ---- what changes -------------------------------------------------------------------------------------------------


def test_answers_follow_what_changes() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            names = "MATCH (u:user) RETURN u.name AS n ORDER BY n"
            assert other.query(names) == []
            one.node("user/a")["name"] = "A"
            one.node("user/a").link("knows", "user/b")
            await one.commit()
            await other.receive(await one.read(ALICE.id.key, 1, 1))
            assert other.query(names) == [{"n": "A"}, {"n": None}]
            assert other.query("MATCH (a)-[:knows]->(b) RETURN b")[0]["b"].soul == "user/b"
            other.node("user/b")["name"] = "B"
            other.node("user/a")["name"] = "A2"
            assert other.query(names) == [{"n": "A2"}, {"n": "B"}]
            other.node("user/a").unlink("knows", "user/b")
            del other.node("user/b")["name"]
            assert other.query(names) == [{"n": "A2"}]  # nothing is left of b
            assert "SEARCH" in other.explain("MATCH (u:user {name: 'A2'}) RETURN u")

    asyncio.run(main())


def test_live_queries_tell_what_comes_and_goes() -> None:
    async def main() -> None:
        graph = await Graph.open("memory:", identity=ALICE)
        graph.node("user/a")["name"] = "A"
        live = graph.live("MATCH (u:user) RETURN u, u.name AS n ORDER BY n")
        first = await anext(live)
        assert [row["n"] for row in first.added] == ["A"]
        assert first.removed == []
        graph.node("place/1")["name"] = "elsewhere"  # no difference: not told
        graph.node("user/b")["name"] = "B"
        graph.node("user/a")["name"] = "A2"
        second = await anext(live)
        assert sorted(row["n"] for row in second.added) == ["A2", "B"]
        assert [row["n"] for row in second.removed] == ["A"]
        waiting = asyncio.ensure_future(anext(live))
        await asyncio.sleep(0)
        del graph.node("user/b")["name"]
        third = await waiting
        assert (third.added, [row["n"] for row in third.removed]) == ([], ["B"])
        await graph.close()
        assert [difference async for difference in live] == []

    asyncio.run(main())


def test_a_live_query_that_is_none_says_so_at_once() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            with pytest.raises(QueryError):
                await anext(graph.live("MATCH u RETURN u"))

    asyncio.run(main())
