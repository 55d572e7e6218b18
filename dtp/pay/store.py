"""What must not be forgotten, in SQLite: lanes with their keys and newest vouchers, preimages, agreed closes.

A server stores a voucher before it counts, and a client stores, before it signs, up to which sequence and amount it
may (`reserve`): one write for many vouchers. Each method is one transaction, so whoever is killed at any point finds
a state that was true. What a server counts on and what a client reserves is also synced to the disk (WAL,
`synchronous=FULL`), and a power cut takes none of it. `dtp.pay.journal` runs it beside an event loop.

One file may serve as both sides at once; clients and servers have tables of their own. It holds the secret keys of
lanes (a lane's key can spend what its channel holds), so it is for its owner's eyes: mode 0600.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from dtp import config
from dtp.identity.private import close_to_others, make_private_file, make_private_folder
from dtp.pay.errors import NoStore, StoreError
from dtp.pay.lane_start import UNRESERVED, PayerLane, Reserved
from dtp.pay.payee import PayeeLane
from dtp.pay.schema import FORMAT, SCHEMA, UPGRADES
from dtp.pay.terms import NOTHING, Usage, leased
from dtp.pay.voucher import LaneKey, SignedVoucher, decode_voucher, encode_voucher

if TYPE_CHECKING:
    from dtp.pay.holding import VoucherStore

#: Seconds to wait for another process that is writing.
_PATIENCE: Final = 10.0
#: The part of SQLite's extended codes that says what kind of fault it is.
_PRIMARY: Final = 0xFF
#: Prompt writes after which what they wrote is moved from the log into the file: each adds a few pages of 4 KiB.
_LOGGED: Final = 256
#: Held while a file is made: who finds it there opens it only once the descriptor that made it is closed.
_making: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class Bought:
    """A channel that this side opened. `state` is "open", "refused" (by its server), "closing" or "closed", as far
    as it is known here.

    `deposited` is what went into it less what came back, in units of `coin`; `gas` what our transactions for it took
    (MIST). So long as `claim_ms` its server may claim once the close is asked for. `refused` is 1 when its server has
    refused it, whatever became of it since. `name` is the service's, as it was dialled, "" where only its number is
    known.
    """

    channel: str
    chain: str
    host: str
    service: int
    account: str
    state: str
    opened_ms: int
    coin: str = ""
    claim_ms: int = 0
    gas: int = 0
    refused: int = 0
    name: str = ""
    deposited: int = 0

    @property
    def purpose(self) -> tuple[str, str, int, str]:
        """Chain, host and service that it is for, and the account: what makes channels interchangeable."""
        return self.chain, self.host, self.service, self.account


@dataclass(frozen=True, slots=True)
class Sold:
    """A lane that this side is paid by, with the newest voucher and the preimage of its lock, if it has one."""

    channel: str
    lane: int
    newest: SignedVoucher
    preimage: bytes | None


@dataclass(frozen=True, slots=True)
class End:
    """A channel that the server agreed to close for `total`, or knows to be over. `chain` is the id of the chain that
    it was agreed for, "" where that isn't known."""

    channel: str
    total: int
    not_after_ms: int
    over: bool
    chain: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """A transaction that was signed and is to open a channel: its digest, the id of its chain, and of what account it
    puts how much of which coin into it."""

    digest: str
    chain: str
    account: str = ""
    coin: str = ""
    deposit: int = 0


@dataclass(frozen=True, slots=True)
class Moved:
    """What the chain's history says of a channel of an account: what went into it, and what came back."""

    coin: str
    put: int
    back: int


#: So much of a coin is noted at most of what a node says of one channel: no coin has more, and sums of some fit into
#: SQLite's integers.
MOST_NOTED: Final = 2**60
#: What every store has had, of whatever format.
_TABLES: Final = frozenset({"bought", "lanes", "sold"})
#: SQLite's application id of a copy, whose last bits say what isn't known since: closes that a server agreed on, and
#: what a client put into channels.
_ENDS_UNKNOWN: Final = 1
_DEPOSITS_UNKNOWN: Final = 2
_COPY: Final = 0x64747060 | _ENDS_UNKNOWN | _DEPOSITS_UNKNOWN
#: ... and of one that was made empty: the one before may be lost, and what that had put into channels with it.
_NEW: Final = 0x64747060 | 4


