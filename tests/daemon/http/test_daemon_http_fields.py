"""Fields by which two could take a message for different ones: hosts that are none, lengths where no body is, what
stands behind one (RFC 9110 and 9112)."""

from __future__ import annotations

import pytest

from dtp.daemon.http.headers import behind_body, is_authority, to_backend, to_client

from ..conftest import Pair, Run
from .test_daemon_grpc_filter import GOOD, Wire
from .test_daemon_http import CALLER, expose
from .test_daemon_http_hostile import END, HEAD, Recorder, say

HOSTS = [
    b"",
    b"a",
    b"a.b:80",
    b"a:",
    b"192.0.2.7:1",
    b"[::1]",
    b"[2001:db8::1]:80",
    b"[v1.a:b]",
    b"a_b",
    b"%41",
    b"a,b",
]
NO_HOSTS = [
    b"a/b@c", b"u@a", b"u:p@a", b"a b", b"a, b", b"a?b", b"a#b", b"a\\b", b"a:x", b"a:1:2", b"[a", b"[::1", b"::1",
    b"[::1]a", b"[]", b"\xff", b"a%4", b"http://a", b"<a>", b'"a"',
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_hosts(host: bytes) -> None:
    assert is_authority(host)


@pytest.mark.parametrize("host", NO_HOSTS)
def test_what_is_no_host(host: bytes) -> None:
    assert not is_authority(host)


@pytest.mark.parametrize("kind", ["http", "json-rpc", "websocket"])
def test_a_host_that_is_none_is_400(run: Run, kind: str) -> None:
    """They were passed on, and which of two hosts `a/b@c` names each backend decided for itself."""

    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, kind))
            for host in NO_HOSTS:
                for asked in (
                    b"POST / HTTP/1.1\r\nHost: %s\r\n\r\n" % host,
                    b"POST / HTTP/1.0\r\nHost: %s\r\n\r\n" % host,
                    b"POST http://a/ HTTP/1.1\r\nHost: %s\r\n\r\n" % host,
                ):
                    answer = await say(port, asked, until=END)
                    assert answer.startswith(b"HTTP/1.1 400 "), asked
                    assert b"Host is not a host" in answer
            for target in (b"http://u:p@a/", b"http://a\\b/", b"http://a:x/", b"http://[a/"):
                answer = await say(port, b"POST " + target + HEAD + b"\r\n", until=END)
                assert b"the target's host is malformed" in answer
            assert backend.got == b""

    run(scenario)


def test_the_host_of_a_url_counts(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "http"))
            await say(port, b"GET http://b:80/c" + HEAD + b"\r\n", until=b"ok")
            assert backend.got.startswith(b"GET /c HTTP/1.1\r\nhost: b:80\r\n")
            assert b"host: x" not in backend.got

    run(scenario)


@pytest.mark.parametrize("version", [b"2.0", b"3.0", b"9.9"])
def test_another_version_is_not_taken_for_this_one(run: Run, version: bytes) -> None:
    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "http"))
            answer = await say(port, b"GET / HTTP/%s\r\nHost: x\r\n\r\n" % version, until=END)
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"HTTP/%s isn't spoken here" % version in answer
            assert backend.got == b""

    run(scenario)


def test_http_1_0_changes_to_no_other_protocol(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "http"))
            asked = b"GET / HTTP/1.0\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
            assert (await say(port, asked, until=b"ok$")).startswith(b"HTTP/1.1 200 ")
            assert b"upgrade" not in backend.got

    run(scenario)


def test_a_length_is_spelt_in_one_way() -> None:
    assert (b"content-length", b"10") in to_backend(
        [(b"host", b"x"), (b"content-length", b"010")], CALLER, "api"
    )
    assert (b"content-length", b"10") in to_client([(b"content-length", b"010")])


@pytest.mark.parametrize(
    ("status", "kept"), [(103, False), (204, False), (200, True), (205, True), (304, True)]
)
def test_an_answer_that_has_no_body_has_no_length(status: int, kept: bool) -> None:
    """But 304 and answers to HEAD, which say that of another answer (RFC 9110, 8.6)."""
    found = to_client([(b"content-length", b"5"), (b"link", b"x")], status)
    assert ((b"content-length", b"5") in found) is kept
    assert (b"link", b"x") in found


def test_fields_of_a_head_are_none_behind_a_body() -> None:
    fields = [(b"content-length", b"7"), (b"host", b"x"), (b"transfer-encoding", b"chunked"),
              (b"content_length", b"7"), (b"connection", b"x-sum"), (b"grpc-status", b"0")]  # fmt: skip
    assert behind_body(fields) == [(b"grpc-status", b"0")]


def test_through_a_pair(run: Run) -> None:
    """What is said behind an answer without a body is no next answer, and a client of 204 waits for nothing."""
    answer = (
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n"
    )

    async def scenario(pair: Pair) -> None:
        async with Recorder(answer) as backend:
            port = await pair.start(expose(backend.port, "http"))
            heard = await say(port, b"GET /" + HEAD + b"Connection: close\r\n\r\n", until=END)
            assert heard.count(b"HTTP/1.1 ") == 2
            assert b"ontent-" not in heard.replace(b"No Content", b"")
            assert heard.endswith(b"\r\n\r\n")

    run(scenario)


@pytest.mark.parametrize("kind", ["http", "json-rpc"])
@pytest.mark.parametrize(
    "fields",
    [
        b"Transfer-Encoding: chunked\r\nContent-Length: 9\r\n",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
    ],
)
def test_an_answer_with_two_lengths_is_502(run: Run, kind: str, fields: bytes) -> None:
    """It was a reset, where the client had heard the head already."""
    body = b"2\r\nok\r\n0\r\n\r\n"

    async def scenario(pair: Pair) -> None:
        async with Recorder(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n" + body) as backend:
            port = await pair.start(expose(backend.port, kind))
            call = b'{"jsonrpc":"2.0","method":"a","id":1}'
            asked = (
                b"POST /"
                + HEAD
                + b"Content-Length: %d\r\nContent-Type: application/json\r\n\r\n%s" % (len(call), call)
            )
            assert (await say(port, asked, until=END)).startswith(b"HTTP/1.1 502 ")

    run(scenario)


@pytest.mark.parametrize(
    "more",
    [
        [(b":authority", b"u@x")],
        [(b":authority", b"a/b")],
        [(b":authority", b"x"), (b"host", b"y")],
        [(b"host", b"a b")],
    ],
)
def test_hosts_of_grpc(more: list[tuple[bytes, bytes]]) -> None:
    fields = [field for field in GOOD if field[0] != b":authority"]
    pseudo = [field for field in more if field[0] == b":authority"]
    wire = Wire()
    wire.call(1, [*fields[:3], *pseudo, *fields[3:], *(field for field in more if field not in pseudo)])
    backend, client = wire.sent()
    assert backend == []
    assert [type(frame).__name__ for frame in client] == ["RstStreamFrame"]
    wire.call(3, [*GOOD, (b"host", b"x")])
    assert [type(frame).__name__ for frame in wire.sent()[0]] == ["HeadersFrame"]
