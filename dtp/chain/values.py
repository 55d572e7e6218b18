"""Move values as Python values: one encoder and decoder for pure arguments, objects and events.

`codec(type)` covers primitives, vectors and the framework's types; a `MoveSchema` adds the structs of one of our
packages, whose fields and types are those that were read from its bytecode, so that Python and Move can't drift.

| Move | Python |
|---|---|
| `u8` ... `u256`, `bool` | `int`, `bool` |
| `address`, `ID`, `UID` | canonical text; 32 bytes are taken, too |
| `vector<u8>` | `bytes` |
| `vector<T>` | `tuple` |
| `Option<T>` | None or the value |
| `String`, `TypeName` | `str`, `str` (canonical type) |
| `Balance<T>` | `int` |
| `Table<K, V>`, `Bag` and the like | `TableRef` |
| `VecMap<K, V>` | `dict` |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeVar

from dtp.chain.errors import MalformedObject, ProgramError
from dtp.chain.model import canonical_type, id_bytes
from dtp.errors import LocalError
from dtp.sui import bcs
from dtp.sui.bcs import BcsError, Codec
from dtp.sui.names import SuiNameError, TypeTag, format_address, parse_type

T = TypeVar("T")

_PRIMITIVES: Final[Mapping[str, Codec[Any]]] = {
    "bool": bcs.BOOL,
    "u8": bcs.U8,
    "u16": bcs.U16,
    "u32": bcs.U32,
    "u64": bcs.U64,
    "u128": bcs.U128,
    "u256": bcs.U256,
}
_STD, _SUI = format_address((1).to_bytes(32, "big")), format_address((2).to_bytes(32, "big"))
_TYPE_PARAMETER = re.compile(r"\bT\d+\b")


@dataclass(frozen=True)
class TableRef:
    """A table, bag or the like inside an object: its entries are dynamic fields of `id`."""

    id: str
    size: int


def mapped(inner: Codec[Any], to_wire: Callable[[Any], Any], from_wire: Callable[[Any], Any]) -> Codec[Any]:
    """Return `inner` with the values turned into other values on both ways."""

    def write(value: Any, out: bytearray) -> None:
        inner.write(to_wire(value), out)

    def read(data: bytes, at: int) -> tuple[Any, int]:
        value, end = inner.read(data, at)
        return from_wire(value), end

    return Codec(write, read)


_ADDRESS = mapped(bcs.ADDRESS, id_bytes, format_address)
_TABLE = mapped(
    bcs.pair(_ADDRESS, bcs.U64), lambda table: (table.id, table.size), lambda pair: TableRef(pair[0], pair[1])
)
# A type's name in Move has no `0x` in front of its addresses.
_TYPE_NAME = mapped(
    bcs.STRING,
    lambda text: canonical_type(text).replace("0x", ""),
    lambda text: canonical_type(re.sub(r"(?<![0-9a-zA-Z_:])([0-9a-f]{64})(?=::)", r"0x\1", text)),
)
_PLAIN: Final[Mapping[tuple[str, str, str], Codec[Any]]] = {
    (_SUI, "object", "ID"): _ADDRESS,
    (_SUI, "object", "UID"): _ADDRESS,
    (_STD, "string", "String"): bcs.STRING,
    (_STD, "ascii", "String"): bcs.STRING,
    (_STD, "type_name", "TypeName"): _TYPE_NAME,
    (_SUI, "balance", "Balance"): bcs.U64,
    (_SUI, "table", "Table"): _TABLE,
    (_SUI, "bag", "Bag"): _TABLE,
    (_SUI, "object_table", "ObjectTable"): _TABLE,
    (_SUI, "object_bag", "ObjectBag"): _TABLE,
}


def _exact_vector(element: Codec[Any]) -> Codec[Any]:
    inner = bcs.vector(element)

    def write(value: Any, out: bytearray) -> None:
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise BcsError(f"a vector takes a sequence, not {type(value).__name__}")
        inner.write(tuple(value), out)

    return Codec(write, inner.read)


def _vec_map(key: Codec[Any], value: Codec[Any]) -> Codec[Any]:
    return mapped(bcs.vector(bcs.pair(key, value)), lambda entries: tuple(entries.items()), dict)


Lookup = Callable[[TypeTag], Codec[Any] | None]


def _codec(tag: TypeTag, lookup: Lookup) -> Codec[Any]:
    if not tag.address:
        if tag.name == "address":
            return _ADDRESS
        if tag.name == "vector":
            element = tag.arguments[0]
            return bcs.BYTES if element.name == "u8" else _exact_vector(_codec(element, lookup))
        if tag.name in _PRIMITIVES:
            return _PRIMITIVES[tag.name]
    key = (format_address(tag.address), tag.module, tag.name)
    if key in _PLAIN:
        return _PLAIN[key]
    if key == (_STD, "option", "Option"):
        return bcs.option(_codec(tag.arguments[0], lookup))
    if key == (_SUI, "vec_map", "VecMap"):
        return _vec_map(_codec(tag.arguments[0], lookup), _codec(tag.arguments[1], lookup))
    if key == (_SUI, "vec_set", "VecSet"):
        return _exact_vector(_codec(tag.arguments[0], lookup))
    found = lookup(tag)
    if found is None:
        raise ProgramError(f"there is no Python form of the Move type {tag}")
    return found


@lru_cache(maxsize=512)
def codec(move_type: str) -> Codec[Any]:
    """Return the codec of a type made of primitives and the framework's types. Raises `ProgramError`."""
    try:
        return _codec(parse_type(move_type), lambda tag: None)
    except SuiNameError as fault:
        raise ProgramError(str(fault)) from fault


