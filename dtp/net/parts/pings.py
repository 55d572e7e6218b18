"""Round trips to the peer that are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dtp.session.session import Session


class Pings:
    """Each has a token of the session's, which comes back with the time that it took."""

    __slots__ = ("_loop", "_session", "_waiting")

    def __init__(self, session: Session, loop: asyncio.AbstractEventLoop) -> None:
        self._session, self._loop = session, loop
        self._waiting: dict[int, asyncio.Future[float]] = {}

    async def send_ping(self, outgoing: Callable[[], object]) -> float:
        """Return the seconds to the peer and back; `outgoing` is called when there is something to send."""
        token = self._session.send_ping(self._loop.time())
        future: asyncio.Future[float] = self._loop.create_future()
        self._waiting[token] = future
        outgoing()
        try:
            return await future
        finally:
            self._waiting.pop(token, None)

    def note_pong(self, token: int, seconds: float) -> None:
        """Note that a ping has come back."""
        future = self._waiting.get(token)
        if future is not None and not future.done():
            future.set_result(seconds)

    def fail_all(self, error: Exception) -> None:
        """None of them will come back."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)
