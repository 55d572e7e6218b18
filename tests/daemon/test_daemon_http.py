"""HTTP, WebSocket and JSON-RPC through a pair of daemons; headers, messages and the PROXY protocol by themselves."""

import asyncio
import contextlib
import errno
import io
import json
import socket
from functools import partial
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from dtp.daemon.http import jsonrpc
from dtp.daemon.http.conversation import Conversation, Ended
from dtp.daemon.http.headers import to_backend, to_client, tokens
from dtp.daemon.policies import Bounds, Caller, Denial, Move, moment
from dtp.daemon.reasons import Reason
from dtp.daemon.relays import proxy_protocol, sockets
from dtp.daemon.relays.dialer import Dialer
from dtp.daemon.relays.direct import connect_now
from dtp.daemon.server import Daemon
from dtp.testing import clock

from .conftest import NEAR, Backend, echo
from .test_daemon_relay import reset, until

CALLER = Caller(NEAR.id, NEAR.id.sui_address, "192.0.2.7")


# ---- headers -----------------------------------------------------------------------------------------------------


def test_spoofed_headers_are_removed_and_true_ones_set():
    spoofed = [b"dtp-peer", b"dtp_peer", b"dtp-anything", b"x-forwarded-for", b"x_forwarded_for", b"x-real-ip",
               b"forwarded", b"via"]  # fmt: skip
    headers = [(b"host", b"x"), (b"accept", b"*/*"), *((name, b"evil") for name in spoofed)]
    found = to_backend(headers, CALLER, "api")
    assert b"evil" not in [value for _, value in found]
    assert dict(found) == {
        b"host": b"x",
        b"accept": b"*/*",
        b"dtp-peer": str(NEAR.id).encode(),
        b"dtp-account": NEAR.id.sui_address.encode(),
        b"dtp-service": b"api",
        b"x-forwarded-for": b"192.0.2.7",
        b"via": b"1.1 dtpd",
    }


def test_headers_of_one_hop_stay_there():
    headers = [
        (b"host", b"x"),
        (b"connection", b"keep-alive, X-Secret"),
        (b"keep-alive", b"timeout=5"),
        (b"x-secret", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"te", b"trailers"),
        (b"content-type", b"text/plain"),
    ]
    kept = dict(to_backend(headers, CALLER, "api"))
    assert b"x-secret" not in kept
    assert b"connection" not in kept
    assert kept[b"transfer-encoding"] == b"chunked"
    assert dict(to_client(headers)) == {b"host": b"x", b"content-type": b"text/plain", b"via": b"1.1 dtpd"}


@pytest.mark.parametrize(
    "name",
    [b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
     b"transfer-encoding", b"upgrade"],
)  # fmt: skip
def test_fields_of_one_hop_need_not_be_named(name):
    headers = [(b"host", b"x"), (name, b"1")]
    assert name not in dict(to_backend(headers, CALLER, "api"))
    assert name not in dict(to_client(headers))


def test_who_says_little_is_told_of_all_the_same():
    """HTTP/1.0 needs no Host, and a caller may have no address."""
    found = to_backend([], Caller(NEAR.id, NEAR.id.sui_address, ""), "\u00fcber")
    assert found[0] == (b"host", b"localhost")
    assert (b"dtp-service", "\u00fcber".encode()) in found
    assert (b"x-forwarded-for", b"unknown") in found


def test_elements_of_lists():
    assert tokens([(b"a", b" X, ,,y\t"), (b"a", b""), (b"b", b"z")], b"a") == {b"x", b"y"}


# ---- the PROXY protocol ------------------------------------------------------------------------------------------


def tlvs(body):
    found = {}
    while body:
        size = int.from_bytes(body[1:3])
        found[body[0]] = body[3 : 3 + size]
        body = body[3 + size :]
    return found


