"""What a compiled package shows to the outside: functions, datatypes and errors, read from the bytecode.

One place that `dtp move info`, the generated names and the tests share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dtp.sui.bytecode import CompiledModule, FunctionDef, Opcode, Visibility


@dataclass(frozen=True, slots=True)
class SurfaceFunction:
    """A function that a transaction or another package may call. Types are as Move prints them.

    `aborts` are the errors it can reach, its callees of the same package included, as `module::EName`; what the
    framework itself aborts with (too small a balance, say) is not among them.
    """

    name: str
    type_parameters: int
    parameters: tuple[str, ...]
    returns: tuple[str, ...]
    is_entry: bool
    aborts: tuple[str, ...]

    def __str__(self) -> str:
        types = f"<{', '.join(f'T{i}' for i in range(self.type_parameters))}>" if self.type_parameters else ""
        returns = "" if not self.returns else ": " + _list(self.returns)
        return f"{self.name}{types}({', '.join(self.parameters)}){returns}"


@dataclass(frozen=True, slots=True)
class SurfaceDatatype:
    """A struct: its abilities and its fields with their types, in order. An event has copy and drop and no key."""

    name: str
    abilities: tuple[str, ...]
    type_parameters: int
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Error:
    """An `#[error]` constant that some function of the module aborts with."""

    number: int
    name: str
    message: str


@dataclass(frozen=True, slots=True)
class Surface:
    """What one module shows."""

    module: str
    size: int
    functions: tuple[SurfaceFunction, ...]
    datatypes: tuple[SurfaceDatatype, ...]
    errors: tuple[Error, ...]


def surfaces(compiled: Mapping[str, CompiledModule], modules: Mapping[str, bytes]) -> tuple[Surface, ...]:
    """Return the surfaces of a package's modules, in publishing order; `modules` holds their bytes."""
    reached = _reachable_errors(compiled)
    return tuple(
        Surface(
            module=name,
            size=len(code),
            functions=_functions(compiled[name], reached),
            datatypes=_datatypes(compiled[name]),
            errors=_errors(compiled[name]),
        )
        for name, code in modules.items()
    )


_Key = tuple[str, str]
"""Module and function."""


def _reachable_errors(compiled: Mapping[str, CompiledModule]) -> dict[_Key, tuple[str, ...]]:
    """Return errors by function, over all calls within the package."""
    own: dict[_Key, set[str]] = {}
    calls: dict[_Key, set[_Key]] = {}
    for module in compiled.values():
        for name, definition in module.functions.items():
            key = (module.name, name)
            own[key] = {f"{module.name}::{error.name}" for error in _loaded_errors(module, definition)}
            calls[key] = set(_called(module, definition))
    reached: dict[_Key, tuple[str, ...]] = {}
    for key in own:
        seen: set[_Key] = set()
        stack = [key]
        while stack:
            at = stack.pop()
            if at not in seen and at in own:
                seen.add(at)
                stack.extend(calls[at])
        reached[key] = tuple(sorted({error for at in seen for error in own[at]}))
    return reached


def _called(module: CompiledModule, definition: FunctionDef) -> Iterator[_Key]:
    for instruction in definition.body.code if definition.body else ():
        index = instruction.arg
        if not isinstance(index, int):
            continue
        if instruction.op is Opcode.CALL_GENERIC:
            handle = module.function_handles[module.function_instantiations[index].target]
        elif instruction.op is Opcode.CALL:
            handle = module.function_handles[index]
        else:
            continue
        address, name = module.module_id(handle.module)
        if address == module.address:
            yield name, module.identifiers[handle.name]


def _list(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"({', '.join(names)})"


def _functions(
    module: CompiledModule, reached: Mapping[_Key, tuple[str, ...]]
) -> tuple[SurfaceFunction, ...]:
    found = []
    for name, definition in module.functions.items():
        if definition.visibility is not Visibility.PUBLIC and not definition.is_entry:
            continue
        found.append(
            SurfaceFunction(
                name=name,
                type_parameters=len(module.function_handles[definition.handle].type_parameters),
                parameters=tuple(map(module.type_name, module.parameter_types(definition))),
                returns=tuple(map(module.type_name, module.return_types(definition))),
                is_entry=definition.is_entry,
                aborts=reached[module.name, name],
            )
        )
    return tuple(found)


def _datatypes(module: CompiledModule) -> tuple[SurfaceDatatype, ...]:
    found = []
    for name, struct in module.structs.items():
        handle = module.datatype_handles[struct.handle]
        fields = tuple(
            (module.identifiers[field.name], module.type_name(field.type)) for field in struct.fields or ()
        )
        found.append(
            SurfaceDatatype(name, handle.abilities.list_names(), len(handle.type_parameters), fields)
        )
    return tuple(found)


def _errors(module: CompiledModule) -> tuple[Error, ...]:
    found = {
        error.number: error
        for definition in module.function_defs
        for error in _loaded_errors(module, definition)
    }
    return tuple(found[number] for number in sorted(found))


def _loaded_errors(module: CompiledModule, definition: FunctionDef) -> Iterator[Error]:
    """Yield the errors of one function: every abort with an `#[error]` constant loads a u64 that names it."""
    for instruction in definition.body.code if definition.body else ():
        if instruction.op is not Opcode.LD_U64 or not isinstance(instruction.arg, int):
            continue
        abort = module.describe_abort(instruction.arg)
        if abort.number is not None and abort.name is not None:
            yield Error(abort.number, abort.name, abort.message or "")
