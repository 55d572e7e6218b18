"""Listening: carriers come in, prove who they are, and become connections for the service they name."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, Protocol, TypeVar

from dtp import carriers
from dtp.carriers.base import Carrier, CarrierKind, CarrierListener
from dtp.carriers.crowd import descriptors_of_process
from dtp.errors import CarrierError, LocalError
from dtp.identity import Identity, PeerId
from dtp.net.address import Address, check_service
from dtp.net.connection import HEARD, LINGER, Connection
from dtp.net.dial import suites
from dtp.net.driver import LinkDriver
from dtp.net.held import BudgetHolder, HeldBudget
from dtp.net.parts.half_open import Crowded as Crowded
from dtp.net.parts.half_open import HalfOpen
from dtp.net.parts.places import Places
from dtp.net.presence import SERVICE as PRESENCE
from dtp.net.presence import Announcing
from dtp.session.codes import CloseCode, CloseDetail, ConnectionClosed, Refusal
from dtp.session.codes import Refuse as Refuse
from dtp.session.exchange import Exchanges
from dtp.session.handshake import Established, HandshakeConfig, ServerHandshake
from dtp.session.limits import DEFAULT, Limits
from dtp.session.session import Session
from dtp.tasks import TaskSet

log = logging.getLogger("dtp.net")

#: Connections that one newcomer ends at most: some of those that were idle longest wait to be resumed, and have no
#: descriptor.
MOST_ENDED: Final = 32

L = TypeVar("L", bound=CarrierListener)

#: Serves one connection; when it returns, the connection is closed.
Handler = Callable[[Connection], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Request:
    """Someone who has proven an identity asks for a service. `ticket` is opaque and bound to `binding`.

    `again` is True for one who was let in before and comes over another carrier: the rest is what it was then,
    `source` apart. What counts those who come shouldn't count it."""

    peer: PeerId
    service: str
    ticket: bytes
    binding: bytes
    source: str
    again: bool = False


#: Looks at a request and raises `Refuse`, or lets it pass. May be a coroutine function. What it gives is the
#: connection's `admission`, but for requests that come again.
Admit = Callable[[Request], Awaitable[object] | object]


#: Told where a carrier came from that came to nothing, and why: `Crowded`, `HandshakeError`, or `CarrierError` where
#: the other side broke off.
OnFailed = Callable[[str, Exception], object]


class Neighbours(Protocol):
    """Other processes that listen at the same places, for the same identity.

    Whoever dials can't choose among them, so a carrier that is to resume a connection may come to one that doesn't
    have it.
    """

    def note_opened(self, connection_id: bytes) -> None:
        """Note that a connection of this id lives here."""

    def note_closed(self, connection_id: bytes) -> None:
        """Note that it is over."""

    def takes_over(self, driver: LinkDriver, established: Established) -> bool:
        """True if another one may be meant, which is seen to from here on: `give_back` if there is none."""


def _log_failed(source: str, error: Exception) -> None:
    log.info("handshake with %s failed: %s", source, error)


