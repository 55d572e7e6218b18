"""Programs: what a transaction does, built as a value. No network, no keys, no pysui.

A `Program` collects inputs and commands; each adding method gives back arguments for the next ones. Packages are
named (`"transport"`) or given by id, objects by id: which version of each is used is decided when the client
builds the transaction, so one program can be kept, simulated, and built again after something changed.

    program = Program()
    (coin,) = program.split(program.gas, [5_000])
    program.transfer([coin], "0x...")
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from dtp.chain.errors import ProgramError
from dtp.chain.model import CLOCK_ID, Id, ObjectRef, Owner, canonical_id, id_bytes
from dtp.chain.values import encode_value
from dtp.sui import transaction as sui
from dtp.sui.names import SuiNameError, TypeTag, parse_digest, parse_type
from dtp.sui.transaction import Argument, GasCoin, Input, NestedResult, Result

__all__ = [
    "Argument",
    "KnownObject",
    "ObjectInput",
    "ObjectLike",
    "Program",
    "PureInput",
    "bind",
]

MAX_COMMANDS = 1024
MAX_INPUTS = 2048
MAX_PURE_BYTES = 16 * 1024
MAX_TRANSACTION_BYTES = 128 * 1024


@dataclass(frozen=True)
class PureInput:
    """An input given by value: BCS."""

    data: bytes


@dataclass(frozen=True)
class ObjectInput:
    """An input object. `mutable` matters for shared objects: whether the program takes it by `&mut` or by value.

    `receiving` marks an object that was sent to another object and is to be taken from it.
    """

    id: str
    mutable: bool = False
    receiving: bool = False


#: An object for a command: an id, or what an earlier command of the same program gave.
ObjectLike: TypeAlias = Id | Argument


@dataclass(frozen=True)
class KnownObject:
    """What must be known of an object to use it: its newest reference and its owner."""

    ref: ObjectRef
    owner: Owner


@dataclass(frozen=True)
class _Call:
    package: str
    module: str
    function: str
    type_arguments: tuple[str, ...]
    arguments: tuple[Argument, ...]


_Command: TypeAlias = _Call | sui.Command


class Program:
    """Commands over inputs, to be executed whole or not at all. Inputs that are equal are one input."""

    #: The coin that pays for the gas; what is split off it is money of whoever pays.
    gas: Argument = GasCoin()

    def __init__(self) -> None:
        self._inputs: list[PureInput | ObjectInput] = []
        self._places: dict[Hashable, int] = {}
        self._commands: list[_Command] = []

    # ---------------------------------------------------------------------------------------------- inputs

    @property
    def inputs(self) -> tuple[PureInput | ObjectInput, ...]:
        """The inputs so far."""
        return tuple(self._inputs)

    @property
    def objects(self) -> tuple[ObjectInput, ...]:
        """The input objects so far."""
        return tuple(each for each in self._inputs if isinstance(each, ObjectInput))

    @property
    def uses_gas_coin(self) -> bool:
        """Whether a command takes money from the gas coin."""
        return any(
            isinstance(argument, GasCoin) for command in self._commands for argument in _arguments_of(command)
        )

    def __len__(self) -> int:
        return len(self._commands)

    def pure(self, move_type: str, value: Any) -> Argument:
        """Return a value as an argument, such as `pure("u64", 5)`; `dtp.chain.values` says what fits. Raises
        `ProgramError`."""
        return self.raw(encode_value(move_type, value))

    def raw(self, data: bytes) -> Argument:
        """Return a value given as BCS as an argument. Raises `ProgramError` above 16 KiB: pass such data in parts."""
        if len(data) > MAX_PURE_BYTES:
            raise ProgramError(
                f"an argument of {len(data):,} bytes; the chain takes {MAX_PURE_BYTES:,}: pass it in parts"
            )
        return self._add_input(data, PureInput(data))

    def object(self, id: Id, *, mutable: bool = True) -> Argument:
        """Return an object by id as an argument. `mutable` says whether a shared object is taken by `&mut` or by
        value."""
        name = _checked_id(id)
        argument = self._add_input(name, ObjectInput(name, mutable))
        place = argument.index
        known = self._inputs[place]
        if isinstance(known, ObjectInput) and mutable and not known.mutable:
            self._inputs[place] = replace(known, mutable=True)
        return argument

    def receiving(self, id: Id) -> Argument:
        """Return an object that was sent to an object as an argument, for `transfer::receive`."""
        name = _checked_id(id)
        argument = self._add_input(name, ObjectInput(name, True, True))
        if self._inputs[argument.index] != ObjectInput(name, True, True):
            raise ProgramError(f"{name} is used both as an object and as one to receive")
        return argument

    def clock(self) -> Argument:
        """Return the chain's clock as an argument."""
        return self.object(CLOCK_ID, mutable=False)

    def use(self, value: ObjectLike, *, mutable: bool = True) -> Argument:
        """Return `value` as an argument: an id becomes an input object, an argument of this program stays itself."""
        if isinstance(value, str | bytes):
            return self.object(value, mutable=mutable)
        return self._check_argument(value)

    def _add_input(self, key: Hashable, value: PureInput | ObjectInput) -> Input:
        place = self._places.get(key)
        if place is None:
            if len(self._inputs) >= MAX_INPUTS:
                raise ProgramError(f"a transaction has at most {MAX_INPUTS} inputs")
            place = self._places[key] = len(self._inputs)
            self._inputs.append(value)
        return Input(place)

    # -------------------------------------------------------------------------------------------- commands

    def call(
        self,
        package: Id,
        module: str,
        function: str,
        arguments: Sequence[Argument] = (),
        type_arguments: Sequence[str] = (),
        results: int = 1,
    ) -> tuple[Argument, ...]:
        """Call a Move function, and return one argument per result, `results` of them.

        `package` is the name of a package of ours ("transport") or an id.
        """
        try:
            types = tuple(str(parse_type(each)) for each in type_arguments)
        except SuiNameError as fault:
            raise ProgramError(f"type argument of {module}::{function}: {fault}") from fault
        place = package if isinstance(package, str) and not package.startswith("0x") else _checked_id(package)
        checked = tuple(map(self._check_argument, arguments))
        return self._add_command(_Call(place, str(module), str(function), types, checked), results)

    def split(self, coin: ObjectLike, amounts: Sequence[int | Argument]) -> tuple[Argument, ...]:
        """Return new coins of these amounts out of a coin; use `Program.gas` for the sender's SUI."""
        if not amounts:
            raise ProgramError("split at least one amount off")
        parts = tuple(
            self.pure("u64", each) if isinstance(each, int) else self._check_argument(each)
            for each in amounts
        )
        return self._add_command(sui.SplitCoins(self.use(coin), parts), len(parts))

    def merge(self, target: ObjectLike, sources: Sequence[ObjectLike]) -> None:
        """Put `sources` into `target`."""
        if sources:
            self._add_command(sui.MergeCoins(self.use(target), tuple(map(self.use, sources))), 0)

    def transfer(self, objects: Sequence[ObjectLike], recipient: Id | Argument) -> None:
        """Give objects to an address. Nothing to give is not a command."""
        if not objects:
            return
        to = (
            self.pure("address", recipient)
            if isinstance(recipient, str | bytes)
            else self._check_argument(recipient)
        )
        self._add_command(sui.TransferObjects(tuple(map(self.use, objects)), to), 0)

    def vector(self, move_type: str, elements: Sequence[ObjectLike]) -> Argument:
        """Return a vector of objects or results."""
        tag = parse_type(move_type)
        (made,) = self._add_command(sui.MakeMoveVec(tag, tuple(map(self.use, elements))), 1)
        return made

    def publish(self, modules: Iterable[bytes], dependencies: Iterable[Id]) -> Argument:
        """Publish a package, and return its `UpgradeCap`."""
        (cap,) = self._add_command(sui.Publish(tuple(modules), tuple(map(id_bytes, dependencies))), 1)
        return cap

    def upgrade(
        self, package: Id, modules: Iterable[bytes], dependencies: Iterable[Id], ticket: Argument
    ) -> Argument:
        """Upgrade a package under a ticket, and return the receipt."""
        command = sui.Upgrade(
            tuple(modules),
            tuple(map(id_bytes, dependencies)),
            id_bytes(package),
            self._check_argument(ticket),
        )
        (receipt,) = self._add_command(command, 1)
        return receipt

    def _add_command(self, command: _Command, results: int) -> tuple[Argument, ...]:
        if len(self._commands) >= MAX_COMMANDS:
            raise ProgramError(f"a transaction has at most {MAX_COMMANDS} commands")
        place = len(self._commands)
        self._commands.append(command)
        if results == 1:
            return (Result(place),)
        return tuple(NestedResult(place, index) for index in range(results))

    def _check_argument(self, argument: Argument) -> Argument:
        match argument:
            case Input(index=place):
                there = len(self._inputs)
            case Result(command=place) | NestedResult(command=place):
                there = len(self._commands)
            case GasCoin():
                return argument
            case _:
                raise ProgramError(f"{argument!r} is not an argument: give an id, or what a command gave")
        if place >= there:
            raise ProgramError(f"{argument!r} is of another program")
        return argument

    # ------------------------------------------------------------------------------------------- as a value

    def packages(self) -> set[str]:
        """Return what the calls name: names and ids."""
        return {command.package for command in self._commands if isinstance(command, _Call)}

    def commands(self, package_id: Callable[[str], str]) -> tuple[sui.Command, ...]:
        """Return the commands with every package's id filled in."""
        return tuple(
            sui.MoveCall(
                id_bytes(
                    command.package if command.package.startswith("0x") else package_id(command.package)
                ),
                command.module,
                command.function,
                tuple(map(parse_type, command.type_arguments)),
                command.arguments,
            )
            if isinstance(command, _Call)
            else command
            for command in self._commands
        )


