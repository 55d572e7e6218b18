"""Writing a damaged SQLite file anew from all of it that is as it was written. The damaged one is kept beside it."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from dtp.graph.errors import EnvelopeError, StoreError
from dtp.graph.frames import envelope as envelopes
from dtp.graph.stores.sqlite_format import (
    LOST,
    RUN,
    is_sound,
    name_sum,
    part_of,
    prepare,
    run_end,
    sound_tables,
    write_part,
)
from dtp.graph.stores.store import Damage
from dtp.graph.stores.table_roots import find_roots, put_tables
from dtp.identity.private import make_private_file

#: Bytes of the write-ahead log's header, and of each page's in it.
_LOG_HEAD: Final = 32
_PAGE_HEAD: Final = 24
_SALTS: Final = slice(8, 16)
#: Rows that are read at once; of those in which one can't be read, each by itself.
_WINDOW: Final = 256
#: Bytes of a row of a frame, at least.
_LEAST_ROW: Final = 100

#: What SQLite answers where a file is damaged, whose names are in its messages, too.
_UNREADABLE: Final = (sqlite3.Error, UnicodeDecodeError)

#: key, sequence, envelope, sum, arrival.
_Row = tuple[bytes, int, bytes, int, int]


def pages_in_log(path: str) -> int:
    """Return how many pages the write-ahead log beside a file has up to its last commit, by their headers alone; 0 if
    the file was closed. Source: https://www.sqlite.org/fileformat2.html#the_write_ahead_log"""
    try:
        with open(f"{path}-wal", "rb") as file:
            head = file.read(_LOG_HEAD)
            size = int.from_bytes(head[8:12], "big")
            if len(head) < _LOG_HEAD or not 512 <= size <= 65536:
                return int(bool(head))
            count = committed = 0
            while len(page := file.read(_PAGE_HEAD)) == _PAGE_HEAD:
                if page[_SALTS] == head[16:24]:
                    count += 1
                    committed = count if page[4:8] != bytes(4) else committed
                elif not count:
                    return 1  # the header was written with the first page
                file.seek(size, os.SEEK_CUR)
            return committed
    except OSError:
        return 0


def log_is_whole(path: str) -> bool:
    """Return whether the write-ahead log's pages are as they were written, up to its last commit: SQLite ends a
    log at the first that isn't, without a word."""
    left = pages_in_log(path)
    with open(f"{path}-wal", "rb") as file:
        head = file.read(_LOG_HEAD)
        size = int.from_bytes(head[8:12], "big")
        order = ">" if head[3] & 1 else "<"
        sum = _log_sum(head[:24], order, (0, 0))
        if sum != struct.unpack(">II", head[24:]):
            return False
        for _ in range(left):
            page = file.read(_PAGE_HEAD)
            sum = _log_sum(page[:8] + file.read(size), order, sum)
            if page[_SALTS] != head[16:24] or sum != struct.unpack(">II", page[16:]):
                return False
    return True


def _log_sum(data: bytes, order: str, start: tuple[int, int]) -> tuple[int, int]:
    """Return the log's checksum of data behind `start`."""
    first, second = start
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = first + one + second & 0xFFFFFFFF
        second = second + other + first & 0xFFFFFFFF
    return first, second


def salvage(path: str, name: str | None, *, tail: bool) -> Damage:
    """Write the file at `path` anew. `name` is the graph's, should that be lost; `tail` says that the write-ahead log
    lost its end. Raise `StoreError` if the tables can't be read at all; then the file stays as it is."""
    fresh = f"{path}.mended"
    try:
        Path(fresh).unlink(missing_ok=True)
        make_private_file(fresh)
        with _open_damaged(path) as old:
            damage = _copy(old, fresh, name, tail=tail)
        original = _aside(path)
        os.link(path, original)
        for end in ("-wal", "-shm"):  # who reads beside it goes on with those of the old file
            Path(path + end).unlink(missing_ok=True)
        os.replace(fresh, path)
    except (OSError, OverflowError, *_UNREADABLE) as error:
        Path(fresh).unlink(missing_ok=True)
        raise StoreError(
            f"{path} is damaged and can't be mended ({error}); begin with a new one, and sync it with a peer or "
            "import an exported file"
        ) from error
    return Damage(*damage, tail, original)


