"""Who has a graph's file: one program at a time writes, and any number read beside it."""

from __future__ import annotations

import fcntl
import os
from typing import Final

from dtp.graph.errors import StoreError

#: How often the lock's file is opened: who had it before removes it.
_TRIES: Final = 10


class WriterLock:
    """The right to write to the file at `path`: a lock on a file beside it, there as long as somebody has it.

    Not on the file itself: POSIX locks, which SQLite takes there, end when a process closes any descriptor of it.
    """

    def __init__(self, path: str) -> None:
        self._path = f"{os.path.realpath(path)}-lock"
        self._file = -1

    def take(self) -> None:
        """Take it. Raise `StoreError` while somebody else has it, `OSError` where there can be no such file."""
        for _ in range(_TRIES):
            file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(file)
                raise StoreError(
                    f"{self._path.removesuffix('-lock')} could not be opened: another process has it, or this one "
                    "twice; read_only=True reads beside it"
                ) from error
            except OSError:
                os.close(file)
                raise
            if self._is_there(file):
                self._file = file
                return
            os.close(file)
        raise StoreError(
            f"{self._path} is removed again and again; another program opens and closes the graph"
        )

    def is_taken(self) -> bool:
        """Return whether somebody has it."""
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False

    def _is_there(self, file: int) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(file))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let others have it. Idempotent."""
        if self._file >= 0:
            if self._is_there(self._file):  # somebody may have tidied up
                os.unlink(self._path)
            os.close(self._file)
            self._file = -1
