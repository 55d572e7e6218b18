"""What was read: here, on our other devices, and by those to whom we have written.

Who has read a message may say so before the message itself comes, since both are from different devices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.state import Said
from dtp.messaging.database import Database
from dtp.messaging.person.notices import Notice, What

if TYPE_CHECKING:
    from dtp.messaging.person.correspondence import Correspondence

EARLY_READS_TABLE: Final = """CREATE TABLE IF NOT EXISTS early_reads (
    number INTEGER PRIMARY KEY AUTOINCREMENT, message BLOB NOT NULL, person BLOB NOT NULL, device BLOB NOT NULL,
    UNIQUE (message, person, device)
)"""
#: Messages of which each person may say that they were read before these are here. The oldest are forgotten.
_EARLY: Final = 1000


class EarlyReads:
    """What was read of messages that aren't here yet: a part of a `MessageStore`, within a transaction of that."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note_read(self, message: bytes, person: bytes, device: bytes) -> None:
        """Note that a device of a person has said that a message was read."""
        self._database.execute(
            "INSERT OR IGNORE INTO early_reads (message, person, device) VALUES (?, ?, ?)",
            (message, person, device),
        )
        self._database.execute(
            "DELETE FROM early_reads WHERE person = ?1 AND number <= (SELECT number FROM early_reads "
            "WHERE person = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
            (person, _EARLY),
        )

    def take_readers(self, message: bytes) -> list[tuple[bytes, bytes]]:
        """Remove and return persons and devices who have said that a message was read."""
        query = "SELECT person, device FROM early_reads WHERE message = ? ORDER BY number"
        if readers := self._database.select_rows(query, message):
            self._database.execute("DELETE FROM early_reads WHERE message = ?", (message,))
        return readers


class ReadMessages:
    """A part of a correspondence."""

    def __init__(self, mail: Correspondence) -> None:
        self._mail = mail

    def mark_read(self, message: bytes, now_ms: int, *, tell: bool, sender: bytes = b"") -> bool:
        """Note that a message was read, of this sender if one is given; with `tell` its sender hears of it, our
        other devices always. One transaction.

        Return whether it is new.
        """
        mail = self._mail
        found = mail.store.find_message(message, sender)
        if found is None:
            return False
        conversation, sender, event = found
        with mail.transaction():
            if not mail.store.mark_read(sender, message):
                return False
            self._begin_to_vanish(sender, event, now_ms)
            contact = mail.contacts.get_contact(sender)
            told = [*contact.card.devices] if tell and contact and not contact.pending else []
            read = Event(EventKind.READ, conversation, 0, now_ms, {"targets": [message]})
            mail.enqueue_event([*told, *mail.own_devices], read, now_ms)
        return True

    def take_read(self, device: bytes, person: bytes, event: Event, now_ms: int) -> list[Notice]:
        """Process what a device says that was read, within a transaction."""
        store, contact, notices = self._mail.store, self._mail.contacts.get_contact(person), list[Notice]()
        for message in event.fields["targets"]:
            if store.find_messages(message):
                notices += self._note_read(device, person, message, now_ms)
            elif contact is None or not contact.stranger:
                store.early_reads.note_read(message, person, device)
        return notices

    def take_said(self, said: Said, now_ms: int) -> list[Notice]:
        """Process, within a transaction, what was said before of a message that has come now."""
        notices = []
        for person, device in self._mail.store.early_reads.take_readers(said.event.id):
            notices += self._note_read(device, person, said.event.id, now_ms)
        return notices

    def _note_read(self, device: bytes, person: bytes, message: bytes, now_ms: int) -> list[Notice]:
        """Return what is new of that; nothing where the message isn't here."""
        mail, notices = self._mail, []
        for conversation, sender, said in mail.store.find_messages(message):
            if person == mail.person:
                if mail.store.mark_read(sender, message):
                    notices.append(Notice(What.CHANGED, person, conversation, message))
                self._begin_to_vanish(sender, said, now_ms)
            elif sender == mail.person:
                mail.store.add_receipt(message, person, device, read=True)
                notices.append(Notice(What.READ, person, conversation, message))
        return notices

    def _begin_to_vanish(self, sender: bytes, event: Event, now_ms: int) -> None:
        if seconds := event.fields.get("disappear", 0):
            self._mail.store.set_vanishing(sender, event.id, now_ms + seconds * 1000)
