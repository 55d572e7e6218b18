"""gRPC through a pair of daemons: two implementations as clients and servers, rules, refusals, ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
from functools import partial
from typing import Any

import grpclib.client
import grpclib.const
import grpclib.server
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from hpack import Encoder
from hyperframe import frame as h2

from dtp.daemon.http import conversation, frames
from dtp.daemon.patience import Patience
from dtp.daemon.policies import Bounds, Move, moment
from dtp.daemon.policies.base import Caller
from dtp.daemon.reasons import Reason, words
from dtp.daemon.server import Daemon

from ..conftest import NEAR, Backend, Pair, Run, RunTalk
from ..grpc_servers import (
    GOING_AWAY,
    HELLO,
    OPTIONS,
    PACKAGE,
    SERVERS,
    Raw,
    call_head,
    core_client,
    core_server,
    expose,
    failure,
    grpc,
    pieces,
)
from ..talk import Talk, seen
from .test_daemon_grpc_filter import parsed
from .test_daemon_http_ends import turns

pytest.importorskip("grpc.aio")


# ---- calls ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
def test_all_kinds_of_calls(run: Run, server: str) -> None:
    async def scenario(pair: Pair) -> None:
        async with SERVERS[server]() as backend:
            port = await pair.start(expose(backend))
            async with core_client(port) as channel:
                unary = channel.unary_unary(f"{PACKAGE}/Unary")
                for size in (0, 1, 1000, 100_000, 10_000_000):
                    assert await unary(bytes(size)) == bytes(size)
                answers = await asyncio.gather(*(unary(b"%d" % number) for number in range(50)))
                assert answers == [b"%d" % number for number in range(50)]
                out = channel.unary_stream(f"{PACKAGE}/Out")(b"500")
                assert [one async for one in out] == [b"%d" % number for number in range(500)]
                into = channel.stream_unary(f"{PACKAGE}/In")
                assert await into(pieces(*[bytes(100_000)] * 30)) == b"3000000"
                error = await failure(unary(b"fail"))
                assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "näh: 100%")
            assert pair.exposed.ledger.streams == 1

    run(scenario)


@pytest.mark.parametrize("server", SERVERS)
def test_a_conversation_that_is_half_closed(run: Run, server: str) -> None:
    async def scenario(pair: Pair) -> None:
        async with SERVERS[server]() as backend, core_client(await pair.start(expose(backend))) as channel:
            both = channel.stream_stream(f"{PACKAGE}/Both")()
            for size in (1, 70_000, 3):  # each is answered before the next is sent
                await both.write(bytes(size))
                assert await both.read() == bytes(size)
            await both.done_writing()
            assert await both.read() == grpc.aio.EOF
            assert await both.code() == grpc.StatusCode.OK

    run(scenario)


def test_the_other_client(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with core_server() as backend:
            port = await pair.start(expose(backend, 'methods = { deny = ["*/Secret"] }'))
            channel = grpclib.client.Channel("127.0.0.1", port, codec=Raw())
            unary: Any = grpclib.client.UnaryUnaryMethod(channel, f"{PACKAGE}/Unary", None, None)  # type: ignore[arg-type]
            assert await unary(bytes(2_000_000)) == bytes(2_000_000)
            both: Any = grpclib.client.StreamStreamMethod(channel, f"{PACKAGE}/Both", None, None)  # type: ignore[arg-type]
            assert await both([b"a", b"b"]) == [b"a", b"b"]
            secret: Any = grpclib.client.UnaryUnaryMethod(channel, f"{PACKAGE}/Secret", None, None)  # type: ignore[arg-type]
            for size in (10, 1_000_000):  # the refusal is there before the message is
                with pytest.raises(GRPCError) as caught:
                    await secret(bytes(size))
                assert caught.value.status is Status.PERMISSION_DENIED
            assert await unary(b"still") == b"still"
            channel.close()

    run(scenario)


def calls_of(pair: Pair) -> int:
    """How many are under way, as the status says."""
    found: int = pair.exposed.get_status(0)["calls"]
    return found


def test_a_call_that_is_cancelled(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with core_server() as backend, core_client(await pair.start(expose(backend))) as channel:
            waiting = channel.unary_stream(f"{PACKAGE}/Out")(b"0")
            reading = asyncio.ensure_future(waiting.read())
            unary = channel.unary_unary(f"{PACKAGE}/Unary")
            assert await unary(b"x") == b"x"
            assert calls_of(pair) == 1
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            while calls_of(pair):
                await unary(b"x")

    run(scenario)


def test_the_backend_learns_who_came(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with core_server() as backend, core_client(await pair.start(expose(backend))) as channel:
            spoofed = [
                ("dtp-peer", "evil"),
                ("x-forwarded-for", "evil"),
                ("dtp_account", "evil"),
                ("mine", "1"),
            ]
            told = await channel.unary_unary(f"{PACKAGE}/Unary")(b"who", metadata=spoofed)
            seen = json.loads(told)
            assert "evil" not in seen.values()
            assert seen["dtp-peer"] == str(NEAR.id)
            assert seen["dtp-account"] == NEAR.id.sui_address
            assert seen["x-forwarded-for"] == "127.0.0.1"
            assert seen["mine"] == "1"

    run(scenario)


# ---- refusals ------------------------------------------------------------------------------------------------------


def test_who_has_used_up_a_quota_of_bytes_is_told_when_to_come_again(run: Run) -> None:
    """Over a connection that is there and over a new one, whatever the backend says there first."""

    async def scenario(pair: Pair) -> None:
        async with core_server() as backend:
            port = await pair.start(expose(backend, 'quota = { bytes = "1MB", every = "1h" }'))
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
                unary = channel.unary_unary(f"{PACKAGE}/Unary")
                assert await unary(b"x") == b"x"
                ((_, caller),) = pair.far.callers.items()
                pair.exposed.chain.count_moved(Move(caller, 10**6), moment())
                for _ in range(2):
                    assert "quota" in await told_to_wait(unary)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
                unary = channel.unary_unary(f"{PACKAGE}/Unary")
                for _ in range(2):
                    assert "quota" in await told_to_wait(unary)
            assert pair.exposed.denials == {"quota": 4}

    async def told_to_wait(unary: Any) -> str:
        error = await failure(unary(b"x"))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error.details()
        told = dict(error.trailing_metadata() or error.initial_metadata())
        assert 0 < int(told["grpc-retry-pushback-ms"]) <= 3_600_000
        found: str = error.details()
        return found

    run(scenario)


def test_methods_and_rates(run: Run) -> None:
    rules = f"""methods = {{ allow = ["{PACKAGE}/*"], deny = ["*/Secret"] }}
