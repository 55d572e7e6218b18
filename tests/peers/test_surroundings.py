"""What changes under a node: its machine's clock, and the networks that it is in."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import sys

import pytest

from dtp.peers.lan.interfaces import find_networks, find_routers
from dtp.peers.own_networks import without_routers
from dtp.peers.surroundings import LOOK, SET, Surroundings, SurroundingsChange, network_addresses
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


def test_another_router_at_the_same_address_is_another_network_and_one_that_says_nothing_is_not() -> None:
    """A laptop is given 192.168.1.5 at home and in the office."""
    machine = Machine()
    here = machine.surroundings()
    own, home, office = machine.addresses, "02:00:00:00:00:01@192.168.1.1", "02:00:00:00:00:02@192.168.1.1"
    for routers, has_moved in [
        ({home}, False),  # it is spoken with for the first time
        (set(), False),
        ({home}, False),
        (set(), False),
        ({office}, True),
        ({office}, False),
    ]:
        machine.addresses = own | routers
        assert here.look() == SurroundingsChange(was_clock_set=False, has_moved=has_moved)
    for seconds, has_moved in [(LOOK - 1, False), (1, True)]:  # a neighbour poses as the router
        machine.go_on(seconds)
        machine.addresses = own | {home}
        assert here.look() == SurroundingsChange(was_clock_set=False, has_moved=has_moved)
    machine.addresses = frozenset({"127.0.0.1", "10.0.0.5"})
    assert here.look().has_moved
    assert here.addresses == machine.addresses


class Counted(str):
    """A table that counts how often it is read."""

    reads = 0

    def splitlines(self, keepends: bool = False) -> list[str]:
        self.reads += 1
        return super().splitlines(keepends)


def word(ip: str) -> str:
    """Return an address as the kernel's table of routes has it."""
    return f"{int.from_bytes(socket.inet_aton(ip), sys.byteorder):08X}"


ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t{gateway}\t0003\t0\t0\t0\t00000000\t0\t0\t0
wlan0\t{own}\t00000000\t0001\t0\t0\t0\t{mask}\t0\t0\t0
"""
OWN = {"own": word("192.168.1.0"), "mask": word("255.255.255.0")}
NEIGHBOURS = """IP address       HW type     Flags       HW address            Mask     Device
192.168.1.9      0x1         0x2         02:00:00:00:00:09     *        wlan0
192.168.1.1      0x1         {flags}         02:00:00:00:00:01     *        {device}
"""


@pytest.mark.parametrize(
    ("flags", "device", "found"),
    [
        ("0x2", "wlan0", {"192.168.1.1": "02:00:00:00:00:01"}),
        ("0x6", "wlan0", {"192.168.1.1": "02:00:00:00:00:01"}),
        ("0x0", "wlan0", {}),
        ("0x2", "eth0", {}),
    ],
)
def test_routers_are_those_of_the_routes_that_have_answered(
    flags: str, device: str, found: dict[str, str]
) -> None:
    neighbours = NEIGHBOURS.format(flags=flags, device=device)
    assert find_routers(ROUTES.format(**OWN, gateway=word("192.168.1.1")), neighbours) == found
    assert find_routers("", "") == {}


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("192.168.1.5", "192.168.1.0/24"),
        ("10.1.7.5", "10.1.0.0/16"),
        ("172.17.0.1", None),
        ("100.64.0.2", None),  # of a VPN, whose route is to half of the internet
    ],
)
def test_a_network_is_as_large_as_its_route_says(ip: str, network: str | None) -> None:
    routes = ROUTES.format(**OWN, gateway="00000000") + "".join(
        f"eth0\t{word(start)}\t00000000\t0001\t0\t0\t0\t{word(mask)}\t0\t0\t0\n"
        for start, mask in [("10.1.0.0", "255.255.0.0"), ("10.0.0.0", "255.0.0.0"), ("0.0.0.0", "128.0.0.0")]
    )
    found = find_networks(routes, [ip]).get(ip)
    assert (None if found is None else str(found)) == network


def test_many_routes_and_interfaces_that_have_one_address_cost_a_look_at_each_route() -> None:
    """A host of containers has an interface and a route for each; all interfaces say the host's address."""
    routes = Counted(ROUTES.format(**OWN, gateway="00000000"))
    assert list(find_networks(routes, ["192.168.1.5"] * 200 + ["10.1.7.5"])) == ["192.168.1.5"]
    assert routes.reads == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says")
def test_this_machine_s_addresses_have_the_size_of_their_network() -> None:
    own = without_routers(network_addresses())
    assert own
    for each in own:
        assert ipaddress.IPv4Interface(each).ip == ipaddress.IPv4Address(each.partition("/")[0])


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
