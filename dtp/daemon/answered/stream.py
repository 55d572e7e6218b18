"""Streams that the daemon answers itself. Those of kind `relay` are joined with each other, not with a backend."""

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
    """One stream, as a `Session` of the ledger. For a relay it is a request, or one end of a circuit."""

    #: Bytes on the way are kept by the streams themselves.
    kept = 0

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        #: Bytes of circuits are counted by the relay, once for both ends, in `Relay.counters`.
        self.counts = Counts()
        self.why = ""
        self.ended = False
        self._task: asyncio.Task[object] | None = None

    async def serve_answer(self, answer: Answer) -> None:
        """Answer the stream until either end closes it."""
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
        """Do nothing: circuits go on until the daemon stops waiting for them."""


@dataclass(frozen=True, slots=True)
class Answering:
    """How the streams of a service are answered here."""

    #: What answers them, such as a mailbox or a show.
    source: object
    answer: Answer
    #: Returns what the status of the service has in addition.
    get_status: Callable[[], dict[str, Any]]
    #: Returns the session that represents a stream in the ledger.
    make_session: Callable[[Stream], AnsweredStream]
