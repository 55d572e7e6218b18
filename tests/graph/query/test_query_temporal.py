"""Dates, times and durations in queries: kept in a graph, compared, sorted, read, calculated with."""

from __future__ import annotations

import asyncio
import datetime as python
import itertools
import zoneinfo
from typing import Any

import pytest
from graph_fixtures import ALICE
from hypothesis import given
from hypothesis import strategies as st

from dtp.crdt import Link, Replica
from dtp.crdt.temporal import Date, DateTime, Duration, LocalTime, Temporal, Time, days_of, to_python
from dtp.graph import Graph
from dtp.graph.query.errors import QueryError, UnsupportedQuery
from dtp.graph.query.run import Queries
from dtp.graph.query.values import semantics
from dtp.testing.strategies import temporal_values


def answer(text: str, **parameters: Any) -> Any:
    (row,) = Queries(Replica(bytes(32))).run(f"RETURN {text} AS a", parameters)
    return row["a"]


def test_nodes_have_them() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            for number, day in enumerate((11, 3, 27)):
                node = graph.node(f"event/{number}")
                node.update(
                    {
                        "on": python.date(2026, 11, day),
                        "long": python.timedelta(hours=number),
                        "of": Link("x"),
                    }
                )
                graph.list(f"event/{number}", "times").append(LocalTime(number))
            asked = "MATCH (e:event) WHERE e.on >= date('2026-11-05') RETURN e.on AS on, e.long AS long ORDER BY e.on"
            expected = [
                {"on": python.date(2026, 11, 11), "long": Duration()},
                {"on": python.date(2026, 11, 27), "long": Duration(0, 0, 7200 * 10**9)},
            ]
            assert graph.query(asked) == await graph.query_async(asked) == expected
            assert graph.query(
                "MATCH (e:event {on: $day}) RETURN e.times AS t", day=python.date(2026, 11, 3)
            ) == [{"t": [LocalTime(1)]}]
            counts = "MATCH (e:event) WHERE e.on < $day RETURN count(*) AS n"
            assert graph.query(counts, day=python.date(2026, 11, 12)) == [{"n": 2}]
            later = graph.query(
                "MATCH (e:event) RETURN max(e.on + duration('P1M')) AS m, count(DISTINCT e.on.year) AS y"
            )
            assert later == [{"m": python.date(2026, 12, 27), "y": 1}]

    asyncio.run(main())


def test_results_are_pythons_types_and_lose_nothing() -> None:
    assert answer("date('2026-11-24')") == python.date(2026, 11, 24)
    assert answer("localdatetime('2026-11-24T10:30:00.000001')") == python.datetime(
        2026, 11, 24, 10, 30, 0, 1
    )
    assert answer("localtime('10:30:00.000000001')") == LocalTime(37_800_000_000_001)
    assert answer("[{at: date('-0044-03-15')}]") == [{"at": Date(days_of(-44, 3, 15))}]
    stockholm = zoneinfo.ZoneInfo("Europe/Stockholm")
    given_ = python.datetime(2026, 6, 1, 12, tzinfo=stockholm)
    assert answer("$at.timezone", at=given_) == "Europe/Stockholm"
    assert answer("$at + duration({months: 6})", at=given_) == python.datetime(
        2026, 12, 1, 12, tzinfo=stockholm
    )
    assert answer("toString($at)", at=given_) == "2026-06-01T12:00+02:00[Europe/Stockholm]"


def test_a_query_has_one_time() -> None:
    assert answer(
        "datetime() = datetime.transaction() AND duration.between(time(), time.statement()) = duration('PT0S')"
    )
    assert isinstance(answer("date()"), python.date)
    assert answer("datetime({timezone: 'Europe/Stockholm'}).timezone") == "Europe/Stockholm"


