"""Which channels' pipes this program sends over: one at a time does, or two would use each version of them twice.

A real network may lock an object that two transactions use at one version until the epoch ends. Each channel is a
byte of a file in the data folder, locked by the process: its locks end with it, however it ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dtp import config
from dtp.chain.pipe_where import ChannelInUse
from dtp.errors import LocalError

__all__ = ["PipeLocks"]

#: Bytes of a channel's digest that say where in the file its lock is.
_PLACE: Final = 7


class PipeLocks:
    """The locks of one data folder; `PipeLocks.of_home()` are those of this user's. POSIX locks are a process's, and
    end when it closes any descriptor of the file: so it stays open."""

    _known: Final[dict[Path, PipeLocks]] = {}

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as fault:
            raise LocalError(
                f"pipes can't be locked by {path}: {fault.strerror}; $DTP_HOME names it"
            ) from fault
        self._path = path
        self._taken: Counter[str] = Counter()

    @classmethod
    def of_home(cls) -> PipeLocks:
        """Those of all programs of this user. Raises `LocalError` where the data folder can't be written."""
        path = config.data_dir() / "pipes.lock"
        if path not in cls._known:
            cls._known[path] = cls(path)
        return cls._known[path]

    @contextmanager
    def holding(self, channel: str) -> Iterator[None]:
        """Have the pipes of a channel for this process, once more if it has them. Raises `ChannelInUse`."""
        self._take(channel)
        try:
            yield
        finally:
            self._free(channel)

    def _take(self, channel: str) -> None:
        if not self._taken[channel]:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(channel))
            except (BlockingIOError, PermissionError) as fault:
                raise ChannelInUse(
                    f"another program of this wallet sends over the pipes of channel {channel}: wait for its end, or "
                    "use another channel"
                ) from fault
            except OSError as fault:  # of a file system without locks, say
                raise LocalError(f"pipes can't be locked by {self._path}: {fault.strerror}") from fault
        self._taken[channel] += 1

    def _free(self, channel: str) -> None:
        self._taken[channel] -= 1
        if self._taken[channel] <= 0:
            del self._taken[channel]
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _place(channel))


def _place(channel: str) -> int:
    return int.from_bytes(hashlib.blake2b(channel.encode(), digest_size=_PLACE).digest())
