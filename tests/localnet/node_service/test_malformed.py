"""Whatever bytes come: a status, and the node lives on."""

import asyncio
import socket
import struct

import pytest
from grpclib.const import Cardinality, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from hypothesis import given, settings
from hypothesis import strategies as st

from dtp.localnet.grpc.errors import GrpcFailure
from dtp.localnet.grpc.services import UNARY, UNSUPPORTED, Services
from dtp.localnet.model import BadCursor, TransactionRejected
from dtp.localnet.node import LocalNode
from dtp.sui.grpc import decode, encode

from .conftest import library_channel, run
from .test_wire import messages as requests_of

STREAMS = (
    ("LedgerService", "ListEvents"),
    ("SubscriptionService", "SubscribeEvents"),
    ("SubscriptionService", "SubscribeCheckpoints"),
)
METHODS = [*((service, method) for service, method, _ in UNARY), *STREAMS]


class Raw(CodecBase):
    """Bytes as they are, both ways."""

    __content_subtype__ = "proto"

    def encode(self, message, message_type):
        return message

    def decode(self, data, message_type):
        return data


async def send(net, path, data):
    """The status that the bytes are answered with, "" for OK."""
    channel = library_channel(net.url)
    channel._codec = Raw()
    try:
        async with channel.request(path, Cardinality.UNARY_STREAM, bytes, bytes, timeout=30) as stream:
            await stream.send_message(data, end=True)
            await stream.recv_initial_metadata()
            if path.rsplit("/", 1)[1].startswith("Subscribe"):
                await stream.cancel()
                return ""
            while await stream.recv_message() is not None:
                pass
    except GRPCError as refused:
        return refused.status
    except StreamTerminatedError:
        return ""
    finally:
        channel.close()
    return ""


def alive(net, v2):
    async def work():
        channel = library_channel(net.url)
        try:
            return (await v2.LedgerServiceStub(channel, timeout=30).get_service_info()).chain
        finally:
            channel.close()

    return run(work()) == "localnet"


@settings(max_examples=150)
@given(method=st.sampled_from(METHODS), data=st.binary(max_size=200))
def test_random_bytes(net, v2, method, data):
    status = run(send(net, f"/sui.rpc.v2.{method[0]}/{method[1]}", data))
    assert status in ("", Status.INVALID_ARGUMENT, Status.NOT_FOUND, Status.UNIMPLEMENTED)
    assert alive(net, v2)


# Bytes that parse as protobuf, with fields of the right numbers and any content.
varints = st.integers(0, 2**64 - 1)


def field(number, wire, content):
    tag = number << 3 | wire
    out = bytearray()
    for value in (tag,) if wire != 0 else (tag, content):
        while value >= 128:
            out.append(value & 127 | 128)
            value >>= 7
        out.append(value)
    if wire == 2:
        length = len(content)
        while length >= 128:
            out.append(length & 127 | 128)
            length >>= 7
        out.append(length)
        out += content
    return bytes(out)


messages = st.recursive(
    st.one_of(
        st.binary(max_size=40),
        st.text(max_size=20).map(str.encode),
        st.just(b"0x6"),
        st.just(b"0x2::sui::SUI"),
    ),
    lambda inner: st.lists(
        st.one_of(
            st.builds(field, st.integers(1, 8), st.just(0), varints),
            st.builds(field, st.integers(1, 8), st.just(2), inner),
        ),
        max_size=4,
    ).map(b"".join),
    max_leaves=12,
)


@pytest.mark.slow
@settings(max_examples=300)
@given(method=st.sampled_from(METHODS), data=messages)
def test_messages_with_any_content(net, v2, method, data):
    status = run(send(net, f"/sui.rpc.v2.{method[0]}/{method[1]}", data))
    assert status in ("", Status.INVALID_ARGUMENT, Status.NOT_FOUND, Status.UNIMPLEMENTED)


@pytest.fixture(scope="module")
def services():
    """A node's methods, without a network between: many more questions a second."""
    with LocalNode.open(now=None) as node:
        node.fund_address(bytes(31) + b"\6")
        yield Services(node)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the classes warn of their old fields
@settings(max_examples=500)
@given(data=st.data())
def test_requests_with_any_fields(services, v2, data):
    """Every field of every request holds what its type can; the answer is one, or a refusal by name."""
    _, method, attribute = data.draw(st.sampled_from([*UNARY, ("", "ListEvents", "list_events")]))
    kind = getattr(v2, f"{method}Request")
    request = data.draw(requests_of(kind))
    if hasattr(request, "read_mask") and data.draw(st.booleans()):
        request.read_mask = None
    try:
        answer = getattr(services, attribute)(decode(kind, encode(request)))
        frames = list(answer) if attribute == "list_events" else [answer]
    except (GrpcFailure, TransactionRejected, BadCursor):
        return
    for frame in frames:
        assert decode(type(frame), encode(frame)) == frame


