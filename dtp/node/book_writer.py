"""Keeps a node's peer book in its folder: loads it, and writes it some time after it has changed."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from pathlib import Path

from dtp.peers.book import BOOK, BookNotKept, PeerBook
from dtp.peers.private import PrivateNetwork
from dtp.tasks import SupervisedTask

log = logging.getLogger("dtp.node")


class BookWriter:
    """Writes `book` to its file some time after it has changed. Call `load`, then `start` and `stop`."""

    def __init__(self, book: PeerBook, store: str | Path | None, pause: float) -> None:
        """`store` is the folder; with None the book is of this process alone. `pause` is how long changes are
        gathered, in seconds."""
        self._book, self._pause = book, pause
        self._store = None if store is None else Path(store)
        self._changed = asyncio.Event()
        self._task = SupervisedTask(self._write_changes, name="dtp-node-book")

    async def load(self, stack: AsyncExitStack, network: PrivateNetwork | None) -> None:
        """Load the book of this network, and write it when `stack` ends."""
        if self._store is not None:
            path = self._store / (BOOK if network is None else network.book)
            await asyncio.to_thread(self._book.load, path)  # checks a signature for each peer
        stack.push_async_callback(self._write_book)

    def start(self) -> None:
        """Write what changes from here on."""
        self._task.start()

    async def stop(self) -> None:
        """Stop writing, except once when the stack of `load` ends. Idempotent."""
        await self._task.stop()

    def note_change(self) -> None:
        """Write the book soon. Several changes are written together."""
        self._changed.set()

    async def _write_changes(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(self._pause)
            self._changed.clear()
            await self._write_book()

    async def _write_book(self) -> None:
        """Write the book. A failure, such as on a full disk, is logged: a node works without its cache."""
        try:
            await self._book.save()
        except BookNotKept as error:
            log.warning("%s; it is tried again when it changes", error)
