"""Shortest paths: looked for from both ends at once, level by level, so each link is looked at twice at most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from dtp.graph.query.lookup.index import Index
from dtp.graph.query.lookup.pattern import Pattern
from dtp.graph.query.values.semantics import NodeRef, Path, Relation

#: Nodes that SQLite is asked about at once.
_BATCH: Final = 500
#: For each node that was reached: the links that led to it, and the nodes before.
_Reached = dict[str, list[tuple[str, Relation]]]


@dataclass(frozen=True)
class Shortest:
    """What `shortestPath((a)-[r:key*..5]->(b))` asks for; `left` and `right` are places of nodes in the SELECT."""

    left: int
    right: int
    direction: str
    #: Of any key if there is none.
    keys: tuple[str, ...]
    least: int
    #: None is any number.
    most: int | None
    every: bool
    path: str = ""
    #: The name of its links; `single`: there is one, and no list of them.
    links: str = ""
    single: bool = False
    #: As the query has it.
    source: str = ""

    def find_paths(
        self, index: Index, step: Callable[[], None], start: str, end: str
    ) -> Iterator[dict[str, Any]]:
        """Yield the names for each path that there is from one node to another. `step` counts links and paths.

        From a node to itself only the path without links is one, if `least` allows it.
        """
        for links in _paths(self, index, step, start, end):
            nodes = [NodeRef(start)]
            for link in links:
                step()
                nodes.append(NodeRef(link.target if link.soul == nodes[-1].soul else link.soul))
            bound: dict[str, Any] = {}
            if self.path:
                bound[self.path] = Path(tuple(nodes), tuple(links))
            if self.links:
                bound[self.links] = links[0] if self.single else links
            yield bound
            if not self.every:
                return


def _paths(
    wanted: Shortest, index: Index, step: Callable[[], None], start: str, end: str
) -> Iterator[list[Relation]]:
    if start == end:
        if wanted.least == 0:
            yield []
        return
    here: tuple[_Reached, set[str]] = {start: []}, {start}
    there: tuple[_Reached, set[str]] = {end: []}, {end}
    back = {"right": "left", "left": "right"}.get(wanted.direction, "both")
    length = 0
    while here[1] and there[1] and (wanted.most is None or length < wanted.most):
        length += 1
        if len(here[1]) <= len(there[1]):
            new = _level(wanted, index, step, here[0], here[1], wanted.direction)
            here = here[0], new
            meeting = new & there[0].keys()
        else:
            new = _level(wanted, index, step, there[0], there[1], back)
            there = there[0], new
            meeting = new & here[0].keys()
        if meeting:
            for middle in sorted(meeting):
                for first in _ways(here[0], middle, start, step):
                    for second in _ways(there[0], middle, end, step):
                        yield [*first, *reversed(second)]
            return


def _level(
    wanted: Shortest,
    index: Index,
    step: Callable[[], None],
    reached: _Reached,
    frontier: set[str],
    direction: str,
) -> set[str]:
    """Go one link further; the nodes that are new."""
    found: _Reached = {}
    for at, to in _SIDES[direction]:
        for soul, other, link in _links(wanted, index, sorted(frontier), at, to):
            step()
            if other not in reached:
                found.setdefault(other, []).append((soul, link))
    reached.update((soul, sorted(before)) for soul, before in found.items())
    return set(found)


#: From which column of `links` to which it goes.
_SIDES: Final = {
    "right": (("soul", "target"),),
    "left": (("target", "soul"),),
    "both": (("soul", "target"), ("target", "soul")),
}


def _links(
    wanted: Shortest, index: Index, souls: list[str], at: str, to: str
) -> Iterator[tuple[str, str, Relation]]:
    """Yield (node, node at the other end, link) of the links of some nodes."""
    only = f" AND key IN ({', '.join('?' * len(wanted.keys))})" if wanted.keys else ""
    for begin in range(0, len(souls), _BATCH):
        some = souls[begin : begin + _BATCH]
        sql = f"SELECT {at}, {to}, soul, key, target FROM links WHERE {at} IN ({', '.join('?' * len(some))}){only}"
        for soul, other, *link in index.select_rows(sql, [*some, *wanted.keys], Pattern):
            yield soul, other, Relation(*link)


def _ways(reached: _Reached, node: str, root: str, step: Callable[[], None]) -> Iterator[list[Relation]]:
    """Yield each way from a root to a node, as its links, the root's first."""
    waiting: list[tuple[str, Any]] = [(node, None)]
    while waiting:
        step()
        here, behind = waiting.pop()
        if here == root:
            links = []
            while behind is not None:
                link, behind = behind
                links.append(link)
            yield links
        else:
            waiting += [(before, (link, behind)) for before, link in reversed(reached[here])]
