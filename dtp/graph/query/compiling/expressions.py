"""Expressions become functions of a row: what they refer to is checked once, before there is any row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from time import time_ns
from typing import Any, Final, Protocol

from lark import Token, Tree

from dtp.crdt import BlobRef, Link, Value
from dtp.crdt.temporal import PYTHON, TEMPORAL, from_python
from dtp.graph.query.budget import Meter
from dtp.graph.query.compiling.lists import LISTS
from dtp.graph.query.compiling.literals import LITERALS
from dtp.graph.query.compiling.subqueries import SUBQUERIES, Subquery
from dtp.graph.query.compiling.syntax import (
    Bound,
    Evaluate,
    child_trees,
    error_at,
    is_aggregate,
    label_names,
    name_of,
    word_kinds,
)
from dtp.graph.query.compiling.totals import (
    EXTREMES,
    Extreme,
    Gathered,
    Percentile,
    RowCount,
    Total,
    ValueCount,
)
from dtp.graph.query.errors import QueryError, UnsupportedQuery
from dtp.graph.query.lookup.columns import kind_of
from dtp.graph.query.plan import PlannedMatch, PlanStep
from dtp.graph.query.values import semantics
from dtp.graph.query.values.functions import AGGREGATES, FUNCTIONS, PERCENTILES, READING
from dtp.graph.query.values.regular import Regular
from dtp.graph.query.values.semantics import NodeRef, Relation, describe_value, to_truth
from dtp.graph.query.values.temporal import TEMPORAL_FUNCTIONS
from dtp.graph.query.values.temporal_parts import part_of

#: Function -> kinds of things that it can't take.
_WRONG: Final[dict[str, tuple[str, ...]]] = {
    "type": ("node", "path", "list"),
    "length": ("node", "relationship", "list"),
    "size": ("node", "relationship", "path"),
    "labels": ("relationship", "path", "list"),
}
#: Functions whose result may be much larger than what they are given.
_GROWING: Final = frozenset({"replace", "split", "range"})
_ARITHMETIC: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "add": semantics.add,
    "sub": semantics.subtract,
    "mul": semantics.multiply,
    "div": semantics.divide,
    "mod": semantics.modulo,
    "pow": semantics.power,
}
#: What only `-` may stand before.
_LEAST: Final = (str(1 << 63), hex(1 << 63), oct(1 << 63))
_TEXTUAL: Final[dict[str, Callable[[str, str], bool]]] = {
    "starts": str.startswith,
    "ends": str.endswith,
    "contains": str.__contains__,
}


#: What other modules compile.
_ELSEWHERE: Final = {**LITERALS, **LISTS, **SUBQUERIES}


class Matcher(PlannedMatch, Protocol):
    """A MATCH that was compiled."""

    #: Those that it brings in, and all that its rows have.
    names: list[str]
    scope: frozenset[str]

    def run(self, rows: Iterator[Bound]) -> Iterator[Bound]:
        """Return the rows that come of those that come in."""


#: Types whose values queries have as the graph does.
AS_THEY_ARE: Final = frozenset({str, int, float, bool, bytes, type(None)})


class Properties(Protocol):
    """What nodes and relationships have."""

    def get_property(self, soul: str, key: str) -> Value:
        """Return a property of a node; None if there is none."""

    def get_properties(self, soul: str) -> dict[str, Value]:
        """Return all properties of a node."""

    def of_link(self, link: Relation) -> dict[str, Value]:
        """Return all properties of a relationship."""


def _takes_patterns(tree: Tree[Token]) -> bool:
    return tree.data in ("and_", "or_", "xor_", "not_") or (
        tree.data == "call" and str(tree.children[0]).lower() == "exists"
    )


class Expressions:
    """Compiles the expressions of one query. `given` are the caller's parameters."""

    def __init__(self, text: str, given: Mapping[str, Value], known: Properties, meter: Meter) -> None:
        self.meter = meter
        self._text = text
        self._given = given
        self._known = known
        self.used: set[str] = set()
        #: Compile MATCHes in a row, and a query in braces; whoever has the index says how.
        self.matcher: Callable[[list[Tree[Token]], frozenset[str], bool], Matcher]
        self.subquery: Callable[[Tree[Token], frozenset[str]], Subquery]
        #: What the query does; `mode`: "EXPLAIN" and "PROFILE" ask for that, instead of its rows.
        self.plan: list[PlanStep] = []
        self.mode = ""
        self._depth = 0
        #: When the query runs, nanoseconds after 1970: one time for all of it.
        self._now = time_ns()
        #: What kinds of things names stand for, as far as that is known before there are rows.
        self.kinds: dict[str, str] = {}

    # ---- what the rest of the query needs to know -----------------------------------------------------------

    def source_of(self, tree: Tree[Token]) -> str:
        """Return an expression as it was written."""
        if tree.meta.empty:
            return "[]" if tree.data == "list_" else str(tree.data)
        return " ".join(self._text[tree.meta.start_pos : tree.meta.end_pos].split())

    def text_of(self, tree: Tree[Token]) -> str:
        """Return the text of an expression, letter by letter."""
        return self._text[tree.meta.start_pos : tree.meta.end_pos]

    def column_name(self, item: Tree[Token], expr: Tree[Token]) -> str:
        """Return the name of a column that has none: what was written."""
        if expr.data == "whole" and not self._text[item.meta.start_pos : item.meta.end_pos].startswith("("):
            return name_of(child_trees(expr)[0])
        return self.text_of(item)

    def free_names(self, tree: Tree[Token]) -> set[str]:
        """Return the free names of an expression: those that it refers to and doesn't bind itself."""
        if tree.data == "whole":
            return {name_of(child_trees(tree)[0])}
        if tree.data == "variable":
            return {name_of(tree)}  # of a pattern; those that it brings in itself are in no scope
        if tree.data in ("comprehension", "quantifier"):
            variable, items, *rest = child_trees(tree)
            inner = set().union(*(self.free_names(one) for one in rest)) if rest else set()
            return self.free_names(items) | (inner - {name_of(variable)})
        if tree.data == "reduce":
            total, start, variable, items, body = child_trees(tree)
            return (
                self.free_names(start)
                | self.free_names(items)
                | (self.free_names(body) - {name_of(total), name_of(variable)})
            )
        return (
            set().union(*(self.free_names(one) for one in child_trees(tree))) if child_trees(tree) else set()
        )

    # ---- compiling ------------------------------------------------------------------------------------------

    @contextmanager
    def with_unknown_names(self, *names: str) -> Iterator[None]:
        """Compile something with names of its own: of what kind they are is forgotten afterwards."""
        before = self.kinds
        self.kinds = {name: kind for name, kind in before.items() if name not in names}
        try:
            yield
        finally:
            self.kinds = before

    @property
    def profiling(self) -> bool:
        """Whether what clauses take is counted."""
        return self.mode == "PROFILE"

    @contextmanager
    def plan_step(self, operator: str, details: str) -> Iterator[PlanStep]:
        """Compile a part of the plan; what is planned meanwhile stands below it."""
        step = PlanStep(operator, details, self._depth)
        self.plan.append(step)
        self._depth += 1
        try:
            yield step
        finally:
            self._depth -= 1

    def compile(self, tree: Tree[Token], scope: Iterable[str]) -> Evaluate:
        """Return the function of an expression, in which the names of `scope` are known. Raises `QueryError`."""
        return self._compile_on(tree, frozenset(scope))

    def _compile_on(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        kind = str(tree.data)
        if is_aggregate(tree):
            raise error_at("aggregates belong into RETURN and WITH, and not into another aggregate", tree)
        if any(one.data == "pattern_there" for one in child_trees(tree)) and not _takes_patterns(tree):
            raise error_at("a pattern is a condition: it stands in WHERE, or in exists()", tree)
        method: Callable[[Tree[Token], frozenset[str]], Evaluate] | None = getattr(self, f"_on_{kind}", None)
        if method is not None:
            return method(tree, scope)
        if kind in _ELSEWHERE:
            return _ELSEWHERE[kind](self, tree, scope)
        parts = [self._compile_on(one, scope) for one in child_trees(tree)]
        if kind in _ARITHMETIC:
            function, (a, b) = _ARITHMETIC[kind], parts

            def calculate(row: Bound) -> Any:
                return function(a(row), b(row))

            return self._count_sizes(calculate) if kind == "add" else calculate
        if kind in _TEXTUAL:
            return _textual(_TEXTUAL[kind], *parts)
        raise error_at(f"{kind} is not supported here", tree, UnsupportedQuery)

    def _count_sizes(self, value: Evaluate) -> Evaluate:
        """Return the same, and what it makes is counted."""
        weigh = self.meter.count_size

        def evaluate(row: Bound) -> Any:
            found = value(row)
            weigh(found)
            return found

        return evaluate

    def count_steps(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield the items, each a step."""
        step = self.meter.count_step
        for item in items:
            step()
            yield item

    def _on_parameter(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        value = self.get_parameter(tree)
        return lambda row: value

    def get_parameter(self, tree: Tree[Token]) -> Value:
        """Return a parameter's value."""
        name = name_of(tree.children[0])
        if name not in self._given:
            raise error_at(f"${name} has no value; give it as {name}=...", tree)
        self.used.add(name)
        value = self._given[name]
        return value.soul if isinstance(value, Link) else to_query_value(value)

    def check_used(self) -> None:
        """Raise `QueryError` if parameters were given that the query doesn't use."""
        unused = self._given.keys() - self.used
        if unused:
            raise QueryError(f"the query has no ${', $'.join(sorted(unused))}")

    def _on_whole(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        name = name_of(child_trees(tree)[0])
        if name not in scope:
            raise error_at(f"{name} is not defined here: it is not in any pattern", tree)
        return lambda row: row[name]

    def _on_access(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        of, key = child_trees(tree)
        if self.kind_of(of) == "path":
            raise error_at("a path has no properties", tree)
        value, name, read = self._compile_on(of, scope), name_of(key), self.get_property
        return lambda row: read(value(row), name)

    def get_property(self, value: Any, key: str) -> Value:
        """Return a property of a node, or what a map has at a key."""
        if value is None:
            return None
        if isinstance(value, NodeRef):
            return to_query_value(self._known.get_property(value.soul, key))
        if isinstance(value, dict):
            return value.get(key)
        if isinstance(value, Relation):
            return to_query_value(self._known.of_link(value).get(key))
        if isinstance(value, TEMPORAL):
            return part_of(value, key)
        if isinstance(value, BlobRef):
            return {"id": value.id.hex(), "size": value.size}.get(key)
        raise QueryError(f"{describe_value(value)} has no properties: nodes, relationships and maps have")

    def get_properties(self, value: NodeRef | Relation | dict[str, Any]) -> dict[str, Any]:
        """Return all properties of a node or a relationship, or a map itself."""
        if isinstance(value, dict):
            return dict(value)
        known = self._known
        found = known.of_link(value) if isinstance(value, Relation) else known.get_properties(value.soul)
        return {key: to_query_value(one) for key, one in found.items()}

    def _on_has_labels(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        of, *labels = child_trees(tree)
        value, wanted = self._compile_on(of, scope), [label_names(label) for label in labels]

        def has(row: Bound) -> bool | None:
            found = value(row)
            if found is None:
                return None
            if isinstance(found, Relation):
                return all(found.key in names for names in wanted)
            if not isinstance(found, NodeRef):
                raise QueryError(f"{describe_value(found)} has no labels: nodes have")
            kind = kind_of(found.soul)
            return all(kind in names for names in wanted)

        return has

    def _on_has_labels_of(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        variable, *labels = child_trees(tree)
        return self._on_has_labels(
            Tree("has_labels", [Tree("whole", [variable], tree.meta), *labels], tree.meta), scope
        )

    def _on_and_(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        a, b = (self._compile_on(one, scope) for one in child_trees(tree))
        return lambda row: semantics.all_of((to_truth(a(row)), to_truth(b(row))))

    def _on_or_(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        a, b = (self._compile_on(one, scope) for one in child_trees(tree))
        return lambda row: semantics.any_of((to_truth(a(row)), to_truth(b(row))))

    def _on_xor_(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        a, b = (self._compile_on(one, scope) for one in child_trees(tree))

        def either(row: Bound) -> bool | None:
            one, other = to_truth(a(row)), to_truth(b(row))
            return None if one is None or other is None else one != other

        return either

    def _on_not_(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        inner = self._compile_on(child_trees(tree)[0], scope)

        def invert(row: Bound) -> bool | None:
            outcome = to_truth(inner(row))
            return None if outcome is None else not outcome

        return invert

    def _on_compare(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        parts = [self._compile_on(one, scope) for one in child_trees(tree)]
        operators = [str(child) for child in tree.children if isinstance(child, Token)]
        if len(operators) == 1:
            (a, b), operator = parts, operators[0]
            return lambda row: semantics.compare_by(a(row), operator, b(row))

        def chain(row: Bound) -> bool | None:
            found = [part(row) for part in parts]
            return semantics.all_of(
                semantics.compare_by(x, operator, y)
                for x, operator, y in zip(found, operators, found[1:], strict=False)
            )

        return chain

    def _on_in_(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        wanted, of = (self._compile_on(one, scope) for one in child_trees(tree))

        def within(row: Bound) -> bool | None:
            value, items = wanted(row), of(row)
            if items is None:
                return None
            if not isinstance(items, list):
                raise QueryError(f"IN takes a list, not {describe_value(items)}")
            return semantics.any_of(semantics.equals(value, item) for item in items)

        return within

    def _on_regex(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        of, by = (self._compile_on(one, scope) for one in child_trees(tree))
        known: dict[str, Regular] = {}

        def matches(row: Bound) -> bool | None:
            text, expression = of(row), by(row)
            if not isinstance(text, str) or not isinstance(expression, str):
                return None
            regular = known.get(expression)
            if regular is None:
                known.clear()  # nearly always there is one, for all rows
                regular = known[expression] = Regular(expression, self.meter.count_step)
            return regular.matches_text(text)

        return matches

    def _on_is_null(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        inner = self._compile_on(child_trees(tree)[0], scope)
        return lambda row: inner(row) is None

    def _on_is_not_null(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        inner = self._compile_on(child_trees(tree)[0], scope)
        return lambda row: inner(row) is not None

    def _on_neg(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        (one,) = child_trees(tree)
        if one.data == "integer" and str(one.children[0]) in _LEAST:
            return lambda row: -(1 << 63)
        inner = self._compile_on(child_trees(tree)[0], scope)
        return lambda row: _negative(inner(row))

    def _on_pos(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        inner = self._compile_on(child_trees(tree)[0], scope)
        return lambda row: semantics.add(0, inner(row))

    def _on_case(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        parts = child_trees(tree)
        subject = None if parts[0].data == "when" else self._compile_on(parts.pop(0), scope)
        otherwise = (
            self._compile_on(child_trees(parts.pop())[0], scope) if parts[-1].data == "else_" else None
        )
        whens = [tuple(self._compile_on(one, scope) for one in child_trees(part)) for part in parts]

        def choose(row: Bound) -> Any:
            value = None if subject is None else subject(row)
            for condition, result in whens:
                found = condition(row)
                if (to_truth(found) if subject is None else semantics.equals(value, found)) is True:
                    return result(row)
            return None if otherwise is None else otherwise(row)

        return choose

    # ---- calls ----------------------------------------------------------------------------------------------

    def _on_call(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        name = str(tree.children[0]).lower()
        given = [self._compile_on(one, scope) for one in child_trees(tree)]
        if name in READING and len(given) == 1 and "DISTINCT" not in word_kinds(tree):
            return self._compile_reading(name, child_trees(tree)[0], given[0], tree)
        function, least, most = FUNCTIONS.get(name, (None, 0, 0))
        if name in TEMPORAL_FUNCTIONS:
            timed, least, most = TEMPORAL_FUNCTIONS[name]
            function = partial(timed, self._now)
        if function is None:
            known = ", ".join(sorted([*FUNCTIONS, *TEMPORAL_FUNCTIONS, *READING, *AGGREGATES, *PERCENTILES]))
            raise error_at(f"{tree.children[0]}() is not known; there are {known}", tree, UnsupportedQuery)
        if not least <= len(given) <= most or "DISTINCT" in word_kinds(tree):
            raise error_at(
                f"{name}() takes {least if least == most else f'{least} to {most}'} arguments", tree
            )
        self._check_kinds(name, tree)
        call = function
        if len(given) == 1:
            (only,) = given
            return lambda row: call(only(row))

        def several(row: Bound) -> Any:
            return call(*(argument(row) for argument in given))

        return self._count_sizes(several) if name in _GROWING else several

    def kind_of(self, tree: Tree[Token]) -> str:
        """Return what kind of thing a name stands for, "" when that isn't known."""
        if tree.data == "list_":
            return "list"
        return self.kinds.get(name_of(child_trees(tree)[0]), "") if tree.data == "whole" else ""

    def _check_kinds(self, name: str, tree: Tree[Token]) -> None:
        kinds = [self.kind_of(one) for one in child_trees(tree)]
        wrong = _WRONG.get(name, ())
        if any(kind in wrong for kind in kinds):
            raise error_at(f"{name}() takes no {kinds[0]}", tree)

    def _compile_reading(self, name: str, what: Tree[Token], value: Evaluate, tree: Tree[Token]) -> Evaluate:
        if name == "exists":
            if what.data == "pattern_there":
                return value
            if what.data not in ("access", "at"):
                raise error_at("exists() takes a property", tree, UnsupportedQuery)
            return lambda row: value(row) is not None

        def read(row: Bound) -> Any:
            found = value(row)
            if found is None:
                return None
            if not isinstance(found, NodeRef | Relation | dict):
                raise QueryError(
                    f"{name}() takes a node, a relationship or a map, not {describe_value(found)}"
                )
            found = self.get_properties(found)
            return found if name == "properties" else list(found)

        return read

    # ---- aggregates -----------------------------------------------------------------------------------------

    def compile_aggregate(self, tree: Tree[Token], scope: Iterable[str]) -> Callable[[], Total]:
        """Return what makes the running total of an aggregate, once for each group."""
        if tree.data == "count_all":
            return RowCount
        name = "count" if tree.data == "count_some" else str(tree.children[0]).lower()
        arguments, once = child_trees(tree), "DISTINCT" in word_kinds(tree)
        if len(arguments) != (2 if name in PERCENTILES else 1):
            raise error_at(
                f"{name}() takes {'two arguments' if name in PERCENTILES else 'one argument'}", tree
            )
        value, step = self.compile(arguments[0], scope), self.meter.count_step
        if name in PERCENTILES:
            part = self.compile(arguments[1], scope)
            return lambda: Percentile(value, step, once, name, part)
        if name == "count" and not once:
            return lambda: ValueCount(value, step)
        if name in EXTREMES:
            return lambda: Extreme(value, step, EXTREMES[name])
        total = AGGREGATES[name]
        return lambda: Gathered(value, step, once, total)


def to_query_value(value: Any) -> Any:
    """Return a value of the graph as queries have it: links are nodes that they lead to, tuples and sets lists."""
    if type(value) in AS_THEY_ARE:
        return value
    if isinstance(value, Link):
        return NodeRef(value.soul)
    if isinstance(value, list | tuple | set | frozenset) and not isinstance(value, Relation):
        return [to_query_value(item) for item in value]
    if isinstance(value, dict):
        return {key: to_query_value(item) for key, item in value.items()}
    return from_python(value) if isinstance(value, PYTHON) else value


def _negative(value: Any) -> Any:
    return -value if semantics.is_number(value) else semantics.subtract(0, value)


def _textual(function: Callable[[str, str], bool], a: Evaluate, b: Evaluate) -> Evaluate:
    def compare(row: Bound) -> bool | None:
        one, other = a(row), b(row)
        return function(one, other) if isinstance(one, str) and isinstance(other, str) else None

    return compare
