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
from graph_people import called, people, rows
from hypothesis import given
from hypothesis import strategies as st

from dtp.crdt import GraphValueError, Link, Replica
from dtp.crdt.permission.owners import owned_soul
from dtp.graph import Graph
from dtp.graph.query.errors import QueryError
from dtp.graph.query.run import Queries
from dtp.graph.query.values.semantics import Path, Relation


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
        ("MATCH (a)-[:follows]->(b) MATCH (a)-[:follows]->(c) RETURN count(*)", [(6,)]),  # but in two MATCHes
        ("MATCH (a:user) WITH a, a.age AS age ORDER BY age DESC LIMIT 2 MATCH (a)-[:follows]->(b) "
         "RETURN a.name, b.name ORDER BY a.name, b.name", [("Alice", "Bob"), ("Alice", "Carol"), ("Bob", "Carol")]),
        ("MATCH (a:user) WITH a.age AS age, count(*) AS n WHERE n > 1 RETURN age, n", [(27, 2)]),
        ("MATCH (a {name: 'Bob'}) RETURN a.age AS x UNION MATCH (a:user) RETURN a.age AS x ORDER BY x",
         [(40,), (27,), (33,)]),
        ("RETURN 1 AS x UNION ALL RETURN 1.0 AS x", [(1,), (1.0,)]),
        ("UNWIND [3, null, [1]] AS x RETURN x", [(3,), (None,), ([1],)]),
        ("MATCH (a:user) OPTIONAL MATCH (a)-[:lives]->(p) MATCH (a)-[:follows]->(b) RETURN count(b), count(p)",
         [(4, 2)]),
        ("OPTIONAL MATCH (a:nobody) RETURN a", [(None,)]),
        ("MATCH (a {name: 'Dave'})-[r:follows*]->(b {name: 'Carol'}) RETURN size(r) AS n ORDER BY n", [(2,), (3,)]),
        ("MATCH p = (a {name: 'Dave'})-[:follows*2]->(b) RETURN [n IN nodes(p) | n.name] AS names, length(p) "
         "ORDER BY names", [(["Dave", "Alice", "Bob"], 2), (["Dave", "Alice", "Carol"], 2)]),
        ("MATCH (a:user) WHERE NOT (a)-[:follows]->() RETURN a.name", [("Carol",)]),
        ("MATCH (a:user) RETURN a.name AS n, [(a)-[:follows]->(b) | b.name] AS all ORDER BY n LIMIT 1",
         [("Alice", ["Bob", "Carol"])]),
        ("MATCH (a:user) WHERE any(t IN a.tags WHERE t = 'a') RETURN a.name, a.tags[1].b, a.tags[5]",
         [("Alice", None, None)]),
        ("RETURN [1, 2, 3][0..2], all(x IN [1] WHERE x > 0), none(x IN [] WHERE x), single(x IN [1, 1] WHERE x = 1)",
         [([1, 2], True, True, False)]),
        ("RETURN reduce(s = 0, x IN range(1, 4) | s + x), CASE 2 WHEN 1 THEN 'a' WHEN 2 THEN 'b' END, {a: [1]}.a[0]",
         [(10, "b", 1)]),
        ("RETURN 1 < 2 <= 2, 1 = '1', null = null, [1, null] = [1, null], true XOR null, 'a' < 1, 2 IN [1, null]",
         [(True, False, None, None, None, None, None)]),
        ("RETURN split('a,b', ','), substring('abc', 1), left('abc', 2), reverse('ab'), head([]), toBoolean('x')",
         [(["a", "b"], "bc", "ab", "ba", None, None)]),
        ("RETURN -7 / 2, -7 % 3, 1.0 / 0, toString(1.0), 'a' + 1.5, [1] + 2, 0x1F",
         [(-3, -1, float("inf"), "1.0", "a1.5", [1, 2], 31)]),
        ("UNWIND [1, 'a', true, null, [1], 0.5] AS x RETURN x ORDER BY x",
         [([1],), ("a",), (True,), (0.5,), (1,), (None,)]),
        ("RETURN toInteger('1_000'), toFloat('1_0'), toInteger('12'), right('abc', 2)", [(None, None, 12, "bc")]),
        ("RETURN toString(asin(2)), toString(sin(1.0 / 0)), cot(0), toString(cot(1.0 / 0))",
         [("NaN", "NaN", float("inf"), "NaN")]),
        ("UNWIND [1.0 / 0, -1.0 / 0] AS x RETURN toString(avg(x)), toString(stDev(x))", [("NaN", "NaN")]),
        ("RETURN toInteger('\u0661\u0662'), toFloat('\uff11.5'), toInteger('12 '), toString(exp(1000))",
         [(None, None, 12, "Infinity")]),
        ("UNWIND [1e308, 1.5e308] AS x RETURN avg(x), stDevP(x)", [(1.25e308, 2.5e307)]),  # the sum is no float
        ("UNWIND [1e308, 1.5e308, 1.0 / 0] AS x RETURN toString(avg(x)), toString(stDev(x))", [("Infinity", "NaN")]),
        ("UNWIND [1, 2, 3, 4] AS x RETURN stDev(x) > 1.29, percentileDisc(x, 0.5), percentileCont(x, 0.5)",
         [(True, 2, 2.5)]),
        ("MATCH (u {active: true}) RETURN u.name ORDER BY u.name", [("Alice",), ("Bob",)]),  # true is not 1
        ("MATCH (u {active: 1}) RETURN count(*)", [(0,)]),
        ("MATCH (u) WHERE u.big = $big RETURN u.name", [("Alice",)]),
        ("MATCH (u) WHERE u.big > 5 RETURN u.name", [("Alice",)]),
        ("MATCH (u {tags: ['a', {b: null}]}) RETURN count(*)", [(0,)]),  # null is not equal to null
        ("MATCH (u) WHERE u.age > 'a' OR u.name > 1 RETURN count(*)", [(0,)]),
        ("MATCH (u) WHERE u:place RETURN u.name", [("Home",)]),
    ],
)  # fmt: skip
def test_what_is_asked_is_answered(queries: Queries, text: str, expected: list[tuple[Any, ...]]) -> None:
    assert rows(queries, text, **({"big": 1 << 80} if "$big" in text else {})) == expected


