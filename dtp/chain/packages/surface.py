"""What a compiled package shows to the outside: functions, datatypes and errors, read from the bytecode.

One place that `dtp move info`, the generated names and the tests share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dtp.sui.bytecode import CompiledModule, Opcode, Visibility


@dataclass(frozen=True, slots=True)
class Function:
    """A function that a transaction or another package may call. Types are as Move prints them."""

    name: str
    type_parameters: int
    parameters: tuple[str, ...]
    returns: tuple[str, ...]
    is_entry: bool

    def __str__(self) -> str:
        types = f"<{', '.join(f'T{i}' for i in range(self.type_parameters))}>" if self.type_parameters else ""
        returns = "" if not self.returns else ": " + _list(self.returns)
        return f"{self.name}{types}({', '.join(self.parameters)}){returns}"


@dataclass(frozen=True, slots=True)
class Datatype:
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
    functions: tuple[Function, ...]
    datatypes: tuple[Datatype, ...]
    errors: tuple[Error, ...]


def surface(module: CompiledModule, size: int) -> Surface:
    """Read a module's surface; `size` is that of its bytecode in bytes."""
    return Surface(
        module=module.name,
        size=size,
        functions=_functions(module),
        datatypes=_datatypes(module),
        errors=_errors(module),
    )


def surfaces(compiled: Mapping[str, CompiledModule], modules: Mapping[str, bytes]) -> tuple[Surface, ...]:
    """The surfaces of a package's modules, in publishing order."""
    return tuple(surface(compiled[name], len(code)) for name, code in modules.items())


def _list(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"({', '.join(names)})"


def _functions(module: CompiledModule) -> tuple[Function, ...]:
    found = []
    for name, definition in module.functions.items():
        if definition.visibility is not Visibility.PUBLIC and not definition.is_entry:
            continue
        found.append(
            Function(
                name=name,
                type_parameters=len(module.function_handles[definition.handle].type_parameters),
                parameters=tuple(map(module.type_name, module.parameters(definition))),
                returns=tuple(map(module.type_name, module.returns(definition))),
                is_entry=definition.is_entry,
            )
        )
    return tuple(found)


def _datatypes(module: CompiledModule) -> tuple[Datatype, ...]:
    found = []
    for name, struct in module.structs.items():
        handle = module.datatype_handles[struct.handle]
        fields = tuple(
            (module.identifiers[field.name], module.type_name(field.type)) for field in struct.fields or ()
        )
        found.append(Datatype(name, handle.abilities.names(), len(handle.type_parameters), fields))
    return tuple(found)


def _errors(module: CompiledModule) -> tuple[Error, ...]:
    """Every abort with an `#[error]` constant loads a u64 that names it: collect those."""
    found: dict[int, Error] = {}
    for definition in module.function_defs:
        for instruction in definition.body.code if definition.body else ():
            if instruction.op is not Opcode.LD_U64 or not isinstance(instruction.arg, int):
                continue
            abort = module.describe_abort(instruction.arg)
            if abort.number is not None and abort.name is not None:
                found[abort.number] = Error(abort.number, abort.name, abort.message or "")
    return tuple(found[number] for number in sorted(found))
