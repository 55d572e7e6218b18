"""The openCypher TCK's scenarios on a graph: a folder of its .feature files in, an outcome for each scenario out.

Graphs here have nodes of one label, and no relationship twice; scenarios that need others are outside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from lark import Lark, Tree
from lark.exceptions import LarkError

from dtp.crdt import Node, Replica
from dtp.crdt.temporal import PYTHON, TEMPORAL, from_python
from dtp.errors import DtpError
from dtp.graph.query.budget import Meter, QueryBudget
from dtp.graph.query.compiling.expressions import Expressions
from dtp.graph.query.compiling.syntax import child_trees, label_names, name_of
from dtp.graph.query.errors import QueryError, UnsupportedQuery
from dtp.graph.query.parsing import make_parser
from dtp.graph.query.run import Queries
from dtp.graph.query.values import semantics

#: In the order in which they are told.
OUTCOMES = ("passed", "refused", "outside", "wrong")
#: A graph that has a name: it is made by a file beside the features.
_GIVEN = re.compile(r"the ([\w-]+) graph")


class OutsideError(Exception):
    """The scenario is about what graphs here don't have."""


@dataclass
class Step:
    """A line of a scenario, with what stands below it."""

    text: str
    document: str = ""
    table: list[list[str]] = field(default_factory=list)


@dataclass
class Scenario:
    """One of a feature; outlines are one for each of their examples."""

    area: str
    feature: str
    name: str
    steps: list[Step]


# ---- reading .feature files ----------------------------------------------------------------------------------


def _cells(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line.strip())[1:-1]
    unescaped = {"n": "\n", "|": "|", "\\": "\\"}
    return [re.sub(r"\\([n|\\])", lambda found: unescaped[found[1]], cell.strip()) for cell in cells]


def _steps(lines: list[str]) -> Iterator[Step]:
    step: Step | None = None
    document: list[str] | None = None
    for line in lines:
        bare = line.strip()
        if bare == '"""':
            if document is None:
                document = []
            else:
                assert step is not None
                step.document, document = "\n".join(document), None
        elif document is not None:
            document.append(line)
        elif bare.startswith("|"):
            assert step is not None
            step.table.append(_cells(line))
        elif re.match(r"(Given|And|When|Then|But)\b", bare):
            if step is not None:
                yield step
            step = Step(bare.partition(" ")[2].rstrip(":"))
    if step is not None:
        yield step


