"""Computation of programs whose gas on the genuine chain is public knowledge, in gas units.

The figures are facts of Sui's adapter test suite, recorded under gas model 11 as the modelled version has it; the
programs are `fixtures/basics/sources/counted.move`.
"""

from __future__ import annotations

import pytest
from vm_world import World, modules

from dtp.localnet.vm.gas import round_units


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
        # The longest vector: every number on the stack counts as 16 there, whatever its width.
        ("push_and_pop", 262_144, 4_088_000),
        ("make_ids", 1, 1_000),
        ("make_ids", 256, 1_000),
        ("make_ids", 2048, 13_000),
        ("send_things", 256, 1_000),
        ("send_things", 2048, 17_000),
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


def test_writing_through_references_leaves_values_on_the_stack(world: World, home: bytes) -> None:
    """A push costs twice as much after 1,000 writes: the published schedule takes the value for still there."""
    few, more, some, others = (used(world, home, "write", n) for n in (500, 550, 1_030, 1_080))
    pushes = 9  # of each turn of the loop
    assert others - some == more - few + 50 * pushes
