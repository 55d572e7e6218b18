"""The ids of events that others' devices have missed, because no more was kept for them, in a device's file."""

from __future__ import annotations

from typing import Final

from dtp.messaging.database import Database

MISSED_TABLE: Final = """CREATE TABLE IF NOT EXISTS missed (
    number INTEGER PRIMARY KEY, device BLOB NOT NULL, id BLOB NOT NULL, UNIQUE (device, id)
)"""


#: Ids that are kept, with some tolerance, for a device whose key waits to be accepted, perhaps forever.
WAITING: Final = 10_000
#: Surplus ids are dropped when there are so many of them.
_TRIMMED: Final = 100


class MissedStore:
    """A part of a `MessageStore`. It makes changes within the store's transactions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_event(self, device: bytes, event: bytes) -> None:
        """Note that a device has missed our event with this id; b"" stands for one that is in no history. The id of
        a copy for a device of ours is preceded by its sender.
        """
        self._database.execute("INSERT OR IGNORE INTO missed (device, id) VALUES (?, ?)", (device, event))

    def add_waiting(self, device: bytes, event: bytes) -> None:
        """Note the same for a device whose key waits to be accepted. Beyond `WAITING` the oldest are dropped,
        except b"".
        """
        self.add_event(device, event)
        rows = self._database.select_rows("SELECT COUNT(*) FROM missed WHERE device = ?", device)
        if rows[0][0] >= WAITING + _TRIMMED:
            self._database.execute(
                "DELETE FROM missed WHERE device = ? AND id != x'' AND number <= (SELECT number FROM missed "
                "WHERE device = ? ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (device, device, WAITING),
            )

    def take_events(self, device: bytes, most: int) -> list[bytes]:
        """Return the ids of the first events that a device has missed, and drop them."""
        rows = self._database.select_rows(
            "SELECT number, id FROM missed WHERE device = ? ORDER BY number LIMIT ?", device, most
        )
        if rows:
            self._database.execute(
                "DELETE FROM missed WHERE device = ? AND number <= ?", (device, rows[-1][0])
            )
        return [event for _, event in rows]

    def drop_device(self, device: bytes) -> None:
        """Forget what a device has missed, since it is no longer its owner's."""
        self._database.execute("DELETE FROM missed WHERE device = ?", (device,))
