"""A forward's connections by themselves: when they are dialled, left and closed; by a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dtp.carriers.errors import DialError
from dtp.daemon.relays.pool import BACKOFF, GIVEN, REFUSED, STEADY, Pool
from dtp.daemon.server import LIMITS
from dtp.errors import DtpError
from dtp.net.address import Address
from dtp.net.resolver import Resolver
from dtp.session.codes import CloseCode, CloseDetail, ConnectionClosed, ConnectionRefused
from dtp.testing import clock

from ..conftest import FAR, NEAR


class Connection:
    """In place of one to a peer, which ends it after `seconds`."""

    ended_by = None

    def __init__(self, seconds: float | None = None) -> None:
        self.peer, self.seconds, self.source = FAR.id, seconds, "192.0.2.7:9000"
        self.closed = self.parted = self.pinged = False

    async def open_stream(self, patience: float) -> SimpleNamespace:
        await asyncio.sleep(0)
        return SimpleNamespace(connection=self)

    async def wait_closed(self) -> None:
        await asyncio.sleep(1e9 if self.seconds is None else self.seconds)
        self.closed = True

    async def ping(self) -> None:
        """Ask a peer that doesn't answer."""
        self.pinged = True
        await asyncio.sleep(1e9)

    async def close(self) -> None:
        self.closed = self.parted = True


class Dialled(Pool):
    """A pool that counts its dials, each of which gives one of these connections, or fails, once it may."""

    def __init__(self, *seconds: Exception | float | None) -> None:
        self._faults = {at: each for at, each in enumerate(seconds) if isinstance(each, Exception)}
        self.made = [Connection(None if isinstance(each, Exception) else each) for each in seconds]
        self.at: list[float] = []
        self.may = asyncio.Event()
        self.may.set()
        address = Address("dtp", FAR.id, service="api")
        super().__init__([address], identity=NEAR, limits=LIMITS, psk=None, dial=self._next)

    async def _next(self, address: Address, resolvers: Sequence[Resolver] | None) -> Any:
        self.at.append(asyncio.get_running_loop().time())
        await self.may.wait()
        number = len(self.at) - 1
        if (fault := self._faults.get(number)) is not None:
            raise fault
        return self.made[number]


def test_what_is_dialled_for_nobody_any_more_is_closed() -> None:
    """A reload leads elsewhere while the peer is away: back again, it would keep a caller that nothing closes."""

    async def scenario() -> None:
        pool = Dialled(None)
        pool.may.clear()
        pool.start_connecting()
        await asyncio.sleep(1)
        pool.retire_pool()
        pool.may.set()
        await asyncio.sleep(1)
        assert pool.made[0].closed
        assert pool.connections == []
        await pool.close()

    clock.run(scenario())


def test_who_waited_for_a_dial_has_its_stream_also_of_a_pool_that_is_left() -> None:
    async def scenario() -> None:
        pool = Dialled(None)
        pool.may.clear()
        waiting = [asyncio.ensure_future(pool.get_stream()) for _ in range(2)]
        await asyncio.sleep(1)
        pool.retire_pool()
        pool.may.set()
        first, second = [await one for one in waiting]
        pool.release_stream(first)
        await asyncio.sleep(1)
        assert pool.connections == [second.connection]
        assert not second.connection.closed
        pool.release_stream(second)
        await asyncio.sleep(1)
        assert second.connection.closed
        assert pool.connections == []
        await pool.close()

    clock.run(scenario())


def test_what_is_being_closed_when_a_pool_is_closed_is_closed_to_its_end() -> None:
    """A peer that is away was waited for; that was broken off, and its place at the peer kept until it was missed."""

    async def scenario() -> None:
        pool = Dialled(None)
        left = pool.made[0]
        left.source = ""  # it has no carrier now
        stream = await pool.get_stream()
        pool.retire_pool()
        pool.release_stream(stream)
        await asyncio.sleep(1)
        assert left.pinged
        assert not left.parted
        await pool.close()
        assert left.parted
        assert pool.connections == []

    clock.run(scenario())


def test_connections_that_end_at_once_are_not_dialled_without_pause() -> None:
    """As after dials that fail: each may cost a payment, and the peer's processor. One that was steady is missed."""

    async def scenario() -> None:
        pool = Dialled(*[0.0] * 8, STEADY, 0.0, None)
        pool.start_connecting()
        await asyncio.sleep(60)
        pauses = [after - before for before, after in zip(pool.at, pool.at[1:], strict=False)]
        assert pauses == pytest.approx([*BACKOFF, 2.0, 2.0, STEADY, BACKOFF[0]])
        await pool.close()

    clock.run(scenario())


