"""Clocks that jump: what goes by the calendar follows the clock at once, what measures time doesn't notice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from conditions import until

from dtp.daemon.config.model import Health
from dtp.daemon.config.values import LocalPlace
from dtp.daemon.relays.backends import health
from dtp.daemon.relays.backends.balancing import Balancer
from dtp.daemon.state.memory import MemoryCountStore
from dtp.daemon.workers.parent import Workers

from ..conftest import NEAR, Backend, Pair, Run, echo
from ..streams.test_daemon_relay import exchange, expose

HOUR = 3600.0
#: A Wednesday.
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC).timestamp()


@pytest.fixture
def calendar(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Set the calendar's clock, which stands still then; the steady one goes on."""

    def jump(unix: float) -> None:
        monkeypatch.setattr(time, "time", lambda: unix)

    jump(NOON)
    return jump


async def passes(port: int) -> bool:
    """Whether a new stream gets through."""
    try:
        return await exchange(port, b"x") == b"x"
    except ConnectionError:
        return False


def test_a_schedule_follows_the_clock_forward_and_backward(run: Run, calendar: Callable[..., Any]) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            rule = 'schedule = { days = "wed", hours = "08:00-18:00" }'
            port = await pair.start(expose(backend.port, more=rule))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"before")
            assert await reader.readexactly(6) == b"before"
            for jump, is_open in [(7, False), (-3, True), (-5, False), (5, True), (24, False), (-168, True)]:
                calendar(NOON + jump * HOUR)
                assert await passes(port) is is_open
                writer.write(b"still")  # what runs at closing time may finish
                assert await reader.readexactly(5) == b"still"
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()

    run(scenario)


def test_a_ban_follows_the_clock_forward_and_backward(run: Run, calendar: Callable[..., Any]) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port))
            caller = str(NEAR.id)
            assert await passes(port)
            await pair.far.ban(caller, NOON + HOUR)
            await until(lambda: not pair.far.callers)
            for jump, is_banned in [(0.5, True), (2, False), (-100, True), (0, True)]:
                calendar(NOON + jump * HOUR)
                assert (caller in pair.far.get_status()["bans"]) is is_banned
                denied = pair.exposed.denials["ban"]
                if is_banned:
                    await pair.far.ban(caller, NOON + HOUR)  # whoever is here is looked at again
                    await until(lambda: not pair.far.callers)
                    await until(lambda denied=denied: pair.exposed.denials["ban"] > denied)
                else:
                    await until(lambda: pair.far.callers)
                    assert await passes(port)

    run(scenario)


def test_a_clock_that_was_ahead_for_a_while_ends_no_ban() -> None:
    async def main() -> None:
        store = MemoryCountStore()
        await store.ban("dtp1a", 100.0)
        assert await store.list_bans(50.0) == {"dtp1a": 100.0}
        assert await store.list_bans(1e9) == {}
        assert await store.list_bans(50.0) == {"dtp1a": 100.0}
        await store.ban("dtp1a", 0.0)
        assert await store.list_bans(1.0) == {}

    asyncio.run(main())


def test_health_checks_do_not_notice(calendar: Callable[..., Any]) -> None:
    """Marks, penalties and slow start, with a backend that goes and comes while the calendar's clock jumps."""

    async def main() -> None:
        async with Backend(echo) as backend:
            place = LocalPlace("127.0.0.1", backend.port)
        balancer = Balancer([place], "round-robin", slow_start=HOUR)
        (one,) = balancer.backends
        watching = asyncio.create_task(
            health.watch("api", balancer, Health(every=0.01, timeout=5.0, fall=2, rise=2))
        )
        calendar(NOON + 1000 * HOUR)
        await until(lambda: not one.healthy)
        calendar(NOON - 1000 * HOUR)
        server = await asyncio.start_server(lambda _, writer: writer.close(), place.host, place.port)
        async with server:
            await until(lambda: one.healthy)
            for jump in (1000, -1000):
                calendar(NOON + jump * HOUR)
                assert one.is_usable(time.monotonic())
                assert (
                    balancer._slow_start_share(one, time.monotonic()) < 0.2
                )  # slow start has not been jumped over
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(main())


@pytest.mark.parametrize("jump", [1000 * HOUR, -1000 * HOUR])
def test_uptime_does_not_jump(run: Run, calendar: Callable[..., Any], jump: float) -> None:
    async def scenario(pair: Pair) -> None:
        await pair.start(expose(1))
        workers = Workers(pair.far.config, NEAR.id, None, type("Table", (), {"workers": 0}))  # type: ignore[arg-type]
        calendar(NOON + jump)
        for status in (pair.far.get_status(), workers.get_status()):
            assert 0 <= status["uptime"] < HOUR

    run(scenario)
