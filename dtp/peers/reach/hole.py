"""Dialling through a hole: where a relay has seen the peer, and from where its packets really come.

A NAT that shows everybody another port makes the relay's word useless. But what the peer sends to open its NAT comes
from the port that it has for us, if ours lets it in: so that one is dialled as well, and the first to answer stays.
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

    It is dialled at once, which is enough where its NAT lets everybody in, and once more when the NAT is known to be
    open: QUIC alone would say its first packet again much later.
    """

    def __init__(self, endpoint: QuicEndpoint, place: tuple[str, int]) -> None:
        self._endpoint = endpoint
        self._place = place
        self._tasks: dict[tuple[str, int], asyncio.Task[QuicCarrier]] = {}
        self._again: asyncio.Task[QuicCarrier] | None = None
        self._changed = asyncio.Event()
        self._is_over = False

    def on_packet(self, address: tuple[Any, ...]) -> None:
        """Process a packet that opens a NAT: from another port of the host, it shows where we reach the peer."""
        if address[:2] == self._place:
            self.on_opened()
        elif address[0] == self._place[0] and len(self._tasks) <= MOST_PORTS:
            self._try_place((str(address[0]), int(address[1])))

    def on_opened(self) -> None:
        """Dial once more, now that the peer's NAT is open: the first packet was lost there."""
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
        """Return the first carrier that is established, not started. `DialError`; cancel it to give up."""
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
        """End what is not the answer, and dial nobody any more: packets may come meanwhile. Nothing is waited for:
        who gave up while that went on would never have the answer."""
        self._is_over = True
        for task in self._all:
            if task is not answer:
                task.cancel()
                task.add_done_callback(_end_carrier)


def _end_carrier(task: asyncio.Task[QuicCarrier]) -> None:
    """End what came of a dial that was given up, if anything did."""
    if not task.cancelled() and task.exception() is None:
        task.result().abort()
