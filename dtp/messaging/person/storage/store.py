"""The file of one device's messages. It isn't shared: each device has its own, and a copied file is noticed.

Everything by which nothing is looked up is sealed (`SealedRows`): texts, names and keys. Who wrote in which
conversation, when, and how much, is in the open.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from dtp.graph.stores.witness import Witness
from dtp.locking import FileLock
from dtp.messaging.at_rest import SealedRows
from dtp.messaging.conversation.events import MAX_AHEAD_MS, MESSAGES, Event, EventKind
from dtp.messaging.conversation.state import Said
from dtp.messaging.database import Database
from dtp.messaging.ends.keys import INSTANCE_BYTES
from dtp.messaging.ends.order import RESEND_MS
from dtp.messaging.errors import StoreFailed
from dtp.messaging.packing import pack, unpack_saved
from dtp.messaging.person.reading import EARLY_READS, EarlyReads
from dtp.messaging.person.storage.call_store import CALLS_TABLE, CallStore
from dtp.messaging.person.storage.heard_store import HEARD_TABLES, HeardStore
from dtp.messaging.person.storage.held_events import ADD_SAID, HELD_ASIDE, HeldEvents
from dtp.messaging.person.storage.missed_store import MISSED_TABLE, MissedStore
from dtp.messaging.person.storage.past_store import PastStore
from dtp.messaging.person.storage.renamed_people import RenamedPeople
from dtp.messaging.person.storage.spread_store import SPREAD_TABLES, SpreadStore
from dtp.messaging.person.storage.usage import UsageStore

#: SQLite's id of the file: "dtpc".
_APPLICATION: Final = 0x64747063
#: What the witness counts, so that an older copy is noticed: each time that something is sealed.
_DONE: Final = ("made", "change")
#: Envelopes that are remembered, so that one that comes again isn't taken for a lost session.
_SEEN: Final = 20_000
#: ... and how many come until the oldest are deleted.
_SWEEP: Final = 256

_SCHEMA: Final = """
CREATE TABLE state (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE peers (
    device BLOB PRIMARY KEY, state BLOB NOT NULL, person BLOB NOT NULL, introduced INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE outbox (
    device BLOB NOT NULL, number INTEGER NOT NULL, message BLOB NOT NULL, payload BLOB NOT NULL,
    due INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (device, number)
) WITHOUT ROWID;
CREATE INDEX outbox_due ON outbox (due);
CREATE TABLE contacts (person BLOB PRIMARY KEY, saved BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE groups (id BLOB PRIMARY KEY, operations BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE said (
    sender BLOB NOT NULL, id BLOB NOT NULL, conversation BLOB NOT NULL, kind INTEGER NOT NULL,
    clock INTEGER NOT NULL, sent INTEGER NOT NULL, event BLOB NOT NULL, target BLOB NOT NULL,
    unread INTEGER NOT NULL DEFAULT 0, held INTEGER NOT NULL DEFAULT 0, vanishes INTEGER NOT NULL DEFAULT 0,
    told BLOB NOT NULL DEFAULT x'', PRIMARY KEY (sender, id)
);
CREATE INDEX said_order ON said (conversation, clock);
CREATE INDEX said_target ON said (target);
CREATE INDEX said_unread ON said (unread) WHERE unread;
CREATE INDEX said_vanishes ON said (vanishes) WHERE vanishes;
CREATE TABLE receipts (
    message BLOB NOT NULL, person BLOB NOT NULL, device BLOB NOT NULL, read INTEGER NOT NULL,
    PRIMARY KEY (message, person, device)
) WITHOUT ROWID;
CREATE TABLE seen (number INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL UNIQUE)
"""


#: The longest time for which anything is put off, ms. What is due later was put off by a clock that was ahead, and
#: is due now.
_LONGEST_PAUSE: Final = RESEND_MS[-1]
#: ... and for what no mailbox has accepted, ms: it is tried again within half a minute.
_UNSENT_PAUSE: Final = 60_000
#: Selects a message by its id, which is also its own target, since that column has an index.
IS_MESSAGE: Final = "target = :id AND id = :id"
_MESSAGES: Final = ", ".join(str(int(each)) for each in MESSAGES)
#: The columns of a `Said`.
_SAID: Final = "event, sender, id, conversation, told"

#: Tables that older files don't have: they are added when a file is opened.
_TOLD: Final = "ALTER TABLE said ADD COLUMN told BLOB NOT NULL DEFAULT x''"
_LATER_SCHEMA: Final = (
    HELD_ASIDE,
    MISSED_TABLE,
    CALLS_TABLE,
    *EARLY_READS,
    *HEARD_TABLES,
    *SPREAD_TABLES,
    "CREATE INDEX IF NOT EXISTS outbox_unsent ON outbox (due) WHERE NOT tries",
    "CREATE INDEX IF NOT EXISTS said_told ON said (told) WHERE told != x''",
    """CREATE TABLE IF NOT EXISTS past_gifts (
    device BLOB NOT NULL, conversation BLOB NOT NULL, message BLOB NOT NULL, clock INTEGER NOT NULL,
    due INTEGER NOT NULL, PRIMARY KEY (device, conversation, message)
) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS past_gifts_due ON past_gifts (due) WHERE due >= 0",
    """CREATE TABLE IF NOT EXISTS past_givings (
    conversation BLOB NOT NULL, person BLOB NOT NULL, ends INTEGER NOT NULL, PRIMARY KEY (conversation, person)
) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS vanished_clocks (conversation BLOB PRIMARY KEY, clock INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS states_given (key BLOB PRIMARY KEY, state BLOB NOT NULL, ends INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS states_wanted (
    conversation BLOB NOT NULL, device BLOB NOT NULL, file BLOB NOT NULL, due INTEGER NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (conversation, device)
) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS peers_unnamed ON peers (person) WHERE person = x''",
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A payload that waits to be sealed for a device, and how often it was sent."""

    device: bytes
    number: int
    payload: bytes
    tries: int


#: Seconds within which what is noted in this file is also noted in the witness.
_SETTLED: Final = 60
#: ... and by which the times of unchanged files may differ: some file systems have whole seconds, or two.
_MOMENT: Final = 2
#: Number of values that are noted about the file while it is open.
_NOTED: Final = 4


class MessageStore:
    """The file at `path`. Changes are made within `transaction`, each block of which is one transaction.

    `restored` says why the sessions can't be continued, because a backup was restored or the file was copied;
    otherwise it is "". Only one program at a time may have the file: two would continue the same sessions, and seal
    with the same keys.
    """

    def __init__(self, path: str | os.PathLike[str], owner: bytes, secret: bytes) -> None:
        """Open or create the file. `secret` is 32 bytes that only its owner has. Raise `StoreFailed`, also while
        another program has the file.
        """
        self._rows = SealedRows(secret)
        self._database = Database(path, application=_APPLICATION, schema=_SCHEMA)
        self.path = self._database.path
        self.past = PastStore(self._database)
        self.missed = MissedStore(self._database)
        self.calls = CallStore(self._database, self._rows)
        self.early_reads = EarlyReads(self._database)
        self.renamed = RenamedPeople(self._database, self._rows)
        self.held = HeldEvents(self._database, self._rows)
        self.heard = HeardStore(self._database)
        self.usage = UsageStore(self._database)
        self.spread = SpreadStore(self._database, self._rows)
        self._lock = FileLock(f"{os.path.realpath(self.path)}-lock")
        self._owner = owner
        self._sealed = 0
        self._witness: Witness | None = None
        self.restored = ""
        try:
            self._take_lock()
            self._load_instance()
        except BaseException:
            self.close()
            raise

    def _load_instance(self) -> None:
        with self._database.transaction() as database:
            if "told" not in [name for _, name, *_ in database.execute("PRAGMA table_info(said)")]:
                database.execute(_TOLD)
            for each in _LATER_SCHEMA:
                database.execute(each)
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
            for each in UsageStore.list_statements(tables):
                database.execute(each)
        saved = unpack_saved(self.get_value("file") or pack([b"", 0, 0]))
        instance, place, self._sealed, *when = saved  # files of November 2026 lack it
        if instance and self.path != ":memory:":
            self._witness, moved = (
                Witness(self.path, instance, self._owner, done=_DONE),
                place != self._file_inode(),
            )
            self.restored = self._witness.why_doubtful(self._sealed, moved=moved) or ""
            if when and not self.restored and self._was_put_back(self._witness, *when, moved=moved):
                self.restored = "it was restored, or copied, with all that is beside it"

    def _was_put_back(self, witness: Witness, sealed_at: int, closed_at: float = 0.0, *, moved: bool) -> bool:
        """Return True if the times of files show that another has written them since we did.

        Until the store is closed, only we write the witness. After a crash, its last write may be a little later
        than the last note in this file; a restored backup differs by other inodes and times.
        """
        if closed_at:
            return witness.changed_at() > closed_at + _MOMENT
        return moved or witness.changed_at() > sealed_at + _SETTLED or witness.has_times_set(_MOMENT)

    def _take_lock(self) -> None:
        if self.path == ":memory:":
            return
        try:
            taken = self._lock.take()
        except OSError as fault:
            raise StoreFailed(f"can't lock {self.path}: {fault}") from fault
        if not taken:
            raise StoreFailed(
                f"another program has {self.path}, such as `dtp message watch`: end that one first"
            )

    def _file_inode(self) -> int:
        with suppress(OSError):
            return os.stat(self.path).st_ino
        return 0

    def begin_instance(self) -> bytes:
        """Begin a new instance, and return its 16 bytes, within `transaction`. What was noted about the previous
        one is forgotten.
        """
        if self._witness is not None:
            self._witness.close()
        instance = secrets.token_bytes(INSTANCE_BYTES)
        self._sealed, self.restored = 0, ""
        self._put_file(instance)
        self._witness = (
            Witness(self.path, instance, self._owner, done=_DONE) if self.path != ":memory:" else None
        )
        return instance

    def _put_file(self, instance: bytes) -> None:
        self.put_value("file", pack([instance, self._file_inode(), self._sealed, int(time.time())]))

    def note_sealed(self, instance: bytes) -> None:
        """Count that something is sealed, within `transaction`: an older copy is recognized by that count."""
        self._sealed += 1
        self._put_file(instance)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block in one transaction: all of it is on the disk when the block ends, or nothing."""
        with self._database.transaction() as self._db:
            before = self._witness, self._sealed
            yield
        # Otherwise the witness stays as it is: its time is compared with the one that was noted here with the
        # number.
        if self._witness is not None and before != (self._witness, self._sealed):
            self._witness.remember_sequence(self._sealed)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._witness is not None:
            self._witness.close()
            with suppress(StoreFailed):  # it is then as after a crash
                self._note_closed(self._witness)
            self._witness = None
        self._database.close()
        self._lock.release()

    def _note_closed(self, witness: Witness) -> None:
        """Note the time of the last write to the witness: later changes aren't ours."""
        noted = unpack_saved(self.get_value("file") or pack([]))
        if len(noted) == _NOTED and self._sealed == witness.sequence:
            with self.transaction():
                self.put_value("file", pack([*noted, witness.changed_at()]))

    # ---- single values, and devices ----------------------------------------------------------------------------

    def get_value(self, name: str) -> bytes | None:
        """Return a value by its name, or None."""
        rows = self._database.select_rows("SELECT value FROM state WHERE name = ?", name)
        return self._rows.open(rows[0][0], "state", name) if rows else None

    def put_value(self, name: str, value: bytes) -> None:
        """Keep a value under a name."""
        self._db.execute(
            "INSERT OR REPLACE INTO state VALUES (?, ?)", (name, self._rows.seal(value, "state", name))
        )

    def drop_value(self, name: str) -> None:
        """Forget a value."""
        self._db.execute("DELETE FROM state WHERE name = ?", (name,))

    def list_names(self, prefix: str) -> list[str]:
        """Return the names of values that begin with `prefix`."""
        query = "SELECT name FROM state WHERE name >= ? AND name < ?"
        rows = self._database.select_rows(query, prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))
        return [name for (name,) in rows]

    def load_peer(self, device: bytes) -> tuple[bytes, bytes, int] | None:
        """Return a device's saved state, the person that it says it belongs to, and the version of our card that it
        was told.
        """
        rows = self._database.select_rows(
            "SELECT state, person, introduced FROM peers WHERE device = ?", device
        )
        if not rows:
            return None
        state, person, introduced = rows[0]
        return self._rows.open(state, "peers", device, person), person, introduced

    def get_person(self, device: bytes) -> bytes:
        """Return the person that a device says it belongs to, b"" for none."""
        rows = self._database.select_rows("SELECT person FROM peers WHERE device = ?", device)
        return rows[0][0] if rows else b""

    def list_devices(self) -> list[bytes]:
        """Return the devices that are known."""
        return [each for (each,) in self._database.select_rows("SELECT device FROM peers")]

    def put_peer(self, device: bytes, state: bytes, person: bytes, introduced: int) -> None:
        """Keep the state of a device."""
        values = (device, self._rows.seal(state, "peers", device, person), person, introduced)
        self._db.execute("INSERT OR REPLACE INTO peers VALUES (?, ?, ?, ?)", values)

    def list_unnamed_devices(self) -> list[bytes]:
        """Return the devices that haven't said to whom they belong."""
        return [each for (each,) in self._database.select_rows("SELECT device FROM peers WHERE person = x''")]

    def drop_peer(self, device: bytes) -> None:
        """Forget a device."""
        self._db.execute("DELETE FROM peers WHERE device = ?", (device,))

    # ---- outgoing payloads -------------------------------------------------------------------------------------

    def add_outgoing(self, device: bytes, number: int, message: bytes, payload: bytes) -> None:
        """Keep a payload until its device has it. `message` is the id of its event."""
        self._db.execute(
            "INSERT INTO outbox (device, number, message, payload, due) VALUES (?, ?, ?, ?, 0)",
            (device, number, message, self._rows.seal(payload, "outbox", device, number)),
        )

    def due_payloads(self, now_ms: int, most: int) -> list[Waiting]:
        """Return the payloads to send now, in order."""
        which = "SELECT device, number, payload, tries, due FROM outbox WHERE due"
        rows = self._database.select_rows(
            f"{which} <= ? UNION ALL {which} > ? UNION ALL {which} > ? AND due <= ? AND NOT tries "
            "ORDER BY due, device, number LIMIT ?",
            *(now_ms, now_ms + _LONGEST_PAUSE),
            *(now_ms + _UNSENT_PAUSE, now_ms + _LONGEST_PAUSE, most),
        )
        return [
            Waiting(device, number, self._rows.open(payload, "outbox", device, number), tries)
            for device, number, payload, tries, _ in rows
        ]

    def next_due(self) -> int | None:
        """Return when the next payload is due, Unix time in ms; None if none waits."""
        ((due,),) = self._database.select_rows(
            "SELECT MIN(due) FROM (SELECT MIN(due) AS due FROM outbox UNION ALL SELECT MIN(due) FROM spread_waiting "
            "UNION ALL SELECT MIN(due) FROM states_wanted)"
        )
        return None if due is None else int(due)

    def count_unsent(self, besides: Collection[bytes] = (), message: bytes = b"") -> int:
        """Return the number of payloads that were never sent, or that are spread and some reader lacks: of the
        message with this id, or of all. Those for the devices `besides` aren't counted.
        """
        others = ", ".join("?" * len(besides))
        ((count,),) = self._database.select_rows(
            "SELECT (SELECT COUNT(*) FROM spread_waiting WHERE ?1 IN (message, x'')) + (SELECT COUNT(*) FROM outbox "
            f"WHERE NOT tries AND ?1 IN (message, x'') AND device NOT IN ({others}))",
            *(message, *besides),
        )
        return int(count)

    def is_first_try(self, device: bytes, number: int, message: bytes) -> bool:
        """Return True if a payload is of the message with this id, and was sent once."""
        query = "SELECT 1 FROM outbox WHERE device = ? AND number = ? AND message = ? AND tries = 1"
        return bool(self._database.select_rows(query, device, number, message))

    def make_due(self, device: bytes = b"") -> None:
        """Make payloads due now that were never sent, for one device or all."""
        where = "NOT tries AND due > 0 AND ? IN (device, x'')"
        self._db.execute(f"UPDATE outbox SET due = 0 WHERE {where}", (device,))

    def set_due(self, device: bytes, numbers: list[int], due_ms: int, *, tried: int) -> None:
        """Set when payloads are due next; they were sent `tried` more times."""
        self._db.executemany(
            "UPDATE outbox SET due = ?, tries = tries + ? WHERE device = ? AND number = ?",
            [(due_ms, tried, device, each) for each in numbers],
        )

    def put_back(self, device: bytes, number: int, due_ms: int, tries: int) -> None:
        """Reset a payload to its state before it was last sent, due at a time. Idempotent."""
        values = (due_ms, tries, device, number)
        self._db.execute("UPDATE outbox SET due = ?, tries = ? WHERE device = ? AND number = ?", values)

    def put_off(self, device: bytes, until_ms: int) -> None:
        """Put off everything that waits for a device until a time."""
        self._db.execute(
            "UPDATE outbox SET due = ? WHERE device = ? AND due < ?", (until_ms, device, until_ms)
        )

    def drop_acknowledged(self, device: bytes, upto: int) -> list[bytes]:
        """Drop payloads that a device has acknowledged. Return the ids of their messages."""
        rows = self._db.execute(
            "DELETE FROM outbox WHERE device = ? AND number < ? RETURNING message", (device, upto)
        ).fetchall()
        return [each for (each,) in rows if each]

    def drop_device(self, device: bytes) -> None:
        """Drop everything that waits for a device, since it is no longer its owner's."""
        self._db.execute("DELETE FROM outbox WHERE device = ?", (device,))
        self.missed.drop_device(device)
        self.spread.drop_device(device)

    def renumber_device(self, device: bytes, *, first: int) -> int:
        """Renumber the payloads that wait for a device, from `first`. Return how many there are."""
        rows = self._db.execute(
            "DELETE FROM outbox WHERE device = ? RETURNING number, message, payload", (device,)
        ).fetchall()
        for number, (before, message, payload) in enumerate(sorted(rows), first):
            self.add_outgoing(device, number, message, self._rows.open(payload, "outbox", device, before))
        return len(rows)

    def count_waiting(self, device: bytes) -> int:
        """Return the number of payloads that wait for a device."""
        ((count,),) = self._database.select_rows("SELECT COUNT(*) FROM outbox WHERE device = ?", device)
        return int(count)

    def measure_waiting(self, device: bytes) -> int:
        """Return the bytes of the payloads that wait for a device."""
        query = "SELECT COALESCE(SUM(LENGTH(payload)), 0) FROM outbox WHERE device = ?"
        ((size,),) = self._database.select_rows(query, device)
        return int(size)

    # ---- contacts and groups -----------------------------------------------------------------------------------

    def load_contacts(self) -> dict[bytes, bytes]:
        """Return the saved contacts, by person."""
        return self._open_all("contacts", self._database.select_rows("SELECT person, saved FROM contacts"))

    def put_contact(self, person: bytes, saved: bytes) -> None:
        """Keep a saved contact."""
        sealed = self._rows.seal(saved, "contacts", person)
        self._db.execute("INSERT OR REPLACE INTO contacts VALUES (?, ?)", (person, sealed))

    def drop_contact(self, person: bytes) -> None:
        """Forget a person."""
        self._db.execute("DELETE FROM contacts WHERE person = ?", (person,))

    def load_groups(self) -> dict[bytes, bytes]:
        """Return the saved groups, by id."""
        return self._open_all("groups", self._database.select_rows("SELECT id, operations FROM groups"))

    def put_group(self, group: bytes, operations: bytes) -> None:
        """Keep the operations of a group."""
        sealed = self._rows.seal(operations, "groups", group)
        self._db.execute("INSERT OR REPLACE INTO groups VALUES (?, ?)", (group, sealed))

    def _open_all(self, table: str, rows: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
        return {of: self._rows.open(saved, table, of) for of, saved in rows}

    def add_given_state(self, key: bytes, state: bytes, ends_ms: int) -> None:
        """Keep a group's state that others may fetch from our mailboxes, with the key that it is sealed by there."""
        sealed = self._rows.seal(key, "given", "key", ends_ms), self._rows.seal(state, "given", "state", key)
        self._db.execute("INSERT INTO states_given VALUES (?, ?, ?)", (*sealed, ends_ms))

    def list_given_states(self, now_ms: int) -> list[tuple[bytes, bytes]]:
        """Return the keys and states that others may still fetch."""
        rows = self._database.select_rows("SELECT key, state, ends FROM states_given WHERE ends > ?", now_ms)
        keys = [(self._rows.open(key, "given", "key", ends), state) for key, state, ends in rows]
        return [(key, self._rows.open(state, "given", "state", key)) for key, state in keys]

    def drop_given_states(self, now_ms: int) -> None:
        """Drop states that others may no longer fetch."""
        self._db.execute("DELETE FROM states_given WHERE ends <= ?", (now_ms,))

    def add_wanted_state(self, group: bytes, device: bytes, file: bytes) -> None:
        """Keep a device's description of a group's state until the state is fetched: the newest of each device."""
        values = group, device, self._rows.seal(file, "wanted", group, device)
        self._db.execute("INSERT OR REPLACE INTO states_wanted VALUES (?, ?, ?, 0, 0)", values)

    def count_wanted_states(self, device: bytes) -> int:
        """Return how many states are still to be fetched that a device has told about."""
        ((count,),) = self._database.select_rows(
            "SELECT COUNT(*) FROM states_wanted WHERE device = ?", device
        )
        return int(count)

    def has_wanted_state(self, group: bytes, device: bytes) -> bool:
        """Return True if a state of a group that a device has told about is still to be fetched."""
        query = "SELECT 1 FROM states_wanted WHERE conversation = ? AND device = ?"
        return bool(self._database.select_rows(query, group, device))

    def list_wanted_states(self, now_ms: int) -> list[tuple[bytes, bytes, bytes, int]]:
        """Return the states to fetch now: group, device, the device's description, and the number of tries."""
        rows = self._database.select_rows(
            "SELECT conversation, device, file, tries FROM states_wanted WHERE due <= ? OR due > ?",
            *(now_ms, now_ms + _LONGEST_PAUSE),
        )
        return [
            (group, device, self._rows.open(file, "wanted", group, device), tries)
            for group, device, file, tries in rows
        ]

    def put_off_wanted_state(self, group: bytes, device: bytes, due_ms: int) -> None:
        """Count a try to fetch a state, and set when the next is due."""
        self._db.execute(
            "UPDATE states_wanted SET due = ?, tries = tries + 1 WHERE conversation = ? AND device = ?",
            (due_ms, group, device),
        )

    def drop_wanted_state(self, group: bytes, device: bytes) -> None:
        """Drop the entry of a state that was fetched."""
        self._db.execute("DELETE FROM states_wanted WHERE conversation = ? AND device = ?", (group, device))

    # ---- events ------------------------------------------------------------------------------------------------

    def add_said(self, conversation: bytes, said: Said, *, unread: bool, held: bool, vanishes: int) -> bool:
        """Keep an event, once by its sender and id. Return True if it is new. An event from its author replaces
        what somebody has passed on. If two have passed on different versions, the same one counts on all devices.
        """
        event, encoded = said.event, said.event.encode()
        if said.told and not held:
            self.held.make_way(said.sender, event.id)
        row = (
            *(said.sender, event.id, conversation, int(event.kind), event.clock, event.sent_ms),
            self._rows.seal(encoded, "said", said.sender, event.id, conversation),
            *(event.fields.get("target", event.id), unread, held, vanishes, said.told),
        )
        if held and self.held.set_aside(row):
            return False
        if said.told and not self.held.is_better_told(said.sender, event.id, said.told, encoded):
            return False
        return self._db.execute(ADD_SAID, row).rowcount > 0

    def read_events(self, conversation: bytes, *, target: bytes = b"", last: int | None = None) -> list[Said]:
        """Return the events of a conversation, or those about one of its messages, or about its `last` ones,
        without those that are held back.
        """
        query = f"SELECT {_SAID} FROM said WHERE conversation = ? AND NOT held"
        if target:
            rows = self._database.select_rows(f"{query} AND target = ?", conversation, target)
        elif last is not None:
            rows = self._database.select_rows(
                f"{query} AND target IN (SELECT id FROM said WHERE conversation = ? AND NOT held "
                f"AND kind IN ({_MESSAGES}) ORDER BY clock DESC, sender DESC, id DESC LIMIT ?)",
                *(conversation, conversation, last),
            )
        else:
            rows = self._database.select_rows(f"{query} ORDER BY clock", conversation)
        return [self._open_said(row) for row in rows]

    def _open_said(self, row: tuple[bytes, bytes, bytes, bytes, bytes]) -> Said:
        """Return the event in a row with the columns `_SAID`."""
        event, *place, told = row
        # The teller's own event came through a session with their device, as do all that they write.
        teller = b"" if told == row[1] else told
        return Said(row[1], Event.parse(self._rows.open(event, "said", *place)), teller)

    def find_said(self, event: bytes, sender: bytes) -> list[tuple[bytes, Said]]:
        """Return the sender's event with this id and its conversation, if it is kept, shown, and doesn't
        disappear.
        """
        rows = self._database.select_rows(
            f"SELECT {_SAID} FROM said WHERE sender = ? AND id = ? AND NOT held AND NOT vanishes",
            sender,
            event,
        )
        return [(row[3], self._open_said(row)) for row in rows]

    def find_message(self, message: bytes, sender: bytes = b"") -> tuple[bytes, bytes, Event] | None:
        """Return the conversation, sender and event of the message with this id, or None. If `sender` is given, it
        has to be theirs, since anybody can use an id that they have seen.
        """
        found = (each for each in self.find_messages(message) if sender in (b"", each[1]))
        return next(found, None)

    def find_messages(self, message: bytes) -> list[tuple[bytes, bytes, Event]]:
        """Return conversations, senders and events of all messages with this id. Those that were passed on by
        others come last.
        """
        query = f"SELECT {_SAID} FROM said WHERE {IS_MESSAGE} ORDER BY told"
        rows = self._database.select_rows(query, {"id": message})
        return [(row[3], row[1], self._open_said(row).event) for row in rows]

    def list_unread(self) -> list[tuple[bytes, bytes, bytes]]:
        """Return conversation, sender and id of the unread messages, oldest first."""
        query = "SELECT conversation, sender, id FROM said WHERE unread AND NOT held ORDER BY rowid"
        return self._database.select_rows(query)

    def list_unread_senders(self, kind: EventKind) -> list[bytes]:
        """Return the senders of unread messages of a kind, one for each message."""
        rows = self._database.select_rows("SELECT sender FROM said WHERE unread AND kind = ?", int(kind))
        return [each for (each,) in rows]

    def has_said(self, sender: bytes, message: bytes) -> bool:
        """Return True if a message of a person is here."""
        found = self._database.select_rows("SELECT 1 FROM said WHERE sender = ? AND id = ?", sender, message)
        return bool(found)

    def mark_read(self, sender: bytes, message: bytes) -> bool:
        """Note that a message was read here. Return whether that is new."""
        done = self._db.execute(
            "UPDATE said SET unread = 0 WHERE sender = ? AND id = ? AND unread", (sender, message)
        )
        return done.rowcount > 0

    def list_conversations(self) -> list[bytes]:
        """Return the persons and groups that have conversations, the newest last."""
        rows = self._database.select_rows(
            "SELECT conversation FROM said GROUP BY conversation ORDER BY MAX(rowid)"
        )
        return [each for (each,) in rows]

    def next_clock(self, conversation: bytes, now_ms: int) -> int:
        """Return the clock for a new event in a conversation: above all that are shown or have disappeared, if
        possible. It is at least the time, since there may be events that this device has never received. Events
        that are held back don't count: somebody who isn't in a group could otherwise choose the order of
        everybody's messages.
        """
        shown = self._database.select_rows(
            "SELECT clock FROM said WHERE conversation = ? AND NOT held ORDER BY clock DESC LIMIT 1",
            conversation,
        )
        gone = self._database.select_rows(
            "SELECT clock FROM vanished_clocks WHERE conversation = ?", conversation
        )
        following = [int(clock) + 1 for (clock,) in [*shown, *gone]]
        return min(max([now_ms, *following]), now_ms + MAX_AHEAD_MS)

    def events_since(self, sent_ms: int) -> list[tuple[bytes, Said]]:
        """Return conversations and events that were sent since a time."""
        rows = self._database.select_rows(
            f"SELECT {_SAID} FROM said WHERE sent >= ? AND NOT held AND NOT vanishes ORDER BY rowid",
            sent_ms,
        )
        return [(row[3], self._open_said(row)) for row in rows]

    def set_vanishing(self, sender: bytes, message: bytes, at_ms: int) -> None:
        """Set when a message disappears, if that isn't set yet."""
        values = (at_ms, sender, message)
        self._db.execute("UPDATE said SET vanishes = ? WHERE sender = ? AND id = ? AND NOT vanishes", values)

    def next_vanishing(self) -> int | None:
        """Return when the next message disappears, Unix time in ms; None if none does."""
        query = "SELECT MIN(vanishes) FROM said WHERE vanishes"
        ((at,),) = self._database.select_rows(query)
        return None if at is None else int(at)

    def delete_vanished(self, now_ms: int) -> int:
        """Delete messages that were to disappear by now, and the events about them. Return the number of messages."""
        self._db.execute(
            "INSERT INTO vanished_clocks SELECT conversation, MAX(clock) FROM said WHERE vanishes AND vanishes <= ? "
            "AND NOT held GROUP BY conversation ON CONFLICT DO UPDATE SET clock = MAX(clock, excluded.clock)",
            (now_ms,),
        )
        gone = self._db.execute(
            "DELETE FROM said WHERE vanishes AND vanishes <= ? RETURNING id", (now_ms,)
        ).fetchall()
        self._db.executemany(
            "DELETE FROM said WHERE target = ?1 AND NOT EXISTS "
            "(SELECT 1 FROM said WHERE target = ?1 AND id = ?1)",
            gone,
        )
        return len(gone)

    # ---- receipts, and seen envelopes --------------------------------------------------------------------------

    def add_receipt(self, message: bytes, person: bytes, device: bytes, *, read: bool) -> None:
        """Note that a device of a person has a message, or that the person has read it."""
        self._db.execute(
            "INSERT INTO receipts VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET read = MAX(read, excluded.read)",
            (message, person, device, read),
        )

    def read_receipts(self, message: bytes) -> dict[bytes, bool]:
        """Return the persons who have a message, and whether they have read it."""
        rows = self._database.select_rows(
            "SELECT person, MAX(read) FROM receipts WHERE message = ? GROUP BY person", message
        )
        return {person: bool(read) for person, read in rows}

    def is_new(self, digest: bytes) -> bool:
        """Remember an envelope. Return True if it is seen for the first time."""
        done = self._db.execute("INSERT OR IGNORE INTO seen (digest) VALUES (?)", (digest,))
        number = done.lastrowid or 0
        if done.rowcount and number % _SWEEP == 0:
            self._db.execute("DELETE FROM seen WHERE number <= ?", (number - _SEEN,))
        return done.rowcount > 0
