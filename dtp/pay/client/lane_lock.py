"""Which lanes are in use: one connection at a time signs for a lane, also among processes that share a store."""

from __future__ import annotations

import os
from typing import ClassVar

from dtp.locking import FileLock
from dtp.pay.errors import StoreError


def path_beside(store_path: str, name: str) -> str | None:
    """Return the path of a lock's file beside a store, None for a store in memory.

    Beside the file itself, by whatever names it is opened: a lane used twice would sign its numbers twice.
    """
    return None if store_path == ":memory:" else f"{os.path.realpath(store_path)}.{name}.lock"


class LaneLock:
    """A lane is used by one connection at a time, also among processes: a lock on a file beside the store. Of a store
    in memory no other process knows."""

    _in_memory: ClassVar[dict[tuple[str, int], LaneLock]] = {}
    #: Files of the locks that this process has.
    _held_here: ClassVar[set[str]] = set()

    def __init__(self, store_path: str, channel: str, lane: int) -> None:
        self._path = path_beside(store_path, f"{channel[2:18]}-{lane}")
        self._file = None if self._path is None else FileLock(self._path)
        self._lane = channel, lane

    def try_acquire(self) -> bool:
        """Return whether the lane was free, and is now this one's. Raise `StoreError` without room for its file."""
        if self._file is None:
            return self._in_memory.setdefault(self._lane, self) is self
        try:
            taken = self._file.take()
        except OSError as fault:
            raise StoreError(f"can't lock a lane by {self._path}: {fault.strerror}") from fault
        if taken:
            self._held_here.add(str(self._path))
        return taken

    def is_ours(self) -> bool:
        """Return whether a connection of this process has the lane."""
        return self._lane in self._in_memory if self._path is None else self._path in self._held_here

    def is_taken(self) -> bool:
        """Return whether somebody has the lane. Raise `StoreError` if its file can't be opened."""
        if self._file is None:
            return self._lane in self._in_memory
        try:
            return self._file.is_taken()
        except OSError as fault:
            raise StoreError(f"can't look at {self._path}: {fault.strerror}") from fault

    def release(self) -> None:
        """Let others have it. Idempotent."""
        if self._file is not None:
            if self._file.is_held:
                self._held_here.discard(str(self._path))
            self._file.release()
        elif self._in_memory.get(self._lane) is self:
            del self._in_memory[self._lane]
