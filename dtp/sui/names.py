"""Addresses, digests and type tags: how Sui writes them as text and as bytes.

Inside dtp an address or object id is 32 bytes, a digest is 32 bytes and a type is a `TypeTag`; text exists at the
edges only, always canonical: `0x` and 64 hex digits, base58, `0x…::module::Name<…>`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from dtp.errors import LocalError
from dtp.sui.bcs import ADDRESS, STRING, BcsError, Codec, vector

__all__ = [
    "IDENTIFIER",
    "STRUCT_TAG",
    "TYPE_TAG",
    "SuiNameError",
    "TypeTag",
    "format_address",
    "format_digest",
    "parse_address",
    "parse_digest",
    "parse_type",
]

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS = {letter: value for value, letter in enumerate(_ALPHABET)}
_IDENTIFIER = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*|_[a-zA-Z0-9_]+")
_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{1,64}")
_CHUNK = 58**10
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)

MAX_TAG_DEPTH = 128
"""Deepest nesting of a type that the chain makes; type arguments of a transaction nest 16 deep."""


class SuiNameError(LocalError):
    """Text is not an address, digest or type."""

    code = "sui-name"


def format_address(address: bytes) -> str:
    """Return an address as `0x` and 64 hex digits."""
    return "0x" + address.hex()


def parse_address(text: str) -> bytes:
    """Return the 32 bytes of `0x` and 1 to 64 hex digits. Raises `SuiNameError`."""
    if not _ADDRESS.fullmatch(text):
        raise SuiNameError(f"{text!r} is not an address: `0x` and up to 64 hex digits are")
    return bytes.fromhex(text[2:].zfill(64))


def format_digest(digest: bytes) -> str:
    """Base58."""
    number = int.from_bytes(digest, "big")
    pairs = []
    while number:  # by tens, since dividing a large number costs more than dividing five small ones
        number, ten = divmod(number, _CHUNK)
        for _ in range(5):
            ten, two = divmod(ten, 58 * 58)
            pairs.append(_PAIRS[two])
    zeros = len(digest) - len(digest.lstrip(b"\0"))
    return _ALPHABET[0] * zeros + "".join(reversed(pairs)).lstrip(_ALPHABET[0])


def parse_digest(text: str) -> bytes:
    """Return the 32 bytes of base58. Raises `SuiNameError`."""
    number = 0
    try:
        # No digest needs more letters; a longer text would cost quadratic time.
        for letter in text[:64]:
            number = number * 58 + _DIGITS[letter]
    except KeyError as fault:
        raise SuiNameError(f"{text!r} is not a digest: {fault.args[0]!r} is not a letter of base58") from None
    zeros = len(text) - len(text.lstrip(_ALPHABET[0]))
    body = number.to_bytes((number.bit_length() + 7) // 8, "big")
    if len(text) > 64 or zeros + len(body) != 32:
        raise SuiNameError(f"{text!r} is not a digest: base58 of 32 bytes is")
    return bytes(zeros) + body


@dataclass(frozen=True)
class TypeTag:
    """A type: a primitive's name, `vector` with one argument, or a datatype with `address` and `module`."""

    name: str
    arguments: tuple[TypeTag, ...] = ()
    address: bytes = b""
    module: str = ""
    text: str = field(init=False, compare=False, repr=False, default="")

    def __post_init__(self) -> None:
        inner = f"<{','.join(map(str, self.arguments))}>" if self.arguments else ""
        head = f"{format_address(self.address)}::{self.module}::{self.name}" if self.address else self.name
        object.__setattr__(self, "text", head + inner)

    @property
    def depth(self) -> int:
        """How many types there are within each other, itself counted."""
        return 1 + max((each.depth for each in self.arguments), default=0)

    def __str__(self) -> str:
        """Canonical text without blanks."""
        return self.text


_PRIMITIVES = {
    0: "bool",
    1: "u8",
    2: "u64",
    3: "u128",
    4: "address",
    5: "signer",
    8: "u16",
    9: "u32",
    10: "u256",
}
_NUMBERS = {name: number for number, name in _PRIMITIVES.items()}
_VECTOR, _STRUCT = 6, 7


def _write_tag(tag: TypeTag, out: bytearray) -> None:
    if tag.address:
        out.append(_STRUCT)
        _write_struct(tag, out)
    elif tag.name == "vector":
        out.append(_VECTOR)
        _write_tag(tag.arguments[0], out)
    else:
        out.append(_NUMBERS[tag.name])


