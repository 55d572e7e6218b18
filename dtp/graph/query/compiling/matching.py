"""MATCH: patterns become one SELECT over the index's tables, asked for each row that comes in.

A node is a row of `nodes`, a relationship one of `links`, or of a recursive table for paths of variable length. What
WHERE and inline properties say that the index can narrow down goes into the SELECT as well; all of it is then worked
out exactly. Values are parameters of SQLite; names of keys and labels stand in the text, quoted: partial indexes are
found by constants only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

from lark import Token, Tree

from dtp.graph.query.compiling.conditions import (
    Condition,
    Nothing,
    NotKnown,
    conjuncts,
    constant_value,
    fill_condition,
    is_steady,
    link_condition,
    part_at,
    quote_text,
    soul_at,
)
from dtp.graph.query.compiling.expressions import Expressions
from dtp.graph.query.compiling.narrowing import Narrowing
from dtp.graph.query.compiling.parts import MAX_HOPS, PatternNode, PatternStep, hop_bounds, path_of
from dtp.graph.query.compiling.scanning import scan_of
from dtp.graph.query.compiling.shortest import Shortest
from dtp.graph.query.compiling.syntax import Bound, Evaluate, child_trees, error_at, label_names, name_of
from dtp.graph.query.errors import UnsupportedQuery
from dtp.graph.query.lookup.index import Index
from dtp.graph.query.lookup.pattern import Pattern, Range, Sought, Walk
from dtp.graph.query.lookup.tables import is_scalar
from dtp.graph.query.values.semantics import NodeRef, Relation, equals, to_truth

#: Where a step of a path begins and ends, in columns of `links`.
_SIDES: Final = {
    "right": (("soul", "target"),),
    "left": (("target", "soul"),),
    "both": (("soul", "target"), ("target", "soul")),
}


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
        self._nodes: dict[str, PatternNode] = {}
        self._all: list[PatternNode] = []
        self._steps: list[PatternStep] = []
        self._paths: list[tuple[str, list[PatternNode | PatternStep]]] = []
        self._shortest: list[Shortest] = []
        self._conditions: list[Condition] = []
        self._walks: list[tuple[PatternStep, str, list[Condition]]] = []
        #: Checked exactly, in Python.
        self._checks: list[Evaluate] = []
        self._equal: list[tuple[PatternNode | PatternStep, str, Evaluate]] = []
        #: (node, key) -> the alias under which the property is looked up.
        self._looked_up: dict[tuple[str, str], str] = {}
        self._count = 0
        for group, clause in enumerate(clauses):
            self._add_clause(clause, group)
        #: The names that it brings in.
        self.names = [
            name
            for name in (
                *(node.name for node in self._nodes.values()),
                *(step.name for step in self._steps),
                *(name for name, _ in self._paths),
                *(name for one in self._shortest for name in (one.path, one.links)),
            )
            if name and name not in scope
        ]
        self.scope = scope | set(self.names)
        self._register_kinds()
        for clause in clauses:
            self._add_where(clause)
        #: Whether it is one node, of which nothing has to be looked at but WHERE.
        self._is_plain = len(self._all) == 1 and not (self._steps or self._equal or self._paths)
        #: Beside the loop: of which souls it is enough to have rows; others are there by name only. None: of all.
        self._first: frozenset[str] | None = None
        self._scan = None if scope or len(clauses) > 1 else scan_of(expressions, clauses[0])
        index.expect_pattern(getattr(clauses[0].meta, "start_pos", None), self.pattern_for)

    # ---- compiling ------------------------------------------------------------------------------------------

    def _register_kinds(self) -> None:
        """Tell of what kind the new names are."""
        kinds = self._expressions.kinds
        kinds.update((name, "node") for name in self._nodes)
        kinds.update(
            (step.name, "list" if step.hops else "relationship") for step in self._steps if step.name
        )
        kinds.update((name, "path") for name, _ in self._paths)
        for one in self._shortest:
            kinds[one.path], kinds[one.links] = "path", "relationship" if one.single else "list"

    def _new_alias(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"

    def _add_clause(self, clause: Tree[Token], group: int) -> None:
        for pattern in child_trees(child_trees(clause)[0]):
            parts = child_trees(pattern)
            name = name_of(child_trees(parts.pop(0))[0]) if parts[0].data == "path" else ""
            if name and (name in self._before or self._is_taken(name)):
                raise error_at(f"{name} has a meaning already", pattern)
            if parts[0].data == "shortest":
                self._shortest_path(parts[0], name)
                continue
            left = self._add_node(parts[0])
            walked: list[PatternNode | PatternStep] = [left]
            for relation, node in zip(parts[1::2], parts[2::2], strict=True):
                right = self._add_node(node)
                step = self._add_relation(relation, left, right, group)
                walked += [step, right]
                left = right
            if name and self._is_taken(name):
                raise error_at(f"{name} stands for something in the path already", pattern)
            if name:
                self._paths.append((name, walked))

    def _is_taken(self, name: str) -> bool:
        return (
            name in self._nodes
            or any(step.name == name for step in self._steps)
            or any(path == name for path, _ in self._paths)
            or any(name in (one.path, one.links) for one in self._shortest)
        )

    def _shortest_path(self, tree: Tree[Token], name: str) -> None:
        """Add a shortestPath() or allShortestPaths() to the pattern."""
        first, relation, last = child_trees(tree)
        left, right = self._add_node(first), self._add_node(last)
        detail = next(iter(child_trees(relation)), None)
        parts = {str(one.data): one for one in child_trees(detail)} if detail is not None else {}
        if parts.keys() & {"properties", "parameter"}:
            raise error_at(
                "a shortest path has no properties; ask in WHERE, by all(r IN relationships(p) WHERE ...)",
                relation, UnsupportedQuery,
            )  # fmt: skip
        links = name_of(parts["variable"]) if "variable" in parts else ""
        if links and (links == name or links in self._before or self._is_taken(links)):
            raise error_at(f"{links} has a meaning already", relation)
        least, most = hop_bounds(parts["hops"], None) if "hops" in parts else (1, 1)
        if least > 1:
            raise error_at("a shortest path begins with 0 links or 1", relation, UnsupportedQuery)
        keys = tuple(name_of(one) for one in child_trees(parts["types"])) if "types" in parts else ()
        every = str(tree.children[0]).lower().startswith("all")
        places = {node.alias: place for place, node in enumerate(self._all)}
        self._shortest.append(
            Shortest(
                places[left.alias], places[right.alias], str(relation.data), keys, least, most, every,
                name, links, "hops" not in parts, self._expressions.source_of(tree),
            )
        )  # fmt: skip

    def _add_node(self, tree: Tree[Token]) -> PatternNode:
        variable = next((one for one in child_trees(tree) if one.data == "variable"), None)
        name = name_of(variable) if variable is not None else ""
        if (
            any(step.name == name for step in self._steps if name)
            or any(n == name for n, _ in self._paths if name)
            or any(name in (one.path, one.links) for one in self._shortest if name)
        ):
            raise error_at(f"{name} is a relationship or a path, not a node", tree)
        kind = self._expressions.kinds.get(name, "node") if name in self._before else "node"
        if kind != "node":
            raise error_at(f"{name} is a {kind}, not a node", tree)
        node = self._nodes.get(name) if name else None
        if node is None:
            node = PatternNode(self._new_alias("n"), name)
            self._all.append(node)
            if name:
                self._nodes[name] = node
            if name in self._before:
                self.add_condition(
                    node,
                    Condition(
                        f"{node.alias}.soul = {{}}", (soul_at(name, NodeRef),), about=(None, "="), plain=True
                    ),
                )
        for child in child_trees(tree):
            if child.data == "label":
                self._add_labels(node, child)
            elif child.data == "properties":
                for item in child_trees(child):
                    key, value = child_trees(item)
                    self._add_property(node, name_of(key), value)
            elif child.data == "parameter":
                self._has_all(node, child)
        return node

    def _add_labels(self, node: PatternNode, tree: Tree[Token]) -> None:
        names = label_names(tree)
        if len(names) == 1:
            node.label = node.label or names[0]
        self.add_condition(node, Condition(f"{node.alias}.kind IN ({', '.join(map(quote_text, names))})"))

    def add_condition(self, node: PatternNode, condition: Condition) -> None:
        """Have a condition of a node in the SELECT."""
        node.alone.append(condition)
        self._conditions.append(condition)

    def _has_all(self, node: PatternNode, tree: Tree[Token]) -> None:
        for key, value in self._given_properties(tree).items():
            self.compare_property(node, key, "=", constant_value(value), exact=True, steady=True)

    def _given_properties(self, tree: Tree[Token]) -> dict[str, Any]:
        """Return the properties that a parameter has."""
        given = self._expressions.get_parameter(tree)
        if not isinstance(given, dict):
            raise error_at("properties are given as a map", tree)
        return given

    def _add_property(self, node: PatternNode, key: str, value: Tree[Token]) -> None:
        """Add an inline property."""
        if self._expressions.free_names(value) <= self._before:
            compiled, steady = self._expressions.compile(value, self._before), is_steady(value)
            self.compare_property(node, key, "=", compiled, exact=True, steady=steady)
            return
        self._equal_later(node, key, value)

    def _equal_later(self, of: PatternNode | PatternStep, key: str, value: Tree[Token]) -> None:
        known = self._before | self._nodes.keys()
        self._equal.append((of, key, self._expressions.compile(value, known)))

    def _has_link(self, step: PatternStep, parts: dict[str, Tree[Token]]) -> PatternStep:
        """Return the inline properties of a relationship, or of each that is walked."""
        if "properties" in parts:
            for key, value in map(child_trees, child_trees(parts["properties"])):
                self._equal_later(step, name_of(key), value)
        elif "parameter" in parts:
            given = self._given_properties(parts["parameter"])
            self._equal += [(step, key, constant_value(value)) for key, value in given.items()]
        return step

    def compare_property(
        self,
        node: PatternNode,
        key: str,
        operator: str,
        value: Evaluate,
        *,
        exact: bool = False,
        steady: bool = False,
    ) -> None:
        """Have the index say what it can of a property. `exact`: nothing else checks it; `steady`: see
        `is_steady`."""
        own = self._looked_up.setdefault((node.alias, key), f"p{len(self._looked_up) + 1}")
        # numbers beyond 64 bits are floats in the index: rounding keeps their order, but may make them equal
        wide = {"<": "<=", ">": ">="}.get(operator, operator)
        declared = self._index.has_range_index(node.label, key)
        kind = f" AND {own}.kind = {quote_text(node.label)}" if declared else ""
        # what links lead to from a known node is not looked for among all values: SQLite would (+ prevents it)
        by_value = "+" if operator != "=" and self._is_led_to(node) else ""
        at = f"{by_value}{own}.value"
        self.add_condition(
            node,
            Condition(
                f"{own}.soul = {node.alias}.soul AND {own}.key = {quote_text(key)}{kind} AND {at} {wide} {{}}",
                (value,),
                f"properties AS {own}",
                is_scalar,
                (key, operator) if steady else None,
            ),
        )
        if exact:
            self._equal.append((node, key, value))

    def _is_led_to(self, node: PatternNode) -> bool:
        """Return whether links lead here from a node that was known before."""
        reached, more = {node.alias}, [node.alias]
        while more:
            here = more.pop()
            for step in self._steps:
                ends_at = {step.left.alias, step.right.alias}
                if here in ends_at:
                    more += ends_at - reached
                    reached |= ends_at
        return any(one.alias in reached for name, one in self._nodes.items() if name in self._before)

    def _add_relation(
        self, tree: Tree[Token], left: PatternNode, right: PatternNode, group: int
    ) -> PatternStep:
        detail = next(iter(child_trees(tree)), None)
        parts = {str(one.data): one for one in child_trees(detail)} if detail is not None else {}
        name = name_of(parts["variable"]) if "variable" in parts else ""
        if name and (self._is_taken(name) or (name in self._before and "hops" in parts)):
            raise error_at(f"{name} has a meaning already", tree)
        names = tuple(name_of(one) for one in child_trees(parts["types"])) if "types" in parts else ()
        keys = ", ".join(quote_text(one) for one in names)
        direction = str(tree.data)
        if "hops" in parts:
            return self._has_link(self._add_walk(tree, parts["hops"], name, names, left, right, group), parts)
        step = PatternStep(
            self._new_alias("r"), name, left, right, group, direction=direction, keys=names, place=tree
        )
        self._steps.append(step)
        said = [link_condition(step.alias, left.alias, right.alias, direction)]
        if keys:
            said.append(f"{step.alias}.key IN ({keys})")
        bound: tuple[Evaluate, ...] = ()
        if name in self._before:
            said.append(" AND ".join(f"{step.alias}.{column} = {{}}" for column in Relation._fields))
            bound = tuple(part_at(name, column) for column in Relation._fields)
        self._conditions.append(Condition(" AND ".join(said), bound, f"links AS {step.alias}", plain=True))
        return self._has_link(step, parts)

    def _add_walk(
        self,
        tree: Tree[Token],
        hops: Tree[Token],
        name: str,
        names: tuple[str, ...],
        left: PatternNode,
        right: PatternNode,
        group: int,
    ) -> PatternStep:
        """Return a recursive table of (soul, target) some links apart; it begins at the end of which more is said."""
        direction, keys = str(tree.data), ", ".join(quote_text(one) for one in names)
        step = PatternStep(
            self._new_alias("w"), name, left, right, group, hop_bounds(hops), direction, names, place=tree
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
        said = (
            f"{step.alias}.hops >= {least} AND {link_condition(step.alias, left.alias, right.alias, 'right')}"
        )
        self._conditions.append(Condition(said, (), step.alias))
        return step

    # ---- WHERE ----------------------------------------------------------------------------------------------

    def _add_where(self, clause: Tree[Token]) -> None:
        where = next((one for one in child_trees(clause) if one.data == "where"), None)
        if where is None:
            return
        condition = child_trees(where)[-1]
        if self._expressions.kind_of(condition):
            raise error_at("a condition is true or false, not a node, relationship, path or list", condition)
        self._checks.append(self._expressions.compile(condition, self.scope))
        narrowing = Narrowing(self._expressions, self._index, self._before, self._nodes, self)
        for one in conjuncts(condition):
            narrowing.narrow(one)

    # ---- running --------------------------------------------------------------------------------------------

    def run(self, rows: Iterator[Bound]) -> Iterator[Bound]:
        """Yield the rows that come of those that come in."""
        nothing = dict.fromkeys(self.names)
        for row in rows:
            found = False
            for one in self._find_rows(row):
                found = True
                yield one
            if self._optional and not found:
                yield {**row, **nothing}

    def _find_rows(self, row: Bound) -> Iterator[Bound]:
        if any(
            row[name] is None
            for name in (*self._nodes, *(s.name for s in self._steps))
            if name in self._before
        ):
            return
        found, step = self._index.scan_rows(self._scan), self._expressions.meter.count_step
        if found is None:
            sql, values = self.build_select(row)
            found = self._index.select_rows(sql, values, lambda: self.pattern_for(row))
        bind, checks = self._bind_names, self._checks
        for columns in found:
            step()
            if self._first is not None and columns[0] not in self._first:
                continue
            bound = bind(row, columns)
            if bound is None:
                continue
            for one in self._with_paths(bound, columns, 0) if self._shortest else (bound,):
                for check in checks:
                    if to_truth(check(one)) is not True:
                        break
                else:
                    yield one

    def _with_paths(self, bound: Bound, columns: tuple[Any, ...], at: int) -> Iterator[Bound]:
        """Yield the same with each of the shortest paths, from one of them on."""
        if at == len(self._shortest):
            yield bound
            return
        wanted = self._shortest[at]
        step, ends_at = self._expressions.meter.count_step, (columns[wanted.left], columns[wanted.right])
        for names in wanted.find_paths(self._index, step, *ends_at):
            yield from self._with_paths({**bound, **names}, columns, at + 1)

    def keep_first(self, name: str, key: str, *, down: bool, most: int) -> None:
        """Let rows be left out that aren't among the first `most` by a property."""
        if self._scan is not None and self._is_plain and self.names == [name]:
            self._scan.keep_first(key, down=down, most=most)

    def pattern_for(self, row: Bound | None = None) -> Pattern:
        """Return what is looked for, for a row that comes in, or for any at all."""
        places = {node.alias: place for place, node in enumerate(self._all)}
        nodes = [self._sought_node(node, row) for node in self._all]
        if row is None and (first := self._index.may_be_first(self._scan)) is not None:
            nodes[0].souls = self._first = first
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
        for one in self._shortest:
            most = sys.maxsize if one.most is None else one.most
            walks.append(Walk(one.left, one.right, one.direction, one.keys, True, most))
        return Pattern(nodes, walks)

    def _sought_node(self, node: PatternNode, row: Bound | None) -> Sought:
        sought = Sought(node.label, bound=node.name in self._before)
        for one in node.alone:
            if one.about is None:
                continue
            key, operator = one.about
            try:
                value = one.values[0](Nothing() if row is None else row)
            except NotKnown:
                continue
            if not one.fits(value):
                continue
            if operator == "IN":
                sought.items.setdefault(str(key), value)
            elif key is None:
                there = frozenset((value,)) if isinstance(value, str) else frozenset[str]()
                sought.souls = there if sought.souls is None else sought.souls & there
            else:
                sought.ranges[key] = sought.ranges.get(key, Range(None, None)).narrowed_by(operator, value)
        return sought

    def table_aliases(self) -> dict[str, str]:
        """Return what the tables of the SELECT stand for. See `PlannedMatch`."""
        nodes = {node.alias: f"({node.name}{f':{node.label}' if node.label else ''})" for node in self._all}
        links = {step.alias: self._expressions.source_of(step.place) for step in self._steps if step.place}
        names = {node.alias: node.name or nodes[node.alias] for node in self._all}
        keys = {own: f"{names[alias]}.{key}" for (alias, key), own in self._looked_up.items()}
        return nodes | links | keys

    @property
    def shortest_paths(self) -> list[str]:
        """Return the shortest paths that are looked for behind the SELECT, as the query has them."""
        return [one.source for one in self._shortest]

    def example_select(self) -> tuple[str, list[Any]]:
        """Return a SELECT as it would be for a row that comes in, with null for its values."""
        before = dict.fromkeys(self._before)
        names = {one: NodeRef("") for one in before if one in self._nodes}
        links = {step.name: Relation("", "", "") for step in self._steps if step.name in before}
        return self.build_select({**before, **names, **links})

    def build_select(self, row: Bound) -> tuple[str, list[Any]]:
        """Return the SELECT for a row that comes in, and its parameters."""
        values: list[Any] = []
        with_ = [
            self._recursive_select(step, branches, alone, row, values)
            for step, branches, alone in self._walks
        ]
        tables = [f"nodes AS {node.alias}" for node in self._all]
        said = []
        for one in self._conditions:
            text = fill_condition(one, row, values)
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

    def _recursive_select(
        self, step: PatternStep, branches: str, alone: list[Condition], row: Bound, values: list[Any]
    ) -> str:
        start = step.right if step.backwards else step.left
        tables, said = [f"nodes AS {start.alias}"], []
        for one in alone:
            text = fill_condition(one, row, values)
            if text is not None:
                said.append(text)
                if one.table and one.table not in tables:
                    tables.append(one.table)
        where = f" WHERE {' AND '.join(said)}" if said else ""
        seeds = f"SELECT {start.alias}.soul, {start.alias}.soul, 0, ',' FROM {' JOIN '.join(tables)}{where}"
        return f"{step.alias} (soul, target, hops, path) AS ({seeds} UNION ALL {branches})"

    def _bind_names(self, row: Bound, columns: tuple[Any, ...]) -> Bound | None:
        """Return the names for a row of the SELECT; None when a relationship was walked twice, or a property isn't
        it."""
        if self._is_plain:
            return {**row, **{name: NodeRef(columns[0]) for name in self._nodes}}
        nodes = {node.alias: NodeRef(soul) for node, soul in zip(self._all, columns, strict=False)}
        place, walked = len(self._all), {group: set[Any]() for group in {step.group for step in self._steps}}
        links: dict[str, list[Relation]] = {}
        for step in self._steps:
            if step.hops is None:
                ids, found = [columns[place]], [Relation(*columns[place + 1 : place + 4])]
                place += 4
            else:
                ids = [int(one) for one in columns[place].split(",") if one]
                place += 1
                if step.hops[1] is None and len(ids) > MAX_HOPS:
                    raise error_at(
                        f"there are paths of more than {MAX_HOPS} links; give them an end", step.place
                    )
                ids = ids[::-1] if step.backwards else ids
                found = [Relation(*self._index.get_link(one)) for one in ids]
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
        for of, key, value in self._equal:
            have: Iterable[Any] = links[of.alias] if isinstance(of, PatternStep) else (nodes[of.alias],)
            wanted = value(bound)
            if not all(equals(self._expressions.get_property(one, key), wanted) is True for one in have):
                return None
        bound.update((name, path_of(parts, nodes, links)) for name, parts in self._paths)
        return bound
