"""A store of mailboxes in PostgreSQL: several processes, on several machines, are one mailbox. Extra
`mailbox-postgres`.

Whoever changes what waits for a device locks the device's row until the end of the transaction. So the envelopes of
a device become visible in the order of their numbers, and none is missed. Rows are always locked in the same order.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from dtp.messaging.ends.keys import LIFETIME_MS, are_older
from dtp.messaging.errors import StoreAway, StoreFailed, StoreUnusable
from dtp.messaging.mailbox.limits import MailboxLimits
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

try:
    import psycopg

    from dtp.postgresql import (
        Guard,
        KeptConnection,
        describe_fault,
        find_wrong_setting,
        what_mends,
        while_it_answers,
    )
except ImportError as error:
    raise StoreUnusable(
        "a mailbox in PostgreSQL needs a package: pip install 'dtp-sockets[mailbox-postgres]'"
    ) from error

_CHANNEL: Final = "dtp_mailbox"
#: Two processes that create the tables at once would collide in the catalogue, so they take this lock.
_TABLES_LOCK: Final = 7239

_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS dtp_mailbox_recipients (
    id bigserial PRIMARY KEY, device bytea NOT NULL UNIQUE, keys bytea NOT NULL, sequence bigint NOT NULL,
    access bytea NOT NULL DEFAULT '', bits integer NOT NULL DEFAULT {DEFAULT_BITS},
    count bigint NOT NULL DEFAULT 0, bytes bigint NOT NULL DEFAULT 0,
    strangers bigint NOT NULL DEFAULT 0, strangers_bytes bigint NOT NULL DEFAULT 0,
    card bytea NOT NULL DEFAULT '', reserved bigint NOT NULL DEFAULT 0, paid_until bigint NOT NULL DEFAULT 0,
    stamp_mib integer NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS dtp_mailbox_envelopes (
    id bigserial PRIMARY KEY, recipient bigint NOT NULL, tray smallint NOT NULL, received bigint NOT NULL,
    expires bigint NOT NULL, digest bytea NOT NULL, body bytea NOT NULL, UNIQUE (recipient, digest)
);
CREATE INDEX IF NOT EXISTS dtp_mailbox_envelopes_order ON dtp_mailbox_envelopes (recipient, tray, id);
CREATE INDEX IF NOT EXISTS dtp_mailbox_envelopes_expire ON dtp_mailbox_envelopes (expires);
CREATE TABLE IF NOT EXISTS dtp_mailbox_one_time (
    recipient bigint NOT NULL, key bytea NOT NULL, PRIMARY KEY (recipient, key)
);
CREATE TABLE IF NOT EXISTS dtp_mailbox_pieces (
    hash bytea PRIMARY KEY, recipient bigint NOT NULL, expires bigint NOT NULL, body bytea NOT NULL
);
CREATE INDEX IF NOT EXISTS dtp_mailbox_pieces_expire ON dtp_mailbox_pieces (expires);
CREATE INDEX IF NOT EXISTS dtp_mailbox_pieces_owner ON dtp_mailbox_pieces (recipient);
CREATE TABLE IF NOT EXISTS dtp_mailbox_stamps (
    recipient bigint NOT NULL, hash bytea NOT NULL, uses integer NOT NULL, expires bigint NOT NULL,
    PRIMARY KEY (recipient, hash)
);
CREATE INDEX IF NOT EXISTS dtp_mailbox_stamps_expire ON dtp_mailbox_stamps (expires);
CREATE TABLE IF NOT EXISTS dtp_mailbox_swept (one integer PRIMARY KEY, at bigint NOT NULL);
"""
#: The fields of a `Recipient`.
_FIELDS: Final = (
    "id, access, bits, count, bytes, strangers, strangers_bytes, reserved, paid_until, stamp_mib "
    "FROM dtp_mailbox_recipients"
)
_RECIPIENT: Final = f"SELECT {_FIELDS} WHERE device = %s FOR UPDATE"

_Database = psycopg.Connection[tuple[Any, ...]]
#: A paid stamp: its recipient's number, and its hash.
_Stamp = tuple[int, bytes]


