"""The client end's connections: one to each peer and service, kept warm, a stream for each local client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from dtp.daemon.patience import PATIENCE, Patience
from dtp.daemon.relays.used import UsedConnections, close_used
from dtp.errors import CarrierError, DtpError, LocalError
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import connect
from dtp.net.resolver import Candidate, NotResolved, ResolveFailed, Resolver
from dtp.net.stream import Stream
from dtp.session.codes import CloseCode, CloseDetail, ConnectionClosed, ConnectionLost, ConnectionRefused
from dtp.session.limits import Limits
from dtp.tasks import SupervisedTask, start_task

log = logging.getLogger("dtpd")

#: How long to wait before dialling again, by how often it has failed: a peer that restarts is found at once, one that
#: is gone costs a dial every 2 s.
BACKOFF = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
#: After refusals that only somebody there takes back (a ban, a list, a price) pauses grow on, up to so many seconds:
#: each dial is a handshake and a line in the log there. A program that connects has the peer dialled at once.
REFUSED = 30.0
_LASTING = (CloseCode.DENIED, CloseCode.PAYMENT, CloseCode.UNKNOWN_SERVICE)
#: What is said of a connection whose place others have. Each dial would throw out another one that nobody uses, which
#: comes back in the same way.
GIVEN = "others need the place of its connection there: it is dialled when a program comes"
#: A connection that ends before so many seconds is followed by such a pause, too: each dial may cost a payment.
STEADY = 5.0


class NotConnected(CarrierError):
    """None of a service's addresses leads anywhere now; the message says what the last one said."""

    code = "not-connected"


class Ways(Resolver):
    """Several direct addresses of one peer, as candidates in their order: a connection resumes over any."""

    name = "to"

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = tuple(addresses)

    async def resolve(self, address: Address) -> list[Candidate]:
        """Return the addresses, if it is their peer that is asked for."""
        return [
            Candidate(one, priority=number, source=self.name)
            for number, one in enumerate(self._addresses)
            if one.peer == address.peer
        ]


#: Connects to an address, found by these (None: the usual ones).
Dial = Callable[[Address, "Sequence[Resolver] | None"], Awaitable[Connection]]

#: An address to dial, and who is asked where it is; None for the usual ones.
Target = tuple[Address, Sequence[Resolver] | None]


def targets(addresses: Sequence[Address]) -> list[Target]:
    """Return what to dial in order, and by whom to find it: direct addresses of one peer become one target."""
    found: list[Target] = []
    for address in addresses:
        if not address.is_direct:
            found.append((address, None))
            continue
        if any(known.peer == address.peer for known, _ in found if known.is_direct):
            continue
        same = [one for one in addresses if one.is_direct and one.peer == address.peer]
        if len(same) == 1:
            found.append((address, None))
        else:
            found.append((Address("dtp", address.peer, service=address.service), (Ways(same),)))
    return found


def is_at_work(error: DtpError) -> bool:
    """Return True where the peer has no place for one more connection while all that have one are at work."""
    return isinstance(error, ConnectionRefused) and error.detail == CloseDetail.ALL_AT_WORK


def is_given(error: DtpError | None) -> bool:
    """Return True where the place of a connection that nobody used was given to another."""
    return isinstance(error, ConnectionClosed) and error.detail == CloseDetail.PLACE_GIVEN


def _pause_after(failures: int, error: DtpError) -> float:
    """Return the seconds until the next dial, where `failures` have failed before the last one."""
    if failures < len(BACKOFF):
        return BACKOFF[failures]
    lasting = isinstance(error, ConnectionRefused) and error.close_code in _LASTING
    if lasting or is_at_work(error):
        return float(min(REFUSED, BACKOFF[-1] * 2 ** min(16, failures - len(BACKOFF) + 1)))
    return BACKOFF[-1]


def _plain_dial(identity: Identity, limits: Limits, psk: bytes | None) -> Dial:
    """Return what dials as `dtp.connect` does."""

    def dial(address: Address, resolvers: Sequence[Resolver] | None) -> Awaitable[Connection]:
        return connect(address, identity=identity, limits=limits, psk=psk, resolvers=resolvers)

    return dial


