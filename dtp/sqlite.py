"""What SQLite says went wrong, as a number: programs decide by that, and its words are for people."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

__all__ = ["describe_fault", "is_full", "is_locked", "primary_code"]

_PRIMARY = 0xFF
#: Bytes by which SQLite's index of its log grows. Where there is less room, that is "disk I/O error" in its words.
_GROWTH = 32_768


def primary_code(fault: BaseException | None) -> int:
    """Return SQLite's primary result code, such as `sqlite3.SQLITE_BUSY`; 0 for what didn't come from SQLite."""
    code: int = getattr(fault, "sqlite_errorcode", 0)
    return code & _PRIMARY


def is_full(fault: BaseException | None, path: str | os.PathLike[str]) -> bool:
    """True if there is no room for the file at `path`, or for what SQLite has beside it."""
    if isinstance(fault, OSError):
        return fault.errno in (errno.ENOSPC, errno.EDQUOT)
    if primary_code(fault) != sqlite3.SQLITE_IOERR:
        return primary_code(fault) == sqlite3.SQLITE_FULL
    try:
        found = os.statvfs(Path(path).absolute().parent)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < _GROWTH


def describe_fault(fault: BaseException, path: str | os.PathLike[str]) -> str:
    """Return what went wrong with the file at `path`, for people: of a full disk, what to do."""
    if is_full(fault, path):
        return "the disk is full; make room on it and try again: what was stored is still there"
    return str(fault)


def is_locked(fault: BaseException | None) -> bool:
    """True if another connection, mostly of another process, has the file."""
    return primary_code(fault) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