class PostgresMailbox(MailboxStore):
    """The mailbox in the database at `url`. After a connection broke, the next call makes a new one."""

    def __init__(
        self, url: str, limits: MailboxLimits | None = None, *, guard: Guard = while_it_answers
    ) -> None:
        """Connect, and create the tables. Raise `StoreUnusable` if the server refuses for good, `StoreAway` if it
        can't be reached or no longer answers (which `guard` finds out), else `StoreFailed`.
        """
        self.limits = limits or MailboxLimits()
        self._url, self._connection = url, KeptConnection(url, guard)
        try:
            with self._open_transaction("opened") as database:
                database.execute("SELECT pg_advisory_xact_lock(%s)", (_TABLES_LOCK,))
                database.execute(_SCHEMA)
        except StoreFailed as error:
            if (mended := what_mends(error.__cause__, url, connected=self._connection.was_made)) is not None:
                raise StoreUnusable(f"{error}; {mended}") from error
            raise

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _open_transaction(self, what: str = "written") -> Iterator[_Database]:
        try:
            with self._connection.use() as database, database.transaction():
                yield database
        except psycopg.Error as error:
            kind = StoreAway if isinstance(error, psycopg.OperationalError) else StoreFailed
            words = describe_fault(error, self._url)
            raise kind(f"the mailbox in PostgreSQL could not be {what}: {words}") from error

    def _select_rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._open_transaction("read") as database:
            return database.execute(query, values).fetchall()

    # ---- other processes ---------------------------------------------------------------------------------------

    def watch_others(self, came: Callable[[bytes], None]) -> None:
        def on_notified(notified: psycopg.Notify | None) -> None:
            # Whatever came before it listened is found by looking.
            came(b"" if notified is None else bytes.fromhex(notified.payload))

        self._connection.listen(_CHANNEL, on_notified, name="dtp-mailbox-listen")

    # ---- devices -----------------------------------------------------------------------------------------------

    def publish_keys(
        self, device: bytes, sequence: int, keys: bytes, one_time: Sequence[bytes], latest: int = MAX_NUMBER
    ) -> Outcome:
        with self._open_transaction() as database:
            found = database.execute(
                "SELECT id, sequence, keys FROM dtp_mailbox_recipients WHERE device = %s FOR UPDATE",
                (device,),
            ).fetchone()
            if found is None:
                count = _value(database, "SELECT COUNT(*) FROM dtp_mailbox_recipients")
                if count >= self.limits.recipients and not self._forget_ended(database, sequence):
                    return Outcome(Refusal.FULL)
                made = database.execute(
                    "INSERT INTO dtp_mailbox_recipients (device, keys, sequence) VALUES (%s, %s, %s) "
                    "ON CONFLICT (device) DO UPDATE SET device = excluded.device RETURNING id",
                    (device, keys, sequence),
                ).fetchone()
                assert made is not None
                (number,) = made
            else:
                number, known, before = found
                if are_older((sequence, keys), (known, before), latest):
                    return Outcome(Refusal.OLDER_KEYS)
                self._replace_keys(database, number, sequence, keys, before)
            self._add_one_time(database, number, one_time)
        return DONE

    def _forget_ended(self, database: _Database, sequence: int) -> bool:
        """Delete devices for which nothing waits and whose keys have expired by then. Return True if there were
        any.
        """
        ended = (
            "SELECT id FROM dtp_mailbox_recipients WHERE sequence < %s AND count = 0 AND bytes = 0 "
            "AND paid_until * 1000 < %s"
        )
        before = (sequence - LIFETIME_MS, sequence)
        for table in ("one_time", "stamps"):
            database.execute(f"DELETE FROM dtp_mailbox_{table} WHERE recipient IN ({ended})", before)
        done = database.execute(f"DELETE FROM dtp_mailbox_recipients WHERE id IN ({ended})", before)
        return int(done.rowcount) > 0

    def _replace_keys(
        self, database: _Database, number: int, sequence: int, keys: bytes, before: bytes
    ) -> None:
        database.execute(
            "UPDATE dtp_mailbox_recipients SET keys = %s, sequence = %s WHERE id = %s",
            (keys, sequence, number),
        )
        if instance_of(keys) != instance_of(before):
            database.execute("DELETE FROM dtp_mailbox_one_time WHERE recipient = %s", (number,))

    def _add_one_time(self, database: _Database, number: int, keys: Sequence[bytes]) -> None:
        have = _value(database, "SELECT COUNT(*) FROM dtp_mailbox_one_time WHERE recipient = %s", number)
        left = max(self.limits.one_time_keys - have, 0)
        database.cursor().executemany(
            "INSERT INTO dtp_mailbox_one_time VALUES (%s, %s) ON CONFLICT DO NOTHING",
            [(number, each) for each in keys[:left]],
        )

    def take_keys(self, device: bytes) -> tuple[bytes, bytes] | None:
        with self._open_transaction() as database:
            found = database.execute(
                "SELECT id, keys FROM dtp_mailbox_recipients WHERE device = %s", (device,)
            ).fetchone()
            if found is None:
                return None
            one = database.execute(
                "DELETE FROM dtp_mailbox_one_time WHERE (recipient, key) IN (SELECT recipient, key FROM "
                "dtp_mailbox_one_time WHERE recipient = %s LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING key",
                (found[0],),
            ).fetchone()
            return found[1], one[0] if one else b""

    def set_access(self, device: bytes, access: bytes, bits: int, stamp_mib: int = 0) -> Outcome:
        return self._update_device(
            "UPDATE dtp_mailbox_recipients SET access = %s, bits = %s, stamp_mib = %s WHERE device = %s",
            *(access, bits, stamp_mib, device),
        )

    def put_card(self, device: bytes, card: bytes) -> Outcome:
        return self._update_device(
            "UPDATE dtp_mailbox_recipients SET card = %s WHERE device = %s", card, device
        )

    def _update_device(self, query: str, *values: Any) -> Outcome:
        with self._open_transaction() as database:
            changed = database.execute(query, values).rowcount
        return DONE if changed else Outcome(Refusal.UNKNOWN_RECIPIENT)

    def get_card(self, device: bytes) -> bytes | None:
        rows = self._select_rows("SELECT card FROM dtp_mailbox_recipients WHERE device = %s", device)
        return rows[0][0] if rows else None

    def forget_device(self, device: bytes) -> None:
        with self._open_transaction() as database:
            found = database.execute(_RECIPIENT, (device,)).fetchone()
            if found is None:
                return
            for table in ("envelopes", "one_time", "pieces", "stamps"):
                database.execute(f"DELETE FROM dtp_mailbox_{table} WHERE recipient = %s", (found[0],))
            database.execute("DELETE FROM dtp_mailbox_recipients WHERE device = %s", (device,))

    def device_status(self, device: bytes) -> Status | None:
        rows = self._select_rows(
            "SELECT count, bytes, strangers, (SELECT COUNT(*) FROM dtp_mailbox_one_time WHERE recipient = "
            "dtp_mailbox_recipients.id), reserved, paid_until FROM dtp_mailbox_recipients WHERE device = %s",
            device,
        )
        return Status(*rows[0]) if rows else None

    def reserve_room(
        self, device: bytes, size: int, seconds: int, now: int, stamp: bytes = b""
    ) -> Status | None:
        with self._open_transaction() as database:
            row = database.execute(_RECIPIENT, (device,)).fetchone()
            if row is not None:
                known = Recipient(*row)
                room = add_room((known.reserved, known.paid_until), size, seconds, now)
                database.execute(
                    "UPDATE dtp_mailbox_recipients SET reserved = %s, paid_until = %s WHERE id = %s",
                    (*room, known.id),
                )
                if stamp:
                    database.execute(
                        "INSERT INTO dtp_mailbox_stamps VALUES (%s, %s, %s, %s) ON CONFLICT (recipient, hash) "
                        "DO UPDATE SET uses = excluded.uses, expires = excluded.expires",
                        (known.id, stamp, self.limits.stamp_uses, now + self.limits.lifetime),
                    )
        return self.device_status(device)

    def look_up_stamp(self, device: bytes, stamp: bytes, now: int) -> StampFacts | None:
        with self._open_transaction("read") as database:
            row = database.execute(f"SELECT {_FIELDS} WHERE device = %s", (device,)).fetchone()
            if row is None:
                return None
            recipient = Recipient(*row)
            uses, count = 0, 0
            for known, left in database.execute(
                "SELECT hash, uses FROM dtp_mailbox_stamps WHERE recipient = %s AND expires > %s",
                (recipient.id, now),
            ):
                count += 1
                uses = left if known == stamp else uses
        return recipient.stamp_facts(uses, count, self.limits)

    def has_access(self, device: bytes, access: bytes) -> bool:
        rows = self._select_rows("SELECT access FROM dtp_mailbox_recipients WHERE device = %s", device)
        return bool(rows and rows[0][0]) and access_hash(access) == rows[0][0]

    # ---- envelopes ---------------------------------------------------------------------------------------------

    def add_envelopes(self, deposits: Sequence[Deposit], now: int) -> list[Outcome]:
        with self._open_transaction() as database:
            recipients = self._lock_recipients(database, {each.recipient for each in deposits})
            stamps = self._load_stamps(database, recipients, deposits, now)
            used: Counter[_Stamp] = Counter()
            outcomes: list[Outcome] = []
            rows: list[tuple[Any, ...]] = []
            for each in deposits:
                outcome, row = self._judge_deposit(recipients, each, now, stamps - used)
                outcomes.append(outcome)
                if row is not None:
                    rows.append(row)
                    used.update(each for each in _stamp_of(recipients, each) if each in stamps)
            if rows:
                _use_stamps(database, used)
                self._insert_envelopes(database, rows)
                devices = [
                    (_CHANNEL, each.recipient.hex())
                    for each, outcome in zip(deposits, outcomes, strict=True)
                    if not outcome.refusal
                ]
                database.cursor().executemany("SELECT pg_notify(%s, %s)", list(dict.fromkeys(devices)))
        return outcomes

    def _lock_recipients(self, database: _Database, devices: Iterable[bytes]) -> dict[bytes, Recipient]:
        """Return the recipients by device, with their rows locked until the end of the transaction."""
        rows = database.execute(
            f"SELECT device, {_FIELDS} WHERE device = ANY(%s) ORDER BY id FOR UPDATE",
            (list(devices),),
        ).fetchall()
        return {device: Recipient(*rest) for device, *rest in rows}

    def _load_stamps(
        self, database: _Database, recipients: dict[bytes, Recipient], deposits: Sequence[Deposit], now: int
    ) -> Counter[_Stamp]:
        """Return how many envelopes each paid stamp of these deposits still lets in."""
        given = [each for deposit in deposits for each in _stamp_of(recipients, deposit)]
        if not given:
            return Counter()
        rows = database.execute(
            "SELECT recipient, hash, uses FROM dtp_mailbox_stamps WHERE hash = ANY(%s) AND expires > %s",
            ([hashed for _, hashed in given], now),
        ).fetchall()
        return Counter({(number, hashed): uses for number, hashed, uses in rows})

    def _judge_deposit(
        self, recipients: dict[bytes, Recipient], deposit: Deposit, now: int, stamps: Counter[_Stamp]
    ) -> tuple[Outcome, tuple[Any, ...] | None]:
        """Return the outcome of a deposit, and its row or None; count it in `recipients`."""
        recipient = recipients.get(deposit.recipient)
        if recipient is None:
            return Outcome(Refusal.UNKNOWN_RECIPIENT), None
        paid = any(stamps[each] for each in _stamp_of(recipients, deposit))
        if refused := recipient.why_refused(deposit, self.limits, now, paid=paid):
            return refused, None
        tray, size = recipient.tray_for(deposit.access), len(deposit.envelope)
        strangers, their_bytes = (1, size) if tray is Tray.STRANGERS else (0, 0)
        recipients[deposit.recipient] = replace(
            recipient,
            count=recipient.count + 1,
            size=recipient.size + size,
            strangers=recipient.strangers + strangers,
            strangers_size=recipient.strangers_size + their_bytes,
        )
        expires = now + min(deposit.seconds, self.limits.lifetime)
        digest = hashlib.blake2b(deposit.envelope, digest_size=16).digest()
        return DONE, (recipient.id, int(tray), now, expires, digest, deposit.envelope)

    def _insert_envelopes(self, database: _Database, rows: list[tuple[Any, ...]]) -> None:
        kept = database.execute(
            "INSERT INTO dtp_mailbox_envelopes (recipient, tray, received, expires, digest, body) "
            "SELECT recipient, tray, received, expires, digest, body FROM unnest(%s::bigint[], %s::smallint[], "
            "%s::bigint[], %s::bigint[], %s::bytea[], %s::bytea[]) WITH ORDINALITY "
            "AS given (recipient, tray, received, expires, digest, body, place) ORDER BY place "
            "ON CONFLICT DO NOTHING RETURNING recipient, tray, octet_length(body)",
            [list(column) for column in zip(*rows, strict=True)],
        ).fetchall()
        _count(database, kept, 1)

    def fetch_envelopes(
        self, device: bytes, tray: Tray, after: int, most: int, most_bytes: int
    ) -> list[KeptEnvelope]:
        rows = self._select_rows(
            "SELECT id, received, body FROM dtp_mailbox_envelopes WHERE recipient = "
            "(SELECT id FROM dtp_mailbox_recipients WHERE device = %s) AND tray = %s AND id > %s ORDER BY id "
            "LIMIT %s",
            *(device, int(tray), after, most),
        )
        return take_fitting(rows, most_bytes)

    def acknowledge_envelopes(self, device: bytes, ids: Sequence[int]) -> None:
        with self._open_transaction() as database:
            found = database.execute(_RECIPIENT, (device,)).fetchone()
            if found is None:
                return
            gone = database.execute(
                "DELETE FROM dtp_mailbox_envelopes WHERE id = ANY(%s) AND recipient = %s "
                "RETURNING recipient, tray, octet_length(body)",
                (list(ids), found[0]),
            ).fetchall()
            _count(database, gone, -1)

    def expire_envelopes(self, now: int) -> int:
        with self._open_transaction() as database:
            over = database.execute(
                "(SELECT recipient FROM dtp_mailbox_envelopes WHERE expires <= %(now)s LIMIT %(most)s) UNION "
                "(SELECT recipient FROM dtp_mailbox_pieces WHERE expires <= %(now)s LIMIT %(most)s)",
                {"now": now, "most": SWEEP},
            ).fetchall()
            owners = [each for (each,) in over]
            database.execute(
                "SELECT id FROM dtp_mailbox_recipients WHERE id = ANY(%s) ORDER BY id FOR UPDATE", (owners,)
            )
            gone = database.execute(
                "DELETE FROM dtp_mailbox_envelopes WHERE id IN (SELECT id FROM dtp_mailbox_envelopes WHERE "
                "expires <= %s AND recipient = ANY(%s) LIMIT %s) RETURNING recipient, tray, octet_length(body)",
                (now, owners, SWEEP),
            ).fetchall()
            _count(database, gone, -1)
            pieces = database.execute(
                "DELETE FROM dtp_mailbox_pieces WHERE hash IN (SELECT hash FROM dtp_mailbox_pieces WHERE "
                "expires <= %s AND recipient = ANY(%s) LIMIT %s) RETURNING recipient, octet_length(body)",
                (now, owners, SWEEP),
            ).fetchall()
            for number, size in pieces:
                _count_bytes(database, number, -size)
            stamps = database.execute(
                "DELETE FROM dtp_mailbox_stamps WHERE (recipient, hash) IN (SELECT recipient, hash FROM "
                "dtp_mailbox_stamps WHERE expires <= %s LIMIT %s FOR UPDATE SKIP LOCKED)",
                (now, SWEEP),
            ).rowcount
            database.execute(
                "INSERT INTO dtp_mailbox_swept AS kept VALUES (1, %(now)s) ON CONFLICT (one) DO UPDATE "
                "SET at = excluded.at WHERE excluded.at - kept.at >= %(noted)s",
                {"now": now, "noted": NOTED},
            )
        return len(gone) + len(pieces) + stamps

    def last_expiry(self) -> int | None:
        ((kept, at),) = self._select_rows(
            "SELECT EXISTS (SELECT 1 FROM dtp_mailbox_envelopes) OR EXISTS (SELECT 1 FROM dtp_mailbox_pieces) "
            "OR EXISTS (SELECT 1 FROM dtp_mailbox_stamps), (SELECT at FROM dtp_mailbox_swept)"
        )
        return (at or 0) if kept else None

    # ---- pieces of attachments ---------------------------------------------------------------------------------

    def put_piece(self, recipient: bytes, piece: bytes, seconds: int, access: bytes, now: int) -> Outcome:
        with self._open_transaction() as database:
            row = database.execute(_RECIPIENT, (recipient,)).fetchone()
            owner = None if row is None else Recipient(*row)
            if owner is None or owner.tray_for(access) is Tray.STRANGERS:
                return Outcome(Refusal.UNKNOWN_RECIPIENT)
            digest = piece_hash(piece)
            query = "SELECT 1 FROM dtp_mailbox_pieces WHERE hash = %s"
            if database.execute(query, (digest,)).fetchone():
                return DONE
            if refused := owner.why_no_room(len(piece), self.limits, now):
                return refused
            expires = now + min(seconds, self.limits.lifetime)
            kept = database.execute(
                "INSERT INTO dtp_mailbox_pieces VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (digest, owner.id, expires, piece),
            ).rowcount
            if kept:
                _count_bytes(database, owner.id, len(piece))
        return DONE

    def get_piece(self, digest: bytes) -> bytes | None:
        rows = self._select_rows("SELECT body FROM dtp_mailbox_pieces WHERE hash = %s", digest)
        return rows[0][0] if rows else None

    def has_pieces(self, digests: Sequence[bytes]) -> list[bool]:
        rows = self._select_rows("SELECT hash FROM dtp_mailbox_pieces WHERE hash = ANY(%s)", list(digests))
        found = {each for (each,) in rows}
        return [each in found for each in digests]


