"""The Move machine: one `VM` for a node, one `Session` for a transaction.

A call finds its function through the linker, has it translated to Python on first use (`translate`), and runs it
under the session's meter. What stops a program becomes one `ExecutionFailure` here, with the place it stopped at,
read from the traceback of the translated frames.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, TracebackType
from typing import Any, NoReturn

from dtp.localnet.limits import MAX_INSTANCE_NODES, MAX_STACK
from dtp.localnet.vm import arguments as checks
from dtp.localnet.vm.clever import clever_error
from dtp.localnet.vm.contract import (
    ArgumentSlot,
    ExecutionFailure,
    FunctionInstance,
    MoveLocation,
    Package,
    PackageStore,
    TxData,
    UpgradePolicy,
    Value,
)
from dtp.localnet.vm.gas import GasMeter
from dtp.localnet.vm.linker import LinkedFunction, LinkedPackage, Linker, MissingItem
from dtp.localnet.vm.natives import NATIVES, Native
from dtp.localnet.vm.objects import ObjectRuntime
from dtp.localnet.vm.packages import PackageBuilder
from dtp.localnet.vm.signals import Abort, MemoryLimit, NativeAbort, PrimitiveError, Stopped, VmLimit
from dtp.localnet.vm.translate import MAX_CALL_DEPTH, Translated, translate
from dtp.localnet.vm.types import Type
from dtp.localnet.vm.values import BadBcs, copier, decode, encode
from dtp.localnet.vm.verify.shapes import effect
from dtp.sui.bytecode import Opcode

__all__ = ["VM", "VmSession"]

MAX_INSTANCES = 20_000
"""Translated functions kept; past it all are dropped and made again when called."""
# Python frames per Move frame: the function itself, and on its first call a stub; natives and codecs on top.
_RECURSION_LIMIT = 2 * MAX_CALL_DEPTH + 2000


class VM:
    """The machine for one package store. `natives` may be replaced by an extended table."""

    def __init__(
        self, store: PackageStore, natives: dict[tuple[int, str, str], Native] | None = None
    ) -> None:
        self.linker = Linker(store)
        self.natives = NATIVES if natives is None else natives
        self.translated: dict[CodeType, Translated] = {}
        self._instantiated: list[LinkedFunction] = []
        self._builder = PackageBuilder(self.linker, self.natives)

    # ----------------------------------------------------------------------------------------------- types

    def parse_type(self, tag: str) -> Type:
        """Return the type that `tag` names. Raises `ExecutionFailure` (`TypeArgumentError`)."""
        return checks.resolve_type(self.linker, tag)

    def decode_value(self, type: Type, data: bytes) -> Any:
        """Return data of one value from its BCS. Raises `ExecutionFailure` (`CommandArgumentError`)."""
        try:
            return decode(type, data)
        except BadBcs as error:
            raise ExecutionFailure("CommandArgumentError", str(error), reason="InvalidBCSBytes") from None

    def decode_pure(self, type: Type, data: bytes) -> Any:
        """Return data of a pure argument: only numbers, booleans, addresses, strings, ids, options and vectors of
        these.

        Raises `ExecutionFailure` (`CommandArgumentError`: `InvalidUsageOfPureArg`, `InvalidBCSBytes`); text is
        checked.
        """
        return checks.decode_pure(type, data)

    def encode_value(self, type: Type, data: Any) -> bytes:
        """Return BCS of a value."""
        return encode(type, data)

    def copy_value(self, type: Type, data: Any) -> Any:
        """Return an independent copy of a value's data."""
        copy = copier(type)
        return data if copy is None else copy(data)

    # -------------------------------------------------------------------------------------------- packages

    def build_package(
        self,
        modules: Sequence[bytes],
        storage_id: bytes,
        dependencies: Sequence[bytes],
        previous: Package | None = None,
    ) -> Package:
        """Return a new package from a publish (`previous` is None) or an upgrade; modules name themselves 0x0.

        Parses, writes the package's address into the modules, makes linkage (from `dependencies`, storage ids) and
        type origins, verifies and links. Nothing is stored: the node does that. Raises `PackageRejected`.
        """
        return self._builder.build_package(modules, storage_id, dependencies, previous)

    def check_upgrade(self, previous: Package, new: Package, policy: UpgradePolicy) -> None:
        """Raise `PackageRejected` unless `new` may replace `previous` under `policy`."""
        self._builder.check_upgrade(previous, new, policy)

    def instantiate_function(
        self, package: bytes, module: str, function: str, type_arguments: Sequence[Type] = ()
    ) -> FunctionInstance:
        """Return the function with its types filled in. Raises `ExecutionFailure`."""
        found = self._find_function(self.linker.require_package(package), module, function)
        return checks.instance(found, tuple(type_arguments))

    def _find_function(self, package: LinkedPackage, module: str, name: str) -> LinkedFunction:
        try:
            found = package.get_module(module).functions.get(name)
        except MissingItem as missing:
            raise ExecutionFailure("FunctionNotFound", str(missing), reason="module") from None
        if found is None:
            raise ExecutionFailure(
                "FunctionNotFound", f"module {module} has no function {name}", reason="function"
            )
        return found

    def open_session(
        self,
        objects: ObjectRuntime,
        tx: TxData,
        meter: GasMeter,
        debug: Callable[[Type, Any], None] | None = None,
    ) -> VmSession:
        """Return the machine for one transaction. `debug` receives what `std::debug::print` prints."""
        return VmSession(self, objects, tx, meter, debug)

    # ----------------------------------------------------------------------------------------- translation

    def translate_function(self, function: LinkedFunction, arguments: tuple[Type, ...]) -> Callable[..., Any]:
        """Return the Python function for a bytecode function under type arguments, made on first use."""
        found = function.instances.get(arguments)
        if found is not None:
            return found
        if 1 + sum(argument.nodes for argument in arguments) > MAX_INSTANCE_NODES:
            raise VmLimit(
                "VMVerificationOrDeserializationError",
                f"type arguments of more than {MAX_INSTANCE_NODES - 1} parts in a call of {function.qualified_name}",
            )
        if len(self.translated) >= MAX_INSTANCES:
            self.drop_translations()
        made = translate(
            function, arguments, self.translate_function, self._find_native, self.translated.__setitem__
        )
        function.instances[arguments] = made
        self._instantiated.append(function)
        return made

    def drop_translations(self) -> None:
        """Forget all translated functions (memory); running ones finish undisturbed."""
        for function in self._instantiated:
            function.instances.clear()
        self._instantiated.clear()
        self.translated.clear()

    def _find_native(self, function: LinkedFunction) -> Native:
        package = int.from_bytes(function.module.package.package.original_id, "big")
        found = self.natives.get((package, function.module.name, function.name))
        if found is None:
            raise MissingItem("native function", function.qualified_name)
        return found


