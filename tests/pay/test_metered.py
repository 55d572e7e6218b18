"""A metered connection by itself: in which order a server's end comes."""

import asyncio

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
