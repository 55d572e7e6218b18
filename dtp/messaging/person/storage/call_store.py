"""Incoming calls in a device's file. Each is kept until it was dealt with, or the program was told about it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from dtp.messaging.at_rest import SealedRows
from dtp.messaging.calls.signals import MISSED, Reason, SignalAct
from dtp.messaging.conversation.events import Event
from dtp.messaging.database import Database
from dtp.messaging.person.notices import CallSignalled, Notice, missed_call

CALLS_TABLE: Final = """CREATE TABLE IF NOT EXISTS calls (
    number INTEGER PRIMARY KEY, person BLOB NOT NULL, call BLOB NOT NULL, device BLOB NOT NULL, event BLOB NOT NULL,
    reason INTEGER NOT NULL DEFAULT 0, UNIQUE (person, call)
)"""
#: Calls of one person that are kept: the newest.
MOST: Final = 16


class CallStore:
    """A part of a `MessageStore`. It makes changes within the store's transactions."""

    def __init__(self, database: Database, rows: SealedRows) -> None:
        self._database, self._rows = database, rows

    def note_signal(self, told: CallSignalled) -> CallSignalled:
        """Note a signal, and return it: somebody calls, the call was dealt with, or nobody has answered."""
        fields, person = told.event.fields, told.person
        call, act, reason = fields["call"], fields["act"], fields.get("reason", 0)
        if told.own:
            self._database.execute("DELETE FROM calls WHERE call = ?", (call,))
        elif act == SignalAct.OFFER:
            event = self._rows.seal(told.event.encode(), "calls", person, call)
            self._database.execute(
                "INSERT OR IGNORE INTO calls (person, call, device, event) VALUES (?, ?, ?, ?)",
                (person, call, told.device, event),
            )
            self._database.execute(
                "DELETE FROM calls WHERE person = ?1 AND number <= (SELECT number FROM calls WHERE person = ?1 "
                "ORDER BY number DESC LIMIT 1 OFFSET ?2)",
                (person, MOST),
            )
        elif act == SignalAct.END and reason in MISSED:
            self._database.execute(
                "UPDATE calls SET reason = ? WHERE person = ? AND call = ? AND device = ?",
                (reason, person, call, told.device),
            )
        elif act in (SignalAct.END, SignalAct.TAKEN):
            self._database.execute(
                "DELETE FROM calls WHERE person = ? AND call = ? AND device = ?", (person, call, told.device)
            )
        return told

    def list_calls(self) -> list[Notice | CallSignalled]:
        """Return the kept calls, oldest first: as the offer, or as the notice that nobody has answered."""
        rows = self._database.select_rows(
            "SELECT person, call, device, event, reason FROM calls ORDER BY number"
        )
        found: list[Notice | CallSignalled] = []
        for person, call, device, sealed, reason in rows:
            event = Event.parse(self._rows.open(sealed, "calls", person, call))
            offered = CallSignalled(person, device, event, own=False)
            found.append(missed_call(person, call, Reason(reason)) if reason else offered)
        return found

    def drop_calls(self, calls: Collection[bytes]) -> None:
        """Forget calls that were dealt with, or that the program was told about."""
        for each in calls:
            self._database.execute("DELETE FROM calls WHERE call = ?", (each,))
