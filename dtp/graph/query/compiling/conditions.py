"""What a SELECT says of its rows, and the values in it, which are worked out for each row that comes in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from lark import Token, Tree

from dtp.graph.query.compiling.syntax import Bound, Evaluate, child_trees
from dtp.graph.query.errors import QueryError
from dtp.graph.query.lookup.tables import to_column
from dtp.graph.query.values.semantics import NodeRef, Relation
from dtp.graph.query.values.temporal import TEMPORAL_FUNCTIONS


@dataclass
class Condition:
    """What holds of a row of the SELECT.

    `{}` stand for the values, which are worked out for each row that comes in; when `fits` refuses one, the condition
    is left out: then something else checks it.
    """

    sql: str
    values: tuple[Evaluate, ...] = ()
    table: str = ""
    fits: Callable[[Any], bool] = lambda value: True
    #: What the value is compared with, and how: a property by its key, or (None) the soul; "IN": an item of the
    #: property. Only said where it has the same outcome each time.
    about: tuple[str | None, str] | None = None
    #: Whether the values stand as they are: souls, keys and phrases, and no values of properties.
    plain: bool = False


def fill_condition(condition: Condition, row: Bound, values: list[Any]) -> str | None:
    """Return its text, with numbered parameters; None when the values don't suit the index."""
    found = [value(row) for value in condition.values]
    if not all(condition.fits(one) for one in found):
        return None
    places = []
    for one in found:
        values.append(one if condition.plain else to_column(one))
        places.append(f"?{len(values)}")
    return condition.sql.format(*places)


def conjuncts(tree: Tree[Token]) -> Iterator[Tree[Token]]:
    """Yield what AND is said between."""
    if tree.data == "and_":
        for one in child_trees(tree):
            yield from conjuncts(one)
    else:
        yield tree


class NotKnown(Exception):
    """A value depends on rows that are still to come."""


class Nothing(dict[str, Any]):
    """A row of which nothing is known."""

    def __missing__(self, name: str) -> Any:
        raise NotKnown


#: Functions that have the same outcome for the same arguments; others may not.
_STEADY: Final = frozenset(
    (
        "id",
        "tolower",
        "toupper",
        "tostring",
        "tointeger",
        "tofloat",
        "trim",
        "abs",
        "size",
        *TEMPORAL_FUNCTIONS,
    )
)


#: What else such expressions are made of.
_VALUES: Final = ("parameter", "literal", "integer", "real", "text", "true", "false", "null", "list_")
_PLAIN: Final = frozenset(
    (
        *_VALUES,
        "whole",
        "variable",
        "name",
        "access",
        "at",
        "neg",
        "pos",
        "add",
        "sub",
        "mul",
        "div",
        "mod",
        "pow",
    )
)


def is_steady(tree: Tree[Token]) -> bool:
    """Return whether an expression has the same outcome each time for the same row."""
    return all(
        one.data in _PLAIN or (one.data == "call" and str(one.children[0]).lower() in _STEADY)
        for one in tree.iter_subtrees()
    )


def constant_value(value: Any) -> Evaluate:
    """Return the same for any row."""
    return lambda row: value


def soul_at(name: str, kind: type[NodeRef]) -> Evaluate:
    """Return what gives the soul of the node that a name stands for, and raises `QueryError` for anything else."""

    def soul(row: Bound) -> str:
        value = row[name]
        if not isinstance(value, kind):
            raise QueryError(f"{name} is not a node")
        return value.soul

    return soul


def part_at(name: str, column: str) -> Evaluate:
    """Return what gives a part of the relationship that a name stands for; it raises `QueryError` for others."""

    def read(row: Bound) -> str:
        value = row[name]
        if not isinstance(value, Relation):
            raise QueryError(f"{name} is not a relationship")
        return str(getattr(value, column))

    return read


def soul_of(value: Evaluate) -> Evaluate:
    """Return a node's soul; of all else the value."""

    def soul(row: Bound) -> Any:
        found = value(row)
        return found.soul if isinstance(found, NodeRef) else found

    return soul


def text_after(value: Evaluate) -> Evaluate:
    """Return the first text behind all that begin with this one; None when there is none."""

    def after(row: Bound) -> str | None:
        found = value(row)
        text = found.rstrip("\U0010ffff") if isinstance(found, str) else ""
        if not text:
            return None
        code = ord(text[-1]) + 1
        return text[:-1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)

    return after


def as_phrase(value: Evaluate) -> Evaluate:
    """Return text as FTS5 quotes it; None for what is too short for trigrams."""

    def phrase(row: Bound) -> str | None:
        found = value(row)
        if not isinstance(found, str) or len(found) < 3 or "\0" in found:
            return None
        return '"' + found.replace('"', '""') + '"'

    return phrase


def quote_text(text: str) -> str:
    """Return a name of the query's as a text of SQLite's: partial indexes are found by constants only."""
    if "\0" in text:
        raise QueryError("a name can't have a NUL in it")
    return "'" + text.replace("'", "''").replace("{", "{{").replace("}", "}}") + "'"


def link_condition(alias: str, left: str, right: str, direction: str) -> str:
    """Return the condition that a link leads from one node to another, "right", "left" or "both"."""
    forwards = f"{alias}.soul = {left}.soul AND {alias}.target = {right}.soul"
    backwards = f"{alias}.target = {left}.soul AND {alias}.soul = {right}.soul"
    if direction == "both":
        return f"(({forwards}) OR ({backwards}))"
    return forwards if direction == "right" else backwards
