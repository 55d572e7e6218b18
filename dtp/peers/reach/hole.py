"""Dialling through a hole: the address at which a relay has seen the peer, and those that its packets come from.

If a NAT uses another port for each destination, the relay's information is useless. But the packets that the peer
sends to open its NAT come from the port that it has for us, if our NAT lets them in. So that port is dialled as
well, and the first to answer is used.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from dtp.carriers.errors import DialError
from dtp.carriers.url import format_host
from dtp.tasks import start_task

if TYPE_CHECKING:
    from dtp.carriers.quic.carrier import QuicCarrier
    from dtp.carriers.quic.endpoint import QuicEndpoint

#: Ports of the peer that are tried besides the one that the relay has seen.
MOST_PORTS: Final = 3


class Hole:
    """One attempt to dial a peer at `place`, the host and port that a relay has seen.

    It is dialled at once, which is enough if its NAT lets everybody in, and again when the NAT is known to be open:
    QUIC itself would repeat its first packet much later.
    """

    def __init__(self, endpoint: QuicEndpoint, place: tuple[str, int]) -> None:
        self._endpoint = endpoint
        self._place = place
        self._tasks: dict[tuple[str, int], asyncio.Task[QuicCarrier]] = {}
        self._again: asyncio.Task[QuicCarrier] | None = None
        self._changed = asyncio.Event()
        self._is_over = False

    def on_packet(self, address: tuple[Any, ...]) -> None:
        """Process a packet that opens a NAT. If it comes from another port of the host, that is where the peer can
        be reached.
        """
        if address[:2] == self._place:
            self.on_opened()
        elif address[0] == self._place[0] and len(self._tasks) <= MOST_PORTS:
            self._try_place((str(address[0]), int(address[1])))

    def on_opened(self) -> None:
        """Dial again, now that the peer's NAT is open: it has dropped the first packet."""
        if self._tasks and self._again is None and not self._is_over:
            self._again = self._start_dial(self._place)

    def _try_place(self, place: tuple[str, int]) -> None:
        if place not in self._tasks and not self._is_over:
            self._tasks[place] = self._start_dial(place)

    def _start_dial(self, place: tuple[str, int]) -> asyncio.Task[QuicCarrier]:
        self._changed.set()
        return start_task(self._endpoint.dial(place, f"quic://{format_host(*place)}"), name="dtp-hole")

    @property
    def _all(self) -> list[asyncio.Task[QuicCarrier]]:
        return [*self._tasks.values(), *([] if self._again is None else [self._again])]

    async def dial(self) -> QuicCarrier:
        """Return the first carrier that is established, not started yet. Raise `DialError`. Cancel this to
        give up.
        """
        self._try_place(self._place)
        changing: asyncio.Task[bool] | None = None
        found: asyncio.Task[QuicCarrier] | None = None
        try:
            while found is None:
                self._changed.clear()
                changing = start_task(self._changed.wait(), name="dtp-hole-heard")
                await asyncio.wait({changing, *self._all}, return_when=asyncio.FIRST_COMPLETED)
                changing.cancel()
                found = next((task for task in self._all if task.done() and task.exception() is None), None)
                if found is None and all(task.done() for task in self._all):
                    raise DialError("nobody has answered through the hole")
        finally:
            if changing is not None:
                changing.cancel()
            self._give_up(found)
        return found.result()

    def _give_up(self, answer: asyncio.Task[QuicCarrier] | None) -> None:
        """Cancel all dials except the answer, and start no more when packets come. This doesn't wait: if the caller
        were cancelled meanwhile, the answer would be lost.
        """
        self._is_over = True
        for task in self._all:
            if task is not answer:
                task.cancel()
                task.add_done_callback(_end_carrier)


def _end_carrier(task: asyncio.Task[QuicCarrier]) -> None:
    """Abort the carrier of a cancelled dial, if there is one."""
    if not task.cancelled() and task.exception() is None:
        task.result().abort()
