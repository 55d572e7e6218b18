"""What goes on air: commands that are started and ended for it, and leave nothing behind."""

import asyncio
import contextlib
import gc
import sys

from shows import run

from dtp.broadcast.cutting import cutter_of
from dtp.broadcast.errors import OffAir
from dtp.broadcast.source import Source

#: Writes for as long as anybody reads.
ENDLESS = (sys.executable, "-c", "while True: print('word' * 1000)")


def test_a_command_that_is_ended_in_the_middle_leaves_no_pipe_open():
    async def test():
        with contextlib.suppress(OffAir):
            async with Source(cutter_of("lines", 1.0), ENDLESS).iter_cuts() as cuts:
                assert await anext(cuts)
                await asyncio.sleep(0.1)  # the pipe is full, and reading it is paused
                raise OffAir("nobody pays any more")

    run(test())
    gc.collect()  # a pipe that was left open would be complained of now, which fails the test
