"""A SQLite file of messages: for its owner alone, one format, transactions that are on the disk when they end."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from dtp.identity.private import close_to_others, make_private_file, make_private_folder
from dtp.messaging.errors import MessageStoreFull, StoreFailed, StoreUnusable
from dtp.sqlite import describe_fault, is_full, primary_code

#: Seconds to wait for another process that is writing.
_PATIENCE: Final = 10.0
#: The kinds of faults that only a person mends, and likewise those of the system.
_FOR_GOOD: Final = {
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
_FOR_GOOD_HERE: Final = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
}


#: What reading raises; the last where the text of a damaged file is not UTF-8, by sqlite3 itself.
_FAULTS: Final = (sqlite3.Error, UnicodeDecodeError)


class Database:
    """The file at `path`; ":memory:" for one that lasts as long as the object. It may be used from several threads.

    Every method raises `StoreFailed` where the file can't be read or written, `MessageStoreFull` where there is no
    room for it; a transaction is whole, or didn't happen.
    """

    def __init__(self, path: str | os.PathLike[str], *, application: int, schema: str) -> None:
        """Open the file or make it. `application` is SQLite's id of what it is; `schema` makes it, as format 1."""
        self.path = os.fspath(path)
        self._lock = threading.RLock()
        try:
            if self.path != ":memory:":
                make_private_folder(Path(self.path).absolute().parent)
                make_private_file(self.path)
            self._db = sqlite3.connect(
                self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as fault:
            raise _not_opened(self.path, fault) from fault
        try:
            self._prepare_schema(application, schema)
        except _FAULTS as fault:
            self._db.close()
            raise _not_opened(self.path, fault) from fault
        except BaseException:
            self._db.close()
            raise

    def _prepare_schema(self, application: int, schema: str) -> None:
        ((found,),) = self._db.execute("PRAGMA application_id")
        ((tables,),) = self._db.execute("SELECT COUNT(*) FROM sqlite_master")
        if found != application and (found or tables):
            raise StoreUnusable(f"{self.path} is another kind of file; name another one")
        if self.path != ":memory:":
            close_to_others(self.path)
        if not tables:  # before anything is written: pages that are free are given back to the disk
            self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        if not tables:
            self._db.executescript(f"BEGIN;{schema};PRAGMA application_id = {application};COMMIT")
        self._db.execute("PRAGMA secure_delete = FAST")  # what was deleted is gone from its pages as well

    @contextmanager
    def transaction(self, *, synced: bool = True) -> Iterator[sqlite3.Connection]:
        """Yield the connection for one transaction, which is on the disk when the block ends.

        Without `synced` it survives the end of the process; a power cut may undo it, as a whole, until one that is
        synced has followed.
        """
        with self._lock:
            try:
                if not synced:
                    self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:  # after a full disk SQLite has done it already
                        self._db.execute("ROLLBACK")
                    raise
                finally:
                    if not synced:
                        self._db.execute("PRAGMA synchronous = FULL")
            except sqlite3.Error as fault:
                raise self._make_error("write", fault) from fault

    def execute(self, query: str, values: Sequence[Any]) -> int:
        """Run a statement of the transaction that is open. Return how many rows it has changed."""
        return self._db.execute(query, values).rowcount

    def execute_many(self, query: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement of the transaction that is open, for each of these rows of values."""
        self._db.executemany(query, rows)

    def select_rows(self, query: str, *values: Any) -> list[Any]:
        """Return the rows of a query; its values are in order, or one mapping of their names."""
        with self._lock:
            try:
                given = values[0] if values and isinstance(values[0], dict) else values
                return self._db.execute(query, given).fetchall()
            except _FAULTS as fault:
                raise self._make_error("read", fault) from fault

    def _make_error(self, doing: str, fault: Exception) -> StoreFailed:
        kind = MessageStoreFull if is_full(fault, self.path) else StoreFailed
        return kind(f"can't {doing} {self.path}: {describe_fault(fault, self.path)}")

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock:
            self._db.close()


def _not_opened(path: str, fault: OSError | sqlite3.Error | UnicodeDecodeError) -> StoreFailed:
    """Return what to raise for a file that can't be opened: `StoreUnusable` where only a person can mend it."""
    if is_full(fault, path):
        return MessageStoreFull(f"can't open {path}: {describe_fault(fault, path)}")
    if isinstance(fault, OSError):
        stays = fault.errno in _FOR_GOOD_HERE
    elif isinstance(fault, UnicodeDecodeError):
        stays = True
    else:
        stays = primary_code(fault) in _FOR_GOOD
    return (StoreUnusable if stays else StoreFailed)(f"can't open {path}: {fault}")
