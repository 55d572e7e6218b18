"""asyncio's protocols, plain, with TLS, with `noiseprotocol`, through a pair of tunnel programs, or over DTP.

Both roles are a `Peer` that counts what comes and sends what its job says; the variants differ in how bytes reach
it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from bench.contenders import certificates, tunnels
from bench.job import ACK, READ, SMALL, Job, Meter, Progress, Ready, Result, congestion_of, latencies

#: Largest plaintext of a Noise message.
NOISE_PIECE = 65_519


class Peer:
    """One end of one stream. `send` is set by the protocol below it; `gone` once the stream is over."""

    send: Callable[[bytes], None]

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    def connected(self) -> None:
        """The stream is there."""

    def received(self, size: int) -> None:
        """`size` more bytes have come."""
        raise NotImplementedError

    def pause(self) -> None:
        """The transport holds enough."""

    def resume(self) -> None:
        """It can take more."""

    def lost(self) -> None:
        """The stream is over."""
        self.gone.set()


class Sink(Peer):
    """Server of "bulk" and "messages": says ACK behind the warm-up and behind the rest."""

    def __init__(self, job: Job, progress: Progress, on_done: Callable[[], None]) -> None:
        super().__init__()
        self._warm, self._left = job.warm_per_stream, job.per_stream
        self._progress, self._on_done = progress, on_done

    def received(self, size: int) -> None:
        if self._warm:
            self._warm -= size
            if not self._warm:
                self._progress.warmed()
                self.send(ACK)
            return
        self._left -= size
        if not self._left:
            self._progress.done()
            self.send(ACK)

    def lost(self) -> None:
        if self._progress.ended():
            self._on_done()


class Echo(Peer):
    """Server of "roundtrip"."""

    def __init__(self, job: Job, meter: Meter, on_done: Callable[[], None]) -> None:
        super().__init__()
        self._warm, self._left = job.warm_count * SMALL, job.count * SMALL
        self._meter, self._on_done, self._answer = meter, on_done, bytes(SMALL)
        self._have = 0

    def received(self, size: int) -> None:
        if self._warm:
            self._warm -= size
            if not self._warm:
                self._meter.start()
        else:
            self._left -= size
            if not self._left:
                self._meter.stop()
        self._have += size
        while self._have >= SMALL:
            self._have -= SMALL
            self.send(self._answer)

    def lost(self) -> None:
        self._on_done()


class Source(Peer):
    """Client of "bulk" and "messages": sends the warm-up, waits for ACK, then the rest a piece at a time."""

    def __init__(self, piece: bytes) -> None:
        super().__init__()
        self._piece, self._left, self._paused = piece, 0, False
        self._acked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ready = asyncio.Event()

    def connected(self) -> None:
        self.ready.set()

    async def transfer(self, size: int) -> None:
        """Send `size` bytes and wait for ACK."""
        self._acked = asyncio.get_running_loop().create_future()
        self._left = size
        self._pump()
        await self._acked

    def _pump(self) -> None:
        piece = self._piece
        while self._left and not self._paused:
            if self._left < len(piece):
                piece = piece[: self._left]
            self._left -= len(piece)
            self.send(piece)

    def received(self, size: int) -> None:
        if not self._acked.done():
            self._acked.set_result(None)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._pump()


class Asker(Peer):
    """Client of "roundtrip": a request as soon as the answer to the one before is whole."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._left = job.warm_count + job.count
        self._question, self._have, self._asked = bytes(SMALL), 0, 0
        self.times: list[int] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connected(self) -> None:
        self._ask()

    def _ask(self) -> None:
        self._asked = time.perf_counter_ns()
        self.send(self._question)

    def received(self, size: int) -> None:
        self._have += size
        if self._have < SMALL:
            return
        self._have = 0
        self.times.append(time.perf_counter_ns() - self._asked)
        self._left -= 1
        if self._left:
            self._ask()
        else:
            self.done.set_result(None)


class _Common(asyncio.BaseProtocol):
    """What both kinds of protocol share."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.peer.send = self.transport.write
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peer.connected()

    def pause_writing(self) -> None:
        self.peer.pause()

    def resume_writing(self) -> None:
        self.peer.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self.peer.lost()


class Buffered(_Common, asyncio.BufferedProtocol):
    """Reads into one buffer; nobody looks at the bytes."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer)
        self._buffer = memoryview(bytearray(READ))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.peer.received(nbytes)


class Plain(_Common, asyncio.Protocol):
    """Gets `bytes`."""

    def data_received(self, data: bytes) -> None:
        self.peer.received(len(data))


