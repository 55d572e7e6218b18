"""Dates, times and durations from text, as ISO 8601 has them and openCypher takes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Final

from dtp.crdt.temporal import (
    DAY,
    SECOND,
    Date,
    DateTime,
    Duration,
    LocalDateTime,
    LocalTime,
    Temporal,
    TemporalError,
    Time,
    check,
    civil_of,
    days_of,
    local_to_moment,
)

#: Letters of a text that is read, at most: all there is to a value is written in fewer.
_LETTERS: Final = 256
_YEAR: Final = r"(?P<year>[+-]\d{4,9}|\d{4})"
_DATES: Final = tuple(
    re.compile(_YEAR + rest, re.ASCII)
    for rest in (
        r"-(?P<month>\d\d)-(?P<day>\d\d)",
        r"(?P<month>\d\d)(?P<day>\d\d)",
        r"-?W(?P<week>\d\d)(-?(?P<day_of_week>\d))?",
        r"-?Q(?P<quarter>\d)(-?(?P<day_of_quarter>\d\d))?",
        r"-?(?P<ordinal>\d{3})",
        r"-?(?P<month>\d\d)",
        r"",
    )
)
_TIME: Final = re.compile(
    r"(?P<hour>\d\d)(:?(?P<minute>\d\d)(:?(?P<second>\d\d)([.,](?P<fraction>\d{1,9}))?)?)?", re.ASCII
)
_OFFSET: Final = re.compile(
    r"(?P<sign>[+-])(?P<hour>\d\d)(:?(?P<minute>\d\d)(:?(?P<second>\d\d))?)?", re.ASCII
)
_ZONED: Final = re.compile(r"(?P<time>[\d:.,]+)(?P<offset>Z|z|[+-][\d:]+)?(\[(?P<zone>[^\]]+)\])?", re.ASCII)
_NUMBER: Final = r"[+-]?\d{1,18}(?:[.,]\d{1,18})?"
_DURATION: Final = re.compile(
    "P"
    + "".join(f"(?:(?P<{name}>{_NUMBER}){name[0].upper()})?" for name in ("years", "months", "weeks", "days"))
    + "(?:T"
    + "".join(f"(?:(?P<{name}>{_NUMBER}){name[0].upper()})?" for name in ("hours", "minutes", "seconds"))
    + ")?",
    re.ASCII,
)
_AS_DATE: Final = re.compile(r"P(\d{4})-?(\d\d)-?(\d\d)T(\d\d):?(\d\d):?(\d\d(?:[.,]\d{1,9})?)", re.ASCII)


def date_of(year: int, month: int, day: int) -> int:
    """Return the days of a date. Raise `TemporalError` for one that there isn't."""
    if not 1 <= month <= 12 or day < 1:
        raise TemporalError(f"there is no month {month} with a day {day}")
    days = days_of(year, month, day)
    if civil_of(days) != (year, month, day):
        raise TemporalError(f"month {month} of {year} has no day {day}")
    return days


def week_date(year: int, week: int, day_of_week: int) -> int:
    """Return the days of a week's day; the first week is the one with January 4th, the first day Monday."""
    first = days_of(year, 1, 4)
    monday = first - (first + 3) % 7
    days = monday + 7 * (week - 1) + day_of_week - 1
    if not 1 <= day_of_week <= 7 or not 1 <= week <= 53 or week_of(monday + 7 * (week - 1))[0] != year:
        raise TemporalError(f"{year} has no week {week} with a day {day_of_week}")
    return days


def week_of(days: int) -> tuple[int, int]:
    """Return year and number of the week of a day."""
    thursday = days - (days + 3) % 7 + 3
    year = civil_of(thursday)[0]
    return year, (thursday - days_of(year, 1, 1)) // 7 + 1


def quarter_date(year: int, quarter: int, day: int) -> int:
    """Return the days of a quarter's day. Raise `TemporalError` for one that there isn't."""
    if not 1 <= quarter <= 4:
        raise TemporalError(f"there is no quarter {quarter}")
    first = days_of(year, 3 * quarter - 2, 1)
    behind = days_of(year + (quarter == 4), 3 * quarter % 12 + 1, 1)
    if not 1 <= day <= behind - first:
        raise TemporalError(f"quarter {quarter} of {year} has no day {day}")
    return first + day - 1


def ordinal_date(year: int, day: int) -> int:
    """Return the days of a year's day. Raise `TemporalError` for one that there isn't."""
    days = days_of(year, 1, 1) + day - 1
    if day < 1 or civil_of(days)[0] != year:
        raise TemporalError(f"{year} has no day {day}")
    return days


def read_date(text: str) -> int:
    """Return the days of a date: of a month, a week, a quarter or a year the first one. Raise `TemporalError`."""
    found = next((found for form in _DATES if (found := form.fullmatch(text))), None)
    if found is None:
        raise TemporalError(f"{text[:60]!r} is not a date")
    parts = {name: int(part) for name, part in found.groupdict().items() if part is not None}
    year = parts["year"]
    if "week" in parts:
        return week_date(year, parts["week"], parts.get("day_of_week", 1))
    if "quarter" in parts:
        return quarter_date(year, parts["quarter"], parts.get("day_of_quarter", 1))
    if "ordinal" in parts:
        return ordinal_date(year, parts["ordinal"])
    return date_of(year, parts.get("month", 1), parts.get("day", 1))


