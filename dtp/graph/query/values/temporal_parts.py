"""Dates, times and durations read, compared and calculated with."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from dtp.crdt.temporal import (
    DAY,
    SECOND,
    TEMPORAL,
    Date,
    DateTime,
    Duration,
    LocalDateTime,
    LocalTime,
    Temporal,
    Time,
    check,
    civil_of,
    days_of,
    local_to_moment,
    moment_in_zone,
    offset_text,
)
from dtp.crdt.temporal_text import date_of, week_of


def local_of(value: Temporal) -> int:
    """Return what clocks and calendars say, as nanoseconds after 1970-01-01T00:00; of a time after midnight."""
    if isinstance(value, Date):
        return value.days * DAY
    return value.local if isinstance(value, DateTime) else value.nanoseconds


def offset_of(value: Any) -> int | None:
    """Return its offset from UTC, seconds; None if it has none."""
    return value.offset if isinstance(value, Time | DateTime) else None


def zone_of_value(value: Any) -> str:
    """Return the name of its time zone, or its offset; "" if it has none."""
    if isinstance(value, DateTime) and value.zone:
        return value.zone
    return offset_text(value.offset) if isinstance(value, Time | DateTime) else ""


def day_parts(days: int) -> dict[str, int]:
    """Return what is said of a day."""
    year, month, day = civil_of(days)
    week_year, week = week_of(days)
    quarter = (month + 2) // 3
    week_day = (days + 3) % 7 + 1
    return {
        "year": year,
        "quarter": quarter,
        "month": month,
        "week": week,
        "weekYear": week_year,
        "day": day,
        "ordinalDay": days - days_of(year, 1, 1) + 1,
        "dayOfWeek": week_day,
        "weekDay": week_day,
        "dayOfQuarter": days - days_of(year, 3 * quarter - 2, 1) + 1,
        "quarterDay": days - days_of(year, 3 * quarter - 2, 1) + 1,
    }


def _time_parts(time: int) -> dict[str, int]:
    rest = time % SECOND
    return {
        "hour": time // (3600 * SECOND),
        "minute": time // (60 * SECOND) % 60,
        "second": time // SECOND % 60,
        "millisecond": rest // 1_000_000,
        "microsecond": rest // 1000,
        "nanosecond": rest,
    }


def _cut(number: int, by: int) -> int:
    """Return the quotient, rounded towards 0."""
    return number // by if number >= 0 else -(-number // by)


def _left(number: int, by: int) -> int:
    return number - _cut(number, by) * by


def _duration_parts(value: Duration) -> dict[str, int]:
    months, days, time = value.months, value.days, value.nanoseconds
    seconds, rest = time // SECOND, time % SECOND
    return {
        "years": _cut(months, 12),
        "quarters": _cut(months, 3),
        "months": months,
        "weeks": _cut(days, 7),
        "days": days,
        "hours": _cut(seconds, 3600),
        "minutes": _cut(seconds, 60),
        "seconds": seconds,
        "milliseconds": time // 1_000_000,
        "microseconds": time // 1000,
        "nanoseconds": time,
        "quartersOfYear": _cut(_left(months, 12), 3),
        "monthsOfQuarter": _left(months, 3),
        "monthsOfYear": _left(months, 12),
        "daysOfWeek": _left(days, 7),
        "minutesOfHour": _left(_cut(seconds, 60), 60),
        "secondsOfMinute": _left(seconds, 60),
        "millisecondsOfSecond": rest // 1_000_000,
        "microsecondsOfSecond": rest // 1000,
        "nanosecondsOfSecond": rest,
    }


def part_of(value: Temporal, name: str) -> Any:
    """Return what `value.name` is; None where it has none such."""
    if isinstance(value, Duration):
        return _duration_parts(value).get(name)
    found: dict[str, Any] = {}
    days, time = divmod(local_of(value), DAY)
    if isinstance(value, Date | LocalDateTime | DateTime):
        found |= day_parts(days)
    if not isinstance(value, Date):
        found |= _time_parts(time)
    if isinstance(value, Time | DateTime):
        found |= {
            "timezone": zone_of_value(value),
            "offset": offset_text(value.offset),
            "offsetMinutes": value.offset // 60,
            "offsetSeconds": value.offset,
        }
    if isinstance(value, DateTime):
        found |= {"epochSeconds": value.nanoseconds // SECOND, "epochMillis": value.nanoseconds // 1_000_000}
    return found.get(name)


# ---- order -----------------------------------------------------------------------------------------------------


def sort_parts(value: Temporal) -> tuple[Any, ...]:
    """Return what values of one kind are sorted by: moments by when they are, then by where."""
    if isinstance(value, DateTime):
        return (value.nanoseconds, value.offset, value.zone)
    if isinstance(value, Time):
        return (value.nanoseconds - value.offset * SECOND, value.offset)
    if isinstance(value, Duration):
        return (value.length, value.months, value.days)
    return (value.days,) if isinstance(value, Date) else (value.nanoseconds,)


# ---- arithmetic ------------------------------------------------------------------------------------------------


def add_temporal(a: Any, b: Any, sign: int = 1) -> Temporal | None:
    """Return a + b, or a - b; None unless they are temporal values that can be added. Raise `TemporalError`."""
    if sign > 0 and isinstance(a, Duration) and isinstance(b, TEMPORAL) and not isinstance(b, Duration):
        a, b = b, a
    if not isinstance(a, TEMPORAL) or not isinstance(b, Duration):
        return None
    months, days, time = sign * b.months, sign * b.days, sign * b.nanoseconds
    if isinstance(a, Duration):
        return _checked(Duration(a.months + months, a.days + days, a.nanoseconds + time))
    if isinstance(a, LocalTime):
        return LocalTime((a.nanoseconds + time) % DAY)
    if isinstance(a, Time):
        return Time((a.nanoseconds + time) % DAY, a.offset)
    day = add_months(local_of(a) // DAY, months) + days
    if isinstance(a, Date):
        return _checked(Date(day + _cut(time, DAY)))
    moved = day * DAY + local_of(a) % DAY
    if isinstance(a, LocalDateTime):
        return _checked(LocalDateTime(moved + time))
    return _checked(_moved(a, moved, time))


def _moved(a: DateTime, local: int, time: int) -> DateTime:
    """Return a moved date and time: days by the calendar of its zone, time by the clock."""
    if not a.zone:
        return DateTime(local - a.offset * SECOND + time, a.offset)
    there = a.nanoseconds if local == a.local else local_to_moment(local, a.zone).nanoseconds
    return moment_in_zone(there + time, a.zone)


def add_months(days: int, months: int) -> int:
    """Return a day some months later; where the month is too short, its last day. Raise `TemporalError`."""
    year, month, day = civil_of(days)
    year, month = year + (month - 1 + months) // 12, (month - 1 + months) % 12 + 1
    last = civil_of(days_of(year + (month == 12), month % 12 + 1, 1) - 1)[2]
    return date_of(year, month, min(day, last))


def _checked(value: Temporal) -> Temporal:
    check(value)
    return value


def scale_duration(value: Duration, by: Fraction) -> Duration:
    """Return a duration so many times; what is not a whole month or day goes into what is below it."""
    months = value.months * by
    days = value.days * by + (months - int(months)) * Fraction(2_629_746, 86_400)
    time = value.nanoseconds * by + (days - int(days)) * DAY
    found = Duration(int(months), int(days), int(time))
    check(found)
    return found
