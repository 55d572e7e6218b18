"""A compiled Move module as frozen dataclasses, with the look-ups that everyone who reads one needs.

Indices are kept as the binary has them (`datatype_handles[i]`, ...), so that a VM can resolve each table
once; the `*_name` and `describe_*` methods of `CompiledModule` turn them into words.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from dtp.sui._move_format import (
    Ability,
    BytecodeError,
    DatatypeType,
    Fault,
    Instruction,
    Primitive,
    ReferenceType,
    Signature,
    SignatureToken,
    TypeParameterIndex,
    VectorType,
    Visibility,
)


@dataclass(frozen=True, slots=True)
class ModuleHandle:
    """A module that is referred to: indices into `addresses` and `identifiers`."""

    address: int
    name: int


@dataclass(frozen=True, slots=True)
class DatatypeTypeParameter:
    """A type parameter of a struct or enum."""

    constraints: Ability
    is_phantom: bool


@dataclass(frozen=True, slots=True)
class DatatypeHandle:
    """A struct or enum that is defined here or used from elsewhere."""

    module: int
    name: int
    abilities: Ability
    type_parameters: tuple[DatatypeTypeParameter, ...]


@dataclass(frozen=True, slots=True)
class FunctionHandle:
    """A function that is defined here or called elsewhere; `parameters` and `returns` index `signatures`."""

    module: int
    name: int
    parameters: int
    returns: int
    type_parameters: tuple[Ability, ...]


@dataclass(frozen=True, slots=True)
class Instantiation:
    """An entry (`target`: struct def, enum def, function handle or field handle) with type arguments."""

    target: int
    type_arguments: int


@dataclass(frozen=True, slots=True)
class FieldHandle:
    """Field number `field` of struct definition `owner`."""

    owner: int
    field: int


@dataclass(frozen=True, slots=True)
class VariantHandle:
    """Variant number `variant` of an enum definition, or of an enum instantiation in the generic table."""

    enum: int
    variant: int


@dataclass(frozen=True, slots=True)
class Field:
    """A named field; `name` indexes `identifiers`."""

    name: int
    type: SignatureToken


@dataclass(frozen=True, slots=True)
class StructDef:
    """A struct of this module; `fields` is None for a native struct."""

    handle: int
    fields: tuple[Field, ...] | None


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant of an enum; its tag is its place in `EnumDef.variants`."""

    name: int
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class EnumDef:
    """An enum of this module (version 7)."""

    handle: int
    variants: tuple[Variant, ...]


@dataclass(frozen=True, slots=True)
class JumpTable:
    """Targets of a `VARIANT_SWITCH`: `offsets[tag]` is an index into the function's instructions."""

    enum: int
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CodeUnit:
    """A function's body; `locals` indexes `signatures` and lists the locals after the parameters."""

    locals: int
    code: tuple[Instruction, ...]
    jump_tables: tuple[JumpTable, ...]


