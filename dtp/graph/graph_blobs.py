"""The blobs of a graph, as its user has them. How they are kept is in `dtp.graph.blobs`."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO

from dtp.crdt import BlobRef, Replica
from dtp.graph import blobs
from dtp.graph.blobs import BlobStore
from dtp.graph.contents import Contents
from dtp.graph.errors import GraphError
from dtp.graph.fetching import Blob, fetch
from dtp.identity import Identity

if TYPE_CHECKING:
    from dtp.net.connection import Connection


class GraphBlobs(Contents):
    """What a graph shows of its blobs."""

    name: str

    def __init__(self, identity: Identity, replica: Replica, store: BlobStore) -> None:
        super().__init__(identity, replica)
        #: Where its blobs are.
        self.blobs = store
        self._new_blobs: set[BlobRef] = set()
        self._fetching: dict[BlobRef, asyncio.Event] = {}

    async def add_blob(self, source: bytes | str | os.PathLike[str] | BinaryIO) -> BlobRef:
        """Keep bytes, the file at a path, or what an open file has still to give; what nodes refer to it by.

        The same bytes are kept once, at most `dtp.graph.blobs.MAX_BYTES`. They stay until `collect_blobs`. Raises
        `StoreError`, `GraphError`.
        """
        self.check_writable()
        try:
            if isinstance(source, bytes):
                ref = await asyncio.to_thread(self.blobs.add, io.BytesIO(source))
            elif isinstance(source, str | os.PathLike):
                with await asyncio.to_thread(open, source, "rb") as file:
                    ref = await asyncio.to_thread(self.blobs.add, file)
            else:
                ref = await asyncio.to_thread(self.blobs.add, source)
        except FileNotFoundError as error:
            raise GraphError(f"there is no file {error.filename}") from error
        self._new_blobs.add(ref)
        return ref

    def blob(self, ref: BlobRef) -> Blob:
        """A blob, to read what is here of it."""
        self._check_open()
        return Blob(self.blobs, ref)

    async def fetch(self, ref: BlobRef, connection: Connection) -> Blob:
        """Have the blob here: from the other end of a connection, which must `serve` the graph, unless it is here.

        Each chunk is checked as it comes; broken off, the next `fetch` goes on from there, from whichever peer.
        Raises `BlobAbsent`, `BlobError`, `StoreError`, and what ends connections and streams.
        """
        self.check_writable()
        if type(ref) is not BlobRef or len(ref.id) != blobs.ID or not 0 <= ref.size <= blobs.MAX_BYTES:
            raise GraphError(f"{ref!r} refers to no blob")
        while ref in self._fetching:  # one at a time writes a blob
            await self._fetching[ref].wait()
        self._fetching[ref] = asyncio.Event()
        self._new_blobs.add(ref)
        try:
            await fetch(self.name, self.blobs, ref, connection)
        finally:
            self._fetching.pop(ref).set()
        return Blob(self.blobs, ref)

    async def collect_blobs(self, keep: Iterable[BlobRef] = ()) -> int:
        """Remove the blobs that no value refers to, but for `keep` and those that came since the graph was opened.

        How many bytes became free. Name in `keep` what only sealed or older values refer to. Raises `StoreError`.
        """
        self.check_writable()
        kept = {*keep, *self._new_blobs, *blobs.refs_in(self._replica)}
        return await asyncio.to_thread(self.blobs.collect, kept)
