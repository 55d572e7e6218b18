"""Hearing of changes of a graph: each as it is made (`Watch`), or all of a commit at once (`Changes`)."""

from __future__ import annotations

import fnmatch
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from dtp.crdt import Change
from dtp.crdt.reader import ChangeReader
from dtp.graph.errors import ChangesMissed

log = logging.getLogger("dtp.graph")

#: Changes that a reader of batches may have before it unread, unless it says otherwise.
UNREAD: Final = 10_000

#: Soul, key, space: where something changed.
_Place = tuple[str, str, str]


class Batch(NamedTuple):
    """What one commit made here, or what came from others at one time, changed: each place once.

    Each change says its author and clock. What others made comes as it arrives: one batch may be of several authors,
    and of several of their commits.
    """

    changes: tuple[Change, ...]
    #: Whether it was made by this program. It is stored then.
    is_local: bool


def _matcher(pattern: str) -> Callable[[str], re.Match[str] | None]:
    return re.compile(fnmatch.translate(pattern)).match


class Watch(ChangeReader[Change]):
    """Changes at souls that match a pattern (`*` and `?` as in file names), each once it is there to be read.

    What changes again before the reader comes to it is told once, with the latest author and clock; so a slow reader
    costs memory for what there is, not for how often it changed. Ends with `close`, or with the graph.
    """

    def __init__(self, pattern: str, forget: Callable[[Any], None]) -> None:
        super().__init__(forget)
        self._matches = _matcher(pattern)
        self._pending: dict[_Place, Change] = {}

    def notify(self, changes: Iterable[Change]) -> None:
        """Tell of changes."""
        for change in changes:
            if self._matches(change.soul):
                self._pending[change[:3]] = change
        if self._pending:
            self._there.set()

    async def wait(self) -> bool:
        """Wait until something has changed, and forget what; False when there will be no more."""
        is_there = await self._wait_change()
        self._pending.clear()
        return is_there

    def _has_more(self) -> bool:
        return bool(self._pending)

    def _take_next(self) -> Change:
        return self._pending.pop(next(iter(self._pending)))


class Changes(ChangeReader[Batch]):
    """Batches of changes, in the order in which they were stored or came: `async for batch in graph.changes()`.

    At most `limit` changes wait to be read, or one batch. What comes beyond is dropped with all that waits, the log
    says so by the reader's name, and the next read raises `ChangesMissed`: read anew what you show, and go on.
    """

    def __init__(self, pattern: str, name: str, limit: int, forget: Callable[[Any], None]) -> None:
        super().__init__(forget)
        self.name = name
        self._matches = _matcher(pattern)
        self._limit = limit
        self._pending: deque[Batch] = deque()
        self._count = 0
        self._missed = 0

    def notify(self, batch: Batch) -> None:
        """Tell of a batch."""
        changes = tuple(change for change in batch.changes if self._matches(change.soul))
        if not changes:
            return
        if self._pending and self._count + len(changes) > self._limit:
            if not self._missed:
                log.warning("%s reads the changes of a graph too slowly, and misses some", self.name)
            self._missed += self._count
            self._count = 0
            self._pending.clear()
        self._pending.append(batch._replace(changes=changes))
        self._count += len(changes)
        self._there.set()

    def _has_more(self) -> bool:
        return bool(self._pending)

    def _take_next(self) -> Batch:
        if self._missed:
            missed, self._missed = self._missed, 0
            raise ChangesMissed(
                f"{self.name} reads the changes of a graph too slowly, and missed {missed} of them: read anew what "
                "depends on them, and go on with what follows; a higher limit= lets more wait"
            )
        batch = self._pending.popleft()
        self._count -= len(batch.changes)
        return batch


class Readers:
    """All who hear of a graph's changes, and what waits to be told to those who hear of commits."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()
        self._batched: set[Changes] = set()
        self._made: dict[_Place, Change] = {}
        self._signed: list[Batch] = []
        self._came: dict[_Place, Change] = {}

    def __bool__(self) -> bool:
        return bool(self._watches or self._batched)

    def new_watch(self, pattern: str) -> Watch:
        """Return a new watch."""
        watch = Watch(pattern, self._watches.discard)
        self._watches.add(watch)
        return watch

    def new_reader(self, pattern: str, name: str, limit: int) -> Changes:
        """Return a new reader of batches."""
        if not self._batched:
            self._made.clear()
            self._signed.clear()
        changes = Changes(pattern, name or f"a reader of {pattern!r}", limit, self._batched.discard)
        self._batched.add(changes)
        return changes

    def notify(self, changes: Iterable[Change], *, is_local: bool) -> None:
        """Tell watches of changes, and keep them for the batch to come."""
        for watch in self._watches:
            watch.notify(changes)
        if self._batched:
            pending = self._made if is_local else self._came
            pending.update((change[:3], change) for change in changes)

    def on_signed(self) -> None:
        """Have what was made until now be one batch: it was signed."""
        if self._made:
            self._signed.append(Batch(tuple(self._made.values()), is_local=True))
            self._made.clear()

    def on_stored(self) -> None:
        """Tell of what was signed: it is stored."""
        for batch in self._signed:
            self._notify_batch(batch)
        self._signed.clear()

    def on_received(self) -> None:
        """Tell of what came from others since the last time."""
        if self._came:
            self._notify_batch(Batch(tuple(self._came.values()), is_local=False))
            self._came.clear()

    def _notify_batch(self, batch: Batch) -> None:
        for changes in self._batched:
            changes.notify(batch)

    def close(self) -> None:
        """End all of them."""
        for watch in list(self._watches):
            watch.close()
        for changes in list(self._batched):
            changes.close()
