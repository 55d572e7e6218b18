"""Queries run: text and parameters in, rows out. Clauses are steps through which rows go, one after the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput

from dtp.crdt import Node, Value
from dtp.graph.query.budget import Meter, QueryBudget, counted
from dtp.graph.query.errors import QueryError, UnsupportedQuery
from dtp.graph.query.expressions import Bound, Evaluate, Expressions, fault, name_of, trees, words
from dtp.graph.query.grammar import GRAMMAR
from dtp.graph.query.index import Index, Uncovered
from dtp.graph.query.matching import Match
from dtp.graph.query.pattern import Pattern
from dtp.graph.query.projection import Projection
from dtp.graph.query.semantics import NodeRef, Path, Relation, same_key, shown, truth

if TYPE_CHECKING:
    from dtp.crdt import Replica

#: A row of a result: the columns by name.
Row = dict[str, Any]
#: What begins a clause that writes, or another that isn't there.
_NOT_HERE = ("CREATE", "MERGE", "SET", "DELETE", "DETACH", "REMOVE", "FOREACH", "LOAD", "USE", "EXISTS",
             "shortestPath", "allShortestPaths")  # fmt: skip
#: Words that people misspell.
_WORDS = (
    "MATCH", "OPTIONAL", "WHERE", "RETURN", "WITH", "UNWIND", "ORDER", "SKIP", "LIMIT", "DISTINCT", "UNION", "CALL",
    "YIELD", "STARTS", "ENDS", "CONTAINS", "CASE", "WHEN", "THEN", "ELSE", "END", "DESC", "AND", "NOT",
)  # fmt: skip
#: What a query may take that isn't told.
_USUAL = QueryBudget()
#: The one procedure, as Neo4j calls it.
SEARCH = "db.index.fulltext.querynodes"


class _Step(Protocol):
    """A clause. `scope` are the names that its rows have."""

    scope: frozenset[str]

    def run(self, rows: Iterator[Bound]) -> Iterator[Bound]: ...


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", maybe_placeholders=False, propagate_positions=True)


@lru_cache(maxsize=256)
def _parsed(text: str) -> Tree[Token]:
    try:
        return _parser().parse(text)
    except UnexpectedInput as error:
        place = f"line {error.line}, column {error.column}:\n{error.get_context(text, 40).rstrip()}"
        before = text[: max(0, error.pos_in_stream or 0)]
        found = re.match(r"\w*", text[len(before) :])
        word = found[0] if found else ""
        for one in _NOT_HERE:
            if re.search(rf"(?<![.:`$\w]){one}\b", before + word, re.IGNORECASE):
                raise UnsupportedQuery(f"not understood at {place}\n{one} is not supported") from error
        meant = get_close_matches(word.upper(), _WORDS, 1) if word.upper() not in _WORDS else []
        hint = f"\ndid you mean {meant[0]}?" if meant else ""
        raise QueryError(f"not understood at {place}{hint}") from error


class _Unwind:
    """UNWIND: a row for each item of a list."""

    def __init__(self, expressions: Expressions, clause: Tree[Token], scope: frozenset[str]) -> None:
        what, variable = trees(clause)
        self._items = expressions.compile(what, scope)
        self._step = expressions.meter.step
        self._name = name_of(variable)
        if self._name in scope:
            raise fault(f"{self._name} stands for something already", clause)
        self.scope = scope | {self._name}

    def run(self, rows: Iterator[Bound]) -> Iterator[Bound]:
        for row in rows:
            found = self._items(row)
            for item in found if isinstance(found, list) else () if found is None else (found,):
                self._step()
                yield {**row, self._name: item}


class _Filter:
    """WHERE behind YIELD."""

    def __init__(self, expressions: Expressions, where: Tree[Token], scope: frozenset[str]) -> None:
        self._condition = expressions.compile(trees(where)[-1], scope)
        self.scope = scope

    def run(self, rows: Iterator[Bound]) -> Iterator[Bound]:
        return (row for row in rows if truth(self._condition(row)) is True)


class _Search:
    """CALL db.index.fulltext.queryNodes(index, query) YIELD node, score."""

    def __init__(
        self, expressions: Expressions, index: Index, clause: Tree[Token], scope: frozenset[str]
    ) -> None:
        procedure, *arguments = trees(clause)
        name = ".".join(str(token) for token in procedure.children)
        yielded = arguments.pop() if arguments and arguments[-1].data == "yield_" else None
        if name.lower() != SEARCH:
            raise fault(
                f"there is no procedure {name}; there is db.index.fulltext.queryNodes",
                clause,
                UnsupportedQuery,
            )
        if len(arguments) != 2 or yielded is None:
            raise fault(f"{name}(index, query) takes two texts and has YIELD node, score behind it", clause)
        self._index = index
        self._arguments = [expressions.compile(one, scope) for one in arguments]
        self._names: list[tuple[str, str]] = []
        for item in (one for one in trees(yielded) if one.data == "item"):
            what, *alias = trees(item)
            source = expressions.source(what)
            name = name_of(alias[0]) if alias else source
            if source not in ("node", "score") or name in scope or any(name == n for _, n in self._names):
                raise fault(f"{SEARCH} yields node and score, each under a name that is new", item)
            self._names.append((source, name))
        self.scope = scope | {name for _, name in self._names}

    def run(self, rows: Iterator[Bound]) -> Iterator[Bound]:
        for row in rows:
            index, query = (argument(row) for argument in self._arguments)
            if not isinstance(index, str) or not isinstance(query, str):
                raise QueryError(f"the index and the query are texts, not {shown(index)} and {shown(query)}")
            for soul, score in self._index.search(index, query):
                there = {"node": NodeRef(soul), "score": score}
                yield {**row, **{name: there[source] for source, name in self._names}}


class _Single:
    """One query without UNION: its steps and the columns that it returns."""

    def __init__(self, expressions: Expressions, index: Index, tree: Tree[Token]) -> None:
        self._expressions = expressions
        self._index = index
        self.steps: list[_Step] = []
        self.matches: list[Match] = []
        scope: frozenset[str] = frozenset()
        expressions.kinds = {}
        clauses = trees(tree)
        if not clauses or clauses[-1].data != "returning":
            raise fault("a query ends with RETURN", clauses[-1] if clauses else tree)
        *clauses, returning = clauses
        at = 0
        while at < len(clauses):
            together = [clauses[at]]
            if clauses[at].data == "match":  # several in a row are one SELECT
                together += _while_match(clauses[at + 1 :], expressions)
            for step in self._compiled(together, scope):
                self.steps.append(step)
                scope = step.scope
            at += len(together)
        projection = Projection(expressions, trees(returning)[0], scope, ends=True)
        self.steps.append(projection)
        self.columns = projection.columns

    def _compiled(self, clauses: list[Tree[Token]], scope: frozenset[str]) -> Iterator[_Step]:
        clause = clauses[0]
        if clause.data in ("match", "optional"):
            match = Match(self._expressions, self._index, clauses, scope, clause.data == "optional")
            self.matches.append(match)
            yield match
            return
        if clause.data == "unwind":
            yield _Unwind(self._expressions, clause, scope)
            return
        below = trees(clause)[-1] if clause.data == "call_" else clause
        where = next((one for one in trees(below) if one.data == "where"), None)
        if clause.data == "with_":
            yield Projection(self._expressions, trees(clause)[0], scope, ends=False, where=where)
            return
        search = _Search(self._expressions, self._index, clause, scope)
        yield search
        if where is not None:
            yield _Filter(self._expressions, where, search.scope)

    def run(self) -> Iterator[Bound]:
        """The rows."""
        rows: Iterator[Bound] = iter([{}])
        for step in self.steps:
            rows = step.run(rows)
        return rows


def _while_match(clauses: Iterable[Tree[Token]], expressions: Expressions) -> Iterator[Tree[Token]]:
    for clause in clauses:
        if clause.data != "match":
            return
        yield clause


def _bounded(rows: Iterable[Bound], meter: Meter) -> Iterator[Bound]:
    for count, row in enumerate(rows, 1):
        meter.count_rows(count)
        yield row


class Queries:
    """What answers queries about a replica."""

    def __init__(
        self,
        replica: Replica,
        revealed: Callable[[], Iterable[str]] = tuple,
        *,
        ask: Callable[..., Any] | None = None,
    ) -> None:
        """See `Index`."""
        self.index = Index(replica, revealed, ask=ask)
        self._replica = replica

    def run(
        self,
        text: str,
        parameters: Mapping[str, Value],
        budget: QueryBudget = _USUAL,
        *,
        given_up: Callable[[], bool] | None = None,
    ) -> list[Row]:
        """The rows of a query. Raises `QueryError`."""
        meter = Meter(budget, given_up=given_up)
        parts, once, matches = self._compile(text, parameters, meter)
        self.index.prepare([match.pattern() for match in matches])
        meter.begin()
        try:
            return self._rows(parts, once, meter)
        except Uncovered:
            self.index.prepare([None])
            return self._rows(parts, once, meter)

    def _rows(self, parts: list[_Single], once: bool, meter: Meter) -> list[Row]:
        try:
            with self.index.metered(meter):
                found = list(_bounded((row for part in parts for row in part.run()), meter))
                if once:
                    kept: dict[Any, Bound] = {}
                    for row in found:
                        kept.setdefault(tuple(same_key(row[name]) for name in parts[0].columns), row)
                    found = list(kept.values())
                return [{name: self._shown(row[name]) for name in parts[0].columns} for row in found]
        except (RecursionError, MemoryError, OverflowError) as error:
            raise QueryError(f"this can't be worked out: {error}") from error

    def plan(self, text: str, parameters: Mapping[str, Value]) -> str:
        """The SELECTs of a query's MATCHes, and how SQLite goes about each. Names bound before are null there."""
        parts, _, _ = self._compile(text, parameters, Meter(_USUAL))
        self.index.refresh()
        lines: list[str] = []
        for match in (match for part in parts for match in part.matches):
            sql, values = match.example()
            lines.append(sql)
            lines += [step[3] for step in self.index.rows(f"EXPLAIN QUERY PLAN {sql}", values, Pattern)]
        return "\n".join(lines)

    def _compile(
        self, text: str, parameters: Mapping[str, Value], meter: Meter
    ) -> tuple[list[_Single], bool, list[Match]]:
        """The parts of a UNION, whether rows that are the same are one, and all MATCHes, also in expressions."""
        tree = _parsed(text)
        expressions = Expressions(text, parameters, self.index, meter)
        within: list[Match] = []

        def matcher(clause: Tree[Token], scope: frozenset[str]) -> Match:
            within.append(Match(expressions, self.index, [clause], scope, False))
            return within[-1]

        expressions.matcher = matcher
        try:
            parts = [_Single(expressions, self.index, one) for one in trees(tree) if one.data == "single"]
        except RecursionError as error:
            raise QueryError("this query is nested too deeply") from error
        unions = [bool(trees(one)) for one in trees(tree) if one.data == "union"]
        if len(set(unions)) > 1:
            raise QueryError("UNION and UNION ALL can't be mixed in one query")
        if any(part.columns != parts[0].columns for part in parts):
            raise QueryError("all parts of a UNION return columns of the same names, in the same order")
        expressions.check_used()
        return parts, bool(unions) and not unions[0], [one for part in parts for one in part.matches] + within

    def _shown(self, value: Any) -> Any:
        """A value as a result has it: nodes are `Node`."""
        if isinstance(value, NodeRef):
            return Node(self._replica, value.soul)
        if isinstance(value, Path):
            return Path(tuple(self._shown(node) for node in value.nodes), value.relationships)
        if isinstance(value, list):
            return [self._shown(item) for item in counted(value)]
        if isinstance(value, dict):
            return {key: self._shown(item) for key, item in counted(value.items())}
        return value


__all__ = ["Evaluate", "Queries", "Relation", "Row", "words"]
