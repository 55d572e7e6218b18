"""Pass 1: a module's tables by themselves: sizes within the protocol's limits, nothing twice, constants, friends.

New rules here are named as Sui's status code of the same rule, in small letters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dtp.localnet import limits
from dtp.localnet.vm.verify.common import ModuleRefused
from dtp.sui.bytecode import (
    CompiledModule,
    DatatypeType,
    Primitive,
    ReferenceType,
    SignatureToken,
    TypeParameterIndex,
    VectorType,
)

__all__ = ["check", "type_weight"]

_HEAVY = 4


def check(module: CompiledModule) -> None:
    """Raise `ModuleRefused` for the first table that breaks a rule."""
    _check_sizes(module)
    _check_types(module)
    _check_duplicates(module)
    _check_definitions(module)
    _check_constants(module)
    _check_friends(module)


# --------------------------------------------------------------------------------------------------- sizes


def _at_most(reason: str, what: str, count: int, most: int, item: str = "") -> None:
    if count > most:
        raise ModuleRefused(reason, f"{count} {what}, {most} at most", item=item)


def _check_sizes(module: CompiledModule) -> None:
    for table, most in limits.TABLE_SIZES.items():
        _at_most("limit_exceeded", table.replace("_", " "), len(getattr(module, table)), most)
    for name in module.identifiers:
        _at_most("identifier_too_long", f"bytes in a name, {name[:20]}...", len(name), limits.MAX_IDENTIFIER)
    for at, function in enumerate(module.function_handles):
        name = module.function_name(at)
        count = len(function.type_parameters)
        _at_most("too_many_type_parameters", "type parameters", count, limits.MAX_TYPE_PARAMETERS, name)
        count = len(module.signatures[function.parameters])
        _at_most("too_many_parameters", "parameters", count, limits.MAX_PARAMETERS, name)
    for at, datatype in enumerate(module.datatype_handles):
        count, name = len(datatype.type_parameters), module.datatype_name(at)
        _at_most("too_many_type_parameters", "type parameters", count, limits.MAX_TYPE_PARAMETERS, name)
    count = len(module.function_defs)
    _at_most("max_function_definitions_reached", "functions", count, limits.MAX_FUNCTIONS)
    count = len(module.struct_defs) + len(module.enum_defs)
    _at_most("max_struct_definitions_reached", "datatypes", count, limits.MAX_DATATYPES)
    for struct in module.struct_defs:
        count, name = len(struct.fields or ()), module.datatype_name(struct.handle)
        _at_most("max_field_definitions_reached", "fields", count, limits.MAX_FIELDS, name)
    for enum in module.enum_defs:
        name = module.datatype_name(enum.handle)
        _at_most("max_variants_reached", "variants", len(enum.variants), limits.MAX_VARIANTS, name)
        count = sum(len(variant.fields) for variant in enum.variants)
        _at_most("max_field_definitions_reached", "fields of all variants", count, limits.MAX_FIELDS, name)


def type_weight(token: SignatureToken) -> int:
    """Return how much of `MAX_TYPE_NODES` a type uses."""
    weight, work = 0, [token]
    while work:
        head = work.pop()
        weight += _HEAVY if isinstance(head, DatatypeType | TypeParameterIndex) else 1
        match head:
            case VectorType(inner) | ReferenceType(inner):
                work.append(inner)
            case DatatypeType(_, arguments):
                work.extend(arguments)
            case _:
                pass
    return weight


def _types(module: CompiledModule) -> Iterator[SignatureToken]:
    for signature in module.signatures:
        yield from signature
    yield from (constant.type for constant in module.constants)
    for struct in module.struct_defs:
        yield from (field.type for field in struct.fields or ())
    for enum in module.enum_defs:
        yield from (field.type for variant in enum.variants for field in variant.fields)


def _check_types(module: CompiledModule) -> None:
    """Raise for a type of the module, used or not, that is too large or has a reference that is not outermost."""
    for token in _types(module):
        _at_most("too_many_type_nodes", "parts of one type", type_weight(token), limits.MAX_TYPE_NODES)
    for signature in module.signatures:
        for token in signature:
            if _holds_reference(token.target if isinstance(token, ReferenceType) else token):
                raise ModuleRefused("reference", "a reference inside a type")


def _holds_reference(token: SignatureToken) -> bool:
    match token:
        case ReferenceType():
            return True
        case VectorType(element):
            return _holds_reference(element)
        case DatatypeType(_, arguments):
            return any(map(_holds_reference, arguments))
        case _:
            return False


# ------------------------------------------------------------------------------------- twice, undeclared


def _unique(what: str, entries: Sequence[object], item: str = "") -> None:
    if len(set(entries)) != len(entries):
        raise ModuleRefused("duplicate", f"two {what} are the same", item=item)


def _check_duplicates(module: CompiledModule) -> None:
    for table in (
        "identifiers",
        "addresses",
        "constants",
        "signatures",
        "module_handles",
        "friend_decls",
        "function_instantiations",
        "field_handles",
        "field_instantiations",
        "struct_instantiations",
        "enum_instantiations",
        "variant_handles",
        "variant_instantiations",
    ):
        _unique(table.replace("_", " "), getattr(module, table))
    m = module
    _unique("datatype handles", [(h.module, h.name) for h in m.datatype_handles])
    _unique("function handles", [(h.module, h.name) for h in m.function_handles])
    _unique("function definitions", [f.handle for f in m.function_defs])
    _unique("datatype definitions", [*(s.handle for s in m.struct_defs), *(e.handle for e in m.enum_defs)])
    for struct in m.struct_defs:
        name = m.datatype_name(struct.handle)
        if struct.fields is not None and not struct.fields:
            raise ModuleRefused("zero_sized_struct", "a struct has at least one field", item=name)
        _unique(f"fields of {name}", [f.name for f in struct.fields or ()], name)
    for enum in m.enum_defs:
        name = m.datatype_name(enum.handle)
        _unique(f"variants of {name}", [v.name for v in enum.variants], name)
        for variant in enum.variants:
            _unique(f"fields of {m.identifiers[variant.name]}", [f.name for f in variant.fields], name)


def _check_definitions(module: CompiledModule) -> None:
    """Check that what is defined here belongs here, and what belongs here is defined."""
    functions = {f.handle for f in module.function_defs}
    datatypes = {s.handle for s in module.struct_defs} | {e.handle for e in module.enum_defs}
    for at in functions:
        if module.function_handles[at].module != module.self_handle:
            raise ModuleRefused("foreign_definition", f"{module.function_name(at)} belongs to another module")
    for at in datatypes:
        if module.datatype_handles[at].module != module.self_handle:
            raise ModuleRefused("foreign_definition", f"{module.datatype_name(at)} belongs to another module")
    for at, function in enumerate(module.function_handles):
        if function.module == module.self_handle and at not in functions:
            name = module.function_name(at)
            raise ModuleRefused("missing_function", f"{name} is not defined", item=name)
    for at, datatype in enumerate(module.datatype_handles):
        if datatype.module == module.self_handle and at not in datatypes:
            name = module.datatype_name(at)
            raise ModuleRefused("missing_datatype", f"{name} is not defined", item=name)


# -------------------------------------------------------------------------------------- constants, friends


def _check_constants(module: CompiledModule) -> None:
    for at, constant in enumerate(module.constants):
        element: SignatureToken = constant.type
        while isinstance(element, VectorType):
            element = element.element
        if not isinstance(element, Primitive) or element is Primitive.SIGNER:
            name = module.type_name(constant.type)
            raise ModuleRefused(
                "invalid_constant_type", f"constant {at} is of type {name}, which no constant can be"
            )


def _check_friends(module: CompiledModule) -> None:
    for friend in module.friend_decls:
        if friend == module.module_handles[module.self_handle]:
            raise ModuleRefused("invalid_friend_decl_with_self", "a module is not a friend of itself")
        if module.addresses[friend.address] != module.address:
            raise ModuleRefused(
                "foreign_friend", f"friend {module.identifiers[friend.name]} is in another package"
            )
