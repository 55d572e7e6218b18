"""Frames in one SQLite file: write-ahead log, one process at a time writes, safe against being killed at any time."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from dtp.core.crdt import AUTHOR_SIZE
from dtp.graph.errors import GraphInUse, GraphStoreFull, StoreError
from dtp.graph.frames.envelope import SKIPPED, Signed
from dtp.graph.frames.proving import Proof
from dtp.graph.stores.salvage import pages_in_log, salvage
from dtp.graph.stores.sqlite_format import (
    LOST,
    RUN,
    check_kind,
    frame_sum,
    has_sound_tables,
    inode_of,
    is_of_damage,
    is_sound,
    name_sum,
    new_instance,
    part_of,
    prepare,
    run_end,
    runs,
    write_part,
)
from dtp.graph.stores.store import Loaded, Store, fit_sequences
from dtp.graph.stores.witness import Witness
from dtp.identity.private import make_private_file
from dtp.locking import FileLock
from dtp.sqlite import describe_fault, is_full, is_locked

_T = TypeVar("_T")
log = logging.getLogger("dtp.graph")

#: Seconds that SQLite waits for a lock: programs that read have one for a moment.
_PATIENCE: Final = 5.0
#: Envelopes that are read at once.
_AT_ONCE: Final = 256
#: Pages that are free, and more than half of the file, are given back to the disk: 512 KiB.
_FREE_PAGES: Final = 128
_FRAMES: Final = (
    "SELECT key, sequence, envelope, sum, arrival FROM frames LEFT JOIN authors ON authors.id = frames.author"
)
_FRAMES_AFTER: Final = f"{_FRAMES} WHERE arrival > ? ORDER BY arrival LIMIT ?"
_FRAMES_OF: Final = f"{_FRAMES} WHERE frames.author = ? AND sequence BETWEEN ? AND ? ORDER BY sequence"
_FRAME_FROM: Final = f"{_FRAMES} WHERE frames.author = ? AND sequence >= ? ORDER BY sequence LIMIT 1"
_NEWEST: Final = (
    "SELECT key, MAX(sequence), envelope, sum, arrival FROM frames LEFT JOIN authors ON authors.id = frames.author "
    "GROUP BY frames.author"
)
_ASIDE: Final = "SELECT author, sequence, envelope, sum, 0 FROM aside"
_ASIDE_AFTER: Final = f"{_ASIDE} WHERE (author, sequence) > (?, ?) ORDER BY author, sequence LIMIT ?"
_LASTS: Final = (
    "SELECT key, MAX(sequence) FROM frames LEFT JOIN authors ON authors.id = author GROUP BY author"
)


def _decode(data: bytes) -> str:
    return data.decode(errors="replace")


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
        self._gaps: list[tuple[bytes, int, int]] = []
        self._on_damage: Callable[[], None] = lambda: None
        self._witnesses: dict[bytes, Witness] = {}
        check_kind(self._path)
        self._lock = FileLock(f"{os.path.realpath(self._path)}-lock")
        try:
            self._db = self._open_database()
        except (OSError, sqlite3.Error) as error:
            self._lock.release()
            raise self._make_error("opened", error) from error
        try:
            self._check_file(name)
        except BaseException:
            self._db.close()
            self._lock.release()
            raise

    def _open_database(self) -> sqlite3.Connection:
        if self._path != ":memory:":
            self._take_lock()
        return self._connected_to_write()

    def _take_lock(self) -> None:
        if not self._lock.take():  # two writers as one author would contradict each other
            raise GraphInUse(
                f"{self._path} could not be opened: another process has it, or this one twice; until that ends it "
                "can only be read"
            )

    def _connected_to_write(self) -> sqlite3.Connection:
        if self._path != ":memory:":
            make_private_file(self._path)
        return self._connect_to(
            f"file:{quote(os.path.abspath(self._path))}" if self._path != ":memory:" else ""
        )

    def _connect_to(self, place: str) -> sqlite3.Connection:
        database = sqlite3.connect(
            place or ":memory:",
            uri=bool(place),
            timeout=_PATIENCE,
            isolation_level=None,
            check_same_thread=False,
        )
        # bytes that damage made a text don't end the reading: they are found to be no bytes
        database.text_factory = _decode
        return database

    def _check_file(self, name: str | None) -> None:
        """Look at what is there, all of it if it wasn't closed; mend it if it is damaged."""
        logged = pages_in_log(self._path)
        try:
            self._begin_store(name)
            lost = logged > self._fetch_one("PRAGMA wal_checkpoint(PASSIVE)", column=1) if logged else False
            is_whole = not lost and has_sound_tables(self._db) and self._has_what_its_state_has()
            is_whole = is_whole and (not logged or self._is_whole())
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if not is_of_damage(error):
                raise self._make_error("opened", error) from error
            lost, is_whole = False, False
        if not is_whole:
            self._mend_file(name, tail=lost)
        self._check_name(name)

    def _check_name(self, name: str | None) -> None:
        if name not in (None, self.name):
            kept = f"named {self.name!r}" if self.name else "without a name"
            asked = f"one named {name!r}" if name else "one without a name"
            raise StoreError(
                f"{self._path} keeps a graph {kept}, and {asked} was asked for: give no name, which opens what is "
                "there, or another file"
            )

    def _begin_store(self, name: str | None) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        prepare(self._db, self._path, name or "")
        self._read_tables()

    def _read_tables(self) -> None:
        self.name, self._instance, self._inode = self._read_head()
        self._authors = dict(self._db.execute("SELECT key, id FROM authors"))
        if not all(isinstance(number, int) for number in self._authors.values()):
            raise sqlite3.DatabaseError("the authors' numbers are damaged")
        self._find_gaps()

    def _read_head(self) -> tuple[str, bytes, int]:
        rows = self._db.execute("SELECT name, instance, inode, sum FROM graph, file").fetchall()
        for name, instance, place, sum in rows:
            if isinstance(name, str) and isinstance(instance, bytes) and name_sum(name) == sum:
                return name, instance, place
        raise sqlite3.DatabaseError("the graph's name is damaged")

    def _has_what_its_state_has(self) -> bool:
        """Return whether the last frame in the kept state is here: a damaged table may look like a shorter one."""
        kept = self._fetch_one("SELECT arrival FROM state")
        return (
            kept is None
            or kept == 0
            or self._fetch_one("SELECT COUNT(*) FROM frames WHERE arrival = ?", kept) == 1
        )

    def _is_whole(self) -> bool:
        """Return whether SQLite's own structures and all frames are as they were written."""
        if self._fetch_one("PRAGMA quick_check(1)") != "ok":
            return False
        count = 0
        for key, sequence, envelope, sum, _ in self._db.execute(_FRAMES):
            if not is_sound(key, sequence, envelope, sum):
                return False
            count += 1
        return bool(count == self._fetch_one("SELECT COUNT(*) FROM frames"))

    # ---- damage ---------------------------------------------------------------------------------------------

    def _mend_file(self, name: str | None, *, tail: bool = False) -> None:
        """Write the file anew from what can be read of it. Raise `StoreError` if that is nothing."""
        self._db.close()
        found = salvage(self._path, name, tail=tail)
        self.damage = found if self.damage is None else found.with_earlier(self.damage)
        self._db = self._connected_to_write()
        with self._translate_errors("opened"):
            self._begin_store(name)
        log.warning("%s: %s", self._path, found)
        self._on_damage()

    def _run_mending(self, what: str, work: Callable[[], _T]) -> _T:
        """Return what `work` does, after mending the file where that finds it damaged."""
        with self._translate_errors(what):
            try:
                return work()
            except sqlite3.DatabaseError as error:
                if not is_of_damage(error):
                    raise
                self._mend_file(self.name)
            return work()

    def rewrite_file(self) -> None:
        with self._translate_errors("mended"):
            self._mend_file(self.name)

    def watch_damage(self, on_damage: Callable[[], None]) -> None:
        self._on_damage = on_damage

    def read_aside(self) -> Iterator[bytes]:
        after = b"", 0
        while rows := self._run_mending("read", partial(self._check_rows, _ASIDE_AFTER, *after, _AT_ONCE)):
            for author, sequence, envelope, _, _ in rows:
                after = author, sequence
                yield envelope

    def read_gaps(self) -> list[tuple[bytes, int, int]]:
        return list(self._gaps)

    def _find_gaps(self) -> None:
        """Look for what is missing between the frames and what is aside."""
        self._gaps = []
        for (author,) in self._db.execute("SELECT DISTINCT author FROM aside").fetchall():
            end = self._last_sequence(author)
            rows = self._db.execute(f"SELECT {RUN} FROM aside WHERE author = ? ORDER BY sequence", (author,))
            for first, last in runs(rows):
                if first > end + 1:
                    self._gaps.append((author, end + 1, first - 1))
                end = max(end, last)

    def _last_sequence(self, author: bytes) -> int:
        last: int = self._fetch_one(
            "SELECT COALESCE(MAX(sequence), 0) FROM frames WHERE author = ?", self._authors.get(author)
        )
        return last

    def last_aside(self) -> list[bytes]:
        last = (
            f"{_ASIDE} WHERE (author, sequence) IN (SELECT author, MAX(sequence) FROM aside GROUP BY author)"
        )
        return [
            envelope for _, _, envelope, _, _ in self._run_mending("read", lambda: self._check_rows(last))
        ]

    def rejoin_aside(self, author: bytes) -> bytes | None:
        if not any(one[0] == author for one in self._gaps):
            return None
        with self._open_transaction(synced=True):
            last = self._last_sequence(author)
            rows = self._db.execute(
                f"SELECT {RUN} FROM aside WHERE author = ? AND sequence > ? ORDER BY sequence", (author, last)
            )
            end = run_end(rows, last)
            self._db.execute(
                "INSERT INTO frames (author, sequence, envelope, sum) SELECT ?, sequence, envelope, sum FROM aside "
                "WHERE author = ? AND sequence > ? AND sequence <= ? ORDER BY sequence",
                (self._authors[author], author, last, end),
            )
            self._db.execute("DELETE FROM aside WHERE author = ? AND sequence <= ?", (author, end))
            self._arrival = self._fetch_one("SELECT COALESCE(MAX(arrival), 0) FROM frames")
        self._gaps = [
            (one, max(first, end + 1), last) for one, first, last in self._gaps if one != author or last > end
        ]
        return self.find_covering(author, end) if end > last else None

    # ---- which copy it is -----------------------------------------------------------------------------------

    def why_uncertain(self, author: bytes) -> str | None:
        if self._path == ":memory:":
            return None
        with self._translate_errors("read"):
            if any(one[0] == author for one in self._gaps):
                return "it is damaged, and lacks frames from the middle of what this identity signed"
            if self._inode == LOST:
                return "it was damaged, and what is left doesn't tell how much this identity had signed in it"
            last = self.last_sequences().get(author, 0)
        return self._witness_of(author).why_doubtful(last, moved=self._inode != inode_of(self._path))

    def _witness_of(self, author: bytes) -> Witness:
        found = self._witnesses.get(author)
        if found is None:
            found = self._witnesses[author] = Witness(self._path, self._instance, author)
        return found

    def remember_signed(self, author: bytes, sequence: int) -> None:
        if self._path != ":memory:":
            self._witness_of(author).remember_sequence(sequence)

    def count_signed(self, author: bytes) -> int:
        if self._path == ":memory:":
            return 0
        return self._witness_of(author).count_signed(of_any=self._inode == LOST)

    def adopt_author(self, author: bytes, instead: Iterable[Signed] = ()) -> None:
        with self._open_transaction(synced=True):
            self._insert_frames(list(instead))
            self._db.execute("DELETE FROM aside WHERE author = ?", (author,))
            self._db.execute("DELETE FROM state")
            self._instance, self._inode = new_instance(self._path)
            self._db.execute("UPDATE file SET instance = ?, inode = ?", (self._instance, self._inode))
        for witness in self._witnesses.values():
            witness.supersede_instance()
            witness.close()
        self._witnesses.clear()
        self._find_gaps()
        self.remember_signed(author, self._last_sequence(author))

    # ---- frames ---------------------------------------------------------------------------------------------

    def _fetch_one(self, statement: str, *arguments: Any, column: int = 0) -> Any:
        row = self._db.execute(statement, arguments).fetchone()
        return None if row is None else row[column]

    @contextmanager
    def _translate_errors(self, what: str) -> Iterator[None]:
        try:
            with self._one_at_a_time:
                yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # a damaged file's names are in messages, too
            raise self._make_error(what, error) from error

    def _make_error(self, what: str, error: Exception) -> StoreError:
        hint = "; another process has it" if is_locked(error) else ""
        kind = GraphStoreFull if is_full(error, self._path) else StoreError
        return kind(f"{self._path} could not be {what}: {describe_fault(error, self._path)}{hint}")

    @contextmanager
    def _open_transaction(self, *, synced: bool) -> Iterator[None]:
        with self._translate_errors("written"):
            self._db.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def load_saved(self) -> Loaded:
        arrival, state = self._run_mending("read", self._read_state)
        return Loaded(state, self._read_later(arrival))

    def load_again(self) -> Loaded:
        return self.load_saved()

    def _read_state(self) -> tuple[int, bytes | None]:
        row = self._db.execute("SELECT arrival, digest, state FROM state").fetchone()
        if row is not None and not (isinstance(row[0], int) and isinstance(row[2], bytes)):
            row = None
        if row is not None and hashlib.blake2b(row[2], digest_size=32).digest() != row[1]:
            row = None  # damaged: the frames give it again
        self._arrival = self._fetch_one("SELECT COALESCE(MAX(arrival), 0) FROM frames")
        return (row[0], row[2]) if row is not None else (0, None)

    def _read_later(self, arrival: int) -> Iterator[bytes]:
        """Yield a part at a time: who stops in between holds nothing."""
        while rows := self._run_mending("read", partial(self._check_rows, _FRAMES_AFTER, arrival, _AT_ONCE)):
            for _, _, envelope, _, arrived in rows:
                arrival = arrived
                yield envelope

    def _check_rows(self, statement: str, *arguments: Any) -> list[tuple[bytes, int, bytes, int, int]]:
        """Return rows of frames; raise `sqlite3.DatabaseError` for one that isn't as it was written."""
        rows = self._db.execute(statement, arguments).fetchall()
        for key, sequence, envelope, sum, _ in rows:
            if not is_sound(key, sequence, envelope, sum):
                raise sqlite3.DatabaseError("a frame is damaged")
        return rows

    def _check_whole(self, data: Any) -> bytes:
        if not isinstance(data, bytes):
            raise StoreError(f"{self._path} is damaged")
        return data

    def last_sequences(self) -> dict[bytes, int]:
        return self._run_mending("read", self._read_lasts)

    def _read_lasts(self) -> dict[bytes, int]:
        rows = self._db.execute(_LASTS).fetchall()
        if not all(
            isinstance(key, bytes) and len(key) == AUTHOR_SIZE and isinstance(n, int) for key, n in rows
        ):
            raise sqlite3.DatabaseError("an author is damaged")
        return dict(rows)

    def newest_envelopes(self) -> Iterator[bytes]:
        rows = self._run_mending("read", partial(self._check_rows, _NEWEST))
        return (envelope for _, _, envelope, _, _ in rows)

    def add_frames(self, envelopes: Iterable[Signed], *, synced: bool) -> None:
        envelopes = list(envelopes)
        made: dict[bytes, int] = {}
        with self._open_transaction(synced=synced):
            for key in {envelope.author for envelope in envelopes} - self._authors.keys():
                made[key] = self._fetch_one("INSERT INTO authors (key) VALUES (?) RETURNING id", key)
            self._insert_frames(envelopes, made)
            arrival = self._fetch_one("SELECT COALESCE(MAX(arrival), 0) FROM frames")
        self._authors.update(made)
        self._arrival = arrival

    def _insert_frames(self, envelopes: list[Signed], made: Mapping[bytes, int] | None = None) -> None:
        numbers = {**self._authors, **made} if made else self._authors
        self._db.executemany(
            "INSERT INTO frames (author, sequence, envelope, sum) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (
                (numbers[one.author], one.sequence, data, frame_sum(one.author, one.sequence, data))
                for one in envelopes
                for data in (one.encode(),)
            ),
        )

    def read_frames(self, author: bytes, first: int, last: int) -> list[bytes]:
        last = min(last, (1 << 63) - 1)
        rows = self._run_mending(
            "read", lambda: self._check_rows(_FRAMES_OF, self._authors.get(author), first, last)
        )
        return [envelope for _, _, envelope, _, _ in rows]

    def find_covering(self, author: bytes, sequence: int) -> bytes | None:
        rows = self._run_mending(
            "read", lambda: self._check_rows(_FRAME_FROM, self._authors.get(author), sequence)
        )
        return rows[0][2] if rows else None

    def replace_frames(self, parts: list[Signed]) -> int:
        author = self._authors.get(parts[0].author)
        with self._open_transaction(synced=True):
            rows = self._db.execute(
                "SELECT sequence, arrival FROM frames WHERE author = ? AND sequence <= ? ORDER BY sequence",
                (author, parts[-1].sequence),
            ).fetchall()
            places = fit_sequences(parts, [sequence for sequence, _ in rows])
            if not places:
                return 0
            self._db.execute(
                "DELETE FROM frames WHERE author = ? AND sequence <= ?", (author, parts[-1].sequence)
            )
            self._db.executemany(
                "INSERT INTO frames (arrival, author, sequence, envelope, sum) VALUES (?, ?, ?, ?, ?)",
                (
                    (rows[at][1], author, part.sequence, data, frame_sum(part.author, part.sequence, data))
                    for part, at in zip(parts, places, strict=True)
                    for data in (part.encode(),)
                ),
            )
            # the state has what arrived up to some frame: that may be gone, but nothing came between it and the last
            self._db.execute(
                "UPDATE state SET arrival = "
                "(SELECT COALESCE(MAX(arrival), 0) FROM frames WHERE frames.arrival <= state.arrival)"
            )
        return len(rows) - len(parts)

    def read_part(self) -> bytes | None:
        with self._translate_errors("read"):
            return part_of(self._db)

    def set_part(self, part: bytes, own: bytes) -> None:
        with self._open_transaction(synced=True):
            write_part(self._db, part)
            skipped = self._db.execute(
                "SELECT author, MIN(sequence) FROM frames WHERE substr(envelope, 1, 2) = ? AND author IS NOT ? "
                "GROUP BY author",
                (SKIPPED, self._authors.get(own)),
            ).fetchall()
            if skipped:
                self._db.executemany("DELETE FROM frames WHERE author = ? AND sequence >= ?", skipped)
                self._db.execute("DELETE FROM aside WHERE author != ?", (own,))
                self._db.execute("DELETE FROM state")
        self._find_gaps()

    def release_space(self) -> None:
        with self._translate_errors("shrunk"):
            free, pages = self._fetch_one("PRAGMA freelist_count"), self._fetch_one("PRAGMA page_count")
            if free >= _FREE_PAGES and 2 * free > pages:  # else what comes next fills them
                self._db.execute("VACUUM")
            self._truncate_log()

    def size_of(self, author: bytes, first: int, last: int) -> int:
        with self._translate_errors("read"):
            found: int = self._fetch_one(
                "SELECT COALESCE(SUM(LENGTH(envelope)), 0) FROM frames WHERE author = ? AND sequence BETWEEN ? AND ?",
                self._authors.get(author),
                first,
                last,
            )
            return found

    def save_state(self, state: bytes) -> None:
        digest = hashlib.blake2b(state, digest_size=32).digest()
        with self._open_transaction(synced=False):
            self._db.execute(
                "INSERT OR REPLACE INTO state (only, arrival, digest, state) VALUES (1, ?, ?, ?)",
                (self._arrival, digest, state),
            )

    def author_sizes(self) -> dict[bytes, int]:
        with self._translate_errors("read"):
            return dict(
                self._db.execute(
                    "SELECT key, SUM(LENGTH(envelope)) FROM frames JOIN authors ON authors.id = author "
                    "GROUP BY author"
                )
            )

    def read_policy(self) -> bytes | None:
        return self._run_mending("read", self._read_policy)

    def _read_policy(self) -> bytes | None:
        if not self._fetch_one("SELECT COUNT(*) FROM sqlite_master WHERE name = 'policy'"):
            return None  # only read, and not written since there is one
        data = self._fetch_one("SELECT data FROM policy")
        return None if data is None else self._check_whole(data)

    def save_policy(self, policy: bytes, forget_state: bool) -> None:
        with self._open_transaction(synced=True):
            self._db.execute("INSERT OR REPLACE INTO policy VALUES (1, ?)", (policy,))
            if forget_state:
                self._db.execute("DELETE FROM state")

    def purge_author(self, author: bytes) -> None:
        with self._open_transaction(synced=True):
            self._db.execute("DELETE FROM state")
            self._db.execute("DELETE FROM frames WHERE author = ?", (self._authors.get(author),))
            self._db.execute("DELETE FROM authors WHERE key = ?", (author,))
            self._db.execute("DELETE FROM aside WHERE author = ?", (author,))
            self._db.execute("DELETE FROM proofs WHERE author = ?", (author,))
        self._authors.pop(author, None)
        with self._translate_errors("written"):
            self._db.execute("VACUUM")  # the rows' places, too
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._arrival = self._fetch_one("SELECT COALESCE(MAX(arrival), 0) FROM frames")
            self._find_gaps()

    def add_proof(self, proof: Proof) -> None:
        with self._open_transaction(synced=True):
            self._db.execute(
                "INSERT OR IGNORE INTO proofs VALUES (?, ?, ?)",
                (proof.author, proof.first.encode(), proof.second.encode()),
            )

    def read_proofs(self) -> list[tuple[bytes, bytes]]:
        with self._translate_errors("read"):
            rows = self._db.execute("SELECT first, second FROM proofs ORDER BY author").fetchall()
        return [(self._check_whole(first), self._check_whole(second)) for first, second in rows]

    def close(self) -> None:
        for witness in self._witnesses.values():
            witness.close()
        self._take_log_in()
        self._db.close()
        self._lock.release()

    def _take_log_in(self) -> None:
        """Move the write-ahead log into the file, as SQLite does at the last close, which may be a reader's."""
        with suppress(sqlite3.Error):
            self._truncate_log()

    def _truncate_log(self) -> None:
        """Empty the write-ahead log, without waiting for readers."""
        self._db.execute("PRAGMA busy_timeout = 0")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._db.execute(f"PRAGMA busy_timeout = {round(_PATIENCE * 1000)}")
