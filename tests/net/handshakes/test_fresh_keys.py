"""A connection gets keys of a fresh exchange while it is in use, by itself and without a cut."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from echo_service import echo, on_fake_clock, roundtrip

import dtp
from dtp.session.exchange import LinkExchange
from dtp.session.limits import DEFAULT
from dtp.testing import clock
from dtp.testing.pairs import ALICE, BOB


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When each side has taken up the keys of an exchange: two entries for each."""
    times: list[float] = []
    finish = LinkExchange.finish_change

    def note(exchange: LinkExchange, now: float, moved: int) -> bytes:
        times.append(now)
        return finish(exchange, now, moved)

    monkeypatch.setattr(LinkExchange, "finish_change", note)
    return times


def test_keys_are_exchanged_every_two_minutes_of_use_and_nothing_is_lost(finished: list[float]) -> None:
    async def main() -> None:
        async with (
            await dtp.listen("memory://x", echo, identity=BOB) as listener,
            dtp.connect(listener.address(), identity=ALICE) as connection,
        ):
            await asyncio.sleep(3600)
            assert finished == []
            data = bytes(range(256)) * 4096
            stream = await connection.open_stream()
            under_way = asyncio.create_task(stream.read())
            for at in range(0, len(data), 4096):
                stream.write(data[at : at + 4096])
                await asyncio.sleep(10)
            stream.write_eof()
            assert await under_way == data
            assert 2 * 19 <= len(finished) <= 2 * 22
            before = len(finished)
            await asyncio.sleep(3600)
            assert len(finished) - before <= 2
            assert connection.stats.resumes == 0
            assert await roundtrip(connection, b"hi") == b"hi"

    clock.run(main())


def test_each_of_several_carriers_gets_its_own(finished: list[float]) -> None:
    async def main() -> None:
        async with (
            await dtp.listen("memory://x", echo, identity=BOB) as listener,
            dtp.connect(listener.address(), identity=ALICE) as connection,
        ):
            await connection.add_carrier()
            for _ in range(30):
                assert await roundtrip(connection, bytes(100_000)) == bytes(100_000)
                await asyncio.sleep(10)
            assert len(finished) >= 2 * 2 * 2
            assert len(connection.stats.carriers) == 2

    clock.run(main())


def test_none_is_made_where_the_limits_say_so(finished: list[float]) -> None:
    async def main() -> None:
        limits = replace(DEFAULT, exchange=0.0)
        async with (
            await dtp.listen("memory://x", echo, identity=BOB) as listener,
            dtp.connect(listener.address(), identity=ALICE, limits=limits) as connection,
        ):
            for _ in range(10):
                assert await roundtrip(connection, b"hi") == b"hi"
                await asyncio.sleep(1000)

    clock.run(main())
    assert finished == []


@on_fake_clock
async def test_cuts_at_any_byte_of_an_exchange_harm_nothing() -> None:
    limits = replace(DEFAULT, exchange=1.0)
    async with await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener:
        for cut_at in range(900, 3000, 37):
            address = f"{listener.address()}?carrier.cut_at={cut_at}"
            async with dtp.connect(address, identity=ALICE, limits=limits) as connection:
                for n in range(4):
                    assert await roundtrip(connection, bytes([n]) * 50) == bytes([n]) * 50
                    await asyncio.sleep(1.1)
