"""HTTP through a pair of daemons: answers that come early or not at all, and backends that end in many ways."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dtp.daemon.http.session import HttpSession, retry_after
from dtp.daemon.http.side import Side
from dtp.daemon.patience import Patience
from dtp.daemon.reasons import Reason
from dtp.daemon.relays.sockets import BackendLink
from dtp.daemon.server import Daemon

from ..conftest import Backend, Pair, Run, RunTalk
from ..streams.test_daemon_relay import reset, until
from ..talk import Talk
from .test_daemon_http import expose
from .test_daemon_http_ends import FLUSH, GET, LAST
from .test_daemon_http_hostile import END, HEAD, OK, Recorder, post, say

# ---- answers that come early -------------------------------------------------------------------------------------


def test_an_early_answer_is_heard_to_its_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the backend takes no more meanwhile: a reset behind the answer could take it along."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 No\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000))

    async def break_off(self: object, backend: Side) -> None:
        raise ConnectionResetError("it takes no more")

    monkeypatch.setattr(HttpSession, "_pass_body", break_off)

    async def scenario(pair: Pair) -> None:
        async with Backend(refuse) as backend:
            port = await pair.start(expose(backend.port, "http"))
            answer = await say(port, b"POST /" + HEAD + b"Content-Length: 9\r\n\r\n", until=END)
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert b"\r\nconnection: close\r\n" in answer
            assert answer.endswith(bytes(300_000))
        await pair.near.close()
        assert pair.exposed.ledger.failed == 0

    run(scenario)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("http", b"Content-Length: 9"),
        ("json-rpc", b"Content-Length: 9\r\nContent-Encoding: br"),
        ("json-rpc", b"Content-Length: 9000000"),
    ],
)
def test_who_is_refused_before_its_body_may_keep_it(run: Run, kind: str, fields: bytes) -> None:
    """Whether the body comes, or the next request, nobody knows: the connection ends, and it is said."""

    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, kind, 'methods = { deny = ["* /secret"] }'))
            asked = b"POST /secret" + HEAD + b"Expect: 100-continue\r\n" + fields + b"\r\n\r\n"
            answer = await say(port, asked, until=END)
            assert answer.startswith(b"HTTP/1.1 4")
            assert answer.count(b"HTTP/1.1 ") == 1
            assert b"\r\nconnection: close\r\n" in answer.lower()

    run(scenario)


@pytest.mark.parametrize("fields", [b"", b"Expect: 100-continue\r\n"])
def test_the_end_of_a_connection_is_said_once(talk: RunTalk, fields: bytes) -> None:
    """There are clients that take a field's second mention for another value."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(b"POST /" + HEAD + fields + b"Content-Length: 9000000\r\n\r\n")
        await talk.ended()
        assert talk.client.heard.startswith(b"HTTP/1.1 413 ")
        assert talk.client.heard.lower().count(b"\r\nconnection: close\r\n") == 1

    talk(scenario, kind="json-rpc")


@pytest.mark.parametrize(
    ("version", "before", "behind"), [(b"1.0", False, b"ok"), (b"1.1", True, b"x-sum: 1\r\n\r\n")]
)
def test_clients_of_http_1_0_get_no_more_than_they_know(
    run: Run, version: bytes, before: bool, behind: bytes
) -> None:
    """Nothing in front of the answer, and no fields behind its body."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"

    async def scenario(pair: Pair) -> None:
        async with Recorder(hints + chunked) as backend:
            port = await pair.start(expose(backend.port, "http"))
            asked = b"GET / HTTP/%s\r\nHost: x\r\nConnection: close\r\n\r\n" % version
            answer = await say(port, asked, until=END)
            assert answer.startswith(b"HTTP/1.1 103 " if before else b"HTTP/1.1 200 ")
            assert answer.endswith(behind)

    run(scenario)


@pytest.mark.parametrize("way", ["client", "backend"])
def test_who_broke_off_is_said(run: Run, way: str) -> None:
    """In the midst of an answer, in words."""

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + bytes(20_000_000))
        await go_on.wait()
        reset(writer)

    async def scenario(pair: Pair) -> None:
        async with Backend(pour) as backend:
            port = await pair.start(expose(backend.port, "http"))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\n")
            open_: Any
            (open_,) = pair.exposed.ledger.open
            if way == "client":
                reset(writer)
            else:
                go_on.set()
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            await pair.exposed.ledger.wait_empty()
            assert (
                open_.why
                == {
                    "client": "the client broke off (there)",
                    "backend": "the backend broke off: Connection reset by peer",
                }[way]
            )
            go_on.set()
            writer.close()

    go_on = asyncio.Event()
    run(scenario)


@pytest.mark.parametrize("fields", [b"", b"Content-Length: 3\r\n"])
def test_what_comes_with_a_change_of_protocol_is_of_the_new_one(run: Run, fields: bytes) -> None:
    """From both sides, in one piece with the head; also behind a body, which a backend reads first."""

    async def change(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(3 if fields else 0)
        writer.write(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello")
        writer.write(await reader.readexactly(5))

    async def scenario(pair: Pair) -> None:
        async with Backend(change) as backend:
            port = await pair.start(expose(backend.port, "http"))
            asked = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
            asked += fields + b"\r\n"
            answer = await say(port, asked + (b"abc" if fields else b"") + b"early", until=rb"helloearly\Z")
            assert answer.startswith(b"HTTP/1.1 101 ")

    run(scenario)


def test_a_call_may_wait_until_its_body_is_wanted(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "json-rpc"))
            head, _, body = post(b'{"method":"a","id":1}', b"Expect: 100-continue\r\n").rpartition(
                b"\r\n\r\n"
            )
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head + b"\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            writer.write(body)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            writer.close()

    run(scenario)


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.2, "2"), (3600.0, "3600")]
)
def test_nobody_is_told_to_come_again_too_early(seconds: float, told: str) -> None:
    assert retry_after(seconds) == {"Retry-After": told}


def test_an_orderly_end_is_no_failure_there(run: Run) -> None:
    """The near daemon is told that nothing more is wanted, by a code that means just that."""

    async def scenario(pair: Pair) -> None:
        pair.make = partial(Daemon, patience=Patience(last_words=0.0))
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "http"))
            (forwarded,) = pair.near.forwarded.values()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(LAST)
            assert (await reader.read()).endswith(b"ok")
            await forwarded.ledger.wait_empty()
            assert (forwarded.ledger.failed, pair.exposed.ledger.failed) == (0, 0)
            writer.close()

    run(scenario)


# ---- backends ----------------------------------------------------------------------------------------------------


def test_what_a_backend_says_unasked_is_no_answer(run: Run) -> None:
    """Bytes behind an answer would be taken for the next one."""

    async def scenario(pair: Pair) -> None:
        async with Recorder(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil") as backend:
            port = await pair.start(expose(backend.port, "http"))
            answer = await say(port, GET + GET + LAST, until=END)
            assert len(re.findall(rb"\r\n\r\nok", answer)) == 3
            assert b"evil" not in answer
            assert backend.connections == 3

    run(scenario)


def test_a_client_that_asks_for_http_2_too_is_served(run: Run) -> None:
    """Java's HttpClient does so with every first request, whatever its method."""

    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "json-rpc"))
            for protocol in (b"h2c", b"websocket"):
                fields = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\nHTTP2-Settings: AAMAAABk\r\n"
                answer = await say(port, post(b'{"method":"a","id":1}', fields % protocol))
                assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"upgrade" not in backend.got.lower()
            assert b"http2-settings" not in backend.got.lower()

    run(scenario)


