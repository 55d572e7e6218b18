"""The tables of a graph's SQLite file, and the sums that tell a damaged row: what the store and its mending share."""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from functools import cache
from typing import Final
from urllib.parse import quote

from dtp.graph.errors import NotGraph, StoreError
from dtp.graph.frames.envelope import decode

#: Of the tables below; kept as SQLite's user_version.
#: 4: lists are edited as texts are.
FORMAT: Final = 4
#: "dtpg", SQLite's application_id: so that a file of another program is not taken for one of ours.
APPLICATION: Final = 0x64747067
#: Bits of it that damage may have changed.
_CHANGED_BITS: Final = 3
#: In the place of a file's number: damage took which file it is, and some of what was in it.
LOST: Final = -1
#: What a file of SQLite begins with.
_MAGIC: Final = b"SQLite format 3\0"
#: Bytes of it that have to be there: damage may have taken the others.
_LEAST_MAGIC: Final = 8
#: Where its head has the application's id, and how far that has to be read.
#: Source: https://www.sqlite.org/fileformat2.html#the_database_header
_AT_APPLICATION: Final = 68
_HEAD: Final = 72
#: What `frame_sum` gives for a row.
_SUM: Final = "frame_sum((SELECT key FROM authors WHERE id = frames.author), sequence, envelope)"

_SCHEMA: Final = """
CREATE TABLE authors (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE
);
CREATE TABLE frames (            -- each author's from the first on, without gaps
    arrival INTEGER PRIMARY KEY,
    author INTEGER NOT NULL REFERENCES authors (id),
    sequence INTEGER NOT NULL,
    envelope BLOB NOT NULL,
    sum INTEGER NOT NULL DEFAULT 0,
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
#: What format 3 added, beside `frames.sum`.
_ADDED: Final = """
CREATE TABLE aside (             -- frames behind a gap that damage made
    author BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    envelope BLOB NOT NULL,
    sum INTEGER NOT NULL,
    PRIMARY KEY (author, sequence)
) WITHOUT ROWID;
CREATE TABLE file (              -- which copy this is: see dtp.graph.stores.witness
    only INTEGER PRIMARY KEY CHECK (only = 1),
    instance BLOB NOT NULL,
    inode INTEGER NOT NULL,
    sum INTEGER NOT NULL
);
"""
#: Beside the format: whom a graph takes in, made when it is first opened to write.
_POLICY: Final = (
    "CREATE TABLE IF NOT EXISTS policy (only INTEGER PRIMARY KEY CHECK (only = 1), data BLOB NOT NULL)"
)


#: The part of the graph that is here, where that isn't all.
PART: Final = """CREATE TABLE IF NOT EXISTS part (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    part BLOB NOT NULL,
    sum INTEGER NOT NULL
)"""


def check_kind(path: str) -> None:
    """Raise `NotGraph` for a file of another program. Nothing is written; one that can't be read passes."""
    if os.path.exists(f"{path}-wal"):
        return  # the first page may be in there
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return
    if head and sum(map(int.__eq__, head, _MAGIC)) < _LEAST_MAGIC:
        raise NotGraph(f"{path} is not a graph; name another file, or one that isn't there to begin a graph")
    application = int.from_bytes(head[_AT_APPLICATION:_HEAD], "big")
    if head.startswith(_MAGIC) and (application or _has_tables(path)) and not _is_ours(application):
        raise NotGraph(f"{path} is not a graph, but another program's SQLite file; name another file")


def _is_ours(application: int) -> bool:
    return (application ^ APPLICATION).bit_count() <= _CHANGED_BITS


def _has_tables(path: str) -> bool:
    place = f"file:{quote(os.path.abspath(path))}?mode=ro&immutable=1"
    with suppress(sqlite3.Error), closing(sqlite3.connect(place, uri=True)) as database:
        return bool(database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0])
    return False


def part_of(database: sqlite3.Connection) -> bytes | None:
    """Return the part that a file says it has. Raise `sqlite3.DatabaseError` if that is damaged."""
    if not database.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'part'").fetchone()[0]:
        return None
    for part, sum in database.execute("SELECT part, sum FROM part"):
        if isinstance(part, bytes) and zlib.crc32(part) == sum:
            return part
    raise sqlite3.DatabaseError("the part that is here is damaged")


def write_part(database: sqlite3.Connection, part: bytes) -> None:
    """Say which part is here."""
    database.execute(PART)
    database.execute("INSERT OR REPLACE INTO part VALUES (1, ?, ?)", (part, zlib.crc32(part)))


def frame_sum(author: bytes, sequence: int, envelope: bytes) -> int:
    """Return CRC-32 of a row: one flipped byte shows, wherever it is."""
    return zlib.crc32(envelope, zlib.crc32(author + sequence.to_bytes(8, "big", signed=True)))