@pytest.mark.parametrize("ask", [None, called], ids=["here", "beside"])
def test_owned_nodes_have_labels(ask: Any) -> None:
    """What follows the owner; its own node has none, and the graph's book-keeping isn't found at all."""
    one = Replica(ALICE.id.key)
    mine = owned_soul(ALICE.id.key)
    one.put_many((f"{mine}/post/{number}", "n", number) for number in range(3))
    one.put("post/3", "n", 3)
    one.put(f"{mine}/.seen", "n", 4)
    one.put(mine, "n", 5)
    one.put("user/a", "wrote", Link(f"{mine}/post/1"))
    queries = Queries(one, ask=ask)
    assert rows(queries, "MATCH (p:post) RETURN p.n ORDER BY p.n") == [(0,), (1,), (2,), (3,)]
    assert rows(queries, "MATCH (p:post {n: 2}) RETURN labels(p), id(p)") == [(["post"], f"{mine}/post/2")]
    assert rows(queries, "MATCH (:user)-[:wrote]->(p:post) RETURN p.n") == [(1,)]
    assert rows(queries, "MATCH (x) WHERE x.n > 3 RETURN labels(x), x.n ORDER BY x.n") == [([], 5)]
    assert rows(queries, f"MATCH (x:`{mine}`) RETURN x") == []


def test_names_of_the_query_cant_become_sql(queries: Queries) -> None:
    hostile = "a'b{0}{}\\"
    replica = people()
    replica.put(f"{hostile}/1", hostile, 7)
    replica.node(f"{hostile}/1").link(hostile, "user/bob")
    asked = (
        f"MATCH (a:`{hostile}` {{`{hostile}`: 7}})-[:`{hostile}`*1..2]->(b) RETURN b.name, a.`{hostile}` AS v"
    )
    assert rows(Queries(replica), asked) == [("Bob", 7)]
    with pytest.raises(QueryError, match="NUL"):
        rows(queries, "MATCH (a:`\0`) RETURN a")


def test_paths_come_as_such(queries: Queries) -> None:
    ((path,),) = rows(queries, "MATCH p = (a:user)-[:lives]->() RETURN p")
    assert isinstance(path, Path)
    assert [node.soul for node in path.nodes] == ["user/alice", "place/1"]
    assert path.relationships == (Relation("user/alice", "lives", "place/1"),)


