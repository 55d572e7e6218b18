"""Callers who want a request read in two ways: once by the rules, and once by the backend."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from typing import Any

import h11
import pytest

from dtp.daemon.config import model
from dtp.daemon.config.values import AllowedRate
from dtp.daemon.http import jsonrpc
from dtp.daemon.http.headers import to_backend, to_client
from dtp.daemon.http.target import doubt, spellings
from dtp.daemon.policies import MethodCall, Moment, PolicyChain
from dtp.daemon.policies.methods import MethodsPolicy
from dtp.daemon.policies.rate import RatePolicy

from ..conftest import Backend, Pair, Run
from .test_daemon_http import CALLER, expose, site
from .test_daemon_json_rpc import call, node

HEAD = b" HTTP/1.1\r\nHost: x\r\n"
#: Never matches: what is said up to the end.
END = rb"(?!)"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Recorder(Backend):
    """A backend that keeps what it gets, and says the same to each head."""

    def __init__(self, answer: bytes = OK) -> None:
        super().__init__(self._serve)
        self.got, self._answer = b"", answer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        before = 0
        while data := await reader.read(65536):
            self.got += data
            for _ in range(self.got.count(b"\r\n\r\n") - before):
                writer.write(self._answer)
            before = self.got.count(b"\r\n\r\n")


async def say(port: int, data: bytes, *, until: bytes = rb"\r\n\r\n") -> bytes:
    """What is answered to `data` until it matches, or ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    found = b""
    with contextlib.closing(writer):
        while not re.search(until, found) and (more := await reader.read(65536)):
            found += more
    return found


# ---- where a request ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["http", "json-rpc"])
@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (b"POST /a" + HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", b"beside"),
        (b"POST /a" + HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", b"beside"),
        (b"POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"in HTTP/1.0"),
        (b"GET a" + HEAD + b"\r\n", b"not a path"),
        (b"GET ftp://x/a" + HEAD + b"\r\n", b"not a path"),
        (b"GET *" + HEAD + b"\r\n", b"not a path"),
        (b"GET /a#b" + HEAD + b"\r\n", b"fragment"),
        (b"GET http://x#b" + HEAD + b"\r\n", b"fragment"),
        (b"GET /a" + HEAD + b"Origin: https://one\r\nOrigin: https://two\r\n\r\n", b"Origin"),
        (b"GET /a" + HEAD + b"a:\r\n" * 256 + b"\r\n", b"more than 256 fields"),
    ],
)
def test_what_could_be_read_in_two_ways_is_400(run: Run, kind: str, request_: bytes, words: bytes) -> None:
    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, kind))
            answer = await say(port, request_, until=END)
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert words in answer
            assert b"Connection: close" in answer
            assert answer.count(b"HTTP/1.1") == 1
            assert backend.got == b""

    run(scenario)


def test_what_is_no_request_is_not_quoted(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "http"))
            answer = await say(port, b"GE\x01T secret HTTP/1.1\r\n\r\n", until=END)
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"illegal request line\n" in answer
            assert b"secret" not in answer

    run(scenario)


def test_nobody_takes_away_where_a_body_ends(run: Run) -> None:
    """`Connection: content-length` would leave a body that is the next request."""

    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "http"))
            inner = b"GET /inner HTTP/1.1\r\nHost: y\r\n\r\n"
            fields = b"Connection: content-length, host\r\nContent-Length: %d\r\n\r\n" % len(inner)
            await say(port, b"POST /a" + HEAD + fields + inner, until=b"ok")
            head, _, body = backend.got.partition(b"\r\n\r\n")
            assert b"\r\ncontent-length: %d\r\n" % len(inner) in head
            assert b"\r\nhost: x\r\n" in head
            assert inner.startswith(body)

    run(scenario)


def test_fields_behind_a_body_stay_here(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "http"))
            fields = b"Transfer-Encoding: chunked\r\n\r\n"
            await say(
                port, b"POST /a" + HEAD + fields + b"1\r\nx\r\n0\r\nDTP-Peer: evil\r\n\r\n", until=b"ok"
            )
            await pair.near.close()  # all of it has arrived when the stream has ended
            assert backend.got.endswith(b"1\r\nx\r\n0\r\n\r\n")
            assert b"evil" not in backend.got

    run(scenario)


