"""Functions of dates, times and durations: made of maps, texts and each other, cut off, told apart, read."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

from dtp.crdt.temporal import (
    DAY,
    NAMES,
    SECOND,
    TEMPORAL,
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
    local_to_moment,
    moment_in_zone,
)
from dtp.crdt.temporal_text import (
    date_of,
    duration_of,
    ordinal_date,
    quarter_date,
    read,
    read_offset,
    time_of,
    week_date,
    week_of,
)
from dtp.graph.query.errors import QueryError
from dtp.graph.query.values.semantics import describe_value
from dtp.graph.query.values.temporal_parts import add_months, day_parts, local_of, offset_of, zone_of_value

_KINDS: Final = {name: kind for name, kind in NAMES.items() if kind is not Duration}
_DAY_NAMES: Final = frozenset(
    ("year", "month", "day", "week", "dayOfWeek", "quarter", "dayOfQuarter", "ordinalDay")
)
_TIME_NAMES: Final = frozenset(("hour", "minute", "second", "millisecond", "microsecond", "nanosecond"))
_BASES: Final = frozenset(("date", "time", "datetime"))
_DURATION_NAMES: Final = frozenset(
    ("years", "quarters", "months", "weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds",
     "nanoseconds")
)  # fmt: skip
#: What each kind has.
_HAS_DAY: Final = (Date, LocalDateTime, DateTime)
_HAS_TIME: Final = (LocalTime, Time, LocalDateTime, DateTime)
_HAS_ZONE: Final = (Time, DateTime)


def _number(given: dict[str, Any], name: str, otherwise: int) -> int:
    value = given.get(name, otherwise)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TemporalError(f"{name} must be a whole number, not {describe_value(value)}")
    return value


def _base(given: dict[str, Any], name: str, kinds: tuple[type, ...]) -> Any:
    value = given.get(name, given.get("datetime"))
    if value is not None and not isinstance(value, kinds):
        raise TemporalError(f"{name} is a value that has one, not {describe_value(value)}")
    return value


# ---- days ---------------------------------------------------------------------------------------------------


def _day(given: dict[str, Any], base: int | None) -> int:
    """Return the days of what a map says, on what a day says that it is taken from."""
    parts = day_parts(base) if base is not None else {}
    if "week" in given or ("dayOfWeek" in given and base is not None):
        year, week = week_of(base) if base is not None else (0, 1)
        week_day = int(parts.get("dayOfWeek", 1))
        year = _number(given, "year", year)
        return week_date(year, _number(given, "week", week), _number(given, "dayOfWeek", week_day))
    year = _number(given, "year", parts.get("year", 0))
    if "ordinalDay" in given:
        return ordinal_date(year, _number(given, "ordinalDay", 1))
    if "quarter" in given or "dayOfQuarter" in given:
        quarter = _number(given, "quarter", parts.get("quarter", 1))
        return quarter_date(year, quarter, _number(given, "dayOfQuarter", parts.get("dayOfQuarter", 1)))
    month = _number(given, "month", parts.get("month", 1))
    return date_of(year, month, _number(given, "day", parts.get("day", 1)))


def _time(given: dict[str, Any], base: int) -> int:
    """Return the nanoseconds of the day that a map says, on those that they are taken from."""
    seconds, rest = divmod(base, SECOND)
    names = ("millisecond", "microsecond", "nanosecond")
    if any(name in given for name in names):
        least = next(name for name in reversed(names) if name in given)
        parts = {
            "millisecond": rest // 1_000_000,
            "microsecond": rest // 1000 % 1000,
            "nanosecond": rest % 1000,
        }
        if least != "nanosecond":
            parts["nanosecond"] = 0
        if least == "millisecond":
            parts["microsecond"] = 0
        if _number(given, least, 0) >= 1000:  # it says what is above it, too
            parts = dict.fromkeys(names, 0)
        found = {name: _number(given, name, parts[name]) for name in names}
        rest = found["millisecond"] * 1_000_000 + found["microsecond"] * 1000 + found["nanosecond"]
    return time_of(
        _number(given, "hour", seconds // 3600),
        _number(given, "minute", seconds // 60 % 60),
        _number(given, "second", seconds % 60),
        rest,
    )


def _check_order(given: dict[str, Any], names: tuple[str, ...]) -> None:
    """Raise `TemporalError` for a name without the one before it: {year, day} says no day."""
    missing = ""
    for name in names:
        if name not in given:
            missing = missing or name
        elif missing:
            raise TemporalError(f"{name} stands without {missing}")


# ---- making --------------------------------------------------------------------------------------------------


def _made(kind: type[Temporal], given: dict[str, Any]) -> Temporal:
    """Return the value of a kind that a map says."""
    allowed = set(_BASES)
    allowed |= _DAY_NAMES if kind in _HAS_DAY else set()
    allowed |= _TIME_NAMES if kind in _HAS_TIME else set()
    allowed |= {"timezone"} if kind in _HAS_ZONE else set()
    wrong = given.keys() - allowed
    if wrong:
        raise TemporalError(f"{kind.__name__} has no {', '.join(sorted(wrong))}")
    day_base = _base(given, "date", _HAS_DAY) if kind in _HAS_DAY else None
    time_base = _base(given, "time", _HAS_TIME) if kind in _HAS_TIME else None
    days = 0
    if kind in _HAS_DAY:
        if day_base is None:
            if "year" not in given:
                raise TemporalError("a day needs a year")
            _check_order(given, ("year", "month", "day") if "month" in given or "day" in given else ("year",))
        days = _day(given, None if day_base is None else local_of(day_base) // DAY)
    time = 0
    if kind in _HAS_TIME:
        if time_base is None:
            names = ("hour", "minute", "second")
            below = any(name in given for name in ("millisecond", "microsecond", "nanosecond"))
            if "hour" not in given and kind not in _HAS_DAY:
                raise TemporalError("a time needs an hour")
            _check_order({**given, **({"rest": 0} if below else {})}, (*names, "rest"))
        time = _time(given, 0 if time_base is None else local_of(time_base) % DAY)
    return _placed(kind, days, time, given.get("timezone"), time_base)


def _placed(kind: type[Temporal], days: int, time: int, zone: Any, base: Any) -> Temporal:
    """Return a day and a time in a time zone: that of the base, from which it is converted to one that is given."""
    if kind is Date:
        return Date(days)
    if kind is LocalTime:
        return LocalTime(time)
    if kind is LocalDateTime:
        return LocalDateTime(days * DAY + time)
    if zone is not None and not isinstance(zone, str):
        raise TemporalError(f"a time zone must be text, not {describe_value(zone)}")
    known = zone_of_value(base)
    if kind is Time:
        offset = offset_of(base) or 0
        if zone is None:
            return Time(time, offset)
        wanted = _offset_at(zone, days * DAY + time)
        return Time((time + (wanted - offset) * SECOND) % DAY if known else time, wanted)
    local = days * DAY + time
    if zone is None or not known:
        return _in_zone(local, zone or known or "Z")
    return in_zone(_in_zone(local, known).nanoseconds, zone)


def _offset_at(zone: str, local: int) -> int:
    return read_offset(zone) if zone[:1] in "+-Zz" else local_to_moment(local, zone).offset


def _in_zone(local: int, zone: str) -> DateTime:
    """Return the moment at which clocks in a zone say so."""
    if zone[:1] not in "+-Zz" or zone.startswith("Zulu"):
        return local_to_moment(local, zone)
    offset = read_offset(zone)
    return DateTime(local - offset * SECOND, offset)


def in_zone(nanoseconds: int, zone: str) -> DateTime:
    """Return a moment by the clocks of a zone: a name, or an offset."""
    if zone[:1] not in "+-Zz" or zone.startswith("Zulu"):
        return moment_in_zone(nanoseconds, zone)
    return DateTime(nanoseconds, read_offset(zone))


def _converted(kind: type[Temporal], value: Temporal) -> Temporal:
    """Return a value as another kind: what it has of it."""
    if isinstance(value, kind):
        return value
    if kind in _HAS_DAY and not isinstance(value, _HAS_DAY):
        raise TemporalError(f"{describe_value(value)} has no day")
    if kind in (LocalTime, Time) and not isinstance(value, _HAS_TIME):
        raise TemporalError(f"{describe_value(value)} has no time")
    days, time = divmod(local_of(value), DAY)
    return _placed(kind, days, time, None, value if isinstance(value, _HAS_ZONE) else None)


def _construct(name: str) -> Callable[..., Any]:
    kind = _KINDS[name]

    def make(now: int, given: Any = ...) -> Any:
        if given is ...:
            return _converted(kind, DateTime(now, 0))
        if given is None:
            return None
        if isinstance(given, str):
            return read(kind, given)
        if isinstance(given, dict):
            if given.keys() == {"timezone"}:
                return _converted(kind, in_zone(now, str(given["timezone"])))
            if any(value is None for value in given.values()):
                return None
            return _made(kind, given)
        if isinstance(given, TEMPORAL) and not isinstance(given, Duration):
            return _converted(kind, given)
        raise TemporalError(f"{name}() takes a map, text, or a date or time, not {describe_value(given)}")

    return make


def _now(name: str) -> Callable[..., Any]:
    """Return date.transaction() and the like: all of a query has one time."""

    def make(now: int, zone: Any = "Z") -> Any:
        return None if zone is None else _converted(_KINDS[name], in_zone(now, str(zone)))

    return make


def _duration(now: int, given: Any) -> Any:
    if given is None or isinstance(given, Duration):
        return given
    if isinstance(given, str):
        return read(Duration, given)
    if not isinstance(given, dict) or given.keys() - _DURATION_NAMES or not given:
        raise TemporalError(f"duration() takes text, or a map of {', '.join(sorted(_DURATION_NAMES))}")
    if any(value is None for value in given.values()):
        return None
    return duration_of({name: to_fraction(value) for name, value in given.items()})


def to_fraction(value: Any) -> Fraction:
    """Return a number exactly as it is written. Raise `TemporalError`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) > 1e30:
        raise TemporalError(f"{describe_value(value)} is not a number for a duration")
    return Fraction(value) if isinstance(value, int) else Fraction(repr(value))


