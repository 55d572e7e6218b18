"""MATCH: patterns become one SELECT over the index's tables, asked for each row that comes in.

A node is a row of `nodes`, a relationship one of `links`, or of a recursive table for paths of variable length. What
WHERE and inline properties say that the index can narrow down goes into the SELECT as well; all of it is then worked
out exactly. Values are parameters of SQLite; names of keys and labels stand in the text, quoted: partial indexes are
found by constants only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from lark import Token, Tree

from dtp.graph.query.errors import QueryError, UnsupportedQuery
from dtp.graph.query.expressions import Expressions
from dtp.graph.query.index import Index
from dtp.graph.query.pattern import Pattern, Range, Sought, Walk
from dtp.graph.query.semantics import NodeRef, Path, Relation, equals, truth
from dtp.graph.query.syntax import Bound, Evaluate, fault, label_names, name_of, trees
from dtp.graph.query.tables import is_scalar, scalar

#: Hops that a path of variable length has at most.
MAX_HOPS: Final = 32

#: Where a step of a path begins and ends, in columns of `links`.
_SIDES: Final = {
    "right": (("soul", "target"),),
    "left": (("target", "soul"),),
    "both": (("soul", "target"), ("target", "soul")),
}
_MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "="}


@dataclass
class _Condition:
    """What holds of a row of the SELECT.

    `{}` stand for the values, which are worked out for each row that comes in; when `fits` refuses one, the condition
    is left out: then something else checks it.
    """

    sql: str
    values: tuple[Evaluate, ...] = ()
    table: str = ""
    fits: Callable[[Any], bool] = lambda value: True
    #: What the value is compared with, and how: a register by its key, or (None) the soul. Only said where it has the
    #: same outcome each time.
    about: tuple[str | None, str] | None = None


@dataclass
class _Node:
    alias: str
    name: str
    #: The label that it has to have; "" for any.
    label: str = ""
    #: What is said of it alone.
    alone: list[_Condition] = field(default_factory=list)


@dataclass
class _Step:
    """A relationship of a pattern, or a path of variable length."""

    alias: str
    name: str
    left: _Node
    right: _Node
    #: Which clause it belongs to: within one no relationship is walked twice.
    group: int
    #: Of variable length: the fewest and most hops, None without an end.
    hops: tuple[int, int | None] | None = None
    direction: str = "both"
    keys: tuple[str, ...] = ()
    backwards: bool = False
    place: Tree[Token] | None = None


class Match:
    """One MATCH or OPTIONAL MATCH, or several MATCHes in a row, compiled. `scope` are the names known before."""

    def __init__(
        self,
        expressions: Expressions,
        index: Index,
        clauses: list[Tree[Token]],
        scope: frozenset[str],
        optional: bool,
    ) -> None:
        self._expressions = expressions
        self._index = index
        self._optional = optional
        self._before = scope
        self._nodes: dict[str, _Node] = {}
        self._all: list[_Node] = []
        self._steps: list[_Step] = []
        self._paths: list[tuple[str, list[_Node | _Step]]] = []
        self._conditions: list[_Condition] = []
        self._walks: list[tuple[_Step, str, list[_Condition]]] = []
        #: Checked exactly, in Python.
        self._checks: list[Evaluate] = []
        self._equal: list[tuple[_Node, str, Evaluate]] = []
        #: (node, key) -> the alias under which the property is looked up.
        self._looked_up: dict[tuple[str, str], str] = {}
        self._count = 0
        for group, clause in enumerate(clauses):
            self._clause(clause, group)
        #: The names that it brings in.
        self.names = [
            name
            for name in (
                *(node.name for node in self._nodes.values()),
                *(step.name for step in self._steps),
                *(name for name, _ in self._paths),
            )
            if name and name not in scope
        ]
        self.scope = scope | set(self.names)
        self._know()
        for clause in clauses:
            self._where(clause)
        index.expect(getattr(clauses[0].meta, "start_pos", None), self.pattern)

    # ---- compiling ------------------------------------------------------------------------------------------

    def _know(self) -> None:
        """Tell of what kind the new names are."""
        kinds = self._expressions.kinds
        kinds.update((name, "node") for name in self._nodes)
        kinds.update(
            (step.name, "list" if step.hops else "relationship") for step in self._steps if step.name
        )
        kinds.update((name, "path") for name, _ in self._paths)

    def _alias(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"

    def _clause(self, clause: Tree[Token], group: int) -> None:
        for pattern in trees(trees(clause)[0]):
            parts = trees(pattern)
            name = name_of(trees(parts.pop(0))[0]) if parts[0].data == "path" else ""
            if name and (name in self._before or self._taken(name)):
                raise fault(f"{name} stands for something already", pattern)
            if parts[0].data == "shortest":
                raise fault("shortest paths are not supported", pattern, UnsupportedQuery)
            left = self._node(parts[0])
            walked: list[_Node | _Step] = [left]
            for relation, node in zip(parts[1::2], parts[2::2], strict=True):
                right = self._node(node)
                step = self._relation(relation, left, right, group)
                walked += [step, right]
                left = right
            if name and self._taken(name):
                raise fault(f"{name} stands for something in the path already", pattern)
            if name:
                self._paths.append((name, walked))

    def _taken(self, name: str) -> bool:
        return (
            name in self._nodes
            or any(step.name == name for step in self._steps)
            or any(path == name for path, _ in self._paths)
        )

    def _node(self, tree: Tree[Token]) -> _Node:
        variable = next((one for one in trees(tree) if one.data == "variable"), None)
        name = name_of(variable) if variable is not None else ""
        if any(step.name == name for step in self._steps if name) or any(
            n == name for n, _ in self._paths if name
        ):
            raise fault(f"{name} is a relationship or a path, and no node", tree)
        kind = self._expressions.kinds.get(name, "node") if name in self._before else "node"
        if kind != "node":
            raise fault(f"{name} is a {kind}, and no node", tree)
        node = self._nodes.get(name) if name else None
        if node is None:
            node = _Node(self._alias("n"), name)
            self._all.append(node)
            if name:
                self._nodes[name] = node
            if name in self._before:
                self._say(
                    node, _Condition(f"{node.alias}.soul = {{}}", (_bound(name, NodeRef),), about=(None, "="))
                )
        for child in trees(tree):
            if child.data == "label":
                self._labelled(node, child)
            elif child.data == "properties":
                for item in trees(child):
                    key, value = trees(item)
                    self._has(node, name_of(key), value)
            elif child.data == "parameter":
                self._has_all(node, child)
        return node

    def _labelled(self, node: _Node, tree: Tree[Token]) -> None:
        names = label_names(tree)
        if len(names) == 1:
            node.label = node.label or names[0]
        self._say(node, _Condition(f"{node.alias}.kind IN ({', '.join(map(_quoted, names))})"))

    def _say(self, node: _Node, condition: _Condition) -> None:
        node.alone.append(condition)
        self._conditions.append(condition)

    def _has_all(self, node: _Node, tree: Tree[Token]) -> None:
        given = self._expressions.parameter(tree)
        if not isinstance(given, dict):
            raise fault("a node's properties are given as a map", tree)
        for key, value in given.items():
            self._property(node, key, "=", _always(value), exact=True, steady=True)

    def _has(self, node: _Node, key: str, value: Tree[Token]) -> None:
        """An inline property."""
        if self._expressions.free(value) <= self._before:
            compiled, steady = self._expressions.compile(value, self._before), _is_steady(value)
            self._property(node, key, "=", compiled, exact=True, steady=steady)
            return
        self._equal_later(node, key, value)

    def _equal_later(self, node: _Node, key: str, value: Tree[Token]) -> None:
        known = self._before | self._nodes.keys()
        self._equal.append((node, key, self._expressions.compile(value, known)))

    def _property(
        self,
        node: _Node,
        key: str,
        operator: str,
        value: Evaluate,
        *,
        exact: bool = False,
        steady: bool = False,
    ) -> None:
        """What the index can say of a property; `exact`: nothing else checks it; `steady`: see `_is_steady`."""
        own = self._looked_up.setdefault((node.alias, key), f"p{len(self._looked_up) + 1}")
        # numbers beyond 64 bits are floats in the index: rounding keeps their order, but may make them equal
        wide = {"<": "<=", ">": ">="}.get(operator, operator)
        declared = self._index.has(node.label, key)
        kind = f" AND {own}.kind = {_quoted(node.label)}" if declared else ""
        self._say(
            node,
            _Condition(
                f"{own}.soul = {node.alias}.soul AND {own}.key = {_quoted(key)}{kind} AND {own}.value {wide} {{}}",
                (value,),
                f"properties AS {own}",
                is_scalar,
                (key, operator) if steady else None,
            ),
        )
        if exact:
            self._equal.append((node, key, value))

    def _relation(self, tree: Tree[Token], left: _Node, right: _Node, group: int) -> _Step:
        detail = next(iter(trees(tree)), None)
        parts = {str(one.data): one for one in trees(detail)} if detail is not None else {}
        if ("properties" in parts and trees(parts["properties"])) or "parameter" in parts:
            raise fault("relationships have no properties here", tree, UnsupportedQuery)
        name = name_of(parts["variable"]) if "variable" in parts else ""
        if name and (self._taken(name) or (name in self._before and "hops" in parts)):
            raise fault(f"{name} stands for something already", tree)
        names = tuple(name_of(one) for one in trees(parts["types"])) if "types" in parts else ()
        keys = ", ".join(_quoted(one) for one in names)
        direction = str(tree.data)
        if "hops" in parts:
            return self._walk(tree, parts["hops"], name, names, left, right, group)
        step = _Step(self._alias("r"), name, left, right, group, direction=direction, keys=names, place=tree)
        self._steps.append(step)
        said = [_ends(step.alias, left.alias, right.alias, direction)]
        if keys:
            said.append(f"{step.alias}.key IN ({keys})")
        bound: tuple[Evaluate, ...] = ()
        if name in self._before:
            said.append(" AND ".join(f"{step.alias}.{column} = {{}}" for column in Relation._fields))
            bound = tuple(_field(name, column) for column in Relation._fields)
        self._conditions.append(_Condition(" AND ".join(said), bound, f"links AS {step.alias}"))
        return step

    def _walk(
        self,
        tree: Tree[Token],
        hops: Tree[Token],
        name: str,
        names: tuple[str, ...],
        left: _Node,
        right: _Node,
        group: int,
    ) -> _Step:
        """A recursive table of (soul, target) some links apart; it begins at the end of which more is said."""
        direction, keys = str(tree.data), ", ".join(_quoted(one) for one in names)
        step = _Step(
            self._alias("w"), name, left, right, group, self._bounds(hops), direction, names, place=tree
        )
        self._steps.append(step)
        if right.alone and not left.alone:
            step.backwards = True
            left, right = right, left
            direction = {"right": "left", "left": "right"}.get(direction, direction)
        least, most = step.hops or (1, None)
        end = MAX_HOPS + 1 if most is None else most
        only = f" AND l.key IN ({keys})".format() if keys else ""
        branches = " UNION ALL ".join(
            f"SELECT w.soul, l.{to}, w.hops + 1, w.path || l.id || ',' FROM {step.alias} AS w JOIN links AS l "
            f"ON l.{at} = w.target{only} AND w.hops < {end} AND instr(w.path, ',' || l.id || ',') = 0"
            for at, to in _SIDES[direction]
        )
        if direction == "both":  # a loop has the same ends either way round
            branches += " AND l.soul <> l.target"
        self._walks.append((step, branches, list(left.alone)))
        said = f"{step.alias}.hops >= {least} AND {_ends(step.alias, left.alias, right.alias, 'right')}"
        self._conditions.append(_Condition(said, (), step.alias))
        return step

    def _bounds(self, hops: Tree[Token]) -> tuple[int, int | None]:
        bounds = next(iter(trees(hops)), None)
        kind = "any_number" if bounds is None else str(bounds.data)
        numbers = (
            [] if bounds is None else [int(token) for token in bounds.children if isinstance(token, Token)]
        )
        least = 1 if kind in ("any_number", "at_most") else numbers[0]
        most = None if kind in ("any_number", "at_least") else numbers[-1]
        if (most or least) > MAX_HOPS:
            raise fault(f"a path of variable length has at most {MAX_HOPS} links", hops, UnsupportedQuery)
        return least, most

    # ---- WHERE ----------------------------------------------------------------------------------------------

    def _where(self, clause: Tree[Token]) -> None:
        where = next((one for one in trees(clause) if one.data == "where"), None)
        if where is None:
            return
        condition = trees(where)[-1]
        if self._expressions.kind(condition):
            raise fault("a condition is true or false, and no node, relationship, path or list", condition)
        self._checks.append(self._expressions.compile(condition, self.scope))
        for one in _conjuncts(condition):
            self._narrow(one)

    def _narrow(self, tree: Tree[Token]) -> None:
        """Let the index leave out rows of which this condition isn't true."""
        parts = trees(tree)
        if tree.data == "has_labels":
            node = self._new(parts[0])
            if node is not None and len(parts) == 2:
                names = ", ".join(map(_quoted, label_names(parts[1])))
                self._say(node, _Condition(f"{node.alias}.kind IN ({names})"))
        elif tree.data == "compare" and len(parts) == 2:
            operator = next(str(child) for child in tree.children if isinstance(child, Token))
            if operator in _MIRRORED:
                self._narrow_by(parts[0], operator, parts[1])
                self._narrow_by(parts[1], _MIRRORED[operator], parts[0])
        elif tree.data == "starts":
            self._narrow_by(parts[0], ">=", parts[1])
            self._narrow_by(parts[0], "<", parts[1], _after)
        elif tree.data == "contains":
            self._narrow_text(parts[0], parts[1])

    def _new(self, tree: Tree[Token]) -> _Node | None:
        """The node that is brought in here and meant by `n`."""
        name = name_of(trees(tree)[0]) if tree.data == "whole" else ""
        return self._nodes.get(name) if name not in self._before else None

    def _narrow_by(
        self,
        of: Tree[Token],
        operator: str,
        to: Tree[Token],
        by: Callable[[Evaluate], Evaluate] | None = None,
    ) -> None:
        if not self._expressions.free(to) <= self._before:
            return
        value = self._expressions.compile(to, self._before)
        value = value if by is None else by(value)
        if of.data == "access" and (node := self._new(trees(of)[0])) is not None:
            self._property(node, name_of(trees(of)[1]), operator, value, steady=_is_steady(to))
        elif (
            of.data == "call"
            and str(of.children[0]).lower() == "id"
            and operator == "="
            and len(trees(of)) == 1
        ):
            node = self._new(trees(of)[0])
            if node is not None:
                about = (None, "=") if _is_steady(to) else None
                self._say(node, _Condition(f"{node.alias}.soul = {{}}", (_soul_of(value),), about=about))

    def _narrow_text(self, of: Tree[Token], to: Tree[Token]) -> None:
        """CONTAINS by trigrams, where a full-text index was declared."""
        node = self._new(trees(of)[0]) if of.data == "access" else None
        if node is None or not self._expressions.free(to) <= self._before:
            return
        table = self._index.text_table(node.label, name_of(trees(of)[1]), trigrams=True)
        if table is not None:
            self._say(
                node,
                _Condition(
                    f"{node.alias}.soul IN (SELECT soul FROM {table} WHERE {table} MATCH {{}})",
                    (_phrase(self._expressions.compile(to, self._before)),),
                    fits=lambda value: value is not None,
                ),
            )

    # ---- running --------------------------------------------------------------------------------------------

    def run(self, rows: Iterator[Bound]) -> Iterator[Bound]:
        """The rows that come of those that come in."""
        nothing = dict.fromkeys(self.names)
        for row in rows:
            found = False
            for one in self._found(row):
                found = True
                yield one
            if self._optional and not found:
                yield {**row, **nothing}

    def _found(self, row: Bound) -> Iterator[Bound]:
        if any(
            row[name] is None
            for name in (*self._nodes, *(s.name for s in self._steps))
            if name in self._before
        ):
            return
        sql, values = self.select(row)
        step = self._expressions.meter.step
        for columns in self._index.rows(sql, values, lambda: self.pattern(row)):
            step()
            bound = self._bind(row, columns)
            if bound is not None and all(truth(check(bound)) is True for check in self._checks):
                yield bound

    def pattern(self, row: Bound | None = None) -> Pattern:
        """What is looked for, for a row that comes in, or for any at all."""
        places = {node.alias: place for place, node in enumerate(self._all)}
        nodes = [self._sought(node, row) for node in self._all]
        walks = []
        for step in self._steps:
            left, right = places[step.left.alias], places[step.right.alias]
            hops = 1 if step.hops is None else MAX_HOPS + 1 if step.hops[1] is None else step.hops[1]
            walks.append(Walk(left, right, step.direction, step.keys, step.hops is not None, hops))
            if step.name in self._before and step.name:
                link = None if row is None else row[step.name]
                for end in (nodes[left], nodes[right]):
                    end.bound = True
                    if isinstance(link, Relation) and end.souls is None:
                        end.souls = frozenset((link.soul, link.target))
        return Pattern(nodes, walks)

    def _sought(self, node: _Node, row: Bound | None) -> Sought:
        sought = Sought(node.label, bound=node.name in self._before)
        for one in node.alone:
            if one.about is None:
                continue
            key, operator = one.about
            try:
                value = one.values[0](_Nothing() if row is None else row)
            except _NotKnown:
                continue
            if not one.fits(value):
                continue
            if key is None:
                there = frozenset((value,)) if isinstance(value, str) else frozenset[str]()
                sought.souls = there if sought.souls is None else sought.souls & there
            else:
                sought.ranges[key] = sought.ranges.get(key, Range(None, None)).within(operator, value)
        return sought

    def example(self) -> tuple[str, list[Any]]:
        """A SELECT as it would be for a row that comes in, with null for its values."""
        before = dict.fromkeys(self._before)
        names = {one: NodeRef("") for one in before if one in self._nodes}
        links = {step.name: Relation("", "", "") for step in self._steps if step.name in before}
        return self.select({**before, **names, **links})

    def select(self, row: Bound) -> tuple[str, list[Any]]:
        """The SELECT for a row that comes in, and its parameters."""
        values: list[Any] = []
        with_ = [self._recursion(step, branches, alone, row, values) for step, branches, alone in self._walks]
        tables = [f"nodes AS {node.alias}" for node in self._all]
        said = []
        for one in self._conditions:
            text = _filled(one, row, values)
            if text is not None:
                said.append(text)
                if one.table and one.table not in tables:
                    tables.append(one.table)
        wanted = [f"{node.alias}.soul" for node in self._all]
        for step in self._steps:
            columns = ("path",) if step.hops is not None else ("id", "soul", "key", "target")
            wanted += [f"{step.alias}.{column}" for column in columns]
        recursive = f"WITH RECURSIVE {', '.join(with_)} " if with_ else ""
        where = f" WHERE {' AND '.join(said)}" if said else ""
        return f"{recursive}SELECT {', '.join(wanted)} FROM {' JOIN '.join(tables)}{where}", values

    def _recursion(
        self, step: _Step, branches: str, alone: list[_Condition], row: Bound, values: list[Any]
    ) -> str:
        start = step.right if step.backwards else step.left
        tables, said = [f"nodes AS {start.alias}"], []
        for one in alone:
            text = _filled(one, row, values)
            if text is not None:
                said.append(text)
                if one.table and one.table not in tables:
                    tables.append(one.table)
        where = f" WHERE {' AND '.join(said)}" if said else ""
        seeds = f"SELECT {start.alias}.soul, {start.alias}.soul, 0, ',' FROM {' JOIN '.join(tables)}{where}"
        return f"{step.alias} (soul, target, hops, path) AS ({seeds} UNION ALL {branches})"

    def _bind(self, row: Bound, columns: tuple[Any, ...]) -> Bound | None:
        """The names for a row of the SELECT; None when a relationship was walked twice, or a property isn't it."""
        nodes = {node.alias: NodeRef(soul) for node, soul in zip(self._all, columns, strict=False)}
        place, walked = len(self._all), {group: set[int]() for group in {step.group for step in self._steps}}
        links: dict[str, list[Relation]] = {}
        for step in self._steps:
            if step.hops is None:
                ids, found = [columns[place]], [Relation(*columns[place + 1 : place + 4])]
                place += 4
            else:
                ids = [int(one) for one in columns[place].split(",") if one]
                place += 1
                if step.hops[1] is None and len(ids) > MAX_HOPS:
                    raise fault(
                        f"there are paths of more than {MAX_HOPS} links; give them an end", step.place
                    )
                ids = ids[::-1] if step.backwards else ids
                found = [Relation(*self._index.link(one)) for one in ids]
            before = walked[step.group]
            if any(one in before for one in ids):
                return None
            before.update(ids)
            links[step.alias] = found
        bound = dict(row)
        bound.update((name, nodes[node.alias]) for name, node in self._nodes.items())
        for step in self._steps:
            if step.name:
                bound[step.name] = links[step.alias] if step.hops is not None else links[step.alias][0]
        for node, key, value in self._equal:
            if equals(self._expressions.property(nodes[node.alias], key), value(bound)) is not True:
                return None
        bound.update((name, _path(parts, nodes, links)) for name, parts in self._paths)
        return bound


