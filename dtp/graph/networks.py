"""Graphs for networkx: what is computed over a whole graph, such as paths, ranks and communities, it does well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtp.core.crdt import SET
from dtp.crdt import Link, values
from dtp.graph.errors import GraphError

if TYPE_CHECKING:
    from networkx import MultiDiGraph

    from dtp.graph.graph import Graph


def to_networkx(graph: Graph, prefix: str) -> MultiDiGraph:
    """See `Graph.to_networkx`."""
    try:
        from networkx import MultiDiGraph
    except ImportError as error:
        raise GraphError("networkx is not installed: pip install 'dtp[graph]'") from error
    network = MultiDiGraph()
    souls = graph.souls(prefix)
    for soul in souls:
        registers = graph.node(soul).to_dict()
        network.add_node(soul, **{k: v for k, v in registers.items() if not isinstance(v, Link)})
    for soul in souls:
        for key, target in _links(graph, soul):
            if target.startswith(prefix):
                network.add_edge(soul, target, key=key)
    return network


def _links(graph: Graph, soul: str) -> list[tuple[str, str]]:
    """(key, target) of all links of a node, in sets and in registers."""
    node, core = graph.node(soul), graph.replica.core
    found = [(key, value.soul) for key, value in node.items() if isinstance(value, Link)]
    for key in values.decode(core.keys(SET, values.name(soul))):
        found += [(key, target) for target in node.links(key)]
    return sorted(found)