rate = [{{ requests = "2/h", methods = ["*/In"] }}]"""

    async def scenario(pair: Pair) -> None:
        async with core_server() as backend, core_client(await pair.start(expose(backend, rules))) as channel:
            for method, size in (
                (f"{PACKAGE}/Secret", 1),
                (f"{PACKAGE}/Secret", 3_000_000),
                ("/other.Echo/Unary", 1),
            ):
                error = await failure(channel.unary_unary(method)(bytes(size)))
                assert error.code() is grpc.StatusCode.PERMISSION_DENIED
                assert error.details() == f"methods: the method {method!r} is not allowed here"
                assert dict(error.trailing_metadata() or error.initial_metadata())["dtp-policy"] == "methods"
            into = channel.stream_unary(f"{PACKAGE}/In")
            for _ in range(2):
                assert await into(pieces(b"ab", b"c")) == b"3"
            error = await failure(into(pieces(b"ab", b"c")))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert error.details() == "rate: 2 requests in 3600 s is what an identity may make"
            pushback = dict(error.trailing_metadata() or error.initial_metadata())["grpc-retry-pushback-ms"]
            assert 1_700_000 < int(pushback) <= 1_800_000
            # Refused bytes cost the connection nothing: what is allowed still has its whole window.
            unary = channel.unary_unary(f"{PACKAGE}/Unary")
            assert await unary(bytes(1_000_000)) == bytes(1_000_000)
            assert pair.exposed.denials == {"methods": 3, "rate": 1}

    run(scenario)


def test_many_refusals_leave_the_window_as_it_was(run: Run) -> None:
    """Messages of refused calls take room in the connection's window until it is given back."""

    async def scenario(pair: Pair) -> None:
        async with core_server() as backend:
            port = await pair.start(expose(backend, 'methods = { deny = ["*/Secret"] }'))
            async with core_client(port) as channel:
                secret = channel.unary_unary(f"{PACKAGE}/Secret")
                for _ in range(50):
                    assert (await failure(secret(bytes(60_000)))).code() is grpc.StatusCode.PERMISSION_DENIED
                unary = channel.unary_unary(f"{PACKAGE}/Unary")
                assert await unary(bytes(300_000)) == bytes(300_000)

    run(scenario)


