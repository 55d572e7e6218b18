"""Vouchers received by several daemons of one host, in PostgreSQL: `[chain] vouchers = "postgresql://..."`.

Whichever daemon a caller connects to knows what its lane has paid, and any of them can claim it. Requires `pip
install 'dtp-sockets[state-postgres]'`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from dtp.daemon.state.errors import StateUnusable
from dtp.errors import ConfigError
from dtp.pay.errors import NoStore, StoreError
from dtp.pay.server.stored_vouchers import PayeeLane
from dtp.pay.store.holding import ChannelHolds
from dtp.pay.store.rows import End, Sold
from dtp.pay.store.sold import end_of_row, signed_of, sold_lane_of, sold_of
from dtp.pay.terms import Usage, leased
from dtp.pay.voucher import SignedVoucher, encode_voucher

try:
    import psycopg

    from dtp.postgresql import (
        ALIVE,
        ALIVE_THERE,
        PATIENCE,
        describe_fault,
        find_wrong_setting,
        hang_up,
        limit_there,
        what_mends,
    )
except ImportError as error:
    raise ConfigError(
        "PostgreSQL for vouchers takes a package: pip install 'dtp-sockets[state-postgres]'"
    ) from error

_Database = psycopg.Connection[tuple[Any, ...]]

_TABLES = (
    """
CREATE TABLE IF NOT EXISTS dtp_sold (
    channel text NOT NULL, lane integer NOT NULL, message bytea, signature bytea,
    sequence numeric(20) NOT NULL DEFAULT 0, amount numeric(20) NOT NULL DEFAULT 0,
    vouched_requests numeric(20) NOT NULL DEFAULT 0, vouched_bytes numeric(20) NOT NULL DEFAULT 0,
    requests numeric(20) NOT NULL DEFAULT 0, bytes numeric(20) NOT NULL DEFAULT 0, preimage bytea,
    PRIMARY KEY (channel, lane)
)
""",
    """
CREATE TABLE IF NOT EXISTS dtp_passes (
    pass text NOT NULL, period bigint NOT NULL, requests numeric(20) NOT NULL, bytes numeric(20) NOT NULL,
    PRIMARY KEY (pass, period)
)
""",
    """
CREATE TABLE IF NOT EXISTS dtp_ends (
    channel text PRIMARY KEY, total numeric(20) NOT NULL, not_after_ms numeric(20) NOT NULL, state text NOT NULL
)
""",
    "ALTER TABLE dtp_ends ADD COLUMN IF NOT EXISTS chain text NOT NULL DEFAULT ''",
)
#: One daemon at a time: if two created the tables at once, they would collide in the catalogue.
_LOCK = "SELECT pg_advisory_xact_lock(7238)"
_RECEIVE = """
INSERT INTO dtp_sold AS known (channel, lane, message, signature, sequence, amount, vouched_requests, vouched_bytes,
    requests, bytes)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (channel, lane) DO UPDATE SET message = excluded.message, signature = excluded.signature,
    sequence = excluded.sequence, amount = excluded.amount, vouched_requests = excluded.vouched_requests,
    vouched_bytes = excluded.vouched_bytes, requests = greatest(known.requests, excluded.requests),
    bytes = greatest(known.bytes, excluded.bytes)
WHERE excluded.sequence > known.sequence AND excluded.amount >= known.amount
    AND excluded.vouched_requests >= known.vouched_requests AND excluded.vouched_bytes >= known.vouched_bytes
