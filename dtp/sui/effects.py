"""Effects of a transaction, its events, and checkpoints, as Sui writes them, with their digests.

Fields stand in the order of the format (TransactionEffectsV2). `FAILURES` is the table of execution failures: name,
number and content; an `ExecutionError` carries the content by field name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import blake2b
from typing import Any, Final, TypeAlias

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
    fixed,
    option,
    pair,
    struct,
    uleb128,
    vector,
)
from dtp.sui.names import IDENTIFIER, STRUCT_TAG, TypeTag
from dtp.sui.objects import OWNER, Owner

# ---------------------------------------------------------------------------------------------- failures


@dataclass(frozen=True)
class CodeLocation:
    """Where Move stopped: module, number of the function definition, instruction, the function's name."""

    package: bytes
    module: str
    function: int
    instruction: int
    function_name: str | None


@dataclass(frozen=True)
class ArgumentProblem:
    """Reason of `CommandArgumentError`: its name in `ARGUMENT_PROBLEMS` and its numbers, if it has some."""

    name: str
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class UpgradeProblem:
    """Reason of `PackageUpgradeError`: its name in `_UPGRADE_PROBLEMS` and its content."""

    name: str
    content: tuple[Any, ...] = ()


@dataclass(frozen=True)
class ExecutionError:
    """Why a transaction failed: a name in `FAILURES`, its content by field name, and the command it happened in.

    `description` is for people and not part of the format.
    """

    kind: str
    content: Mapping[str, Any] = field(default_factory=dict)
    command: int | None = None
    description: str = field(default="", compare=False)


@dataclass(frozen=True)
class Succeeded:
    """The transaction did what it was to do."""


@dataclass(frozen=True)
class Failed:
    """The transaction did nothing but pay for gas."""

    error: ExecutionError


Status: TypeAlias = Succeeded | Failed

_CODE_LOCATION: Codec[CodeLocation] = struct(
    CodeLocation,
    package=ADDRESS,
    module=IDENTIFIER,
    function=U16,
    instruction=U16,
    function_name=option(STRING),
)

ARGUMENT_PROBLEMS: Final[Mapping[str, tuple[int, int]]] = {
    # name: (number, how many u16 follow)
    "TypeMismatch": (0, 0),
    "InvalidBCSBytes": (1, 0),
    "InvalidUsageOfPureArg": (2, 0),
    "InvalidArgumentToPrivateEntryFunction": (3, 0),
    "IndexOutOfBounds": (4, 1),
    "SecondaryIndexOutOfBounds": (5, 2),
    "InvalidResultArity": (6, 1),
    "InvalidGasCoinUsage": (7, 0),
    "InvalidValueUsage": (8, 0),
    "InvalidObjectByValue": (9, 0),
    "InvalidObjectByMutRef": (10, 0),
    "SharedObjectOperationNotAllowed": (11, 0),
    "InvalidArgumentArity": (12, 0),
    "InvalidTransferObject": (13, 0),
    "InvalidMakeMoveVecNonObjectArgument": (14, 0),
    "ArgumentWithoutValue": (15, 0),
    "CannotMoveBorrowedValue": (16, 0),
    "CannotWriteToExtendedReference": (17, 0),
    "InvalidReferenceArgument": (18, 0),
}
_PROBLEM_BY_NUMBER = {number: (name, count) for name, (number, count) in ARGUMENT_PROBLEMS.items()}


def _write_argument_problem(value: ArgumentProblem, out: bytearray) -> None:
    number, count = ARGUMENT_PROBLEMS[value.name]
    out.append(number)
    for item in value.numbers[:count]:
        U16.write(item, out)


def _read_argument_problem(data: bytes, at: int) -> tuple[ArgumentProblem, int]:
    number, after = U8.read(data, at)
    if number not in _PROBLEM_BY_NUMBER:
        raise BcsError(f"CommandArgumentError has no variant {number}", at)
    name, count = _PROBLEM_BY_NUMBER[number]
    numbers = []
    for _ in range(count):
        item, after = U16.read(data, after)
        numbers.append(item)
    return ArgumentProblem(name, tuple(numbers)), after


