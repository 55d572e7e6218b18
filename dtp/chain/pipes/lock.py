"""Who sends over which channels' pipes: one client of one program at a time, or two would use each version twice.

A real network may lock an object that two transactions use at one version until the epoch ends. Each channel is a
byte of a file in the data folder, locked by the process: its locks end with it, however it ends. Which client of the
process has one is known here.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from dtp import config
from dtp.chain.pipes.where import ChannelInUse
from dtp.errors import LocalError
from dtp.identity.private import make_private_folder
from dtp.locking import NameLocks

__all__ = ["PipeLocks", "Sender"]


class Sender(Protocol):
    """Who sends over pipes: the hub of one client."""

    @property
    def gone(self) -> bool:
        """Whether it can't send any more, whatever it still holds: its event loop was closed."""

    async def hand_over(self, channel: str) -> None:
        """Let another client of this program have a channel's pipes, if no connection goes over them any more."""


@dataclass(slots=True)
class _Held:
    """`sender` is known weakly, for one whose event loop was closed frees nothing. `times` is how often it holds it:
    an end that is stopping does, and the next one."""

    sender: weakref.ref[Sender]
    times: int = 0


class PipeLocks:
    """The locks of one data folder; `PipeLocks.of_home()` are those of this user's."""

    _known: Final[dict[Path, PipeLocks]] = {}

    def __init__(self, path: Path) -> None:
        try:
            make_private_folder(path.parent)
            self._locks = NameLocks(path)
        except OSError as fault:
            raise LocalError(
                f"pipes can't be locked by {path}: {fault.strerror}; $DTP_HOME names it"
            ) from fault
        self._path = path
        self._held: dict[str, _Held] = {}
        #: Programs have event loops in several threads; and what holds a lock may be freed as garbage meanwhile.
        self._changing = threading.RLock()

    @classmethod
    def of_home(cls) -> PipeLocks:
        """Return those of all programs of this user. Raises `LocalError` where the data folder can't be written."""
        path = config.data_dir() / "pipes.lock"
        if path not in cls._known:
            cls._known[path] = cls(path)
        return cls._known[path]

    def sender_of(self, channel: str) -> Sender | None:
        """Return who of this program sends over the pipes of a channel."""
        held = self._held.get(channel)
        found = None if held is None else held.sender()
        return None if found is None or found.gone else found

    @contextmanager
    def hold_pipes(self, channel: str, sender: Sender) -> Iterator[None]:
        """Have the pipes of a channel for `sender`, once more if it has them. Raises `ChannelInUse`, `LocalError`."""
        held = self._take_lock(channel, sender)
        try:
            yield
        finally:
            self._free_pipes(channel, held)

    def _take_lock(self, channel: str, sender: Sender) -> _Held:
        with self._changing:
            held, holder = self._held.get(channel), self.sender_of(channel)
            if holder not in (None, sender):
                raise ChannelInUse(
                    f"another connection of this program sends over the pipes of channel {channel}: wait for its "
                    "end, or use another channel"
                )
            if held is None or holder is None:
                # First: one that is gone frees nothing then.
                held = self._held[channel] = _Held(weakref.ref(sender))
                try:
                    self._lock_pipes(channel)
                except (ChannelInUse, LocalError):
                    del self._held[channel]
                    raise
            held.times += 1
            return held

    def _lock_pipes(self, channel: str) -> None:
        try:
            taken = self._locks.take(channel)
        except OSError as fault:  # of a file system without locks, say
            raise LocalError(f"pipes can't be locked by {self._path}: {fault.strerror}") from fault
        if not taken:
            raise ChannelInUse(
                f"another program of this wallet sends over the pipes of channel {channel}: wait for its end, or "
                "use another channel"
            )

    def _free_pipes(self, channel: str, held: _Held) -> None:
        with self._changing:
            held.times -= 1
            # Nobody has it in place of one that was gone.
            if not held.times and self._held.get(channel) is held:
                del self._held[channel]
                self._locks.release(channel)
