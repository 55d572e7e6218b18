"""Everything that is read and written like asyncio's streams: those themselves, with TLS, aioquic's, and DTP's.

The workloads are written once against reader and writer; a `Wire` says how to listen and to connect.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, ClassVar, Protocol

from bench.contenders import certificates
from bench.job import (
    ACK,
    READ,
    SMALL,
    Job,
    Meter,
    Progress,
    Ready,
    Result,
    congestion_of,
    latencies,
    resident,
)

#: Connections made at a time, so that the time of one is used by others: below the limits of every listener.
AT_ONCE = 8
#: Seconds in which what a connection leaves to be done later is done, before memory is looked at.
SETTLE = 1.0


class Reader(Protocol):
    """What is used of `asyncio.StreamReader`."""

    async def read(self, n: int, /) -> bytes: ...
    async def readexactly(self, n: int, /) -> bytes: ...


class Writer(Protocol):
    """What is used of `asyncio.StreamWriter`."""

    def write(self, data: bytes, /) -> None: ...
    async def drain(self) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...


#: Serves one stream.
OnStream = Callable[[Reader, Writer], Coroutine[Any, Any, None]]
#: Told of every connection.
OnConnection = Callable[[], None]


class Wire(ABC):
    """How one variant listens and connects. `facts` go into the numbers of its side."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.facts: Result = {}

    @abstractmethod
    async def listen(self, on_stream: OnStream, on_connection: OnConnection) -> dict[str, object]:
        """Listen; gives what the client has to know."""

    @abstractmethod
    async def connect(self, where: dict[str, Any]) -> Any:
        """One connection."""

    @abstractmethod
    async def open(self, connection: Any) -> tuple[Reader, Writer]:
        """A stream of a connection."""

    @abstractmethod
    async def hang_up(self, connection: Any) -> None:
        """End a connection."""

    #: Whether one connection has several streams.
    multiplexes: ClassVar[bool] = True

    @contextlib.asynccontextmanager
    async def pairs(self, where: dict[str, Any], count: int) -> AsyncIterator[list[tuple[Reader, Writer]]]:
        """`count` streams; of one connection where it has streams, else of as many."""
        connections = [await self.connect(where) for _ in range(1 if self.multiplexes else count)]
        yield [await self.open(connections[i % len(connections)]) for i in range(count)]
        for connection in connections:
            await self.hang_up(connection)

    @abstractmethod
    async def close(self) -> None:
        """Stop listening."""


class AsyncioWire(Wire):
    """asyncio's own streams: "raw", "tls", "tls-mutual"."""

    multiplexes = False
    server: asyncio.Server

    def _context(self, *, server: bool) -> ssl.SSLContext | None:
        if self.job.variant == "raw":
            return None
        mutual = self.job.variant == "tls-mutual"
        return certificates.context(self.job.scratch, server=server, mutual=mutual)

    async def listen(self, on_stream: OnStream, on_connection: OnConnection) -> dict[str, object]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            on_connection()
            await on_stream(reader, writer)

        self.server = await asyncio.start_server(
            serve, "127.0.0.1", 0, ssl=self._context(server=True), backlog=1024
        )
        self.facts["congestion"] = congestion_of(self.server.sockets[0])
        return {"port": self.server.sockets[0].getsockname()[1]}

    async def connect(self, where: dict[str, Any]) -> Any:
        tls = self._context(server=False)
        pair = await asyncio.open_connection(
            "127.0.0.1", where["port"], ssl=tls, server_hostname=certificates.HOST if tls else None
        )
        if tls is not None:
            self.facts["cipher"] = pair[1].get_extra_info("cipher")[0]
        return pair

    async def open(self, connection: Any) -> tuple[Reader, Writer]:
        reader, writer = connection
        return reader, writer

    async def hang_up(self, connection: Any) -> None:
        writer = connection[1]
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    async def close(self) -> None:
        self.server.close()


