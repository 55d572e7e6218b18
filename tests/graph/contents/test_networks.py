"""Graphs for networkx."""

from __future__ import annotations

import asyncio
import sys

import pytest
from graph_fixtures import ALICE

from dtp.crdt import Link
from dtp.graph import Graph, GraphError


async def village() -> Graph:
    graph = await Graph.open("memory:", identity=ALICE)
    graph.node("user/a")["name"] = "A"
    graph.node("user/a")["best"] = Link("user/b")
    for soul, target in (("a", "b"), ("b", "c"), ("c", "a")):
        graph.node(f"user/{soul}").link("knows", f"user/{target}")
    graph.node("user/a").link("lives", "place/1")
    return graph


def test_nodes_and_links() -> None:
    networkx = pytest.importorskip("networkx")

    async def main() -> None:
        async with await village() as graph:
            graph.set("user/a", "tags").add("x")
            network = graph.to_networkx()
            assert network.nodes["user/a"] == {"name": "A", "tags (set)": ["x"]}
            assert sorted(network.edges(keys=True)) == [
                ("user/a", "place/1", "lives"),
                ("user/a", "user/b", "best"),
                ("user/a", "user/b", "knows"),
                ("user/b", "user/c", "knows"),
                ("user/c", "user/a", "knows"),
            ]
            users = graph.to_networkx("user/")
            assert sorted(users) == ["user/a", "user/b", "user/c"]
            assert networkx.shortest_path(users, "user/a", "user/c") == ["user/a", "user/b", "user/c"]

    asyncio.run(main())


def test_without_networkx_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "networkx", None)

    async def main() -> None:
        async with await village() as graph:
            with pytest.raises(GraphError, match="pip install"):
                graph.to_networkx()

    asyncio.run(main())