# ---- who came ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        b"dtp.peer", b"dtp-peer-", b"x-forwarded-port", b"x-forwarded-user", b"x-forwarded_prefix",
        b"x.forwarded.for", b"x-forwarded-client-cert", b"x-client-ip", b"x-cluster-client-ip", b"true-client-ip",
        b"true_client_ip", b"cf-connecting-ip", b"fastly-client-ip", b"x-original-url", b"x-original-forwarded-for",
        b"x-rewrite-url", b"proxy",
    ],
)  # fmt: skip
def test_fields_that_backends_believe_are_the_daemons(name: bytes) -> None:
    found = to_backend([(b"host", b"x"), (name, b"evil"), (b"x-forward", b"mine")], CALLER, "api")
    assert b"evil" not in [value for _, value in found]
    assert (b"x-forward", b"mine") in found


@pytest.mark.parametrize(
    "name", [b"content_length", b"content.length", b"transfer_encoding", b"transfer.encoding", b"keep_alive"]
)
def test_fields_that_backends_take_for_framing_never_pass(name: bytes) -> None:
    """CGI and the like read them as `Content-Length`: the body would end elsewhere than the daemon says."""
    headers = [(b"host", b"x"), (b"content-length", b"5"), (name, b"0")]
    assert dict(to_backend(headers, CALLER, "api")).get(b"content-length") == b"5"
    assert name not in dict(to_backend(headers, CALLER, "api"))
    assert name not in dict(to_client(headers))


# ---- rules for methods -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"GET /secret", b"GET //secret", b"GET /%73ecret", b"GET /\\secret", b"GET /%5csecret", b"GET /%2Fsecret",
        b"GET /secret;a=b", b"GET /;a/secret", b"GET /secret/", b"GET /secret//", b"GET /SECRET",
        b"GET //x/secret", b"GET ///x/secret", b"GET /\\x/secret", b"GET //x\\secret/", b"GET /%2fx/%73ecret",
        b"GET http://y//x/secret", b"GET /secret?x", b"GET /secret/?x", b"GET http://y/secret",
        b"GET HTTP://y//secret", b"get /secret",
        b"GET /secret;%2Fz", b"GET /secret/;%5Cz", b"GET /;%2fx/secret", b"GET //x;%2fy/secret",
        b"DELETE /", b"delete /", b"DELETE http://y", b"DELETE http://y?a",
        b"POST /?x", b"OPTIONS *",
    ],
)  # fmt: skip
def test_no_spelling_escapes_a_rule(run: Run, line: bytes) -> None:
    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            rules = 'methods = { deny = ["* /secret", "DELETE", "OPTIONS"] }'
            port = await pair.start(expose(backend.port, "http", rules))
            override = b"X-HTTP-Method_Override: delete\r\n" if line.startswith(b"POST") else b""
            assert (await say(port, line + HEAD + override + b"\r\n")).startswith(b"HTTP/1.1 403 ")
            assert backend.got == b""
            assert pair.exposed.denials == {"methods": 1}

    run(scenario)


@pytest.mark.parametrize(
    "line",
    [
        b"GET /./secret", b"GET /public/../secret", b"GET /public/../../secret", b"GET /%2e/secret", b"GET /secret/.",
        b"GET /public/%2E%2e/secret", b"GET /public%2f..%2fsecret", b"GET /public/..%5csecret", b"GET http://y/a/../b",
        b"GET /%73ecret/x%2f..%2f..%2fy", b"GET /%73ecret/..;/x", b"GET /%73ecret/x\\..\\..\\y", b"GET /..?x",
        b"GET /x/../%73ecret//../y", b"POST /?override", b"POST /",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("rule", "judged"),
    [
        ('methods = { deny = ["* /secret*", "DELETE"] }', True),
        ('rate = { requests = "1/h", methods = ["* /secret*", "DELETE"] }', True),
        ('rate = { requests = "1000/s" }', False),
        ("", False),
    ],
)
def test_what_rules_for_methods_cannot_tell_is_400(run: Run, line: bytes, rule: str, judged: bool) -> None:
    """Which segments `..` leaves, and which of several methods counts, each backend knows for itself."""
    fields = b"X-HTTP-Method: put\r\nX-HTTP-Method_Override: delete\r\n"
    if line == b"POST /":
        fields = b"X-HTTP-Method: put, delete\r\n"

    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "http", rule))
            answer = await say(port, line + HEAD + (fields if line.startswith(b"POST") else b"") + b"\r\n")
            assert answer.startswith(b"HTTP/1.1 400 " if judged else b"HTTP/1.1 200 ")
            assert (backend.got == b"") is judged

    run(scenario)


def test_where_a_call_is_sent_is_no_method(run: Run) -> None:
    """Rules of a service for JSON-RPC go by its calls."""

    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "json-rpc", 'methods = { deny = ["b"] }'))
            asked = post(b'{"method":"a","id":1}').replace(b"POST /", b"POST /a/../b")
            assert (await say(port, asked)).startswith(b"HTTP/1.1 200 ")

    run(scenario)


