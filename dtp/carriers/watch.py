"""Watching sockets on whatever event loop is running.

asyncio's own selector loops do it with `add_reader` and `add_writer`. Loops built on libuv (uvloop) offer the
same methods, but stop watching a socket without a word when it gets an error such as a reset, so a carrier
would never learn of its end (libuv says so of `uv_poll_t`). There the sockets go into a selector of our own,
and the loop watches only that selector's descriptor, which never has errors.
"""

from __future__ import annotations

import asyncio
import selectors
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Callable
from typing import Protocol
from weakref import WeakKeyDictionary

from dtp.carriers.errors import EventLoopError

Callback = Callable[[], object]


class Watcher(Protocol):
    """Calls back when a descriptor can be read from or written to, as asyncio's loops do. One callback for
    each direction: adding another replaces it; removing what isn't there does nothing."""

    def add_reader(self, fd: int, callback: Callback, /) -> object: ...
    def remove_reader(self, fd: int, /) -> object: ...
    def add_writer(self, fd: int, callback: Callback, /) -> object: ...
    def remove_writer(self, fd: int, /) -> object: ...


class SelectorWatcher:
    """A `Watcher` by a selector of its own, whose descriptor the running loop watches while anything is in
    it."""

    def __init__(self) -> None:
        self._selector: selectors.DefaultSelector | None = None
        self._callbacks: dict[tuple[int, int], Callback] = {}  # by descriptor and event

    def add_reader(self, fd: int, callback: Callback) -> None:
        self._callbacks[fd, selectors.EVENT_READ] = callback
        self._update_selector(fd)

    def remove_reader(self, fd: int) -> None:
        if self._callbacks.pop((fd, selectors.EVENT_READ), None) is not None:
            self._update_selector(fd)

    def add_writer(self, fd: int, callback: Callback) -> None:
        self._callbacks[fd, selectors.EVENT_WRITE] = callback
        self._update_selector(fd)

    def remove_writer(self, fd: int) -> None:
        if self._callbacks.pop((fd, selectors.EVENT_WRITE), None) is not None:
            self._update_selector(fd)

    def _update_selector(self, fd: int) -> None:
        if self._selector is None:
            self._selector = selectors.DefaultSelector()
            asyncio.get_running_loop().add_reader(self._selector.fileno(), self._on_ready)
        selector = self._selector
        events = 0
        for event in (selectors.EVENT_READ, selectors.EVENT_WRITE):
            if (fd, event) in self._callbacks:
                events |= event
        known = selector.get_map().get(fd)
        if not events:
            selector.unregister(fd)
        elif known is None:
            selector.register(fd, events)
        elif known.events != events:
            selector.modify(fd, events)
        if not self._callbacks:
            asyncio.get_running_loop().remove_reader(selector.fileno())
            selector.close()
            self._selector = None

    def _on_ready(self) -> None:
        if self._selector is None:
            return
        loop = asyncio.get_running_loop()
        # Each by a call of its own, so that what one raises does not keep the others from running.
        for key, events in self._selector.select(0):
            for event in (selectors.EVENT_READ, selectors.EVENT_WRITE):
                if events & event:
                    loop.call_soon(self._run_callback, key.fd, event)

    def _run_callback(self, fd: int, event: int) -> None:
        callback = self._callbacks.get((fd, event))
        if callback is not None:  # not removed by one that was called before
            callback()


# One for all carriers of a loop; weak, since loops written in C take no attributes.
_watchers: WeakKeyDictionary[asyncio.AbstractEventLoop, SelectorWatcher] = WeakKeyDictionary()


def socket_watcher(loop: asyncio.AbstractEventLoop) -> Watcher:
    """Return what watches sockets on `loop`. Raises `EventLoopError` when nothing can."""
    if isinstance(loop, BaseSelectorEventLoop):
        return loop
    can_watch = getattr(type(loop), "add_reader", None) is not asyncio.AbstractEventLoop.add_reader
    if not can_watch or not hasattr(selectors.DefaultSelector, "fileno"):
        raise EventLoopError(
            f"{type(loop).__name__} can't watch sockets; run the program on asyncio.SelectorEventLoop (on Windows: "
            "asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)), or use memory:// in tests"
        )
    return _watchers.setdefault(loop, SelectorWatcher())