def read_time(text: str) -> int:
    """Return the nanoseconds after midnight. Raise `TemporalError`."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise TemporalError(f"{text[:60]!r} is not a time")
    hour, minute, second = (int(found[name] or 0) for name in ("hour", "minute", "second"))
    return time_of(hour, minute, second, int((found["fraction"] or "0").ljust(9, "0")))


def time_of(hour: int, minute: int, second: int, nanosecond: int) -> int:
    """Return the nanoseconds after midnight. Raise `TemporalError` for a time that there isn't."""
    if not (0 <= hour < 24 and 0 <= minute < 60 and 0 <= second < 60 and 0 <= nanosecond < SECOND):
        raise TemporalError(f"there is no time {hour}:{minute}:{second} and {nanosecond} ns")
    return ((hour * 60 + minute) * 60 + second) * SECOND + nanosecond


def read_offset(text: str) -> int:
    """Return an offset from UTC, seconds. Raise `TemporalError`."""
    if text in ("Z", "z"):
        return 0
    found = _OFFSET.fullmatch(text)
    if found is None:
        raise TemporalError(f"{text[:60]!r} is not an offset from UTC")
    hour, minute, second = (int(found[name] or 0) for name in ("hour", "minute", "second"))
    if minute > 59 or second > 59:
        raise TemporalError(f"{text!r} is not an offset from UTC")
    return (hour * 3600 + minute * 60 + second) * (-1 if found["sign"] == "-" else 1)


def _split(text: str) -> tuple[int, str, str]:
    """Return the time, the offset and the zone of a text, "" for what it doesn't have."""
    found = _ZONED.fullmatch(text)
    if found is None:
        raise TemporalError(f"{text[:60]!r} is not a time")
    return read_time(found["time"]), found["offset"] or "", found["zone"] or ""


def _date(text: str) -> Temporal:
    return Date(read_date(text))


def _local_time(text: str) -> Temporal:
    return LocalTime(read_time(text))


def _time(text: str) -> Temporal:
    time, offset, zone = _split(text)
    if zone:
        raise TemporalError("a time without a day has no time zone, but an offset")
    return Time(time, read_offset(offset or "Z"))


def _local_datetime(text: str) -> Temporal:
    date, separator, time = text.partition("T")
    return LocalDateTime(read_date(date) * DAY + (read_time(time) if separator else 0))


def _datetime(text: str) -> Temporal:
    date, separator, rest = text.partition("T")
    time, offset, zone = _split(rest) if separator else (0, "", "")
    local = read_date(date) * DAY + time
    if not zone:
        seconds = read_offset(offset or "Z")
        return DateTime(local - seconds * SECOND, seconds)
    if not offset:
        return local_to_moment(local, zone)
    return DateTime(local - read_offset(offset) * SECOND, read_offset(offset), zone)


def duration_of(parts: dict[str, Fraction]) -> Duration:
    """Return the duration of numbers of years, quarters, months, weeks, days, hours, minutes, seconds, milliseconds,
    microseconds and nanoseconds. A part of a month is that of 30.436875 days, one of a day that of 24 hours."""

    def total(*names: tuple[str, int]) -> Fraction:
        return sum((parts.get(name, Fraction(0)) * times for name, times in names), Fraction(0))

    months = total(("years", 12), ("quarters", 3), ("months", 1))
    days = total(("weeks", 7), ("days", 1)) + (months - int(months)) * Fraction(2_629_746, 86_400)
    time = total(("hours", 3600 * SECOND), ("minutes", 60 * SECOND), ("seconds", SECOND))
    time += (
        total(("milliseconds", 1_000_000), ("microseconds", 1000), ("nanoseconds", 1))
        + (days - int(days)) * DAY
    )
    return Duration(int(months), int(days), int(time))


def _duration(text: str) -> Temporal:
    dated = _AS_DATE.fullmatch(text)
    names = ("years", "months", "days", "hours", "minutes", "seconds")
    if dated is not None:
        numbers = (Fraction(part.replace(",", ".")) for part in dated.groups())
        return duration_of(dict(zip(names, numbers, strict=True)))
    found = _DURATION.fullmatch(text)
    if found is None or text[-1] in "PT":
        raise TemporalError(f"{text[:60]!r} is not a duration")
    parts = {name: Fraction(part.replace(",", ".")) for name, part in found.groupdict().items() if part}
    return duration_of(parts)


#: Kind of value -> what reads its text.
_READERS: Final[dict[type[Temporal], Callable[[str], Temporal]]] = {
    Date: _date,
    LocalTime: _local_time,
    Time: _time,
    LocalDateTime: _local_datetime,
    DateTime: _datetime,
    Duration: _duration,
}


def read(kind: type[Temporal], text: str) -> Temporal:
    """Return the value of a kind that a text says. Raise `TemporalError`."""
    if len(text) > _LETTERS:
        raise TemporalError("this is too long for a date, a time or a duration")
    found = _READERS[kind](text.strip())
    check(found)
    return found
