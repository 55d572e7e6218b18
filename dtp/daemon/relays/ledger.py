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

#: Seconds for which an idle HTTP client may still send a request, whose answer says that it is the last. Busy
#: clients are told with their next answer.
LAST_REQUEST = 5.0


@dataclass(frozen=True, slots=True)
class Ending:
    """How a session ends that accepts nothing new, since its daemon ends or its service was replaced."""

    #: Seconds in which an idle client may still send a request, which is answered as the last one. Closing at once
    #: would cut off a request that was just sent.
    patience: float = 0.0
    #: Returns what serves a connection from now on, so that its sessions can continue there; None if they have to
    #: end.
    successor: Callable[[Connection], Exposed | None] | None = None


class ServedSession(Protocol):
    """An open stream: a relay, or a conversation in some protocol."""

    stream: Stream
    counts: Counts
    #: Why it ended early, in words; "" for a regular end.
    why: str
    ended: bool

    @property
    def kept(self) -> int:
        """Bytes that were read from the stream or its backend and are waiting for the bytes that follow them."""

    def abort(self, reason: Reason) -> None:
        """End it now. Idempotent."""

    def finish(self, end: Ending) -> None:
        """Accept nothing new, except as `end` says. What is under way may finish."""


class SessionLedger:
    """The open sessions, and the sums over ended ones. Bytes `sent` went into streams, those `received` came out of
    them."""

    def __init__(self) -> None:
        self.open: set[ServedSession] = set()
        #: The number of streams so far, and of those that were refused or broke off.
        self.streams = 0
        self.failed = 0
        self._sent = self._received = 0
        self._end: Ending | None = None
        self._empty = asyncio.Event()
        self._empty.set()
        #: Set when a session has ended.
        self._left = asyncio.Event()

    def add_session(self, session: ServedSession) -> None:
        """Note that a session has begun. After `finish_sessions`, it accepts only what it was already asked."""
        if not session.ended:
            if not self.open:
                self._empty.clear()
            self.open.add(session)
            if self._end is not None:
                session.finish(self._end)

    def leave_session(self, session: ServedSession) -> None:
        """Remove a session that continues elsewhere; what it has moved here stays in the sums."""
        self._sent += session.counts.sent
        self._received += session.counts.received
        self.open.discard(session)
        self._left.set()
        if not self.open:
            self._empty.set()

    def end_session(self, session: ServedSession) -> None:
        """Note that a session is over, even one that never began."""
        self.failed += bool(session.why)
        self.leave_session(session)

    async def wait_empty(self, coming: Set[asyncio.Task[None]] = frozenset()) -> None:
        """Wait until nothing is open, and no task in `coming` is left, which might still open something."""
        while coming:
            await asyncio.wait(coming)
            await asyncio.sleep(0)  # let their callbacks remove them
        await self._empty.wait()

    async def wait_without(self, connections: Collection[Connection]) -> None:
        """Wait until none of these connections has an open stream."""
        while any(session.stream.connection in connections for session in self.open):
            self._left.clear()
            await self._left.wait()

    def finish_sessions(self, end: Ending) -> None:
        """Let all sessions, including those that are about to begin, accept nothing new except as `end` says."""
        self._end = end
        for session in list(self.open):
            session.finish(end)

    def abort_sessions(self, reason: Reason) -> None:
        """End all open sessions now."""
        for session in list(self.open):
            session.abort(reason)

    @property
    def sent(self) -> int:
        """Bytes from local sockets into streams so far."""
        return self._sent + sum(session.counts.sent for session in self.open)

    @property
    def received(self) -> int:
        """Bytes from streams into local sockets so far."""
        return self._received + sum(session.counts.received for session in self.open)

    def get_status(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {
            "open": len(self.open),
            "streams": self.streams,
            "failed": self.failed,
            "sent": self.sent,
            "received": self.received,
        }
