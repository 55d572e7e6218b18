"""What a device's file has of what others' devices have missed, for which nothing more was kept: ids of events."""

from __future__ import annotations

from typing import Final

from dtp.messaging.database import Database

MISSED_TABLE: Final = """CREATE TABLE IF NOT EXISTS missed (
    number INTEGER PRIMARY KEY, device BLOB NOT NULL, id BLOB NOT NULL, UNIQUE (device, id)
)"""


#: Ids that are kept of what a device misses whose key waits to be accepted, but for some more: that may be for ever.
WAITING: Final = 10_000
#: Those that are too many are forgotten once in so many.
_TRIMMED: Final = 100


class MissedStore:
    """A part of a `MessageStore`: what it changes is within a transaction of that."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_event(self, device: bytes, event: bytes) -> None:
        """Note that a device has missed the event with this id of ours, b"" for one that is in no history; before
        the id is the sender of what was copied for a device of ours."""
        self._database.execute("INSERT OR IGNORE INTO missed (device, id) VALUES (?, ?)", (device, event))

    def add_waiting(self, device: bytes, event: bytes) -> None:
        """Note the same of a device whose key waits to be accepted: the oldest are forgotten of more than `WAITING`,
        but for b""."""
        self.add_event(device, event)
        rows = self._database.select_rows("SELECT COUNT(*) FROM missed WHERE device = ?", device)
        if rows[0][0] >= WAITING + _TRIMMED:
            self._database.execute(
                "DELETE FROM missed WHERE device = ? AND id != x'' AND number <= (SELECT number FROM missed "
                "WHERE device = ? ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (device, device, WAITING),
            )

    def take_events(self, device: bytes, most: int) -> list[bytes]:
        """Return the ids of the first events that a device has missed, and forget them."""
        rows = self._database.select_rows(
            "SELECT number, id FROM missed WHERE device = ? ORDER BY number LIMIT ?", device, most
        )
        if rows:
            self._database.execute(
                "DELETE FROM missed WHERE device = ? AND number <= ?", (device, rows[-1][0])
            )
        return [event for _, event in rows]

    def drop_device(self, device: bytes) -> None:
        """Forget what a device has missed, which isn't its owner's any more."""
        self._database.execute("DELETE FROM missed WHERE device = ?", (device,))
