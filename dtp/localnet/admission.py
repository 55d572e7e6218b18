"""What a transaction must fulfil before it runs: form, signatures, inputs, gas. A refusal costs nothing.

Each refusal is a `TransactionRejected` whose `kind` is the name the protocol has for it (`UserInputError` and a few
others). The order of the checks is the protocol's where it can be seen from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

from dtp.localnet.engine import Admitted, ChainState
from dtp.localnet.limits import (
    BASE_TRANSACTION_UNITS,
    MAX_ARGUMENTS,
    MAX_COMMANDS,
    MAX_GAS_BUDGET,
    MAX_GAS_COINS,
    MAX_GAS_PRICE,
    MAX_INPUT_OBJECTS,
    MAX_MODULES,
    MAX_PUBLISHES,
    MAX_PURE_SIZE,
    MAX_TRANSACTION_SIZE,
    MAX_TYPE_ARGUMENTS,
    MAX_TYPE_DEPTH,
)
from dtp.localnet.model import ObjectRecord, TransactionRejected
from dtp.localnet.outcome import DeletedInput, InputObject
from dtp.localnet.store import Removed
from dtp.sui.bcs import BcsError
from dtp.sui.names import TypeTag
from dtp.sui.objects import (
    GAS_COIN_TYPE,
    AddressOwner,
    ConsensusAddressOwner,
    Immutable,
    ObjectOwner,
    SharedOwner,
)
from dtp.sui.signature import SignatureError, parse_signature, verify_signature
from dtp.sui.transaction import (
    Command,
    EpochExpiration,
    FundsWithdrawal,
    Input,
    MakeMoveVec,
    MergeCoins,
    MoveCall,
    Mutability,
    ObjectRef,
    OwnedInput,
    ProgrammableTransaction,
    Publish,
    Pure,
    ReceivingInput,
    SharedInput,
    SplitCoins,
    TransactionData,
    TransferObjects,
    Upgrade,
    ValidDuring,
    arguments_of,
    signing_hash,
)

__all__ = ["ObjectReader", "admit", "check_form", "check_signatures", "decode_transaction"]

_SYSTEM_OBJECTS: Final = frozenset(number.to_bytes(32, "big") for number in (5, 6, 8))
_RANDOM: Final = (8).to_bytes(32, "big")


class ObjectReader(Protocol):
    """What admission asks of the store."""

    def find_live(self, id: bytes) -> ObjectRecord | None:
        """Return the live version."""

    def find_removed(self, id: bytes) -> Removed | None:
        """Return how an object went."""


def _reject(kind: str, message: str, object_id: bytes | None = None) -> TransactionRejected:
    return TransactionRejected(kind, message, object_id=object_id)


def _hex(id: bytes) -> str:
    return f"0x{id.hex()}"


# ------------------------------------------------------------------------------------------------- form


def decode_transaction(raw: bytes) -> TransactionData:
    """Return the transaction that the bytes are. Raises `TransactionRejected`."""
    if len(raw) > MAX_TRANSACTION_SIZE:
        raise _reject("SizeLimitExceeded", f"transaction of {len(raw)} bytes, {MAX_TRANSACTION_SIZE} at most")
    try:
        return TransactionData.decode(raw)
    except BcsError as fault:
        raise _reject("MalformedTransaction", f"not the BCS of a transaction: {fault}") from None


def _most(what: str, number: int, limit: int) -> None:
    if number > limit:
        raise _reject("SizeLimitExceeded", f"{number} {what}, {limit} at most")


def check_form(data: TransactionData) -> ProgrammableTransaction:
    """Check sizes, counts and kinds. Raises `TransactionRejected`."""
    kind = data.kind
    if not isinstance(kind, ProgrammableTransaction):
        raise _reject("Unsupported", f"{type(kind).__name__} is the system's, users send programmable ones")
    _most("commands", len(kind.commands), MAX_COMMANDS)
    if not kind.commands:
        raise _reject("EmptyCommandInput", "the transaction has no command")
    for index, input in enumerate(kind.inputs):
        if isinstance(input, Pure):
            _most(f"bytes in pure input {index}", len(input.data), MAX_PURE_SIZE)
        elif isinstance(input, FundsWithdrawal):
            raise _reject("Unsupported", "withdrawing from balances of addresses is not supported here")
        elif isinstance(input, SharedInput) and input.mutability is Mutability.NON_EXCLUSIVE_WRITE:
            raise _reject("Unsupported", "non-exclusive writes of shared objects are not supported here")
    publishes = sum(isinstance(c, Publish | Upgrade) for c in kind.commands)
    if publishes > MAX_PUBLISHES:
        raise _reject("MaxPublishCountExceeded", f"{publishes} publishes, {MAX_PUBLISHES} at most")
    for command in kind.commands:
        _check_command(command)
    _check_random(kind)
    return kind


def _check_depth(*tags: TypeTag) -> None:
    for tag in tags:
        _most("types within each other", tag.depth, MAX_TYPE_DEPTH)


def _check_command(command: Command) -> None:
    _most("arguments of a command", len(arguments_of(command)), MAX_ARGUMENTS)
    empty = ""
    match command:
        case MoveCall():
            _most("type arguments", len(command.type_arguments), MAX_TYPE_ARGUMENTS)
            _check_depth(*command.type_arguments)
            if not (command.module.isidentifier() and command.function.isidentifier()):
                raise _reject("InvalidIdentifier", f"{command.module}::{command.function} is not a name")
        case TransferObjects(objects):
            empty = "" if objects else "TransferObjects needs an object"
        case SplitCoins(_, amounts):
            empty = "" if amounts else "SplitCoins needs an amount"
        case MergeCoins(_, sources):
            empty = "" if sources else "MergeCoins needs a coin to merge"
        case MakeMoveVec(tag, elements):
            _check_depth(*(() if tag is None else (tag,)))
            empty = "" if elements or tag is not None else "MakeMoveVec needs a type or an element"
        case Publish(modules) | Upgrade(modules):
            _most("modules", len(modules), MAX_MODULES)
            empty = "" if modules else "a package needs a module"
    if empty:
        raise _reject("EmptyCommandInput", empty)


def _check_random(kind: ProgrammableTransaction) -> None:
    """Check that after a call that takes randomness only transfers and merges follow: nothing may judge the
    outcome."""
    random = [i for i, arg in enumerate(kind.inputs) if isinstance(arg, SharedInput) and arg.id == _RANDOM]
    used = False
    for command in kind.commands:
        if used and not isinstance(command, TransferObjects | MergeCoins):
            raise _reject(
                "PostRandomCommandRestrictions",
                "after a call with 0x8 only TransferObjects and MergeCoins may follow",
            )
        if isinstance(command, MoveCall):
            used = used or any(isinstance(a, Input) and a.index in random for a in command.arguments)


def check_expiration(data: TransactionData, epoch: int, timestamp_ms: int, chain: bytes) -> None:
    """Refuse what is expired, not yet valid, or for another chain."""
    match data.expiration:
        case EpochExpiration(last) if last < epoch:
            raise _reject("TransactionExpired", f"valid to epoch {last}, this is {epoch}")
        case ValidDuring(first, last, start, end, wanted, _):
            if wanted != chain:
                raise _reject("InvalidChainId", "the transaction is for another chain")
            too_late = (last is not None and epoch > last) or (end is not None and timestamp_ms > end)
            too_early = (first is not None and epoch < first) or (start is not None and timestamp_ms < start)
            if too_late or too_early:
                raise _reject("TransactionExpired", f"not valid in epoch {epoch} at {timestamp_ms} ms")
        case _:
            pass


def check_signatures(data: TransactionData, raw: bytes, signatures: Sequence[bytes]) -> None:
    """Check that the sender, and the gas owner if it is another, have signed, once each. Raises
    `TransactionRejected`."""
    needed = dict.fromkeys((data.sender, data.gas_data.owner))
    if len(signatures) != len(needed):
        raise _reject(
            "SignerSignatureNumberMismatch", f"{len(needed)} signatures needed, {len(signatures)} given"
        )
    message = signing_hash(raw)
    for serialized in signatures:
        try:
            signature = parse_signature(bytes(serialized))
            if signature.address not in needed:
                raise _reject(
                    "IncorrectSigner",
                    f"{_hex(signature.address)} signed, but is neither sender nor gas owner",
                )
            verify_signature(signature, message)
        except SignatureError as fault:
            raise _reject("InvalidSignature", str(fault)) from None
        del needed[signature.address]


# ----------------------------------------------------------------------------------------------- inputs


def admit(
    data: TransactionData,
    digest: bytes,
    store: ObjectReader,
    state: ChainState,
    *,
    gas: bool = True,
    owners: bool = True,
) -> Admitted:
    """Load and check inputs and, unless `gas` is False, gas. With `owners` False anyone's objects may be used.

    Raises `TransactionRejected`.
    """
    kind = data.kind
    assert isinstance(kind, ProgrammableTransaction), "form was checked"
    admitted = Admitted(data, digest)
    sender = data.sender if owners else None
    if gas:
        check_price(data, state)
    refs = [arg for arg in kind.inputs if not isinstance(arg, Pure)]
    _most("input objects", len(refs) + len(data.gas_data.payment), MAX_INPUT_OBJECTS)
    _check_duplicates(kind, data.gas_data.payment)
    for arg in kind.inputs:
        match arg:
            case OwnedInput(ref):
                admitted.inputs.append(_owned(ref, sender, store))
            case SharedInput():
                admitted.inputs.append(_shared(arg, sender, store, admitted))
            case ReceivingInput(ref):
                admitted.receiving[ref.id] = _receiving(ref, store)
                admitted.inputs.append(None)
            case _:
                admitted.inputs.append(None)
    for entry in admitted.objects:
        if entry.record.id in admitted.receiving:
            raise _twice(entry.record.id)
    admitted.packages = list(_packages(kind.commands, store))
    if gas:
        admitted.gas = _gas(data, store)
    return admitted


def _twice(id: bytes) -> TransactionRejected:
    return _reject("DuplicateObjectRefInput", f"{_hex(id)} is an input twice", id)


def _check_duplicates(kind: ProgrammableTransaction, payment: Sequence[ObjectRef]) -> None:
    """Refuse what is used or received twice. What is used and received is told after who owns it, as Sui does."""
    used: set[bytes] = set()
    received: set[bytes] = set()
    for arg in kind.inputs:
        if not isinstance(arg, OwnedInput | ReceivingInput | SharedInput):
            continue
        id = arg.id if isinstance(arg, SharedInput) else arg.ref.id
        seen = received if isinstance(arg, ReceivingInput) else used
        if id in seen:
            raise _twice(id)
        seen.add(id)
    seen = used | received
    for ref in payment:
        if ref.id in seen:
            raise _reject(
                "MutableObjectUsedMoreThanOnce",
                f"{_hex(ref.id)} pays for gas and is used a second time",
                ref.id,
            )
        seen.add(ref.id)


def _current(ref: ObjectRef, store: ObjectReader) -> ObjectRecord:
    """Return the live object, which must be exactly the one referred to."""
    record = store.find_live(ref.id)
    if record is None:
        gone = store.find_removed(ref.id)
        if gone is None or gone.version <= ref.version:
            raise _reject("ObjectNotFound", f"there is no object {_hex(ref.id)}", ref.id)
        raise _reject(
            "ObjectVersionUnavailableForConsumption",
            f"{_hex(ref.id)} was {'deleted' if gone.deleted else 'wrapped'} at version {gone.version}",
            ref.id,
        )
    if record.package is not None:
        raise _reject("MovePackageAsObject", f"{_hex(ref.id)} is a package", ref.id)
    if record.version < ref.version:
        raise _reject(
            "ObjectNotFound", f"{_hex(ref.id)} has no version {ref.version} yet, but {record.version}", ref.id
        )
    if record.version > ref.version:
        raise _reject(
            "ObjectVersionUnavailableForConsumption",
            f"{_hex(ref.id)} is at version {record.version}, {ref.version} was given: fetch it again",
            ref.id,
        )
    if record.digest != ref.digest:
        raise _reject("InvalidObjectDigest", f"{_hex(ref.id)} has another digest", ref.id)
    return record


def _owned(ref: ObjectRef, sender: bytes | None, store: ObjectReader) -> InputObject:
    record = _current(ref, store)
    match record.owner:
        case AddressOwner(address):
            if sender is not None and address != sender:
                raise _reject(
                    "IncorrectUserSignature",
                    f"{_hex(ref.id)} belongs to {_hex(address)}, the sender is {_hex(sender)}",
                    ref.id,
                )
            return InputObject(record, True)
        case Immutable():
            return InputObject(record, False)
        case ObjectOwner(parent):
            raise _reject(
                "InvalidChildObjectArgument", f"{_hex(ref.id)} is a child of {_hex(parent)}", ref.id
            )
        case _:
            raise _reject(
                "NotOwnedObjectError", f"{_hex(ref.id)} is shared: give it as a shared object", ref.id
            )


def _shared(
    arg: SharedInput, sender: bytes | None, store: ObjectReader, admitted: Admitted
) -> InputObject | None:
    mutable = arg.mutability is Mutability.MUTABLE
    if mutable and arg.id in _SYSTEM_OBJECTS:
        raise _reject(
            "ImmutableParameterExpectedError", f"{_hex(arg.id)} can be read only by transactions", arg.id
        )
    record = store.find_live(arg.id)
    if record is None:
        gone = store.find_removed(arg.id)
        if gone is None or not gone.shared:
            raise _reject("ObjectNotFound", f"there is no shared object {_hex(arg.id)}", arg.id)
        # Consensus would have ordered the transaction behind the deletion: it runs, and fails.
        admitted.ended.append(DeletedInput(arg.id, gone.version, mutable))
        return None
    match record.owner:
        case SharedOwner(version):
            pass
        case ConsensusAddressOwner(version, address):
            if sender is not None and address != sender:
                raise _reject("IncorrectUserSignature", f"{_hex(arg.id)} belongs to {_hex(address)}", arg.id)
        case _:
            raise _reject("NotSharedObjectError", f"{_hex(arg.id)} is not shared", arg.id)
    if version != arg.initial_shared_version:
        raise _reject(
            "SharedObjectStartingVersionMismatch",
            f"{_hex(arg.id)} was shared at version {version}, {arg.initial_shared_version} was given",
            arg.id,
        )
    return InputObject(record, mutable)


def _receiving(ref: ObjectRef, store: ObjectReader) -> ObjectRecord:
    record = _current(ref, store)
    if not isinstance(record.owner, AddressOwner):
        raise _reject("ReceivingObjectNotFound", f"{_hex(ref.id)} was not sent to an address", ref.id)
    return record


def _packages(commands: Iterable[Command], store: ObjectReader) -> Iterator[ObjectRecord]:
    seen: set[bytes] = set()
    for command in commands:
        for id in _packages_of(command):
            if id in seen:
                continue
            seen.add(id)
            record = store.find_live(id)
            if record is None:
                raise _reject("DependentPackageNotFound", f"there is no package {_hex(id)}", id)
            if record.package is None:
                raise _reject("MoveObjectAsPackage", f"{_hex(id)} is not a package", id)
            yield record


def _packages_of(command: Command) -> Iterator[bytes]:
    match command:
        case MoveCall(package=package, type_arguments=tags):
            yield package
            for tag in tags:
                yield from _packages_of_type(tag)
        case MakeMoveVec(type=tag) if tag is not None:
            yield from _packages_of_type(tag)
        case Publish(dependencies=dependencies) | Upgrade(dependencies=dependencies):
            yield from dependencies
        case _:
            pass


def _packages_of_type(tag: TypeTag) -> Iterator[bytes]:
    if tag.address:
        yield tag.address
    for argument in tag.arguments:
        yield from _packages_of_type(argument)


# -------------------------------------------------------------------------------------------------- gas


def check_price(data: TransactionData, state: ChainState) -> None:
    """Check that the price is in the bounds of this epoch."""
    price = data.gas_data.price
    if price < state.reference_gas_price:
        raise _reject(
            "GasPriceUnderRGP", f"gas price {price} is under the reference price {state.reference_gas_price}"
        )
    if price >= MAX_GAS_PRICE:
        raise _reject("GasPriceTooHigh", f"gas price {price}, less than {MAX_GAS_PRICE} is allowed")


def check_budget(budget: int, price: int) -> None:
    """Check that the budget is in its bounds."""
    if budget > MAX_GAS_BUDGET:
        raise _reject("GasBudgetTooHigh", f"gas budget {budget}, {MAX_GAS_BUDGET} at most")
    least = BASE_TRANSACTION_UNITS * price
    if budget < least:
        raise _reject("GasBudgetTooLow", f"gas budget {budget}, {least} at least")


def _gas(data: TransactionData, store: ObjectReader) -> list[ObjectRecord]:
    gas = data.gas_data
    if not gas.payment:
        raise _reject("MissingGasPayment", "no coin pays for gas")
    _most("gas coins", len(gas.payment), MAX_GAS_COINS)
    coins = []
    for ref in gas.payment:
        record = _current(ref, store)
        owner = record.owner
        if not isinstance(owner, AddressOwner):
            raise _reject("GasObjectNotOwnedObject", f"{_hex(ref.id)} is not owned by an address", ref.id)
        if owner.address != gas.owner:
            raise _reject(
                "IncorrectUserSignature",
                f"gas coin {_hex(ref.id)} belongs to {_hex(owner.address)}, gas is paid by {_hex(gas.owner)}",
                ref.id,
            )
        if record.type != GAS_COIN_TYPE:
            raise _reject("InvalidGasObject", f"{_hex(ref.id)} is {record.type}, gas is paid in SUI", ref.id)
        coins.append(record)
    check_budget(gas.budget, gas.price)
    total = sum(int.from_bytes(record.contents[32:40], "little") for record in coins)
    if total < gas.budget:
        raise _reject("GasBalanceTooLow", f"the gas coins hold {total} MIST, the budget is {gas.budget} MIST")
    return coins
