"""Hearing of each edit of a text or a list, as patches for an editor, in the order in which they were made here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dtp.crdt.marks import Format, deltas_of
from dtp.crdt.reader import ChangeReader


class SequenceChange(NamedTuple):
    """What one edit, or what came in one frame, did: patches that hold one after the other.

    `dtp.crdt.text.Patch` of a text, `dtp.crdt.list.ListPatch` of a list.
    """

    patches: list[Any]
    #: Whether it was made by this program.
    is_local: bool
    #: Of a text: what changed of its marks, in the text as it is after the patches. They hold one after the other.
    formats: Sequence[Format] = ()

    def deltas(self) -> list[list[dict[str, Any]]]:
        """Return the change of a text as deltas of the editor Quill that hold one after the other, mostly one."""
        return deltas_of(self.patches, self.formats)


class SequenceChanges(ChangeReader[SequenceChange]):
    """The changes of a text or a list from when this was asked for on: `async for change in text.changes()`.

    Who had what it was then, and takes all patches, has what it is now: nothing is left out or put together. So a
    reader that is slower than those who write costs memory. Ends with `close`, or with the graph.
    """

    def __init__(self, forget: Callable[[SequenceChanges], None]) -> None:
        super().__init__(forget)
        self._pending: deque[SequenceChange] = deque()

    def notify_reader(self, change: SequenceChange) -> None:
        """Have the reader hear of a change."""
        self._pending.append(change)
        self._there.set()

    def take_told(self) -> list[SequenceChange]:
        """Return the changes that were told until now and not read yet."""
        found = list(self._pending)
        self._pending.clear()
        return found

    def _has_more(self) -> bool:
        return bool(self._pending)

    def _take_next(self) -> SequenceChange:
        return self._pending.popleft()


def difference(before: Sequence[Any], after: Sequence[Any]) -> list[tuple[int, int, Any]]:
    """Return the patch that makes one text or list of another; none if they are the same."""
    if before == after:
        return []
    small = min(len(before), len(after))
    front = next((i for i in range(small) if before[i] != after[i]), small)
    back = next((i for i in range(small - front) if before[-1 - i] != after[-1 - i]), small - front)
    return [(front, len(before) - front - back, after[front : len(after) - back])]
