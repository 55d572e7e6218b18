"""Abstract sizes of values, types and their names, by which gas is counted: not their bytes in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dtp.localnet.vm.types import INTEGER_BITS, Type

__all__ = [
    "PRIMITIVE_SIZE",
    "REFERENCE_SIZE",
    "STRUCT_SIZE",
    "TAG_SIZE",
    "VECTOR_SIZE",
    "packed_element_size",
    "sizer",
    "static_size",
    "tag_size",
    "type_size",
]

Sizer = Callable[[Any], int]

PRIMITIVE_SIZE: Final = 1
"""What an instruction costs that makes a number, boolean or address, whatever its width. The value itself has the
size in `_FIXED`."""
REFERENCE_SIZE: Final = 8
STRUCT_SIZE: Final = 2
VECTOR_SIZE: Final = 8
"""What making a vector costs. The vector itself has `STRUCT_SIZE` and the sizes of its elements."""

TAG_SIZE: Final = 16
"""The size of a type argument, and of a type that need not be a datatype, besides its name."""
_ADDRESS_SIZE: Final = 32
_FIXED: Final = {
    **dict.fromkeys(("bool", *INTEGER_BITS), 8),
    "u128": 16,
    "u256": 32,
    "address": _ADDRESS_SIZE,
    "signer": _ADDRESS_SIZE,
    "&": REFERENCE_SIZE,
    "&mut": REFERENCE_SIZE,
}


def static_size(type: Type) -> int | None:
    """Return the size of every value of `type` if it is always the same, else None."""
    if type.kind == "struct":
        if "static_size" not in type.operations:
            sizes = [static_size(field) for field in type.fields]
            whole = None if None in sizes else STRUCT_SIZE + sum(size or 0 for size in sizes)
            type.operations["static_size"] = whole
        found: int | None = type.operations["static_size"]
        return found
    return _FIXED.get(type.kind)


def sizer(type: Type) -> Sizer:
    """Return a function that gives the size of data of `type`."""
    found = type.operations.get("size")
    if found is None:
        found = type.operations["size"] = _make_sizer(type)
    return found


def _make_sizer(type: Type) -> Sizer:
    fixed = static_size(type)
    if fixed is not None:
        return lambda _: fixed
    if type.kind == "vector":
        packed = packed_element_size(type.element)
        if packed is None:
            packed = static_size(type.element)
        if packed is not None:
            return lambda data: STRUCT_SIZE + packed * len(data)
        inner = sizer(type.element)
        return lambda data: STRUCT_SIZE + sum(map(inner, data))
    variants = [_fields_sizer(fields, int(type.kind == "enum")) for fields in type.variants]
    if type.kind == "struct":
        return variants[0]
    return lambda data: variants[data[0]](data)


def _fields_sizer(fields: tuple[Type, ...], skip: int) -> Sizer:
    fixed = STRUCT_SIZE + sum(static_size(f) or 0 for f in fields)
    varying = [(at, sizer(f)) for at, f in enumerate(fields, skip) if static_size(f) is None]
    return lambda data: fixed + sum(size(data[at]) for at, size in varying)


def packed_element_size(element: Type) -> int | None:
    """Return the bytes that an element takes in a vector of numbers, booleans or addresses; None for other
    elements."""
    if element.kind in INTEGER_BITS:
        return INTEGER_BITS[element.kind] // 8
    return {"bool": 1, "address": _ADDRESS_SIZE}.get(element.kind)


def type_size(type: Type) -> int:
    """Return the size of a type as natives count it: its parts, without what its fields are."""
    return 1 + sum(map(type_size, type.arguments)) if type.arguments else 1


def tag_size(type: Type) -> int:
    """Return the size of a datatype's name: address, module, name, and its type arguments; 0 of another type."""
    found = type.operations.get("tag_size")
    if found is None:
        datatype = type.datatype
        own = 0 if datatype is None else _ADDRESS_SIZE + len(datatype.module) + len(datatype.name)
        found = type.operations["tag_size"] = own + sum(TAG_SIZE + tag_size(each) for each in type.arguments)
    return found
