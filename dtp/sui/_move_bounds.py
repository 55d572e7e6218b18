"""Indices within bounds: the check between tables that follows reading (`check_bounds.rs` upstream).

After it, every index in a `CompiledModule` has an entry, every type has the right number of type arguments,
every branch stays in its function, and constants hold exactly a value of their type; so readers and VMs index
without checking again. It is not the bytecode verifier: types on the stack, abilities, borrow safety and
visibility of what is called are for the one who links.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized

from dtp.sui._move_format import (
    OPERANDS,
    SMALL_COUNT_MAX,
    BytecodeError,
    DatatypeType,
    Fault,
    Instruction,
    OperandKind,
    ReferenceType,
    Signature,
    SignatureToken,
    TypeParameterIndex,
    VectorType,
)
from dtp.sui._move_module import CodeUnit, CompiledModule, Field, FunctionDef, constant_value


def check(module: CompiledModule) -> None:
    """Raise `BytecodeError` for the first index, type or constant that doesn't fit."""
    if not module.module_handles:
        raise BytecodeError(Fault.NO_MODULE_HANDLES, "a module names at least itself")
    _within(module.module_handles, module.self_handle, "self module handle")
    for signature in module.signatures:
        _check_signature(module, signature)
    for constant in module.constants:
        _check_type(module, constant.type)
        constant_value(constant)
    _check_handles(module)
    _check_definitions(module)
    _check_instantiations(module)
    for function in module.function_defs:
        _check_function(module, function)


def _within(pool: Sized, index: int, what: str) -> None:
    if index >= len(pool):
        raise BytecodeError(Fault.INDEX_OUT_OF_BOUNDS, f"{what} {index} of {len(pool)}")


def _walk(token: SignatureToken) -> Iterator[SignatureToken]:
    stack = [token]
    while stack:
        head = stack.pop()
        yield head
        match head:
            case VectorType(inner) | ReferenceType(inner):
                stack.append(inner)
            case DatatypeType(_, arguments):
                stack.extend(arguments)
            case _:
                pass


def _check_type(module: CompiledModule, token: SignatureToken) -> None:
    for part in _walk(token):
        if isinstance(part, DatatypeType):
            _within(module.datatype_handles, part.handle, "datatype handle")
            expected = len(module.datatype_handles[part.handle].type_parameters)
            if expected != len(part.arguments):
                raise BytecodeError(
                    Fault.NUMBER_OF_TYPE_ARGUMENTS_MISMATCH,
                    f"{module.datatype_handles[part.handle]} takes {expected}, got {len(part.arguments)}",
                )


def _check_type_parameters(token: SignatureToken, count: int) -> None:
    for part in _walk(token):
        if isinstance(part, TypeParameterIndex) and part.index >= count:
            raise BytecodeError(Fault.INDEX_OUT_OF_BOUNDS, f"type parameter {part.index} of {count}")


def _check_signature(
    module: CompiledModule, signature: Signature, type_parameters: int | None = None
) -> None:
    for token in signature:
        _check_type(module, token)
        if type_parameters is not None:
            _check_type_parameters(token, type_parameters)


def _check_fields(module: CompiledModule, fields: tuple[Field, ...], type_parameters: int) -> None:
    for field in fields:
        _within(module.identifiers, field.name, "field name")
        _check_type(module, field.type)
        _check_type_parameters(field.type, type_parameters)


def _check_handles(module: CompiledModule) -> None:
    for module_handle in (*module.module_handles, *module.friend_decls):
        _within(module.addresses, module_handle.address, "address")
        _within(module.identifiers, module_handle.name, "module name")
    for datatype in module.datatype_handles:
        _within(module.module_handles, datatype.module, "module handle")
        _within(module.identifiers, datatype.name, "datatype name")
    for function in module.function_handles:
        _within(module.module_handles, function.module, "module handle")
        _within(module.identifiers, function.name, "function name")
        for index in (function.parameters, function.returns):
            _within(module.signatures, index, "signature")
            _check_signature(module, module.signatures[index], len(function.type_parameters))


def _check_definitions(module: CompiledModule) -> None:
    for struct in module.struct_defs:
        _within(module.datatype_handles, struct.handle, "struct handle")
        _check_fields(
            module, struct.fields or (), len(module.datatype_handles[struct.handle].type_parameters)
        )
    for enum in module.enum_defs:
        _within(module.datatype_handles, enum.handle, "enum handle")
        for variant in enum.variants:
            _within(module.identifiers, variant.name, "variant name")
            _check_fields(module, variant.fields, len(module.datatype_handles[enum.handle].type_parameters))
    for field in module.field_handles:
        _within(module.struct_defs, field.owner, "struct definition")
        _within(module.struct_defs[field.owner].fields or (), field.field, "field")


