"""Callers that vanished without a word: their sessions wait to be resumed, and make room where it is needed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from dtp.errors import DtpError
from dtp.identity import PeerId
from dtp.net.connection import Connection
from dtp.session.codes import CloseCode
from dtp.tasks import start_task

if TYPE_CHECKING:
    from dtp.daemon.relays.ledger import SessionLedger

log = logging.getLogger("dtpd")

#: Seconds between two checks of them.
_LOOK = 0.5


class Absent:
    """The connections of each caller to each service. Those that nobody uses any more can be ended early.

    A caller that crashed dials again with a new session. What its old session has open would count against it for
    as long as that one can be resumed.
    """

    def __init__(self, ledgers: Callable[[], Iterable[SessionLedger]], patience: float) -> None:
        """`ledgers` returns those that have the connections' streams. `patience` is the seconds that connections
        may be without a carrier while the daemon ends."""
        self._ledgers, self._patience = ledgers, patience
        self._of: dict[tuple[PeerId, str], set[Connection]] = {}
        self._ending: asyncio.Task[None] | None = None
        self._keeps_all = False
        self._making: dict[tuple[PeerId, str], asyncio.Task[None]] = {}

    def add_connection(self, connection: Connection) -> None:
        """Add a connection, until `remove_connection`."""
        self._of.setdefault((connection.peer, connection.service), set()).add(connection)

    def remove_connection(self, connection: Connection) -> None:
        """Remove a connection that is over."""
        key = (connection.peer, connection.service)
        self._of[key].discard(connection)
        if not self._of[key]:
            del self._of[key]

    def has_others(self, connection: Connection) -> bool:
        """True if the caller has other sessions with the service."""
        return len(self._of.get((connection.peer, connection.service), ())) > 1

    async def make_room(self, connection: Connection) -> None:
        """End the caller's sessions with the service that are dead: those without a carrier, or without an answer
        within `limits.dead` seconds. Return when their streams are over."""
        key = (connection.peer, connection.service)
        if key not in self._making:
            making = self._making[key] = start_task(self._make_room(key), name="dtpd-make-room")
            making.add_done_callback(lambda _: self._making.pop(key))
        await asyncio.shield(self._making[key])  # several may wait for it

    async def _make_room(self, key: tuple[PeerId, str]) -> None:
        asked = list(self._of.get(key, ()))
        answers = await asyncio.gather(*map(_is_there, asked))
        gone = {each for each, there in zip(asked, answers, strict=True) if not there}
        for each in gone:
            self._end_connection(each, "its caller has come anew, and needs the room")
        for ledger in self._ledgers():
            await ledger.wait_without(gone)

    def keep_all(self) -> None:
        """Stop ending sessions: another process has taken over, and passes returning peers on to this one."""
        self._keeps_all = True

    def start_ending(self, more: Callable[[], Collection[Connection]]) -> None:
        """End all connections that are without a carrier for too long, including those that `more` returns, until
        `stop_ending`."""
        if not self._keeps_all:
            self._ending = start_task(self._end_absent(more), name="dtpd-absent")

    def stop_ending(self) -> None:
        """Keep absent connections for as long as they can be resumed. Idempotent."""
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    async def _end_absent(self, more: Callable[[], Collection[Connection]]) -> None:
        loop = asyncio.get_running_loop()
        since: dict[Connection, float] = {}
        while True:
            now = loop.time()
            known = [*(one for several in self._of.values() for one in several), *more()]
            away = {one: since.get(one, now) for one in known if not one.source and not one.closed}
            for one, began in away.items():
                if now - began >= self._patience:
                    self._end_connection(
                        one, f"it has had no carrier for {self._patience:g} s, and the daemon ends"
                    )
            since = away
            await asyncio.sleep(_LOOK)

    def _end_connection(self, connection: Connection, why: str) -> None:
        fields = {
            "event": "given-up",
            "service": connection.service,
            "peer": str(connection.peer),
            "why": why,
        }
        log.info("a session of %s is given up: %s", connection.peer.short, why, extra={"fields": fields})
        connection.abort(CloseCode.SHUTDOWN, why)


async def _is_there(connection: Connection) -> bool:
    """True if the peer answers, or the connection is already over."""
    if not connection.source:
        return connection.closed
    slow = connection.patience > connection.limits.handshake
    try:
        async with asyncio.timeout(connection.patience if slow else connection.limits.dead):
            await connection.ping()
    except TimeoutError:
        return False
    except DtpError:
        pass  # it is over
    return True
