"""One event loop in a background thread, for blocking callers: started at first use, forgotten by forked children."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Protocol, TypeVar

from dtp.errors import DtpError, LocalError
from dtp.net.connection import LINGER

T = TypeVar("T")


class LoopGone(LocalError):
    """The thread that served this socket does not exist here: this process was forked from the one that opened it,
    or is about to end. Open sockets after the fork."""

    code: ClassVar[str] = "loop-gone"


class TimedOut(DtpError, TimeoutError):
    """A blocking call took longer than the timeout that was set; it can be repeated."""

    code: ClassVar[str] = "timed-out"


class Lasting(Protocol):
    """What has to be brought to an end before the process ends. Used in the loop's thread only."""

    def finish(self) -> asyncio.Future[None]:
        """Begin the end; the future is done when nothing is left to deliver."""


class LoopThread:
    """A running event loop and its thread, a daemon. Ends by `finish`, which the interpreter's exit calls."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        #: False in a forked child and once the process ends.
        self.alive = True
        #: What is finished at exit. Touched in the loop's thread only.
        self.lasting: set[Lasting] = set()
        self._thread = threading.Thread(target=self._run_forever, name="dtp-loop", daemon=True)
        self._thread.start()

    def _run_forever(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def check_running(self) -> None:
        """Raise `LoopGone`, or `LocalError` in the loop's own thread, where blocking would be for ever."""
        if not self.alive:
            raise LoopGone(
                "this socket was opened before a fork or outlived its process's loop; open another one"
            )
        if threading.get_ident() == self._thread.ident:
            raise LocalError("a blocking call in the event loop's own thread would wait for itself")

    def call_in_loop(self, callback: Callable[..., object], *args: object) -> None:
        """Have `callback(*args)` called in the loop's thread. Raise `LoopGone`."""
        if not self.alive:
            raise LoopGone(
                "this socket was opened before a fork or outlived its process's loop; open another one"
            )
        self.loop.call_soon_threadsafe(callback, *args)

    def run_coroutine(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run `coroutine` in the loop and give its result. `TimedOut` after `timeout` seconds: it is cancelled."""
        self.check_running()
        future = asyncio.run_coroutine_threadsafe(_limited(coroutine, timeout), self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def finish(self) -> None:
        """Deliver what was written, for at most 5 s, end everything and the thread."""
        if self.alive:
            with contextlib.suppress(TimedOut):
                self.run_coroutine(self._finish_all(), LINGER)
            self.run_coroutine(_cancel_all())
            self.alive = False
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()

    async def _finish_all(self) -> None:
        ends = [each.finish() for each in list(self.lasting)]
        if ends:
            await asyncio.wait(ends)


async def _cancel_all() -> None:
    """End what still runs (listeners, connections that wait to be resumed) as at the end of `asyncio.run`."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _limited(coroutine: Coroutine[Any, Any, T], seconds: float | None) -> T:
    """Return the timeout runs in the loop, so that what came about just in time is never lost on the way."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await coroutine
    except TimeoutError:
        if limit.expired():
            raise TimedOut(f"no result in {seconds:g} s") from None
        raise


_lock = threading.Lock()
_shared: LoopThread | None = None
#: Loops of the parent process: kept, because their destructors would take sockets out of the parent's epoll.
_abandoned: list[LoopThread] = []


def shared() -> LoopThread:
    """Return the one that all blocking sockets of this process use."""
    global _shared
    with _lock:
        if _shared is None or not _shared.alive:
            _shared = LoopThread()
            atexit.register(_shared.finish)
        return _shared


def _forget_parents() -> None:
    global _shared, _lock
    _lock = threading.Lock()
    if _shared is not None:
        _shared.alive = False
        _abandoned.append(_shared)
        _shared = None


os.register_at_fork(after_in_child=_forget_parents)
