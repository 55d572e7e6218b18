"""What was said in the file of a device's messages, where somebody is known as somebody else from now on."""

from __future__ import annotations

from dtp.messaging.at_rest import SealedRows
from dtp.messaging.database import Database


class RenamedPeople:
    """Whose is what was said. A part of a `MessageStore`; what it changes is within a transaction of that."""

    def __init__(self, database: Database, rows: SealedRows) -> None:
        self._database, self._rows = database, rows

    def rename_person(self, before: bytes, after: bytes) -> None:
        """Have all that a person has said, and what was said to them alone, be another's."""
        for table, same in (
            ("said", "sender = ? AND id = ?"),
            ("held_aside", "sender = ? AND id = ? AND told = ?"),
        ):
            self._rename_rows(table, same, before, after)
        for table in ("receipts", "early_reads"):
            self._database.execute(
                f"UPDATE OR REPLACE {table} SET person = ? WHERE person = ?", (after, before)
            )
        self._database.execute(
            "INSERT INTO vanished_clocks SELECT ?, clock FROM vanished_clocks WHERE conversation = ? "
            "ON CONFLICT DO UPDATE SET clock = MAX(clock, excluded.clock)",
            (after, before),
        )

    def _rename_rows(self, table: str, same: str, before: bytes, after: bytes) -> None:
        """Rename a person in the rows of a table; what is there by the same key already, as `same` says, goes."""
        query = (
            f"SELECT sender, id, told, conversation, event FROM {table} WHERE sender = ? OR conversation = ?"
        )
        for *key, conversation, sealed in self._database.select_rows(query, before, before):
            sender, event, _ = key
            opened = self._rows.open(sealed, "said", sender, event, conversation)
            whose = after if sender == before else sender
            place = after if conversation == before else conversation
            values = (whose, place, self._rows.seal(opened, "said", whose, event, place), *key)
            if whose != sender:  # by itself: what REPLACE takes away isn't counted as gone
                known = (whose, *key[1:])
                self._database.execute(f"DELETE FROM {table} WHERE {same}", known[: same.count("?")])
            self._database.execute(
                f"UPDATE {table} SET sender = ?, conversation = ?, event = ? "
                "WHERE sender = ? AND id = ? AND told = ?",
                values,
            )
