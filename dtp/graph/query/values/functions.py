"""Functions and aggregates of openCypher that are there. Each takes null for null, unless it says otherwise."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, Final

from dtp.crdt.temporal import TEMPORAL
from dtp.graph.query.errors import QueryError
from dtp.graph.query.lookup.columns import kind_of
from dtp.graph.query.values.semantics import (
    NodeRef,
    Path,
    Relation,
    describe_value,
    is_number,
    same_key,
    sort_key,
    text_of,
)

_Function = Callable[..., Any]
#: Letters that replace() gives at most: it makes more of a text at once than any other function.
_TEXT: Final = 1 << 26


def _of(name: str, types: Any, what: str, function: _Function) -> _Function:
    """Return `function` as a query calls it: null for null, `QueryError` for an argument of another type."""

    def call(*arguments: Any) -> Any:
        if any(argument is None for argument in arguments):
            return None
        wanted = types if isinstance(types, list) else [types]
        for argument, one in zip(arguments, wanted, strict=False):
            if not isinstance(argument, one) or (isinstance(argument, bool) and one is not object):
                raise QueryError(f"{name}() takes {what}, not {describe_value(argument)}")
        return function(*arguments)

    return call


def _substring(text: str, start: int, length: int | None = None) -> str:
    if start < 0 or (length is not None and length < 0):
        raise QueryError("substring() takes a start and a length of 0 or more")
    return text[start:] if length is None else text[start : start + length]


def _left(text: str, length: int) -> str:
    _check_length("left", length)
    return text[:length]


def _right(text: str, length: int) -> str:
    _check_length("right", length)
    return text[max(0, len(text) - length) :]


def _check_length(name: str, length: int) -> None:
    if length < 0:
        raise QueryError(f"{name}() takes a length of 0 or more")


def _replace(text: str, old: str, new: str) -> str:
    if len(text) + (text.count(old) * (len(new) - len(old))) > _TEXT:
        raise QueryError(f"replace() gives at most {_TEXT:,} letters")
    return text.replace(old, new)


def _range(start: int, end: int, step: int = 1) -> list[int]:
    if step == 0:
        raise QueryError("range() takes a step that isn't 0")
    count = max(0, (end - start) // step + 1)
    if count > 1 << 22:
        raise QueryError(f"range() gives at most {1 << 22:,} numbers")
    return list(range(start, end + (1 if step > 0 else -1), step))


def _to_integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return int(value)
    if is_number(value):
        return None if isinstance(value, float) and not math.isfinite(value) else int(value)
    if not isinstance(value, str):
        raise QueryError(f"toInteger() takes a number, text or a boolean, not {describe_value(value)}")
    try:
        return int(value) if _is_plain(value) else None
    except ValueError:
        number = _to_float(value)
        return None if number is None or not math.isfinite(number) else int(number)


def _to_float(value: Any) -> float | None:
    if is_number(value):
        return float(value)
    if not isinstance(value, str):
        raise QueryError(f"toFloat() takes a number or text, not {describe_value(value)}")
    try:
        return float(value) if _is_plain(value) else None
    except ValueError:
        return None


def _is_plain(text: str) -> bool:
    """Return whether text has nothing that only Python takes in a number: `_`, or digits of other scripts."""
    return text.isascii() and "_" not in text


def _to_boolean(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    raise QueryError(f"toBoolean() takes text or a boolean, not {describe_value(value)}")


def _to_text(value: Any) -> str:
    if isinstance(value, str | bool) or is_number(value):
        return text_of(value)
    if isinstance(value, TEMPORAL):
        return str(value)
    raise QueryError(
        f"toString() takes text, a number, a boolean, a date or a time, not {describe_value(value)}"
    )


def _round(value: float) -> float:
    return float(math.floor(value + 0.5)) if math.isfinite(value) else value


def _sqrt(value: float) -> float:
    return math.sqrt(value) if value >= 0 else math.nan


def _log(function: Callable[[float], float]) -> Callable[[float], float]:
    return lambda value: function(value) if value > 0 else (-math.inf if value == 0 else math.nan)


def _or_nan(function: Callable[[float], float]) -> Callable[[float], float]:
    """Return `function`, which gives NaN for what it isn't defined for, such as asin(2) and sin of infinity."""

    def call(value: float) -> float:
        try:
            return function(value)
        except ValueError:
            return math.nan

    return call


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _cotangent(value: float) -> float:
    tangent = math.tan(value)
    return 1 / tangent if tangent else math.copysign(math.inf, tangent)


def _size(value: Any) -> int:
    if isinstance(value, str | list):
        return len(value)
    raise QueryError(f"size() takes a list or text, not {describe_value(value)}")


def _length(value: Path) -> int:
    return len(value.relationships)


def _whole(function: Callable[[float], int]) -> Callable[[float], float]:
    return lambda value: float(function(value)) if math.isfinite(value) else value


_NUMBER: Final = (int, float)


