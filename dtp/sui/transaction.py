"""Transactions as Sui writes them: commands, inputs, gas, kinds, and the digest that is signed.

Every class here is one BCS struct or one variant of a BCS enum, with the fields in the order of the format; `encode`
and `decode` of the codecs at the bottom are exact inverses. Variants of the format that only validators of a real
network make, and that this project neither sends nor accepts, are not here: decoding one raises `BcsError` naming
its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import TypeAlias

from dtp.sui.bcs import (
    ADDRESS,
    BYTES,
    DIGEST,
    STRING,
    U8,
    U16,
    U32,
    U64,
    BcsError,
    Codec,
    enum,
    option,
    pair,
    struct,
    vector,
)
from dtp.sui.names import TYPE_TAG, TypeTag
from dtp.sui.objects import OBJECT_DATA, OWNER, Owner

# ------------------------------------------------------------------------------------------------ inputs


@dataclass(frozen=True)
class ObjectRef:
    """One version of an object: `id` 32 bytes, `digest` 32 bytes."""

    id: bytes
    version: int
    digest: bytes


class Mutability(IntEnum):
    """How a transaction may use a shared object."""

    IMMUTABLE = 0
    MUTABLE = 1
    NON_EXCLUSIVE_WRITE = 2


@dataclass(frozen=True)
class Pure:
    """An input given as the BCS of a value whose type the use decides."""

    data: bytes


@dataclass(frozen=True)
class OwnedInput:
    """An input object that is owned by an address, or immutable, at an exact version."""

    ref: ObjectRef


@dataclass(frozen=True)
class SharedInput:
    """An input object that is shared (or a party's), whose version consensus decides."""

    id: bytes
    initial_shared_version: int
    mutability: Mutability


@dataclass(frozen=True)
class ReceivingInput:
    """An object that was sent to another object, to be taken with `transfer::receive`."""

    ref: ObjectRef


@dataclass(frozen=True)
class FundsWithdrawal:
    """A withdrawal from the balance of an address: `amount` at most, of `Balance<type>`, from sender or sponsor."""

    amount: int
    type: TypeTag
    from_sponsor: bool


CallArg: TypeAlias = Pure | OwnedInput | SharedInput | ReceivingInput | FundsWithdrawal

# ---------------------------------------------------------------------------------------------- commands


@dataclass(frozen=True)
class GasCoin:
    """The coin that pays for gas."""


@dataclass(frozen=True)
class Input:
    """Input number `index` of the transaction."""

    index: int


@dataclass(frozen=True)
class Result:
    """The only result of command number `command`."""

    command: int


@dataclass(frozen=True)
class NestedResult:
    """Result number `index` of command number `command`."""

    command: int
    index: int


Argument: TypeAlias = GasCoin | Input | Result | NestedResult


@dataclass(frozen=True)
class MoveCall:
    """Call `package::module::function<type_arguments>(arguments)`; `package` is a storage id."""

    package: bytes
    module: str
    function: str
    type_arguments: tuple[TypeTag, ...] = ()
    arguments: tuple[Argument, ...] = ()


@dataclass(frozen=True)
class TransferObjects:
    """Give objects to the address that `recipient` is."""

    objects: tuple[Argument, ...]
    recipient: Argument


@dataclass(frozen=True)
class SplitCoins:
    """Split amounts off a coin; the results are the new coins."""

    coin: Argument
    amounts: tuple[Argument, ...]


@dataclass(frozen=True)
class MergeCoins:
    """Merge `sources` into `target`."""

    target: Argument
    sources: tuple[Argument, ...]


@dataclass(frozen=True)
class Publish:
    """Publish modules that name themselves 0x0; the result is the `UpgradeCap`. `dependencies` are storage ids."""

    modules: tuple[bytes, ...]
    dependencies: tuple[bytes, ...]


@dataclass(frozen=True)
class MakeMoveVec:
    """A vector of the elements; `type` is needed when there is no element, or when elements are pure."""

    type: TypeTag | None
    elements: tuple[Argument, ...]


@dataclass(frozen=True)
class Upgrade:
    """Upgrade `package` with an `UpgradeTicket`; the result is the `UpgradeReceipt`."""

    modules: tuple[bytes, ...]
    dependencies: tuple[bytes, ...]
    package: bytes
    ticket: Argument


Command: TypeAlias = MoveCall | TransferObjects | SplitCoins | MergeCoins | Publish | MakeMoveVec | Upgrade

# ------------------------------------------------------------------------------------------------- kinds


@dataclass(frozen=True)
class ProgrammableTransaction:
    """What a user's transaction does: commands over inputs."""

    inputs: tuple[CallArg, ...]
    commands: tuple[Command, ...]


@dataclass(frozen=True)
class ChangeEpoch:
    """System transaction that ends an epoch. Amounts are MIST, times are ms."""

    epoch: int
    protocol_version: int
    storage_charge: int
    computation_charge: int
    storage_rebate: int
    non_refundable_storage_fee: int
    epoch_start_timestamp_ms: int
    system_packages: tuple[tuple[int, tuple[tuple[bytes, ...], tuple[bytes, ...]]], ...] = ()


@dataclass(frozen=True)
class GenesisObject:
    """An object that exists from the start: BCS of its `Data`, and its owner."""

    data: bytes
    owner: Owner


@dataclass(frozen=True)
class Genesis:
    """System transaction that makes the first objects."""

    objects: tuple[GenesisObject, ...]


@dataclass(frozen=True)
class ConsensusCommitPrologue:
    """System transaction that sets the clock, first of a consensus commit."""

    epoch: int
    round: int
    commit_timestamp_ms: int


@dataclass(frozen=True)
class RandomnessStateUpdate:
    """System transaction that gives the object 0x8 new random bytes."""

    epoch: int
    randomness_round: int
    random_bytes: bytes
    randomness_obj_initial_shared_version: int


TransactionKind: TypeAlias = (
    ProgrammableTransaction | ChangeEpoch | Genesis | ConsensusCommitPrologue | RandomnessStateUpdate
)

# ----------------------------------------------------------------------------------------- whole transactions


@dataclass(frozen=True)
class GasData:
    """Who pays with which coins. `price` is MIST per unit, `budget` MIST."""

    payment: tuple[ObjectRef, ...]
    owner: bytes
    price: int
    budget: int


@dataclass(frozen=True)
class NoExpiration:
    """Valid for ever."""


@dataclass(frozen=True)
class EpochExpiration:
    """Valid up to and including `epoch`."""

    epoch: int


@dataclass(frozen=True)
class ValidDuring:
    """Valid within epochs and times (ms), on one chain; `nonce` tells identical transactions apart."""

    min_epoch: int | None
    max_epoch: int | None
    min_timestamp: int | None
    max_timestamp: int | None
    chain: bytes
    nonce: int


Expiration: TypeAlias = NoExpiration | EpochExpiration | ValidDuring


@dataclass(frozen=True)
class TransactionData:
    """What is signed. `sender` is 32 bytes."""

    kind: TransactionKind
    sender: bytes
    gas_data: GasData
    expiration: Expiration = NoExpiration()

    def encode(self) -> bytes:
        """Return the BCS."""
        return TRANSACTION_DATA.encode(self)

    @staticmethod
    def decode(data: bytes) -> TransactionData:
        """Return the transaction that `data` is. Raises `BcsError`."""
        return TRANSACTION_DATA.decode(data)

    def digest(self) -> bytes:
        """Return the 32 bytes that name this transaction."""
        return transaction_digest(self.encode())


class IntentScope(IntEnum):
    """What a signature is about, so that one thing's signature never fits another."""

    TRANSACTION_DATA = 0
    TRANSACTION_EFFECTS = 1
    CHECKPOINT_SUMMARY = 2
    PERSONAL_MESSAGE = 3


def transaction_digest(data: bytes) -> bytes:
    """Return digest of a transaction from its BCS."""
    return blake2b(b"TransactionData::" + data, digest_size=32).digest()


def signing_hash(data: bytes, scope: IntentScope = IntentScope.TRANSACTION_DATA) -> bytes:
    """Return the 32 bytes that are signed for `data` (BCS): Blake2b-256 over the intent and the bytes."""
    return blake2b(bytes((scope, 0, 0)) + data, digest_size=32).digest()


# ------------------------------------------------------------------------------------------------ codecs

OBJECT_REF: Codec[ObjectRef] = struct(ObjectRef, id=ADDRESS, version=U64, digest=DIGEST)


def _read_mutability(data: bytes, at: int) -> tuple[Mutability, int]:
    number, end = U8.read(data, at)
    if number > Mutability.NON_EXCLUSIVE_WRITE:
        raise BcsError(f"no mutability of a shared object has number {number}", at)
    return Mutability(number), end


_OBJECT_ARG = enum(
    "ObjectArg",
    {
        0: (OwnedInput, struct(OwnedInput, ref=OBJECT_REF)),
        1: (
            SharedInput,
            struct(
                SharedInput,
                id=ADDRESS,
                initial_shared_version=U64,
                mutability=Codec(lambda value, out: out.append(value), _read_mutability),
            ),
        ),
        2: (ReceivingInput, struct(ReceivingInput, ref=OBJECT_REF)),
    },
)


def _write_withdrawal(value: FundsWithdrawal, out: bytearray) -> None:
    out.append(0)  # Reservation::MaxAmountU64
    U64.write(value.amount, out)
    out.append(0)  # WithdrawalType::Balance
    TYPE_TAG.write(value.type, out)
    out.append(value.from_sponsor)


def _read_withdrawal(data: bytes, at: int) -> tuple[FundsWithdrawal, int]:
    _, at = _zero(data, at, "Reservation")
    amount, at = U64.read(data, at)
    _, at = _zero(data, at, "WithdrawalTypeArg")
    tag, at = TYPE_TAG.read(data, at)
    number, end = U8.read(data, at)
    if number > 1:
        raise BcsError(f"WithdrawFrom has no variant {number}", at)
    return FundsWithdrawal(amount, tag, number == 1), end


def _zero(data: bytes, at: int, name: str) -> tuple[int, int]:
    number, end = U8.read(data, at)
    if number:
        raise BcsError(f"{name} has no variant {number}", at)
    return number, end


_WITHDRAWAL = Codec(_write_withdrawal, _read_withdrawal)


def _write_call_arg(value: CallArg, out: bytearray) -> None:
    if type(value) is Pure:
        out.append(0)
        BYTES.write(value.data, out)
    elif type(value) is FundsWithdrawal:
        out.append(2)
        _WITHDRAWAL.write(value, out)
    else:
        out.append(1)
        _OBJECT_ARG.write(value, out)


def _read_call_arg(data: bytes, at: int) -> tuple[CallArg, int]:
    number, after = U8.read(data, at)
    if number == 0:
        raw, end = BYTES.read(data, after)
        return Pure(raw), end
    if number == 1:
        return _OBJECT_ARG.read(data, after)
    if number == 2:
        return _WITHDRAWAL.read(data, after)
    raise BcsError(f"CallArg has no variant {number}", at)


CALL_ARG: Codec[CallArg] = Codec(_write_call_arg, _read_call_arg)

ARGUMENT: Codec[Argument] = enum(
    "Argument",
    {
        0: (GasCoin, struct(GasCoin)),
        1: (Input, struct(Input, index=U16)),
        2: (Result, struct(Result, command=U16)),
        3: (NestedResult, struct(NestedResult, command=U16, index=U16)),
    },
)
_ARGUMENTS = vector(ARGUMENT)
_MODULES = vector(BYTES)
_IDS = vector(ADDRESS)

COMMAND: Codec[Command] = enum(
    "Command",
    {
        0: (
            MoveCall,
            struct(
                MoveCall,
                package=ADDRESS,
                module=STRING,
                function=STRING,
                type_arguments=vector(TYPE_TAG),
                arguments=_ARGUMENTS,
            ),
        ),
        1: (TransferObjects, struct(TransferObjects, objects=_ARGUMENTS, recipient=ARGUMENT)),
        2: (SplitCoins, struct(SplitCoins, coin=ARGUMENT, amounts=_ARGUMENTS)),
        3: (MergeCoins, struct(MergeCoins, target=ARGUMENT, sources=_ARGUMENTS)),
        4: (Publish, struct(Publish, modules=_MODULES, dependencies=_IDS)),
        5: (MakeMoveVec, struct(MakeMoveVec, type=option(TYPE_TAG), elements=_ARGUMENTS)),
        6: (
            Upgrade,
            struct(Upgrade, modules=_MODULES, dependencies=_IDS, package=ADDRESS, ticket=ARGUMENT),
        ),
    },
)


def _write_genesis_object(value: GenesisObject, out: bytearray) -> None:
    out.append(0)  # GenesisObject::RawObject
    out += value.data
    OWNER.write(value.owner, out)


def _read_genesis_object(data: bytes, at: int) -> tuple[GenesisObject, int]:
    _, at = _zero(data, at, "GenesisObject")
    _, end = OBJECT_DATA.read(data, at)
    owner, after = OWNER.read(data, end)
    return GenesisObject(bytes(data[at:end]), owner), after


TRANSACTION_KIND: Codec[TransactionKind] = enum(
    "TransactionKind",
    {
        0: (
            ProgrammableTransaction,
            struct(ProgrammableTransaction, inputs=vector(CALL_ARG), commands=vector(COMMAND)),
        ),
        1: (
            ChangeEpoch,
            struct(
                ChangeEpoch,
                epoch=U64,
                protocol_version=U64,
                storage_charge=U64,
                computation_charge=U64,
                storage_rebate=U64,
                non_refundable_storage_fee=U64,
                epoch_start_timestamp_ms=U64,
                system_packages=vector(pair(U64, pair(_MODULES, _IDS))),
            ),
        ),
        2: (Genesis, struct(Genesis, objects=vector(Codec(_write_genesis_object, _read_genesis_object)))),
        3: (
            ConsensusCommitPrologue,
            struct(ConsensusCommitPrologue, epoch=U64, round=U64, commit_timestamp_ms=U64),
        ),
        6: (
            RandomnessStateUpdate,
            struct(
                RandomnessStateUpdate,
                epoch=U64,
                randomness_round=U64,
                random_bytes=BYTES,
                randomness_obj_initial_shared_version=U64,
            ),
        ),
    },
)

GAS_DATA: Codec[GasData] = struct(GasData, payment=vector(OBJECT_REF), owner=ADDRESS, price=U64, budget=U64)
_OPTIONAL_U64 = option(U64)
EXPIRATION: Codec[Expiration] = enum(
    "TransactionExpiration",
    {
        0: (NoExpiration, struct(NoExpiration)),
        1: (EpochExpiration, struct(EpochExpiration, epoch=U64)),
        2: (
            ValidDuring,
            struct(
                ValidDuring,
                min_epoch=_OPTIONAL_U64,
                max_epoch=_OPTIONAL_U64,
                min_timestamp=_OPTIONAL_U64,
                max_timestamp=_OPTIONAL_U64,
                chain=DIGEST,
                nonce=U32,
            ),
        ),
    },
)
TRANSACTION_DATA: Codec[TransactionData] = enum(
    "TransactionData",
    {
        0: (
            TransactionData,
            struct(
                TransactionData,
                kind=TRANSACTION_KIND,
                sender=ADDRESS,
                gas_data=GAS_DATA,
                expiration=EXPIRATION,
            ),
        )
    },
)


def arguments_of(command: Command) -> Sequence[Argument]:
    """Return every argument of a command, in the order of the format."""
    match command:
        case MoveCall(arguments=arguments) | MakeMoveVec(elements=arguments):
            return arguments
        case TransferObjects(objects, recipient):
            return (*objects, recipient)
        case SplitCoins(first, rest) | MergeCoins(first, rest):
            return (first, *rest)
        case Upgrade(ticket=ticket):
            return (ticket,)
        case Publish():
            return ()
