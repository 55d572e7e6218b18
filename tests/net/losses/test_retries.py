"""A client whose carriers come and go without use dials less and less often, and gives up in the end."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

import dtp
from dtp.net.parts.retries import PAUSES, SETTLED, Retries
from dtp.session.limits import DEFAULT
from dtp.testing.clock import FakeClockLoop, LivelockError, run
from dtp.testing.pairs import BOB

#: Carriers that are cut before a record of stream data has got through, and where.
CUTS = (600, 900, 1200, 3000)


async def echo(connection: dtp.Connection) -> None:
    stream = await connection.accept_stream()
    async for data in stream:
        stream.write(data)


@pytest.mark.parametrize("delay", [0.0, 0.05])
@pytest.mark.parametrize("cut_at", CUTS)
def test_carriers_that_are_cut_too_soon_end_in_an_error(cut_at: int, delay: float) -> None:
    """It dialled at once each time, for ever; with no delay the virtual clock stood meanwhile."""

    async def main() -> tuple[float, int]:
        loop = asyncio.get_running_loop()

        limits = replace(DEFAULT, resume=20.0)
        async with await dtp.listen("memory://cut", echo, identity=BOB, limits=limits) as listener:
            url = f"{listener.address()}?carrier.cut_at={cut_at}&carrier.delay={delay}"
            connection = await dtp.connect(dtp.Address.parse(url), limits=limits)
            stream = await connection.open_stream()
            stream.write(bytes(3000))
            with pytest.raises(dtp.ConnectionLost):
                await stream.read()
            resumes = connection.stats.resumes
        return loop.time(), resumes

    took, resumes = run(main())
    assert 19 < took < 60
    assert resumes < 40


def test_pauses_grow_until_something_moves_or_a_carrier_lasts() -> None:
    retries = Retries(60.0)
    retries.note_lost(0.0, 10, 0)
    assert [retries.next_pause(0.0) for _ in range(9)] == [*PAUSES, PAUSES[-1], PAUSES[-1]]
    retries.note_resumed(5.0)
    retries.note_lost(5.1, 10, 0)
    assert retries.next_pause(5.1) == PAUSES[-1]
    retries.note_resumed(6.0)
    retries.note_lost(6.1, 11, 0)  # a byte got through
    assert retries.next_pause(6.1) == 0
    assert retries.next_pause(6.1) == PAUSES[1]
    retries.note_resumed(7.0)
    retries.note_lost(7.0 + SETTLED, 11, 0)
    assert retries.next_pause(7.0 + SETTLED) == 0


def test_an_idle_connection_is_never_given_up() -> None:
    """Nothing waits to get through; where something does, it ends after the patience."""
    idle, stuck = Retries(60.0), Retries(60.0)
    for second in range(1000):
        idle.note_lost(second, 10, 0)
        idle.note_resumed(second)
        assert idle.next_pause(second) is not None
        stuck.note_lost(second, 10, 3)
        stuck.note_resumed(second)
        assert (stuck.next_pause(second) is None) == (second >= 60)


def test_a_program_that_goes_round_while_no_time_passes_is_ended() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    with pytest.raises(LivelockError, match="still 0 s"):
        run(main())


def test_who_waits_for_ever_on_an_open_connection_is_ended() -> None:
    """Its pings move the clock, so it is no deadlock; the test that forgot `write_eof` ran for ever."""

    async def serve(connection: dtp.Connection) -> None:
        await (await connection.accept_stream()).read()

    async def main() -> None:
        async with (
            await dtp.listen("memory://waits", serve, identity=BOB) as listener,
            dtp.connect(listener.address()) as connection,
        ):
            stream = await connection.open_stream()
            stream.write(b"hello")
            await stream.read()

    with pytest.raises(LivelockError, match=r"keepalive(?s:.*)Stream\._wait_data"):
        run(main(), loop_factory=lambda: FakeClockLoop(most_jumps=1000))
