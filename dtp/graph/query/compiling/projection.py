"""RETURN and WITH: columns, groups and aggregates, DISTINCT, ORDER BY, SKIP and LIMIT."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from lark import Token, Tree

from dtp.graph.query.compiling.expressions import Expressions
from dtp.graph.query.compiling.syntax import (
    SUBQUERIES,
    Bound,
    Evaluate,
    child_trees,
    error_at,
    has_aggregate,
    is_aggregate,
    name_of,
    word_kinds,
)
from dtp.graph.query.compiling.totals import Total
from dtp.graph.query.errors import QueryError
from dtp.graph.query.values.semantics import same_key, sort_key, to_truth

#: Rows of ORDER BY with LIMIT that are kept while others come.
_FEW: Final = 10_000
#: The name under which a row says for how many rows it stands, if not for one. No query's name begins with a blank.
TIMES: Final = " times"
#: Expressions with names of their own; their third part on is done for each item.
_WITH_NAMES = ("comprehension", "quantifier", "reduce")


@dataclass
class _Item:
    """A column. An aggregating one is worked out from a group's rows: its aggregates have names of their own."""

    name: str
    source: str
    value: Evaluate
    tree: Tree[Token] | None = None
    aggregates: dict[str, Callable[[], Total]] = field(default_factory=dict)


class _Group(NamedTuple):
    """The rows that have the same columns: those, the first of them, and what aggregates have of them."""

    columns: tuple[Any, ...]
    first: Bound
    totals: tuple[Total, ...]


