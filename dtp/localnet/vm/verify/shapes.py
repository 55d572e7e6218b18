"""What instructions work on: fields under type arguments, and how many values each pops and pushes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dtp.sui.bytecode import (
    CompiledModule,
    DatatypeType,
    Opcode,
    ReferenceType,
    Signature,
    SignatureToken,
    TypeParameterIndex,
    VectorType,
)

__all__ = ["effect", "struct_fields", "substitute", "variant_of"]


def substitute(token: SignatureToken, arguments: Signature) -> SignatureToken:
    """Return the type with type arguments put in."""
    if not arguments:
        return token
    match token:
        case TypeParameterIndex(index):
            return arguments[index]
        case VectorType(element):
            return VectorType(substitute(element, arguments))
        case ReferenceType(target, mutable):
            return ReferenceType(substitute(target, arguments), mutable)
        case DatatypeType(handle, inner) if inner:
            return DatatypeType(handle, tuple(substitute(t, arguments) for t in inner))
        case _:
            return token


def struct_fields(
    module: CompiledModule, definition: int, arguments: Signature
) -> tuple[SignatureToken, list[SignatureToken]]:
    """Return a struct's type and its fields' types under type arguments."""
    entry = module.struct_defs[definition]
    return DatatypeType(entry.handle, arguments), [substitute(f.type, arguments) for f in entry.fields or ()]


def variant_of(
    module: CompiledModule, handle: int, generic: bool
) -> tuple[int, int, SignatureToken, list[SignatureToken], Signature]:
    """Enum definition, variant number, the enum's type, the variant's field types, the type arguments."""
    arguments: Signature = ()
    if generic:
        entry = module.variant_instantiations[handle]
        instance = module.enum_instantiations[entry.enum]
        definition, arguments = instance.target, module.signatures[instance.type_arguments]
    else:
        entry = module.variant_handles[handle]
        definition = entry.enum
    enum = module.enum_defs[definition]
    fields = [substitute(f.type, arguments) for f in enum.variants[entry.variant].fields]
    return definition, entry.variant, DatatypeType(enum.handle, arguments), fields, arguments


def effect(module: CompiledModule, op: Opcode, argument: Any) -> tuple[int, int]:
    """Return how many values an instruction pops and pushes."""
    plain = _EFFECTS.get(op)
    if plain is not None:
        return plain
    match op:
        case Opcode.CALL | Opcode.CALL_GENERIC:
            handle = argument
            if op is Opcode.CALL_GENERIC:
                handle = module.function_instantiations[argument].target
            entry = module.function_handles[handle]
            return len(module.signatures[entry.parameters]), len(module.signatures[entry.returns])
        case Opcode.PACK | Opcode.UNPACK:
            fields = len(module.struct_defs[argument].fields or ())
        case Opcode.PACK_GENERIC | Opcode.UNPACK_GENERIC:
            target = module.struct_instantiations[argument].target
            fields = len(module.struct_defs[target].fields or ())
        case Opcode.VEC_PACK | Opcode.VEC_UNPACK:
            fields = argument[1]
        case _:
            fields = len(variant_of(module, argument, "GENERIC" in op.name)[3])
    return (fields, 1) if op in _PACKS else (1, fields)


_PACKS = frozenset(
    {Opcode.PACK, Opcode.PACK_GENERIC, Opcode.PACK_VARIANT, Opcode.PACK_VARIANT_GENERIC, Opcode.VEC_PACK}
)


def _effects() -> Iterator[tuple[Opcode, tuple[int, int]]]:
    loads = (
        "LD_U8 LD_U16 LD_U32 LD_U64 LD_U128 LD_U256 LD_CONST LD_TRUE LD_FALSE COPY_LOC MOVE_LOC "
        "MUT_BORROW_LOC IMM_BORROW_LOC"
    )
    unary = (
        "CAST_U8 CAST_U16 CAST_U32 CAST_U64 CAST_U128 CAST_U256 NOT READ_REF FREEZE_REF MUT_BORROW_FIELD "
        "IMM_BORROW_FIELD MUT_BORROW_FIELD_GENERIC IMM_BORROW_FIELD_GENERIC VEC_LEN VEC_POP_BACK"
    )
    binary = "ADD SUB MUL DIV MOD BIT_AND BIT_OR XOR SHL SHR OR AND LT GT LE GE EQ NEQ VEC_IMM_BORROW VEC_MUT_BORROW"
    others = {
        "POP ST_LOC BR_TRUE BR_FALSE ABORT VARIANT_SWITCH": (1, 0),
        "BRANCH NOP": (0, 0),
        # A return takes what is there; nothing follows it in its block.
        "RET": (0, 0),
        "WRITE_REF VEC_PUSH_BACK": (2, 0),
        "VEC_SWAP": (3, 0),
        loads: (0, 1),
        unary: (1, 1),
        binary: (2, 1),
    }
    for names, effect in others.items():
        for name in names.split():
            yield Opcode[name], effect


_EFFECTS = dict(_effects())