class DtpWire(Wire):
    """DTP's `Connection` and `Stream`: "dtp", "dtp-chacha", "dtp-xx"."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        from dtp.identity import Identity

        self._me = Identity.generate()

    async def listen(self, on_stream: OnStream, on_connection: OnConnection) -> dict[str, object]:
        import dtp

        async def serve(connection: dtp.Connection) -> None:
            on_connection()
            tasks: list[asyncio.Task[None]] = []
            with contextlib.suppress(dtp.ConnectionClosed):
                while True:
                    stream = await connection.accept_stream()
                    tasks.append(asyncio.create_task(on_stream(stream, stream)))
            await asyncio.gather(*tasks)

        self.listener = await dtp.listen("tcp://127.0.0.1:0", serve, identity=self._me)
        return {"address": str(self.listener.address())}

    async def connect(self, where: dict[str, Any]) -> Any:
        from dtp.net import dial
        from dtp.net.address import Address
        from dtp.net.static_keys import KNOWN, StaticKeys
        from dtp.session.handshake import HandshakeConfig
        from dtp.session.noise import Suite

        target = Address.parse(where["address"])
        suites = dial.suites()
        if self.job.variant == "dtp-chacha":
            suites = (Suite.CHACHAPOLY_SHA256,)
        known = StaticKeys() if self.job.variant == "dtp-xx" else KNOWN
        dialer = dial.Dialer(target, HandshakeConfig(self._me, suites), target.service, (), known=known)
        connection = await dialer.connect()
        self.facts |= _dtp_facts(connection)
        return connection

    async def open(self, connection: Any) -> tuple[Reader, Writer]:
        stream = await connection.open_stream()
        return stream, stream

    async def hang_up(self, connection: Any) -> None:
        await connection.close()

    async def close(self) -> None:
        await self.listener.close()


def _dtp_facts(connection: Any) -> Result:
    """The cipher with its provider, and the congestion control of the carrier, which has no public name."""
    from dtp.core import providers

    cipher = connection.stats.cipher
    carrier = connection._drivers[0].carrier if connection._drivers else None
    return {
        "cipher": f"{cipher} by {providers()[cipher]}",
        "congestion": congestion_of(getattr(carrier, "_sock", None)),
    }


class DtpOpenWire(Wire):
    """DTP behind asyncio's `StreamReader` and `StreamWriter`: "dtp-open"."""

    multiplexes = False

    async def listen(self, on_stream: OnStream, on_connection: OnConnection) -> dict[str, object]:
        import dtp

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            on_connection()
            await on_stream(reader, writer)

        self.server = await dtp.start_server(serve, "tcp://127.0.0.1:0", identity=dtp.Identity.generate())
        return {"address": str(self.server.address)}

    async def connect(self, where: dict[str, Any]) -> Any:
        import dtp

        pair = await dtp.open_connection(where["address"])
        self.facts |= _dtp_facts(pair[1].get_extra_info("dtp_connection"))
        return pair

    async def open(self, connection: Any) -> tuple[Reader, Writer]:
        reader, writer = connection
        return reader, writer

    async def hang_up(self, connection: Any) -> None:
        connection[1].close()
        await connection[1].wait_closed()

    async def close(self) -> None:
        self.server.close()
        await self.server.wait_closed()