def scenarios(folder: Path) -> Iterator[Scenario]:
    """All scenarios of the features in a folder."""
    for path in sorted(folder.rglob("*.feature")):
        area = str(path.parent.relative_to(folder))
        blocks = re.split(r"^\s*Scenario(?: Outline)?:", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        background = list(_steps(blocks[0].partition("Background:")[2].splitlines()))
        for block in blocks[1:]:
            head, _, rest = block.partition("\n")
            body, *examples = re.split(r"^\s*Examples:.*$", rest, flags=re.MULTILINE)
            body = re.sub(r"^\s*[@#].*$", "", body, flags=re.MULTILINE)
            tables = [
                [_cells(line) for line in one.splitlines() if line.strip().startswith("|")]
                for one in examples
            ]
            rows = [dict(zip(table[0], row, strict=True)) for table in tables for row in table[1:]] or [{}]
            for number, row in enumerate(rows):
                text = body
                for name, value in row.items():
                    text = text.replace(f"<{name}>", value)
                name = head.strip() + (f" #{number + 1}" if row else "")
                steps = [*background, *_steps(text.splitlines())]
                for step in steps:
                    if given := _GIVEN.fullmatch(step.text):
                        made = folder.parent / "graphs" / given[1] / f"{given[1]}.cypher"
                        step.document = made.read_text(encoding="utf-8")
                yield Scenario(area, path.stem, name, steps)


# ---- setting up ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _pattern_parser() -> Lark:
    return make_parser("patterns")


class _Builder:
    """Nodes and relationships that CREATE makes."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._count = 0
        self._links: set[tuple[str, str, str]] = set()
        self._row: dict[str, Any] = {}

    def execute(self, text: str) -> None:
        """Make what stands behind CREATE, for each row of what stands before it."""
        before, *patterns = re.split(r"(?:^|(?<=\s))CREATE\b", text.strip().rstrip(";"))
        try:
            rows = Queries(self._replica).run(f"{before} RETURN *", {}) if before.strip() else [{}]
            read = [(pattern, _pattern_parser().parse(pattern)) for pattern in patterns]
        except (LarkError, QueryError) as error:
            raise OutsideError("it is set up by more than CREATE") from error
        for row in rows:
            known = {name: one.soul for name, one in row.items() if isinstance(one, Node)}
            self._row = row
            for pattern, tree in read:
                for one in child_trees(tree):
                    self._pattern(pattern, one, known)

    def _pattern(self, text: str, tree: Tree[Any], known: dict[str, str]) -> None:
        parts = [one for one in child_trees(tree) if one.data != "path"]
        left = self._node(text, parts[0], known)
        for relation, node in zip(parts[1::2], parts[2::2], strict=True):
            right = self._node(text, node, known)
            (detail,) = child_trees(relation)
            (types,) = (one for one in child_trees(detail) if one.data == "types")
            ends = (right, left) if relation.data == "left" else (left, right)
            key = name_of(child_trees(types)[0])
            if (ends[0], key, ends[1]) in self._links:
                raise OutsideError("a relationship is there once")
            self._links.add((ends[0], key, ends[1]))
            self._replica.node(ends[0]).link(key, ends[1])
            self._put_all(self._replica.node(ends[0]).relationship(key, ends[1]).soul, text, detail, known)
            left = right

    def _node(self, text: str, tree: Tree[Any], known: dict[str, str]) -> str:
        parts = child_trees(tree)
        variable = next((name_of(one) for one in parts if one.data == "variable"), "")
        if variable in known:
            return known[variable]
        labels = [name for one in parts if one.data == "label" for name in label_names(one)]
        if len(labels) > 1:
            raise OutsideError("a node has one label")
        self._count += 1
        soul = f"{labels[0]}/{self._count}" if labels else f"n{self._count}"
        if variable:
            known[variable] = soul
        self._replica.put(soul, "", None)  # it is there, without a property
        self._put_all(soul, text, tree, known)
        return soul

    def _put_all(self, soul: str, text: str, tree: Tree[Any], known: dict[str, str]) -> None:
        """The inline properties of a node or a relationship."""
        index = Queries(self._replica).index
        index.prepare_query()
        expressions = Expressions(text, {}, index, Meter(QueryBudget()))
        row = self._row | {name: semantics.NodeRef(node) for name, node in known.items()}
        for properties in (one for one in child_trees(tree) if one.data == "properties"):
            for key, value in map(child_trees, child_trees(properties)):
                found = expressions.compile(value, row)(row)
                if found is not None:
                    self._replica.put(soul, name_of(key), found)


# ---- values as the TCK writes them ---------------------------------------------------------------------------

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:\\.|[^'\\])*')|(?P<number>-?(?:\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+|\d+))"
    r"|(?P<word>-?[A-Za-z_`][\w`]*)|(?P<sign><-\[|\]->|\]-|-\[|->|<-|[\[\]{}():,<>-]))"
)


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = [
            (found.lastgroup, found.group(found.lastgroup or 0)) for found in _TOKEN.finditer(text)
        ]
        self._at = 0

    def _next(self) -> tuple[str | None, str]:
        self._at += 1
        return self._tokens[self._at - 1]

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def value(self) -> Any:
        kind, token = self._next()
        if kind == "text":
            return token[1:-1].replace("\\'", "'").replace("\\\\", "\\")
        if kind == "number":
            return float(token) if re.search(r"[.eE]", token) else int(token)
        if kind == "word":
            words = {"true": True, "false": False, "null": None, "NaN": float("nan"), "Inf": float("inf")}
            return -float("inf") if token == "-Inf" else words[token]
        if token == "(":
            return self._node()
        if token == "{":
            self._at -= 1
            return self._map()
        if token == "<":
            return self._path()
        assert token == "[", token
        return self._relation("]") if self._peek() == ":" else self._list()

    def _list(self) -> list[Any]:
        items = []
        while self._peek() != "]":
            items.append(self.value())
            if self._peek() == ",":
                self._next()
        self._next()
        return items

    def _map(self) -> dict[str, Any]:
        found = {}
        assert self._next()[1] == "{"
        while self._peek() != "}":
            key = self._next()[1].strip("`'")
            assert self._next()[1] == ":"
            found[key] = self.value()
            if self._peek() == ",":
                self._next()
        self._next()
        return found

    def _node(self) -> tuple[Any, ...]:
        labels = []
        while self._peek() == ":":
            self._next()
            labels.append(self._next()[1])
        properties = self._map() if self._peek() == "{" else {}
        assert self._next()[1] == ")"
        return ("node", tuple(labels), properties)

    def _relation(self, end: str) -> tuple[Any, ...]:
        assert self._next()[1] == ":"
        key = self._next()[1]
        properties = self._map() if self._peek() == "{" else {}
        assert self._next()[1] == end
        return ("relation", key, properties)

    def _path(self) -> tuple[Any, ...]:
        parts: list[Any] = []
        while self._peek() != ">":
            token = self._next()[1]
            if token == "(":
                parts.append(self._node())
            else:
                backwards = token == "<-["
                key = self._relation("]-" if backwards else "]->")
                parts.append((*key, "left" if backwards else "right"))
        self._next()
        return ("path", *parts)


def _ours(value: Any, queries: Queries) -> Any:
    """A result as `_Reader` has it."""

    def ours(value: Any) -> Any:
        if isinstance(value, Node):
            kind = value.soul.partition("/")[0] if "/" in value.soul else ""
            properties = {key: ours(one) for key, one in value.to_dict().items() if one is not None}
            return ("node", (kind,) if kind else (), properties)
        if isinstance(value, semantics.Relation):
            return ("relation", value.key, {k: ours(one) for k, one in queries.index.of_link(value).items()})
        if isinstance(value, semantics.Path):
            parts: list[Any] = [ours(value.nodes[0])]
            for before, link, node in zip(value.nodes, value.relationships, value.nodes[1:], strict=False):
                parts += [(*ours(link), "right" if link.soul == before.soul else "left"), ours(node)]
            return ("path", *parts)
        if isinstance(value, (*TEMPORAL, *PYTHON)):
            return str(value if isinstance(value, TEMPORAL) else from_python(value))
        if isinstance(value, list):
            return [ours(item) for item in value]
        if isinstance(value, dict):
            return {key: ours(item) for key, item in value.items()}
        return value

    return ours(value)


def _frozen(value: Any, *, lists_ordered: bool) -> str:
    """Comparable: floats and ints apart, lists in order or not."""
    if isinstance(value, list):
        items = [_frozen(item, lists_ordered=lists_ordered) for item in value]
        return f"[{', '.join(items if lists_ordered else sorted(items))}]"
    if isinstance(value, tuple):
        return f"({', '.join(_frozen(item, lists_ordered=lists_ordered) for item in value)})"
    if isinstance(value, dict):
        pairs = (f"{key}: {_frozen(value[key], lists_ordered=lists_ordered)}" for key in sorted(value))
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, float):
        return f"{value:.12g}f" if value else "0f"
    return repr(value)


# ---- running -------------------------------------------------------------------------------------------------


def run(scenario: Scenario) -> tuple[str, str]:
    """The outcome of a scenario, and why."""
    replica = Replica(bytes(32))
    builder = _Builder(replica)
    parameters: dict[str, Any] = {}
    queries: Queries | None = None
    rows: list[dict[str, Any]] = []
    error: QueryError | None = None
    try:
        for step in scenario.steps:
            if step.text.startswith(("executing query", "executing control query")):
                queries = Queries(replica)
                try:
                    rows, error = queries.run(step.document, parameters), None
                except QueryError as raised:
                    error = raised
            elif step.text == "having executed" or _GIVEN.fullmatch(step.text):
                builder.execute(step.document)
            elif step.text == "parameters are":
                parameters = {name: _Reader(value).value() for name, value in step.table}
            elif "should be raised" in step.text:
                if error is None:
                    return "wrong", f"answered {rows[:3]} instead of: {step.text}"
                if isinstance(error, UnsupportedQuery):
                    return "refused", str(error)
            elif step.text.startswith("the result should be"):
                if error is not None:
                    return "refused", str(error)
                assert queries is not None
                problem = _compared(step, rows, queries)
                if problem:
                    return "wrong", problem
            elif step.text.startswith(("the side effects", "there exists")):
                return ("refused", str(error)) if error else ("outside", "it writes, or calls procedures")
    except OutsideError as outside:
        return "outside", str(outside)
    except DtpError as other:  # a set-up that this graph can't hold
        return "outside", str(other)
    if error is not None and not any("raised" in step.text for step in scenario.steps):
        return "refused", str(error)
    return "passed", ""


def _compared(step: Step, rows: list[dict[str, Any]], queries: Queries) -> str:
    if step.text.endswith("be empty"):
        return "" if not rows else f"{rows[:3]} instead of nothing"
    ordered = "in order" in step.text
    kept = "ignoring element order" not in step.text
    names, *expected = step.table
    wanted = [[_Reader(cell).value() for cell in row] for row in expected]
    found = [[_ours(value, queries) for value in row.values()] for row in rows]
    if (
        rows
        and sorted(rows[0]) != sorted(name.strip("`") for name in names)
        and sorted(rows[0]) != sorted(names)
    ):
        return f"columns {list(rows[0])} instead of {names}"
    if rows and list(rows[0]) != names:
        order = (
            [list(rows[0]).index(name) for name in names] if set(names) == set(rows[0]) else range(len(names))
        )
        found = [[row[at] for at in order] for row in found]
    a = [_frozen(row, lists_ordered=kept) for row in wanted]
    b = [_frozen(row, lists_ordered=kept) for row in found]
    if (a if ordered else sorted(a)) != (b if ordered else sorted(b)):
        return f"{b[:4]} instead of {a[:4]}"
    return ""
