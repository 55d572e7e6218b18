"""Checks whether a peer can be reached at its place at a relay, by dialling it there anonymously.

A relay that grants places and lets nobody through could tell such checks from other dials if they named themselves.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from dtp.bounded import BoundedDict
from dtp.carriers.nearness import network_of_source
from dtp.errors import CarrierError, LocalError, PeerError
from dtp.identity import PeerId
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import connect
from dtp.net.presence import SERVICE as PRESENCE
from dtp.peers.reach.relay_client import RelayClient, RelayPlace
from dtp.session.codes import ConnectionRefused

#: Seconds for each of the two dials: to the relay, and through it.
DIAL_TIME: Final = 4.0
#: The errors of a dial that leads nowhere.
_NOWHERE: Final = (TimeoutError, CarrierError, PeerError, LocalError)


async def is_reached_at(place: RelayPlace, peer: PeerId, psk: bytes | None) -> bool | None:
    """Return whether `peer` can be reached at `place`. Return None if the relay can't be connected to: it may be
    offline or have a price, which says nothing about its places. A separate connection is made for this, and
    closed.
    """
    try:
        async with asyncio.timeout(DIAL_TIME):
            relay = await connect(place.address, psk=psk)
    except _NOWHERE:
        return None

    async def give(_: Address) -> Connection:
        return relay

    client = RelayClient(give)
    there = Address.direct(peer, place.url_for(peer), PRESENCE)
    try:
        async with asyncio.timeout(DIAL_TIME):
            (await connect(there, psk=psk, dial_carrier=client.dial)).abort()
        return True
    except ConnectionRefused:  # it has authenticated itself before refusing
        return True
    except _NOWHERE:
        return False
    finally:
        relay.abort()
        await client.close()


class CheckBook:
    """Which peers have asked this node to dial, and how often they may. A value: the time is an argument."""

    def __init__(self, pause: float, at_once: int, peers: int) -> None:
        """`pause` is the seconds between two requests of one peer, `at_once` the requests that are carried out at a
        time, of which one network on the internet may have half. `peers` are remembered.
        """
        self._pause, self._at_once = pause, at_once
        self._asked: BoundedDict[PeerId, float] = BoundedDict(peers)
        #: Requests that are being carried out, by network.
        self._running = Counter[str]()

    def __len__(self) -> int:
        """Return the number of remembered peers."""
        return len(self._asked)

    def begin_answer(self, peer: PeerId, source: str, now: float) -> bool:
        """Return True if a request of `peer`, which comes from `source`, may be carried out now. Call `end_answer`
        afterwards.
        """
        network = network_of_source(source)
        is_full = self._running.total() >= self._at_once or 2 * self._running[network] >= self._at_once
        if is_full or now < self._asked.get(peer, float("-inf")) + self._pause:
            return False
        self._asked[peer] = now
        self._running[network] += 1
        return True

    def end_answer(self, source: str) -> None:
        """Note that a request from `source` was answered."""
        network = network_of_source(source)
        self._running[network] -= 1
        self._running += Counter()  # drops networks without requests
