"""From what commands left behind to what is written: new objects, owners, versions, gas, effects.

The steps are the protocol's: collect the writes of a run that succeeded (or none), charge gas, give everything the
lamport version, and say it all in `TransactionEffects`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from dtp.localnet.failures import ExecutionStopped
from dtp.localnet.gas import StorageChange, object_size, storage_cost, total_cost
from dtp.localnet.limits import (
    MAX_EFFECTS_SIZE,
    MAX_INSTANCE_NODES,
    MAX_LAYOUT_NODES,
    MAX_OBJECT_SIZE,
    MAX_WRITTEN_SIZE,
)
from dtp.localnet.model import BalanceChange, ObjectRecord
from dtp.localnet.places import ValuePlace
from dtp.localnet.vm import VM, OwnerKind, RuntimeEffects, Type
from dtp.localnet.vm import VmOwner as VmOwner
from dtp.localnet.vm.tags import make_tag
from dtp.localnet.vm.types import STORE
from dtp.sui.effects import (
    ExecutionError,
    Failed,
    GasCost,
    IdOperation,
    InAbsent,
    InExisting,
    MutateEnded,
    ObjectChange,
    OutAbsent,
    OutObject,
    OutPackage,
    PerEpochConfig,
    ReadEnded,
    ReadOnlyRoot,
    Status,
    Succeeded,
    TransactionEffects,
    Unchanged,
)
from dtp.sui.names import TypeTag
from dtp.sui.objects import (
    OBJECT,
    AddressOwner,
    ConsensusAddressOwner,
    Immutable,
    MoveObject,
    MovePackageData,
    ObjectOwner,
    ObjectValue,
    Owner,
    SharedOwner,
    object_digest,
)

__all__ = ["InputObject", "Writes", "balance_changes", "collect", "record_of", "settle"]

_SUI: Final = (2).to_bytes(32, "big")


@dataclass
class InputObject:
    """An input object: the record before, whether the transaction may change it, and its place while it runs."""

    record: ObjectRecord
    mutable: bool
    place: ValuePlace | None = None


@dataclass
class Writes:
    """What a transaction writes: objects by id (version still open), packages, and ids that go."""

    objects: dict[bytes, tuple[MoveObject, Owner]] = field(default_factory=dict)
    packages: dict[bytes, MovePackageData] = field(default_factory=dict)
    deleted: set[bytes] = field(default_factory=set)
    wrapped: set[bytes] = field(default_factory=set)
    created: set[bytes] = field(default_factory=set)


def record_of(value: ObjectValue) -> ObjectRecord:
    """Return a record with digest and BCS from its value."""
    bcs = OBJECT.encode(value)
    data = value.data
    id = data.id if isinstance(data, MovePackageData) else data.contents[:32]
    return ObjectRecord(value, id, data.version, object_digest(bcs), bcs)


# ----------------------------------------------------------------------------------------------- writes


class _Collector:
    def __init__(
        self, vm: VM, effects: RuntimeEffects, lamport: int, before: Mapping[bytes, ObjectRecord]
    ) -> None:
        self.vm = vm
        self.effects = effects
        self.lamport = lamport
        self.before = before
        self.writes = Writes(created=set(effects.created))

    def find_owner(self, id: bytes, found: VmOwner) -> Owner:
        known = self.before.get(id)
        match found.kind:
            case OwnerKind.ADDRESS:
                return AddressOwner(found.address)
            case OwnerKind.OBJECT:
                return ObjectOwner(found.address)
            case OwnerKind.IMMUTABLE:
                return Immutable()
            case OwnerKind.SHARED:
                if known is not None and isinstance(known.owner, SharedOwner):
                    return known.owner
                return SharedOwner(self.lamport)
            case OwnerKind.CONSENSUS_ADDRESS:
                return ConsensusAddressOwner(self.lamport, found.address)

    def write_object(self, id: bytes, type: Type, data: object, owner: Owner) -> None:
        if type.layout_nodes > MAX_LAYOUT_NODES:
            raise ExecutionStopped(
                "VMVerificationOrDeserializationError",
                f"{type.tag} has a layout of {type.layout_nodes} nodes, {MAX_LAYOUT_NODES} at most: no object can",
            )
        if type.nodes > MAX_INSTANCE_NODES:
            raise ExecutionStopped(
                "VMVerificationOrDeserializationError",
                f"object of a type of {type.nodes} parts, {MAX_INSTANCE_NODES} at most",
            )
        contents = self.vm.encode_value(type, data)
        if len(contents) > MAX_OBJECT_SIZE:
            raise ExecutionStopped(
                "MoveObjectTooBig",
                f"object 0x{id.hex()} of {len(contents)} bytes, {MAX_OBJECT_SIZE} at most",
                object_size=len(contents),
                max_object_size=MAX_OBJECT_SIZE,
            )
        public = bool(type.abilities & STORE)
        self.writes.objects[id] = (MoveObject(type_tag(type), public, self.lamport, contents), owner)


def type_tag(type: Type) -> TypeTag:
    """Return the machine's type as a tag, made once."""
    found: TypeTag | None = type.operations.get("sui_tag")
    if found is None:
        found = type.operations["sui_tag"] = make_tag(type)
    return found


