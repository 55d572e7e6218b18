"""Relays: both directions to their ends, no more in memory than a slow side allows, and errors of either side."""

import asyncio
from typing import Any

import pytest

from dtp.net.relay import copy, relay
from dtp.testing.clock import run


class Pipe:
    """One direction: what is written can be read; `capacity` bytes at a time, as a slow reader has it."""

    def __init__(self, data: Any = b"", capacity: Any = 1 << 20, error: Any = None) -> None:
        self.data, self.capacity, self.error = bytearray(data), capacity, error
        self.ended = bool(data)
        self.most = 0
        self._changed = asyncio.Condition()

    def write(self, data: Any) -> None:
        self.data += data
        self.most = max(self.most, len(self.data))

    async def drain(self) -> None:
        async with self._changed:
            self._changed.notify_all()
            await self._changed.wait_for(lambda: len(self.data) < self.capacity)

    def write_eof(self) -> None:
        self.ended = True

    async def read(self, n: Any) -> Any:
        if self.error is not None:
            raise self.error
        async with self._changed:
            while not self.data and not self.ended:
                await self._changed.wait()
            data = bytes(self.data[:n])
            del self.data[:n]
            self._changed.notify_all()
        return data


def test_copy_gives_the_bytes_and_the_end() -> None:
    async def main() -> None:
        sink = Pipe()
        assert await copy(Pipe(b"x" * 600_000), sink) == 600_000
        assert bytes(sink.data) == b"x" * 600_000
        assert sink.ended

    run(main())


def test_copy_waits_for_a_slow_reader() -> None:
    async def main() -> None:
        sink = Pipe(capacity=300_000)
        copying = asyncio.create_task(copy(Pipe(bytes(5_000_000)), sink))
        got = 0
        while got < 5_000_000:
            await asyncio.sleep(1)
            got += len(await sink.read(100_000))
        assert await copying == 5_000_000
        assert sink.most < 900_000

    run(main())


def test_each_direction_ends_by_itself() -> None:
    async def main() -> None:
        near_in, near_out = Pipe(b"request"), Pipe()
        far_in, far_out = Pipe(b"long answer"), Pipe()
        assert await relay((near_in, near_out), (far_in, far_out)) == (7, 11)
        assert (bytes(far_out.data), bytes(near_out.data)) == (b"request", b"long answer")
        assert far_out.ended
        assert near_out.ended

    run(main())


def test_an_error_of_one_direction_cancels_the_other() -> None:
    async def main() -> None:
        silent = Pipe()  # would never end
        with pytest.raises(ConnectionResetError):
            await relay((Pipe(error=ConnectionResetError()), Pipe()), (silent, Pipe()))
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    run(main())
