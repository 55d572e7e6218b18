"""Calls to a node as tasks of their own.

When a connection ends, grpclib cancels whichever task has a call under way: once for the node's GOAWAY, once more for
the connection's end. That is to hit nothing but the call. Whoever waits for it gets an error, and is cancelled only
by its own owner."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, TypeVar

from dtp.chain.errors import NodeRefused, NodeUnavailable
from dtp.tasks import start_task

T = TypeVar("T")

log = logging.getLogger("dtp.chain")

#: Messages of a stream that are read before anybody takes them. The rest waits at the node.
_AHEAD: Final = 64


class NodeCalls:
    """Makes calls to the node at `url`, each as a task of its own, and tells once of a silence until it answers."""

    def __init__(self, url: str, patience: float) -> None:
        """`patience` is the seconds of a call after which it is said what is waited for."""
        self._url, self._patience = url, patience
        self._is_silent = False

    async def make_call(self, call: Coroutine[Any, Any, T]) -> T:
        """Return what a call gives, or raise what it raises; `NodeUnavailable` when a library has cancelled it.

        When the caller is cancelled, so is the call.
        """
        task = start_task(call, name="dtp-node-call")
        try:
            if not (await asyncio.wait([task], timeout=self._patience))[0]:
                self._tell_silence()
                await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # nobody wants it any more; unasked, asyncio would write it into the log
            raise
        try:
            answer = _result(task, self._url)
        except NodeRefused:  # which is an answer, too
            self._is_silent = False
            raise
        self._is_silent = False
        return answer

    def _tell_silence(self) -> None:
        if not self._is_silent:
            self._is_silent = True
            log.warning("%s has not answered for %g s; waiting for it", self._url, self._patience)


def _result(task: asyncio.Task[T], url: str) -> T:
    if task.cancelled():
        raise NodeUnavailable(f"no answer from {url}: the connection ended")
    return task.result()


@asynccontextmanager
async def messages_apart(
    source: Callable[[], AsyncGenerator[T, None]], url: str
) -> AsyncIterator[AsyncIterator[T]]:
    """Give the messages of `source`, which a task of its own reads. Errors are those of
    `NodeCalls.make_call`. Leaving the block ends the task."""
    waiting: deque[T] = deque()
    news, room = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        async with aclosing(source()) as messages:
            async for message in messages:
                waiting.append(message)
                news.set()
                while len(waiting) >= _AHEAD:
                    room.clear()
                    await room.wait()

    async def given() -> AsyncIterator[T]:
        while True:
            while not waiting and not task.done():
                news.clear()
                await news.wait()
            if not waiting:
                _result(task, url)
                return
            message = waiting.popleft()
            room.set()
            yield message

    task = start_task(read(), name="dtp-node-stream")
    task.add_done_callback(lambda _: news.set())
    try:
        yield given()
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # nobody waits for more of it
