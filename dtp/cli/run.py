"""Running a command's coroutine: Ctrl-C and SIGTERM cancel it, so that all is left in order."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click

from dtp.cli.output import EXIT_TERMINATED

_T = TypeVar("_T")


#: Objects more than were freed between two collections. Where as much ends as begins, each goes through several times
#: as many.
_YOUNG_OBJECTS = 250
#: Collections of the youngest between two of what outlived one of them.
_MIDDLE_COLLECTIONS = 1
#: Collections of all but the oldest objects between two full ones, at least: 900,000 objects more than were freed.
_FULL_COLLECTIONS = 1200


def serve_for_long() -> None:
    """Let the collector of cycles leave out what is there by now, mostly modules: a full collection goes through all
    objects, 30 ms for these alone, in which nobody is served, and strangers can have it begin often.

    Of what comes later it goes through all, too: 10 to 20 ms for 2,000 streams that are open. What is to be collected
    is mostly found by the collections of what is young, so full ones come a tenth as often. Those of what is younger
    go through a tenth as much each, and come as much more often, for no more in all: by default, and with a third,
    they took up to 14 ms of a turn under many requests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, _MIDDLE_COLLECTIONS, _FULL_COLLECTIONS)


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run `main` to its end and give its result.

    Ctrl-C cancels it and raises `KeyboardInterrupt`, which becomes exit code 130; SIGTERM cancels it and exits
    with 143.
    """
    terminated = False

    async def supervise() -> _T:
        task = asyncio.current_task()
        assert task is not None

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await main

    try:
        return asyncio.run(supervise())
    except asyncio.CancelledError:
        if terminated:
            click.get_current_context().exit(EXIT_TERMINATED)
        raise


def when_stdin_ends(call: Callable[[], object]) -> None:
    """Call `call` on the running event loop when standard input has ended; what comes before is thrown away."""
    loop = asyncio.get_running_loop()

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        loop.call_soon_threadsafe(call)

    # A thread of its own, since a read can't be interrupted and must not hold up the end of the program.
    threading.Thread(target=watch, name="dtp-stdin", daemon=True).start()
