"""Which messages were read: here, on our other devices, and by those to whom we have written.

The news that a message was read can come before the message itself, since they come from different devices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.state import Said
from dtp.messaging.database import Database
from dtp.messaging.person.notices import Notice, What

if TYPE_CHECKING:
    from dtp.messaging.person.correspondence import Correspondence

EARLY_READS: Final = (
    """CREATE TABLE IF NOT EXISTS early_reads (
    number INTEGER PRIMARY KEY AUTOINCREMENT, message BLOB NOT NULL, person BLOB NOT NULL, device BLOB NOT NULL,
    UNIQUE (message, person, device)
)""",
    "CREATE INDEX IF NOT EXISTS early_reads_person ON early_reads (person)",
)
#: Messages that aren't here yet, and that each person may report as read. The oldest are forgotten.
_EARLY: Final = 1000
#: Messages that one event reports as read: devices accept up to 1,024.
_TOGETHER: Final = 256


class EarlyReads:
    """Reports that messages were read which aren't here yet, or no longer. A part of a `MessageStore`, within
    transactions.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def note_read(self, messages: Iterable[bytes], person: bytes, device: bytes) -> None:
        """Note that a device of a person has reported messages as read."""
        for message in messages:
            self._database.execute(
                "INSERT OR IGNORE INTO early_reads (message, person, device) VALUES (?, ?, ?)",
                (message, person, device),
            )
        self._database.execute(
            "DELETE FROM early_reads WHERE person = ?1 AND number <= (SELECT number FROM early_reads "
            "WHERE person = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
            (person, _EARLY),
        )

    def list_readers(self, message: bytes) -> list[tuple[bytes, bytes]]:
        """Return the persons and devices that have reported a message as read. They stay noted: the first message
        that comes with this id may be somebody else's.
        """
        query = "SELECT person, device FROM early_reads WHERE message = ? ORDER BY number"
        return self._database.select_rows(query, message)


class ReadMessages:
    """A part of a correspondence."""

    def __init__(self, mail: Correspondence) -> None:
        self._mail = mail

    def mark_read(self, message: bytes, now_ms: int, *, tell: bool, sender: bytes = b"") -> bool:
        """Note that a message was read; with `sender`, only one from them. Our other devices are told, and with
        `tell` its sender too. One transaction.

        Return True if that is new.
        """
        found = self._mail.store.find_message(message, sender)
        return found is not None and self._mark_messages(found[0], [found[1:]], now_ms, tell=tell)

    def mark_conversation_read(self, conversation: bytes, now_ms: int, *, tell: bool) -> bool:
        """Mark all unread messages of a conversation as read. Some hundred at a time share a transaction, and one
        event for each of their senders. Return True if there were any.
        """
        store, is_new = self._mail.store, False
        unread = [each[1:] for each in store.list_unread() if each[0] == conversation]
        for start in range(0, len(unread), _TOGETHER):
            found = (
                store.find_message(message, sender) for sender, message in unread[start : start + _TOGETHER]
            )
            said = [each[1:] for each in found if each is not None]
            is_new |= self._mark_messages(conversation, said, now_ms, tell=tell)
        return is_new

    def _mark_messages(
        self, conversation: bytes, said: Iterable[tuple[bytes, Event]], now_ms: int, *, tell: bool
    ) -> bool:
        mail, read = self._mail, defaultdict[bytes, list[bytes]](list)
        with mail.transaction():
            for sender, event in said:
                if mail.store.mark_read(sender, event.id):
                    self._begin_to_vanish(sender, event, now_ms)
                    read[sender].append(event.id)
            for sender, targets in read.items():
                told = self._list_told(conversation, sender) if tell else []
                made = Event(EventKind.READ, conversation, 0, now_ms, {"targets": targets})
                mail.enqueue_event([*told, *mail.own_devices], made, now_ms)
        return bool(read)

    def _list_told(self, conversation: bytes, sender: bytes) -> list[bytes]:
        """Return the devices of a message's sender that are told that it was read: none if the sender is a
        stranger, unless they share a group with us that we take part in.
        """
        mail, contact = self._mail, self._mail.contacts.get_contact(sender)
        if contact is None or contact.is_waiting:
            return []
        group = mail.group_of(conversation)
        is_told = not contact.stranger or (group is not None and not mail.allowances.is_invitation(group))
        return [*contact.card.devices] if is_told else []

    def take_read(self, device: bytes, person: bytes, event: Event, now_ms: int) -> list[Notice]:
        """Process a device's report that messages were read, within a transaction."""
        store, own, notices, early = self._mail.store, self._mail.person, list[Notice](), []
        place = self._mail.succession.resolve_person(event.conversation)
        for message in event.fields["targets"]:
            # Others may have used the same id, for something else than what was read.
            found = [
                each
                for each in store.find_messages(message)
                if (each[0] == place if person == own else each[1] == own)
            ]
            if not found:
                early.append(message)
            for conversation, sender, said in found:
                if person != own:
                    notices.append(self._take_receipt(device, person, conversation, message))
                    continue
                if store.mark_read(sender, message):
                    notices.append(Notice(What.CHANGED, person, conversation, message))
                self._begin_to_vanish(sender, said, now_ms)
        store.early_reads.note_read(early, person, device)
        return notices

    def _take_receipt(self, device: bytes, person: bytes, conversation: bytes, message: bytes) -> Notice:
        self._mail.store.add_receipt(message, person, device, read=True)
        return Notice(What.READ, person, conversation, message)

    def keep_said(
        self, conversation: bytes, said: Said, now_ms: int, *, unread: bool, held: bool = False
    ) -> tuple[bool, list[Notice]]:
        """Keep an event, within a transaction. Return whether it is new and shown, with notices about who had read
        it already.

        It is kept as read if another device of ours has reported that.
        """
        store, own, event = self._mail.store, self._mail.person, said.event
        if said.sender == own:  # on another device
            self._mail.introductions.note_answer(conversation)
        readers = store.early_reads.list_readers(event.id)
        was_read = any(person == own for person, _ in readers)
        seconds = event.fields.get("disappear", 0)
        vanishes = now_ms + seconds * 1000 if seconds and (was_read or said.sender == own) else 0
        is_unread = unread and not was_read
        is_new = store.add_said(conversation, said, unread=is_unread, held=held, vanishes=vanishes)
        others = [each for each in readers if each[0] != own] if is_new and said.sender == own else []
        read = [self._take_receipt(device, person, conversation, event.id) for person, device in others]
        return is_new and not held, read

    def _begin_to_vanish(self, sender: bytes, event: Event, now_ms: int) -> None:
        mail = self._mail
        if seconds := event.fields.get("disappear", 0):
            mail.store.set_vanishing(sender, event.id, now_ms + seconds * 1000)
            # If its sender is restored from a backup, it may come again after it has disappeared.
            mail.store.early_reads.note_read([event.id], mail.person, mail.identity.id.key)
