"""What goes on air: commands that are started and ended for it, and leave nothing behind."""

import asyncio
import contextlib
import gc
import os
import sys

import pytest
from shows import run, until

from dtp.broadcast.cutting import cutter_of
from dtp.broadcast.errors import OffAir
from dtp.broadcast.source import Source

#: Writes for as long as anybody reads.
ENDLESS = (sys.executable, "-c", "while True: print('word' * 1000)")

#: Says which process it is, and doesn't end when it is told to.
STUBBORN = ("sh", "-c", "trap '' TERM; echo $$; exec sleep 1000")


def is_running(process: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, 0)
        return True
    return False


@pytest.mark.slow
def test_a_command_that_is_ended_in_the_middle_leaves_no_pipe_open():
    async def test():
        with contextlib.suppress(OffAir):
            async with Source(cutter_of("lines", 1.0), ENDLESS).iter_cuts() as cuts:
                assert await anext(cuts)
                await asyncio.sleep(0.1)  # the pipe is full, and reading it is paused
                raise OffAir("nobody pays any more")

    run(test())
    gc.collect()  # a pipe that was left open would be complained of now, which fails the test


@pytest.mark.slow
def test_a_command_that_does_not_end_is_killed_where_nobody_waits_for_it():
    """A daemon that is ended twice, as in an upgrade, left it running, and its pipe open."""

    async def main():
        began, ids = asyncio.Event(), list[int]()

        async def listen():
            async with Source(cutter_of("lines", 1.0), STUBBORN).iter_cuts() as cuts:
                async for cut in cuts:
                    ids.append(int(cut.data))
                    began.set()

        task = asyncio.ensure_future(listen())
        await began.wait()
        task.cancel()
        for _ in range(3):  # it waits for the command to end by itself
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not is_running(ids[0]))

    run(main())
    gc.collect()
