"""Pass 3: everything that a module names elsewhere exists, looks the same there, and may be used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from dtp.localnet.limits import MAX_DEPENDENCY_DEPTH
from dtp.localnet.vm.types import abilities_text
from dtp.localnet.vm.verify.common import ModuleRefused, subsumes
from dtp.sui.bytecode import (
    CompiledModule,
    DatatypeType,
    Primitive,
    ReferenceType,
    SignatureToken,
    TypeParameterIndex,
    VectorType,
    Visibility,
)

__all__ = ["ModuleId", "check", "check_cycles", "check_depth", "named"]

ModuleId: TypeAlias = tuple[bytes, str]
Named: TypeAlias = tuple[object, ...]


def _short(id: ModuleId) -> str:
    return f"0x{id[0].hex().lstrip('0') or '0'}::{id[1]}"


def check(
    module: CompiledModule, others: Mapping[ModuleId, CompiledModule], missing_natives: Iterable[str]
) -> None:
    """Raise `ModuleRefused` unless all handles of `module` match what `others` define.

    `others` holds every module of the package itself and of its dependencies; `missing_natives` the qualified names
    of native functions that this machine lacks.
    """
    absent = frozenset(missing_natives)
    for id in module.dependencies:
        if id not in others:
            raise ModuleRefused("missing_module", f"module {_short(id)} does not exist")
    for at, datatype in enumerate(module.datatype_handles):
        if datatype.module != module.self_handle:
            _check_datatype(module, at, others[module.module_id(datatype.module)])
    for at, function in enumerate(module.function_handles):
        if function.module != module.self_handle:
            _check_function(module, at, others[module.module_id(function.module)], absent)


def _check_datatype(module: CompiledModule, at: int, owner: CompiledModule) -> None:
    name = module.datatype_name(at)
    where = f"{_short((owner.address, owner.name))}::{name}"
    definition = owner.structs.get(name) or owner.enums.get(name)
    if definition is None:
        raise ModuleRefused("missing_datatype", f"datatype {where} does not exist", item=name)
    used, defined = module.datatype_handles[at], owner.datatype_handles[definition.handle]
    if used.abilities != defined.abilities:
        raise ModuleRefused(
            "datatype_mismatch",
            f"{where} has {abilities_text(defined.abilities)}, not {abilities_text(used.abilities)}",
            item=name,
        )
    if len(used.type_parameters) != len(defined.type_parameters):
        raise ModuleRefused(
            "datatype_mismatch", f"{where} takes {len(defined.type_parameters)} type parameters", item=name
        )
    for ours, theirs in zip(used.type_parameters, defined.type_parameters, strict=True):
        if not subsumes(int(ours.constraints), int(theirs.constraints)) or (
            ours.is_phantom and not theirs.is_phantom
        ):
            raise ModuleRefused("datatype_mismatch", f"type parameters of {where} are different", item=name)


def _check_function(module: CompiledModule, at: int, owner: CompiledModule, absent: frozenset[str]) -> None:
    name = module.function_name(at)
    where = f"{_short((owner.address, owner.name))}::{name}"
    definition = owner.functions.get(name)
    if definition is None:
        raise ModuleRefused("missing_function", f"function {where} does not exist", item=name)
    if where in absent:
        raise ModuleRefused("missing_function", f"native function {where} does not exist here", item=name)
    if definition.visibility is Visibility.PRIVATE:
        raise ModuleRefused("not_visible", f"function {where} is private", item=name)
    if definition.visibility is Visibility.FRIEND and not _is_friend(module, owner):
        raise ModuleRefused("not_visible", f"function {where} is for its own package only", item=name)
    used, defined = module.function_handles[at], owner.function_handles[definition.handle]
    if len(used.type_parameters) != len(defined.type_parameters) or not all(
        subsumes(int(ours), int(theirs))
        for ours, theirs in zip(used.type_parameters, defined.type_parameters, strict=False)
    ):
        raise ModuleRefused("function_mismatch", f"type parameters of {where} are different", item=name)
    for ours, theirs in ((used.parameters, defined.parameters), (used.returns, defined.returns)):
        expected = [named(owner, t) for t in owner.signatures[theirs]]
        if [named(module, t) for t in module.signatures[ours]] != expected:
            text = ", ".join(owner.type_name(t) for t in owner.signatures[theirs])
            raise ModuleRefused("function_mismatch", f"{where} has the types ({text})", item=name)


def _is_friend(module: CompiledModule, owner: CompiledModule) -> bool:
    return any(
        (owner.addresses[f.address], owner.identifiers[f.name]) == (module.address, module.name)
        for f in owner.friend_decls
    )


def named(module: CompiledModule, token: SignatureToken) -> Named:
    """Return a type with names instead of this module's indices, to compare across modules."""
    match token:
        case Primitive():
            return (token.value,)
        case TypeParameterIndex(index):
            return ("parameter", index)
        case VectorType(element):
            return ("vector", named(module, element))
        case ReferenceType(target, mutable):
            return ("&mut" if mutable else "&", named(module, target))
        case DatatypeType(handle, arguments):
            entry = module.datatype_handles[handle]
            id = module.module_id(entry.module)
            return (*id, module.datatype_name(handle), *(named(module, a) for a in arguments))


def check_depth(own: Mapping[ModuleId, CompiledModule], all_: Mapping[ModuleId, CompiledModule]) -> None:
    """Check that no module of `own` depends on a chain of too many modules of other packages, as they are in `all_`.

    Those of the package itself don't count, as on Sui. A validator that has checked a part of the chain before, and
    remembers that, lets a longer one pass.
    """
    longest: dict[ModuleId, int] = {}

    def others(id: ModuleId) -> list[ModuleId]:
        return [each for each in all_[id].dependencies if each not in own and each in all_]

    for module in own:
        waiting = others(module)
        while waiting:
            id = waiting[-1]
            unknown = [each for each in others(id) if each not in longest]
            if id in longest or not unknown:
                waiting.pop()
                longest[id] = 1 + max((longest[each] for each in others(id)), default=0)
                if longest[id] > MAX_DEPENDENCY_DEPTH:
                    raise ModuleRefused(
                        "max_dependency_depth_reached", f"{_short(id)} is above so many others"
                    )
            else:
                waiting += unknown


def check_cycles(modules: Mapping[ModuleId, CompiledModule]) -> None:
    """Check that no module of a package depends on itself through others."""
    state: dict[ModuleId, int] = {}

    def visit(id: ModuleId, path: tuple[ModuleId, ...]) -> None:
        if state.get(id) == 1:
            raise ModuleRefused("cyclic_dependency", " -> ".join(_short(i) for i in (*path, id)))
        if state.get(id) == 2 or id not in modules:
            return
        state[id] = 1
        for dependency in modules[id].dependencies:
            visit(dependency, (*path, id))
        state[id] = 2

    for id in modules:
        visit(id, ())
