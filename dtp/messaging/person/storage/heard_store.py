"""Which device has said what in groups, in the order in which it came. From this, removals tell what they
have seen.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from dtp.messaging.conversation.events import Event
from dtp.messaging.database import Database

HEARD_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS heard (
    number INTEGER PRIMARY KEY, conversation BLOB NOT NULL, sender BLOB NOT NULL, id BLOB NOT NULL,
    device BLOB NOT NULL, clock INTEGER NOT NULL, UNIQUE (sender, id)
)""",
    "CREATE INDEX IF NOT EXISTS heard_device ON heard (conversation, sender, device, number)",
)


class HeardStore:
    """A part of a `MessageStore`. It makes changes within the store's transactions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note_heard(self, conversation: bytes, sender: bytes, device: bytes, event: Event) -> None:
        """Note that a device of a person has said something in a group."""
        self._database.execute(
            "INSERT OR IGNORE INTO heard (conversation, sender, id, device, clock) VALUES (?, ?, ?, ?, ?)",
            (conversation, sender, event.id, device, event.clock),
        )

    def list_last(
        self, conversations: Collection[bytes], sender: bytes, most: int
    ) -> list[tuple[bytes, int]]:
        """Return the id and clock of the last event of each device of a person in these conversations, without
        events that are held back: for the `most` devices that have spoken last.
        """
        rows = self._database.select_rows(
            f"SELECT id, clock, MAX(number) AS last FROM heard WHERE conversation IN {_marks(conversations)} "
            "AND sender = ? AND NOT EXISTS (SELECT 1 FROM said WHERE said.sender = heard.sender "
            "AND said.id = heard.id AND held) GROUP BY device ORDER BY last DESC LIMIT ?",
            *(*conversations, sender, most),
        )
        return [(event, clock) for event, clock, _ in rows]

    def find_places(self, sender: bytes, events: Collection[bytes]) -> dict[bytes, tuple[bytes, int]]:
        """Return the device and number of those events of a person that have come, by id."""
        query = f"SELECT id, device, number FROM heard WHERE sender = ? AND id IN {_marks(events)}"
        rows = self._database.select_rows(query, sender, *events)
        return {event: (device, number) for event, device, number in rows}

    def list_said(
        self, conversations: Collection[bytes], sender: bytes
    ) -> list[tuple[bytes, bytes, int, bool, bytes | None, int | None]]:
        """Return, for each event that has come from a person itself in these conversations, its conversation, id,
        clock, whether it is held back, and its device and number.
        """
        rows = self._database.select_rows(
            "SELECT said.conversation, said.id, said.clock, said.held, heard.device, heard.number FROM said "
            "LEFT JOIN heard ON heard.sender = said.sender AND heard.id = said.id "
            f"WHERE said.conversation IN {_marks(conversations)} AND said.sender = ? AND said.told = x'' "
            "UNION ALL SELECT aside.conversation, aside.id, aside.clock, 1, heard.device, heard.number "
            "FROM held_aside AS aside LEFT JOIN heard ON heard.sender = aside.sender AND heard.id = aside.id "
            f"WHERE aside.conversation IN {_marks(conversations)} AND aside.sender = ? AND aside.told = x''",
            *(*conversations, sender, *conversations, sender),
        )
        return [(*row[:3], bool(row[3]), *row[4:]) for row in rows]


def _marks(values: Collection[object]) -> str:
    return f"({', '.join('?' * len(values))})"
