"""A world of packages and objects in memory, enough to run Move calls against: what the node does, in miniature."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dtp.localnet.framework import STD, SUI, system_packages
from dtp.localnet.vm import (
    VM,
    ArgumentSlot,
    EmittedEvent,
    GasMeter,
    ObjectRuntime,
    OwnerKind,
    Package,
    StoredObject,
    TxData,
    Type,
    Value,
    VmOwner,
)

HERE = Path(__file__).parent
CLOCK = (6).to_bytes(32, "big")
SUI_TYPE = "0x2::sui::SUI"


def address(number: int) -> bytes:
    """A short address."""
    return number.to_bytes(32, "big")


def modules(name: str) -> list[bytes]:
    """Compiled modules of a fixture package (see fixtures/README.md)."""
    stored = json.loads((HERE / "fixtures" / f"{name}.json").read_text())
    return [base64.b64decode(text) for text in stored["modules"]]


@dataclass
class Held:
    """An object of the world."""

    owner: VmOwner
    type: Type
    data: Any
    version: int = 1


@dataclass
class Outcome:
    """What a call gave."""

    values: list[Value]
    events: list[EmittedEvent]
    created: list[bytes]
    meter: GasMeter

    def numbers(self) -> list[Any]:
        """The data of the values returned."""
        return [v.data for v in self.values]


@dataclass
class World:
    """Packages and objects; each call is one transaction of one command."""

    packages: dict[bytes, Package] = field(default_factory=dict)
    objects: dict[bytes, Held] = field(default_factory=dict)
    transactions: int = 0
    sender: bytes = address(0xA)

    def __post_init__(self) -> None:
        for package in system_packages():
            self.packages[package.storage_id] = package
        self.vm = VM(self)
        clock = self.vm.parse_type("0x2::clock::Clock")
        self.objects[CLOCK] = Held(VmOwner(OwnerKind.SHARED), clock, [[[CLOCK]], 1_000])

    # what the machine asks for

    def get_package(self, storage_id: bytes) -> Package | None:
        """`PackageStore`."""
        return self.packages.get(storage_id)

    def find_child(self, parent: bytes, child: bytes) -> StoredObject | None:
        """`ChildStore`."""
        held = self.objects.get(child)
        if held is None or held.owner != VmOwner(OwnerKind.OBJECT, parent):
            return None
        return self._stored(child, held)

    def find_setting(self, config: bytes, id: bytes) -> StoredObject | None:
        """`ChildStore`."""
        return self.find_child(config, id)

    def find_received(self, parent: bytes, id: bytes, version: int) -> StoredObject | None:
        """`ChildStore`."""
        held = self.objects.get(id)
        if held is None or held.owner != VmOwner(OwnerKind.ADDRESS, parent) or held.version != version:
            return None
        return self._stored(id, held)

    def _stored(self, id: bytes, held: Held) -> StoredObject:
        return StoredObject(id, held.type.tag, self.vm.encode_value(held.type, held.data), held.version)

    # what a test does

    def coin(self, value: int, type: str = SUI_TYPE, owner: bytes | None = None) -> bytes:
        """A coin out of nothing."""
        self.transactions += 1
        id = bytes([0xC0]) + self.transactions.to_bytes(31, "big")
        coin = self.vm.parse_type(f"0x2::coin::Coin<{type}>")
        self.objects[id] = Held(VmOwner(OwnerKind.ADDRESS, owner or self.sender), coin, [[[id]], [value]])
        return id

    def publish(self, compiled: list[bytes], dependencies: tuple[bytes, ...] = (STD, SUI)) -> bytes:
        """Publish a package and run its `init` functions; returns its id."""
        self.transactions += 1
        id = bytes([0xB0]) + self.transactions.to_bytes(31, "big")
        package = self.vm.build_package(compiled, id, dependencies)
        self.packages[id] = package
        runtime = ObjectRuntime(self)
        self.vm.open_session(runtime, self.tx_data(), GasMeter()).run_init(package)
        self.apply(runtime, {})
        return id

    def tx_data(self) -> TxData:
        return TxData(self.sender, self.transactions.to_bytes(32, "little"))

    def begin(self, sender: bytes | None = None, budget: int | None = None) -> Transaction:
        """A transaction of several calls."""
        self.transactions += 1
        tx = self.tx_data()
        tx.sender = sender or self.sender
        return Transaction(self, tx, GasMeter(budget))

    def call(
        self,
        target: str,
        *arguments: Any,
        package: bytes = SUI,
        types: tuple[str, ...] = (),
        sender: bytes | None = None,
        budget: int | None = None,
    ) -> Outcome:
        """Run `module::function` as a transaction of its own (see `Transaction.call`)."""
        transaction = self.begin(sender, budget)
        values = transaction.call(target, *arguments, package=package, types=types)
        created, events = transaction.commit()
        return Outcome(values, events, created, transaction.meter)

    def apply(
        self, runtime: ObjectRuntime, taken: dict[bytes, tuple[ArgumentSlot, bool]]
    ) -> tuple[list[bytes], list[EmittedEvent]]:
        """Make what a transaction did last."""
        effects = runtime.collect_effects()
        for id, (slot, by_reference) in taken.items():
            if by_reference:
                held = self.objects[id]
                self.objects[id] = Held(held.owner, slot.type, slot.data, held.version + 1)
            else:
                del self.objects[id]
        for id in (*effects.removed_children, *effects.received, *effects.deleted):
            self.objects.pop(id, None)
        for transfer in (*effects.transfers.values(), *effects.children.values()):
            before = self.objects.get(transfer.id)
            version = 1 if before is None else before.version + 1
            self.objects[transfer.id] = Held(
                transfer.owner, transfer.value.type, transfer.value.data, version
            )
        return [id for id in effects.created if id in self.objects], list(effects.events)

    def data(self, id: bytes) -> Any:
        """An object's data."""
        return self.objects[id].data

    def find(self, ending: str) -> bytes:
        """The id of the only object whose type without arguments ends so."""
        found = [id for id, held in self.objects.items() if held.type.tag.split("<")[0].endswith(ending)]
        assert len(found) == 1, f"{len(found)} objects of type ...{ending}"
        return found[0]


