"""The seam between the Move virtual machine and the node around it: what goes in, what comes out.

One `VM` (see `dtp.localnet.vm.machine`) serves a whole node; one `Session` serves one transaction. The node

1. keeps packages and gives them by storage id (`PackageStore`);
2. keeps objects and gives child objects and received objects on request (`ChildStore`);
3. turns a publish command into a `Package` with `VM.build_package` (parse, verify, link) and an upgrade with
   `VM.check_upgrade`;
4. opens `VM.open_session(objects, tx, meter)` with an `ObjectRuntime` and a `GasMeter`, calls
   `Session.call_function` once per Move call command, with one `ArgumentSlot` per argument, and reads the
   outcome off the slots, the returned `Value`s and `ObjectRuntime.collect_effects()`.

Data inside a `Value` is the machine's own representation and opaque to the node: it is made by `VM.decode_value` from
BCS and read by `VM.encode_value`. It has no identity beyond its slot: use each by-value result once (copy with
`VM.copy_value`).

Everything that a program can do wrong leaves `Session.call_function` as one `ExecutionFailure`; a package that can't
be accepted leaves `build_package` or `check_upgrade` as one `PackageRejected`. Anything else that escapes is a bug of
the machine. After a failure the session, its slots and its `ObjectRuntime` hold half-done work: drop them.

Numbers: addresses and ids are 32 `bytes`; gas is in internal computation units (the node multiplies by the
transaction's gas price and rounds as the protocol does, see `dtp.localnet.vm.gas`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from dtp.errors import ChainError

if TYPE_CHECKING:
    from dtp.localnet.vm.types import Type

__all__ = [
    "ArgumentSlot",
    "ChildStore",
    "CleverError",
    "ExecutionFailure",
    "FunctionInstance",
    "MoveLocation",
    "OwnerKind",
    "Package",
    "PackageRejected",
    "PackageStore",
    "RuntimeEffects",
    "StoredObject",
    "Transfer",
    "TxData",
    "UpgradePolicy",
    "Value",
    "VmOwner",
]


# ---------------------------------------------------------------------------------------------- packages


@dataclass(frozen=True, eq=False)
class Package:
    """One published package. Compared by identity: the store hands out the same object for the same package.

    `storage_id` is where this version lives, `original_id` where version 1 lives (it is the address that the
    bytecode names). `modules` maps a module's name to its bytes, in which the module's own address is already
    `original_id`. `linkage` maps the original id of every dependency, direct or not, to the storage id used.
    `type_origin` maps (module, datatype) to the storage id of the version that introduced it.
    """

    storage_id: bytes
    original_id: bytes
    version: int
    modules: Mapping[str, bytes]
    linkage: Mapping[bytes, bytes] = field(default_factory=dict)
    type_origin: Mapping[tuple[str, str], bytes] = field(default_factory=dict)


class PackageStore(Protocol):
    """Where the machine finds packages, those of the running transaction's own publish commands included."""

    def get_package(self, storage_id: bytes) -> Package | None:
        """Return the package stored under `storage_id`, always the same object, or None."""


class UpgradePolicy(Enum):
    """What an upgrade may change; the values are those of `sui::package`'s policy bytes."""

    COMPATIBLE = 0
    ADDITIVE = 128
    DEPENDENCY_ONLY = 192


class PackageRejected(ChainError):
    """A package can't be published or upgraded.

    `status` is the name the protocol gives this failure: `VMVerificationOrDeserializationError`,
    `PublishUpgradeMissingDependency`, `PublishUpgradeDependencyDowngrade`, `SuiMoveVerificationError`,
    `PackageUpgradeError` (then `detail` is the protocol's name of the reason) or `PublishErrorNonZeroAddress`.
    `reason` names the rule in the machine's words (`missing_function`, `unused_value`, ...); `module` and `item`
    (function or datatype) and `offset` (instruction) say where, when that is known.
    """

    code = "package-rejected"

    def __init__(
        self,
        status: str,
        reason: str,
        message: str,
        *,
        module: str = "",
        item: str = "",
        offset: int | None = None,
        detail: str = "",
    ) -> None:
        where = "::".join(part for part in (module, item) if part)
        at = f" at instruction {offset}" if offset is not None else ""
        super().__init__(f"{where + at + ': ' if where else ''}{message}")
        self.status = status
        self.reason = reason
        self.module = module
        self.item = item
        self.offset = offset
        self.detail = detail


