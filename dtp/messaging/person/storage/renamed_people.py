"""Renames a person in a device's file, when they are known as somebody else from now on."""

from __future__ import annotations

from dtp.messaging.at_rest import SealedRows
from dtp.messaging.database import Database


class RenamedPeople:
    """Changes who has said what. A part of a `MessageStore`; it makes changes within the store's transactions."""

    def __init__(self, database: Database, rows: SealedRows) -> None:
        self._database, self._rows = database, rows

    def rename_person(self, before: bytes, after: bytes) -> None:
        """Assign everything that a person has said, and what was said to them alone, to another person."""
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
        """Rename a person in the rows of a table. A row that already has the new key, as `same` compares it, is
        deleted.
        """
        query = (
            f"SELECT sender, id, told, conversation, event FROM {table} WHERE sender = ? OR conversation = ?"
        )
        for *key, conversation, sealed in self._database.select_rows(query, before, before):
            sender, event, _ = key
            opened = self._rows.open(sealed, "said", sender, event, conversation)
            whose = after if sender == before else sender
            place = after if conversation == before else conversation
            values = (whose, place, self._rows.seal(opened, "said", whose, event, place), *key)
            if whose != sender:  # separately: triggers that count rows don't see what REPLACE removes
                known = (whose, *key[1:])
                self._database.execute(f"DELETE FROM {table} WHERE {same}", known[: same.count("?")])
            self._database.execute(
                f"UPDATE {table} SET sender = ?, conversation = ?, event = ? "
                "WHERE sender = ? AND id = ? AND told = ?",
                values,
            )
