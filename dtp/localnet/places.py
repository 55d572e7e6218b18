"""Where the values of a programmable transaction live between its commands, and the rules of using them.

A `Place` holds one typed value (input object, gas coin, result). A pure input has one place per type it is used
as; a receiving input gives one ticket. `Places` turns an argument into a value taken or a place borrowed, or stops
with the protocol's name of what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dtp.localnet.failures import ExecutionStopped, argument_failed
from dtp.localnet.vm import VM, ArgumentSlot, ExecutionFailure, GasMeter, Type
from dtp.localnet.vm.sizes import sizer
from dtp.localnet.vm.types import COPY, DROP, KEY
from dtp.sui.transaction import (
    Argument,
    Command,
    GasCoin,
    Input,
    NestedResult,
    Result,
    arguments_of,
)

__all__ = ["MOVED", "ArgumentPlaces", "PureSource", "ReceivingSource", "ValuePlace"]

_SUI: Final = (2).to_bytes(32, "big")


class _Moved:
    def __repr__(self) -> str:
        return "MOVED"


MOVED: Final = _Moved()
"""Data of a place whose value was taken."""


class ValuePlace(ArgumentSlot):
    """One value. `mutable` and `takeable` say what its owner allows; `tainted` that a public function without `entry`
    had its hands on it, after which a private entry function refuses it."""

    __slots__ = ("last_taken", "mutable", "name", "taint", "takeable")

    def __init__(
        self,
        type: Type,
        data: Any,
        name: str,
        *,
        mutable: bool = True,
        takeable: bool = True,
        tainted: bool = False,
    ) -> None:
        super().__init__(type, data)
        self.name = name
        self.mutable = mutable
        self.takeable = takeable
        self.taint = tainted
        self.last_taken = False

    @property
    def moved(self) -> bool:
        """Whether the value was taken."""
        return self.data is MOVED


@dataclass
class PureSource:
    """An input given as bytes; a place for each type it is used as."""

    data: bytes
    places: dict[Type, ValuePlace] = field(default_factory=dict)


@dataclass
class ReceivingSource:
    """An object to receive: the ticket can be used once."""

    id: bytes
    version: int
    type: Type | None = None
    place: ValuePlace | None = None


Source = ValuePlace | PureSource | ReceivingSource


def _last_uses(commands: Sequence[Command]) -> set[tuple[int, int]]:
    """Return the uses, as (command, argument), after which a value is not used any more."""
    last: dict[Argument, tuple[int, int]] = {}
    for command, each in enumerate(commands):
        for at, argument in enumerate(arguments_of(each)):
            last[NestedResult(argument.command, 0) if isinstance(argument, Result) else argument] = (
                command,
                at,
            )
    return set(last.values())


class ArgumentPlaces:
    """Inputs, gas coin and results of one transaction. `begin_command` starts a command: borrows last for one
    command.

    The meter pays for inputs when they are loaded, and for copies: taking a value by its last use moves it for free.
    """

    def __init__(
        self,
        vm: VM,
        meter: GasMeter,
        inputs: Sequence[Source],
        gas: ValuePlace | None,
        commands: Sequence[Command],
    ) -> None:
        self._vm = vm
        self._meter = meter
        self._last_uses = _last_uses(commands)
        self._command = -1
        self.inputs = inputs
        self.gas = gas
        self.results: list[list[ValuePlace]] = []
        self._shared: set[int] = set()
        self._exclusive: set[int] = set()

    def begin_command(self) -> None:
        """Forget the borrows of the last command."""
        self._command += 1
        self._shared.clear()
        self._exclusive.clear()

    # -------------------------------------------------------------------------------------------- finding

    def _find_source(self, argument: Argument, at: int) -> Source:
        match argument:
            case Input(index):
                if index >= len(self.inputs):
                    raise argument_failed(at, "IndexOutOfBounds", f"there is no input {index}", index)
                return self.inputs[index]
            case Result(command):
                found = self._results_of(command, at)
                if len(found) != 1:
                    raise argument_failed(
                        at, "InvalidResultArity", f"command {command} has {len(found)} results", command
                    )
                return found[0]
            case NestedResult(command, index):
                found = self._results_of(command, at)
                if index >= len(found):
                    raise argument_failed(
                        at,
                        "SecondaryIndexOutOfBounds",
                        f"command {command} has {len(found)} results",
                        command,
                        index,
                    )
                return found[index]
            case GasCoin():
                if self.gas is None:
                    raise argument_failed(at, "InvalidGasCoinUsage", "no gas coin pays for this transaction")
                return self.gas

    def _results_of(self, command: int, at: int) -> list[ValuePlace]:
        if command >= len(self.results):
            raise argument_failed(at, "IndexOutOfBounds", f"command {command} has not run yet", command)
        return self.results[command]

    def _find_place(self, argument: Argument, at: int, wanted: Type | None) -> ValuePlace:
        """Return the place an argument means, as type `wanted`; None takes whatever type it has."""
        source = self._find_source(argument, at)
        if isinstance(source, PureSource):
            place = self._decode_pure(source, at, wanted)
        elif isinstance(source, ReceivingSource):
            place = self._make_receiving(source, at, wanted)
        else:
            place = source
        if place.moved:
            raise argument_failed(at, "ArgumentWithoutValue", f"{place.name} was used by value before")
        if wanted is not None and place.type is not wanted:
            raise argument_failed(at, "TypeMismatch", f"{place.name} is {place.type.tag}, not {wanted.tag}")
        return place

    def _decode_pure(self, source: PureSource, at: int, wanted: Type | None) -> ValuePlace:
        if wanted is None:
            raise argument_failed(at, "TypeMismatch", "an object is needed, this input is bytes")
        place = source.places.get(wanted)
        if place is None:
            try:
                data = self._vm.decode_pure(wanted, source.data)
            except ExecutionFailure as failure:
                raise argument_failed(at, failure.reason or "InvalidBCSBytes", str(failure)) from None
            place = source.places[wanted] = ValuePlace(wanted, data, "a pure input")
            self.charge_copy(place)
        return place

    def _make_receiving(self, source: ReceivingSource, at: int, wanted: Type | None) -> ValuePlace:
        if wanted is None or not wanted.is_struct(_SUI, "transfer", "Receiving"):
            raise argument_failed(at, "TypeMismatch", "an object to receive fits `Receiving<T>` only")
        if source.place is None:
            source.place = ValuePlace(wanted, [[source.id], source.version], "an object to receive")
            self.charge_copy(source.place)
        elif source.place.type is not wanted and not source.place.moved:
            source.place.type = wanted  # not used up under the other type
        return source.place

    # --------------------------------------------------------------------------------------------- using

    def charge_copy(self, place: ArgumentSlot) -> None:
        """Charge for loading or copying a value. Raises `ExecutionFailure` (`InsufficientGas`)."""
        self._meter.charge_use(sizer(place.type)(place.data))

    def peek_place(self, argument: Argument, at: int) -> ValuePlace | None:
        """Return the place of an argument that is not bytes, without using it; None for pure inputs."""
        source = self._find_source(argument, at)
        return source if isinstance(source, ValuePlace) else None

    def is_tainted(self, argument: Argument, at: int) -> bool:
        """True if a private entry function must refuse the argument."""
        place = self.peek_place(argument, at)
        return place is not None and place.taint

    def take_value(
        self, argument: Argument, at: int, wanted: Type | None, *, gas: bool = False
    ) -> ArgumentSlot:
        """Return the value by value: copied if it can be, else moved out. `gas` allows the gas coin."""
        if isinstance(argument, GasCoin) and not gas:
            raise argument_failed(
                at, "InvalidGasCoinUsage", "the gas coin can be taken by value in TransferObjects only"
            )
        place = self._find_place(argument, at, wanted)
        abilities = place.type.abilities
        if abilities & COPY and not abilities & KEY:
            # A copy may be taken beside a borrow: it is of the value before the call. Only without one it may be the
            # value's last use, which needs no `drop`.
            place.last_taken = id(place) not in self._shared | self._exclusive
            if not place.last_taken or (self._command, at) not in self._last_uses:
                self.charge_copy(place)
            return ArgumentSlot(place.type, self._vm.copy_value(place.type, place.data))
        if id(place) in self._exclusive:
            raise argument_failed(at, "InvalidReferenceArgument", f"{place.name} is borrowed in this command")
        if not place.takeable:
            raise argument_failed(
                at, "InvalidObjectByValue", f"{place.name} is immutable or read-only: it can't be taken"
            )
        if id(place) in self._shared:
            raise argument_failed(at, "CannotMoveBorrowedValue", f"{place.name} is borrowed in this command")
        data, place.data = place.data, MOVED
        return ArgumentSlot(place.type, data)

    def borrow_place(self, argument: Argument, at: int, wanted: Type | None, mutable: bool) -> ValuePlace:
        """Return the place by reference, for this command."""
        place = self._find_place(argument, at, wanted)
        key = id(place)
        if mutable and not place.mutable:
            raise argument_failed(
                at, "InvalidObjectByMutRef", f"{place.name} is immutable or read-only: it can't be changed"
            )
        if key in self._exclusive or (mutable and key in self._shared):
            raise argument_failed(at, "InvalidReferenceArgument", f"{place.name} is borrowed twice")
        (self._exclusive if mutable else self._shared).add(key)
        place.last_taken = False
        return place

    # --------------------------------------------------------------------------------------------- ending

    def check_results_used(self) -> None:
        """Refuse values that may not be thrown away."""
        for command, places in enumerate(self.results):
            for index, place in enumerate(places):
                abilities = place.type.abilities
                # A value with copy whose last use took it counts as taken then.
                if place.moved or abilities & DROP or (abilities & COPY and place.last_taken):
                    continue
                raise ExecutionStopped(
                    "UnusedValueWithoutDrop",
                    f"result {index} of command {command}, {place.type.tag}, is not used and can't be dropped",
                    result=command,
                    secondary=index,
                )