@contextmanager
def _open_damaged(path: str) -> Iterator[sqlite3.Connection]:
    """Give what reads a damaged file, which stays as it is: where its list of tables is damaged, too, a copy of it
    with a sound one."""
    with _connected(path) as old:
        old.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        told = _read_roots(old)
        with open(path, "rb") as file:
            roots = find_roots(file, told)
        if told == roots and _has_new_tables(old):
            yield old
            return
    copy = f"{path}.tables"
    try:
        Path(copy).unlink(missing_ok=True)
        make_private_file(copy)
        shutil.copyfile(path, copy)
        with open(copy, "r+b") as file:
            put_tables(file, roots)
        with _connected(copy) as old:
            yield old
    finally:
        for end in ("", "-wal", "-shm"):
            Path(copy + end).unlink(missing_ok=True)


@contextmanager
def _connected(path: str) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.text_factory = bytes
        old.execute("PRAGMA writable_schema = ON")  # what can't be read of the tables is no error then
        yield old


def _read_roots(old: sqlite3.Connection) -> dict[str, int]:
    """Return the first page of each table and index, as a file says."""
    return {
        name.decode(errors="replace"): root
        for name, root in _all(old, "SELECT name, rootpage FROM sqlite_master")
        if isinstance(name, bytes) and isinstance(root, int)
    }


def _has_new_tables(old: sqlite3.Connection) -> bool:
    """Return whether the tables and indexes of a file are those of a new one, word for word."""
    found = {
        tuple(one.decode(errors="replace") if isinstance(one, bytes) else one for one in row)
        for row in _all(old, "SELECT type, name, tbl_name, sql FROM sqlite_master")
    }
    made = set(sound_tables())
    return {one for one in made if one[1] != "part"} <= found <= made


def _aside(path: str) -> Path:
    number = 1
    while os.path.lexists(f"{path}.damaged-{number}"):
        number += 1
    return Path(f"{path}.damaged-{number}")


def _copy(old: sqlite3.Connection, path: str, name: str | None, *, tail: bool) -> tuple[int, int]:
    """Return how many frames are lost, and how many were put aside."""
    file = _first(old, "SELECT instance, inode, sum FROM file")
    kept = _first(old, "SELECT name FROM graph")
    known = kept[0].decode() if kept is not None and isinstance(kept[0], bytes) else None
    if known is None or file is None or name_sum(known) != file[2]:
        if name is None:
            raise sqlite3.DatabaseError("the graph's name is lost: open it with its name")
        known = name
    with closing(sqlite3.connect(path, isolation_level=None)) as new:
        prepare(new, path, known)
        new.execute("BEGIN")
        last, lost = _copy_frames(old, new)
        aside = _put_aside(new)
        if file is not None and isinstance(file[0], bytes):
            new.execute("UPDATE file SET instance = ?", (file[0],))  # the same one, at another place
        elif lost or aside or tail or not last:  # nobody knows how much was signed in it
            new.execute("UPDATE file SET inode = ?", (LOST,))
        _copy_rest(old, new, last)
        new.execute("COMMIT")
    with open(path, "rb") as written:
        os.fsync(written.fileno())
    return lost, aside


def _copy_frames(old: sqlite3.Connection, new: sqlite3.Connection) -> tuple[int, int]:
    """Return the highest arrival number, and how many frames are lost, at least."""
    authors: dict[bytes, int] = {}
    last, lost = _last_arrival(old), 0
    for low in range(1, last + 1, _WINDOW):
        found, unread = _window(old, low, min(last, low + _WINDOW - 1))
        rows = [row for row in map(_sound, found) if row is not None]
        lost += unread + len(found) - len(rows)
        for key in {row[0] for row in rows} - authors.keys():
            (authors[key],) = new.execute(
                "INSERT INTO authors (key) VALUES (?) RETURNING id", (key,)
            ).fetchone()
        new.executemany(
            "INSERT OR IGNORE INTO frames (arrival, author, sequence, envelope, sum) VALUES (?, ?, ?, ?, ?)",
            ((at, authors[key], number, data, sum) for key, number, data, sum, at in rows),
        )
    return last, lost


