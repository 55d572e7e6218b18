"""What SQLite says went wrong, as a number: programs decide by that, and its words are for people."""

from __future__ import annotations

import sqlite3

__all__ = ["is_locked", "primary_code"]

_PRIMARY = 0xFF


def primary_code(fault: BaseException | None) -> int:
    """Return SQLite's primary result code, such as `sqlite3.SQLITE_BUSY`; 0 for what didn't come from SQLite."""
    code: int = getattr(fault, "sqlite_errorcode", 0)
    return code & _PRIMARY


def is_locked(fault: BaseException | None) -> bool:
    """True if another connection, mostly of another process, has the file."""
    return primary_code(fault) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
