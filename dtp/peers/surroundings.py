"""What changes around a node: this machine's clock, and the networks that it is in."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from dtp.peers.lan.interfaces import find_networks, find_routers, own_addresses, read_tables
from dtp.peers.own_networks import has_left, keep_routers, without_routers

#: Seconds between two checks. Until the next, others have outdated information.
LOOK: Final = 60.0
#: Seconds by which the clock has to differ from the elapsed time. NTP causes smaller differences all the time.
SET: Final = 10.0


class SurroundingsChange(NamedTuple):
    """What has changed since the last check."""

    #: The clock was set, or has gone on while the machine slept.
    was_clock_set: bool
    #: The machine has other addresses, or another router at the same address.
    has_moved: bool


def network_addresses() -> frozenset[str]:
    """Return this machine's addresses and routers, as in `dtp.peers.own_networks`: another network may give it the
    same address as this one. Only Linux tells the size of a network and its router.
    """
    routes, neighbours = read_tables()
    own, routers = set(own_addresses().values()), find_routers(routes, neighbours)
    networks = find_networks(routes, own)
    sized = {f"{ip}/{networks[ip].prefixlen}" if ip in networks else ip for ip in own}
    return frozenset(sized | {f"{router}@{ip}" for ip, router in routers.items()})


class Surroundings:
    """This machine's clock and networks. `look` returns what has changed."""

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        list_addresses: Callable[[], frozenset[str]] = network_addresses,
    ) -> None:
        """`wall` returns Unix time. `steady` returns seconds of a clock that nobody sets, and that stops while the
        machine sleeps.
        """
        self.wall = wall
        self._steady, self._list_addresses = steady, list_addresses
        self._offset = wall() - steady()
        #: The machine's addresses and routers at the last check.
        self.addresses = list_addresses()
        #: Routers are ignored until this time: a neighbour that poses as one could otherwise make the node "move"
        #: every second.
        self._next_router = -math.inf

    def look(self) -> SurroundingsChange:
        """Return what has changed since the last check, or since this object was created."""
        now, listed = self._steady(), self._list_addresses()
        offset = self.wall() - now
        if now < self._next_router:
            listed = without_routers(listed)
        addresses = keep_routers(self.addresses, listed)
        has_moved = without_routers(addresses) != without_routers(self.addresses)
        if has_left(self.addresses, addresses) and not has_moved:
            has_moved, self._next_router = True, now + LOOK
        found = SurroundingsChange(abs(offset - self._offset) > SET, has_moved)
        self._offset, self.addresses = offset, addresses
        return found

    async def wait_change(self, within: float) -> None:
        """Wait for `within` seconds, or until soon after something has changed."""
        for _ in range(max(1, round(within / LOOK))):
            await asyncio.sleep(LOOK)
            if any(self.look()):
                return