def test_no_head_is_read_in_ever_more_ways() -> None:
    """Words of a field times paths were 130 MB of one head, for as long as the backend took."""
    fields: list[Any] = [
        ("host", "x"),
        ("x-http-method", b" ".join(b"%d" % number for number in range(3000))),
    ]
    head = h11.Request(method="POST", target=b"/" + b"a" * 15_000, headers=fields)
    assert doubt(head) is not None
    fields = [("host", "x"), ("x-http-method", "put"), ("x-method-override", "PUT")]
    head = h11.Request(method="post", target=b"//%61" + b"a;%2fb//" * 511, headers=fields)
    assert doubt(head) is None
    assert len(spellings(head)) == 27
    longer = h11.Request(method="post", target=head.target + b"%61a", headers=fields)
    assert doubt(longer) == "a path of more than 4096 bytes"
    assert doubt(h11.Request(method="post", target=b"/?" + bytes(b"a" * 9000), headers=fields)) is None


@pytest.mark.parametrize(
    ("target", "fields", "found"),
    [
        (b"/", {}, ["GET /"]),
        (b"*", {}, ["GET *"]),
        (b"/%7Ea/%7eb", {}, ["GET /%7Ea/%7eb", "GET /~a/~b"]),
        (b"/a%00%20%ff", {}, ["GET /a%00%20%ff"]),
        (b"/a", {"x-http-method": "Put"}, ["GET /a", "PUT /a"]),
        (b"/a", {"x-method-override": "put"}, ["GET /a", "PUT /a"]),
        (b"/a", {"x-http-method-override": "put", "x_method_override": "Put"}, ["GET /a", "PUT /a"]),
        (b"/%61;b", {}, ["GET /%61;b", "GET /a;b", "GET /a"]),
        (b"/a;%2Fb", {}, ["GET /a;%2Fb", "GET /a;/b", "GET /a/b", "GET /a"]),
        (b"/a;%2Fb/c", {}, ["GET /a;%2Fb/c", "GET /a;/b/c", "GET /a/b/c", "GET /a/c"]),
        (
            b"//x;%2Fb/c",
            {},
            ["GET //x;%2Fb/c", "GET //x;/b/c", "GET /x/b/c", "GET /b/c", "GET /x/c", "GET /c"],
        ),
        (b"/;%2Fa", {}, ["GET /;%2Fa", "GET /;/a", "GET /a", "GET /"]),
        (b"//", {}, ["GET //", "GET /"]),
        (b"//a", {}, ["GET //a", "GET /a", "GET /"]),
        (b"//a/", {}, ["GET //a/", "GET /a/", "GET /"]),
        (b"//x/a/", {}, ["GET //x/a/", "GET /x/a/", "GET /a/"]),
        (b"/a//b/", {}, ["GET /a//b/", "GET /a/b/"]),
        (b"//x%2Fx/a", {}, ["GET //x%2Fx/a", "GET //x/x/a", "GET /x/x/a", "GET /x/a", "GET /a"]),
        (b"//x\\x/a", {}, ["GET //x\\x/a", "GET /x/x/a", "GET /x/a", "GET /a"]),
        (b"/%3B/x/a", {}, ["GET /%3B/x/a", "GET /;/x/a", "GET /x/a", "GET /a"]),
        (b"//x?//y", {}, ["GET //x", "GET /x", "GET /"]),
        (b"/%2%35%%41%4", {}, ["GET /%2%35%%41%4", "GET /%25%A%4"]),
    ],
)
def test_spellings(target: bytes, fields: dict[str, str], found: list[str]) -> None:
    request = h11.Request(method=b"GET", target=target, headers=[("host", "x"), *fields.items()])
    assert list(spellings(request)) == found


@pytest.mark.parametrize(
    "value", [b"delete\x1c", b"\xa0delete", b"delete, x", b"x,delete", b"delete;a", b"a\xffdelete"]
)
def test_whatever_a_backend_cuts_off_an_override(value: bytes) -> None:
    """What Python strips, what JavaScript trims, and what is cut off at a comma are not the same."""
    fields = [("host", "x"), ("x-http-method-override", value)]
    assert doubt(h11.Request(method=b"POST", target=b"/a", headers=fields)) is not None  # type: ignore[arg-type]


