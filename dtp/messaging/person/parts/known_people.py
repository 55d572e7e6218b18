"""What the user has said of contacts: whom they know, how these are called, who is blocked, whose key was accepted
and compared. It is the same on all devices of an account: each tells the others, and what was said last counts."""

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

#: Bytes of what somebody is called here.
MAX_NICKNAME_BYTES: Final = 256
#: When that was said which was never told, as far as devices know: before all else.
_UNTOLD: Final = 1
_SAID: Final = ("stranger", "blocked", "verified")


class KnownPeople:
    """A part of a correspondence."""

    def __init__(self, mail: Correspondence) -> None:
        self._mail = mail

    def change_contact(self, person: bytes, now_ms: int, **changes: Any) -> Contact:
        """Return a contact with other fields (`verified`, `blocked`, `nickname`, `stranger`), which our other devices
        are told. Raise `UnknownContact`, `MessageError` for a name that is too long."""
        if len(encode_text(changes.get("nickname", ""), "the name")) > MAX_NICKNAME_BYTES:
            raise MessageError(f"somebody is called something of {MAX_NICKNAME_BYTES} bytes at most here")
        with self._mail.transaction():
            return self.tell_contact(replace(self._mail.get_contact(person), **changes), now_ms)

    def accept_key(self, person: bytes, now_ms: int) -> Contact:
        """Accept the key with which a contact has replaced its own: what it wrote since is shown, unless its card has
        ended. Our other devices accept it as well."""
        self._mail.get_contact(person)
        with self._mail.transaction():
            self._take_key(person, now_ms)
            return self.tell_contact(self._mail.get_contact(person), now_ms, accepted=True)

    def _take_key(self, person: bytes, now_ms: int) -> None:
        mail = self._mail
        with mail.introductions.change_card(person):
            if mail.contacts.accept_card(person) is None:
                raise MessageError("no other key of this contact waits to be accepted")
            mail.introductions.note_expired(now_ms)  # groups show what they hold by it
        mail.group_states.show_held(person)

    def tell_contact(self, contact: Contact, now_ms: int, *, accepted: bool = False) -> Contact:
        """Return a contact of whom the user has just said something, kept and told to our other devices; `accepted`:
        that its key is. Within a transaction."""
        contact = replace(contact, changed_ms=max(now_ms, contact.changed_ms + 1))
        self._keep_and_tell(contact, now_ms, accepted=accepted)
        return contact

    def tell_untold(self, now_ms: int) -> None:
        """Tell our other devices once, within a transaction, of contacts of whom the user has said something that was
        never told: files of November 2026 have such. It counts less than anything that was."""
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
        """Return the event by which another device of ours learns of a contact."""
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
        """Keep, within a transaction, what the user has said of a contact on another device of ours, by the fields of
        its event, where that is newer than what is known here; of what was said at once the same counts everywhere.
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
            is_same = contact.card.key == card.key  # numbers were compared for that key
            self._mail.put_contact(told if is_same else replace(told, verified=contact.verified))


def _order(contact: Contact) -> tuple[Any, ...]:
    return contact.changed_ms, *(getattr(contact, name) for name in _SAID), contact.nickname
