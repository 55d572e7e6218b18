"""Locks between processes, by files. All of them end with the process that has them, however it ends."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from typing import Final

#: How often a lock's file is tried that nobody has, and the pause between, s: who looks has it for a moment, and who
#: had it before removes it.
_TRIES: Final = 10
_MOMENT: Final = 0.001
#: Bytes of a name's digest that say where in the file its lock is.
_PLACE: Final = 7


class FileLock:
    """A lock by the file at `path`, which is there as long as somebody has the lock.

    For a program's own use, beside what it guards: SQLite locks its own file, and its locks would end with any
    descriptor that this process closes. Two objects of one process shut each other out, too.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._file = -1

    def take(self) -> bool:
        """Return whether the lock was free and is now this one's. Raise `OSError` where there can be no such file."""
        for _ in range(_TRIES):
            if self._try_lock():
                return True
            if self.is_taken():
                break
            time.sleep(_MOMENT)
        return False

    def _try_lock(self) -> bool:
        file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one before removes the file: what is locked must be what others find there.
            there = self._is_at_its_place(file)
        except BlockingIOError:
            there = False
        except OSError:
            os.close(file)
            raise
        if there:
            self._file = file
        else:
            os.close(file)
        return there

    def is_taken(self) -> bool:
        """Return whether somebody has the lock. Raise `OSError` if the file can't be opened."""
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # several may look at once
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False

    def _is_at_its_place(self, file: int) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(file))
        except FileNotFoundError:
            return False

    @property
    def is_held(self) -> bool:
        """True if this object has the lock."""
        return self._file >= 0

    def release(self) -> None:
        """Let others have the lock. Idempotent."""
        if self._file >= 0:
            if self._is_at_its_place(self._file):  # somebody may have tidied up
                os.unlink(self._path)
            os.close(self._file)
            self._file = -1


class NameLocks:
    """Locks by name, each a byte of the file at `path`, which stays.

    They are the process's: it has each name once, and loses all of them when it closes any descriptor of the file.
    So a process keeps one of these for a path, and never closes it. Raise `OSError` if the file can't be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def take(self, name: str) -> bool:
        """Return whether no other process has the lock; this one has it then. Raise `OSError` without locks."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(name))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, name: str) -> None:
        """Let other processes have the lock."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(name))


def _place(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=_PLACE).digest())
