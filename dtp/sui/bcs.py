"""BCS as typed codecs: small values that know how to write and read one type, put together into larger ones.

A `Codec[T]` is a pair of functions; the makers below build codecs of structs (dataclasses), enums (one class per
variant), vectors, options, tuples and maps. Decoding is strict, as the chain's is: lengths canonical, booleans 0 or
1, nothing left over. Everything that is wrong leaves as `BcsError` with the byte's offset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields as dataclass_fields
from typing import Any, Generic, TypeVar

from dtp.errors import LocalError
from dtp.unicode import encode_text

__all__ = [
    "ADDRESS",
    "BOOL",
    "BYTES",
    "DIGEST",
    "STRING",
    "U8",
    "U16",
    "U32",
    "U64",
    "U128",
    "U256",
    "BcsError",
    "Codec",
    "enum",
    "fixed",
    "mapping",
    "option",
    "pair",
    "struct",
    "uleb128",
    "vector",
]

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")

Write = Callable[[T, bytearray], None]
Read = Callable[[bytes, int], tuple[T, int]]

MAX_LENGTH = (1 << 31) - 1
"""Longest sequence that BCS allows."""


class BcsError(LocalError):
    """Bytes are not the BCS of the type (`offset` says where), or a value does not fit the type."""

    code = "bcs"

    def __init__(self, detail: str, offset: int | None = None) -> None:
        super().__init__(detail if offset is None else f"{detail} (byte {offset})")
        self.detail = detail
        self.offset = offset


class Codec(Generic[T]):
    """How one type is written and read: `write` appends to a buffer, `read` gives the value and where it ends."""

    __slots__ = ("read", "write")

    def __init__(self, write: Write[T], read: Read[T]) -> None:
        self.write = write
        self.read = read

    def encode(self, value: T) -> bytes:
        """Return the BCS of `value`."""
        out = bytearray()
        self.write(value, out)
        return bytes(out)

    def decode(self, data: bytes) -> T:
        """Return the value that `data` is, all of it. Raises `BcsError`."""
        value, end = self.read(data, 0)
        if end != len(data):
            raise BcsError(f"{len(data) - end} bytes follow the value", end)
        return value


def uleb128(number: int) -> bytes:
    """Return a length or variant number as BCS writes it."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _write_length(number: int, out: bytearray) -> None:
    if number < 0x80:
        out.append(number)
    else:
        out += uleb128(number)


def _read_length(data: bytes, at: int) -> tuple[int, int]:
    start, value = at, 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            raise BcsError("a length is cut off", start)
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (shift and not byte) or value > MAX_LENGTH:
                break
            return value, at
    raise BcsError("a length is not canonical or too large", start)


def _integer(size: int) -> Codec[int]:
    def write(value: int, out: bytearray) -> None:
        try:
            out += value.to_bytes(size, "little")
        except OverflowError:
            raise BcsError(f"{value} does not fit u{8 * size}") from None

    def read(data: bytes, at: int) -> tuple[int, int]:
        end = at + size
        if end > len(data):
            raise BcsError(f"u{8 * size} is cut off", at)
        return int.from_bytes(data[at:end], "little"), end

    return Codec(write, read)


def fixed(size: int, name: str = "value") -> Codec[bytes]:
    """Return exactly `size` bytes without a length."""

    def write(value: bytes, out: bytearray) -> None:
        if len(value) != size:
            raise BcsError(f"{name} has {size} bytes, got {len(value)}")
        out += value

    def read(data: bytes, at: int) -> tuple[bytes, int]:
        end = at + size
        if end > len(data):
            raise BcsError(f"{name} of {size} bytes is cut off", at)
        return bytes(data[at:end]), end

    return Codec(write, read)


def _write_bool(value: bool, out: bytearray) -> None:
    out.append(1 if value else 0)


def _read_bool(data: bytes, at: int) -> tuple[bool, int]:
    if at >= len(data) or data[at] > 1:
        raise BcsError("a bool is 0 or 1", at)
    return data[at] == 1, at + 1


def _write_bytes(value: bytes, out: bytearray) -> None:
    _write_length(len(value), out)
    out += value


def _read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    length, start = _read_length(data, at)
    end = start + length
    if end > len(data):
        raise BcsError(f"{length} bytes are cut off", at)
    return bytes(data[start:end]), end


def _write_string(value: str, out: bytearray) -> None:
    _write_bytes(encode_text(value), out)


def _read_string(data: bytes, at: int) -> tuple[str, int]:
    raw, end = _read_bytes(data, at)
    try:
        return raw.decode(), end
    except UnicodeDecodeError as fault:
        raise BcsError(f"text is not UTF-8: {fault.reason}", at) from None


def _write_digest(value: bytes, out: bytearray) -> None:
    if len(value) != 32:
        raise BcsError(f"a digest has 32 bytes, got {len(value)}")
    out.append(32)
    out += value


