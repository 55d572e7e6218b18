"""The index has as much of a graph as was asked for, and no answer depends on how much that is."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.crdt import Change, Link, Replica
from dtp.graph.query.errors import QueryError
from dtp.graph.query.lookup.columns import kind_of, prefixes_of
from dtp.graph.query.lookup.pattern import Pattern, Sought
from dtp.graph.query.run import Queries

AUTHOR = bytes(32)
SOULS = [
    *(f"x/{n}" for n in range(6)),
    *(f"y/{n}" for n in range(6)),
    "%x:hash/1",
    "alone",
    "x",
    "~someone/x/1",
]
VALUES: list[Any] = [
    0,
    1,
    1.0,
    -3,
    True,
    "",
    "a",
    "ab",
    b"a",
    [1],
    None,
    1 << 70,
    -(1 << 64),
    9.3e18,
    float("nan"),
]
KEYS = ("k", "l", "to", "by")
QUERIES = (
    "MATCH (n:x) RETURN id(n)",
    "MATCH (n:y) WHERE n.k = $v RETURN id(n)",
    "MATCH (n {l: $v}) RETURN id(n), n.k",
    "MATCH (n:x) WHERE n.k >= $v AND n.k < $w RETURN id(n), labels(n)",
    "MATCH (n) WHERE n.k STARTS WITH 'a' RETURN id(n)",
    "MATCH (n) WHERE id(n) = $soul RETURN id(n), n.k",
    "MATCH (n:x {k: $v})-[:to]->(m) RETURN id(n), id(m), m.k",
    "MATCH (n:x)<-[r:to|by]-(m:y) WHERE n.k = $v RETURN id(n), type(r), id(m)",
    "MATCH (n)-->(m)<-[:by]-(o) WHERE id(n) = $soul RETURN id(n), id(m), id(o)",
    "MATCH (n {k: $v})-[:to*1..3]->(m:x) RETURN id(n), id(m)",
    "MATCH (m:y)<-[:to*0..2]-(n) WHERE id(n) = $soul RETURN id(n), id(m)",
    "MATCH (n {k: $v})--(m) OPTIONAL MATCH (m)-[:by]-(o:x) RETURN id(n), id(m), id(o)",
    "MATCH (n:x {k: $v}) MATCH (n)-[r]->(m) WITH r MATCH (a)-[r]->(b) RETURN id(a), id(b)",
    "MATCH (n:x) WHERE n.k = $v AND (n)-[:to]->(:y) RETURN id(n), [(n)-->(m) | id(m)] AS there",
    "MATCH (n:x {k: $v}), (m {l: $w}) RETURN id(n), id(m)",
    "MATCH (n:x {k: $v}) WITH n AS m MATCH (m)-->(o {k: m.k}) RETURN id(m), id(o)",
    "MATCH (n:x {k: $v}) UNWIND [(n)-->(m) | m] AS m MATCH (m)-->(o) RETURN id(m), id(o)",
    "MATCH p = (n:x {k: $v})-[*1..2]->(:y) UNWIND nodes(p) AS m MATCH (m)<--(o) RETURN id(m), id(o)",
    "MATCH (n:x|y) WHERE n.k = $v RETURN id(n)",
    "MATCH p = shortestPath((n:x {k: $v})-[*..4]-(m:y)) RETURN id(n), id(m), length(p)",
    "MATCH p = allShortestPaths((n:x {k: $v})-[:to*]->(m)) UNWIND nodes(p) AS o MATCH (o)<--(q) RETURN id(o), id(q)",
    "MATCH (n:x) WHERE EXISTS { MATCH (n)-->(m) WHERE m.k = $v } RETURN id(n), COUNT { (n)<--() } AS c",
    "MATCH (n:x {k: $v}) CALL { WITH n MATCH (n)-->(m) RETURN m } MATCH (m)--(o) RETURN id(m), id(o)",
    "MATCH (n) RETURN count(n)",
    "UNWIND $list AS v MATCH (n:x {k: v}) RETURN id(n), v",
    "MATCH p = (n {k: $v})-[*1..2]-(m) WHERE id(m) <> id(n) RETURN [one IN nodes(p) | id(one)]",
)  # fmt: skip


def told(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(repr(tuple(row.values())) for row in rows)


@given(st.integers(0, 1 << 32))
def test_no_answer_depends_on_what_was_found_before(seed: int) -> None:
    rng = random.Random(seed)
    replica = Replica(AUTHOR)
    souls = [soul for soul in SOULS if soul[0] not in "~%"]
    for _ in range(rng.randrange(60)):
        change_at(replica, rng, souls)
    lasting, beside = Queries(replica), Queries(replica, ask=lambda function, *given: function(*given))
    for _ in range(4):
        given_ = {"v": rng.choice(VALUES), "w": rng.choice(VALUES), "soul": rng.choice([*SOULS, "x/ghost"])}
        given_["list"] = rng.sample(VALUES, 3)
        text = rng.choice(QUERIES)
        asked = {name: value for name, value in given_.items() if f"${name}" in text}
        whole = Queries(replica)
        list(whole.index.select_rows("SELECT 1", [], lambda: Pattern([Sought()])))
        expected = told(whole.run(text, asked))
        assert told(Queries(replica).run(text, asked)) == expected, (text, asked)
        assert told(lasting.run(text, asked)) == expected, (text, asked)
        assert told(beside.run(text, asked)) == expected, (text, asked)
        for _ in range(rng.randrange(8)):
            soul = change_at(replica, rng, souls)
            for queries in (lasting, beside):
                queries.index.on_changed([Change(soul, "", "register", AUTHOR, 0)])


def change_at(replica: Replica, rng: random.Random, souls: list[str]) -> str:
    soul, what = rng.choice(souls), rng.randrange(10)
    link = Link(rng.choice([*souls, "y/ghost", "x/ghost"]))
    key = rng.choice(("to", "by"))
    if what < 4:
        replica.put(soul, rng.choice("kl"), rng.choice(VALUES))
    elif what < 6:
        replica.put(soul, key, link)
    elif what < 8:
        replica.set(soul, key).add(link)
    elif what == 8:
        replica.delete(soul, rng.choice(KEYS))
    else:
        replica.set(soul, key).discard(link)
    return soul


def numbered(count: int) -> Replica:
    replica = Replica(AUTHOR)
    replica.put_many((f"n/{number}", "k", number % 10) for number in range(count))
    return replica


def count_of(queries: Queries, value: int) -> int:
    return int(queries.run("MATCH (n:n {k: $v}) RETURN count(n) AS n", {"v": value})[0]["n"])


def test_a_state_that_was_built_again_has_other_numbers() -> None:
    replica = numbered(100)
    queries = Queries(replica)
    assert count_of(queries, 3) == 10
    fresh = Replica(AUTHOR)
    fresh.put("a/first", "x", 1)  # so that all others have other numbers
    fresh.put_many((f"n/{number}", "k", number % 5) for number in range(100))
    replica.replace_by(fresh)
    queries.index.on_changed(
        [Change(f"n/{n}", "k", "register", AUTHOR, 0) for n in range(100) if n % 10 >= 5]
    )
    assert [count_of(queries, value) for value in (3, 4, 7)] == [20, 20, 0]


def test_who_adds_often_has_everything_at_last() -> None:
    """Who asks for one node after the other reads the whole graph once that is cheaper; the rows are right."""
    replica = numbered(6000)
    queries = Queries(replica)
    text = (
        "UNWIND range(0, 5999) AS i MATCH (n) WHERE id(n) = 'n/' + toString(i) AND n.k = 3 RETURN id(n) AS id"
    )
    expected = [{"id": f"n/{number}"} for number in range(6000) if number % 10 == 3]
    assert queries.run(text, {}) == expected
    assert queries.run(text, {}) == expected
    replica.put("n/4", "k", 3)
    queries.index.on_changed([Change("n/4", "k", "register", AUTHOR, 0)])
    assert len(queries.run(text, {})) == len(expected) + 1


def test_prefixes_are_of_labels() -> None:
    for soul in (
        "",
        "x",
        "x/1",
        "x/",
        "/x",
        "%x:hash/path",
        "%x/1",
        "%x",
        "~me/x/1",
        "xy/1",
        "%xy:h/1",
        "%%/1",
    ):
        assert any(soul.encode().startswith(prefix) for prefix in prefixes_of(kind_of(soul))), soul


def test_what_cannot_be_a_name_is_no_node() -> None:
    for queries in (
        Queries(numbered(3)),
        Queries(numbered(3), ask=lambda function, *given: function(*given)),
    ):
        for text in ("MATCH (n:n {k: $v}) RETURN n", "MATCH (n) WHERE id(n) = $v RETURN n"):
            with pytest.raises(QueryError):
                queries.run(text, {"v": "\ud800"})
