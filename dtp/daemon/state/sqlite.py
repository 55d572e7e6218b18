"""Counts in a file, over restarts and for several daemons on one machine: `sqlite:///absolute/path`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote, urlsplit

from dtp.daemon.state import CountKey, Used
from dtp.daemon.state.errors import StateError, StateUnusable
from dtp.identity.private import make_private_file
from dtp.sqlite import describe_fault, primary_code

_T = TypeVar("_T")

_TABLE = """
CREATE TABLE IF NOT EXISTS used (
    host TEXT NOT NULL, scope TEXT NOT NULL, period INTEGER NOT NULL, caller TEXT NOT NULL,
    requests INTEGER NOT NULL, data INTEGER NOT NULL,
    PRIMARY KEY (host, scope, period, caller)
) WITHOUT ROWID
"""
_BANS = """
CREATE TABLE IF NOT EXISTS bans (
    host TEXT NOT NULL, caller TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (host, caller)
) WITHOUT ROWID
"""
_ADD = """
INSERT INTO used VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, data = data + excluded.data
RETURNING requests, data
"""
_TOTAL = "SELECT requests, data FROM used WHERE host = ? AND scope = ? AND period = ? AND caller = ?"
#: These fail if a table has other columns, which means that it is another program's.
_COLUMNS = {
    "used": "SELECT host, scope, period, caller, requests, data FROM used LIMIT 0",
    "bans": "SELECT host, caller, until FROM bans LIMIT 0",
}
#: Errors that trying again doesn't help with, and what does.
_FOR_GOOD = {
    sqlite3.SQLITE_NOTADB: "move the file away, or name another one",
    sqlite3.SQLITE_CORRUPT: "move the file away, or name another one",
    sqlite3.SQLITE_CANTOPEN: "its folder has to be there, and writable for this user",
    sqlite3.SQLITE_PERM: "this user may not use it",
    sqlite3.SQLITE_READONLY: "this user may not write it",
    sqlite3.SQLITE_ERROR: "it is another program's; name another file",
}
#: Seconds to wait for another process that is writing.
_BUSY = 5.0


class SqliteCountStore:
    """One connection, used in one thread, so that the loop never waits for the disk."""

    tells = False

    def __init__(self, path: str, host: str) -> None:
        self._path, self._host = path, host
        self._thread = ThreadPoolExecutor(1, "dtpd-sqlite")
        self._database: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open the file, or create it. Raise `StateError`, or `StateUnusable` for a file that isn't a database, or
        a folder that doesn't exist or isn't writable."""
        try:
            await self._run_in_thread(self._open_file)
        except StateError as error:
            if (unusable := _unusable(self._path, error.__cause__)) is None:
                raise
            raise unusable from error

    def _open_file(self) -> None:
        with contextlib.suppress(OSError):  # SQLite says why it can't be opened
            make_private_file(self._path)
        database = sqlite3.connect(self._path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(_TABLE)
            database.execute(_BANS)
            for statement in _COLUMNS.values():
                database.execute(statement)
        except sqlite3.Error:
            database.close()
            raise
        self._database = database

    async def exchange_counts(self, deltas: Mapping[CountKey, Used]) -> Mapping[CountKey, Used]:
        """Add them in one transaction. Raise `StateError`."""
        return await self._run_in_thread(lambda: self._add_counts(deltas))

    def _add_counts(self, deltas: Mapping[CountKey, Used]) -> dict[CountKey, Used]:
        assert self._database is not None
        totals = {}
        self._database.execute("BEGIN IMMEDIATE")
        try:
            for key, used in deltas.items():
                statement, values = (_ADD, used) if any(used) else (_TOTAL, ())
                rows = self._database.execute(statement, (self._host, *key, *values)).fetchall()
                totals[key] = Used(*rows[0]) if rows else Used()
            self._database.execute("COMMIT")
        except sqlite3.Error:
            self._database.rollback()
            raise
        return totals

    async def forget_periods(self, scope: str, before: int) -> None:
        """Remove the counts of earlier periods. Raise `StateError`."""
        await self._run_in_thread(lambda: self._delete_periods(scope, before))

    def _delete_periods(self, scope: str, before: int) -> None:
        assert self._database is not None
        statement = "DELETE FROM used WHERE host = ? AND scope = ? AND period < ?"
        self._database.execute(statement, (self._host, scope, before))

    async def ban(self, caller: str, until: float) -> None:
        """Ban a caller until then (Unix time). Raise `StateError`."""
        await self._run_in_thread(
            lambda: self._execute_statement(
                "INSERT OR REPLACE INTO bans VALUES (?, ?, ?)", (self._host, caller, until)
            )
        )

    async def list_bans(self, now: float) -> Mapping[str, float]:
        """Return the bans that hold after `now`, with their ends. Raise `StateError`."""
        query = "SELECT caller, until FROM bans WHERE host = ? AND until > ?"
        return await self._run_in_thread(lambda: dict(self._execute_statement(query, (self._host, now))))

    def _execute_statement(self, statement: str, values: tuple[object, ...]) -> list[tuple[str, float]]:
        assert self._database is not None
        return self._database.execute(statement, values).fetchall()

    async def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            await self._run_in_thread(self._database.close)
            self._database = None
        self._thread.shutdown(wait=False)

    async def _run_in_thread(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise StateError(f"{self._path}: {describe_fault(error, self._path)}") from error


def _unusable(path: str, error: BaseException | None) -> StateUnusable | None:
    """Return the error for a file that can't be opened, if that is permanent; None if it may be temporary."""
    what_to_do = _FOR_GOOD.get(primary_code(error))
    return None if what_to_do is None else StateUnusable(f"[state] {path}: {error}; {what_to_do}")


def _path_of(url: str) -> str:
    """Return the path in `url` with exactly one leading slash."""
    return "/" + unquote(urlsplit(url).path).lstrip("/")


def make(url: str, host: str) -> SqliteCountStore:
    """Return the store in the file of `url`."""
    return SqliteCountStore(_path_of(url), host)


def check_url(url: str) -> None:
    """Raise `StateUnusable` if reading shows that the file of `url` can't be used. Nothing is changed."""
    path = Path(_path_of(url))
    if path.is_dir():
        raise StateUnusable(f"[state] {path}: it is a folder; name a file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise StateUnusable(f"[state] {path}: {_FOR_GOOD[sqlite3.SQLITE_CANTOPEN]}")
    if not path.exists():
        return
    try:
        place = f"file:{quote(str(path))}?mode=ro"
        with contextlib.closing(sqlite3.connect(place, uri=True, timeout=0)) as database:
            for (name,) in database.execute("SELECT name FROM sqlite_schema").fetchall():
                if name in _COLUMNS:
                    database.execute(_COLUMNS[name])
    except sqlite3.Error as error:  # a locked file, for instance, isn't a mistake
        if (unusable := _unusable(str(path), error)) is not None:
            raise unusable from error
