"""What the embedded node hands out: objects, transactions, events, checkpoints, epochs, balances, as frozen values.

Addresses, ids and digests are 32 `bytes`, amounts are in the coin's smallest unit (MIST for SUI), times are ms since
1970. Text forms are made at the door, with `dtp.sui.names`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeAlias, TypeVar

from dtp.errors import ChainError
from dtp.sui.effects import CheckpointContents, CheckpointSummary, TransactionEffects
from dtp.sui.names import TypeTag
from dtp.sui.objects import OBJECT, MovePackageData, ObjectValue, Owner
from dtp.sui.transaction import Argument, Command, Expiration, ObjectRef, TransactionData

T = TypeVar("T")


class TransactionRejected(ChainError):
    """The node did not take a transaction: nothing happened and nothing was paid.

    `kind` is the protocol's name of the reason (`GasBalanceTooLow`, `ObjectVersionUnavailableForConsumption`,
    `InvalidSignature`, ...; `docs/chain.md` says which are this node's own). `object_id` names the object that it is
    about.
    """

    code = "transaction-rejected"

    def __init__(self, kind: str, message: str, *, object_id: bytes | None = None) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.object_id = object_id


class NodeStateError(ChainError):
    """The node's database can't be used: another format, another network, or damaged; the message says what to do."""

    code = "node-state"


class BadCursor(ChainError):
    """A cursor that this node never gave out, or gave out for another question."""

    code = "bad-cursor"


# ----------------------------------------------------------------------------------------------- objects


@dataclass(frozen=True)
class ObjectRecord:
    """One version of an object or package. `bcs` is the whole object's BCS, of which `digest` is the digest."""

    value: ObjectValue
    id: bytes
    version: int
    digest: bytes
    bcs: bytes

    @property
    def owner(self) -> Owner:
        """Who owns it."""
        return self.value.owner

    @property
    def ref(self) -> ObjectRef:
        """What a transaction names it by."""
        return ObjectRef(self.id, self.version, self.digest)

    @property
    def type(self) -> TypeTag | None:
        """Its type, None for a package."""
        return None if isinstance(self.value.data, MovePackageData) else self.value.data.type

    @property
    def contents(self) -> bytes:
        """BCS of the Move struct, empty for a package."""
        return b"" if isinstance(self.value.data, MovePackageData) else self.value.data.contents

    @property
    def package(self) -> MovePackageData | None:
        """The package, None for other objects."""
        return self.value.data if isinstance(self.value.data, MovePackageData) else None

    @property
    def previous_transaction(self) -> bytes:
        """Digest of the transaction that wrote this version."""
        return self.value.previous_transaction

    @property
    def storage_rebate(self) -> int:
        """MIST that were paid for its storage."""
        return self.value.storage_rebate

    @staticmethod
    def decode(bcs: bytes, id: bytes, digest: bytes) -> ObjectRecord:
        """Return the record of an object from its BCS."""
        value = OBJECT.decode(bcs)
        return ObjectRecord(value, id, value.data.version, digest, bcs)


@dataclass(frozen=True)
class DynamicField:
    """A field of `parent`. `field_id` is the `Field<Name, Value>` object; `child_id` the object behind a dynamic
    object field (None for plain ones). `name` and `value` are BCS; `value` is None for object fields."""

    parent: bytes
    field_id: bytes
    name_type: TypeTag
    name: bytes
    value_type: TypeTag
    value: bytes | None
    child_id: bytes | None


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some items; `cursor` continues after them, None at the end."""

    items: tuple[T, ...]
    cursor: bytes | None


@dataclass(frozen=True)
class Balance:
    """All coins of one type that an address owns."""

    coin_type: TypeTag
    amount: int
    coins: int


@dataclass(frozen=True)
class CoinInfo:
    """What is known of a coin type. Objects are None when they don't exist (any more) or are not to be found."""

    coin_type: TypeTag
    metadata_id: bytes | None
    decimals: int
    name: str
    symbol: str
    description: str
    icon_url: str | None
    treasury_cap_id: bytes | None
    total_supply: int | None


# ------------------------------------------------------------------------------------------ transactions