@pytest.mark.parametrize(
    ("source", "destination", "family", "addresses"),
    [
        ("192.0.2.7", ("127.0.0.1", 80), 0x11, bytes([192, 0, 2, 7, 127, 0, 0, 1, 0, 0, 0, 80])),
        (
            "2001:db8::1",
            ("::1", 80),
            0x21,
            bytes.fromhex("20010db8" + "0" * 23 + "1" + "0" * 31 + "1" + "00000050"),
        ),
        ("unix:uid=0", ("127.0.0.1", 80), 0x00, b""),
        ("192.0.2.7", None, 0x00, b""),
        ("192.0.2.7", ("::1", 80), 0x00, b""),
    ],
)
def test_proxy_header(source, destination, family, addresses):
    caller = Caller(NEAR.id, NEAR.id.sui_address, source)
    header = proxy_protocol.header(caller, "api", destination)
    assert header[:12] == bytes.fromhex("0d0a0d0a000d0a515549540a")  # section 2.2
    assert header[12] == 0x21
    assert header[13] == family
    assert int.from_bytes(header[14:16]) == len(header) - 16
    assert header[16 : 16 + len(addresses)] == addresses
    assert tlvs(header[16 + len(addresses) :]) == {
        0x02: b"api",
        0xE0: str(NEAR.id).encode(),
        0xE1: NEAR.id.sui_address.encode(),
    }


def test_a_backend_gets_the_proxy_header_first(run):
    async def scenario(pair):
        async def serve(reader, writer):
            head = await reader.readexactly(16)
            received.append(head + await reader.readexactly(int.from_bytes(head[14:])))
            writer.write(await reader.read(5))

        received = []
        async with Backend(serve) as backend:
            port = await pair.start(expose(backend.port, "tcp", "proxy-protocol = true"))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            assert await reader.read() == b"hello"
            writer.close()
            assert received == [
                proxy_protocol.header(
                    Caller(NEAR.id, NEAR.id.sui_address, "127.0.0.1"), "api", ("127.0.0.1", backend.port)
                )
            ]

    run(scenario)


class Lost(socket.socket):
    """A socket whose other end has reset."""

    def getpeername(self):
        raise OSError(errno.ENOTCONN, "not connected")


def losing(port, lost=None):
    """A dialer whose backend at that port breaks off as soon as it is there; `lost` gets the sockets."""

    def lose(sock):
        if sock is None or sock.getpeername()[1] != port():
            return sock
        sock = Lost(fileno=sock.detach())
        if lost is not None:
            lost.append(sock)
        return sock

    async def connect(place):
        return lose(await sockets.connect(place))

    return Dialer(lambda place: lose(connect_now(place)), connect)


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_a_backend_that_breaks_off_before_its_header_is_passed_over(run, kind):
    """A socket whose other end has reset has no peer's name: it ended all of the caller's connection."""

    async def serve(reader, writer):
        await reader.read(16)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    gone, there = Backend(serve), Backend(serve)

    async def scenario(pair):
        pair.make = partial(Daemon, dialer=losing(lambda: gone.port))
        async with gone, there:
            both = "proxy-protocol = true\nconcurrency = { service = 1 }"
            text = expose(there.port, kind, both).replace(
                'backend = ["', f'backend = ["127.0.0.1:{gone.port}", "'
            )
            port = await pair.start(text)
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert (await reader.read()).endswith(b"ok")
                writer.close()
                await pair.exposed.ledger.wait_empty()
            assert pair.exposed.active == 0
            assert [one.active for one in pair.exposed.balancer.backends] == [0, 0]
            assert pair.exposed.balancer.backends[0].failures > 0

    run(scenario)


def test_backends_that_all_break_off_are_asked_once_each(run):
    lost = []

    async def scenario(pair):
        async with Backend(echo) as backend:
            pair.make = partial(Daemon, dialer=losing(lambda: backend.port, lost))
            port = await pair.start(expose(backend.port, "tcp", "proxy-protocol = true"))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
            assert (pair.exposed.active, pair.exposed.ledger.failed) == (0, 1)
            assert [sock.fileno() for sock in lost] == [-1]

    run(scenario)


