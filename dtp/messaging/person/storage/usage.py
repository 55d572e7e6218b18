"""How much a device's file has of what each person has said, counted as it comes and goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from dtp.messaging.database import Database

#: Rows are of what came by itself and is shown, of what is held back, and of what somebody has told of others.
_SHOWN, _HELD, _TOLD = range(3)
_TABLE: Final = """CREATE TABLE usage (
    person BLOB NOT NULL, conversation BLOB NOT NULL, kind INTEGER NOT NULL, events INTEGER NOT NULL,
    bytes INTEGER NOT NULL, PRIMARY KEY (person, conversation, kind)
) WITHOUT ROWID"""
#: Whose a row is: of who told it, where it didn't come by itself.
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
        """Yield what makes the counts in a file that has these tables: none where they are there."""
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
        """Return how much a person has said, in a conversation or in all; without what they have told of others."""
        where, values = ("", ()) if conversation is None else (" AND conversation = ?", (conversation,))
        return self._measure(f"kind != {_TOLD}{where}", person, *values)

    def list_conversations(self, person: bytes) -> set[bytes]:
        """Return where a person has said something."""
        rows = self._database.select_rows(
            f"SELECT conversation FROM usage WHERE person = ? AND kind != {_TOLD} AND events", person
        )
        return {each for (each,) in rows}

    def measure_held(self, person: bytes) -> KeptUsage:
        """Return how much is held back of what a person has said, but for what they have written to us alone."""
        return self._measure(f"kind = {_HELD} AND conversation != ?", person, person)

    def measure_told(self, person: bytes) -> KeptUsage:
        """Return how much a person has told of what others have said."""
        return self._measure(f"kind = {_TOLD}", person)

    def _measure(self, where: str, *values: bytes) -> KeptUsage:
        query = f"SELECT COALESCE(SUM(events), 0), COALESCE(SUM(bytes), 0) FROM usage WHERE person = ? AND {where}"
        ((events, size),) = self._database.select_rows(query, *values)
        return KeptUsage(events, size)
