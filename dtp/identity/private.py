"""Files and folders that hold secrets: made for their owner alone, whatever the umask; and who may read them."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import sys
from pathlib import Path
from typing import ClassVar, Final

from dtp.errors import LocalError

log = logging.getLogger("dtp.identity")

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
#: What SQLite keeps beside a database, with what is in it.
_BESIDE: Final = ("", "-wal", "-shm", "-journal")
#: Linux's prctl(2).
_PR_SET_DUMPABLE: Final = 4


class OpenToOthers(LocalError):
    """A file with secrets may be read or changed by others; the message says how to close it to them."""

    code: ClassVar[str] = "open-to-others"


def make_private_folder(folder: Path) -> None:
    """Make a folder and those above it that aren't there, for their owner alone. One that is there stays as it is.

    Raise `OSError`.
    """
    if not folder.is_dir():
        make_private_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=FOLDER_MODE)


def make_private_file(path: str | os.PathLike[str]) -> None:
    """Make an empty file for its owner alone, unless one is there: a library's would be everybody's first.

    One that is there isn't opened. POSIX locks are a process's, and end when it closes any descriptor of the file.
    Raise `OSError`.
    """
    with contextlib.suppress(FileExistsError):
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
        os.close(os.open(os.path.realpath(path), flags, FILE_MODE))


def close_to_others(path: str | os.PathLike[str]) -> None:
    """Close a database, and what SQLite keeps beside it, to everybody but their owner, and say so where that was
    needed. What isn't there is left out. Raise `OpenToOthers` where it isn't ours to close.
    """
    for end in _BESIDE:
        file = os.path.realpath(path) + end
        try:
            close = open_to_others(os.stat(file))
            if close:
                os.chmod(file, int(close.removeprefix("chmod "), 8))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise OpenToOthers(
                f"others may read or change {file}, which has secrets, and it can't be closed to them "
                f"({error.strerror}): have its owner run '{close} {file}'"
            ) from error
        if close:
            log.warning("%s was open to others, and is closed to them now: they may know what is in it", file)


def read_private_file(path: str | os.PathLike[str], most: int) -> bytes:
    """Return the first `most` bytes of a file that holds keys, as ssh does: one that others may read is refused.

    Every file with keys that a command or a daemon is told of is read so. Raise `OpenToOthers` and `OSError`.
    """
    with open(path, "rb") as file:
        found = os.fstat(file.fileno())
        if close := open_to_others(found):
            raise OpenToOthers(
                f"{path} is open to other users (mode {stat.S_IMODE(found.st_mode):04o}); run: {close} {path}  (and "
                "make a new key if others may have read it)"
            )
        return file.read(most)


def keep_out_of_core_dumps() -> None:
    """Keep this process from leaving a core dump, which would hold its keys. Does nothing but on Linux.

    Nor may other processes of the same user read its memory.
    """
    if sys.platform == "linux":
        import ctypes  # 0.3 MB, for commands alone

        with contextlib.suppress(OSError, AttributeError):  # without it everything else is as it was
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def open_to_others(found: os.stat_result) -> str:
    """Return how to close a file that others may read or change, such as "chmod 600"; "" for one that is closed.

    What belongs to root may be readable for its group, as PostgreSQL has it for keys: so a service's user reads its
    key and can't replace it, and credentials of systemd and Kubernetes come so. Pipes (`<(vault read ...)`) have no
    readers to keep out.
    """
    allowed = 0o640 if found.st_uid == 0 else 0o600
    if not stat.S_ISREG(found.st_mode) or not found.st_mode & 0o077 & ~allowed:
        return ""
    return f"chmod {allowed if found.st_gid else 0o600:o}"
