"""What can be done with data of a type: copy it, write it as BCS, read it from BCS.

Each operation is made once per `Type` as a closure and kept in `Type.operations`; `copier(type)(data)` and the like
then cost no look-up of what the type is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dtp.localnet.vm.types import INTEGER_BITS, Type
from dtp.sui.bcs import uleb128

__all__ = [
    "BadBcs",
    "Copier",
    "Decoder",
    "Encoder",
    "copier",
    "decode",
    "decoder",
    "encode",
    "encoder",
]

Copier = Callable[[Any], Any]
Encoder = Callable[[Any, bytearray], None]
Decoder = Callable[[bytes, int], tuple[Any, int]]

MAX_VECTOR_LENGTH = (1 << 31) - 1


class BadBcs(Exception):
    """Bytes are not the BCS of the type; the message says where."""


def _made(type: Type, what: str, make: Callable[[Type], Any]) -> Any:
    found = type.operations.get(what)
    if found is None:
        found = type.operations[what] = make(type)
    return found


# ---------------------------------------------------------------------------------------------------- copy


def copier(type: Type) -> Copier | None:
    """Return a function that copies data of `type`, or None when the data is immutable and needs no copy."""
    return _made(type, "copy", _make_copier)  # type: ignore[no-any-return]


def _make_copier(type: Type) -> Copier | None:
    if type.kind == "vector":
        return _vector_copier(type.element)
    if type.kind == "struct":
        return _struct_copier(type.fields)
    if type.kind == "enum":
        # The variant number in front is a field that needs no copy.
        variants = [_struct_copier(fields, skip=1) for fields in type.variants]
        return lambda data: variants[data[0]](data)
    return None


def _vector_copier(element: Type) -> Copier:
    if element.kind == "u8":
        return bytearray
    inner = copier(element)
    if inner is None:
        return list.copy
    return lambda data: [inner(item) for item in data]


def _struct_copier(fields: tuple[Type, ...], skip: int = 0) -> Copier:
    deep = [(at, copy) for at, copy in enumerate(map(copier, fields), skip) if copy is not None]
    if not deep:
        return list.copy

    def copy_struct(data: list[Any]) -> list[Any]:
        new = data.copy()
        for at, copy in deep:
            new[at] = copy(data[at])
        return new

    return copy_struct


# ------------------------------------------------------------------------------------------------- BCS out


def encoder(type: Type) -> Encoder:
    """Return a function that appends the BCS of data of `type` to a buffer."""
    return _made(type, "encode", _make_encoder)  # type: ignore[no-any-return]


def encode(type: Type, data: Any) -> bytes:
    """Return BCS of `data`."""
    out = bytearray()
    encoder(type)(data, out)
    return bytes(out)


def _make_encoder(type: Type) -> Encoder:
    if type.kind in INTEGER_BITS:
        return _integer_encoder(INTEGER_BITS[type.kind] // 8)
    if type.kind == "bool":
        return lambda data, out: out.append(1 if data else 0)
    if type.kind in ("address", "signer"):
        return lambda data, out: out.extend(data)
    if type.kind == "vector":
        return _vector_encoder(type.element)
    if type.kind == "struct":
        return _fields_encoder(type.fields, 0)
    variants = [_fields_encoder(fields, 1) for fields in type.variants]

    def encode_enum(data: list[Any], out: bytearray) -> None:
        out.append(data[0])
        variants[data[0]](data, out)

    return encode_enum


def _integer_encoder(size: int) -> Encoder:
    if size == 1:
        return lambda data, out: out.append(data)
    return lambda data, out: out.extend(data.to_bytes(size, "little"))


def _vector_encoder(element: Type) -> Encoder:
    if element.kind == "u8":

        def encode_bytes(data: bytearray, out: bytearray) -> None:
            out += uleb128(len(data))
            out += data

        return encode_bytes
    inner = encoder(element)

    def encode_vector(data: list[Any], out: bytearray) -> None:
        out += uleb128(len(data))
        for item in data:
            inner(item, out)

    return encode_vector


def _fields_encoder(fields: tuple[Type, ...], skip: int) -> Encoder:
    inner = [encoder(f) for f in fields]
    if not skip:

        def encode_struct(data: list[Any], out: bytearray) -> None:
            for write, item in zip(inner, data, strict=True):
                write(item, out)

        return encode_struct

    def encode_variant(data: list[Any], out: bytearray) -> None:
        for at, write in enumerate(inner, 1):
            write(data[at], out)

    return encode_variant


# -------------------------------------------------------------------------------------------------- BCS in


def decoder(type: Type) -> Decoder:
    """Return a function (bytes, position) -> (data, position after it). Raises `BadBcs`."""
    return _made(type, "decode", _make_decoder)  # type: ignore[no-any-return]


def decode(type: Type, data: bytes) -> Any:
    """Return data of exactly one value. Raises `BadBcs`."""
    value, end = decoder(type)(data, 0)
    if end != len(data):
        raise BadBcs(f"{len(data) - end} bytes follow the value of type {type.tag}")
    return value


def read_uleb128(data: bytes, at: int) -> tuple[int, int]:
    """Return a canonical length of at most 32 bits."""
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            raise BadBcs(f"a length is cut off at byte {at}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (shift and not byte) or value > MAX_VECTOR_LENGTH:
                break
            return value, at
    raise BadBcs(f"a length before byte {at} is not canonical or too large")


def _make_decoder(type: Type) -> Decoder:
    if type.kind in INTEGER_BITS:
        return _integer_decoder(INTEGER_BITS[type.kind] // 8)
    if type.kind == "bool":
        return _decode_bool
    if type.kind in ("address", "signer"):
        return _decode_address
    if type.kind == "vector":
        return _decode_bytes if type.element.kind == "u8" else _vector_decoder(type.element)
    if type.kind == "struct":
        return _fields_decoder(type.fields, None)
    if type.kind != "enum":
        raise BadBcs(f"{type.tag} has no BCS")
    variants = [_fields_decoder(fields, number) for number, fields in enumerate(type.variants)]

    def decode_enum(data: bytes, at: int) -> tuple[Any, int]:
        number, after = read_uleb128(data, at)
        if number >= len(variants):
            raise BadBcs(f"{type.tag} has no variant {number} (byte {at})")
        return variants[number](data, after)

    return decode_enum


def _integer_decoder(size: int) -> Decoder:
    def decode_integer(data: bytes, at: int) -> tuple[int, int]:
        end = at + size
        if end > len(data):
            raise BadBcs(f"u{8 * size} is cut off at byte {at}")
        return int.from_bytes(data[at:end], "little"), end

    return decode_integer


def _decode_bool(data: bytes, at: int) -> tuple[bool, int]:
    if at >= len(data) or data[at] > 1:
        raise BadBcs(f"no bool at byte {at}")
    return data[at] == 1, at + 1


def _decode_address(data: bytes, at: int) -> tuple[bytes, int]:
    end = at + 32
    if end > len(data):
        raise BadBcs(f"address is cut off at byte {at}")
    return bytes(data[at:end]), end


def _decode_bytes(data: bytes, at: int) -> tuple[bytearray, int]:
    length, at = read_uleb128(data, at)
    end = at + length
    if end > len(data):
        raise BadBcs(f"vector<u8> of {length} is cut off at byte {at}")
    return bytearray(data[at:end]), end


def _vector_decoder(element: Type) -> Decoder:
    inner = decoder(element)

    def decode_vector(data: bytes, at: int) -> tuple[list[Any], int]:
        length, at = read_uleb128(data, at)
        # Every Move value takes at least one byte, so a length past the end is refused before looping over it.
        if length > len(data) - at:
            raise BadBcs(f"vector of {length} elements is cut off at byte {at}")
        items = []
        for _ in range(length):
            item, at = inner(data, at)
            items.append(item)
        return items, at

    return decode_vector


def _fields_decoder(fields: tuple[Type, ...], variant: int | None) -> Decoder:
    inner = [decoder(f) for f in fields]

    def decode_fields(data: bytes, at: int) -> tuple[list[Any], int]:
        items: list[Any] = [] if variant is None else [variant]
        for read in inner:
            item, at = read(data, at)
            items.append(item)
        return items, at

    return decode_fields
