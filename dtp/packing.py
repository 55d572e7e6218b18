"""MessagePack of what others have written: a value, or the named error of whoever reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from dtp.unicode import not_unicode

__all__ = ["pack", "unpack", "unpack_array"]


def pack(value: object) -> bytes:
    """Return `value` as MessagePack. Raise `TextNotUnicode`."""
    try:
        packed: bytes = msgpack.packb(value)
    except UnicodeEncodeError as error:
        raise not_unicode(error) from None
    return packed


def unpack(data: bytes, fault: Callable[[str], Exception], what: str, **options: Any) -> Any:
    """Return the value that these bytes are. Raise `fault`, which says that `what` is not MessagePack.

    `options` are those of `msgpack.unpackb`.
    """
    try:
        return msgpack.unpackb(data, **options)
    except (ValueError, TypeError, msgpack.UnpackException):
        # A StackError is a ValueError, and so is text that isn't UTF-8; a key that can't be one is a TypeError.
        raise fault(f"{what} is not MessagePack") from None


def unpack_array(
    data: bytes, fault: Callable[[str], Exception], what: str, *forms: tuple[Any, ...]
) -> list[Any]:
    """Return the array that these bytes are: of one of `forms`, which is a kind and the types of what follows it.

    Raise `fault`, which says that `what` is something else. True is no number.
    """
    parts = unpack(data, fault, what)
    if isinstance(parts, list) and parts and type(parts[0]) is int:
        for kind, *types in forms:
            if parts[0] == kind and [type(part) for part in parts[1:]] == types:
                return parts
    raise fault(f"{what} is of a kind that isn't expected here, or has other parts")
