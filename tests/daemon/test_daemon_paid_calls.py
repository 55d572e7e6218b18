"""Calls that are paid one by one: which of them are charged, and what uses up quotas; by a clock that jumps."""

import asyncio

import pytest
from hpack import Encoder
from hyperframe import frame as h2

from dtp.daemon.http import frames
from dtp.daemon.http.grpc_session import GrpcSession
from dtp.daemon.reasons import Reason
from dtp.session.codes import StreamReset

from .test_daemon_http_ends import seen, talk

__all__ = ["talk"]

HELLO = frames.PREFACE + h2.SettingsFrame(0).serialize()


def grpc_calls(number):
    """What a client of gRPC says that begins with so many calls."""
    encoder, said = Encoder(), HELLO
    fields = {":method": "POST", ":scheme": "http", ":path": "/a.B/C", ":authority": "x"}
    for stream in range(1, 2 * number, 2):
        head = h2.HeadersFrame(stream, data=encoder.encode({**fields, "content-type": "application/grpc"}))
        head.flags |= {"END_HEADERS", "END_STREAM"}
        said += head.serialize()
    return said


def charged(talk, answer=""):
    """What is charged from now on, one after the other, a round trip of 0.1 s each: units, and "" if it is paid."""
    asked, turn = [], asyncio.Lock()

    async def charge(connection, units):
        async with turn:
            await asyncio.sleep(0.1)
            asked.append(units)
        return answer

    talk.exposed.charge = charge
    return asked


@pytest.mark.parametrize("end", ["client", "backend"])
def test_calls_that_nobody_serves_any_more_are_not_charged(talk, end):
    async def scenario(talk):
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

    talk(scenario, kind="grpc", session=GrpcSession)
