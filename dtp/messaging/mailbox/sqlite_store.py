"""A store of mailboxes in a SQLite file."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Sequence
from typing import Final

from dtp.messaging.database import Database
from dtp.messaging.ends.keys import LIFETIME_MS, are_older
from dtp.messaging.errors import StoreFailed
from dtp.messaging.mailbox.limits import MIB, MailboxLimits
from dtp.messaging.mailbox.protocol import Refusal
from dtp.messaging.mailbox.stamps import DEFAULT_BITS
from dtp.messaging.mailbox.store import (
    DONE,
    NOTED,
    SWEEP,
    Deposit,
    KeptEnvelope,
    MailboxStore,
    Outcome,
    Recipient,
    StampFacts,
    Status,
    Tray,
    access_hash,
    add_room,
    instance_of,
    piece_hash,
    take_fitting,
)
from dtp.messaging.packing import MAX_NUMBER

log = logging.getLogger("dtp.messaging")

#: SQLite's id of the file: "dtpm".
_APPLICATION: Final = 0x6474706D
#: Pages of 4 KiB that are returned to the file system when contents have expired.
_GIVEN_BACK: Final = 256

_SCHEMA: Final = f"""
CREATE TABLE recipients (
    id INTEGER PRIMARY KEY, device BLOB NOT NULL UNIQUE, keys BLOB NOT NULL, sequence INTEGER NOT NULL,
    access BLOB NOT NULL DEFAULT x'', bits INTEGER NOT NULL DEFAULT {DEFAULT_BITS},
    count INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
    strangers INTEGER NOT NULL DEFAULT 0, strangers_bytes INTEGER NOT NULL DEFAULT 0,
    card BLOB NOT NULL DEFAULT x'', reserved INTEGER NOT NULL DEFAULT 0, paid_until INTEGER NOT NULL DEFAULT 0,
    stamp_mib INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE envelopes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, recipient INTEGER NOT NULL, tray INTEGER NOT NULL,
    received INTEGER NOT NULL, expires INTEGER NOT NULL, digest BLOB NOT NULL, body BLOB NOT NULL
);
CREATE UNIQUE INDEX envelopes_once ON envelopes (recipient, digest);
CREATE INDEX envelopes_order ON envelopes (recipient, tray, id);
CREATE INDEX envelopes_expire ON envelopes (expires);
CREATE TABLE one_time (recipient INTEGER NOT NULL, key BLOB NOT NULL, PRIMARY KEY (recipient, key)) WITHOUT ROWID;
CREATE TABLE pieces (
    hash BLOB PRIMARY KEY, recipient INTEGER NOT NULL, expires INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX pieces_expire ON pieces (expires);
CREATE INDEX pieces_owner ON pieces (recipient);
CREATE TABLE stamps (
    recipient INTEGER NOT NULL, hash BLOB NOT NULL, uses INTEGER NOT NULL, expires INTEGER NOT NULL,
    PRIMARY KEY (recipient, hash)
) WITHOUT ROWID;
CREATE INDEX stamps_expire ON stamps (expires)
"""
#: Added when a file is opened, since older files don't have it.
_SWEPT: Final = "CREATE TABLE IF NOT EXISTS swept (one INTEGER PRIMARY KEY, at INTEGER NOT NULL)"
#: The fields of a `Recipient`.
_RECIPIENT: Final = (
    "SELECT id, access, bits, count, bytes, strangers, strangers_bytes, reserved, paid_until, stamp_mib "
    "FROM recipients WHERE device = ?"
)
#: How many envelopes a paid stamp still lets in.
_STAMP: Final = "SELECT uses FROM stamps WHERE recipient = ? AND hash = ? AND expires > ?"


class SqliteMailbox(MailboxStore):
    """A mailbox in a file, or with ":memory:" one that is gone with the object. Only one process may use it."""

    def __init__(
        self, path: str | os.PathLike[str] = ":memory:", limits: MailboxLimits | None = None
    ) -> None:
        self.limits = limits or MailboxLimits()
        self._told_full = False
        self._database = Database(path, application=_APPLICATION, schema=_SCHEMA)
        try:
            with self._database.transaction() as db:
                db.execute(_SWEPT)
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        self._database.close()

    def _has_disk(self) -> bool:
        """Return whether enough of the disk is free to keep more, so that other programs aren't affected."""
        if self._database.path == ":memory:" or not self.limits.disk_free:
            return True
        try:
            free = shutil.disk_usage(self._database.path).free
        except OSError as fault:
            raise StoreFailed(f"can't read how much of the disk is free: {fault}") from fault
        is_full = free < self.limits.disk_free
        if is_full and not self._told_full:
            log.warning(
                "nothing more is kept, since the disk of %s has %d MiB free: %d have to stay",
                *(self._database.path, free // MIB, self.limits.disk_free // MIB),
            )
        self._told_full = is_full
        return not is_full

    # ---- devices -----------------------------------------------------------------------------------------------

    def publish_keys(
        self, device: bytes, sequence: int, keys: bytes, one_time: Sequence[bytes], latest: int = MAX_NUMBER
    ) -> Outcome:
        with self._database.transaction() as db:
            found = db.execute(
                "SELECT id, sequence, keys FROM recipients WHERE device = ?", (device,)
            ).fetchone()
            if found is None:
                if not self._has_disk():
                    return Outcome(Refusal.NOT_STORED)
                if not self._has_room(db) and not self._forget_ended(db, sequence):
                    return Outcome(Refusal.FULL)
                values = (device, keys, sequence)
                number = db.execute(
                    "INSERT INTO recipients (device, keys, sequence) VALUES (?, ?, ?)", values
                ).lastrowid
            else:
                number, known, before = found
                if are_older((sequence, keys), (known, before), latest):
                    return Outcome(Refusal.OLDER_KEYS)
                if keys != before:
                    db.execute(
                        "UPDATE recipients SET keys = ?, sequence = ? WHERE id = ?", (keys, sequence, number)
                    )
                    if instance_of(keys) != instance_of(before):
                        db.execute("DELETE FROM one_time WHERE recipient = ?", (number,))
            left = self.limits.one_time_keys - _count_keys(db, number)
            rows = [(number, each) for each in one_time[: max(left, 0)]]
            db.executemany("INSERT OR IGNORE INTO one_time VALUES (?, ?)", rows)
        return DONE

    def _has_room(self, db: sqlite3.Connection) -> bool:
        ((count,),) = db.execute("SELECT COUNT(*) FROM recipients")
        return bool(count < self.limits.recipients)

    def _forget_ended(self, db: sqlite3.Connection, sequence: int) -> bool:
        """Delete devices for which nothing waits and whose keys have expired by then. Return True if there were
        any.
        """
        ended = "SELECT id FROM recipients WHERE sequence < ? AND count = 0 AND bytes = 0 AND paid_until * 1000 < ?"
        before = (sequence - LIFETIME_MS, sequence)
        for table in ("one_time", "stamps"):
            db.execute(f"DELETE FROM {table} WHERE recipient IN ({ended})", before)
        return db.execute(f"DELETE FROM recipients WHERE id IN ({ended})", before).rowcount > 0

    def take_keys(self, device: bytes) -> tuple[bytes, bytes] | None:
        with self._database.transaction() as db:
            found = db.execute("SELECT id, keys FROM recipients WHERE device = ?", (device,)).fetchone()
            if found is None:
                return None
            number, keys = found
            one = db.execute(
                "DELETE FROM one_time WHERE (recipient, key) IN "
                "(SELECT recipient, key FROM one_time WHERE recipient = ? LIMIT 1) RETURNING key",
                (number,),
            ).fetchall()
            return keys, one[0][0] if one else b""

    def set_access(self, device: bytes, access: bytes, bits: int, stamp_mib: int = 0) -> Outcome:
        with self._database.transaction() as db:
            changed = db.execute(
                "UPDATE recipients SET access = ?, bits = ?, stamp_mib = ? WHERE device = ?",
                (access, bits, stamp_mib, device),
            ).rowcount
        return DONE if changed else Outcome(Refusal.UNKNOWN_RECIPIENT)

    def put_card(self, device: bytes, card: bytes) -> Outcome:
        if not self._has_disk():
            return Outcome(Refusal.NOT_STORED)
        with self._database.transaction() as db:
            changed = db.execute("UPDATE recipients SET card = ? WHERE device = ?", (card, device)).rowcount
        return DONE if changed else Outcome(Refusal.UNKNOWN_RECIPIENT)

    def get_card(self, device: bytes) -> bytes | None:
        rows = self._database.select_rows("SELECT card FROM recipients WHERE device = ?", device)
        return rows[0][0] if rows else None

    def forget_device(self, device: bytes) -> None:
        with self._database.transaction() as db:
            found = db.execute("SELECT id FROM recipients WHERE device = ?", (device,)).fetchone()
            for table in ("envelopes", "one_time", "pieces", "stamps") if found else ():
                db.execute(f"DELETE FROM {table} WHERE recipient = ?", found)
            db.execute("DELETE FROM recipients WHERE device = ?", (device,))

    def device_status(self, device: bytes) -> Status | None:
        rows = self._database.select_rows(
            "SELECT count, bytes, strangers, (SELECT COUNT(*) FROM one_time WHERE recipient = recipients.id), "
            "reserved, paid_until FROM recipients WHERE device = ?",
            device,
        )
        return Status(*rows[0]) if rows else None

    def reserve_room(
        self, device: bytes, size: int, seconds: int, now: int, stamp: bytes = b""
    ) -> Status | None:
        with self._database.transaction() as db:
            found = db.execute(
                "SELECT id, reserved, paid_until FROM recipients WHERE device = ?", (device,)
            ).fetchone()
            if found is not None:
                number, *before = found
                db.execute(
                    "UPDATE recipients SET reserved = ?, paid_until = ? WHERE id = ?",
                    (*add_room((before[0], before[1]), size, seconds, now), number),
                )
                if stamp:
                    good = self.limits.stamp_uses, now + self.limits.lifetime
                    db.execute("INSERT OR REPLACE INTO stamps VALUES (?, ?, ?, ?)", (number, stamp, *good))
        return self.device_status(device)

    def look_up_stamp(self, device: bytes, stamp: bytes, now: int) -> StampFacts | None:
        rows = self._database.select_rows(_RECIPIENT, device)
        if not rows:
            return None
        recipient = Recipient(*rows[0])
        ((count,),) = self._database.select_rows(
            "SELECT COUNT(*) FROM stamps WHERE recipient = ? AND expires > ?", recipient.id, now
        )
        found = self._database.select_rows(_STAMP, recipient.id, stamp, now)
        return recipient.stamp_facts(found[0][0] if found else 0, count, self.limits)

    def has_access(self, device: bytes, access: bytes) -> bool:
        rows = self._database.select_rows("SELECT access FROM recipients WHERE device = ?", device)
        return bool(rows and rows[0][0]) and access_hash(access) == rows[0][0]

    # ---- envelopes ---------------------------------------------------------------------------------------------

    def add_envelopes(self, deposits: Sequence[Deposit], now: int) -> list[Outcome]:
        if not self._has_disk():
            return [Outcome(Refusal.NOT_STORED)] * len(deposits)
        with self._database.transaction() as db:
            return [self._store_deposit(db, each, now) for each in deposits]

    def _store_deposit(self, db: sqlite3.Connection, deposit: Deposit, now: int) -> Outcome:
        found = db.execute(
            _RECIPIENT,
            (deposit.recipient,),
        ).fetchone()
        if found is None:
            return Outcome(Refusal.UNKNOWN_RECIPIENT)
        recipient = Recipient(*found)
        stamp = recipient.paid_stamp(deposit)
        paid = bool(stamp) and db.execute(_STAMP, (recipient.id, stamp, now)).fetchone() is not None
        if refused := recipient.why_refused(deposit, self.limits, now, paid=paid):
            return refused
        tray = recipient.tray_for(deposit.access)
        expires = now + min(deposit.seconds, self.limits.lifetime)
        digest = hashlib.blake2b(deposit.envelope, digest_size=16).digest()
        new = db.execute(
            "INSERT OR IGNORE INTO envelopes (recipient, tray, received, expires, digest, body) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (recipient.id, tray, now, expires, digest, deposit.envelope),
        ).rowcount
        if new:
            _add(db, recipient.id, tray, 1, len(deposit.envelope))
        if paid:
            of = (recipient.id, stamp)
            db.execute("UPDATE stamps SET uses = uses - 1 WHERE recipient = ? AND hash = ?", of)
            db.execute("DELETE FROM stamps WHERE recipient = ? AND hash = ? AND uses = 0", of)
        return DONE

    def fetch_envelopes(
        self, device: bytes, tray: Tray, after: int, most: int, most_bytes: int
    ) -> list[KeptEnvelope]:
        rows = self._database.select_rows(
            "SELECT id, received, body FROM envelopes WHERE recipient = "
            "(SELECT id FROM recipients WHERE device = ?) AND tray = ? AND id > ? ORDER BY id LIMIT ?",
            *(device, tray, after, most),
        )
        return take_fitting(rows, most_bytes)

    def acknowledge_envelopes(self, device: bytes, ids: Sequence[int]) -> None:
        # Not synced, since a thousand members of a group acknowledge one by one. What a power cut brings back is
        # pushed once more, and devices recognize it by its hash.
        with self._database.transaction(synced=False) as db:
            found = db.execute("SELECT id FROM recipients WHERE device = ?", (device,)).fetchone()
            if found is None:
                return
            for each in ids:
                gone = db.execute(
                    "DELETE FROM envelopes WHERE id = ? AND recipient = ? RETURNING tray, LENGTH(body)",
                    (each, found[0]),
                ).fetchall()
                for tray, size in gone:
                    _add(db, found[0], tray, -1, -size)

    def expire_envelopes(self, now: int) -> int:
        with self._database.transaction() as db:
            gone = db.execute(
                "DELETE FROM envelopes WHERE id IN (SELECT id FROM envelopes WHERE expires <= ? LIMIT ?) "
                "RETURNING recipient, tray, LENGTH(body)",
                (now, SWEEP),
            ).fetchall()
            for number, tray, size in gone:
                _add(db, number, tray, -1, -size)
            pieces = db.execute(
                "DELETE FROM pieces WHERE hash IN (SELECT hash FROM pieces WHERE expires <= ? LIMIT ?) "
                "RETURNING recipient, LENGTH(body)",
                (now, SWEEP),
            ).fetchall()
            for number, size in pieces:
                _add(db, number, Tray.KNOWN, 0, -size)
            stamps = db.execute(
                "DELETE FROM stamps WHERE (recipient, hash) IN "
                "(SELECT recipient, hash FROM stamps WHERE expires <= ? LIMIT ?)",
                (now, SWEEP),
            ).rowcount
            db.execute(
                "INSERT INTO swept VALUES (1, ?1) ON CONFLICT DO UPDATE SET at = ?1 WHERE ?1 - at >= ?2",
                (now, NOTED),
            )
            if gone or pieces:
                for _ in range(
                    _GIVEN_BACK
                ):  # sqlite3 takes one step, which is a page, whatever number is given
                    db.execute("PRAGMA incremental_vacuum(1)")
        return len(gone) + len(pieces) + stamps

    def last_expiry(self) -> int | None:
        ((kept, at),) = self._database.select_rows(
            "SELECT EXISTS (SELECT 1 FROM envelopes) OR EXISTS (SELECT 1 FROM pieces) "
            "OR EXISTS (SELECT 1 FROM stamps), (SELECT at FROM swept)"
        )
        return (at or 0) if kept else None

    # ---- pieces of attachments ---------------------------------------------------------------------------------

    def put_piece(self, recipient: bytes, piece: bytes, seconds: int, access: bytes, now: int) -> Outcome:
        if not self._has_disk():
            return Outcome(Refusal.NOT_STORED)
        with self._database.transaction() as db:
            found = db.execute(_RECIPIENT, (recipient,)).fetchone()
            owner = None if found is None else Recipient(*found)
            if owner is None or owner.tray_for(access) is Tray.STRANGERS:
                return Outcome(Refusal.UNKNOWN_RECIPIENT)
            digest = piece_hash(piece)
            if db.execute("SELECT 1 FROM pieces WHERE hash = ?", (digest,)).fetchone():
                return DONE
            if refused := owner.why_no_room(len(piece), self.limits, now):
                return refused
            expires = now + min(seconds, self.limits.lifetime)
            db.execute("INSERT INTO pieces VALUES (?, ?, ?, ?)", (digest, owner.id, expires, piece))
            _add(db, owner.id, Tray.KNOWN, 0, len(piece))
        return DONE

    def get_piece(self, digest: bytes) -> bytes | None:
        rows = self._database.select_rows("SELECT body FROM pieces WHERE hash = ?", digest)
        return rows[0][0] if rows else None

    def has_pieces(self, digests: Sequence[bytes]) -> list[bool]:
        return [
            bool(self._database.select_rows("SELECT 1 FROM pieces WHERE hash = ?", each)) for each in digests
        ]


def _count_keys(db: sqlite3.Connection, number: int | None) -> int:
    ((count,),) = db.execute("SELECT COUNT(*) FROM one_time WHERE recipient = ?", (number,))
    return int(count)


def _add(db: sqlite3.Connection, number: int, tray: int, count: int, size: int) -> None:
    """Update the counts of what waits for a device."""
    db.execute(
        "UPDATE recipients SET count = count + ?, bytes = bytes + ? WHERE id = ?", (count, size, number)
    )
    if tray == Tray.STRANGERS:
        db.execute(
            "UPDATE recipients SET strangers = strangers + ?, strangers_bytes = strangers_bytes + ? WHERE id = ?",
            (count, size, number),
        )
