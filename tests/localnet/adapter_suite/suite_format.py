"""Modules in the older format, 6: Sui's compiler wrote it for modules without enums until early in 2026.

The two differ in the version and in one byte for each function, the number of its jump tables. That byte is paid for
in storage, so figures of an older suite are met only by modules of its format.
"""

from __future__ import annotations

from dtp.sui.bcs import uleb128
from dtp.sui.bytecode import (
    OPERANDS,
    FunctionDef,
    Instruction,
    OperandKind,
    TableKind,
    deserialize,
)

_LITERALS = {
    OperandKind.U8: 1,
    OperandKind.U16: 2,
    OperandKind.U32: 4,
    OperandKind.U64: 8,
    OperandKind.U128: 16,
    OperandKind.U256: 32,
}


def older_format(module: bytes) -> bytes:
    """Return a module in format 6, or as it is where it has enums, which need format 7."""
    read = deserialize(module)
    if read.version < 7 or read.enum_defs or not read.function_defs:
        return module
    at, tables = 9, []
    for _ in range(module[8]):
        kind = module[at]
        start, at = _uleb(module, at + 1)
        size, at = _uleb(module, at)
        tables.append((kind, start, size))
    contents = {kind: module[at + start : at + start + size] for kind, start, size in tables}
    end = at + max(start + size for _, start, size in tables)
    contents[TableKind.FUNCTION_DEFS] = _without_counts(contents[TableKind.FUNCTION_DEFS], read.function_defs)
    header, body = b"", b""
    for kind, start, _ in tables:
        before = sum(len(contents[other]) for other, earlier, _ in tables if earlier < start)
        header += bytes([kind]) + uleb128(before) + uleb128(len(contents[kind]))
    for kind, _, _ in sorted(tables, key=lambda table: table[1]):
        body += contents[kind]
    return module[:4] + (6).to_bytes(4, "little") + module[8:9] + header + body + module[end:]


def _uleb(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _without_counts(table: bytes, functions: tuple[FunctionDef, ...]) -> bytes:
    """Return the table of functions without the byte that says of each that it has no jump table."""
    found, at = b"", 0
    for function in functions:
        size = len(uleb128(function.handle)) + 3
        if function.body is not None:
            code = function.body.code
            size += len(uleb128(function.body.locals)) + len(uleb128(len(code)))
            size += sum(_size(instruction) for instruction in code)
        found += table[at : at + size]
        at += size + (function.body is not None)
    assert at == len(table), "a function is of another size than was read"
    return found


def _size(instruction: Instruction) -> int:
    operand = OPERANDS[instruction.op]
    if operand is OperandKind.NONE:
        return 1
    if operand in _LITERALS:
        return 1 + _LITERALS[operand]
    if operand is OperandKind.SIGNATURE_COUNT:
        return 1 + len(uleb128(instruction.arg[0])) + 8  # type: ignore[index]
    return 1 + len(uleb128(instruction.arg))  # type: ignore[arg-type]
