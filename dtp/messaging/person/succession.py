"""People who began as an identity alone, and have an account by now: they stay who they were.

Their device says so, by the account's card that names it. What was said before becomes the account's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dtp.messaging.cards import ContactCard
from dtp.messaging.errors import MessageError
from dtp.messaging.person.contacts import Contact

if TYPE_CHECKING:
    from dtp.messaging.person.correspondence import Correspondence

#: Before the identities that we were known by, one after the other, in the store.
_FORMER: Final = "former_persons"
_KEY_BYTES: Final = 32


class Succession:
    """A part of a correspondence. Within transactions."""

    def __init__(self, mail: Correspondence) -> None:
        self._mail = mail
        #: Who we were before we had an account: others may still write to that.
        self.former: list[bytes] = []
        self.reload()

    def reload(self) -> None:
        """Read again what is on the disk."""
        saved = self._mail.store.get_value(_FORMER) or b""
        self.former = [saved[start : start + _KEY_BYTES] for start in range(0, len(saved), _KEY_BYTES)]

    def become(self, before: ContactCard, after: ContactCard) -> None:
        """Note that we are another person from now on. Raise `MessageError` while we are in groups as the former one,
        where an account is somebody else. Groups into which strangers have brought us don't count."""
        if before.person == after.person:
            return
        groups = [each for each in self._mail.groups.values() if before.person in each.members.roles]
        if not all(map(self._mail.allowances.is_invitation, groups)):
            raise MessageError(
                f"you are in groups as {before.person_name}, where an account is somebody else: leave them first, "
                "and have yourself added again"
            )
        self.former.append(before.person)
        self._mail.store.put_value(_FORMER, b"".join(self.former))
        self._mail.store.renamed.rename_person(before.person, after.person)

    def resolve_person(self, person: bytes) -> bytes:
        """Return who somebody is by now: the account that their device has named, if nothing is known of them as that
        device itself any more. Others of our devices may not have heard of it."""
        if self._mail.contacts.get_contact(person) is None:
            said = self._mail.desk.said_person(person)
            if self._mail.contacts.get_contact(said) is not None:
                return said
        return person

    def find_former(self, device: bytes, person: bytes) -> Contact | None:
        """Return the contact that a device was known as by itself, whose place the person that it names takes; None
        if that was nobody, and where other keys wait for consent: both are kept then. No consent is asked for a
        contact that is blocked."""
        former = self._mail.contacts.get_contact(device)
        if former is None or former.person == person:
            return None
        return former if former.blocked or self._mail.contacts.consent != "ask" else None

    def succeed_contact(self, device: bytes, contact: Contact) -> bool:
        """Have a contact whose card its device has told take the place of the one that the device was known as by
        itself. Return whether there was one (`find_former`)."""
        mail, former = self._mail, self.find_former(device, contact.person)
        if former is None:
            return False
        same = replace(
            contact,
            stranger=contact.stranger and former.stranger,
            blocked=contact.blocked or former.blocked,
            nickname=contact.nickname or former.nickname,
            named_by=former.named_by and contact.named_by,
            nearness=min(contact.nearness, former.nearness),
        )
        mail.contacts.drop_contact(former)
        mail.store.drop_contact(former.person)
        mail.put_contact(same)
        mail.store.renamed.rename_person(former.person, contact.person)
        return True
