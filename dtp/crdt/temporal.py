"""Dates, times and durations as values: to the nanosecond, of any year up to a thousand million.

Python's own types are taken for them, and given back where they can hold all of a value; else these are.
"""

from __future__ import annotations

import datetime as python
import functools
import struct
import zoneinfo
from dataclasses import dataclass
from typing import Final

SECOND: Final = 1_000_000_000
DAY: Final = 86_400 * SECOND
#: The year is within so much on both sides of 0.
YEARS: Final = 999_999_999
#: An offset from UTC is within 18 hours, seconds.
_OFFSET: Final = 18 * 3600
_EPOCH: Final = python.date(1970, 1, 1).toordinal()
_INT64: Final = 1 << 63
_ZONE_BYTES: Final = 64


class TemporalError(ValueError):
    """A date, a time or a duration that isn't one; the message says why."""


def days_of(year: int, month: int, day: int) -> int:
    """Return the days from 1970-01-01 to a date of the Gregorian calendar, also before it began."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def civil_of(days: int) -> tuple[int, int, int]:
    """Return year, month and day of the days since 1970-01-01."""
    era, of_era = divmod(days + 719_468, 146_097)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + (3 if shifted < 10 else -9)
    return year + era * 400 + (month <= 2), month, of_year - (153 * shifted + 2) // 5 + 1


def date_text(days: int) -> str:
    """Return a date as ISO 8601 writes it."""
    year, month, day = civil_of(days)
    sign = "-" if year < 0 else "+" if year > 9999 else ""
    return f"{sign}{abs(year):04}-{month:02}-{day:02}"


def time_text(nanoseconds: int) -> str:
    """Return a time of the day as ISO 8601 writes it, without what is 0 at the end."""
    minutes, rest = divmod(nanoseconds, 60 * SECOND)
    text = f"{minutes // 60:02}:{minutes % 60:02}"
    if rest:
        text += f":{rest // SECOND:02}"
    if rest % SECOND:
        text += f".{rest % SECOND:09}".rstrip("0")
    return text


def offset_text(offset: int) -> str:
    """Return an offset from UTC, seconds, as ISO 8601 writes it."""
    if not offset:
        return "Z"
    size = abs(offset)
    text = f"{'-' if offset < 0 else '+'}{size // 3600:02}:{size // 60 % 60:02}"
    return text if size % 60 == 0 else f"{text}:{size % 60:02}"


def zone_of(name: str) -> zoneinfo.ZoneInfo:
    """Return a time zone by its name. Raise `TemporalError` for one that isn't known here."""
    found = _zones(name)
    if found is None:
        raise TemporalError(f"there is no time zone {name!r} here; on Windows: pip install tzdata")
    return found


@functools.lru_cache(maxsize=256)
def _zones(name: str) -> zoneinfo.ZoneInfo | None:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


@dataclass(frozen=True, slots=True)
class Date:
    """A day: how many it is after 1970-01-01."""

    days: int

    def __str__(self) -> str:
        return date_text(self.days)


@dataclass(frozen=True, slots=True)
class LocalTime:
    """A time of the day, nanoseconds after midnight."""

    nanoseconds: int

    def __str__(self) -> str:
        return time_text(self.nanoseconds)


@dataclass(frozen=True, slots=True)
class Time:
    """A time of the day, nanoseconds after midnight, where clocks are `offset` seconds ahead of UTC."""

    nanoseconds: int
    offset: int

    def __str__(self) -> str:
        return time_text(self.nanoseconds) + offset_text(self.offset)


@dataclass(frozen=True, slots=True)
class LocalDateTime:
    """A day and a time, wherever: nanoseconds after 1970-01-01T00:00 there."""

    nanoseconds: int

    def __str__(self) -> str:
        days, time = divmod(self.nanoseconds, DAY)
        return f"{date_text(days)}T{time_text(time)}"


