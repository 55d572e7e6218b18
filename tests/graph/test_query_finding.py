"""The index has as much of a graph as was asked for, and no answer depends on how much that is."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dtp.crdt import Change, Link, Replica
from dtp.graph.query.pattern import Pattern, Sought
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
        list(whole.index.rows("SELECT 1", [], lambda: Pattern([Sought()])))
        expected = told(whole.run(text, asked))
        assert told(Queries(replica).run(text, asked)) == expected, (text, asked)
        assert told(lasting.run(text, asked)) == expected, (text, asked)
        assert told(beside.run(text, asked)) == expected, (text, asked)
        for _ in range(rng.randrange(8)):
            soul = change_at(replica, rng, souls)
            for queries in (lasting, beside):
                queries.index.note([Change(soul, "", "register", AUTHOR, 0)])


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
