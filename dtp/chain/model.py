"""What the chain answers, as plain dataclasses.

Ids and addresses are canonical text (`0x` and 64 hex digits), digests base58, types canonical text
(`0x…::module::Name<…>`): the forms of the wire, of logs and of JSON. `canonical_id` makes the first out of
whatever a person wrote. Amounts are MIST (10^9 to one SUI) or the smallest unit of their coin; times are Unix ms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from dtp.sui.names import SuiNameError, format_address, parse_address, parse_digest, parse_type
from dtp.sui.objects import fresh_object_id

#: MIST in a SUI.
MIST_PER_SUI = 1_000_000_000
#: The type of SUI, the coin, in its long form.
SUI_COIN = str(parse_type("0x2::sui::SUI"))
CLOCK_ID = format_address(parse_address("0x6"))

_ID_BYTES = 32
#: Objects that one transaction makes at most.
_MOST_MADE = 2048

#: An id or address as callers may give it.
Id: TypeAlias = str | bytes


def canonical_id(value: Id) -> str:
    """Return the canonical text of an id or address given as text or as 32 bytes. Raises `SuiNameError`."""
    if isinstance(value, bytes) and len(value) == _ID_BYTES:
        return format_address(value)
    return format_address(parse_address(value if isinstance(value, str) else repr(value)))


def full_address(text: str) -> str:
    """Return the canonical text of an address that has all 64 hex digits. Raises `SuiNameError`, also for a shorter
    one: digits may be missing, and what is sent there is lost."""
    address = canonical_id(text)
    if len(text) != len(address):
        raise SuiNameError(f"{text!r} is short: a recipient's address is `0x` and all 64 hex digits")
    return address


def id_bytes(value: Id) -> bytes:
    """Return the 32 bytes of an id or address. Raises `SuiNameError`."""
    return parse_address(canonical_id(value))


def canonical_type(text: str) -> str:
    """Return the canonical text of a type. Raises `SuiNameError`."""
    return str(parse_type(text))


def is_type(object_type: str, wanted: str) -> bool:
    """Return whether `object_type` is `wanted`, or an instance of it when `wanted` names no type arguments."""
    return object_type == wanted or ("<" not in wanted and object_type.startswith(wanted + "<"))


@dataclass(frozen=True)
class ObjectRef:
    """One version of an object: what a transaction names when it uses an owned object."""

    id: str
    version: int
    digest: str


@dataclass(frozen=True)
class Owner:
    """Who owns an object. `kind` is "address", "object", "shared", "immutable" or "consensus".

    `address` is the owner's (or parent object's), empty for shared and immutable; `initial_version` is set for
    shared objects and for those of a consensus address.
    """

    kind: str
    address: str = ""
    initial_version: int = 0

    @property
    def exclusive(self) -> bool:
        """True when the object is used at an exact version, so that only one transaction can use it at a time."""
        return self.kind in ("address", "object")


@dataclass(frozen=True)
class ObjectData:
    """An object: reference, owner, type, and the BCS of its value. `balance` is set for coins."""

    ref: ObjectRef
    owner: Owner
    type: str
    contents: bytes = field(default=b"", repr=False)
    balance: int | None = None
    previous_transaction: str = ""
    storage_rebate: int = 0

    @property
    def id(self) -> str:
        """The object's id."""
        return self.ref.id

    @property
    def version(self) -> int:
        """The object's version."""
        return self.ref.version


@dataclass(frozen=True)
class GasUsed:
    """What a transaction cost, in MIST. `net` is what the payer lost (negative: it got storage deposit back)."""

    computation: int
    storage: int
    rebate: int
    non_refundable: int = 0

    @property
    def net(self) -> int:
        """Computation and storage less the rebate."""
        return self.computation + self.storage - self.rebate


@dataclass(frozen=True)
class ObjectChange:
    """What happened to one object. `operation` is "created", "deleted" or "" (changed, wrapped, unwrapped).

    `output` is None when the object is gone afterwards.
    """

    id: str
    operation: str
    type: str
    input_version: int | None
    output: ObjectRef | None
    owner: Owner | None


