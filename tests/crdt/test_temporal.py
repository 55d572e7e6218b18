"""Dates, times and durations as values: as bytes, as Python's types, as text; what isn't one is none."""

from __future__ import annotations

import datetime as python
import json
import zoneinfo
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.crdt import GraphValueError, Replica, values
from dtp.crdt.permission.rules import Rule, Rules, RulesError, Schema
from dtp.crdt.temporal import (
    DAY,
    NAMES,
    SECOND,
    TEMPORAL,
    YEARS,
    Date,
    DateTime,
    Duration,
    LocalDateTime,
    LocalTime,
    TemporalError,
    Time,
    as_temporal,
    civil_of,
    days_of,
    from_python,
    local_to_moment,
    moment_in_zone,
    name_of,
    to_python,
)
from dtp.crdt.temporal_text import read
from dtp.testing.strategies import temporal_values

VECTORS = json.loads((Path(__file__).parents[2] / "docs" / "vectors" / "temporal.json").read_text())


def second(data: bytes) -> str:
    """A date, a time or a duration of MessagePack as text: from docs/graph.md, "Values", alone."""
    code, body = msgpack.unpackb(data)
    word = lambda at, size=8, signed=True: int.from_bytes(body[at : at + size], "big", signed=signed)  # noqa: E731

    def day(days: int) -> str:  # by Python's calendar, moved by whole cycles of 400 years
        cycles, days = divmod(days, 146_097)
        at = python.date(1970, 1, 1) + python.timedelta(days=days)
        year = at.year + 400 * cycles
        return f"{'-' if year < 0 else '+' if year > 9999 else ''}{abs(year):04}-{at.month:02}-{at.day:02}"

    def clock(seconds: int, nanosecond: int) -> str:
        text = f"{seconds // 3600:02}:{seconds % 3600 // 60:02}"
        text += f":{seconds % 60:02}" if seconds % 60 or nanosecond else ""
        return text + (f".{nanosecond:09}".rstrip("0") if nanosecond else "")

    def ahead(offset: int) -> str:
        if offset == 0:
            return "Z"
        size = abs(offset)
        text = f"{'-+'[offset > 0]}{size // 3600:02}:{size % 3600 // 60:02}"
        return text + (f":{size % 60:02}" if size % 60 else "")

    if code == 4:
        return day(word(0))
    if code in (5, 6):
        text = clock(*divmod(word(0, signed=False), 10**9))
        return text + (ahead(word(8, 4)) if code == 6 else "")
    if code in (7, 8):
        offset = word(12, 4) if code == 8 else 0
        days, seconds = divmod(word(0) + offset, 86_400)
        text = f"{day(days)}T{clock(seconds, word(8, 4, False))}"
        return text + (ahead(offset) + (f"[{body[16:].decode()}]" if body[16:] else "") if code == 8 else "")
    assert code == 9
    months, days, time = word(0), word(8), word(16) * 10**9 + word(24, 4, False)
    part = lambda number, by: (abs(number) // by, abs(number) % by, -1 if number < 0 else 1)  # noqa: E731
    years, months, sign = part(months, 12)
    date = "".join(f"{n}{s}" for n, s in ((sign * years, "Y"), (sign * months, "M"), (days, "D")) if n)
    hours, rest, sign = part(time, 3600 * 10**9)
    minutes, rest = divmod(rest, 60 * 10**9)
    late = "".join(f"{sign * n}{s}" for n, s in ((hours, "H"), (minutes, "M")) if n)
    if rest:
        fraction = f".{rest % 10**9:09}".rstrip("0") if rest % 10**9 else ""
        late += f"{'-' if sign < 0 else ''}{rest // 10**9}{fraction}S"
    return f"P{date}{'T' * bool(late)}{late}" if date or late else "PT0S"


@given(temporal_values())
def test_bytes_and_text_give_the_same_value(value: Any) -> None:
    data = values.encode(value)
    assert as_temporal(values.decode(data)) == value
    assert values.encode(values.decode(data)) == data  # what is read and written again is the same to a set
    assert second(data) == str(value)
    assert read(type(value), str(value)) == value
    assert list(NAMES)[list(NAMES.values()).index(type(value))] == name_of(value) == name_of(to_python(value))


@pytest.mark.parametrize("one", VECTORS["values"], ids=lambda one: str(one["text"]))
def test_vectors(one: dict[str, str]) -> None:
    data = bytes.fromhex(one["bytes"])
    value = read(NAMES[one["type"]], one["text"])
    assert values.encode(value) == data
    assert second(data) == str(value) == one["text"]


@pytest.mark.parametrize("one", VECTORS["refused"], ids=lambda one: str(one["why"]))
def test_bytes_that_are_none_are_no_value(one: dict[str, str]) -> None:
    found = values.decode(bytes.fromhex(one["bytes"]))
    assert isinstance(found, msgpack.ExtType)
    assert not name_of(found)
    with pytest.raises(GraphValueError, match="MessagePack's own"):
        raise values.row_error([("a", "b", found)])


ZONE = zoneinfo.ZoneInfo("Europe/Stockholm")
PYTHON: list[Any] = [
    python.date(1984, 10, 11), python.date.min, python.date.max, python.time(12, 31, 14, 645_876), python.time.max,
    python.time(12, 31, tzinfo=python.timezone(python.timedelta(hours=-2, seconds=7))),
    python.datetime(1984, 10, 11, 12, 31, 14, 645_876), python.datetime.min, python.datetime.max,
    python.datetime(1984, 10, 11, 12, tzinfo=python.UTC), python.datetime(2017, 10, 29, 2, 30, tzinfo=ZONE),
    python.datetime(2017, 10, 29, 2, 30, tzinfo=ZONE, fold=1), python.datetime(1984, 7, 1, tzinfo=ZONE),
]  # fmt: skip


@pytest.mark.parametrize("value", PYTHON, ids=str)
def test_pythons_types_come_back(value: Any) -> None:
    found = values.decode(values.encode([value, {"at": value}]))
    assert found == [value, {"at": value}]
    assert type(found[0]) is type(value)
    assert getattr(found[0], "fold", 0) == getattr(value, "fold", 0)
    assert getattr(found[0], "tzinfo", None) == getattr(value, "tzinfo", None)


def test_what_python_cannot_hold_is_not_lost() -> None:
    replica = Replica(bytes(32))
    for value in (
        LocalTime(1), Time(1, 0), LocalDateTime(1), DateTime(1, 3600), Date(days_of(-44, 3, 15)),
        Date(days_of(10_000, 1, 1)),
        DateTime(0, 3600, "Nowhere/Known"), DateTime(0, 7, "Europe/Stockholm"), Duration(1, 2, 3),
    ):  # fmt: skip
        replica.put("a", "b", value)
        assert replica.get("a", "b") == value
        assert type(replica.get("a", "b")) is type(value)
    replica.put("a", "b", python.timedelta(days=-1, microseconds=1))
    assert replica.get("a", "b") == Duration(0, -1, 1000)
    for wrong in (
        python.time(1, tzinfo=ZONE), Date(days_of(YEARS, 12, 31) + 1), LocalTime(DAY), LocalTime(-1),
        Time(0, 64_801), DateTime(0, 0, "x" * 65), DateTime(0, 0, "a]b"), Duration(1 << 63),
        Duration(0, 0, SECOND << 63),
        python.datetime(2000, 1, 1, tzinfo=python.timezone(python.timedelta(microseconds=1))),
    ):  # fmt: skip
        with pytest.raises(GraphValueError, match="can't be"):
            replica.put("a", "b", wrong)


@given(st.integers(-10_000_000, 10_000_000))
def test_the_calendar_is_pythons(days: int) -> None:
    cycles, rest = divmod(days, 146_097)
    at = python.date(1970, 1, 1) + python.timedelta(days=rest)
    assert civil_of(days) == (at.year + 400 * cycles, at.month, at.day)
    assert days_of(*civil_of(days)) == days


def test_clocks_go_forwards_and_back() -> None:
    def local(*parts: int) -> int:
        found = from_python(python.datetime(*parts))  # type: ignore[arg-type]
        assert isinstance(found, LocalDateTime)
        return found.nanoseconds

    zone = "Europe/Stockholm"
    assert str(local_to_moment(local(2017, 3, 26, 2, 30), zone)) == "2017-03-26T03:30+02:00[Europe/Stockholm]"
    assert (
        str(local_to_moment(local(2017, 10, 29, 2, 30), zone)) == "2017-10-29T02:30+02:00[Europe/Stockholm]"
    )
    later = local_to_moment(local(2017, 10, 29, 2, 30), zone).nanoseconds + 3600 * SECOND
    assert str(moment_in_zone(later, zone)) == "2017-10-29T02:30+01:00[Europe/Stockholm]"
    for year in (-YEARS, -1, 0, 1, 9999, 10_000, YEARS):  # no year is too far for a zone
        assert str(local_to_moment(days_of(year, 2, 28) * DAY, zone)).endswith("[Europe/Stockholm]")
    with pytest.raises(TemporalError, match="Nowhere"):
        local_to_moment(0, "Nowhere/Known")
    with pytest.raises(TemporalError):
        local_to_moment(0, "../../etc/passwd")


@given(
    st.sampled_from(sorted(NAMES)),
    st.text("0123456789-+:.TZPYMDHSWQ[]/", max_size=30) | st.text(max_size=300),
)
def test_no_text_is_anything_else(name: str, text: str) -> None:
    try:
        found = read(NAMES[name], text)
    except TemporalError:
        return
    assert isinstance(found, TEMPORAL)
    assert read(NAMES[name], str(found)) == found


def test_rules_know_them() -> None:
    there = {
        "date": python.date(1984, 1, 1), "localtime": LocalTime(1), "time": python.time(1, tzinfo=python.UTC),
        "localdatetime": python.datetime(1984, 1, 1), "datetime": DateTime(1, 0), "duration": Duration(1),
    }  # fmt: skip
    assert there.keys() == NAMES.keys()
    for name in NAMES:
        for other, value in there.items():
            assert Schema(type=name).admits_value(value) is (name == other)
        assert not Schema(type=name).admits_value("1984-01-01")
    with pytest.raises(RulesError, match="localdatetime"):
        Rules("a", [Rule(key="k", value=Schema(type="moment"))])