@pytest.mark.parametrize(
    ("more", "first"),
    # Section 2.2: version 2, LOCAL, no family, nothing more.
    [("proxy-protocol = true", b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"), ("", b"")],
)
def test_a_check_says_that_it_is_the_daemons_own(run, more, first):
    """A backend that wants a header would be down for ever."""
    asked = []

    async def serve(reader, writer):
        asked.append(await reader.read(65536))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async def scenario(pair):
        async with Backend(serve) as backend:
            await pair.start(expose(backend.port, "tcp", more + '\nhealth = { http = "/health" }'))
            await until(lambda: asked)

    run(scenario)
    assert asked[0].startswith(first + b"GET /health HTTP/1.1\r\n")


# ---- JSON-RPC messages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "methods", "batch"),
    [
        (b'{"jsonrpc":"2.0","method":"eth_call","id":1}', ["eth_call"], False),
        (b' [ {"method":"a","id":"x"} ,\n{"method":"b"} ] ', ["a", "b"], True),
        ('{"method":"ü","params":{"Method":"x"}}'.encode(), ["ü"], False),
    ],
)
def test_messages(body, methods, batch):
    message = jsonrpc.parse(body, 10)
    assert ([call.method for call in message.calls], message.batch) == (methods, batch)
    assert json.loads(jsonrpc.forwarded(message, list(message.calls))) == json.loads(body)


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"", -32700, "not JSON"),
        (b"\xff", -32700, "UTF-8"),
        (b'\xef\xbb\xbf{"method":"a"}', -32700, "not JSON"),
        (b'{"method":"a"} {"method":"b"}', -32700, "not JSON"),
        (b'{"method":"a","method":"b"}', -32600, "twice"),
        (b'{"method":"a","Method":"b"}', -32600, "spelt"),
        (b'{"METHOD":"b"}', -32600, "spelt"),
        ('{"method":"a","param\u017f":[]}'.encode(), -32600, "spelt"),
        (b'{"method":1}', -32600, "needs a method"),
        (b'{"method":""}', -32600, "needs a method"),
        (b'{"method":"a b"}', -32600, "needs a method"),
        (b'{"method":"a\\u0000"}', -32600, "needs a method"),
        (b'{"method":"%s"}' % (b"a" * 257), -32600, "may have 256 characters"),
        (('{"method":"%s"}' % ("\u0315\u0300" * 10_000)).encode(), -32600, "may have 256 characters"),
        (b'{"method":"a","id":{}}', -32600, "id"),
        (b'{"method":"a","id":true}', -32600, "id"),
        ('\u00a0{"method":"a"}'.encode(), -32700, "not JSON"),
        (b'{"method":"a","params":[NaN]}', -32700, "NaN"),
        (b"[]", -32700, "not JSON"),
        (b'["a"]', -32600, "an object"),
        (b'[{"method":"a"}', -32700, "not JSON"),
        (b'[{"method":"a"},]', -32700, "not JSON"),
        (b'[{"method":"a"}] x', -32700, "not JSON"),
        (b"[" * 100_000, -32700, "JSON|deep"),
        (b'[{"method":"a"},{"method":"b"},{"method":"c"}]', -32600, "may have 2"),
    ],
)
def test_messages_that_are_refused(body, code, words):
    with pytest.raises(jsonrpc.Malformed, match=words) as caught:
        jsonrpc.parse(body, 2)
    assert caught.value.code == code


def test_a_method_may_be_as_long_as_it_may():
    (longest,) = jsonrpc.parse(b'{"method":"%s"}' % (b"a" * 256), 1).calls
    assert len(longest.method) == 256


def test_what_else_a_call_has_passes_where_no_rule_goes_by_methods():
    """A backend of GraphQL, too, would take the query of a call whose method may be called."""
    known = b'{"jsonrpc":"2.0","method":"a","params":{"query":1},"id":1}'
    for body, other in (
        (known, b'{"method":"a","query":"mutation"}'),
        (b"[%s]" % known, b'[{"query":"m","method":"a"}]'),
    ):
        for alone in (False, True):
            assert jsonrpc.parse(body, 1, alone=alone).calls[0].method == "a"
        assert jsonrpc.parse(other, 1).calls[0].method == "a"
        with pytest.raises(jsonrpc.Malformed, match="'query' is no member of a call") as caught:
            jsonrpc.parse(other, 1, alone=True)
        assert caught.value.code == -32600


@given(st.binary(max_size=60) | st.text('[]{}",:methodid1 \\u0', max_size=60).map(str.encode))
def test_any_bytes_are_a_message_or_refused(body):
    with contextlib.suppress(jsonrpc.Malformed):
        message = jsonrpc.parse(body, 10)
        assert json.loads(body) is not None
        assert message.calls


