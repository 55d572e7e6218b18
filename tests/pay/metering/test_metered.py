"""A metered connection by itself: in which order a server's end comes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from dtp.net.parts.intake import StreamIntake
from dtp.net.turns.budget import StreamBudget
from dtp.pay.metered import Metered
from dtp.pay.server.server_meter import ServerMeter


class Driver(ServerMeter):
    """A server's meter that notes what is asked of it."""

    def __init__(self, done: Any) -> None:
        self.done = done

    async def paid_up(self) -> None:
        self.done.append("paid")

    async def wait_settled(self) -> None:
        self.done.append("written")


class Served(Metered):
    """A connection without a carrier that notes when it is closed."""

    closed = False

    def __init__(self, done: Any) -> None:
        self.done, self.meter = done, Driver(done)

    async def delivered(self) -> bool:
        self.done.append("delivered")
        return True

    async def wait_gone(self, most: float = 0.0) -> None:
        self.done.append("closed")

    def abort(self, code: int = 0, reason: str = "", *, application: bool = False, detail: int = 0) -> None:
        pass


def test_a_server_ends_when_all_is_delivered_and_paid() -> None:
    """What is still on its way the client hasn't counted, and signs for nothing of it."""
    done: list[str] = []
    asyncio.run(Served(done).close())
    assert done[:4] == ["delivered", "paid", "closed", "written"]


def test_a_request_that_waits_to_be_paid_is_for_whoever_asks_next() -> None:
    """The client pays for it, so it isn't to get lost with a handler that waited no longer."""

    async def scenario() -> None:
        connection, paid = Served([]), asyncio.Event()
        connection.meter.wait_until_paid = paid.wait
        first, second, third = (SimpleNamespace(id=each) for each in (1, 5, 9))
        woken: list[Any] = []
        waiters = SimpleNamespace(wake_for=woken.append)
        connection._intake = intake = StreamIntake(StreamBudget(), waiters, None, None)
        for stream in (first, second, third):
            intake.note_opened(stream)
        woken.clear()
        waiting = [asyncio.ensure_future(connection.accept_stream()) for _ in range(2)]
        await asyncio.sleep(0)
        for each in waiting:
            each.cancel()
        await asyncio.wait(waiting)
        assert woken == ["accept", "accept"]  # another may be waiting for a third by now
        paid.set()
        assert [await connection.accept_stream() for _ in range(3)] == [first, second, third]

    asyncio.run(scenario())
