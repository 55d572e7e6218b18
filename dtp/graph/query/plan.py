"""EXPLAIN and PROFILE: what a query does, clause by clause, and what each takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from dtp.graph.query.lookup.pattern import Pattern

if TYPE_CHECKING:
    from dtp.graph.query.budget import Meter
    from dtp.graph.query.compiling.syntax import Bound
    from dtp.graph.query.lookup.index import Index

#: How SQLite tells what it does with a table.
_TOLD: Final = re.compile(r"(SCAN|SEARCH) (\w+)(?:.*?\((.*)\))?")


class PlannedMatch(Protocol):
    """What a plan tells of a MATCH."""

    def example_select(self) -> tuple[str, list[Any]]:
        """Return a SELECT as it would be for a row that comes in, with null for its values."""

    def table_aliases(self) -> dict[str, str]:
        """Return what the tables of the SELECT stand for, as a query writes it."""

    @property
    def shortest_paths(self) -> list[str]:
        """The shortest paths that are looked for behind the SELECT, as a query writes them."""


@dataclass
class PlanStep:
    """A clause, or a query within an expression."""

    operator: str
    details: str
    #: How many are around it.
    depth: int
    match: PlannedMatch | None = None
    #: Rows that came of it, and steps that they took, with those of the clauses before; None: not counted.
    rows: int | None = None
    steps: int = 0

    def count_rows(self, rows: Iterator[Bound], meter: Meter) -> Iterator[Bound]:
        """Yield the rows that come of it, and count."""
        self.rows = self.rows or 0
        while True:
            before = meter.steps
            row = next(rows, None)
            self.steps += meter.steps - before
            if row is None:
                return
            self.rows += 1
            yield row


def rows_of_plan(plan: list[PlanStep], index: Index, *, profile: bool) -> list[dict[str, Any]]:
    """Return a row for each clause, and for each look into an index that it makes: operator and details.

    With `profile` also the rows that came of it, and the steps that it took by itself.
    """
    found: list[dict[str, Any]] = []
    last: dict[int, int] = {}
    for step in plan:
        indent = "  " * step.depth
        row: dict[str, Any] = {"operator": f"{indent}{step.operator}", "details": step.details}
        if profile:
            before = last.get(step.depth, 0)
            row |= {"rows": step.rows, "steps": None if step.rows is None else step.steps - before}
            last = {depth: steps for depth, steps in last.items() if depth < step.depth}
            last[step.depth] = step.steps  # of UNION none: what follows begins anew
        found.append(row)
        if step.match is not None:
            nothing = {"rows": None, "steps": None} if profile else {}
            found += [one | nothing for one in _looks(step.match, index, f"{indent}  ")]
    return found


def _looks(match: PlannedMatch, index: Index, indent: str) -> Iterator[dict[str, Any]]:
    sql, values = match.example_select()
    seen: set[tuple[str, str]] = set()
    names = match.table_aliases()
    for _, _, _, told in index.select_rows(f"EXPLAIN QUERY PLAN {sql}", values, Pattern):
        read = _TOLD.match(told)
        if read is None or read[2] not in names:
            continue  # how SQLite goes about a path of variable length is its own business
        operator = "go through all" if read[1] == "SCAN" else "look up"
        by = f" by {read[3]}" if read[3] else ""
        look = (operator, f"{names[read[2]]}{by}")
        if look not in seen:  # where a path of variable length begins is looked up twice
            seen.add(look)
            yield {"operator": f"{indent}{operator}", "details": look[1]}
    for path in match.shortest_paths:
        yield {"operator": f"{indent}shortest path", "details": path}
