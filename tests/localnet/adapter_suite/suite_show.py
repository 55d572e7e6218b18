"""Show the node's types, objects, events and failures as the suite's `.snap` files do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from dtp.localnet.model import EventRecord
from dtp.localnet.vm import Type
from dtp.sui.effects import CodeLocation, ExecutionError
from dtp.sui.names import TypeTag, parse_type
from dtp.sui.objects import AddressOwner, ConsensusAddressOwner, ObjectOwner, Owner, SharedOwner

Name = Callable[[bytes], str]
_HEX = re.compile(r"\b[0-9a-f]{64}\b")
_RENAMED = {
    "argument": "arg_idx",
    "problem": "kind",
    "result": "result_idx",
    "secondary": "secondary_idx",
    "index": "idx",
}
_NUMBERS = {
    "IndexOutOfBounds": ("idx",),
    "SecondaryIndexOutOfBounds": ("result_idx", "secondary_idx"),
    "InvalidResultArity": ("result_idx",),
}


def show_type(tag: TypeTag, name: Name) -> str:
    """Return a type's text."""
    inner = f"<{', '.join(show_type(a, name) for a in tag.arguments)}>" if tag.arguments else ""
    return f"{name(tag.address)}::{tag.module}::{tag.name}{inner}" if tag.address else f"{tag.name}{inner}"


def show_owner(owner: Owner, name: Name) -> str:
    """Return who owns an object."""
    match owner:
        case AddressOwner(address):
            return f"Account Address ( {name(address)} )"
        case ObjectOwner(address):
            return f"Object ID: ( {name(address)} )"
        case SharedOwner(version):
            return f"Shared( {version} )"
        case ConsensusAddressOwner(version, address):
            return f"ConsensusAddressOwner( {version}, {name(address)} )"
    return "Immutable"


def show_value(type: Type, tag: TypeTag, data: Any, name: Name, depth: int = 0) -> str:
    """Return a Move value over several lines."""
    if type.kind == "vector":
        items = [show_value(type.element, tag.arguments[0], item, name, depth + 1) for item in data]
        return _lines("vector[", items, "]", depth) if items else "vector[]"
    if type.datatype is None:
        if type.kind == "bool":
            return str(data).lower()
        return name(data) if type.kind in ("address", "signer") else f"{data}{type.kind}"
    at = data[0] if type.datatype.is_enum else 0
    values = data[1:] if type.datatype.is_enum else data
    head = show_type(tag, name)
    head += f"::{type.datatype.variant_names[at]}{{" if type.datatype.is_enum else " {"
    fields = [
        f"{field}: {show_value(kind, kind.operations['tag'], value, name, depth + 1)}"
        for field, kind, value in zip(
            type.datatype.field_names[at], _tagged(type.variants[at]), values, strict=True
        )
    ]
    return _lines(head, fields, "}", depth) if fields else head + "}"


def _tagged(types: tuple[Type, ...]) -> tuple[Type, ...]:
    for type in types:
        if "tag" not in type.operations:
            type.operations["tag"] = parse_type(type.tag)
    return types


def _lines(head: str, items: list[str], end: str, depth: int) -> str:
    pad = "    " * (depth + 1)
    return head + "\n" + "".join(f"{pad}{item},\n" for item in items) + "    " * depth + end


def _debug_type(tag: TypeTag, name: Name) -> str:
    if tag.address:
        return f"Struct({_debug_struct(tag, name)})"
    if tag.name == "vector":
        return f"Vector({_debug_type(tag.arguments[0], name)})"
    return tag.name.capitalize()


def _debug_struct(tag: TypeTag, name: Name) -> str:
    inner = ", ".join(_debug_type(a, name) for a in tag.arguments)
    return (
        f'StructTag {{ address: {name(tag.address)}, module: Identifier("{tag.module}"), '
        f'name: Identifier("{tag.name}"), type_params: [{inner}] }}'
    )


def show_event(event: EventRecord, name: Name, known: set[bytes]) -> str:
    """Return an event; bytes of its contents that are an address of this run, also as text, are `-`."""
    data = event.contents
    masked: set[int] = set()
    for spelled in (*known, *(id.hex().encode() for id in known)):
        at = data.find(spelled)
        while at >= 0:
            masked |= set(range(at, at + len(spelled)))
            at = data.find(spelled, at + 1)
    shown = ", ".join("-" if at in masked else str(byte) for at, byte in enumerate(data))
    return (
        f'Event {{ package_id: {name(event.package)}, transaction_module: Identifier("{event.module}"), '
        f"sender: {name(event.sender)}, type_: {_debug_struct(event.type, name)}, contents: [{shown}] }}"
    )


def _debug_location(found: CodeLocation | None, name: Name) -> str:
    if found is None:
        return "None"
    function = "None" if found.function_name is None else f'Some("{found.function_name}")'
    return (
        f"MoveLocation {{ module: ModuleId {{ address: {name(found.package)}, "
        f'name: Identifier("{found.module}") }}, function: {found.function}, '
        f"instruction: {found.instruction}, function_name: {function} }}"
    )


def show_error(error: ExecutionError, name: Name) -> str:
    """Return a failure as Rust's debug form of it."""
    content = error.content
    if error.kind == "MoveAbort":
        return f"MoveAbort({_debug_location(content['location'], name)}, {content['code']})"
    if error.kind == "MovePrimitiveRuntimeError":
        where = _debug_location(content["location"], name)
        return f"MovePrimitiveRuntimeError(MoveLocationOpt({where if where == 'None' else f'Some({where})'}))"
    if not content:
        return error.kind
    parts = [f"{_field(error.kind, key)}: {_part(value, name)}" for key, value in content.items()]
    return f"{error.kind} {{ {', '.join(parts)} }}"


def _field(kind: str, key: str) -> str:
    if kind == "PackageUpgradeError":
        return "upgrade_error"
    if kind == "TypeArgumentError" and key == "argument":
        return "argument_idx"
    return _RENAMED.get(key, key)


def _part(value: Any, name: Name) -> str:
    if isinstance(value, bytes):
        return name(value)
    if isinstance(value, str) and "::" in value:
        return '"' + _HEX.sub(lambda found: name(bytes.fromhex(found[0])), value) + '"'
    if not hasattr(value, "name"):
        return str(value)
    numbers = getattr(value, "numbers", ())
    if not numbers:
        return value.name
    inner = ", ".join(f"{k}: {v}" for k, v in zip(_NUMBERS[value.name], numbers, strict=True))
    return f"{value.name} {{ {inner} }}"
