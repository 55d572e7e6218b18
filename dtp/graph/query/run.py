"""Queries run: text and parameters in, rows out."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput

from dtp.crdt import Node, Value
from dtp.graph.query.compiler import Compiled, Compiler
from dtp.graph.query.errors import QueryError
from dtp.graph.query.grammar import GRAMMAR
from dtp.graph.query.index import Index, restored

if TYPE_CHECKING:
    from dtp.crdt import Replica

#: A row of a result: the columns by name.
Row = dict[str, Any]


class Relation(NamedTuple):
    """A relationship in a result."""

    soul: str
    key: str
    target: str


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", maybe_placeholders=False, propagate_positions=True)


@lru_cache(maxsize=256)
def _parsed(text: str) -> Tree[Token]:
    try:
        return _parser().parse(text)
    except UnexpectedInput as error:
        raise QueryError(
            f"not understood at line {error.line}, column {error.column}:\n{error.get_context(text, 40).rstrip()}"
        ) from error


def _add(a: Any, b: Any) -> Any:
    """Numbers are added, texts joined, also with numbers."""
    if a is None or b is None:
        return None
    if isinstance(a, str) or isinstance(b, str):
        return f"{a}{b}"
    return a + b


def _power(a: Any, b: Any) -> Any:
    return None if a is None or b is None else float(a) ** float(b)


class Queries:
    """What answers queries about a replica."""

    def __init__(self, replica: Replica) -> None:
        self.index = Index(replica)
        self._replica = replica
        for name, count, function in (
            ("cypher_add", 2, _add),
            ("cypher_pow", 2, _power),
            ("cypher_lower", 1, lambda text: text.lower() if isinstance(text, str) else text),
            ("cypher_upper", 1, lambda text: text.upper() if isinstance(text, str) else text),
        ):
            self.index.db.create_function(name, count, function, deterministic=True)

    def run(self, text: str, parameters: Mapping[str, Value]) -> list[Row]:
        """The rows of a query. Raises `QueryError`."""
        compiled = Compiler(text, parameters).compile(_parsed(text))
        self.index.refresh()
        try:
            rows = self.index.db.execute(compiled.sql, compiled.parameters).fetchall()
        except (sqlite3.Error, OverflowError) as error:
            raise QueryError(f"this can't be worked out: {error}") from error
        return [self._row(compiled, row) for row in rows]

    def plan(self, text: str, parameters: Mapping[str, Value]) -> str:
        """The SQL of a query, and how SQLite goes about it."""
        compiled = Compiler(text, parameters).compile(_parsed(text))
        self.index.refresh()
        steps = self.index.db.execute(f"EXPLAIN QUERY PLAN {compiled.sql}", compiled.parameters)
        return "\n".join([compiled.sql, *(step[3] for step in steps)])

    def _row(self, compiled: Compiled, row: tuple[Any, ...]) -> Row:
        found: Row = {}
        at = 0
        for column in compiled.columns:
            value = row[at]
            at += 1
            if column.shape == "property":
                found[column.name] = restored(value, row[at])
                at += 1
            elif value is None:
                found[column.name] = None
            elif column.shape == "node":
                found[column.name] = Node(self._replica, value)
            elif column.shape == "link":
                found[column.name] = Relation(*json.loads(value))
            elif column.shape == "list":
                found[column.name] = json.loads(value)
            else:
                found[column.name] = bool(value) if column.shape == "bool" else value
        return found
