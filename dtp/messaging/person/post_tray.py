"""Posts among a person's other messages: those of known people are always kept, others while there is room."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.state import Said
from dtp.messaging.person.notices import Notice, What

if TYPE_CHECKING:
    from dtp.messaging.person.card_sources import FoundCard
    from dtp.messaging.person.correspondence import Correspondence

#: Unread posts of strangers, at most: as many as a mailbox keeps of their messages.
MOST: Final = 200


class PostTaken(Enum):
    """The outcome of a post."""

    NEW = "new"
    KNOWN = "known"
    BLOCKED = "blocked"
    FULL = "full"


class PostTray:
    """The posts of a correspondence. Each call is one transaction."""

    def __init__(self, mail: Correspondence) -> None:
        self._mail = mail
        #: Unread posts of strangers that are kept, at most.
        self.most = MOST

    def load_cursor(self, place: str) -> str | None:
        """Return the cursor up to which a place was read, None if it wasn't yet."""
        found = self._mail.store.get_value(place)
        return None if found is None else found.decode()

    def put_cursor(self, place: str, cursor: str) -> None:
        """Keep the cursor up to which a place was read."""
        with self._mail.transaction():
            self._mail.store.put_value(place, cursor.encode())

    def process_post(
        self, sender: bytes, mark: bytes, told: dict[str, Any], now_ms: int, *, found: FoundCard | None
    ) -> tuple[PostTaken, list[Notice]]:
        """Keep a post, once for each `mark`, and return its outcome. `sender` is the person whose card on the chain
        names the wallet, otherwise the wallet itself. `found` is that person's card, if it was found and they are
        new to us.
        """
        mail, store = self._mail, self._mail.store
        if store.has_said(sender, mark):
            return PostTaken.KNOWN, []
        contact = mail.contacts.get_contact(sender)
        if contact is not None and contact.blocked:
            return PostTaken.BLOCKED, []
        if not self._is_friend(sender):
            waiting = store.list_unread_senders(EventKind.POST)
            if sum(not self._is_friend(each) for each in waiting) >= self.most:
                return PostTaken.FULL, []
        with mail.transaction():
            if found is not None and contact is None and mail.introductions.has_room_for_strangers:
                mail.take_contact(*found, stranger=True)
            event = Event(EventKind.POST, mail.person, store.next_clock(sender, now_ms), now_ms, told, mark)
            store.add_said(sender, Said(sender, event), unread=True, held=False, vanishes=0)
        return PostTaken.NEW, [Notice(What.MESSAGE, sender, sender, mark)]

    def _is_friend(self, person: bytes) -> bool:
        contact = self._mail.contacts.get_contact(person)
        return contact is not None and not contact.stranger
