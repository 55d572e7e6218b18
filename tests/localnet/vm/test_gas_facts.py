"""Computation of programs whose gas on the genuine chain is public knowledge, in gas units.

The figures are facts of Sui's adapter test suite; the programs are `fixtures/basics/sources/counted.move`.
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
        ("make_ids", 1, 1_000),
        ("make_ids", 256, 1_000),
        ("fill_often", 1, 1_000),
    ],
)
def test_computation_is_that_of_the_genuine_chain(
    world: World, home: bytes, function: str, count: int, units: int
) -> None:
    meter = world.call(f"counted::{function}", count, package=home).meter
    assert round_units(meter.used_units) == units
