"""What one turn of the loop does for all who burn it: counted in frames and bytes, with a visitor beside them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

from echo_service import echo, on_fake_clock, roundtrip
from test_intake import Turns

import dtp
from dtp.core.records import RECORD_FRAMES
from dtp.net.turns.budget import LEAST, TURN
from dtp.net.turns.sizes import ALL
from dtp.session.limits import DEFAULT, MIB
from dtp.testing.pairs import ALICE, BOB

CROWD = 32
#: Those who are to say much at once keep it until it is sealed.
TALKATIVE = replace(DEFAULT, control=1 << 16)
#: A turn takes what it may, and as much again of those who have not said much before, the last a part.
MOST = 2 * TURN + LEAST


async def until(condition: Callable[[], object], turns: int = 5_000) -> None:
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError(f"not so after {turns} turns")


class Metered:
    """A listener that counts metering frames by the turn that they are read in, and those who send them."""

    def __init__(self) -> None:
        self.by_turn: Counter[int] = Counter()
        self.turns: Turns | None = None

    @property
    def count(self) -> int:
        """All that were read."""
        return self.by_turn.total()

    def _on_meter(self, data: bytes) -> None:
        self.by_turn[0 if self.turns is None else self.turns.now] += 1

    @contextlib.contextmanager
    def by_turns(self) -> Iterator[None]:
        """Count anew, turn by turn; virtual time stands still meanwhile."""
        self.by_turn.clear()
        self.turns = Turns()
        try:
            yield
        finally:
            self.turns.running = False

    async def serve(self, connection: dtp.Connection) -> None:
        connection.take_meter(self._on_meter)
        await echo(connection)

    @contextlib.asynccontextmanager
    async def crowd(self) -> AsyncIterator[tuple[list[dtp.Connection], dtp.Connection]]:
        """Many who are connected, and a visitor."""
        async with contextlib.AsyncExitStack() as stack:
            listener = await stack.enter_async_context(
                await dtp.listen("memory://x", {"*": self.serve}, identity=BOB)
            )
            found = [
                await stack.enter_async_context(
                    dtp.connect(listener.address(), identity=ALICE, limits=TALKATIVE)
                )
                for _ in range(1 + CROWD)
            ]
            for each in found:
                assert await roundtrip(each, b"hi") == b"hi"
            yield found[1:], found[0]


def say_much(crowd: list[dtp.Connection], records: int = 1) -> None:
    for each in crowd:
        for _ in range(records * RECORD_FRAMES):
            each.send_meter(b"\x91\x01")


@on_fake_clock
async def test_whole_records_that_come_in_step_are_read_over_turns() -> None:
    """What is allowed for ever: a record of frames that move nothing, four times a second, of all at once."""
    metered = Metered()
    async with metered.crowd() as (crowd, visitor):
        for _ in range(3):
            await asyncio.sleep(0.26)
            with metered.by_turns():
                say_much(crowd)
                assert await roundtrip(visitor, b"hi") == b"hi"
                await until(lambda: metered.count == CROWD * RECORD_FRAMES)
            assert max(metered.by_turn.values()) <= MOST


@on_fake_clock
async def test_a_visitor_is_answered_before_those_who_said_much() -> None:
    """In each turn who says little comes first, so that a round trip has at most three turns of others in it."""
    metered = Metered()
    async with metered.crowd() as (crowd, visitor):
        stream = await visitor.open_stream()

        async def ask() -> tuple[int, int]:
            """Frames of others that were read before the answer came, and turns."""
            assert metered.turns is not None
            before = metered.count, metered.turns.now
            stream.write(b"?")
            assert await stream.read(1) == b"?"
            return metered.count - before[0], metered.turns.now - before[1]

        with metered.by_turns():
            await ask()
            _, idle = await ask()
            say_much(crowd, records=12)
            await until(lambda: metered.count)
            waited = []
            while metered.count < 8 * CROWD * RECORD_FRAMES:
                waited.append(await ask())
        assert {turns for _, turns in waited} == {idle}  # nothing of the visitor's waits for a turn to come
        assert max(frames for frames, _ in waited) <= idle * TURN


@on_fake_clock
async def test_bulk_of_many_shares_a_turn() -> None:
    """Each of those who fetch as much as they can has its part, and a visitor waits for few turns of that."""
    limits = replace(DEFAULT, stream_window=8 * MIB, connection_window=8 * MIB)

    async def pour(connection: dtp.Connection) -> None:
        async for stream in connection:
            stream.write(bytes(6 * MIB))

    async with contextlib.AsyncExitStack() as stack:
        services = {"pour": pour, "echo": echo}
        listener = await stack.enter_async_context(await dtp.listen("memory://x", services, identity=BOB))
        visitor = await stack.enter_async_context(dtp.connect(listener.address("echo")))
        stream = await visitor.open_stream()
        stream.write(b"!")
        assert await stream.read(1) == b"!"
        clients = [
            await stack.enter_async_context(dtp.connect(listener.address("pour"), limits=limits))
            for _ in range(CROWD)
        ]
        for stream_of_bulk in [await each.open_stream() for each in clients]:
            stream_of_bulk.write(b"go")

        def sent() -> int:
            return sum(each.stats.bytes_sent for each in listener.connections)

        await until(lambda: sent() > 16 * MIB)
        waited = []
        while sent() < 128 * MIB:
            before = sent()
            stream.write(b"?")
            assert await stream.read(1) == b"?"
            waited.append(sent() - before)
        assert max(waited) <= 4 * ALL
        least, *_, most = sorted(each.stats.bytes_received for each in clients)
        assert least > most // 2  # each has its part
