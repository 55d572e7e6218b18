"""Queries that group the nodes of one pattern by their properties, or count, add up or compare these: the core gives
the properties, and how many nodes have the same ones is all that is told of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, NamedTuple

from lark import Token, Tree

from dtp.core.scan import COLUMNS
from dtp.crdt import values
from dtp.graph.query.compiling.expressions import Expressions, to_query_value
from dtp.graph.query.compiling.projection import TIMES, Projection
from dtp.graph.query.compiling.syntax import (
    SUBQUERIES,
    Bound,
    child_trees,
    has_aggregate,
    is_aggregate,
    name_of,
    word_kinds,
)

#: Aggregates that don't ask in which order values come.
_UNORDERED: Final = frozenset({"count", "sum", "avg", "min", "max"})
#: What has names or rows of its own.
_OTHERS: Final = SUBQUERIES | {
    "comprehension",
    "quantifier",
    "reduce",
    "pattern_all",
    "pattern_there",
    "star",
}


#: Groups whose properties are decoded at once.
_AT_ONCE: Final = 4096


class Grouping(NamedTuple):
    """A query that groups by, or aggregates, properties of the nodes of one pattern."""

    #: The MATCH.
    match: Tree[Token]
    #: What RETURN says, with a name in the place of each property.
    returned: Tree[Token]
    #: Name -> property.
    keys: dict[str, str]

    def project_rows(self, expressions: Expressions, found: Mapping[bytes, int]) -> Iterator[Bound]:
        """Yield the rows of the query, of what `Scanner.count_groups` gave."""
        with expressions.with_unknown_names():
            projection = Projection(expressions, self.returned, frozenset(self.keys), ends=True)
        return projection.run(self._group_rows(found))

    def _group_rows(self, found: Mapping[bytes, int]) -> Iterator[Bound]:
        groups, names = iter(found.items()), (*self.keys, TIMES)
        while some := list(islice(groups, _AT_ONCE)):
            told = map(to_query_value, values.decode_all(b"".join(data for data, _ in some)))
            for row in zip(*[told] * len(self.keys), (times for _, times in some), strict=True):
                yield dict(zip(names, row, strict=True))


def grouping_of(expressions: Expressions, tree: Tree[Token]) -> Grouping | None:
    """Return the grouping that a query is; None if it is another kind of query."""
    lines = child_trees(tree)
    clauses = child_trees(lines[0]) if len(lines) == 1 and lines[0].data == "single" else []
    if [one.data for one in clauses] != ["match", "returning"]:
        return None
    match, projection = clauses[0], child_trees(clauses[1])[0]
    patterns = child_trees(child_trees(match)[0])
    nodes = child_trees(patterns[0]) if len(patterns) == 1 else []
    name = (
        next((name_of(one) for one in child_trees(nodes[0]) if one.data == "variable"), "")
        if len(nodes) == 1
        else ""
    )
    if not (has_aggregate(projection) or "DISTINCT" in word_kinds(projection)):
        return None
    keys: dict[str, str] = {}
    returned = _without(expressions, projection, name, keys)
    if returned is None or not 0 < len(keys) <= COLUMNS:
        return None
    return Grouping(match, returned, keys)


def _without(
    expressions: Expressions, tree: Tree[Token], name: str, keys: dict[str, str]
) -> Tree[Token] | None:
    """Return a tree with names in the place of the node's properties; None where the node itself, or the order of
    rows, counts."""
    of = child_trees(tree)
    if tree.data == "access" and of[0].data == "whole" and name_of(child_trees(of[0])[0]) == name:
        source = expressions.text_of(tree)
        keys[source] = name_of(of[1])
        return Tree("whole", [Tree("variable", [Token("NAME", f"`{source}`")])], tree.meta)
    if (
        tree.data == "count_some"
        and "DISTINCT" not in word_kinds(tree)
        and of[0].data == "whole"
        and name_of(child_trees(of[0])[0]) == name
    ):
        return Tree("count_all", [], tree.meta)  # it is never null
    if tree.data in _OTHERS or (tree.data == "whole" and name_of(of[0]) == name):
        return None
    if is_aggregate(tree) and tree.data == "call" and str(tree.children[0]).lower() not in _UNORDERED:
        return None
    children: list[Tree[Token] | Token] = []
    for child in tree.children:
        made = _without(expressions, child, name, keys) if isinstance(child, Tree) else child
        if made is None:
            return None
        children.append(made)
    return Tree(tree.data, children, tree.meta)
