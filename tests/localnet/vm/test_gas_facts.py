"""Computation of programs whose gas on the genuine chain is public knowledge, in gas units.

The figures are facts of Sui's adapter test suite, recorded under gas model 11 as the modelled version has it, and of
the meter of that model; the programs are `fixtures/basics/sources/counted.move`.
"""

from __future__ import annotations

from typing import Any

import pytest
from module_maker import Maker, code
from move_writer import write_module
from vm_world import World, address, modules

from dtp.localnet.framework import STD, SUI
from dtp.localnet.vm.gas import GasMeter, round_units
from dtp.sui.bytecode import Primitive, ReferenceType, VectorType

HOME = address(0x77)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def home(world: World) -> bytes:
    return world.publish(modules("basics"))


@pytest.mark.parametrize(
    ("function", "count", "units"),
    [
        ("push_and_pop", 1, 1_000),
        ("push_and_pop", 256, 1_000),
        # The longest vector: a number on the stack counts as 8.
        ("push_and_pop", 262_144, 2_620_000),
        ("make_ids", 1, 1_000),
        ("make_ids", 256, 1_000),
        ("make_ids", 2048, 13_000),
        ("send_things", 256, 1_000),
        ("fill_often", 1, 1_000),
    ],
)
def test_computation_is_that_of_the_genuine_chain(
    world: World, home: bytes, function: str, count: int, units: int
) -> None:
    meter = world.call(f"counted::{function}", count, package=home).meter
    assert round_units(meter.used_units) == units


def used(world: World, home: bytes, target: str, *arguments: object) -> int:
    """Internal units that a call takes."""
    return world.call(f"counted::{target}", *arguments, package=home).meter.used


def test_writing_through_references_leaves_nothing_on_the_stack(world: World, home: bytes) -> None:
    """A push cost twice as much after 1,000 writes up to gas model 10."""
    few, more, some, others = (used(world, home, "write", n) for n in (500, 550, 1_030, 1_080))
    assert others - some == more - few


def units(
    *instructions: tuple[str, int] | str, parameter: Primitive = Primitive.U64, argument: Any = 7
) -> int:
    """Internal units of a function of these instructions; its parameter is local 0, a reference to it local 1."""
    maker = Maker(address=bytes(32))
    reference = ReferenceType(parameter, True)
    maker.function("f", code(*instructions, "RET"), [parameter], [], [reference])
    made = World()
    made.packages[HOME] = made.vm.build_package([write_module(maker.build())], HOME, (STD, SUI))
    meter: GasMeter = made.call("m::f", argument, package=HOME).meter
    return meter.used


LOADED = ("COPY_LOC", 0), "POP"


@pytest.mark.parametrize(
    ("parameter", "size"),
    [
        (Primitive.BOOL, 8),
        (Primitive.U8, 8),
        (Primitive.U64, 8),
        (Primitive.U128, 16),
        (Primitive.U256, 32),
        (Primitive.ADDRESS, 32),
    ],
)
def test_a_value_counts_by_its_kind_and_a_move_does_not(parameter: Primitive, size: int) -> None:
    argument = {Primitive.BOOL: True, Primitive.ADDRESS: bytes(32)}.get(parameter, 7)

    def of(*instructions: tuple[str, int] | str) -> int:
        return units(*instructions, parameter=parameter, argument=argument)

    nothing = of()
    # Each instruction one, each push one, and what is pushed.
    assert of(*LOADED) - nothing == 2 + 1 + size
    assert of(("MOVE_LOC", 0), "POP") - nothing == 2 + 1 + 8
    borrow = of(("MUT_BORROW_LOC", 0), "POP") - nothing
    assert borrow == 2 + 1 + 8
    assert of(("MUT_BORROW_LOC", 0), "READ_REF", "POP") - nothing == borrow + 1 + 1 + 8 + size
    write = of(("COPY_LOC", 0), ("MUT_BORROW_LOC", 0), "WRITE_REF") - nothing
    assert write == (1 + 1 + size) + (1 + 1 + 8) + (1 + size)


def test_a_native_is_two_instructions() -> None:
    """The call's own, and one that the meter takes before the native is executed."""
    maker = Maker(address=bytes(32))
    data = VectorType(Primitive.U8)
    hashed = maker.handle("sha2_256", [data], [data], module=maker.module(STD, "hash"))
    empty = ("VEC_PACK", (maker.signature(Primitive.U8), 0))
    maker.function("nothing", code("RET"))
    maker.function("f", code(empty, ("CALL", hashed), "POP", "RET"))
    world = World()
    world.packages[HOME] = world.vm.build_package([write_module(maker.build())], HOME, (STD, SUI))
    called, nothing = (world.call(f"m::{name}", package=HOME).meter.used for name in ("f", "nothing"))
    native = 52 + 2  # its base, and a byte of input at least
    assert called - nothing == (1 + 1 + 8) + (2 + 1 + 2 + 32 + native) + 1
