"""Clauses are steps through which rows go, one after the other; a query is one or more lines of them, by UNION."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

from lark import Token, Tree

from dtp.graph.query.compiling.expressions import Expressions
from dtp.graph.query.compiling.grouping import grouping_of
from dtp.graph.query.compiling.matching import Match
from dtp.graph.query.compiling.projection import Projection
from dtp.graph.query.compiling.scanning import counted_match
from dtp.graph.query.compiling.syntax import Bound, child_trees, error_at, has_aggregate, name_of, word_kinds
from dtp.graph.query.errors import QueryError, UnsupportedQuery
from dtp.graph.query.lookup.index import Index
from dtp.graph.query.plan import PlanStep
from dtp.graph.query.values.semantics import NodeRef, describe_value, same_key, to_truth

#: The one procedure, as Neo4j calls it.
_SEARCH: Final = "db.index.fulltext.querynodes"


class _Step(Protocol):
    """A clause. `scope` are the names that its rows have."""

    @property
    def scope(self) -> frozenset[str]: ...

    def run(self, rows: Iterator[Bound]) -> Iterator[Bound]: ...


class _Unwind:
    """UNWIND: a row for each item of a list."""

    def __init__(self, expressions: Expressions, clause: Tree[Token], scope: frozenset[str]) -> None:
        what, variable = child_trees(clause)
        self._items = expressions.compile(what, scope)
        self._step = expressions.meter.count_step
        self._name = name_of(variable)
        if self._name in scope:
            raise error_at(f"{self._name} has a meaning already", clause)
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
        self._condition = expressions.compile(child_trees(where)[-1], scope)
        self.scope = scope

    def run(self, rows: Iterator[Bound]) -> Iterator[Bound]:
        return (row for row in rows if to_truth(self._condition(row)) is True)


class _Search:
    """CALL db.index.fulltext.queryNodes(index, query) YIELD node, score."""

    def __init__(
        self, expressions: Expressions, index: Index, clause: Tree[Token], scope: frozenset[str]
    ) -> None:
        procedure, *arguments = child_trees(clause)
        name = ".".join(str(token) for token in procedure.children)
        yielded = arguments.pop() if arguments and arguments[-1].data == "yield_" else None
        if name.lower() != _SEARCH:
            raise error_at(
                f"there is no procedure {name}; there is db.index.fulltext.queryNodes",
                clause,
                UnsupportedQuery,
            )
        if len(arguments) != 2 or yielded is None:
            raise error_at(
                f"{name}(index, query) takes two texts and has YIELD node, score behind it", clause
            )
        self._index = index
        self._arguments = [expressions.compile(one, scope) for one in arguments]
        self._names: list[tuple[str, str]] = []
        for item in (one for one in child_trees(yielded) if one.data == "item"):
            what, *alias = child_trees(item)
            source = expressions.source_of(what)
            name = name_of(alias[0]) if alias else source
            if source not in ("node", "score") or name in scope or any(name == n for _, n in self._names):
                raise error_at(f"{_SEARCH} yields node and score, each under a name that is new", item)
            self._names.append((source, name))
        self.scope = scope | {name for _, name in self._names}
        index.expect_pattern(getattr(clause.meta, "start_pos", None), index.searched_pattern)

    def run(self, rows: Iterator[Bound]) -> Iterator[Bound]:
        for row in rows:
            index, query = (argument(row) for argument in self._arguments)
            if not isinstance(index, str) or not isinstance(query, str):
                raise QueryError(
                    f"the index and the query are texts, not {describe_value(index)} and {describe_value(query)}"
                )
            for soul, score in self._index.search_text(index, query):
                there = {"node": NodeRef(soul), "score": score}
                yield {**row, **{name: there[source] for source, name in self._names}}


class _Call:
    """CALL { }: for each row those of another query."""

    def __init__(
        self, expressions: Expressions, index: Index, clause: Tree[Token], scope: frozenset[str]
    ) -> None:
        *imports, inner = child_trees(clause)
        if not imports:
            self._query = Query(expressions, index, inner, imports=scope, named=True)
        else:
            self._query = Query(expressions, index, inner, _imported(imports[0], scope), named=True)
        again = sorted(scope & set(self._query.columns))
        if again:
            raise error_at(f"{again[0]} has a meaning already; give the new one another name by AS", clause)
        expressions.kinds.update(self._query.kinds)
        self._step = expressions.meter.count_step
        self.scope = scope | set(self._query.columns)

    def run(self, rows: Iterator[Bound]) -> Iterator[Bound]:
        for row in rows:
            for one in self._query.run(row):
                self._step()
                yield {**row, **one}


def _imported(tree: Tree[Token], scope: frozenset[str]) -> frozenset[str]:
    """Return the names between the parentheses of CALL (a, b) { }."""
    if any(one.data == "star" for one in child_trees(tree)):
        return scope
    names = [name_of(one) for one in child_trees(tree)]
    missing = next((name for name in names if name not in scope), None)
    if missing is not None:
        raise error_at(f"{missing} is not defined here", tree)
    return frozenset(names)


def _first_imports(clause: Tree[Token], scope: frozenset[str]) -> frozenset[str] | None:
    """Return what `WITH a, b` at the beginning of CALL { } takes from the query around it; None when it is no such
    one."""
    if clause.data != "with_" or len(child_trees(clause)) != 1:
        return None
    projection = child_trees(clause)[0]
    if word_kinds(projection) or len(child_trees(projection)) != 1:
        return None
    items = child_trees(child_trees(projection)[0])
    if any(one.data == "star" for one in items):
        return scope
    if any(len(child_trees(one)) != 1 or child_trees(one)[0].data != "whole" for one in items):
        return None
    names = frozenset(name_of(child_trees(child_trees(one)[0])[0]) for one in items)
    return names if names <= scope else None


class _Line:
    """One query without UNION: its steps and the columns that it returns. See `Query`."""

    def __init__(
        self,
        expressions: Expressions,
        index: Index,
        tree: Tree[Token],
        outer: frozenset[str],
        imports: frozenset[str],
        *,
        named: bool,
        returns: bool,
    ) -> None:
        self._expressions = expressions
        self._index = index
        self._outer = outer
        self.steps: list[_Step] = []
        #: Of clauses, by the place behind the last of their steps.
        self._plans: dict[int, PlanStep] = {}
        self.columns: list[str] = []
        clauses = child_trees(tree)
        if returns and (not clauses or clauses[-1].data != "returning"):
            raise error_at("a query ends with RETURN", clauses[-1] if clauses else tree)
        self._begin = outer
        if clauses and imports and (first := _first_imports(clauses[0], imports)) is not None:
            self._begin = first
            del clauses[0]
        scope = self._begin
        expressions.kinds = {name: kind for name, kind in expressions.kinds.items() if name in scope}
        returning = clauses.pop() if clauses and clauses[-1].data == "returning" else None
        while clauses:
            together = [clauses.pop(0)]
            while together[0].data == _kind_of_first(clauses) == "match":  # several in a row are one SELECT
                together.append(clauses.pop(0))
            operator, details = _told(expressions, together)
            with expressions.plan_step(operator, details) as plan:
                for step in self._compile_clauses(together, scope):
                    self.steps.append(step)
                    scope = step.scope | outer
            plan.match = step if isinstance(step, Match) else None
            self._plans[len(self.steps)] = plan
        if returning is not None:
            operator, details = _told(expressions, [returning])
            with expressions.plan_step(operator, details) as plan:
                projection = Projection(expressions, child_trees(returning)[0], scope, ends=not named)
            if (
                len(self.steps) == 1
                and isinstance(self.steps[0], Match)
                and (wanted := projection.top_rows())
            ):
                name, key, down, most = wanted
                self.steps[0].keep_first(name, key, down=down, most=most)
            self.steps.append(projection)
            self._plans[len(self.steps)] = plan
            self.columns = projection.columns

    def _compile_clauses(self, clauses: list[Tree[Token]], scope: frozenset[str]) -> Iterator[_Step]:
        expressions, clause = self._expressions, clauses[0]
        if clause.data in ("match", "optional"):
            yield expressions.matcher(clauses, scope, clause.data == "optional")
        elif clause.data == "unwind":
            yield _Unwind(expressions, clause, scope)
        elif clause.data == "call_in":
            yield _Call(expressions, self._index, clause, scope)
        elif clause.data == "with_":
            yield from self._compile_with(clause, scope)
        else:
            search = _Search(expressions, self._index, clause, scope)
            yield search
            where = next((one for one in child_trees(child_trees(clause)[-1]) if one.data == "where"), None)
            if where is not None:
                yield _Filter(expressions, where, search.scope)

    def _compile_with(self, clause: Tree[Token], scope: frozenset[str]) -> Iterator[_Step]:
        what, *where = child_trees(clause)
        # in a subquery WHERE knows the names around it, also behind groups
        later = bool(self._outer) and ("DISTINCT" in word_kinds(what) or has_aggregate(what))
        projection = Projection(
            self._expressions, what, scope, ends=False, where=where[0] if where and not later else None
        )
        for name, tree in projection.named:
            if name in self._outer and not (tree is None or _is_name(tree, name)):
                raise error_at(f"{name} stands for something around this query; give it another name", tree)
        yield projection
        if where and later:
            yield _Filter(self._expressions, where[0], projection.scope | self._outer)

    def run(self, row: Bound) -> Iterator[Bound]:
        """Yield its rows for one of the query around it."""
        rows: Iterator[Bound] = iter([{name: row[name] for name in self._begin}])
        kept = {name: row[name] for name in self._outer}
        expressions = self._expressions
        for place, step in enumerate(self.steps, 1):
            rows = step.run(rows)
            if expressions.profiling and place in self._plans:
                rows = self._plans[place].count_rows(rows, expressions.meter)
            if kept and isinstance(step, Projection) and step is not self.steps[-1]:
                rows = _kept(kept, rows)
        return rows


def _told(expressions: Expressions, clauses: list[Tree[Token]]) -> tuple[str, str]:
    """Return what clauses are called, and the rest of them."""
    text = " ".join(expressions.source_of(one) for one in clauses)
    text = text.partition("{")[0].rstrip() if clauses[0].data == "call_in" else text
    words = 2 if clauses[0].data == "optional" else 1
    parts = text.split(" ", words)
    return " ".join(parts[:words]).upper(), " ".join(parts[words:])


def _kind_of_first(clauses: list[Tree[Token]]) -> str:
    """Return the kind of the first of them, "" when there is none."""
    return str(clauses[0].data) if clauses else ""


def _is_name(tree: Tree[Token], name: str) -> bool:
    return tree.data == "whole" and name_of(child_trees(tree)[0]) == name


def _kept(kept: Bound, rows: Iterator[Bound]) -> Iterator[Bound]:
    return ({**kept, **row} for row in rows)


class Query:
    """A query that was compiled, or one in braces within another.

    `outer` are the names around it, which it knows everywhere; `imports` those that a first `WITH a, b` can take.
    `named`: each column has a name by AS or is one; `returns`: it has to end with RETURN.
    """

    def __init__(
        self,
        expressions: Expressions,
        index: Index,
        tree: Tree[Token],
        outer: frozenset[str] = frozenset(),
        *,
        imports: frozenset[str] = frozenset(),
        named: bool = False,
        returns: bool = True,
    ) -> None:
        #: Its parts by UNION.
        self.lines: list[_Line] = []
        #: Of what kind columns are, as far as that is known.
        self.kinds: dict[str, str] = {}
        for one in (one for one in child_trees(tree) if one.data == "single"):
            if self.lines:
                with expressions.plan_step("UNION", ""):
                    pass
            with expressions.with_unknown_names():
                line = _Line(expressions, index, one, outer, imports, named=named, returns=returns)
                kinds = expressions.kinds
            self.kinds = (
                kinds if not self.lines else {k: v for k, v in self.kinds.items() if kinds.get(k) == v}
            )
            self.lines.append(line)
        unions = [bool(child_trees(one)) for one in child_trees(tree) if one.data == "union"]
        if len(set(unions)) > 1:
            raise QueryError("UNION and UNION ALL can't be mixed in one query")
        self.columns = self.lines[0].columns
        if any(line.columns != self.columns for line in self.lines):
            raise QueryError("all parts of a UNION return columns of the same names, in the same order")
        self._once = bool(unions) and not unions[0]
        #: The MATCH of a query that only counts its rows, else None.
        self.counts = counted_match(tree)
        #: What it groups or aggregates, where that is properties of one node, else None.
        self.grouping = grouping_of(expressions, tree) if returns else None

    def run(self, row: Bound) -> Iterator[Bound]:
        """Yield its rows, for one of the query around it."""
        rows = (one for line in self.lines for one in line.run(row))
        return self._distinct_rows(rows) if self._once else rows

    def _distinct_rows(self, rows: Iterator[Bound]) -> Iterator[Bound]:
        seen: set[Any] = set()
        for row in rows:
            same = tuple(same_key(row[name]) for name in self.columns)
            if same not in seen:
                seen.add(same)
                yield row