class VmSession:
    """The machine for one transaction: its objects, its context, its meter. After a failure, drop it."""

    def __init__(
        self,
        vm: VM,
        objects: ObjectRuntime,
        tx: TxData,
        meter: GasMeter,
        debug: Callable[[Type, Any], None] | None = None,
    ) -> None:
        self.vm = vm
        self.objects = objects
        self.tx = tx
        self.meter = meter
        self.debug = debug or (lambda _type, _data: None)
        self.package = b""
        self.module = ""
        meter.session = self
        self._context = [tx.sender, bytearray(tx.digest), tx.epoch, tx.epoch_timestamp_ms, tx.ids_created]

    def call_function(
        self,
        package: bytes,
        module: str,
        function: str,
        type_arguments: Sequence[Type],
        arguments: Sequence[ArgumentSlot],
    ) -> list[Value]:
        """Run a function of the package stored under `package`: one slot per parameter, `TxContext` left out.

        Visibility is the caller's matter (see `FunctionInstance`). A slot's type must be the parameter's without its
        reference. By value the slot's data is taken; after `&mut` the slot has the new data. References returned are
        read out: the value is a copy. Raises `ExecutionFailure`; then drop session, slots and objects.
        """
        found = self.vm._find_function(self.vm.linker.require_package(package), module, function)
        return self._run_function(found, tuple(type_arguments), arguments, package)

    def run_init(self, package: Package) -> None:
        """Run each module's `init` of a just published package, in the order of their names.

        Raises `ExecutionFailure`.
        """
        linked = self.vm.linker.link_package(package)
        for name in package.modules:
            found = linked.get_module(name).functions.get("init")
            if found is not None:
                witness = checks.witness(found)
                self._run_function(found, (), [] if witness is None else [witness], package.storage_id)

    def _run_function(
        self, function: LinkedFunction, types: tuple[Type, ...], slots: Sequence[ArgumentSlot], package: bytes
    ) -> list[Value]:
        instance = checks.instance(function, types)
        values, boxes = checks.bind(instance, slots)
        if instance.tx_context:
            values.append(self._context)
        self.package, self.module = package, function.module.name
        self.meter.depth = self.meter.stack = 0
        results = self._execute_function(function, types, values)
        for slot, box in boxes:
            slot.data = box[0]
        return checks.results(instance.returns, results)

    def _execute_function(self, function: LinkedFunction, types: tuple[Type, ...], values: list[Any]) -> Any:
        with _deep_recursion():
            try:
                if function.definition.is_native:
                    return self.vm._find_native(function)(self.meter, types, *values)
                result = self.vm.translate_function(function, types)(self.meter, *values)
                self.meter.settle_counters()
                return result
            except Stopped as stopped:
                self._raise_failure(stopped, stopped.__traceback__, function)
            except MissingItem as missing:
                raise ExecutionFailure("InvalidLinkage", str(missing), reason="missing") from None
            except RecursionError as error:
                self._raise_failure(PrimitiveError("call_depth"), error.__traceback__, function)
            except (MemoryError, OverflowError) as error:
                raise ExecutionFailure("MemoryLimitExceeded", f"values too large: {error}") from None

    # -------------------------------------------------------------------------------------------- failures

    def _raise_failure(
        self, stopped: Stopped, trace: TracebackType | None, called: LinkedFunction
    ) -> NoReturn:
        if isinstance(stopped, VmLimit):
            raise ExecutionFailure(stopped.status, str(stopped)) from None
        location, where = self._locate_failure(stopped, trace, called)
        place = f"{where.qualified_name} (instruction {location.instruction})"
        if isinstance(stopped, Abort):
            clever = clever_error(where.module.module, stopped.number)
            text = f" {clever.constant}: {clever.text}" if clever is not None and clever.constant else ""
            raise ExecutionFailure(
                "MoveAbort",
                f"{place} aborted with {stopped.number}{text}",
                location=location,
                abort_code=stopped.number,
                clever=clever,
            ) from None
        assert isinstance(stopped, PrimitiveError)
        raise ExecutionFailure(
            "MovePrimitiveRuntimeError",
            f"{place} failed: {stopped.message or stopped.reason}",
            location=location,
            reason=stopped.reason,
            sub_status=stopped.number,
        ) from None

    def _locate_failure(
        self, stopped: Stopped, trace: TracebackType | None, called: LinkedFunction
    ) -> tuple[MoveLocation, LinkedFunction]:
        """Return the innermost translated frame, or the native it called when that is what aborted."""
        function, pc = caller = called, 0
        while trace is not None:
            found = self.vm.translated.get(trace.tb_frame.f_code)
            if found is not None:
                caller = function, pc
                function, pc = found.function, found.pcs[trace.tb_lineno]
            trace = trace.tb_next
        if isinstance(stopped, PrimitiveError) and stopped.reason == "call_depth":
            function, pc = caller  # the callee was never entered
        if isinstance(stopped, PrimitiveError) and stopped.reason == "operand_stack":
            pc = _overflowing(function, pc, self.meter.stack)
        if isinstance(stopped, NativeAbort | MemoryLimit) and function.definition.body is not None:
            function, pc = self._native_called(function, pc), 0
        package = function.module.package.package
        location = MoveLocation(
            package.storage_id if isinstance(stopped, Abort) else package.original_id,
            function.module.name,
            function.index,
            pc,
            function.name,
        )
        return location, function

    def _native_called(self, function: LinkedFunction, pc: int) -> LinkedFunction:
        body = function.definition.body
        assert body is not None
        op, argument = body.code[pc]
        handle = int(argument)  # type: ignore[arg-type]
        if op is Opcode.CALL_GENERIC:
            handle = function.module.module.function_instantiations[handle].target
        return function.module.called_function(handle)


@contextmanager
def _deep_recursion() -> Iterator[None]:
    """Let Python recurse as deep as Move may call. Frames of translated code take no C stack (CPython 3.11+)."""
    before = sys.getrecursionlimit()
    if before < _RECURSION_LIMIT:
        sys.setrecursionlimit(_RECURSION_LIMIT)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _overflowing(function: LinkedFunction, start: int, waiting: int) -> int:
    """Return the instruction of a block that leaves too many values on the stack, `waiting` of them its callers'."""
    assert function.definition.body is not None
    height = waiting
    for at, (op, argument) in enumerate(function.definition.body.code[start:], start):
        pops, pushes = effect(function.module.module, op, argument)
        height += pushes - pops
        if height > MAX_STACK:
            return at
    return start
