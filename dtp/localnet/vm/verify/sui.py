"""Last pass: the rules of Sui on top of Move's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtp.localnet.vm.blocks import to_blocks
from dtp.localnet.vm.types import DROP, KEY
from dtp.localnet.vm.verify.common import ModuleRefused, abilities, function_name
from dtp.localnet.vm.verify.internal import internal_parameters
from dtp.localnet.vm.verify.shapes import effect
from dtp.sui.bytecode import (
    CompiledModule,
    DatatypeType,
    FunctionDef,
    Instruction,
    Opcode,
    Primitive,
    ReferenceType,
    SignatureToken,
    TypeParameterIndex,
    VectorType,
    Visibility,
)

__all__ = ["check"]

_STD = (1).to_bytes(32, "big")
_SUI = (2).to_bytes(32, "big")
_READ_ONLY = ((_SUI, "clock", "Clock"), (_SUI, "random", "Random"))
_FRESH = frozenset(
    {
        (_SUI, "object", "new"),
        (_SUI, "object", "new_uid_from_hash"),
        (_SUI, "derived_object", "claim"),
        (_SUI, "test_scenario", "new_object"),
    }
)


def check(module: CompiledModule) -> None:
    """Raise `ModuleRefused` for the first rule that is broken."""
    _check_objects(module)
    witness = _check_witness(module)
    for function in module.function_defs:
        name = function_name(module, function)
        if function.body is not None:
            _check_calls(module, function, name)
            _check_fresh_ids(module, function, name)
        if name == "init":
            _check_init(module, function, witness)
        elif function.is_entry:
            _check_entry(module, function, name)


def _name(module: CompiledModule, token: SignatureToken) -> tuple[bytes, str, str] | None:
    if not isinstance(token, DatatypeType):
        return None
    entry = module.datatype_handles[token.handle]
    return (*module.module_id(entry.module), module.datatype_name(token.handle))


# ------------------------------------------------------------------------------------------------- objects


def _check_objects(module: CompiledModule) -> None:
    for struct in module.struct_defs:
        if not module.datatype_handles[struct.handle].abilities & KEY:
            continue
        name = module.datatype_name(struct.handle)
        fields = struct.fields or ()
        if not fields or module.identifiers[fields[0].name] != "id":
            raise ModuleRefused("object_id", "an object's first field is `id`", item=name, sui=True)
        if _name(module, fields[0].type) != (_SUI, "object", "UID"):
            raise ModuleRefused("object_id", "an object's `id` is a sui::object::UID", item=name, sui=True)
    for enum in module.enum_defs:
        if module.datatype_handles[enum.handle].abilities & KEY:
            raise ModuleRefused(
                "object_id", "an enum is not an object", item=module.datatype_name(enum.handle), sui=True
            )


def _check_fresh_ids(module: CompiledModule, function: FunctionDef, name: str) -> None:
    """Check that an object is packed with a UID straight from `object::new`: follow fresh ones through locals and the
    stack."""
    assert function.body is not None
    packs = {Opcode.PACK, Opcode.PACK_GENERIC}
    if not any(op in packs and _is_object(module, op, arg) for op, arg in function.body.code):
        return
    if (module.address, module.name) in (
        (_SUI, "clock"),
        (_SUI, "random"),
        (_SUI, "deny_list"),
    ) and name == "create":
        return
    blocks = to_blocks(function.body)
    states: dict[int, frozenset[int]] = {0: frozenset()}
    work = [0]
    while work:
        at = work.pop()
        fresh = set(states[at])
        _walk_fresh(module, function.body.code, blocks[at].start, blocks[at].end, fresh, name)
        for target in blocks[at].targets:
            known = states.get(target)
            joined = frozenset(fresh) if known is None else known & fresh
            if joined != known:
                states[target] = joined
                work.append(target)


def _walk_fresh(
    module: CompiledModule, code: Sequence[Instruction], start: int, end: int, fresh: set[int], name: str
) -> None:
    stack: list[bool] = []
    for at in range(start, end):
        op = code[at].op
        argument: Any = code[at].arg
        if op is Opcode.MOVE_LOC:
            stack.append(argument in fresh)
            fresh.discard(argument)
        elif op is Opcode.ST_LOC:
            (fresh.add if stack.pop() else fresh.discard)(argument)
        else:
            pops, pushes = effect(module, op, argument)
            taken = stack[len(stack) - pops :]
            del stack[len(stack) - pops :]
            if op in (Opcode.PACK, Opcode.PACK_GENERIC) and _is_object(module, op, argument) and not taken[0]:
                raise ModuleRefused(
                    "object_id",
                    "an object is made without a new UID of its own",
                    item=name,
                    offset=at,
                    sui=True,
                )
            is_fresh = op is Opcode.CALL and _called(module, argument) in _FRESH
            is_fresh |= op is Opcode.CALL_GENERIC and _called_generic(module, argument) in _FRESH
            stack.extend([is_fresh] * pushes)


def _is_object(module: CompiledModule, op: Opcode, argument: Any) -> bool:
    if op is Opcode.PACK_GENERIC:
        argument = module.struct_instantiations[argument].target
    struct = module.struct_defs[argument]
    return bool(module.datatype_handles[struct.handle].abilities & KEY)


# --------------------------------------------------------------------------------------------------- calls


def _called(module: CompiledModule, handle: int) -> tuple[bytes, str, str]:
    entry = module.function_handles[handle]
    return (*module.module_id(entry.module), module.function_name(handle))


def _called_generic(module: CompiledModule, index: int) -> tuple[bytes, str, str]:
    return _called(module, module.function_instantiations[index].target)


def _check_calls(module: CompiledModule, function: FunctionDef, name: str) -> None:
    """Check that `init` is never called, and transfers and events only by the module that declares the type."""
    assert function.body is not None
    argument: Any
    for at, (op, argument) in enumerate(function.body.code):
        if op is Opcode.CALL:
            called = _called(module, argument)
        elif op is Opcode.CALL_GENERIC:
            called = _called_generic(module, argument)
            entry = module.function_instantiations[argument]
            _check_private_generic(module, called, module.signatures[entry.type_arguments], name, at)
        else:
            continue
        if called[2] == "init":
            raise ModuleRefused(
                "init_called", "`init` is called by a function", item=name, offset=at, sui=True
            )


def _check_private_generic(
    module: CompiledModule,
    called: tuple[bytes, str, str],
    types: Sequence[SignatureToken],
    name: str,
    at: int,
) -> None:
    if (module.address, module.name) == (_SUI, "test_scenario"):
        return
    for index in internal_parameters(*called):
        token = types[index]
        if (
            not isinstance(token, DatatypeType)
            or module.datatype_handles[token.handle].module != module.self_handle
        ):
            raise ModuleRefused(
                "private_generic",
                f"{called[1]}::{called[2]} of {module.type_name(token)}: only the module that declares the type may "
                "call it",
                item=name,
                offset=at,
                sui=True,
            )


# ----------------------------------------------------------------------------------- witness, init, entry


def _check_witness(module: CompiledModule) -> int | None:
    """Return the handle of the module's one-time witness, if it declares one; and nobody packs it."""
    if (module.address, module.name) == (_SUI, "sui"):
        return None
    for at, struct in enumerate(module.struct_defs):
        name = module.datatype_name(struct.handle)
        fields = struct.fields or ()
        if name != module.name.upper() or [f.type for f in fields] != [Primitive.BOOL]:
            continue
        handle = module.datatype_handles[struct.handle]
        if handle.abilities != DROP or handle.type_parameters:
            raise ModuleRefused(
                "witness",
                "a one-time witness has the ability drop only and no type parameters",
                item=name,
                sui=True,
            )
        for function in module.function_defs:
            for offset, (op, argument) in enumerate(function.body.code if function.body else ()):
                if op is Opcode.PACK and argument == at:
                    raise ModuleRefused(
                        "witness",
                        f"the one-time witness {name} is made by hand",
                        item=function_name(module, function),
                        offset=offset,
                        sui=True,
                    )
        return struct.handle
    return None