@dataclass(frozen=True, slots=True)
class DateTime:
    """A moment: nanoseconds after 1970-01-01T00:00Z, where clocks are `offset` seconds ahead by a zone's rules."""

    nanoseconds: int
    offset: int
    #: The name of a time zone, "" for none.
    zone: str = ""

    @property
    def local(self) -> int:
        """What clocks say there, as nanoseconds of a `LocalDateTime`."""
        return self.nanoseconds + self.offset * SECOND

    def __str__(self) -> str:
        zone = f"[{self.zone}]" if self.zone else ""
        return f"{LocalDateTime(self.local)}{offset_text(self.offset)}{zone}"


@dataclass(frozen=True, slots=True)
class Duration:
    """Months, days and nanoseconds, each by itself: a month has no fixed number of days, nor a day of hours."""

    months: int = 0
    days: int = 0
    nanoseconds: int = 0

    def __str__(self) -> str:
        months, days, time = self.months, self.days, self.nanoseconds
        parts = [(_whole(months, 12), "Y"), (_rest(months, 12), "M"), (days, "D")]
        text = "P" + "".join(f"{number}{letter}" for number, letter in parts if number)
        size, sign = abs(time), "-" if time < 0 else ""
        hours, minutes, rest = size // (3600 * SECOND), size // (60 * SECOND) % 60, size % (60 * SECOND)
        late = "".join(
            f"{sign}{number}{letter}" for number, letter in ((hours, "H"), (minutes, "M")) if number
        )
        if rest:
            fraction = f".{rest % SECOND:09}".rstrip("0") if rest % SECOND else ""
            late += f"{sign}{rest // SECOND}{fraction}S"
        return f"{text}T{late}" if late else "PT0S" if text == "P" else text

    @property
    def length(self) -> int:
        """About how long it is, nanoseconds: with months of the Gregorian calendar's mean."""
        return self.months * 2_629_746 * SECOND + self.days * DAY + self.nanoseconds


def _whole(number: int, by: int) -> int:
    return number // by if number >= 0 else -(-number // by)


def _rest(number: int, by: int) -> int:
    return number - _whole(number, by) * by


#: Any of them.
Temporal = Date | LocalTime | Time | LocalDateTime | DateTime | Duration
TEMPORAL: Final = (Date, LocalTime, Time, LocalDateTime, DateTime, Duration)
#: Their names in rules, in files and as functions of queries.
NAMES: Final[dict[str, type[Temporal]]] = {
    "date": Date,
    "localtime": LocalTime,
    "time": Time,
    "localdatetime": LocalDateTime,
    "datetime": DateTime,
    "duration": Duration,
}
_NAMES_OF: Final = {kind: name for name, kind in NAMES.items()}


def local_to_moment(local: int, zone: str) -> DateTime:
    """Return the moment at which clocks in a time zone say so; of two the earlier, of none the one behind the gap."""
    offset = _offset_of(_python_datetime(local).replace(tzinfo=zone_of(zone)))
    return moment_in_zone(local - offset * SECOND, zone)


