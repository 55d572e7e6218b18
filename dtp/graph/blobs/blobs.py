"""The blobs of a graph, as its user has them: `Graph.blobs`. How they are kept is in `dtp.graph.blobs.store`."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO

from dtp.crdt import BlobRef
from dtp.graph.blobs import store as blobs
from dtp.graph.blobs.fetching import Blob, ask_available, fetch
from dtp.graph.blobs.following import BlobFollowing, Fetch
from dtp.graph.blobs.store import BlobStore
from dtp.graph.errors import GraphError

if TYPE_CHECKING:
    from dtp.graph.blobs.fetching import StreamOpener
    from dtp.graph.graph import Graph
    from dtp.graph.sync.part import Part


class Blobs:
    """The blobs of a graph: files beside it, to which values refer. `Graph.blobs`."""

    def __init__(self, graph: Graph, store: BlobStore) -> None:
        """Bring and keep the blobs of a graph in a store."""
        self._graph = graph
        #: Where they are kept.
        self.store = store
        self._new: set[BlobRef] = set()
        self._fetching: dict[BlobRef, asyncio.Event] = {}

    async def add(self, source: bytes | str | os.PathLike[str] | BinaryIO) -> BlobRef:
        """Keep bytes, the file at a path, or what an open file has still to give; what nodes refer to it by.

        The same bytes are kept once, at most `blobs.store.MAX_BYTES`. They stay until `collect`. Raises
        `StoreError`, `GraphError`.
        """
        self._graph.check_writable()
        try:
            if isinstance(source, bytes):
                ref = await asyncio.to_thread(self.store.add_blob, io.BytesIO(source))
            elif isinstance(source, str | os.PathLike):
                with await asyncio.to_thread(open, source, "rb") as file:
                    ref = await asyncio.to_thread(self.store.add_blob, file)
            else:
                ref = await asyncio.to_thread(self.store.add_blob, source)
        except FileNotFoundError as error:
            raise GraphError(f"there is no file {error.filename}") from error
        self._new.add(ref)
        return ref

    def get(self, ref: BlobRef) -> Blob:
        """Return a blob, to read what is here of it. Raises `GraphError` once the graph is closed."""
        self._graph.check_open()
        return Blob(self.store, ref)

    async def fetch(self, ref: BlobRef, connection: StreamOpener) -> Blob:
        """Have the blob here: from the other end of a connection, which must `serve` the graph, unless it is here.

        Each chunk is checked as it comes; broken off, the next `fetch` goes on from there, from whichever peer.
        Raises `BlobAbsent`, `BlobError`, `StoreError`, and what ends connections and streams.
        """
        self._graph.check_writable()
        if type(ref) is not BlobRef or len(ref.id) != blobs.ID or not 0 <= ref.size <= blobs.MAX_BYTES:
            raise GraphError(f"{ref!r} refers to no blob")
        while ref in self._fetching:  # one at a time writes a blob
            await self._fetching[ref].wait()
        self._fetching[ref] = asyncio.Event()
        self._new.add(ref)
        try:
            await fetch(self._graph.name, self.store, ref, connection)
        finally:
            self._fetching.pop(ref).set()
        return Blob(self.store, ref)

    async def available(self, refs: Iterable[BlobRef], connection: StreamOpener) -> set[BlobRef]:
        """Return which of these blobs the other end of a connection, which must `serve` the graph, says to have.

        Raises `BlobError`, and what ends connections and streams.
        """
        self._graph.check_open()
        return await ask_available(self._graph.name, refs, connection)

    def follow(self, source: StreamOpener | Fetch, *, part: Part | None = None) -> BlobFollowing:
        """Have blobs come as values that refer to them do, at souls of the `part` alone if there is one.

        They come from the other end of a connection, which is asked which it has; or by a function that is given what
        refers to a blob and brings it from wherever it is, such as `fetch` of a graph that a `dtp.Node` shares. What
        is not to be had is asked for again whenever something is stored, and every 30 s. Sealed values don't count.
        Raises `GraphError` where there is no place for blobs.
        """
        self._graph.check_writable()
        if not self.store.can_have:
            raise GraphError(
                "this graph has no place for blobs: name a folder, Graph.open(..., blobs=FOLDER)"
            )
        return BlobFollowing(self._graph, source, part)

    async def collect(self, keep: Iterable[BlobRef] = ()) -> int:
        """Remove the blobs that no value refers to, but for `keep` and those that came since the graph was opened.

        How many bytes became free. Name in `keep` what only sealed or older values refer to. Raises `StoreError`.
        """
        self._graph.check_writable()
        kept = {*keep, *self._new, *blobs.refs_in(self._graph.replica)}
        return await asyncio.to_thread(self.store.remove_unreferenced, kept)
