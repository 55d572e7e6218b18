"""Where the chain lives: one SQLite database, in memory or in a file, with the live objects cached.

Everything that one checkpoint changes is written in one SQLite transaction, so a process that dies at any moment
leaves the chain at the end of a whole checkpoint. Rows are written once and read by key; nothing here knows rules.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dtp.localnet.model import NodeStateError, ObjectRecord
from dtp.localnet.outcome import coin_type
from dtp.sqlite import describe_fault, is_locked
from dtp.sui.objects import AddressOwner, ConsensusAddressOwner, ObjectOwner

__all__ = ["ChainStore", "Removed", "StoredTransaction"]

FORMAT: Final = 1
"""Version of the tables."""
_APPLICATION_ID: Final = 0x64747031  # "dtp1": tells that a file is one of ours
_CACHED: Final = 50_000

_TABLES: Final = """
CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 0), json TEXT NOT NULL);
CREATE TABLE objects (
    id BLOB NOT NULL, version INTEGER NOT NULL, digest BLOB NOT NULL, bcs BLOB NOT NULL, checkpoint INTEGER NOT NULL,
    ended INTEGER, PRIMARY KEY (id, version)
) WITHOUT ROWID;
CREATE TABLE live (
    id BLOB PRIMARY KEY, version INTEGER NOT NULL, kind TEXT NOT NULL, owner BLOB, type TEXT NOT NULL,
    base TEXT NOT NULL, coin TEXT, inverse BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX live_owner ON live (owner, type, inverse, id) WHERE owner IS NOT NULL;
CREATE INDEX live_type ON live (type);
CREATE INDEX objects_ended ON objects (ended) WHERE ended IS NOT NULL;
CREATE TABLE removed (
    id BLOB PRIMARY KEY, version INTEGER NOT NULL, deleted INTEGER NOT NULL, shared INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE packages (original BLOB NOT NULL, version INTEGER NOT NULL, id BLOB NOT NULL UNIQUE,
    PRIMARY KEY (original, version)) WITHOUT ROWID;
CREATE TABLE transactions (
    digest BLOB PRIMARY KEY, number INTEGER NOT NULL UNIQUE, checkpoint INTEGER NOT NULL, timestamp INTEGER NOT NULL,
    data BLOB NOT NULL, signatures BLOB NOT NULL, effects BLOB NOT NULL, effects_digest BLOB NOT NULL,
    events BLOB NOT NULL, reads BLOB NOT NULL, balances TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX transactions_checkpoint ON transactions (checkpoint);
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL, position INTEGER NOT NULL,
    checkpoint INTEGER NOT NULL, timestamp INTEGER NOT NULL, package BLOB NOT NULL, module TEXT NOT NULL,
    sender BLOB NOT NULL, type TEXT NOT NULL, base TEXT NOT NULL, type_package BLOB NOT NULL,
    type_module TEXT NOT NULL, contents BLOB NOT NULL
);
CREATE INDEX events_base ON events (base);
CREATE INDEX events_sender ON events (sender);
CREATE INDEX events_checkpoint ON events (checkpoint);
CREATE TABLE checkpoints (
    sequence INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, summary BLOB NOT NULL, contents BLOB NOT NULL
);
CREATE TABLE epochs (epoch INTEGER PRIMARY KEY, json TEXT NOT NULL);
"""


#: Seconds to wait for a node that is just being closed.
_PATIENCE = 1.0


@dataclass(frozen=True)
class Removed:
    """An object that is gone. `version` is the version of the transaction that removed it."""

    version: int
    deleted: bool
    shared: bool


@dataclass(frozen=True)
class StoredTransaction:
    """A row of `transactions`. `reads` are the objects before, 32 bytes of id and 8 of version each; `balances` is
    JSON of the balance changes."""

    digest: bytes
    number: int
    checkpoint: int
    timestamp: int
    data: bytes
    signatures: bytes
    effects: bytes
    effects_digest: bytes
    events: bytes
    reads: bytes
    balances: str


def _inverse(record: ObjectRecord) -> bytes:
    """Return the key that sorts coins by falling balance, and all other objects alike."""
    if coin_type(record.type) is None:
        return b""
    balance = int.from_bytes(record.contents[32:40], "little")
    return ((1 << 64) - 1 - balance).to_bytes(8, "big")


class ChainStore:
    """The tables. `path` None keeps them in memory; `factory` makes the connection, as for `sqlite3.connect`.

    Raises `NodeStateError` for a file that something else has written.
    """

    def __init__(self, path: Path | None, factory: type[sqlite3.Connection] = sqlite3.Connection) -> None:
        self._path = path
        try:
            self._db = sqlite3.connect(
                path or ":memory:",
                timeout=_PATIENCE,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
                factory=factory,
            )
            try:
                self.fresh = self._prepare_tables()
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as fault:
            why = "another node has it open" if is_locked(fault) else str(fault)
            raise NodeStateError(f"{path} can't be used as the node's database: {why}") from None
        self._cache: dict[bytes, ObjectRecord | None] = {}
        self._writing: dict[bytes, ObjectRecord | None] | None = None

    def _prepare_tables(self) -> bool:
        db = self._db
        if self._path is not None:
            # With WAL a commit is one append; a killed process loses nothing, a machine without power at most the
            # last checkpoints, never half of one.
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if application == _APPLICATION_ID:
            if version != FORMAT:
                raise NodeStateError(
                    f"{self._path} has format {version}, this dtp reads {FORMAT}: use another file"
                )
            (states,) = db.execute("SELECT count(*) FROM state").fetchone()
            return bool(states == 0)
        if tables:
            raise NodeStateError(f"{self._path} is a database of something else: use another file")
        db.executescript(
            f"BEGIN; {_TABLES} PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"
        )
        return True

    def close(self) -> None:
        """Close the database; idempotent."""
        self._db.close()

    # ------------------------------------------------------------------------------------------- writing

    @contextmanager
    def write_checkpoint(self) -> Iterator[None]:
        """Write what the block does as one checkpoint: all of it lasts, or, when the block raises, none."""
        self._db.execute("BEGIN IMMEDIATE")
        self._writing = {}
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException as fault:
            self._writing = None
            # SQLite has rolled back by itself after some faults.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(fault, sqlite3.Error):
                why = str(fault) if self._path is None else describe_fault(fault, self._path)
                raise NodeStateError(f"the node's database can't be written: {why}") from None
            raise
        if len(self._cache) > _CACHED:
            self._cache.clear()
        self._cache.update(self._writing)
        self._writing = None

    def put_objects(self, records: Iterable[ObjectRecord], checkpoint: int) -> None:
        """Write new live versions."""
        records = tuple(records)
        assert self._writing is not None, "objects are written within a checkpoint"
        self._end_versions([r.id for r in records], checkpoint)
        self._db.executemany(
            "INSERT INTO objects VALUES (?, ?, ?, ?, ?, NULL)",
            [(r.id, r.version, r.digest, r.bcs, checkpoint) for r in records],
        )
        self._db.executemany(
            "INSERT OR REPLACE INTO live VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [_live_row(r) for r in records]
        )
        for record in records:
            self._writing[record.id] = record

    def _end_versions(self, ids: Iterable[bytes], checkpoint: int) -> None:
        """Note when the live versions stop being live."""
        old = [(checkpoint, id, record.version) for id in ids if (record := self.find_live(id)) is not None]
        self._db.executemany("UPDATE objects SET ended = ? WHERE id = ? AND version = ?", old)

    def remove_objects(self, removed: Sequence[tuple[bytes, Removed]], checkpoint: int) -> None:
        """Take objects out of the live set."""
        assert self._writing is not None, "objects are removed within a checkpoint"
        self._end_versions([id for id, _ in removed], checkpoint)
        for id, gone in removed:
            self._db.execute("DELETE FROM live WHERE id = ?", (id,))
            self._db.execute(
                "INSERT OR REPLACE INTO removed VALUES (?, ?, ?, ?)",
                (id, gone.version, gone.deleted, gone.shared),
            )
            self._writing[id] = None

    def put_package(self, original: bytes, version: int, id: bytes) -> None:
        """Note a package version."""
        self._db.execute("INSERT INTO packages VALUES (?, ?, ?)", (original, version, id))

    def put_transaction(self, row: StoredTransaction) -> None:
        """Write a transaction."""
        self._db.execute(
            "INSERT INTO transactions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row.digest,
                row.number,
                row.checkpoint,
                row.timestamp,
                row.data,
                row.signatures,
                row.effects,
                row.effects_digest,
                row.events,
                row.reads,
                row.balances,
            ),
        )

    def put_event(self, row: tuple[Any, ...]) -> int:
        """Write an event (columns of `events` without its number); returns its number."""
        cursor = self._db.execute(
            "INSERT INTO events (digest, position, checkpoint, timestamp, package, module, sender, type, base,"
            " type_package, type_module, contents) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def put_checkpoint(self, sequence: int, digest: bytes, summary: bytes, contents: bytes) -> None:
        """Write a checkpoint."""
        self._db.execute("INSERT INTO checkpoints VALUES (?, ?, ?, ?)", (sequence, digest, summary, contents))

    def put_epoch(self, epoch: int, record: dict[str, Any]) -> None:
        """Write or replace an epoch."""
        self._db.execute("INSERT OR REPLACE INTO epochs VALUES (?, ?)", (epoch, json.dumps(record)))

    def put_state(self, state: dict[str, Any]) -> None:
        """Write the chain's running numbers."""
        self._db.execute("INSERT OR REPLACE INTO state VALUES (0, ?)", (json.dumps(state),))

    # ------------------------------------------------------------------------------------------- reading

    def read_state(self) -> dict[str, Any]:
        """Return the chain's running numbers."""
        (text,) = self._db.execute("SELECT json FROM state").fetchone()
        return json.loads(text)  # type: ignore[no-any-return]

    def find_live(self, id: bytes) -> ObjectRecord | None:
        """Return the live version of an object."""
        if self._writing is not None and id in self._writing:
            return self._writing[id]
        if id in self._cache:
            return self._cache[id]
        row = self._db.execute(
            "SELECT o.digest, o.bcs FROM live JOIN objects o USING (id, version) WHERE live.id = ?", (id,)
        ).fetchone()
        found = None if row is None else ObjectRecord.decode(row[1], id, row[0])
        if len(self._cache) > _CACHED:
            self._cache.clear()
        self._cache[id] = found
        return found

    def find_version(self, id: bytes, version: int) -> ObjectRecord | None:
        """Return a version of an object, live or not."""
        row = self._db.execute(
            "SELECT digest, bcs FROM objects WHERE id = ? AND version = ?", (id, version)
        ).fetchone()
        return None if row is None else ObjectRecord.decode(row[1], id, row[0])

    def find_removed(self, id: bytes) -> Removed | None:
        """Return how an object went, None if it is live or never was."""
        if self.find_live(id) is not None:
            return None
        row = self._db.execute("SELECT version, deleted, shared FROM removed WHERE id = ?", (id,)).fetchone()
        return None if row is None else Removed(row[0], bool(row[1]), bool(row[2]))

    def select_rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return rows of a SELECT."""
        return self._db.execute(sql, values).fetchall()

    def find_transaction(self, digest: bytes) -> StoredTransaction | None:
        """Return a transaction by digest."""
        row = self._db.execute("SELECT * FROM transactions WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else StoredTransaction(*row)

    # ------------------------------------------------------------------------------------------- pruning

    def prune(self, first: int) -> None:
        """Forget events, transactions and replaced object versions of checkpoints before `first`."""
        self._db.execute("DELETE FROM events WHERE checkpoint < ?", (first,))
        self._db.execute("DELETE FROM transactions WHERE checkpoint < ?", (first,))
        self._db.execute("UPDATE checkpoints SET contents = x'' WHERE sequence < ?", (first,))
        self._db.execute("DELETE FROM objects WHERE ended < ?", (first,))


def _live_row(record: ObjectRecord) -> tuple[Any, ...]:
    owner = record.owner
    kind, address = type(owner).__name__, None
    if isinstance(owner, AddressOwner | ConsensusAddressOwner | ObjectOwner):
        # One index for all three: a parent's id and an account's address can't be told apart otherwise.
        address = owner.address
    tag = record.type
    if tag is None:
        return (record.id, record.version, "Package", None, "", "", None, b"")
    base = f"0x{tag.address.hex()}::{tag.module}::{tag.name}"
    coin = coin_type(tag)
    return (
        record.id,
        record.version,
        kind,
        address,
        tag.text,
        base,
        None if coin is None else coin.text,
        _inverse(record),
    )
