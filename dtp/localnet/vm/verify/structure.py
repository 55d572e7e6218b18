"""Pass 2: declarations by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dtp.localnet.vm.types import KEY, STORE, abilities_text
from dtp.localnet.vm.verify.common import ModuleRefused, abilities, function_name, subsumes
from dtp.sui.bytecode import (
    CompiledModule,
    DatatypeType,
    Field,
    Opcode,
    Primitive,
    ReferenceType,
    Signature,
    SignatureToken,
    TypeParameterIndex,
    VectorType,
)

__all__ = ["check"]


def check(module: CompiledModule, is_framework: bool) -> None:
    """Raise `ModuleRefused` for the first declaration that breaks a rule."""
    for definition in module.struct_defs:
        name = module.datatype_name(definition.handle)
        if definition.fields is None:
            raise ModuleRefused("native_struct", "native structs don't exist in Sui", item=name)
        _check_datatype(module, name, definition.handle, definition.fields)
    for enum in module.enum_defs:
        name = module.datatype_name(enum.handle)
        for variant in enum.variants:
            _check_datatype(module, name, enum.handle, variant.fields)
    _check_recursion(module)
    for function in module.function_defs:
        name = function_name(module, function)
        if function.is_native and not is_framework:
            raise ModuleRefused("native_function", "only the framework has native functions", item=name)
        _check_function_signatures(module, function.handle, name)
    for handle in range(len(module.function_handles)):
        _check_function_signatures(module, handle, module.function_name(handle))
    _check_instantiation_loops(module)
    if module.metadata:
        raise ModuleRefused("metadata", "a published module has no metadata table")


def _check_datatype(module: CompiledModule, name: str, handle: int, fields: tuple[Field, ...]) -> None:
    entry = module.datatype_handles[handle]
    constraints = [int(p.constraints) for p in entry.type_parameters]
    # A field must have what its owner has; the owner's key asks its fields for store.
    needed = int(entry.abilities) & ~KEY | (STORE if entry.abilities & KEY else 0)
    everything = [0xF] * len(constraints)
    for field in fields:
        field_name = module.identifiers[field.name]
        check_token(module, field.type, constraints, name, references=False)
        has = abilities(module, field.type, everything)
        if not subsumes(has, needed):
            raise ModuleRefused(
                "field_abilities",
                f"field {field_name} has {abilities_text(has)}, its type needs {abilities_text(needed)}",
                item=name,
            )
        for index in _real_parameters(module, field.type):
            if entry.type_parameters[index].is_phantom:
                raise ModuleRefused(
                    "phantom", f"field {field_name} uses the phantom type parameter {index}", item=name
                )


def _real_parameters(module: CompiledModule, token: SignatureToken) -> Iterator[int]:
    """Type parameters that stand in places that are not phantom."""
    match token:
        case TypeParameterIndex(index):
            yield index
        case VectorType(inner) | ReferenceType(inner):
            yield from _real_parameters(module, inner)
        case DatatypeType(handle, arguments):
            parameters = module.datatype_handles[handle].type_parameters
            for argument, parameter in zip(arguments, parameters, strict=True):
                if not parameter.is_phantom:
                    yield from _real_parameters(module, argument)
        case _:
            return


def check_token(
    module: CompiledModule,
    token: SignatureToken,
    constraints: Sequence[int],
    item: str,
    *,
    references: bool,
    offset: int | None = None,
) -> None:
    """Check that a type is well formed: references outermost only (if `references`), type arguments meet their
    constraints."""
    work = [token.target] if references and isinstance(token, ReferenceType) else [token]
    while work:
        head = work.pop()
        if isinstance(head, ReferenceType):
            raise ModuleRefused("reference", "a reference inside a type or a field", item=item, offset=offset)
        if isinstance(head, VectorType):
            work.append(head.element)
        elif isinstance(head, DatatypeType):
            work.extend(head.arguments)
            check_arguments(
                module,
                head.arguments,
                [int(p.constraints) for p in module.datatype_handles[head.handle].type_parameters],
                constraints,
                item,
                offset,
            )


def check_arguments(
    module: CompiledModule,
    arguments: Signature,
    needed: Sequence[int],
    constraints: Sequence[int],
    item: str,
    offset: int | None,
) -> None:
    """Type arguments have the abilities that parameters ask for."""
    if len(arguments) != len(needed):
        raise ModuleRefused(
            "type_arity",
            f"{len(arguments)} type arguments for {len(needed)} parameters",
            item=item,
            offset=offset,
        )
    for argument, need in zip(arguments, needed, strict=True):
        if isinstance(argument, ReferenceType):
            raise ModuleRefused("reference", "a reference as a type argument", item=item, offset=offset)
        has = abilities(module, argument, constraints)
        if not subsumes(has, need):
            raise ModuleRefused(
                "constraint",
                f"type argument {module.type_name(argument)} has {abilities_text(has)}, needs {abilities_text(need)}",
                item=item,
                offset=offset,
            )


def _check_function_signatures(module: CompiledModule, handle: int, name: str) -> None:
    entry = module.function_handles[handle]
    constraints = [int(a) for a in entry.type_parameters]
    parameters = module.signatures[entry.parameters]
    for token in (*parameters, *module.signatures[entry.returns]):
        check_token(module, token, constraints, name, references=True)


def _check_recursion(module: CompiledModule) -> None:
    """Check that no datatype holds itself, directly or through others of its module."""
    owned: dict[int, set[int]] = {}
    for struct in module.struct_defs:
        owned[struct.handle] = set(_datatypes(struct.fields or ()))
    for enum in module.enum_defs:
        owned[enum.handle] = {h for v in enum.variants for h in _datatypes(v.fields)}
    done: set[int] = set()
    for root in owned:
        _walk_owned(module, root, owned, done, [])


def _walk_owned(
    module: CompiledModule, handle: int, owned: dict[int, set[int]], done: set[int], path: list[int]
) -> None:
    if handle in path:
        raise ModuleRefused("recursive_type", "a datatype holds itself", item=module.datatype_name(handle))
    if handle in done or handle not in owned:
        return
    for inner in owned[handle]:
        _walk_owned(module, inner, owned, done, [*path, handle])
    done.add(handle)


def _datatypes(fields: tuple[Field, ...]) -> Iterator[int]:
    work: list[SignatureToken] = [f.type for f in fields]
    while work:
        head = work.pop()
        if isinstance(head, VectorType | ReferenceType):
            work.append(head.element if isinstance(head, VectorType) else head.target)
        elif isinstance(head, DatatypeType):
            yield head.handle
            work.extend(head.arguments)


def _check_instantiation_loops(module: CompiledModule) -> None:
    """Check that no function calls itself, directly or not, with ever larger type arguments.

    Edges go from a caller's type parameter to a callee's; an edge is growing when the parameter is inside a larger
    type. A cycle with a growing edge would instantiate without end.
    """
    own = {definition.handle for definition in module.function_defs}
    edges: dict[tuple[int, int], set[tuple[tuple[int, int], bool]]] = {}
    for definition in module.function_defs:
        for op, argument in definition.body.code if definition.body else ():
            if op is not Opcode.CALL_GENERIC:
                continue
            entry = module.function_instantiations[argument]  # type: ignore[index]
            if entry.target not in own:
                continue
            for position, token in enumerate(module.signatures[entry.type_arguments]):
                for index in _all_parameters(token):
                    grows = not isinstance(token, TypeParameterIndex)
                    edges.setdefault((definition.handle, index), set()).add(((entry.target, position), grows))
    for source, targets in edges.items():
        for target, grows in targets:
            if grows and _reaches(edges, target, source):
                raise ModuleRefused(
                    "instantiation_loop",
                    "calls itself with ever larger type arguments",
                    item=module.function_name(source[0]),
                )


def _reaches(
    edges: dict[tuple[int, int], set[tuple[tuple[int, int], bool]]],
    start: tuple[int, int],
    goal: tuple[int, int],
) -> bool:
    seen, work = {start}, [start]
    while work:
        node = work.pop()
        if node == goal:
            return True
        for target, _ in edges.get(node, ()):
            if target not in seen:
                seen.add(target)
                work.append(target)
    return False


def _all_parameters(token: SignatureToken) -> Iterator[int]:
    match token:
        case TypeParameterIndex(index):
            yield index
        case VectorType(inner) | ReferenceType(inner):
            yield from _all_parameters(inner)
        case DatatypeType(_, arguments):
            for argument in arguments:
                yield from _all_parameters(argument)
        case Primitive():
            return
