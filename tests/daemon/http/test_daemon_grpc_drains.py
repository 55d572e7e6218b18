"""What clients of gRPC hear of a daemon, a forward or a service that ends: their last calls, and last words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hpack import Encoder
from hyperframe import frame as h2

from dtp.daemon.reasons import Reason
from dtp.daemon.relays.ledger import Ending
from dtp.daemon.server import Daemon

from ..conftest import Pair, Run, RunTalk
from ..grpc_servers import (
    GOING_AWAY,
    HELLO,
    PACKAGE,
    call_head,
    core_client,
    core_server,
    expose,
    failure,
    grpc,
    rest,
)
from ..talk import Talk, seen


def test_last_words_are_heard_by_who_goes_on_talking(run: Run) -> None:
    """Bytes that nobody reads become a reset, which would take the refusal and the going away with it."""

    async def scenario(pair: Pair) -> None:
        port = await pair.start(expose(1))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HELLO + call_head(Encoder(), 1, "In"))
        found = b""
        while GOING_AWAY not in found:
            writer.write(h2.DataFrame(1, data=bytes(10_000)).serialize())
            found += await reader.read(65536)
        for _ in range(5):
            writer.write(h2.DataFrame(1, data=bytes(10_000)).serialize())
            await writer.drain()
        assert await reader.read() == b""
        writer.close()

    run(scenario)


@pytest.mark.parametrize("calls", [False, True])
def test_a_drain_is_heard_by_who_goes_on_talking(run: Run, calls: bool) -> None:
    """Whether a call was open or none."""

    async def scenario(pair: Pair) -> None:
        async with core_server() as backend:
            rules = 'methods = { deny = ["*/Secret"] }'
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", await pair.start(expose(backend, rules))
            )
            encoder = Encoder()

            writer.write(HELLO)
            if calls:
                writer.write(call_head(encoder, 1, "Both"))
                writer.write(h2.DataFrame(1, data=b"\0\0\0\0\1x").serialize())
            writer.write(call_head(encoder, 3, "Secret"))
            found = b""
            while b"dtp-policy" not in found:
                found += await reader.read(65536)
            draining = asyncio.ensure_future(pair.far.drain(20))
            while GOING_AWAY not in found:
                found += await reader.read(65536)
            if calls:
                writer.write(h2.DataFrame(1, data=b"", flags=["END_STREAM"]).serialize())
            for _ in range(5):
                writer.write(h2.DataFrame(3, data=bytes(10_000)).serialize())
                await writer.drain()
            while more := await reader.read(65536):
                found += more
            pair.exposed.ledger.finish_sessions(Ending())  # told twice, while it listens yet
            writer.close()
            assert await draining
            assert pair.exposed.ledger.failed == 0

    run(scenario)


def test_who_broke_off_is_said(run: Run) -> None:
    """A client that is gone while the backend speaks: not the backend's fault."""

    async def scenario(pair: Pair) -> None:
        async with core_server() as backend, core_client(await pair.start(expose(backend))) as channel:
            out = channel.unary_stream(f"{PACKAGE}/Out")(b"100000")
            await out.read()
            (session,) = pair.exposed.ledger.open
            for forwarded in pair.near.forwarded.values():
                forwarded.abort_streams(Reason.CLIENT_GONE)
            await pair.exposed.ledger.wait_empty()
            assert session.why == "the client broke off (there)"
            await failure(rest(out))

    run(scenario)


def test_a_drain_passes_over_who_has_just_gone(run: Run) -> None:
    """One session whose stream is over must not keep the others from being told."""

    async def scenario(pair: Pair) -> None:
        async with core_server() as backend, core_client(await pair.start(expose(backend))) as channel:
            both = channel.stream_stream(f"{PACKAGE}/Both")()
            await both.write(b"x")
            assert await both.read() == b"x"
            (session,) = pair.exposed.ledger.open
            session.stream.reset()
            pair.exposed.ledger.finish_sessions(Ending())
            pair.exposed.ledger.finish_sessions(Ending())
            await failure(both.read())

    run(scenario)


async def finish_a_call_during(channel: Any, draining: Daemon) -> None:
    """A call goes on while an end of the pair is drained, and finishes; then so does the drain."""
    both = channel.stream_stream(f"{PACKAGE}/Both")()
    await both.write(b"x")
    assert await both.read() == b"x"
    drained = asyncio.ensure_future(draining.drain(20))
    await both.write(b"still")
    assert await both.read() == b"still"
    assert not drained.done()
    await both.done_writing()
    assert await both.read() == grpc.aio.EOF
    assert await drained


def test_a_drain_finishes_calls_and_takes_no_more(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with core_server() as backend, core_client(await pair.start(expose(backend))) as channel:
            await finish_a_call_during(channel, pair.far)

    run(scenario)


def test_a_drain_leaves_last_words_to_be_heard(talk: RunTalk) -> None:
    """Who was told that the backend broke off is still listened to; a reset would take the status from it."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(HELLO + call_head(Encoder(), 1, "Both"))
        await seen(lambda: talk.links and talk.session.calls)
        talk.links[0].mouth.feed_eof()
        await seen(lambda: talk.client.code is not None)  # we have said all
        talk.session.finish(Ending())
        assert await talk.ended() == 2
        assert b"the backend broke off" in talk.client.heard
        assert talk.client.code == 0

    talk(scenario, kind="grpc")


def test_last_words_can_be_cut_short(talk: RunTalk) -> None:
    async def scenario(talk: Talk) -> None:
        talk.client.say(HELLO + call_head(Encoder(), 1, "Both"))
        await seen(lambda: talk.links and talk.session.calls)
        talk.links[0].mouth.feed_eof()
        await seen(lambda: talk.client.code is not None)
        talk.session.abort(Reason.CLOSED_NOW)
        assert await talk.ended() == 0
        assert talk.client.code == Reason.CLOSED_NOW

    talk(scenario, kind="grpc")


def test_a_forward_that_ends_has_its_channels_told(run: Run) -> None:
    """It passes bytes; the end that knows gRPC says GOAWAY, and calls that are open finish."""

    async def scenario(pair: Pair) -> None:
        async with core_server() as backend, core_client(await pair.start(expose(backend))) as channel:
            await finish_a_call_during(channel, pair.near)
            assert pair.exposed.ledger.failed == 0

    run(scenario)