class Listener:
    """Accepts connections for one identity. `async with` closes it.

    With `services`, each connection goes to the handler of the service it names (`""` is the default one, `"*"`
    takes any) in a task of its own; without, `accept()` gives the connections.
    """

    def __init__(
        self,
        endpoint: HandshakeConfig,
        services: Mapping[str, Handler] | None,
        admit: Admit | None,
        make: type[Connection] = Connection,
        neighbours: Neighbours | None = None,
        on_failed: OnFailed | None = None,
    ) -> None:
        self._neighbours = neighbours
        self._say_failed = on_failed or _log_failed
        self._endpoint = endpoint
        self._make = make
        self._limits = endpoint.limits
        self._exchanges = Exchanges(endpoint.identity, os.urandom)
        self._services = services
        self._admit = admit
        self._listeners: list[CarrierListener] = []
        self._connections: dict[bytes, Connection] = {}
        #: What is kept for all who came in here; see `Limits.held`.
        self.held = HeldBudget[BudgetHolder](endpoint.limits.held, self._end_greedy)
        self._accepted: deque[Connection] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._tasks = TaskSet()
        self._loop = asyncio.get_running_loop()
        #: Who has proven itself, and has a place.
        self._places = Places[Connection](endpoint.limits.connections)
        self._giving = 0  # connections that are told that their place goes
        #: Connections that have ended and whose other side hasn't left yet: each has a descriptor.
        self._leaving: dict[Connection, None] = {}
        #: Carriers whose handshake isn't over.
        self.half_open = HalfOpen(endpoint.limits, self._loop)
        self._closed = False
        #: Called with a connection on whose carriers nothing answers any more.
        self.on_silent: Callable[[Connection], object] | None = None
        #: What it says of itself to whoever asks for `dtp.net.presence.SERVICE`; None where it says nothing.
        self.presence: Announcing | None = Announcing(endpoint.identity)

    @property
    def peer(self) -> PeerId:
        """The identity that this listener proves."""
        return self._endpoint.identity.id

    @property
    def urls(self) -> list[str]:
        """The carriers' URLs, with real ports."""
        return [url for listener in self._listeners for url in listener.urls]

    @property
    def addresses(self) -> list[Address]:
        """What others dial, one per carrier, for the default service."""
        return [Address.direct(self.peer, url) for url in self.urls]

    def address(self, service: str = "") -> Address:
        """Return the first address, for a service."""
        return Address.direct(self.peer, self.urls[0], service)

    @property
    def connections(self) -> list[Connection]:
        """The connections that are open or wait to be resumed."""
        return list(self._connections.values())

    def has_connection(self, connection_id: bytes) -> bool:
        """Return whether one of this id is open or waits to be resumed."""
        return connection_id in self._connections

    async def accept(self) -> Connection:
        """Return the next connection (without `services`). `LocalError` once the listener is closed."""
        while not self._accepted:
            if self._closed:
                raise LocalError("the listener is closed")
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._accepted.popleft()

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Connection:
        try:
            return await self.accept()
        except LocalError:
            raise StopAsyncIteration from None

    async def add(self, url: str, kind: CarrierKind | None = None) -> None:
        """Listen at one more carrier URL, such as `tcp://[::]:9000`; with `kind`, by that kind of carrier."""
        listen = carriers.listen if kind is None else kind.listen
        self._listeners.append(await listen(url, self._on_carrier))

    def add_socket(self, sock: socket.socket, url: str | None = None) -> None:
        """Listen on a socket that is bound and listening already; see `dtp.carriers.listen_socket`."""
        self._listeners.append(carriers.listen_socket(sock, self._on_carrier, url))

    @property
    def socket_listeners(self) -> list[CarrierListener]:
        """Those of its carriers' listeners that have sockets, for handing copies to another process."""
        return [one for one in self._listeners if one.sockets]

    def listeners_of(self, kind: type[L]) -> list[L]:
        """Return those of its carriers' listeners that are of this class, in the order in which they were added."""
        return [one for one in self._listeners if isinstance(one, kind)]

    async def remove(self, url: str) -> None:
        """Listen no more where one of `urls` says; the connections that came in there live on."""
        for listener in [one for one in self._listeners if url in one.urls]:
            self._listeners.remove(listener)
            await listener.close()

    # ---- carriers come in -------------------------------------------------------------------------------

    def _on_carrier(self, carrier: Carrier) -> None:
        self._make_leave(carrier.descriptor)
        handshake = ServerHandshake(self._endpoint, os.urandom)
        driver = LinkDriver(
            self._loop,
            carrier,
            handshake,
            self._on_established,
            self._on_failed,
            self.half_open.forget_driver,
        )
        if not self._limits.connections or not self.half_open.make_room(carrier.source):
            self._say_failed(carrier.source, Crowded("too many half-open or open connections"))
            # Where a pre-shared key is wanted nobody hears anything without it.
            driver.refuse_handshake(Refusal.BUSY if self._endpoint.psk is None else None)
            return
        self.half_open.add_driver(driver)
        driver.start_carrier()

    def _on_failed(self, driver: LinkDriver, error: Exception) -> None:
        self._say_failed(driver.carrier.source, error)

    def _on_established(self, driver: LinkDriver, established: Established) -> None:
        if self._closed:
            driver.abort_carrier(CarrierError("the listener is closed"))
            return
        if self._is_for_another(driver, established):
            return
        self._take_established(driver, established)

    def _is_for_another(self, driver: LinkDriver, established: Established) -> bool:
        here = self.has_connection(established.payload.resume)
        return self._neighbours is not None and not here and self._neighbours.takes_over(driver, established)

    def give_back(self, driver: LinkDriver, established: Established) -> None:
        """Take up whoever has finished this handshake here, and nowhere else: a neighbour was asked meanwhile."""
        self._take_established(driver, established)
        driver.take_waiting()

    def _take_established(self, driver: LinkDriver, established: Established) -> None:
        """Let whoever has finished this handshake in, or on with a connection that is here."""
        if established.payload.resume:
            self._resume_connection(driver, established)
            return
        session = Session(
            established, self._limits, self._loop.time(), client=False, exchanges=self._exchanges
        )
        connection = self._make(session, driver, self._loop, None)
        self._connections[session.connection_id] = connection
        connection.keep_within(self.held)
        connection.add_end_callback(lambda: self._forget_connection(session.connection_id))
        connection.silence.on_silent = lambda: self._tell_silent(connection)
        if self._neighbours is not None:
            self._neighbours.note_opened(session.connection_id)
        # The first message of IK may be a recorded one that is sent again. So until a record has come, which only the
        # holder of the keys can seal, nobody is asked about it, and no answer depends on what it says.
        connection.callbacks.on_confirmed = lambda _: self._decide_admission(driver, connection, established)

    def _tell_silent(self, connection: Connection) -> None:
        if self.on_silent is not None:
            self.on_silent(connection)

    def _end_greedy(self, connection: BudgetHolder, size: int) -> None:
        why = f"{size >> 10} KiB were kept for it, unread or not acknowledged, and others need room"
        log.info("%r from %s: %s", connection, connection.source, why)
        self._loop.call_soon(connection.abort, CloseCode.LIMIT, why)

    def _take_place(self, carrier: Carrier, connection: Connection) -> None:
        """Give a connection that has come by `carrier` its place, and end others where places are short. Where all
        that could go are at work this one ends."""
        places = self._places
        strangers = len(self.half_open) + len(self._leaving)
        places.note_descriptor(carrier.descriptor, strangers, self._loop.time())
        ended = 0
        while places.are_full and len(places) and ended < MOST_ENDED:
            idlest = places.find_idlest(connection.source)
            if idlest is None and not ended:
                self._turn_away(connection, CloseCode.BUSY, "all places are at work", CloseDetail.ALL_AT_WORK)
                return
            if idlest is None:
                break
            ended += 1
            places.discard(idlest)
            log.info("%r from %s: others need its place", idlest, idlest.source)
            self._start_task(self._end_idlest(idlest))
        places.add(connection)

    async def _end_idlest(self, idlest: Connection) -> None:
        """End one whose place was given to another. What it is being asked in this moment is answered yet, of some at
        a time."""
        if not idlest.at_work and self._giving < self._places.spare:
            self._giving += 1
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEARD):
                        await idlest.go_away()
            finally:
                self._giving -= 1
            if idlest.at_work and not idlest.closed and self._places.have_spare:
                self._places.add(idlest)
                return
        why = "others need its place, and nothing has moved on it for longest"
        idlest.abort(CloseCode.BUSY, why, detail=CloseDetail.PLACE_GIVEN)
        await idlest.wait_gone(HEARD)

    def _turn_away(
        self, connection: Connection, code: int, reason: str, detail: int = CloseDetail.NONE
    ) -> None:
        """Let somebody not in, and say why."""
        connection.abort(code, reason, detail=detail)

    def _let_leave(self, connection: Connection) -> None:
        """Wait for the other side of one that has ended to leave: a second where it has said CLOSE, and needs to hear
        nothing more."""
        if self._closed:  # `close` does
            return
        ended = connection.ended_by
        by_peer = isinstance(ended, ConnectionClosed) and ended.by_peer
        self._leaving[connection] = None
        self._start_task(self._wait_gone(connection, HEARD if by_peer else LINGER))

    async def _wait_gone(self, connection: Connection, seconds: float) -> None:
        try:
            await connection.wait_gone(seconds)
        finally:
            self._leaving.pop(connection, None)

    def _make_leave(self, descriptor: int) -> None:
        """Cut off, where a carrier that comes by this descriptor finds few left, those that have ended and whose
        other side stays, the first first: who closes connections and stays on would keep everybody out, or take the
        places of those that are open."""
        most, reserve = descriptors_of_process()
        beyond = descriptor - len(self.half_open) - (most - reserve)
        for connection in list(islice(self._leaving, max(0, beyond + 1))):
            del self._leaving[connection]
            self._start_task(connection.wait_gone(0.0))

    def _forget_connection(self, connection_id: bytes) -> None:
        connection = self._connections.pop(connection_id)
        self._let_leave(connection)
        self._places.discard(connection)
        if self._neighbours is not None:
            self._neighbours.note_closed(connection_id)

    def adopt_carrier(
        self, carrier: Carrier, established: Established, unsent: bytes, received: bytes
    ) -> None:
        """Take a carrier whose handshake was done by a neighbour; see `LinkDriver.adopt_carrier`."""
        driver = LinkDriver(
            self._loop, carrier, None, self._on_established, self._on_failed, self.half_open.forget_driver
        )
        self.half_open.add_driver(driver)
        driver.adopt_carrier(established, unsent, received)

    def _resume_connection(self, driver: LinkDriver, established: Established) -> None:
        """Someone wants to go on with a connection: let its session check the proof."""
        now = self._loop.time()
        connection = self._connections.get(established.payload.resume)
        if connection is None or connection.peer != established.peer:
            session = Session(established, self._limits, now, client=False)
            unknown = Connection(session, driver, self._loop, None)
            unknown.add_end_callback(lambda: self._let_leave(unknown))
            unknown.refuse_once_confirmed(CloseCode.RESUME_UNKNOWN, "no such connection, or it was given up")
            return
        connection.join_carrier(driver, established)

    # ---- admission --------------------------------------------------------------------------------------

    def _decide_admission(self, driver: LinkDriver, connection: Connection, established: Established) -> None:
        if connection.closed:
            return
        self._take_place(driver.carrier, connection)
        payload = established.payload
        if connection.closed:
            return
        if payload.service == PRESENCE and self.presence is not None:
            # It never comes to a program's handler, whatever `admit` would say of it.
            self._let_in(connection)
            return
        if payload.service == PRESENCE:
            self._turn_away(connection, CloseCode.UNKNOWN_SERVICE, "nothing is said of presence here")
            return
        request = Request(
            established.peer, payload.service, payload.ticket, established.binding, driver.carrier.source
        )
        if self._find_handler(payload.service) is None and self._services is not None:
            names = ", ".join(repr(name) for name in self._services) or "none"
            log.info(
                "%s asked for unknown service %r (there are %s)", request.peer.short, request.service, names
            )
            self._turn_away(connection, CloseCode.UNKNOWN_SERVICE, f"no service {payload.service!r} here")
            return
        if self._admit is None:
            self._let_in(connection)
            return
        connection.callbacks.on_further_carrier = lambda carrier: self._ask_again(
            connection, request, carrier.source
        )
        self._ask_admit(self._admit, connection, request)

    def _ask_again(self, connection: Connection, request: Request, source: str) -> None:
        """Ask again whether the peer is welcome: a carrier from there has proven to belong to its connection."""
        if self._admit is not None and connection.admitted:
            self._ask_admit(self._admit, connection, replace(request, source=source, again=True))

    def _ask_admit(self, admit: Admit, connection: Connection, request: Request) -> None:
        try:
            verdict = admit(request)
        except Exception as error:  # noqa: BLE001 - see `_refuse_connection`
            self._refuse_connection(connection, error)
            return
        if inspect.isawaitable(verdict):
            self._start_task(connection.count_work(self._decide_later(connection, request, verdict)))
        else:
            self._handle_verdict(connection, request, verdict)

    async def _decide_later(
        self, connection: Connection, request: Request, verdict: Awaitable[object]
    ) -> None:
        try:
            decided = await verdict
        except Exception as error:  # noqa: BLE001 - see `_refuse_connection`
            self._refuse_connection(connection, error)
            return
        self._handle_verdict(connection, request, decided)

    def _handle_verdict(self, connection: Connection, request: Request, verdict: object) -> None:
        if not connection.closed and not request.again:
            connection.admission = verdict
            self._let_in(connection)

    def _refuse_connection(self, connection: Connection, error: Exception) -> None:
        """Refuse by what `admit` raised. It is foreign code, as a handler is: a bug of it lets nobody in, keeps
        nobody waiting, and is told."""
        if isinstance(error, Refuse):
            self._turn_away(connection, error.code, error.reason, error.detail)
            return
        self._loop.call_exception_handler(
            {"message": f"admission to service {connection.service!r} failed", "exception": error}
        )
        self._turn_away(connection, CloseCode.INTERNAL, "")

    def _let_in(self, connection: Connection) -> None:
        connection.admit()
        handler = self._find_handler(connection.service)
        if handler is not None:
            self._start_task(connection.count_work(self._serve_connection(connection, handler)))
        else:
            self._accepted.append(connection)
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    def _find_handler(self, service: str) -> Handler | None:
        if service == PRESENCE:
            return self._answer_presence
        if self._services is None:
            return None
        return self._services.get(service) or self._services.get("*")

    async def _answer_presence(self, connection: Connection) -> None:
        if self.presence is not None:
            await self.presence.answer_connection(connection)

    async def _serve_connection(self, connection: Connection, handler: Handler) -> None:
        try:
            await handler(connection)
        except* (ConnectionError, EOFError) as errors:
            # The peer or the network ended it while the handler was at work: everyday, and not the handler's fault.
            log.info("%r: %s", connection, errors.exceptions[0])
        except* Exception as errors:  # noqa: BLE001 - a handler is foreign code: its bug must not stop the listener
            self._loop.call_exception_handler(
                {"message": f"handler of service {connection.service!r} failed", "exception": errors}
            )
            connection.abort(CloseCode.INTERNAL)
        await connection.close()

    def _start_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._tasks.start(coroutine, name="dtp-listener")

    # ---- the end ----------------------------------------------------------------------------------------

    async def close(self, *, grace: float | None = 0.0) -> None:
        """Stop accepting. Connections may finish for `grace` seconds (None: for as long as their handlers take),
        then they are closed. Idempotent."""
        self._closed = True
        for listener in self._listeners:
            await listener.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        for driver in self.half_open:
            if driver.connection is None:
                driver.abort_carrier(CarrierError("the listener is closed"))
        connections = self.connections
        if grace != 0:
            await asyncio.gather(*(each.go_away() for each in connections if not each.closed))
        if grace != 0 and self._tasks:
            await asyncio.wait(list(self._tasks), timeout=grace)
        for connection in connections:
            connection.abort(CloseCode.SHUTDOWN, "the listener closes")
        await self._tasks.stop()
        await asyncio.gather(*(connection.wait_gone() for connection in connections))

    async def __aenter__(self) -> Listener:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self.close()