def is_sound(author: object, sequence: object, envelope: object, sum: object) -> bool:
    """Return whether a row is as it was written."""
    if not (isinstance(author, bytes) and isinstance(sequence, int) and isinstance(envelope, bytes)):
        return False
    return frame_sum(author, sequence, envelope) == sum


def is_of_damage(error: Exception) -> bool:
    """Return whether an error is of what is in a file, such as a table without its column, and not of the disk or of
    others who have it open."""
    return not isinstance(error, sqlite3.OperationalError) or error.sqlite_errorcode == sqlite3.SQLITE_ERROR


#: Columns for `runs`: the first column, and of a summary its bytes.
RUN: Final = "sequence, CASE WHEN substr(envelope, 1, 1) = x'9b' THEN envelope END"


def runs(rows: Iterable[tuple[int, bytes | None]]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of the frames that each row of `RUN` stands for."""
    for sequence, summary in rows:
        yield (sequence if summary is None else decode("", summary).first_sequence), sequence


def run_end(rows: Iterable[tuple[int, bytes | None]], end: int) -> int:
    """Return the last frame up to which there is no gap, where the frames up to `end` are there."""
    for first, last in runs(rows):
        if first > end + 1:
            break
        end = last
    return end


def name_sum(name: str) -> int:
    """Return CRC-32 of a graph's name, which is under each signature."""
    return zlib.crc32(name.encode())


def prepare(database: sqlite3.Connection, path: str, name: str) -> None:
    """Make the tables for a graph of this name in an empty file, or bring an older format up to date, whole or not at
    all. Raise `StoreError` for the file of another program or a later format."""
    database.create_function("frame_sum", 3, frame_sum, deterministic=True)
    database.execute("BEGIN IMMEDIATE")
    try:
        is_changed = _prepare(database, path, name)
        database.execute(_POLICY)
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
    if is_changed:
        # damage to the write-ahead log is not to take the name, nor by what the machine knows the file
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _prepare(database: sqlite3.Connection, path: str, name: str) -> bool:
    """Return whether there is something new."""
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    if (application, version) == (APPLICATION, FORMAT):
        return False
    if (application, version) == (APPLICATION, 3):
        database.execute(f"PRAGMA user_version = {FORMAT}")
        return True
    if (application, version) == (APPLICATION, 2):
        database.execute("ALTER TABLE frames ADD COLUMN sum INTEGER NOT NULL DEFAULT 0")
        database.execute(f"UPDATE frames SET sum = {_SUM}")
        (name,) = database.execute("SELECT name FROM graph").fetchone()
    elif application != APPLICATION and _is_ours(application):
        raise sqlite3.DatabaseError("the head is damaged")
    elif application or version or tables:
        raise StoreError(
            f"{path} is not a graph of format {FORMAT}: a later version of this package wrote it, which can read it, "
            "or its head is damaged; then begin with a new one, and sync it with a peer or import an exported file"
        )
    else:
        _execute(database, _SCHEMA)
        database.execute("INSERT INTO graph VALUES (1, ?)", (name,))
    _execute(database, _ADDED)
    database.execute("INSERT INTO file VALUES (1, ?, ?, ?)", (*new_instance(path), name_sum(name)))
    database.execute(f"PRAGMA application_id = {APPLICATION}")
    database.execute(f"PRAGMA user_version = {FORMAT}")
    return True


@cache
def sound_tables() -> list[tuple[str, str, str, str | None]]:
    """Return (type, name, table, text) of the tables and indexes that a file has, as they are made."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as sound:
        prepare(sound, ":memory:", "")
        write_part(sound, b"")
        return sound.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()


def has_sound_tables(database: sqlite3.Connection) -> bool:
    """Return whether all tables and indexes of a file are as they are made. What is damaged of their text would be
    found when they are used, which may be much later."""
    found = {
        _outline(*row) for row in database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
    }
    made = {_outline(*row) for row in sound_tables()}
    return {one for one in made if one[1] != "part"} <= found <= made


def _outline(kind: str, name: str, table: str, text: str | None) -> tuple[str, str, str, str]:
    """Return a table or an index in a form that is the same however it is laid out, and without comments."""
    if name == "frames":  # a file of format 2 got its last column later
        return kind, name, table, ""
    return kind, name, table, " ".join(re.sub(r"--[^\n]*", "", text or "").split())


def new_instance(path: str) -> tuple[bytes, int]:
    """Return (a new id, where the file is) for a file that begins a life of its own."""
    return secrets.token_bytes(16), inode_of(path)


def inode_of(path: str) -> int:
    """Return the number of the file in its file system, 0 for none: a copy has another one."""
    try:
        return os.stat(path).st_ino & (1 << 63) - 1
    except OSError:
        return 0


def _execute(database: sqlite3.Connection, script: str) -> None:
    """Run the statements of a script within the open transaction: `executescript` would commit first."""
    for statement in script.split(";\n"):
        database.execute(statement)