def bind(
    program: Program, package_id: Callable[[str], str], known: Mapping[str, KnownObject]
) -> sui.ProgrammableTransaction:
    """Return the program with ids of packages and versions of objects filled in.

    Raises `ProgramError` when an object isn't in `known`, or owned by another object.
    """
    if not len(program):
        raise ProgramError("the program is empty")
    return sui.ProgrammableTransaction(
        tuple(_bound(each, known) for each in program.inputs), program.commands(package_id)
    )


def reference(ref: ObjectRef) -> sui.ObjectRef:
    """Return the reference in the form of the wire."""
    return sui.ObjectRef(id_bytes(ref.id), ref.version, parse_digest(ref.digest))


def _bound(value: PureInput | ObjectInput, known: Mapping[str, KnownObject]) -> sui.CallArg:
    if isinstance(value, PureInput):
        return sui.Pure(value.data)
    found = known.get(value.id)
    if found is None:
        raise ProgramError(f"version and owner of object {value.id} aren't known")
    if value.receiving:
        return sui.ReceivingInput(reference(found.ref))
    if found.owner.kind in ("shared", "consensus"):
        mutability = sui.Mutability.MUTABLE if value.mutable else sui.Mutability.IMMUTABLE
        return sui.SharedInput(id_bytes(value.id), found.owner.initial_version, mutability)
    if found.owner.kind == "object":
        raise ProgramError(f"{value.id} is part of object {found.owner.address}: use that one instead")
    return sui.OwnedInput(reference(found.ref))


def _checked_id(id: Id) -> str:
    try:
        return canonical_id(id)
    except SuiNameError as fault:
        raise ProgramError(f"not an object's id: {fault}") from fault


def _arguments_of(command: _Command) -> Sequence[Argument]:
    return command.arguments if isinstance(command, _Call) else sui.arguments_of(command)


def type_tag(text: str) -> TypeTag:
    """Return the type that text names. Raises `ProgramError`."""
    try:
        return parse_type(text)
    except SuiNameError as fault:
        raise ProgramError(str(fault)) from fault