def _write_struct(tag: TypeTag, out: bytearray) -> None:
    out += tag.address
    STRING.write(tag.module, out)
    STRING.write(tag.name, out)
    _ARGUMENTS.write(tag.arguments, out)


def _read_tag(data: bytes, at: int, depth: int = 1) -> tuple[TypeTag, int]:
    if at >= len(data):
        raise BcsError("a type is cut off", at)
    if depth > MAX_TAG_DEPTH:
        raise BcsError(f"a type is nested over {MAX_TAG_DEPTH} deep", at)
    number = data[at]
    if number == _STRUCT:
        return _read_struct(data, at + 1, depth)
    if number == _VECTOR:
        element, end = _read_tag(data, at + 1, depth + 1)
        return TypeTag("vector", (element,)), end
    if number not in _PRIMITIVES:
        raise BcsError(f"no type has number {number}", at)
    return TypeTag(_PRIMITIVES[number]), at + 1


def _read_struct(data: bytes, at: int, depth: int = 1) -> tuple[TypeTag, int]:
    address, at = ADDRESS.read(data, at)
    module, at = _read_identifier(data, at)
    name, at = _read_identifier(data, at)
    inner: Codec[TypeTag] = Codec(_write_tag, lambda d, a: _read_tag(d, a, depth + 1))
    arguments, at = vector(inner).read(data, at)
    return TypeTag(name, arguments, address, module), at


def _read_identifier(data: bytes, at: int) -> tuple[str, int]:
    text, end = STRING.read(data, at)
    if _IDENTIFIER.fullmatch(text) is None:
        raise BcsError(f"{text!r} is not a name", at)
    return text, end


TYPE_TAG: Codec[TypeTag] = Codec(_write_tag, _read_tag)
STRUCT_TAG: Codec[TypeTag] = Codec(_write_struct, _read_struct)
"""A datatype's tag without the number in front, as objects and events carry it."""
IDENTIFIER: Codec[str] = Codec(STRING.write, _read_identifier)
_ARGUMENTS = vector(TYPE_TAG)

_TOKEN = re.compile(r"\s*(0[xX][0-9a-fA-F]{1,64}(?![0-9a-zA-Z_])|[A-Za-z_][A-Za-z0-9_]*|::|[<>,])\s*")


@lru_cache(maxsize=4096)
def parse_type(text: str) -> TypeTag:
    """Return the type that text names; addresses may be short, blanks may stand anywhere. Raises `SuiNameError`."""
    tokens: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise SuiNameError(f"{text!r} is not a type: unexpected character at {at}")
        tokens.append(match[1])
        at = match.end()
    tokens.reverse()
    tag = _parse(tokens, text, 1)
    if tokens:
        raise SuiNameError(f"{text!r} is not a type: {tokens[-1]!r} follows its end")
    return tag


def _parse(tokens: list[str], text: str, depth: int) -> TypeTag:
    if depth > MAX_TAG_DEPTH:
        raise SuiNameError(f"{text!r} is nested over {MAX_TAG_DEPTH} deep")
    head = _take(tokens, text)
    if head in _NUMBERS:
        return TypeTag(head)
    if head == "vector":
        arguments = _parse_arguments(tokens, text, depth)
        if len(arguments) != 1:
            raise SuiNameError(f"{text!r} is not a type: vector takes one type argument")
        return TypeTag("vector", arguments)
    if head[:2] not in ("0x", "0X"):
        raise SuiNameError(f"{text!r} is not a type: {head!r} is neither a primitive nor an address")
    _expect(tokens, text, "::")
    module = _take(tokens, text)
    _expect(tokens, text, "::")
    name = _take(tokens, text)
    for part in (module, name):
        if _IDENTIFIER.fullmatch(part) is None:
            raise SuiNameError(f"{text!r} is not a type: {part!r} is not a name")
    return TypeTag(name, _parse_arguments(tokens, text, depth), parse_address(head), module)


def _parse_arguments(tokens: list[str], text: str, depth: int) -> tuple[TypeTag, ...]:
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
        raise SuiNameError(f"{text!r} is not a type: it ends too early")
    return tokens.pop()


def _expect(tokens: list[str], text: str, wanted: str) -> None:
    found = _take(tokens, text)
    if found != wanted:
        raise SuiNameError(f"{text!r} is not a type: {wanted!r} expected, got {found!r}")