"""
# An advisory lock of 64 bits is listed in two halves, with a third number that says so.
_HELD = """
SELECT channel FROM unnest(%s::text[]) AS channel WHERE hashtextextended(channel, 7240) IN (
    SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
"""
_SOLD = "SELECT channel, lane, message, signature, preimage FROM dtp_sold WHERE message IS NOT NULL"


@contextmanager
def _bounded(database: _Database, seconds: float) -> Iterator[None]:
    """Close the connection if the server hasn't answered by then. What its session held is lost with it."""
    timer = threading.Timer(seconds, hang_up, (database.fileno(),))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class VouchersAway(StoreError):
    """Raised when the database can't be reached at the start. Trying again may help."""

    code = "pay-store-away"


class PostgresVouchers:
    """A `VoucherStore` for what is sold. Keys to pay with stay in a separate file.

    Channels are held by advisory locks, which end with the database session. What was held in a broken session is
    lost: another daemon may have served the channel since, so nothing more is stored for it until it was freed.
    """

    def __init__(self, url: str, *, make: bool = True, patience: float = PATIENCE) -> None:
        """Connect, and create the tables if they don't exist; with `make` False, raise `NoStore` instead.
        `patience`: seconds for a transaction. Meanwhile served requests stay unpaid, and a daemon that ends waits.

        Raise `StoreError`, `VouchersAway`, and `StateUnusable` where the server refuses permanently.
        """
        self._url, self._patience = url, patience
        self._lock = threading.RLock()
        self._database: _Database | None = None
        self._held: dict[str, int] = {}
        self._lost: dict[str, int] = {}
        try:
            with self._begin_transaction() as database:
                if make:
                    database.execute(_LOCK)
                    for table in _TABLES:
                        database.execute(table)
        except StoreError as error:
            mended = what_mends(error.__cause__, url, connected=self._database is not None)
            if mended is not None:
                raise StateUnusable(f"[chain] {error}; {mended}") from error
            raise VouchersAway(str(error)) from error
        if self._query_rows("SELECT to_regclass('dtp_sold')") == [(None,)]:
            self.close()
            raise NoStore("no store in that PostgreSQL database: no daemon has kept vouchers there")

    @contextmanager
    def _begin_transaction(self) -> Iterator[_Database]:
        try:
            with self._lock:
                if self._database is None or self._database.closed:
                    self._database = psycopg.connect(self._url, autocommit=True, **ALIVE)
                    with _bounded(self._database, self._patience):
                        self._database.execute(f"{ALIVE_THERE}; {limit_there(self._patience)}")
                    # The two never overlap: what was lost isn't held again before it was freed.
                    self._lost |= self._held
                    self._held.clear()
                with _bounded(self._database, self._patience), self._database.transaction():
                    yield self._database
        except (psycopg.Error, OSError) as error:
            words = describe_fault(error, self._url)
            raise StoreError(f"the vouchers in PostgreSQL: {words}") from error

    def close(self) -> None:
        """Disconnect. Idempotent."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _query_rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._begin_transaction() as database:
            return database.execute(query, values).fetchall()

    @property
    def is_shared(self) -> bool:
        """True: daemons on several machines share the database."""
        return True

    def open_holds(self) -> ChannelHolds:
        """Return this object, which belongs to one daemon, as do the channels it holds."""
        return self

    def is_claimer(self) -> bool:
        """True if this daemon may claim: the first that asks, as long as it is connected."""
        return bool(self._query_rows("SELECT pg_try_advisory_lock(7239)")[0][0])

    def hold_channel(self, channel: str) -> bool:
        """Hold a channel, once more if it is held here. Return False while another daemon holds it, or it was lost
        here."""
        with self._begin_transaction() as database:
            if channel in self._lost:
                return False
            if channel not in self._held:
                query = "SELECT pg_try_advisory_lock(hashtextextended(%s, 7240))"
                row = database.execute(query, (channel,)).fetchone()
                if row is None or not row[0]:
                    return False
            self._held[channel] = self._held.get(channel, 0) + 1
        return True

    def free(self, channel: str) -> None:
        """Undo one `hold_channel`. Works even where the database is unavailable, but raises `StoreError` then: the
        locks have ended with the session."""
        with self._lock:
            counts = self._lost if channel in self._lost else self._held
            left = counts.pop(channel, 0) - 1
            if left > 0:
                counts[channel] = left
            elif counts is self._held and left == 0:
                self._query_rows("SELECT pg_advisory_unlock(hashtextextended(%s, 7240))", channel)

    def held_channels(self, channels: Iterable[str]) -> set[str]:
        """Return those of the channels that any daemon holds."""
        return {channel for (channel,) in self._query_rows(_HELD, list(channels))}

    def _refuse_lost(self, channels: Iterable[str]) -> None:
        """Raise `StoreError` if one of these channels was lost. Called within a transaction, which notices a broken
        session."""
        for channel in channels:
            if channel in self._lost:
                raise StoreError(
                    f"channel {channel} was held in a session of PostgreSQL that has broken: another daemon may have "
                    "served it since, so its caller has to come again"
                )

    # ---- VoucherStore ------------------------------------------------------------------------------------------

    def sold_lane(self, channel: str, lane: int) -> PayeeLane:
        """Return what is known of a lane that pays us, or a new one. Raise `StoreError`."""
        rows = self._query_rows(
            "SELECT message, signature, requests, bytes, preimage FROM dtp_sold WHERE channel = %s AND lane = %s",
            *(channel, lane),
        )
        return sold_lane_of(channel, lane, rows)

    def sold_lanes(self, channel: str | None = None) -> list[Sold]:
        """Return the lanes with a voucher, of one channel or of all that aren't over. Raise `StoreError`."""
        if channel is not None:
            rows = self._query_rows(f"{_SOLD} AND channel = %s ORDER BY lane", channel)
        else:
            over = "SELECT channel FROM dtp_ends WHERE state = 'over'"
            rows = self._query_rows(f"{_SOLD} AND channel NOT IN ({over}) ORDER BY channel, lane")
        return sold_of(rows)

    def vouched_sums(self, channel: str) -> dict[int, int]:
        """Return the amount of each lane's newest voucher. Raise `StoreError`."""
        rows = self._query_rows("SELECT lane, amount FROM dtp_sold WHERE channel = %s", channel)
        return {lane: int(amount) for lane, amount in rows}

    def received_all(self, received: Iterable[tuple[SignedVoucher, Usage]]) -> list[bool]:
        """Store vouchers with valid signatures, either all or none; return which of them were new. Raise
        `StoreError`."""
        given = list(received)
        kept: dict[int, bool] = {}
        with self._begin_transaction() as database:
            self._refuse_lost(signed.voucher.channel for signed, _ in given)
            # In a fixed order, or two daemons that write the same rows could deadlock.
            lanes = [(signed.voucher.channel, signed.voucher.lane) for signed, _ in given]
            for at in sorted(range(len(given)), key=lanes.__getitem__):
                kept[at] = self._store_voucher(database, *given[at])
        return [kept[at] for at in range(len(given))]

    @staticmethod
    def _store_voucher(database: _Database, signed: SignedVoucher, used: Usage) -> bool:
        voucher = signed.voucher
        values = (
            *(voucher.channel, voucher.lane, encode_voucher(voucher), signed.signature, voucher.sequence),
            *(voucher.amount, voucher.requests, voucher.bytes, used.requests, used.bytes),
        )
        if database.execute(_RECEIVE, values).rowcount:
            return True
        row = database.execute(
            "SELECT message, signature FROM dtp_sold WHERE channel = %s AND lane = %s",
            (voucher.channel, voucher.lane),
        ).fetchone()
        return row is not None and signed_of(*row) == signed

    def keep_preimage(self, channel: str, lane: int, preimage: bytes) -> None:
        """Store the key of a locked charge before it is asked for. Raise `StoreError`, also while a lock is
        open."""
        with self._begin_transaction() as database:
            self._refuse_lost([channel])
            newest = self.sold_lane(channel, lane).newest
            if newest is not None and newest.voucher.hash_lock is not None:
                raise StoreError(f"the newest voucher of lane {lane} of {channel} is still locked")
            database.execute(
                "INSERT INTO dtp_sold (channel, lane, preimage) VALUES (%s, %s, %s) "
                "ON CONFLICT (channel, lane) DO UPDATE SET preimage = excluded.preimage",
                (channel, lane, preimage),
            )

    def save_served(self, channel: str, lane: int, used: Usage) -> None:
        """Store what was served on the lane so far, whether paid or not. Raise `StoreError`."""
        with self._begin_transaction() as database:
            database.execute(
                "INSERT INTO dtp_sold AS known (channel, lane, requests, bytes) VALUES (%s, %s, %s, %s) "
                "ON CONFLICT (channel, lane) DO UPDATE SET requests = greatest(known.requests, excluded.requests), "
                "bytes = greatest(known.bytes, excluded.bytes)",
                (channel, lane, *used),
            )

    def pass_used(self, pass_: str, period: int) -> Usage:
        """Return what was used under a pass in one of its periods. Raise `StoreError`."""
        query = "SELECT requests, bytes FROM dtp_passes WHERE pass = %s AND period = %s"
        rows = self._query_rows(query, pass_, period)
        return Usage(int(rows[0][0]), int(rows[0][1])) if rows else Usage()

    def add_pass_used(self, pass_: str, period: int, more: Usage) -> None:
        """Add to what was used under a pass (which may be negative), and remove older periods. Raise
        `StoreError`."""
        with self._begin_transaction() as database:
            database.execute("DELETE FROM dtp_passes WHERE pass = %s AND period < %s", (pass_, period))
            database.execute(
                "INSERT INTO dtp_passes AS known VALUES (%s, %s, %s, %s) ON CONFLICT (pass, period) DO UPDATE SET "
                "requests = known.requests + excluded.requests, bytes = known.bytes + excluded.bytes",
                (pass_, period, *more),
            )

    def lease_pass(self, pass_: str, period: int, wanted: Usage, quota: Usage) -> Usage:
        """Count `wanted` as used, as far as the quota allows; return what was counted. Raise `StoreError`."""
        with self._begin_transaction() as database:
            database.execute("DELETE FROM dtp_passes WHERE pass = %s AND period < %s", (pass_, period))
            database.execute(
                "INSERT INTO dtp_passes VALUES (%s, %s, 0, 0) ON CONFLICT DO NOTHING", (pass_, period)
            )
            rows = database.execute(  # others wait here until the row is written
                "SELECT requests, bytes FROM dtp_passes WHERE pass = %s AND period = %s FOR UPDATE",
                (pass_, period),
            ).fetchall()
            given = leased(Usage(int(rows[0][0]), int(rows[0][1])), wanted, quota)
            database.execute(
                "UPDATE dtp_passes SET requests = requests + %s, bytes = bytes + %s WHERE pass = %s AND period = %s",
                (*given, pass_, period),
            )
        return given

    def save_agreement(self, channel: str, total: int, not_after_ms: int, chain: str) -> End:
        """Store that the channel is to be closed for `total`. Return the stored end, which of two is the one that
        is valid longer. Raise `StoreError`."""
        with self._begin_transaction() as database:
            self._refuse_lost([channel])
            database.execute(
                "INSERT INTO dtp_ends VALUES (%s, %s, %s, 'agreed', %s) ON CONFLICT (channel) DO UPDATE SET "
                "total = excluded.total, not_after_ms = excluded.not_after_ms, chain = excluded.chain "
                "WHERE dtp_ends.state = 'agreed' AND dtp_ends.not_after_ms < excluded.not_after_ms",
                (channel, total, not_after_ms, chain),
            )
            end = self.end_of(channel)
        assert end is not None
        return end

    def mark_closed(self, channel: str) -> None:
        """Store that the channel is closed on the chain, so that nothing can be claimed any more. Raise
        `StoreError`."""
        with self._begin_transaction() as database:
            database.execute(
                "INSERT INTO dtp_ends VALUES (%s, 0, 0, 'over') "
                "ON CONFLICT (channel) DO UPDATE SET state = 'over'",
                (channel,),
            )

    def end_of(self, channel: str) -> End | None:
        """Return the agreed or known end of a channel; None while it goes on. Raise `StoreError`."""
        rows = self._query_rows(
            "SELECT total, not_after_ms, state, chain FROM dtp_ends WHERE channel = %s", channel
        )
        return end_of_row(channel, rows[0]) if rows else None


def check_url(url: str) -> None:
    """Raise `StateUnusable` for a URL that the client doesn't accept, or that names unusable files. No server is
    asked."""
    if (wrong := find_wrong_setting(url)) is not None:
        raise StateUnusable(f"[chain] PostgreSQL: {wrong}")