def collect(
    vm: VM,
    effects: RuntimeEffects,
    inputs: Iterable[InputObject],
    before: Mapping[bytes, ObjectRecord],
    lamport: int,
) -> Writes:
    """Return what a run that succeeded writes. `before` has every object that existed and was touched.

    Raises `ExecutionStopped` (an object is too large, a shared object went where it may not).
    """
    collector = _Collector(vm, effects, lamport, before)
    writes = collector.writes
    for transfer in (*effects.transfers.values(), *effects.children.values()):
        owner = collector.find_owner(transfer.id, transfer.owner)
        collector.write_object(transfer.id, transfer.value.type, transfer.value.data, owner)
    taken = [*effects.removed_children, *effects.received]
    for entry in inputs:
        id, place = entry.record.id, entry.place
        if place is None or not entry.mutable:
            continue
        if place.moved:
            taken.append(id)
            _check_shared(entry.record, writes, effects)
        else:
            collector.write_object(id, place.type, place.data, entry.record.owner)
    for id in taken:
        if id not in writes.objects and id not in effects.deleted:
            writes.wrapped.add(id)
    writes.deleted.update(effects.deleted)
    total = sum(len(data.contents) for data, _ in writes.objects.values())
    if total > MAX_WRITTEN_SIZE:
        raise ExecutionStopped(
            "WrittenObjectsTooLarge",
            f"{total} bytes of objects written, {MAX_WRITTEN_SIZE} at most",
            current_size=total,
            max_size=MAX_WRITTEN_SIZE,
        )
    return writes


def _check_shared(record: ObjectRecord, writes: Writes, effects: RuntimeEffects) -> None:
    """Raise for a shared object that was taken by value and neither deleted nor shared again."""
    if not isinstance(record.owner, SharedOwner) or record.id in effects.deleted:
        return
    written = writes.objects.get(record.id)
    if written is None or not isinstance(written[1], SharedOwner):
        raise ExecutionStopped(
            "SharedObjectOperationNotAllowed",
            f"shared object 0x{record.id.hex()} must be deleted or shared again in the transaction that takes it",
        )


def untouched(inputs: Iterable[InputObject], lamport: int) -> Writes:
    """Return what a transaction that failed writes: its changeable inputs as they were, at the new version."""
    writes = Writes()
    for entry in inputs:
        data = entry.record.value.data
        if entry.mutable and isinstance(data, MoveObject):
            writes.objects[entry.record.id] = (replace(data, version=lamport), entry.record.owner)
    return writes


# -------------------------------------------------------------------------------------------------- gas


