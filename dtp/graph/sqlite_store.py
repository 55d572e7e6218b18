"""Frames in one SQLite file: write-ahead log, one process at a time, safe against being killed at any point."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from dtp.core.crdt import AUTHOR_SIZE
from dtp.graph.envelope import Signed
from dtp.graph.errors import StoreError
from dtp.graph.proving import Proof
from dtp.graph.store import Loaded, Store
from dtp.identity.private import make_private_file

#: Of the tables below; kept as SQLite's user_version.
FORMAT: Final = 2
#: "dtpg", SQLite's application_id: so that a file of another program is not taken for one of ours.
APPLICATION: Final = 0x64747067
#: Envelopes that are read at once.
_AT_ONCE: Final = 256

_SCHEMA: Final = """
CREATE TABLE authors (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE
);
CREATE TABLE frames (
    arrival INTEGER PRIMARY KEY,
    author INTEGER NOT NULL REFERENCES authors (id),
    sequence INTEGER NOT NULL,
    envelope BLOB NOT NULL,
    UNIQUE (author, sequence)
);
CREATE TABLE graph (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    name TEXT NOT NULL
);
CREATE TABLE state (             -- at most one row: what the frames up to `arrival` give
    only INTEGER PRIMARY KEY CHECK (only = 1),
    arrival INTEGER NOT NULL,
    digest BLOB NOT NULL,
    state BLOB NOT NULL
);
CREATE TABLE proofs (
    author BLOB PRIMARY KEY,
    first BLOB NOT NULL,
    second BLOB NOT NULL
) WITHOUT ROWID;
"""


class SqliteStore(Store):
    """The store in the file at `path`, made if need be for a graph of this name ("" for None).

    Raises `StoreError`, also when the graph that is there has another name; None takes any.
    """

    def __init__(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        self._path = os.fspath(path)
        self.blob_folder = Path(f"{self._path}-blobs")
        self.passed_folder = Path(f"{self._path}-summaries")
        self._one_at_a_time = threading.RLock()
        self._authors: dict[bytes, int] = {}
        self._arrival = 0
        try:
            if self._path != ":memory:":
                make_private_file(self._path)
            self._db = sqlite3.connect(self._path, timeout=0.2, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{self._path} can't be opened: {error}") from error
        try:
            self._open(name)
        except BaseException:
            self._db.close()
            raise

    def _open(self, name: str | None) -> None:
        with self._failures("opened"):
            self._db.execute(
                "PRAGMA locking_mode = EXCLUSIVE"
            )  # two writers as one author would contradict each other
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("BEGIN IMMEDIATE")
            application = self._one("PRAGMA application_id")
            version = self._one("PRAGMA user_version")
            tables = self._one("SELECT COUNT(*) FROM sqlite_master")
            if (application, version) != (APPLICATION, FORMAT):
                if application or version or tables:
                    self._db.execute("ROLLBACK")
                    raise StoreError(f"{self._path} is no graph of format {FORMAT}")
                for statement in _SCHEMA.split(";\n"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {APPLICATION}")
                self._db.execute(f"PRAGMA user_version = {FORMAT}")
                self._db.execute("INSERT INTO graph VALUES (1, ?)", (name or "",))
            self._db.execute("COMMIT")
            self.name = self._one("SELECT name FROM graph")
            self._authors = dict(self._db.execute("SELECT key, id FROM authors"))
        if name not in (None, self.name):
            raise StoreError(f"{self._path} keeps a graph of another name, {self.name!r}")

    def _one(self, statement: str, *arguments: Any) -> Any:
        row = self._db.execute(statement, arguments).fetchone()
        return None if row is None else row[0]

    @contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        try:
            with self._one_at_a_time:
                yield
        except sqlite3.OperationalError as error:
            hint = "; another process has it" if "locked" in str(error) else ""
            raise StoreError(f"{self._path} could not be {what}: {error}{hint}") from error
        except (sqlite3.Error, UnicodeDecodeError) as error:  # a damaged file's names are in messages, too
            raise StoreError(f"{self._path} could not be {what}: {error}") from error

    @contextmanager
    def _transaction(self, *, synced: bool) -> Iterator[None]:
        with self._failures("written"):
            self._db.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def load(self) -> Loaded:
        with self._failures("read"):
            row = self._db.execute("SELECT arrival, digest, state FROM state").fetchone()
            if row is not None and not (isinstance(row[0], int) and isinstance(row[2], bytes)):
                row = None
            if row is not None and hashlib.blake2b(row[2], digest_size=32).digest() != row[1]:
                row = None  # damaged: the frames give it again
            arrival, state = (row[0], row[2]) if row is not None else (0, None)
            self._arrival = self._one("SELECT COALESCE(MAX(arrival), 0) FROM frames")
        return Loaded(state, self._later(arrival))

    def _later(self, arrival: int) -> Iterator[bytes]:
        """A part at a time: who stops in between holds nothing."""
        rows = [(arrival, b"")]
        while rows:
            with self._failures("read"):
                rows = self._db.execute(
                    "SELECT arrival, envelope FROM frames WHERE arrival > ? ORDER BY arrival LIMIT ?",
                    (rows[-1][0], _AT_ONCE),
                ).fetchall()
            for _, envelope in rows:
                yield self._whole(envelope)

    def _whole(self, data: Any) -> bytes:
        if not isinstance(data, bytes):
            raise StoreError(f"{self._path} is damaged")
        return data

    def lasts(self) -> dict[bytes, int]:
        with self._failures("read"):
            rows = self._db.execute(
                "SELECT key, MAX(sequence) FROM frames JOIN authors ON authors.id = author GROUP BY author"
            ).fetchall()
        if not all(isinstance(last, int) and len(self._whole(key)) == AUTHOR_SIZE for key, last in rows):
            raise StoreError(f"{self._path} is damaged")
        return dict(rows)

    def newest(self) -> Iterator[bytes]:
        with self._failures("read"):
            rows = self._db.execute("SELECT MAX(sequence), envelope FROM frames GROUP BY author").fetchall()
        return (self._whole(envelope) for _, envelope in rows)

    def add(self, envelopes: Iterable[Signed], *, synced: bool) -> None:
        envelopes = list(envelopes)
        made: dict[bytes, int] = {}
        with self._transaction(synced=synced):
            for key in {envelope.author for envelope in envelopes} - self._authors.keys():
                made[key] = self._one("INSERT INTO authors (key) VALUES (?) RETURNING id", key)
            numbers = self._authors | made if made else self._authors
            self._db.executemany(
                "INSERT INTO frames (author, sequence, envelope) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                ((numbers[one.author], one.sequence, one.encode()) for one in envelopes),
            )
            arrival = self._one("SELECT COALESCE(MAX(arrival), 0) FROM frames")
        self._authors.update(made)
        self._arrival = arrival

    def read(self, author: bytes, first: int, last: int) -> list[bytes]:
        with self._failures("read"):
            rows = self._db.execute(
                "SELECT envelope FROM frames WHERE author = ? AND sequence BETWEEN ? AND ? ORDER BY sequence",
                (self._authors.get(author), first, min(last, (1 << 63) - 1)),
            )
            return [self._whole(envelope) for (envelope,) in rows]

    def covering(self, author: bytes, sequence: int) -> bytes | None:
        with self._failures("read"):
            found = self._one(
                "SELECT envelope FROM frames WHERE author = ? AND sequence >= ? ORDER BY sequence LIMIT 1",
                self._authors.get(author),
                sequence,
            )
            return None if found is None else self._whole(found)

    def size(self, author: bytes, first: int, last: int) -> int:
        with self._failures("read"):
            found: int = self._one(
                "SELECT COALESCE(SUM(LENGTH(envelope)), 0) FROM frames WHERE author = ? AND sequence BETWEEN ? AND ?",
                self._authors.get(author),
                first,
                last,
            )
            return found

    def save_state(self, state: bytes) -> None:
        digest = hashlib.blake2b(state, digest_size=32).digest()
        with self._transaction(synced=False):
            self._db.execute(
                "INSERT OR REPLACE INTO state (only, arrival, digest, state) VALUES (1, ?, ?, ?)",
                (self._arrival, digest, state),
            )

    def add_proof(self, proof: Proof) -> None:
        with self._transaction(synced=True):
            self._db.execute(
                "INSERT OR IGNORE INTO proofs VALUES (?, ?, ?)",
                (proof.author, proof.first.encode(), proof.second.encode()),
            )

    def proofs(self) -> list[tuple[bytes, bytes]]:
        with self._failures("read"):
            rows = self._db.execute("SELECT first, second FROM proofs ORDER BY author").fetchall()
        return [(self._whole(first), self._whole(second)) for first, second in rows]

    def close(self) -> None:
        self._db.close()