@settings(max_examples=150)
@given(data=st.data())
def test_transactions_with_any_bit_turned(net, v2, history, data):
    """A genuine transaction with some of its bytes changed: refused by name, or executed as what it then says."""
    request = v2.GetTransactionRequest(digest=history.changed)
    whole = genuine(net, v2, request)
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:place] + bytes([data.draw(st.integers(0, 255))]) + whole[place + 1 :]
    cut = data.draw(st.sampled_from([len(changed), place]))
    message = v2.SimulateTransactionRequest(transaction=v2.Transaction(bcs=v2.Bcs(value=changed[:cut])))
    path = "/sui.rpc.v2.TransactionExecutionService/SimulateTransaction"
    assert run(send(net, path, bytes(message))) in ("", Status.INVALID_ARGUMENT)


_KNOWN = {}


def genuine(net, v2, request):
    if request.digest not in _KNOWN:

        async def work():
            from dtp.localnet.grpc.messages import library

            channel = library_channel(net.url)
            request.read_mask = library().protobuf.FieldMask(paths=["transaction.bcs"])
            try:
                found = await v2.LedgerServiceStub(channel, timeout=30).get_transaction(request)
                return found.transaction.transaction.bcs.value
            finally:
                channel.close()

        _KNOWN[request.digest] = run(work())
    return _KNOWN[request.digest]


@pytest.mark.parametrize(("service", "method"), UNSUPPORTED)
def test_methods_that_are_not_served_are_named(net, v2, service, method):
    assert run(send(net, f"/sui.rpc.v2.{service}/{method}", b"")) is Status.UNIMPLEMENTED


@pytest.mark.parametrize("path", ["/sui.rpc.v2.LedgerService/Nothing", "/nothing"])
def test_unknown_methods(net, v2, path):
    # grpclib answers these itself, without a header that its own client wants: then it says UNKNOWN.
    assert run(send(net, path, b"")) in (Status.UNIMPLEMENTED, Status.UNKNOWN)
    assert alive(net, v2)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64,
        bytes(100),
    ],
)
def test_connections_that_speak_something_else(net, v2, data):
    host, port = net.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass
    assert alive(net, v2)


@pytest.mark.parametrize(
    ("frame", "status"),
    [
        (b"\1" + struct.pack(">I", 0), Status.UNIMPLEMENTED),  # compressed
        (b"\0" + struct.pack(">I", 5) + b"ab", Status.INVALID_ARGUMENT),  # shorter than it says
        (b"", Status.INVALID_ARGUMENT),  # no message at all
    ],
)
def test_broken_frames(net, v2, frame, status):
    class Frame(Raw):
        pass

    async def work():
        channel = library_channel(net.url)
        channel._codec = Frame()
        try:
            path = "/sui.rpc.v2.LedgerService/GetEpoch"
            async with channel.request(path, Cardinality.UNARY_STREAM, bytes, bytes, timeout=30) as stream:
                await stream.send_request()
                await stream._stream.send_data(frame, end_stream=True)
                stream._end_done = True
                stream._send_message_done = True
                await stream.recv_initial_metadata()
        except GRPCError as refused:
            return refused.status
        finally:
            channel.close()
        return ""

    assert run(work()) is status
    assert alive(net, v2)


def test_calls_that_are_given_up(net, v2):
    """Streams opened and dropped at once, many of them: nothing is left behind."""

    async def work():
        channels = [library_channel(net.url) for _ in range(20)]
        streams = []
        for channel in channels:
            request = v2.SubscribeCheckpointsRequest()
            path = "/sui.rpc.v2.SubscriptionService/SubscribeCheckpoints"
            call = channel.request(
                path, Cardinality.UNARY_STREAM, type(request), v2.SubscribeCheckpointsResponse
            )
            stream = await call.__aenter__()
            await stream.send_message(request, end=True)
            await stream.recv_initial_metadata()
            streams.append(stream)
        for channel in channels:
            channel.close()
        await asyncio.sleep(0)

    run(work())
    for _ in range(10_000):  # the node is told of it in its own thread
        left = net.run(lambda node: len(net._localnet._server._subscribers))
        if not left:
            break
    assert left == 0
    assert alive(net, v2)
