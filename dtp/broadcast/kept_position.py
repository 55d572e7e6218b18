"""A producer's position in its chain, on disk: one file for each show, which one process writes at a time."""

from __future__ import annotations

import os
from pathlib import Path

import msgpack

from dtp.broadcast.errors import ShowBusy
from dtp.broadcast.format import Announcement, Position
from dtp.errors import ConfigError
from dtp.identity.private import make_private_folder
from dtp.locking import FileLock
from dtp.replacing import remove_scratch, replace_file

#: The suffix of a file that asks the process which broadcasts the show to end it.
_WISH = ".end"


class KeptPosition:
    """The file of one show in a folder, which is locked until `close`."""

    def __init__(self, folder: str | os.PathLike[str], show: bytes) -> None:
        """Create the folder if necessary, and lock the show.

        Raise `ShowBusy` if another process has it, `ConfigError` for a folder that can't be made or written.
        """
        self.path = Path(folder) / f"{show.hex()}.show"
        self._lock = FileLock(self.path.with_suffix(".lock"))
        try:
            make_private_folder(self.path.parent)
        except OSError as fault:
            raise ConfigError(f"can't make the folder {self.path.parent}: {fault.strerror}") from fault
        try:
            free = self._lock.take()
        except OSError as fault:
            raise ConfigError(f"can't write to {self.path.parent}: {fault.strerror}") from fault
        if not free:
            raise ShowBusy(f"another process broadcasts the show in {self.path}: end that one first")
        self.path.with_suffix(_WISH).unlink(missing_ok=True)  # it was for the process before
        remove_scratch(self.path)

    @classmethod
    def is_in(cls, folder: str | os.PathLike[str], show: bytes) -> bool:
        """True if a show was broadcast from this folder."""
        return (Path(folder) / f"{show.hex()}.show").exists()

    @classmethod
    def ask_to_end(cls, folder: str | os.PathLike[str], show: bytes) -> bool:
        """Ask the process that broadcasts a show from this folder to end it; return False if there is none.

        Raise `ConfigError` for a folder that can't be written.
        """
        path = Path(folder) / f"{show.hex()}.show"
        lock = path.with_suffix(".lock")
        try:
            if not lock.exists() or not FileLock(lock).is_taken():
                return False
            path.with_suffix(_WISH).touch()
        except OSError as fault:
            raise ConfigError(f"can't write to {path.parent}: {fault.strerror}") from fault
        return True

    @property
    def end_wanted(self) -> bool:
        """True once this process was asked to end the show."""
        return self.path.with_suffix(_WISH).exists()

    def load(self) -> tuple[Announcement, Position] | None:
        """Return the announcement and the position in the chain; None for a new show. Raise `ConfigError`."""
        if not self.path.exists():
            return None
        try:
            data, position = msgpack.unpackb(self.path.read_bytes())
            return Announcement.decode(data), Position.decode(position)
        except (OSError, ValueError, TypeError, msgpack.UnpackException) as fault:
            raise ConfigError(f"{self.path} can't be read: {fault}; begin a new show") from None

    def save(self, announcement: Announcement, position: Position) -> None:
        """Store both, before anybody sees the segment. Raise `ConfigError`."""
        try:
            replace_file(self.path, msgpack.packb([announcement.encoded, position.encode()]))
        except OSError as fault:
            raise ConfigError(f"can't write {self.path}: {fault.strerror}") from fault

    def close(self) -> None:
        """Release the show for other processes. Idempotent."""
        self._lock.release()
