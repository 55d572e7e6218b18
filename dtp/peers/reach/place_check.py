"""Whether a peer is reached at its place at a relay: found out by dialling it there, as nobody in particular.

A relay that gives places and leads nobody there would tell those who try from others if they said who they are.
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
#: What a dial that leads nowhere comes to.
_NOWHERE: Final = (TimeoutError, CarrierError, PeerError, LocalError)


async def is_reached_at(place: RelayPlace, peer: PeerId, psk: bytes | None) -> bool | None:
    """Return whether `peer` is reached at `place`; None where the relay lets nobody in: it may be away, or have a
    price, which says nothing about its places. A connection of its own is made for it, and ended."""
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
    except ConnectionRefused:  # it has proven who it is before it said no
        return True
    except _NOWHERE:
        return False
    finally:
        relay.abort()
        await client.close()


class CheckBook:
    """Which peers have asked this node to dial, and how often they may: a value. The time is an argument."""

    def __init__(self, pause: float, at_once: int, peers: int) -> None:
        """`pause` seconds between two questions of one peer, `at_once` of all that are being answered, and half of
        that of one network on the internet; `peers` are remembered."""
        self._pause, self._at_once = pause, at_once
        self._asked: BoundedDict[PeerId, float] = BoundedDict(peers)
        #: How many are being answered, by network.
        self._running = Counter[str]()

    def __len__(self) -> int:
        """Return how many peers are remembered."""
        return len(self._asked)

    def begin_answer(self, peer: PeerId, source: str, now: float) -> bool:
        """Return True if `peer`, which comes from `source`, may be answered now; `end_answer` says that it was."""
        network = network_of_source(source)
        is_full = self._running.total() >= self._at_once or 2 * self._running[network] >= self._at_once
        if is_full or now < self._asked.get(peer, float("-inf")) + self._pause:
            return False
        self._asked[peer] = now
        self._running[network] += 1
        return True

    def end_answer(self, source: str) -> None:
        """Note that an answer has been given to a peer that comes from `source`."""
        network = network_of_source(source)
        self._running[network] -= 1
        self._running += Counter()  # only those that have any are kept
