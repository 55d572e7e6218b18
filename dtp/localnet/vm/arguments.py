"""The border of a call: types named by text, functions with their types filled in, arguments checked and bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtp.localnet.limits import MAX_TYPE_NODES
from dtp.localnet.vm.contract import ArgumentSlot, ExecutionFailure, FunctionInstance, Value
from dtp.localnet.vm.linker import LinkedFunction, Linker, MissingItem
from dtp.localnet.vm.types import Type, abilities_text
from dtp.localnet.vm.values import BadBcs, copier, decode
from dtp.sui.bytecode import Visibility
from dtp.sui.names import SuiNameError, TypeTag, parse_type

__all__ = ["bind", "decode_pure", "instance", "resolve_type", "results", "witness"]

_STD = (1).to_bytes(32, "big")
_SUI = (2).to_bytes(32, "big")
#: Types remembered by their tags; past it all are forgotten.
_MAX_NAMED = 4096
_VISIBILITY = {Visibility.PRIVATE: "private", Visibility.FRIEND: "friend", Visibility.PUBLIC: "public"}


# --------------------------------------------------------------------------------------------------- types


def resolve_type(linker: Linker, text: str) -> Type:
    """Return the type that a tag names, packages loaded. Raises `ExecutionFailure` (`TypeArgumentError`)."""
    known = linker.named.get(text)
    if known is not None:
        return known
    try:
        type = _resolve(linker, parse_type(text))
    except SuiNameError as error:
        raise ExecutionFailure("TypeArgumentError", str(error), reason="TypeNotFound") from None
    except MissingItem as missing:
        raise ExecutionFailure("TypeArgumentError", str(missing), reason="TypeNotFound") from None
    if type.nodes > MAX_TYPE_NODES:
        raise ExecutionFailure("TypeArgumentError", f"{text} is too large a type", reason="TypeNotFound")
    if len(linker.named) >= _MAX_NAMED:
        linker.named.clear()
    linker.named[text] = type
    return type


def _resolve(linker: Linker, tag: TypeTag) -> Type:
    if tag.name == "vector" and not tag.module:
        return linker.types.make_vector(_resolve(linker, tag.arguments[0]))
    if not tag.module:
        return linker.types.primitives[tag.name]
    arguments = tuple(_resolve(linker, a) for a in tag.arguments)
    datatype = (
        linker.link_package(linker.get_package(tag.address)).get_module(tag.module).own_datatype(tag.name)
    )
    name = f"{tag.module}::{tag.name}"
    _check_type_arguments(name, datatype.parameters, arguments)
    return linker.types.make_instance(datatype, arguments)


def _check_type_arguments(name: str, parameters: tuple[int, ...], arguments: tuple[Type, ...]) -> None:
    if len(parameters) != len(arguments):
        raise ExecutionFailure(
            "TypeArityMismatch", f"{name} takes {len(parameters)} type arguments, got {len(arguments)}"
        )
    for at, (needed, argument) in enumerate(zip(parameters, arguments, strict=True)):
        if argument.is_reference or needed & ~argument.abilities:
            raise ExecutionFailure(
                "TypeArgumentError",
                f"{name}: type argument {at}, {argument.tag}, needs {abilities_text(needed)}",
                reason="ConstraintNotSatisfied",
                type_argument=at,
            )


# ----------------------------------------------------------------------------------------------- functions


def instance(function: LinkedFunction, types: tuple[Type, ...]) -> FunctionInstance:
    """Return the function with its types filled in, made once. Raises `ExecutionFailure`."""
    known: dict[tuple[Type, ...], FunctionInstance] = function.described
    found = known.get(types)
    if found is None:
        _check_type_arguments(function.qualified_name, function.type_parameters, types)
        try:
            found = known[types] = _describe(function, types)
        except MissingItem as missing:
            raise ExecutionFailure("InvalidLinkage", str(missing), reason="missing") from None
    return found


def _describe(function: LinkedFunction, types: tuple[Type, ...]) -> FunctionInstance:
    parameters = [function.module.resolve_type(t, types) for t in function.parameters]
    context = ""
    if (
        parameters
        and parameters[-1].is_reference
        and parameters[-1].element.is_struct(_SUI, "tx_context", "TxContext")
    ):
        context = parameters.pop().kind
    return FunctionInstance(
        module=function.module.name,
        name=function.name,
        visibility=_VISIBILITY[function.definition.visibility],
        is_entry=function.definition.is_entry,
        is_native=function.definition.is_native,
        type_arguments=types,
        parameters=tuple(parameters),
        returns=tuple(function.module.resolve_type(t, types) for t in function.returns),
        tx_context=context,
        takes_random=any(
            p.is_reference and p.element.is_struct(_SUI, "random", "Random") for p in parameters
        ),
    )


def bind(
    function: FunctionInstance, slots: Sequence[ArgumentSlot]
) -> tuple[list[Any], list[tuple[ArgumentSlot, list[Any]]]]:
    """Return arguments as translated code takes them, and the slots whose data must be read back from a box
    afterwards.

    Raises `ExecutionFailure` (`ArityMismatch`, `CommandArgumentError`).
    """
    if len(slots) != len(function.parameters):
        raise ExecutionFailure(
            "ArityMismatch",
            f"{function.module}::{function.name} takes {len(function.parameters)} arguments, got {len(slots)}",
        )
    values: list[Any] = []
    boxes: list[tuple[ArgumentSlot, list[Any]]] = []
    for at, (parameter, slot) in enumerate(zip(function.parameters, slots, strict=True)):
        wanted = parameter.element if parameter.is_reference else parameter
        if slot.type is not wanted:
            raise ExecutionFailure(
                "CommandArgumentError",
                f"argument {at} of {function.module}::{function.name} is {slot.type.tag}, not {wanted.tag}",
                reason="TypeMismatch",
                argument=at,
            )
        if parameter.is_reference and not wanted.is_container:
            box = [slot.data]
            boxes.append((slot, box))
            values.append((box, 0))
        else:
            values.append(slot.data)
    return values, boxes


def results(types: tuple[Type, ...], data: Any) -> list[Value]:
    """Return what a call returned, as values; what a returned reference points at is copied."""
    if not types:
        return []
    items = (data,) if len(types) == 1 else data
    values = []
    for type, item in zip(types, items, strict=True):
        if not type.is_reference:
            values.append(Value(type, item))
            continue
        target = type.element
        copy = copier(target)
        held = item if target.is_container else item[0][item[1]]
        values.append(Value(target, held if copy is None else copy(held)))
    return values


def witness(init: LinkedFunction) -> ArgumentSlot | None:
    """Return the one-time witness that an `init` function takes, or None if it takes none."""
    parameters = instance(init, ()).parameters
    # The witness struct has no field in the source, hence one that is false in the bytecode.
    return ArgumentSlot(parameters[0], [False]) if parameters else None


# ------------------------------------------------------------------------------------------ pure arguments


def decode_pure(type: Type, data: bytes) -> Any:
    """Return data of a pure argument. Raises `ExecutionFailure` (`CommandArgumentError`)."""
    if not _may_be_pure(type):
        raise ExecutionFailure(
            "CommandArgumentError", f"{type.tag} can't be given as bytes", reason="InvalidUsageOfPureArg"
        )
    try:
        value = decode(type, data)
        _check_text(type, value)
    except BadBcs as error:
        raise ExecutionFailure("CommandArgumentError", str(error), reason="InvalidBCSBytes") from None
    return value


def _is_string(type: Type) -> str:
    for module in ("string", "ascii"):
        if type.is_struct(_STD, module, "String"):
            return module
    return ""


def _may_be_pure(type: Type) -> bool:
    if type.kind == "vector" or type.is_struct(_STD, "option", "Option"):
        return _may_be_pure(type.arguments[0])
    if type.datatype is None:
        return not type.is_reference and type.kind != "signer"
    return bool(_is_string(type)) or type.is_struct(_SUI, "object", "ID")


def _check_text(type: Type, value: Any) -> None:
    """Refuse strings that are not text, and options of more than one element."""
    kind = _is_string(type)
    if kind:
        try:
            value[0].decode("utf-8" if kind == "string" else "ascii")
        except UnicodeDecodeError as error:
            raise BadBcs(f"not {'UTF-8' if kind == 'string' else 'ASCII'} text: {error.reason}") from None
    elif type.is_struct(_STD, "option", "Option"):
        if len(value[0]) > 1:
            raise BadBcs(f"an option holds at most one element, got {len(value[0])}")
        for item in value[0]:
            _check_text(type.arguments[0], item)
    elif (type.kind == "vector" and type.element.datatype is not None) or (
        type.kind == "vector" and type.element.kind == "vector"
    ):
        for item in value:
            _check_text(type.element, item)
