"""What a service or a forward has open, and what it has moved so far."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dtp.daemon.reasons import Reason
from dtp.daemon.relays.relay import Counts
from dtp.net.stream import Stream

if TYPE_CHECKING:
    from dtp.daemon.relays.expose import Exposed
    from dtp.net.connection import Connection

#: Seconds that a client of HTTP who asks nothing has yet, so that its last request is answered and says so. Clients
#: that ask all the time are told with their next answer.
LAST_REQUEST = 5.0


@dataclass(frozen=True, slots=True)
class Ending:
    """How a session ends that takes up nothing new: its daemon ends, or its service has another in its place."""

    #: Seconds in which an idle client may still ask for something, and hears with the answer that it is the last.
    #: Who closes at once cuts off what was asked just then.
    patience: float = 0.0
    #: What serves a connection from now on, so that its sessions can go on there; None where they have to end.
    successor: Callable[[Connection], Exposed | None] | None = None


class ServedSession(Protocol):
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

    def finish(self, end: Ending) -> None:
        """Take up nothing new, except as `end` says. What is under way may be finished."""


class SessionLedger:
    """Open sessions and the sums over those that have ended. Bytes: `sent` into streams, `received` out of them."""

    def __init__(self) -> None:
        self.open: set[ServedSession] = set()
        #: Streams so far, and those of them that were refused or broke off.
        self.streams = 0
        self.failed = 0
        self._sent = self._received = 0
        self._end: Ending | None = None
        self._empty = asyncio.Event()
        self._empty.set()
        #: Set when a session has ended.
        self._left = asyncio.Event()

    def add_session(self, session: ServedSession) -> None:
        """Note that a session has begun; after `finish_sessions` it takes up nothing but what it was asked by now."""
        if not session.ended:
            if not self.open:
                self._empty.clear()
            self.open.add(session)
            if self._end is not None:
                session.finish(self._end)

    def leave_session(self, session: ServedSession) -> None:
        """Let a session go that goes on elsewhere; what it has moved here stays in the sums."""
        self._sent += session.counts.sent
        self._received += session.counts.received
        self.open.discard(session)
        self._left.set()
        if not self.open:
            self._empty.set()

    def end_session(self, session: ServedSession) -> None:
        """Note that a session is over, also one that never began."""
        self.failed += bool(session.why)
        self.leave_session(session)

    async def wait_empty(self, coming: Set[asyncio.Task[None]] = frozenset()) -> None:
        """Wait until nothing is open, and none of the tasks in `coming` is left, which may open something yet."""
        while coming:
            await asyncio.wait(coming)
            await asyncio.sleep(0)  # for what takes them out
        await self._empty.wait()

    async def wait_without(self, connections: Collection[Connection]) -> None:
        """Wait until no stream of these is open."""
        while any(session.stream.connection in connections for session in self.open):
            self._left.clear()
            await self._left.wait()

    def finish_sessions(self, end: Ending) -> None:
        """Let what is open, and what was let in and begins yet, take up nothing new, except as `end` says."""
        self._end = end
        for session in list(self.open):
            session.finish(end)

    def abort_sessions(self, reason: Reason) -> None:
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

    def get_status(self) -> dict[str, Any]:
        """Return counts as JSON has them."""
        return {
            "open": len(self.open),
            "streams": self.streams,
            "failed": self.failed,
            "sent": self.sent,
            "received": self.received,
        }