def _check_instantiations(module: CompiledModule) -> None:
    targets: tuple[tuple[str, Sized, str], ...] = (
        ("struct_instantiations", module.struct_defs, "struct definition"),
        ("enum_instantiations", module.enum_defs, "enum definition"),
        ("function_instantiations", module.function_handles, "function handle"),
        ("field_instantiations", module.field_handles, "field handle"),
    )
    for table, pool, what in targets:
        for entry in getattr(module, table):
            _within(pool, entry.target, what)
            _within(module.signatures, entry.type_arguments, "signature")
    for handle in module.variant_handles:
        _within(module.enum_defs, handle.enum, "enum definition")
        _within(module.enum_defs[handle.enum].variants, handle.variant, "variant")
    for handle in module.variant_instantiations:
        _within(module.enum_instantiations, handle.enum, "enum instantiation")
        enum = module.enum_defs[module.enum_instantiations[handle.enum].target]
        _within(enum.variants, handle.variant, "variant")


def _check_function(module: CompiledModule, function: FunctionDef) -> None:
    _within(module.function_handles, function.handle, "function handle")
    body = function.body
    if body is None:
        return
    handle = module.function_handles[function.handle]
    type_parameters = len(handle.type_parameters)
    _within(module.signatures, body.locals, "locals' signature")
    _check_signature(module, module.signatures[body.locals], type_parameters)
    slots = len(module.signatures[handle.parameters]) + len(module.signatures[body.locals])
    if slots > SMALL_COUNT_MAX:
        raise BytecodeError(
            Fault.TOO_MANY_LOCALS, f"{slots} parameters and locals, {SMALL_COUNT_MAX} at most"
        )
    name = module.identifiers[handle.name]
    pools = _pools(module, body, slots)
    for at, instruction in enumerate(body.code):
        try:
            _check_instruction(module, pools, instruction, type_parameters)
        except BytecodeError as fault:
            raise BytecodeError(fault.fault, f"{name}, instruction {at}: {fault.detail}") from None
    for table in body.jump_tables:
        _within(module.enum_defs, table.enum, "enum definition")
        variants = len(module.enum_defs[table.enum].variants)
        if len(table.offsets) != variants:
            raise BytecodeError(
                Fault.INVALID_ENUM_SWITCH, f"{name}: {len(table.offsets)} branches for {variants} variants"
            )
        for offset in table.offsets:
            _within(body.code, offset, f"{name}: branch target")


def _pools(module: CompiledModule, body: CodeUnit, slots: int) -> dict[OperandKind, Sized]:
    return {
        OperandKind.CODE_OFFSET: body.code,
        OperandKind.LOCAL: range(slots),
        OperandKind.CONSTANT: module.constants,
        OperandKind.FIELD_HANDLE: module.field_handles,
        OperandKind.FIELD_INST: module.field_instantiations,
        OperandKind.FUNCTION_HANDLE: module.function_handles,
        OperandKind.FUNCTION_INST: module.function_instantiations,
        OperandKind.STRUCT_DEF: module.struct_defs,
        OperandKind.STRUCT_INST: module.struct_instantiations,
        OperandKind.SIGNATURE: module.signatures,
        OperandKind.SIGNATURE_COUNT: module.signatures,
        OperandKind.VARIANT_HANDLE: module.variant_handles,
        OperandKind.VARIANT_INST: module.variant_instantiations,
        OperandKind.JUMP_TABLE: body.jump_tables,
    }


def _check_instruction(
    module: CompiledModule, pools: dict[OperandKind, Sized], instruction: Instruction, type_parameters: int
) -> None:
    operand = OPERANDS[instruction.op]
    pool = pools.get(operand)
    if pool is None or instruction.arg is None:
        return
    index = instruction.arg[0] if isinstance(instruction.arg, tuple) else instruction.arg
    _within(pool, index, operand.value)
    signature = _type_arguments(module, operand, index)
    if signature is not None:
        _check_signature(module, module.signatures[signature], type_parameters)


def _type_arguments(module: CompiledModule, operand: OperandKind, index: int) -> int | None:
    match operand:
        case OperandKind.SIGNATURE | OperandKind.SIGNATURE_COUNT:
            return index
        case OperandKind.FIELD_INST:
            return module.field_instantiations[index].type_arguments
        case OperandKind.FUNCTION_INST:
            return module.function_instantiations[index].type_arguments
        case OperandKind.STRUCT_INST:
            return module.struct_instantiations[index].type_arguments
        case OperandKind.VARIANT_INST:
            enum = module.variant_instantiations[index].enum
            return module.enum_instantiations[enum].type_arguments
        case _:
            return None
