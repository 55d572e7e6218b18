"""The file of a store: made for its owner alone, its format brought up to date, transactions, syncs, copies."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from dtp import config
from dtp.identity.private import close_to_others, make_private_file, make_private_folder
from dtp.pay.errors import NoStore, PayStoreFull, StoreBusy, StoreError
from dtp.pay.store.schema import FORMAT, SCHEMA, UPGRADES
from dtp.sqlite import describe_fault, is_full, primary_code

if TYPE_CHECKING:
    pass

#: Seconds to wait for another process that is writing.
PATIENCE: Final = 10.0


#: Prompt writes after which what they wrote is moved from the log into the file: each adds a few pages of 4 KiB.
_LOGGED: Final = 256


#: Held while a file is made: who finds it there opens it only once the descriptor that made it is closed.
_making: Final = threading.Lock()


#: What every store has had, of whatever format.
_TABLES: Final = frozenset({"bought", "lanes", "sold"})


#: SQLite's application id of a copy, whose last bits say what isn't known since: closes that a server agreed on, and
#: what a client put into channels.
_ENDS_UNKNOWN: Final = 1


DEPOSITS_UNKNOWN: Final = 2


COPY: Final = 0x64747060 | _ENDS_UNKNOWN | DEPOSITS_UNKNOWN


#: ... and of one that was made empty: the one before may be lost, and what that had put into channels with it.
_NEW: Final = 0x64747060 | 4


def sync_data(file: int) -> None:
    """Write a file's data to the disk: `fdatasync`, where the system has it."""
    getattr(os, "fdatasync", os.fsync)(file)