@dataclass(frozen=True)
class EventRecord:
    """One event. (`digest`, `index`) names it; `checkpoint` is None before it is in one (simulation). `number` rises
    along the chain. `json` is made when asked for."""

    digest: bytes
    index: int
    checkpoint: int | None
    timestamp_ms: int
    package: bytes
    module: str
    sender: bytes
    type: TypeTag
    contents: bytes
    number: int = 0
    render: Callable[[TypeTag, bytes], Any] | None = field(default=None, compare=False, repr=False)

    @cached_property
    def json(self) -> Any:
        """The contents as JSON, None when the type is not known here."""
        return None if self.render is None else self.render(self.type, self.contents)


@dataclass(frozen=True)
class BalanceChange:
    """What an address gained (positive) or lost of a coin, gas included."""

    address: bytes
    coin_type: TypeTag
    amount: int


@dataclass(frozen=True)
class TransactionRecord:
    """A transaction that was executed. `checkpoint` is always set once it left `LocalNode.execute`."""

    digest: bytes
    data: TransactionData
    data_bcs: bytes
    signatures: tuple[bytes, ...]
    effects: TransactionEffects
    effects_bcs: bytes
    effects_digest: bytes
    events: tuple[EventRecord, ...]
    events_bcs: bytes
    balance_changes: tuple[BalanceChange, ...]
    checkpoint: int | None
    timestamp_ms: int


@dataclass(frozen=True)
class Executed:
    """The outcome of `LocalNode.execute`: the transaction, and every object before (`inputs`) and after (`outputs`).

    `inputs` are the versions that were read or replaced, `outputs` those that were written (packages included).
    """

    transaction: TransactionRecord
    inputs: tuple[ObjectRecord, ...]
    outputs: tuple[ObjectRecord, ...]

    @property
    def effects(self) -> TransactionEffects:
        """Its effects."""
        return self.transaction.effects

    @property
    def events(self) -> tuple[EventRecord, ...]:
        """Its events."""
        return self.transaction.events


@dataclass(frozen=True)
class CommandValue:
    """A value of a command: `argument` is set for an argument that the command changed through `&mut`."""

    type: TypeTag
    bcs: bytes
    json: Any
    argument: Argument | None = None


@dataclass(frozen=True)
class CommandOutput:
    """What one command returned, and which arguments it changed."""

    returned: tuple[CommandValue, ...]
    mutated: tuple[CommandValue, ...]


@dataclass(frozen=True)
class Simulated:
    """The outcome of `LocalNode.simulate`: as `Executed`, of the transaction that would be signed (gas filled in).

    `outputs` per command up to the one that failed.
    """

    executed: Executed
    commands: tuple[CommandOutput, ...]

    @property
    def data(self) -> TransactionData:
        """The transaction with inputs resolved and gas chosen."""
        return self.executed.transaction.data

    @property
    def effects(self) -> TransactionEffects:
        """What it would do."""
        return self.executed.effects


# ------------------------------------------------------------------------------ transactions not yet resolved


@dataclass(frozen=True)
class LiteralInput:
    """An input as a plain value (None, bool, int, float, str, list), whose type the command that uses it decides."""

    value: Any


@dataclass(frozen=True)
class ObjectInput:
    """An input object of which only the id must be known; what is given besides must hold."""

    id: bytes
    version: int | None = None
    digest: bytes | None = None
    mutable: bool | None = None
    receiving: bool = False


@dataclass(frozen=True)
class PureInput:
    """An input given as BCS."""

    data: bytes


UnresolvedInput: TypeAlias = LiteralInput | ObjectInput | PureInput


@dataclass(frozen=True)
class UnresolvedTransaction:
    """A transaction whose inputs and gas the node is to fill in. None means: choose.

    `MoveCall.package` may be given as usual; arguments refer to `inputs` by index.
    """

    sender: bytes
    inputs: tuple[UnresolvedInput, ...]
    commands: tuple[Command, ...]
    expiration: Expiration | None = None
    gas_payment: tuple[ObjectRef, ...] | None = None
    gas_owner: bytes | None = None
    gas_price: int | None = None
    gas_budget: int | None = None


# ------------------------------------------------------------------------------------ checkpoints and epochs


@dataclass(frozen=True)
class CheckpointRecord:
    """One checkpoint. `digests` are its transactions in order."""

    sequence: int
    digest: bytes
    summary: CheckpointSummary
    contents: CheckpointContents

    @property
    def digests(self) -> tuple[bytes, ...]:
        """Its transactions."""
        return tuple(pair.transaction for pair in self.contents.transactions)


