"""Hearing of changes: an async iterator over what changed, as fast as its reader is."""

from __future__ import annotations

import asyncio
import fnmatch
import re
from collections.abc import Callable, Iterable

from dtp.crdt import Change


class Watch:
    """Changes at souls that match a pattern (`*` and `?` as in file names), each once it is there to be read.

    What changes again before the reader comes to it is told once, with the latest author and clock; so a slow reader
    costs memory for what there is, not for how often it changed. Ends with `close`, or with the graph.
    """

    def __init__(self, pattern: str, forget: Callable[[Watch], None]) -> None:
        self._matches = re.compile(fnmatch.translate(pattern)).match
        self._forget = forget
        self._pending: dict[tuple[str, str, str], Change] = {}
        self._there = asyncio.Event()
        self._closed = False

    def offer(self, changes: Iterable[Change]) -> None:
        """Tell of changes."""
        for change in changes:
            if self._matches(change.soul):
                self._pending[change[:3]] = change
        if self._pending:
            self._there.set()

    def close(self) -> None:
        """No more. What was told is still read."""
        self._closed = True
        self._there.set()
        self._forget(self)

    async def wait(self) -> bool:
        """Wait until something has changed, and forget what; False when there will be no more."""
        while not self._pending:
            if self._closed:
                return False
            self._there.clear()
            await self._there.wait()
        self._pending.clear()
        return True

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Change:
        while not self._pending:
            if self._closed:
                raise StopAsyncIteration
            self._there.clear()
            await self._there.wait()
        return self._pending.pop(next(iter(self._pending)))

    async def __aenter__(self) -> Watch:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
