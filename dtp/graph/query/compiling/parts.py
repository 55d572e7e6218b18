"""What a pattern is made of while it is compiled: nodes, and the links or paths between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from lark import Token, Tree

from dtp.graph.query.compiling.conditions import Condition
from dtp.graph.query.compiling.syntax import child_trees, error_at
from dtp.graph.query.errors import UnsupportedQuery
from dtp.graph.query.values.semantics import NodeRef, Path, Relation

#: Hops that a path of variable length has at most.
MAX_HOPS: Final = 32


@dataclass
class PatternNode:
    alias: str
    name: str
    #: The label that it has to have; "" for any.
    label: str = ""
    #: What is said of it alone.
    alone: list[Condition] = field(default_factory=list)


@dataclass
class PatternStep:
    """A relationship of a pattern, or a path of variable length."""

    alias: str
    name: str
    left: PatternNode
    right: PatternNode
    #: Which clause it belongs to: within one no relationship is walked twice.
    group: int
    #: Of variable length: the fewest and most hops, None without an end.
    hops: tuple[int, int | None] | None = None
    direction: str = "both"
    keys: tuple[str, ...] = ()
    backwards: bool = False
    place: Tree[Token] | None = None


def hop_bounds(hops: Tree[Token], limit: int | None = MAX_HOPS) -> tuple[int, int | None]:
    """Return the fewest and most links of a path of variable length, None without an end. Raises `QueryError`."""
    bounds = next(iter(child_trees(hops)), None)
    kind = "any_number" if bounds is None else str(bounds.data)
    numbers = [] if bounds is None else [int(token) for token in bounds.children if isinstance(token, Token)]
    least = 1 if kind in ("any_number", "at_most") else numbers[0]
    most = None if kind in ("any_number", "at_least") else numbers[-1]
    if limit is not None and (most or least) > limit:
        raise error_at(f"a path of variable length has at most {MAX_HOPS} links", hops, UnsupportedQuery)
    return least, most


def path_of(
    parts: list[PatternNode | PatternStep], nodes: dict[str, NodeRef], links: dict[str, list[Relation]]
) -> Path:
    """Return the path that was found for the parts of a pattern."""
    found: list[NodeRef] = []
    walked: list[Relation] = []
    for part in parts:
        if isinstance(part, PatternNode):
            if not found:
                found.append(nodes[part.alias])
            continue
        for link in links[part.alias]:
            here = found[-1].soul
            found.append(NodeRef(link.target if link.soul == here else link.soul))
            walked.append(link)
    return Path(tuple(found), tuple(walked))