def test_a_backend_that_takes_no_more_keeps_no_socket(run: Run) -> None:
    """What it was to get still waits when the stream is over; after a while nobody waits any longer."""

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()

    async def scenario(pair: Pair) -> None:
        pair.make = partial(Daemon, patience=Patience(flush=0.0))
        async with Backend(deaf) as backend:
            port = await pair.start(expose(backend.port, "http"))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /" + HEAD + b"Content-Length: 99999999\r\n\r\n" + bytes(20_000_000))
            await until(lambda: any(cast(Any, one).link is not None for one in pair.exposed.ledger.open))
            open_: Any
            (open_,) = pair.exposed.ledger.open
            transport = open_.link.writer.transport
            await until(lambda: transport.get_write_buffer_size() > 65536)
            sock = transport.get_extra_info("socket")
            open_.abort(Reason.DRAINING)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            await until(lambda: sock.fileno() < 0)
            go_on.set()
            writer.close()

    go_on = asyncio.Event()
    run(scenario)


def test_a_backend_that_takes_the_rest_in_time_is_left_alone() -> None:
    """Its transport has ended by itself then, and can't be aborted any more."""
    told, due = [], []

    class Loop(asyncio.SelectorEventLoop):
        def call_later(self, seconds: float, give_up: Callable[..., Any], *args: Any, **more: Any) -> Any:  # type: ignore[override]
            if seconds != FLUSH:
                return super().call_later(seconds, give_up, *args, **more)
            due.append(give_up)
            return None

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        ours, theirs = socket.socketpair()
        backend = SimpleNamespace(active=1)
        link = BackendLink(*await asyncio.open_connection(sock=ours), backend, FLUSH)  # type: ignore[arg-type]
        link.writer.write(bytes(2_000_000))
        link.close()
        assert backend.active == 0
        theirs.setblocking(False)
        with theirs:
            left = 2_000_000
            while piece := await loop.sock_recv(theirs, 65536):
                left -= len(piece)
        assert left == 0
        (give_up,) = due
        give_up()

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(scenario())
    assert told == []


def test_a_conversation_with_a_bug_is_over_all_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    began = []

    async def broken(self: HttpSession) -> None:
        began.append(self)
        raise RuntimeError("a bug")

    async def scenario(pair: Pair) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        monkeypatch.setattr(HttpSession, "run", broken)
        port = await pair.start(expose(1, "http"))
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await until(lambda: began and not pair.exposed.active)
        assert not pair.exposed.ledger.open
        began.pop().stream.reset(Reason.BACKEND_BROKE)
        writer.close()

    run(scenario)


def test_a_backend_is_not_counted_for_who_leaves_while_it_is_joined(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(**_: object) -> None:
        joining.set()
        await asyncio.Event().wait()

    async def scenario(pair: Pair) -> None:
        async with Recorder() as backend:
            port = await pair.start(expose(backend.port, "http"))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            before = asyncio.open_connection
            monkeypatch.setattr(asyncio, "open_connection", never)
            await joining.wait()
            monkeypatch.setattr(asyncio, "open_connection", before)
            open_: Any
            (open_,) = pair.exposed.ledger.open
            open_.abort(Reason.DRAINING)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            assert sum(one.active for one in pair.exposed.backends.balancer.backends) == 0
            writer.close()

    joining = asyncio.Event()
    run(scenario)
