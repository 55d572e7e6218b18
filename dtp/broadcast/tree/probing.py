"""Asks neighbours what they have, before one is chosen and while another is used."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from dtp.broadcast import frames
from dtp.broadcast import messages as m
from dtp.broadcast.fetching import Dial, open_ask_stream
from dtp.broadcast.format import Segment
from dtp.broadcast.held import ShowProgress
from dtp.broadcast.newest import ShowStreams
from dtp.broadcast.parents import Parents, Patience
from dtp.broadcast.tree.comparing import Measured, Probe
from dtp.carriers.nearness import Nearness
from dtp.errors import CarrierError, DtpError
from dtp.identity import PeerId
from dtp.net.connection import Connection
from dtp.tasks import start_task

log = logging.getLogger("dtp.broadcast")

#: Seconds that compared neighbours have after the first has answered. At the start given ones have more
#: (`Patience.silence`): a neighbour with an older stream of the show must not win by being faster than the producer.
_SLOWER: Final = 0.25


class Prober:
    """Asks neighbours what they have, and notes the answers in `parents` and `streams`."""

    def __init__(
        self,
        me: PeerId,
        dial: Dial,
        parents: Parents,
        streams: ShowStreams,
        progress: ShowProgress,
        patience: Patience,
        serving: Callable[[], Sequence[str]],
    ) -> None:
        """`serving` returns the addresses at which this side serves others."""
        self._me, self._dial, self._serving = me, dial, serving
        self._parents, self._streams, self._progress = parents, streams, progress
        self._patience = patience
        #: Why the last neighbour couldn't be measured.
        self.why: DtpError | None = None

    def note_failed(self, address: str) -> None:
        """Note that a neighbour can't be reached, or has ended."""
        self._parents.note_failed(address, asyncio.get_running_loop().time())

    def learn_others(self, others: Sequence[str], teller: Connection | None) -> None:
        """Add the addresses that a neighbour has reported."""
        if teller is not None:
            self._parents.learn_addresses(others, Nearness.of_source(teller.source))

    async def measure_all(self, addresses: list[str], stack: AsyncExitStack) -> dict[str, Measured]:
        """Measure all of these, and return those that can be used, with connections that last until `stack` ends.

        Neighbours that answer much later than the first aren't waited for. At the start the given ones only say
        which stream they have, beside the one that is used.
        """
        chosen = asyncio.Event()
        tasks = {
            start_task(self._measure_one(each, chosen), name="dtp-show-measure"): each for each in addresses
        }
        stack.push_async_callback(_end_measuring, list(tasks))
        stack.callback(chosen.set)
        pending = set(tasks)
        timeout: float | None = None
        while pending:
            done, pending = await asyncio.wait(pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            given = [
                each
                for each in pending
                if self._progress.held is None and self._parents.is_given(tasks[each])
            ]
            if not done:
                break
            if any(has is not None and has.probe.number >= 0 for has in (each.result() for each in done)):
                timeout = self._patience.silence if given else _SLOWER
        chosen.set()
        for each in pending.difference(given):
            each.cancel()
        results = ((address, each.result()) for each, address in tasks.items() if each not in pending)
        return {address: measured for address, measured in results if measured is not None}

    async def _measure_one(self, address: str, chosen: asyncio.Event) -> Measured | None:
        """Have `address` send its newest segment, and note how fast it came. Return what it sent, or None if it
        can't be used.

        Its connection is left open, unless another one was chosen meanwhile. Only a newer announcement and the time
        of its segment are believed, which are signed: a neighbour that lies is detected as soon as it is used.
        """
        loop = asyncio.get_running_loop()
        began, probe = loop.time(), Probe()
        connection: Connection | None = None
        dialled: Connection | None = None
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._patience.answer):
                    dialled = await stack.enter_async_context(self._dial(address))
                    hello = m.Hello(count=1, addresses=tuple(self._serving()))
                    async with open_ask_stream(dialled, hello) as stream:
                        while (
                            not probe.done
                            and not (chosen.is_set() and probe.announcement)
                            and (message := await frames.read(stream)) is not None
                        ):
                            if isinstance(message, m.Announced):
                                probe.announcement = self._streams.note_announced(
                                    message.data, address, dialled.peer
                                )
                            probe.take_message(message)
                connection = dialled
            except TimeoutError:
                if not probe.answered:
                    self.note_failed(address)
                    self.why = CarrierError(f"{address}: no answer")
            except (DtpError, OSError) as fault:
                log.info("%s can't be measured: %s", address, fault)
                self.note_failed(address)
                self.why = fault if isinstance(fault, DtpError) else CarrierError(f"{address}: {fault}")
                return None
            self.learn_others(probe.others, dialled)
            if not probe.room or self._me in probe.path:
                self._parents.note_full(address, loop.time())
            if probe.done:
                self._parents.note_rate(address, probe.size / max(loop.time() - began, 1e-6))
            if connection is None or chosen.is_set():
                return None
            return Measured(connection, probe, stack.pop_all())

    async def ask_for(self, address: str, number: int) -> tuple[bool, bool, float]:
        """Return whether `address` says that it has segment `number` or a later one, whether it gets the show from
        the producer and not through this side, and how many seconds it took."""
        hears, loop = False, asyncio.get_running_loop()
        began = loop.time()
        try:
            async with (
                asyncio.timeout(self._patience.answer),
                self._dial(address) as connection,
                open_ask_stream(connection, m.Hello(number, count=1, heads=True)) as stream,
            ):
                while (message := await frames.read(stream)) is not None:
                    match message:
                        case m.Announced(data):
                            self._streams.note_announced(data, address, connection.peer)
                        case m.SenderState(path, others, _):
                            self.learn_others(others, connection)
                            hears = self._progress.is_from_producer(path) and self._me not in path
                        case m.Manifest(data):
                            if Segment.decode(data).number >= number:
                                return True, hears, loop.time() - began
                        case m.Gap():  # it has already dropped that
                            return True, hears, loop.time() - began
        except (DtpError, OSError, TimeoutError) as fault:
            log.info("%s doesn't say what it has: %s", address, fault or "no answer")
            self.note_failed(address)
        return False, hears, loop.time() - began

    async def ask_newest(self, address: str) -> Probe:
        """Ask which stream a neighbour has, and how new its newest segment is; return what it sent."""
        probe = Probe()
        try:
            async with (
                asyncio.timeout(self._patience.answer),
                self._dial(address) as connection,
                open_ask_stream(connection, m.Hello(count=1, heads=True)) as stream,
            ):
                while not probe.time_ms and (message := await frames.read(stream)) is not None:
                    if isinstance(message, m.Announced):
                        probe.announcement = self._streams.note_announced(
                            message.data, address, connection.peer
                        )
                    probe.take_message(message)
        except (DtpError, OSError, TimeoutError) as fault:
            log.info("%s doesn't say which stream it has: %s", address, fault or "no answer")
        return probe


async def _end_measuring(tasks: Sequence[asyncio.Task[Measured | None]]) -> None:
    """Cancel these tasks, and close the connections that they have made."""
    for each in tasks:
        each.cancel()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(found, Measured):
            await found.stack.aclose()
