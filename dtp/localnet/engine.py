"""Executes one transaction against the chain's objects and says what it does. Stores nothing.

`MoveEngine.execute_transaction` takes a transaction whose inputs were admitted (`dtp.localnet.admission`) and returns
a `TransactionOutcome`; the caller keeps it (`keep_packages`) or throws it away (`discard_packages`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dtp.localnet.denials import DENY_LIST, DenyList, receivers
from dtp.localnet.failures import ExecutionStopped
from dtp.localnet.gas import computation_cost, object_size
from dtp.localnet.limits import READ_COST_PER_BYTE, RECEIVER_COST
from dtp.localnet.model import BalanceChange, ObjectRecord
from dtp.localnet.outcome import (
    DeletedInput,
    GasPayment,
    InputObject,
    Writes,
    balance_changes,
    changed_objects,
    check_effects_size,
    collect,
    make_effects,
    outputs_of,
    settle,
    type_tag,
    unchanged_objects,
)
from dtp.localnet.packages import PackageCatalog, package_data
from dtp.localnet.places import ArgumentPlaces, PureSource, ReceivingSource, Source, ValuePlace
from dtp.localnet.programmable import Interpreter, Trace
from dtp.localnet.vm import (
    VM,
    EmittedEvent,
    ExecutionFailure,
    GasMeter,
    ObjectRuntime,
    OwnerKind,
    StoredObject,
    TxData,
)
from dtp.localnet.vm import VmOwner as VmOwner
from dtp.sui.effects import (
    TRANSACTION_EVENTS,
    ExecutionError,
    GasCost,
    MoveEvent,
    TransactionEffects,
    events_digest,
)
from dtp.sui.objects import (
    AddressOwner,
    ConsensusAddressOwner,
    Immutable,
    ObjectOwner,
    Owner,
)
from dtp.sui.transaction import ProgrammableTransaction, Pure, ReceivingInput, TransactionData

__all__ = ["Admitted", "ChainState", "MoveEngine", "TransactionOutcome"]

# Reading the framework is free.
_SYSTEM_PACKAGES = frozenset(number.to_bytes(32, "big") for number in (1, 2))


@dataclass(frozen=True)
class ChainState:
    """What a transaction sees of the chain besides objects."""

    epoch: int
    epoch_start_ms: int
    reference_gas_price: int


@dataclass
class Admitted:
    """A transaction that may run: its inputs by number, gas coins, and what is gone.

    `inputs` has an entry per transaction input: None for a pure one and for a shared object that was deleted
    (`ended`). `receiving` are objects to receive, `packages` those that the commands name. `gas` is empty for a
    system transaction, which pays nothing.
    """

    data: TransactionData
    digest: bytes
    inputs: list[InputObject | None] = field(default_factory=list)
    receiving: dict[bytes, ObjectRecord] = field(default_factory=dict)
    ended: list[DeletedInput] = field(default_factory=list)
    gas: list[ObjectRecord] = field(default_factory=list)
    packages: list[ObjectRecord] = field(default_factory=list)

    @property
    def objects(self) -> list[InputObject]:
        """The input objects that exist."""
        return [entry for entry in self.inputs if entry is not None]

    def used_objects(self) -> list[ObjectRecord]:
        """Return the objects that are used or received, gas apart."""
        return [*(entry.record for entry in self.objects), *self.receiving.values()]

    def lamport_version(self) -> int:
        """Return the version that everything gets that is written."""
        versions = [entry.record.version for entry in self.objects if entry.record.package is None]
        versions += [record.version for record in (*self.gas, *self.receiving.values())]
        versions += [gone.version for gone in self.ended]
        return 1 + max(versions, default=0)


@dataclass
class TransactionOutcome:
    """What a transaction does. `before` has every object that was touched, as it was; `outputs` those written."""

    admitted: Admitted
    effects: TransactionEffects
    effects_bcs: bytes
    events: tuple[MoveEvent, ...]
    events_bcs: bytes
    before: dict[bytes, ObjectRecord]
    outputs: dict[bytes, ObjectRecord]
    balance_changes: tuple[BalanceChange, ...]
    traces: list[Trace]
    free_storage: bool = False


class _Children:
    """The machine's view of objects beyond the arguments; notes what was read."""

    def __init__(
        self, load: Callable[[bytes], ObjectRecord | None], receiving: dict[bytes, ObjectRecord]
    ) -> None:
        self._load = load
        self._receiving = receiving
        self.read: dict[bytes, ObjectRecord] = {}

    def find_child(self, parent: bytes, child: bytes) -> StoredObject | None:
        """Return what `ChildStore.find_child` does."""
        record = self._find_owned(parent, child)
        return None if record is None else self._note_read(record)

    def find_setting(self, config: bytes, id: bytes) -> StoredObject | None:
        """Return what `ChildStore.find_setting` does."""
        record = self._find_owned(config, id)
        return None if record is None else _stored_object(record)

    def _find_owned(self, parent: bytes, child: bytes) -> ObjectRecord | None:
        record = self._load(child)
        owner = None if record is None else record.owner
        return record if isinstance(owner, ObjectOwner) and owner.address == parent else None

    def find_received(self, parent: bytes, id: bytes, version: int) -> StoredObject | None:
        """Return what `ChildStore.find_received` does."""
        record = self._receiving.get(id)
        if record is None or record.version != version or record.owner != AddressOwner(parent):
            return None
        return self._note_read(record)

    def _note_read(self, record: ObjectRecord) -> StoredObject:
        self.read[record.id] = record
        return _stored_object(record)


