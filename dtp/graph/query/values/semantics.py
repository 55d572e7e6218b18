"""What openCypher says of values: equality and order with three outcomes, the order of ORDER BY, arithmetic.

Values are those of a graph (`dtp.crdt.values`), and nodes, relationships and paths. None is null, and an outcome of
None is "unknown".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from reprlib import Repr
from typing import Any, Final, NamedTuple

from dtp.crdt import BlobRef, Link
from dtp.crdt.temporal import (
    Date,
    DateTime,
    Duration,
    LocalDateTime,
    LocalTime,
    TemporalError,
    Time,
)
from dtp.graph.query.budget import count_items
from dtp.graph.query.errors import QueryError
from dtp.graph.query.values.temporal_parts import add_temporal as add_duration
from dtp.graph.query.values.temporal_parts import scale_duration, sort_parts

#: Bits of an int that is multiplied, at most: those that Python writes as text.
_INT_BITS: Final = 14_000
#: How values stand in messages: short, however many levels they have.
_repr = Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 80


@dataclass(slots=True, unsafe_hash=True)  # frozen ones take three times as long to make, and each row has one
class NodeRef:
    """A node, while a query runs. Never changed."""

    soul: str


class Relation(NamedTuple):
    """A relationship in a result."""

    soul: str
    key: str
    target: str


@dataclass(frozen=True, slots=True)
class Path:
    """A path in a result: its nodes, and the relationships between them. In results the nodes are `Node`."""

    nodes: tuple[Any, ...]
    relationships: tuple[Relation, ...]


#: Order of kinds under ORDER BY (openCypher 9, "Orderability and Equivalence"), ascending; null is last.
_MAP, _NODE, _RELATION, _LIST, _PATH, _TEMPORAL = range(6)
_TEXT, _BOOL, _NUMBER, _BYTES, _BLOB, _NULL = range(_TEMPORAL + 6, _TEMPORAL + 12)
#: Of dates and times in the order of their kinds; what is a duration can't be compared, since a month has no length.
_TIMES: Final = (DateTime, LocalDateTime, Date, Time, LocalTime)
_DURATION: Final = _TEMPORAL + len(_TIMES)


def kind_of(value: Any) -> int:
    """Return what kind of value it is, as ORDER BY sorts kinds."""
    known = _PLAIN_KINDS.get(type(value))
    if known is not None:
        return known
    for kind, types in _KINDS:
        if isinstance(value, types):
            return kind
    return _MAP


_KINDS: Final[tuple[tuple[int, Any], ...]] = (
    (_NULL, type(None)),
    (_BOOL, bool),
    (_NUMBER, (int, float)),
    (_TEXT, str),
    (_NODE, (NodeRef, Link)),
    (_RELATION, Relation),
    (_PATH, Path),
    (_LIST, (list, tuple)),
    (_BYTES, bytes),
    (_BLOB, BlobRef),
    *((_TEMPORAL + at, kind) for at, kind in enumerate(_TIMES)),
    (_DURATION, Duration),
)


#: The same of the types that most values have.
_PLAIN_KINDS: Final[dict[Any, int]] = {
    type(None): _NULL,
    bool: _BOOL,
    int: _NUMBER,
    float: _NUMBER,
    str: _TEXT,
    NodeRef: _NODE,
    list: _LIST,
}


def _soul(value: Any) -> str:
    return str(value.soul)


def equals(a: Any, b: Any) -> bool | None:
    """Return whether they are equal; None when that can't be known."""
    if a is None or b is None:
        return None
    kind = kind_of(a)
    if kind != kind_of(b):
        return False
    if kind == _LIST:
        if len(a) != len(b):
            return False
        return all_of(equals(x, y) for x, y in count_items(zip(a, b, strict=True)))
    if kind == _MAP:
        if a.keys() != b.keys():
            return False
        return all_of(equals(a[key], b[key]) for key in count_items(a))
    if kind == _NODE:
        return _soul(a) == _soul(b)
    return bool(a == b)


