"""Queries beside the event loop: of one time, whatever is written meanwhile; they can be given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB

from dtp.crdt import Change, Link, Replica
from dtp.graph import Graph, GraphError, QueryBudget, QueryError, QueryLimit
from dtp.graph.query.run import Queries

ENDLESS = "MATCH (a), (b), (c), (d), (e), (f) WHERE a.v + b.v = -1 RETURN a"
UNLIMITED = QueryBudget(None, None, None, None)


def run(main: Callable[[Graph], Coroutine[Any, Any, None]]) -> None:
    async def opened() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            await main(graph)

    asyncio.run(opened())


async def fill(graph: Graph, count: int = 100) -> None:
    for number in range(count):
        graph.node(f"account/{number}")["v"] = 100
    await graph.commit()


def test_a_result_is_of_one_time() -> None:
    """Money moves at each turn of the loop; the sum is the same whenever it is taken."""

    async def main(graph: Graph) -> None:
        await fill(graph)

        async def move(count: int) -> None:
            for number in range(count):
                giver, taker = (graph.node(f"account/{number * step % 100}") for step in (1, 7))
                giver["v"] = giver["v"] - 1
                taker["v"] = taker["v"] + 1
                graph.node(f"account/new{number}").update({"v": 0, "to": Link(giver.soul)})
                await asyncio.sleep(0)

        for text in (
            "MATCH (a:account) RETURN sum(a.v) AS total",
            "MATCH (a:account) WITH a.v AS v, a AS one RETURN sum(one.v) AS total",
            "MATCH (a:account) WHERE a.v > -1000 RETURN sum(a.v) AS total",
        ):
            for count in (1, 10, 100):
                moving = asyncio.create_task(move(count))
                assert await graph.query_async(text) == [{"total": 10_000}]
                await moving
                assert graph.query(text) == [{"total": 10_000}]

    run(main)


def test_it_sees_what_was_written_before() -> None:
    async def main(graph: Graph) -> None:
        graph.node("a/1").update({"v": 1, "to": Link("b/1"), "text": "an old oak"})
        graph.private(graph.own("a/secret"), [ALICE.id]).update({"v": "hidden"})
        graph.index("a", "text", full_text=True)
        for _ in range(2):
            assert await graph.query_async("MATCH (a:a)-[:to]->(b) RETURN id(a), id(b)") == [
                {"id(a)": "a/1", "id(b)": "b/1"}
            ]
        found = await graph.query_async("MATCH (a {v: $v}) RETURN a, properties(a) AS p", v=1)
        assert found[0]["a"].to_dict()["v"] == 1
        assert found[0]["p"] == {"v": 1, "text": "an old oak"}
        assert await graph.query_async("MATCH (a {v: 'hidden'}) RETURN count(*) AS n") == [{"n": 1}]
        search = "CALL db.index.fulltext.queryNodes('a.text', 'oak') YIELD node RETURN id(node) AS id"
        assert await graph.query_async(search) == [{"id": "a/1"}]
        graph.node("a/1")["text"] = "a birch"
        graph.node("a/2")["text"] = "oaks, and an oak"
        assert await graph.query_async(search) == [{"id": "a/2"}]
        graph.node("a/2").link("to", "b/2")
        there = "CALL db.index.fulltext.queryNodes('a.text', 'oak') YIELD node MATCH (node)-->(m) RETURN id(m) AS id"
        assert await graph.query_async(there) == [{"id": "b/2"}]

    run(main)


def test_what_others_wrote_is_seen() -> None:
    async def main(graph: Graph) -> None:
        async with await Graph.open("memory:", identity=BOB) as other:
            count = "MATCH (n:n {v: 1}) RETURN count(n) AS n"
            assert await graph.query_async(count) == [{"n": 0}]
            other.node("n/1")["v"] = 1
            await other.commit()
            await graph.receive(await other.frames.read(BOB.id.key, 1, 9))
            assert await graph.query_async(count) == graph.query(count) == [{"n": 1}]

    run(main)


def test_cancelling_ends_it() -> None:
    async def main(graph: Graph) -> None:
        await fill(graph)
        graph.query_budget = UNLIMITED
        endless = asyncio.create_task(graph.query_async(ENDLESS))
        for _ in range(100):  # the loop goes on
            await asyncio.sleep(0)
        endless.cancel()
        with pytest.raises(asyncio.CancelledError):
            await endless
        assert await graph.query_async("MATCH (a:account) RETURN count(a) AS n") == [{"n": 100}]

    run(main)


def test_closing_the_graph_ends_it() -> None:
    async def main() -> None:
        graph = await Graph.open("memory:", identity=ALICE)
        await fill(graph)
        graph.query_budget = UNLIMITED
        endless = [asyncio.create_task(graph.query_async(ENDLESS)) for _ in range(2)]
        for _ in range(100):
            await asyncio.sleep(0)
        await graph.close()
        for one in endless:
            with pytest.raises(GraphError, match="closed"):
                await one
        with pytest.raises(GraphError, match="closed"):
            await graph.query_async("RETURN 1 AS n")

    asyncio.run(main())


def test_errors_and_limits_are_the_same() -> None:
    async def main(graph: Graph) -> None:
        await fill(graph)
        with pytest.raises(QueryError, match="did you mean"):
            await graph.query_async("MATHC (n) RETURN n")
        graph.query_budget = QueryBudget(None, None, 10_000, None)
        with pytest.raises(QueryLimit, match="10,000 steps"):
            await graph.query_async(ENDLESS)
        assert await graph.query_async("RETURN 1 AS n") == [{"n": 1}]

    run(main)


def restless() -> tuple[Replica, Queries]:
    """Queries of a replica in which something changes whenever it is read."""
    replica, turns = Replica(ALICE.id.key), [0]
    for number in range(20):
        replica.put(f"n/{number}", "v", 1)

    def ask(function: Callable[..., Any], *given: Any) -> Any:
        found, soul = function(*given), f"n/{turns[0] % 20}"
        turns[0] += 1
        replica.put(soul, "v", turns[0])
        queries.index.on_changed([Change(soul, "v", "register", ALICE.id.key, 0)])
        return found

    queries = Queries(replica, ask=ask)
    return replica, queries


def test_what_never_rests_is_read_in_one_turn() -> None:
    replica, queries = restless()
    for _ in range(3):
        rows = queries.run("MATCH (n:n) WHERE n.v > 0 RETURN id(n) AS id, n.v AS v", {})
        told = {row["id"]: row["v"] for row in rows}
        now = {f"n/{number}": replica.get(f"n/{number}", "v") for number in range(20)}
        assert len(told) == 20
        assert sum(told[soul] != now[soul] for soul in now) <= 1  # what changed after that turn


def test_an_index_begins_anew_when_too_much_changed() -> None:
    replica = Replica(ALICE.id.key)
    queries = Queries(replica)
    queries.index.declare_index("n", "text", full_text=True)
    search = "CALL db.index.fulltext.queryNodes('n.text', 'oak') YIELD node RETURN id(node) AS id"
    replica.put("n/1", "text", "an oak")
    replica.put("n/2", "text", "an oak")
    queries.index.on_changed([Change(soul, "text", "register", ALICE.id.key, 0) for soul in ("n/1", "n/2")])
    assert [row["id"] for row in queries.run(search, {})] == ["n/1", "n/2"]
    replica.delete("n/1", "text")
    replica.put("n/2", "text", "a birch")
    replica.put("n/60000", "text", "an oak")
    queries.index.on_changed(Change(f"n/{n}", "text", "register", ALICE.id.key, 0) for n in range(60_001))
    assert queries.run("MATCH (n {text: 'an oak'}) RETURN id(n) AS id", {}) == [{"id": "n/60000"}]
    assert [row["id"] for row in queries.run(search, {})] == ["n/60000"]
    assert queries.run("MATCH (n:n) RETURN count(n) AS n", {}) == [{"n": 2}]


def test_a_live_query_runs_beside_the_loop_and_is_given_up_with_its_reader() -> None:
    async def main(graph: Graph) -> None:
        await fill(graph)
        graph.query_budget = UNLIMITED
        reading = asyncio.ensure_future(anext(graph.live(ENDLESS)))
        for _ in range(100):  # the loop goes on
            await asyncio.sleep(0)
        assert not reading.done()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await graph.query_async("MATCH (a:account) RETURN count(a) AS n") == [{"n": 100}]

    run(main)


def test_a_live_query_ends_with_the_graph_while_it_is_asked() -> None:
    async def main() -> None:
        graph = await Graph.open("memory:", identity=ALICE)
        await fill(graph)
        graph.query_budget = UNLIMITED
        live = graph.live(ENDLESS)
        reading = asyncio.ensure_future(anext(live))
        for _ in range(100):
            await asyncio.sleep(0)
        await graph.close()
        with pytest.raises(StopAsyncIteration):
            await reading

    asyncio.run(main())


def test_what_changes_all_the_time_is_asked_for_now_and_then() -> None:
    """And the last of it is told, whenever it came."""

    async def main(graph: Graph) -> None:
        await fill(graph)
        asked: list[str] = []
        ask = graph.query_async

        async def counted(text: str, **parameters: Any) -> list[Any]:
            asked.append(text)
            return await ask(text, **parameters)

        graph.query_async = counted
        live = graph.live("MATCH (a:account {v: 7}) RETURN count(a) AS n")
        assert [row["n"] for row in (await anext(live)).added] == [0]
        reading = asyncio.ensure_future(anext(live))
        for number in range(1000):
            graph.node(f"account/{number % 100}")["v"] = 8
            await asyncio.sleep(0)
        graph.node("account/1")["v"] = 7
        assert [row["n"] for row in (await reading).added] == [1]
        assert len(asked) < 100

    run(main)