@dataclass(frozen=True)
class ChainEvent:
    """An event. `key` is unique: (digest of its transaction, its index there).

    `package` and `module` are those of the function that the transaction called, `type` that of the event.
    `checkpoint` and `transaction_index` are None in the answer to an execution: they aren't known yet.
    """

    type: str
    contents: bytes = field(repr=False)
    package: str
    module: str
    sender: str
    transaction: str
    index: int
    checkpoint: int | None = None
    transaction_index: int | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What to tell events apart by."""
        return (self.transaction, self.index)


@dataclass(frozen=True)
class BalanceChange:
    """How much of a coin an address got (or lost, below zero)."""

    address: str
    coin: str
    amount: int


@dataclass(frozen=True)
class Executed:
    """An executed (or simulated) transaction that succeeded, unless it hangs on a `TransactionFailed`."""

    digest: str
    epoch: int
    gas: GasUsed
    changes: tuple[ObjectChange, ...]
    events: tuple[ChainEvent, ...]
    objects: Mapping[str, ObjectData] = field(default_factory=dict, repr=False)
    gas_object: str = ""
    checkpoint: int | None = None
    timestamp_ms: int | None = None
    balance_changes: tuple[BalanceChange, ...] = ()

    def created_objects(self, type: str = "") -> tuple[ObjectChange, ...]:
        """Return objects that the transaction made, of `type` if given (without type arguments: of any)."""
        return tuple(
            change
            for change in self.changes
            if change.operation == "created"
            and change.output is not None
            and (not type or is_type(change.type, type))
        )

    def has_made(self, id: str) -> bool:
        """True if the transaction can have made an object, or a package, of this id: it follows from the digest, so a
        node can't name one of somebody else's. Not for fields of tables, and what is derived from other objects."""
        digest, wanted = parse_digest(self.digest), parse_address(id)
        return any(fresh_object_id(digest, number) == wanted for number in range(_MOST_MADE))

    def events_of(self, type: str) -> Iterator[ChainEvent]:
        """Return events of `type` (without type arguments: of any)."""
        return (event for event in self.events if is_type(event.type, type))


@dataclass(frozen=True)
class Balance:
    """What an address has of a coin. `coins` is in coin objects, `address` in its address balance."""

    coin: str
    total: int
    coins: int = 0
    address: int = 0


@dataclass(frozen=True)
class EpochInfo:
    """An epoch. `gas_price` is MIST for one unit of computation."""

    epoch: int
    gas_price: int
    start_ms: int | None
    protocol_version: int | None


@dataclass(frozen=True)
class ServiceInfo:
    """What a node says of itself. `chain_id` is the base58 digest of the first checkpoint."""

    chain_id: str
    chain: str
    epoch: int
    checkpoint: int
    timestamp_ms: int | None
    lowest_checkpoint: int
    server: str


@dataclass(frozen=True)
class CheckpointData:
    """A checkpoint with the events of its transactions, in order."""

    sequence: int
    digest: str
    timestamp_ms: int | None
    events: tuple[ChainEvent, ...]
    transactions: tuple[str, ...] = ()


@dataclass(frozen=True)
class DynamicField:
    """A dynamic field of an object: BCS of its name and value, and their types."""

    parent: str
    field_id: str
    kind: str
    name_type: str
    name: bytes
    value_type: str
    value: bytes
    child_id: str = ""


@dataclass(frozen=True)
class FunctionInfo:
    """A Move function as the node describes it: parameters and results are readable types."""

    name: str
    visibility: str
    is_entry: bool
    parameters: tuple[str, ...]
    returns: tuple[str, ...]


@dataclass(frozen=True)
class PackageInfo:
    """A published package. `id` is this version's, `original_id` that of the first, which types are named by."""

    id: str
    original_id: str
    version: int
    modules: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def format_amount(mist: int) -> str:
    """Return MIST as SUI, exactly: "0.5 SUI"."""
    sign, amount = ("-", -mist) if mist < 0 else ("", mist)
    digits = f"{amount // MIST_PER_SUI}.{amount % MIST_PER_SUI:09d}".rstrip("0").rstrip(".")
    return f"{sign}{digits} SUI"
