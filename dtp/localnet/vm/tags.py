"""A type's names and BCS as the chain writes them."""

from __future__ import annotations

from dtp.localnet.vm.types import Type
from dtp.sui.names import TYPE_TAG, TypeTag

__all__ = ["make_tag", "plain_name", "tag_bcs"]


def plain_name(type: Type, original: bool = False) -> str:
    """Return a type as `std::type_name` writes it: addresses as 64 hex digits without `0x`."""
    if type.kind == "vector":
        return f"vector<{plain_name(type.element, original)}>"
    datatype = type.datatype
    if datatype is None:
        return type.kind
    package = datatype.original_package if original else datatype.package
    inner = ",".join(plain_name(a, original) for a in type.arguments)
    return f"{package.hex()}::{datatype.module}::{datatype.name}{f'<{inner}>' if inner else ''}"


def tag_bcs(type: Type) -> bytes:
    """Return BCS of the type as a `TypeTag`."""
    found = type.operations.get("tag_bcs")
    if found is None:
        found = type.operations["tag_bcs"] = TYPE_TAG.encode(make_tag(type))
    return found


def make_tag(type: Type) -> TypeTag:
    """Return the type as a tag."""
    if type.kind == "vector":
        return TypeTag("vector", (make_tag(type.element),))
    datatype = type.datatype
    if datatype is None:
        return TypeTag(type.kind)
    arguments = tuple(make_tag(each) for each in type.arguments)
    return TypeTag(datatype.name, arguments, datatype.package, datatype.module)