def _path(parts: list[_Node | _Step], nodes: dict[str, NodeRef], links: dict[str, list[Relation]]) -> Path:
    found: list[NodeRef] = []
    walked: list[Relation] = []
    for part in parts:
        if isinstance(part, _Node):
            if not found:
                found.append(nodes[part.alias])
            continue
        for link in links[part.alias]:
            here = found[-1].soul
            found.append(NodeRef(link.target if link.soul == here else link.soul))
            walked.append(link)
    return Path(tuple(found), tuple(walked))


def _filled(condition: _Condition, row: Bound, values: list[Any]) -> str | None:
    """Its text, with numbered parameters; None when the values don't suit the index."""
    found = [value(row) for value in condition.values]
    if not all(condition.fits(one) for one in found):
        return None
    places = []
    for one in found:
        values.append(scalar(one))
        places.append(f"?{len(values)}")
    return condition.sql.format(*places)


def _conjuncts(tree: Tree[Token]) -> Iterator[Tree[Token]]:
    if tree.data == "and_":
        for one in trees(tree):
            yield from _conjuncts(one)
    else:
        yield tree


class _NotKnown(Exception):
    """A value depends on rows that are still to come."""


class _Nothing(dict[str, Any]):
    """A row of which nothing is known."""

    def __missing__(self, name: str) -> Any:
        raise _NotKnown


