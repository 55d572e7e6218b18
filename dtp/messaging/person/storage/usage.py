"""How much is kept of what each person has said, in a device's file. Triggers count it as it comes and goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from dtp.messaging.database import Database

#: Kinds of rows: what came from its author and is shown, what is held back, and what was passed on by others.
_SHOWN, _HELD, _TOLD = range(3)
_TABLE: Final = """CREATE TABLE usage (
    person BLOB NOT NULL, conversation BLOB NOT NULL, kind INTEGER NOT NULL, events INTEGER NOT NULL,
    bytes INTEGER NOT NULL, PRIMARY KEY (person, conversation, kind)
) WITHOUT ROWID"""
#: The person to whom a row counts: whoever has passed it on, otherwise its sender.
_PERSON: Final = "CASE WHEN {row}told = x'' THEN {row}sender ELSE {row}told END"
_KIND: Final = f"CASE WHEN {{row}}told != x'' THEN {_TOLD} WHEN {{row}}held THEN {_HELD} ELSE {_SHOWN} END"
_KEY: Final = f"{_PERSON}, {{row}}conversation, {_KIND}"
_ADD: Final = (
    f"INSERT INTO usage VALUES ({_KEY}, 1, LENGTH({{row}}event)) ON CONFLICT DO UPDATE SET "
    "events = events + 1, bytes = bytes + excluded.bytes;"
)
_TAKE: Final = (
    "UPDATE usage SET events = events - 1, bytes = bytes - LENGTH(old.event) "
    f"WHERE (person, conversation, kind) = ({_KEY});"
)


class KeptUsage(NamedTuple):
    """How many events are kept, and their bytes."""

    events: int
    bytes: int


class UsageStore:
    """A part of a `MessageStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @staticmethod
    def list_statements(tables: set[str]) -> Iterator[str]:
        """Yield the statements that create the counts in a file with these tables; none if it has them."""
        if "usage" in tables:
            return
        yield _TABLE
        for table in ("said", "held_aside"):
            add, take = _ADD.format(row="new."), _TAKE.format(row="old.")
            yield f"CREATE TRIGGER {table}_came AFTER INSERT ON {table} BEGIN {add} END"
            yield f"CREATE TRIGGER {table}_went AFTER DELETE ON {table} BEGIN {take} END"
            yield f"CREATE TRIGGER {table}_changed AFTER UPDATE ON {table} BEGIN {take} {add} END"
            key = _KEY.format(row="")
            yield (
                f"INSERT INTO usage SELECT {key}, COUNT(*), SUM(LENGTH(event)) FROM {table} WHERE true "
                "GROUP BY 1, 2, 3 ON CONFLICT DO UPDATE SET "
                "events = events + excluded.events, bytes = bytes + excluded.bytes"
            )

    def measure(self, person: bytes, conversation: bytes | None = None) -> KeptUsage:
        """Return how much a person has said, in one conversation or in all, without what they have passed on from
        others.
        """
        where, values = ("", ()) if conversation is None else (" AND conversation = ?", (conversation,))
        return self._measure(f"kind != {_TOLD}{where}", person, *values)

    def list_conversations(self, person: bytes) -> set[bytes]:
        """Return the conversations in which a person has said something."""
        rows = self._database.select_rows(
            f"SELECT conversation FROM usage WHERE person = ? AND kind != {_TOLD} AND events", person
        )
        return {each for (each,) in rows}

    def measure_held(self, person: bytes) -> KeptUsage:
        """Return how much of what a person has said is held back, without what they have written to us alone."""
        return self._measure(f"kind = {_HELD} AND conversation != ?", person, person)

    def measure_told(self, person: bytes) -> KeptUsage:
        """Return how much a person has passed on from others."""
        return self._measure(f"kind = {_TOLD}", person)

    def _measure(self, where: str, *values: bytes) -> KeptUsage:
        query = f"SELECT COALESCE(SUM(events), 0), COALESCE(SUM(bytes), 0) FROM usage WHERE person = ? AND {where}"
        ((events, size),) = self._database.select_rows(query, *values)
        return KeptUsage(events, size)
