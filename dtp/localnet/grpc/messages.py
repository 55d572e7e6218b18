"""The message classes of `sui.rpc.v2`: those that pysui ships. The only file of the embedded node that imports pysui.

Loaded when the service starts, not when the package is imported.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@cache
def library() -> SimpleNamespace:
    """`v2` (messages), `protobuf` and `rpc` (Google's), as modules."""
    from pysui.sui.sui_grpc.suimsgs.google import protobuf, rpc
    from pysui.sui.sui_grpc.suimsgs.sui.rpc import v2

    return SimpleNamespace(v2=v2, protobuf=protobuf, rpc=rpc)


def timestamp(ms: int) -> datetime.datetime:
    """Unix ms as messages carry times."""
    return _EPOCH + datetime.timedelta(milliseconds=ms)


def milliseconds(moment: datetime.datetime) -> int:
    """The reverse."""
    return (moment - _EPOCH) // datetime.timedelta(milliseconds=1)


def value(content: object) -> Any:
    """A JSON value as `google.protobuf.Value`."""
    protobuf = library().protobuf
    if content is None:
        return protobuf.Value(null_value=protobuf.NullValue.NULL_VALUE)
    if isinstance(content, bool):
        return protobuf.Value(bool_value=content)
    if isinstance(content, int | float):
        return protobuf.Value(number_value=float(content))
    if isinstance(content, str):
        return protobuf.Value(string_value=content)
    if isinstance(content, dict):
        fields = {str(key): value(each) for key, each in content.items()}
        return protobuf.Value(struct_value=protobuf.Struct(fields=fields))
    if isinstance(content, list | tuple):
        return protobuf.Value(list_value=protobuf.ListValue(values=[value(each) for each in content]))
    raise TypeError(f"{type(content).__name__} is no JSON")


def from_value(message: Any) -> Any:
    """A `google.protobuf.Value` as plain JSON; whole numbers come back as `int`."""
    if message.struct_value is not None:
        return {key: from_value(each) for key, each in message.struct_value.fields.items()}
    if message.list_value is not None:
        return [from_value(each) for each in message.list_value.values]
    if message.number_value is not None:
        number = message.number_value
        return int(number) if number.is_integer() else number
    for plain in (message.string_value, message.bool_value):
        if plain is not None:
            return plain
    return None


#: What a field of a scalar type holds. The library reads whatever is on the wire, also where it doesn't fit the type.
_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "bytes": (bytes,),
    "bool": (bool, int),
    "float": (float,),
    "double": (float,),
    "enum": (int,),
}
_RANGES: Mapping[str, tuple[int, int]] = {
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
}


def fault_in(message: Any) -> str:
    """The first field of a received message, at any depth, that holds what its type can't; empty if none does."""
    for name, kind, repeated in _layout(message.__class__):
        found = getattr(message, name)
        if found is None:
            continue
        if repeated and not isinstance(found, list):
            return name
        for each in found if repeated else (found,):
            if kind == "message" and hasattr(each, "SerializeToString"):
                inner = fault_in(each)
                if inner:
                    return f"{name}.{inner}"
            elif not _fits(kind, each):
                return name
    return ""


def _fits(kind: str, found: object) -> bool:
    if kind in _RANGES:
        low, high = _RANGES[kind]
        return isinstance(found, int) and low <= found <= high
    if kind in _PYTHON_TYPES:
        return isinstance(found, _PYTHON_TYPES[kind])
    if kind == "message":  # times come as Python's own
        return isinstance(found, datetime.datetime | datetime.timedelta)
    return kind == "map" and isinstance(found, dict)


@cache
def _layout(message: Any) -> tuple[tuple[str, str, bool], ...]:
    """Name, type and whether it is repeated, of each field of a message class."""
    found = ((each.name, each.metadata["betterproto"]) for each in dataclasses.fields(message))
    return tuple((name, meta.proto_type, bool(meta.repeated)) for name, meta in found)