def all_of(outcomes: Any) -> bool | None:
    """Return AND over outcomes: None if one that isn't known decides."""
    unknown = False
    for outcome in outcomes:
        if outcome is False:
            return False
        unknown |= outcome is None
    return None if unknown else True


def any_of(outcomes: Any) -> bool | None:
    """Return OR over outcomes: None if one that isn't known decides."""
    unknown = False
    for outcome in outcomes:
        if outcome is True:
            return True
        unknown |= outcome is None
    return None if unknown else False


def compare(a: Any, b: Any) -> int | None:
    """Return below 0, 0 or above 0 for a before, with or after b; None if they can't be compared. Not for NaN."""
    if a is None or b is None:
        return None
    kind = kind_of(a)
    if kind == kind_of(b) and _TEMPORAL <= kind < _DURATION:
        before, behind = sort_parts(a), sort_parts(b)
        return (before > behind) - (before < behind)
    if kind != kind_of(b) or kind not in (_TEXT, _BOOL, _NUMBER, _BYTES, _LIST):
        return None
    if kind == _LIST:
        for x, y in zip(a, b, strict=False):
            one = compare(x, y)
            if one != 0:
                return one
        return (len(a) > len(b)) - (len(a) < len(b))
    return int(a > b) - int(a < b)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


_HOLDS: Final[dict[str, Callable[[int], bool]]] = {
    "<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
    ">": lambda order: order > 0,
    ">=": lambda order: order >= 0,
}


def compare_by(a: Any, operator: str, b: Any) -> bool | None:
    """Return the outcome of a comparison: `=`, `<>`, `<`, `<=`, `>`, `>=`."""
    if operator == "=":
        return equals(a, b)
    if operator == "<>":
        same = equals(a, b)
        return None if same is None else not same
    if _is_nan(a) or _is_nan(b):
        return False if kind_of(a) == kind_of(b) == _NUMBER else None
    order = compare(a, b)
    return None if order is None else _HOLDS[operator](order)


def sort_key(value: Any) -> tuple[Any, ...]:
    """Return what ORDER BY sorts by: total, over all kinds."""
    if type(value) is str:  # mostly
        return (_TEXT, value)
    kind = kind_of(value)
    if kind == _NUMBER:
        return (kind, _is_nan(value), 0 if _is_nan(value) else value)
    if kind == _LIST:
        return (kind, tuple(sort_key(item) for item in count_items(value)))
    if kind == _MAP:
        return (kind, tuple((key, sort_key(value[key])) for key in count_items(sorted(value))))
    if kind == _NODE:
        return (kind, _soul(value))
    if kind == _PATH:
        return (kind, tuple(node.soul for node in value.nodes), value.relationships)
    if kind == _BLOB:
        return (kind, value.id, value.size)
    if _TEMPORAL <= kind <= _DURATION:
        return (kind, *sort_parts(value))
    return (kind,) if kind == _NULL else (kind, value)


def same_key(value: Any) -> tuple[Any, ...]:
    """Return a hashable key, the same for values that DISTINCT and grouping take for one: null is null, 1 is 1.0."""
    return sort_key(value)


def to_truth(value: Any) -> bool | None:
    """Return a condition's outcome. Raises `QueryError` for any other value."""
    if value is None or isinstance(value, bool):
        return value
    raise QueryError(f"a condition is true, false or null, not {describe_value(value)}")


def describe_value(value: Any) -> str:
    """Return a value as messages of errors show it."""
    text = _repr.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---- arithmetic ----------------------------------------------------------------------------------------------


