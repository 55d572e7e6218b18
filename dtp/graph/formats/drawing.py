"""Graphs as pictures: SVG, drawn without any other program. For some hundred nodes; of more, nobody sees anything."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from dtp.graph.errors import GraphError
from dtp.graph.query.lookup.columns import kind_of

#: (from, key, to), by the names of nodes.
Edge = tuple[str, str, str]
#: How strongly two nodes push each other away, by their distance.
Force = Callable[[float], float]

#: Nodes that are drawn, at most: the layout takes time with their square.
MAX_NODES: Final = 500
_COLOURS: Final = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#b07aa1", "#9c755f", "#edc948")
_RADIUS: Final = 16.0
#: Pixels for each node, squared, and around all of them.
_SPACE: Final = 110.0
_MARGIN: Final = 70.0


def layout(nodes: Sequence[str], edges: Iterable[Edge]) -> dict[str, tuple[float, float]]:
    """Return places from 0 to 1 for all nodes, the same each time: Fruchterman and Reingold's springs (1991)."""
    rng = random.Random(len(nodes))
    at = {node: [rng.random(), rng.random()] for node in nodes}
    springs = sorted({(a, b) for a, _, b in edges if a != b and a in at and b in at})
    ideal = 1 / math.sqrt(max(1, len(nodes)))
    rounds = max(15, min(150, 400_000 // max(1, len(nodes) ** 2)))
    for number in range(rounds):
        push = {node: [0.0, 0.0] for node in nodes}
        for i, a in enumerate(nodes):
            for b in nodes[:i]:
                _move(push, at, a, b, lambda distance: ideal * ideal / distance)
        for a, b in springs:
            _move(push, at, a, b, lambda distance: -distance * distance / ideal)
        heat = 0.1 * (1 - number / rounds)
        for node in nodes:
            x, y = push[node]
            size = math.hypot(x, y)
            if size > 0:
                at[node][0] += x / size * min(size, heat)
                at[node][1] += y / size * min(size, heat)
    return _fitted(at)


def _move(push: dict[str, list[float]], at: dict[str, list[float]], a: str, b: str, force: Force) -> None:
    x, y = at[a][0] - at[b][0], at[a][1] - at[b][1]
    distance = math.hypot(x, y) or 1e-6
    size = force(distance) / distance
    for node, sign in ((a, 1), (b, -1)):
        push[node][0] += sign * x * size
        push[node][1] += sign * y * size


def _fitted(at: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, float]]:
    fitted: dict[str, tuple[float, float]] = {}
    lows = [min((place[axis] for place in at.values()), default=0.0) for axis in (0, 1)]
    highs = [max((place[axis] for place in at.values()), default=1.0) for axis in (0, 1)]
    for node, place in at.items():
        x, y = (
            (place[axis] - lows[axis]) / (highs[axis] - lows[axis]) if highs[axis] > lows[axis] else 0.5
            for axis in (0, 1)
        )
        fitted[node] = (x, y)
    return fitted


def svg(nodes: Mapping[str, str], edges: Iterable[Edge]) -> str:
    """Return a picture of nodes (name -> what is written on it) and the links between them, as an SVG document.

    Nodes have a colour for each kind, links an arrow and their key. Raises `GraphError` for more than `MAX_NODES`.
    """
    if len(nodes) > MAX_NODES:
        raise GraphError(f"a picture has at most {MAX_NODES} nodes, not {len(nodes)}; ask for fewer")
    names = sorted(nodes)
    links = sorted({edge for edge in edges if edge[0] in nodes and edge[2] in nodes})
    side = _SPACE * math.sqrt(max(1, len(names))) + 60
    places = {name: (_MARGIN + x * side, _MARGIN + y * side) for name, (x, y) in layout(names, links).items()}
    kinds = sorted({kind_of(name) for name in names})
    colours = {kind: _COLOURS[at % len(_COLOURS)] for at, kind in enumerate(kinds)}
    size = round(side + 2 * _MARGIN)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" viewBox="0 0 {size} {size}" '
        'font-family="sans-serif" font-size="11">',
        '<defs><marker id="to" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 10 5 0 10z" fill="#888"/></marker></defs>',
    ]
    lines += [_line(places[a], places[b], key) for a, key, b in links]
    for name in names:
        x, y = places[name]
        lines.append(
            f'<g><title>{_text(name)}</title><circle cx="{x:.1f}" cy="{y:.1f}" r="{_RADIUS}" '
            f'fill={quoteattr(colours[kind_of(name)])}/><text x="{x:.1f}" y="{y + _RADIUS + 12:.1f}" '
            f'text-anchor="middle">{_text(nodes[name])}</text></g>'
        )
    return "\n".join([*lines, "</svg>", ""])


def _text(text: str) -> str:
    """Return text for XML, which has no control characters; what is long is cut."""
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return escape(shown if len(shown) <= 40 else f"{shown[:39]}…")


def _line(a: tuple[float, float], b: tuple[float, float], key: str) -> str:
    """Return a line from one node's edge to the other's, or a loop above the node."""
    (ax, ay), (bx, by) = a, b
    distance = math.hypot(bx - ax, by - ay)
    if distance < 1:
        top = ay - _RADIUS
        bend = f"{ax - 30:.1f} {top - 34:.1f} {ax + 30:.1f} {top - 34:.1f} {ax + 8:.1f} {top + 3:.1f}"
        path = f"M{ax - 8:.1f} {top + 3:.1f}C{bend}"
        middle = (ax, top - 28)
    else:
        dx, dy = (bx - ax) / distance * _RADIUS, (by - ay) / distance * _RADIUS
        path = f"M{ax + dx:.1f} {ay + dy:.1f}L{bx - dx:.1f} {by - dy:.1f}"
        middle = ((ax + bx) / 2, (ay + by) / 2 - 3)
    return (
        f'<path d="{path}" fill="none" stroke="#888" marker-end="url(#to)"/>'
        f'<text x="{middle[0]:.1f}" y="{middle[1]:.1f}" text-anchor="middle" fill="#666">{_text(key)}</text>'
    )
