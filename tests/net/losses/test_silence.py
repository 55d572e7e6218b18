"""Carriers on which nothing answers any more, and nobody says so: another one is dialled beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from echo_service import echo, on_fake_clock, roundtrip

import dtp
from dtp import carriers
from dtp.carriers.base import Carrier
from dtp.carriers.errors import DialError
from dtp.errors import DtpError
from dtp.net.dial import connect
from dtp.net.parts.link_drivers import LinkDrivers
from dtp.net.parts.silence import Silence
from dtp.net.resolver import NotResolved
from dtp.pay.errors import BudgetSpent, MoneyNotAdded
from dtp.session.codes import CloseCode, ConnectionClosed, ConnectionLost
from dtp.session.limits import DEFAULT, SILENT, WORK_BYTES, WORK_PAUSE
from dtp.session.session import Session
from dtp.testing.pairs import ALICE, BOB

SOON = 0.3  # a look, and the handshake


class Swallower:
    """Ways that take all and bring nothing, from `cut` to `mend`."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[..., bool], bytes]] = []
        self.mended = False
        self._kept: list[tuple[Carrier, Callable[..., bool]]] = []

    def cut(self, *connections: dtp.Connection) -> None:
        """Swallow what these ends of connections send over the carriers that they have now."""
        for connection in connections:
            for driver in connection.outlet.drivers:
                carrier, write = driver.carrier, driver.carrier.write
                self._kept.append((carrier, write))
                carrier.write = self._swallow(write)

    def _swallow(self, write: Callable[..., bool]) -> Callable[[memoryview], bool]:
        def keep(data: memoryview) -> bool:
            self.waiting.append((write, bytes(data)))
            return True

        return keep

    def mend(self) -> None:
        """Bring all that was sent meanwhile, late."""
        for carrier, write in self._kept:
            carrier.write = write
        for write, data in self.waiting:
            write(memoryview(data))
        self.mended = True


async def wait_until(condition: Callable[[], bool]) -> float:
    """Return when it became true, to a hundredth of a second."""
    loop = asyncio.get_running_loop()
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return loop.time()


@on_fake_clock
async def test_what_was_sent_and_not_acknowledged_has_another_carrier_in_seconds() -> None:
    async with (
        await dtp.listen("memory://x", echo, identity=BOB) as listener,
        connect(listener.address()) as connection,
    ):
        stream = await connection.open_stream()
        stream.write(b"before")
        await stream.readexactly(6)
        await asyncio.sleep(1)
        (first,) = connection.outlet.drivers
        Swallower().cut(connection)
        began = asyncio.get_running_loop().time()
        stream.write(b"after")
        assert await stream.readexactly(5) == b"after"
        assert asyncio.get_running_loop().time() - began < 3 + SILENT + SOON
        (second,) = connection.outlet.drivers
        assert second is not first
        assert first.closed
        assert connection.stats.resumes == 0  # it was never without a carrier


@on_fake_clock
async def test_who_waits_for_more_of_a_stream_asks_soon() -> None:
    """It has sent nothing that could be acknowledged."""
    async with (
        await dtp.listen("memory://x", identity=BOB) as listener,
        connect(listener.address()) as connection,
    ):
        there = await listener.accept()
        sending = await there.open_stream()
        sending.write(bytes(2 * WORK_BYTES))
        stream = await connection.accept_stream()
        await stream.readexactly(2 * WORK_BYTES)
        Swallower().cut(connection, there)
        began = asyncio.get_running_loop().time()
        (first,) = connection.outlet.drivers
        at = await wait_until(lambda: connection.outlet.drivers[0] is not first)
        assert at - began < WORK_PAUSE + SILENT + SOON
        sending.write(b"more")
        assert await stream.readexactly(4) == b"more"


@pytest.mark.parametrize("size", [100, WORK_BYTES])
@on_fake_clock
async def test_what_rests_is_asked_once_at_most(size: int) -> None:
    """Silence behind much that moved is asked about once; else nothing is said for `keepalive`."""
    async with (
        await dtp.listen("memory://x", identity=BOB) as listener,
        connect(listener.address()) as connection,
    ):
        there = await listener.accept()
        stream = await connection.open_stream()
        stream.write(bytes(size))
        await (await there.accept_stream()).readexactly(size)
        await asyncio.sleep(1)
        before = connection.stats.bytes_received, there.stats.bytes_received
        await asyncio.sleep(DEFAULT.keepalive - 2)
        after = connection.stats.bytes_received, there.stats.bytes_received
        records = 0 if size < WORK_BYTES else 1  # a PING one way, a PONG the other: 30 bytes each
        assert [new - old for new, old in zip(after, before, strict=True)] == [30 * records] * 2