def encode_value(move_type: str, value: Any) -> bytes:
    """Return BCS of a pure argument. Raises `ProgramError` for a value that doesn't fit the type."""
    try:
        return codec(move_type).encode(value)
    except (BcsError, SuiNameError) as fault:
        raise ProgramError(f"{value!r} is not of type {move_type}: {fault}") from fault
    except (TypeError, AttributeError) as fault:
        raise ProgramError(f"{value!r} of {type(value).__name__} is not of type {move_type}") from fault


class MoveSchema:
    """Structs of one Move module as dataclasses.

    `fields` is the generated table of the module (struct -> its fields with their Move types), `classes` the
    dataclass for each struct that is wanted, `uses` schemas of modules whose structs occur inside. A dataclass has
    the fields of its struct, in any order, with `_` after a Python keyword; a mismatch raises `TypeError` at import.
    """

    def __init__(
        self,
        package: str,
        module: str,
        fields: Mapping[Any, tuple[tuple[str, str], ...]],
        classes: Mapping[Any, type[Any]],
        uses: tuple[MoveSchema, ...] = (),
    ) -> None:
        self.package = package
        self.module = module
        self._uses = uses
        self._codecs: dict[str, Codec[Any]] = {}
        self._names = {cls: str(name) for name, cls in classes.items()}
        waiting = {str(name): (cls, fields[name]) for name, cls in classes.items()}
        while waiting:  # a struct's parts come before it
            ready = [name for name, (_, parts) in waiting.items() if not self._misses_parts(parts, waiting)]
            if not ready:
                raise TypeError(f"structs of {module} without a dataclass for a part: {sorted(waiting)}")
            for name in ready:
                cls, parts = waiting.pop(name)
                self._codecs[name] = bcs.struct(
                    cls,
                    **{_python_name(part): _codec(_parse(kind), self._find_codec) for part, kind in parts},
                )

    def _misses_parts(self, parts: tuple[tuple[str, str], ...], waiting: Mapping[str, Any]) -> bool:
        return any(re.search(rf"\b{self.module}::{name}\b", kind) for name in waiting for _, kind in parts)

    def _find_codec(self, tag: TypeTag) -> Codec[Any] | None:
        if any(tag.address):  # our own package is 0x0 in its own tables
            return None
        for schema in (self, *self._uses):
            if schema.module == tag.module and tag.name in schema._codecs:
                return schema._codecs[tag.name]
        return None

    def path_of(self, cls: type[Any]) -> str:
        """Return `module::Struct`."""
        return f"{self.module}::{self._names[cls]}"

    def decode(self, cls: type[T], contents: bytes) -> T:
        """Return the dataclass that the BCS is. Raises `MalformedObject`."""
        try:
            value: T = self._codecs[self._names[cls]].decode(contents)
        except (BcsError, SuiNameError) as fault:
            raise MalformedObject(
                f"the bytes are not a {self.path_of(cls)} of this release ({fault}): another version of the package?"
            ) from fault
        return value

    def encode(self, value: Any) -> bytes:
        """Return BCS of a dataclass, as Move's `bcs::to_bytes` gives it. Raises `ProgramError`."""
        try:
            return self._codecs[self._names[type(value)]].encode(value)
        except LocalError as fault:
            raise ProgramError(
                f"{value!r} can't be written as {self.path_of(type(value))}: {fault}"
            ) from fault

    def classes(self) -> Mapping[type[Any], str]:
        """Return the dataclasses, with the names of their structs."""
        return self._names


_KEYWORDS = {"pass", "from", "global", "class", "lambda"}


def _python_name(field: str) -> str:
    return field + "_" if field in _KEYWORDS else field


def _parse(kind: str) -> TypeTag:
    # Type parameters of our structs are phantom: any type does.
    return parse_type(_TYPE_PARAMETER.sub("bool", kind))