def _stamp_of(recipients: dict[bytes, Recipient], deposit: Deposit) -> list[_Stamp]:
    """Return the paid stamp of a deposit if it needs one, otherwise an empty list."""
    recipient = recipients.get(deposit.recipient)
    hashed = b"" if recipient is None else recipient.paid_stamp(deposit)
    return [(recipient.id, hashed)] if recipient is not None and hashed else []


def _use_stamps(database: _Database, used: Counter[_Stamp]) -> None:
    """Count the uses of stamps."""
    counted = [(times, *stamp) for stamp, times in sorted(used.items())]
    query = "UPDATE dtp_mailbox_stamps SET uses = uses - %s WHERE recipient = %s AND hash = %s"
    database.cursor().executemany(query, counted)
    if counted:
        hashes = [hashed for _, hashed in used]
        database.execute("DELETE FROM dtp_mailbox_stamps WHERE uses <= 0 AND hash = ANY(%s)", (hashes,))


def _value(database: _Database, query: str, *values: Any) -> int:
    row = database.execute(query, values).fetchone()
    assert row is not None
    return int(row[0])


def _count_bytes(database: _Database, number: int, size: int) -> None:
    database.execute("UPDATE dtp_mailbox_recipients SET bytes = bytes + %s WHERE id = %s", (size, number))


def _count(database: _Database, rows: Iterable[tuple[Any, ...]], sign: int) -> None:
    """Update the counts of what waits for devices. Each row is a recipient, a tray and a size."""
    sums: dict[int, list[int]] = {}
    for number, tray, size in rows:
        counted = sums.setdefault(number, [0, 0, 0, 0])
        for at, add in enumerate(
            (sign, sign * size) + ((sign, sign * size) if tray == Tray.STRANGERS else ())
        ):
            counted[at] += add
    database.cursor().executemany(
        "UPDATE dtp_mailbox_recipients SET count = count + %s, bytes = bytes + %s, strangers = strangers + %s, "
        "strangers_bytes = strangers_bytes + %s WHERE id = %s",
        [(*counted, number) for number, counted in sorted(sums.items())],
    )


def check_url(url: str) -> None:
    """Raise `StoreUnusable` if the client doesn't accept the URL, or can't use files that it names. No server is
    asked.
    """
    if (wrong := find_wrong_setting(url)) is not None:
        raise StoreUnusable(f"the mailbox in PostgreSQL: {wrong}")