def test_what_is_allowed_is_so_in_all_spellings() -> None:
    policy = MethodsPolicy(model.MethodRule(allow=("GET /public/*", "GET /a%20b")))
    for method, also, passes in (
        ("GET /public/a", (), True),
        ("GET /public/", (), True),
        ("GET /public/../secret", ("GET /secret",), False),
        ("GET /secret/%2e%2e/public/x", ("GET /public/x",), False),
        ("GET /PUBLIC/a", (), False),
        ("GET /a%20b", (), True),
    ):
        assert (policy.check_event(MethodCall(CALLER, method, also), Moment(0, 0)) is None) == passes, method


@pytest.mark.parametrize("method", ["admin_x", "Admin_x", "ADMIN_X", "\uff41dmin_x", "admin_\u017f"])
def test_no_case_escapes_a_rule_against_methods(method: str) -> None:
    policy = MethodsPolicy(model.MethodRule(deny=("admin_x", "admin_s")))
    assert policy.check_event(MethodCall(CALLER, method), Moment(0, 0)) is not None
    assert policy.check_event(MethodCall(CALLER, "admin_y"), Moment(0, 0)) is None
    rate = PolicyChain(
        [RatePolicy(model.RateRule(requests=AllowedRate(1, 60), methods=("admin_x", "admin_s")))]
    )
    assert rate.ask_policies(MethodCall(CALLER, method), Moment(0, 0)) is None
    assert rate.ask_policies(MethodCall(CALLER, "other", ("admin_x",)), Moment(0, 0)) is not None


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        (b"GET http://y:81/a?b=1", b"GET /a?b=1"),
        (b"GET http://y:81", b"GET /"),
        (b"OPTIONS http://y:81", b"OPTIONS *"),  # RFC 9112, 3.2.4
        (b"OPTIONS http://y:81?", b"OPTIONS /?"),
        (b"OPTIONS http://y:81/", b"OPTIONS /"),
    ],
)
def test_a_whole_url_is_a_path_and_a_host(run: Run, line: bytes, asked: bytes) -> None:
    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "http"))
            assert (await say(port, line + HEAD + b"\r\n")).startswith(b"HTTP/1.1 200 ")
            assert backend.got.startswith(asked + b" HTTP/1.1\r\nhost: y:81\r\n")
            assert backend.got.count(b"host:") == 1

    run(scenario)


def test_answers_to_head_are_heads(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "http", 'methods = { deny = ["* /secret"] }'))
            answer = await say(port, (b"HEAD /secret" + HEAD + b"\r\n") * 2, until=rb"(?s)403.*403.*\r\n\r\n")
            assert re.fullmatch(rb"(?s)(HTTP/1.1 403 .*?\r\n\r\n){2}", answer)
            assert pair.exposed.ledger.failed == 0

    run(scenario)


def test_a_head_may_have_256_fields(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "http"))
            assert (await say(port, b"GET /" + HEAD + b"a:\r\n" * 255 + b"\r\n")).startswith(b"HTTP/1.1 200 ")
            assert backend.got.count(b"\r\na:") == 255

    run(scenario)


def test_there_are_no_tunnels(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "http"))
            asked = b"CONNECT x:80" + HEAD + b"\r\nGET /inner" + HEAD + b"\r\n"
            assert (await say(port, asked)).startswith(b"HTTP/1.1 405 ")
            assert b"CONNECT" not in backend.got

    run(scenario)


@pytest.mark.parametrize(
    ("kind", "request_", "status"),
    [
        ("json-rpc", b"POST /" + HEAD + b"Content-Length: 9000000\r\n\r\n", b"413"),
        ("http", b"POST /secret" + HEAD + b"Content-Length: 9000000\r\n\r\n", b"403"),
        ("http", b"POST /#x" + HEAD + b"Content-Length: 9000000\r\n\r\n", b"400"),
        ("http", b"POST /" + HEAD + b"nonsense\r\n\r\n", b"400"),
    ],
)
def test_an_answer_is_heard_by_who_goes_on_talking(
    run: Run, kind: str, request_: bytes, status: bytes
) -> None:
    """Bytes that nobody reads become a reset, which would take the answer with it."""

    async def scenario(pair: Pair) -> None:
        port = await pair.start(expose(1, kind, 'methods = { deny = ["* /secret"] }'))
        answer = await say(port, request_ + bytes(9_000_000), until=END)
        assert answer.startswith(b"HTTP/1.1 " + status)

    run(scenario)


