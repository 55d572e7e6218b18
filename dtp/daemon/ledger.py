"""What a service or a forward has open, and what it has moved so far."""

from __future__ import annotations

import asyncio
from collections.abc import Set
from typing import Any, Protocol

from dtp.daemon.reasons import Reason
from dtp.daemon.relay import Counts
from dtp.net.stream import Stream


class Session(Protocol):
    """A stream at work: a relay, or one that speaks a protocol."""

    stream: Stream
    counts: Counts
    #: Why it ended before its time, in words; "" for an orderly end.
    why: str
    ended: bool

    @property
    def kept(self) -> int:
        """Bytes that were read from the stream, or from its backend, and wait here for what comes behind them."""

    def abort(self, reason: Reason) -> None:
        """End it now. Idempotent."""

    def finish(self) -> None:
        """The daemon is about to end: take up nothing new. What is under way may be finished."""


class Ledger:
    """Open sessions and the sums over those that have ended. Bytes: `sent` into streams, `received` out of them."""

    def __init__(self) -> None:
        self.open: set[Session] = set()
        #: Streams so far, and those of them that were refused or broke off.
        self.streams = 0
        self.failed = 0
        self._sent = self._received = 0
        self._finishing = False
        self._empty = asyncio.Event()
        self._empty.set()

    def add(self, session: Session) -> None:
        """A session has begun; after `finish` it takes up nothing but what it was asked by now."""
        if not session.ended:
            if not self.open:
                self._empty.clear()
            self.open.add(session)
            if self._finishing:
                session.finish()

    def ended(self, session: Session) -> None:
        """A session is over, also one that never began."""
        self._sent += session.counts.sent
        self._received += session.counts.received
        self.failed += bool(session.why)
        self.open.discard(session)
        if not self.open:
            self._empty.set()

    async def wait_empty(self, coming: Set[asyncio.Task[None]] = frozenset()) -> None:
        """Until nothing is open, and none of the tasks in `coming` is left, which may open something yet."""
        while coming:
            await asyncio.wait(coming)
            await asyncio.sleep(0)  # for what takes them out
        await self._empty.wait()

    def finish(self) -> None:
        """Let what is open, and what was let in and begins yet, take up nothing new."""
        self._finishing = True
        for session in list(self.open):
            session.finish()

    def abort(self, reason: Reason) -> None:
        """End all that is open, now."""
        for session in list(self.open):
            session.abort(reason)

    @property
    def sent(self) -> int:
        """Bytes from sockets here into streams, up to now."""
        return self._sent + sum(session.counts.sent for session in self.open)

    @property
    def received(self) -> int:
        """Bytes from streams into sockets here, up to now."""
        return self._received + sum(session.counts.received for session in self.open)

    def status(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "open": len(self.open),
            "streams": self.streams,
            "failed": self.failed,
            "sent": self.sent,
            "received": self.received,
        }
