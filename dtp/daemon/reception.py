"""What becomes of the connections that peers open: each stream goes to the service that is asked for, and who may be
here no longer has to go."""

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
    """Serves the connections that were let in, until they end or are sent away."""

    def __init__(
        self,
        services: ExposedServices,
        door: Door,
        side: ChainSide,
        member: Member,
        no_room: Callable[[], Denial | None],
        is_draining: Callable[[], bool],
    ) -> None:
        """`no_room` says why no more streams can be taken up now, if so; `is_draining`, whether no new ones are."""
        self.callers = Callers()
        self.door = door
        self._services, self._side, self._member = services, side, member
        self._no_room, self._is_draining = no_room, is_draining

    def send_unwelcome_away(self) -> None:
        """End what is open of those who may be here no more, since rules, prices or bans have changed."""
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
        """Return why somebody who was admitted may not be here any more; None where they may."""
        if self._side.is_closing(connection):
            return None
        if (ban := self.door.ban_of(caller)) is not None:
            return ban
        exposed = self._services.find_service(connection.service)
        if exposed is not None and exposed.config.price is not None and connection.admission is None:
            return _PRICED  # it comes again, with a channel
        return None

    def _let_go_if_sold_otherwise(self, connection: Connection) -> None:
        """Take no new streams of a connection that is metered otherwise than its service is sold by now: its caller
        comes again for others."""
        exposed, seller = self._services.find_service(connection.service), self._side.seller
        if exposed is None or seller is None or self._is_free(connection):
            return
        if not seller.is_metered(connection, exposed.config):
            self.callers.let_go(connection)

    async def check_accounts(self) -> None:
        """Send away who may be here no longer, now that the chain was asked again, also from what is open."""
        for connection, caller in self.callers.items():
            exposed = self._services.find_service(connection.service)
            if exposed is None or not exposed.config.on_chain:
                continue
            refusal = self._side.check_account(connection, caller.account)
            if refusal is not None and not connection.closed:
                self.callers.send_away(connection, refusal)

    def find_successor(self, connection: Connection) -> Exposed | None:
        """Return what serves the streams of a connection now; None where it has to come again for others."""
        return None if self.callers.is_going(connection) else self._services.find_service(connection.service)

    def shed_connection(self, connection: Connection, size: int) -> None:
        """End a connection that holds so many bytes: the memory is needed."""
        why = f"it held {size >> 10} KiB, and all memory that the daemon may have is used"
        self.callers.send_away(connection, Refuse(CloseCode.LIMIT, why))

    async def serve_connection(self, connection: Connection) -> None:
        """Serve the streams of a connection: each by the rules that hold when it is opened."""
        caller = caller_of(connection)
        # It was admitted, which may be a while ago.
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
            self._let_go_if_sold_otherwise(connection)  # by a reload, since it was admitted
            if self._is_free(connection):
                connection.take_streams(partial(self._on_stream, connection, caller))
                await connection.wait_closed()
            else:  # the next stream waits until enough is paid
                async for stream in connection:
                    self._on_stream(connection, caller, stream)
        finally:
            self.callers.remove(connection)
            self._services.absent.remove_connection(connection)

    def _on_peer_away(self, connection: Connection) -> None:
        """Let sessions finish whose peer, a daemon, is about to end: it can't tell its programs."""
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
        """True if nothing is metered, so that nothing has to be paid before a stream is served."""
        return connection.admission is None or self._side.seller is None

    async def is_paid(self, connection: Connection, caller: Caller) -> bool:
        """Meter it, if it came to be paid for; return whether it may go on."""
        seller = self._side.seller
        if seller is None or self._is_free(connection):
            return True
        try:
            return await seller.meter_connection(connection)
        except Refuse as refusal:
            self.door.note_denial(caller, connection.service, by_chain(refusal))
            connection.abort(refusal.code, refusal.reason, detail=refusal.detail)
            return False