# ---- other protocols ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [b"h2c", b"HTTP/2.0", b"h2c, websocket", b"TLS/1.0"])
def test_nobody_changes_to_a_protocol_that_no_rule_sees(run: Run, protocol: bytes) -> None:
    """Behind h2c there would be any requests (smuggling by upgrade); of several, WebSocket passes."""

    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "http"))
            fields = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
            assert (await say(port, b"GET /a" + HEAD + fields % protocol)).startswith(b"HTTP/1.1 200 ")
            upgrades = re.findall(rb"\r\nupgrade: (.*)\r\n", backend.got)
            assert upgrades == ([b"websocket"] if b"websocket" in protocol else [])
            assert b"http2-settings" not in backend.got

    run(scenario)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (
            b"POST /a" + HEAD + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
            b"426",
        ),
        (
            b"GET /a" + HEAD + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
            b"426",
        ),
        (b"GET /a" + HEAD + b"Upgrade: websocket\r\n\r\n", b"426"),
        (b"GET /a" + HEAD + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n", b"426"),
        (b"GET /a" + HEAD + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", b"502"),
    ],
)
def test_a_service_for_websockets_gives_nothing_else(run: Run, request_: bytes, status: bytes) -> None:
    """Also where the backend answers as if nobody had asked for a WebSocket."""

    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "websocket"))
            answer = await say(port, request_)
            assert answer.startswith(b"HTTP/1.1 " + status)
            assert b"ok" not in answer.partition(b"\r\n\r\n")[2]

    run(scenario)


# ---- JSON-RPC ----------------------------------------------------------------------------------------------------


def post(body: bytes, fields: bytes = b"") -> bytes:
    return b"POST /" + HEAD + fields + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_no_charset_has_a_call_read_anew(run: Run) -> None:
    """In UTF-7, which aiohttp's backends would decode, `+ACI-` ends a text: the call would be another one."""

    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "json-rpc"))
            fields = b"Content-Type: application/json; charset=utf-7\r\nContent-Encoding: identity\r\n"
            await say(port, post(b'{"method":"a","id":1,"x":"+ACI-,+ACI-method+ACI-:+ACI-b"}', fields))
            assert b"\r\ncontent-type: application/json\r\n" in backend.got
            assert b"charset" not in backend.got
            assert b"content-encoding" not in backend.got

    run(scenario)


def test_which_pages_may_read_is_the_daemons_to_say(run: Run) -> None:
    """What the backend says of it is for those who ask it directly; caches keep answers to different pages apart."""
    own = b"Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n"

    async def scenario(pair: Pair) -> None:
        async with Recorder(OK.replace(b"\r\n\r\n", b"\r\n" + own + b"\r\n")) as backend:
            port = await pair.start(expose(backend.port, "json-rpc", 'origins = ["https://app.example"]'))
            answer = await say(port, post(b'{"method":"a","id":1}', b"Origin: https://app.example\r\n"))
            told = re.findall(rb"(?i)\r\n(access-control-.*|vary:.*)(?=\r)", answer)
            assert told == [b"access-control-allow-origin: https://app.example", b"vary: origin"]

    run(scenario)


def test_what_is_encoded_is_415(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "json-rpc"))
            asked = post(b'{"method":"a","id":1}', b"Content-Encoding: gzip\r\n")
            assert (await say(port, asked)).startswith(b"HTTP/1.1 415 ")
            assert backend.got == b""

    run(scenario)


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_an_id_that_no_answer_could_have(number: str) -> None:
    with pytest.raises(jsonrpc.Malformed, match="id"):
        jsonrpc.parse(f'{{"method":"a","id":{number}}}'.encode(), 1)


@pytest.mark.parametrize("refused", [False, True])
def test_an_answer_that_is_put_together_comes_as_it_is(run: Run, refused: bool) -> None:
    """What the backend would compress could not be joined with what was refused."""

    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "json-rpc", 'methods = { deny = ["b"] }'))
            body = json.dumps([call("a"), call("b", 2)] if refused else [call("a")]).encode()
            await say(port, post(body, b"Accept-Encoding: gzip\r\n"))
            assert (b"\r\naccept-encoding: gzip\r\n" in backend.got) is not refused

    run(scenario)


def test_a_batch_of_which_the_backend_makes_no_json(run: Run) -> None:
    """What was refused is answered, and the rest has failed: the whole stays JSON."""

    async def scenario(pair: Pair) -> None:
        page = b"HTTP/1.1 500 Oops\r\nContent-Length: 12\r\n\r\n<p>Oops</p>\n"
        async with Recorder(page) as backend, site(rpc=node):
            port = await pair.start(expose(backend.port, "json-rpc", 'methods = { deny = ["b"] }'))
            body = json.dumps([call("a"), call("b", 2), {"method": "a"}]).encode()
            answer = await say(port, post(body), until=rb"\]\Z")
            found = json.loads(answer.partition(b"\r\n\r\n")[2])
            assert {one["id"]: one["error"]["code"] for one in found} == {1: -32603, 2: -32601}

    run(scenario)
