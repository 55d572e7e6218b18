"""A metered connection by itself: in which order a server's end comes."""

import asyncio
from collections import deque

import pytest

from dtp.net.connection import Connection
from dtp.pay.metered import Metered
from dtp.pay.server_meter import ServerMeter


class Driver(ServerMeter):
    """A server's meter that notes what is asked of it."""

    def __init__(self, done):
        self.done = done

    async def paid_up(self):
        self.done.append("paid")

    async def settled(self):
        self.done.append("written")


class Served(Metered):
    """A connection without a carrier."""

    closed = False

    def __init__(self, done):
        self.done, self.meter = done, Driver(done)

    async def delivered(self):
        self.done.append("delivered")

    def abort(self, code=0, reason="", *, application=False):
        pass


def test_a_server_ends_when_all_is_delivered_and_paid(monkeypatch):
    """What is still on its way the client hasn't counted, and signs for nothing of it."""
    done = []

    async def close(self, code=0, reason=""):
        done.append("closed")

    monkeypatch.setattr(Connection, "close", close)
    asyncio.run(Served(done).close())
    assert done[:4] == ["delivered", "paid", "closed", "written"]


def test_a_request_that_waits_to_be_paid_is_for_whoever_asks_next():
    """The client pays for it, so it isn't to get lost with a handler that waited no longer."""

    async def scenario():
        connection, paid = Served([]), asyncio.Event()
        connection.meter.serving = paid.wait
        connection._accepted = deque(["first", "second"])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await connection.accept_stream()
        paid.set()
        assert [await connection.accept_stream() for _ in range(2)] == ["first", "second"]

    asyncio.run(scenario())
