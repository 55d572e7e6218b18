"""Messages of large groups in a device's file: those that this device spreads, who has them, and those of others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dtp.messaging.at_rest import SealedRows
from dtp.messaging.database import Database
from dtp.messaging.packing import MAX_NUMBER

SPREAD_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS spread_lanes (
    conversation BLOB NOT NULL, device BLOB NOT NULL, state BLOB NOT NULL, PRIMARY KEY (conversation, device)
) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS spread_readers (
    conversation BLOB NOT NULL, device BLOB NOT NULL, upto INTEGER NOT NULL, seen INTEGER NOT NULL,
    PRIMARY KEY (conversation, device)
) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS spread_waiting (
    conversation BLOB NOT NULL, number INTEGER NOT NULL, message BLOB NOT NULL, sealed BLOB NOT NULL,
    key BLOB NOT NULL, due INTEGER NOT NULL, published INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (conversation, number)
) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS spread_lanes_device ON spread_lanes (device)",
)


@dataclass(frozen=True, slots=True)
class Spread:
    """A message that is spread in a group: its number, the id of its event, the sealed message, and the key that
    opens it and those after it.
    """

    number: int
    message: bytes
    sealed: bytes
    key: bytes


class SpreadStore:
    """A part of a `MessageStore`. It makes changes within the store's transactions."""

    def __init__(self, database: Database, rows: SealedRows) -> None:
        self._database, self._rows = database, rows

    def load_lane(self, group: bytes, device: bytes) -> bytes | None:
        """Return the saved state of the messages that a device spreads in a group, or None."""
        rows = self._database.select_rows(
            "SELECT state FROM spread_lanes WHERE conversation = ? AND device = ?", group, device
        )
        return self._rows.open(rows[0][0], "lanes", group, device) if rows else None

    def put_lane(self, group: bytes, device: bytes, state: bytes) -> None:
        """Keep the state of the messages that a device spreads in a group."""
        values = group, device, self._rows.seal(state, "lanes", group, device)
        self._database.execute("INSERT OR REPLACE INTO spread_lanes VALUES (?, ?, ?)", values)

    def list_lanes(self, device: bytes) -> list[bytes]:
        """Return the groups in which a device has spread something."""
        rows = self._database.select_rows("SELECT conversation FROM spread_lanes WHERE device = ?", device)
        return [each for (each,) in rows]

    def load_readers(self, group: bytes) -> dict[bytes, tuple[int, int]]:
        """Return by device the number below which it has our messages in a group or was given them by mailbox, and
        when it last said that it reads along, Unix time in ms.
        """
        rows = self._database.select_rows(
            "SELECT device, upto, seen FROM spread_readers WHERE conversation = ?", group
        )
        return {device: (upto, seen) for device, upto, seen in rows}

    def load_reader(self, group: bytes, device: bytes) -> tuple[int, int] | None:
        """Return the same for one device, None if we don't spread to it."""
        rows = self._database.select_rows(
            "SELECT upto, seen FROM spread_readers WHERE conversation = ? AND device = ?", group, device
        )
        return rows[0] if rows else None

    def put_readers(self, group: bytes, readers: Mapping[bytes, tuple[int, int]]) -> None:
        """Keep the state of these devices as readers of a group."""
        self._database.execute_many(
            "INSERT OR REPLACE INTO spread_readers VALUES (?, ?, ?, ?)",
            [(group, device, *state) for device, state in readers.items()],
        )

    def drop_readers(self, group: bytes, devices: Iterable[bytes]) -> None:
        """Forget these devices as readers of a group."""
        self._database.execute_many(
            "DELETE FROM spread_readers WHERE conversation = ? AND device = ?",
            [(group, each) for each in devices],
        )

    def drop_device(self, device: bytes) -> None:
        """Drop a device as a reader of all groups. A nameless reader that lacks nothing takes its place: it shows
        that a device which has the present key is gone, so that a new key has to be made.
        """
        self._database.execute(
            "INSERT OR REPLACE INTO spread_readers SELECT conversation, x'', ?, 0 FROM spread_readers "
            "WHERE device = ?",
            (MAX_NUMBER, device),
        )
        self._database.execute("DELETE FROM spread_readers WHERE device = ?", (device,))

    def add_spread(self, group: bytes, spread: Spread, due_ms: int) -> None:
        """Keep a message that is spread in a group until all its readers have it."""
        key = self._rows.seal(spread.key, "spread", group, spread.number)
        values = (group, spread.number, spread.message, spread.sealed, key, due_ms)
        self._database.execute("INSERT INTO spread_waiting VALUES (?, ?, ?, ?, ?, ?, 0)", values)

    def list_spread(self, group: bytes) -> list[Spread]:
        """Return the messages that some reader of a group lacks, in order."""
        rows = self._database.select_rows(
            "SELECT number, message, sealed, key FROM spread_waiting WHERE conversation = ? ORDER BY number",
            group,
        )
        return [
            Spread(number, message, sealed, self._rows.open(key, "spread", group, number))
            for number, message, sealed, key in rows
        ]

    def drop_spread(self, group: bytes) -> None:
        """Drop the messages that all readers of a group have."""
        self._database.execute(
            "DELETE FROM spread_waiting WHERE conversation = ?1 AND number < COALESCE("
            "(SELECT MIN(upto) FROM spread_readers WHERE conversation = ?1), number + 1)",
            (group,),
        )

    def list_overdue(self, now_ms: int, patience_ms: int) -> list[tuple[bytes, int]]:
        """Return groups, with the highest number that its readers should have had by now. A time further ahead than
        `patience_ms` was written by a clock that was ahead, and counts as over.
        """
        return self._database.select_rows(
            "SELECT conversation, MAX(number) FROM spread_waiting WHERE due <= ? OR due > ? GROUP BY conversation",
            *(now_ms, now_ms + patience_ms),
        )

    def take_unpublished(self) -> list[tuple[bytes, int, bytes]]:
        """Return groups, numbers and messages that weren't published yet, in order, and mark them as published."""
        rows = self._database.select_rows(
            "SELECT conversation, number, sealed FROM spread_waiting WHERE NOT published"
        )
        self._database.execute("UPDATE spread_waiting SET published = 1 WHERE NOT published", ())
        return sorted(rows)

    def set_overdue(self, group: bytes) -> None:
        """Have the waiting messages of a group sent by mailbox now."""
        self._database.execute("UPDATE spread_waiting SET due = 0 WHERE conversation = ?", (group,))
