"""Runtime types of the Move machine: interned, with their abilities, tags and, for datatypes, their fields.

A `Type` is concrete (no type parameters) and unique: two equal types are the same object, so `is` compares and
everything that depends on a type is made once. `TypeTable` makes them. The machine's data for each kind:

| type | data |
|---|---|
| `bool`, `u8` ... `u256` | `bool`, `int` |
| `address`, `signer` | `bytes` of 32 |
| `vector<u8>` | `bytearray` |
| other `vector<T>` | `list` |
| struct | `list` of its fields |
| enum | `list`: variant number, then the fields |
| reference to vector, struct, enum | the data itself: a value has one owner, so identity is the place |
| reference to anything else | `(container, index)` |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["COPY", "DROP", "KEY", "STORE", "Datatype", "Type", "TypeTable", "abilities_text"]

COPY: Final = 1
DROP: Final = 2
STORE: Final = 4
KEY: Final = 8

_PRIMITIVE_ABILITIES: Final = COPY | DROP | STORE
_ABILITY_NAMES: Final = ((COPY, "copy"), (DROP, "drop"), (STORE, "store"), (KEY, "key"))
INTEGER_BITS: Final = {"u8": 8, "u16": 16, "u32": 32, "u64": 64, "u128": 128, "u256": 256}


def abilities_text(mask: int) -> str:
    """Return abilities as text: `copy + drop`, or `none`."""
    return " + ".join(name for bit, name in _ABILITY_NAMES if mask & bit) or "none"


@dataclass(eq=False)
class Datatype:
    """A struct or enum declaration: identity, abilities and a way to the field types of an instance.

    `package` is the id of the package version that introduced it (what type tags show). `fields_of` gives, for type
    arguments, a tuple of fields per variant (one for a struct). `phantom` marks parameters without weight.
    """

    package: bytes
    module: str
    name: str
    abilities: int
    parameters: tuple[int, ...]
    phantom: tuple[bool, ...]
    is_enum: bool
    fields_of: Callable[[tuple[Type, ...]], tuple[tuple[Type, ...], ...]]
    field_names: tuple[tuple[str, ...], ...] = ()
    variant_names: tuple[str, ...] = ()
    original_package: bytes = b""


@dataclass(eq=False, slots=True)
class Type:
    """One concrete type. `kind` is a primitive's name, `vector`, `struct`, `enum`, `&` or `&mut`."""

    kind: str
    arguments: tuple[Type, ...]
    abilities: int
    tag: str
    nodes: int
    depth: int
    datatype: Datatype | None = None
    _variants: tuple[tuple[Type, ...], ...] | None = None
    # Made once per type by dtp.localnet.vm.values and kept here, next to what they depend on.
    operations: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Type({self.tag})"

    @property
    def is_reference(self) -> bool:
        """`&T` or `&mut T`."""
        return self.kind in ("&", "&mut")

    @property
    def is_container(self) -> bool:
        """Vectors, structs and enums: data that is its own place."""
        return self.kind in ("vector", "struct", "enum")

    @property
    def element(self) -> Type:
        """Element of a vector, or what a reference refers to."""
        return self.arguments[0]

    @property
    def variants(self) -> tuple[tuple[Type, ...], ...]:
        """Field types per variant; a struct has one."""
        if self._variants is None:
            assert self.datatype is not None
            self._variants = self.datatype.fields_of(self.arguments)
        return self._variants

    @property
    def fields(self) -> tuple[Type, ...]:
        """Field types of a struct."""
        return self.variants[0]

    @property
    def value_depth(self) -> int:
        """How deep a value of the type nests; a number is 1."""
        found: int | None = self.operations.get("depth")
        if found is None:
            inner: tuple[Type, ...] = (self.element,) if self.kind == "vector" else ()
            if self.datatype is not None:
                inner = tuple(field for fields in self.variants for field in fields)
            found = self.operations["depth"] = 1 + max((t.value_depth for t in inner), default=0)
        return found

    @property
    def layout_nodes(self) -> int:
        """Nodes of the type's layout: one for each type in it, fields of datatypes too, and one for each variant."""
        found: int | None = self.operations.get("layout")
        if found is None:
            inner: tuple[Type, ...] = (self.element,) if self.kind == "vector" else ()
            own = 1
            if self.datatype is not None:
                inner = tuple(field for fields in self.variants for field in fields)
                own += len(self.variants) if self.kind == "enum" else 0
            found = self.operations["layout"] = own + sum(t.layout_nodes for t in inner)
        return found

    def is_struct(self, package: bytes, module: str, name: str) -> bool:
        """True if this is the struct of that name, whatever its arguments."""
        d = self.datatype
        return d is not None and d.name == name and d.module == module and d.package == package


class TypeTable:
    """Makes and keeps every `Type` of one machine."""

    def __init__(self) -> None:
        self._vectors: dict[Type, Type] = {}
        self._references: dict[tuple[Type, bool], Type] = {}
        self._instances: dict[tuple[Datatype, tuple[Type, ...]], Type] = {}
        self.primitives: Final = {
            name: Type(name, (), _PRIMITIVE_ABILITIES, name, 1, 1)
            for name in ("bool", "u8", "u16", "u32", "u64", "u128", "u256", "address")
        }
        self.primitives["signer"] = Type("signer", (), DROP, "signer", 1, 1)

    def make_vector(self, element: Type) -> Type:
        """Return the type `vector<element>`."""
        found = self._vectors.get(element)
        if found is None:
            found = self._vectors[element] = Type(
                "vector",
                (element,),
                element.abilities & _PRIMITIVE_ABILITIES,
                f"vector<{element.tag}>",
                element.nodes + 1,
                element.depth + 1,
            )
        return found

    def make_reference(self, target: Type, mutable: bool) -> Type:
        """Return the type `&target` or `&mut target`."""
        found = self._references.get((target, mutable))
        if found is None:
            kind = "&mut" if mutable else "&"
            tag = f"{kind}{' ' if mutable else ''}{target.tag}"
            found = self._references[target, mutable] = Type(
                kind, (target,), COPY | DROP, tag, target.nodes + 1, target.depth + 1
            )
        return found

    def make_instance(self, datatype: Datatype, arguments: tuple[Type, ...]) -> Type:
        """Return a struct or enum with type arguments (arity and constraints are the caller's check)."""
        key = (datatype, arguments)
        found = self._instances.get(key)
        if found is None:
            inner = f"<{','.join(a.tag for a in arguments)}>" if arguments else ""
            found = self._instances[key] = Type(
                "enum" if datatype.is_enum else "struct",
                arguments,
                instance_abilities(datatype, arguments),
                f"0x{datatype.package.hex()}::{datatype.module}::{datatype.name}{inner}",
                1 + sum(a.nodes for a in arguments),
                1 + max((a.depth for a in arguments), default=0),
                datatype,
            )
        return found


def instance_abilities(datatype: Datatype, arguments: tuple[Type, ...]) -> int:
    """Declared abilities, less those that an argument in a real (not phantom) place lacks.

    `key` needs `store` of the arguments; the others need themselves.
    """
    mask = datatype.abilities
    for argument, phantom in zip(arguments, datatype.phantom, strict=True):
        if phantom:
            continue
        has = argument.abilities
        mask &= has | (KEY if has & STORE else 0)
    return mask