@dataclass
class GasPayment:
    """Gas coins: the first pays, the others are merged into it. `total` is the balance of all."""

    coins: Sequence[ObjectRecord]
    total: int
    budget: int

    @property
    def id(self) -> bytes:
        """The coin that pays."""
        return self.coins[0].id

    def smash_coins(self, writes: Writes, lamport: int) -> None:
        """Put all the money of a transaction that failed into one coin, and delete the others."""
        coin = self.coins[0]
        assert isinstance(coin.value.data, MoveObject)
        contents = coin.id + self.total.to_bytes(8, "little")
        data = replace(coin.value.data, version=lamport, contents=contents)
        writes.objects[coin.id] = (data, coin.owner)
        for other in self.coins[1:]:
            writes.objects.pop(other.id, None)
            writes.deleted.add(other.id)

    def deduct_cost(self, writes: Writes, net: int) -> None:
        """Take what the transaction costs from the coin, wherever it is now."""
        data, owner = writes.objects[self.id]
        balance = int.from_bytes(data.contents[32:40], "little") - net
        assert balance >= 0, "the budget is set aside before the commands run"
        contents = data.contents[:32] + balance.to_bytes(8, "little")
        writes.objects[self.id] = (replace(data, contents=contents), owner)


def settle(
    writes: Writes | None,
    error: ExecutionError | None,
    inputs: Sequence[InputObject],
    before: Mapping[bytes, ObjectRecord],
    payment: GasPayment,
    computation: int,
    lamport: int,
) -> tuple[Writes, ExecutionError | None, GasCost, bool]:
    """Charge gas: the final writes (gas coin reduced), error, cost, and whether storage was given for free."""
    if computation >= payment.budget:
        computation = payment.budget
        error = error or ExecutionError("InsufficientGas", {}, None, "computation used up the gas budget")
    if error is not None or writes is None:
        writes = _failed(inputs, payment, lamport)
    cost = total_cost(computation, _changes(writes, before))
    free = False
    if cost.net > payment.budget:
        writes = _failed(inputs, payment, lamport)
        cost = total_cost(computation, _changes(writes, before))
        if cost.net > payment.budget:
            free = True
            cost = total_cost(payment.budget, _changes(writes, before), free_storage=True)
        error = error or ExecutionError("InsufficientGas", {}, None, "the gas budget does not cover storage")
    payment.deduct_cost(writes, cost.net)
    return writes, error, cost, free


def _failed(inputs: Sequence[InputObject], payment: GasPayment, lamport: int) -> Writes:
    writes = untouched(inputs, lamport)
    payment.smash_coins(writes, lamport)
    return writes


def _changes(writes: Writes, before: Mapping[bytes, ObjectRecord]) -> Iterable[StorageChange]:
    for id, (data, _) in writes.objects.items():
        yield StorageChange(object_size(data), before[id].storage_rebate if id in before else 0)
    for package in writes.packages.values():
        yield StorageChange(object_size(package), 0)
    for id in (*writes.deleted, *writes.wrapped):
        if id in before:
            yield StorageChange(0, before[id].storage_rebate)


# ---------------------------------------------------------------------------------------------- effects


@dataclass(frozen=True)
class DeletedInput:
    """A shared input that was deleted before, at `version`."""

    id: bytes
    version: int
    mutable: bool


def outputs_of(writes: Writes, digest: bytes, *, rebates: bool) -> dict[bytes, ObjectRecord]:
    """Return the objects as they are stored. Without `rebates` nothing was paid for storage."""
    made = {}
    for id, (data, owner) in writes.objects.items():
        rebate = storage_cost(object_size(data)) if rebates else 0
        made[id] = record_of(ObjectValue(data, owner, digest, rebate))
    for id, package in writes.packages.items():
        rebate = storage_cost(object_size(package)) if rebates else 0
        made[id] = record_of(ObjectValue(package, Immutable(), digest, rebate))
    return made


def changed_objects(
    writes: Writes, outputs: Mapping[bytes, ObjectRecord], before: Mapping[bytes, ObjectRecord]
) -> tuple[tuple[bytes, ObjectChange], ...]:
    """Return every object that was written or went, sorted by id."""
    changes: dict[bytes, ObjectChange] = {}
    for id, record in outputs.items():
        old = before.get(id)
        operation = IdOperation.CREATED if id in writes.created else IdOperation.NONE
        if record.package is not None:
            after: OutPackage | OutObject = OutPackage(record.version, record.digest)
            operation = IdOperation.CREATED
        else:
            after = OutObject(record.digest, record.owner)
        changes[id] = ObjectChange(_before(old), after, operation)
    for id in writes.deleted:
        changes[id] = ObjectChange(_before(before.get(id)), OutAbsent(), IdOperation.DELETED)
    for id in writes.wrapped:
        changes[id] = ObjectChange(_before(before.get(id)), OutAbsent(), IdOperation.NONE)
    return tuple(sorted(changes.items()))


