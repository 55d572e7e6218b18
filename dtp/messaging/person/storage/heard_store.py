"""Which device has said what in groups, in the order in which it came: what a removal has seen is told by that."""

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
    """A part of a `MessageStore`; what it changes is within a transaction of that."""

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
        """Return the id and clock of what each device of a person has said last in these conversations, of what is
        shown or has disappeared: of as many devices as those that spoke last."""
        rows = self._database.select_rows(
            f"SELECT id, clock, MAX(number) AS last FROM heard WHERE conversation IN {_marks(conversations)} "
            "AND sender = ? AND NOT EXISTS (SELECT 1 FROM said WHERE said.sender = heard.sender "
            "AND said.id = heard.id AND held) GROUP BY device ORDER BY last DESC LIMIT ?",
            *(*conversations, sender, most),
        )
        return [(event, clock) for event, clock, _ in rows]

    def find_places(self, sender: bytes, events: Collection[bytes]) -> dict[bytes, tuple[bytes, int]]:
        """Return the device and the number of what a person has said by these ids, where it has come."""
        query = f"SELECT id, device, number FROM heard WHERE sender = ? AND id IN {_marks(events)}"
        rows = self._database.select_rows(query, sender, *events)
        return {event: (device, number) for event, device, number in rows}

    def list_said(
        self, conversations: Collection[bytes], sender: bytes
    ) -> list[tuple[bytes, bytes, int, bool, bytes | None, int | None]]:
        """Return conversation, id, clock, whether it is held back, device and number of what a person has said in
        these conversations by itself."""
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