class _Down:
    """A key that sorts the other way round."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key

    def __lt__(self, other: _Down) -> bool:
        return bool(other.key < self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Down) and bool(self.key == other.key)

    __hash__ = None  # type: ignore[assignment]


class Projection:
    """One RETURN (`ends`) or WITH."""

    def __init__(
        self,
        expressions: Expressions,
        tree: Tree[Token],
        scope: frozenset[str],
        *,
        ends: bool,
        where: Tree[Token] | None = None,
    ) -> None:
        self._expressions = expressions
        self._before = scope
        self._ends = ends
        parts = {str(one.data): one for one in child_trees(tree)}
        self._distinct = "DISTINCT" in word_kinds(tree)
        self._items = self._compile_columns(parts["items"], scope)
        self.columns = [item.name for item in self._items]
        #: Columns and what they were made of, None for those that `*` stands for.
        self.named = [(item.name, item.tree) for item in self._items]
        repeated = next((name for name in self.columns if self.columns.count(name) > 1), None)
        if repeated is not None:
            raise error_at(f"two columns are called {repeated}; give one another name by AS", tree)
        self.scope = frozenset(self.columns)
        self._grouped = any(item.aggregates for item in self._items)
        for item in self._items:
            if item.tree is not None and item.aggregates:
                self._check_grouped(item.tree)
        self._sorts = (
            [self._compile_sort(one) for one in child_trees(parts["order"])] if "order" in parts else []
        )
        self._parts = parts
        self._skip = self._compile_number(parts["skip"]) if "skip" in parts else None
        self._limit = self._compile_number(parts["limit"]) if "limit" in parts else None
        kinds = {
            item.name: expressions.kind_of(item.tree)
            if item.tree is not None
            else expressions.kinds.get(item.name, "")
            for item in self._items
        }
        self._where = None if where is None else self._over_rows(child_trees(where)[-1])
        expressions.kinds = {name: kind for name, kind in kinds.items() if kind}

    # ---- compiling ------------------------------------------------------------------------------------------

    def _compile_columns(self, tree: Tree[Token], scope: frozenset[str]) -> list[_Item]:
        items: list[_Item] = []
        for item in child_trees(tree):
            if item.data == "star":
                if not scope and self._ends:
                    raise error_at("there is nothing that * could stand for", item)
                items += [_Item(name, name, _named(name)) for name in sorted(scope)]
                continue
            expr, *alias = child_trees(item)
            if expr.data == "pattern_there":
                raise error_at("a pattern is a condition: it stands in WHERE, or in exists()", expr)
            source = self._expressions.source_of(expr)
            if not alias and not self._ends and expr.data != "whole":
                raise error_at(f"give {source} a name by AS", item)
            name = name_of(alias[0]) if alias else self._expressions.column_name(item, expr)
            value, aggregates = self._compile_aggregates(expr, scope)
            items.append(_Item(name, source, value, expr, aggregates))
        return items

    def _compile_aggregates(
        self, expr: Tree[Token], scope: frozenset[str]
    ) -> tuple[Evaluate, dict[str, Callable[[], Total]]]:
        """Return an expression whose aggregates are names that hold what they came to."""
        if not has_aggregate(expr):
            return self._expressions.compile(expr, scope), {}
        found: dict[str, Callable[[], Total]] = {}

        def replaced(tree: Tree[Token]) -> Tree[Token]:
            if tree.data in _WITH_NAMES and any(has_aggregate(one) for one in child_trees(tree)[2:]):
                raise error_at("aggregates can't stand in what is done with each item of a list", tree)
            if is_aggregate(tree):
                if any(
                    one.data == "call" and str(one.children[0]).lower() == "rand"
                    for one in tree.iter_subtrees()
                ):
                    raise error_at("an aggregate of rand() has no meaning", tree)
                name = f" {len(found)}"  # no name of a query's begins so
                found[name] = self._expressions.compile_aggregate(tree, scope)
                variable = Tree("variable", [Token("NAME", name)])
                return Tree("whole", [variable], tree.meta)
            if tree.data in SUBQUERIES:
                return tree
            children = [replaced(one) if isinstance(one, Tree) else one for one in tree.children]
            return Tree(tree.data, children, tree.meta)

        inner = replaced(expr)
        return self._expressions.compile(inner, scope | found.keys()), found

    def _check_grouped(self, tree: Tree[Token], local: frozenset[str] = frozenset()) -> None:
        """Raise unless names and properties beside an aggregate are columns by themselves."""
        if is_aggregate(tree):
            return
        of = child_trees(tree)[0] if tree.data == "access" else tree
        if of.data == "whole":
            keys = {item.source for item in self._items if not item.aggregates}
            name = name_of(child_trees(of)[0])
            if name in local or {self._expressions.source_of(tree), name} & keys:
                return
            raise error_at(
                f"{self._expressions.source_of(tree)} stands beside an aggregate; "
                "return it as a column of its own too",
                tree,
            )
        if tree.data in _WITH_NAMES:
            local |= {name_of(one) for one in child_trees(tree) if one.data == "variable"}
        if tree.data in SUBQUERIES or tree.data == "pattern_all":
            inner = {name_of(one) for one in tree.iter_subtrees() if one.data == "variable"}
            local |= inner - self._before
            for one in tree.iter_subtrees():
                if (
                    one.data in ("node", "detail")
                    and (named := next(iter(child_trees(one)), one)).data == "variable"
                ):
                    self._check_grouped(Tree("whole", [named], named.meta), local)
        for one in child_trees(tree):
            self._check_grouped(one, local)

    def _compile_sort(self, tree: Tree[Token]) -> tuple[Evaluate, bool]:
        expr = child_trees(tree)[0]
        down = bool(word_kinds(tree) & {"DESC", "DESCENDING"})
        return self._sorted_by(expr), down

    def _sorted_by(self, expr: Tree[Token]) -> Evaluate:
        """Return what ORDER BY sorts by: what was returned as a column, or any name known before if rows aren't
        grouped."""
        source = self._expressions.source_of(expr)
        same = next((item.name for item in self._items if item.source == source), None)
        if same is not None and not (expr.data == "whole" and source in self.scope):
            return _named(same)
        return self._over_rows(expr)

    def _over_rows(self, expr: Tree[Token]) -> Evaluate:
        if has_aggregate(expr) or self._grouped or self._distinct:
            return self._by_columns(expr)
        return self._expressions.compile(expr, self.scope | self._before)

    def _by_columns(self, expr: Tree[Token]) -> Evaluate:
        """Return an expression over columns, or over parts that are columns by themselves."""
        columns = {item.source: item.name for item in self._items}
        totals = has_aggregate(expr)

        def replaced(tree: Tree[Token]) -> Tree[Token]:
            name = columns.get(self._expressions.source_of(tree)) if not tree.meta.empty else None
            fits = tree.data in ("whole", "access") or is_aggregate(tree) or not totals
            if name is not None and fits and tree.data != "variable":
                return Tree("whole", [Tree("variable", [Token("NAME", f"`{name}`")])], tree.meta)
            if is_aggregate(tree):
                raise error_at("ORDER BY takes aggregates that are returned as well", tree)
            if tree.data in SUBQUERIES:
                return tree
            return Tree(
                tree.data,
                [replaced(one) if isinstance(one, Tree) else one for one in tree.children],
                tree.meta,
            )

        return self._expressions.compile(replaced(expr), self.scope)

    def top_rows(self) -> tuple[str, str, bool, int] | None:
        """Return (name, key, down, how many) where only rows count that are among the first by `name.key`."""
        if self._grouped or self._distinct or self._where or not (self._sorts and self._limit):
            return None
        numbers = [child_trees(self._parts[one])[-1] for one in ("skip", "limit") if one in self._parts]
        if any(one.data not in ("integer", "parameter") for one in numbers):
            return None
        by = child_trees(child_trees(self._parts["order"])[0])[0]
        columns = {item.name: item.tree for item in self._items}
        column = columns.get(name_of(child_trees(by)[0])) if by.data == "whole" else None
        of = column or by
        if of.data != "access" or child_trees(of)[0].data != "whole":
            return None
        name = name_of(child_trees(child_trees(of)[0])[0])
        if column is None and not _is_whole(columns.get(name), name):
            return None
        most = sum(_count(value({})) for value in (self._skip, self._limit) if value is not None)
        return name, name_of(child_trees(of)[1]), self._sorts[0][1], most

    def _compile_number(self, tree: Tree[Token]) -> Evaluate:
        expr = child_trees(tree)[-1]
        if self._expressions.free_names(expr) or has_aggregate(expr):
            raise error_at("SKIP and LIMIT take a number that doesn't depend on rows", tree)
        value = self._expressions.compile(expr, ())
        if expr.data in ("integer", "real", "text", "neg", "parameter"):  # all else is asked when it is time
            _count(value({}))
        return value

    # ---- running --------------------------------------------------------------------------------------------

    def run(self, rows: Iterator[Bound]) -> Iterator[Bound]:
        """Yield the rows that come of those that come in."""
        found = self._group_rows(rows) if self._grouped else self._project_rows(rows)
        if self._distinct:
            found = self._distinct_rows(found)
        skip = 0 if self._skip is None else _count(self._skip({}))
        limit = None if self._limit is None else _count(self._limit({}))
        if self._sorts:
            found = self._order_rows(found, None if limit is None else skip + limit)
        for at, (before, row) in enumerate(found):
            if limit is not None and at >= skip + limit:
                return
            if at >= skip and (self._where is None or to_truth(self._where({**before, **row})) is True):
                yield row

    def _order_rows(
        self, found: Iterator[tuple[Bound, Bound]], most: int | None
    ) -> Iterator[tuple[Bound, Bound]]:
        """Return the rows in order; at most so many, which are all that is kept meanwhile if they are few."""
        if most is not None and most <= _FEW:
            sorts = self._sorts

            def key(pair: tuple[Bound, Bound]) -> list[Any]:
                row = {**pair[0], **pair[1]}
                return [_Down(sort_key(by(row))) if down else sort_key(by(row)) for by, down in sorts]

            return iter(heapq.nsmallest(most, found, key=key))
        ordered = list(found)
        for value, down in reversed(self._sorts):
            ordered.sort(key=lambda pair: sort_key(value({**pair[0], **pair[1]})), reverse=down)
        return iter(ordered)

    def _project_rows(self, rows: Iterator[Bound]) -> Iterator[tuple[Bound, Bound]]:
        for row in rows:
            yield row, {item.name: item.value(row) for item in self._items}

    def _group_rows(self, rows: Iterator[Bound]) -> Iterator[tuple[Bound, Bound]]:
        keys = [item for item in self._items if not item.aggregates]
        totals = [(name, begin) for item in self._items for name, begin in item.aggregates.items()]
        groups: dict[tuple[Any, ...], _Group] = {}
        for row in rows:
            columns = tuple([item.value(row) for item in keys])
            same = tuple(map(same_key, columns))
            group = groups.get(same)
            if group is None:
                group = groups[same] = _Group(columns, row, tuple([begin() for _, begin in totals]))
            times = row.get(TIMES, 1)
            for total in group.totals:
                total.add_row(row, times)
        if not keys and not groups:
            groups[()] = _Group((), dict.fromkeys(self._before), tuple([begin() for _, begin in totals]))
        for group in groups.values():
            yield {}, self._of_group(group)

    def _of_group(self, group: _Group) -> Bound:
        """Return the row of a group."""
        row, columns, totals = {}, iter(group.columns), iter(group.totals)
        for item in self._items:
            if item.aggregates:
                found = {name: next(totals).result() for name in item.aggregates}
                row[item.name] = item.value({**group.first, **found})
            else:
                row[item.name] = next(columns)
        return row

    def _distinct_rows(self, rows: Iterator[tuple[Bound, Bound]]) -> Iterator[tuple[Bound, Bound]]:
        seen = set()
        for _, row in rows:
            same = tuple(same_key(value) for value in row.values())
            if same not in seen:
                seen.add(same)
                yield {}, row


def _is_whole(tree: Tree[Token] | None, name: str) -> bool:
    """Return whether a column is what stood for its name before, or there is none; `*` has no tree."""
    return tree is None or (tree.data == "whole" and name_of(child_trees(tree)[0]) == name)


def _named(name: str) -> Evaluate:
    return lambda row: row[name]


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise QueryError("SKIP and LIMIT take a whole number of 0 or more")
    return value
