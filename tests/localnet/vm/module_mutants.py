"""Modules changed at random anywhere: tables, types, abilities, handles, code, jump tables, constants, bytes."""

from __future__ import annotations

import random
from dataclasses import fields, is_dataclass, replace
from typing import Any

from move_writer import write_module

from dtp.sui.bytecode import (
    DEPRECATED_OPCODES,
    OPERANDS,
    Ability,
    CompiledModule,
    DatatypeType,
    FunctionDef,
    Instruction,
    Opcode,
    OperandKind,
    Primitive,
    ReferenceType,
    SignatureToken,
    TypeParameterIndex,
    VectorType,
    Visibility,
)

__all__ = ["mutant"]

_TABLES = [f.name for f in fields(CompiledModule) if f.name not in ("version", "self_handle", "publishable")]
_OPCODES = [op for op in Opcode if op not in DEPRECATED_OPCODES]
_LITERALS = {
    OperandKind.U8: 8,
    OperandKind.U16: 16,
    OperandKind.U32: 32,
    OperandKind.U64: 64,
    OperandKind.U128: 128,
    OperandKind.U256: 256,
}
_NAMES = ("init", "id", "<SELF>", "COUNTED", "a" * 129)


def _token(chance: random.Random, m: CompiledModule, depth: int = 0) -> SignatureToken:
    kind = chance.randrange(9)
    if kind < 4 or depth > 6:
        return chance.choice(list(Primitive))
    if kind == 4:
        return VectorType(_token(chance, m, depth + 1))
    if kind == 5:
        return ReferenceType(_token(chance, m, depth + 1), chance.random() < 0.5)
    if kind == 6 or not m.datatype_handles:
        return TypeParameterIndex(chance.randrange(3))
    handle = chance.randrange(len(m.datatype_handles))
    count = len(m.datatype_handles[handle].type_parameters) if chance.random() < 0.9 else chance.randrange(3)
    return DatatypeType(handle, tuple(_token(chance, m, depth + 1) for _ in range(count)))


def _index(chance: random.Random, m: CompiledModule) -> int:
    return chance.randrange(max(1, len(getattr(m, chance.choice(_TABLES)))))


def _bytes(chance: random.Random, data: bytes) -> bytes:
    if len(data) == 32:
        return data[:31] + bytes((chance.randrange(4),))
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.randbytes(chance.randrange(2)) + data[at + chance.randrange(2) :]


def _changed(chance: random.Random, m: CompiledModule, value: Any) -> Any:
    match value:
        case bool():
            return not value
        case Visibility():
            return chance.choice(list(Visibility))
        case Ability():
            return Ability(chance.randrange(16))
        case Primitive() | VectorType() | ReferenceType() | TypeParameterIndex() | DatatypeType():
            return _token(chance, m)
        case int():
            return chance.choice((max(0, value - 1), value + 1, chance.randrange(4), _index(chance, m)))
        case str():
            return chance.choice((*_NAMES, value + "x", chance.choice(m.identifiers)))
        case bytes():
            return _bytes(chance, value)
        case tuple() if value and not isinstance(value[0], Instruction):
            return _changed_table(chance, m, value)
    if is_dataclass(value) and not isinstance(value, type):
        name = chance.choice(fields(value)).name
        return replace(value, **{name: _changed(chance, m, getattr(value, name))})
    return value


def _changed_table(chance: random.Random, m: CompiledModule, table: tuple[Any, ...]) -> tuple[Any, ...]:
    entries = list(table)
    at, other = chance.randrange(len(entries)), chance.randrange(len(entries))
    match chance.randrange(8):
        case 0:
            entries.append(entries[at])
        case 1:
            del entries[at]
        case 2:
            entries[at], entries[other] = entries[other], entries[at]
        case _:
            entries[at] = _changed(chance, m, entries[at])
    return tuple(entries)


def _operand(
    chance: random.Random, m: CompiledModule, kind: OperandKind, function: FunctionDef, size: int
) -> Any:
    assert function.body is not None
    if kind is OperandKind.NONE:
        return None
    if kind in _LITERALS:
        most = (1 << _LITERALS[kind]) - 1
        return chance.choice((0, 1, most, chance.randint(0, most)))
    if kind is OperandKind.SIGNATURE_COUNT:
        return chance.randrange(len(m.signatures)), chance.choice((0, 1, 2, 5, 1 << 20, 1 << 63))
    if kind is OperandKind.LOCAL:
        return chance.randrange(
            len(m.parameter_types(function)) + len(m.signatures[function.body.locals]) or 1
        )
    if kind is OperandKind.CODE_OFFSET:
        return chance.randrange(size)
    return _index(chance, m)


def _changed_code(chance: random.Random, m: CompiledModule) -> CompiledModule:
    at = chance.choice([i for i, f in enumerate(m.function_defs) if f.body is not None])
    function = m.function_defs[at]
    assert function.body is not None
    code = list(function.body.code)
    place, other = chance.randrange(len(code)), chance.randrange(len(code))
    op = chance.choice(_OPCODES)
    fresh = Instruction(op, _operand(chance, m, OPERANDS[op], function, len(code)))
    match chance.randrange(6):
        case 0 if len(code) > 1:
            del code[place]
        case 1:
            code.insert(place, code[other])
        case 2:
            code[place], code[other] = code[other], code[place]
        case 3:
            code[place] = fresh
        case 4:
            code.insert(place, fresh)
        case _:
            kept = code[place].op
            code[place] = Instruction(kept, _operand(chance, m, OPERANDS[kept], function, len(code)))
    definitions = list(m.function_defs)
    definitions[at] = replace(function, body=replace(function.body, code=tuple(code)))
    return replace(m, function_defs=tuple(definitions))


def mutant(chance: random.Random, original: CompiledModule) -> bytes:
    """Return the bytes of `original` changed in one to three places; some are no module any more."""
    while True:
        m = original
        for _ in range(chance.choice((1, 1, 2, 3))):
            if chance.random() < 0.4:
                m = _changed_code(chance, m)
            else:
                name = chance.choice([t for t in _TABLES if getattr(m, t)])
                m = replace(m, **{name: _changed_table(chance, m, getattr(m, name))})  # type: ignore[arg-type]
        try:
            data = bytearray(write_module(m))
        except (OverflowError, ValueError):
            continue  # no form of the format can say this
        if chance.random() < 0.1:
            data[chance.randrange(len(data))] = chance.randrange(256)
        return bytes(data)
