"""Limits of running code, at their borders: values on the operand stack, and how deep a value nests."""

from __future__ import annotations

import pytest
from module_maker import Maker, code
from move_writer import write_module
from vm_world import World, address

from dtp.localnet.framework import STD, SUI
from dtp.localnet.vm import ExecutionFailure
from dtp.sui.bytecode import Primitive

HOME = address(0x77)
U64 = Primitive.U64


def nested(depth: int, home: bytes) -> bytes:
    """`probe` makes a struct in a struct in a ... number, of `depth` in all."""
    maker = Maker(address=home)
    type = maker.struct("S1", U64)
    made: list[tuple[str, int]] = [("LD_U64", 1), ("PACK", 0)]
    for at in range(1, depth - 1):
        type = maker.struct(f"S{at + 1}", type)
        made.append(("PACK", at))
    maker.function("probe", code(*made, "POP", "RET"))
    return write_module(maker.build())


def sum_of(waiting: int, home: bytes) -> bytes:
    """`f(n)` calls itself n times, with so many values waiting on the stack each time."""
    maker = Maker(address=home)
    first = [("COPY_LOC", 0), ("LD_U64", 0), "EQ", ("BR_FALSE", 6), ("LD_U64", 0), "RET"]
    again = [*[("LD_U64", 1)] * waiting, ("COPY_LOC", 0), ("LD_U64", 1), "SUB", ("CALL", 0)]
    maker.function("f", code(*first, *again, *["ADD"] * waiting, "RET"), [U64], [U64])
    return write_module(maker.build())


def run(data: bytes, function: str, *arguments: int) -> str:
    """What the machine says of the call: nothing, or why it failed."""
    world = World()
    world.packages[HOME] = world.vm.build_package([data], HOME, (STD, SUI))
    try:
        world.call(f"m::{function}", *arguments, package=HOME)
    except ExecutionFailure as failure:
        place = failure.location
        return f"{failure.reason} {place and place.instruction}"
    return ""


@pytest.mark.parametrize(("depth", "reason"), [(127, ""), (128, ""), (129, "value_depth 128")])
def test_values_nest_128_deep(depth: int, reason: str) -> None:
    assert run(nested(depth, bytes(32)), "probe") == reason


@pytest.mark.parametrize(("waiting", "most", "at"), [(1, 1022, 8), (2, 511, 8), (4, 255, 10)])
def test_1024_values_wait_on_the_stack(waiting: int, most: int, at: int) -> None:
    data = sum_of(waiting, bytes(32))
    assert run(data, "f", most) == ""
    assert run(data, "f", most + 1) == f"operand_stack {at}"


def test_the_genuine_machine_has_the_same_borders() -> None:
    genuine = pytest.importorskip("genuine")

    def answer(data: bytes, function: str, *arguments: bytes) -> tuple[str, int | None]:
        found = genuine.genuine_call("m", function, list(arguments), modules=(data,))
        return found.failure, found.offset

    assert answer(nested(128, HOME), "probe")[0] == ""
    assert answer(nested(129, HOME), "probe")[0] == "VM_MAX_VALUE_DEPTH_REACHED"
    for waiting, most, at in ((1, 1022, 8), (2, 511, 8), (4, 255, 10)):
        data = sum_of(waiting, HOME)
        assert answer(data, "f", most.to_bytes(8, "little"))[0] == ""
        assert answer(data, "f", (most + 1).to_bytes(8, "little")) == ("EXECUTION_STACK_OVERFLOW", at)
