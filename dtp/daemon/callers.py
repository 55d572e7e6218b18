"""Who is here: connections that were let in, each with its caller; and how they are told to go."""

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
    """Return who a connection is from."""
    return Caller(connection.peer, connection.peer.sui_address, connection.source)


def describe_caller(connection: Connection, caller: Caller) -> dict[str, Any]:
    """Return who has come by a connection and what is open on it, as JSON has it."""
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
    """Iterable over the connections."""

    def __init__(self) -> None:
        self._here: dict[Connection, Caller] = {}
        #: Of them those that are told to open no more streams.
        self._going: dict[Connection, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._here)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._here))

    def items(self) -> list[tuple[Connection, Caller]]:
        """Return each connection with its caller."""
        return list(self._here.items())

    def add(self, connection: Connection, caller: Caller) -> None:
        """Know a connection that was let in, and whose it is."""
        self._here[connection] = caller

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is over."""
        del self._here[connection]
        self._going.pop(connection, None)

    def is_going(self, connection: Connection) -> bool:
        """Return True if it was told to open no more streams."""
        return connection in self._going

    def let_go(self, connection: Connection) -> None:
        """Tell one to open no more streams; those that are open go on. Idempotent."""
        if connection not in self._going:
            self._going[connection] = start_task(connection.go_away(), name="dtpd-go-away")

    async def go_away(self) -> None:
        """Tell the same to all, once each has heard it."""
        await asyncio.gather(*(each.go_away() for each in self if not each.closed))

    def send_away(self, connection: Connection, refusal: Refuse) -> None:
        """End a connection now, and say in the log why. It may also be one that isn't here, such as a node's."""
        caller = self._here.get(connection) or caller_of(connection)
        service, who, why = connection.service, logs.of_caller(caller), refusal.reason
        log.info(
            "%s: %s is sent away: %s",
            *(service, logs.name_of(caller), why),
            extra={"fields": {"event": "sent-away", "service": service, **who, "why": why}},
        )
        connection.abort(refusal.code, why, detail=refusal.detail)

    async def close(self) -> None:
        """Close all connections, once what was served may have been paid."""
        await asyncio.gather(*(one.close(CloseCode.SHUTDOWN) for one in self))

    def describe(self, held: Mapping[Connection, int]) -> list[dict[str, Any]]:
        """Return who is here, with the bytes that are held for each, as JSON has it."""
        return [
            {**describe_caller(*each), "held": held.get(each[0], 0), "going": self.is_going(each[0])}
            for each in self.items()
        ]