def test_a_batch_may_be_as_long_as_it_may():
    one, other = jsonrpc.parse(b'[{"method":"a","id":null},{"method":"b"}]', 2).calls
    assert (one.has_id, other.has_id) == (True, False)  # null is an id, if a poor one


def test_answers():
    call = jsonrpc.parse(b'{"method":"a","id":7}', 1).calls[0]
    refusal = jsonrpc.refusal(call, Denial("rate", Reason.RATE, "too many", 0.25004))
    assert refusal == {
        "jsonrpc": "2.0",
        "id": 7,
        "error": {"code": -32005, "message": "too many", "data": {"policy": "rate", "retry_after": 0.25}},
    }
    for answer, count in (
        (b' [{"id":1},{"id":2}] ', 3),
        (b"[]", 1),
        (b"[ ]", 1),
        (b"", 1),
        (b'{"id":null}', 2),
    ):
        merged = json.loads(jsonrpc.merged(answer, [refusal]))
        assert len(merged) == count
        assert merged[-1] == refusal
    for answer in (b'[{"id":1}', b'{"id":1', b"<p>", b"\xff"):
        assert jsonrpc.merged(answer, [refusal]) is None


# ---- HTTP through a pair -----------------------------------------------------------------------------------------


def expose(port, kind, more=""):
    return f'[[expose]]\nservice = "api"\nkind = "{kind}"\nallow = ["*"]\nbackend = ["127.0.0.1:{port}"]\n{more}\n'


@contextlib.asynccontextmanager
async def site(**handlers):
    """An aiohttp server; gives its port."""
    app = web.Application(client_max_size=1 << 30)
    for name, handler in handlers.items():
        app.router.add_route("*", f"/{name}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        await web.SockSite(runner, sock).start()
        try:
            yield sock.getsockname()[1]
        finally:
            await runner.cleanup()


async def mirror(request):
    body = await request.read()
    return web.json_response({"method": request.method, "headers": dict(request.headers), "size": len(body)})


def test_requests_and_who_sent_them(run):
    async def scenario(pair):
        async with site(mirror=mirror) as backend:
            port = await pair.start(expose(backend, "http"))
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                async with client.get("/mirror", headers={"DTP-Peer": "evil", "X-Mine": "1"}) as answer:
                    seen = {name.lower(): value for name, value in (await answer.json())["headers"].items()}
                    assert answer.headers["Via"] == "1.1 dtpd"
                assert seen["dtp-peer"] == str(NEAR.id)
                assert seen["dtp-account"] == NEAR.id.sui_address
                assert seen["x-forwarded-for"] == "127.0.0.1"
                assert seen["x-mine"] == "1"
                async with client.post("/mirror", data=io.BytesIO(bytes(5_000_000))) as answer:
                    assert (await answer.json())["size"] == 5_000_000

                async def pieces():
                    for _ in range(10):
                        yield bytes(100_000)

                async with client.put("/mirror", data=pieces()) as answer:  # chunked
                    assert (await answer.json())["size"] == 1_000_000
                async with client.head("/mirror") as answer:
                    assert answer.status == 200
                async with client.get("/none") as answer:
                    assert answer.status == 404
            assert pair.exposed.ledger.streams == 1

    run(scenario)


def test_policies_judge_each_request(run):
    async def scenario(pair):
        async with site(mirror=mirror, secret=mirror) as backend:
            rules = (
                'methods = { deny = ["* /secret", "DELETE"] }\nrate = { requests = "2/h", per = "service" }'
            )
            port = await pair.start(expose(backend, "http", rules))
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                for method, path, status in (
                    ("GET", "/mirror", 200),
                    ("GET", "/secret", 403),
                    ("POST", "/secret", 403),
                    ("DELETE", "/mirror", 403),
                    ("GET", "/mirror", 200),
                    ("GET", "/mirror", 429),
                ):
                    async with client.request(method, path, data=b"x" * 1000) as answer:
                        assert answer.status == status, (method, path)
                        text = await answer.text()
                assert text.startswith("rate: 2 requests in 3600 s")
                assert 1700 < int(answer.headers["Retry-After"]) <= 1800
            assert pair.exposed.denials == {"methods": 3, "rate": 1}
            assert len(pair.exposed.ledger.open) <= 1

    run(scenario)


def test_each_request_may_have_so_many_bytes(run):
    """And its answer with it; the connection may have many of them."""

    async def scenario(pair):
        async with site(mirror=mirror) as backend:
            port = await pair.start(expose(backend, "http", 'limits = { bytes = "100KB" }'))
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                for _ in range(4):
                    async with client.post("/mirror", data=bytes(60_000)) as answer:
                        assert (await answer.json())["size"] == 60_000
                assert pair.exposed.ledger.streams == 1
                with pytest.raises(aiohttp.ClientError):
                    await client.post("/mirror", data=bytes(200_000))
            assert pair.exposed.ledger.failed == 1

    run(scenario)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["reset", "end", "malformed"])
