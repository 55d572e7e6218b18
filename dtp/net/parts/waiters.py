"""Who waits for something to change, by what that is."""

from __future__ import annotations

import asyncio


class Waiters:
    """Futures of those that wait. Each is woken once, looks again, and waits anew if it has to."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    async def wait_for(self, what: str) -> None:
        """Wait until `wake_for` is called for the same."""
        future = self._loop.create_future()
        self._waiting.setdefault(what, []).append(future)
        try:
            await future
        finally:
            waiting = self._waiting.get(what)
            if waiting is not None and future in waiting:
                waiting.remove(future)

    def wake_for(self, what: str) -> None:
        """Wake all that wait for it."""
        for future in self._waiting.pop(what, ()):
            if not future.done():
                future.set_result(None)

    def wake_all(self, *, but: str) -> None:
        """Wake all that wait for anything but this."""
        for what in list(self._waiting):
            if what != but:
                self.wake_for(what)