def _simple() -> dict[str, tuple[_Function, int, int]]:
    """Return name -> (function, fewest and most arguments)."""
    found: dict[str, tuple[_Function, int, int]] = {}

    def have(name: str, types: Any, what: str, function: _Function, least: int = 1, most: int = 1) -> None:
        found[name.lower()] = (_of(name, types, what, function), least, most)

    text = "text"
    have("toLower", str, text, str.lower)
    have("toUpper", str, text, str.upper)
    have("trim", str, text, str.strip)
    have("lTrim", str, text, str.lstrip)
    have("rTrim", str, text, str.rstrip)
    have("replace", [str, str, str], "texts", _replace, 3, 3)
    have("split", [str, str], "texts", lambda a, b: a.split(b) if b else list(a), 2, 2)
    have("substring", [str, int, int], "text and whole numbers", _substring, 2, 3)
    have("left", [str, int], "text and a whole number", _left, 2, 2)
    have("right", [str, int], "text and a whole number", _right, 2, 2)
    have("reverse", (str, list), "text or a list", lambda value: value[::-1])
    have("size", object, "a list or text", _size)
    have("head", list, "a list", lambda items: items[0] if items else None)
    have("last", list, "a list", lambda items: items[-1] if items else None)
    have("tail", list, "a list", lambda items: items[1:])
    have("range", [int, int, int], "whole numbers", _range, 2, 3)
    have("abs", _NUMBER, "a number", abs)
    have("sign", _NUMBER, "a number", lambda value: (value > 0) - (value < 0))
    have("ceil", _NUMBER, "a number", _whole(math.ceil))
    have("floor", _NUMBER, "a number", _whole(math.floor))
    have("round", _NUMBER, "a number", _round)
    have("sqrt", _NUMBER, "a number", _sqrt)
    have("exp", _NUMBER, "a number", _exp)
    have("log", _NUMBER, "a number", _log(math.log))
    have("log10", _NUMBER, "a number", _log(math.log10))
    for name in ("sin", "cos", "tan", "asin", "acos", "atan", "degrees", "radians"):
        have(name, _NUMBER, "a number", _or_nan(getattr(math, name)))
    have("cot", _NUMBER, "a number", _or_nan(_cotangent))
    have("atan2", [_NUMBER, _NUMBER], "numbers", math.atan2, 2, 2)
    have("pi", [], "nothing", lambda: math.pi, 0, 0)
    have("e", [], "nothing", lambda: math.e, 0, 0)
    have("rand", [], "nothing", random.random, 0, 0)
    have("nodes", Path, "a path", lambda path: list(path.nodes))
    have("relationships", Path, "a path", lambda path: list(path.relationships))
    have("length", Path, "a path", _length)
    have("id", (NodeRef, Relation), "a node", lambda one: one.soul)
    have("labels", NodeRef, "a node", lambda node: [kind] if (kind := kind_of(node.soul)) else [])
    have("type", Relation, "a relationship", lambda link: link.key)
    have("startNode", Relation, "a relationship", lambda link: NodeRef(link.soul))
    have("endNode", Relation, "a relationship", lambda link: NodeRef(link.target))
    for name, function in (
        ("toInteger", _to_integer),
        ("toFloat", _to_float),
        ("toBoolean", _to_boolean),
        ("toString", _to_text),
    ):
        have(name, object, "a value", function)
    found["coalesce"] = (lambda *given: next((one for one in given if one is not None), None), 1, 255)
    return found


FUNCTIONS: Final = _simple()
#: Those that read a node's properties: the evaluator has them.
READING: Final = frozenset({"properties", "keys", "exists"})


# ---- aggregates ----------------------------------------------------------------------------------------------


def _sum(found: list[Any]) -> Any:
    _only_numbers("sum", found)
    return sum(found)


def _only_numbers(name: str, found: Iterable[Any]) -> None:
    for value in found:
        if not is_number(value):
            raise QueryError(f"{name}() takes numbers, not {describe_value(value)}")


def _mean(found: list[Any]) -> float:
    try:
        return math.fsum(found) / len(found)
    except ValueError:  # infinities of both signs
        return math.nan
    except OverflowError:  # the sum is too large for a float, the mean isn't
        endless = [value for value in found if not math.isfinite(value)]
        return _mean(endless) if endless else float(sum(map(Fraction, found)) / len(found))


def _average(found: list[Any]) -> float | None:
    _only_numbers("avg", found)
    return _mean(found) if found else None


def _deviation(name: str, less: int, found: list[Any]) -> float:
    _only_numbers(name, found)
    if len(found) <= less:
        return 0.0
    middle = _mean(found)
    if not math.isfinite(middle):
        return math.nan
    return math.hypot(*(value - middle for value in found)) / math.sqrt(len(found) - less)


def percentile(name: str, found: list[Any], part: Any) -> Any:
    """Return what percentileDisc and percentileCont do, by `name`."""
    if not is_number(part) or not 0 <= part <= 1:
        raise QueryError(f"{name}() takes a part from 0.0 to 1.0, not {describe_value(part)}")
    _only_numbers(name, found)
    if not found:
        return None
    ordered = sorted(found)
    if name == "percentiledisc":
        return ordered[max(0, math.ceil(part * len(ordered)) - 1)]
    at = part * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (at - low))


#: Name -> what the values that aren't null come to.
AGGREGATES: Final[dict[str, Callable[[list[Any]], Any]]] = {
    "count": len,
    "sum": _sum,
    "avg": _average,
    "min": lambda found: min(found, key=sort_key, default=None),
    "max": lambda found: max(found, key=sort_key, default=None),
    "collect": list,
    "stdev": functools.partial(_deviation, "stDev", 1),
    "stdevp": functools.partial(_deviation, "stDevP", 0),
}
#: Those with a second argument, the same for all rows.
PERCENTILES: Final = frozenset({"percentiledisc", "percentilecont"})


def distinct(values: Iterable[Any]) -> list[Any]:
    """Return each value once, in the order in which they first come."""
    found: dict[Any, Any] = {}
    for value in values:
        found.setdefault(same_key(value), value)
    return list(found.values())