def _read_digest(data: bytes, at: int) -> tuple[bytes, int]:
    value, end = _read_bytes(data, at)
    if len(value) != 32:
        raise BcsError(f"a digest has 32 bytes, got {len(value)}", at)
    return value, end


U8, U16, U32, U64 = _integer(1), _integer(2), _integer(4), _integer(8)
U128, U256 = _integer(16), _integer(32)
BOOL = Codec(_write_bool, _read_bool)
BYTES = Codec(_write_bytes, _read_bytes)
STRING = Codec(_write_string, _read_string)
ADDRESS = fixed(32, "an address")
DIGEST = Codec(_write_digest, _read_digest)
"""32 bytes with their length in front, as Sui writes every digest."""


def vector(element: Codec[T], most: int = MAX_LENGTH) -> Codec[tuple[T, ...]]:
    """Return a sequence, read as a tuple. `most` bounds its length."""
    write_element, read_element = element.write, element.read

    def write(value: Sequence[T], out: bytearray) -> None:
        _write_length(len(value), out)
        for item in value:
            write_element(item, out)

    def read(data: bytes, at: int) -> tuple[tuple[T, ...], int]:
        length, start = _read_length(data, at)
        # Elements that take no byte don't occur in Sui's formats, so a length past the end is a lie.
        if length > most or length > len(data) - start:
            raise BcsError(f"a sequence of {length} elements is too long or cut off", at)
        at = start
        items = []
        for _ in range(length):
            item, at = read_element(data, at)
            items.append(item)
        return tuple(items), at

    return Codec(write, read)


def option(inner: Codec[T]) -> Codec[T | None]:
    """Return the codec of None or a value."""

    def write(value: T | None, out: bytearray) -> None:
        if value is None:
            out.append(0)
        else:
            out.append(1)
            inner.write(value, out)

    def read(data: bytes, at: int) -> tuple[T | None, int]:
        some, at = _read_bool(data, at)
        return inner.read(data, at) if some else (None, at)

    return Codec(write, read)


def pair(first: Codec[A], second: Codec[B]) -> Codec[tuple[A, B]]:
    """Return a tuple of two."""

    def write(value: tuple[A, B], out: bytearray) -> None:
        first.write(value[0], out)
        second.write(value[1], out)

    def read(data: bytes, at: int) -> tuple[tuple[A, B], int]:
        a, at = first.read(data, at)
        b, at = second.read(data, at)
        return (a, b), at

    return Codec(write, read)


def mapping(key: Codec[A], value: Codec[B]) -> Codec[Mapping[A, B]]:
    """Return a map, written in the order of its keys' BCS; reading refuses another order."""

    def write(items: Mapping[A, B], out: bytearray) -> None:
        _write_length(len(items), out)
        for raw, item in sorted((key.encode(k), v) for k, v in items.items()):
            out += raw
            value.write(item, out)

    def read(data: bytes, at: int) -> tuple[Mapping[A, B], int]:
        length, at = _read_length(data, at)
        items: dict[A, B] = {}
        before = None
        for _ in range(length):
            start = at
            k, at = key.read(data, at)
            raw = data[start:at]
            if before is not None and raw <= before:
                raise BcsError("keys of a map are out of order", start)
            before = raw
            items[k], at = value.read(data, at)
        return items, at

    return Codec(write, read)


def struct(cls: type[T], **codecs: Codec[Any]) -> Codec[T]:
    """Return a dataclass, field by field in the order given, which must name exactly the dataclass's fields."""
    names = tuple(codecs)
    declared = {field.name for field in dataclass_fields(cls) if field.init}  # type: ignore[arg-type]
    if set(names) != declared:
        raise TypeError(f"{cls.__name__} has fields {sorted(declared)}, codecs are for {sorted(names)}")
    writers = tuple((name, codec.write) for name, codec in codecs.items())
    readers = tuple((name, codec.read) for name, codec in codecs.items())

    def write(value: T, out: bytearray) -> None:
        for name, write_field in writers:
            write_field(getattr(value, name), out)

    def read(data: bytes, at: int) -> tuple[T, int]:
        values = {}
        for name, read_field in readers:
            values[name], at = read_field(data, at)
        return cls(**values), at

    return Codec(write, read)


def enum(name: str, variants: Mapping[int, tuple[type[Any], Codec[Any]]]) -> Codec[Any]:
    """Return a tagged choice: variant number -> (class, codec of its content). A class stands for one variant."""
    by_class = {cls: (uleb128(number), codec.write) for number, (cls, codec) in variants.items()}
    readers = {number: codec.read for number, (_, codec) in variants.items()}

    def write(value: Any, out: bytearray) -> None:
        found = by_class.get(type(value))
        if found is None:
            raise BcsError(f"{type(value).__name__} is not a variant of {name}")
        out += found[0]
        found[1](value, out)

    def read(data: bytes, at: int) -> tuple[Any, int]:
        number, after = _read_length(data, at)
        reader = readers.get(number)
        if reader is None:
            raise BcsError(f"{name} has no variant {number}", at)
        return reader(data, after)

    return Codec(write, read)
