"""Hearing of something: an async iterator over what others tell, which ends when they close it."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")


class ChangeReader(Generic[T]):
    """What is told from when it was asked for on: `async for one in reader`. How much of it is kept, subclasses say.

    Ends with `close`, after what was told until then, or with what tells it.
    """

    def __init__(self, forget: Callable[[Any], None]) -> None:
        """`forget` is called when it is closed."""
        self._forget = forget
        self._there = asyncio.Event()
        self._closed = False

    @abstractmethod
    def _has_more(self) -> bool:
        """Return whether something was told that isn't read yet."""

    @abstractmethod
    def _take_next(self) -> T:
        """Return what comes next, which is there, and forget it."""

    def close(self) -> None:
        """End it. What was told is still read. Idempotent."""
        self._closed = True
        self._there.set()
        self._forget(self)

    async def _wait_change(self) -> bool:
        """Wait until there is something to read; False when there will be nothing more."""
        while not self._has_more():
            if self._closed:
                return False
            self._there.clear()
            await self._there.wait()
        return True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if not await self._wait_change():
            raise StopAsyncIteration
        return self._take_next()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
