"""Expressions become functions of a row: what they refer to is checked once, before there is any row."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

from lark import Token, Tree

from dtp.crdt import Link, Value
from dtp.graph.query import semantics
from dtp.graph.query.budget import Meter
from dtp.graph.query.columns import kind_of
from dtp.graph.query.errors import QueryError, UnsupportedQuery
from dtp.graph.query.functions import AGGREGATES, FUNCTIONS, PERCENTILES, READING, distinct, percentile
from dtp.graph.query.semantics import NodeRef, Relation, shown, truth

#: Names to values.
Bound = dict[str, Any]
#: What an expression becomes.
Evaluate = Callable[[Bound], Any]

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


class Matcher(Protocol):
    """A MATCH that was compiled."""

    #: Those that it brings in.
    names: list[str]

    def run(self, rows: Iterator[Bound]) -> Iterator[Bound]:
        """The rows that come of those that come in."""


class Registers(Protocol):
    """What nodes have."""

    def get(self, soul: str, key: str) -> Value:
        """What is at a key of a node; None if nothing is."""

    def registers(self, soul: str) -> dict[str, Value]:
        """All that is at the keys of a node."""


def trees(tree: Tree[Token]) -> list[Tree[Token]]:
    """The children that are trees."""
    return [child for child in tree.children if isinstance(child, Tree)]


def words(tree: Tree[Token]) -> set[str]:
    """The kinds of the children that are words."""
    return {child.type for child in tree.children if isinstance(child, Token)}


def name_of(tree: Tree[Token] | Token) -> str:
    """A name as it is meant: without the backticks."""
    text = str(tree if isinstance(tree, Token) else tree.children[0])
    return text[1:-1] if text.startswith("`") else text


def fault(
    message: str, where: Tree[Token] | Token | None = None, kind: type[QueryError] = QueryError
) -> QueryError:
    """An error that tells its place."""
    meta = getattr(where, "meta", where)
    line, column = getattr(meta, "line", None), getattr(meta, "column", None)
    return kind(f"{message} (line {line}, column {column})" if line else message)


def is_aggregate(tree: Tree[Token]) -> bool:
    """Whether it is a call of an aggregate."""
    return tree.data in ("count_all", "count_some") or (
        tree.data == "call" and str(tree.children[0]).lower() in (AGGREGATES.keys() | PERCENTILES)
    )


def _takes_patterns(tree: Tree[Token]) -> bool:
    return tree.data in ("and_", "or_", "xor_", "not_") or (
        tree.data == "call" and str(tree.children[0]).lower() == "exists"
    )


def has_aggregate(tree: Tree[Token]) -> bool:
    """Whether there is an aggregate in it."""
    return any(is_aggregate(one) for one in tree.iter_subtrees())


class Expressions:
    """Compiles the expressions of one query. `given` are the caller's parameters."""

    def __init__(self, text: str, given: Mapping[str, Value], registers: Registers, meter: Meter) -> None:
        self.meter = meter
        self._text = text
        self._given = given
        self._registers = registers
        self.used: set[str] = set()
        #: Compiles a MATCH; whoever has the index says how.
        self.matcher: Callable[[Tree[Token], frozenset[str]], Matcher]
        #: What kinds of things names stand for, as far as that is known before there are rows.
        self.kinds: dict[str, str] = {}

    # ---- what the rest of the query needs to know -----------------------------------------------------------

    def source(self, tree: Tree[Token]) -> str:
        """An expression as it was written."""
        if tree.meta.empty:
            return "[]" if tree.data == "list_" else str(tree.data)
        return " ".join(self._text[tree.meta.start_pos : tree.meta.end_pos].split())

    def column(self, item: Tree[Token], expr: Tree[Token]) -> str:
        """The name of a column that has none: what was written."""
        if expr.data == "whole" and not self._text[item.meta.start_pos : item.meta.end_pos].startswith("("):
            return name_of(trees(expr)[0])
        return self._text[item.meta.start_pos : item.meta.end_pos]

    def free(self, tree: Tree[Token]) -> set[str]:
        """The names that it refers to and doesn't bring in itself."""
        if tree.data == "whole":
            return {name_of(trees(tree)[0])}
        if tree.data == "variable":
            return {name_of(tree)}  # of a pattern; those that it brings in itself are in no scope
        if tree.data in ("comprehension", "quantifier"):
            variable, items, *rest = trees(tree)
            inner = set().union(*(self.free(one) for one in rest)) if rest else set()
            return self.free(items) | (inner - {name_of(variable)})
        if tree.data == "reduce":
            total, start, variable, items, body = trees(tree)
            return (
                self.free(start) | self.free(items) | (self.free(body) - {name_of(total), name_of(variable)})
            )
        return set().union(*(self.free(one) for one in trees(tree))) if trees(tree) else set()

    # ---- compiling ------------------------------------------------------------------------------------------

    def compile(self, tree: Tree[Token], scope: Iterable[str]) -> Evaluate:
        """The function of an expression, in which the names of `scope` are known. Raises `QueryError`."""
        return self._on(tree, frozenset(scope))

    def _on(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        kind = str(tree.data)
        if is_aggregate(tree):
            raise fault("aggregates belong into RETURN and WITH, and not into another aggregate", tree)
        if any(one.data == "pattern_there" for one in trees(tree)) and not _takes_patterns(tree):
            raise fault("a pattern is a condition: it stands in WHERE, or in exists()", tree)
        method: Callable[[Tree[Token], frozenset[str]], Evaluate] | None = getattr(self, f"_on_{kind}", None)
        if method is not None:
            return method(tree, scope)
        parts = [self._on(one, scope) for one in trees(tree)]
        if kind in _ARITHMETIC:
            function, (a, b) = _ARITHMETIC[kind], parts

            def calculate(row: Bound) -> Any:
                return function(a(row), b(row))

            return self._weighed(calculate) if kind == "add" else calculate
        if kind in _TEXTUAL:
            return _textual(_TEXTUAL[kind], *parts)
        raise fault(f"{kind} is not supported here", tree, UnsupportedQuery)

    def _weighed(self, value: Evaluate) -> Evaluate:
        """The same, and what it makes is counted."""
        weigh = self.meter.weigh

        def evaluate(row: Bound) -> Any:
            found = value(row)
            weigh(found)
            return found

        return evaluate

    def _counted(self, items: Iterable[Any]) -> Iterator[Any]:
        step = self.meter.step
        for item in items:
            step()
            yield item

    def _on_parameter(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        value = self.parameter(tree)
        return lambda row: value

    def parameter(self, tree: Tree[Token]) -> Value:
        """A parameter's value."""
        name = name_of(tree.children[0])
        if name not in self._given:
            raise fault(f"${name} has no value; give it as {name}=...", tree)
        self.used.add(name)
        value = self._given[name]
        return value.soul if isinstance(value, Link) else _plain(value)

    def check_used(self) -> None:
        """Raises `QueryError` for parameters that the query doesn't have."""
        unused = self._given.keys() - self.used
        if unused:
            raise QueryError(f"the query has no ${', $'.join(sorted(unused))}")

    def _on_integer(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        text = str(tree.children[0])
        value = int(text, 0) if text[:2] in ("0x", "0o") else int(text)
        if value >= 1 << 63:
            raise fault(f"{text} is above 64 bits; give it as a parameter", tree)
        return lambda row: value

    def _on_real(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        value = float(str(tree.children[0]))
        if value in (float("inf"), float("-inf")):
            raise fault("this number is too large", tree)
        return lambda row: value

    def _on_text(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        value = unquoted(str(tree.children[0]))
        return lambda row: value

    def _on_true(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        return lambda row: True

    def _on_false(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        return lambda row: False

    def _on_null(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        return lambda row: None

    def _on_whole(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        name = name_of(trees(tree)[0])
        if name not in scope:
            raise fault(f"{name} is not defined here: it is not in any pattern", tree)
        return lambda row: row[name]

    def _on_access(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        of, key = trees(tree)
        if self.kind(of) == "path":
            raise fault("a path has no properties", tree)
        value, name, read = self._on(of, scope), name_of(key), self.property
        return lambda row: read(value(row), name)

    def property(self, value: Any, key: str) -> Value:
        """A property of a node, or what a map has at a key."""
        if value is None:
            return None
        if isinstance(value, NodeRef):
            return _plain(self._own(value.soul, key))
        if isinstance(value, dict):
            return value.get(key)
        if isinstance(value, Relation):
            raise UnsupportedQuery("relationships have no properties here")
        raise QueryError(f"{shown(value)} has no properties: nodes and maps have")

    def _own(self, soul: str, key: str) -> Value:
        found = self._registers.get(soul, key)
        return None if isinstance(found, Link) else found

    def _properties(self, soul: str) -> dict[str, Value]:
        found = self._registers.registers(soul)
        return {key: _plain(value) for key, value in found.items() if not isinstance(value, Link)}

    def _on_has_labels(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        of, *labels = trees(tree)
        value, wanted = self._on(of, scope), {name_of(trees(label)[0]) for label in labels}

        def has(row: Bound) -> bool | None:
            found = value(row)
            if found is None:
                return None
            if isinstance(found, Relation):
                return wanted == {found.key}
            if not isinstance(found, NodeRef):
                raise QueryError(f"{shown(found)} has no labels: nodes have")
            return wanted == {kind_of(found.soul)}

        return has

    def _on_has_labels_of(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        variable, *labels = trees(tree)
        return self._on_has_labels(
            Tree("has_labels", [Tree("whole", [variable], tree.meta), *labels], tree.meta), scope
        )

    # ---- patterns -------------------------------------------------------------------------------------------

    def _on_pattern_there(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        found, names = self._pattern(trees(tree), None, tree, scope)
        if names:
            raise fault(
                f"{', '.join(names)} is not defined here: a pattern in a condition brings in no names", tree
            )
        return lambda row: next(found(row), None) is not None

    def _on_pattern_all(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        *parts, body = trees(tree)
        where = parts.pop() if parts[-1].data == "where" else None
        found, names = self._pattern(parts, where, tree, scope)
        value = self._on(body, scope | set(names))
        return lambda row: [value(one) for one in found(row)]

    def _pattern(
        self, parts: list[Tree[Token]], where: Tree[Token] | None, tree: Tree[Token], scope: frozenset[str]
    ) -> tuple[Callable[[Bound], Iterator[Bound]], list[str]]:
        """The rows that a pattern finds for one, and the names that they have more."""
        patterns = Tree("patterns", [Tree("pattern", list(parts), tree.meta)], tree.meta)
        clause = Tree("match", [patterns] if where is None else [patterns, where], tree.meta)
        match = self.matcher(clause, scope)
        return (lambda row: match.run(iter((row,)))), match.names

    def _on_at(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        of, place = (self._on(one, scope) for one in trees(tree))

        def at(row: Bound) -> Any:
            items, index = of(row), place(row)
            if items is None or index is None:
                return None
            if isinstance(items, list):
                if type(index) is not int:
                    raise QueryError(f"a list has whole numbers as places, not {shown(index)}")
                return items[index] if -len(items) <= index < len(items) else None
            if not isinstance(index, str):
                raise QueryError(f"properties have text as names, not {shown(index)}")
            return self.property(items, index)

        return at

    def _slice(self, of: Evaluate, start: Evaluate | None, end: Evaluate | None) -> Evaluate:
        def cut(row: Bound) -> Any:
            items = of(row)
            bounds = [None if one is None else one(row) for one in (start, end)]
            if items is None or any(
                b is None and one is not None for b, one in zip(bounds, (start, end), strict=True)
            ):
                return None
            if not isinstance(items, list) or any(b is not None and type(b) is not int for b in bounds):
                raise QueryError("a slice is of a list, from one whole number to another")
            return items[bounds[0] : bounds[1]]

        return cut

    def _on_slice_both(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        of, start, end = (self._on(one, scope) for one in trees(tree))
        return self._slice(of, start, end)

    def _on_slice_from(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        of, start = (self._on(one, scope) for one in trees(tree))
        return self._slice(of, start, None)

    def _on_slice_to(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        of, end = (self._on(one, scope) for one in trees(tree))
        return self._slice(of, None, end)

    def _on_slice_all(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        return self._slice(self._on(trees(tree)[0], scope), None, None)

    def _on_list_(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        items = [self._on(one, scope) for one in trees(tree)]
        return lambda row: [item(row) for item in items]

    def _on_map_(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        items = [(name_of(key), self._on(value, scope)) for key, value in map(trees, trees(trees(tree)[0]))]
        return lambda row: {key: value(row) for key, value in items}

    def _on_and_(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        a, b = (self._on(one, scope) for one in trees(tree))
        return lambda row: semantics.all_of((truth(a(row)), truth(b(row))))

    def _on_or_(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        a, b = (self._on(one, scope) for one in trees(tree))
        return lambda row: semantics.any_of((truth(a(row)), truth(b(row))))

    def _on_xor_(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        a, b = (self._on(one, scope) for one in trees(tree))

        def either(row: Bound) -> bool | None:
            one, other = truth(a(row)), truth(b(row))
            return None if one is None or other is None else one != other

        return either

    def _on_not_(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        inner = self._on(trees(tree)[0], scope)

        def invert(row: Bound) -> bool | None:
            outcome = truth(inner(row))
            return None if outcome is None else not outcome

        return invert

    def _on_compare(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        parts = [self._on(one, scope) for one in trees(tree)]
        operators = [str(child) for child in tree.children if isinstance(child, Token)]
        if len(operators) == 1:
            (a, b), operator = parts, operators[0]
            return lambda row: semantics.holds(a(row), operator, b(row))

        def chain(row: Bound) -> bool | None:
            found = [part(row) for part in parts]
            return semantics.all_of(
                semantics.holds(x, operator, y)
                for x, operator, y in zip(found, operators, found[1:], strict=False)
            )

        return chain

    def _on_in_(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        wanted, of = (self._on(one, scope) for one in trees(tree))

        def within(row: Bound) -> bool | None:
            value, items = wanted(row), of(row)
            if items is None:
                return None
            if not isinstance(items, list):
                raise QueryError(f"IN takes a list, not {shown(items)}")
            return semantics.any_of(semantics.equals(value, item) for item in items)

        return within

    def _on_regex(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        raise fault("=~ is not supported: use STARTS WITH, ENDS WITH or CONTAINS", tree, UnsupportedQuery)

    def _on_is_null(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        inner = self._on(trees(tree)[0], scope)
        return lambda row: inner(row) is None

    def _on_is_not_null(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        inner = self._on(trees(tree)[0], scope)
        return lambda row: inner(row) is not None

    def _on_neg(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        (one,) = trees(tree)
        if one.data == "integer" and str(one.children[0]) in _LEAST:
            return lambda row: -(1 << 63)
        inner = self._on(trees(tree)[0], scope)
        return lambda row: _negative(inner(row))

    def _on_pos(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        inner = self._on(trees(tree)[0], scope)
        return lambda row: semantics.add(0, inner(row))

    def _on_case(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        parts = trees(tree)
        subject = None if parts[0].data == "when" else self._on(parts.pop(0), scope)
        otherwise = self._on(trees(parts.pop())[0], scope) if parts[-1].data == "else_" else None
        whens = [tuple(self._on(one, scope) for one in trees(part)) for part in parts]

        def choose(row: Bound) -> Any:
            value = None if subject is None else subject(row)
            for condition, result in whens:
                found = condition(row)
                if (truth(found) if subject is None else semantics.equals(value, found)) is True:
                    return result(row)
            return None if otherwise is None else otherwise(row)

        return choose

    # ---- with names of their own ----------------------------------------------------------------------------

    def _on_comprehension(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        variable, of, *rest = trees(tree)
        name, items = name_of(variable), self._on(of, scope)
        inner = scope | {name}
        where = self._on(trees(rest.pop(0))[-1], inner) if rest and rest[0].data == "where" else None
        body = self._on(rest[0], inner) if rest else None

        def build(row: Bound) -> Any:
            found = _list(items(row))
            if found is None:
                return None
            rows = ({**row, name: item} for item in self._counted(found))
            kept = (one for one in rows if where is None or truth(where(one)) is True)
            return [one[name] if body is None else body(one) for one in kept]

        return build

    def _on_quantifier(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        which = str(tree.children[0]).lower()
        variable, of, where = trees(tree)
        name, items = name_of(variable), self._on(of, scope)
        condition = self._on(trees(where)[-1], scope | {name})

        def quantify(row: Bound) -> bool | None:
            found = _list(items(row))
            if found is None:
                return None
            outcomes = [truth(condition({**row, name: item})) for item in self._counted(found)]
            if which == "all":
                return semantics.all_of(outcomes)
            if which == "single":
                true = outcomes.count(True)
                return False if true > 1 else None if None in outcomes else true == 1
            some = semantics.any_of(outcomes)
            return some if which == "any" or some is None else not some

        return quantify

    def _on_reduce(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        total, start, variable, of, body = trees(tree)
        first, items = self._on(start, scope), self._on(of, scope)
        names = name_of(total), name_of(variable)
        step = self._on(body, scope | set(names))

        def fold(row: Bound) -> Any:
            found, value = _list(items(row)), first(row)
            if found is None:
                return None
            for item in self._counted(found):
                value = step({**row, names[0]: value, names[1]: item})
            return value

        return fold

    # ---- calls ----------------------------------------------------------------------------------------------

    def _on_call(self, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
        name = str(tree.children[0]).lower()
        given = [self._on(one, scope) for one in trees(tree)]
        if name in READING and len(given) == 1 and "DISTINCT" not in words(tree):
            return self._reading(name, trees(tree)[0], given[0], tree)
        function, least, most = FUNCTIONS.get(name, (None, 0, 0))
        if function is None:
            known = ", ".join(sorted([*FUNCTIONS, *READING, *AGGREGATES, *PERCENTILES]))
            raise fault(f"{tree.children[0]}() is not known; there are {known}", tree, UnsupportedQuery)
        if not least <= len(given) <= most or "DISTINCT" in words(tree):
            raise fault(f"{name}() takes {least if least == most else f'{least} to {most}'} arguments", tree)
        self._check_kinds(name, tree)
        call = function
        if len(given) == 1:
            (only,) = given
            return lambda row: call(only(row))

        def several(row: Bound) -> Any:
            return call(*(argument(row) for argument in given))

        return self._weighed(several) if name in _GROWING else several

    def kind(self, tree: Tree[Token]) -> str:
        """What kind of thing a name stands for, "" when that isn't known."""
        if tree.data == "list_":
            return "list"
        return self.kinds.get(name_of(trees(tree)[0]), "") if tree.data == "whole" else ""

    def _check_kinds(self, name: str, tree: Tree[Token]) -> None:
        kinds = [self.kind(one) for one in trees(tree)]
        wrong = _WRONG.get(name, ())
        if any(kind in wrong for kind in kinds):
            raise fault(f"{name}() takes no {kinds[0]}", tree)

    def _reading(self, name: str, what: Tree[Token], value: Evaluate, tree: Tree[Token]) -> Evaluate:
        if name == "exists":
            if what.data == "pattern_there":
                return value
            if what.data not in ("access", "at"):
                raise fault("exists() takes a property", tree, UnsupportedQuery)
            return lambda row: value(row) is not None

        def read(row: Bound) -> Any:
            found = value(row)
            if found is None:
                return None
            if isinstance(found, Relation):
                found = {}
            elif isinstance(found, NodeRef):
                found = self._properties(found.soul)
            if not isinstance(found, dict):
                raise QueryError(f"{name}() takes a node or a map, not {shown(found)}")
            return dict(found) if name == "properties" else list(found)

        return read

    # ---- aggregates -----------------------------------------------------------------------------------------

    def aggregate(self, tree: Tree[Token], scope: Iterable[str]) -> Callable[[list[Bound]], Any]:
        """What a call of an aggregate makes of the rows of a group."""
        if tree.data == "count_all":
            return len
        name = "count" if tree.data == "count_some" else str(tree.children[0]).lower()
        arguments, once = trees(tree), "DISTINCT" in words(tree)
        if len(arguments) != (2 if name in PERCENTILES else 1):
            raise fault(f"{name}() takes {'two arguments' if name in PERCENTILES else 'one argument'}", tree)
        value = self.compile(arguments[0], scope)

        def found(rows: list[Bound]) -> list[Any]:
            there = [one for one in map(value, self._counted(rows)) if one is not None]
            return distinct(there) if once else there

        if name in PERCENTILES:
            part = self.compile(arguments[1], scope)
            return lambda rows: percentile(name, found(rows), part(rows[0]) if rows else 0)
        total = AGGREGATES[name]
        return lambda rows: total(found(rows))


def _plain(value: Any) -> Any:
    """A value of the graph as queries have it: links are the nodes that they lead to, tuples and sets lists."""
    if isinstance(value, Link):
        return NodeRef(value.soul)
    if isinstance(value, list | tuple | set | frozenset) and not isinstance(value, Relation):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _list(value: Any) -> list[Any] | None:
    if value is None or isinstance(value, list):
        return value
    raise QueryError(f"a list is wanted here, not {shown(value)}")


def _negative(value: Any) -> Any:
    return -value if semantics.is_number(value) else semantics.subtract(0, value)


def _textual(function: Callable[[str, str], bool], a: Evaluate, b: Evaluate) -> Evaluate:
    def compare(row: Bound) -> bool | None:
        one, other = a(row), b(row)
        return function(one, other) if isinstance(one, str) and isinstance(other, str) else None

    return compare


_ESCAPES: Final = {
    "'": "'",
    '"': '"',
    "\\": "\\",
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "b": "\b",
    "f": "\f",
    "/": "/",
}


def unquoted(text: str) -> str:
    """A string literal's text. Raises `QueryError`."""

    def meant(found: re.Match[str]) -> str:
        letter = found[1]
        if letter in _ESCAPES:
            return _ESCAPES[letter]
        if len(letter) == 5:
            return str(json.loads(f'"\\{letter}"'))
        raise QueryError(f"{text} has an unknown escape")

    inner = text[1:-1]
    if "\\" in inner:
        inner = re.sub(r"\\(u[0-9a-fA-F]{4}|.)", meant, inner, flags=re.DOTALL)
        if any("\ud800" <= letter <= "\udfff" for letter in inner):
            raise QueryError(f"{text} has half of a surrogate pair")
    return inner