def test_no_backend_is_said(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with core_client(await pair.start(expose(1))) as channel:
            for _ in range(2):
                error = await failure(channel.unary_unary(f"{PACKAGE}/Unary")(b"x"))
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                assert error.details() == "no backend can be reached"

    run(scenario)


@pytest.mark.parametrize(
    ("answer", "details"), [(b"", "the backend broke off"), (b"HTTP/1.1 400 no\r\n\r\n", None)]
)
def test_a_backend_that_breaks_off(run: Run, answer: bytes, details: str | None) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\x00" * 4)
        writer.write(answer)

    async def scenario(pair: Pair) -> None:
        async with Backend(serve) as backend, core_client(await pair.start(expose(backend.port))) as channel:
            error = await failure(channel.unary_unary(f"{PACKAGE}/Unary")(b"x"))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            if details:
                assert error.details() == details

    run(scenario)


def test_a_backend_that_ends_within_a_call(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with contextlib.AsyncExitStack() as stack:
            backend = await stack.enter_async_context(core_server())
            async with core_client(await pair.start(expose(backend))) as channel:
                both = channel.stream_stream(f"{PACKAGE}/Both")()
                await both.write(b"x")
                assert await both.read() == b"x"
                session: Any
                (session,) = pair.exposed.ledger.open
                session.link.writer.transport.abort()
                error = await failure(both.read())
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                assert error.details() == "the backend broke off"
                # The next call goes over a connection of its own.
                assert await channel.unary_unary(f"{PACKAGE}/Unary")(b"again") == b"again"

    run(scenario)


@pytest.mark.parametrize(
    ("first", "why", "answer"),
    [
        (b"\x16\x03\x01\x02\x00\x01", "the client speaks TLS", b""),
        (b"POST / HTTP/1.1\r\n\r\n" + b" " * 30, "HTTP/1.1; gRPC needs HTTP/2", b"HTTP/1.1 505 "),
        (b"hello, is anybody there?", "no HTTP/2", b""),
        (frames.PREFACE + b"\0\0\1\1\4\0\0\0\1\xff", "can't be decoded", h2.SettingsFrame(0).serialize()),
        (frames.PREFACE + b"\0\0\1\5\4\0\0\0\1\xff", "a client that pushes", h2.SettingsFrame(0).serialize()),
    ],
)  # fmt: skip
def test_who_speaks_something_else(run: Run, first: bytes, why: str, answer: bytes) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(silent) as backend:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", await pair.start(expose(backend.port))
            )
            writer.write(first)
            if answer:
                assert (await reader.read()).startswith(answer)
            else:
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            writer.close()
            (session,) = seen
            assert why in session.why

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    seen = []
    ended = conversation.Conversation._drop_link
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversation.Conversation, "_drop_link", lambda self: (seen.append(self), ended(self)))
        run(scenario)


@pytest.mark.parametrize("first", [b"PRI * HT", frames.PREFACE + b"\0\1\0\1\4\0\0\0\1half of a head"])
def test_a_head_that_trickles_in_is_cut_off(run: Run, first: bytes) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def scenario(pair: Pair) -> None:
        pair.make = partial(Daemon, patience=Patience(head=0.1))
        async with Backend(silent) as backend:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", await pair.start(expose(backend.port))
            )
            writer.write(first)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()

    run(scenario)


