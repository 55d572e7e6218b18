"""What goes on air, cut into segments: what is read, or what a command writes that is started for it."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import DEVNULL, PIPE, Process, SubprocessStreamProtocol
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import ClassVar

from dtp.broadcast.cutting import Cut, Cutter
from dtp.broadcast.errors import OffAir
from dtp.broadcast.money.air import Air
from dtp.broadcast.producing import Broadcast
from dtp.errors import LocalError
from dtp.tasks import start_task

#: Bytes of the input that are read at once.
READ = 256 * 1024
#: Seconds between two checks whether a segment is due.
_TICK = 0.1
#: Seconds that a command has to end in.
_GRACE = 5.0


class SourceFailed(LocalError):
    """The command that a show comes from can't be run, or has failed."""

    code: ClassVar[str] = "show-source"


class Source:
    """Where segments come from. `iter_cuts` may be called again each time the show goes on air."""

    def __init__(
        self,
        cutter: Callable[[], Cutter],
        command: Sequence[str] = (),
        read: Callable[[], Awaitable[bytes]] | None = None,
    ) -> None:
        """Give a `command`, or `read`, which returns what comes next and b"" at the end."""
        self._make, self._command, self._read = cutter, command, read
        self._cutter: Cutter | None = None
        #: True when the input is over: there is nothing more to send.
        self.ended = False

    @asynccontextmanager
    async def iter_cuts(self) -> AsyncIterator[AsyncIterator[Cut]]:
        """Give segments until the input is over. A command is started here, and ended at the end.

        Raise `SourceFailed` for a command that can't be run, or ends with a status other than 0.
        """
        if self._read is not None:
            self._cutter = self._cutter or self._make()  # what was begun goes on
            yield self._cut_input(self._cutter, self._read)
            return
        loop = asyncio.get_running_loop()
        try:  # as `create_subprocess_exec` does, which keeps the transport, and with it the pipe, for itself
            transport, protocol = await loop.subprocess_exec(
                partial(SubprocessStreamProtocol, READ, loop), *self._command, stdin=DEVNULL, stdout=PIPE
            )
        except OSError as fault:
            raise SourceFailed(f"can't run {self._command[0]}: {fault.strerror}") from fault
        process = Process(transport, protocol, loop)
        output = process.stdout
        assert output is not None
        try:
            yield self._cut_input(self._make(), lambda: output.read(READ))
            if await process.wait() != 0:
                raise SourceFailed(f"{self._command[0]} has ended with status {process.returncode}")
        finally:
            try:
                await _end(process)
                await _drain(output)
            finally:  # also where nobody waits for its end: what still runs is killed
                transport.close()

    async def _cut_input(self, cutter: Cutter, read: Callable[[], Awaitable[bytes]]) -> AsyncIterator[Cut]:
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(_TICK):
                    data = await read()
            except TimeoutError:
                made = cutter.tick(loop.time())
            else:
                if not data:
                    break
                made = cutter.feed(data, loop.time())
            for each in made:
                yield each
        self.ended = True
        for each in cutter.finish(loop.time()):
            yield each


async def _end(process: Process) -> None:
    """End a process; kill it if it doesn't end in time."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            async with asyncio.timeout(_GRACE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _drain(output: asyncio.StreamReader) -> None:
    """Read what a process has left in its pipe, which is closed then. Give up on one that others hold open."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GRACE):
            while await output.read(READ):
                pass


async def send_while_on_air(on_air: Broadcast, source: Source, tell: Callable[[Air], object]) -> None:
    """Send for as long as the show is on air, until the input is over or the show has ended.

    `tell` is called with how it stands, at each change.
    """
    pump: asyncio.Task[None] | None = None
    changes: asyncio.Queue[Air] = asyncio.Queue()
    following = start_task(_follow(on_air, changes, tell), name="dtp-show-states")
    try:
        while not source.ended:
            change = start_task(changes.get(), name="dtp-show-change")
            try:
                await asyncio.wait(
                    {each for each in (pump, change) if each is not None}, return_when=asyncio.FIRST_COMPLETED
                )
                if pump is not None and pump.done():
                    await pump
                    pump = None
                if not change.done():
                    continue
                air = change.result()
            finally:
                change.cancel()
            if air == Air.ENDED:
                return
            if air == Air.ON_AIR:
                pump = pump or start_task(_pump(on_air, source), name="dtp-show-pump")
            else:
                await _stop(pump)
                pump = None
    finally:
        await _stop(pump)
        await _stop(following)


async def _stop(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _follow(on_air: Broadcast, changes: asyncio.Queue[Air], tell: Callable[[Air], object]) -> None:
    async for air in on_air.states():
        tell(air)
        changes.put_nowait(air)


async def _pump(on_air: Broadcast, source: Source) -> None:
    with contextlib.suppress(OffAir):  # it went off meanwhile, which `states` says as well
        async with source.iter_cuts() as cuts:
            async for each in cuts:
                await on_air.write(each.data, duration_ms=each.duration_ms, flags=each.flags)
