"""Protocols and transports over DTP: what is called when, pauses, faults, sendfile and TLS within a stream."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from stream_pairs import ME, pair, server_of_pairs

import dtp
from dtp.net.stream import Stream
from dtp.session.codes import StreamClosed
from dtp.session.limits import DEFAULT, MIB
from dtp.testing.clock import run

# ---- protocols ------------------------------------------------------------------------------------------


@dataclass
class Recorder(asyncio.Protocol):
    """Writes down what it is told."""

    calls: list[object] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    keep_open: bool = False
    transport: dtp.StreamTransport = field(init=False)

    def __post_init__(self) -> None:
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.resumed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, dtp.StreamTransport)
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        if self.calls[-1] != "data":
            self.calls.append("data")
        self.data += data

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return self.keep_open

    def connection_lost(self, error: Exception | None) -> None:
        self.calls.append(("lost", type(error)))
        self.lost.set_result(error)

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")
        self.resumed.set()


@contextlib.asynccontextmanager
async def protocols(
    ours: Callable[[], Any] = Recorder, theirs: Callable[[], Any] = Recorder, **options: Any
) -> AsyncIterator[tuple[Any, Any]]:
    """Two protocols that talk over one stream."""
    made: asyncio.Queue[Any] = asyncio.Queue()

    def factory() -> Any:
        protocol = theirs()
        made.put_nowait(protocol)
        return protocol

    server = await dtp.create_server(factory, "memory://protocols", identity=ME, **options)
    transport, protocol = await dtp.create_connection(ours, server.address)
    assert transport.get_protocol() is protocol
    yield protocol, await made.get()
    transport.abort()
    server.close()
    server.abort_clients()
    await server.wait_closed()


def test_the_protocol_is_called_in_order_and_lost_once() -> None:
    async def main() -> None:
        async with protocols() as (ours, theirs):
            ours.transport.write(b"hello")
            ours.transport.write_eof()
            assert await theirs.lost is None  # `eof_received` gave False, so its transport closes by itself
            assert await ours.lost is None
            assert theirs.calls == ["made", "data", "eof", ("lost", type(None))]
            assert ours.calls == ["made", "eof", ("lost", type(None))]
            ours.transport.close()
            ours.transport.abort()
            ours.transport.write(b"dropped")
            ours.transport.write_eof()
            await asyncio.sleep(0)
            assert ours.calls[-2:] == ["eof", ("lost", type(None))]

    run(main())


@dataclass
class Buffered(asyncio.BufferedProtocol):
    """Takes bytes through a small buffer, and pauses after each if asked to."""

    size: int = 7
    pausing: bool = False
    data: bytearray = field(default_factory=bytearray)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> bytearray:
        assert sizehint > 0
        self.buffer = bytearray(self.size)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]
        if self.pausing:
            self.transport.pause_reading()
            assert not self.transport.is_reading()
            asyncio.get_running_loop().call_soon(self.transport.resume_reading)

    def eof_received(self) -> None:
        self.ended.set_result(None)


@pytest.mark.parametrize("pausing", [False, True])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_buffered_protocol_gets_every_byte_once(size: int, pausing: bool) -> None:
    async def main() -> None:
        async with protocols(theirs=lambda: Buffered(size, pausing)) as (ours, theirs):
            data = bytes(range(256)) * 20
            ours.transport.writelines([data[:1000], memoryview(data)[1000:]])
            ours.transport.write_eof()
            await theirs.ended
            assert bytes(theirs.data) == data

    run(main())


@pytest.mark.parametrize(
    "fault", ["data_received", "get_buffer", "empty", "eof_received", "connection_made", "cancelled"]
)
def test_a_protocol_that_fails_ends_its_own_stream_only(fault: str) -> None:
    class Faulty(Recorder):
        pass

    def fail(*_: object) -> None:
        raise ZeroDivisionError(fault)

    def ask_for_cancelled(*_: object) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        future.result()

    async def main() -> None:
        reported: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(repr(context["exception"])))
        kind: Any = type("Faulty", (Recorder,), {fault: fail})
        if fault == "get_buffer":
            kind = type("Faulty", (Buffered,), {fault: fail})
        elif fault == "empty":
            kind = lambda: Buffered(size=0)  # noqa: E731
        elif fault == "cancelled":
            kind = type("Faulty", (Recorder,), {"data_received": ask_for_cancelled})
        first = True

        def theirs() -> Any:
            nonlocal first
            first, faulty = False, first
            return kind() if faulty else Recorder()

        async with (
            await dtp.create_server(theirs, "memory://faulty", identity=ME) as server,
            dtp.connect(server.address) as connection,
        ):
            transport, broken = await dtp.create_connection(Recorder, connection)
            transport.write(b"x")
            transport.write_eof()
            assert isinstance(await broken.lost, dtp.StreamReset)
            reader, writer = await dtp.open_connection(connection)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        others = {
            "empty": "RuntimeError('get_buffer() returned an empty buffer')",
            "cancelled": "CancelledError()",
        }
        assert reported == [others.get(fault, f"ZeroDivisionError('{fault}')")]

    run(main())


def test_reading_pauses_and_goes_on_with_the_end_behind_the_data() -> None:
    async def main() -> None:
        async with protocols() as (ours, theirs):
            theirs.transport.pause_reading()
            theirs.transport.pause_reading()
            ours.transport.write(b"x" * 100_000)
            ours.transport.write_eof()
            done, _ = await asyncio.wait([theirs.lost], timeout=5)
            assert not done
            assert theirs.calls == ["made"]
            theirs.transport.resume_reading()
            assert await theirs.lost is None
            assert theirs.calls == ["made", "data", "eof", ("lost", type(None))]
            assert bytes(theirs.data) == b"x" * 100_000

    run(main())


@pytest.mark.parametrize(("high", "low"), [(1000, 100), (100_000, 0), (0, 0)])
def test_write_limits_pause_and_resume_the_protocol(high: int, low: int) -> None:
    async def main() -> None:
        async with protocols() as (ours, theirs):
            transport = ours.transport
            assert transport.get_write_buffer_limits() == (DEFAULT.write_low, DEFAULT.write_high)
            transport.set_write_buffer_limits(high, low)
            started = asyncio.get_running_loop().time()
            transport.write(b"x")  # the first write of a turn may go out at once
            transport.write(b"x" * (high + 1))
            assert ours.calls[-1] == "pause"
            assert transport.get_write_buffer_size() == high + 1
            await ours.resumed.wait()
            assert ours.calls[-1] == "resume"
            # By sealing, not by the peer's acknowledgement, which comes later.
            assert asyncio.get_running_loop().time() == started
            assert transport.get_write_buffer_size() <= low
            with pytest.raises(ValueError, match="must be >="):
                transport.set_write_buffer_limits(1, 2)
            assert theirs.calls[0] == "made"

    run(main())


def test_a_writer_that_waits_is_woken_when_the_peer_resets() -> None:
    async def main() -> None:
        async with pair() as ((_, writer), (_, far_writer)):
            writer.write(bytes(8 * MIB))
            draining = asyncio.ensure_future(writer.drain())
            await asyncio.wait([draining], timeout=1)
            assert not draining.done()
            far_writer.transport.abort()
            with pytest.raises(ConnectionResetError):
                await draining

    run(main())


def test_what_a_transport_tells_about_itself() -> None:
    async def main() -> None:
        async with protocols() as (ours, theirs):
            transport = ours.transport
            assert transport.get_extra_info("peername") == (str(ME.id), 0)
            assert transport.get_extra_info("dtp_peer") == ME.id
            assert isinstance(transport.get_extra_info("dtp_connection"), dtp.Connection)
            assert isinstance(transport.get_extra_info("dtp_stream"), Stream)
            assert transport.get_extra_info("socket") is None
            assert transport.get_extra_info("sslcontext", 5) == 5
            assert repr(transport).endswith("open>")
            with pytest.raises(TypeError, match="str"):
                transport.write("text")
            transport.write_eof()
            with pytest.raises(StreamClosed):
                transport.get_extra_info("dtp_stream").write(b"x")
            assert theirs.transport.get_extra_info("peername")[0] != str(ME.id)

    run(main())


# ---- what only asyncio's own transports can do ----------------------------------------------------------


def test_sendfile(tmp_path: Path) -> None:
    async def main() -> None:
        async with pair("tcp://127.0.0.1:0") as ((_, writer), (reader, _)):
            path = tmp_path / "file"
            path.write_bytes(bytes(range(256)) * 4000)
            with path.open("rb") as file:
                sent = await asyncio.get_running_loop().sendfile(writer.transport, file)
            writer.write_eof()
            assert sent == 1_024_000
            assert await reader.read() == path.read_bytes()

    asyncio.run(main())


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A PEM file with the key and the self-signed certificate of "localhost"."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(datetime(2020, 1, 1)).not_valid_after(datetime(2120, 1, 1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    encoding = serialization.Encoding.PEM
    path = tmp_path / "localhost.pem"
    path.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + builder.sign(key, hashes.SHA256()).public_bytes(encoding)
    )
    return path


def test_tls_within_a_stream(certificate: Path) -> None:
    """`loop.start_tls`, as database clients and mail clients use it, runs over a stream."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with server_of_pairs("tcp://127.0.0.1:0") as (server, accepted):
            _, writer = await dtp.open_connection(server.address)
            _, far_writer = await accepted.get()
            server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            server_side.load_cert_chain(certificate)
            client_side = ssl.create_default_context(cafile=str(certificate))
            ours, theirs = Recorder(), Recorder()
            near, far = await asyncio.gather(
                loop.start_tls(writer.transport, ours, client_side, server_hostname="localhost"),
                loop.start_tls(far_writer.transport, theirs, server_side, server_side=True),
            )
            assert near is not None
            assert far is not None
            theirs.calls.append("upgraded")  # as with TCP, there is no second `connection_made`
            near.write(b"secret" * 10_000)
            near.close()
            assert [await theirs.lost, await ours.lost] == [None, None]
            assert bytes(theirs.data) == b"secret" * 10_000

    asyncio.run(main())
