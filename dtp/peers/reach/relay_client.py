"""The two sides that use a relay: the one that has a reservation and is dialled there, and the one that dials.

`relay://host:port?relay=dtp1...&target=dtp1...&via=quic` names the relay (its identity, and its address), the
target, and the carrier by which the relay is reached (by default "tcp"). In a `dtp:` address the target is the
peer's identity itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

from dtp.carriers.base import Accept, Carrier, CarrierKind, CarrierListener
from dtp.carriers.errors import DialError, ListenError
from dtp.carriers.url import format_host, parse_url
from dtp.errors import CarrierError, DtpError, LocalError, PeerError
from dtp.identity import Identity, PeerId, PeerIdError
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import connect
from dtp.net.stream import Stream
from dtp.net.stream_carrier import StreamCarrier
from dtp.peers.reach.errors import ReachRefusal, RelayRefused, RelayUrlError
from dtp.peers.reach.messages import RELAY_SERVICE, ReachKind, encode, expect, read, send_refusal
from dtp.tasks import SupervisedTask, TaskSet

log = logging.getLogger("dtp.peers")

#: The errors of a relay that is gone or refuses.
_GONE: Final = (CarrierError, PeerError, EOFError, TimeoutError)

#: Seconds to wait for an answer of a relay.
PATIENCE: Final = 15.0
#: Connections to relays that are kept for dialling: one for each relay.
MOST_RELAYS: Final = 16
#: Seconds that a connection to a relay is kept without streams.
_IDLE: Final = 5.0
#: The part of a reservation's time after which it is renewed.
_RENEW: Final = 0.5
_OPTIONS: Final = ("relay", "target", "via")

#: Connects to a relay's service; for one that has a price, this can be `dtp.connect` with a budget.
ConnectRelay = Callable[[Address], Awaitable[Connection]]


@dataclass(frozen=True, slots=True)
class RelayPlace:
    """A parsed relay URL. `target` is None in the URL with which a peer requests a place of its own."""

    relay: PeerId
    address: Address
    target: PeerId | None

    @classmethod
    def parse(cls, url: str) -> RelayPlace:
        """Parse a relay URL. Raise `RelayUrlError` or `CarrierUrlError`."""
        if not url.startswith("relay://"):
            how = (
                "relay://HOST:PORT?relay=dtp1..., with what is in the address that 'dtp serve --relay' prints"
            )
            raise RelayUrlError(f"{url!r} isn't the URL of a relay: that is {how}")
        parts = parse_url(url, _OPTIONS)
        via = parts.options.get("via", "tcp")
        if not parts.host or parts.path not in ("", "/") or "relay" not in parts.options:
            raise RelayUrlError(f"{url}: a relay URL is relay://host:port?relay=dtp1...&via=quic")
        if via not in ("tcp", "quic", "ws", "wss", "memory"):
            raise RelayUrlError(f"{url}: a relay is reached via tcp, quic, ws or wss, not {via!r}")
        if parts.port is None and via in ("tcp", "quic"):
            raise RelayUrlError(f"{url}: the port is missing")
        try:
            relay = PeerId.parse(parts.options["relay"])
            target = PeerId.parse(parts.options["target"]) if "target" in parts.options else None
        except PeerIdError as error:
            raise RelayUrlError(f"{url}: {error}") from None
        place = parts.host if parts.port is None else format_host(parts.host, parts.port)
        return cls(relay, Address.direct(relay, f"{via}://{place}", RELAY_SERVICE), target)

    @property
    def own_url(self) -> str:
        """The URL with which a place of one's own is requested."""
        via, _, place = self.address.carrier_url.partition("://")
        return f"relay://{place}?relay={self.relay}" + (f"&via={via}" if via != "tcp" else "")

    def url_for(self, target: PeerId) -> str:
        """Return the URL at which `target` is dialled here."""
        via, _, place = self.address.carrier_url.partition("://")
        return f"relay://{place}?relay={self.relay}&target={target}" + (f"&via={via}" if via != "tcp" else "")


