"""Modules made by hand for tests of the verifier: tables fill themselves as things are named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dtp.sui.bytecode import (
    Ability,
    CodeUnit,
    CompiledModule,
    Constant,
    DatatypeHandle,
    DatatypeType,
    EnumDef,
    Field,
    FunctionDef,
    FunctionHandle,
    Instantiation,
    Instruction,
    JumpTable,
    ModuleHandle,
    Opcode,
    SignatureToken,
    StructDef,
    Variant,
    Visibility,
)

T = TypeVar("T")
NONE = Ability(0)
_TABLES = (
    "module_handles",
    "datatype_handles",
    "function_handles",
    "friend_decls",
    "function_instantiations",
    "signatures",
    "identifiers",
    "addresses",
    "constants",
    "struct_defs",
    "function_defs",
    "enum_defs",
)
VALUE = Ability.COPY | Ability.DROP | Ability.STORE


def code(*instructions: Any) -> tuple[Instruction, ...]:
    """Instructions from `("LD_U64", 1)` or `"ADD"`; a branch's argument is an index of an instruction."""
    made = []
    for entry in instructions:
        name, argument = entry if isinstance(entry, tuple) else (entry, None)
        made.append(Instruction(Opcode[name], argument))
    return tuple(made)


def _intern(table: list[T], entry: T) -> int:
    if entry not in table:
        table.append(entry)
    return table.index(entry)


@dataclass
class Maker:
    """A module being made; `build` gives it."""

    name: str = "m"
    address: bytes = bytes(32)
    identifiers: list[str] = field(default_factory=list)
    addresses: list[bytes] = field(default_factory=list)
    module_handles: list[ModuleHandle] = field(default_factory=list)
    signatures: list[tuple[SignatureToken, ...]] = field(default_factory=list)
    datatype_handles: list[DatatypeHandle] = field(default_factory=list)
    function_handles: list[FunctionHandle] = field(default_factory=list)
    function_instantiations: list[Instantiation] = field(default_factory=list)
    struct_defs: list[StructDef] = field(default_factory=list)
    enum_defs: list[EnumDef] = field(default_factory=list)
    function_defs: list[FunctionDef] = field(default_factory=list)
    constants: list[Constant] = field(default_factory=list)
    friend_decls: list[ModuleHandle] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.module(self.address, self.name)

    def identifier(self, name: str) -> int:
        """An identifier's index."""
        return _intern(self.identifiers, name)

    def module(self, address: bytes, name: str) -> int:
        """A module handle's index; 0 is the module itself."""
        handle = ModuleHandle(_intern(self.addresses, address), self.identifier(name))
        return _intern(self.module_handles, handle)

    def signature(self, *tokens: SignatureToken) -> int:
        """A signature's index."""
        return _intern(self.signatures, tokens)

    def datatype(self, name: str, abilities: Ability = VALUE, *, module: int = 0) -> DatatypeType:
        """A datatype without type parameters."""
        handle = DatatypeHandle(module, self.identifier(name), abilities, ())
        return DatatypeType(_intern(self.datatype_handles, handle))

    def struct(self, name: str, *fields: SignatureToken, abilities: Ability = VALUE) -> DatatypeType:
        """A struct defined here, its fields named f0, f1, ..."""
        type = self.datatype(name, abilities)
        named = tuple(Field(self.identifier(f"f{at}"), token) for at, token in enumerate(fields))
        self.struct_defs.append(StructDef(type.handle, named))
        return type

    def enum(self, name: str, *variants: str) -> DatatypeType:
        """An enum defined here whose variants have no fields."""
        type = self.datatype(name)
        self.enum_defs.append(
            EnumDef(type.handle, tuple(Variant(self.identifier(variant), ()) for variant in variants))
        )
        return type

    def handle(
        self,
        name: str,
        parameters: Sequence[SignatureToken] = (),
        returns: Sequence[SignatureToken] = (),
        type_parameters: Sequence[Ability] = (),
        *,
        module: int = 0,
    ) -> int:
        """A function handle's index."""
        return _intern(
            self.function_handles,
            FunctionHandle(
                module,
                self.identifier(name),
                self.signature(*parameters),
                self.signature(*returns),
                tuple(type_parameters),
            ),
        )

    def instance(self, handle: int, *types: SignatureToken) -> int:
        """A function instantiation's index."""
        return _intern(self.function_instantiations, Instantiation(handle, self.signature(*types)))

    def function(
        self,
        name: str,
        instructions: tuple[Instruction, ...],
        parameters: Sequence[SignatureToken] = (),
        returns: Sequence[SignatureToken] = (),
        locals: Sequence[SignatureToken] = (),
        *,
        type_parameters: Sequence[Ability] = (),
        visibility: Visibility = Visibility.PUBLIC,
        is_entry: bool = False,
        tables: Sequence[JumpTable] = (),
    ) -> int:
        """Define a function; its handle's index."""
        handle = self.handle(name, parameters, returns, type_parameters)
        body = CodeUnit(self.signature(*locals), instructions, tuple(tables))
        self.function_defs.append(FunctionDef(handle, visibility, is_entry, body))
        return handle

    def build(self, **tables: Sequence[Any]) -> CompiledModule:
        """The module; `tables` put others in place of its own."""
        made: dict[str, Any] = {
            "field_handles": (),
            "struct_instantiations": (),
            "field_instantiations": (),
            "metadata": (),
            "enum_instantiations": (),
            "variant_handles": (),
            "variant_instantiations": (),
        }
        for table in _TABLES:
            made[table] = tuple(getattr(self, table))
        made.update({table: tuple(entries) for table, entries in tables.items()})
        return CompiledModule(version=7, self_handle=0, **made)