@dataclass(frozen=True)
class EpochRecord:
    """One epoch; `last_checkpoint` and `end_ms` are None while it lasts."""

    epoch: int
    first_checkpoint: int
    last_checkpoint: int | None
    start_ms: int
    end_ms: int | None
    reference_gas_price: int
    protocol_version: int


@dataclass(frozen=True)
class ServiceInfo:
    """What the node says of itself. `chain` is the digest of checkpoint 0."""

    chain: bytes
    chain_name: str
    epoch: int
    checkpoint: int
    timestamp_ms: int
    lowest_checkpoint: int
    lowest_checkpoint_with_objects: int
    server: str


@dataclass(frozen=True)
class EventFilter:
    """Which events: every part that is set must fit. `type` without arguments fits all instances; `package` and
    `module` are those that the transaction called; `type_package`, `type_module` those of the event's type."""

    type: TypeTag | None = None
    package: bytes | None = None
    module: str | None = None
    sender: bytes | None = None
    type_package: bytes | None = None
    type_module: str | None = None

    def matches(self, event: EventRecord) -> bool:
        """True if `event` is one of them."""
        tag = event.type
        wanted = self.type
        return (
            (self.package is None or event.package == self.package)
            and (self.module is None or event.module == self.module)
            and (self.sender is None or event.sender == self.sender)
            and (self.type_package is None or tag.address == self.type_package)
            and (self.type_module is None or tag.module == self.type_module)
            and (wanted is None or fits_type(tag, wanted))
        )


def fits_type(tag: TypeTag, wanted: TypeTag) -> bool:
    """True if `tag` is `wanted`, or an instance of it when `wanted` has no arguments."""
    if not wanted.arguments:
        return (tag.address, tag.module, tag.name) == (wanted.address, wanted.module, wanted.name)
    return tag == wanted


# ----------------------------------------------------------------------------------------------- packages


@dataclass(frozen=True)
class TypeParameter:
    """A type parameter: abilities it needs; phantom if it has no weight."""

    abilities: tuple[str, ...]
    phantom: bool = False


@dataclass(frozen=True)
class OpenType:
    """A type in a signature. `kind`: a primitive's name, `vector`, `datatype` or `parameter`.

    A datatype has `name` (`0x…::module::Name`, address of the package that defines it), a parameter its `index`.
    """

    kind: str
    arguments: tuple[OpenType, ...] = ()
    name: str = ""
    index: int | None = None


@dataclass(frozen=True)
class OpenSignature:
    """A parameter or result: `reference` is `""`, `"&"` or `"&mut"`."""

    reference: str
    body: OpenType


@dataclass(frozen=True)
class FieldInfo:
    """A field and its type."""

    name: str
    position: int
    type: OpenType


@dataclass(frozen=True)
class VariantInfo:
    """A variant of an enum and its fields."""

    name: str
    position: int
    fields: tuple[FieldInfo, ...]


@dataclass(frozen=True)
class DatatypeInfo:
    """A struct (`fields`) or an enum (`variants`). `type_name` is that of its type tags."""

    type_name: str
    defining_id: bytes
    module: str
    name: str
    abilities: tuple[str, ...]
    type_parameters: tuple[TypeParameter, ...]
    is_enum: bool
    fields: tuple[FieldInfo, ...] = ()
    variants: tuple[VariantInfo, ...] = ()


@dataclass(frozen=True)
class FunctionInfo:
    """A function's signature. `visibility` is `private`, `friend` or `public`."""

    module: str
    name: str
    visibility: str
    is_entry: bool
    type_parameters: tuple[TypeParameter, ...]
    parameters: tuple[OpenSignature, ...]
    returns: tuple[OpenSignature, ...]


@dataclass(frozen=True)
class ModuleInfo:
    """A module: its bytecode and what it declares."""

    name: str
    contents: bytes
    datatypes: tuple[DatatypeInfo, ...]
    functions: tuple[FunctionInfo, ...]


@dataclass(frozen=True)
class PackageInfo:
    """A package with its modules read."""

    storage_id: bytes
    original_id: bytes
    version: int
    modules: tuple[ModuleInfo, ...]
    data: MovePackageData


@dataclass(frozen=True)
class Totals:
    """Where the SUI is that is in no coin: MIST paid for storage of live objects, and fees taken for ever."""

    storage: int
    computation_fees: int
    storage_fees: int