#: Functions that have the same outcome for the same arguments; others may not.
_STEADY: Final = frozenset(
    ("id", "tolower", "toupper", "tostring", "tointeger", "tofloat", "trim", "abs", "size")
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


def _is_steady(tree: Tree[Token]) -> bool:
    """Whether an expression has the same outcome each time for the same row."""
    return all(
        one.data in _PLAIN or (one.data == "call" and str(one.children[0]).lower() in _STEADY)
        for one in tree.iter_subtrees()
    )


def _always(value: Any) -> Evaluate:
    return lambda row: value


def _bound(name: str, kind: type[NodeRef]) -> Evaluate:
    def soul(row: Bound) -> str:
        value = row[name]
        if not isinstance(value, kind):
            raise QueryError(f"{name} is no node")
        return value.soul

    return soul


def _field(name: str, column: str) -> Evaluate:
    def read(row: Bound) -> str:
        value = row[name]
        if not isinstance(value, Relation):
            raise QueryError(f"{name} is no relationship")
        return str(getattr(value, column))

    return read


def _soul_of(value: Evaluate) -> Evaluate:
    def soul(row: Bound) -> Any:
        found = value(row)
        return found.soul if isinstance(found, NodeRef) else found

    return soul


def _after(value: Evaluate) -> Evaluate:
    """The first text behind all that begin with this one; None when there is none."""

    def after(row: Bound) -> str | None:
        found = value(row)
        text = found.rstrip("\U0010ffff") if isinstance(found, str) else ""
        if not text:
            return None
        code = ord(text[-1]) + 1
        return text[:-1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)

    return after


def _phrase(value: Evaluate) -> Evaluate:
    """Text as FTS5 quotes it; None for what is too short for trigrams."""

    def phrase(row: Bound) -> str | None:
        found = value(row)
        if not isinstance(found, str) or len(found) < 3 or "\0" in found:
            return None
        return '"' + found.replace('"', '""') + '"'

    return phrase


def _quoted(text: str) -> str:
    """A name of the query's as a text of SQLite's: partial indexes are found by constants only."""
    if "\0" in text:
        raise QueryError("a name can't have a NUL in it")
    return "'" + text.replace("'", "''").replace("{", "{{").replace("}", "}}") + "'"


def _ends(alias: str, left: str, right: str, direction: str) -> str:
    forwards = f"{alias}.soul = {left}.soul AND {alias}.target = {right}.soul"
    backwards = f"{alias}.target = {left}.soul AND {alias}.soul = {right}.soul"
    if direction == "both":
        return f"(({forwards}) OR ({backwards}))"
    return forwards if direction == "right" else backwards