_TYPE_PROBLEMS = ("TypeNotFound", "ConstraintNotSatisfied")


def _names(names: tuple[str, ...], what: str) -> Codec[str]:
    def read(data: bytes, at: int) -> tuple[str, int]:
        number, end = U8.read(data, at)
        if number >= len(names):
            raise BcsError(f"{what} has no variant {number}", at)
        return names[number], end

    return Codec(lambda value, out: out.append(names.index(value)), read)


_UPGRADE_PROBLEMS: Final[Mapping[str, tuple[int, tuple[Codec[Any], ...]]]] = {
    "UnableToFetchPackage": (0, (ADDRESS,)),
    "NotAPackage": (1, (ADDRESS,)),
    "IncompatibleUpgrade": (2, ()),
    "DigestDoesNotMatch": (3, (BYTES,)),
    "UnknownUpgradePolicy": (4, (U8,)),
    "PackageIDDoesNotMatch": (5, (ADDRESS, ADDRESS)),
}


def _write_upgrade_problem(value: UpgradeProblem, out: bytearray) -> None:
    number, codecs = _UPGRADE_PROBLEMS[value.name]
    out.append(number)
    for codec, item in zip(codecs, value.content, strict=True):
        codec.write(item, out)


def _read_upgrade_problem(data: bytes, at: int) -> tuple[UpgradeProblem, int]:
    number, after = U8.read(data, at)
    for name, (known, codecs) in _UPGRADE_PROBLEMS.items():
        if known == number:
            content = []
            for codec in codecs:
                item, after = codec.read(data, after)
                content.append(item)
            return UpgradeProblem(name, tuple(content)), after
    raise BcsError(f"PackageUpgradeError has no variant {number}", at)


_ARGUMENT_PROBLEM = Codec(_write_argument_problem, _read_argument_problem)
_UPGRADE_PROBLEM = Codec(_write_upgrade_problem, _read_upgrade_problem)
_SIZES = {"object_size": U64, "max_object_size": U64}
_CURRENT_SIZES = {"current_size": U64, "max_size": U64}
_SCALED_SIZES = {"value_size": U64, "max_scaled_size": U64}

FAILURES: Final[Mapping[str, tuple[int, Mapping[str, Codec[Any]]]]] = {
    "InsufficientGas": (0, {}),
    "InvalidGasObject": (1, {}),
    "InvariantViolation": (2, {}),
    "FeatureNotYetSupported": (3, {}),
    "MoveObjectTooBig": (4, _SIZES),
    "MovePackageTooBig": (5, _SIZES),
    "CircularObjectOwnership": (6, {"object": ADDRESS}),
    "InsufficientCoinBalance": (7, {}),
    "CoinBalanceOverflow": (8, {}),
    "PublishErrorNonZeroAddress": (9, {}),
    "SuiMoveVerificationError": (10, {}),
    "MovePrimitiveRuntimeError": (11, {"location": option(_CODE_LOCATION)}),
    "MoveAbort": (12, {"location": _CODE_LOCATION, "code": U64}),
    "VMVerificationOrDeserializationError": (13, {}),
    "VMInvariantViolation": (14, {}),
    "FunctionNotFound": (15, {}),
    "ArityMismatch": (16, {}),
    "TypeArityMismatch": (17, {}),
    "NonEntryFunctionInvoked": (18, {}),
    "CommandArgumentError": (19, {"argument": U16, "problem": _ARGUMENT_PROBLEM}),
    "TypeArgumentError": (20, {"argument": U16, "problem": _names(_TYPE_PROBLEMS, "TypeArgumentError")}),
    "UnusedValueWithoutDrop": (21, {"result": U16, "secondary": U16}),
    "InvalidPublicFunctionReturnType": (22, {"index": U16}),
    "InvalidTransferObject": (23, {}),
    "EffectsTooLarge": (24, _CURRENT_SIZES),
    "PublishUpgradeMissingDependency": (25, {}),
    "PublishUpgradeDependencyDowngrade": (26, {}),
    "PackageUpgradeError": (27, {"problem": _UPGRADE_PROBLEM}),
    "WrittenObjectsTooLarge": (28, _CURRENT_SIZES),
    "CertificateDenied": (29, {}),
    "SuiMoveVerificationTimedout": (30, {}),
    "SharedObjectOperationNotAllowed": (31, {}),
    "InputObjectDeleted": (32, {}),
    "ExecutionCancelledDueToSharedObjectCongestion": (33, {"congested_objects": vector(ADDRESS)}),
    "AddressDeniedForCoin": (34, {"address": ADDRESS, "coin_type": STRING}),
    "CoinTypeGlobalPause": (35, {"coin_type": STRING}),
    "ExecutionCancelledDueToRandomnessUnavailable": (36, {}),
    "MoveVectorElemTooBig": (37, _SCALED_SIZES),
    "MoveRawValueTooBig": (38, _SCALED_SIZES),
    "InvalidLinkage": (39, {}),
    "InsufficientFundsForWithdraw": (40, {}),
    "NonExclusiveWriteInputObjectModified": (41, {"id": ADDRESS}),
}
"""Every execution failure of the protocol: name -> (number in BCS, content)."""
_FAILURE_BY_NUMBER = {number: name for name, (number, _) in FAILURES.items()}

