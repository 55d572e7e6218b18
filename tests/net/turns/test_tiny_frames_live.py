"""Floods of tiny frames at a listener that serves others: do they stay, and newcomers get in? In turns and bytes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from attackers import OPEN, Attacker
from echo_service import echo, roundtrip
from test_heavy_turns import until
from test_intake import Turns

import dtp
from bench.hostile_frames import TINY
from dtp.core.records import RECORD_FRAMES
from dtp.net.turns.budget import REQUESTS, TURN
from dtp.session.codes import CloseCode
from dtp.session.frames import RESET, FrameType, control
from dtp.session.limits import DEFAULT, STREAMS_AHEAD
from dtp.testing import clock
from dtp.testing.pairs import ALICE, BOB

ATTACKERS = 32
#: How much time passes is not counted here, so it allows for nothing.
LIMITS = replace(DEFAULT, idle_frame_rate=0)
#: What anybody may send at once, and more.
ALLOWED = DEFAULT.idle_frames // RECORD_FRAMES
RECORDS = ALLOWED + 4
#: All kinds in memory, which is what counts of them, and by TCP those that cost most; the others are slow.
FLOODS = [
    pytest.param(
        url,
        kind,
        marks=() if url == "memory://x" or kind in ("WINDOW", "empty DATAGRAM") else pytest.mark.slow,
    )
    for kind in TINY
    for url in ("memory://x", "tcp://127.0.0.1:0")
]


class Guard:
    """A listener that keeps all connections it has had, and who attacks it."""

    def __init__(self, listener: dtp.Listener) -> None:
        self.listener = listener
        self.connections: list[dtp.Connection] = []
        self.attackers: list[Attacker] = []

    async def serve(self, connection: dtp.Connection) -> None:
        self.connections.append(connection)
        await echo(connection)

    @property
    def read(self) -> int:
        """Bytes of all records that were read from those who attack."""
        return sum(each.stats.bytes_received for each in self.connections if each.peer != ALICE.id)

    async def attacked(self) -> None:
        """Let as many come as there are to be."""
        for _ in range(ATTACKERS):
            self.attackers.append(await Attacker.dial(self.listener.urls[0]))
        await until(lambda: all(each.ready for each in self.attackers))
        for each in self.attackers:
            each.say([OPEN])
        await until(lambda: len(self.connections) > ATTACKERS)


@contextlib.asynccontextmanager
async def guard(url: str) -> AsyncIterator[tuple[Guard, dtp.Connection]]:
    """Such a listener, and a visitor of it."""
    guards: list[Guard] = []

    async def serve(connection: dtp.Connection) -> None:
        with contextlib.suppress(ConnectionError, ExceptionGroup):
            await guards[0].serve(connection)

    async with await dtp.listen(url, serve, identity=BOB, limits=LIMITS) as listener:
        guards.append(Guard(listener))
        async with dtp.connect(listener.address(), identity=ALICE) as visitor:
            yield guards[0], visitor
        for each in guards[0].attackers:
            each.leave()


def run(url: str, main: object) -> None:
    if url.startswith("memory"):
        clock.run(main)  # type: ignore[arg-type]
    else:
        asyncio.run(main)  # type: ignore[arg-type]


@pytest.mark.parametrize(("url", "kind"), FLOODS)
def test_a_flood_of_tiny_frames_is_ended_and_a_visitor_waits_for_few_of_them(url: str, kind: str) -> None:
    async def main() -> None:
        async with guard(url) as (guarded, visitor):
            await guarded.attacked()
            stream = await visitor.open_stream()
            turns = Turns()

            async def ask() -> tuple[int, int]:
                """Turns until the answer came, and bytes that were read from others meanwhile."""
                before = turns.now, guarded.read
                stream.write(b"?")
                assert await stream.read(1) == b"?"
                return turns.now - before[0], guarded.read - before[1]

            await ask()
            idle, _ = await ask()
            record = 0
            for each in guarded.attackers:
                record = each.say(*[[TINY[kind]] * RECORD_FRAMES] * RECORDS) // RECORDS
            waited = []
            while sum(each.ended is not None for each in guarded.attackers) < ATTACKERS:
                waited.append(await ask())
                if kind == "unknown 0x80" and guarded.read >= ATTACKERS * RECORDS * record:
                    break  # skipped, at no cost that is worth a word
                assert len(waited) < 5_000
            turns.running = False
            # What a system takes its time for passes in turns, too: of real sockets one of ten may have had that.
            worst = -1 if url.startswith("memory") else len(waited) * 9 // 10
            assert sorted(turn for turn, _ in waited)[worst] <= idle + 4
            if kind != "unknown 0x80":
                assert {each.ended.close_code for each in guarded.attackers if each.ended} <= {
                    CloseCode.LIMIT
                }
                most = (idle + 4) * (2 * TURN // RECORD_FRAMES + 1) * record
                assert sorted(size for _, size in waited)[worst] <= most
            async with dtp.connect(guarded.listener.address()) as newcomer:
                assert await roundtrip(newcomer, b"hi") == b"hi"

    run(url, main())


def test_streams_that_one_frame_opens_count_as_frames_of_the_turn() -> None:
    """One that names the last stream that is allowed opens all: 32 who say it together would make one long turn."""

    async def main() -> None:
        async with guard("memory://x") as (guarded, visitor):
            await guarded.attacked()
            top = 2 * (STREAMS_AHEAD - 1)
            for each in guarded.attackers:
                each.say([control(FrameType.RESET, RESET.pack(top, 1, 0))])
            opened = [0]
            while opened[-1] < ATTACKERS * STREAMS_AHEAD:
                opened.append(
                    sum(each.stats.streams for each in guarded.connections if each.peer != ALICE.id)
                )
                await asyncio.sleep(0)
                assert len(opened) < 5_000
            by_turn = [after - before for before, after in itertools.pairwise(opened)]
            assert max(by_turn) <= TURN + REQUESTS + STREAMS_AHEAD
            assert await roundtrip(visitor, b"hi") == b"hi"

    clock.run(main())


@pytest.mark.parametrize("kind", ["WINDOW", "empty DATAGRAM"])
def test_newcomers_get_in_while_a_flood_is_read(kind: str) -> None:
    """Those who attack have much that waits, and others come and are served before all of it was read."""

    async def main() -> None:
        async with guard("memory://x") as (guarded, visitor):
            await guarded.attacked()
            turns = Turns()

            async def come() -> int:
                began = turns.now
                async with dtp.connect(guarded.listener.address(), identity=ALICE) as newcomer:
                    assert await roundtrip(newcomer, b"hi") == b"hi"
                    newcomer.abort()
                return turns.now - began

            idle = await come()
            for each in guarded.attackers:
                each.say(*[[TINY[kind]] * RECORD_FRAMES] * (ALLOWED - 1))
            came = [await come() for _ in range(3)]
            turns.running = False
            left = ATTACKERS * (ALLOWED - 1) * RECORD_FRAMES
            assert max(came) <= idle + 20 < left // TURN
            assert await roundtrip(visitor, b"hi") == b"hi"

    clock.run(main())
