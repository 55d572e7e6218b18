"""A graph as one file: all envelopes, to be kept, carried and taken in elsewhere. docs/graph.md, "Files"."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from dtp.core import crdt as core
from dtp.graph.errors import GraphError, StoreError
from dtp.graph.formats import chunks
from dtp.graph.frames import summaries
from dtp.graph.frames.envelope import OVERHEAD
from dtp.replacing import replacing

if TYPE_CHECKING:
    from dtp.graph.graph import Graph

MAGIC: Final = b"dtp-graph\x03"
#: The same of files without edits of lists.
_BEFORE: Final = b"dtp-graph\x02"
_READ: Final = 256
_DIGEST: Final = 32


async def export(graph: Graph, path: str | os.PathLike[str]) -> int:
    """Write all frames into a file; return how many there are."""
    target = Path(path)
    try:
        async with _replacing_beside(target) as file:
            count = await _write(graph, file)
    except OSError as error:
        raise StoreError(f"{target} could not be written: {error.strerror}") from error
    return count


@asynccontextmanager
async def _replacing_beside(target: Path) -> AsyncIterator[BinaryIO]:
    """Replace a file as `replacing` does, in another thread than the loop's: it waits for the disk."""
    replaced = replacing(target)
    file = await asyncio.to_thread(replaced.__enter__)
    try:
        yield file
    except BaseException as error:
        await asyncio.to_thread(replaced.__exit__, type(error), error, error.__traceback__)
        raise
    await asyncio.to_thread(replaced.__exit__, None, None, None)


async def to_chunks(graph: Graph) -> list[str]:
    """Return all frames as texts for QR codes."""
    file = io.BytesIO()
    await _write(graph, file)
    return chunks.split(file.getvalue())


async def _write(graph: Graph, file: BinaryIO) -> int:
    digest = hashlib.blake2b(digest_size=_DIGEST)
    count = 0

    def write(data: bytes) -> None:
        digest.update(data)
        file.write(data)

    write(MAGIC)
    parts = [(author, 1, last) for author, last in sorted(graph.frames.vector().items())]
    async for some in summaries.stored(graph, parts):
        count += len(some)
        await asyncio.to_thread(_write_all, write, some)
    write(bytes(4))
    file.write(digest.digest())
    return count


def _write_all(write: Callable[[bytes], None], some: list[bytes]) -> None:
    for one in some:
        write(len(one).to_bytes(4, "big") + one)


async def take_in(graph: Graph, path: str | os.PathLike[str]) -> int:
    """Take the frames in a file; return how many were new."""
    try:
        with await asyncio.to_thread(open, path, "rb") as file:
            return await _read(graph, file, os.fspath(path))
    except OSError as error:
        raise StoreError(f"{os.fspath(path)} could not be read: {error.strerror}") from error


async def from_chunks(graph: Graph, texts: Iterable[str]) -> int:
    """Take the frames in texts of QR codes; return how many were new."""
    collector = chunks.Collector()
    for text in texts:
        collector.add(text)
    return await _read(graph, io.BytesIO(collector.data()), "what the chunks stand for")


async def _read(graph: Graph, file: BinaryIO, name: str) -> int:
    await asyncio.to_thread(_check, file, name)
    file.seek(0)
    taken = 0
    for batch in _batches(file):
        taken += await graph.receive(batch)
    return taken


def _check(file: BinaryIO, name: str) -> None:
    """Read it all once, so that nothing is taken from a file that is cut off or damaged."""
    digest = hashlib.blake2b(digest_size=_DIGEST)
    left = file.seek(0, os.SEEK_END) - _DIGEST
    file.seek(0)
    while left > 0:
        piece = file.read(min(left, 1 << 20))
        if not piece:
            break
        digest.update(piece)
        left -= len(piece)
    if left or file.read() != digest.digest():
        raise GraphError(f"{name} is not an exported graph, or was cut off or damaged")


def _batches(file: BinaryIO) -> Iterator[list[bytes]]:
    if file.read(len(MAGIC)) not in (MAGIC, _BEFORE):
        raise GraphError("not an exported graph of version 3")
    batch: list[bytes] = []
    size = 0
    while length := int.from_bytes(file.read(4), "big"):
        if length > core.FRAME_BYTES + OVERHEAD:
            raise GraphError("an exported graph has an envelope that is too long")
        batch.append(file.read(length))
        size += length
        if len(batch) >= _READ or size > core.FRAME_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
