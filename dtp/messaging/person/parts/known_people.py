"""What the user has decided about contacts: who is known, blocked or verified, their nicknames, and accepted keys.
It is the same on all devices of an account: each tells the others, and the last decision counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from dtp.carriers.nearness import Nearness
from dtp.messaging.cards import ContactCard
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.errors import MessageError
from dtp.messaging.person.contacts import Contact
from dtp.unicode import encode_text

if TYPE_CHECKING:
    from dtp.messaging.person.correspondence import Correspondence

#: The longest nickname, in bytes.
MAX_NICKNAME_BYTES: Final = 256
#: The time given to decisions that were never told to other devices: before any others.
_UNTOLD: Final = 1
_SAID: Final = ("stranger", "blocked", "verified")


class KnownPeople:
    """A part of a correspondence."""

    def __init__(self, mail: Correspondence) -> None:
        self._mail = mail

    def change_contact(self, person: bytes, now_ms: int, **changes: Any) -> Contact:
        """Change fields of a contact (`verified`, `blocked`, `nickname`, `stranger`), tell our other devices, and
        return the contact.

        Raise `UnknownContact`, and `MessageError` for a nickname that is too long.
        """
        if len(encode_text(changes.get("nickname", ""), "the name")) > MAX_NICKNAME_BYTES:
            raise MessageError(f"a nickname has {MAX_NICKNAME_BYTES} bytes at most: choose a shorter one")
        with self._mail.transaction():
            return self.tell_contact(replace(self._mail.get_contact(person), **changes), now_ms)

    def accept_key(self, person: bytes, now_ms: int) -> Contact:
        """Accept the key with which a contact has replaced its own, also on our other devices. What it wrote since
        is shown, unless its card has expired.
        """
        self._mail.get_contact(person)
        with self._mail.transaction():
            self._take_key(person, now_ms)
            return self.tell_contact(self._mail.get_contact(person), now_ms, accepted=True)

    def _take_key(self, person: bytes, now_ms: int) -> None:
        mail = self._mail
        with mail.introductions.change_card(person):
            if mail.contacts.accept_card(person) is None:
                raise MessageError("no other key of this contact waits to be accepted")
            mail.introductions.note_expired(now_ms)  # groups that hold something back depend on it
        mail.group_states.show_held(person)

    def tell_contact(self, contact: Contact, now_ms: int, *, accepted: bool = False) -> Contact:
        """Keep a decision that the user has just made about a contact, tell our other devices, and return the
        contact. `accepted` says that its key was accepted. Within a transaction.
        """
        contact = replace(contact, changed_ms=max(now_ms, contact.changed_ms + 1))
        self._keep_and_tell(contact, now_ms, accepted=accepted)
        return contact

    def tell_untold(self, now_ms: int) -> None:
        """Tell our other devices about decisions that were never told, which files of November 2026 contain. They
        count less than any others. Within a transaction.
        """
        if not self._mail.own_devices:
            return
        for contact in list(self._mail.contacts):
            said = not contact.stranger or contact.blocked or contact.verified or contact.nickname
            if said and not contact.changed_ms:
                self._keep_and_tell(replace(contact, changed_ms=_UNTOLD), now_ms)

    def _keep_and_tell(self, contact: Contact, now_ms: int, *, accepted: bool = False) -> None:
        self._mail.put_contact(contact)
        event = self.describe_contact(contact, now_ms)
        if accepted:
            event.fields["accepted"] = True
        self._mail.enqueue_event(self._mail.own_devices, event, now_ms)

    def describe_contact(self, contact: Contact, now_ms: int) -> Event:
        """Return the event that tells another device of ours about a contact."""
        told: dict[str, Any] = {"card": contact.card.encode()}
        told |= {name: True for name in _SAID if getattr(contact, name)}
        if contact.nearness is Nearness.ANYWHERE:
            told["far"] = True
        if contact.nickname:
            told["nickname"] = contact.nickname
        if contact.changed_ms:
            told["changed"] = contact.changed_ms
        return Event(EventKind.CARD, contact.person, 0, now_ms, told)

    def take_over(self, contact: Contact, card: ContactCard, said: Mapping[str, Any], now_ms: int) -> None:
        """Keep what the user has decided about a contact on another device of ours, from the fields of its event,
        if it is newer than what is known here. Of simultaneous decisions the same one counts on all devices. Within
        a transaction.
        """
        if said.get("accepted") and contact.pending is not None and contact.pending.key == card.key:
            self._take_key(contact.person, now_ms)
            contact = self._mail.get_contact(contact.person)
        told = replace(
            contact,
            **{name: said.get(name, False) for name in _SAID},
            nickname=said.get("nickname", ""),
            changed_ms=said["changed"],
        )
        if _order(told) > _order(contact):
            is_same = contact.card.key == card.key  # a safety number was compared for that key
            self._mail.put_contact(told if is_same else replace(told, verified=contact.verified))


def _order(contact: Contact) -> tuple[Any, ...]:
    return contact.changed_ms, *(getattr(contact, name) for name in _SAID), contact.nickname
