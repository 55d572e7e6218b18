"""A graph's SQLite file, read beside the program that writes to it: as it was at one moment, and never changed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import quote

from dtp.graph.errors import GraphReadOnly, StoreError
from dtp.graph.stores.salvage import log_is_whole, pages_in_log
from dtp.graph.stores.sqlite_format import APPLICATION, FORMAT, check_kind, is_of_damage
from dtp.graph.stores.sqlite_store import SqliteStore


class SqliteReader(SqliteStore):
    """The store in the file at `path`, to read. Raise `StoreError` where there is none, and where it is damaged.

    What opening reads is of one moment: a transaction, which lasts until `loaded`. It holds up nobody who writes; the
    write-ahead log grows meanwhile.
    """

    def _open_database(self) -> sqlite3.Connection:
        if not os.path.exists(self._path):
            raise StoreError(f"there is no graph {self._path}")
        check_kind(self._path)
        self.passed_folder = None  # the writer's, who tidies up there
        log = f"{self._path}-wal"
        if os.path.exists(log) and os.path.getsize(log):
            return self._connect_reading("ro")  # its last reader is not to take in a log that the writer left
        try:
            return self._connect_reading(
                "rw"
            )  # the log's files, which SQLite needs to read, are removed with it
        except sqlite3.OperationalError:
            return self._connect_reading("ro&immutable=1")  # nobody can write where they can't be made

    def _connect_reading(self, mode: str) -> sqlite3.Connection:
        place = f"file:{quote(os.path.abspath(self._path))}?mode={mode}"
        database = self._connect_to(place)
        try:
            database.execute("PRAGMA query_only = ON")
            database.execute("BEGIN")
            database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            database.close()
            if is_of_damage(error):
                raise self._damage_error() from error
            raise
        return database

    def _check_file(self, name: str | None) -> None:
        with self._translate_errors("opened"):
            try:
                self._check_damage(name)
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if not is_of_damage(error):
                    raise
                raise self._damage_error() from error

    def _check_damage(self, name: str | None) -> None:
        found = self._fetch_one("PRAGMA application_id"), self._fetch_one("PRAGMA user_version")
        if found != (APPLICATION, FORMAT):
            raise StoreError(
                f"{self._path} is not a graph of format {FORMAT}; opened to write, an older one is taken over"
            )
        self._read_tables()
        self._check_name(name)
        # what a program that was killed left: one that runs has checked it when it began
        left = pages_in_log(self._path) and not self._has_writer()
        if not self._has_what_its_state_has() or (
            left and not (log_is_whole(self._path) and self._is_whole())
        ):
            raise self._damage_error()

    def _has_writer(self) -> bool:
        with suppress(PermissionError):  # of another user, who alone can tell
            return self._lock.is_taken()
        return False

    def _damage_error(self) -> StoreError:
        return StoreError(
            f"{self._path} is damaged, and only read: opened to write it is mended ('dtp graph verify --repair')"
        )

    def _mend_file(self, name: str | None, *, tail: bool = False) -> None:
        raise self._damage_error()

    def on_loaded(self) -> None:
        with self._translate_errors("read"):
            if self._db.in_transaction:
                self._db.execute("COMMIT")

    @contextmanager
    def _open_transaction(self, *, synced: bool) -> Iterator[None]:
        raise GraphReadOnly(f"{self._path} was opened to read")
        yield

    def rejoin_aside(self, author: bytes) -> bytes | None:
        return None

    def remember_signed(self, author: bytes, sequence: int) -> None:
        return

    def _take_log_in(self) -> None:
        return