class RelayClient:
    """Dials through relays, with one connection for each relay. `close` ends these."""

    def __init__(self, connect_relay: ConnectRelay) -> None:
        self._connect = connect_relay
        self._connections: dict[Address, asyncio.Task[Connection]] = {}
        self._tasks = TaskSet(_ignore)

    async def dial(self, url: str) -> StreamCarrier:
        """Return a carrier to the URL's target, not started yet. Raise `DialError`, `RelayRefused` or
        `RelayUrlError`.
        """
        place = RelayPlace.parse(url)
        if place.target is None:
            raise RelayUrlError(
                f"{url}: the target is missing; an address has the peer's identity, a URL target=dtp1..."
            )
        carrier, _ = await self.dial_place(place, place.target)
        return carrier

    async def dial_place(self, place: RelayPlace, target: PeerId) -> tuple[StreamCarrier, str]:
        """Return the same as `dial`, and the address at which the relay sees the target."""
        connection = await self._get_connection(place.address)
        try:
            async with asyncio.timeout(PATIENCE):
                stream = await connection.open_stream()
                try:
                    stream.write(encode(ReachKind.CONNECT, target.key))
                    (seen,) = await expect(stream, ReachKind.ACCEPTED)
                except BaseException:
                    stream.reset()
                    raise
        except RelayRefused as error:
            raise DialError(f"{target.short} through relay {place.relay.short}: {error}") from error
        except (DtpError, EOFError, TimeoutError) as error:
            words = f"no answer in {PATIENCE:g} s" if isinstance(error, TimeoutError) else error
            raise DialError(f"relay {place.relay.short}: {words}") from error
        carrier = StreamCarrier(stream, source=source_of(place.relay), remote=place.url_for(target))
        carrier.on_end = lambda: self._end_soon(place.address, connection)
        return carrier, seen

    def _end_soon(self, address: Address, connection: Connection) -> None:
        """Close a connection to a relay after a while without streams. If the program ends before, abort it at
        once: the relay would otherwise wait for it.
        """
        task = self._tasks.start(self._end_if_unused(address, connection), name="dtp-relay-unused")
        task.add_done_callback(lambda task: connection.abort() if task.cancelled() else None)

    async def _end_if_unused(self, address: Address, connection: Connection) -> None:
        await asyncio.sleep(_IDLE)
        task = self._connections.get(address)
        kept = task is not None and task.done() and not _is_answered(task) and task.result() is connection
        if kept and not connection.stats.streams:
            self._drop_connection(address)

    async def _get_connection(self, address: Address) -> Connection:
        task = self._connections.get(address)
        if task is None or _is_answered(task):
            while len(self._connections) >= MOST_RELAYS:
                self._drop_connection(next(iter(self._connections)))
            task = self._connections[address] = self._tasks.start(
                self._connect_to(address), name="dtp-relay-dial"
            )
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            raise DialError(f"the connection to relay {address.peer} was given up") from None
        except PeerError as error:
            raise DialError(f"relay {address.peer}: {error}") from error

    async def _connect_to(self, address: Address) -> Connection:
        return await self._connect(address)

    def _drop_connection(self, address: Address) -> None:
        task = self._connections.pop(address)
        if task.done() and not task.cancelled() and task.exception() is None:
            self._tasks.start(_part(task.result()), name="dtp-relay-leave")
        else:
            task.cancel()

    async def close(self) -> None:
        """Close the connections to relays, after paying what is owed. Idempotent."""
        open_now = [
            task.result() for task in self._connections.values() if task.done() and not _is_answered(task)
        ]
        await asyncio.gather(*(_part(each) for each in open_now))
        for address in list(self._connections):
            self._drop_connection(address)
        await self._tasks.stop()
        await asyncio.gather(*(each.wait_gone() for each in open_now))


async def _part(connection: Connection) -> None:
    """Close a connection to a relay, after what was used is paid."""
    try:
        async with asyncio.timeout(PATIENCE):
            await connection.close()
    except (DtpError, EOFError, TimeoutError) as error:
        log.info("%r: %s", connection, error)
        connection.abort()


def _is_answered(task: asyncio.Task[Connection]) -> bool:
    if not task.done():
        return False
    return task.cancelled() or task.exception() is not None or task.result().closed