def _before(record: ObjectRecord | None) -> InAbsent | InExisting:
    return InAbsent() if record is None else InExisting(record.version, record.digest, record.owner)


def unchanged_objects(
    inputs: Iterable[InputObject], ended: Iterable[DeletedInput], configs: Iterable[bytes] = ()
) -> tuple[tuple[bytes, Unchanged], ...]:
    """Shared inputs that were read only, or are gone, and configurations that were read, sorted by id."""
    found: dict[bytes, Unchanged] = {}
    for entry in inputs:
        record = entry.record
        if not entry.mutable and isinstance(record.owner, SharedOwner | ConsensusAddressOwner):
            found[record.id] = ReadOnlyRoot(record.version, record.digest)
    for gone in ended:
        found[gone.id] = MutateEnded(gone.version) if gone.mutable else ReadEnded(gone.version)
    found.update((id, PerEpochConfig()) for id in configs)
    return tuple(sorted(found.items(), key=lambda item: item[0]))


def make_effects(
    *,
    digest: bytes,
    epoch: int,
    error: ExecutionError | None,
    cost: GasCost,
    gas_id: bytes | None,
    events_digest: bytes | None,
    dependencies: Iterable[bytes],
    lamport: int,
    changed: tuple[tuple[bytes, ObjectChange], ...],
    unchanged: tuple[tuple[bytes, Unchanged], ...],
) -> TransactionEffects:
    """Return the effects. `gas_id` names the coin that paid."""
    status: Status = Succeeded() if error is None else Failed(error)
    index = None if gas_id is None else next(at for at, (id, _) in enumerate(changed) if id == gas_id)
    return TransactionEffects(
        status,
        epoch,
        cost,
        digest,
        index,
        events_digest,
        tuple(sorted(set(dependencies))),
        lamport,
        changed,
        unchanged,
    )


def check_effects_size(writes: Writes) -> None:
    """Refuse more changes than effects may name. Raises `ExecutionStopped`."""
    # Changes are what effects consist of: 32 bytes of id, and at most two owners and digests each.
    size = 200 * (len(writes.objects) + len(writes.packages) + len(writes.deleted) + len(writes.wrapped))
    if size > MAX_EFFECTS_SIZE:
        raise ExecutionStopped(
            "EffectsTooLarge",
            f"about {size} bytes of effects, {MAX_EFFECTS_SIZE} at most",
            current_size=size,
            max_size=MAX_EFFECTS_SIZE,
        )


def coin_type(tag: TypeTag | None) -> TypeTag | None:
    """T of `Coin<T>`, None for other types."""
    if tag is not None and tag.name == "Coin" and tag.module == "coin" and tag.address == _SUI:
        return tag.arguments[0]
    return None


def balance_changes(
    inputs: Iterable[ObjectRecord], outputs: Iterable[ObjectRecord]
) -> tuple[BalanceChange, ...]:
    """Return what addresses gained and lost in coins, sorted by address and type; changes of zero left out."""
    sums: dict[tuple[bytes, str], tuple[TypeTag, int]] = {}
    for sign, records in ((-1, inputs), (1, outputs)):
        for record in records:
            coin = coin_type(record.type)
            owner = record.owner
            if coin is None or not isinstance(owner, AddressOwner | ConsensusAddressOwner):
                continue
            key = (owner.address, coin.text)
            amount = int.from_bytes(record.contents[32:40], "little") * sign
            sums[key] = (coin, sums[key][1] + amount if key in sums else amount)
    return tuple(
        BalanceChange(address, coin, amount)
        for (address, _), (coin, amount) in sorted(sums.items(), key=lambda item: item[0])
        if amount
    )
