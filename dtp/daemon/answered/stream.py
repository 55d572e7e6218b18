"""Streams that the daemon answers itself. Of the kind `relay` they are joined with each other, not with a backend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from dtp.daemon.reasons import Reason
from dtp.daemon.relays.ledger import Ending
from dtp.daemon.relays.relay import Counts
from dtp.net.connection import Connection
from dtp.net.stream import Stream

#: Serves one stream of a connection until it is done.
Answer = Callable[[Connection, Stream], Awaitable[None]]


class AnsweredStream:
    """One stream, as a `Session` of the ledger: of a relay a question, or a circuit from either end."""

    #: What waits on the way is the streams' own.
    kept = 0

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        #: Bytes of circuits are counted by the relay, once for both ends: `Relay.counters`.
        self.counts = Counts()
        self.why = ""
        self.ended = False
        self._task: asyncio.Task[object] | None = None

    async def serve_answer(self, answer: Answer) -> None:
        """Have it answered, until either end has had enough."""
        self._task = asyncio.current_task()
        try:
            await answer(self.stream.connection, self.stream)
        finally:
            self.ended = True

    def abort(self, reason: Reason) -> None:
        """End it now. Idempotent."""
        self.stream.reset(reason)
        if self._task is not None and not self.ended:
            self._task.cancel()

    def finish(self, end: Ending) -> None:
        """Do nothing: circuits go on until the daemon's patience is at its end."""


@dataclass(frozen=True, slots=True)
class Answering:
    """How the streams of a service are answered here."""

    #: What answers them: a mailbox, a show.
    source: object
    answer: Answer
    #: What the status of the service says besides.
    get_status: Callable[[], dict[str, Any]]
    #: Gives what the ledger has of a stream.
    make_session: Callable[[Stream], AnsweredStream]