@pytest.mark.parametrize("kind", ["http", "json-rpc"])
def test_a_client_that_breaks_off_within_its_body(run, way, kind):
    """The backend that waits for the rest is let go, and nothing stays."""

    async def scenario(pair):
        async with Backend(swallow) as backend:
            port = await pair.start(expose(backend.port, kind))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            if kind == "http":
                await came.wait()
            await until(lambda: pair.exposed.ledger.open)
            (open_,) = pair.exposed.ledger.open
            if way == "reset":
                reset(writer)
            elif way == "end":
                writer.write_eof()
            else:
                writer.write(b"nonsense\r\n")
            await pair.exposed.ledger.wait_empty()
            assert pair.exposed.active == 0
            assert sum(one.active for one in pair.exposed.balancer.backends) == 0
            if way == "reset":
                assert open_.why == "the client broke off (there)"
            else:
                assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
            writer.close()

    async def swallow(reader, writer):
        while await reader.read(65536):
            came.set()

    came = asyncio.Event()
    run(scenario)


def test_a_backend_that_is_away_is_502(run):
    async def scenario(pair):
        port = await pair.start(expose(1, "http"))
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            for _ in range(2):
                async with client.post("/x", data=b"body") as answer:
                    assert answer.status == 502
                    assert await answer.text() == "no backend can be reached\n"

    run(scenario)


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_a_kept_connection_that_the_backend_closes(run):
    """It closes when the second request comes: what changes nothing is asked again, anything else is 502."""

    async def once(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")

    async def scenario(pair):
        async with Backend(once) as backend:
            port = await pair.start(expose(backend.port, "http"))
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                for _ in range(3):
                    async with client.get("/") as answer:
                        assert (answer.status, await answer.text()) == (200, "ok")
                assert backend.connections == 3
                async with client.post("/", data=b"once") as answer:
                    assert answer.status == 502
                    assert await answer.text() == "the backend broke off\n"
                assert backend.connections == 3
                async with client.get("/") as answer:
                    assert answer.status == 200

    run(scenario)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"", 502),
        (b"garbage\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbroken", None),
    ],
)
def test_a_backend_that_breaks_off(run, answer, status):
    """Before its answer: 502. In its midst: the client sees that it is not whole."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async def scenario(pair):
        async with Backend(serve) as backend:
            port = await pair.start(expose(backend.port, "http"))
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                if status is None:
                    with pytest.raises(aiohttp.ClientError):
                        async with client.get("/") as got:
                            await got.read()
                else:
                    async with client.get("/") as got:
                        assert got.status == status
            assert backend.connections == 1  # it was asked once

    run(scenario)


def test_what_is_not_http_is_400(run):
    async def scenario(pair):
        port = await pair.start(expose(1, "http"))
        for request in (b"\x16\x03\x01garbage\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
                        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"):  # fmt: skip
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 40_000)
        assert (await reader.read()).startswith(b"HTTP/1.1 431 ")
        writer.close()

    run(scenario)


def test_a_websocket(run):
    async def echo(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(request.headers["DTP-Peer"])
        async for message in socket:
            await socket.send_bytes(message.data)
        return socket

    async def scenario(pair):
        async with site(echo=echo) as backend:
            port = await pair.start(expose(backend, "http"))
            async with (
                aiohttp.ClientSession() as client,
                client.ws_connect(f"http://127.0.0.1:{port}/echo", max_msg_size=0) as socket,
            ):
                assert await socket.receive_str() == str(NEAR.id)
                for size in (1, 1000, 1_000_000):
                    await socket.send_bytes(bytes(size))
                    assert await socket.receive_bytes() == bytes(size)

    run(scenario)


async def echo_frames(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_bytes(message.data)
    return socket


def test_websockets_that_end_in_any_way(run):
    """By either side's close, by a reset of either side: nothing is left, and nobody hears of an exception."""

    async def scenario(pair):
        async with site(echo=echo_frames) as backend:
            port = await pair.start(expose(backend, "http"))
            for way in ("close", "client", "backend"):
                async with (
                    aiohttp.ClientSession() as client,
                    client.ws_connect(f"http://127.0.0.1:{port}/echo") as socket,
                ):
                    await socket.send_bytes(b"x" * 1000)
                    assert await socket.receive_bytes() == b"x" * 1000
                    (session,) = pair.exposed.ledger.open
                    assert session.counts.sent > 1000
                    ends = socket._writer.transport
                    if way == "client":
                        reset(SimpleNamespace(get_extra_info=ends.get_extra_info, transport=ends))
                    elif way == "backend":
                        reset(session.link.writer)
                        assert (await socket.receive()).type in (
                            aiohttp.WSMsgType.CLOSED,
                            aiohttp.WSMsgType.ERROR,
                        )
                await pair.exposed.ledger.wait_empty()

    run(scenario)