def test_a_quiet_connection_stays_and_each_head_has_10_s(talk: RunTalk) -> None:
    async def scenario(talk: Talk) -> None:
        talk.client.say(HELLO)
        await seen(lambda: talk.links and talk.links[0].heard)
        (backend,) = talk.links
        backend.say(h2.SettingsFrame(0).serialize())
        await asyncio.sleep(1000)
        encoder = Encoder()
        for stream in (1, 3):
            data = call_head(encoder, stream, "Unary")
            for piece in (data[:5], data[5:-1], data[-1:] + h2.PingFrame(0).serialize()[:4]):
                talk.client.say(piece)
                await asyncio.sleep(4)
            talk.client.say(h2.PingFrame(0).serialize()[4:])
        await seen(lambda: talk.session.calls == 2)
        talk.client.say(h2.PingFrame(0).serialize()[:4])
        assert await talk.ended() == 10
        assert talk.client.code == Reason.IDLE

    talk(scenario, kind="grpc")


def test_an_answer_that_uses_up_a_quota_is_heard(talk: RunTalk) -> None:
    """The backend has done what was asked; the connection stays, for the calls behind it to be told so."""

    async def scenario(talk: Talk) -> None:
        encoder, answers = Encoder(), Encoder()
        talk.exposed.count_moved = lambda caller, size: Reason.QUOTA
        talk.client.say(HELLO)
        await seen(lambda: talk.links and talk.links[0].heard)
        (backend,) = talk.links
        backend.say(h2.SettingsFrame(0).serialize())
        for stream in (1, 3):
            talk.client.say(call_head(encoder, stream, "Unary"))
            await seen(lambda: talk.session.calls)
            head = h2.HeadersFrame(stream, data=answers.encode([(b"grpc-status", b"0")]))
            head.flags |= {"END_HEADERS", "END_STREAM"}
            backend.say(answer := head.serialize())
            await seen(lambda answer=answer: talk.client.heard.endswith(answer))
        talk.client.say(call_head(encoder, 5, "Unary"))
        await seen(lambda: talk.session.calls)
        backend.say(h2.PingFrame(0).serialize())
        await talk.ended()
        assert talk.client.code == Reason.QUOTA

    talk(scenario, kind="grpc")


@pytest.mark.parametrize(("kind", "in_a_row"), [("frames", 1024), ("heads", 64)])
def test_tiny_frames_hold_up_nobody(talk: RunTalk, kind: str, in_a_row: int) -> None:
    """What is understood of them goes on meanwhile: a head of a few bytes may be thousands for the backend."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(HELLO)
        await seen(lambda: talk.links and talk.links[0].heard)
        pieces: list[Any]
        (backend,), pieces, encoder = talk.links, [], Encoder()
        backend.write = pieces.append
        if kind == "heads":
            said = [call_head(encoder, 2 * number + 1, "Both") for number in range(1000)]
            talk.client.say(b"".join(said))
        else:
            talk.client.say(h2.PingFrame(0).serialize() * 5000)
        total = 1000 if kind == "heads" else 5000
        await turns(lambda: sum(len(parsed(one)) for one in pieces) == total)
        assert max(len(parsed(one)) for one in pieces) == in_a_row

    talk(scenario, kind="grpc")


@pytest.mark.parametrize("end", ["client", "backend"])
def test_a_client_is_read_as_fast_as_both_ends_take_it(talk: RunTalk, end: str) -> None:
    """Among what it says are calls that are answered here, and heads that are longer for the backend."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(HELLO)
        await seen(lambda: talk.links and talk.links[0].heard)
        slow = talk.client if end == "client" else talk.links[0]
        slow.drain = asyncio.Event().wait
        said, read = h2.PingFrame(0).serialize() * 60_000, talk.session.counts.received
        talk.client.say(said)
        await asyncio.sleep(1)
        assert 0 < talk.session.counts.received - read < len(said) / 2

    talk(scenario, kind="grpc")


