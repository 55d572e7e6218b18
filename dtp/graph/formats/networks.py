"""Graphs for other programs: networkx for what is computed over a whole graph, pandas for tables, SVG for looking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dtp.core.crdt import SET
from dtp.crdt import Link, values
from dtp.crdt.values import is_links
from dtp.graph.errors import GraphError

if TYPE_CHECKING:
    from networkx import MultiDiGraph
    from pandas import DataFrame

    from dtp.graph.contents import Contents


def to_networkx(graph: Contents, prefix: str) -> MultiDiGraph:
    """Return nodes and links as a graph of networkx."""
    try:
        from networkx import MultiDiGraph
    except ImportError as error:
        raise GraphError("networkx is not installed: pip install 'dtp-sockets[graph]'") from error
    network = MultiDiGraph()
    souls = graph.souls(prefix)
    for soul in souls:
        network.add_node(soul)
        network.nodes[soul].update(_attributes(graph, soul))
    for soul in souls:
        node = graph.replica.node(soul)
        for key, target in _links(graph, soul):
            if target.startswith(prefix):
                network.add_edge(soul, target, key=key)
                network.edges[soul, target, key].update(node.relationship(key, target).to_dict())
    return network


def to_pandas(graph: Contents, prefix: str) -> DataFrame:
    """Return nodes and links as two tables of pandas."""
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise GraphError("pandas is not installed: pip install 'dtp-sockets[graph-pandas]'") from error
    souls = graph.souls(prefix)
    rows = [_columns(graph, soul) for soul in souls]
    columns = sorted({key for row in rows for key in row})
    return DataFrame(rows, index=souls, columns=columns, dtype=object).rename_axis("soul").infer_objects()


def _columns(graph: Contents, soul: str) -> dict[str, Any]:
    """Return all that is at a soul: registers by their keys, all else as "key (kind)"."""
    return {
        key if kind == "register" else f"{key}{' ' * bool(key)}({kind})": value
        for key, kinds in graph.everything(soul).items()
        for kind, value in kinds.items()
    }


def _attributes(graph: Contents, soul: str) -> dict[str, Any]:
    """Return the same without links, which are edges."""
    return {
        name: value
        for name, value in _columns(graph, soul).items()
        if not (
            isinstance(value, Link)
            or name.endswith("(relationships)")
            or (name.endswith("(set)") and value and is_links(value))
        )
    }


def to_svg(graph: Contents, prefix: str) -> str:
    """Return a picture of nodes and links, as SVG."""
    from dtp.graph.formats.drawing import svg

    souls = graph.souls(prefix)
    edges = [
        (soul, key, target)
        for soul in souls
        for key, target in _links(graph, soul)
        if target.startswith(prefix)
    ]
    nodes = {soul: label(graph, soul) for soul in {*souls, *(target for _, _, target in edges)}}
    return svg(nodes, edges)


def label(graph: Contents, soul: str) -> str:
    """Return what is written on a node: its name or title, else its soul."""
    node = graph.replica.node(soul)
    return next((text for key in ("name", "title") if isinstance(text := node.get(key), str) and text), soul)


def _links(graph: Contents, soul: str) -> list[tuple[str, str]]:
    """Return (key, target) of all links of a node, in sets and in registers."""
    node, core = graph.replica.node(soul), graph.replica.core
    found = [(key, value.soul) for key, value in node.items() if isinstance(value, Link)]
    for key in values.decode(core.read_keys(SET, values.encode_name(soul))):
        found += [(key, target) for target in node.links(key)]
    return sorted(found)
