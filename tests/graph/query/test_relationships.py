"""Properties of relationships: written, merged, signed and undone like those of nodes, and asked for in queries."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB, told
from graph_people import called, people, rows
from hypothesis import given
from hypothesis import strategies as st

from dtp.core.errors import NotOwner
from dtp.crdt import Clock, Link, Node, Replica, parts
from dtp.graph import Graph, NotSealed, Part, QueryError
from dtp.graph.query.run import Queries


def friends() -> Replica:
    replica = people()
    since = {"bob": 2020, "carol": 2022}
    for name, year in since.items():
        replica.node("user/alice").relationship("follows", f"user/{name}").update(
            {"since": year, "by": "app"}
        )
    replica.node("user/bob").link("follows", "user/carol", since=2020, on=datetime.date(2020, 5, 1))
    replica.node("user/alice").relationship("lives", "place/1")["rent"] = 500
    replica.node("user/alice").relationship("follows", "user/dave")["since"] = 1999  # there is no such link
    return replica


@pytest.fixture(scope="module", params=[None, called], ids=["here", "beside"])
def queries(request: pytest.FixtureRequest) -> Queries:
    return Queries(friends(), ask=request.param)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MATCH (a)-[r:follows]->(b) RETURN a.name, b.name, r.since ORDER BY r.since, b.name, a.name",
         [("Alice", "Bob", 2020), ("Bob", "Carol", 2020), ("Alice", "Carol", 2022), ("Dave", "Alice", None)]),
        ("MATCH (a)-[r:follows {since: 2020}]->(b) RETURN a.name, b.name ORDER BY a.name",
         [("Alice", "Bob"), ("Bob", "Carol")]),
        ("MATCH (a)-[r:follows $with]->(b) RETURN a.name, b.name", [("Alice", "Bob")]),
        ("MATCH (a)-[{rent: 500}]->(b) RETURN b.name", [("Home",)]),
        ("MATCH (b)<-[r {since: 2022}]-(a) RETURN a.name, b.name", [("Alice", "Carol")]),
        ("MATCH (a)-[r {since: 2022}]-(b) RETURN a.name ORDER BY a.name", [("Alice",), ("Carol",)]),
        ("MATCH (a)-[r]->() WHERE r.since > 2020 AND r.by = 'app' RETURN a.name", [("Alice",)]),
        ("MATCH ()-[r]->() WHERE r.since IS NULL RETURN type(r) ORDER BY type(r)", [("follows",), ("lives",)]),
        ("MATCH ()-[r:follows]->(b) RETURN r.since AS since, count(*) AS n, collect(b.name) AS l ORDER BY since",
         [(2020, 2, ["Bob", "Carol"]), (2022, 1, ["Carol"]), (None, 1, ["Alice"])]),
        ("MATCH ()-[r:follows]->() RETURN min(r.since), max(r.since), sum(r.since)", [(2020, 2022, 6062)]),
        ("MATCH (a)-[rs:follows*1..2 {since: 2020}]->(b) RETURN a.name, b.name, [r IN rs | r.since] AS l "
         "ORDER BY size(l), a.name", [("Alice", "Bob", [2020]), ("Bob", "Carol", [2020]),
                                      ("Alice", "Carol", [2020, 2020])]),
        ("MATCH p = (a {name: 'Alice'})-[:follows*2]->() RETURN [r IN relationships(p) | r.since] AS l",
         [([2020, 2020],)]),
        ("MATCH p = shortestPath((a {name: 'Dave'})-[:follows*]->(b {name: 'Carol'})) "
         "RETURN reduce(s = 0, r IN relationships(p) | s + coalesce(r.since, 1)) AS s", [(2023,)]),
        ("MATCH ()-[r {rent: 500}]->() RETURN properties(r), keys(r), r {.rent, more: r.rent + 1, .*}",
         [({"rent": 500}, ["rent"], {"rent": 500, "more": 501})]),
        ("MATCH (a)-[r {since: 2022}]->() RETURN r['since'], r.nothing, exists(r.since)", [(2022, None, True)]),
        ("MATCH (a) WHERE (a)-[:follows {since: 2022}]->() RETURN a.name", [("Alice",)]),
        ("MATCH (a) WHERE EXISTS { (a)-[r:follows]->(b) WHERE r.since = 2020 AND b.age < 30 } RETURN a.name",
         [("Bob",)]),
        ("MATCH (a:user) RETURN a.name, COUNT { (a)-[{since: 2020}]->() } AS n ORDER BY n DESC, a.name LIMIT 2",
         [("Alice", 1), ("Bob", 1)]),
        ("MATCH (a {name: 'Alice'}) RETURN [(a)-[r:follows]->(b) WHERE r.since > 2020 | r.since] AS l",
         [([2022],)]),
        ("MATCH (a)-[r {since: 2022}]->(b) WITH r MATCH (x)-[r]->(y) RETURN x.name, r.by", [("Alice", "app")]),
        ("MATCH (a:user)-[r:follows {since: a.age + 1980}]->() RETURN a.name", [("Bob",)]),
        ("MATCH ()-[r]->() WHERE r.on >= date('2020-01-01') RETURN r.on.month", [(5,)]),
        ("MATCH (a {name: 'Dave'}) OPTIONAL MATCH (a)-[r:follows {since: 1}]->(b) RETURN r.since, b", [(None, None)]),
        ("MATCH (n) RETURN count(*)", [(5,)]),  # where properties are is no node
        ("MATCH (n) RETURN count(n.since)", [(0,)]),
        ("MATCH ()-[r]->() RETURN count(*)", [(5,)]),
        ("MATCH ()-[r {since: 2020}]->() RETURN count(*)", [(2,)]),
        ("MATCH ()-[r]->() WHERE r.since = 2020 RETURN count(*)", [(2,)]),
    ],
)  # fmt: skip
def test_queries_see_properties_of_relationships(queries: Queries, text: str, expected: list[Any]) -> None:
    given = {"with": {"since": 2020, "by": "app"}} if "$with" in text else {}
    assert rows(queries, text, **given) == expected


def test_what_is_wrong_is_told(queries: Queries) -> None:
    for text, why in (
        ("MATCH (a)-[r $no]->() RETURN r", "as a map"),
        ("MATCH p = shortestPath((a)-[*{x: 1}]->(b)) RETURN p", "all.r IN relationships.p. WHERE"),
        ("MATCH p = (a)-[{x: 1}]->(b) RETURN p.x", "a path has no properties"),
    ):
        with pytest.raises(QueryError, match=why):
            queries.run(text, {"no": 1} if "$no" in text else {})


NAMES = "abcd"
edits = st.lists(
    st.tuples(
        st.sampled_from(["link", "unlink", "put", "delete", "drop"]),
        st.sampled_from(NAMES), st.sampled_from("kl"), st.sampled_from(NAMES), st.sampled_from("pq"),
        st.integers(0, 3),
    ),
    max_size=30,
)  # fmt: skip


class Model:
    """What the relationships of a graph are, by the guide: a dict of properties for each link."""

    def __init__(self) -> None:
        self.links: set[tuple[str, str, str]] = set()
        self.properties: dict[tuple[str, str, str], dict[str, int]] = {}

    def edit(self, what: str, a: str, k: str, b: str, p: str, value: int) -> None:
        link = a, k, b
        if what == "link":
            self.links.add(link)
        elif what == "unlink":
            self.links.discard(link)
            self.properties.pop(link, None)
        elif what == "put":
            self.properties.setdefault(link, {})[p] = value
        elif what == "delete":
            self.properties.get(link, {}).pop(p, None)
        else:
            self.links -= {one for one in self.links if one[0] == a}
            self.properties = {one: kept for one, kept in self.properties.items() if one[0] != a}

    def all(self) -> list[tuple[Any, ...]]:
        found = [(*link, self.properties.get(link, {})) for link in self.links]
        return sorted(found, key=str)

    def chains(self, value: int) -> list[tuple[str, str]]:
        """Ends of one or two links in a row, not the same, each with p = value."""
        have = sorted(one for one in self.links if self.properties.get(one, {}).get("p") == value)
        two = [(x[0], y[2]) for x in have for y in have if x[2] == y[0] and x != y]
        return sorted([(one[0], one[2]) for one in have] + two)


def edit(graph: Graph, what: str, a: str, k: str, b: str, p: str, value: int) -> None:
    node = graph.node(f"n/{a}")
    if what == "link":
        node.link(k, f"n/{b}")
    elif what == "unlink":
        node.unlink(k, f"n/{b}")
    elif what == "put":
        node.relationship(k, f"n/{b}")[p] = value
    elif what == "delete":
        node.relationship(k, f"n/{b}").pop(p, None)
    else:
        graph.delete(f"n/{a}")


@given(rounds=st.lists(edits, min_size=1, max_size=3), value=st.integers(0, 3))
def test_queries_answer_as_a_model_does_here_and_beside(rounds: list[list[Any]], value: int) -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            model = Model()
            for some in rounds:
                for one in some:
                    model.edit(*one)
                    edit(graph, *one)
                every = "MATCH (a)-[r]->(b) RETURN id(a) AS a, type(r) AS k, id(b) AS b, properties(r) AS p"
                far = "MATCH (a)-[*1..2 {p: $p}]->(b) RETURN id(a) AS a, id(b) AS b"
                there = [graph.query(every), await graph.query_async(every)]
                chains = [graph.query(far, p=value), await graph.query_async(far, p=value)]
                for found, ends in zip(there, chains, strict=True):
                    shown = [
                        (row["a"][2:], row["k"], row["b"][2:], dict(sorted(row["p"].items())))
                        for row in found
                    ]
                    wanted = [(*one[:3], dict(sorted(one[3].items()))) for one in model.all()]
                    assert sorted(shown, key=str) == sorted(wanted, key=str)
                    assert sorted((row["a"][2:], row["b"][2:]) for row in ends) == model.chains(value)

    asyncio.run(main())


def test_each_property_merges_by_itself_and_goes_with_its_link() -> None:
    now = [1.0]
    one, other = (Replica(bytes([n]) * 32, clock=Clock(lambda: now[0])) for n in (1, 2))

    def exchange() -> None:
        now[0] += 1
        made, more = one.commit(), other.commit()
        for frame in more:
            one.merge(frame.author, frame.body)
        for frame in made:
            other.merge(frame.author, frame.body)

    one.node("a").link("k", "b", p=1, q=1)
    exchange()
    one.node("a").relationship("k", "b")["p"] = 2
    other.node("a").relationship("k", "b")["q"] = 3
    exchange()
    for replica in (one, other):
        assert replica.node("a").relationship("k", "b").to_dict() == {"p": 2, "q": 3}
        assert Queries(replica).run("MATCH (x)-[r]->(y) RETURN r.p + r.q AS n", {}) == [{"n": 5}]
    one.node("a").unlink("k", "b")
    exchange()
    assert other.node("a").relationship("k", "b").to_dict() == {}
    other.node("a").link("k", "b")
    assert Queries(other).run("MATCH (x)-[r]->(y) RETURN properties(r) AS p", {}) == [{"p": {}}]


def test_only_who_may_write_the_node_may_write_its_relationships(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            await Graph.open(str(tmp_path / "a.db"), identity=ALICE) as one,
            await Graph.open(str(tmp_path / "b.db"), identity=BOB) as other,
        ):
            own = one.own("profile")
            one.node(own).link("likes", "song/1", stars=5)
            await one.commit()
            await told(one, ALICE, other)
            link = other.node(own).relationship("likes", "song/1")
            assert link.to_dict() == {"stars": 5}
            with pytest.raises(NotOwner):
                link["stars"] = 1
            query = "MATCH ()-[r:likes]->() RETURN r.stars AS n"
            assert other.query(query) == [{"n": 5}]
        async with await Graph.open(str(tmp_path / "b.db"), identity=BOB) as again:
            assert again.query(query) == [{"n": 5}]
            assert await again.query_async(query) == [{"n": 5}]
        async with await Graph.open("memory:", identity=ALICE) as graph:
            private = graph.private("secret", readers=[])
            private.update({"name": "x"})
            with pytest.raises(NotSealed):
                graph.node(private.soul)

    asyncio.run(main())


def test_links_are_seen_with_their_properties_wherever_a_graph_is_looked_at() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            node = graph.node("user/a")
            node.link("knows", "user/b", since=2020)
            node["best"] = Link("user/b")
            node.relationship("best", "user/b")["by"] = "me"
            await graph.commit()
            assert graph.souls() == ["user/a"]
            assert graph.everything("user/a") == {
                "best": {"register": Link("user/b"), "relationships": {"user/b": {"by": "me"}}},
                "knows": {"set": [Link("user/b")], "relationships": {"user/b": {"since": 2020}}},
            }
            seen = [row["r"] for row in graph.query("MATCH ()-[r]->() RETURN r ORDER BY type(r)")]
            assert [Node(graph.replica, one.soul).relationship(one.key, one.target).to_dict() for one in seen] == [
                {"by": "me"}, {"since": 2020}]  # fmt: skip
            assert parts.is_relationship(node.relationship("knows", "user/b").soul)
            changes = graph.changes("user/a*")
            node.relationship("knows", "user/b")["since"] = 2021
            await graph.commit()
            batch = await anext(changes)
            assert [parts.document_of(one.soul) for one in batch.changes] == ["user/a"]
            graph.delete("user/a")
            await graph.commit()
            assert graph.souls(parts_too=True) == []

    asyncio.run(main())


def test_what_a_link_had_is_seen_later_and_comes_back() -> None:
    async def main() -> None:
        now = [1_000_000.0]
        async with await Graph.open("memory:", identity=ALICE, clock=Clock(lambda: now[0])) as graph:
            graph.node("a").link("k", "b", p=1)
            await graph.commit()
            now[0] += 10
            graph.node("a").relationship("k", "b").update({"p": 2, "q": 3})
            await graph.commit()
            now[0] += 10
            graph.node("a").unlink("k", "b")
            await graph.commit()
            then = await graph.history.as_of("a", 1_000_005)
            assert then["k"]["relationships"] == {"b": {"p": 1}}
            assert (await graph.history.diff("a", 1_000_005, 1_000_015))["k"]["relationships"].after == {
                "b": {"p": 2, "q": 3}}  # fmt: skip
            await graph.history.restore("a", 1_000_005)
            assert graph.query("MATCH ()-[r]->() RETURN properties(r) AS p") == [{"p": {"p": 1}}]

    asyncio.run(main())


def test_undo_brings_a_link_and_its_properties_back() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            graph.node("a").link("k", "b", p=1)
            with graph.undo_manager() as undo:
                with undo.step("unlink"):
                    graph.node("a").unlink("k", "b")
                query = "MATCH ()-[r]->() RETURN properties(r) AS p"
                assert graph.query(query) == []
                undo.undo()
                assert graph.query(query) == [{"p": {"p": 1}}]
                undo.redo()
                assert graph.query(query) == []

    asyncio.run(main())


def test_a_part_of_a_graph_has_the_properties_of_its_links() -> None:
    part = Part(prefixes=["user/"])
    link = parts.relationship_soul("user/a", "k", "place/1")
    assert part.has_soul(link)
    assert not part.has_soul(parts.relationship_soul("place/1", "k", "user/a"))
    assert parts.relationship_soul("user/a", "k", "b") != parts.relationship_soul("user/a", "kb", "")
