"""Graphs as pictures and tables: well-formed whatever the names, the same each time, all nodes apart."""

from __future__ import annotations

import asyncio
import itertools
import math
import sys
from xml.etree import ElementTree

import pytest
from graph_fixtures import ALICE
from hypothesis import given
from hypothesis import strategies as st

from dtp.crdt import Link
from dtp.graph import Graph
from dtp.graph.errors import GraphError
from dtp.graph.formats.drawing import layout, svg

SVG = "{http://www.w3.org/2000/svg}"


def test_a_picture_has_all_nodes_and_links() -> None:
    nodes = {"user/a": "Alice & <Co>", "user/b": "b", "place/1": "x" * 100}
    edges = [("user/a", "knows", "user/b"), ("user/b", "at", "place/1"), ("user/a", "is", "user/a")]
    drawn = svg(nodes, [*edges, ("user/a", "gone", "nobody")])
    root = ElementTree.fromstring(drawn)
    texts = [one.text for one in root.iter(f"{SVG}text")]
    assert texts == ["is", "knows", "at", "x" * 39 + "…", "Alice & <Co>", "b"]
    circles = list(root.iter(f"{SVG}circle"))
    assert len(circles) == 3
    assert len({circle.get("fill") for circle in circles}) == 2  # a colour for each kind
    places = [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in circles]
    size = float(root.get("width", ""))
    assert all(20 < x < size - 20 and 20 < y < size - 20 for x, y in places)
    assert min(math.dist(a, b) for a, b in itertools.combinations(places, 2)) > 40
    assert svg(nodes, edges) == svg(dict(reversed(nodes.items())), edges[::-1])


@given(st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=6), st.text(max_size=4))
def test_any_names_give_xml(nodes: dict[str, str], key: str) -> None:
    edges = [(a, key, b) for a in nodes for b in nodes]
    assert len(list(ElementTree.fromstring(svg(nodes, edges)).iter(f"{SVG}circle"))) == len(nodes)


def test_neighbours_are_near() -> None:
    names = [f"n{number:02}" for number in range(24)]
    edges = [(a, "to", b) for a, b in itertools.pairwise(names)]
    places = layout(names, edges)
    near = [math.dist(places[a], places[b]) for a, _, b in edges]
    others = [math.dist(places[a], places[b]) for a, b in itertools.combinations(names, 2)]
    assert sum(near) / len(near) < sum(others) / len(others) / 2


def test_too_many_nodes_are_no_picture() -> None:
    with pytest.raises(GraphError, match="500"):
        svg({str(number): "" for number in range(501)}, [])


def test_a_graph_as_a_picture_and_as_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            graph.node("user/a").update({"name": "Alice", "age": 33})
            graph.node("user/b").update({"title": "B", "tags": [1]})
            graph.node("user/a").link("knows", "user/b")
            graph.node("user/a").link("at", "place/1")
            texts = [one.text for one in ElementTree.fromstring(graph.to_svg("user/")).iter(f"{SVG}text")]
            assert texts == ["knows", "Alice", "B"]
            assert "place/1" in graph.to_svg()
            monkeypatch.setitem(sys.modules, "pandas", None)
            with pytest.raises(GraphError, match="pip install"):
                graph.to_pandas()

    asyncio.run(main())


@pytest.mark.slow
def test_pandas() -> None:
    pandas = pytest.importorskip("pandas")

    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            graph.node("user/a").update({"name": "Alice", "age": 33})
            graph.node("user/b").update({"name": "Bob", "age": 40, "tags": [1]})
            graph.node("user/a").link("knows", "user/b")
            graph.list("user/b", "todo").extend(["milk", 2])
            graph.counter("user/a").add(3)
            graph.node("place/1")["name"] = "Home"
            frame = graph.to_pandas("user/")
            assert list(frame.columns) == ["(counter)", "age", "knows (set)", "name", "tags", "todo (list)"]
            assert frame.loc["user/b", "todo (list)"] == ["milk", 2]
            assert frame.loc["user/a", "(counter)"] == 3
            assert frame.loc["user/a", "knows (set)"] == [Link("user/b")]
            assert list(frame.index) == ["user/a", "user/b"]
            assert frame.index.name == "soul"
            assert frame["age"].sum() == 73
            assert frame.loc["user/b", "tags"] == [1]
            assert pandas.isna(frame.loc["user/a", "tags"])
            assert len(graph.to_pandas()) == 3
            assert graph.to_pandas("nobody").empty
            rows = pandas.DataFrame(graph.query("MATCH (u:user) RETURN u.name AS n, u.age AS a ORDER BY n"))
            assert rows.to_dict("list") == {"n": ["Alice", "Bob"], "a": [33, 40]}

    asyncio.run(main())
