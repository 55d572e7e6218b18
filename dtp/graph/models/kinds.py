"""What values fields of models have: annotations of Python, and what is kept of them in a graph."""

from __future__ import annotations

import datetime
import enum
import types
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, Union, get_args, get_origin

from dtp.crdt import BlobRef, Duration, Value
from dtp.errors import LocalError
from dtp.graph.errors import GraphError


class ModelError(GraphError):
    """A model is declared in a way it can't be; the message names the field."""

    code = "graph-model"


class ModelMismatch(LocalError, ValueError):
    """A value doesn't fit its field: one to be written, or one that somebody else wrote. `value` is what is there."""

    code = "graph-model-mismatch"

    def __init__(self, soul: str, field: str, value: Value, why: str) -> None:
        super().__init__(f"{field!r}{f' of {soul!r}' if soul else ''} {why}")
        #: Of the node; "" where it is in no graph yet.
        self.soul = soul
        #: The field's name.
        self.field = field
        self.value = value
        self.why = why


class Unfit(Exception):
    """A value doesn't fit; the text says why."""


class FieldKind(NamedTuple):
    """How a type is kept: `write` gives what is kept of a value, `read` the value; both raise `Unfit`."""

    name: str
    write: Callable[[Any], Value]
    read: Callable[[Value], Any]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _unfit(value: object, name: str) -> Unfit:
    return Unfit(f"is {_shown(value)}, and has to be {name}")


def _exactly(kind: type, name: str) -> FieldKind:
    def same(value: Any) -> Any:
        if type(value) is not kind:  # True is not an int, and a datetime no date
            raise _unfit(value, name)
        return value

    return FieldKind(name, same, same)


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unfit(value, "a number")
    try:
        return float(value)
    except OverflowError as error:
        raise _unfit(value, "a number within a float's range") from error


_PLAIN: Final[dict[Any, FieldKind]] = {
    bool: _exactly(bool, "True or False"),
    int: _exactly(int, "an int"),
    float: FieldKind("a number", _float, _float),
    str: _exactly(str, "text"),
    bytes: _exactly(bytes, "bytes"),
    BlobRef: _exactly(BlobRef, "a blob"),
    datetime.datetime: _exactly(datetime.datetime, "a date with a time"),
    datetime.date: _exactly(datetime.date, "a date"),
    datetime.time: _exactly(datetime.time, "a time"),
    Duration: _exactly(Duration, "a duration"),
    types.NoneType: _exactly(types.NoneType, "None"),
    Any: FieldKind("anything", lambda value: value, lambda value: value),
}


def _enum(kind: type[enum.Enum]) -> FieldKind:
    name = "one of " + ", ".join(_shown(one.value) for one in kind)

    def write(value: Any) -> Value:
        if not isinstance(value, kind):
            raise _unfit(value, name)
        return value.value

    def read(value: Value) -> enum.Enum:
        found = next((one for one in kind if one.value == value and type(one.value) is type(value)), None)
        if found is None:
            raise _unfit(value, name)
        return found

    return FieldKind(name, write, read)


def _literal(allowed: tuple[Any, ...]) -> FieldKind:
    name = "one of " + ", ".join(map(_shown, allowed))

    def same(value: Any) -> Any:
        if not any(type(value) is type(one) and value == one for one in allowed):
            raise _unfit(value, name)
        return value

    return FieldKind(name, same, same)


def _union(kinds: list[FieldKind]) -> FieldKind:
    name = " or ".join(one.name for one in kinds)

    def first(which: Literal["write", "read"]) -> Callable[[Any], Any]:
        def convert(value: Any) -> Any:
            for one in kinds:
                try:
                    return getattr(one, which)(value)
                except Unfit:
                    continue
            raise _unfit(value, name)

        return convert

    return FieldKind(name, first("write"), first("read"))


def _list(kind: FieldKind) -> FieldKind:
    name = f"a list, each {kind.name}"

    def each(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def convert_all(value: Any) -> list[Any]:
            if not isinstance(value, list):
                raise _unfit(value, name)
            return [convert(one) for one in value]

        return convert_all

    return FieldKind(name, each(kind.write), each(kind.read))


def _dict(kind: FieldKind) -> FieldKind:
    name = f"a dict of text to values, each {kind.name}"

    def each(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def convert_all(value: Any) -> dict[str, Any]:
            if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
                raise _unfit(value, name)
            return {key: convert(one) for key, one in value.items()}

        return convert_all

    return FieldKind(name, each(kind.write), each(kind.read))


def kind_of(annotation: Any) -> FieldKind:
    """Return how a type is kept. Raise `ModelError` for one that can't be."""
    try:
        if annotation in _PLAIN:
            return _PLAIN[annotation]
    except TypeError:  # it has no hash, so it isn't one of them
        pass
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _union([kind_of(one) for one in arguments])
    if origin is Literal:
        return _literal(arguments)
    if origin is list:
        return _list(kind_of(arguments[0]))
    if origin is dict and arguments[0] is str:
        return _dict(kind_of(arguments[1]))
    if annotation is list:
        return _list(_PLAIN[Any])
    if annotation is dict:
        return _dict(_PLAIN[Any])
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _enum(annotation)
    raise ModelError(
        f"{annotation!r} can't be kept; take bool, int, float, str, bytes, BlobRef, datetime, date, time, Duration, "
        "an Enum, a Literal, list[...], dict[str, ...] of such, or | None"
    )