class StoreFile:
    """The store of one account's vouchers. Close it, or use `with`. `StoreError` from every method that can't.

    May be used from several threads and by several processes at once.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        power_safe: bool = True,
        make: bool = True,
        patience: float = PATIENCE,
        sync_data: Callable[[int], None] = sync_data,
    ) -> None:
        """Open or make the file at `path`, the default one without; with `make` False what isn't there is `NoStore`.
        ":memory:" is a store that is gone with the object.

        Without `power_safe` a power cut (not a crash of the process) may take the last moments with it, but for what
        is reserved. That is enough for whoever only pays: the server shows the newest voucher at the next connection,
        the wallet closes channels whose lane's key is gone, and a sync costs more than everything else together.
        `sync_data` has the disk keep what was written to a file, given its descriptor. Other processes that write are
        waited for `patience` seconds, once it is open; then `StoreBusy` is raised.
        """
        self.path = os.fspath(path) if path is not None else os.fspath(config.pay_store_path())
        #: Whether each transaction is synced to the disk.
        self.power_safe = power_safe
        self._sync_data = sync_data
        self._lock = threading.RLock()
        try:
            if make and self.path != ":memory:":
                make_private_folder(Path(self.path).parent)
                with _making:
                    make_private_file(self.path)
            at = self.path if make else f"{Path(self.path).absolute().as_uri()}?mode=rw"
            self._db = sqlite3.connect(
                at, timeout=PATIENCE, isolation_level=None, check_same_thread=False, uri=not make
            )
            self._check_ours(make)
            # Not before: a file that is something else keeps its mode.
            close_to_others(self.path)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(f"PRAGMA synchronous={'FULL' if power_safe else 'NORMAL'}")
        except (OSError, sqlite3.Error) as fault:
            if not make and _is_missing(self.path):
                raise NoStore(f"no store at {self.path}: there is no such file") from fault
            raise _error_for(fault, "open the store of vouchers", self.path) from fault
        try:
            with self._write_transaction():
                self._prepare_schema()
        except BaseException:
            self._db.close()
            raise
        self._db.execute(f"PRAGMA busy_timeout={round(patience * 1000)}")
        self._prompt: sqlite3.Connection | None = None  # of `receive_now`
        self._prompt_lock = threading.Lock()
        self._log = -1  # SQLite's write-ahead log
        self._logged = 0
        self._unsynced = False  # a sync has failed: what another said after it would be no promise

    def _check_ours(self, make: bool) -> None:
        """Raise `NoStore` for a file that is not a store, before anything of it is changed; where one may be made an
        empty one becomes one."""
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not (tables >= _TABLES or (make and not tables)):
            self._db.close()
            raise NoStore(f"no store at {self.path}: the file is something else, or empty")

    def _prepare_schema(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == FORMAT:
            return
        if version > FORMAT:
            raise StoreError(f"{self.path} is of format {version}; this dtp writes {FORMAT}: update dtp")
        statements = [UPGRADES[each] for each in range(version, FORMAT)] if version else [SCHEMA]
        for statement in ";".join(statements).split(";"):
            if statement.strip():
                self._db.execute(statement)
        self._db.execute(f"PRAGMA user_version={FORMAT}")
        if not version:
            self._db.execute(f"PRAGMA application_id={_NEW}")

    def is_copy(self) -> bool:
        """True if the file was made by `backup`: a server that goes on with it may have agreed on closes since that
        aren't in it."""
        return self._lacks_version(_ENDS_UNKNOWN)

    def _lacks_version(self, what: int) -> bool:
        ((mark,),) = self._fetch_rows("PRAGMA application_id")
        return mark in (COPY, COPY & ~_ENDS_UNKNOWN) and bool(mark & what)

    def begin_wait(self, restored_ms: int, until_ms: int) -> tuple[int, int]:
        """Note that a server goes on with a copy: channels that were opened until `restored_ms` wait until then.
        Return what was noted by the first that did, since what it served is in here."""
        with self._write_transaction():
            if not self._db.execute("SELECT 1 FROM waits").fetchone():
                self._db.execute("INSERT INTO waits VALUES (?, ?)", (restored_ms, until_ms))
            ((restored, until),) = self._db.execute("SELECT restored_ms, until_ms FROM waits").fetchall()
        return int(restored), int(until)

    def go_on_with_copy(self) -> None:
        """Let servers take the file for the store: no close that isn't known here can be used any more."""
        with self._write_transaction():
            self._db.execute("DELETE FROM waits")
            if self.is_copy():
                self._db.execute(f"PRAGMA application_id={COPY & ~_ENDS_UNKNOWN}")

    def is_new(self) -> bool:
        """True if the file began empty, and is not a copy."""
        ((mark,),) = self._fetch_rows("PRAGMA application_id")
        return bool(mark == _NEW)

    @contextmanager
    def _write_transaction(self) -> Iterator[None]:
        """Give one transaction: all of it or nothing."""
        with self._lock, self._open_transaction(self._db):
            yield

    @contextmanager
    def _open_transaction(self, db: sqlite3.Connection) -> Iterator[None]:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as fault:
            raise _error_for(fault, "write", self.path) from fault
        try:
            yield
            db.execute("COMMIT")
        except sqlite3.Error as fault:
            _roll_back(db)
            raise _error_for(fault, "write", self.path) from fault
        except OverflowError as fault:  # a node's: what is made here is smaller
            _roll_back(db)
            raise StoreError(
                f"can't write {self.path}: a number is too large for it; ask another node"
            ) from fault
        except BaseException:
            _roll_back(db)
            raise

    @contextmanager
    def _synced_transaction(self) -> Iterator[None]:
        """Run a transaction that not even a power cut takes back, with all that were before it."""
        with self._lock:
            if self.power_safe:
                with self._write_transaction():
                    yield
                return
            self._set_sync("FULL")
            try:
                with self._write_transaction():
                    yield
            finally:
                self._set_sync("NORMAL")

    def _set_sync(self, how: str) -> None:
        try:
            self._db.execute(f"PRAGMA synchronous={how}")
        except sqlite3.Error as fault:
            raise _error_for(fault, "write", self.path) from fault

    def _fetch_rows(self, query: str, *values: Any) -> list[Any]:
        try:
            with self._lock:
                return self._db.execute(query, values).fetchall()
        except sqlite3.Error as fault:
            raise _error_for(fault, "read", self.path) from fault

    def close(self) -> None:
        """Close the file, after what is under way in other threads. Idempotent."""
        with self._lock, self._prompt_lock:
            if self._prompt is not None:
                self._prompt.close()
                self._prompt = None
            if self._log >= 0:
                os.close(self._log)
                self._log = -1
            self._db.close()  # under the lock: SQLite doesn't survive it in the middle of a statement

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_prompt(self) -> sqlite3.Connection:
        """Return a connection that neither waits nor syncs, nor moves what it wrote from the log into the file."""
        try:
            db = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
            for pragma in ("synchronous=NORMAL", "wal_autocheckpoint=0"):
                db.execute(f"PRAGMA {pragma}")
        except sqlite3.Error as fault:
            raise _error_for(fault, "open the store of vouchers", self.path) from fault
        self._prompt = db
        return db

    def sync(self) -> None:
        """Make what `receive_now` wrote outlast a power cut.

        A commit of SQLite's with `synchronous=FULL` is a write to its log and this; what is not in the log any more
        was synced when it was moved into the file.
        """
        try:
            with self._lock:
                if self._log < 0:
                    self._log = os.open(f"{self.path}-wal", os.O_RDWR | os.O_CLOEXEC)
                if self.power_safe:
                    self._sync_data(self._log)
                self._logged += 1
                if self._logged >= _LOGGED:
                    self._logged = 0
                    self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except (OSError, sqlite3.Error) as fault:
            self._unsynced = True
            raise _error_for(fault, "write", self.path) from fault


def _error_for(fault: OSError | sqlite3.Error, doing: str, path: str) -> StoreError:
    """Return the error of ours that says what can't be done: other ones where others write, or the disk is full."""
    kind = StoreError
    if primary_code(fault) == sqlite3.SQLITE_BUSY:
        kind = StoreBusy
    elif is_full(fault, path):
        kind = PayStoreFull
    return kind(f"can't {doing} {path}: {describe_fault(fault, path)}")


def _roll_back(db: sqlite3.Connection) -> None:
    # SQLite has done it already after some errors, a full disk among them.
    if db.in_transaction:
        db.execute("ROLLBACK")


def _is_missing(path: str) -> bool:
    """Return whether there is no such file; of one that may not be looked at that isn't known."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