@dataclass(frozen=True, slots=True)
class FunctionDef:
    """A function of this module; `body` is None for a native function."""

    handle: int
    visibility: Visibility
    is_entry: bool
    body: CodeUnit | None

    @property
    def is_native(self) -> bool:
        """True when the function has no bytecode."""
        return self.body is None


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant: its type and its value in BCS."""

    type: SignatureToken
    data: bytes


@dataclass(frozen=True, slots=True)
class Metadata:
    """An entry of the metadata table (refused by Sui's validators, kept for reading)."""

    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class AbortCode:
    """An abort code with what it says about the source.

    `raw` is the u64; the rest is None for a plain number. `line` is the line in the source file (of the
    assert, in the module that aborted), `name` the constant's name, `message` its value when it is text,
    `number` the N of `#[error(code = N)]`.
    """

    raw: int
    line: int | None = None
    name: str | None = None
    message: str | None = None
    number: int | None = None


_ABORT_VERSIONS = (0b1000, 0b1100)
_UNAVAILABLE_U16 = 0xFFFF
_UNAVAILABLE_U8 = 0xFF


@dataclass(frozen=True)
class CompiledModule:
    """A whole module; every table in the order of the binary. Made by `dtp.sui.bytecode.deserialize`."""

    version: int
    self_handle: int
    module_handles: tuple[ModuleHandle, ...]
    datatype_handles: tuple[DatatypeHandle, ...]
    function_handles: tuple[FunctionHandle, ...]
    field_handles: tuple[FieldHandle, ...]
    friend_decls: tuple[ModuleHandle, ...]
    struct_instantiations: tuple[Instantiation, ...]
    function_instantiations: tuple[Instantiation, ...]
    field_instantiations: tuple[Instantiation, ...]
    signatures: tuple[Signature, ...]
    identifiers: tuple[str, ...]
    addresses: tuple[bytes, ...]
    constants: tuple[Constant, ...]
    metadata: tuple[Metadata, ...]
    struct_defs: tuple[StructDef, ...]
    function_defs: tuple[FunctionDef, ...]
    enum_defs: tuple[EnumDef, ...]
    enum_instantiations: tuple[Instantiation, ...]
    variant_handles: tuple[VariantHandle, ...]
    variant_instantiations: tuple[VariantHandle, ...]
    publishable: bool = True

    # ---- who am I

    @property
    def name(self) -> str:
        """The module's own name."""
        return self.identifiers[self.module_handles[self.self_handle].name]

    @property
    def address(self) -> bytes:
        """The module's own address, 32 bytes; zero in a module that is yet to be published."""
        return self.addresses[self.module_handles[self.self_handle].address]

    def module_id(self, handle: int) -> tuple[bytes, str]:
        """Address and name of the module handle of that index."""
        entry = self.module_handles[handle]
        return self.addresses[entry.address], self.identifiers[entry.name]

    @cached_property
    def dependencies(self) -> tuple[tuple[bytes, str], ...]:
        """Address and name of every other module that this one refers to, in table order."""
        return tuple(self.module_id(i) for i in range(len(self.module_handles)) if i != self.self_handle)

    # ---- names of things

    def datatype_name(self, handle: int) -> str:
        """Name of the datatype handle of that index, without its module."""
        return self.identifiers[self.datatype_handles[handle].name]

    def function_name(self, handle: int) -> str:
        """Name of the function handle of that index, without its module."""
        return self.identifiers[self.function_handles[handle].name]

    @cached_property
    def functions(self) -> dict[str, FunctionDef]:
        """Functions of this module by name, in definition order."""
        return {self.function_name(f.handle): f for f in self.function_defs}

    @cached_property
    def structs(self) -> dict[str, StructDef]:
        """Structs of this module by name, in definition order."""
        return {self.datatype_name(s.handle): s for s in self.struct_defs}

    @cached_property
    def enums(self) -> dict[str, EnumDef]:
        """Enums of this module by name, in definition order."""
        return {self.datatype_name(e.handle): e for e in self.enum_defs}

    def parameter_types(self, function: FunctionDef) -> Signature:
        """Return types of the parameters."""
        return self.signatures[self.function_handles[function.handle].parameters]

    def return_types(self, function: FunctionDef) -> Signature:
        """Return types of the results."""
        return self.signatures[self.function_handles[function.handle].returns]

    def type_name(self, token: SignatureToken) -> str:
        """Return a type as Move source would print it, datatypes as `0x2::coin::Coin<T0>`."""
        match token:
            case Primitive():
                return token.value
            case VectorType(element):
                return f"vector<{self.type_name(element)}>"
            case ReferenceType(target, mutable):
                return f"{'&mut ' if mutable else '&'}{self.type_name(target)}"
            case TypeParameterIndex(index):
                return f"T{index}"
            case DatatypeType(handle, arguments):
                address, module = self.module_id(self.datatype_handles[handle].module)
                short = address.hex().lstrip("0") or "0"
                inner = f"<{', '.join(map(self.type_name, arguments))}>" if arguments else ""
                return f"0x{short}::{module}::{self.datatype_name(handle)}{inner}"

    # ---- abort codes

    def describe_abort(self, raw: int) -> AbortCode:
        """Return what an abort code raised by this module says.

        `#[error]` constants put line, name and value of the constant into the u64 (`error_bitset.rs`): 4
        bits version, 4 reserved, 8 the code, 16 the line, 16 the index of an identifier's constant, 16 that
        of the value. Codes that are plain numbers, or whose indices this module doesn't have, come back
        with `raw` only.
        """
        if not 0 <= raw < 1 << 64:
            raise BytecodeError(Fault.MALFORMED, f"an abort code is a u64, got {raw}")
        if raw >> 60 not in _ABORT_VERSIONS:
            return AbortCode(raw)
        line = (raw >> 32) & 0xFFFF
        number = (raw >> 48) & 0xFF
        name = self._constant_text((raw >> 16) & 0xFFFF)
        message = self._constant_text(raw & 0xFFFF)
        return AbortCode(
            raw,
            line=None if line == _UNAVAILABLE_U16 else line,
            name=name,
            message=message,
            number=None if raw >> 60 == _ABORT_VERSIONS[0] or number == _UNAVAILABLE_U8 else number,
        )

    def _constant_text(self, index: int) -> str | None:
        if index == _UNAVAILABLE_U16 or index >= len(self.constants):
            return None
        constant = self.constants[index]
        if constant.type != VectorType(Primitive.U8):
            return None
        value = constant_value(constant)
        if not isinstance(value, bytes):
            return None
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None


ConstantValue = bool | int | bytes | tuple["ConstantValue", ...]
"""A constant in Python: addresses and `vector<u8>` as bytes, other vectors as tuples."""

_INTEGER_SIZES = {
    Primitive.U8: 1,
    Primitive.U16: 2,
    Primitive.U32: 4,
    Primitive.U64: 8,
    Primitive.U128: 16,
    Primitive.U256: 32,
}


def constant_value(constant: Constant) -> ConstantValue:
    """Decode a constant's BCS.

    Raises `BytecodeError` (MALFORMED_CONSTANT_DATA) when the bytes don't hold exactly one value of the type
    or the type can't be a constant's; `offset` then counts from the start of the constant's data.
    """
    value, end = _decode(constant.type, constant.data, 0)
    if end != len(constant.data):
        raise BytecodeError(Fault.MALFORMED_CONSTANT_DATA, "bytes after the constant's value", end)
    return value


def _take(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise BytecodeError(Fault.MALFORMED_CONSTANT_DATA, f"{size} bytes wanted, {len(data) - at} left", at)
    return data[at : at + size]


def _decode(token: SignatureToken, data: bytes, at: int) -> tuple[ConstantValue, int]:
    match token:
        case Primitive.BOOL:
            byte = _take(data, at, 1)[0]
            if byte > 1:
                raise BytecodeError(Fault.MALFORMED_CONSTANT_DATA, f"a bool is 0 or 1, got {byte}", at)
            return bool(byte), at + 1
        case Primitive.ADDRESS:
            return _take(data, at, 32), at + 32
        case Primitive() if token in _INTEGER_SIZES:
            size = _INTEGER_SIZES[token]
            return int.from_bytes(_take(data, at, size), "little"), at + size
        case VectorType(element):
            count, at = _decode_length(data, at)
            if element is Primitive.U8:
                return _take(data, at, count), at + count
            items: list[ConstantValue] = []
            for _ in range(count):
                item, at = _decode(element, data, at)
                items.append(item)
            return tuple(items), at
        case _:
            raise BytecodeError(Fault.MALFORMED_CONSTANT_DATA, f"{token} can't be a constant's type", at)


def _decode_length(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        byte = _take(data, at, 1)[0]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            if shift and not byte:
                break
            return value, at
    raise BytecodeError(Fault.MALFORMED_CONSTANT_DATA, "a vector's length isn't canonical ULEB128", at)
