"""Events that are held back: of people who aren't in the group, of keys that wait for consent, of those who may not
tell of them yet.

If the same event is here because somebody else told of it, the one that is held back waits beside it, or it would
hide that.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from dtp.messaging.at_rest import SealedRows
from dtp.messaging.database import Database

#: What came from its author is never replaced.
ADD_SAID: Final = """INSERT INTO said VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (sender, id) DO UPDATE SET
    conversation = excluded.conversation, kind = excluded.kind, clock = excluded.clock, sent = excluded.sent,
    event = excluded.event, target = excluded.target, unread = excluded.unread, held = excluded.held,
    vanishes = excluded.vanishes, told = excluded.told WHERE told != x''"""
#: Made with the file, or when an older one is opened. Its columns are those of `said`.
HELD_ASIDE: Final = """CREATE TABLE IF NOT EXISTS held_aside (
    sender BLOB NOT NULL, id BLOB NOT NULL, conversation BLOB NOT NULL, kind INTEGER NOT NULL,
    clock INTEGER NOT NULL, sent INTEGER NOT NULL, event BLOB NOT NULL, target BLOB NOT NULL,
    unread INTEGER NOT NULL, held INTEGER NOT NULL, vanishes INTEGER NOT NULL, told BLOB NOT NULL,
    PRIMARY KEY (sender, id, told)
) WITHOUT ROWID"""
#: Places in a row.
_HELD: Final = 9
_TOLD: Final = 11


class HeldEvents:
    """A part of a `MessageStore`; what it changes is within a transaction of that."""

    def __init__(self, database: Database, rows: SealedRows) -> None:
        self._database, self._rows = database, rows

    # ---- what comes --------------------------------------------------------------------------------------------

    def set_aside(self, row: tuple[Any, ...]) -> bool:
        """Put a row of `said` that is held back beside the same event, if that is told, or told by another.

        Return whether it is.
        """
        known = self._database.select_rows(
            "SELECT told, held FROM said WHERE sender = ? AND id = ?", *row[:2]
        )
        if not any(told != row[_TOLD] if held else told for told, held in known):
            return False
        self._put_aside(row)
        return True

    def _put_aside(self, row: tuple[Any, ...]) -> None:
        # Two statements: what REPLACE takes away isn't counted as gone.
        place = (*row[:2], row[_TOLD])
        self._database.execute("DELETE FROM held_aside WHERE sender = ? AND id = ? AND told = ?", place)
        self._database.execute(f"INSERT INTO held_aside VALUES ({', '.join('?' * len(row))})", row)

    def make_way(self, sender: bytes, event: bytes) -> None:
        """Set aside an event that is held back: as somebody has told it, it may be shown."""
        known = "FROM said WHERE sender = ? AND id = ? AND held"
        for row in self._database.select_rows(f"SELECT * {known}", sender, event):
            self._database.execute(f"DELETE {known}", (sender, event))
            self._put_aside(row)

    def is_better_told(self, sender: bytes, event: bytes, told: bytes, encoded: bytes) -> bool:
        """True if an event isn't known yet, or only as somebody who counts less has told it."""
        rows = self._database.select_rows(
            "SELECT told, event, conversation FROM said WHERE sender = ? AND id = ?", sender, event
        )
        return all(
            by
            and (told != sender, told, encoded)
            < (by != sender, by, self._rows.open(sealed, "said", sender, event, conversation))
            for by, sealed, conversation in rows
        )

    # ---- what is shown now -------------------------------------------------------------------------------------

    def release_of_members(self, group: bytes, persons: Collection[bytes]) -> list[tuple[bytes, bytes]]:
        """Show what was held back in a conversation of persons who may speak there now. Return senders and ids of the
        messages among that which nobody has marked as read, oldest first."""
        rows = self._database.select_rows(
            "SELECT sender, id, unread FROM said WHERE conversation = ? AND held AND told = x'' ORDER BY rowid",
            group,
        )
        aside = self._database.select_rows(
            "SELECT sender, id, unread FROM held_aside WHERE conversation = ? AND told = x'' ORDER BY clock",
            group,
        )
        released = [each for each in (*rows, *aside) if each[0] in persons]
        for sender, event, _ in released:
            self._database.execute(
                "UPDATE said SET held = 0 WHERE sender = ? AND id = ? AND told = x''", (sender, event)
            )
        for sender in {each[0] for each in aside if each[0] in persons}:
            self._bring_back("conversation = ? AND sender = ? AND told = x''", group, sender)
        return [(sender, message) for sender, message, unread in released if unread]

    def show_event(self, sender: bytes, event: bytes) -> bool:
        """Show an event that came by itself and was held back. Return whether it was, and is a message that nobody
        has marked as read."""
        place, where = (sender, event), "sender = ? AND id = ? AND told = x''"
        changed = self._database.execute(f"UPDATE said SET held = 0 WHERE {where} AND held", place)
        if not self._bring_back(where, *place) and not changed:
            return False
        query = "SELECT 1 FROM said WHERE sender = ? AND id = ? AND unread"
        return bool(self._database.select_rows(query, *place))

    def hide_event(self, sender: bytes, event: bytes) -> None:
        """Hold back an event that came by itself and was shown."""
        self._database.execute(
            "UPDATE said SET held = 1 WHERE sender = ? AND id = ? AND told = x''", (sender, event)
        )

    def release_told(self, conversation: bytes, teller: bytes) -> bool:
        """Show what was held back of what somebody has told of a conversation. Return whether there was anything."""
        query = "UPDATE said SET held = 0 WHERE told = ? AND told != x'' AND conversation = ? AND held"
        changed = self._database.execute(query, (teller, conversation))
        return (
            bool(self._bring_back("conversation = ? AND told = ? AND told != x''", conversation, teller))
            or changed > 0
        )

    def _bring_back(self, where: str, *values: bytes) -> int:
        """Show what was set aside, unless something better has come meanwhile. Return how many there were."""
        rows = self._database.select_rows(f"SELECT * FROM held_aside WHERE {where} ORDER BY clock", *values)
        self._database.execute(f"DELETE FROM held_aside WHERE {where}", values)
        for row in rows:
            sender, event, conversation, sealed, told = row[0], row[1], row[2], row[6], row[_TOLD]
            encoded = self._rows.open(sealed, "said", sender, event, conversation)
            if told:
                self.make_way(sender, event)
            if not told or self.is_better_told(sender, event, told, encoded):
                self._database.execute(ADD_SAID, (*row[:_HELD], 0, *row[_HELD + 1 :]))
        return len(rows)
