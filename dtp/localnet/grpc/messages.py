"""The message classes of `sui.rpc.v2`: those that pysui ships. The only file of the embedded node that imports pysui.

Loaded when the service starts, not when the package is imported.
"""

from __future__ import annotations

import datetime
from functools import cache
from types import SimpleNamespace
from typing import Any

#: The last millisecond of the year 9999.
_LAST_MS = 253_402_300_799_999
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@cache
def library() -> SimpleNamespace:
    """Return `v2` (messages), `protobuf` and `rpc` (Google's), as modules."""
    from pysui.sui.sui_grpc.suimsgs.google import protobuf, rpc
    from pysui.sui.sui_grpc.suimsgs.sui.rpc import v2

    return SimpleNamespace(v2=v2, protobuf=protobuf, rpc=rpc)


def timestamp(ms: int) -> datetime.datetime:
    """Return Unix ms as messages carry times, which end with the year 9999: later ones become that."""
    return _EPOCH + datetime.timedelta(milliseconds=min(ms, _LAST_MS))


def milliseconds(moment: datetime.datetime) -> int:
    """Return the reverse."""
    return (moment - _EPOCH) // datetime.timedelta(milliseconds=1)


def value(content: object) -> Any:
    """Return a JSON value as `google.protobuf.Value`."""
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
    raise TypeError(f"{type(content).__name__} is not JSON")
