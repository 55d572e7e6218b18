"""Declared indexes: they are used, stay in step with the graph, and never change an answer."""

from __future__ import annotations

import asyncio
import random
from datetime import date, datetime
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB
from hypothesis import given
from hypothesis import strategies as st

from dtp.crdt import DateTime, Duration, LocalTime, Replica, Time
from dtp.graph import Graph, Rule, Rules, Schema
from dtp.graph.query.errors import QueryError
from dtp.graph.query.run import Queries

TEXTS = ("", "an old oak", "Old Norse sagas", "a saga of oaks", "der Größte", 'with "quotes" inside')


def asked(queries: Queries, text: str, **parameters: Any) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in queries.run(text, parameters)]


def library() -> Replica:
    replica = Replica(bytes(32))
    for number in range(200):
        node = replica.node(f"book/{number}")
        node["year"] = 1800 + number
        node["title"] = f"{TEXTS[number % len(TEXTS)]} {number}"
        replica.put(f"film/{number}", "year", 1900 + number % 100)
    return replica


def test_ranges_are_looked_up_in_what_was_declared() -> None:
    queries = Queries(library())
    text = "MATCH (b:book) WHERE b.year >= 1990 AND b.year < 1993 RETURN b.year ORDER BY b.year"
    before = asked(queries, text)
    assert before == [(1990,), (1991,), (1992,)]
    assert "range_1" not in queries.explain_query(text, {})
    assert queries.index.declare_index("book", "year", full_text=False) == "book.year"
    queries.index.declare_index("book", "year", full_text=False)
    plan = queries.explain_query(text, {})
    assert "range_1 (kind=? AND key=? AND value>? AND value<?)" in plan
    assert "range_1 (kind=? AND key=? AND value=?)" in queries.explain_query(
        "MATCH (b:book {year: $y}) RETURN b", {"y": 1990}
    ).replace("COVERING ", "")
    assert "range_1" not in queries.explain_query("MATCH (b:film {year: 1990}) RETURN b", {})
    assert asked(queries, text) == before


def test_texts_are_looked_up_by_words_and_by_parts() -> None:
    queries = Queries(library())
    contains = "MATCH (b:book) WHERE b.title CONTAINS $part RETURN count(*)"
    before = [asked(queries, contains, part=part) for part in ("oak", "Old", "öß", '"quo', "x\0y", "")]
    name = queries.index.declare_index("book", "title", full_text=True)
    assert [
        asked(queries, contains, part=part) for part in ("oak", "Old", "öß", '"quo', "x\0y", "")
    ] == before
    assert "trigrams_1" in queries.explain_query(contains, {"part": "oak"})
    found = asked(
        queries,
        "CALL db.index.fulltext.queryNodes($index, 'saga*') YIELD node AS b, score WHERE b.year < 1804 "
        "RETURN b.title, score > 0 ORDER BY b.year",
        index=name,
    )
    assert found == [("Old Norse sagas 2", True), ("a saga of oaks 3", True)]
    search = "CALL db.index.fulltext.queryNodes('book.title', $words) YIELD node RETURN count(*)"
    assert asked(queries, search, words="größte") == [(33,)]
    for wrong in ('"', "AND", "a NEAR/"):
        with pytest.raises(QueryError, match="full-text query"):
            asked(queries, search, words=wrong)


def test_indexes_follow_merges() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            other.index("note", "body", full_text=True)
            search = "CALL db.index.fulltext.queryNodes('note.body', 'hello') YIELD node RETURN node"
            assert other.query(search) == []
            one.node("note/1")["body"] = "hello there"
            one.text("note/2", "body").insert(0, "say hello")
            await one.commit()
            await other.receive(await one.frames.read(ALICE.id.key, 1, 9))
            assert [row["node"].soul for row in other.query(search)] == ["note/1", "note/2"]
            other.node("note/1")["body"] = "bye"
            assert [row["node"].soul for row in other.query(search)] == ["note/2"]
            other.text("note/2", "body").delete(0, 4)
            assert [row["node"].soul for row in other.query(search)] == ["note/2"]
            other.text("note/2", "body").delete(0, 5)
            assert other.query(search) == []
            with pytest.raises(QueryError, match="kind"):
                other.index("", "body")

    asyncio.run(main())


VALUES: list[Any] = [0, 1, -5, 1.0, 2.5, float("inf"), float("nan"), True, False, "", "a", "b", "abc", "Z\U0010ffff",
                     1 << 70, -(1 << 70), 1 << 2000, b"\xc3", [1], {"a": 1}, None,
                     date(2026, 1, 1), date(1969, 12, 31), datetime(2026, 1, 1), DateTime(0, 0), DateTime(0, 3600),
                     DateTime(-1, 3600), Time(0, 0), Time(1, 3600), LocalTime(5), Duration(1),
                     Duration(0, 30)]  # fmt: skip


@given(st.integers(0, 1 << 32))
def test_no_answer_depends_on_an_index(seed: int) -> None:
    rng = random.Random(seed)
    replica = Replica(bytes(32))
    for number in range(12):
        replica.put(f"{rng.choice('xy')}/{number}", "v", rng.choice(VALUES))
    with_index, without = Queries(replica), Queries(replica)
    with_index.index.declare_index("x", "v", full_text=False)
    with_index.index.declare_index("x", "v", full_text=True)
    for operator in ("=", "<", "<=", ">", ">=", "STARTS WITH", "CONTAINS"):
        value = rng.choice(VALUES)
        narrowed = f"MATCH (n:x) WHERE n.v {operator} $v RETURN id(n) AS i ORDER BY i"
        plainly = f"MATCH (n) WITH n WHERE n:x AND n.v {operator} $v RETURN id(n) AS i ORDER BY i"
        expected = asked(without, plainly, v=value)
        assert asked(with_index, narrowed, v=value) == asked(without, narrowed, v=value) == expected, (
            operator,
            value,
        )


def test_kinds_under_rules_are_labels_everywhere() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            votes = graph.access.allow(
                Rules("vote", [Rule(key="{author}", value=Schema(one_of=("yes", "no")))])
            )
            graph.node(votes.soul("lunch"))[str(ALICE.id)] = "yes"
            await graph.commit()
            graph.index("vote", str(ALICE.id))
            graph.index("vote", str(ALICE.id), full_text=True)
            key = f"v.`{ALICE.id}`"
            for text in (
                f"MATCH (v:vote) WHERE {key} = 'yes' RETURN labels(v) AS l",
                f"MATCH (v) WHERE v:vote AND {key} CONTAINS 'yes' RETURN labels(v) AS l",
                f"MATCH (v) WITH v WHERE v:vote AND {key} STARTS WITH 'y' RETURN labels(v) AS l",
                f"CALL db.index.fulltext.queryNodes('vote.{ALICE.id}', 'yes') YIELD node RETURN labels(node) AS l",
            ):
                assert graph.query(text) == [{"l": ["vote"]}], text

    asyncio.run(main())