def _python_datetime(nanoseconds: int) -> python.datetime:
    """Return a time to the second, of a year that Python has: one that is as long, before all rules or behind
    them."""
    days, time = divmod(nanoseconds, DAY)
    year, month, day = civil_of(days)
    year = year if 2 <= year <= 9998 else (400 if year < 2 else 9200) + year % 400
    return python.datetime(year, month, day) + python.timedelta(seconds=time // SECOND)


def moment_in_zone(nanoseconds: int, zone: str) -> DateTime:
    """Return a moment by the clocks in a time zone."""
    at = _python_datetime(nanoseconds).replace(tzinfo=python.UTC)
    return DateTime(nanoseconds, _offset_of(at.astimezone(zone_of(zone))), zone)


def _offset_of(at: python.datetime | python.time) -> int:
    offset = at.utcoffset()
    if offset is None or offset.microseconds:
        raise TemporalError(f"{at!r} has no offset from UTC in whole seconds")
    return int(offset.total_seconds())


# ---- Python's types --------------------------------------------------------------------------------------------

#: What is taken for a value of these.
PYTHON: Final = (python.date, python.time, python.timedelta)


def from_python(value: object) -> Temporal:
    """Return one of Python's values as one of these. Raise `TemporalError` for a time of a zone that depends on the
    day, and for offsets in parts of a second."""
    if isinstance(value, python.datetime):
        local = _days(value) * DAY + _of_day(value)
        if value.tzinfo is None:
            return LocalDateTime(local)
        offset = _offset_of(value)
        zone = value.tzinfo.key if isinstance(value.tzinfo, zoneinfo.ZoneInfo) else ""
        return DateTime(local - offset * SECOND, offset, zone or "")
    if isinstance(value, python.date):
        return Date(_days(value))
    if isinstance(value, python.time):
        return LocalTime(_of_day(value)) if value.tzinfo is None else Time(_of_day(value), _offset_of(value))
    if isinstance(value, python.timedelta):
        return Duration(0, value.days, (value.seconds * 1_000_000 + value.microseconds) * 1000)
    raise TemporalError(f"{value!r} is not a date, time or duration")


def to_python(value: Temporal) -> object:
    """Return a value as Python's own type where that can hold all of it; else, and durations, as they are."""
    if isinstance(value, Duration):
        return value
    if isinstance(value, Date):
        ordinal = value.days + _EPOCH
        return python.date.fromordinal(ordinal) if 1 <= ordinal <= _LAST else value
    if value.nanoseconds % 1000:
        return value
    if isinstance(value, LocalTime | Time):
        zone = None if isinstance(value, LocalTime) else _zone(value.offset)
        return _time(value.nanoseconds, zone)
    local = value.local if isinstance(value, DateTime) else value.nanoseconds
    days, time = divmod(local, DAY)
    if not 1 <= days + _EPOCH <= _LAST:
        return value
    day = python.date.fromordinal(days + _EPOCH)
    if isinstance(value, LocalDateTime):
        return python.datetime.combine(day, _time(time, None))
    if not value.zone:
        return python.datetime.combine(day, _time(time, _zone(value.offset)))
    return _in_zone(value, day, time)


def name_of(value: object) -> str:
    """Return which of `NAMES` a value is, Python's types too; "" for any other value."""
    if isinstance(value, TEMPORAL):
        return _NAMES_OF[type(value)]
    if isinstance(value, python.datetime):
        return "localdatetime" if value.tzinfo is None else "datetime"
    if isinstance(value, python.time):
        return "localtime" if value.tzinfo is None else "time"
    return (
        "date"
        if isinstance(value, python.date)
        else "duration"
        if isinstance(value, python.timedelta)
        else ""
    )


def as_temporal(value: object) -> Temporal:
    """Return a value of `PYTHON` or `TEMPORAL` as one of these. Raise `TemporalError` as `from_python`."""
    return value if isinstance(value, TEMPORAL) else from_python(value)


def _in_zone(value: DateTime, day: python.date, time: int) -> object:
    """Return a moment by the clocks of a zone, if they are known here, and say so."""
    try:
        zone = zone_of(value.zone)
    except TemporalError:
        return value
    for fold in (0, 1):
        found = python.datetime.combine(day, _time(time, zone)).replace(fold=fold)
        if _offset_of(found) == value.offset:
            return found
    return value


_LAST: Final = python.date.max.toordinal()


def _zone(offset: int) -> python.timezone:
    return python.timezone(python.timedelta(seconds=offset)) if offset else python.UTC


def _days(value: python.date) -> int:
    return value.toordinal() - _EPOCH


def _of_day(value: python.time | python.datetime) -> int:
    seconds = value.hour * 3600 + value.minute * 60 + value.second
    return seconds * SECOND + value.microsecond * 1000


def _time(nanoseconds: int, zone: python.tzinfo | None) -> python.time:
    seconds, rest = divmod(nanoseconds, SECOND)
    return python.time(seconds // 3600, seconds // 60 % 60, seconds % 60, rest // 1000, zone)


# ---- bytes: docs/graph.md, "Values" ------------------------------------------------------------------------------

DATE, LOCAL_TIME, TIME, LOCAL_DATETIME, DATETIME, DURATION = range(4, 10)
_FORMS: Final = {
    DATE: struct.Struct(">q"),
    LOCAL_TIME: struct.Struct(">Q"),
    TIME: struct.Struct(">Qi"),
    LOCAL_DATETIME: struct.Struct(">qI"),
    DATETIME: struct.Struct(">qIi"),
    DURATION: struct.Struct(">qqqI"),
}


def pack(value: Temporal) -> tuple[int, bytes]:
    """Return the extension type and the bytes of a value. Raise `TemporalError` for one that is too large."""
    check(value)
    if isinstance(value, Date):
        return DATE, _FORMS[DATE].pack(value.days)
    if isinstance(value, LocalTime):
        return LOCAL_TIME, _FORMS[LOCAL_TIME].pack(value.nanoseconds)
    if isinstance(value, Time):
        return TIME, _FORMS[TIME].pack(value.nanoseconds, value.offset)
    if isinstance(value, LocalDateTime):
        return LOCAL_DATETIME, _FORMS[LOCAL_DATETIME].pack(*divmod(value.nanoseconds, SECOND))
    if isinstance(value, DateTime):
        form = _FORMS[DATETIME].pack(*divmod(value.nanoseconds, SECOND), value.offset)
        return DATETIME, form + value.zone.encode()
    return DURATION, _FORMS[DURATION].pack(value.months, value.days, *divmod(value.nanoseconds, SECOND))


def unpack(code: int, data: bytes) -> Temporal:
    """Return the value of an extension of MessagePack. Raise `TemporalError` for other bytes."""
    form = _FORMS[code]
    zone = data[form.size :] if code == DATETIME else b""
    if len(data) != form.size + len(zone):
        raise TemporalError("a date, a time or a duration has another number of bytes")
    numbers = form.unpack(data[: form.size])
    value: Temporal
    if code == DATE:
        value = Date(*numbers)
    elif code == LOCAL_TIME:
        value = LocalTime(*numbers)
    elif code == TIME:
        value = Time(*numbers)
    else:
        *first, seconds, nanosecond = numbers if code != DATETIME else numbers[:2]
        if nanosecond >= SECOND:
            raise TemporalError("a second has fewer nanoseconds")
        total = seconds * SECOND + nanosecond
        if code == LOCAL_DATETIME:
            value = LocalDateTime(total)
        elif code == DURATION:
            value = Duration(first[0], first[1], total)
        else:
            value = DateTime(total, numbers[2], _zone_name(zone))
    check(value)
    return value


def _zone_name(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise TemporalError("a time zone's name is UTF-8") from error


_FIRST_DAY: Final = days_of(-YEARS, 1, 1)
_LAST_DAY: Final = days_of(YEARS, 12, 31)


def check(value: Temporal) -> None:
    """Raise `TemporalError` for a value that is beyond what there is."""
    if isinstance(value, Duration):
        numbers = (value.months, value.days, value.nanoseconds // SECOND)
        if any(not -_INT64 <= number < _INT64 for number in numbers):
            raise TemporalError("a duration has months, days and seconds of 64 bits each")
        return
    if isinstance(value, Time | DateTime) and not -_OFFSET <= value.offset <= _OFFSET:
        raise TemporalError("clocks are at most 18 hours ahead of UTC, or behind")
    if isinstance(value, LocalTime | Time):
        if not 0 <= value.nanoseconds < DAY:
            raise TemporalError("a day has 24 hours")
        return
    if isinstance(value, DateTime) and (len(value.zone.encode()) > _ZONE_BYTES or "]" in value.zone):
        raise TemporalError(f"a time zone's name has at most {_ZONE_BYTES} bytes, and no bracket")
    days = value.days if isinstance(value, Date) else value.nanoseconds // DAY
    if not _FIRST_DAY <= days <= _LAST_DAY:
        raise TemporalError(f"a year is from -{YEARS:,} to {YEARS:,}")
