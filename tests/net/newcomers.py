"""Strangers at a listener's door, who say what a test has them say, and nothing by themselves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import dtp
from dtp import carriers
from dtp.carriers.base import Carrier
from dtp.errors import CarrierError


class Stranger:
    """A raw carrier to a listener: says what it is told and remembers what it hears."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier
        self.heard = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._buffer = bytearray(65536)
        carrier.start(self)

    def carrier_packet(self, data: bytes) -> None:
        """None comes here: what it dials has no lossy path."""

    def carrier_buffer(self) -> memoryview:
        return memoryview(self._buffer)

    def carrier_received(self, size: int) -> None:
        self.heard += self._buffer[:size]

    def carrier_writable(self) -> None: ...

    def carrier_lost(self, error: CarrierError | None) -> None:
        self.ended.set_result(None)


@contextlib.asynccontextmanager
async def strangers(listener: dtp.Listener, count: int) -> AsyncIterator[list[Stranger]]:
    guests = [Stranger(await carriers.dial(listener.urls[0])) for _ in range(count)]
    yield guests
    for guest in guests:
        guest.carrier.abort()