def _ignore(task: asyncio.Task[object], error: BaseException) -> None:
    """Ignore an error: whoever waits for the dial gets it."""


class Reservation(CarrierListener):
    """A place at a relay, which is kept until this is closed. Carriers that come through it are accepted.

    If the relay is gone it is dialled again, after a second and then less and less often.
    """

    def __init__(
        self, place: RelayPlace, identity: Identity, accept: Accept, connect_relay: ConnectRelay
    ) -> None:
        self.urls = [place.url_for(identity.id)]
        #: The address at which the relay sees this side, such as "quic://192.0.2.7:9000"; "" until it is known.
        self.observed = ""
        #: Called with each peer that was accepted, and the address at which the relay sees it: for
        #: `dtp.peers.reach`.
        self.on_incoming: Callable[[PeerId, str], object] | None = None
        self._place = place
        self._accept = accept
        self._connect = connect_relay
        #: The connection to the relay; None before there is one.
        self.connection: Connection | None = None
        self._streams = TaskSet()
        #: Called when the relay seems to be gone: it doesn't answer on any carrier.
        self.on_lost: Callable[[], object] | None = None
        #: Called when the reservation is closed.
        self.on_close: Callable[[], object] | None = None
        self._keeping = SupervisedTask(self._keep_reserved, name="dtp-reservation", foreseen=_GONE)

    async def start(self) -> None:
        """Request the reservation, and keep it from then on. Raise `ListenError` or `RelayRefused`."""
        try:
            self.connection = await self._connect(self._place.address)
            await self._request_reservation(self.connection)
        except (*_GONE, asyncio.CancelledError) as error:
            if self.connection is not None:
                self.connection.abort()
            if isinstance(error, RelayRefused | asyncio.CancelledError):
                raise
            raise ListenError(f"relay {self._place.relay}: {error}") from error
        self._keeping.start()

    @property
    def held(self) -> bool:
        """True while the relay answers on a carrier of the connection to it."""
        return self.connection is not None and self.connection.silence.is_answered

    def ask_for_life(self) -> None:
        """Ask the relay whether it is still there, with `Silence.ask_for_life` of the connection to it."""
        if self.connection is not None:
            self.connection.silence.ask_for_life()

    async def _keep_reserved(self) -> None:
        """Serve the connection to the relay, and renew the reservation, until the connection breaks."""
        connection = self.connection
        if connection is None or connection.closed:
            connection = self.connection = await self._connect(self._place.address)
            await self._request_reservation(connection)
        renewing = self._streams.start(self._renew_reservation(connection), name="dtp-reservation-renew")
        connection.callbacks.on_peer_away = self._leave_relay
        connection.silence.on_silent = self._note_lost
        try:
            async for stream in connection:
                self._streams.start(self._accept_stream(stream), name="dtp-relayed")
        finally:
            renewing.cancel()
            if connection.closed:
                self._note_lost()
        raise DialError(f"relay {self._place.relay.short} has ended the connection")

    def _note_lost(self) -> None:
        if self.on_lost is not None:
            self.on_lost()

    def _leave_relay(self, connection: Connection) -> None:
        """Close a connection to a relay that is about to stop, once no circuit is left: the relay would wait for
        that.
        """
        self._streams.start(_end_when_unused(connection), name="dtp-reservation-leaves")

    async def _request_reservation(self, connection: Connection, wanted: int = 3600) -> int:
        async with asyncio.timeout(PATIENCE):
            stream = await connection.open_stream()
            stream.write(encode(ReachKind.RESERVE, wanted))
            seconds, seen, _, _ = await expect(stream, ReachKind.RESERVED)
            stream.close()
        self.observed = seen
        return int(seconds)

    async def _renew_reservation(self, connection: Connection) -> None:
        try:
            while True:
                seconds = await self._request_reservation(connection)
                await asyncio.sleep(max(1.0, seconds * _RENEW))
        except (DtpError, EOFError, TimeoutError) as error:
            log.info("relay %s gives no more time: %s", self._place.relay.short, error)
            connection.abort()

    async def _accept_stream(self, stream: Stream) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                kind, fields = await read(stream)
            if kind is not ReachKind.INCOMING:
                send_refusal(stream, ReachRefusal.MALFORMED)
                return
            peer, seen = PeerId(fields[0]), fields[1]
            stream.write(encode(ReachKind.ACCEPTED, ""))
        except (DtpError, EOFError, TimeoutError):
            stream.reset(ReachRefusal.MALFORMED)
            return
        if self.on_incoming is not None:
            self.on_incoming(peer, seen)
        remote = f"relay:{self._place.relay.short}:{peer.short}"
        self._accept(StreamCarrier(stream, source=source_of(self._place.relay), remote=remote))

    async def close(self) -> None:
        """Accept no more carriers. The connection to the relay stays while accepted carriers use it."""
        await self._keeping.stop()
        await self._streams.stop()
        if self.on_close is not None:
            self.on_close()
        connection = self.connection
        if connection is not None and not connection.closed:
            has_circuits = connection.stats.streams > 0  # asked now: what follows opens a stream
            with contextlib.suppress(DtpError, EOFError, TimeoutError):
                await self._request_reservation(connection, 0)
            if has_circuits:
                _LINGERING.setdefault(connection.loop, TaskSet(_ignore)).start(
                    _end_when_unused(connection), name="dtp-relay-lingers"
                )
            else:
                await _part(connection)
                await connection.wait_gone()