async def listen(
    urls: str | Sequence[str],
    services: Handler | Mapping[str, Handler] | None = None,
    *,
    identity: Identity,
    limits: Limits = DEFAULT,
    psk: bytes | None = None,
    admit: Admit | None = None,
    make: type[Connection] = Connection,
    neighbours: Neighbours | None = None,
    on_failed: OnFailed | None = None,
) -> Listener:
    """Listen at carrier URLs such as `tcp://0.0.0.0:9000`, `unix:///run/me.sock`, `ws://127.0.0.1:8080/dtp`.

    `services` maps service names to handlers (coroutine functions of a `Connection`); one handler alone takes
    every service; without, take connections from `Listener.accept()`. With `psk` (32 bytes) only clients that
    have it are heard. `admit` sees each `Request` and refuses by raising `Refuse`. `make` is the class of the
    connections; `neighbours` are other processes at the same places; `on_failed` hears of carriers that came to
    nothing, which are logged otherwise.

    Raises `ListenError` when an address can't be had, another `LocalError` for a URL that can't be meant,
    `AddressError` for what can't name a service, and `ChainError` for a pipe whose host can't be read.
    """
    handlers = {"*": services} if callable(services) else services
    for name, handler in (handlers or {}).items():
        check_service(name)
        if not callable(handler):
            raise TypeError(f"the handler of {name!r} has to be a coroutine function, not {handler!r}")
    listener = Listener(
        HandshakeConfig(identity, suites(), limits, psk=psk), handlers, admit, make, neighbours, on_failed
    )
    try:
        for url in [urls] if isinstance(urls, str) else urls:
            await listener.add(url.removeprefix("dtp+"))
    except BaseException:  # whatever it was: nothing stays open
        await listener.close()
        raise
    return listener