class QuicWire(Wire):
    """aioquic's streams. It has no back-pressure: what is written waits in memory."""

    def _configuration(self, *, client: bool) -> Any:
        from aioquic.quic.configuration import QuicConfiguration

        made = QuicConfiguration(is_client=client, alpn_protocols=["bench"], server_name=certificates.HOST)
        if client:
            made.load_verify_locations(f"{self.job.scratch}/cert.pem")
        else:
            made.load_cert_chain(f"{self.job.scratch}/cert.pem", f"{self.job.scratch}/key.pem")
        return made

    async def listen(self, on_stream: OnStream, on_connection: OnConnection) -> dict[str, object]:
        from aioquic.asyncio.server import serve

        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.get_running_loop().create_task(on_stream(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        self.server = await serve(
            "127.0.0.1", 0, configuration=self._configuration(client=False), stream_handler=accept
        )
        transport: Any = self.server._transport
        return {"port": transport.get_extra_info("sockname")[1]}

    async def connect(self, where: dict[str, Any]) -> Any:
        from aioquic.asyncio.client import connect

        self.stack = contextlib.AsyncExitStack()
        return await self.stack.enter_async_context(
            connect("127.0.0.1", where["port"], configuration=self._configuration(client=True))
        )

    async def open(self, connection: Any) -> tuple[Reader, Writer]:
        reader, writer = await connection.create_stream()
        writer.write(b"")  # only now the number is taken, which the next stream would get otherwise
        return reader, writer

    async def hang_up(self, connection: Any) -> None:
        await self.stack.aclose()

    async def close(self) -> None:
        self.server.close()


_WIRES: dict[str, type[Wire]] = {
    "raw": AsyncioWire,
    "tls": AsyncioWire,
    "tls-mutual": AsyncioWire,
    "dtp": DtpWire,
    "dtp-chacha": DtpWire,
    "dtp-xx": DtpWire,
    "dtp-open": DtpOpenWire,
    "quic": QuicWire,
}


# ---- the server's side ----------------------------------------------------------------------------------------


class Service:
    """The server's side of a workload. `finished` is set when it has its numbers and the client has gone."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.meter = Meter()
        self.finished = asyncio.Event()
        self.numbers: Result = {}

    async def stream(self, reader: Reader, writer: Writer) -> None:
        """Serve one stream."""
        raise NotImplementedError

    def connection(self) -> None:
        """There is one more connection."""


class SinkService(Service):
    """ "bulk" and "messages": reads everything, says ACK behind the warm-up and behind the rest."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._progress = Progress(job.streams, self.meter)

    async def stream(self, reader: Reader, writer: Writer) -> None:
        await _discard(reader, self.job.warm_per_stream)
        self._progress.warmed()
        writer.write(ACK)
        await _discard(reader, self.job.per_stream)
        self._progress.done()
        writer.write(ACK)
        await _until_end(reader)
        writer.close()
        if self._progress.ended():
            self.numbers = self.meter.result
            self.finished.set()


class EchoService(Service):
    """ "roundtrip": answers requests of one size."""

    async def stream(self, reader: Reader, writer: Writer) -> None:
        for count in (self.job.warm_count, self.job.count):
            self.meter.start()
            for _ in range(count):
                writer.write(await reader.readexactly(SMALL))
                await writer.drain()
            self.meter.stop()
        self.numbers = self.meter.result
        await _until_end(reader)
        writer.close()
        self.finished.set()


class DialService(Service):
    """ "dial": one byte back on each of many connections."""

    _left = -1

    async def stream(self, reader: Reader, writer: Writer) -> None:
        if self._left < 0:
            self._left = self.job.warm_count + self.job.count
        writer.write(await reader.readexactly(1))
        await _until_end(reader)
        writer.close()
        self._left -= 1
        if self._left == self.job.count:
            self.meter.start()
        if not self._left:
            self.meter.stop()
            self.numbers = self.meter.result
            self.finished.set()


class IdleService(Service):
    """ "idle": looks at its memory before and after many connections."""

    _have = 0
    _before = 0

    def connection(self) -> None:
        self._have += 1
        if self._have == self.job.warm_count:
            asyncio.get_running_loop().call_later(SETTLE / 2, self._first)
        if self._have == self.job.warm_count + self.job.count:
            asyncio.get_running_loop().call_later(SETTLE, self._second)

    def _first(self) -> None:
        self._before = resident()

    def _second(self) -> None:
        self.numbers = {"memory": resident() - self._before}
        self.finished.set()

    async def stream(self, reader: Reader, writer: Writer) -> None:
        await _until_end(reader)
        writer.close()


_SERVICES: dict[str, type[Service]] = {
    "bulk": SinkService,
    "messages": SinkService,
    "roundtrip": EchoService,
    "dial": DialService,
    "idle": IdleService,
}


async def _discard(reader: Reader, size: int) -> None:
    while size > 0:
        data = await reader.read(READ)
        if not data:
            raise EOFError(f"the stream ended {size} bytes early")
        size -= len(data)


async def _until_end(reader: Reader) -> None:
    """A client that hangs up is all the same, however it does."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while await reader.read(READ):
            pass


def serve(job: Job, ready: Ready) -> Result:
    """The server's side."""
    return asyncio.run(_serve(job, ready))


async def _serve(job: Job, ready: Ready) -> Result:
    service = _SERVICES[job.workload](job)
    wire = _WIRES[job.variant](job)
    ready(await wire.listen(service.stream, service.connection))
    await service.finished.wait()
    await wire.close()
    return service.numbers | wire.facts


# ---- the client's side ----------------------------------------------------------------------------------------


def drive(job: Job, where: dict[str, Any]) -> Result:
    """The client's side."""
    return asyncio.run(_drive(job, where))


async def _drive(job: Job, where: dict[str, Any]) -> Result:
    wire = _WIRES[job.variant](job)
    return await _DRIVERS[job.workload](wire, job, where) | wire.facts


async def _transfer(pair: tuple[Reader, Writer], piece: bytes, size: int) -> None:
    reader, writer = pair
    for _ in range(size // len(piece)):
        writer.write(piece)
        await writer.drain()
    if size % len(piece):
        writer.write(piece[: size % len(piece)])
    await reader.readexactly(1)


async def _send(wire: Wire, job: Job, where: dict[str, Any]) -> Result:
    piece = bytes(SMALL) if job.workload == "messages" else bytes(job.chunk)
    meter = Meter()
    async with wire.pairs(where, job.streams) as pairs:
        await asyncio.gather(*(_transfer(pair, piece, job.warm_per_stream) for pair in pairs))
        meter.start()
        await asyncio.gather(*(_transfer(pair, piece, job.per_stream) for pair in pairs))
        meter.stop()
    return meter.result


async def _ask(wire: Wire, job: Job, where: dict[str, Any]) -> Result:
    question = bytes(SMALL)
    times: list[int] = []
    meter = Meter()
    async with wire.pairs(where, 1) as [(reader, writer)]:
        for count in (job.warm_count, job.count):
            meter.start()
            times.clear()
            for _ in range(count):
                asked = time.perf_counter_ns()
                writer.write(question)
                await writer.drain()
                await reader.readexactly(SMALL)
                times.append(time.perf_counter_ns() - asked)
            meter.stop()
    return meter.result | latencies(times)


async def _dial(wire: Wire, job: Job, where: dict[str, Any]) -> Result:
    async def once() -> None:
        connection = await wire.connect(where)
        reader, writer = await wire.open(connection)
        writer.write(ACK)
        await reader.readexactly(1)
        writer.close()
        await wire.hang_up(connection)

    meter = Meter()
    for count in (job.warm_count, job.count):
        meter.start()
        await _repeat(once, count)
        meter.stop()
    return meter.result


async def _repeat(once: Callable[[], Awaitable[None]], count: int) -> None:
    """`count` times, `AT_ONCE` at a time."""
    left = iter(range(count))

    async def some() -> None:
        for _ in left:
            await once()

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def _idle(wire: Wire, job: Job, where: dict[str, Any]) -> Result:
    connections: list[Any] = []

    async def once() -> None:
        connections.append(await wire.connect(where))

    await _repeat(once, job.warm_count)
    await asyncio.sleep(SETTLE)
    before = resident()
    await _repeat(once, job.count)
    await asyncio.sleep(SETTLE)
    memory = resident() - before
    await asyncio.sleep(SETTLE)  # the server looks at its own now
    await asyncio.gather(*(wire.hang_up(connection) for connection in connections))
    return {"memory": memory}


_DRIVERS: dict[str, Callable[[Wire, Job, dict[str, Any]], Awaitable[Result]]] = {
    "bulk": _send,
    "messages": _send,
    "roundtrip": _ask,
    "dial": _dial,
    "idle": _idle,
}
