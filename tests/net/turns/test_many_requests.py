"""A million requests through one connection: the last costs what the first did, and leaves as little behind.

Calls of functions, bytes that are sent and blocks of memory are counted, no times.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from types import FrameType

import pytest
from echo_service import echo, on_fake_clock

import dtp
from dtp.identity import Identity

#: Requests whose calls are counted at a time.
SAMPLE = 300
#: Requests before anything is counted: caches are full then.
FIRST = 500
#: Blocks that may come to be meanwhile, whatever the number of requests: of tests that ended before, say.
MOST_BLOCKS = 500


async def ask(connection: dtp.Connection, number: int) -> None:
    """One request on a stream of its own; some ends are said by a reset."""
    stream = await connection.open_stream()
    data = number.to_bytes(8)
    stream.write(data)
    assert await stream.readexactly(8) == data
    if number % 16:
        stream.write_eof()
        assert await stream.read() == b""
    else:
        stream.reset(7)
    stream.close()


class Calls:
    """Counts calls of functions, of Python and C, within `with`."""

    def __init__(self) -> None:
        self.count = 0

    def _note(self, frame: FrameType, event: str, arg: object) -> None:
        self.count += event in ("call", "c_call")

    def __enter__(self) -> Calls:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


async def measure(connection: dtp.Connection, first: int) -> tuple[int, int, int]:
    """Return how many blocks of memory are in use, and how many calls and bytes a sample of requests took."""
    gc.collect()
    kept, sent = sys.getallocatedblocks(), connection.stats.bytes_sent
    with Calls() as calls:
        for number in range(first, first + SAMPLE):
            await ask(connection, number)
    return kept, calls.count, connection.stats.bytes_sent - sent


async def work(requests: int) -> list[tuple[int, int, int]]:
    """Make so many requests in turn; return what was measured behind the first, in the middle and at the end."""
    found = []
    async with (
        await dtp.listen("memory://x", echo, identity=Identity.generate()) as listener,
        dtp.connect(listener.address()) as connection,
    ):
        for number in range(requests):
            if number in (FIRST, requests // 2, requests - SAMPLE):
                found.append(await measure(connection, number))
            else:
                await ask(connection, number)
            if number % 1000 == 0:
                await asyncio.sleep(0.01)
        await asyncio.sleep(5)  # for what is acknowledged late
        (server,) = listener.connections
        assert not connection.at_work
        assert not server.at_work
    return found


def check(found: list[tuple[int, int, int]]) -> None:
    first, *later = found
    for kept, calls, sent in later:
        assert kept - first[0] < MOST_BLOCKS
        assert abs(calls - first[1]) <= first[1] // 50
        assert abs(sent - first[2]) <= first[2] // 50


@pytest.mark.slow
@on_fake_clock
async def test_thousands_of_requests_cost_what_the_first_did() -> None:
    check(await work(2_000))


@pytest.mark.long
@on_fake_clock
async def test_a_million_requests_cost_what_the_first_did() -> None:
    check(await work(1_000_000))
