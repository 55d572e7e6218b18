"""What goes on air: standard input, or what a command writes that is started for it; and only while it is on air."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from dtp.broadcast.cutting import Cut, Cutter
from dtp.broadcast.errors import OffAir
from dtp.broadcast.money.air import Air
from dtp.broadcast.producing import Broadcast
from dtp.cli.cat import InputError
from dtp.cli.output import print_line
from dtp.tasks import start_task

#: Bytes of the input that are read at once.
_READ = 256 * 1024
#: ... and how often, before they are taken.
_AHEAD = 4
#: Seconds between two looks whether a segment is due.
_TICK = 0.1
#: Seconds that a command has to end in.
_GRACE = 5.0


class Source:
    """Where segments come from. `cuts` may be had again and again, while the show goes on and off air."""

    def __init__(self, cutter: Callable[[], Cutter], command: str | None) -> None:
        """Raise `InputError` for a command that can't be meant."""
        self._make, self._stdin = cutter, None if command else _Stdin()
        self._cutter: Cutter | None = None
        try:
            self._command = shlex.split(command or "")
        except ValueError as fault:
            raise InputError(f"--command {command}: {fault}") from fault
        #: True when the input is over: there is nothing more to send.
        self.ended = False

    @asynccontextmanager
    async def cuts(self) -> AsyncIterator[AsyncIterator[Cut]]:
        """Give segments until the input is over. A command is started here, and ended at the end."""
        if self._stdin is not None:
            self._cutter = self._cutter or self._make()  # what was begun goes on
            yield self._cut(self._cutter, self._stdin.read)
            return
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
            )
        except OSError as fault:
            raise InputError(f"can't run {self._command[0]}: {fault.strerror}") from fault
        output = process.stdout
        assert output is not None
        try:
            yield self._cut(self._make(), lambda: output.read(_READ))
            if await process.wait() != 0:
                raise InputError(f"{self._command[0]} has ended with status {process.returncode}")
        finally:
            await _end(process)

    async def _cut(self, cutter: Cutter, read: Callable[[], Awaitable[bytes]]) -> AsyncIterator[Cut]:
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


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process; one that doesn't want to is killed."""
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


class _Stdin:
    """Standard input. A daemon thread reads it, a little ahead: a read that blocks can't be interrupted."""

    def __init__(self) -> None:
        self._read: asyncio.Queue[bytes | OSError] = asyncio.Queue(_AHEAD)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def read(self) -> bytes:
        """Return what comes next, b"" at the end. Raise `InputError`."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            threading.Thread(target=self._work, name="dtp-stdin", daemon=True).start()
        data = await self._read.get()
        if isinstance(data, OSError):
            raise InputError(f"can't read the input: {data.strerror}") from data
        return data

    def _work(self) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended
            while True:
                try:
                    data: bytes | OSError = os.read(sys.stdin.fileno(), _READ)
                except OSError as fault:
                    data = fault
                asyncio.run_coroutine_threadsafe(self._read.put(data), self._loop).result()
                if not data or isinstance(data, OSError):
                    return


async def send_while_on_air(on_air: Broadcast, source: Source) -> None:
    """Send for as long as the show is on air, until the input is over or the show has ended. What happens is told."""
    pump: asyncio.Task[None] | None = None
    changes: asyncio.Queue[Air] = asyncio.Queue()
    following = start_task(_follow(on_air, changes), name="dtp-show-states")
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


async def _follow(on_air: Broadcast, changes: asyncio.Queue[Air]) -> None:
    async for air in on_air.states():
        if on_air.keeper is not None:
            record = {"event": "air", "air": str(air), "next_slot": on_air.next_slot}
            print_line(record, f"-- {air}", err=True)
        changes.put_nowait(air)


async def _pump(on_air: Broadcast, source: Source) -> None:
    with contextlib.suppress(OffAir):  # it went off meanwhile, which `states` says as well
        async with source.cuts() as cuts:
            async for each in cuts:
                await on_air.write(each.data, duration_ms=each.duration_ms, flags=each.flags)
