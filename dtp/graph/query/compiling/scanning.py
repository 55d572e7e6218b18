"""Patterns that the core looks for by itself: nodes in a row by label and by comparisons of properties.

What a pattern says that isn't of that kind makes none of it. Rows that are shown may be too many, and are checked as
those of a SELECT are; a count is exact, or there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from lark import Token, Tree

from dtp.core.scan import COMPARISONS, MOST, NODES, TESTS, First, ScanCore, Test
from dtp.crdt import values
from dtp.crdt.temporal import TEMPORAL
from dtp.graph.query.compiling.conditions import conjuncts, is_steady
from dtp.graph.query.compiling.expressions import Expressions
from dtp.graph.query.compiling.syntax import child_trees, label_names, name_of, word_kinds
from dtp.graph.query.lookup.tables import is_scalar

_MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "<>": "<>"}
#: Ints up to there are floats, too.
_EXACT: Final = 1 << 53


class _OtherwiseError(Exception):
    """The core can't look for it."""


@dataclass
class Scan:
    """A pattern that the core can look for. Nodes are numbered in the direction of the links."""

    nodes: int = 0
    labels: list[tuple[int, str]] = field(default_factory=list)
    keys: list[tuple[int, str]] = field(default_factory=list)
    tests: list[Test] = field(default_factory=list)
    #: (key, value) that the first node has.
    first: tuple[str, Any] | None = None
    #: Whether it was written against the direction of the links; and whether other nodes are known by a value.
    backwards: bool = False
    is_known_elsewhere: bool = False
    #: The nodes that it is enough to show.
    order: First | None = None

    def to_core(self, *, shown: bool = False, columns: Iterable[str] = ()) -> ScanCore:
        """Return the same for the core, which shows what it finds, or gives these properties of it."""
        labels = [(node, values.encode_name(one)) for node, one in self.labels]
        keys = [(node, values.encode_name(one)) for node, one in self.keys]
        order = self.order if shown else None
        asked = [values.encode_name(one) for one in columns]
        return ScanCore(self.nodes, labels, keys, self.tests, shown=shown, first=order, columns=asked)

    def keep_first(self, key: str, *, down: bool, most: int) -> None:
        """Have only those nodes shown that may be among the first so many by a property."""
        if self.nodes == 1 and 0 < most <= MOST:
            self.order = First(values.encode_name(key), down, most)

    @property
    def is_of_names(self) -> bool:
        """Whether nodes that are only linked to are in it."""
        return self.nodes == 1 and not self.tests

    def fits_label(self, kind: str) -> bool:
        """Return whether the first node may have a label."""
        return not self.labels or (0, kind) in self.labels


def scan_of(expressions: Expressions, clause: Tree[Token]) -> Scan | None:
    """Return the scan of a MATCH, in which no name is known before; None where the core can't look for it."""
    try:
        return _Reader(expressions).read_condition(clause)
    except (_OtherwiseError, values.GraphValueError):  # what can't be a name is nowhere
        return None