def test_a_path_without_an_end_is_told_when_it_is_too_long() -> None:
    replica = Replica(bytes(32))
    for number in range(40):
        replica.node(f"n/{number:02}").link("to", f"n/{number + 1:02}")
    queries = Queries(replica)
    assert rows(queries, "MATCH (a)-[:to*..30]->(b) WHERE id(a) = 'n/00' RETURN count(*)") == [(30,)]
    with pytest.raises(QueryError, match="more than 32"):
        rows(queries, "MATCH (a)-[:to*]->(b) WHERE id(a) = 'n/00' RETURN count(*)")


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
        ("", "ends with RETURN"),
        ("MATCH (u)", "ends with RETURN"),
        ("MATCH (u) RETURN", "line 1"),
        ("MATCH (u)\nRETURN v", "v is not defined here"),
        ("CREATE (u)", "line 1, column 1"),
        ("MATCH (u) RETURN v.name", "v is not defined here"),
        ("MATCH (a)-[a]->(b) RETURN a", "has a meaning already"),
        ("MATCH (a)-[r]->(b) MATCH (r) RETURN a", "is a relationship"),
        ("MATCH (a)-[*1..99]->(b) RETURN a", "at most 32"),
        ("MATCH (a) WHERE count(a) > 1 RETURN a", "belong into RETURN"),
        ("MATCH (a) RETURN a.x + count(*)", "column of its own"),
        ("MATCH (a) RETURN [x IN [1] | count(x)]", "each item of a list"),
        ("MATCH (a) RETURN (a)-->()", "a pattern is a condition"),
        ("MATCH (a) WHERE (a)-->(b) RETURN a", "brings in no names"),
        ("MATCH (a) WHERE a RETURN a", "a condition is true or false"),
        ("MATCH (a) WITH a.x RETURN 1", "name by AS"),
        ("MATCH (a) WITH a.x AS x RETURN a", "a is not defined here"),
        ("RETURN 1 AS a UNION RETURN 2 AS b", "same names"),
        ("RETURN 1 AS a UNION RETURN 2 AS a UNION ALL RETURN 3 AS a", "can't be mixed"),
        ("RETURN 1 / 0", "divided by 0"),
        ("RETURN 1 + true", "takes numbers"),
        ("RETURN 9223372036854775808", "above 64 bits"),
        ("RETURN '\\ud800'", "surrogate"),
        ("RETURN 'a' =~ '('", "not a regular expression"),
        ("MATCH p = (a)-->(b) RETURN p.x", "a path has no properties"),
        ("UNWIND [1, 'x'] AS x RETURN sum(x)", "takes numbers"),
        ("RETURN range(1, 9, 0)", "isn't 0"),
        ("CALL db.labels() YIELD label RETURN label", "no procedure"),
        ("CALL db.index.fulltext.queryNodes('a.b', 'c') YIELD node RETURN node", "no full-text index"),
        ("MATCH (a) RETURN sum(count(a))", "not into another aggregate"),
        ("MATCH (a) RETURN nothing(a)", "is not known"),
        ("MATCH (a) RETURN type(a)", "takes no node"),
        ("MATCH (a) RETURN a.x, a.x", "two columns"),
        ("MATCH (a) RETURN a LIMIT -1", "0 or more"),
        ("MATCH (a) RETURN 'a\\qb'", "unknown escape"),
        ("MATCH (a:user)\nRETRUN a", "line 2, column 1"),
        ("MATCH (u:user) RETRUN u.name", "did you mean RETURN"),
        ("CREATE (u:user)", "CREATE is not supported"),
        ("MATCH (u) set u.name = 1", "SET is not supported"),
    ],
)
def test_what_is_not_understood_is_told(queries: Queries, text: str, words: str) -> None:
    with pytest.raises(QueryError, match=words.replace("(", r"\(").replace("$", r"\$")):
        rows(queries, text)


def test_what_is_misspelt_is_not_said_to_be_missing(queries: Queries) -> None:
    with pytest.raises(QueryError) as raised:
        rows(queries, "MATCH (u:user) RETRUN u.name")
    assert "USE" not in str(raised.value)


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
            await other.receive(await one.frames.read(ALICE.id.key, 1, 1))
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


def test_a_live_query_tells_of_registers_of_its_nodes() -> None:
    """Also of nodes in lists and maps; and not of what is elsewhere."""

    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            graph.node("user/a")["name"] = "A"
            for text in ("MATCH (u:user) RETURN u", "MATCH (u:user) RETURN collect({who: [u]}) AS all"):
                live = graph.live(text)
                assert len((await anext(live)).added) == 1
                graph.node("user/a")["name"] = f"{graph.node('user/a')['name']}+"
                told = await anext(live)
                assert (len(told.added), len(told.removed)) == (1, 1)
                waiting = asyncio.ensure_future(anext(live))
                graph.node("place/1")["name"] = "elsewhere"
                await asyncio.sleep(0)
                assert not waiting.done()
                waiting.cancel()
                await asyncio.wait([waiting])

    asyncio.run(main())


def test_links_lead_to_what_a_query_found() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            graph.node("user/b")["name"] = "B"
            found = graph.query("MATCH (u:user) RETURN u")[0]["u"]
            graph.node("user/a").link("knows", found)
            assert graph.node("user/a").links("knows") == ["user/b"]
            graph.node("user/a").unlink("knows", found)
            assert graph.node("user/a").links("knows") == []
            with pytest.raises(GraphValueError, match="leads to a node"):
                graph.node("user/a").link("knows", 7)  # type: ignore[arg-type]

    asyncio.run(main())


def test_a_live_query_that_is_none_says_so_at_once() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            with pytest.raises(QueryError):
                await anext(graph.live("MATCH u RETURN u"))

    asyncio.run(main())
