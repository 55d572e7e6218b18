"""What changes under a node: its machine's clock, and the networks that it is in."""

from __future__ import annotations

import asyncio

import pytest

from dtp.peers.surroundings import LOOK, SET, Surroundings, SurroundingsChange
from dtp.testing import clock


class Machine:
    """A machine whose clock is set, that sleeps and that moves, as a test has it."""

    def __init__(self) -> None:
        self.unix, self.steady = 1_800_000_000.0, 1000.0
        self.addresses = frozenset({"127.0.0.1", "192.168.1.5"})

    def surroundings(self) -> Surroundings:
        return Surroundings(
            wall=lambda: self.unix, steady=lambda: self.steady, list_addresses=lambda: self.addresses
        )

    def go_on(self, seconds: float, slept: float = 0.0) -> None:
        self.unix += seconds + slept
        self.steady += seconds


def test_time_that_goes_by_is_no_change() -> None:
    machine = Machine()
    here = machine.surroundings()
    for _ in range(100):
        machine.go_on(60)
        machine.unix += SET / 2  # as NTP has it go faster for a while
        assert here.look() == SurroundingsChange(was_clock_set=False, has_moved=False)


@pytest.mark.parametrize("by", [-365 * 86_400.0, -60.0, 60.0, 86_400.0])
def test_a_clock_that_was_set_or_a_machine_that_slept_is_noticed_once(by: float) -> None:
    machine = Machine()
    here = machine.surroundings()
    machine.go_on(60, slept=by)
    assert here.look() == SurroundingsChange(was_clock_set=True, has_moved=False)
    machine.go_on(60)
    assert here.look() == SurroundingsChange(was_clock_set=False, has_moved=False)


@pytest.mark.parametrize(
    "addresses", [{"127.0.0.1"}, {"127.0.0.1", "10.0.0.5"}, {"127.0.0.1", "192.168.1.5", "10.0.0.5"}]
)
def test_other_addresses_are_noticed_once(addresses: set[str]) -> None:
    machine = Machine()
    here = machine.surroundings()
    machine.addresses = frozenset(addresses)
    assert here.look() == SurroundingsChange(was_clock_set=False, has_moved=True)
    assert here.addresses == addresses
    assert here.look() == SurroundingsChange(was_clock_set=False, has_moved=False)


def test_what_waits_for_a_change_waits_no_longer() -> None:
    async def main() -> None:
        machine, loop = Machine(), asyncio.get_running_loop()
        here = machine.surroundings()
        await here.wait_change(3 * LOOK)
        assert loop.time() == 3 * LOOK
        loop.call_later(LOOK, machine.go_on, 0.0, 3600.0)
        await here.wait_change(100 * LOOK)
        assert loop.time() <= 5 * LOOK

    clock.run(main())
