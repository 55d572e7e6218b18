"""Which lanes are in use: one connection at a time signs for a lane, also among processes that share a store."""

from __future__ import annotations

import fcntl
import os
import time
from typing import ClassVar, Final

from dtp.pay.errors import StoreError

#: How often the file of a lock is tried that nobody has, and the pause between, s: who looks has it for a moment.
_TRIES: Final = 10
_MOMENT: Final = 0.001


class LaneLock:
    """A lane is used by one connection at a time, also among processes: a lock on a file beside the store. Of a store
    in memory no other process knows."""

    _in_memory: ClassVar[dict[tuple[str, int], LaneLock]] = {}

    def __init__(self, store_path: str, channel: str, lane: int) -> None:
        # Of the file itself, by whatever names it is opened: a lane used twice would sign its numbers twice.
        path = None if store_path == ":memory:" else os.path.realpath(store_path)
        self._path = None if path is None else f"{path}.{channel[2:18]}-{lane}.lock"
        self._lane = channel, lane
        self._file = -1

    def take(self) -> bool:
        """Whether the lane was free, and is ours now. `StoreError` where there can be no such file."""
        # Who only looks has the file for a moment, and who had the lane removes it.
        for _ in range(_TRIES):
            if self._try():
                return True
            if self.is_taken():
                break
            time.sleep(_MOMENT)
        return False

    def _try(self) -> bool:
        if self._path is None:
            return self._in_memory.setdefault(self._lane, self) is self
        try:
            file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as fault:
            raise StoreError(f"can't lock a lane by {self._path}: {fault.strerror}") from fault
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one before us removes the file: what we hold must be what others find there.
            there = self._is_at_its_place(file)
        except BlockingIOError:
            there = False
        except OSError as fault:
            os.close(file)
            raise StoreError(f"can't lock a lane by {self._path}: {fault.strerror}") from fault
        if not there:
            os.close(file)
            return False
        self._file = file
        return True

    def is_taken(self) -> bool:
        """Whether somebody has the lane."""
        if self._path is None:
            return self._lane in self._in_memory
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as fault:
            raise StoreError(f"can't look at {self._path}: {fault.strerror}") from fault
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # several may look at once
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False

    def _is_at_its_place(self, file: int) -> bool:
        assert self._path is not None
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(file))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let others have it. Idempotent."""
        if self._in_memory.get(self._lane) is self:
            del self._in_memory[self._lane]
        if self._file >= 0:
            assert self._path is not None
            if self._is_at_its_place(self._file):  # somebody may have tidied up
                os.unlink(self._path)
            os.close(self._file)
            self._file = -1
