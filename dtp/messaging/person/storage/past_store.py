"""The past of groups in a device's file: what is to be given to new members."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dtp.messaging.conversation.events import EventKind
from dtp.messaging.database import Database

#: The due time of what was given: it isn't given again unless it changes.
_GIVEN: Final = -1


class PastStore:
    """A part of a `MessageStore`. It makes changes within the store's transactions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ---- giving ------------------------------------------------------------------------------------------------

    def list_texts(self, conversation: bytes, since_ms: int, most: int) -> list[tuple[bytes, bytes, int]]:
        """Return ids, senders and clocks of the last messages of a conversation that were sent since a time,
        without those whose time to disappear has begun.
        """
        return self._database.select_rows(
            "SELECT id, sender, clock FROM said WHERE conversation = ? AND kind = ? AND sent >= ? "
            "AND NOT held AND NOT vanishes ORDER BY clock DESC, sender DESC, id DESC LIMIT ?",
            *(conversation, int(EventKind.TEXT), since_ms, most),
        )

    def add_giving(self, conversation: bytes, person: bytes, ends_ms: int) -> None:
        """Note that a new member is also given what comes in a conversation until `ends_ms`."""
        values = (conversation, person, ends_ms)
        self._database.execute("INSERT OR REPLACE INTO past_givings VALUES (?, ?, ?)", values)

    def load_givings(self) -> dict[bytes, dict[bytes, int]]:
        """Return by conversation and new member the time until which it is given what comes, Unix time in ms."""
        found: dict[bytes, dict[bytes, int]] = {}
        rows = self._database.select_rows("SELECT conversation, person, ends FROM past_givings")
        for conversation, person, ends in rows:
            found.setdefault(conversation, {})[person] = ends
        return found

    def end_giving(self, conversation: bytes, person: bytes, devices: Iterable[bytes]) -> None:
        """Stop giving a conversation to a member, whose devices these are."""
        self._database.execute(
            "DELETE FROM past_givings WHERE conversation = ? AND person = ?", (conversation, person)
        )
        for each in devices:
            self.drop_device(conversation, each)
        self._database.execute(
            "DELETE FROM past_gifts WHERE conversation = ?1 AND NOT EXISTS "
            "(SELECT 1 FROM past_givings WHERE conversation = ?1)",
            (conversation,),
        )

    def schedule_message(
        self, conversation: bytes, device: bytes, message: bytes, clock: int, due_ms: int
    ) -> None:
        """Schedule a message to be given to a device at `due_ms`, also if it was given before."""
        self._database.execute(
            "INSERT INTO past_gifts VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET due = excluded.due",
            (device, conversation, message, clock, due_ms),
        )

    def give_again(self, conversation: bytes, message: bytes, due_ms: int) -> None:
        """Schedule a message again for all to whom it was given, since it has changed."""
        self._database.execute(
            "UPDATE past_gifts SET due = ? WHERE conversation = ? AND message = ? AND due < 0",
            (due_ms, conversation, message),
        )

    def list_due_devices(self, now_ms: int) -> list[bytes]:
        """Return the devices for which something is due."""
        rows = self._database.select_rows(
            "SELECT DISTINCT device FROM past_gifts WHERE due >= 0 AND due <= ?", now_ms
        )
        return [each for (each,) in rows]

    def has_due(self, conversation: bytes, devices: Iterable[bytes]) -> bool:
        """Return True if one of the devices is still to be given something of a conversation, now or later."""
        query = "SELECT 1 FROM past_gifts WHERE device = ? AND conversation = ? AND due >= 0 LIMIT 1"
        return any(self._database.select_rows(query, each, conversation) for each in devices)

    def list_due(self, device: bytes, now_ms: int, most: int) -> list[tuple[bytes, bytes]]:
        """Return conversations and messages that are due for a device, the latest messages first."""
        return self._database.select_rows(
            "SELECT conversation, message FROM past_gifts WHERE device = ? AND due >= 0 AND due <= ? "
            "ORDER BY conversation, clock DESC LIMIT ?",
            *(device, now_ms, most),
        )

    def note_given(self, conversation: bytes, device: bytes, message: bytes) -> None:
        """Note that a message is on its way to a device."""
        self._database.execute(
            f"UPDATE past_gifts SET due = {_GIVEN} WHERE device = ? AND conversation = ? AND message = ?",
            (device, conversation, message),
        )

    def drop_device(self, conversation: bytes, device: bytes) -> None:
        """Stop giving a conversation to a device."""
        self._database.execute(
            "DELETE FROM past_gifts WHERE device = ? AND conversation = ?", (device, conversation)
        )