def test_a_websocket_may_be_quiet_for_longer_than_a_request(run):
    """Between requests a client has 75 s; who has changed the protocol has what the rules say."""

    async def scenario(pair):
        async with site(echo=echo_frames) as backend:
            port = await pair.start(expose(backend, "http"))
            async with (
                aiohttp.ClientSession() as client,
                client.ws_connect(f"http://127.0.0.1:{port}/echo") as socket,
            ):
                await socket.send_bytes(b"x")
                assert await socket.receive_bytes() == b"x"
                (open_,) = pair.exposed.ledger.open
                assert open_._patience is None

    run(scenario)


def test_idle_means_both_directions():
    """Who only listens is not idle while the other side speaks: 10 s, looked at after 4, 8 and 12 s."""

    async def scenario():
        talk = Conversation(None, CALLER, None, Bounds(), keep=None)
        loop = asyncio.get_running_loop()
        for seconds in (4, 8, 12):
            loop.call_later(seconds, lambda: setattr(talk, "_moved_at", loop.time()))
        began = loop.time()
        with pytest.raises(Ended, match="no bytes") as caught:
            await talk._run_in_time(lambda: asyncio.Event().wait(), 10)
        assert caught.value.reason is Reason.IDLE
        return loop.time() - began

    assert clock.run(scenario()) == pytest.approx(22)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 426),
        ({"Origin": "https://app.example"}, 101),
        ({"Origin": "https://evil.example"}, 403),
        (None, 101),
    ],
)
def test_a_service_for_websockets_alone(run, headers, status):
    async def scenario(pair):
        async with site(echo=echo_frames) as backend:
            port = await pair.start(expose(backend, "websocket", 'origins = ["https://app.example"]'))
            url = f"http://127.0.0.1:{port}/echo"
            async with aiohttp.ClientSession() as client:
                if status == 426:
                    async with client.get(url, headers=headers) as answer:
                        assert (answer.status, answer.headers["Upgrade"]) == (426, "websocket")
                elif status == 403:
                    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                        await client.ws_connect(url, headers=headers)
                    assert caught.value.status == 403
                else:
                    async with client.ws_connect(url, headers=headers) as socket:
                        await socket.send_bytes(b"x")
                        assert await socket.receive_bytes() == b"x"

    run(scenario)


# ---- JSON-RPC through a pair -------------------------------------------------------------------------------------


async def node(request):
    """Answers each call with its method; notifications not at all."""
    message = json.loads(await request.text())
    calls = message if isinstance(message, list) else [message]
    answers = [
        {"jsonrpc": "2.0", "id": call["id"], "result": call["method"]} for call in calls if "id" in call
    ]
    if not isinstance(message, list):
        return web.json_response(answers[0]) if answers else web.Response(status=204)
    return web.json_response(answers)


