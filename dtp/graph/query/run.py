"""Queries run: text and parameters in, rows out. Clauses are steps through which rows go, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lark import Token, Tree

from dtp.crdt import Node, Value
from dtp.crdt.temporal import TEMPORAL, to_python
from dtp.graph.query.budget import Meter, QueryBudget, count_items
from dtp.graph.query.compiling.clauses import Query
from dtp.graph.query.compiling.expressions import AS_THEY_ARE, Expressions
from dtp.graph.query.compiling.matching import Match
from dtp.graph.query.compiling.scanning import scan_of
from dtp.graph.query.compiling.syntax import Bound, child_trees, word_kinds
from dtp.graph.query.errors import QueryError
from dtp.graph.query.lookup.index import Index
from dtp.graph.query.lookup.pattern import Pattern
from dtp.graph.query.parsing import parse
from dtp.graph.query.plan import rows_of_plan
from dtp.graph.query.values.semantics import NodeRef, Path

if TYPE_CHECKING:
    from dtp.crdt import Replica

#: A row of a result: the columns by name.
Row = dict[str, Any]
#: What a query may take that isn't told.
_USUAL = QueryBudget()


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
        """Answer what is asked of a replica; `revealed` and `ask` are those of `Index`."""
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
        """Return the rows of a query. Raises `QueryError`."""
        meter = Meter(budget, given_up=given_up)
        query, expressions = self._compile_query(text, parameters, meter)
        meter.begin()
        counted = self._count_pattern(query, expressions, meter)
        if counted is not None:
            return [counted]
        try:
            grouped = self._group_pattern(query, expressions, meter)
            if grouped is not None:
                return grouped
            self.index.prepare_query()
            meter.begin()
            with self.index.count_with(meter):
                if expressions.mode:
                    if expressions.profiling:
                        for _ in _bounded(query.run({}), meter):
                            pass
                    return rows_of_plan(expressions.plan, self.index, profile=expressions.profiling)
                return self._to_results(query, query.run({}), meter)
        except (RecursionError, MemoryError, OverflowError) as error:
            raise QueryError(f"this can't be worked out: {error}") from error

    def _to_results(self, query: Query, rows: Iterator[Bound], meter: Meter) -> list[Row]:
        return [
            {name: self._to_result(row[name]) for name in query.columns}
            for row in list(_bounded(rows, meter))
        ]

    def _group_pattern(self, query: Query, expressions: Expressions, meter: Meter) -> list[Row] | None:
        """Return the rows of a query that groups by properties, where the core can give these."""
        asked = None if expressions.mode else query.grouping
        scan = None if asked is None else scan_of(expressions, asked.match)
        if asked is None or scan is None or scan.nodes != 1:
            return None
        found = self.index.scanner.count_groups(scan, asked.keys.values(), meter)
        if found is None:
            return None
        with self.index.count_with(meter):
            return self._to_results(query, asked.project_rows(expressions, found), meter)

    def _count_pattern(self, query: Query, expressions: Expressions, meter: Meter) -> Row | None:
        """Return the row of a query that only counts how often a pattern is there, where the core can."""
        asked = None if expressions.mode else query.counts
        scan = None if asked is None else scan_of(expressions, asked)
        if scan is None or (scan.is_known_elsewhere and scan.first is None):
            return None
        total = self.index.scanner.count_matches(scan, meter)
        return None if total is None else dict.fromkeys(query.columns, total)

    def explain_query(self, text: str, parameters: Mapping[str, Value]) -> str:
        """Return the SELECTs of a query's MATCHes, and how SQLite goes about each. Names bound before are null
        there."""
        _, expressions = self._compile_query(text, parameters, Meter(_USUAL))
        self.index.refresh()
        lines: list[str] = []
        for match in (step.match for step in expressions.plan if step.match is not None):
            sql, values = match.example_select()
            lines.append(sql)
            lines += [
                step[3] for step in self.index.select_rows(f"EXPLAIN QUERY PLAN {sql}", values, Pattern)
            ]
        return "\n".join(lines)

    def _compile_query(
        self, text: str, parameters: Mapping[str, Value], meter: Meter
    ) -> tuple[Query, Expressions]:
        """Return the query, and what compiled it, which has its plan."""
        self.index.begin_query()
        expressions = Expressions(text, parameters, self.index, meter)

        def matcher(clauses: list[Tree[Token]], scope: frozenset[str], optional: bool) -> Match:
            return Match(expressions, self.index, clauses, scope, optional)

        def subquery(tree: Tree[Token], scope: frozenset[str]) -> Query:
            return Query(expressions, self.index, tree, scope, returns=False)

        expressions.matcher, expressions.subquery = matcher, subquery
        try:
            tree = parse(text)
            expressions.mode = next(iter(word_kinds(tree)), "")
            query = Query(expressions, self.index, child_trees(tree)[0])
        except RecursionError as error:
            raise QueryError("this query is nested too deeply") from error
        expressions.check_used()
        return query, expressions

    def _to_result(self, value: Any) -> Any:
        """Return a value as a result has it: nodes are `Node`."""
        if type(value) in AS_THEY_ARE:
            return value
        if isinstance(value, NodeRef):
            return Node(self._replica, value.soul)
        if isinstance(value, Path):
            return Path(tuple(self._to_result(node) for node in value.nodes), value.relationships)
        if isinstance(value, list):
            return [self._to_result(item) for item in count_items(value)]
        if isinstance(value, dict):
            return {key: self._to_result(item) for key, item in count_items(value.items())}
        if isinstance(value, TEMPORAL):
            return to_python(value)
        return value
