"""Events that are held back: those of people who aren't in the group, of keys that wait for consent, and of people
who may not pass them on yet.

If the same event is here as somebody else has passed it on, the held one is set aside in another table, or it would
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
#: Created with the file, or when an older file is opened. It has the columns of `said`.
HELD_ASIDE: Final = """CREATE TABLE IF NOT EXISTS held_aside (
    sender BLOB NOT NULL, id BLOB NOT NULL, conversation BLOB NOT NULL, kind INTEGER NOT NULL,
    clock INTEGER NOT NULL, sent INTEGER NOT NULL, event BLOB NOT NULL, target BLOB NOT NULL,
    unread INTEGER NOT NULL, held INTEGER NOT NULL, vanishes INTEGER NOT NULL, told BLOB NOT NULL,
    PRIMARY KEY (sender, id, told)
) WITHOUT ROWID"""
#: Indexes in a row.
_HELD: Final = 9
_TOLD: Final = 11


class HeldEvents:
    """A part of a `MessageStore`. It makes changes within the store's transactions."""

    def __init__(self, database: Database, rows: SealedRows) -> None:
        self._database, self._rows = database, rows

    # ---- holding back ------------------------------------------------------------------------------------------

    def set_aside(self, row: tuple[Any, ...]) -> bool:
        """Set a held row of `said` aside if the same event is here, shown as somebody has passed it on, or held
        from another teller.

        Return True if it was set aside.
        """
        known = self._database.select_rows(
            "SELECT told, held FROM said WHERE sender = ? AND id = ?", *row[:2]
        )
        if not any(told != row[_TOLD] if held else told for told, held in known):
            return False
        self._put_aside(row)
        return True

    def _put_aside(self, row: tuple[Any, ...]) -> None:
        # Two statements, since the triggers that count rows don't see what REPLACE removes.
        place = (*row[:2], row[_TOLD])
        self._database.execute("DELETE FROM held_aside WHERE sender = ? AND id = ? AND told = ?", place)
        self._database.execute(f"INSERT INTO held_aside VALUES ({', '.join('?' * len(row))})", row)

    def make_way(self, sender: bytes, event: bytes) -> None:
        """Set aside a held event, so that it can be shown as somebody has passed it on."""
        known = "FROM said WHERE sender = ? AND id = ? AND held"
        for row in self._database.select_rows(f"SELECT * {known}", sender, event):
            self._database.execute(f"DELETE {known}", (sender, event))
            self._put_aside(row)

    def is_better_told(self, sender: bytes, event: bytes, told: bytes, encoded: bytes) -> bool:
        """True if an event isn't known yet, or only from tellers who count less than `told`."""
        rows = self._database.select_rows(
            "SELECT told, event, conversation FROM said WHERE sender = ? AND id = ?", sender, event
        )
        return all(
            by
            and (told != sender, told, encoded)
            < (by != sender, by, self._rows.open(sealed, "said", sender, event, conversation))
            for by, sealed, conversation in rows
        )

    # ---- showing -----------------------------------------------------------------------------------------------

    def release_of_members(self, group: bytes, persons: Collection[bytes]) -> list[tuple[bytes, bytes]]:
        """Show held events in a conversation, of persons who may speak there now. Return the senders and ids of
        those that are unread messages, oldest first.
        """
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
        """Show a held event that came from its author. Return True if it was held and is an unread message."""
        place, where = (sender, event), "sender = ? AND id = ? AND told = x''"
        changed = self._database.execute(f"UPDATE said SET held = 0 WHERE {where} AND held", place)
        if not self._bring_back(where, *place) and not changed:
            return False
        query = "SELECT 1 FROM said WHERE sender = ? AND id = ? AND unread"
        return bool(self._database.select_rows(query, *place))

    def hide_event(self, sender: bytes, event: bytes) -> None:
        """Hold back a shown event that came from its author."""
        self._database.execute(
            "UPDATE said SET held = 1 WHERE sender = ? AND id = ? AND told = x''", (sender, event)
        )

    def release_told(self, conversation: bytes, teller: bytes) -> bool:
        """Show held events of a conversation that `teller` has passed on. Return True if there were any."""
        query = "UPDATE said SET held = 0 WHERE told = ? AND told != x'' AND conversation = ? AND held"
        changed = self._database.execute(query, (teller, conversation))
        return (
            bool(self._bring_back("conversation = ? AND told = ? AND told != x''", conversation, teller))
            or changed > 0
        )

    def _bring_back(self, where: str, *values: bytes) -> int:
        """Show what was set aside, unless something better has come meanwhile. Return the number of rows."""
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
