"""shortestPath and allShortestPaths: by hand, and against all paths."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from graph_people import people, rows
from hypothesis import given
from hypothesis import strategies as st

from dtp.crdt import Replica
from dtp.graph import QueryBudget, QueryError, QueryLimit
from dtp.graph.query.run import Queries

DAVE_TO_CAROL = "(d {name: 'Dave'})-[:follows*]->(c {name: 'Carol'})"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"MATCH p = shortestPath({DAVE_TO_CAROL}) RETURN [n IN nodes(p) | n.name] AS l, length(p)",
         [(["Dave", "Alice", "Carol"], 2)]),
        (f"MATCH shortestPath({DAVE_TO_CAROL}) RETURN count(*)", [(1,)]),
        ("MATCH p = shortestPath((c {name: 'Carol'})-[:follows*]->(d {name: 'Dave'})) RETURN p", []),
        ("MATCH p = shortestPath((c {name: 'Carol'})<-[*]-(d {name: 'Dave'})) RETURN length(p)", [(2,)]),
        ("MATCH p = allShortestPaths((b {name: 'Dave'})-[*]-(d {name: 'Bob'})) RETURN [n IN nodes(p) | n.name] AS l",
         [(["Dave", "Alice", "Bob"],)]),
        ("MATCH (d {name: 'Dave'}), (c {name: 'Carol'}) OPTIONAL MATCH p = shortestPath((d)-[*..1]->(c)) RETURN p",
         [(None,)]),
        ("MATCH (a {name: 'Alice'}), (b {name: 'Home'}) RETURN length(shortestPath((a)-[*..3]->(b))) AS n, "
         "shortestPath((b)-[*]->(a)) AS no, size(allShortestPaths((a)-[:lives]-(b))) AS all", [(1, None, 1)]),
        ("MATCH (d {name: 'Dave'}) MATCH (d)-[:follows]->(x), p = shortestPath((d)-[r:follows*]->(c:user {age: 27})) "
         "WHERE c.name <> 'Dave' RETURN x.name, [l IN r | type(l)] AS t", [("Alice", ["follows", "follows"])]),
        ("MATCH (a {name: 'Alice'}) MATCH p = shortestPath((a)-[*0..]-(b:user)) RETURN b.name, length(p) "
         "ORDER BY length(p), b.name", [("Alice", 0), ("Bob", 1), ("Carol", 1), ("Dave", 1)]),
        ("MATCH (a {name: 'Alice'}), p = shortestPath((a)-[*]-(a)) RETURN p", []),
        ("MATCH p = shortestPath((a {name: 'Alice'})-[r:lives]->(b)) RETURN type(r), length(p)", [("lives", 1)]),
        (f"MATCH p = shortestPath({DAVE_TO_CAROL}) WHERE length(p) > 2 RETURN p", []),  # the shortest, then WHERE
    ],
)  # fmt: skip
def test_what_is_asked_is_answered(text: str, expected: list[tuple[Any, ...]]) -> None:
    assert rows(Queries(people()), text) == expected
    beside = Queries(people(), ask=lambda function, *given: function(*given))
    assert rows(beside, text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("MATCH p = shortestPath((a)-[*2..3]->(b)) RETURN p", "0 links or 1"),
        ("MATCH p = shortestPath((a)-[* {x: 1}]->(b)) RETURN p", "has no properties"),
        ("MATCH (a) RETURN shortestPath((a)-[*]->(b))", "b is not defined"),
        ("MATCH p = shortestPath((a)-[p*]->(b)) RETURN p", "has a meaning already"),
        ("MATCH p = shortestPath((a)-[*]->(b)), (p) RETURN p", "not a node"),
        ("MATCH p = shortestPath((a)) RETURN p", "not understood"),
    ],
)
def test_what_is_not_understood_is_told(text: str, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        rows(Queries(people()), text)


def trails(links: list[tuple[str, str, str]], start: str, direction: str) -> Iterator[list[tuple[str, ...]]]:
    """All paths from a node that come to no node twice, as their links."""
    waiting: list[tuple[str, list[tuple[str, ...]], set[str]]] = [(start, [], {start})]
    while waiting:
        here, path, seen = waiting.pop()
        yield path
        for link in links:
            for at, to in ((0, 2), (2, 0)):
                if (at == 0 and direction == "left") or (at == 2 and direction == "right"):
                    continue
                if link[at] == here and link[to] not in seen:
                    waiting.append((link[to], [*path, link], seen | {link[to]}))


@given(st.integers(0, 1 << 32))
def test_random_graphs(seed: int) -> None:
    rng = random.Random(seed)
    names = [f"n/{number}" for number in range(6)]
    links = sorted(
        {(rng.choice(names), rng.choice("xy"), rng.choice(names)) for _ in range(rng.randrange(1, 14))}
    )
    replica = Replica(bytes(32))
    for name in names:
        replica.put(name, "v", 1)
    for soul, key, target in links:
        replica.node(soul).link(key, target)
    queries = Queries(replica)
    start, end = rng.sample(names, 2)
    direction, (before, after) = rng.choice(
        [("right", ("-", "->")), ("left", ("<-", "-")), ("both", ("-", "-"))]
    )
    keys, most = rng.choice(["", ":x", ":x|y"]), rng.choice(["", "..2"])
    asked = f"((a){before}[{keys}*{most}]{after}(b)) WHERE id(a) = '{start}' AND id(b) = '{end}' RETURN p"
    found = [path for (path,) in rows(queries, f"MATCH p = allShortestPaths{asked}")]
    there = [link for link in links if keys != ":x" or link[1] == "x"]
    ways = [
        way
        for way in trails(there, start, direction)
        if way
        and end in way[-1]
        and (not most or len(way) <= 2)
        and end not in [soul for link in way[:-1] for soul in link]
    ]
    ways = [way for way in ways if len(way) == min(map(len, ways))]
    assert sorted([tuple(link) for link in path.relationships] for path in found) == sorted(ways)
    for path in found:
        assert [path.nodes[0].soul, path.nodes[-1].soul] == [start, end]
    one = rows(queries, f"MATCH p = shortestPath{asked}")
    assert len(one) == min(1, len(ways))
    assert all(path in found for (path,) in one)


@pytest.fixture(scope="module")
def grid() -> Queries:
    """30 nodes by 30, each linked to the one on the right of it and the one below."""
    replica = Replica(bytes(32))
    for x in range(30):
        for y in range(30):
            replica.put(f"g/{x}-{y}", "at", f"{x}-{y}")
            if x < 29:
                replica.node(f"g/{x}-{y}").link("to", f"g/{x + 1}-{y}")
            if y < 29:
                replica.node(f"g/{x}-{y}").link("to", f"g/{x}-{y + 1}")
    return Queries(replica)


CORNERS = "((a {at: '0-0'})-[:to*]->(b {at: '29-29'}))"


def test_one_of_very_many_is_found_in_few_steps(grid: Queries) -> None:
    budget = QueryBudget(seconds=None, memory=None, steps=50_000)
    assert grid.run(f"MATCH p = shortestPath{CORNERS} RETURN length(p) AS n", {}, budget) == [{"n": 58}]
    some = grid.run(f"MATCH p = allShortestPaths{CORNERS} RETURN length(p) AS n LIMIT 3", {}, budget)
    assert some == [{"n": 58}] * 3


def test_all_of_very_many_are_within_the_budget(grid: Queries) -> None:
    with pytest.raises(QueryLimit) as caught:
        grid.run(
            f"MATCH p = allShortestPaths{CORNERS} RETURN count(p) AS n",
            {},
            QueryBudget(seconds=None, memory=None, steps=200_000),
        )
    assert caught.value.what == "steps"


def test_long_paths() -> None:
    replica = Replica(bytes(32))
    for number in range(3000):
        replica.node(f"n/{number}").link("to", f"n/{number + 1}")
    found = Queries(replica).run(
        "MATCH p = shortestPath((a)-[*]->(b)) WHERE id(a) = 'n/0' AND id(b) = 'n/3000' RETURN length(p) AS n",
        {},
    )
    assert found == [{"n": 3000}]