# ------------------------------------------------------------------------------------------------ values


@dataclass(slots=True)
class Value:
    """A typed value: `type` is never a reference; `data` belongs to the machine (module docstring)."""

    type: Type
    data: Any


@dataclass(slots=True)
class ArgumentSlot:
    """One argument place of a programmable transaction: what a call borrows from or takes.

    A by-value parameter takes `data` (the caller clears or copies the slot as its rules say), `&T` reads it, and
    after a call with `&mut T` the slot holds the new data.
    """

    type: Type
    data: Any


@dataclass(frozen=True)
class FunctionInstance:
    """A function with its type arguments filled in, as the rules of programmable transactions need it.

    `parameters` and `returns` may be references (`Type.is_reference`). `tx_context` is `""`, `"&"` or `"&mut"`: the
    trailing `TxContext` parameter, which is not in `parameters`: the machine supplies it. `takes_random` tells
    that a parameter is `&sui::random::Random`.
    """

    module: str
    name: str
    visibility: str  # "private", "friend" or "public"
    is_entry: bool
    is_native: bool
    type_arguments: tuple[Type, ...]
    parameters: tuple[Type, ...]
    returns: tuple[Type, ...]
    tx_context: str
    takes_random: bool


# ---------------------------------------------------------------------------------------------- failures


@dataclass(frozen=True)
class MoveLocation:
    """Where a program stopped; `function` is a definition index.

    `package` is the version that ran (its storage id) for an abort, the original id for every other failure.
    """

    package: bytes
    module: str
    function: int
    instruction: int
    function_name: str


@dataclass(frozen=True)
class CleverError:
    """An abort code that names its constant, decoded from the module (`#[error]` constants and bare `assert!`).

    `line` is the source line; `constant` the name (empty for an assert without code); `type_name` its type such as
    `vector<u8>` or `u64`; `value` its BCS; `text` the value readable. `code` is N of `#[error(code = N)]` or None.
    """

    line: int
    constant: str = ""
    type_name: str = ""
    value: bytes = b""
    text: str = ""
    code: int | None = None


