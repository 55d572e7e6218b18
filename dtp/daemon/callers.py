"""The connections that were admitted, each with its caller, and how they are told to leave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from dtp.daemon.observing import logs
from dtp.daemon.policies import Caller
from dtp.net.connection import Connection
from dtp.session.codes import CloseCode, Refuse
from dtp.tasks import start_task

log = logging.getLogger("dtpd")


def caller_of(connection: Connection) -> Caller:
    """Return the caller of a connection."""
    return Caller(connection.peer, connection.peer.sui_address, connection.source)


def describe_caller(connection: Connection, caller: Caller) -> dict[str, Any]:
    """Return the caller of a connection and what is open on it, as JSON values."""
    stats = connection.stats
    return {
        "peer": str(caller.peer),
        "source": caller.source,
        "service": connection.service,
        "streams": stats.streams,
        "carriers": list(stats.carriers),
        "resumes": stats.resumes,
    }


class Callers:
    """The admitted connections. Iterating yields them."""

    def __init__(self) -> None:
        self._here: dict[Connection, Caller] = {}
        #: Those that were told to open no more streams.
        self._going: dict[Connection, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._here)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._here))

    def items(self) -> list[tuple[Connection, Caller]]:
        """Return each connection with its caller."""
        return list(self._here.items())

    def add(self, connection: Connection, caller: Caller) -> None:
        """Add a connection that was admitted, and its caller."""
        self._here[connection] = caller

    def remove(self, connection: Connection) -> None:
        """Remove a connection that is over."""
        del self._here[connection]
        self._going.pop(connection, None)

    def is_going(self, connection: Connection) -> bool:
        """Return True if it was told to open no more streams."""
        return connection in self._going

    def let_go(self, connection: Connection) -> None:
        """Tell a connection to open no more streams; open ones go on. Idempotent."""
        if connection not in self._going:
            self._going[connection] = start_task(connection.go_away(), name="dtpd-go-away")

    async def go_away(self) -> None:
        """Tell all connections to open no more streams; return once each has been told."""
        await asyncio.gather(*(each.go_away() for each in self if not each.closed))

    def send_away(self, connection: Connection, refusal: Refuse) -> None:
        """Abort a connection and log why. It may also be one that isn't listed here, such as another node's."""
        caller = self._here.get(connection) or caller_of(connection)
        service, who, why = connection.service, logs.of_caller(caller), refusal.reason
        log.info(
            "%s: %s is sent away: %s",
            *(service, logs.name_of(caller), why),
            extra={"fields": {"event": "sent-away", "service": service, **who, "why": why}},
        )
        connection.abort(refusal.code, why, detail=refusal.detail)

    async def close(self) -> None:
        """Close all connections, after waiting for payments for what was served."""
        await asyncio.gather(*(one.close(CloseCode.SHUTDOWN) for one in self))

    def describe(self, held: Mapping[Connection, int]) -> list[dict[str, Any]]:
        """Return the callers and the bytes held for each, as JSON values."""
        return [
            {**describe_caller(*each), "held": held.get(each[0], 0), "going": self.is_going(each[0])}
            for each in self.items()
        ]
