"""Calls that are paid one by one: which of them are charged, and what uses up quotas; by a clock that jumps."""

from __future__ import annotations

import asyncio
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from hpack import Encoder
from hyperframe import frame as h2

from dtp.daemon.config.model import QuotaRule
from dtp.daemon.http import conversation, frames
from dtp.daemon.policies import MethodCall, moment
from dtp.daemon.policies.base import Caller
from dtp.daemon.policies.quota import QuotaPolicy
from dtp.daemon.reasons import Reason
from dtp.session.codes import StreamReset

from ..conftest import RunTalk
from ..http.test_daemon_http_hostile import OK
from ..streams.test_daemon_policies import BOB as OTHER
from ..talk import End, Talk, seen

HELLO = frames.PREFACE + h2.SettingsFrame(0).serialize()


def grpc_calls(number: int) -> bytes:
    """What a client of gRPC says that begins with so many calls."""
    encoder, said = Encoder(), HELLO
    fields = {":method": "POST", ":scheme": "http", ":path": "/a.B/C", ":authority": "x"}
    for stream in range(1, 2 * number, 2):
        head = h2.HeadersFrame(stream, data=encoder.encode({**fields, "content-type": "application/grpc"}))  # type: ignore[arg-type]
        head.flags |= {"END_HEADERS", "END_STREAM"}
        said += head.serialize()
    return said


def batch(number: int) -> bytes:
    """So many calls of JSON-RPC in one message."""
    calls = [{"jsonrpc": "2.0", "id": each, "method": "eth_call"} for each in range(number)]
    body = json.dumps(calls).encode()
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body


