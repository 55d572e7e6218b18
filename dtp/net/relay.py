"""Passing bytes on between two pairs of ends: DTP streams, asyncio's, all that reads and writes alike."""

from __future__ import annotations

import asyncio
from typing import Protocol

from dtp.tasks import start_task

#: Bytes per step: what a stream hands out at once, and few enough that a slow reader is felt soon.
PIECE = 256 * 1024


class ByteSource(Protocol):
    """`dtp.Stream` and `asyncio.StreamReader` are."""

    async def read(self, n: int, /) -> bytes: ...


class ByteSink(Protocol):
    """`dtp.Stream` and `asyncio.StreamWriter` are."""

    def write(self, data: bytes, /) -> None: ...

    async def drain(self) -> None: ...

    def write_eof(self) -> None: ...


async def copy(source: ByteSource, sink: ByteSink) -> int:
    """Pass on everything up to the end of `source`, then finish `sink`; return how many bytes it was.

    Takes no more from `source` than `sink` takes, so memory stays bounded. Raises what either raises.
    """
    total = 0
    while data := await source.read(PIECE):
        sink.write(data)
        await sink.drain()
        total += len(data)
    sink.write_eof()
    return total


async def relay(a: tuple[ByteSource, ByteSink], b: tuple[ByteSource, ByteSink]) -> tuple[int, int]:
    """Copy in both directions at once; each ends by itself, so half-closed ends go on.

    Gives the bytes from `a` to `b` and from `b` to `a`. When one direction fails the other is cancelled, and the
    error raised: closing the ends is up to the caller.
    """
    there = start_task(copy(a[0], b[1]), name="dtp-there")
    back = start_task(copy(b[0], a[1]), name="dtp-back")
    try:
        sent, received = await asyncio.gather(there, back)
    finally:
        there.cancel()
        back.cancel()
    return sent, received
