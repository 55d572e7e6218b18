"""What a machine remembers of a store outside of it, so that a restored backup or a copy is known for what it is.

Whoever signs two frames for one place in its chain has two histories, which nobody can join again. A store can't tell
by itself that later frames were signed elsewhere. A file in the data folder can: it is in no backup of the store.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from dtp.config import data_dir
from dtp.identity.private import make_private_file, make_private_folder
from dtp.plurals import count_of

_NUMBER: Final = 8
#: In the place of a number: the file at that place went on as another instance.
_SUPERSEDED: Final = (1 << 64) - 1


def _read(file: Path) -> tuple[int | None, str]:
    """Return what is remembered in a file: how many frames, and where; (None, "") if nothing is."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        data = file.read_bytes()
        if len(data) > _NUMBER:
            return int.from_bytes(data[:_NUMBER], "big"), data[_NUMBER:].decode()
    return None, ""


class Witness:
    """How many frames an author has signed in the store at `path` with this instance id; and where that store was.
    Of stores that hold something else `done` says in a word each what was done to what.

    Where the data folder can't be written, nothing is remembered.
    """

    def __init__(
        self, path: str, instance: bytes, author: bytes, *, done: tuple[str, str] = ("signed", "frame")
    ) -> None:
        self._done = done
        self._path = os.path.realpath(path)
        self._file = data_dir() / "graphs" / f"{instance.hex()}-{author.hex()[:16]}"
        self._descriptor: int | None = None
        #: What was signed, as far as is remembered, None if nothing is; and where the store was then.
        self.sequence, self.place = _read(self._file)

    def why_doubtful(self, sequence: int, *, moved: bool) -> str | None:
        """Return why a store that has `sequence` frames of the author may lack some, None if nothing speaks for it.

        `moved` if it is another file than the one that was written last.
        """
        if self.sequence is None:
            return "it is a copy, or was restored on another machine" if moved and sequence else None
        if self.place != self._path and os.path.exists(self.place):
            return f"it is a copy of {self.place}, which is still there"
        if self.sequence == _SUPERSEDED:
            return "it was restored from before another backup, or damage, after which this identity went on here"
        if self.sequence > sequence:
            return (
                f"this identity has {self._done[0]} {count_of(self.sequence, self._done[1])} in it, and {sequence} "
                "are there: it was restored, or damaged"
            )
        return None

    def changed_at(self) -> float:
        """Return when the file that remembers was made or changed, Unix seconds; 0 if there is none."""
        try:
            return os.stat(self._file).st_ctime
        except OSError:
            return 0.0

    def has_times_set(self, within: float) -> bool:
        """Return whether somebody has set the time at which the file that remembers was written, to one more than so
        many seconds before it was changed: programs that put files back do."""
        try:
            found = os.stat(self._file)
        except OSError:
            return False
        return found.st_ctime > found.st_mtime + within

    def count_signed(self, *, of_any: bool = False) -> int:
        """Return how many frames the author has signed here, or in what is in the store's place, as is known; the
        latter in any case if damage took which one it was (`of_any`)."""
        if self.sequence != _SUPERSEDED and not of_any:
            return self.sequence or 0
        others = map(_read, self._file.parent.glob(f"*-{self._file.name.partition('-')[2]}"))
        return max(
            (n for n, at in others if n is not None and n != _SUPERSEDED and at == self._path), default=0
        )

    def supersede_instance(self) -> None:
        """Remember that the store at this place goes on as another instance, unless this is of another place."""
        if self.place == self._path:
            self.remember_sequence(_SUPERSEDED)

    def remember_sequence(self, sequence: int) -> None:
        """Remember how many frames were signed. That survives the end of the process at once, that of the machine
        soon: a crash that loses it only makes it remember less."""
        if self._descriptor is None:
            with contextlib.suppress(OSError):
                self._open_file()
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, sequence.to_bytes(_NUMBER, "big"), 0)
        self.sequence = sequence

    def _open_file(self) -> None:
        make_private_folder(self._file.parent)
        make_private_file(self._file)
        self._descriptor = os.open(self._file, os.O_RDWR | os.O_CLOEXEC)
        if self.place != self._path:
            data = (self.sequence or 0).to_bytes(_NUMBER, "big") + os.fsencode(self._path)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, data, 0)
            self.place = self._path

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
