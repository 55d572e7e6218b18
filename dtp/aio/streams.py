"""asyncio's own doors, onto DTP: `open_connection` and `start_server`, `create_connection` and `create_server`.

A program that was written for asyncio's functions of these names runs over DTP by changing them: it gets asyncio's
own `StreamReader` and `StreamWriter`, or its own protocols called by a transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypedDict, TypeVar, Unpack

from dtp.aio.transport import StreamTransport
from dtp.errors import LocalError
from dtp.identity import Identity, PeerId
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import connect
from dtp.net.listener import Admit, Handler, Listener, listen
from dtp.net.resolver import Resolver
from dtp.net.stream import Stream
from dtp.session.codes import CloseCode, ConnectionClosed
from dtp.session.handshake import Ticket
from dtp.session.limits import Limits
from dtp.tasks import start_task

P = TypeVar("P", bound=asyncio.BaseProtocol)

#: What is called with each stream that a client opens: a function or a coroutine function, as for asyncio.
ClientConnected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]

#: A `StreamReader` pauses its peer above twice this many bytes, and takes no longer line; asyncio's default.
LIMIT = 64 * 1024


class ConnectOptions(TypedDict, total=False):
    """Options that go on to `dtp.connect`."""

    identity: Identity | None
    service: str | None
    limits: Limits
    psk: bytes | None
    resolvers: Sequence[Resolver] | None
    ticket: Ticket | None
    early: bool


class ListenOptions(TypedDict, total=False):
    """Options that go on to `dtp.listen`."""

    limits: Limits
    psk: bytes | None
    admit: Admit | None


# ---- clients --------------------------------------------------------------------------------------------


async def create_connection(
    protocol_factory: Callable[[], P],
    address: str | Address | Connection,
    **options: Unpack[ConnectOptions],
) -> tuple[StreamTransport, P]:
    """Connect to `address` and let the protocol that `protocol_factory` makes talk over one stream.

    As `loop.create_connection` of asyncio. The connection is made for this stream and ends with it, unless
    `address` is a `Connection`: then the stream is opened on that one, and any number of them share it. `options`
    and errors are those of `dtp.connect`.
    """
    if isinstance(address, Connection):
        if options:
            raise LocalError(f"{', '.join(options)}: the connection is open already; give an address instead")
        return _attach(await address.open_stream(), protocol_factory, owner=False)
    connection = await connect(address, **options)
    with _aborting(connection):
        return _attach(await connection.open_stream(), protocol_factory, owner=True)


@contextmanager
def _aborting(connection: Connection) -> Iterator[None]:
    """Leave no connection behind when what is to be done with it fails or is cancelled."""
    done = False
    try:
        yield
        done = True
    finally:
        if not done:
            connection.abort(CloseCode.INTERNAL)


def _attach(stream: Stream, protocol_factory: Callable[[], P], *, owner: bool) -> tuple[StreamTransport, P]:
    protocol = protocol_factory()
    return StreamTransport(stream, protocol, owner=owner), protocol


async def open_connection(
    address: str | Address | Connection, *, limit: int = LIMIT, **options: Unpack[ConnectOptions]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to `address` and give asyncio's `StreamReader` and `StreamWriter` for one stream.

    As `asyncio.open_connection`. Closing the writer delivers what was written and closes the connection, unless
    `address` is a `Connection`: then the pair is one more stream of it. `limit` (bytes) bounds the reader's buffer
    and its lines; `options` and errors are those of `dtp.connect`. What breaks the stream off later is raised by
    the reader as `StreamReset`, `ConnectionClosed` (both `ConnectionResetError`) or `ConnectionLost`.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit, loop)
    transport, protocol = await create_connection(
        lambda: asyncio.StreamReaderProtocol(reader, loop=loop), address, **options
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


# ---- servers --------------------------------------------------------------------------------------------


def _reader_protocols(
    client_connected_cb: ClientConnected, limit: int
) -> Callable[[], asyncio.StreamReaderProtocol]:
    loop = asyncio.get_running_loop()

    def factory() -> asyncio.StreamReaderProtocol:
        reader = asyncio.StreamReader(limit, loop)
        return asyncio.StreamReaderProtocol(reader, client_connected_cb, loop=loop)

    return factory


class StreamServer(asyncio.AbstractServer):
    """Gives each stream that a client opens a protocol of its own; made by `start_server` and `create_server`.

    It has the manners of asyncio's `Server` as of Python 3.12: `close()` ends the listening and leaves the streams
    that are open, `wait_closed()` waits for their end too, `close_clients()` and `abort_clients()` bring it about.
    `async with` closes and waits.
    """

    def __init__(self, protocol_factory: Callable[[], asyncio.BaseProtocol], service: str) -> None:
        self._protocol_factory = protocol_factory
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._listener: Listener | None = None
        self._transports: dict[Connection, set[StreamTransport]] = {}
        self._closing: asyncio.Task[None] | None = None
        self._serving_forever: asyncio.Future[None] | None = None
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._idle: asyncio.Future[None] | None = None

    async def _start_listening(
        self, urls: str | Sequence[str], identity: Identity, options: ListenOptions
    ) -> StreamServer:
        self._listener = await listen(
            urls, {self._service: self._serve_connection}, identity=identity, **options
        )
        return self

    @property
    def listener(self) -> Listener:
        """The listener below, for its connections and URLs."""
        assert self._listener is not None
        return self._listener

    @property
    def peer(self) -> PeerId:
        """The identity that this server proves."""
        return self.listener.peer

    @property
    def addresses(self) -> list[Address]:
        """What clients dial, one per carrier (asyncio's servers have `sockets` here)."""
        service = "" if self._service == "*" else self._service
        return [Address.direct(self.peer, url, service) for url in self.listener.urls]

    @property
    def address(self) -> Address:
        """The first of `addresses`."""
        return self.addresses[0]

    # ---- connections come in ----------------------------------------------------------------------------

    async def _serve_connection(self, connection: Connection) -> None:
        if self._closing is not None:
            return
        transports = self._transports[connection] = set[StreamTransport]()
        try:
            while True:
                stream = await connection.accept_stream()
                transports.add(StreamTransport(stream, self._protocol_factory(), on_lost=self._on_lost))
        except ConnectionClosed:
            pass  # how every connection ends
        finally:
            if not transports:
                self._transports.pop(connection, None)

    def _on_lost(self, transport: StreamTransport) -> None:
        connection: Connection = transport.get_extra_info("dtp_connection")
        transports = self._transports.get(connection, set())
        transports.discard(transport)
        if not transports and (connection.closed or self._closing is not None):
            self._transports.pop(connection, None)
            connection.abort(CloseCode.SHUTDOWN, "the server closes")
        if not self._transports and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    # ---- asyncio's server -------------------------------------------------------------------------------

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop that it runs on."""
        return self._loop

    def is_serving(self) -> bool:
        """True until `close()`."""
        return self._closing is None

    async def start_serving(self) -> None:
        """Do nothing: it has been serving since it was made."""

    async def serve_forever(self) -> None:
        """Serve until cancelled, or until `close()`; then close and wait for the streams that are open."""
        if self._serving_forever is not None:
            raise LocalError("serve_forever() is running already")
        if self._closing is not None:
            raise LocalError("the server is closed")
        self._serving_forever = self._loop.create_future()
        try:
            await self._serving_forever
        finally:
            self._serving_forever = None
            self.close()
            await self.wait_closed()

    def close(self) -> None:
        """Accept nothing more; streams that are open go on. Idempotent."""
        if self._closing is None:
            self._closing = start_task(self._close_connections(), name="dtp-server-close", loop=self._loop)
            if self._serving_forever is not None and not self._serving_forever.done():
                self._serving_forever.cancel()

    async def _close_connections(self) -> None:
        for connection, transports in list(self._transports.items()):
            if not transports:
                self._transports.pop(connection)
                connection.abort(CloseCode.SHUTDOWN, "the server closes")
        try:
            await self.listener.close(grace=None)
            while self._transports:
                self._idle = self._loop.create_future()
                await self._idle
        finally:
            self._finished.set_result(None)

    def close_clients(self) -> None:
        """Close the transports of all streams that are open: what was written is delivered."""
        for transport in self._open_transports():
            transport.close()

    def abort_clients(self) -> None:
        """Abort the transports of all streams that are open."""
        for transport in self._open_transports():
            transport.abort()

    def _open_transports(self) -> list[StreamTransport]:
        return [transport for transports in self._transports.values() for transport in transports]

    async def wait_closed(self) -> None:
        """Wait until it is closed and the last stream has ended."""
        await asyncio.shield(self._finished)

    async def __aexit__(self, *exc: object) -> None:
        self.close()
        await self.wait_closed()


async def create_server(
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    urls: str | Sequence[str],
    *,
    identity: Identity,
    service: str = "",
    **options: Unpack[ListenOptions],
) -> StreamServer:
    """Listen at carrier URLs such as `tcp://127.0.0.1:9000`; a protocol for each stream that a client opens.

    As `loop.create_server` of asyncio. `service` is the name that clients have to ask for, `"*"` takes any.
    `options` and errors are those of `dtp.listen`.
    """
    return await StreamServer(protocol_factory, service)._start_listening(urls, identity, options)


async def start_server(
    client_connected_cb: ClientConnected,
    urls: str | Sequence[str],
    *,
    identity: Identity,
    service: str = "",
    limit: int = LIMIT,
    **options: Unpack[ListenOptions],
) -> StreamServer:
    """Listen at carrier URLs and call `client_connected_cb(reader, writer)` for each stream that a client opens.

    As `asyncio.start_server`; for the rest see `create_server`. `limit` (bytes) bounds each reader's buffer.
    """
    factory = _reader_protocols(client_connected_cb, limit)
    return await create_server(factory, urls, identity=identity, service=service, **options)


def stream_handler(client_connected_cb: ClientConnected, *, limit: int = LIMIT) -> Handler:
    """Return `client_connected_cb(reader, writer)` as one of several services of `dtp.listen`."""

    async def serve(connection: Connection) -> None:
        factory = _reader_protocols(client_connected_cb, limit)
        while not connection.closed:
            try:
                _attach(await connection.accept_stream(), factory, owner=False)
            except ConnectionClosed:
                return

    return serve
