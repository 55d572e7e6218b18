"""The blobs of a shared graph: fetched from peers that have them, and announced to others.

Source: docs/sharing.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from dtp.errors import CarrierError, DtpError, PeerError
from dtp.graph.errors import BlobAbsent
from dtp.identity import PeerId
from dtp.net.address import AddressError
from dtp.net.resolver import NotResolved
from dtp.node.heads import ShareLimits
from dtp.session.codes import ConnectionClosed
from dtp.tasks import TaskSet, start_task

if TYPE_CHECKING:
    from dtp.crdt.values import BlobRef
    from dtp.graph.blobs.fetching import Blob
    from dtp.net.stream import Stream
    from dtp.node.sharing import GraphShare, GraphShares, NodeLink, Providers

log = logging.getLogger("dtp.node")

#: The most blobs of a graph that are announced.
_MAX_PROVIDED: Final = 4096
#: The most peers asked for a blob in addition to connected ones.
_MAX_PROVIDERS: Final = 8


class SharedBlobs:
    """The blobs of one shared graph."""

    def __init__(self, share: GraphShare, shares: GraphShares) -> None:
        self._share, self._shares = share, shares
        self._provided: set[bytes] = set()
        self._provide_at = 0.0
        self._tasks = TaskSet()

    async def fetch(self, ref: BlobRef) -> Blob:
        """Return a blob after fetching it. Raise `BlobAbsent` if nobody has it."""
        blob = self._share.graph.blobs.get(ref)
        links = list(self._shares.links)
        self._shares.random.shuffle(links)
        for link in links:
            if blob.is_here:
                break
            await self._fetch_from(ref, link.peer)
        if not blob.is_here and self._shares.providers is not None:
            for record in list(await self._shares.providers.providers(ref.id))[:_MAX_PROVIDERS]:
                if record.peer != self._shares.identity.id and not blob.is_here:
                    await self._fetch_from(ref, record.peer)
        if not blob.is_here:
            raise BlobAbsent("nobody who shares the graph and can be reached has the blob")
        await self._provide_ids([ref.id])
        return blob

    async def _fetch_from(self, ref: BlobRef, peer: PeerId) -> None:
        """Fetch a blob from a peer, for as long as bytes arrive."""
        links = self._shares.links
        try:
            opener = _Opener(self._share, links.get(peer) or await links.connect_told(peer))
            work = start_task(self._share.graph.blobs.fetch(ref, opener), name="dtp-share-blob")
            try:
                await wait_moving(work, opener.count_received, self._share.limits)
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
        except (
            PeerError,
            CarrierError,
            ConnectionClosed,
            NotResolved,
            AddressError,
            asyncio.IncompleteReadError,
            TimeoutError,
        ) as error:
            self._share.counts["failed"] += 1
            log.debug("a blob from %s: %s", peer.short, error)

    async def provide(self) -> None:
        """Announce the blobs that are here, at most once in `ShareLimits.poll` seconds."""
        now = asyncio.get_running_loop().time()
        if self._shares.providers is not None and now >= self._provide_at:
            self._provide_at = now + self._share.limits.poll
            store = self._share.graph.blobs.store
            await self._provide_ids(await asyncio.to_thread(lambda: [ref.id for ref in store.stored_refs()]))

    async def _provide_ids(self, ids: Iterable[bytes]) -> None:
        """Announce blobs in the table of providers, unless the graph is no longer shared."""
        providers = self._shares.providers
        if providers is None or self._share not in self._shares:
            return
        for one in ids:
            if one not in self._provided and len(self._provided) < _MAX_PROVIDED:
                self._provided.add(one)
                self._tasks.start(self._provide_one(providers, one), name="dtp-share-provide")

    async def _provide_one(self, providers: Providers, content_hash: bytes) -> None:
        try:
            await providers.provide(content_hash)
        except DtpError as error:
            self._provided.discard(content_hash)  # it is tried again at the next check
            log.debug("a blob could not be provided: %s", error)

    async def stop(self) -> None:
        """Stop announcing. Idempotent."""
        await self._tasks.stop()


class _Opener:
    """Opens streams of a shared graph on a link, as a connection does for a served one, and counts what comes."""

    def __init__(self, share: GraphShare, link: NodeLink) -> None:
        self._share = share
        self._link = link
        self._stream: Stream | None = None

    async def open_stream(self) -> Stream:
        self._stream = await self._share.open(self._link)
        return self._stream

    def count_received(self) -> int | None:
        """Return the number of bytes received; None while no bytes are expected: this side is reading or writing
        what it has of the blob, somebody else is fetching the same blob, or the stream is being opened, which has
        its own time limit."""
        return self._stream.received if self._stream is not None and self._stream.awaited else None


async def wait_moving(
    work: asyncio.Task[Any], count_moved: Callable[[], int | None], limits: ShareLimits
) -> None:
    """Await a task for as long as `count_moved` grows; while that returns None no progress is expected. Raise
    `TimeoutError`, and what the task raises."""
    loop = asyncio.get_running_loop()
    unhurried = loop.time() + limits.unhurried
    while not work.done():
        before = count_moved()
        await asyncio.wait({work}, timeout=limits.stall)
        after = count_moved()
        least = limits.least if loop.time() > unhurried else 1
        if not work.done() and before is not None and after is not None and after - before < least:
            raise TimeoutError(f"only {after - before} bytes in {limits.stall:g} s")
    await work
