"""Runs the commands of a programmable transaction on the Move machine.

`run_commands` leaves the places of inputs and results as the commands left them and the objects' fate in the
`ObjectRuntime`; `dtp.localnet.outcome` reads both. What goes wrong is an `ExecutionStopped` with the number of the
command.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from dtp.localnet.failures import ExecutionStopped, argument_failed, from_machine, from_package
from dtp.localnet.limits import MAX_PACKAGE_SIZE, PUBLISH_COST_PER_BYTE
from dtp.localnet.places import ArgumentPlaces, ValuePlace
from dtp.localnet.vm import (
    VM,
    ArgumentSlot,
    ExecutionFailure,
    FunctionInstance,
    ObjectRuntime,
    OwnerKind,
    Package,
    PackageRejected,
    Type,
    UpgradePolicy,
    Value,
    VmOwner,
    VmSession,
)
from dtp.localnet.vm.signals import MemoryLimit
from dtp.localnet.vm.types import KEY, STORE
from dtp.localnet.vm.verify import internal_parameters
from dtp.sui.bytecode import package_digest
from dtp.sui.effects import UpgradeProblem
from dtp.sui.names import TypeTag
from dtp.sui.objects import fresh_object_id
from dtp.sui.transaction import (
    Argument,
    Command,
    MakeMoveVec,
    MergeCoins,
    MoveCall,
    Publish,
    SplitCoins,
    TransferObjects,
    Upgrade,
)

__all__ = ["Interpreter", "PackageSpace"]

_SUI: Final = (2).to_bytes(32, "big")
_MAX_U64: Final = (1 << 64) - 1


class PackageSpace(Protocol):
    """Where packages of the running transaction go, besides those that are stored."""

    def get_package(self, storage_id: bytes) -> Package | None:
        """Return a package, stored or just published."""

    def is_object(self, id: bytes) -> bool:
        """True if an object that is not a package has this id."""

    def add_package(self, package: Package) -> None:
        """Note that a package was published."""


@dataclass
class Trace:
    """What one command returned and changed, for simulation: (argument, value)."""

    returned: list[Value] = field(default_factory=list)
    mutated: list[tuple[Argument, Value]] = field(default_factory=list)


class Interpreter:
    """Runs commands. With `checked=False` any function may be called, references may be returned and results left."""

    def __init__(
        self,
        vm: VM,
        session: VmSession,
        runtime: ObjectRuntime,
        packages: PackageSpace,
        places: ArgumentPlaces,
        *,
        checked: bool = True,
        traced: bool = False,
    ) -> None:
        self.vm = vm
        self.session = session
        self.runtime = runtime
        self.packages = packages
        self.places = places
        self.checked = checked
        self.traces: list[Trace] | None = [] if traced else None
        self._u64 = vm.parse_type("u64")
        self._address = vm.parse_type("address")

    def run_commands(self, commands: Sequence[Command]) -> None:
        """Run all commands. Raises `ExecutionStopped`."""
        for index, command in enumerate(commands):
            self.places.begin_command()
            trace = Trace()
            try:
                results = self._run_command(command, trace)
            except ExecutionStopped as failed:
                raise ExecutionStopped.from_error(replace(failed.error, command=index)) from None
            except ExecutionFailure as failure:
                raise ExecutionStopped.from_error(replace(from_machine(failure), command=index)) from None
            except MemoryLimit as limit:  # of ids that commands themselves make, delete or send
                stopped = from_machine(ExecutionFailure("MovePrimitiveRuntimeError", limit.message))
                raise ExecutionStopped.from_error(replace(stopped, command=index)) from None
            self.places.results.append(results)
            if self.traces is not None:
                trace.returned = [Value(p.type, self.vm.copy_value(p.type, p.data)) for p in results]
                self.traces.append(trace)
        if self.checked:
            self.places.check_results_used()

    def _run_command(self, command: Command, trace: Trace) -> list[ValuePlace]:
        match command:
            case MoveCall():
                return self._move_call(command, trace)
            case SplitCoins(coin, amounts):
                return self._split_coins(coin, amounts, trace)
            case MergeCoins(target, sources):
                return self._merge_coins(target, sources, trace)
            case TransferObjects(objects, recipient):
                return self._transfer_objects(objects, recipient)
            case MakeMoveVec(tag, elements):
                return [self._make_vector(tag, elements)]
            case Publish(modules, dependencies):
                return [self._publish_package(modules, dependencies)]
            case Upgrade():
                return [self._upgrade_package(command)]

    def _result_name(self, index: int = 0) -> str:
        return f"result {index} of command {len(self.places.results)}"

    # -------------------------------------------------------------------------------------------- Move calls

    def _parse_types(self, tags: Sequence[TypeTag]) -> list[Type]:
        types = []
        for at, tag in enumerate(tags):
            try:
                types.append(self.vm.parse_type(tag.text))
            except ExecutionFailure as failure:
                failure.type_argument = at
                raise
        return types

    def _move_call(self, call: MoveCall, trace: Trace) -> list[ValuePlace]:
        types = self._parse_types(call.type_arguments)
        function = self.vm.instantiate_function(call.package, call.module, call.function, types)
        self._check_callable(function, call)
        slots: list[ArgumentSlot] = []
        changed: list[tuple[Argument, ValuePlace]] = []
        for at, (parameter, argument) in enumerate(zip(function.parameters, call.arguments, strict=True)):
            if not parameter.is_reference:
                slots.append(self.places.take_value(argument, at, parameter))
                continue
            mutable = parameter.kind == "&mut"
            place = self.places.borrow_place(argument, at, parameter.element, mutable)
            slots.append(place)
            if mutable:
                changed.append((argument, place))
        values = self.session.call_function(call.package, call.module, call.function, types, slots)
        tainted = not function.is_entry
        for argument, place in changed:
            place.taint = place.taint or tainted
            if self.traces is not None:
                data = self.vm.copy_value(place.type, place.data)
                trace.mutated.append((argument, Value(place.type, data)))
        return [
            ValuePlace(v.type, v.data, self._result_name(at), tainted=tainted) for at, v in enumerate(values)
        ]

    def _check_callable(self, function: FunctionInstance, call: MoveCall) -> None:
        """Refuse what a transaction may not call, in the protocol's order."""
        name = f"{function.module}::{function.name}"
        if len(call.arguments) != len(function.parameters):
            raise ExecutionStopped(
                "ArityMismatch",
                f"{name} takes {len(function.parameters)} arguments, got {len(call.arguments)}",
            )
        if self.checked:
            for index, type in enumerate(function.returns):
                if type.is_reference:
                    raise ExecutionStopped(
                        "InvalidPublicFunctionReturnType", f"{name} returns a reference", index=index
                    )
        if internal_parameters(call.package, call.module, call.function):
            raise ExecutionStopped(
                "NonEntryFunctionInvoked",
                f"only the module that declares a type may call {name} for it, no transaction",
            )
        if not self.checked or function.visibility == "public":
            return
        if not function.is_entry:
            raise ExecutionStopped(
                "NonEntryFunctionInvoked",
                f"{name} is neither public nor entry: a transaction can't call it",
            )
        for at, argument in enumerate(call.arguments):
            if self.places.is_tainted(argument, at):
                raise argument_failed(
                    at,
                    "InvalidArgumentToPrivateEntryFunction",
                    f"a function without `entry` had it before, {name} is a private entry function",
                )

    # ------------------------------------------------------------------------------------------------ coins

    def _borrow_coin(self, argument: Argument, at: int) -> ValuePlace:
        place = self.places.borrow_place(argument, at, None, True)
        if not place.type.is_struct(_SUI, "coin", "Coin"):
            raise argument_failed(at, "TypeMismatch", f"{place.type.tag} is not a coin")
        return place

    def _note_mutated(self, argument: Argument, place: ValuePlace, trace: Trace) -> None:
        if self.traces is not None:
            trace.mutated.append((argument, Value(place.type, self.vm.copy_value(place.type, place.data))))

    def _split_coins(self, coin: Argument, amounts: Sequence[Argument], trace: Trace) -> list[ValuePlace]:
        place = self._borrow_coin(coin, 0)
        wanted = [self.places.take_value(a, at, self._u64).data for at, a in enumerate(amounts, 1)]
        balance = place.data[1]
        if sum(wanted) > balance[0]:
            raise ExecutionStopped(
                "InsufficientCoinBalance", f"the coin has {balance[0]}, {sum(wanted)} were to be split off"
            )
        made = []
        for index, amount in enumerate(wanted):
            balance[0] -= amount
            made.append(
                ValuePlace(place.type, [[[self._fresh_object()]], [amount]], self._result_name(index))
            )
        self._note_mutated(coin, place, trace)
        return made

    def _merge_coins(self, target: Argument, sources: Sequence[Argument], trace: Trace) -> list[ValuePlace]:
        place = self._borrow_coin(target, 0)
        balance = place.data[1]
        for at, source in enumerate(sources, 1):
            taken = self.places.take_value(source, at, place.type)
            if balance[0] + taken.data[1][0] > _MAX_U64:
                raise ExecutionStopped("CoinBalanceOverflow", "the merged coin would exceed 64 bits")
            balance[0] += taken.data[1][0]
            self.runtime.delete_id(taken.data[0][0][0])
        self._note_mutated(target, place, trace)
        return []

    def _fresh_id(self) -> bytes:
        tx = self.session.tx
        id = fresh_object_id(tx.digest, tx.ids_created)
        tx.ids_created += 1
        return id

    def _fresh_object(self) -> bytes:
        id = self._fresh_id()
        self.runtime.new_id(id)
        return id

    # ---------------------------------------------------------------------------------- transfers, vectors

    def _transfer_objects(self, objects: Sequence[Argument], recipient: Argument) -> list[ValuePlace]:
        taken = []
        for at, argument in enumerate(objects):
            slot = self.places.take_value(argument, at, None, gas=True)
            if slot.type.abilities & (KEY | STORE) != KEY | STORE:
                raise argument_failed(
                    at, "InvalidTransferObject", f"{slot.type.tag} has not `key` and `store`"
                )
            taken.append(slot)
        address = self.places.take_value(recipient, len(objects), self._address).data
        for slot in taken:
            self.runtime.transfer_object(VmOwner(OwnerKind.ADDRESS, address), slot.type, slot.data)
        return []

    def _make_vector(self, tag: TypeTag | None, elements: Sequence[Argument]) -> ValuePlace:
        if tag is not None:
            element = self._parse_types((tag,))[0]
        else:
            first = self.places.peek_place(elements[0], 0)
            if first is None or not first.type.abilities & KEY:
                raise argument_failed(
                    0, "InvalidMakeMoveVecNonObjectArgument", "elements that are not objects need a type"
                )
            element = first.type
        items: list[Any] = [self.places.take_value(a, at, element).data for at, a in enumerate(elements)]
        tainted = any(self.places.is_tainted(a, at) for at, a in enumerate(elements))
        data = bytearray(items) if element.kind == "u8" else items
        return ValuePlace(
            self.vm.linker.types.make_vector(element), data, self._result_name(), tainted=tainted
        )

    # -------------------------------------------------------------------------------------------- packages

    def _build_package(
        self, modules: Sequence[bytes], dependencies: Sequence[bytes], previous: Package | None
    ) -> Package:
        size = sum(map(len, modules))
        self.session.meter.charge_units(size * PUBLISH_COST_PER_BYTE)
        try:
            return self.vm.build_package(modules, self._fresh_id(), dependencies, previous)
        except PackageRejected as rejected:
            raise ExecutionStopped.from_error(from_package(rejected, size, MAX_PACKAGE_SIZE)) from None

    def _publish_package(self, modules: Sequence[bytes], dependencies: Sequence[bytes]) -> ValuePlace:
        package = self._build_package(modules, dependencies, None)
        self.packages.add_package(package)
        self.session.run_init(package)
        cap = self.vm.parse_type("0x2::package::UpgradeCap")
        return ValuePlace(cap, [[[self._fresh_object()]], [package.storage_id], 1, 0], self._result_name())

    def _refuse_new_init(self, previous: Package, package: Package) -> None:
        """Refuse an upgrade that adds a module with an `init` function: nothing would run it."""
        linked = self.vm.linker.link_package(package)
        for name in package.modules:
            if name not in previous.modules and "init" in linked.get_module(name).functions:
                raise ExecutionStopped(
                    "FeatureNotYetSupported",
                    f"the new module {name} has an `init` function, which no upgrade runs: remove it",
                )

    def _upgrade_package(self, command: Upgrade) -> ValuePlace:
        ticket = self.places.take_value(command.ticket, 0, self.vm.parse_type("0x2::package::UpgradeTicket"))
        cap, (allowed,), policy, digest = ticket.data
        previous = self.packages.get_package(command.package)
        if previous is None:
            name = "NotAPackage" if self.packages.is_object(command.package) else "UnableToFetchPackage"
            raise _upgrade_failed(name, "the package to upgrade is not there", command.package)
        if allowed != command.package:
            raise _upgrade_failed(
                "PackageIDDoesNotMatch", "the ticket is for another package", command.package, allowed
            )
        computed = package_digest(command.modules, command.dependencies)
        if computed != bytes(digest):
            raise _upgrade_failed("DigestDoesNotMatch", "the ticket is for other modules", computed)
        if policy not in {p.value for p in UpgradePolicy}:
            raise _upgrade_failed("UnknownUpgradePolicy", f"no policy has the number {policy}", policy)
        package = self._build_package(command.modules, command.dependencies, previous)
        try:
            self.vm.check_upgrade(previous, package, UpgradePolicy(policy))
        except PackageRejected as rejected:
            raise ExecutionStopped.from_error(from_package(rejected, 0, MAX_PACKAGE_SIZE)) from None
        self._refuse_new_init(previous, package)
        self.packages.add_package(package)
        receipt = self.vm.parse_type("0x2::package::UpgradeReceipt")
        return ValuePlace(receipt, [cap, [package.storage_id]], self._result_name())


def _upgrade_failed(name: str, description: str, *content: Any) -> ExecutionStopped:
    return ExecutionStopped("PackageUpgradeError", description, problem=UpgradeProblem(name, content))