_COMMAND = option(U64)


def _write_status(value: Status, out: bytearray) -> None:
    if isinstance(value, Succeeded):
        out.append(0)
        return
    number, codecs = FAILURES[value.error.kind]
    out.append(1)
    out += uleb128(number)
    for name, codec in codecs.items():
        codec.write(value.error.content[name], out)
    _COMMAND.write(value.error.command, out)


def _read_status(data: bytes, at: int) -> tuple[Status, int]:
    failed, at = U8.read(data, at)
    if not failed:
        return Succeeded(), at
    number, after = U8.read(data, at)
    if failed > 1 or number not in _FAILURE_BY_NUMBER:
        raise BcsError(f"no execution status ({failed}, {number})", at)
    kind = _FAILURE_BY_NUMBER[number]
    content = {}
    for name, codec in FAILURES[kind][1].items():
        content[name], after = codec.read(data, after)
    command, after = _COMMAND.read(data, after)
    return Failed(ExecutionError(kind, content, command)), after


STATUS: Codec[Status] = Codec(_write_status, _read_status)

# ----------------------------------------------------------------------------------------------- changes


@dataclass(frozen=True)
class GasCost:
    """MIST: paid for computation, for storage, given back for storage freed, and the part of that kept for ever."""

    computation: int = 0
    storage: int = 0
    storage_rebate: int = 0
    non_refundable: int = 0

    @property
    def net(self) -> int:
        """What the gas coin loses (negative when it gains)."""
        return self.computation + self.storage - self.storage_rebate

    def __add__(self, other: GasCost) -> GasCost:
        return GasCost(
            self.computation + other.computation,
            self.storage + other.storage,
            self.storage_rebate + other.storage_rebate,
            self.non_refundable + other.non_refundable,
        )


@dataclass(frozen=True)
class InAbsent:
    """The object did not exist before (new, or wrapped)."""


@dataclass(frozen=True)
class InExisting:
    """The object before: its version, digest and owner."""

    version: int
    digest: bytes
    owner: Owner


@dataclass(frozen=True)
class OutAbsent:
    """The object does not exist any more (deleted, or wrapped)."""


@dataclass(frozen=True)
class OutObject:
    """The object after, at the lamport version of the effects."""

    digest: bytes
    owner: Owner


@dataclass(frozen=True)
class OutPackage:
    """A package was written."""

    version: int
    digest: bytes


class IdOperation(IntEnum):
    """What happened to the id itself."""

    NONE = 0
    CREATED = 1
    DELETED = 2


@dataclass(frozen=True)
class ObjectChange:
    """One object before and after."""

    before: InAbsent | InExisting
    after: OutAbsent | OutObject | OutPackage
    id_operation: IdOperation


@dataclass(frozen=True)
class ReadOnlyRoot:
    """A shared object was read."""

    version: int
    digest: bytes


@dataclass(frozen=True)
class MutateEnded:
    """A shared object was to be changed, but had been deleted at `version`."""

    version: int


@dataclass(frozen=True)
class ReadEnded:
    """A shared object was to be read, but had been deleted at `version`."""

    version: int


