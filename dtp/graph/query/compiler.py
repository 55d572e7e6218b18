"""openCypher to SQL: a parsed query becomes one SELECT over the index's tables.

A node is a row of `nodes`, a relationship one of `links`, or of a recursive table for paths of variable length.
Inline properties become joins, which SQLite can begin at the index of values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lark import Token, Tree

from dtp.crdt import Link, Value
from dtp.graph.query.errors import QueryError
from dtp.graph.query.index import column

#: Hops that a path of variable length has at most.
MAX_HOPS: Final = 32

_BINARY: Final = {
    "eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "sub": "-", "mul": "*", "div": "/", "mod": "%",
}  # fmt: skip
_BOOLEAN: Final = {
    "eq", "ne", "lt", "le", "gt", "ge", "in_", "starts", "ends", "contains", "is_null", "is_not_null",
    "and_", "or_", "xor_", "not_", "true", "false",
}  # fmt: skip
_CONSTANT: Final = {"integer", "real", "text", "true", "false", "parameter"}
_AGGREGATES: Final = {
    "sum": "COALESCE(SUM({}), 0)", "avg": "AVG({})", "min": "MIN({})", "max": "MAX({})",
    "collect": "json_group_array({}) FILTER (WHERE {} IS NOT NULL)",
}  # fmt: skip
#: Name -> (SQL, number of arguments).
_FUNCTIONS: Final = {
    "tolower": ("cypher_lower({})", 1), "toupper": ("cypher_upper({})", 1), "trim": ("TRIM({})", 1),
    "size": ("LENGTH({})", 1), "abs": ("ABS({})", 1), "tostring": ("CAST({} AS TEXT)", 1),
    "tointeger": ("CAST({} AS INTEGER)", 1), "tofloat": ("CAST({} AS REAL)", 1),
    "round": ("ROUND({})", 1), "sign": ("SIGN({})", 1), "replace": ("REPLACE({}, {}, {})", 3),
}  # fmt: skip


#: Where a step of a path begins and ends, in columns of `links`.
_SIDES: Final = {
    "right": (("soul", "target"),),
    "left": (("target", "soul"),),
    "both": (("soul", "target"), ("target", "soul")),
}


@dataclass
class Selected:
    """A column of the result: its name, and what Python makes of it."""

    name: str
    #: `value`, `bool`, `property` (its type is in the next column), `node`, `link`, `list`.
    shape: str


@dataclass
class Compiled:
    """A query as SQL."""

    sql: str
    parameters: list[Any]
    columns: list[Selected]


@dataclass
class _Part:
    """The tables of one MATCH, and what holds between them."""

    tables: list[str] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)


class Compiler:
    """One query's translation. `parameters` are the caller's, by name."""

    def __init__(self, text: str, parameters: Mapping[str, Value]) -> None:
        self._text = text
        self._given = parameters
        self._used: set[str] = set()
        self._parameters: list[Any] = []
        self._nodes: dict[str, str] = {}
        self._links: dict[str, str] = {}
        self._walks: list[str] = []
        #: What is said of a node by itself: tables and conditions, its own first.
        self._alone: dict[str, _Part] = {}
        self._count = 0

    # ---- small things ---------------------------------------------------------------------------------------

    def _fault(self, message: str, where: Tree[Token] | Token | None = None) -> QueryError:
        line = getattr(getattr(where, "meta", where), "line", None)
        place = getattr(getattr(where, "meta", where), "column", None)
        return QueryError(f"{message} (line {line}, column {place})" if line else message)

    def _alias(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"

    def _constant(self, value: Any) -> str:
        """A numbered parameter of SQLite: it may stand anywhere, in any order."""
        self._parameters.append(value)
        return f"?{len(self._parameters)}"

    @staticmethod
    def _name(tree: Tree[Token] | Token) -> str:
        token = tree if isinstance(tree, Token) else tree.children[0]
        text = str(token)
        return text[1:-1] if text.startswith("`") else text

    # ---- the whole ------------------------------------------------------------------------------------------

    def compile(self, tree: Tree[Token]) -> Compiled:
        """The SELECT of a parsed query. Raises `QueryError`."""
        *clauses, returning = tree.children
        required, optional = _Part(), ""
        for clause in clauses:
            assert isinstance(clause, Tree)
            part = _Part()
            self._clause(clause, part)
            if clause.data == "match":
                if optional:
                    raise self._fault("MATCH behind OPTIONAL MATCH is not supported; put it before", clause)
                required.tables += part.tables
                required.conditions += part.conditions
            elif part.tables:
                tables = " JOIN ".join(part.tables)
                optional += f" LEFT JOIN ({tables}) ON {' AND '.join(part.conditions) or '1'}"
            else:
                raise self._fault(
                    "OPTIONAL MATCH has to bring in something new; say the rest by WHERE", clause
                )
        if not required.tables:
            raise self._fault("a query begins with MATCH")
        assert isinstance(returning, Tree)
        selected, tail, columns = self._returning(returning)
        walks = f"WITH RECURSIVE {', '.join(self._walks)} " if self._walks else ""
        where = f" WHERE {' AND '.join(required.conditions)}" if required.conditions else ""
        sql = f"{walks}SELECT {selected} FROM {' JOIN '.join(required.tables)}{optional}{where}{tail}"
        unused = self._given.keys() - self._used
        if unused:
            raise QueryError(f"the query has no ${', $'.join(sorted(unused))}")
        return Compiled(sql, self._parameters, columns)

    # ---- patterns -------------------------------------------------------------------------------------------

    def _clause(self, clause: Tree[Token], part: _Part) -> None:
        words = [child for child in clause.children if isinstance(child, Tree)]
        steps: list[str] = []
        for pattern in words[0].children:
            assert isinstance(pattern, Tree)
            self._pattern(pattern, part, steps)
        for at, one in enumerate(steps):  # no relationship is walked twice in one MATCH
            part.conditions += [f"{one}.id <> {other}.id" for other in steps[:at]]
        if len(words) > 1:
            where = words[1].children[-1]
            part.conditions.append(self._expression(where, aggregates=False))

    def _pattern(self, pattern: Tree[Token], part: _Part, steps: list[str]) -> None:
        children = [child for child in pattern.children if isinstance(child, Tree)]
        alias = self._node(children[0], part)
        for relation, node in zip(children[1::2], children[2::2], strict=True):
            behind = self._node(node, part)
            self._relation(relation, alias, behind, part, steps)
            alias = behind

    def _node(self, tree: Tree[Token], part: _Part) -> str:
        variable = next((c for c in tree.find_data("variable") if c in tree.children), None)
        name = self._name(variable) if variable is not None else ""
        if name in self._links:
            raise self._fault(f"{name} is a relationship", tree)
        alias = self._nodes.get(name) if name else None
        if alias is None:
            alias = self._alias("n")
            if name:
                self._nodes[name] = alias
            self._alone[alias] = _Part([f"nodes AS {alias}"])
            part.tables.append(f"nodes AS {alias}")
        for child in tree.children:
            if isinstance(child, Tree) and child.data == "label":
                label = self._constant(self._name(child.children[0]))
                part.conditions.append(f"{alias}.kind = {label}")
                self._alone[alias].conditions.append(f"{alias}.kind = {label}")
            elif isinstance(child, Tree) and child.data == "properties":
                for item in child.children:
                    assert isinstance(item, Tree)
                    self._join(alias, self._name(item.children[0]), item.children[1], part)
        return alias

    def _join(self, alias: str, key: str, value: Any, part: _Part) -> None:
        """A property that has to be there with this value."""
        own = self._alias("p")
        shown = self._expression(value, aggregates=False)
        condition = (
            f"{own}.soul = {alias}.soul AND {own}.key = {self._constant(key)} AND {own}.value = {shown}"
        )
        for one in (part, self._alone[alias]) if value.data in _CONSTANT else (part,):
            one.tables.append(f"properties AS {own}")
            one.conditions.append(condition)

    def _relation(self, tree: Tree[Token], left: str, right: str, part: _Part, steps: list[str]) -> None:
        detail = tree.children[0] if tree.children and isinstance(tree.children[0], Tree) else None
        name, types, hops = "", "", None
        for child in detail.children if detail is not None else ():
            if isinstance(child, Tree) and child.data == "variable":
                name = self._name(child)
            elif isinstance(child, Tree) and child.data == "types":
                keys = ", ".join(self._constant(self._name(one)) for one in child.children)
                types = f"{{0}}.key IN ({keys})"
            elif isinstance(child, Tree) and child.data == "hops":
                hops = child
        if name and (name in self._nodes or name in self._links):
            raise self._fault(f"{name} stands for something already", tree)
        if hops is not None and name:
            raise self._fault("a path of variable length can't have a name", tree)
        if hops is not None:
            self._walk(hops, types, left, right, str(tree.data), part)
        else:
            alias = self._alias("r")
            part.tables.append(f"links AS {alias}")
            steps.append(alias)
            if name:
                self._links[name] = alias
            if types:
                part.conditions.append(types.format(alias))
            part.conditions.append(_ends(alias, left, right, str(tree.data)))

    def _walk(
        self, hops: Tree[Token], types: str, left: str, right: str, direction: str, part: _Part
    ) -> None:
        """A recursive table of (soul, target) some links apart; it begins at the end of which more is said."""
        if self._alone[right].conditions and not self._alone[left].conditions:
            left, right = right, left
            direction = {"right": "left", "left": "right"}.get(direction, direction)
        least, most = self._bounds(hops)
        walk = self._alias("w")
        only = f" AND {types.format('l')}" if types else ""
        branches = " UNION ALL ".join(
            f"SELECT w.soul, l.{to}, w.hops + 1, w.path || l.id || ',' FROM {walk} AS w JOIN links AS l "
            f"ON l.{at} = w.target{only} AND w.hops < {most} AND instr(w.path, ',' || l.id || ',') = 0"
            for at, to in _SIDES[direction]
        )
        alone = self._alone[left]
        where = f" WHERE {' AND '.join(alone.conditions)}" if alone.conditions else ""
        seeds = f"SELECT {left}.soul, {left}.soul, 0, ',' FROM {' JOIN '.join(alone.tables)}{where}"
        self._walks.append(f"{walk} (soul, target, hops, path) AS ({seeds} UNION ALL {branches})")
        part.tables.append(walk)
        part.conditions += [f"{walk}.hops >= {least}", _ends(walk, left, right, "right")]

    def _bounds(self, hops: Tree[Token]) -> tuple[int, int]:
        bounds = hops.children[0] if hops.children else None
        if not isinstance(bounds, Tree) or bounds.data == "at_least":
            raise self._fault(
                f"give a path of variable length an end, such as *1..5; at most {MAX_HOPS}", hops
            )
        numbers = [int(token) for token in bounds.children if isinstance(token, Token)]
        least = 1 if bounds.data == "at_most" else numbers[0]
        most = numbers[-1]
        if most > MAX_HOPS or least > most:
            raise self._fault(
                f"a path has at most {MAX_HOPS} links, and its end isn't before its begin", hops
            )
        return least, most

    # ---- RETURN ---------------------------------------------------------------------------------------------

    def _returning(self, tree: Tree[Token]) -> tuple[str, str, list[Selected]]:
        distinct = any(isinstance(c, Token) and c.type == "DISTINCT" for c in tree.children)
        parts = {str(c.data): c for c in tree.children if isinstance(c, Tree)}
        selected: list[str] = []
        groups: list[str] = []
        columns: list[Selected] = []
        names: dict[str, str] = {}
        aggregated = False
        for item in parts["items"].children:
            assert isinstance(item, Tree)
            expr = item.children[0]
            alias = next((c for c in item.children[1:] if isinstance(c, Tree) and c.data == "name"), None)
            name = self._name(alias) if alias is not None else self._source(expr)
            if name in names:
                raise self._fault(f"two columns are called {name}; give one another name by AS", item)
            sql, shape = self._column(expr)
            names[name] = sql
            columns.append(Selected(name, shape))
            selected.append(sql)
            if _has_aggregate(expr):
                aggregated = True
            else:
                groups.append(sql)
            if shape == "property":
                assert isinstance(expr, Tree)
                kind = self._property(expr, "type")
                selected.append(kind)
                groups.append(kind)
        tail = f" GROUP BY {', '.join(groups)}" if aggregated and groups else ""
        if "order" in parts:
            tail += self._order(parts["order"], names)
        tail += self._window(parts)
        return ("DISTINCT " if distinct else "") + ", ".join(selected), tail, columns

    def _source(self, expr: Any) -> str:
        """An expression as it was written."""
        if isinstance(expr, Token) or expr.meta.empty:
            return str(expr)
        return " ".join(self._text[expr.meta.start_pos : expr.meta.end_pos].split())

    def _column(self, expr: Any) -> tuple[str, str]:
        if expr.data == "whole":
            name = self._name(expr.children[0])
            if name in self._nodes:
                return f"{self._nodes[name]}.soul", "node"
            if name in self._links:
                alias = self._links[name]
                return f"json_array({alias}.soul, {alias}.key, {alias}.target)", "link"
        sql = self._expression(expr, aggregates=True)
        if expr.data == "access":
            return sql, "property"
        is_list = expr.data == "list_" or (
            expr.data == "call" and str(expr.children[0]).lower() in ("collect", "labels")
        )
        return sql, "bool" if expr.data in _BOOLEAN else "list" if is_list else "value"

    def _order(self, tree: Tree[Token], names: Mapping[str, str]) -> str:
        sorts = []
        for sort in (c for c in tree.children if isinstance(c, Tree)):
            expr = sort.children[0]
            down = any(isinstance(c, Token) and c.type in ("DESC", "DESCENDING") for c in sort.children)
            name = self._source(expr)
            sql = names.get(name) or self._expression(expr, aggregates=True)
            sorts.append(f"{sql} {'DESC NULLS FIRST' if down else 'ASC NULLS LAST'}")
        return f" ORDER BY {', '.join(sorts)}"

    def _window(self, parts: Mapping[str, Tree[Token]]) -> str:
        if "skip" not in parts and "limit" not in parts:
            return ""
        limit = self._number(parts["limit"]) if "limit" in parts else "-1"
        skip = f" OFFSET {self._number(parts['skip'])}" if "skip" in parts else ""
        return f" LIMIT {limit}{skip}"

    def _number(self, tree: Tree[Token]) -> str:
        expr = tree.children[-1]
        assert isinstance(expr, Tree)
        if expr.data == "integer":
            return str(expr.children[0])
        if expr.data == "parameter":
            value = self._parameter(expr)
            if type(value) is int and value >= 0:
                return str(value)
        raise self._fault("SKIP and LIMIT take a whole number of 0 or more", tree)

    # ---- expressions ----------------------------------------------------------------------------------------

    def _expression(self, tree: Any, *, aggregates: bool) -> str:
        kind = str(tree.data)
        special: Callable[[Tree[Token], bool], str] | None = getattr(self, f"_on_{kind}", None)
        if special is not None:
            return special(tree, aggregates)
        inner = [self._expression(c, aggregates=aggregates) for c in tree.children if isinstance(c, Tree)]
        if kind in _BINARY:
            return f"({inner[0]} {_BINARY[kind]} {inner[1]})"
        forms = {
            "add": "cypher_add({}, {})", "pow": "cypher_pow({}, {})", "neg": "(-{})",
            "and_": "({} AND {})", "or_": "({} OR {})", "not_": "(NOT {})", "xor_": "(({0}) <> ({1}))",
            "is_null": "({} IS NULL)", "is_not_null": "({} IS NOT NULL)",
            "starts": "(substr({0}, 1, length({1})) = {1})", "contains": "(instr({}, {}) > 0)",
            "ends": "({1} = '' OR substr({0}, -length({1})) = {1})",
            "in_": "({} IN (SELECT value FROM json_each({})))", "list_": None,
            "true": "1", "false": "0", "null": "NULL",
        }  # fmt: skip
        form = forms.get(kind)
        if kind == "list_":
            return f"json_array({', '.join(inner)})"
        if form is None:
            raise self._fault(f"{kind} is not supported here", tree)
        return form.format(*inner)

    def _on_integer(self, tree: Tree[Token], aggregates: bool) -> str:
        return self._constant(column(int(str(tree.children[0])))[0])

    def _on_real(self, tree: Tree[Token], aggregates: bool) -> str:
        return self._constant(float(str(tree.children[0])))

    def _on_text(self, tree: Tree[Token], aggregates: bool) -> str:
        return self._constant(_unquoted(str(tree.children[0])))

    def _parameter(self, tree: Tree[Token]) -> Value:
        name = self._name(tree.children[0])
        if name not in self._given:
            raise self._fault(f"${name} has no value; give it as {name}=...", tree)
        self._used.add(name)
        value = self._given[name]
        return value.soul if isinstance(value, Link) else value

    def _on_parameter(self, tree: Tree[Token], aggregates: bool) -> str:
        value = self._parameter(tree)
        if isinstance(value, tuple | set | frozenset):
            value = list(value)
        return self._constant(column(value)[0])

    def _property(self, tree: Tree[Token], what: str) -> str:
        name, key = self._name(tree.children[0]), self._name(tree.children[1])
        if name in self._links:
            raise self._fault("relationships have no properties here", tree)
        if name not in self._nodes:
            raise self._fault(f"{name} is not in any pattern", tree)
        place = self._constant(key)
        return f"(SELECT {what} FROM properties WHERE soul = {self._nodes[name]}.soul AND key = {place})"

    def _on_access(self, tree: Tree[Token], aggregates: bool) -> str:
        return self._property(tree, "value")

    def _on_whole(self, tree: Tree[Token], aggregates: bool) -> str:
        name = self._name(tree.children[0])
        if name in self._nodes:
            return f"{self._nodes[name]}.soul"
        if name in self._links:
            return f"{self._links[name]}.id"
        raise self._fault(f"{name} is not in any pattern", tree)

    def _on_case(self, tree: Tree[Token], aggregates: bool) -> str:
        parts = [c for c in tree.children if isinstance(c, Tree)]
        sql = "CASE"
        for part in parts:
            if part.data == "when":
                condition, result = (c for c in part.children if isinstance(c, Tree))
                test = self._expression(condition, aggregates=aggregates)
                sql += f" WHEN {test} THEN {self._expression(result, aggregates=aggregates)}"
            else:
                sql += f" ELSE {self._expression(part, aggregates=aggregates)}"
        return f"{sql} END"

    def _on_count_all(self, tree: Tree[Token], aggregates: bool) -> str:
        self._check_aggregate("count", tree, aggregates)
        return "COUNT(*)"

    def _on_count_some(self, tree: Tree[Token], aggregates: bool) -> str:
        self._check_aggregate("count", tree, aggregates)
        distinct = any(isinstance(c, Token) and c.type == "DISTINCT" for c in tree.children)
        (inner,) = (c for c in tree.children if isinstance(c, Tree))
        return f"COUNT({'DISTINCT ' if distinct else ''}{self._expression(inner, aggregates=False)})"

    def _check_aggregate(self, name: str, tree: Tree[Token], aggregates: bool) -> None:
        if not aggregates:
            raise self._fault(f"{name}() belongs into RETURN, and not into another aggregate", tree)

    def _on_call(self, tree: Tree[Token], aggregates: bool) -> str:
        name = str(tree.children[0]).lower()
        given = [c for c in tree.children[1:] if isinstance(c, Tree)]
        distinct = any(isinstance(c, Token) and c.type == "DISTINCT" for c in tree.children[1:])
        if name in ("id", "type", "labels", "startnode", "endnode"):
            return self._about(name, given, tree)
        if name in _AGGREGATES:
            self._check_aggregate(name, tree, aggregates)
            if len(given) != 1:
                raise self._fault(f"{name}() takes one argument", tree)
            inner = self._expression(given[0], aggregates=False)
            return _AGGREGATES[name].format(f"DISTINCT {inner}" if distinct else inner, inner)
        inner_all = [self._expression(one, aggregates=aggregates) for one in given]
        if name == "coalesce" and len(given) > 1:
            return f"COALESCE({', '.join(inner_all)})"
        form, count = _FUNCTIONS.get(name, ("", -1))
        if count != len(given) or distinct:
            known = sorted([*_FUNCTIONS, *_AGGREGATES, "count", "id", "type", "labels", "coalesce"])
            raise self._fault(f"{name}() is not known, or not so; there are {', '.join(known)}", tree)
        return form.format(*inner_all)

    def _about(self, what: str, given: list[Tree[Token]], tree: Tree[Token]) -> str:
        """Functions of a node or a relationship."""
        name = self._name(given[0].children[0]) if len(given) == 1 and given[0].data == "whole" else ""
        if what in ("id", "labels") and name in self._nodes:
            alias = self._nodes[name]
            return f"{alias}.soul" if what == "id" else f"json_array({alias}.kind)"
        if what not in ("id", "labels") and name in self._links:
            column_of = {"type": "key", "startnode": "soul", "endnode": "target"}[what]
            return f"{self._links[name]}.{column_of}"
        raise self._fault(f"{what}() takes a {'node' if what in ('id', 'labels') else 'relationship'}", tree)


def _ends(alias: str, left: str, right: str, direction: str) -> str:
    forwards = f"{alias}.soul = {left}.soul AND {alias}.target = {right}.soul"
    backwards = f"{alias}.target = {left}.soul AND {alias}.soul = {right}.soul"
    if direction == "both":
        return f"(({forwards}) OR ({backwards}))"
    return forwards if direction == "right" else backwards


def _has_aggregate(expr: Any) -> bool:
    return any(
        tree.data in ("count_all", "count_some")
        or (tree.data == "call" and str(tree.children[0]).lower() in _AGGREGATES)
        for tree in expr.iter_subtrees()
    )


def _unquoted(text: str) -> str:
    """A string literal's text."""
    inner = text[1:-1]
    if "\\" not in inner:
        return inner
    if text[0] == "'":  # as JSON has it
        inner = inner.replace("\\'", "'").replace('"', '\\"')
    try:
        return str(json.loads(f'"{inner}"', strict=False))
    except ValueError as error:
        raise QueryError(f"{text} has an unknown escape") from error
