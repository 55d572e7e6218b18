"""What an upgrade may change in a module, per policy of its `UpgradeCap`."""

from __future__ import annotations

from typing import Any

from dtp.localnet.vm.contract import UpgradePolicy
from dtp.localnet.vm.verify.common import subsumes
from dtp.localnet.vm.verify.link import named
from dtp.sui.bytecode import OPERANDS, CompiledModule, FunctionDef, OperandKind, Visibility

__all__ = ["problem"]


def problem(old: CompiledModule, new: CompiledModule, policy: UpgradePolicy) -> str:
    """Return why `new` may not take the place of `old`; empty if it may.

    Compatible: datatypes stay as they are, public functions keep their signatures (constraints may be loosened,
    and `entry` may go: transactions call them all the same).
    Additive: besides, every function keeps its code. Dependencies only: besides, nothing is added.
    """
    for name in (*old.structs, *old.enums):
        before, after = _datatype(old, name), _datatype(new, name)
        if before != after:
            return f"datatype {name} is {'gone' if after is None else 'changed'}"
    for name, function in old.functions.items():
        fresh = new.functions.get(name)
        if policy is UpgradePolicy.COMPATIBLE:
            if function.visibility is Visibility.PUBLIC and not _links(old, function, new, fresh):
                return f"public function {name} is {'gone' if fresh is None else 'changed'}"
        elif fresh is None or _content(old, function) != _content(new, fresh):
            return f"function {name} is {'gone' if fresh is None else 'changed'}"
    if policy is UpgradePolicy.DEPENDENCY_ONLY:
        added = {*new.structs, *new.enums, *new.functions} - {*old.structs, *old.enums, *old.functions}
        if added:
            return f"{min(added)} is new"
    return ""


def _datatype(module: CompiledModule, name: str) -> Any:
    struct, enum = module.structs.get(name), module.enums.get(name)
    if struct is not None:
        handle, variants = struct.handle, [("", struct.fields or ())]
    elif enum is not None:
        handle, variants = enum.handle, [(module.identifiers[v.name], v.fields) for v in enum.variants]
    else:
        return None
    entry = module.datatype_handles[handle]
    fields = [
        (variant, [(module.identifiers[f.name], named(module, f.type)) for f in items])
        for variant, items in variants
    ]
    return struct is not None, entry.abilities, entry.type_parameters, fields


def _signature(module: CompiledModule, function: FunctionDef) -> Any:
    parameters = [named(module, t) for t in module.parameter_types(function)]
    return parameters, [named(module, t) for t in module.return_types(function)]


def _links(old: CompiledModule, before: FunctionDef, new: CompiledModule, after: FunctionDef | None) -> bool:
    if after is None or after.visibility is not Visibility.PUBLIC:
        return False
    had = old.function_handles[before.handle].type_parameters
    has = new.function_handles[after.handle].type_parameters
    if len(had) != len(has) or not all(subsumes(int(b), int(a)) for b, a in zip(had, has, strict=True)):
        return False
    return bool(_signature(old, before) == _signature(new, after))


def _content(module: CompiledModule, function: FunctionDef) -> Any:
    """Return a function with names instead of indices, so that two modules' can be compared."""
    handle = module.function_handles[function.handle]
    body = function.body
    code: Any = None
    if body is not None:
        instructions = [(op, _operand(module, OPERANDS[op], argument)) for op, argument in body.code]
        tables = [
            (module.datatype_name(module.enum_defs[t.enum].handle), t.offsets) for t in body.jump_tables
        ]
        code = [named(module, t) for t in module.signatures[body.locals]], instructions, tables
    return function.visibility, function.is_entry, handle.type_parameters, _signature(module, function), code


def _types(module: CompiledModule, signature: int) -> Any:
    return [named(module, t) for t in module.signatures[signature]]


def _operand(module: CompiledModule, kind: OperandKind, argument: Any) -> Any:
    m = module
    match kind:
        case OperandKind.CONSTANT:
            constant = m.constants[argument]
            return named(m, constant.type), constant.data
        case OperandKind.FUNCTION_HANDLE:
            return *m.module_id(m.function_handles[argument].module), m.function_name(argument)
        case OperandKind.FUNCTION_INST:
            entry = m.function_instantiations[argument]
            return _operand(m, OperandKind.FUNCTION_HANDLE, entry.target), _types(m, entry.type_arguments)
        case OperandKind.STRUCT_DEF:
            return m.datatype_name(m.struct_defs[argument].handle)
        case OperandKind.STRUCT_INST:
            entry = m.struct_instantiations[argument]
            return _operand(m, OperandKind.STRUCT_DEF, entry.target), _types(m, entry.type_arguments)
        case OperandKind.FIELD_HANDLE:
            field = m.field_handles[argument]
            return _operand(m, OperandKind.STRUCT_DEF, field.owner), field.field
        case OperandKind.FIELD_INST:
            entry = m.field_instantiations[argument]
            return _operand(m, OperandKind.FIELD_HANDLE, entry.target), _types(m, entry.type_arguments)
        case OperandKind.SIGNATURE:
            return _types(m, argument)
        case OperandKind.SIGNATURE_COUNT:
            return _types(m, argument[0]), argument[1]
        case OperandKind.VARIANT_HANDLE:
            variant = m.variant_handles[argument]
            return m.datatype_name(m.enum_defs[variant.enum].handle), variant.variant
        case OperandKind.VARIANT_INST:
            variant = m.variant_instantiations[argument]
            instance = m.enum_instantiations[variant.enum]
            name = m.datatype_name(m.enum_defs[instance.target].handle)
            return name, variant.variant, _types(m, instance.type_arguments)
        case _:
            return argument