class Store:
    """The store of one account's vouchers. Close it, or use `with`. `StoreError` from every method that can't.

    May be used from several threads and by several processes at once.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, power_safe: bool = True, make: bool = True
    ) -> None:
        """Open or make the file at `path`, the default one without; with `make` False what isn't there is `NoStore`.
        ":memory:" is a store that is gone with the object.

        Without `power_safe` a power cut (not a crash of the process) may take the last moments with it, but for what
        is reserved. That is enough for who only pays: the server shows the newest voucher at the next connection,
        the wallet closes channels whose lane's key is gone, and a sync costs more than everything else together.
        """
        self.path = os.fspath(path) if path is not None else os.fspath(config.pay_store_path())
        #: Whether each transaction is synced to the disk.
        self.power_safe = power_safe
        self._lock = threading.RLock()
        try:
            if make and self.path != ":memory:":
                make_private_folder(Path(self.path).parent)
                with _making:
                    make_private_file(self.path)
            at = self.path if make else f"{Path(self.path).absolute().as_uri()}?mode=rw"
            self._db = sqlite3.connect(
                at, timeout=_PATIENCE, isolation_level=None, check_same_thread=False, uri=not make
            )
            self._check_ours(make)
            # Not before: a file that is something else keeps its mode.
            close_to_others(self.path)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(f"PRAGMA synchronous={'FULL' if power_safe else 'NORMAL'}")
        except (OSError, sqlite3.Error) as fault:
            if not make and _is_missing(self.path):
                raise NoStore(f"no store at {self.path}: there is no such file") from fault
            raise StoreError(f"can't open the store of vouchers {self.path}: {fault}") from fault
        try:
            with self._writing():
                self._prepare()
        except BaseException:
            self._db.close()
            raise
        self._prompt: sqlite3.Connection | None = None  # of `receive_now`
        self._prompt_lock = threading.Lock()
        self._log = -1  # SQLite's write-ahead log
        self._logged = 0
        self._unsynced = False  # a sync has failed: what another said after it would be no promise

    def _check_ours(self, make: bool) -> None:
        """Raise `NoStore` for a file that is none, before anything of it is changed; where one may be made an empty
        one becomes one."""
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not (tables >= _TABLES or (make and not tables)):
            self._db.close()
            raise NoStore(f"no store at {self.path}: the file is something else, or empty")

    def _prepare(self) -> None:
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

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Write all that is here now into the database at `path`, in place of what is in it, in one transaction.

        A copy of the store's own file isn't one: what was written last is in SQLite's log beside it. By the same log
        others may have the copy open, such as a watcher, and find what is new. `StoreError` for a store that isn't a
        copy of this one: what it has would be lost.
        """
        to = Path(path)
        if to.exists() and os.path.exists(self.path) and to.samefile(self.path):
            raise StoreError(f"{path} is the store itself: name another file for the copy")
        if not to.parent.is_dir():
            raise StoreError(f"can't copy the store of vouchers to {path}: there is no such folder")
        until = time.monotonic() + _PATIENCE

        def give_up(status: int, remaining: int, total: int) -> None:
            if status == sqlite3.SQLITE_BUSY and time.monotonic() >= until:
                raise sqlite3.OperationalError("another process writes there all the time")

        with Store(to, make=not to.exists() or not to.stat().st_size) as copy, self._lock:
            ours = self._numbers()
            if any(ours.get(each, -1) < number for each, number in copy._numbers().items()):
                raise StoreError(
                    f"{path} is no older copy of {self.path}: it has channels or vouchers that aren't there; "
                    "name another file"
                )
            try:
                # Marked before it is there: who is killed in between would leave a copy that says nothing.
                with closing(sqlite3.connect("", isolation_level=None)) as marked:
                    self._db.backup(marked)
                    marked.execute(f"PRAGMA application_id={_COPY}")
                    marked.execute("DELETE FROM counted")
                    marked.backup(copy._db, progress=give_up)
            except sqlite3.Error as fault:
                raise StoreError(f"can't copy the store of vouchers to {path}: {fault}") from fault

    def is_copy(self) -> bool:
        """True if the file was made by `backup`: a server that goes on with it may have agreed on closes since that
        aren't in it."""
        return self._lacks(_ENDS_UNKNOWN)

    def _lacks(self, what: int) -> bool:
        ((mark,),) = self._rows("PRAGMA application_id")
        return mark in (_COPY, _COPY & ~_ENDS_UNKNOWN) and bool(mark & what)

    def go_on_with_copy(self) -> None:
        """No close that isn't known here can be used any more: servers take the file for the store from now on."""
        with self._writing():
            if self.is_copy():
                self._db.execute(f"PRAGMA application_id={_COPY & ~_ENDS_UNKNOWN}")

    def is_new(self) -> bool:
        """True if the file began empty, and is no copy."""
        ((mark,),) = self._rows("PRAGMA application_id")
        return bool(mark == _NEW)

    def lacks_deposits(self, chain: str, account: str) -> bool:
        """Return whether an account may have put money into channels before this file was made, or since it was made
        by `backup`, and nobody has counted it by `count_moved` yet."""
        return (self._lacks(_DEPOSITS_UNKNOWN) or self.is_new()) and not self._rows(
            "SELECT 1 FROM counted WHERE chain = ? AND account = ?", chain, account
        )

    def count_moved(self, chain: str, account: str, moved: Mapping[str, Moved], now_ms: int) -> None:
        """Note what an account's channels got and gave back by the chain's history (by channel), where less is noted.

        It is dated now, since when it was is a node's word. Of channels that aren't known here only the sum is noted.
        """
        with self._writing():
            for channel, each in moved.items():
                if self.bought(channel):
                    self._count_known(channel, each, now_ms)
                elif each.put > each.back:
                    self._db.execute(
                        "INSERT INTO unnoted VALUES (?, ?, ?, ?, ?, ?) "
                        "ON CONFLICT (id) DO UPDATE SET amount = excluded.amount",
                        (channel, chain, account, each.coin, now_ms, each.put - each.back),
                    )
                else:
                    self._db.execute("DELETE FROM unnoted WHERE id = ?", (channel,))
            self._db.execute("INSERT OR IGNORE INTO counted VALUES (?, ?)", (chain, account))

    def _count_known(self, channel: str, moved: Moved, now_ms: int) -> None:
        noted = self.deposits(channel)
        put, back = sum(each for each in noted if each > 0), -sum(each for each in noted if each < 0)
        if moved.put > put:
            self._insert_deposit(channel, now_ms, moved.put - put)
        # No more than what went in, whatever a node says.
        back_now = min(moved.back, max(put, moved.put)) - back
        if back_now > 0:
            self._insert_deposit(channel, now_ms, -back_now)

    def _numbers(self) -> dict[tuple[str, str, int], int]:
        """The lanes that are signed for or paid by, these with how far they are: none is forgotten, or set back."""
        rows = self._rows(
            "SELECT 'lanes', channel, lane, 0 FROM lanes "
            "UNION ALL SELECT 'sold', channel, lane, sequence FROM sold"
        )
        return {(table, channel, lane): sequence for table, channel, lane, sequence in rows}

    def copy_sold(self, other: VoucherStore) -> None:
        """Take over what another store of any kind holds to claim with, in one transaction: of each lane the newer
        voucher with the key of its lock and what was served, and the ends of channels. What is newer here stays."""
        lanes = [other.sold_lane(each.channel, each.lane) for each in other.sold()]
        ids = {each.channel for each in lanes} | {each.channel for each in self.sold()}
        ends = [other.end_of(id) for id in ids]
        with self._writing():
            for lane in lanes:
                if lane.newest is not None and _keep_received(self._db, lane.newest, lane.used):
                    self._db.execute(
                        "UPDATE sold SET preimage = ? WHERE channel = ? AND lane = ?",
                        (lane.preimage, lane.channel, lane.lane),
                    )
            for end in ends:
                if end is not None:
                    self._db.execute(
                        "INSERT INTO ends (channel, total, not_after_ms, state, chain) VALUES (?, ?, ?, ?, ?) "
                        "ON CONFLICT (channel) DO UPDATE SET state = 'over' WHERE excluded.state = 'over'",
                        (
                            end.channel,
                            end.total,
                            str(end.not_after_ms),
                            "over" if end.over else "agreed",
                            end.chain,
                        ),
                    )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: all of it or nothing."""
        with self._lock, self._transaction(self._db):
            yield

    @contextmanager
    def _transaction(self, db: sqlite3.Connection) -> Iterator[None]:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as fault:
            raise StoreError(f"can't write {self.path}: {fault}") from fault
        try:
            yield
            db.execute("COMMIT")
        except sqlite3.Error as fault:
            _roll_back(db)
            raise StoreError(f"can't write {self.path}: {fault}; is the disk full?") from fault
        except OverflowError as fault:  # a node's: what is made here is smaller
            _roll_back(db)
            raise StoreError(
                f"can't write {self.path}: a number is above what it keeps; ask another node"
            ) from fault
        except BaseException:
            _roll_back(db)
            raise

    @contextmanager
    def _synced(self) -> Iterator[None]:
        """A transaction that also a power cut doesn't take back, with all that were before it."""
        with self._lock:
            if self.power_safe:
                with self._writing():
                    yield
                return
            self._sync("FULL")
            try:
                with self._writing():
                    yield
            finally:
                self._sync("NORMAL")

    def _sync(self, how: str) -> None:
        try:
            self._db.execute(f"PRAGMA synchronous={how}")
        except sqlite3.Error as fault:
            raise StoreError(f"can't write {self.path}: {fault}") from fault

    def _rows(self, query: str, *values: Any) -> list[Any]:
        try:
            with self._lock:
                return self._db.execute(query, values).fetchall()
        except sqlite3.Error as fault:
            raise StoreError(f"can't read {self.path}: {fault}") from fault

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

    # ---- the client -----------------------------------------------------------------------------------------

    def keep_key(self, key: LaneKey, now_ms: int) -> None:
        """Keep the key of a channel or lane before the transaction that names it is sent. Synced: without it that
        transaction's money is stuck until the channel ends by itself."""
        with self._synced():
            self._db.execute(
                "INSERT OR IGNORE INTO keys (public, seed, made_ms) VALUES (?, ?, ?)",
                (key.public, key.seed, now_ms),
            )

    def key_sent(self, public: bytes, sent: Sent) -> None:
        """Keep by which transaction a kept key is used, before it is sent. Synced.

        What it deposits counts in `deposited_since` from then on, whatever a node says of it.
        """
        with self._synced():
            self._db.execute(
                "UPDATE keys SET digest = ?, chain = ? WHERE public = ?", (sent.digest, sent.chain, public)
            )
            if sent.deposit:
                self._db.execute(
                    "INSERT OR IGNORE INTO unnoted SELECT digest, ?, ?, ?, made_ms, ? FROM keys WHERE public = ?",
                    (sent.chain, sent.account, sent.coin, sent.deposit, public),
                )

    def key_kept(self, public: bytes) -> tuple[int, int]:
        """Return when a kept key was made (Unix ms, by the clock here), and what its transaction deposits, 0 where
        that isn't known."""
        query = (
            "SELECT made_ms, coalesce(amount, 0) FROM keys LEFT JOIN unnoted ON id = digest WHERE public = ?"
        )
        rows = self._rows(query, public)
        if not rows:
            raise StoreError(f"the key {public.hex()} isn't in {self.path}")
        made_ms, deposit = rows[0]
        return int(made_ms), int(deposit)

    def key_denied(self, public: bytes) -> None:
        """A node says that the transaction of a kept key did nothing. It is doubted until a later one is noted."""
        with self._writing():
            self._db.execute("UPDATE keys SET denied = 1 WHERE public = ? AND denied = 0", (public,))

    def believe_denied(self, chain: str, keys: Iterable[bytes]) -> None:
        """Doubt no more what the chain's nodes denied or know nothing of, and count it no more: the owner of these
        kept keys has looked for it himself."""
        with self._writing():
            for each in keys:
                ours = "public = ? AND digest != '' AND chain IN ('', ?)"
                self._db.execute(
                    f"DELETE FROM unnoted WHERE id IN (SELECT digest FROM keys WHERE {ours})", (each, chain)
                )
                self._db.execute(f"UPDATE keys SET denied = 2 WHERE {ours}", (each, chain))

    def sent_keys(self, chain: str, since_ms: int, *, doubted: bool = False) -> dict[bytes, str]:
        """Of kept keys that were made since then, those whose transaction on that chain is known: public key ->
        digest, the newest first. `doubted`: without those denied by a node that has opened a later one since."""
        query = (
            "SELECT public, digest FROM keys WHERE digest != '' AND chain IN ('', ?) AND made_ms >= ? "
            "AND denied < ? ORDER BY made_ms DESC"
        )
        return dict(self._rows(query, chain, since_ms, 2 if doubted else 3))

    def forget_key(self, public: bytes) -> None:
        """Forget a key that was kept for a transaction that was never sent."""
        with self._writing():
            self._db.execute("DELETE FROM keys WHERE public = ?", (public,))

    def add_bought(self, bought: Bought, lane: int, public: bytes) -> None:
        """The channel is open, and `lane` of it has the key that was kept before."""
        with self._writing():
            self._insert_bought(bought)
            self._move_key(bought.channel, lane, public)

    def add_closing(self, bought: Bought, now_ms: int) -> None:
        """A channel of ours is on its way to be closed: also one without a key here, which only carried pipes.

        What is in one that wasn't known counts as put in now, since what comes back will count when it does.
        """
        with self._writing():
            self._insert_bought(bought, now_ms)
            self._db.execute("UPDATE bought SET state = 'closing' WHERE channel = ?", (bought.channel,))

    def _insert_bought(self, bought: Bought, at_ms: int | None = None) -> None:
        is_new = self._db.execute(
            "INSERT OR IGNORE INTO bought VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                bought.channel,
                bought.chain,
                bought.host,
                bought.service,
                bought.account,
                bought.state,
                bought.opened_ms,
                bought.coin,
                bought.claim_ms,
                bought.gas,
                max(bought.refused, bought.state == "refused"),
                bought.name,
            ),
        ).rowcount
        if is_new and bought.deposited:
            at_ms = bought.opened_ms if at_ms is None else at_ms
            self._insert_deposit(bought.channel, at_ms, bought.deposited)
        self._db.execute("DELETE FROM unnoted WHERE id = ?", (bought.channel,))

    def _insert_deposit(self, channel: str, at_ms: int, amount: int, digest: str = "") -> None:
        self._db.execute("INSERT INTO deposits VALUES (?, ?, ?, ?)", (channel, at_ms, amount, digest))

    def add_deposit(self, channel: str, at_ms: int, amount: int, digest: str = "") -> None:
        """So much more goes into a channel of ours; below 0: it came back. With the digest of the transaction that is
        about to be sent it counts, but is doubted until `settle_deposit`. Synced then.

        The same transaction, signed again by who died before it was sent, is one deposit.
        """
        with self._synced() if digest else self._writing():
            if not (digest and digest in self.doubted_deposits(channel)):
                self._insert_deposit(channel, at_ms, amount, digest)

    def settle_deposit(self, channel: str, digest: str) -> None:
        """The chain has the transaction of a deposit: it is doubted no more."""
        with self._writing():
            self._db.execute(
                "UPDATE deposits SET digest = '' WHERE channel = ? AND digest = ?", (channel, digest)
            )

    def deposited(self, channel: str) -> int:
        """Return what went into a channel of ours less what came back, doubted deposits counted."""
        return sum(self.deposits(channel))

    def doubted_deposits(self, channel: str) -> dict[str, int]:
        """Return the deposits that were signed, and aren't known to be there: digest -> amount, the oldest first."""
        query = "SELECT digest, amount FROM deposits WHERE channel = ? AND digest != '' ORDER BY at_ms"
        return dict(self._rows(query, channel))

    def deposits(self, channel: str) -> list[int]:
        """Return the sums that went into a channel of ours (above 0) or came back (below), in the order of time."""
        return [amount for (amount,) in self._rows("SELECT amount FROM deposits WHERE channel = ?", channel)]

    def was_topped_up(self, channel: str, since_ms: int) -> bool:
        """Return whether a channel of ours got more than it was opened with since then, doubted deposits counted."""
        query = (
            "SELECT 1 FROM deposits JOIN bought USING (channel) "
            "WHERE channel = ? AND amount > 0 AND at_ms >= ? AND at_ms != opened_ms LIMIT 1"
        )
        return any(self._rows(query, channel, since_ms))

    def add_gas(self, channel: str, gas: int) -> None:
        """Transactions for a channel of ours took so much gas (MIST); below 0: they gave storage back."""
        with self._writing():
            self._db.execute("UPDATE bought SET gas = gas + ? WHERE channel = ?", (gas, channel))

    def add_failed(self, digest: str, at_ms: int, gas: int) -> None:
        """A transaction that was to open a channel failed, and took so much gas (MIST). Told twice it is one."""
        with self._writing():
            self._db.execute("INSERT OR IGNORE INTO failed VALUES (?, ?, ?)", (digest, at_ms, gas))

    def failed(self) -> list[tuple[int, int]]:
        """Return when (Unix ms) each opening failed, and what gas it took (MIST), the oldest first."""
        return [(at_ms, gas) for at_ms, gas in self._rows("SELECT at_ms, gas FROM failed ORDER BY at_ms")]

    def lanes_for(self, chain: str, host: str, service: int) -> list[PayerLane]:
        """Return the lanes of all channels that were ever opened here for a service: what was signed for it."""
        ours = [
            each for each in self.bought() if (each.chain, each.host, each.service) == (chain, host, service)
        ]
        return [lane for each in ours for _, lane in self.lanes(each.channel)]

    def signed_before(self, name: str, period: int, signed: int) -> tuple[int, bool]:
        """Return what had been signed when this period of a budget began, and whether it begins now: then `signed` is
        kept. A period before the newest one doesn't begin again, whatever a clock says."""
        with self._writing():
            begins = self._db.execute(
                "INSERT INTO budgets VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
                "period = excluded.period, before = excluded.before WHERE excluded.period > period",
                (name, period, signed),
            ).rowcount
            ((before,),) = self._rows("SELECT before FROM budgets WHERE name = ?", name)
        return int(before), begins > 0

    def deposited_since(self, chain: str, account: str, coin: str, since_ms: int) -> int:
        """What an account has put into channels of a coin since then, less what came back since, to whatever host."""
        query = (
            "SELECT coalesce(sum(amount), 0) FROM deposits JOIN bought USING (channel) "
            "WHERE chain = ? AND account = ? AND coin = ? AND at_ms >= ?"
        )
        ((total,),) = self._rows(query, chain, account, coin, since_ms)
        return int(total) + self.unnoted_since(chain, account, coin, since_ms)

    def unnoted_since(self, chain: str, account: str, coin: str, since_ms: int) -> int:
        """What of `deposited_since` is in no channel that is noted here: openings that nodes deny or know nothing of,
        and what `count_moved` found of others."""
        query = (
            "SELECT coalesce(sum(amount), 0) FROM unnoted "
            "WHERE chain = ? AND account = ? AND coin = ? AND at_ms >= ?"
        )
        ((total,),) = self._rows(query, chain, account, coin, since_ms)
        return int(total)

    def add_lane(self, channel: str, lane: int, public: bytes) -> None:
        """The channel has a further lane, of a key that was kept before."""
        with self._writing():
            self._move_key(channel, lane, public)

    def _move_key(self, channel: str, lane: int, public: bytes) -> None:
        row = self._db.execute("SELECT seed, chain, digest FROM keys WHERE public = ?", (public,)).fetchone()
        if row is None:
            raise StoreError(f"the key of lane {lane} of {channel} isn't in {self.path}")
        self._db.execute(
            "INSERT OR IGNORE INTO lanes (channel, lane, seed) VALUES (?, ?, ?)", (channel, lane, row[0])
        )
        self._db.execute("DELETE FROM keys WHERE public = ?", (public,))
        self._db.execute("DELETE FROM unnoted WHERE id = ?", (row[2],))
        self._db.execute("UPDATE keys SET denied = 2 WHERE denied = 1 AND chain = ?", (row[1],))

    def kept_keys(self) -> dict[bytes, LaneKey]:
        """Keys whose channel isn't known yet, by public key: an answer was lost, or we died before it came."""
        return {public: LaneKey(seed) for public, seed in self._rows("SELECT public, seed FROM keys")}

    def bought(self, channel: str | None = None) -> list[Bought]:
        """The channels that we opened, oldest first; or the one of that id."""
        query = (
            "SELECT *, (SELECT coalesce(sum(amount), 0) FROM deposits WHERE deposits.channel = bought.channel) "
            "FROM bought"
        )
        rows = self._rows(f"{query} WHERE channel = ?", channel) if channel else self._rows(query)
        return sorted((Bought(*row) for row in rows), key=lambda each: each.opened_ms)

    def set_state(self, channel: str, state: str) -> None:
        """How far a channel of ours is: "open", "refused", "closing", "closed"."""
        with self._writing():
            self._db.execute(
                "UPDATE bought SET state = ?, refused = max(refused, ?) WHERE channel = ?",
                (state, state == "refused", channel),
            )

    def lanes(self, channel: str) -> list[tuple[LaneKey, PayerLane]]:
        """The lanes of a channel that we sign for."""
        rows = self._rows(
            "SELECT lane, seed, message, signature, requests, bytes, clean, reserved_sequence, reserved_amount, "
            "believed_requests, believed_bytes FROM lanes WHERE channel = ? ORDER BY lane",
            channel,
        )
        found = []
        for lane, seed, message, signature, requests, size, clean, *kept in rows:
            newest, used = signed_of(message, signature), Usage(requests, size)
            reserved, believed = Reserved(*kept[:2]), Usage(*kept[2:])
            known = PayerLane(channel, lane, newest, used, bool(clean), reserved, believed)
            found.append((LaneKey(seed), known))
        return found

    def hold(self, channel: str, lane: int, share: Callable[[dict[int, int]], int]) -> int:
        """Keep what of the deposit the connection that has the lane's lock counts on: `share`, of what those of the
        other lanes have (by lane, 0 for nothing). No two do so at once."""
        with self._writing():
            rows = self._db.execute("SELECT lane, held FROM lanes WHERE channel = ?", (channel,))
            held = share({number: amount for number, amount in rows if number != lane})
            self._db.execute(
                "UPDATE lanes SET held = ? WHERE channel = ? AND lane = ?", (held, channel, lane)
            )
        return held

    def held(self, channel: str) -> dict[int, int]:
        """Return what of the deposit connections count on by `hold`, by lane."""
        return dict(self._rows("SELECT lane, held FROM lanes WHERE channel = ?", channel))

    def begin_lane(self, channel: str, lane: int) -> None:
        """A connection begins: until `end_lane` says otherwise it broke off."""
        with self._writing():
            self._db.execute("UPDATE lanes SET clean = 0 WHERE channel = ? AND lane = ?", (channel, lane))

    def reserve(self, channel: str, lane: int, reserved: Reserved) -> None:
        """Keep that vouchers up to this sequence and amount may be signed, before the first of them is. Synced.

        What was reserved before stays so.
        """
        with self._synced():
            changed = self._db.execute(
                "UPDATE lanes SET reserved_sequence = max(reserved_sequence, ?), "
                "reserved_amount = max(reserved_amount, ?) WHERE channel = ? AND lane = ?",
                (*reserved, channel, lane),
            ).rowcount
            if not changed:
                raise StoreError(f"lane {lane} of {channel} isn't in {self.path}")

    def believe(self, channel: str, lane: int, believed: Usage) -> None:
        """Keep how much of a lane is believed that never arrived, before it is signed for. Synced."""
        with self._synced():
            self._db.execute(
                "UPDATE lanes SET believed_requests = ?, believed_bytes = ? WHERE channel = ? AND lane = ?",
                (*believed, channel, lane),
            )

    def signed(self, signed: SignedVoucher, used: Usage) -> None:
        """Keep a voucher that we signed; `used` is our count. An older one changes nothing."""
        with self._writing():
            self._keep_signed(signed, used)

    def _keep_signed(self, signed: SignedVoucher, used: Usage) -> None:
        voucher = signed.voucher
        row = self._db.execute(
            "SELECT message, signature FROM lanes WHERE channel = ? AND lane = ?",
            (voucher.channel, voucher.lane),
        ).fetchone()
        if row is None:
            raise StoreError(f"lane {voucher.lane} of {voucher.channel} isn't in {self.path}")
        newest = signed_of(*row)
        if newest is not None and newest.voucher.sequence >= voucher.sequence:
            if newest.voucher.sequence == voucher.sequence and newest != signed:
                raise StoreError(
                    f"voucher {voucher.sequence} of {voucher.channel} was signed otherwise before"
                )
            return
        self._db.execute(
            "UPDATE lanes SET message = ?, signature = ?, requests = max(requests, ?), bytes = max(bytes, ?) "
            "WHERE channel = ? AND lane = ?",
            (encode_voucher(voucher), signed.signature, *used, voucher.channel, voucher.lane),
        )

    def end_lane(
        self,
        channel: str,
        lane: int,
        used: Usage,
        newest: SignedVoucher | None,
        *,
        clean: bool,
        before: Reserved = UNRESERVED,
        believed: Usage = NOTHING,
    ) -> None:
        """A connection is over: our count and what of it is only `believed`, the newest voucher of all, and whether
        the server came to no more.

        What this connection reserved and didn't sign is free again; what was reserved `before` it, by one that died,
        only when a voucher above it was signed.
        """
        with self._writing():
            if newest is not None:
                self._keep_signed(newest, used)
            signed = Reserved(newest.voucher.sequence, newest.voucher.amount) if newest else UNRESERVED
            sequence, amount = signed if signed.sequence > before.sequence else before
            self._db.execute(
                "UPDATE lanes SET requests = ?, bytes = ?, clean = ?, reserved_sequence = ?, reserved_amount = ?, "
                "believed_requests = ?, believed_bytes = ?, held = 0 WHERE channel = ? AND lane = ?",
                (*used, clean, sequence, amount, *believed, channel, lane),
            )

    # ---- the server -----------------------------------------------------------------------------------------

    def sold_lane(self, channel: str, lane: int) -> PayeeLane:
        """What is known of a lane that pays us; a new one when nothing is."""
        rows = self._rows(
            "SELECT message, signature, requests, bytes, preimage FROM sold WHERE channel = ? AND lane = ?",
            channel,
            lane,
        )
        return sold_lane_of(channel, lane, rows)

    def sold(self, channel: str | None = None) -> list[Sold]:
        """The lanes that hold a voucher: of one channel, or all of those that aren't over."""
        query = "SELECT channel, lane, message, signature, preimage FROM sold WHERE message IS NOT NULL"
        if channel is not None:
            rows = self._rows(f"{query} AND channel = ? ORDER BY lane", channel)
        else:
            over = "SELECT channel FROM ends WHERE state = 'over'"
            rows = self._rows(f"{query} AND channel NOT IN ({over}) ORDER BY channel, lane")
        return sold_of(rows)

    def vouched(self, channel: str) -> dict[int, int]:
        """Lane -> what its newest voucher comes to."""
        return dict(self._rows("SELECT lane, amount FROM sold WHERE channel = ?", channel))

    def received_all(self, received: Iterable[tuple[SignedVoucher, Usage]]) -> list[bool]:
        """Keep vouchers whose signatures are good, before they count, in one transaction; which of them were new.

        Where another as new, or one for more, is here already, nothing changes.
        """
        with self._writing():
            return [_keep_received(self._db, each, used) for each, used in received]

    def receive_now(self, received: Iterable[tuple[SignedVoucher, Usage]]) -> list[bool] | None:
        """`received_all` without a sync, which `sync` makes up for before anything of it counts, and without waiting:
        None where another writes, with nothing written."""
        if self.path == ":memory:" or self._unsynced or not self._prompt_lock.acquire(blocking=False):
            return None
        try:
            db = self._prompt or self._open_prompt()
            with self._transaction(db):
                return [_keep_received(db, each, used) for each, used in received]
        except StoreError as fault:
            if getattr(fault.__cause__, "sqlite_errorcode", 0) & _PRIMARY == sqlite3.SQLITE_BUSY:
                return None
            raise
        finally:
            self._prompt_lock.release()

    def _open_prompt(self) -> sqlite3.Connection:
        """A connection that neither waits nor syncs, nor moves what it wrote from the log into the file."""
        try:
            db = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
            for pragma in ("synchronous=NORMAL", "wal_autocheckpoint=0"):
                db.execute(f"PRAGMA {pragma}")
        except sqlite3.Error as fault:
            raise StoreError(f"can't open the store of vouchers {self.path}: {fault}") from fault
        self._prompt = db
        return db

    def sync(self) -> None:
        """What `receive_now` wrote is there after a power cut.

        A commit of SQLite's with `synchronous=FULL` is a write to its log and this; what is not in the log any more
        was synced when it was moved into the file.
        """
        try:
            with self._lock:
                if self._log < 0:
                    self._log = os.open(f"{self.path}-wal", os.O_RDWR | os.O_CLOEXEC)
                if self.power_safe:
                    _sync_data(self._log)
                self._logged += 1
                if self._logged >= _LOGGED:
                    self._logged = 0
                    self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except (OSError, sqlite3.Error) as fault:
            self._unsynced = True
            raise StoreError(f"can't write {self.path}: {fault}; is the disk full?") from fault

    def keep_preimage(self, channel: str, lane: int, preimage: bytes) -> None:
        """Keep the key of a locked charge before it is asked for: who is paid under a lock has to be able to open it.

        The preimage of a voucher that is still locked is not replaced: `StoreError`.
        """
        with self._writing():
            newest = self.sold_lane(channel, lane).newest
            if newest is not None and newest.voucher.hash_lock is not None:
                raise StoreError(f"the newest voucher of lane {lane} of {channel} is still locked")
            self._db.execute(
                "INSERT INTO sold (channel, lane, preimage) VALUES (?, ?, ?) "
                "ON CONFLICT (channel, lane) DO UPDATE SET preimage = excluded.preimage",
                (channel, lane, preimage),
            )

    def served(self, channel: str, lane: int, used: Usage) -> None:
        """A connection is over, or goes on: what was served on the lane, paid or not."""
        with self._writing():
            self._db.execute(
                "INSERT INTO sold (channel, lane, requests, bytes) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (channel, lane) DO UPDATE SET "
                "requests = max(requests, excluded.requests), bytes = max(bytes, excluded.bytes)",
                (channel, lane, *used),
            )

    def pass_used(self, pass_: str, period: int) -> Usage:
        """What was used under a pass in one of its periods."""
        rows = self._rows("SELECT requests, bytes FROM passes WHERE pass = ? AND period = ?", pass_, period)
        return Usage(*rows[0]) if rows else Usage()

    def add_pass_used(self, pass_: str, period: int, more: Usage) -> None:
        """So much more was used under a pass, or, below 0, is given back of a lease; older periods are forgotten."""
        with self._writing():
            self._add_pass_used(pass_, period, more)

    def _add_pass_used(self, pass_: str, period: int, more: Usage) -> None:
        self._db.execute("DELETE FROM passes WHERE pass = ? AND period < ?", (pass_, period))
        self._db.execute(
            "INSERT INTO passes VALUES (?, ?, ?, ?) ON CONFLICT (pass, period) DO UPDATE SET "
            "requests = requests + excluded.requests, bytes = bytes + excluded.bytes",
            (pass_, period, *more),
        )

    def lease_pass(self, pass_: str, period: int, wanted: Usage, quota: Usage) -> Usage:
        """Count `wanted` as used of a pass before it is, as far as its quota goes; return how much of it was counted.

        A count without a quota (0) is not bounded, and not counted.
        """
        with self._writing():
            given = leased(self.pass_used(pass_, period), wanted, quota)
            if any(given):
                self._add_pass_used(pass_, period, given)
        return given

    def agree(self, channel: str, total: int, not_after_ms: int, chain: str) -> End:
        """Keep that the channel of a chain (its id) is to be closed for `total`, before the signature leaves; the
        first agreement stands.

        From here on nothing more is served on it: a later voucher would not be in the total.
        """
        with self._writing():
            self._db.execute(
                "INSERT OR IGNORE INTO ends (channel, total, not_after_ms, state, chain) "
                "VALUES (?, ?, ?, 'agreed', ?)",
                (channel, total, str(not_after_ms), chain),
            )
            end = self.end_of(channel)
        assert end is not None
        return end

    def over(self, channel: str) -> None:
        """The channel is closed on chain: nothing can be claimed any more."""
        with self._writing():
            self._db.execute(
                "INSERT INTO ends (channel, total, not_after_ms, state) VALUES (?, 0, '0', 'over') "
                "ON CONFLICT (channel) DO UPDATE SET state = 'over'",
                (channel,),
            )

    def end_of(self, channel: str) -> End | None:
        """The agreed or known end of a channel, None while it goes on."""
        rows = self._rows("SELECT total, not_after_ms, state, chain FROM ends WHERE channel = ?", channel)
        return end_of_row(channel, rows[0]) if rows else None