_LINGERING: WeakKeyDictionary[asyncio.AbstractEventLoop, TaskSet] = WeakKeyDictionary()


async def _end_when_unused(connection: Connection) -> None:
    """Close a connection when its last stream has ended."""
    while not connection.closed and connection.stats.streams:  # noqa: ASYNC110 - no event tells of the last stream
        await asyncio.sleep(1.0)
    await _part(connection)


def source_of(relay: PeerId) -> str:
    """Return the source as which carriers through a relay are counted. The relay limits those who come through it."""
    return f"relay:{relay.short}"


def plain_connect(identity: Identity) -> ConnectRelay:
    """Return a function that connects to relays as `identity`, unpaid."""

    async def connect_relay(address: Address) -> Connection:
        return await connect(address, identity=identity)

    return connect_relay


def relay_kind(identity: Identity, connect_relay: ConnectRelay | None = None) -> CarrierKind:
    """Return the carrier kind with which `identity` is dialled at relays: `listener.add(url,
    relay_kind(identity))`.

    `connect_relay` connects to the relay; by default it is `plain_connect(identity)`.
    """
    through = connect_relay or plain_connect(identity)
    client = RelayClient(through)
    places: set[PeerId] = set()

    async def listen_there(url: str, accept: Accept) -> Reservation:
        place = RelayPlace.parse(url)
        if place.target not in (None, identity.id):
            raise RelayUrlError(f"{url}: the target has to be this identity, {identity.id}")
        if place.relay in places:
            raise ListenError(f"{url}: there is a reservation at this relay already")
        places.add(place.relay)
        reservation = Reservation(place, identity, accept, through)
        reservation.on_close = lambda: places.discard(place.relay)
        try:
            await reservation.start()
        except BaseException:
            places.discard(place.relay)
            raise
        return reservation

    return CarrierKind("relay", client.dial, listen_there)


# ---- by URL alone ------------------------------------------------------------------------------------------

# A program that dials a URL gives no identity, so the relay sees one that was made for this.
_CLIENTS: WeakKeyDictionary[asyncio.AbstractEventLoop, RelayClient] = WeakKeyDictionary()


async def dial(url: str) -> Carrier:
    """Dial a relay URL anonymously. Raise `DialError` or `RelayUrlError`."""
    loop = asyncio.get_running_loop()
    client = _CLIENTS.get(loop)
    if client is None:
        client = _CLIENTS[loop] = RelayClient(plain_connect(Identity.generate()))
    return await client.dial(url)


async def listen(url: str, accept: Accept) -> CarrierListener:
    """Raise `LocalError`: a reservation needs an identity."""
    raise LocalError(
        f"{url}: being dialled at a relay needs an identity: use listener.add(url, relay_kind(identity))"
    )


__all__ = ["RelayClient", "RelayPlace", "Reservation", "dial", "listen", "plain_connect", "relay_kind"]
