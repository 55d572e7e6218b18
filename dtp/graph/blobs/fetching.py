"""Blobs over connections: a stream for each, checked chunk by chunk as it comes. docs/graph.md, "Blobs"."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgpack

from dtp.crdt.values import BlobRef
from dtp.graph.blobs.store import CHUNK, ID, MAX_BYTES, Listing
from dtp.graph.errors import BlobAbsent, BlobError, StoreError
from dtp.packing import unpack_array

if TYPE_CHECKING:
    from dtp.graph.blobs.store import BlobStore, Incoming
    from dtp.graph.graph import Graph
    from dtp.net.stream import Stream

#: Blobs that a peer is asked of at once.
MAX_ASKED: Final = 4096
#: Bytes of a message, at most: the list of the largest blob.
_MAX_MESSAGE: Final = MAX_BYTES // CHUNK * 32 + 64
#: The code that a stream is reset with when the other end sends something else.
_BROKEN: Final = 1


class BlobMessage(IntEnum):
    """What a message is: its first element. A stream that begins with BLOB is about one, not a sync."""

    BLOB = 16
    LIST = 17
    CHUNK = 18
    ABSENT = 19
    HAS = 20
    HERE = 21


class StreamOpener(Protocol):
    """What opens streams to a peer that serves the graph: a connection, or a node's link."""

    async def open_stream(self) -> Stream:
        """Return a new stream."""


class Blob:
    """A blob of a graph, whether or not it is here: see `Graph.blobs.get`."""

    def __init__(self, store: BlobStore, ref: BlobRef) -> None:
        self._store = store
        #: What nodes have of it.
        self.ref = ref

    @property
    def size(self) -> int:
        """Bytes."""
        return self.ref.size

    @property
    def is_here(self) -> bool:
        """Whether all of it is here."""
        return self._store.has_blob(self.ref)

    async def chunks(self, start: int = 0) -> AsyncIterator[bytes]:
        """Yield its bytes from `start` on, piece by piece, checked. Raises `BlobAbsent`, `StoreError` when
        damaged."""
        listing = await self._read_listing()
        first, skip = divmod(start, CHUNK)
        for number in range(first, listing.chunks):
            data = await asyncio.to_thread(self._store.read_chunk, self.ref, listing, number)
            yield data[skip:]
            skip = 0

    async def read(self, start: int = 0, size: int = -1) -> bytes:
        """Return `size` bytes from `start` on, all if it is negative. Raises as `chunks` does."""
        parts: list[bytes] = []
        left = self.size if size < 0 else size
        if left:
            async for data in self.chunks(start):
                parts.append(data[:left])
                left -= len(parts[-1])
                if not left:
                    break
        return b"".join(parts)

    async def _read_listing(self) -> Listing:
        listing = await asyncio.to_thread(self._store.read_listing, self.ref)
        if listing is None or not await asyncio.to_thread(self._store.has_blob, self.ref):
            raise BlobAbsent(f"blob {self.ref.id.hex()} is not here; fetch it from a peer")
        return listing


async def fetch(graph: str, store: BlobStore, ref: BlobRef, connection: StreamOpener) -> None:
    """Have a blob of the graph of this name whole in the store. See `Graph.blobs.fetch`."""
    if await asyncio.to_thread(store.has_blob, ref):
        return
    listing = await asyncio.to_thread(store.read_listing, ref)
    stream = await connection.open_stream()
    try:
        incoming = None if listing is None else await asyncio.to_thread(store.begin_incoming, ref, listing)
        try:
            have = incoming.have if incoming is not None else 0
            await _send(stream, BlobMessage.BLOB, graph, ref.id, ref.size, listing is not None, have)
            if incoming is None:
                size, hashes = await _receive(stream, BlobMessage.LIST, int, bytes)
                incoming = await asyncio.to_thread(store.begin_incoming, ref, Listing(size, hashes))
            await _take(stream, incoming)
        finally:
            if incoming is not None:
                await asyncio.to_thread(incoming.close)
    except BaseException as error:
        stream.reset(_BROKEN if isinstance(error, BlobError) else 0)
        raise
    stream.close()


async def _take(stream: Stream, incoming: Incoming) -> None:
    while not incoming.is_whole:
        number, data = await _receive(stream, BlobMessage.CHUNK, int, bytes)
        await asyncio.to_thread(incoming.add_chunk, number, data)
    await asyncio.to_thread(incoming.publish_blob)


def is_request(message: bytes) -> bool:
    """Return whether a stream's first message asks for a blob, or which are here."""
    return message[1:2] in (bytes((BlobMessage.BLOB,)), bytes((BlobMessage.HAS,)))