def _keep_received(db: sqlite3.Connection, signed: SignedVoucher, used: Usage) -> bool:
    """Within a transaction: keep a voucher if it is new and for no less. Whether it is the one that is kept now."""
    voucher = signed.voucher
    changed = db.execute(
        "INSERT INTO sold VALUES (:channel, :lane, :message, :signature, :sequence, :amount, "
        ":vouched_requests, :vouched_bytes, :requests, :bytes, NULL) "
        "ON CONFLICT (channel, lane) DO UPDATE SET message = :message, signature = :signature, "
        "sequence = :sequence, amount = :amount, vouched_requests = :vouched_requests, "
        "vouched_bytes = :vouched_bytes, requests = max(requests, :requests), bytes = max(bytes, :bytes) "
        # A newer voucher for less would take the place of money; whoever checked it has overlooked something.
        "WHERE :sequence > sequence AND :amount >= amount AND :vouched_requests >= vouched_requests "
        "AND :vouched_bytes >= vouched_bytes",
        {
            "channel": voucher.channel,
            "lane": voucher.lane,
            "message": encode_voucher(voucher),
            "signature": signed.signature,
            "sequence": voucher.sequence,
            "amount": voucher.amount,
            "vouched_requests": voucher.requests,
            "vouched_bytes": voucher.bytes,
            "requests": used.requests,
            "bytes": used.bytes,
        },
    ).rowcount
    if changed:
        return True
    row = db.execute(
        "SELECT message, signature FROM sold WHERE channel = ? AND lane = ?", (voucher.channel, voucher.lane)
    ).fetchone()
    return signed_of(*row) == signed