@dataclass(frozen=True)
class Cancelled:
    """A shared object of a cancelled transaction."""

    version: int


@dataclass(frozen=True)
class PerEpochConfig:
    """A configuration that changes only between epochs was read."""


Unchanged: TypeAlias = ReadOnlyRoot | MutateEnded | ReadEnded | Cancelled | PerEpochConfig


@dataclass(frozen=True)
class TransactionEffects:
    """What a transaction did. `changed` and `unchanged` are sorted by object id; digests are 32 bytes."""

    status: Status
    epoch: int
    gas_used: GasCost
    transaction_digest: bytes
    gas_object_index: int | None
    events_digest: bytes | None
    dependencies: tuple[bytes, ...]
    lamport_version: int
    changed: tuple[tuple[bytes, ObjectChange], ...]
    unchanged: tuple[tuple[bytes, Unchanged], ...]
    aux_data_digest: bytes | None = None

    @property
    def ok(self) -> bool:
        """Whether the transaction succeeded."""
        return isinstance(self.status, Succeeded)

    @property
    def error(self) -> ExecutionError | None:
        """Why it failed, None if it did not."""
        return self.status.error if isinstance(self.status, Failed) else None

    def encode(self) -> bytes:
        """Return the BCS."""
        return TRANSACTION_EFFECTS.encode(self)

    @staticmethod
    def decode(data: bytes) -> TransactionEffects:
        """Return the effects that `data` is. Raises `BcsError`."""
        return TRANSACTION_EFFECTS.decode(data)


_GAS_COST: Codec[GasCost] = struct(
    GasCost, computation=U64, storage=U64, storage_rebate=U64, non_refundable=U64
)
_BEFORE = enum(
    "ObjectIn",
    {
        0: (InAbsent, struct(InAbsent)),
        1: (InExisting, struct(InExisting, version=U64, digest=DIGEST, owner=OWNER)),
    },
)
_AFTER = enum(
    "ObjectOut",
    {
        0: (OutAbsent, struct(OutAbsent)),
        1: (OutObject, struct(OutObject, digest=DIGEST, owner=OWNER)),
        2: (OutPackage, struct(OutPackage, version=U64, digest=DIGEST)),
    },
)


def _read_operation(data: bytes, at: int) -> tuple[IdOperation, int]:
    number, end = U8.read(data, at)
    if number > IdOperation.DELETED:
        raise BcsError(f"IDOperation has no variant {number}", at)
    return IdOperation(number), end


_CHANGE: Codec[ObjectChange] = struct(
    ObjectChange,
    before=_BEFORE,
    after=_AFTER,
    id_operation=Codec(lambda value, out: out.append(value), _read_operation),
)
_UNCHANGED: Codec[Unchanged] = enum(
    "UnchangedConsensusKind",
    {
        0: (ReadOnlyRoot, struct(ReadOnlyRoot, version=U64, digest=DIGEST)),
        1: (MutateEnded, struct(MutateEnded, version=U64)),
        2: (ReadEnded, struct(ReadEnded, version=U64)),
        3: (Cancelled, struct(Cancelled, version=U64)),
        4: (PerEpochConfig, struct(PerEpochConfig)),
    },
)
_EFFECTS_V2: Codec[TransactionEffects] = struct(
    TransactionEffects,
    status=STATUS,
    epoch=U64,
    gas_used=_GAS_COST,
    transaction_digest=DIGEST,
    gas_object_index=option(U32),
    events_digest=option(DIGEST),
    dependencies=vector(DIGEST),
    lamport_version=U64,
    changed=vector(pair(ADDRESS, _CHANGE)),
    unchanged=vector(pair(ADDRESS, _UNCHANGED)),
    aux_data_digest=option(DIGEST),
)
TRANSACTION_EFFECTS: Codec[TransactionEffects] = enum(
    "TransactionEffects", {1: (TransactionEffects, _EFFECTS_V2)}
)


def effects_digest(data: bytes) -> bytes:
    """Return digest of effects from their BCS."""
    return blake2b(b"TransactionEffects::" + data, digest_size=32).digest()


# ------------------------------------------------------------------------------------------------ events


