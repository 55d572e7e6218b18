"""Which functions of a framework abort with which codes: read from bytecode, through calls to other modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from dtp.sui.bytecode import CompiledModule, FunctionDef, Opcode, Visibility

Modules = Mapping[tuple[int, str], CompiledModule]

# Checks of library code that its callers have made sure of: one framework has them inlined, the other not.
UNREACHABLE = frozenset(
    {
        ("ascii", 0x10000),
        ("ascii", 0x10001),
        ("option", 0x40000),
        ("option", 0x40001),
    }
)
_CLEVER = 1 << 62


def _own_codes(module: CompiledModule, function: FunctionDef) -> Iterator[int]:
    assert function.body is not None
    code = function.body.code
    for before, (op, _) in pairwise(code):
        if op is not Opcode.ABORT:
            continue
        if before.op is Opcode.LD_CONST:
            yield int.from_bytes(module.constants[before.arg].data, "little")  # type: ignore[index]
        elif before.op is Opcode.LD_U64 and int(before.arg) < _CLEVER:  # type: ignore[arg-type]
            yield int(before.arg)  # type: ignore[arg-type]
        # Larger ones are bare asserts of inlined macros, whose condition has been checked before.


def _callees(module: CompiledModule, function: FunctionDef) -> Iterator[tuple[int, str, str]]:
    assert function.body is not None
    for op, argument in function.body.code:
        if op is Opcode.CALL:
            handle = int(argument)  # type: ignore[arg-type]
        elif op is Opcode.CALL_GENERIC:
            handle = module.function_instantiations[argument].target  # type: ignore[index]
        else:
            continue
        address, name = module.module_id(module.function_handles[handle].module)
        yield address[-1], name, module.function_name(handle)


def codes(modules: Modules, package: int, name: str, function: str) -> list[str]:
    """The codes that a function may abort with, as `module code`, sorted. Natives' own are not in bytecode."""
    found: set[tuple[str, int]] = set()
    seen = set()
    work = [(package, name, function)]
    while work:
        key = work.pop()
        module = modules.get(key[:2])
        if key in seen or module is None:
            continue
        seen.add(key)
        definition = module.functions[key[2]]
        if definition.body is None:
            continue
        found |= {(key[1], code) for code in _own_codes(module, definition)}
        work.extend(_callees(module, definition))
    found -= {entry for entry in UNREACHABLE if entry[0] != name}
    if name == "priority_queue":
        found.discard((name, 2))  # an index that is within the heap by how it is made
    return sorted(f"{module} {code}" for module, code in found)


def table(modules: Modules, of: Modules) -> dict[str, dict[str, list[str]]]:
    """By module and function (those that `of` has, and others can call): the codes in `modules`, if any."""
    made: dict[str, dict[str, list[str]]] = {}
    for (package, name), module in sorted(of.items()):
        if (package, name) not in modules:
            continue
        rows = {
            function: found
            for function, definition in sorted(module.functions.items())
            if (definition.visibility is not Visibility.PRIVATE or definition.is_entry)
            and function in modules[package, name].functions
            and (found := codes(modules, package, name, function))
        }
        if rows:
            made[f"0x{package}::{name}"] = rows
    return made
