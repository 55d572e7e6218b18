"""Compiled modules to bytes: the inverse of the reader, to make modules that no compiler would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dtp.sui.bytecode import (
    OPERANDS,
    CompiledModule,
    DatatypeType,
    FunctionDef,
    OperandKind,
    Primitive,
    ReferenceType,
    SignatureToken,
    TableKind,
    TypeParameterIndex,
    VectorType,
)

_PRIMITIVES = {
    Primitive.BOOL: 1,
    Primitive.U8: 2,
    Primitive.U64: 3,
    Primitive.U128: 4,
    Primitive.ADDRESS: 5,
    Primitive.SIGNER: 12,
    Primitive.U16: 13,
    Primitive.U32: 14,
    Primitive.U256: 15,
}
_LITERALS = {
    OperandKind.U8: 1,
    OperandKind.U16: 2,
    OperandKind.U32: 4,
    OperandKind.U64: 8,
    OperandKind.U128: 16,
    OperandKind.U256: 32,
}


def uleb(number: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _many(items: Sequence[Any], write: Callable[[Any], bytes]) -> bytes:
    return uleb(len(items)) + b"".join(map(write, items))


def _token(token: SignatureToken) -> bytes:
    match token:
        case Primitive():
            return bytes((_PRIMITIVES[token],))
        case VectorType(element):
            return b"\x0a" + _token(element)
        case ReferenceType(target, mutable):
            return (b"\x07" if mutable else b"\x06") + _token(target)
        case TypeParameterIndex(index):
            return b"\x09" + uleb(index)
        case DatatypeType(handle, ()):
            return b"\x08" + uleb(handle)
        case DatatypeType(handle, arguments):
            return b"\x0b" + uleb(handle) + _many(arguments, _token)


def _fields(fields: Sequence[Any]) -> bytes:
    return _many(fields, lambda f: uleb(f.name) + _token(f.type))


def _struct(definition: Any) -> bytes:
    if definition.fields is None:
        return uleb(definition.handle) + b"\x01"
    return uleb(definition.handle) + b"\x02" + _fields(definition.fields)


def _enum(definition: Any) -> bytes:
    return (
        uleb(definition.handle)
        + b"\x02"
        + _many(definition.variants, lambda v: uleb(v.name) + _fields(v.fields))
    )


def _instruction(instruction: Any) -> bytes:
    op, argument = instruction
    kind = OPERANDS[op]
    if kind is OperandKind.NONE:
        return bytes((op,))
    if kind in _LITERALS:
        return bytes((op,)) + argument.to_bytes(_LITERALS[kind], "little")
    if kind is OperandKind.SIGNATURE_COUNT:
        return bytes((op,)) + uleb(argument[0]) + argument[1].to_bytes(8, "little")
    return bytes((op,)) + uleb(argument)


def _function(definition: FunctionDef, version: int) -> bytes:
    flags = (2 if definition.body is None else 0) | (4 if definition.is_entry else 0)
    out = uleb(definition.handle) + bytes((definition.visibility, flags, 0))
    if definition.body is not None:
        out += uleb(definition.body.locals) + _many(definition.body.code, _instruction)
        if version >= 7:
            out += _many(
                definition.body.jump_tables,
                lambda t: uleb(t.enum) + uleb(len(t.offsets)) + b"\x01" + b"".join(map(uleb, t.offsets)),
            )
    return out


def write_module(m: CompiledModule) -> bytes:
    """The bytes that `deserialize` reads as `m`."""

    def pair(*names: str) -> Callable[[Any], bytes]:
        return lambda entry: b"".join(uleb(getattr(entry, name)) for name in names)

    instantiation = pair("target", "type_arguments")
    tables: list[tuple[TableKind, Sequence[Any], Callable[[Any], bytes]]] = [
        (TableKind.MODULE_HANDLES, m.module_handles, pair("address", "name")),
        (
            TableKind.DATATYPE_HANDLES,
            m.datatype_handles,
            lambda h: (
                uleb(h.module)
                + uleb(h.name)
                + uleb(h.abilities)
                + _many(h.type_parameters, lambda p: uleb(p.constraints) + uleb(p.is_phantom))
            ),
        ),
        (
            TableKind.FUNCTION_HANDLES,
            m.function_handles,
            lambda h: pair("module", "name", "parameters", "returns")(h) + _many(h.type_parameters, uleb),
        ),
        (TableKind.FUNCTION_INST, m.function_instantiations, instantiation),
        (TableKind.SIGNATURES, m.signatures, lambda s: _many(s, _token)),
        (TableKind.CONSTANT_POOL, m.constants, lambda c: _token(c.type) + uleb(len(c.data)) + c.data),
        (TableKind.METADATA, m.metadata, lambda e: uleb(len(e.key)) + e.key + uleb(len(e.value)) + e.value),
        (TableKind.IDENTIFIERS, m.identifiers, lambda i: uleb(len(i)) + i.encode()),
        (TableKind.ADDRESS_IDENTIFIERS, m.addresses, bytes),
        (TableKind.STRUCT_DEFS, m.struct_defs, _struct),
        (TableKind.STRUCT_DEF_INST, m.struct_instantiations, instantiation),
        (TableKind.FUNCTION_DEFS, m.function_defs, lambda f: _function(f, m.version)),
        (TableKind.FIELD_HANDLES, m.field_handles, pair("owner", "field")),
        (TableKind.FIELD_INST, m.field_instantiations, instantiation),
        (TableKind.FRIEND_DECLS, m.friend_decls, pair("address", "name")),
        (TableKind.ENUM_DEFS, m.enum_defs, _enum),
        (TableKind.ENUM_DEF_INST, m.enum_instantiations, instantiation),
        (TableKind.VARIANT_HANDLES, m.variant_handles, pair("enum", "variant")),
        (TableKind.VARIANT_INST_HANDLES, m.variant_instantiations, pair("enum", "variant")),
    ]
    header, body = b"", b""
    count = 0
    for kind, entries, write in tables:
        data = b"".join(map(write, entries))
        if data:
            header += bytes((kind,)) + uleb(len(body)) + uleb(len(data))
            body += data
            count += 1
    word = m.version if m.version < 7 else m.version | 0x05 << 24
    return (
        b"\xa1\x1c\xeb\x0b" + word.to_bytes(4, "little") + uleb(count) + header + body + uleb(m.self_handle)
    )
