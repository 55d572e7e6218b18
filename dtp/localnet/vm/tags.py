"""Type tags: text to its parts, and a type's names and BCS as the chain writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dtp.localnet.vm.types import MAX_TYPE_DEPTH, Type
from dtp.localnet.vm.values import uleb128

__all__ = ["BadTag", "Tag", "parse", "plain_name", "tag_bcs"]

_PRIMITIVES = frozenset({"bool", "u8", "u16", "u32", "u64", "u128", "u256", "address", "signer"})
_TOKEN = re.compile(r"\s*(0x[0-9a-fA-F]{1,64}|[A-Za-z_][A-Za-z0-9_]*|::|[<>,])\s*")
_TAG_NUMBERS = {
    "bool": 0,
    "u8": 1,
    "u64": 2,
    "u128": 3,
    "address": 4,
    "signer": 5,
    "u16": 8,
    "u32": 9,
    "u256": 10,
}
_VECTOR_NUMBER = 6
_STRUCT_NUMBER = 7


class BadTag(Exception):
    """Text is not a type tag."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A parsed tag: a primitive's name, or `vector`, or a datatype with `address` and `module`."""

    name: str
    arguments: tuple[Tag, ...] = ()
    address: bytes = b""
    module: str = ""


def parse(text: str) -> Tag:
    """Parse `0x2::coin::Coin<0x2::sui::SUI>` and the like. Raises `BadTag`."""
    tokens: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise BadTag(f"{text!r} is not a type: unexpected character at {at}")
        tokens.append(match[1])
        at = match.end()
    tokens.reverse()
    tag = _parse(tokens, text, 1)
    if tokens:
        raise BadTag(f"{text!r} is not a type: {tokens[-1]!r} follows its end")
    return tag


def _parse(tokens: list[str], text: str, depth: int) -> Tag:
    if depth > MAX_TYPE_DEPTH:
        raise BadTag(f"{text!r} is nested over {MAX_TYPE_DEPTH} deep")
    head = _take(tokens, text)
    if head in _PRIMITIVES:
        return Tag(head)
    if head == "vector":
        arguments = _parse_arguments(tokens, text, depth)
        if len(arguments) != 1:
            raise BadTag(f"{text!r} is not a type: vector takes one type argument")
        return Tag("vector", arguments)
    if not head.startswith("0x"):
        raise BadTag(f"{text!r} is not a type: {head!r} is neither a primitive nor an address")
    _expect(tokens, text, "::")
    module = _take(tokens, text)
    _expect(tokens, text, "::")
    name = _take(tokens, text)
    if not (module.isidentifier() and name.isidentifier()):
        raise BadTag(f"{text!r} is not a type: {module!r} or {name!r} is not a name")
    return Tag(name, _parse_arguments(tokens, text, depth), bytes.fromhex(head[2:].zfill(64)), module)


def _parse_arguments(tokens: list[str], text: str, depth: int) -> tuple[Tag, ...]:
    if not tokens or tokens[-1] != "<":
        return ()
    tokens.pop()
    arguments = [_parse(tokens, text, depth + 1)]
    while tokens and tokens[-1] == ",":
        tokens.pop()
        arguments.append(_parse(tokens, text, depth + 1))
    _expect(tokens, text, ">")
    return tuple(arguments)


def _take(tokens: list[str], text: str) -> str:
    if not tokens:
        raise BadTag(f"{text!r} is not a type: it ends too early")
    return tokens.pop()


def _expect(tokens: list[str], text: str, wanted: str) -> None:
    found = _take(tokens, text)
    if found != wanted:
        raise BadTag(f"{text!r} is not a type: {wanted!r} expected, got {found!r}")


def plain_name(type: Type, original: bool = False) -> str:
    """A type as `std::type_name` writes it: addresses as 64 hex digits without `0x`."""
    if type.kind == "vector":
        return f"vector<{plain_name(type.element, original)}>"
    datatype = type.datatype
    if datatype is None:
        return type.kind
    package = datatype.original_package if original else datatype.package
    inner = ",".join(plain_name(a, original) for a in type.arguments)
    return f"{package.hex()}::{datatype.module}::{datatype.name}{f'<{inner}>' if inner else ''}"


def tag_bcs(type: Type) -> bytes:
    """BCS of the type as a `TypeTag`."""
    found = type.operations.get("tag_bcs")
    if found is None:
        found = type.operations["tag_bcs"] = _tag_bcs(type)
    return found


def _tag_bcs(type: Type) -> bytes:
    if type.kind == "vector":
        return bytes((_VECTOR_NUMBER,)) + tag_bcs(type.element)
    datatype = type.datatype
    if datatype is None:
        return bytes((_TAG_NUMBERS[type.kind],))
    module, name = datatype.module.encode(), datatype.name.encode()
    return b"".join(
        (
            bytes((_STRUCT_NUMBER,)),
            datatype.package,
            uleb128(len(module)),
            module,
            uleb128(len(name)),
            name,
            uleb128(len(type.arguments)),
            *map(tag_bcs, type.arguments),
        )
    )