class Noise(_Common, asyncio.Protocol):
    """Noise XX by `noiseprotocol` alone: `u16 length, message`, a call in Python per message."""

    def __init__(self, peer: Peer, *, initiator: bool) -> None:
        from noise.connection import Keypair, NoiseConnection

        super().__init__(peer)
        noise = NoiseConnection.from_name(b"Noise_XX_25519_AESGCM_SHA256")
        if initiator:
            noise.set_as_initiator()
        else:
            noise.set_as_responder()
        noise.set_keypair_from_private_bytes(Keypair.STATIC, _x25519_private())
        noise.start_handshake()
        self._noise, self._initiator, self._buffer = noise, initiator, bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peer.send = self._send
        if self._initiator:
            self._frame(self._noise.write_message())

    def _frame(self, message: bytes | bytearray) -> None:
        self.transport.write(len(message).to_bytes(2) + message)

    def _send(self, data: bytes) -> None:
        for start in range(0, len(data), NOISE_PIECE):
            self._frame(self._noise.encrypt(data[start : start + NOISE_PIECE]))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= 2:
            end = start + 2 + int.from_bytes(buffer[start : start + 2])
            if len(buffer) < end:
                break
            self._message(bytes(buffer[start + 2 : end]))
            start = end
        del buffer[:start]

    def _message(self, message: bytes) -> None:
        noise = self._noise
        if noise.handshake_finished:
            self.peer.received(len(noise.decrypt(message)))
            return
        noise.read_message(message)
        if not noise.handshake_finished:
            self._frame(noise.write_message())
        if noise.handshake_finished:
            self.peer.connected()


def _x25519_private() -> bytes:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.generate().private_bytes_raw()


def _protocol(variant: str, peer: Peer, *, client: bool) -> _Common:
    if variant == "noise":
        return Noise(peer, initiator=client)
    return Plain(peer) if variant.endswith("protocol") else Buffered(peer)


def _tls(job: Job, *, server: bool) -> ssl.SSLContext | None:
    return certificates.context(job.scratch, server=server) if job.variant.startswith("tls") else None


def serve(job: Job, ready: Ready) -> Result:
    """The server's side."""
    return asyncio.run(_serve(job, ready))


async def _serve(job: Job, ready: Ready) -> Result:
    loop = asyncio.get_running_loop()
    finished = loop.create_future()
    facts: Result = {}

    def on_done() -> None:
        if not finished.done():
            finished.set_result(None)

    meter = Meter()
    progress = Progress(job.streams, meter)

    def accept() -> _Common:
        peer = Echo(job, meter, on_done) if job.workload == "roundtrip" else Sink(job, progress, on_done)
        return _protocol(job.variant, peer, client=False)

    if job.variant == "dtp-protocol":
        import dtp

        async with await dtp.create_server(
            accept, "tcp://127.0.0.1:0", identity=dtp.Identity.generate()
        ) as dtp_server:
            ready({"address": str(dtp_server.address)})
            await finished
        return meter.result
    server = await loop.create_server(accept, "127.0.0.1", 0, ssl=_tls(job, server=True))
    async with server:
        port = server.sockets[0].getsockname()[1]
        facts["congestion"] = congestion_of(server.sockets[0])
        async with tunnels.far(job, port) as tunnel:
            meter.others = tunnel.pids
            ready({"port": tunnel.port})
            await finished
    return meter.result | facts


def drive(job: Job, where: dict[str, Any]) -> Result:
    """The client's side."""
    return asyncio.run(_drive(job, where))


async def _drive(job: Job, where: dict[str, Any]) -> Result:
    work = _ask if job.workload == "roundtrip" else _send
    if job.variant == "dtp-protocol":
        return await work(job, where["address"], Meter())
    async with tunnels.near(job, where["port"]) as tunnel:
        return await work(job, tunnel.port, Meter(tunnel.pids))


async def _open(job: Job, where: int | str, peer: Peer) -> _Common:
    if isinstance(where, str):
        import dtp

        return (await dtp.create_connection(lambda: _protocol(job.variant, peer, client=True), where))[1]
    tls = _tls(job, server=False)
    _, protocol = await asyncio.get_running_loop().create_connection(
        lambda: _protocol(job.variant, peer, client=True),
        "127.0.0.1",
        where,
        ssl=tls,
        server_hostname=certificates.HOST if tls else None,
    )
    return protocol


async def _ask(job: Job, where: int | str, meter: Meter) -> Result:
    asker = Asker(job)
    meter.start()
    protocol = await _open(job, where, asker)
    await asker.done
    meter.stop()
    protocol.transport.close()
    await asker.gone.wait()
    return meter.result | latencies(asker.times[job.warm_count :])


async def _send(job: Job, where: int | str, meter: Meter) -> Result:
    piece = bytes(SMALL) if job.workload == "messages" else bytes(job.chunk)
    sources = [Source(piece) for _ in range(job.streams)]
    protocols = [await _open(job, where, source) for source in sources]
    await asyncio.gather(*(source.ready.wait() for source in sources))
    await asyncio.gather(*(source.transfer(job.warm_per_stream) for source in sources))
    meter.start()
    await asyncio.gather(*(source.transfer(job.per_stream) for source in sources))
    meter.stop()
    facts: Result = {}
    tls = protocols[0].transport.get_extra_info("ssl_object")
    if tls is not None:
        facts["cipher"] = tls.cipher()[0]
    for protocol in protocols:
        protocol.transport.close()
    for source in sources:
        await source.gone.wait()
    return meter.result | facts
