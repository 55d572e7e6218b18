"""Abstract sizes: what gas counts of values, types and their names, which is not bytes of memory.

Instructions and natives measure values differently in the modelled version: to an instruction every number and
boolean is 16, to a native what its width says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dtp.localnet.vm.types import INTEGER_BITS, Type

__all__ = [
    "INSTRUCTIONS",
    "NATIVES",
    "PRIMITIVE_SIZE",
    "REFERENCE_SIZE",
    "STRUCT_SIZE",
    "TAG_SIZE",
    "VECTOR_SIZE",
    "Measure",
    "packed_element_size",
    "tag_size",
    "type_size",
]

Sizer = Callable[[Any], int]

PRIMITIVE_SIZE: Final = 1
"""What an instruction counts that makes a number, boolean or address, whatever its width."""
REFERENCE_SIZE: Final = 8
STRUCT_SIZE: Final = 2
VECTOR_SIZE: Final = 8
"""What making a vector counts; one that is there has `STRUCT_SIZE` and its elements."""

TAG_SIZE: Final = 16
"""What a type counts as a type argument, or where it need not be a datatype, besides its name."""
_ADDRESS_SIZE: Final = 32


@dataclass(frozen=True, eq=False)
class Measure:
    """One way to measure values: `numbers` has the size of each primitive, `key` is where types keep what is made."""

    key: str
    numbers: Mapping[str, int]

    def static(self, type: Type) -> int | None:
        """Return the size of every value of `type` if it is always the same, else None."""
        if type.kind == "struct":
            key = f"{self.key}_static"
            if key not in type.operations:
                sizes = [self.static(field) for field in type.fields]
                whole = None if None in sizes else STRUCT_SIZE + sum(size or 0 for size in sizes)
                type.operations[key] = whole
            found: int | None = type.operations[key]
            return found
        return self.numbers.get(type.kind)

    def of(self, type: Type) -> Sizer:
        """Return a function that gives the size of data of `type`."""
        found = type.operations.get(self.key)
        if found is None:
            found = type.operations[self.key] = self._make(type)
        return found

    def _make(self, type: Type) -> Sizer:
        fixed = self.static(type)
        if fixed is not None:
            return lambda _: fixed
        if type.kind == "vector":
            packed = packed_element_size(type.element)
            if packed is None:
                packed = self.static(type.element)
            if packed is not None:
                return lambda data: STRUCT_SIZE + packed * len(data)
            inner = self.of(type.element)
            return lambda data: STRUCT_SIZE + sum(map(inner, data))
        variants = [self._fields(fields, int(type.kind == "enum")) for fields in type.variants]
        if type.kind == "struct":
            return variants[0]
        return lambda data: variants[data[0]](data)

    def _fields(self, fields: tuple[Type, ...], skip: int) -> Sizer:
        fixed = STRUCT_SIZE + sum(self.static(f) or 0 for f in fields)
        varying = [(at, self.of(f)) for at, f in enumerate(fields, skip) if self.static(f) is None]
        return lambda data: fixed + sum(size(data[at]) for at, size in varying)


_ALIKE: Final = {
    "address": _ADDRESS_SIZE,
    "signer": _ADDRESS_SIZE,
    "&": REFERENCE_SIZE,
    "&mut": REFERENCE_SIZE,
}
INSTRUCTIONS: Final = Measure("size", dict.fromkeys(("bool", *INTEGER_BITS), 16) | _ALIKE)
NATIVES: Final = Measure(
    "native_size", dict.fromkeys(("bool", *INTEGER_BITS), 8) | {"u128": 16, "u256": 32} | _ALIKE
)


def packed_element_size(element: Type) -> int | None:
    """Bytes an element takes in a vector of numbers, booleans or addresses; None for other elements."""
    if element.kind in INTEGER_BITS:
        return INTEGER_BITS[element.kind] // 8
    return {"bool": 1, "address": _ADDRESS_SIZE}.get(element.kind)


def type_size(type: Type) -> int:
    """The size of a type as natives count it: its parts, without what its fields are."""
    return 1 + sum(map(type_size, type.arguments)) if type.arguments else 1


def tag_size(type: Type) -> int:
    """The size of a datatype's name: address, module, name, and its type arguments; 0 of another type."""
    found = type.operations.get("tag_size")
    if found is None:
        datatype = type.datatype
        own = 0 if datatype is None else _ADDRESS_SIZE + len(datatype.module) + len(datatype.name)
        found = type.operations["tag_size"] = own + sum(TAG_SIZE + tag_size(each) for each in type.arguments)
    return found
