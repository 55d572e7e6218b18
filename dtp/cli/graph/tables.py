"""Rows of a query as people and programs want them: a table, JSON, CSV, a tree in the terminal, a picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from dtp.cli.output import printable
from dtp.errors import LocalError

if TYPE_CHECKING:
    from dtp.graph import Graph
    from dtp.graph.formats.drawing import Edge

Rows = list[dict[str, Any]]


class FormatError(LocalError):
    """The rows can't be shown like this; the message says what to return instead."""

    code = "graph-format"


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def as_table(graph: Graph, rows: Rows, shown: Callable[[Any], Any]) -> str:
    """Return columns side by side, drawn by rich."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return "no rows"
    table = Table()
    for name in rows[0]:
        table.add_column(Text(printable(name)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(_cell(shown(value)))) for value in row.values()))
    return _drawn(table, Console)


def _drawn(what: Any, console_type: Any) -> str:
    out = io.StringIO()
    console_type(file=out, width=None if out.isatty() else 120, highlight=False).print(what)
    return out.getvalue().rstrip("\n")


def as_json(graph: Graph, rows: Rows, shown: Callable[[Any], Any]) -> str:
    """Return one array of objects."""
    return json.dumps([{name: shown(value) for name, value in row.items()} for row in rows], indent=1)


def as_csv(graph: Graph, rows: Rows, shown: Callable[[Any], Any]) -> str:
    """RFC 4180, the names of the columns first; null is empty, lists and maps are JSON."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if rows:
        writer.writerow(rows[0])
    for row in rows:
        found = [shown(value) for value in row.values()]
        writer.writerow(["" if value is None else _cell(value) for value in found])
    return out.getvalue().rstrip("\n")


def as_svg(graph: Graph, rows: Rows, shown: Callable[[Any], Any]) -> str:
    """Return a picture of the nodes, relationships and paths in the rows."""
    from dtp.graph.formats.drawing import svg
    from dtp.graph.formats.networks import label

    souls, edges = _parts(rows)
    return svg({soul: label(graph, soul) for soul in souls}, edges).rstrip("\n")


def as_tree(graph: Graph, rows: Rows, shown: Callable[[Any], Any]) -> str:
    """Return nodes with what they link to below them; each node's links are told once."""
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    from dtp.graph.formats.networks import label

    souls, edges = _parts(rows)
    out: dict[str, list[tuple[str, str]]] = {soul: [] for soul in souls}
    for soul, key, target in edges:
        out[soul].append((key, target))
    targets = {target for _, _, target in edges}
    root, told = Tree("", hide_root=True), set[str]()
    below = [
        (root, "", soul) for soul in sorted(souls, key=lambda soul: (soul in targets, soul), reverse=True)
    ]
    while below:  # depth first, without recursion: paths may be long
        parent, key, soul = below.pop()
        again = soul in told
        if again and not key:
            continue
        told.add(soul)
        name = label(graph, soul)
        text = f"{key} → {soul}" if key else soul
        text += f"  {name}" if name != soul else ""
        branch = parent.add(Text(printable(text + (" …" if again and out[soul] else ""))))
        if not again:
            below += [(branch, link, target) for link, target in sorted(out[soul], reverse=True)]
    return _drawn(root, Console)


def _parts(rows: Rows) -> tuple[set[str], list[Edge]]:
    """Return the souls and links in rows. Raises `FormatError` when there are none."""
    souls: set[str] = set()
    edges: set[Edge] = set()
    for value in _values(rows):
        if isinstance(value, tuple):
            soul, key, target = value
            souls |= {soul, target}
            edges.add((soul, key, target))
        else:
            souls.add(value)
    if rows and not souls:
        raise FormatError("there is nothing to draw: return nodes, relationships or paths (RETURN a, r, b)")
    return souls, sorted(edges)


def _values(value: Any) -> Iterator[str | tuple[str, str, str]]:
    """Yield souls of nodes and relationships, however deep."""
    from dtp.crdt import Node
    from dtp.graph.query.values.semantics import Path, Relation

    if isinstance(value, Node):
        yield value.soul
    elif isinstance(value, Relation):
        yield (value.soul, value.key, value.target)
    elif isinstance(value, Path):
        yield from _values([*value.nodes, *value.relationships])
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _values(item)


#: Name of a format -> what makes it.
FORMATS: dict[str, Callable[[Graph, Rows, Callable[[Any], Any]], str]] = {
    "table": as_table,
    "json": as_json,
    "csv": as_csv,
    "tree": as_tree,
    "svg": as_svg,
}