@pytest.mark.parametrize("after", [0.1, 60.0])
@on_fake_clock
async def test_who_speaks_again_keeps_its_carrier(after: float) -> None:
    """A peer without a processor for some seconds. What is dialled beside is given up, be it there so many seconds
    after it has spoken."""
    loop = asyncio.get_running_loop()
    busy = Swallower()
    dialled: list[float] = []
    given_up: list[float] = []

    async def dial(url: str) -> Carrier:
        dialled.append(loop.time())
        if len(dialled) > 1:
            await wait_until(lambda: busy.mended)
            try:
                await asyncio.sleep(after)
            except asyncio.CancelledError:
                given_up.append(loop.time())
                raise
        return await carriers.dial(url)

    async with (
        await dtp.listen("memory://x", echo, identity=BOB) as listener,
        connect(listener.address(), dial_carrier=dial) as connection,
    ):
        (first,) = connection.outlet.drivers
        (there,) = listener.connections
        busy.cut(there)
        stream = await connection.open_stream()
        stream.write(b"words")
        await wait_until(lambda: len(dialled) > 1)
        spoke = loop.time()
        busy.mend()
        assert await stream.readexactly(5) == b"words"
        await asyncio.sleep(DEFAULT.dead)
        assert list(connection.outlet.drivers) == [first]
        assert len(dialled) == 2
        assert after < SOON or given_up[0] < spoke + SOON
        assert await roundtrip(connection, b"hi") == b"hi"


@on_fake_clock
async def test_attempts_that_fail_go_on_while_nothing_answers() -> None:
    """As on a machine that has no network for some seconds."""
    async with await dtp.listen("memory://x", echo, identity=BOB) as listener:
        dialled: list[float] = []
        loop = asyncio.get_running_loop()
        there_again = loop.time() + 9

        async def dial(url: str) -> Carrier:
            dialled.append(loop.time())
            if len(dialled) > 1 and loop.time() < there_again:
                raise DialError("no network")
            return await carriers.dial(url)

        async with connect(listener.address(), dial_carrier=dial, identity=ALICE) as connection:
            stream = await connection.open_stream()
            Swallower().cut(connection)
            stream.write(b"words")
            assert await stream.readexactly(5) == b"words"
            assert there_again <= loop.time() < there_again + 1.5
            assert len(dialled) < 10
            assert connection.stats.resumes == 0


@on_fake_clock
async def test_a_carrier_that_nobody_waits_for_any_more_is_closed() -> None:
    """It was given up between its handshake and the server's word that it belongs to the connection."""
    dialled: list[str] = []

    async def dial(url: str) -> Carrier:
        dialled.append(url)
        return await carriers.dial(url if len(dialled) == 1 else f"{url}?delay=0.5")

    async with (
        await dtp.listen("memory://x", echo, identity=BOB) as listener,
        connect(listener.address(), dial_carrier=dial) as connection,
    ):
        (first,) = connection.outlet.drivers
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await connection.add_carrier()
        await asyncio.sleep(5)
        assert list(connection.outlet.drivers) == [first]


class Silent:
    """A session of which nothing is heard; it ends with the second `add_carrier`, of which the first fails."""

    is_silent, ended = True, None

    def __init__(self, error: DtpError) -> None:
        self.error = error
        self.dials = 0

    async def add_carrier(self) -> None:
        self.dials += 1
        if self.dials == 1:
            raise NotResolved("nobody knows now where it is")
        self.is_silent = False
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionClosed(CloseCode.NORMAL, "", by_peer=False),
        ConnectionLost("it is lost"),
        BudgetSpent("used up", paid=1, requests=1, bytes=1),
        MoneyNotAdded("none came"),
    ],
    ids=lambda error: type(error).__name__,
)
@on_fake_clock
async def test_that_a_connection_ends_while_another_carrier_is_dialled_is_no_fault(error: DtpError) -> None:
    """Nobody waits for the dial: its error was reported as one that was never retrieved."""
    loop, untold = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: untold.append(context))
    session = Silent(error)
    Silence(
        cast(Session, session), loop, LinkDrivers(), session.add_carrier, lambda _: 0, lambda _: None
    ).note_silent()
    await asyncio.sleep(5)
    assert session.dials == 2
    assert untold == []
