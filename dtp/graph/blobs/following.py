"""Blobs that follow their nodes: what the values here refer to is fetched as it comes. docs/graph.md, "Blobs"."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from dtp.crdt.values import BlobRef
from dtp.errors import CarrierError, DtpError, PeerError
from dtp.graph.blobs import fetching
from dtp.graph.blobs.store import refs_in
from dtp.session.codes import ConnectionClosed
from dtp.tasks import start_task

if TYPE_CHECKING:
    from dtp.graph.blobs.fetching import StreamOpener
    from dtp.graph.graph import Graph
    from dtp.graph.sync.part import Part

log = logging.getLogger("dtp.graph")

#: Blobs that come at once.
_AT_ONCE: Final = 4
#: Seconds until what nobody had is asked for again, unless something new is stored before.
_AGAIN: Final = 30.0

#: What brings a blob, from wherever it is; its errors say that it didn't.
Fetch = Callable[[BlobRef], Awaitable[object]]


class BlobFollowing:
    """Fetches the blobs of a graph as values that refer to them come; until `close`, or the graph is closed."""

    def __init__(self, graph: Graph, source: StreamOpener | Fetch, part: Part | None) -> None:
        """Follow from a connection, which is asked what it has, or with a function that finds a blob by itself."""
        self._graph = graph
        self._source = source
        self._part = part
        self._missing: frozenset[BlobRef] = frozenset()
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._forget = graph.listen(self._look_again)
        self._task = start_task(self._keep_following(), name="dtp-graph-blobs")

    @property
    def missing(self) -> frozenset[BlobRef]:
        """Return the blobs that the values refer to, and that weren't to be had when they were last asked for."""
        return self._missing

    async def wait_settled(self) -> None:
        """Wait until all blobs that values refer to now are here, or were asked for and weren't to be had.

        Raises what ended the following, if that is over: `ConnectionClosed`, or a `DtpError` of the store.
        """
        self._look_again()
        settled = start_task(self._settled.wait(), name="dtp-graph-blobs-settled")
        try:
            await asyncio.wait((settled, self._task), return_when=asyncio.FIRST_COMPLETED)
        finally:
            settled.cancel()
        if self._task.done() and not self._task.cancelled():
            self._task.result()

    async def close(self) -> None:
        """Fetch nothing more. What is here of blobs that aren't whole stays for the next time."""
        self._forget()
        self._task.cancel()
        with suppress(asyncio.CancelledError, DtpError, ConnectionClosed):
            await self._task

    def _look_again(self) -> None:
        self._settled.clear()
        self._wake.set()

    async def _keep_following(self) -> None:
        while not self._graph.closed:
            self._wake.clear()
            wanted = self._wanted_refs()
            found = await self._available_refs(wanted) if wanted else wanted
            room = asyncio.Semaphore(_AT_ONCE)
            try:
                async with asyncio.TaskGroup() as group:
                    for ref in sorted(found, key=lambda one: one.id):
                        group.create_task(self._fetch_blob(ref, room))
            except BaseExceptionGroup as failed:  # what went wrong first; the others were cancelled for it
                raise failed.exceptions[0] from None
            self._missing = frozenset(self._wanted_refs())
            if not self._wake.is_set():
                self._settled.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN if self._missing else None):
                    await self._wake.wait()

    def _wanted_refs(self) -> set[BlobRef]:
        """Return what the values refer to, and isn't here."""
        shows = None if self._part is None else self._part.has_soul
        blobs = self._graph.blobs.store
        return {ref for ref in refs_in(self._graph.replica, shows) if not blobs.has_blob(ref)}

    async def _available_refs(self, wanted: set[BlobRef]) -> set[BlobRef]:
        if callable(self._source):
            return wanted
        return await fetching.ask_available(self._graph.name, wanted, self._source)

    async def _fetch_blob(self, ref: BlobRef, room: asyncio.Semaphore) -> None:
        async with room:
            try:
                if callable(self._source):
                    await self._source(ref)
                else:
                    await self._graph.blobs.fetch(ref, self._source)
            except (PeerError, CarrierError, ConnectionClosed) as error:
                log.info("blob %s didn't come: %s", ref.id.hex()[:16], error)