class _Reader:
    def __init__(self, expressions: Expressions) -> None:
        self._expressions = expressions
        self._scan = Scan()
        self._names: dict[str, int] = {}

    def read_condition(self, clause: Tree[Token]) -> Scan:
        patterns = child_trees(child_trees(clause)[0])
        if len(patterns) != 1:
            raise _OtherwiseError
        parts = child_trees(patterns[0])
        nodes, relations = parts[0::2], parts[1::2]
        if any(one.data != "node" for one in nodes) or len(nodes) > NODES:
            raise _OtherwiseError
        directions = {str(one.data) for one in relations}
        if len(directions) > 1 or "both" in directions:
            raise _OtherwiseError
        scan = self._scan
        scan.nodes, scan.backwards = len(nodes), directions == {"left"}
        if scan.backwards:
            nodes, relations = nodes[::-1], relations[::-1]
        for at, one in enumerate(nodes):
            self._read_node(at, one)
        for at, one in enumerate(relations):
            self._read_relation(at, one)
        where = next((one for one in child_trees(clause) if one.data == "where"), None)
        for condition in conjuncts(child_trees(where)[-1]) if where is not None else ():
            self._read_condition(condition)
        if len(scan.tests) > TESTS:
            raise _OtherwiseError
        return scan

    def _read_node(self, at: int, tree: Tree[Token]) -> None:
        groups = 0
        for one in child_trees(tree):
            if one.data == "variable":
                if name_of(one) in self._names:
                    raise _OtherwiseError
                self._names[name_of(one)] = at
            elif one.data == "label":
                groups += 1
                self._read_labels(at, label_names(one))
            elif one.data == "properties":
                for key, value in map(child_trees, child_trees(one)):
                    self._read_comparison(at, name_of(key), "=", value)
            else:
                raise _OtherwiseError
        if groups > 1:
            raise _OtherwiseError

    def _read_labels(self, at: int, names: Iterable[str]) -> None:
        if any(node == at for node, _ in self._scan.labels):
            raise _OtherwiseError
        self._scan.labels += [(at, values.encode_name(name).decode()) for name in names]

    def _read_relation(self, at: int, tree: Tree[Token]) -> None:
        detail = next(iter(child_trees(tree)), None)
        for one in child_trees(detail) if detail is not None else ():
            if one.data == "types":
                self._scan.keys += [
                    (at, values.encode_name(name_of(key)).decode()) for key in child_trees(one)
                ]
            elif one.data != "variable" or name_of(one) in self._names:
                raise _OtherwiseError

    def _read_condition(self, tree: Tree[Token]) -> None:
        parts = child_trees(tree)
        if tree.data in ("has_labels", "has_labels_of") and len(parts) == 2:
            name = parts[0] if tree.data == "has_labels_of" else next(iter(child_trees(parts[0])), parts[0])
            if parts[0].data in ("whole", "variable") and name_of(name) in self._names:
                self._read_labels(self._names[name_of(name)], label_names(parts[1]))
                return
        if tree.data != "compare" or len(parts) != 2:
            raise _OtherwiseError
        comparison = next(str(child) for child in tree.children if isinstance(child, Token))
        one, other = (self._read_property(part) for part in parts)
        if comparison not in COMPARISONS:
            raise _OtherwiseError
        if one is not None and other is not None:
            first, second = values.encode_name(one[1]), values.encode_name(other[1])
            self._scan.tests.append(Test(one[0], first, comparison, second, other[0]))
        elif one is not None:
            self._read_comparison(*one, comparison, parts[1])
        elif other is not None:
            self._read_comparison(*other, _MIRRORED[comparison], parts[0])
        else:
            raise _OtherwiseError

    def _read_property(self, tree: Tree[Token]) -> tuple[int, str] | None:
        """Return the node and the key of `n.key`."""
        if tree.data != "access" or child_trees(tree)[0].data != "whole":
            return None
        node = self._names.get(name_of(child_trees(child_trees(tree)[0])[0]))
        return None if node is None else (node, name_of(child_trees(tree)[1]))

    def _read_comparison(self, at: int, key: str, comparison: str, to: Tree[Token]) -> None:
        if not is_steady(to) or self._expressions.free_names(to):
            raise _OtherwiseError
        value = self._expressions.compile(to, ())({})
        if not is_scalar(value) or (isinstance(value, int | float) and not -_EXACT < value < _EXACT):
            raise _OtherwiseError
        if isinstance(value, TEMPORAL) and comparison not in (
            "=",
            "<>",
        ):  # their order isn't that of their bytes
            raise _OtherwiseError
        self._scan.tests.append(Test(at, values.encode_name(key), comparison, values.encode(value)))
        if comparison == "=" and at == 0:
            self._scan.first = self._scan.first or (key, value)
        elif comparison == "=":
            self._scan.is_known_elsewhere = True


def counted_match(tree: Tree[Token]) -> Tree[Token] | None:
    """Return the MATCH of a query that only counts its rows; else None."""
    lines = child_trees(tree)
    clauses = child_trees(lines[0]) if len(lines) == 1 and lines[0].data == "single" else []
    if [one.data for one in clauses] != ["match", "returning"]:
        return None
    projection = child_trees(clauses[1])[0]
    if word_kinds(projection) or len(child_trees(projection)) != 1:
        return None
    return clauses[0] if all(_counts(item) for item in child_trees(child_trees(projection)[0])) else None


def _counts(item: Tree[Token]) -> bool:
    """Return whether a column counts rows: what a pattern brings in is never null."""
    what = next(iter(child_trees(item)), item)
    of = child_trees(what)
    return what.data == "count_all" or (
        what.data == "count_some" and "DISTINCT" not in word_kinds(what) and of[0].data == "whole"
    )


def shown_rows(data: bytes, scan: Scan) -> Iterator[tuple[Any, ...]]:
    """Yield what the core has shown as rows of the SELECT: the souls, then (id, soul, key, target) of each link."""
    width, nodes = 2 * scan.nodes - 1, scan.nodes
    texts = values.decode_all(data)
    for first in range(0, len(texts), width):
        souls, keys = texts[first : first + nodes], texts[first + nodes : first + width]
        links = [(souls[at], key, souls[at + 1]) for at, key in enumerate(keys)]
        if scan.backwards:
            souls, links = souls[::-1], links[::-1]
        yield (*souls, *(part for link in links for part in (link, *link)))