@given(st.lists(temporal_values(), max_size=8))
def test_order_is_total_and_what_compares_agrees_with_it(some: list[Temporal]) -> None:
    ordered = sorted(some, key=semantics.sort_key)
    for one, other in itertools.pairwise(ordered):
        assert semantics.compare(one, other) in (-1, 0, None)
        assert (semantics.compare(one, other) is None) == (
            type(one) is not type(other) or isinstance(one, Duration)
        )
        assert semantics.equals(one, other) is (one == other)
    rows = Queries(Replica(bytes(32))).run(
        "UNWIND $some AS x RETURN x ORDER BY x", {"some": [*map(to_python, some)]}
    )
    assert [row["x"] for row in rows] == [*map(to_python, ordered)]


def test_moments_are_compared_by_when_they_are() -> None:
    assert answer("datetime('2026-01-01T12:00+02:00') < datetime('2026-01-01T10:30Z')") is True
    assert answer("time('12:00+02:00') < time('10:30Z')") is True
    assert answer("date('2026-01-01') < datetime('2026-01-01T10:30Z')") is None
    assert answer("duration('P1M') < duration('P31D')") is None
    assert answer("duration('PT24H') = duration('P1D')") is False


def test_arithmetic_is_of_calendars_and_clocks() -> None:
    assert answer("date('2026-01-31') + duration('P1M')") == python.date(2026, 2, 28)
    assert str(answer("datetime('2026-03-28T12:00[Europe/Stockholm]') + duration('P1D')")).startswith(
        "2026-03-29 12:00"
    )
    assert str(answer("datetime('2026-03-28T12:00[Europe/Stockholm]') + duration('PT24H')")).startswith(
        "2026-03-29 13:00"
    )
    assert answer("duration('P1M') * 0.5 + duration('PT1S')") == Duration(0, 15, 18_873 * 10**9 + 10**9)


@pytest.mark.parametrize(
    "wrong",
    [
        "date('2026-02-30')", "date({year: 2026, day: 3})", "date({month: 3})", "date(1)", "time({minute: 3})",
        "localtime('25:00')", "datetime('2026-01-01T00:00[Nowhere/Known]')", "time('00:00+19:00')", "duration('P')",
        "duration({years: 'x'})", "duration({})", "date({year: 1000000000})",
        "date.truncate('hour', date('2026-01-01'))",
        "date('2026-01-01') + 1", "1 - duration('P1D')", "duration('P1D') / 0", "duration('P1D') * duration('P1D')",
        "date('+999999999-12-31') + duration('P1D')", "duration.between(1, date())", "date({year: 2026, hour: 1})",
        "duration({years: 9223372036854775807})", "datetime({year: 2026, timezone: '../../etc/passwd'})",
        "localtime(date('2026-01-01'))", "date(localtime('10:00'))", "date({date: localtime('10:00')})",
        "duration({years: 1e300})", "datetime.fromepoch('x')", "date.truncate('aeon', date('2026-01-01'))",
    ],
)  # fmt: skip
def test_what_is_none_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(QueryError) as error:
        answer(wrong)
    assert not isinstance(error.value, UnsupportedQuery)


def test_unknown_functions_are_told() -> None:
    with pytest.raises(UnsupportedQuery, match=r"date\.tomorrow\(\) is not known"):
        answer("date.tomorrow()")
    rows = Queries(Replica(bytes(32))).run(
        "WITH {year: 3} AS date RETURN date.year AS y, [date.year] AS l", {}
    )
    assert rows == [{"y": 3, "l": [3]}]  # names of functions may name other things


def test_null_gives_null() -> None:
    for text in ("date(null)", "duration(null)", "date.truncate('day', null)", "duration.between(null, date())",
                 "date({year: null})", "date('2026-01-01') + null", "toString(date(null))"):  # fmt: skip
        assert answer(text) is None
    assert isinstance(answer("time('10:00+01:00')"), python.time)
    assert answer("time('10:00:00.000000001Z')") == Time(36_000_000_000_001, 0)
    assert answer("datetime.fromepoch(0, 1)") == DateTime(1, 0)