RULES = """methods = { allow = ["eth_*"], deny = ["eth_sign"] }
rate = [{ requests = "1/h", methods = ["eth_getLogs"] }]
batch = 5
message = "10KiB"
"""


def call(method, number=1):
    return {"jsonrpc": "2.0", "method": method, "id": number}


def test_json_rpc(run):
    async def scenario(pair):
        async with site(rpc=node) as backend:
            port = await pair.start(expose(backend, "json-rpc", RULES))
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:

                async def ask(message, status=200):
                    async with client.post("/rpc", json=message) as answer:
                        assert answer.status == status, await answer.text()
                        return await answer.json() if answer.status != 204 else None

                assert await ask(call("eth_call")) == {"jsonrpc": "2.0", "id": 1, "result": "eth_call"}
                denied = await ask(call("admin_peers", 7))
                assert (denied["id"], denied["error"]["code"]) == (7, -32601)
                # A batch can't carry past the rules what a call can't.
                answers = await ask([call("eth_call"), call("eth_sign", 2), call("eth_getLogs", 3),
                                     call("eth_getLogs", 4), {"method": "admin_x"}])  # fmt: skip
                found = {one["id"]: one.get("result") or one["error"]["code"] for one in answers}
                assert found == {1: "eth_call", 2: -32601, 3: "eth_getLogs", 4: -32005}
                limited = await ask(call("eth_getLogs"), 429)
                assert limited["error"]["data"]["policy"] == "rate"
                assert limited["error"]["data"]["retry_after"] > 3500
                assert (await ask([call("eth_call")] * 6, 400))["error"]["code"] == -32600
                assert await ask({"method": "admin_x"}, 204) is None
                assert await ask([call("admin_x"), call("admin_y", 2)]) == [
                    jsonrpc.error(
                        1, -32601, "the method 'admin_x' is not allowed here", {"policy": "methods"}
                    ),
                    jsonrpc.error(
                        2, -32601, "the method 'admin_y' is not allowed here", {"policy": "methods"}
                    ),
                ]
                async with client.get("/rpc") as answer:
                    assert answer.status == 405
                async with client.post("/rpc", data=b'{"method":"eth_call","method":"admin_x"}') as answer:
                    assert answer.status == 400
                async with client.post("/rpc", data=b" " * 20_000) as answer:
                    assert answer.status == 413

    run(scenario)


@pytest.mark.parametrize(
    ("rules", "kinds", "status"),
    [(RULES, ["application/json"], 400), ("", ["application/x-www-form-urlencoded"], 200)],
)
def test_a_message_is_to_the_backend_what_it_was_to_the_rules(run, rules, kinds, status):
    """Not another method by a field, nor a form, nor a query of GraphQL beside the method."""

    async def scenario(pair):
        seen = []

        async def look(request):
            seen.append(request.headers)
            return await node(request)

        async with site(rpc=look) as backend:
            port = await pair.start(expose(backend, "json-rpc", rules))
            form = {
                "Content-Type": "application/x-www-form-urlencoded; charset=utf-7",
                "X-HTTP-Method-Override": "DELETE",
                "X_Method_Override": "GET",
            }
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=form) as client:
                async with client.post("/rpc", data=json.dumps(call("eth_call"))) as answer:
                    assert answer.status == 200
                query = {"method": "eth_call", "id": 1, "query": "mutation { admin }"}
                async with client.post("/rpc", data=json.dumps(query)) as answer:
                    assert (answer.status, "'query' is no member" in await answer.text()) == (
                        status,
                        status == 400,
                    )
            assert seen[0].getall("Content-Type") == kinds
            assert not [name for name in seen[0] if "override" in name.lower()]

    run(scenario)


def test_only_paths_that_are_named_reach_the_backend(run):
    """Behind others it may speak what no rule about methods judges, and a query may be one of GraphQL."""

    async def scenario(pair):
        async with site(rpc=node) as backend:
            port = await pair.start(expose(backend, "json-rpc", 'paths = ["/", "/rpc"]'))
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                for path, status in (("/rpc", 200), ("/rpc?query=x", 404), ("/graphql", 404), ("/rpc/", 404)):
                    async with client.post(path, json=call("eth_call")) as answer:
                        assert (path, answer.status) == (path, status)

    run(scenario)


