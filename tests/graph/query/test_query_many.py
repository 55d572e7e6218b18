"""Queries over many rows keep few of them: what is ordered with LIMIT, and what aggregates have of a group."""

from __future__ import annotations

import math
import statistics
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.crdt import Replica
from dtp.graph.query.run import Queries


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RETURN n AS x ORDER BY n % 100 DESC, n LIMIT 2", [{"x": 99}, {"x": 199}]),
        ("RETURN n % 100 AS k, count(*) AS c ORDER BY k LIMIT 1", [{"k": 0, "c": 150}]),
        ("RETURN count(n) + 1 AS c, min(n) AS a, max(n) AS z", [{"c": 15_001, "a": 1, "z": 15_000}]),
        ("WITH n % 100 AS k, max(n) AS z WHERE z % 100 = 7 RETURN k, z", [{"k": 7, "z": 14_907}]),
        ("RETURN DISTINCT n % 3 AS k ORDER BY k", [{"k": 0}, {"k": 1}, {"k": 2}]),
    ],
)
def test_rows_are_let_go_as_they_come(text: str, expected: list[dict[str, Any]]) -> None:
    """Two dicts for each row would be 6 MB and more."""
    queries = Queries(Replica(bytes(32)))
    text = f"UNWIND range(1, 15000) AS n {text}"
    queries.run(text, {})
    tracemalloc.start()
    try:
        assert queries.run(text, {}) == expected
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()


VALUES = st.one_of(
    st.none(), st.integers(-3, 3), st.floats(allow_nan=True, width=16), st.sampled_from(["a", "b", ""])
)


@given(
    rows=st.lists(st.tuples(VALUES, VALUES), max_size=12),
    down=st.tuples(st.booleans(), st.booleans()),
    skip=st.integers(0, 4),
    limit=st.integers(0, 14),
)
def test_the_first_rows_are_those_of_all_in_order(
    rows: list[tuple[Any, Any]], down: tuple[bool, bool], skip: int, limit: int
) -> None:
    queries = Queries(Replica(bytes(32)))
    order = ", ".join(f"x[{at}]{' DESC' * way}" for at, way in enumerate(down))
    text = f"UNWIND range(0, size($rows) - 1) AS n WITH n, $rows[n] AS x RETURN n ORDER BY {order}"
    given = {"rows": [list(one) for one in rows]}
    everything = [row["n"] for row in queries.run(text, given)]
    some = [row["n"] for row in queries.run(f"{text} SKIP {skip} LIMIT {limit}", given)]
    assert some == everything[skip : skip + limit]
    assert sorted(everything) == list(range(len(rows)))


@given(st.lists(st.tuples(st.integers(0, 2), st.one_of(st.none(), st.integers(-9, 9))), max_size=30))
def test_aggregates_are_those_of_all_values_of_a_group(rows: list[tuple[int, int | None]]) -> None:
    text = (
        "UNWIND $rows AS x RETURN x[0] AS k, count(*) AS rows, count(x[1]) AS n, count(DISTINCT x[1]) AS d, "
        "sum(x[1]) AS s, avg(x[1]) AS a, min(x[1]) AS low, max(x[1]) AS high, collect(x[1]) AS l, stDevP(x[1]) AS p, "
        "percentileDisc(x[1], 0.5) AS m, sum(DISTINCT x[1]) AS sd ORDER BY k"
    )
    found = Queries(Replica(bytes(32))).run(text, {"rows": [list(one) for one in rows]})
    assert [row["k"] for row in found] == sorted({k for k, _ in rows})
    for row in found:
        of_group = [one for k, one in rows if k == row["k"]]
        there = [one for one in of_group if one is not None]
        assert (row["rows"], row["n"], row["d"]) == (len(of_group), len(there), len(set(there)))
        assert (row["s"], row["sd"], row["l"]) == (sum(there), sum(set(there)), there)
        assert (row["low"], row["high"]) == (min(there, default=None), max(there, default=None))
        assert (
            row["a"] is None if not there else math.isclose(row["a"], statistics.fmean(there), abs_tol=1e-9)
        )
        assert row["m"] == (sorted(there)[max(0, math.ceil(len(there) / 2) - 1)] if there else None)
        deviation = statistics.pstdev(there) if len(there) > 1 else 0.0
        assert math.isclose(row["p"], deviation, abs_tol=1e-9)