def _stored_object(record: ObjectRecord) -> StoredObject:
    return StoredObject(record.id, str(record.type), record.contents, record.version)


def _vm_owner(owner: Owner) -> VmOwner:
    match owner:
        case AddressOwner(address):
            return VmOwner(OwnerKind.ADDRESS, address)
        case ObjectOwner(address):
            return VmOwner(OwnerKind.OBJECT, address)
        case ConsensusAddressOwner(_, address):
            return VmOwner(OwnerKind.CONSENSUS_ADDRESS, address)
        case Immutable():
            return VmOwner(OwnerKind.IMMUTABLE)
    return VmOwner(OwnerKind.SHARED)


class MoveEngine:
    """The Move machine with the chain's objects. `load` gives the live version of an object."""

    def __init__(self, load: Callable[[bytes], ObjectRecord | None]) -> None:
        self._load = load
        self.packages = PackageCatalog(load)
        self.vm = VM(self.packages)
        self.deny_list = DenyList(self.vm, load)

    # ------------------------------------------------------------------------------------------- outcome

    def keep_packages(self) -> None:
        """Keep the packages of the last outcome, which is stored."""
        self.packages.keep_packages()

    def discard_packages(self) -> None:
        """Forget the packages of the last outcome, which is thrown away."""
        for storage_id in self.packages.pending:
            self.vm.linker.forget_package(storage_id)
        self.packages.pending.clear()

    def execute_transaction(
        self, admitted: Admitted, state: ChainState, *, checked: bool = True, traced: bool = False
    ) -> TransactionOutcome:
        """Execute a user's transaction. Everything it can do wrong is in the effects."""
        data = admitted.data
        run = Run(self, admitted, state, checked, traced)
        gas_data = data.gas_data
        lamport = admitted.lamport_version()
        writes, error = run.run_commands(lamport)
        if error is not None:
            self.discard_packages()
        total = sum(int.from_bytes(record.contents[32:40], "little") for record in admitted.gas)
        payment = GasPayment(admitted.gas, total, gas_data.budget)
        changeable = [*admitted.objects, *run.gas_inputs]
        computation = computation_cost(run.meter.used_units, gas_data.price)
        writes, failed, cost, free = settle(
            writes, error, changeable, run.before, payment, computation, lamport
        )
        if failed is not error:
            self.discard_packages()
        return run.make_outcome(writes, failed, cost, lamport, payment.id, free)

    def system_run(self, admitted: Admitted, state: ChainState) -> Run:
        """Return the machine for a transaction of the system (`dtp.localnet.system`)."""
        return Run(self, admitted, state, False, False)