async def ask_available(graph: str, refs: Iterable[BlobRef], connection: StreamOpener) -> set[BlobRef]:
    """Return which of these blobs of the graph of this name the peer says to have whole."""
    found: set[BlobRef] = set()
    every = list(refs)
    for some in (every[at : at + MAX_ASKED] for at in range(0, len(every), MAX_ASKED)):
        stream = await connection.open_stream()
        try:
            await _send(stream, BlobMessage.HAS, graph, b"".join(ref.id for ref in some))
            (here,) = await _receive(stream, BlobMessage.HERE, bytes)
            if len(here) != -(-len(some) // 8):
                raise BlobError("the peer answers for another number of blobs than it was asked of")
        except BaseException as error:
            stream.reset(_BROKEN if isinstance(error, BlobError) else 0)
            raise
        stream.close()
        found |= {ref for at, ref in enumerate(some) if here[at // 8] >> at % 8 & 1}
    return found


async def _tell_available(graph: Graph, stream: Stream, request: bytes) -> None:
    name, asked = _read(request, BlobMessage.HAS, str, bytes)
    if name != graph.name:
        raise BlobError(f"the peer asks for blobs of graph {name!r}, not {graph.name!r}")
    count, rest = divmod(len(asked), ID)
    if rest or not 0 < count <= MAX_ASKED:
        raise BlobError(
            f"the peer asks for something that is not a list of blobs, or for more than {MAX_ASKED}"
        )
    refs = [BlobRef(asked[at : at + ID], 0) for at in range(0, len(asked), ID)]
    store = graph.blobs.store
    whole = await asyncio.to_thread(lambda: [store.can_have and store.has_blob(ref) for ref in refs])
    bits = sum(1 << at for at, is_here in enumerate(whole) if is_here)
    await _send(stream, BlobMessage.HERE, bits.to_bytes(-(-count // 8), "little"))
    stream.close()


async def answer(graph: Graph, stream: Stream, request: bytes) -> None:
    """Send the blob that is asked for, from the chunk on that is; or which of those that are asked for are here."""
    if request[1:2] == bytes((BlobMessage.HAS,)):
        await _tell_available(graph, stream, request)
        return
    name, key, size, has_list, first = _read(request, BlobMessage.BLOB, str, bytes, int, bool, int)
    if name != graph.name:
        raise BlobError(f"the peer wants a blob of graph {name!r}, not {graph.name!r}")
    if len(key) != 32 or not 0 <= size <= MAX_BYTES or first < 0:
        raise BlobError("the peer asks for something that is not a blob")
    ref = BlobRef(key, size)
    graph.check_open()
    store = graph.blobs.store
    listing = await asyncio.to_thread(store.read_listing, ref)
    if listing is None or not await asyncio.to_thread(store.has_blob, ref):
        await _send(stream, BlobMessage.ABSENT)
    else:
        if not has_list:
            await _send(stream, BlobMessage.LIST, listing.size, listing.hashes)
        for number in range(first, listing.chunks):
            try:
                data = await asyncio.to_thread(store.read_chunk, ref, listing, number)
            except StoreError:
                await _send(stream, BlobMessage.ABSENT)  # damaged here, or taken away meanwhile
                break
            await _send(stream, BlobMessage.CHUNK, number, data)
    stream.close()


async def _send(stream: Stream, kind: BlobMessage, *parts: Any) -> None:
    message = msgpack.packb((kind, *parts))
    stream.write(len(message).to_bytes(4, "big") + message)
    await stream.drain()


async def _receive(stream: Stream, kind: BlobMessage, *kinds: type) -> list[Any]:
    """Return the parts of the next message, which must be of this kind. Raises `BlobError`, `BlobAbsent`."""
    try:
        size = int.from_bytes(await stream.readexactly(4), "big")
        if size > _MAX_MESSAGE:
            raise BlobError(f"a message of {size} bytes; at most {_MAX_MESSAGE} are taken")
        message = await stream.readexactly(size)
    except asyncio.IncompleteReadError as error:
        raise BlobError("the peer ended the stream before the blob was whole") from error
    if message[1:2] == bytes((BlobMessage.ABSENT,)):
        raise BlobAbsent("the peer doesn't have the blob; ask another one")
    return _read(message, kind, *kinds)


def _read(message: bytes, kind: BlobMessage, *kinds: type) -> list[Any]:
    return unpack_array(message, BlobError, f"a message where {kind.name} comes next", (kind, *kinds))[1:]