def _from_epoch(now: int, seconds: Any, nanoseconds: Any = 0) -> Any:
    if seconds is None or nanoseconds is None:
        return None
    given = {"seconds": seconds, "nanoseconds": nanoseconds}
    return DateTime(_number(given, "seconds", 0) * SECOND + _number(given, "nanoseconds", 0), 0)


def _from_epoch_millis(now: int, milliseconds: Any) -> Any:
    return None if milliseconds is None else DateTime(_number({"ms": milliseconds}, "ms", 0) * 1_000_000, 0)


# ---- cutting off ------------------------------------------------------------------------------------------------

_DAY_UNITS: Final[dict[str, Callable[[dict[str, int], int], int]]] = {
    "millennium": lambda parts, days: date_of(parts["year"] // 1000 * 1000, 1, 1),
    "century": lambda parts, days: date_of(parts["year"] // 100 * 100, 1, 1),
    "decade": lambda parts, days: date_of(parts["year"] // 10 * 10, 1, 1),
    "year": lambda parts, days: date_of(parts["year"], 1, 1),
    "weekyear": lambda parts, days: week_date(week_of(days)[0], 1, 1),
    "quarter": lambda parts, days: quarter_date(parts["year"], parts["quarter"], 1),
    "month": lambda parts, days: date_of(parts["year"], parts["month"], 1),
    "week": lambda parts, days: days - (days + 3) % 7,
    "day": lambda parts, days: days,
}
_TIME_UNITS: Final = {
    "hour": 3600 * SECOND,
    "minute": 60 * SECOND,
    "second": SECOND,
    "millisecond": 1_000_000,
    "microsecond": 1000,
}


def _truncate(name: str) -> Callable[..., Any]:
    kind = _KINDS[name]

    def cut(now: int, unit: Any, value: Any = ..., given: Any = None) -> Any:
        value = _converted(kind, DateTime(now, 0)) if value is ... else value
        if unit is None or value is None:
            return None
        if not isinstance(value, TEMPORAL) or isinstance(value, Duration) or not isinstance(unit, str):
            raise TemporalError(
                f"{name}.truncate() takes a unit, and a date or a time, not {describe_value(value)}"
            )
        lower = unit.lower()
        days, time = divmod(local_of(value), DAY)
        if lower in _DAY_UNITS:
            if not isinstance(value, _HAS_DAY) and lower != "day":
                raise TemporalError(f"{describe_value(value)} has no {unit}")
            days, time = _DAY_UNITS[lower](day_parts(days), days), 0
        elif lower in _TIME_UNITS and kind is not Date and isinstance(value, _HAS_TIME):
            time -= time % _TIME_UNITS[lower]
        else:
            raise TemporalError(f"{name}.truncate() of {describe_value(value)} has no unit {unit!r}")
        if kind in _HAS_DAY and not isinstance(value, _HAS_DAY):
            raise TemporalError(f"{describe_value(value)} has no day")
        return _with_fields(kind, days, time, given or {}, value)

    return cut


def _with_fields(
    kind: type[Temporal], days: int, time: int, given: dict[str, Any], value: Temporal
) -> Temporal:
    """Return a day and a time with some parts as a map says: a time zone is put there, not converted to."""
    rest = {key: one for key, one in given.items() if key != "timezone"}
    if kind in _HAS_DAY and rest.keys() & _DAY_NAMES:
        days = _day(rest, days)
    if kind in _HAS_TIME and rest.keys() & _TIME_NAMES:
        time = _time(rest, time)
    zone = given.get("timezone") or zone_of_value(value) or None
    return _placed(kind, days, time, zone, None)


# ---- between -----------------------------------------------------------------------------------------------------


def _aligned(a: Any, b: Any) -> tuple[int, int, int, bool]:
    """Return both in one time zone: local nanoseconds of each, nanoseconds between them, whether both have a day."""
    for one in (a, b):
        if not isinstance(one, TEMPORAL) or isinstance(one, Duration):
            raise TemporalError(f"a duration is between dates and times, not {describe_value(one)}")
    dated = isinstance(a, _HAS_DAY) and isinstance(b, _HAS_DAY)
    first, second = local_of(a), local_of(b)
    if not dated:  # a time without a day is on the other's
        day = next((local_of(one) // DAY for one in (a, b) if isinstance(one, _HAS_DAY)), 0)
        first, second = first % DAY, second % DAY
    else:
        day = 0
    zones = [zone_of_value(one) for one in (a, b)]
    if isinstance(a, _HAS_ZONE) and isinstance(b, _HAS_ZONE):
        second += (_offset(a) - _offset(b)) * SECOND
        if isinstance(a, DateTime) and isinstance(b, DateTime) and dated:
            second = in_zone(b.nanoseconds, zones[0]).local
            return first, second, b.nanoseconds - a.nanoseconds, dated
        return first, second, second - first, dated
    zone = zones[0] or zones[1]
    if zone and not zone.startswith(("+", "-", "Z")):  # it may have gone forwards or back between them
        moments = [_in_zone(one + day * DAY, zone).nanoseconds for one in (first, second)]
        return first, second, moments[1] - moments[0], dated
    return first, second, second - first, dated


def _offset(value: Temporal) -> int:
    return offset_of(value) or 0


def _months_between(first: int, second: int) -> int:
    """Return the whole months from one local time to another, rounded towards 0."""
    (year, month, day), time = civil_of(first // DAY), first % DAY
    (other_year, other_month, other_day), other_time = civil_of(second // DAY), second % DAY
    months = (other_year - year) * 12 + other_month - month
    if months > 0 and (other_day, other_time) < (day, time):
        months -= 1
    elif months < 0 and (other_day, other_time) > (day, time):
        months += 1
    return months


def _truncated(number: int, by: int) -> int:
    return number // by if number >= 0 else -(-number // by)


def _between(now: int, a: Any, b: Any) -> Any:
    if a is None or b is None:
        return None
    first, second, passed, dated = _aligned(a, b)
    if not dated:
        return Duration(0, 0, passed)
    months = _months_between(first, second)
    middle = add_months(first // DAY, months) * DAY + first % DAY
    days = _truncated(second - middle, DAY)
    rest = second - middle - days * DAY
    if not months and not days:
        rest = passed
    return Duration(months, days, rest)


def _in_months(now: int, a: Any, b: Any) -> Any:
    if a is None or b is None:
        return None
    first, second, _, dated = _aligned(a, b)
    return Duration(_months_between(first, second)) if dated else Duration()


def _in_days(now: int, a: Any, b: Any) -> Any:
    if a is None or b is None:
        return None
    first, second, _, dated = _aligned(a, b)
    return Duration(0, _truncated(second - first, DAY)) if dated else Duration()


def _in_seconds(now: int, a: Any, b: Any) -> Any:
    return None if a is None or b is None else Duration(0, 0, _aligned(a, b)[2])


# ---- the table ---------------------------------------------------------------------------------------------------


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with what it gives checked, and what is wrong as a query's error."""

    def call(now: int, *given: Any) -> Any:
        try:
            found = function(now, *given)
            if found is not None:
                check(found)
            return found
        except TemporalError as error:
            raise QueryError(f"{name}(): {error}") from error

    return call


def _table() -> dict[str, tuple[Callable[..., Any], int, int]]:
    found: dict[str, tuple[Callable[..., Any], int, int]] = {"duration": (_duration, 1, 1)}
    for name in _KINDS:
        found[name] = (_construct(name), 0, 1)
        found[f"{name}.truncate"] = (_truncate(name), 1, 3)
        for clock in ("transaction", "statement", "realtime"):
            found[f"{name}.{clock}"] = (_now(name), 0, 1)
    found |= {
        "datetime.fromepoch": (_from_epoch, 1, 2),
        "datetime.fromepochmillis": (_from_epoch_millis, 1, 1),
        "duration.between": (_between, 2, 2),
        "duration.inmonths": (_in_months, 2, 2),
        "duration.indays": (_in_days, 2, 2),
        "duration.inseconds": (_in_seconds, 2, 2),
    }
    return {name: (_guarded(name, function), least, most) for name, (function, least, most) in found.items()}


#: Name -> (function of the query's time, nanoseconds after 1970, and its arguments; least and most of these).
TEMPORAL_FUNCTIONS: Final = _table()
