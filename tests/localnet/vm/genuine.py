"""The genuine Move machine, from the wheel `sui-sandbox`, and ours beside it: the same call, the same kind of answer.

Nothing here reaches for the network: packages are given, dependencies are those built into the wheel.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from dtp.localnet.vm import VM, ArgumentSlot, ExecutionFailure, GasMeter, ObjectRuntime, Package, TxData
from dtp.sui.bytecode import BytecodeError, deserialize

sui_sandbox = pytest.importorskip("sui_sandbox", reason="the genuine machine is the wheel sui-sandbox")

HOME = (0x77).to_bytes(32, "big")
_STATUS = re.compile(r"major_status: (\w+), sub_status: (?:Some\((\d+)\)|None)")
_PLACE = re.compile(r'name: Identifier\(\\*"(\w+)\\*"\)')
_OFFSET = re.compile(r"offsets: \[\(FunctionDefinitionIndex\((\d+)\), (\d+)\)")
_TEXT_OFFSET = re.compile(r"::(\w+) at offset (\d+)")


@dataclass(frozen=True)
class Answer:
    """What a call came to: return values in BCS, or how it failed and where."""

    values: tuple[bytes, ...] = ()
    failure: str = ""
    code: int | None = None
    module: str = ""
    offset: int | None = None


def genuine_call(
    module: str,
    function: str,
    arguments: list[bytes],
    types: tuple[str, ...] = (),
    modules: tuple[bytes, ...] = (),
) -> Answer:
    """Run a function of `modules` (published at `HOME`) or, without modules, of 0x1/0x2 as `0x2::coin`."""
    package, _, name = module.rpartition("::")
    home = package or f"0x{HOME.hex()}"
    result = sui_sandbox.call_view_function(
        home,
        name,
        function,
        type_args=list(types),
        pure_inputs=list(arguments),
        package_bytecodes={home: list(modules)} if modules else {},
        fetch_deps=False,
    )
    if result["success"]:
        return Answer(tuple(base64.b64decode(v) for v in (result["return_values"] or [[]])[0]))
    return _failure(result["error"])


def _failure(error: str) -> Answer:
    found = _STATUS.findall(error)
    assert found, error
    status, sub = found[-1]
    places = _PLACE.findall(error)
    offset = _TEXT_OFFSET.search(error) or _OFFSET.search(error)
    return Answer(
        failure=status,
        code=int(sub) if sub else None,
        module=places[-1] if places else "",
        offset=int(offset[2]) if offset else None,
    )


_OURS = {
    "arithmetic": "ARITHMETIC_ERROR",
    "vector": "VECTOR_OPERATION_ERROR",
    "call_depth": "CALL_STACK_OVERFLOW",
    "variant": "VARIANT_TAG_MISMATCH",
    "operand_stack": "EXECUTION_STACK_OVERFLOW",
    "value_depth": "VM_MAX_VALUE_DEPTH_REACHED",
}


def our_call(
    vm: VM, package: bytes, module: str, function: str, arguments: list[bytes], types: tuple[str, ...] = ()
) -> Answer:
    """The same on our machine."""
    type_arguments = [vm.parse_type(t) for t in types]
    wanted = vm.instantiate_function(package, module, function, type_arguments).parameters
    slots = []
    for parameter, data in zip(wanted, arguments, strict=True):
        type = parameter.element if parameter.is_reference else parameter
        slots.append(ArgumentSlot(type, vm.decode_value(type, data)))
    session = vm.open_session(ObjectRuntime(_Nothing()), TxData(bytes(32), bytes(32)), GasMeter())
    try:
        values = session.call_function(package, module, function, type_arguments, slots)
    except ExecutionFailure as failure:
        where = failure.location
        if failure.status == "MoveAbort":
            assert where is not None
            return Answer(
                failure="ABORTED", code=failure.abort_code, module=where.module, offset=where.instruction
            )
        return Answer(
            failure=_OURS.get(failure.reason, failure.status),
            code=failure.sub_status,
            module=where.module if where else "",
            offset=where.instruction if where else None,
        )
    return Answer(tuple(vm.encode_value(v.type, v.data) for v in values))


class _Nothing:
    def find_child(self, parent: bytes, child: bytes) -> None:
        return None

    def find_setting(self, config: bytes, id: bytes) -> None:
        """There is nothing."""

    def find_received(self, parent: bytes, id: bytes, version: int) -> None:
        return None


class Packages:
    """A package store out of a dict."""

    def __init__(self, *packages: Package) -> None:
        self.packages = {p.storage_id: p for p in packages}

    def get_package(self, storage_id: bytes) -> Package | None:
        return self.packages.get(storage_id)


@cache
def genuine_framework() -> dict[tuple[int, str], bytes]:
    """The framework's modules that are built into the wheel, by (address, name): read, never stored."""
    binary = next(Path(sui_sandbox.__file__).parent.glob("*.so")).read_bytes()
    found: dict[tuple[int, str], bytes] = {}
    for match in re.finditer(b"\xa1\x1c\xeb\x0b", binary):
        data = _embedded(binary, match.start())
        if data is None:
            continue
        module = deserialize(data)
        found.setdefault((module.address[-1], module.name), data)
    return found


def _embedded(binary: bytes, start: int) -> bytes | None:
    """A module in a BCS list: its length stands before it."""
    for width in (1, 2, 3):
        prefix = binary[start - width : start]
        if any((byte < 0x80) != (at == width - 1) for at, byte in enumerate(prefix)):
            continue
        size = sum((byte & 0x7F) << 7 * at for at, byte in enumerate(prefix))
        try:
            deserialize(binary[start : start + size])
        except BytecodeError:
            continue
        return binary[start : start + size]
    return None


def genuine_packages() -> tuple[Package, Package]:
    """0x1 and 0x2 of the wheel as packages for our machine."""
    made = []
    for number in (1, 2):
        id = number.to_bytes(32, "big")
        modules = {name: data for (address, name), data in genuine_framework().items() if address == number}
        linkage = {(1).to_bytes(32, "big"): (1).to_bytes(32, "big")} if number == 2 else {}
        made.append(Package(id, id, 1, modules, linkage))
    return made[0], made[1]


def placed(modules: list[bytes], address: bytes = HOME) -> tuple[bytes, ...]:
    """Modules compiled for 0x0, at an address, as both machines take them."""
    from dtp.localnet.vm.packages import with_address

    return tuple(with_address(data, address)[0] for data in modules)


def number(value: int, bits: int) -> bytes:
    """An integer's BCS."""
    return value.to_bytes(bits // 8, "little")


def text(value: bytes) -> bytes:
    """A short vector<u8>'s BCS."""
    assert len(value) < 128
    return bytes((len(value),)) + value


def numbers(values: list[int], bits: int = 64) -> bytes:
    """A short vector of integers in BCS."""
    assert len(values) < 128
    return bytes((len(values),)) + b"".join(number(v, bits) for v in values)