class Pool:
    """Connections for one service. A stream goes over the one that is there; it is dialled again when it is lost.

    A connection whose peer takes no new streams (it drains, or has another one in its place) is left to finish
    what it carries.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        *,
        identity: Identity,
        limits: Limits,
        psk: bytes | None,
        dial: Dial | None = None,
        quiet: float = 0.0,
        patience: Patience = PATIENCE,
    ) -> None:
        """`dial` is what connects, `dtp.net.dial.connect` by default. For `quiet` seconds from the start on nothing
        is logged of a peer that can't be found."""
        self._quiet, self._patience = quiet, patience
        self._connect = dial or _plain_dial(identity, limits, psk)
        self.addresses = tuple(addresses)
        self._targets = targets(addresses)
        self._connection: Connection | None = None
        self._used = UsedConnections(self._is_replaced)
        self._dialing: asyncio.Task[Connection] | None = None
        self._keeper: SupervisedTask | None = None
        #: Set whenever a connection is there.
        self._dialled = asyncio.Event()
        self._closed = False
        #: Whether peers are told that this end is about to end.
        self._away = False
        #: How many want a stream and have none yet.
        self._waiting = 0
        #: Why there is no connection, as far as known; "" while there is one.
        self.trouble = ""
        self.dials = 0

    @property
    def connections(self) -> list[Connection]:
        """Those that are open: the one for new streams first."""
        return [each for each in self._held if not each.closed]

    @property
    def _held(self) -> list[Connection]:
        """Those that are to be closed yet."""
        return [*([] if self._connection is None else [self._connection]), *self._used.retired]

    def start_connecting(self) -> None:
        """Begin to keep a connection ready."""
        if self._keeper is None:
            self._keeper = SupervisedTask(self._keep_warm, name="dtpd-pool")
            self._keeper.start()

    async def get_stream(self) -> Stream:
        """Return a new stream to the service. Raises why there is none: `NotConnected`, or the peer's refusal."""
        self._waiting += 1
        try:
            return await self._open_stream()
        finally:
            self._waiting -= 1
            self._leave_if_retired()

    async def _open_stream(self) -> Stream:
        last: DtpError | None = None
        for _ in range(2):  # the connection that is there may turn out to be over
            connection = await self._get_connection()
            try:
                stream = await connection.open_stream(patience=self._patience.stream)
            except (ConnectionClosed, ConnectionLost) as error:
                last = error
                self._retire_connection(connection)
            else:
                self._used.add_stream(connection)
                return stream
        assert last is not None
        raise last

    async def _get_connection(self) -> Connection:
        connection = self._connection
        if connection is not None:
            if connection.source and not connection.closed:
                return connection
            # Without a carrier it may be resumed, or the peer may not know it any more: it finishes what it has,
            # and a new stream doesn't depend on it.
            self._retire_connection(connection)
        if self._closed:
            raise LocalError("the pool is closed")
        if self._dialing is None:
            self._dialing = start_task(self._dial_once(), name="dtpd-dial")
        # Several streams wait for one dial, and one that gives up does not end it for the others.
        return await asyncio.shield(self._dialing)

    async def _dial_once(self) -> Connection:
        """Return the connection that is used from now on. It is noted at once, not by a callback of the task: who
        asks in the same turn would get what came of this dial as if it were another one."""
        try:
            self._connection = await self._dial_targets()
        except DtpError as error:
            self.trouble = str(error)
            raise
        finally:
            self._dialing = None
        connection, self.trouble = self._connection, ""
        self._dialled.set()
        if self._away:
            start_task(connection.go_away(), name="dtpd-go-away")
        self._leave_if_retired()
        return connection

    async def _dial_targets(self) -> Connection:
        failure: DtpError = NotConnected("there is no address to dial")
        for address, resolvers in self._targets:
            self.dials += 1
            try:
                return await self._connect(address, resolvers)
            except DtpError as error:
                failure = error
        raise failure

    def _retire_connection(self, connection: Connection) -> None:
        """Use it no more; it is closed once its streams are over."""
        if self._connection is connection:
            self._connection = None
        self._used.retire(connection)

    def _is_replaced(self, connection: Connection) -> bool:
        current = self._connection
        return current is not None and not current.closed and current.peer != connection.peer

    def _leave_if_retired(self) -> None:
        """Retire what was dialled for nobody, or it would be kept for ever; who waited for it gets a stream first."""
        if self._closed and not self._waiting and self._connection is not None:
            self._retire_connection(self._connection)

    def release_stream(self, stream: Stream) -> None:
        """Note that a stream that `get_stream` gave is over."""
        self._used.release_stream(stream.connection)

    async def _keep_warm(self) -> None:
        loop = asyncio.get_running_loop()
        failures, told, given, began = 0, False, False, loop.time()
        while True:
            try:
                connection = await self._get_connection()
            except DtpError as error:
                is_news = not told and (
                    loop.time() - began >= self._quiet or not isinstance(error, NotResolved | ResolveFailed)
                )
                if is_news:
                    self._log_event("not-connected", str(error), log.warning)
                told = told or is_news
                await asyncio.sleep(_pause_after(failures, error))
                failures += 1
                continue
            told, since = False, loop.time()
            if not given:
                self._tell_connected(connection)
            await connection.wait_closed()
            was_given = is_given(connection.ended_by)
            if self._connection is connection:
                self._retire_connection(connection)
            del connection  # nothing of it is kept while this waits
            if was_given:
                if not given:
                    self._log_event("place-given", GIVEN, log.info)
                await self._wait_wanted()
            elif loop.time() - since >= STEADY:
                failures = 0
            else:
                await asyncio.sleep(BACKOFF[min(failures, len(BACKOFF) - 1)])
                failures += 1
            given = was_given

    async def _wait_wanted(self) -> None:
        """Wait until a program has had the peer dialled."""
        self._dialled.clear()
        while self._connection is None:
            self.trouble = GIVEN
            await self._dialled.wait()

    def _log_event(self, event: str, why: str, say: Callable[..., None]) -> None:
        fields = {"event": event, "to": str(self.addresses[0]), "why": why}
        # What can't be found is named by why.
        prefix = "" if fields["to"] in why else f"{fields['to']}: "
        say("%s%s", prefix, why, extra={"fields": fields})

    def _tell_connected(self, connection: Connection) -> None:
        service = self.addresses[0].service
        log.info(
            "connected to %s for %s",
            connection.peer.short,
            service or "its default service",
            extra={"fields": {"event": "connected", "peer": str(connection.peer), "service": service}},
        )

    async def go_away(self) -> None:
        """Tell peers, now and those yet to come, that this end is about to end. They open no streams here in any
        case; one that speaks what programs speak has them told which answer is their last."""
        self._away = True
        await asyncio.gather(*(each.go_away() for each in self.connections))

    def retire_pool(self) -> None:
        """Finish the streams that are open, then close: nobody will ask for others."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
        self._leave_if_retired()

    async def close(self) -> None:
        """Dial no more and close all connections. Idempotent."""
        self._closed = True
        if self._keeper is not None:
            await self._keeper.stop()
        if (dialing := self._dialing) is not None:
            dialing.cancel()
            await asyncio.gather(dialing, return_exceptions=True)
        held = self._held  # those as well whose closing is broken off
        await self._used.cancel()
        await asyncio.gather(*map(close_used, held))