@pytest.mark.parametrize(("asks", "seconds"), [(False, 1), (True, 0)])
def test_without_a_backend_the_client_is_told_to_come_again(talk: RunTalk, asks: bool, seconds: int) -> None:
    """Once a call has heard why, or after a while; then it is listened to for 2 s, as always."""

    async def scenario(talk: Talk) -> None:
        async def dial(caller: Caller) -> Reason:
            return Reason.NO_BACKEND

        talk.exposed.dial_streams = dial
        loop = asyncio.get_running_loop()
        talk.client.say(HELLO + (call_head(Encoder(), 1, "Unary") if asks else b""))
        await seen(lambda: GOING_AWAY in talk.client.heard)
        assert loop.time() == pytest.approx(seconds, abs=0.1)
        assert (b"no backend can be reached" in talk.client.heard) is asks
        assert await talk.ended() == 2
        assert (talk.client.code, talk.session.why) == (0, "no backend can be reached")

    talk(scenario, kind="grpc")


@pytest.mark.parametrize("code", [errno.ETIMEDOUT, errno.EHOSTUNREACH])
def test_a_backend_out_of_reach_is_a_status(talk: RunTalk, code: int) -> None:
    async def scenario(talk: Talk) -> None:
        talk.client.say(HELLO + call_head(Encoder(), 1, "Both"))
        await seen(lambda: talk.links and talk.session.calls)

        async def drain() -> None:
            raise OSError(code, "away")

        talk.links[0].drain = drain
        talk.links[0].mouth.set_exception(OSError(code, "away"))
        talk.client.say(h2.PingFrame(0).serialize())
        await seen(lambda: talk.client.code is not None)
        assert b"the backend broke off" in talk.client.heard
        assert talk.client.code == 0

    talk(scenario, kind="grpc", bounds=Bounds(idle=1000))


def test_a_clients_connection_has_its_time(talk: RunTalk) -> None:
    async def scenario(talk: Talk) -> None:
        talk.client.say(HELLO)
        assert await talk.ended() == 9
        assert (talk.client.code, talk.session.why) == (Reason.TIME, "longer than one request may take")

    talk(scenario, kind="grpc", bounds=Bounds(time=9))


@pytest.mark.parametrize("stuck", ["backend", "client", "both", "client that has ended"])
def test_a_rule_about_silence_holds_for_who_takes_nothing(talk: RunTalk, stuck: str) -> None:
    """Then nobody may be reading from either side."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(HELLO)
        await seen(lambda: talk.links and talk.links[0].heard)
        (backend,) = talk.links
        for one, name in ((backend, "backend"), (talk.client, "client")):
            if stuck.startswith((name, "both")):
                one.drain = asyncio.Event().wait
        await asyncio.sleep(5)
        backend.say(h2.SettingsFrame(0).serialize())
        talk.client.say(h2.PingFrame(0).serialize())
        if stuck.endswith("ended"):
            talk.client.mouth.feed_eof()
        assert await talk.ended() == 9
        assert (talk.client.code, talk.session.why) == (Reason.IDLE, words(Reason.IDLE))

    talk(scenario, kind="grpc", bounds=Bounds(idle=9))


@pytest.mark.slow
def test_nothing_is_left_behind(run: Run) -> None:
    """Calls that end in every way, over connections that end in every way: no session and no filter stays."""

    async def scenario(pair: Pair) -> None:
        async with core_server() as backend:
            port = await pair.start(expose(backend, 'methods = { deny = ["*/Secret"] }'))
            for number in range(12):
                async with core_client(port) as channel:
                    unary = channel.unary_unary(f"{PACKAGE}/Unary")
                    assert await unary(b"x" * number) == b"x" * number
                    await failure(channel.unary_unary(f"{PACKAGE}/Secret")(bytes(10_000)))
                    if number % 2:
                        # With a call that is open: grpcio would keep the connection for one that was cancelled.
                        call = channel.unary_stream(f"{PACKAGE}/Out")(b"0")
                        session: Any
                        (session,) = pair.exposed.ledger.open
                        session.link.writer.transport.abort()
                        await failure(call.read())
                call = session = None
                gc.collect()
                await pair.exposed.ledger.wait_empty()
            await asyncio.sleep(0)
            gc.collect()
            # Of this service: what failed in another test may still be held by its traceback.
            left = [
                one
                for one in gc.get_objects()
                if type(one).__name__ == "GrpcSession" and one.exposed is pair.exposed
            ]
            assert left == []
            assert pair.exposed.active == 0
            assert sum(one.active for one in pair.exposed.backends.balancer.backends) == 0

    run(scenario)
