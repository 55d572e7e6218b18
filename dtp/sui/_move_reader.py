"""Bytes to tables: the deserializer of compiled Move modules.

Follows `deserializer.rs` of `move-binary-format`: a header (magic, version with flavor, table headers), the
tables' contents back to back without gaps, then the index of the module's own handle. Each table is read by
one function from the `_TABLES` dict; all reading goes through `ModuleCursor`, which knows the absolute offset for
errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from dtp.sui import _move_format as fmt
from dtp.sui._move_format import (
    BytecodeError,
    DatatypeType,
    Fault,
    Instruction,
    Opcode,
    OperandKind,
    ReferenceType,
    Signature,
    SignatureToken,
    TableKind,
    TypeParameterIndex,
    VectorType,
    Visibility,
)
from dtp.sui._move_module import (
    CodeUnit,
    CompiledModule,
    Constant,
    DatatypeHandle,
    DatatypeTypeParameter,
    EnumDef,
    Field,
    FieldHandle,
    FunctionDef,
    FunctionHandle,
    Instantiation,
    JumpTable,
    Metadata,
    ModuleHandle,
    StructDef,
    Variant,
    VariantHandle,
)

_IDENTIFIER = re.compile(r"(?:[a-zA-Z][a-zA-Z0-9_]*|_[a-zA-Z0-9_]+)\Z")
_FLAG_NATIVE = 0x2
_FLAG_ENTRY = 0x4
_STRUCT_NATIVE = 0x1
_DECLARED = 0x2
_JUMP_TABLE_FULL = 0x1


class ModuleCursor:
    """Reads forward between two absolute offsets of the module; never past `end`."""

    __slots__ = ("data", "end", "pos", "version")

    def __init__(self, data: bytes, pos: int, end: int, version: int = 0) -> None:
        self.data = data
        self.pos = pos
        self.end = end
        self.version = version

    def read_u8(self) -> int:
        """Return one byte."""
        if self.pos >= self.end:
            raise BytecodeError(Fault.TRUNCATED, "one more byte expected", self.pos)
        byte = self.data[self.pos]
        self.pos += 1
        return byte

    def read_bytes(self, size: int) -> bytes:
        """Return exactly `size` bytes."""
        if size > self.end - self.pos:
            raise BytecodeError(
                Fault.TRUNCATED, f"{size} bytes expected, {self.end - self.pos} left", self.pos
            )
        start = self.pos
        self.pos += size
        return self.data[start : self.pos]

    def read_number(self, size: int) -> int:
        """Return a little-endian number of `size` bytes."""
        return int.from_bytes(self.read_bytes(size), "little")

    def read_uleb(self, limit: int) -> int:
        """Return a canonical ULEB128 number of at most 64 bits that is no greater than `limit`."""
        start = self.pos
        value = 0
        shift = 0
        while True:
            byte = self.read_u8()
            value |= (byte & 0x7F) << shift
            if value >= 1 << 64 or shift > 63:
                raise BytecodeError(Fault.BAD_ULEB, "number over 64 bits", start)
            if byte < 0x80:
                break
            shift += 7
        if shift and not byte:
            raise BytecodeError(Fault.BAD_ULEB, "number is padded with zeros", start)
        if value > limit:
            raise BytecodeError(Fault.LIMIT_EXCEEDED, f"{value} is over the format's limit of {limit}", start)
        return value

    def read_index(self) -> int:
        """Return an index into an ordinary table."""
        return self.read_uleb(fmt.TABLE_INDEX_MAX)


class _Table(NamedTuple):
    kind: TableKind
    start: int
    end: int


def read_module(data: bytes, *, allow_unpublishable: bool) -> CompiledModule:
    """Read all tables. Indices are not yet checked against each other (see `_move_bounds.check`)."""
    header = ModuleCursor(data, 0, len(data))
    publishable = _read_magic(header, allow_unpublishable)
    version = _read_version(header)
    tables = _read_table_headers(header, version)
    content_end = max((t.end for t in tables), default=header.pos)
    tables_read: dict[str, tuple[Any, ...]] = {}
    for table in tables:
        field, reader = _TABLES[table.kind]
        cursor = ModuleCursor(data, table.start, table.end, version)
        entries = []
        while cursor.pos < table.end:
            entries.append(reader(cursor))
        tables_read[field] = tuple(entries)
    tail = ModuleCursor(data, content_end, len(data), version)
    self_handle = tail.read_index()
    if tail.pos != len(data):
        raise BytecodeError(Fault.TRAILING_BYTES, f"{len(data) - tail.pos} bytes after the module", tail.pos)
    empty: dict[str, tuple[Any, ...]] = {field: () for field, _ in _TABLES.values()}
    return CompiledModule(
        version=version, self_handle=self_handle, publishable=publishable, **(empty | tables_read)
    )


def _read_magic(cursor: ModuleCursor, allow_unpublishable: bool) -> bool:
    magic = cursor.read_bytes(4)
    if magic == fmt.MAGIC:
        return True
    if magic != fmt.UNPUBLISHABLE_MAGIC:
        raise BytecodeError(Fault.BAD_MAGIC, f"starts with {magic.hex()}, not {fmt.MAGIC.hex()}", 0)
    if not allow_unpublishable:
        raise BytecodeError(
            Fault.UNPUBLISHABLE, "compiled in test mode; compile it without tests to use it", 0
        )
    return False


def _read_version(cursor: ModuleCursor) -> int:
    word = cursor.read_number(4)
    if word < fmt.VERSION_ENUMS:
        version, flavor = word, fmt.SUI_FLAVOR
    else:
        version, flavor = word & 0xFFFFFF, word >> 24
    if not fmt.VERSION_MIN <= version <= fmt.VERSION_MAX:
        raise BytecodeError(
            Fault.UNKNOWN_VERSION,
            f"format version {version}; {fmt.VERSION_MIN} to {fmt.VERSION_MAX} are read",
            4,
        )
    if flavor != fmt.SUI_FLAVOR:
        raise BytecodeError(Fault.UNKNOWN_VERSION, f"flavor {flavor} isn't Sui's ({fmt.SUI_FLAVOR})", 7)
    return version


def _read_table_headers(cursor: ModuleCursor, version: int) -> list[_Table]:
    found: list[tuple[int, int, TableKind, int]] = []
    for _ in range(cursor.read_uleb(fmt.SMALL_COUNT_MAX)):
        at = cursor.pos
        byte = cursor.read_u8()
        try:
            kind = TableKind(byte)
        except ValueError:
            raise BytecodeError(Fault.UNKNOWN_TABLE_TYPE, f"table kind {byte:#x}", at) from None
        if kind in fmt.ENUM_TABLES and version < fmt.VERSION_ENUMS:
            raise BytecodeError(Fault.MALFORMED, f"{kind.name} needs version {fmt.VERSION_ENUMS}", at)
        found.append((cursor.read_uleb(0xFFFFFFFF), cursor.read_uleb(0xFFFFFFFF), kind, at))
    base = cursor.pos
    tables: list[_Table] = []
    expected = 0
    for offset, size, kind, at in sorted(found, key=lambda entry: entry[0]):
        if offset != expected or size == 0:
            raise BytecodeError(
                Fault.BAD_HEADER_TABLE, f"{kind.name} at {offset}+{size}, {expected} expected and no gap", at
            )
        expected += size
        if base + expected > cursor.end:
            raise BytecodeError(Fault.BAD_HEADER_TABLE, f"{kind.name} reaches past the end of the module", at)
        if any(table.kind is kind for table in tables):
            raise BytecodeError(Fault.DUPLICATE_TABLE, kind.name, at)
        tables.append(_Table(kind, base + offset, base + expected))
    return tables


# ---- entries of the tables


def _module_handle(c: ModuleCursor) -> ModuleHandle:
    return ModuleHandle(address=c.read_index(), name=c.read_index())


def _datatype_handle(c: ModuleCursor) -> DatatypeHandle:
    return DatatypeHandle(
        module=c.read_index(),
        name=c.read_index(),
        abilities=_abilities(c),
        type_parameters=tuple(
            DatatypeTypeParameter(_abilities(c), bool(c.read_uleb(1)))
            for _ in range(c.read_uleb(fmt.SMALL_COUNT_MAX))
        ),
    )


def _function_handle(c: ModuleCursor) -> FunctionHandle:
    return FunctionHandle(
        module=c.read_index(),
        name=c.read_index(),
        parameters=c.read_index(),
        returns=c.read_index(),
        type_parameters=tuple(_abilities(c) for _ in range(c.read_uleb(fmt.SMALL_COUNT_MAX))),
    )


def _instantiation(c: ModuleCursor) -> Instantiation:
    return Instantiation(target=c.read_index(), type_arguments=c.read_index())


def _field_handle(c: ModuleCursor) -> FieldHandle:
    return FieldHandle(owner=c.read_index(), field=c.read_uleb(fmt.SMALL_COUNT_MAX))


def _variant_handle(c: ModuleCursor) -> VariantHandle:
    return VariantHandle(enum=c.read_index(), variant=c.read_uleb(fmt.VARIANT_COUNT_MAX))


def _identifier(c: ModuleCursor) -> str:
    size = c.read_uleb(fmt.U16_MAX)
    at = c.pos
    raw = c.read_bytes(size)
    text = raw.decode("ascii", errors="replace")
    if not _IDENTIFIER.match(text):
        raise BytecodeError(Fault.INVALID_IDENTIFIER, f"{raw!r} isn't a Move identifier", at)
    return text


def _address(c: ModuleCursor) -> bytes:
    return c.read_bytes(fmt.ADDRESS_LENGTH)


def _constant(c: ModuleCursor) -> Constant:
    return Constant(type=_token(c), data=c.read_bytes(c.read_uleb(fmt.U16_MAX)))


def _metadata(c: ModuleCursor) -> Metadata:
    return Metadata(
        key=c.read_bytes(c.read_uleb(fmt.METADATA_KEY_SIZE_MAX)), value=c.read_bytes(c.read_uleb(fmt.U16_MAX))
    )


def _signature(c: ModuleCursor) -> Signature:
    return tuple(_token(c) for _ in range(c.read_uleb(fmt.SMALL_COUNT_MAX)))


def _abilities(c: ModuleCursor) -> fmt.Ability:
    at = c.pos
    value = c.read_uleb(0xFF)
    if value > fmt.ABILITY_ALL:
        raise BytecodeError(Fault.UNKNOWN_ABILITY, f"ability set {value:#x}", at)
    return fmt.Ability(value)


def _token(c: ModuleCursor, depth: int = 1) -> SignatureToken:
    at = c.pos
    if depth > fmt.SIGNATURE_TOKEN_DEPTH_MAX:
        raise BytecodeError(
            Fault.LIMIT_EXCEEDED, f"type nested over {fmt.SIGNATURE_TOKEN_DEPTH_MAX} deep", at
        )
    tag = c.read_u8()
    primitive = fmt.PRIMITIVE_TYPES.get(tag)
    if primitive is not None:
        return primitive
    match tag:
        case fmt.TYPE_VECTOR:
            return VectorType(_token(c, depth + 1))
        case fmt.TYPE_REFERENCE | fmt.TYPE_MUT_REFERENCE:
            return ReferenceType(_token(c, depth + 1), tag == fmt.TYPE_MUT_REFERENCE)
        case fmt.TYPE_DATATYPE:
            return DatatypeType(c.read_index())
        case fmt.TYPE_PARAMETER:
            return TypeParameterIndex(c.read_uleb(fmt.TYPE_PARAMETER_INDEX_MAX))
        case fmt.TYPE_DATATYPE_INST:
            handle = c.read_index()
            arity = c.read_uleb(fmt.SMALL_COUNT_MAX)
            if arity == 0:
                raise BytecodeError(Fault.MALFORMED, "instantiation without type arguments", at)
            return DatatypeType(handle, tuple(_token(c, depth + 1) for _ in range(arity)))
        case _:
            raise BytecodeError(Fault.UNKNOWN_SERIALIZED_TYPE, f"type tag {tag:#x}", at)


def _fields(c: ModuleCursor) -> tuple[Field, ...]:
    return tuple(Field(c.read_index(), _token(c)) for _ in range(c.read_uleb(fmt.SMALL_COUNT_MAX)))


def _struct_def(c: ModuleCursor) -> StructDef:
    handle = c.read_index()
    at = c.pos
    flag = c.read_u8()
    if flag == _STRUCT_NATIVE:
        return StructDef(handle, None)
    if flag != _DECLARED:
        raise BytecodeError(Fault.UNKNOWN_NATIVE_STRUCT_FLAG, f"struct flag {flag:#x}", at)
    return StructDef(handle, _fields(c))


def _enum_def(c: ModuleCursor) -> EnumDef:
    handle = c.read_index()
    at = c.pos
    flag = c.read_u8()
    if flag != _DECLARED:
        raise BytecodeError(Fault.UNKNOWN_ENUM_FLAG, f"enum flag {flag:#x}", at)
    count = c.read_uleb(fmt.VARIANT_COUNT_MAX)
    if count == 0:
        raise BytecodeError(Fault.MALFORMED, "enum without variants", at)
    return EnumDef(handle, tuple(Variant(c.read_index(), _fields(c)) for _ in range(count)))


def _function_def(c: ModuleCursor) -> FunctionDef:
    handle = c.read_index()
    at = c.pos
    byte = c.read_u8()
    try:
        visibility = Visibility(byte)
    except ValueError:
        raise BytecodeError(Fault.MALFORMED, f"visibility {byte:#x}", at) from None
    at = c.pos
    flags = c.read_u8()
    if flags & ~(_FLAG_NATIVE | _FLAG_ENTRY):
        raise BytecodeError(Fault.INVALID_FLAG_BITS, f"function flags {flags:#x}", at)
    at = c.pos
    if c.read_uleb(fmt.SMALL_COUNT_MAX):
        raise BytecodeError(Fault.DEPRECATED_BYTECODE_FORMAT, "`acquires`: Sui has no global storage", at)
    body = None if flags & _FLAG_NATIVE else _code_unit(c)
    return FunctionDef(handle, visibility, bool(flags & _FLAG_ENTRY), body)


def _code_unit(c: ModuleCursor) -> CodeUnit:
    local_types = c.read_index()
    code = tuple(_instruction(c) for _ in range(c.read_uleb(fmt.U16_MAX)))
    tables: tuple[JumpTable, ...] = ()
    if c.version >= fmt.VERSION_ENUMS:
        tables = tuple(_jump_table(c) for _ in range(c.read_uleb(fmt.JUMP_TABLE_INDEX_MAX)))
    return CodeUnit(local_types, code, tables)


def _jump_table(c: ModuleCursor) -> JumpTable:
    enum = c.read_index()
    branches = c.read_uleb(fmt.VARIANT_COUNT_MAX)
    at = c.pos
    flag = c.read_u8()
    if flag != _JUMP_TABLE_FULL:
        raise BytecodeError(Fault.UNKNOWN_JUMP_TABLE_FLAG, f"jump table flag {flag:#x}", at)
    return JumpTable(enum, tuple(c.read_uleb(fmt.U16_MAX) for _ in range(branches)))


_OPCODES: dict[int, Opcode] = {int(op): op for op in Opcode}


def _instruction(c: ModuleCursor) -> Instruction:
    at = c.pos
    byte = c.read_u8()
    op = _OPCODES.get(byte)
    if op is None:
        fault = Fault.DEPRECATED_BYTECODE_FORMAT if byte in fmt.DEPRECATED_OPCODES else Fault.UNKNOWN_OPCODE
        raise BytecodeError(fault, f"opcode {byte:#x}", at)
    if op >= Opcode.PACK_VARIANT and c.version < fmt.VERSION_ENUMS:
        raise BytecodeError(Fault.MALFORMED, f"{op.name} needs version {fmt.VERSION_ENUMS}", at)
    operand = fmt.OPERANDS[op]
    if operand is OperandKind.NONE:
        return Instruction(op, None)
    size = fmt.LITERAL_SIZES.get(operand)
    if size is not None:
        return Instruction(op, c.read_number(size))
    index = c.read_uleb(fmt.INDEX_LIMITS[operand])
    if operand is OperandKind.SIGNATURE_COUNT:
        return Instruction(op, (index, c.read_number(8)))
    return Instruction(op, index)


_TABLES: dict[TableKind, tuple[str, Callable[[ModuleCursor], Any]]] = {
    TableKind.MODULE_HANDLES: ("module_handles", _module_handle),
    TableKind.DATATYPE_HANDLES: ("datatype_handles", _datatype_handle),
    TableKind.FUNCTION_HANDLES: ("function_handles", _function_handle),
    TableKind.FUNCTION_INST: ("function_instantiations", _instantiation),
    TableKind.SIGNATURES: ("signatures", _signature),
    TableKind.CONSTANT_POOL: ("constants", _constant),
    TableKind.IDENTIFIERS: ("identifiers", _identifier),
    TableKind.ADDRESS_IDENTIFIERS: ("addresses", _address),
    TableKind.STRUCT_DEFS: ("struct_defs", _struct_def),
    TableKind.STRUCT_DEF_INST: ("struct_instantiations", _instantiation),
    TableKind.FUNCTION_DEFS: ("function_defs", _function_def),
    TableKind.FIELD_HANDLES: ("field_handles", _field_handle),
    TableKind.FIELD_INST: ("field_instantiations", _instantiation),
    TableKind.FRIEND_DECLS: ("friend_decls", _module_handle),
    TableKind.METADATA: ("metadata", _metadata),
    TableKind.ENUM_DEFS: ("enum_defs", _enum_def),
    TableKind.ENUM_DEF_INST: ("enum_instantiations", _instantiation),
    TableKind.VARIANT_HANDLES: ("variant_handles", _variant_handle),
    TableKind.VARIANT_INST_HANDLES: ("variant_instantiations", _variant_handle),
}
