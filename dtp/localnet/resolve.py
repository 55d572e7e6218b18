"""Fills in what a client left out of a transaction: object versions, how shared objects are used, literals, gas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from dtp.localnet.admission import ObjectReader
from dtp.localnet.engine import ChainState
from dtp.localnet.model import (
    LiteralInput,
    ObjectInput,
    ObjectRecord,
    PureInput,
    TransactionRejected,
    UnresolvedTransaction,
)
from dtp.localnet.vm import VM, ExecutionFailure, Type
from dtp.localnet.vm.types import INTEGER_BITS
from dtp.sui.names import SuiNameError, parse_address
from dtp.sui.objects import ConsensusAddressOwner, SharedOwner
from dtp.sui.transaction import (
    Argument,
    CallArg,
    Command,
    GasData,
    Input,
    MakeMoveVec,
    MoveCall,
    Mutability,
    NoExpiration,
    OwnedInput,
    ProgrammableTransaction,
    Pure,
    ReceivingInput,
    SharedInput,
    SplitCoins,
    TransactionData,
    TransferObjects,
    arguments_of,
)

__all__ = ["resolve"]

_STD: Final = (1).to_bytes(32, "big")
_SUI: Final = (2).to_bytes(32, "big")


@dataclass(frozen=True)
class _Use:
    """One use of an input: as what type (None: any object), by value, `&` or `&mut`."""

    type: Type | None
    how: str


def _reject(message: str, object_id: bytes | None = None, kind: str = "InvalidInput") -> TransactionRejected:
    return TransactionRejected(kind, message, object_id=object_id)


def resolve(
    transaction: UnresolvedTransaction, store: ObjectReader, vm: VM, state: ChainState
) -> TransactionData:
    """Return the transaction with everything filled in but gas payment and budget. Raises `TransactionRejected`."""
    uses = _uses(transaction.commands, len(transaction.inputs), vm)
    inputs: list[CallArg] = []
    for index, given in enumerate(transaction.inputs):
        match given:
            case PureInput(data):
                inputs.append(Pure(data))
            case LiteralInput(value):
                inputs.append(Pure(_literal(index, value, uses[index], vm)))
            case ObjectInput():
                inputs.append(_object(given, uses[index], store))
    owner = transaction.sender if transaction.gas_owner is None else transaction.gas_owner
    price = transaction.gas_price or state.reference_gas_price
    gas = GasData(transaction.gas_payment or (), owner, price, transaction.gas_budget or 0)
    kind = ProgrammableTransaction(tuple(inputs), transaction.commands)
    return TransactionData(kind, transaction.sender, gas, transaction.expiration or NoExpiration())


def _uses(commands: Sequence[Command], count: int, vm: VM) -> list[list[_Use]]:
    uses: list[list[_Use]] = [[] for _ in range(count)]
    for command in commands:
        for argument, use in _uses_of(command, vm):
            if isinstance(argument, Input):
                if argument.index >= count:
                    raise _reject(f"there is no input {argument.index}")
                uses[argument.index].append(use)
    return uses


def _uses_of(command: Command, vm: VM) -> list[tuple[Argument, _Use]]:
    try:
        match command:
            case MoveCall():
                types = [vm.parse_type(tag.text) for tag in command.type_arguments]
                function = vm.instantiate_function(command.package, command.module, command.function, types)
                return [
                    (argument, _Use(p.element, p.kind) if p.is_reference else _Use(p, ""))
                    for argument, p in zip(command.arguments, function.parameters, strict=False)
                ]
            case TransferObjects(objects, recipient):
                address = _Use(vm.parse_type("address"), "")
                return [*((o, _Use(None, "")) for o in objects), (recipient, address)]
            case SplitCoins(coin, amounts):
                number = _Use(vm.parse_type("u64"), "")
                return [(coin, _Use(None, "&mut")), *((a, number) for a in amounts)]
            case MakeMoveVec(tag, elements):
                element = None if tag is None else vm.parse_type(tag.text)
                return [(e, _Use(element, "")) for e in elements]
            case _:
                return [(a, _Use(None, "")) for a in arguments_of(command)]
    except ExecutionFailure as failure:
        raise _reject(str(failure), kind=failure.status) from None


# ---------------------------------------------------------------------------------------------- objects


def _object(given: ObjectInput, uses: Sequence[_Use], store: ObjectReader) -> CallArg:
    record = store.find_live(given.id)
    if record is None:
        raise _reject(f"there is no object 0x{given.id.hex()}", given.id, "ObjectNotFound")
    if record.package is not None:
        raise _reject(f"0x{given.id.hex()} is a package", given.id, "MovePackageAsObject")
    owner = record.owner
    if isinstance(owner, SharedOwner | ConsensusAddressOwner):
        start = owner.initial_shared_version if isinstance(owner, SharedOwner) else owner.start_version
        _matches(given, record, start)
        mutable = given.mutable
        if mutable is None:
            mutable = any(use.how != "&" for use in uses)
        return SharedInput(given.id, start, Mutability.MUTABLE if mutable else Mutability.IMMUTABLE)
    _matches(given, record, record.version)
    receiving = given.receiving or any(
        use.type is not None and use.type.is_struct(_SUI, "transfer", "Receiving") for use in uses
    )
    return ReceivingInput(record.ref) if receiving else OwnedInput(record.ref)


def _matches(given: ObjectInput, record: ObjectRecord, version: int) -> None:
    if given.version is not None and given.version != version:
        raise _reject(
            f"0x{given.id.hex()} is at version {version}, {given.version} was given",
            given.id,
            "ObjectVersionUnavailableForConsumption",
        )
    if given.digest is not None and given.digest != record.digest:
        raise _reject(f"0x{given.id.hex()} has another digest", given.id, "InvalidObjectDigest")


# --------------------------------------------------------------------------------------------- literals


def _literal(index: int, value: Any, uses: Sequence[_Use], vm: VM) -> bytes:
    types = {use.type for use in uses}
    if len(types) != 1 or None in types:
        raise _reject(f"input {index} is a plain value, but not used as exactly one type: give its BCS")
    (type,) = types
    assert type is not None, "None was refused"
    try:
        return vm.encode_value(type, _data(type, value))
    except (ValueError, TypeError, OverflowError, SuiNameError) as fault:
        raise _reject(f"input {index}: {value!r} is not of type {type.tag}: {fault}") from None


def _data(type: Type, value: Any) -> Any:
    """Return data of the Move machine from a plain value. Raises ValueError, TypeError, OverflowError,
    SuiNameError."""
    if type.kind in INTEGER_BITS:
        return _integer(value, INTEGER_BITS[type.kind])
    if type.kind == "bool":
        if not isinstance(value, bool):
            raise TypeError("a bool is needed")
        return value
    if type.kind == "address":
        return parse_address(_text(value))
    if type.kind == "vector":
        if not isinstance(value, list | tuple):
            raise TypeError("a list is needed")
        items = [_data(type.element, item) for item in value]
        return bytearray(items) if type.element.kind == "u8" else items
    if type.is_struct(_SUI, "object", "ID"):
        return [parse_address(_text(value))]
    if type.is_struct(_STD, "string", "String") or type.is_struct(_STD, "ascii", "String"):
        coding = "ascii" if type.is_struct(_STD, "ascii", "String") else "utf-8"
        return [bytearray(_text(value).encode(coding))]
    if type.is_struct(_STD, "option", "Option"):
        return [[] if value is None else _option(type.arguments[0], value)]
    raise TypeError("this type can't be given as a plain value")


def _option(type: Type, value: Any) -> Any:
    return bytearray((_data(type, value),)) if type.kind == "u8" else [_data(type, value)]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text is needed")
    return value


def _integer(value: Any, bits: int) -> int:
    """Return an integer from an int, a float without fraction (JSON's numbers), or decimal or hexadecimal text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError("a number is needed")
    number = int(value, 0) if isinstance(value, str) else int(value)
    if isinstance(value, float) and number != value:
        raise ValueError("it has a fraction")
    if not 0 <= number < 1 << bits:
        raise OverflowError(f"it does not fit u{bits}")
    return number
