"""Queries within queries, label alternatives and map projections: by hand, and by a slow evaluator."""

from __future__ import annotations

import random
from typing import Any

import pytest
from graph_people import people, rows
from hypothesis import given
from hypothesis import strategies as st

from dtp.crdt import Replica
from dtp.graph import QueryBudget, QueryError, QueryLimit
from dtp.graph.query.grammar import WORDS
from dtp.graph.query.run import Queries


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MATCH (a {name: 'Alice'}) RETURN a, count(*) + COUNT { (a)-->(b) WHERE b.x IS NULL } AS n LIMIT 0", []),
        # label alternatives
        ("MATCH (n:user|place) RETURN count(*)", [(5,)]),
        ("MATCH (n:place|nobody) RETURN n.name", [("Home",)]),
        ("MATCH (n:user|place:place) RETURN n.name", [("Home",)]),  # one of them, and this one
        ("MATCH (n:user|:place {name: 'Bob'}) RETURN n.age", [(40,)]),
        ("MATCH (n) WHERE n:place|nobody RETURN n.name", [("Home",)]),
        ("MATCH (n) WHERE NOT n:user|nobody RETURN n.name", [("Home",)]),
        ("MATCH (n {name: 'Home'}) RETURN n:user, n:user|place, (n:place|user)", [(False, True, True)]),
        ("MATCH (n:user)-[r:lives|follows]->(m:place|user) WHERE n.name = 'Alice' RETURN count(*)", [(3,)]),
        ("MATCH (a:user) WITH collect(a) AS l RETURN size([x IN l WHERE x:user | x.name]), "
         "[x IN l WHERE (x:place|nobody) | x.name]", [(4, [])]),
        ("MATCH (a {name: 'Alice'}) RETURN [(a)-->(b:place|nobody) | b.name] AS l", [(["Home"],)]),
        # EXISTS, COUNT, COLLECT
        ("MATCH (a:user) WHERE EXISTS { (a)-[:lives]->(p) WHERE toLower(p.name) = 'home' } RETURN a.name",
         [("Alice",)]),
        ("MATCH (a:user) RETURN sum(size([(a)-[:lives]->(p) WHERE toLower(p.name) = 'home' | 1])) AS n", [(1,)]),
        ("MATCH (a:user) WHERE EXISTS { (a)-[:lives]->() } RETURN a.name", [("Alice",)]),
        ("MATCH (a:user) WHERE NOT exists { (a)-[:follows]->(b) WHERE b.age >= 33 } RETURN a.name ORDER BY a.name",
         [("Bob",), ("Carol",)]),
        ("MATCH (a:user) RETURN a.name, COUNT { (a)-[:follows]->() } AS n ORDER BY n DESC, a.name",
         [("Alice", 2), ("Bob", 1), ("Dave", 1), ("Carol", 0)]),
        ("MATCH (a:user) WHERE COUNT { (a)<-[:follows]-(b:user) WHERE b.age > 20 } > 1 RETURN a.name", [("Carol",)]),
        ("MATCH (a:user) WHERE EXISTS { MATCH (a)-[:follows]->(b) WITH a, count(b) AS n WHERE n > 1 RETURN a } "
         "RETURN a.name", [("Alice",)]),
        ("MATCH (a:user) WHERE EXISTS { MATCH (a)-[:follows]->(b) WITH count(b) AS n WHERE n = 1 AND a.age = 40 } "
         "RETURN a.name", [("Bob",)]),  # names around it are known behind WITH, too
        ("MATCH (a:user {name: 'Alice'}) RETURN COUNT { MATCH (a)-->(b) RETURN b UNION MATCH (a)--(b) "
         "RETURN b } AS n",
         [(4,)]),
        ("MATCH (a:user) WHERE EXISTS { (a)-->(b) WHERE EXISTS { (b)-->(c) WHERE c.age < a.age } } RETURN a.name",
         [("Alice",)]),
        ("MATCH (a:user) RETURN a.name AS n, COLLECT { MATCH (a)-[:follows]->(b) RETURN b.name ORDER BY "
         "b.name DESC } "
         "AS l ORDER BY n LIMIT 2", [("Alice", ["Carol", "Bob"]), ("Bob", ["Carol"])]),
        ("MATCH (a:user) WITH a.age AS age, sum(COUNT { (a)-[:follows]->() }) AS n RETURN age, n ORDER BY age",
         [(27, 1), (33, 2), (40, 1)]),
        ("MATCH (a:user) RETURN a, COUNT { MATCH (a)-->(b) RETURN count(*) } AS n, count(*) AS m ORDER "
         "BY n + m LIMIT 0",
         []),
        ("MATCH (a:user) RETURN CASE WHEN EXISTS { (a)-[:lives]->() } THEN 'home' ELSE 'none' END AS w, "
         "count(*) AS n "
         "ORDER BY w", [("home", 1), ("none", 3)]),
        ("RETURN EXISTS { (:nobody) } AS no, EXISTS { p = (:user)-->() } AS yes, COUNT { (:user), (:place) } AS n",
         [(False, True, 4)]),
        ("WITH {a: 1} AS count RETURN count {.a, b: 2} AS m", [({"a": 1, "b": 2},)]),  # no subquery
        # map projections
        ("MATCH (a:user {name: 'Bob'}) RETURN a {.name, .nick} AS m", [({"name": "Bob", "nick": None},)]),
        ("MATCH (a:user {name: 'Bob'}) RETURN a {.*, age: a.age + 1} AS m",
         [({"name": "Bob", "active": True, "age": 41},)]),
        ("MATCH (a:user {name: 'Bob'}) WITH a, 7 AS x RETURN a {x, y: [x], .`name`} AS m",
         [({"x": 7, "y": [7], "name": "Bob"},)]),
        ("MATCH (a:user {name: 'Alice'}) RETURN collect(a {.age}), (a {.age}), a "
         "{}", [([{"age": 33}], {"age": 33}, {})]),
        ("MATCH (a:user {name: 'Alice'})-[:follows]->(b) WITH a, b ORDER BY b.name RETURN a {.name, f: "
         "collect(b {.name})} "
         "AS m", [({"name": "Alice", "f": [{"name": "Bob"}, {"name": "Carol"}]},)]),
        ("OPTIONAL MATCH (a:nobody) RETURN a {.*} AS m", [(None,)]),
        ("WITH {a: 1, b: 2} AS m RETURN m {.b, .c, d: m.a} AS m", [({"b": 2, "c": None, "d": 1},)]),
        ("MATCH (n {name: 'Bob'}) WITH n RETURN [x IN [n] | x {.name}] AS l", [([{"name": "Bob"}],)]),
        # CALL { }
        ("MATCH (a:user) CALL { WITH a MATCH (a)-[:follows]->(b) RETURN count(b) AS n } RETURN a.name, n "
         "ORDER BY a.name",
         [("Alice", 2), ("Bob", 1), ("Carol", 0), ("Dave", 1)]),
        ("MATCH (a:user) CALL (a) { MATCH (a)-[:follows]->(b) RETURN b ORDER BY b.name LIMIT 1 } "
         "RETURN a.name, b.name ORDER BY a.name", [("Alice", "Bob"), ("Bob", "Carol"), ("Dave", "Alice")]),
        ("CALL { MATCH (a:user) RETURN a.name AS x UNION MATCH (a:place) RETURN a.name AS x } RETURN "
         "count(x)", [(5,)]),
        ("UNWIND [1, 2] AS x CALL { WITH x RETURN x * 10 AS y UNION ALL WITH x RETURN x * 100 AS y } RETURN x, y",
         [(1, 10), (1, 100), (2, 20), (2, 200)]),
        ("UNWIND [1, 2] AS x CALL (*) { WITH 1 AS one RETURN x + one AS y } RETURN y", [(2,), (3,)]),
        ("UNWIND [1, 2] AS x CALL () { RETURN 5 AS y } RETURN x + y AS z", [(6,), (7,)]),
        ("UNWIND [1, 2] AS x CALL { MATCH (x:place) RETURN x.name AS y } RETURN x, y", [(1, "Home"), (2, "Home")]),
        ("CALL { MATCH p = (:user)-[:lives]->() RETURN p } RETURN length(p)", [(1,)]),
        # what names stand for inside is forgotten outside
        ("MATCH (a {name: 'Alice'}) RETURN [p = (a)-[:lives]->() | length(p)] AS l, [p IN [{x: 1}] | p.x] AS m",
         [([1], [1])]),
        ("MATCH p = (a)-[:lives]->() RETURN [p IN [{x: 1}] | p.x] AS m", [([1],)]),
    ],
)  # fmt: skip
def test_what_is_asked_is_answered(queries: Queries, text: str, expected: list[tuple[Any, ...]]) -> None:
    assert rows(queries, text) == expected
    beside = Queries(people(), ask=lambda function, *given: function(*given))  # all is found beforehand
    assert rows(beside, text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("MATCH (a) WHERE EXISTS { MATCH (a)-->(b) WITH b AS a } RETURN a", "stands for something around"),
        ("MATCH (a) WHERE EXISTS { (a)-->(b) } RETURN b", "b is not defined"),
        ("MATCH (a) WHERE (a)-->(b) RETURN a", "EXISTS"),
        ("RETURN COLLECT { MATCH (a)-->(b) RETURN a, b } AS l", "one column"),
        ("RETURN COLLECT { MATCH (a)-->(b) } AS l", "one column"),
        ("MATCH (a) RETURN count(*) + COUNT { (b) WHERE a.x = b.x } AS n", "column of its own"),
        ("MATCH (a) RETURN count(*) + COUNT { (a)-->(b) } AS n", "column of its own"),
        ("MATCH (a) RETURN count(*) + size([(a)-->(b) | 1]) AS n", "column of its own"),
        ("MATCH (a) CALL { MATCH (a) RETURN a } RETURN a", "has a meaning already"),
        ("MATCH (a) CALL { RETURN a.x AS y } RETURN y", "a is not defined"),
        ("MATCH (a) CALL { WITH a, 1 AS b RETURN b } RETURN b", "a is not defined"),
        ("MATCH (a) CALL (b) { RETURN 1 AS c } RETURN c", "b is not defined"),
        ("MATCH (a) CALL { WITH a RETURN a.x } RETURN 1", "name by AS"),
        ("MATCH (a) CALL { WITH a MATCH (a)-->(b) } RETURN 1", "ends with RETURN"),
        ("CALL { RETURN 1 AS x UNION RETURN 2 AS y } RETURN x", "same names"),
        ("CALL { CREATE (n) } RETURN 1", "CREATE is not supported"),
        ("WITH 1 AS x RETURN x {.a}", "map projection"),
        ("MATCH (a) RETURN a {b}", "b is not defined"),
        ("WITH 1 AS x RETURN EXISTS { WITH 2 AS y RETURN z }", "z is not defined"),
    ],
)
def test_what_is_not_understood_is_told(queries: Queries, text: str, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        rows(queries, text)


@pytest.mark.parametrize(
    "text",
    [
        "RETURN COUNT { (a), (b), (c), (d), (e), (f), (g), (h), (i) } AS n",
        "MATCH (a) WHERE EXISTS { (b), (c), (d), (e), (f), (g) WHERE b.age + g.age = -1 } RETURN a",
        "CALL { UNWIND range(1, 4000) AS a UNWIND range(1, 4000) AS b RETURN a, b } RETURN count(*)",
        "UNWIND range(1, 4000) AS a CALL () { UNWIND range(1, 4000) AS b RETURN b } RETURN count(*)",
        "RETURN size(COLLECT { UNWIND range(1, 400000) AS b RETURN b }) AS n",
    ],
)
def test_subqueries_are_within_the_budget(queries: Queries, text: str) -> None:
    with pytest.raises(QueryLimit) as caught:
        queries.run(text, {}, QueryBudget(seconds=None, memory=None, steps=100_000))
    assert caught.value.what == "steps"


def test_a_subquery_begins_at_the_node_that_is_known() -> None:
    """Not at all nodes with a value in a range: a thousand times a thousand."""
    replica = Replica(bytes(32))
    for number in range(1000):
        replica.put(f"n/{number}", "v", number)
        replica.node(f"n/{number}").link("to", f"n/{(number * 7 + 1) % 1000}")
    found = Queries(replica).run(
        "MATCH (a:n) WHERE EXISTS { (a)-[:to]->(b) WHERE b.v >= a.v } RETURN count(*) AS n",
        {},
        QueryBudget(seconds=None, memory=None, steps=40_000),
    )
    assert found == [{"n": sum((number * 7 + 1) % 1000 >= number for number in range(1000))}]


@given(st.integers(0, 1 << 32))
def test_random_graphs(seed: int) -> None:
    """EXISTS, COUNT, COLLECT and CALL against loops over the links."""
    rng = random.Random(seed)
    names = [f"{rng.choice('abc')}/{number}" for number in range(6)]
    links = sorted({(rng.choice(names), rng.choice(names)) for _ in range(rng.randrange(1, 12))})
    replica = Replica(bytes(32))
    value = {name: rng.randrange(3) for name in names}
    for name in names:
        replica.put(name, "v", value[name])
    for soul, target in links:
        replica.node(soul).link("to", target)
    queries = Queries(replica)
    after = {name: [target for soul, target in links if soul == name] for name in names}

    kinds = rng.sample("abc", 2)
    found = rows(queries, f"MATCH (n:{kinds[0]}|{kinds[1]}) RETURN id(n) ORDER BY id(n)")
    assert found == sorted((name,) for name in names if name[0] in kinds)
    inner = "(n)-->(m) WHERE m.v >= n.v"
    counts = {name: sum(value[other] >= value[name] for other in after[name]) for name in names}
    assert dict(rows(queries, f"MATCH (n) RETURN id(n), COUNT {{ {inner} }}")) == counts
    there = rows(queries, f"MATCH (n) WHERE EXISTS {{ MATCH {inner} RETURN 1 }} RETURN id(n)")
    assert sorted(there) == sorted((name,) for name in names if counts[name])
    lists = rows(queries, "MATCH (n) RETURN id(n), COLLECT { MATCH (n)-->(m) RETURN id(m) ORDER BY id(m) }")
    assert dict(lists) == after
    called = f"MATCH (n) CALL {{ WITH n OPTIONAL MATCH {inner} RETURN sum(m.v) AS s }} RETURN id(n), s"
    sums = {name: sum(value[m] for m in after[name] if value[m] >= value[name]) for name in names}
    assert dict(rows(queries, called)) == sums


def test_words_of_the_language_name_things(queries: Queries) -> None:
    for word in WORDS:
        text = (
            f"MATCH (n:{word}|{word} {{{word}: 1}})-[:{word}]->(:user) "
            f"RETURN n.{word}, n {{.{word}, {word}: 1}}, {{{word}: 2}}.{word}, ${word}, n:{word}"
        )
        assert rows(queries, text, **{word: 1}) == []
