"""Hearing of each edit of a text, as patches for an editor, in the order in which they were made here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from dtp.core.text import Patch


class TextChange(NamedTuple):
    """What one edit, or what came in one frame, did to a text: patches that hold one after the other."""

    patches: list[Patch]
    #: Whether it was made by this program.
    is_local: bool


class TextChanges:
    """The changes of a text from when this was asked for on: `async for change in text.changes()`.

    Who had the text then, and takes all patches, has the text now: nothing is left out or put together. So a reader
    that is slower than those who write costs memory. Ends with `close`, or with the graph.
    """

    def __init__(self, forget: Callable[[TextChanges], None]) -> None:
        self._forget = forget
        self._pending: deque[TextChange] = deque()
        self._there = asyncio.Event()
        self._closed = False

    def tell(self, change: TextChange) -> None:
        """Have the reader hear of a change."""
        self._pending.append(change)
        self._there.set()

    def close(self) -> None:
        """End it. What was told is still read. Idempotent."""
        self._closed = True
        self._there.set()
        self._forget(self)

    def __aiter__(self) -> TextChanges:
        return self

    async def __anext__(self) -> TextChange:
        while not self._pending:
            if self._closed:
                raise StopAsyncIteration
            self._there.clear()
            await self._there.wait()
        return self._pending.popleft()

    def __enter__(self) -> TextChanges:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def difference(before: str, after: str) -> list[Patch]:
    """Return the patch that makes one text of another; none if they are the same."""
    if before == after:
        return []
    small = min(len(before), len(after))
    front = next((i for i in range(small) if before[i] != after[i]), small)
    back = next((i for i in range(small - front) if before[-1 - i] != after[-1 - i]), small - front)
    return [Patch(front, len(before) - front - back, after[front : len(after) - back])]