class Transaction:
    """Calls of one session; nothing lasts before `commit`."""

    def __init__(self, world: World, tx: TxData, meter: GasMeter) -> None:
        self.world = world
        self.meter = meter
        self.runtime = ObjectRuntime(world, {id: held.owner for id, held in world.objects.items()})
        self.session = world.vm.open_session(self.runtime, tx, meter)
        self.taken: dict[bytes, tuple[ArgumentSlot, bool]] = {}

    def call(
        self, target: str, *arguments: Any, package: bytes = SUI, types: tuple[str, ...] = ()
    ) -> list[Value]:
        """Run `module::function`. Arguments: an object's id as `bytes` of 32 where an object is due, else plain data.

        Raises what the machine raises.
        """
        vm = self.world.vm
        module, function = target.split("::")
        type_arguments = [vm.parse_type(t) for t in types]
        wanted = vm.instantiate_function(package, module, function, type_arguments).parameters
        slots = [self._slot(p, a) for p, a in zip(wanted, arguments, strict=True)]
        return self.session.call_function(package, module, function, type_arguments, slots)

    def _slot(self, parameter: Type, argument: Any) -> ArgumentSlot:
        type = parameter.element if parameter.is_reference else parameter
        held = (
            self.world.objects.get(argument)
            if isinstance(argument, bytes) and type.kind == "struct"
            else None
        )
        if held is None:
            return ArgumentSlot(type, argument)
        known = self.taken.get(argument)
        slot = known[0] if known else ArgumentSlot(held.type, self.world.vm.copy_value(held.type, held.data))
        self.taken[argument] = (slot, parameter.is_reference)
        return slot

    def commit(self) -> tuple[list[bytes], list[EmittedEvent]]:
        """Make it last; returns the ids of objects created and the events."""
        return self.world.apply(self.runtime, self.taken)