@dataclass(frozen=True)
class MoveEvent:
    """An event as it is in the transaction: who called what, the event's type and BCS."""

    package: bytes
    module: str
    sender: bytes
    type: TypeTag
    contents: bytes


TRANSACTION_EVENTS: Codec[tuple[MoveEvent, ...]] = vector(
    struct(MoveEvent, package=ADDRESS, module=IDENTIFIER, sender=ADDRESS, type=STRUCT_TAG, contents=BYTES)
)


def events_digest(data: bytes) -> bytes:
    """Return digest of a transaction's events from their BCS."""
    return blake2b(b"TransactionEvents::" + data, digest_size=32).digest()


# ------------------------------------------------------------------------------------------- checkpoints


@dataclass(frozen=True)
class EndOfEpoch:
    """In an epoch's last checkpoint: the next committee (public key of 96 bytes, weight) and protocol version."""

    next_committee: tuple[tuple[bytes, int], ...]
    next_protocol_version: int
    commitments: tuple[LiveObjectSet | CheckpointArtifacts, ...] = ()


@dataclass(frozen=True)
class CheckpointSummary:
    """What a checkpoint's digest covers."""

    epoch: int
    sequence_number: int
    network_total_transactions: int
    content_digest: bytes
    previous_digest: bytes | None
    epoch_rolling_gas_cost: GasCost
    timestamp_ms: int
    commitments: tuple[LiveObjectSet | CheckpointArtifacts, ...] = ()
    end_of_epoch: EndOfEpoch | None = None
    version_specific_data: bytes = b""

    def encode(self) -> bytes:
        """Return the BCS."""
        return CHECKPOINT_SUMMARY.encode(self)

    def digest(self) -> bytes:
        """Return the 32 bytes that name this checkpoint."""
        return blake2b(b"CheckpointSummary::" + self.encode(), digest_size=32).digest()


@dataclass(frozen=True)
class ExecutionDigests:
    """One transaction of a checkpoint: its digest and that of its effects."""

    transaction: bytes
    effects: bytes


@dataclass(frozen=True)
class CheckpointContents:
    """The transactions of a checkpoint in their order, with each one's signatures."""

    transactions: tuple[ExecutionDigests, ...]
    signatures: tuple[tuple[bytes, ...], ...]

    def encode(self) -> bytes:
        """Return the BCS."""
        return CHECKPOINT_CONTENTS.encode(self)

    def digest(self) -> bytes:
        """Return the 32 bytes over transactions and signatures."""
        return blake2b(b"CheckpointContents::" + self.encode(), digest_size=32).digest()


@dataclass(frozen=True)
class LiveObjectSet:
    """Commitment to all live objects (ECMH)."""

    digest: bytes


@dataclass(frozen=True)
class CheckpointArtifacts:
    """Commitment to what the checkpoint's indexes hold."""

    digest: bytes


_COMMITMENTS = vector(
    enum(
        "CheckpointCommitment",
        {
            0: (LiveObjectSet, struct(LiveObjectSet, digest=DIGEST)),
            1: (CheckpointArtifacts, struct(CheckpointArtifacts, digest=DIGEST)),
        },
    )
)
CHECKPOINT_SUMMARY: Codec[CheckpointSummary] = struct(
    CheckpointSummary,
    epoch=U64,
    sequence_number=U64,
    network_total_transactions=U64,
    content_digest=DIGEST,
    previous_digest=option(DIGEST),
    epoch_rolling_gas_cost=_GAS_COST,
    timestamp_ms=U64,
    commitments=_COMMITMENTS,
    end_of_epoch=option(
        struct(
            EndOfEpoch,
            next_committee=vector(pair(fixed(96, "a validator's key"), U64)),
            next_protocol_version=U64,
            commitments=_COMMITMENTS,
        )
    ),
    version_specific_data=BYTES,
)
CHECKPOINT_CONTENTS: Codec[CheckpointContents] = enum(
    "CheckpointContents",
    {
        0: (
            CheckpointContents,
            struct(
                CheckpointContents,
                transactions=vector(struct(ExecutionDigests, transaction=DIGEST, effects=DIGEST)),
                signatures=vector(vector(BYTES)),
            ),
        )
    },
)