def _last_arrival(old: sqlite3.Connection) -> int:
    """Return the highest arrival number that there can be."""
    size = _first(old, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
    most = int(size[0]) // _LEAST_ROW if size else 0
    told = [
        row[0] if row else None
        for row in (
            _first(old, "SELECT MAX(arrival) FROM frames"),
            _first(old, "SELECT MAX(arrival) FROM frames INDEXED BY sqlite_autoindex_frames_1"),
            _first(old, "SELECT arrival FROM state"),
        )
    ]
    return min(most, max((one for one in told if isinstance(one, int)), default=most))


def _window(old: sqlite3.Connection, low: int, high: int) -> tuple[list[tuple[Any, ...]], int]:
    """Return the rows with these arrival numbers, and how many of the numbers can't be read."""
    columns = (
        "SELECT (SELECT key FROM authors WHERE id = author), sequence, envelope, sum, arrival FROM frames"
    )
    try:
        return old.execute(f"{columns} WHERE arrival BETWEEN ? AND ?", (low, high)).fetchall(), 0
    except _UNREADABLE:
        pass
    rows, unread = [], 0
    for arrival in range(low, high + 1):
        try:
            rows += old.execute(f"{columns} WHERE arrival = ?", (arrival,)).fetchall()
        except _UNREADABLE:
            unread += 1
    return rows, unread


def _sound(row: tuple[Any, ...]) -> _Row | None:
    """Return a row if its envelope is as it was written, whatever the columns beside it are."""
    key, sequence, data, sum, arrival = row
    if is_sound(key, sequence, data, sum):
        return key, sequence, data, sum, arrival
    try:
        signed = envelopes.decode("", data) if isinstance(data, bytes) else None
    except EnvelopeError:
        return None
    if signed is None or not is_sound(signed.author, signed.sequence, data, sum):
        return None
    return signed.author, signed.sequence, signed.encode(), sum, arrival


def _put_aside(new: sqlite3.Connection) -> int:
    """Move the frames behind each author's first gap out of its chain; how many."""
    count = 0
    for key, number in new.execute("SELECT key, id FROM authors").fetchall():
        end = run_end(
            new.execute(f"SELECT {RUN} FROM frames WHERE author = ? ORDER BY sequence", (number,)), 0
        )
        new.execute(
            "INSERT INTO aside SELECT ?, sequence, envelope, sum FROM frames WHERE author = ? AND sequence > ?",
            (key, number, end),
        )
        count += new.execute("DELETE FROM frames WHERE author = ? AND sequence > ?", (number, end)).rowcount
    return count


def _copy_rest(old: sqlite3.Connection, new: sqlite3.Connection, last: int) -> None:
    """Copy what isn't frames: the state, proofs, and what was aside already."""
    (latest,) = new.execute("SELECT COALESCE(MAX(arrival), 0) FROM frames").fetchone()
    for arrival, digest, state in _all(old, "SELECT arrival, digest, state FROM state"):
        is_state = isinstance(arrival, int) and 0 <= arrival <= last and isinstance(state, bytes)
        if is_state and hashlib.blake2b(state, digest_size=32).digest() == digest:
            # frames that come from now on arrive behind what the state has
            new.execute("INSERT INTO state VALUES (1, ?, ?, ?)", (min(arrival, latest), digest, state))
    try:
        part = part_of(old)
    except _UNREADABLE:
        part = b""  # there is one, nobody knows which
    if part is not None:
        write_part(new, part)
    for author, first, second in _all(old, "SELECT author, first, second FROM proofs"):
        if _signs(first, author) and _signs(second, author):
            new.execute("INSERT OR IGNORE INTO proofs VALUES (?, ?, ?)", (author, first, second))
    for (policy,) in _all(old, "SELECT data FROM policy"):
        if isinstance(policy, bytes):
            new.execute("INSERT OR REPLACE INTO policy VALUES (1, ?)", (policy,))
    for row in _all(old, "SELECT author, sequence, envelope, sum FROM aside"):
        if is_sound(*row):
            new.execute("INSERT OR IGNORE INTO aside VALUES (?, ?, ?, ?)", row)


def _signs(data: Any, author: Any) -> bool:
    try:
        return isinstance(data, bytes) and envelopes.decode("", data).author == author
    except EnvelopeError:
        return False


def _first(old: sqlite3.Connection, statement: str) -> tuple[Any, ...] | None:
    """Return the first row, None if there is none or it can't be read."""
    return next(_all(old, statement), None)


def _all(old: sqlite3.Connection, statement: str) -> Iterator[tuple[Any, ...]]:
    """Yield rows up to the first that can't be read."""
    try:
        yield from old.execute(statement)
    except _UNREADABLE:
        return