def _roll_back(db: sqlite3.Connection) -> None:
    # SQLite has done it already after some errors, a full disk among them.
    if db.in_transaction:
        db.execute("ROLLBACK")


def _is_missing(path: str) -> bool:
    """Whether there is no such file; of one that may not be looked at that isn't known."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _sync_data(file: int) -> None:
    """`fdatasync`, where the system has it."""
    getattr(os, "fdatasync", os.fsync)(file)


def signed_of(message: bytes | None, signature: bytes | None) -> SignedVoucher | None:
    """A voucher as it was stored, None where a row has none."""
    return SignedVoucher(decode_voucher(bytes(message)), bytes(signature)) if message and signature else None


def sold_lane_of(channel: str, lane: int, rows: Sequence[Sequence[Any]]) -> PayeeLane:
    """A lane out of the row that it has, if any: message, signature, requests, bytes, preimage."""
    if not rows:
        return PayeeLane(channel, lane)
    message, signature, requests, size, preimage = rows[0]
    used = Usage(int(requests), int(size))
    return PayeeLane(channel, lane, signed_of(message, signature), used, preimage)


def end_of_row(channel: str, row: Sequence[Any]) -> End:
    """A channel's end out of its row: total, not_after_ms, state, chain."""
    total, not_after_ms, state, chain = row
    return End(channel, int(total), int(not_after_ms), state == "over", chain)


def sold_of(rows: Iterable[Sequence[Any]]) -> list[Sold]:
    """Lanes out of rows that have a voucher: channel, lane, message, signature, preimage."""
    found = []
    for channel, lane, message, signature, preimage in rows:
        newest = signed_of(message, signature)
        assert newest is not None  # the query leaves the others out
        found.append(Sold(channel, lane, newest, preimage))
    return found