def _is_context(module: CompiledModule, token: SignatureToken) -> bool:
    return isinstance(token, ReferenceType) and _name(module, token.target) == (
        _SUI,
        "tx_context",
        "TxContext",
    )


def _check_init(module: CompiledModule, function: FunctionDef, witness: int | None) -> None:
    def refuse(message: str) -> ModuleRefused:
        return ModuleRefused("init", message, item="init", sui=True)

    handle = module.function_handles[function.handle]
    parameters = module.signatures[handle.parameters]
    if function.visibility is not Visibility.PRIVATE or function.is_entry:
        raise refuse("`init` is private and not entry")
    if handle.type_parameters or module.signatures[handle.returns]:
        raise refuse("`init` has no type parameters and returns nothing")
    if not parameters or not _is_context(module, parameters[-1]):
        raise refuse("the last parameter of `init` is &mut TxContext or &TxContext")
    expected = () if witness is None else (DatatypeType(witness),)
    if parameters[:-1] != expected:
        raise refuse(
            "`init` takes the one-time witness of its module first"
            if witness is not None
            else "`init` takes nothing but the transaction context in a module without one-time witness"
        )


def _check_entry(module: CompiledModule, function: FunctionDef, name: str) -> None:
    handle = module.function_handles[function.handle]
    constraints = [int(a) for a in handle.type_parameters]
    parameters = module.signatures[handle.parameters]
    if parameters and _is_context(module, parameters[-1]):
        parameters = parameters[:-1]
    for token in parameters:
        by_value_or_mutable = token.target if isinstance(token, ReferenceType) and token.mutable else token
        if _name(module, by_value_or_mutable) in _READ_ONLY:
            raise ModuleRefused(
                "entry", "an entry function takes Clock and Random by & only", item=name, sui=True
            )
        if not _may_be_argument(module, token, constraints):
            raise ModuleRefused(
                "entry", f"an entry function can't take {module.type_name(token)}", item=name, sui=True
            )
    for token in module.signatures[handle.returns]:
        if isinstance(token, ReferenceType) or not abilities(module, token, constraints) & DROP:
            raise ModuleRefused(
                "entry", f"an entry function can't return {module.type_name(token)}", item=name, sui=True
            )


def _may_be_argument(module: CompiledModule, token: SignatureToken, constraints: Sequence[int]) -> bool:
    if _is_pure(module, token, constraints):
        return True
    target = token.target if isinstance(token, ReferenceType) else token
    if isinstance(target, VectorType) and not isinstance(token, ReferenceType):
        target = target.element
    if isinstance(target, DatatypeType | TypeParameterIndex) and abilities(module, target, constraints) & KEY:
        return True
    return _name(module, target) == (_SUI, "transfer", "Receiving")


def _is_pure(module: CompiledModule, token: SignatureToken, constraints: Sequence[int]) -> bool:
    """Return a primitive, a string, an id, or an option or vector of these; or a type parameter that can only be
    one."""
    match token:
        case Primitive.SIGNER:
            return False
        case Primitive():
            return True
        case VectorType(element):
            return _is_pure(module, element, constraints)
        case TypeParameterIndex(index):
            return not constraints[index] & KEY
        case DatatypeType(_, arguments):
            name = _name(module, token)
            if name == (_STD, "option", "Option"):
                return _is_pure(module, arguments[0], constraints)
            return name in ((_STD, "string", "String"), (_STD, "ascii", "String"), (_SUI, "object", "ID"))
        case _:
            return False
