"""Connections from peers after they were admitted: each stream goes to the service that was asked for, and callers
who are no longer allowed are disconnected."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dtp.daemon.callers import Callers, caller_of
from dtp.daemon.mesh import Member
from dtp.daemon.paying.side import ChainSide
from dtp.daemon.policies import Caller, Denial
from dtp.daemon.reasons import Reason
from dtp.daemon.relays.door import BANNED, Door, by_chain, refuse
from dtp.daemon.relays.expose import Exposed
from dtp.daemon.relays.ledger import LAST_REQUEST, Ending
from dtp.daemon.services import ExposedServices
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.peers.links import NODE_SERVICE
from dtp.session.codes import CloseCode, Refuse

_PRICED = Denial("price", Reason.UNPAID, "the service has a price now")
_SOLD_OTHERWISE = Denial("price", Reason.DRAINING, "the service is sold otherwise since a reload")


class Reception:
    """Serves admitted connections until they end or are disconnected."""

    def __init__(
        self,
        services: ExposedServices,
        door: Door,
        side: ChainSide,
        member: Member,
        no_room: Callable[[], Denial | None],
        is_draining: Callable[[], bool],
    ) -> None:
        """`no_room` returns why no more streams can be accepted now, or None. `is_draining` returns True once the
        daemon accepts nothing new."""
        self.callers = Callers()
        self.door = door
        self._services, self._side, self._member = services, side, member
        self._no_room, self._is_draining = no_room, is_draining

    def send_unwelcome_away(self) -> None:
        """Disconnect callers who are no longer allowed, since rules, prices or bans have changed."""
        for connection, caller in self.callers.items():
            if connection.closed:
                continue
            if (denial := self._why_unwelcome(connection, caller)) is not None:
                self.callers.send_away(connection, refuse(denial))
            else:
                self._let_go_if_sold_otherwise(connection)
        for link in self._member.links:
            caller = caller_of(link.connection)
            if not link.closed and self.door.ban_of(caller) is not None:
                self.callers.send_away(link.connection, refuse(BANNED))

    def _why_unwelcome(self, connection: Connection, caller: Caller) -> Denial | None:
        """Return why an admitted caller is no longer allowed; None where it still is."""
        if self._side.is_closing(connection):
            return None
        if (ban := self.door.ban_of(caller)) is not None:
            return ban
        exposed = self._services.find_service(connection.service)
        if exposed is not None and exposed.config.price is not None and connection.admission is None:
            return _PRICED  # its client connects again with a payment channel
        return None

    def _let_go_if_sold_otherwise(self, connection: Connection) -> None:
        """Accept no new streams of a connection that is metered differently from how its service is sold now. Its
        caller opens a new connection for those."""
        exposed, seller = self._services.find_service(connection.service), self._side.seller
        if exposed is None or seller is None or self._is_free(connection):
            return
        if not seller.is_metered(connection, exposed.config):
            self.callers.let_go(connection)

    async def check_accounts(self) -> None:
        """Disconnect callers whom the chain, which has just been queried, no longer allows. Their open streams end,
        too."""
        for connection, caller in self.callers.items():
            exposed = self._services.find_service(connection.service)
            if exposed is None or not exposed.config.on_chain:
                continue
            refusal = self._side.check_account(connection, caller.account)
            if refusal is not None and not connection.closed:
                self.callers.send_away(connection, refusal)

    def find_successor(self, connection: Connection) -> Exposed | None:
        """Return what serves the streams of a connection now; None where it accepts no more, so that the caller has
        to connect again."""
        return None if self.callers.is_going(connection) else self._services.find_service(connection.service)

    def shed_connection(self, connection: Connection, size: int) -> None:
        """End a connection for which `size` bytes are held, to free memory."""
        why = f"it held {size >> 10} KiB, and all memory that the daemon may have is used"
        self.callers.send_away(connection, Refuse(CloseCode.LIMIT, why))

    async def serve_connection(self, connection: Connection) -> None:
        """Serve the streams of a connection, each by the rules in force when it is opened."""
        caller = caller_of(connection)
        # It was admitted earlier, and rules may have changed since.
        if (denial := self._why_unwelcome(connection, caller)) is not None:
            self.door.note_denial(caller, connection.service, denial)
            refusal = refuse(denial)
            connection.abort(refusal.code, refusal.reason, detail=refusal.detail)
            return
        self.callers.add(connection, caller)
        self._services.absent.add_connection(connection)
        connection.callbacks.on_peer_away = self._on_peer_away
        try:
            if self._is_draining():
                await connection.go_away()
            if connection.service == NODE_SERVICE and self._member.is_node:
                await self._member.serve_connection(connection)
                return
            if not await self.is_paid(connection, caller):
                return
            self._let_go_if_sold_otherwise(connection)  # a reload may have changed that since it was admitted
            if self._is_free(connection):
                connection.take_streams(partial(self._on_stream, connection, caller))
                await connection.wait_closed()
            else:  # the next stream is accepted once enough is paid
                async for stream in connection:
                    self._on_stream(connection, caller, stream)
        finally:
            self.callers.remove(connection)
            self._services.absent.remove_connection(connection)

    def _on_peer_away(self, connection: Connection) -> None:
        """Let the sessions of a peer finish that is about to shut down: being a daemon, it can't tell its own
        programs."""
        for session in [one for one in self._services.list_sessions() if one.stream.connection is connection]:
            session.finish(Ending(LAST_REQUEST))

    def _on_stream(self, connection: Connection, caller: Caller, stream: Stream) -> None:
        exposed = self._services.find_service(connection.service)
        if exposed is None:
            stream.reset(Reason.NO_BACKEND)
        elif denial := self._no_room():
            exposed.refuse_stream(caller, stream, denial)
        elif self.callers.is_going(connection):
            exposed.refuse_stream(caller, stream, _SOLD_OTHERWISE)
        else:
            exposed.take_stream(connection, caller, stream)

    def _is_free(self, connection: Connection) -> bool:
        """True if the connection isn't metered, so that streams are served without being paid first."""
        return connection.admission is None or self._side.seller is None

    async def is_paid(self, connection: Connection, caller: Caller) -> bool:
        """Start metering a connection that came with a payment channel; return True if it may go on."""
        seller = self._side.seller
        if seller is None or self._is_free(connection):
            return True
        try:
            return await seller.meter_connection(connection)
        except Refuse as refusal:
            self.door.note_denial(caller, connection.service, by_chain(refusal))
            connection.abort(refusal.code, refusal.reason, detail=refusal.detail)
            return False