@pytest.mark.parametrize("kind", ["http", "json-rpc"])
def test_who_has_used_up_a_quota_of_bytes_is_told_when_to_come_again(run, kind):
    """Over a connection that is there and over new ones: one that breaks off would be tried again at once."""

    async def scenario(pair):
        async with site(rpc=node) as backend:
            port = await pair.start(expose(backend, kind, 'quota = { bytes = "1MB", every = "1h" }'))

            async def ask(client):
                message = {**call("eth_call"), "params": ["x" * 200_000]}
                async with client.post("/rpc", json=message) as answer:
                    return answer.status, answer.headers.get("Retry-After", ""), await answer.text()

            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                assert (await ask(client))[0] == 200
                ((_, caller),) = pair.far.callers.items()
                pair.exposed.chain.count_moved(Move(caller, 10**6), moment())
                for _ in range(2):
                    status, retry, text = await ask(client)
                    assert (status, "the quota of 1000000 bytes is used up" in text) == (429, True)
                    assert 0 < int(retry) <= 3600
                assert pair.exposed.ledger.streams == 1
            for number in range(2):
                async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                    status, retry, text = await ask(client)
                    assert (status, "the quota of 1000000 bytes is used up" in text) == (429, True)
                    if kind == "json-rpc":
                        assert json.loads(text)["error"]["code"] == -32005
                assert pair.exposed.denials == {"quota": 3 + number}

    run(scenario)


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [
        ("", None, 200),
        ("", "https://evil.example", 403),
        ('"https://app.example"', "https://app.example", 200),
        ('"https://app.example"', "https://app.example.evil", 403),
        ('"null"', "null", 200),
        ('"*"', "https://any.example", 200),
    ],
)
def test_pages_that_may_ask(run, origins, origin, status):
    async def scenario(pair):
        async with site(rpc=node) as backend:
            port = await pair.start(
                expose(backend, "json-rpc", f'methods = {{ deny = ["b"] }}\norigins = [{origins}]')
            )
            headers = {} if origin is None else {"Origin": origin}
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as client:
                for method in ("a", "b"):  # one is answered by the backend, one here
                    async with client.post("/rpc", json=call(method)) as answer:
                        assert answer.status == status
                        told = answer.headers.get("Access-Control-Allow-Origin")
                        assert told == (origin if status == 200 else None)
                async with client.options("/rpc") as answer:
                    asked = 405 if origin is None else 204 if status == 200 else 403
                    assert answer.status == asked
                    assert answer.headers.get("Access-Control-Allow-Methods") == (
                        "POST" if asked == 204 else None
                    )

    run(scenario)


def test_json_rpc_whose_backend_breaks_off_under_a_call(run):
    """It was told in plain text, which who asked by JSON-RPC can't read."""

    async def hang_up(reader, writer):
        await reader.readuntil(b"}")
        writer.close()

    async def scenario(pair):
        async with Backend(hang_up) as backend:
            port = await pair.start(expose(backend.port, "json-rpc", 'methods = { deny = ["b"] }'))
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                async with client.post("/", json=call("a", 7)) as answer:
                    found = await answer.json()
                    assert (answer.status, found["id"], found["error"]["code"]) == (502, 7, -32603)
                async with client.post("/", json=[call("a"), call("b", 2)]) as answer:
                    errors = {one["id"]: one["error"]["code"] for one in await answer.json()}
                    assert (answer.status, errors.keys(), errors[1]) == (200, {1, 2}, -32603)
                async with client.post("/", json={"method": "a"}) as answer:
                    assert (answer.status, await answer.text()) == (502, "the backend broke off\n")

    run(scenario)


def test_json_rpc_without_a_backend(run):
    async def scenario(pair):
        port = await pair.start(expose(1, "json-rpc"))
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            async with client.post("/", json=[call("a"), call("b", 2)]) as answer:
                assert [one["error"]["code"] for one in await answer.json()] == [-32603, -32603]
            async with client.post("/", json=call("a")) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (502, -32603)
            for notified in ({"method": "a"}, [{"method": "a"}]):
                async with client.post("/", json=notified) as answer:
                    assert (answer.status, await answer.text()) == (502, "no backend can be reached\n")

    run(scenario)
