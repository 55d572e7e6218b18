"""The client side's connections: one to each peer and service, kept open, with a stream for each local client."""

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

#: Seconds before dialling again, by the number of failures: a peer that restarts is found at once, and one that is
#: gone costs one dial every 2 s.
BACKOFF = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
#: After refusals that only an operator can take back (a ban, a list, a price) pauses grow further, up to this many
#: seconds, since each dial costs the peer a handshake and a log line. A program that connects has the peer dialled at
#: once.
REFUSED = 30.0
_LASTING = (CloseCode.DENIED, CloseCode.PAYMENT, CloseCode.UNKNOWN_SERVICE)
#: The explanation for a connection whose place was given to others. Another dial would push out another unused one,
#: which would then come back in the same way.
GIVEN = "others need the place of its connection there: it is dialled when a program comes"
#: A connection that lasts less than this many seconds is also followed by such a pause, since each dial may cost a
#: payment.
STEADY = 5.0


class NotConnected(CarrierError):
    """None of a service's addresses can be connected to now; the message is about the last one."""

    code = "not-connected"


class Ways(Resolver):
    """Resolves to several direct addresses of one peer, in order. A connection can resume over any of them."""

    name = "to"

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = tuple(addresses)

    async def resolve(self, address: Address) -> list[Candidate]:
        """Return the addresses, if their peer is asked for."""
        return [
            Candidate(one, priority=number, source=self.name)
            for number, one in enumerate(self._addresses)
            if one.peer == address.peer
        ]


#: Connects to an address by way of these resolvers (None: the default ones).
Dial = Callable[[Address, "Sequence[Resolver] | None"], Awaitable[Connection]]

#: An address to dial, and the resolvers to ask for it; None for the default ones.
Target = tuple[Address, Sequence[Resolver] | None]


def targets(addresses: Sequence[Address]) -> list[Target]:
    """Return the targets in the order in which to dial. Direct addresses of one peer become one target."""
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
    """Return True if the peer has no room for another connection while all existing ones are in use."""
    return isinstance(error, ConnectionRefused) and error.detail == CloseDetail.ALL_AT_WORK


def is_given(error: DtpError | None) -> bool:
    """Return True if the place of an unused connection was given to another."""
    return isinstance(error, ConnectionClosed) and error.detail == CloseDetail.PLACE_GIVEN


def _pause_after(failures: int, error: DtpError) -> float:
    """Return the seconds until the next dial, after `failures` failures before the last one."""
    if failures < len(BACKOFF):
        return BACKOFF[failures]
    lasting = isinstance(error, ConnectionRefused) and error.close_code in _LASTING
    if lasting or is_at_work(error):
        return float(min(REFUSED, BACKOFF[-1] * 2 ** min(16, failures - len(BACKOFF) + 1)))
    return BACKOFF[-1]


def _plain_dial(identity: Identity, limits: Limits, psk: bytes | None) -> Dial:
    """Return a function that dials as `dtp.connect` does."""

    def dial(address: Address, resolvers: Sequence[Resolver] | None) -> Awaitable[Connection]:
        return connect(address, identity=identity, limits=limits, psk=psk, resolvers=resolvers)

    return dial


class Pool:
    """Connections to one service. Streams use the current connection, which is dialled again when it is lost.

    A connection whose peer accepts no new streams (it drains, or was replaced) is left to finish its streams.
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
        """`dial` is what connects, by default `dtp.net.dial.connect`. For the first `quiet` seconds, nothing is
        logged about a peer that can't be found."""
        self._quiet, self._patience = quiet, patience
        self._connect = dial or _plain_dial(identity, limits, psk)
        self.addresses = tuple(addresses)
        self._targets = targets(addresses)
        self._connection: Connection | None = None
        self._used = UsedConnections(self._is_replaced)
        self._dialing: asyncio.Task[Connection] | None = None
        self._keeper: SupervisedTask | None = None
        #: Set whenever there is a connection.
        self._dialled = asyncio.Event()
        self._closed = False
        #: Whether peers are told that this end is about to close.
        self._away = False
        #: The number of callers waiting for a stream.
        self._waiting = 0
        #: Why there is no connection, as far as is known; "" while there is one.
        self.trouble = ""
        self.dials = 0

    @property
    def connections(self) -> list[Connection]:
        """The open connections, with the one for new streams first."""
        return [each for each in self._held if not each.closed]

    @property
    def _held(self) -> list[Connection]:
        """Connections that still have to be closed."""
        return [*([] if self._connection is None else [self._connection]), *self._used.retired]

    def start_connecting(self) -> None:
        """Start keeping a connection open."""
        if self._keeper is None:
            self._keeper = SupervisedTask(self._keep_warm, name="dtpd-pool")
            self._keeper.start()

    async def get_stream(self) -> Stream:
        """Return a new stream to the service. Raise `NotConnected`, or the peer's refusal."""
        self._waiting += 1
        try:
            return await self._open_stream()
        finally:
            self._waiting -= 1
            self._leave_if_retired()

    async def _open_stream(self) -> Stream:
        last: DtpError | None = None
        for _ in range(2):  # the existing connection may turn out to be over
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
            # Without a carrier it may be resumed, or the peer may have forgotten it. It finishes what it has, but a
            # new stream must not depend on it.
            self._retire_connection(connection)
        if self._closed:
            raise LocalError("the pool is closed")
        if self._dialing is None:
            self._dialing = start_task(self._dial_once(), name="dtpd-dial")
        # Several streams wait for one dial. One that gives up must not end it for the others.
        return await asyncio.shield(self._dialing)

    async def _dial_once(self) -> Connection:
        """Return the connection to use from now on. It is stored at once rather than by a callback of the task:
        otherwise a caller in the same turn would take the outcome of this dial for that of another."""
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
        """Stop using a connection, and close it once its streams are over."""
        if self._connection is connection:
            self._connection = None
        self._used.retire(connection)

    def _is_replaced(self, connection: Connection) -> bool:
        current = self._connection
        return current is not None and not current.closed and current.peer != connection.peer

    def _leave_if_retired(self) -> None:
        """Retire a connection that was dialled for nobody, which would stay open for ever. Waiting callers get a
        stream first."""
        if self._closed and not self._waiting and self._connection is not None:
            self._retire_connection(self._connection)

    def release_stream(self, stream: Stream) -> None:
        """Note that a stream from `get_stream` is over."""
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
            del connection  # keep no reference to it while waiting
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
        """Wait until a program has requested a dial."""
        self._dialled.clear()
        while self._connection is None:
            self.trouble = GIVEN
            await self._dialled.wait()

    def _log_event(self, event: str, why: str, say: Callable[..., None]) -> None:
        fields = {"event": event, "to": str(self.addresses[0]), "why": why}
        # An error about a peer that can't be found names it already.
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
        """Tell all peers, including future ones, that this end is about to close. They open no streams here anyway,
        but a peer that speaks the programs' protocol tells them which answer is the last."""
        self._away = True
        await asyncio.gather(*(each.go_away() for each in self.connections))

    def retire_pool(self) -> None:
        """Let open streams finish, then close: nobody will ask for others."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
        self._leave_if_retired()

    async def close(self) -> None:
        """Stop dialling, and close all connections. Idempotent."""
        self._closed = True
        if self._keeper is not None:
            await self._keeper.stop()
        if (dialing := self._dialing) is not None:
            dialing.cancel()
            await asyncio.gather(dialing, return_exceptions=True)
        held = self._held  # including those whose closing is interrupted
        await self._used.cancel()
        await asyncio.gather(*map(close_used, held))
