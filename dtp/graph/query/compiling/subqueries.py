"""Expressions that ask the graph: patterns as conditions and lists, EXISTS {}, COUNT {} and COLLECT {}."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Protocol

from lark import Token, Tree

from dtp.graph.query.compiling.syntax import Bound, Evaluate, child_trees, error_at

if TYPE_CHECKING:
    from dtp.graph.query.compiling.expressions import Expressions


#: A name that no query has.
_PATH: Final = " path"


class Subquery(Protocol):
    """A query within another that was compiled."""

    #: What it returns; none without RETURN.
    columns: list[str]

    def run(self, row: Bound) -> Iterator[Bound]:
        """Yield its rows for one of the query around it."""


def _pattern_there(on: Expressions, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
    with on.with_unknown_names(), on.plan_step("pattern", on.source_of(tree)) as plan:
        match = plan.match = on.matcher([_clause(child_trees(tree), None, tree)], scope, False)
    if match.names:
        raise error_at(
            f"{', '.join(match.names)} is not defined here: a pattern in a condition brings in no names; in "
            "EXISTS { } it does",
            tree,
        )
    return lambda row: next(match.run(iter((row,))), None) is not None


def _pattern_all(on: Expressions, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
    *parts, body = child_trees(tree)
    where = parts.pop() if parts[-1].data == "where" else None
    with on.with_unknown_names(), on.plan_step("pattern", on.source_of(tree)) as plan:
        match = plan.match = on.matcher([_clause(parts, where, tree)], scope, False)
        value = on.compile(body, match.scope)
    return lambda row: [value(one) for one in match.run(iter((row,)))]


def _shortest(on: Expressions, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
    variable: Tree[Token] = Tree("variable", [Token("NAME", _PATH)])
    path: Tree[Token] = Tree("path", [variable], tree.meta)
    with on.with_unknown_names(), on.plan_step("pattern", on.source_of(tree)) as plan:
        match = plan.match = on.matcher([_clause([path, tree], None, tree)], scope, False)
    new = [name for name in match.names if name != _PATH]
    if new:
        raise error_at(
            f"{', '.join(new)} is not defined here: MATCH both ends of a shortest path before", tree
        )
    if str(tree.children[0]).lower().startswith("all"):
        return lambda row: [one[_PATH] for one in match.run(iter((row,)))]
    return lambda row: next((one[_PATH] for one in match.run(iter((row,)))), None)


def _clause(parts: list[Tree[Token]], where: Tree[Token] | None, tree: Tree[Token]) -> Tree[Token]:
    """Return a pattern as a MATCH has it."""
    patterns = Tree("patterns", [Tree("pattern", list(parts), tree.meta)], tree.meta)
    return Tree("match", [patterns] if where is None else [patterns, where], tree.meta)


def _exists_in(on: Expressions, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
    found = _inner(on, tree, scope)
    return lambda row: next(found(row), None) is not None


def _count_in(on: Expressions, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
    found = _inner(on, tree, scope)
    return lambda row: sum(1 for _ in found(row))


def _collect_in(on: Expressions, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
    with on.plan_step("COLLECT", ""):
        query = on.subquery(child_trees(tree)[0], scope)
    if len(query.columns) != 1:
        raise error_at("COLLECT { } returns one column", tree)
    (column,) = query.columns
    return lambda row: [one[column] for one in query.run(row)]


def _inner(on: Expressions, tree: Tree[Token], scope: frozenset[str]) -> Callable[[Bound], Iterator[Bound]]:
    """Return the rows of what stands in the braces, for one of the query around it."""
    (inner,) = child_trees(tree)
    operator = "EXISTS" if tree.data == "exists_in" else "COUNT"
    if inner.data != "match":
        with on.plan_step(operator, ""):
            return on.subquery(inner, scope).run
    with on.with_unknown_names(), on.plan_step(operator, on.source_of(inner)) as plan:
        match = plan.match = on.matcher([inner], scope, False)
    return lambda row: match.run(iter((row,)))


#: Kind of tree -> what compiles it.
SUBQUERIES: Final[dict[str, Callable[[Expressions, Tree[Token], frozenset[str]], Evaluate]]] = {
    "pattern_there": _pattern_there,
    "pattern_all": _pattern_all,
    "shortest": _shortest,
    "exists_in": _exists_in,
    "count_in": _count_in,
    "collect_in": _collect_in,
}
