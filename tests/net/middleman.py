"""Somebody on the way between a client and a listener: hears all, and may answer in the listener's place."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import dtp
from dtp import carriers
from dtp.carriers.base import Carrier
from dtp.errors import CarrierError
from dtp.net.address import Address
from dtp.tasks import TaskSet

#: Looks at what a client says first on a carrier (of that number, from 0), and gives what goes on to the
#: listener in its place; or answers it himself, and gives None.
Tamper = Callable[[int, bytes, Carrier], bytes | None]


class _End:
    """One end of a carrier that leads through the middle man."""

    def __init__(self, carrier: Carrier, take: Callable[[bytes], object]) -> None:
        self.carrier, self._take = carrier, take
        self.other: _End | None = None
        self._buffer = bytearray(65536)
        carrier.start(self)

    def carrier_buffer(self) -> memoryview:
        return memoryview(self._buffer)

    def carrier_received(self, size: int) -> None:
        self._take(bytes(self._buffer[:size]))

    def carrier_packet(self, data: bytes) -> None:
        """Nobody sends any."""

    def carrier_writable(self) -> None: ...

    def carrier_lost(self, error: CarrierError | None) -> None:
        if self.other is not None:
            self.other.carrier.close()


class Middleman:
    """Takes carriers, dials `target` for each, and passes on. `said` has what each client said."""

    def __init__(self, target: str, tamper: Tamper | None) -> None:
        self._target, self._tamper = target, tamper
        self._tasks = TaskSet()
        self.said: list[bytes] = []
        #: What goes on of what a client says behind that.
        self.later: Callable[[int, bytes], bytes] = lambda _, data: data

    def take(self, carrier: Carrier) -> None:
        number = len(self.said)
        self.said.append(b"")
        waiting: list[bytes] = []
        far: list[_End] = []

        def up(data: bytes) -> None:
            first = not self.said[number]
            self.said[number] += data
            if not first:
                passed: bytes | None = self.later(number, data)
            else:
                passed = data if self._tamper is None else self._tamper(number, data, carrier)
            if passed is None:
                return
            if far:
                far[0].carrier.write(memoryview(passed))
                return
            waiting.append(passed)
            if len(waiting) == 1:
                self._tasks.start(dial(), name="middleman")

        async def dial() -> None:
            end = _End(await carriers.dial(self._target), lambda data: near.carrier.write(memoryview(data)))
            end.other, near.other = near, end
            far.append(end)
            for data in waiting:
                end.carrier.write(memoryview(data))

        near = _End(carrier, up)


@contextlib.asynccontextmanager
async def middleman(
    listener: dtp.Listener, tamper: Tamper | None = None
) -> AsyncIterator[tuple[Address, Middleman]]:
    """The address that leads to the listener by way of him, and he."""
    man = Middleman(listener.urls[0], tamper)
    door = await carriers.listen("memory://middle", man.take)
    try:
        yield Address.direct(listener.peer, "memory://middle"), man
    finally:
        await door.close()