def is_number(value: Any) -> bool:
    """Return whether it is an int or a float, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(a: Any, b: Any, what: str) -> None:
    if not (is_number(a) and is_number(b)):
        raise QueryError(f"{what} takes numbers, not {describe_value(a)} and {describe_value(b)}")


def add(a: Any, b: Any) -> Any:
    """Return a + b: numbers are added, texts joined (also with numbers), lists joined or made longer."""
    if a is None or b is None:
        return None
    if isinstance(a, list) or isinstance(b, list):
        return (a if isinstance(a, list) else [a]) + (b if isinstance(b, list) else [b])
    if isinstance(a, str) and (isinstance(b, str) or is_number(b)):
        return a + text_of(b)
    if isinstance(b, str) and is_number(a):
        return text_of(a) + b
    if isinstance(a, Duration) or isinstance(b, Duration):
        return _moved(a, b, "+")
    _numbers(a, b, "+")
    return a + b


def _moved(a: Any, b: Any, operator: str) -> Any:
    """Return a date, a time or a duration and a duration, added or subtracted."""
    try:
        found = add_duration(a, b, 1 if operator == "+" else -1)
    except TemporalError as error:
        raise QueryError(str(error)) from error
    if found is None:
        raise QueryError(f"{operator} takes no {describe_value(a)} and {describe_value(b)}")
    return found


def _times(a: Any, b: Any, operator: str) -> Any:
    """Return a duration so many times, or parts of one."""
    if operator == "*" and isinstance(b, Duration):
        a, b = b, a
    if not isinstance(a, Duration) or not is_number(b) or not math.isfinite(b):
        raise QueryError(
            f"{operator} takes a duration and a number, not {describe_value(a)} and {describe_value(b)}"
        )
    if operator == "/" and b == 0:
        raise QueryError("a duration can't be divided by 0")
    by = Fraction(b) if isinstance(b, int) else Fraction(repr(b))
    try:
        return scale_duration(a, by if operator == "*" else 1 / by)
    except TemporalError as error:
        raise QueryError(str(error)) from error


def subtract(a: Any, b: Any) -> Any:
    """Return a - b."""
    if a is None or b is None:
        return None
    if isinstance(b, Duration):
        return _moved(a, b, "-")
    _numbers(a, b, "-")
    return a - b


def multiply(a: Any, b: Any) -> Any:
    """Return a * b."""
    if a is None or b is None:
        return None
    if isinstance(a, Duration) or isinstance(b, Duration):
        return _times(a, b, "*")
    _numbers(a, b, "*")
    if isinstance(a, int) and isinstance(b, int) and a.bit_length() + b.bit_length() > _INT_BITS:
        raise QueryError(f"an int has at most {_INT_BITS:,} bits")
    return a * b


def divide(a: Any, b: Any) -> Any:
    """Return a / b; of ints rounded towards zero."""
    if a is None or b is None:
        return None
    if isinstance(a, Duration):
        return _times(a, b, "/")
    _numbers(a, b, "/")
    if isinstance(a, int) and isinstance(b, int):
        if b == 0:
            raise QueryError("an int can't be divided by 0")
        whole = abs(a) // abs(b)
        return whole if (a < 0) == (b < 0) else -whole
    if b == 0:
        return math.nan if a == 0 or _is_nan(a) else math.copysign(math.inf, a) * math.copysign(1, b)
    return a / b


def modulo(a: Any, b: Any) -> Any:
    """Return the rest of a / b, with the sign of a."""
    if a is None or b is None:
        return None
    _numbers(a, b, "%")
    if isinstance(a, int) and isinstance(b, int):
        if b == 0:
            raise QueryError("an int can't be divided by 0")
        return abs(a) % abs(b) * (-1 if a < 0 else 1)
    return math.nan if b == 0 or math.isinf(a) else math.fmod(a, b)


def power(a: Any, b: Any) -> Any:
    """Return a to the power of b, a float."""
    if a is None or b is None:
        return None
    _numbers(a, b, "^")
    try:
        found = float(a) ** float(b)
    except ZeroDivisionError:
        return math.inf
    except OverflowError:
        return math.inf
    return math.nan if isinstance(found, complex) else found


def text_of(value: Any) -> str:
    """Return a scalar as text, as openCypher writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
    return str(value)