#: Ten calls of each kind.
KINDS = {
    "http": {"said": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10},
    "json-rpc": {"said": batch(10)},
    "grpc": {"said": grpc_calls(10)},
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> dict[str, bytes | str]:
    return {"kind": request.param, **KINDS[request.param]}


class Answering(End):
    """A backend that answers each request by HTTP/1.1 at once."""

    def write(self, data: bytes) -> None:
        self.say(OK if data.startswith((b"GET ", b"POST ")) else b"")


def charged(talk: Talk, answer: str = "") -> list[Any]:
    """What is charged from now on, one after the other, a round trip of 0.1 s each: units, and "" if it is paid."""
    asked, turn = [], asyncio.Lock()

    async def charge(connection: SimpleNamespace, units: int) -> str:
        async with turn:
            await asyncio.sleep(0.1)
            asked.append(units)
        return answer

    async def dial(caller: Caller) -> SimpleNamespace:
        talk.links.append(Answering())
        return SimpleNamespace(reader=talk.links[-1].mouth, writer=talk.links[-1], close=talk.links[-1].close)

    talk.exposed.charge, talk.exposed.dial_streams = charge, dial
    return asked


@pytest.mark.parametrize("end", ["client", "backend"])
def test_calls_that_nobody_serves_any_more_are_not_charged(talk: RunTalk, end: str) -> None:
    async def scenario(talk: Talk) -> None:
        asked = charged(talk)
        talk.client.say(grpc_calls(200))
        await seen(lambda: len(asked) == 10)
        if end == "client":
            talk.client.mouth.set_exception(StreamReset(Reason.CLIENT_GONE))
        else:
            talk.links[0].mouth.feed_eof()
        await talk.ended()
        await asyncio.sleep(100)
        assert len(asked) == 10
        assert not talk.session._bills

    talk(scenario, kind="grpc")


@pytest.mark.parametrize("answers", [True, False])
def test_calls_that_are_not_paid_use_up_nothing(
    talk: RunTalk, kind: dict[str, bytes | str], answers: bool
) -> None:
    """Neither those that are refused, nor those of whoever never answers: what all may have is for others."""
    said, quota = kind.pop("said"), QuotaPolicy(QuotaRule(10, None, 86400.0, per="service"))

    async def scenario(talk: Talk) -> None:
        asked = charged(talk, "declined")
        if not answers:
            talk.exposed.charge = lambda connection, units: asyncio.Event().wait()  # type: ignore[return-value]
        talk.client.say(said)  # type: ignore[arg-type]
        await asyncio.sleep(10)
        assert sum(asked) == 10 * answers
        assert all(each.code == 0 for each in talk.links) == (kind["kind"] != "grpc")
        passed = [talk.exposed.chain.ask_policies(MethodCall(OTHER), moment()) is None for _ in range(11)]
        assert passed == [True] * 10 + [False]
        talk.session.abort(Reason.CLIENT_GONE)
        await talk.ended()
        assert not quota.held

    talk(scenario, policies=(quota,), **kind)


def test_calls_that_are_being_paid_exceed_no_quota(talk: RunTalk, kind: dict[str, bytes | str]) -> None:
    said = kind.pop("said")

    async def scenario(talk: Talk) -> None:
        asked = charged(talk)
        talk.client.say(said)  # type: ignore[arg-type]
        await asyncio.sleep(10)
        assert sum(asked) == 4
        denial = talk.exposed.chain.ask_policies(MethodCall(OTHER), moment())
        assert denial is not None
        assert denial.why == "the quota of 4 requests is used up"

    talk(scenario, policies=(QuotaPolicy(QuotaRule(4, None, 86400.0, per="service")),), **kind)


def test_a_call_to_a_backend_that_is_gone_is_not_charged(talk: RunTalk) -> None:
    async def scenario(talk: Talk) -> None:
        asked = charged(talk)
        talk.client.say(HELLO)
        await seen(lambda: talk.links)
        talk.links[0].mouth.feed_eof()
        await seen(lambda: talk.session._filter.lost)
        talk.client.say(grpc_calls(1)[len(HELLO) :])
        await talk.ended()
        assert b"the backend broke off" in talk.client.heard
        assert asked == []

    talk(scenario, kind="grpc")


def test_a_backend_is_dialled_however_much_was_asked_before(talk: RunTalk) -> None:
    async def scenario(talk: Talk) -> None:
        asked = charged(talk)
        talk.client.say(said := grpc_calls(1500))
        assert len(said) < conversation.READ
        await seen(lambda: len(asked) == 3)
        assert talk.session._filter.held > 1024

    talk(scenario, kind="grpc")


def test_calls_for_which_there_is_no_backend_are_not_charged(
    talk: RunTalk, kind: dict[str, bytes | str]
) -> None:
    """They are told so. By HTTP the connection stays, and as soon as there is one, calls are paid and answered."""
    said, quota = kind.pop("said"), QuotaPolicy(QuotaRule(10, None, 86400.0, per="service"))

    async def scenario(talk: Talk) -> None:
        asked = charged(talk)
        dial = talk.exposed.dial_streams
        talk.exposed.dial_streams = lambda caller: asyncio.sleep(0.1, Reason.NO_BACKEND)
        talk.client.say(said)  # type: ignore[arg-type]
        await asyncio.sleep(10)
        assert asked == []
        assert b"no backend can be reached" in talk.client.heard
        assert not quota.held
        if kind["kind"] != "grpc":
            talk.exposed.dial_streams = dial
            talk.client.say(said)  # type: ignore[arg-type]
            await asyncio.sleep(10)
            assert sum(asked) == 10
            assert b" 200 " in talk.client.heard

    talk(scenario, policies=(quota,), **kind)


RPC = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
CALL = b'{"jsonrpc":"2.0","method":"a","id":1}'


@pytest.mark.parametrize(
    ("kind", "said", "answers"),
    [
        ("http", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", [b" 503 ", b"retry-after: 1\r\n"]),
        (
            "json-rpc",
            RPC % (len(CALL), CALL),
            [b" 503 ", b"retry-after: 1\r\n", b'"code": -32005', b'"data": {"retry_after": 1}'],
        ),
        (
            "json-rpc",
            RPC % (len(CALL) + 2, b"[%s]" % CALL),
            [b" 200 ", b'"code": -32005', b'"data": {"retry_after": 1}'],
        ),
        ("grpc", grpc_calls(1), [b"grpc-status\x0214", b"grpc-retry-pushback-ms\x041000"]),
    ],
)
def test_want_of_descriptors_is_told_as_ours_and_not_charged(
    talk: RunTalk, kind: str, said: bytes, answers: list[bytes]
) -> None:
    """A status by which clients come again soon, and not the backend's 502."""

    async def scenario(talk: Talk) -> None:
        asked = charged(talk)
        talk.exposed.dial_streams = lambda caller: asyncio.sleep(0.1, Reason.NO_DESCRIPTORS)
        talk.client.say(said)
        await asyncio.sleep(10)
        heard = (
            talk.client.heard if kind == "grpc" else talk.client.heard.replace(b"Retry-After", b"retry-after")
        )
        for each in answers:
            assert each in heard
        assert b"the daemon has no room for another connection now" in heard
        assert asked == []

    talk(scenario, kind=kind)


def paid_later(talk: Talk) -> asyncio.Event:
    """Each request is paid when this event is set."""
    paid = asyncio.Event()

    async def charge(connection: SimpleNamespace, units: int) -> str:
        await paid.wait()
        return ""

    charged(talk)
    talk.exposed.charge = charge
    return paid


def test_a_backend_that_has_ended_while_calls_were_paid_is_dialled_again(talk: RunTalk) -> None:
    async def scenario(talk: Talk) -> None:
        paid = paid_later(talk)
        talk.client.say(KINDS["json-rpc"]["said"])
        await seen(lambda: talk.links)
        talk.links[0].mouth.feed_eof()
        paid.set()
        await seen(lambda: b" 200 " in talk.client.heard)
        assert len(talk.links) == 2

    talk(scenario, kind="json-rpc")


def test_who_takes_long_to_pay_holds_no_backend(talk: RunTalk) -> None:
    """Nor for ever who never answers; once it is paid, one is dialled again."""

    async def scenario(talk: Talk) -> None:
        paid = paid_later(talk)
        talk.client.say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await seen(lambda: talk.links)
        assert talk.session.link is not None
        await asyncio.sleep(10)
        assert talk.session.link is None
        paid.set()
        await seen(lambda: b" 200 " in talk.client.heard)
        assert len(talk.links) == 2

    talk(scenario)


@pytest.mark.parametrize(("status", "heard"), [(b"401", b"401"), (b"200", b"502")])
def test_a_stream_of_websockets_is_one_request(talk: RunTalk, status: bytes, heard: bytes) -> None:
    """It was paid once: behind an upgrade that the backend refuses, or doesn't understand, there is no other."""
    asks = b"GET / HTTP/1.1\r\nHost: x\r\n"
    upgrade = asks + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

    async def scenario(talk: Talk) -> None:
        talk.client.say(asks + b"\r\n" + upgrade * 3)
        (await talk.asked()).say(OK.replace(b"200", status))
        assert await talk.ended() == 2
        assert len(talk.links) == 1
        assert re.findall(rb"HTTP/1.1 (\d+)|(connection: close)", talk.client.heard) == [
            (b"426", b""),
            (heard, b""),
            (b"", b"connection: close"),
        ]

    talk(scenario, kind="websocket")
