"""What trees of queries are made of: names, words, places, and what an expression becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from lark import Token, Tree

from dtp.graph.query.errors import QueryError
from dtp.graph.query.values.functions import AGGREGATES, PERCENTILES

#: Names to values.
Bound = dict[str, Any]
#: What an expression becomes.
Evaluate = Callable[[Bound], Any]

#: Queries within expressions: what aggregates stand for there is their own business.
SUBQUERIES: Final = frozenset({"exists_in", "count_in", "collect_in"})


def child_trees(tree: Tree[Token]) -> list[Tree[Token]]:
    """Return the children that are trees."""
    return [child for child in tree.children if isinstance(child, Tree)]


def word_kinds(tree: Tree[Token]) -> set[str]:
    """Return the kinds of the children that are words."""
    return {child.type for child in tree.children if isinstance(child, Token)}


def name_of(tree: Tree[Token] | Token) -> str:
    """Return a name as it is meant: without the backticks."""
    text = str(tree if isinstance(tree, Token) else tree.children[0])
    return text[1:-1] if text.startswith("`") else text


def label_names(tree: Tree[Token]) -> list[str]:
    """Return the names of which `:a|b` wants one."""
    return [name_of(one) for one in child_trees(tree)]


def error_at(
    message: str, where: Tree[Token] | Token | None = None, kind: type[QueryError] = QueryError
) -> QueryError:
    """Return an error that tells its place."""
    meta = getattr(where, "meta", where)
    line, column = getattr(meta, "line", None), getattr(meta, "column", None)
    return kind(f"{message} (line {line}, column {column})" if line else message)


def is_aggregate(tree: Tree[Token]) -> bool:
    """Return whether it is a call of an aggregate."""
    return tree.data in ("count_all", "count_some") or (
        tree.data == "call" and str(tree.children[0]).lower() in (AGGREGATES.keys() | PERCENTILES)
    )


def has_aggregate(tree: Tree[Token]) -> bool:
    """Return whether there is an aggregate in it."""
    if is_aggregate(tree):
        return True
    return tree.data not in SUBQUERIES and any(has_aggregate(one) for one in child_trees(tree))