class Run:
    """One transaction on its way through the machine, a user's or the system's."""

    def __init__(
        self, engine: MoveEngine, admitted: Admitted, state: ChainState, checked: bool, traced: bool
    ) -> None:
        self.engine = engine
        self.vm = engine.vm
        self.admitted = admitted
        self.state = state
        self.checked = checked
        self.traced = traced
        self.traces: list[Trace] = []
        self.gas_inputs = [InputObject(record, True) for record in admitted.gas]
        self.before = {
            record.id: record
            for record in (
                *(entry.record for entry in admitted.objects),
                *admitted.gas,
                *admitted.receiving.values(),
            )
        }
        self.children = _Children(engine._load, admitted.receiving)
        self.runtime = ObjectRuntime(
            self.children, {id: _vm_owner(record.owner) for id, record in self.before.items()}
        )
        data = admitted.data
        gas = data.gas_data
        self.meter = GasMeter(gas.budget // gas.price if gas.price and admitted.gas else None)
        sponsor = gas.owner if gas.owner != data.sender else None
        self.session = self.vm.open_session(
            self.runtime,
            TxData(
                data.sender,
                admitted.digest,
                state.epoch,
                state.epoch_start_ms,
                state.reference_gas_price,
                gas.price,
                gas.budget,
                sponsor,
            ),
            self.meter,
        )
        self.events: tuple[MoveEvent, ...] = ()
        self.configs: set[bytes] = set()  # configurations that were read, which change between epochs only
        self._gas_data: Any = None  # data of the gas coin, which stays the same list wherever the coin goes

    # ------------------------------------------------------------------------------------------ commands

    def run_commands(self, lamport: int) -> tuple[Writes | None, ExecutionError | None]:
        """Run the commands of a programmable transaction: what it writes, or why it failed."""
        try:
            if self.admitted.ended:
                raise ExecutionStopped("InputObjectDeleted", "a shared input object was deleted before")
            return self._run_programmable(lamport), None
        except ExecutionStopped as failed:
            return None, failed.error
        except ExecutionFailure:
            # Only reading inputs is charged outside of a command.
            return None, ExecutionError(
                "InsufficientGas", {}, None, "the gas budget does not cover reading the inputs"
            )

    def _run_programmable(self, lamport: int) -> Writes:
        kind = self.admitted.data.kind
        assert isinstance(kind, ProgrammableTransaction), "system transactions have no commands"
        for record in (*self.before.values(), *self.admitted.packages):
            if record.id not in _SYSTEM_PACKAGES:
                self.meter.charge_units(object_size(record.value.data) * READ_COST_PER_BYTE)
        inputs = [self._make_source(at, arg) for at, arg in enumerate(kind.inputs)]
        gas = self._gas_place()
        places = ArgumentPlaces(self.vm, self.meter, inputs, gas, kind.commands)
        for place in (*inputs, gas):
            if isinstance(place, ValuePlace):
                places.charge_copy(place)
        interpreter = Interpreter(
            self.vm,
            self.session,
            self.runtime,
            self.engine.packages,
            places,
            checked=self.checked,
            traced=self.traced,
        )
        try:
            interpreter.run_commands(kind.commands)
        finally:
            self.traces = interpreter.traces or []
        if gas is not None:
            self._gas_data[1][0] += self.admitted.data.gas_data.budget
        effects = self.runtime.collect_effects()
        self.before = {**self.before, **self.children.read}
        writes = collect(
            self.vm, effects, [*self.admitted.objects, *self.gas_inputs[:1]], self.before, lamport
        )
        writes.deleted.update(entry.record.id for entry in self.gas_inputs[1:])
        self._add_packages(writes)
        check_effects_size(writes)
        self._check_receivers(writes)
        self.events = tuple(self._make_event(event) for event in effects.events)
        return writes

    def _check_receivers(self, writes: Writes) -> None:
        """Look whether who is to own coins may. It is charged for coins other than SUI, denied to anybody or not."""
        found = receivers((data.type, owner) for data, owner in writes.objects.values())
        if not found:
            return
        if DENY_LIST not in self.before:
            self.configs.add(DENY_LIST)
        self.meter.charge_units(len(found) * RECEIVER_COST)
        self.engine.deny_list.check_receivers(found, self.state.epoch)

    def _add_packages(self, writes: Writes) -> None:
        for package in self.engine.packages.pending.values():
            writes.packages[package.storage_id] = package_data(package, self._version_of)

    def _version_of(self, storage_id: bytes) -> int:
        found = self.engine.packages.get_package(storage_id)
        assert found is not None, "dependencies were linked"
        return found.version

    def _make_event(self, event: EmittedEvent) -> MoveEvent:
        sender = self.admitted.data.sender
        return MoveEvent(event.package, event.module, sender, type_tag(event.type), event.contents)

    def _make_source(self, at: int, arg: object) -> Source:
        if isinstance(arg, Pure):
            return PureSource(arg.data)
        if isinstance(arg, ReceivingInput):
            return ReceivingSource(arg.ref.id, arg.ref.version)
        entry = self.admitted.inputs[at]
        assert entry is not None, "deleted inputs end the transaction before"
        record = entry.record
        type = self.vm.parse_type(str(record.type))
        data = self.vm.decode_value(type, record.contents)
        name = f"object 0x{record.id.hex()}"
        entry.place = ValuePlace(type, data, name, mutable=entry.mutable, takeable=entry.mutable)
        return entry.place

    def _gas_place(self) -> ValuePlace | None:
        if not self.gas_inputs:
            return None
        total = sum(int.from_bytes(record.contents[32:40], "little") for record in self.admitted.gas)
        coin = self.gas_inputs[0]
        # The budget is set aside: commands can't spend what gas may cost.
        left = total - self.admitted.data.gas_data.budget
        self._gas_data = [[[coin.record.id]], [left]]
        coin.place = ValuePlace(self.vm.parse_type(str(coin.record.type)), self._gas_data, "the gas coin")
        return coin.place

    # ------------------------------------------------------------------------------------------- outcome

    def make_outcome(
        self,
        writes: Writes,
        error: ExecutionError | None,
        cost: GasCost,
        lamport: int,
        gas_id: bytes | None,
        free_storage: bool,
    ) -> TransactionOutcome:
        """Return effects and records."""
        admitted = self.admitted
        events = self.events if error is None else ()
        events_bcs = TRANSACTION_EVENTS.encode(events)
        outputs = outputs_of(writes, admitted.digest, rebates=not free_storage)
        touched = (*self.before.values(), *admitted.packages)
        dependencies = {record.previous_transaction for record in touched}
        effects = make_effects(
            digest=admitted.digest,
            epoch=self.state.epoch,
            error=error,
            cost=cost,
            gas_id=gas_id,
            events_digest=events_digest(events_bcs) if events else None,
            dependencies=dependencies,
            lamport=lamport,
            changed=changed_objects(writes, outputs, self.before),
            unchanged=unchanged_objects(admitted.objects, admitted.ended, self.configs),
        )
        gone = [self.before[id] for id in (*writes.deleted, *writes.wrapped) if id in self.before]
        old = [self.before[id] for id in outputs if id in self.before]
        return TransactionOutcome(
            admitted,
            effects,
            effects.encode(),
            events,
            events_bcs,
            self.before,
            outputs,
            balance_changes([*old, *gone], outputs.values()),
            self.traces,
            free_storage,
        )