def test_what_a_peer_has_closed_is_closed_here_too() -> None:
    """It holds what only closing lets go of, such as the lane that it was paid by."""

    async def scenario() -> None:
        pool = Dialled(5.0, None)
        pool.start_connecting()
        stream = await pool.get_stream()
        await asyncio.sleep(60)
        first, second = pool.made
        assert (first.closed, first.parted) == (True, False)
        assert cast(list[object], pool.connections) == [second]
        pool.release_stream(stream)
        await asyncio.sleep(1)
        assert (first.parted, second.parted) == (True, False)
        await pool.close()
        assert second.parted

        pool = Dialled(5.0)  # and one that nobody has asked for since
        await pool.get_stream()
        await pool.made[0].wait_closed()
        await pool.close()
        assert pool.made[0].parted

    clock.run(scenario())


def test_a_connection_that_is_over_when_it_is_there_is_not_asked_twice() -> None:
    """A program that came in the very turn in which it was there had a reset: what was dialled wasn't noted yet."""

    class Awaited(Dialled):
        async def _next(self, address: Address, resolvers: Sequence[Resolver] | None) -> Any:
            made = await super()._next(address, resolvers)
            if made is self.made[0]:
                self.asked = asyncio.ensure_future(self.get_stream())
            return made

    async def scenario() -> None:
        pool = Awaited(None, None)

        async def refuse(patience: float) -> SimpleNamespace:
            raise ConnectionClosed(CloseCode.SHUTDOWN, "it takes no new streams", by_peer=True)

        pool.made[0].open_stream = refuse
        pool.start_connecting()
        await asyncio.sleep(1)
        assert cast(object, (await pool.asked).connection) is pool.made[1]
        assert cast(list[object], pool.connections) == [pool.made[1]]
        await pool.close()

    clock.run(scenario())


def test_no_fault_of_a_dial_ends_the_dialling() -> None:
    """Nothing would begin it again: not the peer's return, not a reload. And the next address may lead there."""

    async def scenario() -> None:
        over = ConnectionClosed(CloseCode.PAYMENT, "it is served elsewhere", by_peer=True)
        pool = Dialled(over, DtpError("of no family"), None)
        pool.start_connecting()
        await asyncio.sleep(10)
        assert cast(list[object], pool.connections) == [pool.made[2]]
        await pool.close()
        pool = Dialled(over, None)
        pool._targets *= 2
        assert cast(object, (await pool.get_stream()).connection) is pool.made[1]
        await pool.close()

    clock.run(scenario())


@pytest.mark.parametrize(
    ("code", "detail", "pause"),
    [
        (CloseCode.DENIED, 0, REFUSED),
        (CloseCode.BUSY, CloseDetail.ALL_AT_WORK, REFUSED),
        (CloseCode.BUSY, 0, BACKOFF[-1]),
    ],
)
def test_a_peer_that_refuses_for_good_is_dialled_less_and_less(
    code: CloseCode, detail: int, pause: float
) -> None:
    """Each dial of a caller that is banned was a handshake there and a line in the log, every two seconds."""

    async def scenario() -> None:
        pool = Dialled(*[ConnectionRefused(code, "no", detail)] * 12, None)
        pool.start_connecting()
        await asyncio.sleep(sum(BACKOFF) + 60)
        pauses = [b - a for a, b in zip(pool.at, pool.at[1:], strict=False)]
        assert pauses[: len(BACKOFF)] == pytest.approx(BACKOFF)
        assert max(pauses) == pytest.approx(pause)
        await pool.close()

    clock.run(scenario())


def test_a_peer_that_is_away_is_said_once_each_time(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        away = DialError("nobody there")
        pool = Dialled(away, away, 0.0, away, away, 0.0, None)
        pool.start_connecting()
        await asyncio.sleep(60)
        assert len(pool.at) == 7
        await pool.close()

    caplog.set_level("INFO", "dtpd")
    clock.run(scenario())
    said = ["nobody there" in one for one in caplog.messages]
    assert said == [True, False, True, False, False]


def test_a_place_that_others_have_is_wanted_again_when_a_program_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Dialled at once it threw out another that nobody used, which did the same: for ever, a handshake each."""

    async def scenario() -> None:
        pool = Dialled(60.0, 60.0, 0.5, 60.0, None)
        for each in pool.made[:3]:
            each.ended_by = ConnectionClosed(
                CloseCode.BUSY, "others need it", by_peer=True, detail=CloseDetail.PLACE_GIVEN
            )
        pool.start_connecting()
        await asyncio.sleep(50_000)
        assert (len(pool.at), pool.connections, pool.trouble) == (1, [], GIVEN)
        for dialled in (2, 3, 4):
            stream = await pool.get_stream()
            assert (len(pool.at), pool.trouble) == (dialled, "")
            pool.release_stream(stream)
            await asyncio.sleep(100)
        assert pool.connections == [pool.made[4]]  # the fourth was lost as any other: it is missed
        await pool.close()

    caplog.set_level("INFO", "dtpd")
    clock.run(scenario())
    given = [GIVEN in one for one in caplog.messages]
    assert (given.count(True), given.index(True)) == (1, 1)
    assert ["connected to" in one for one in caplog.messages] == [True, False, True]