class ExecutionFailure(ChainError):
    """A Move call did not finish. `status` is the protocol's name of the failure:

    - `MoveAbort`: `abort_code` and `location` are set, `clever` when the code is of that form;
    - `MovePrimitiveRuntimeError`: arithmetic, cast, shift, vector index, unpack of the wrong variant, call depth;
      limits of objects and events in natives (`memory_limit`); `location` is set, `reason` says which;
    - `InsufficientGas`, `FunctionNotFound`, `TypeArityMismatch`, `TypeArgumentError`, `ArityMismatch`,
      `CommandArgumentError` (`argument` is its index, `reason` the protocol's name),
      `VMVerificationOrDeserializationError`, `InvalidLinkage`, `MemoryLimitExceeded` (values that don't
      fit into this machine), `VMInvariantViolation` (a machine's check failed; never the program's
      right).

    `sub_status` is the number of the error for the reasons `vector` and `memory_limit`. `type_argument` is its index.
    """

    code = "execution"

    def __init__(
        self,
        status: str,
        message: str,
        *,
        location: MoveLocation | None = None,
        abort_code: int | None = None,
        reason: str = "",
        clever: CleverError | None = None,
        argument: int | None = None,
        type_argument: int | None = None,
        sub_status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.location = location
        self.abort_code = abort_code
        self.reason = reason
        self.clever = clever
        self.argument = argument
        self.type_argument = type_argument
        self.sub_status = sub_status


# ----------------------------------------------------------------------------------- transaction, objects


@dataclass
class TxData:
    """What `sui::tx_context` knows. `ids_created` counts up as fresh ids are made, across all calls of a session."""

    sender: bytes
    digest: bytes
    epoch: int = 0
    epoch_timestamp_ms: int = 0
    reference_gas_price: int = 1000
    gas_price: int = 1000
    gas_budget: int = 0
    sponsor: bytes | None = None
    ids_created: int = 0


class OwnerKind(Enum):
    """How an object is owned."""

    ADDRESS = "address"
    OBJECT = "object"
    SHARED = "shared"
    IMMUTABLE = "immutable"
    CONSENSUS_ADDRESS = "consensus_address"


@dataclass(frozen=True)
class VmOwner:
    """`address` is the owner's address or the parent object's id; empty for shared and immutable."""

    kind: OwnerKind
    address: bytes = b""


@dataclass(frozen=True)
class StoredObject:
    """An object the node stores: `type_tag` canonical (`0x…64 hex::module::Name<…>`), `contents` its BCS."""

    id: bytes
    type_tag: str
    contents: bytes
    version: int


class ChildStore(Protocol):
    """Objects that a running program may ask for beyond its arguments. Reads only; the same answer each time."""

    def find_child(self, parent: bytes, child: bytes) -> StoredObject | None:
        """Return the object `child` if object `parent` owns it (dynamic fields and their values), else None."""

    def find_setting(self, config: bytes, id: bytes) -> StoredObject | None:
        """Return the object `id` if object `config` owns it, else None: read without being an input or a change's
        base."""

    def find_received(self, parent: bytes, id: bytes, version: int) -> StoredObject | None:
        """Return the object `id` at exactly `version` if it is owned by the address `parent` and is an input of the
        transaction as a receiving argument, else None."""


@dataclass(frozen=True)
class Transfer:
    """An object that got an owner in this transaction; the last one counts."""

    id: bytes
    owner: VmOwner
    value: Value


@dataclass
class RuntimeEffects:
    """What the calls of a session did to objects, in the order of happening (dicts keep it).

    - `created`: ids made by `object::new` and still alive; `deleted`: ids given to `object::delete` that were not
      created in this session (both sets of ids, wrapped or not: an id in neither `created` nor `transfers` that was
      passed by value is wrapped).
    - `transfers`: id -> where it went, transfer, share, freeze and party transfer alike.
    - `children`: id -> the changed child object (new, mutated or moved; owner is its parent); `removed_children`: ids
      of stored children that were taken out of their parent (they may reappear in `transfers`, in `children` under
      another parent, be wrapped, or be in `deleted`).
    - `loaded`: id -> version of every child or received object that was read.
    - `received`: ids taken by `transfer::receive`.
    - `events`: type, BCS, and the package (by storage id) and module of the function the transaction called.
    """

    created: dict[bytes, None] = field(default_factory=dict)
    deleted: dict[bytes, None] = field(default_factory=dict)
    transfers: dict[bytes, Transfer] = field(default_factory=dict)
    children: dict[bytes, Transfer] = field(default_factory=dict)
    removed_children: dict[bytes, None] = field(default_factory=dict)
    loaded: dict[bytes, int] = field(default_factory=dict)
    received: dict[bytes, None] = field(default_factory=dict)
    events: list[EmittedEvent] = field(default_factory=list)


@dataclass(frozen=True)
class EmittedEvent:
    """One `event::emit`: type and BCS of the value, and what the transaction called when it came: the package (as it
    was called, a storage id) and the module, as `Event.package_id` and `transaction_module` of the chain."""

    package: bytes
    module: str
    type: Type
    contents: bytes
