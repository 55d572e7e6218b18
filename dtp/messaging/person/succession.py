"""People who began as a single identity and have an account now: they stay the same person.

Their device says so, with a card of the account that names the device. What was said before is assigned to the
account.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dtp.messaging.cards import ContactCard
from dtp.messaging.errors import MessageError
from dtp.messaging.person.contacts import Contact

if TYPE_CHECKING:
    from dtp.messaging.person.correspondence import Correspondence

#: Name of a value in the store: the identities that we were known by before, one after the other.
_FORMER: Final = "former_persons"
_KEY_BYTES: Final = 32


class Succession:
    """A part of a correspondence. Within transactions."""

    def __init__(self, mail: Correspondence) -> None:
        self._mail = mail
        #: The persons that we were before we had an account. Others may still write to them.
        self.former: list[bytes] = []
        self.reload()

    def reload(self) -> None:
        """Read the state from the disk again."""
        saved = self._mail.store.get_value(_FORMER) or b""
        self.former = [saved[start : start + _KEY_BYTES] for start in range(0, len(saved), _KEY_BYTES)]

    def become(self, before: ContactCard, after: ContactCard) -> None:
        """Note that we are another person from now on. Raise `MessageError` while we are in groups as the former
        one, where an account counts as somebody else. Groups to which only strangers have added us don't matter.
        """
        if before.person == after.person:
            return
        groups = [each for each in self._mail.groups.values() if before.person in each.members.roles]
        if not all(map(self._mail.allowances.is_invitation, groups)):
            raise MessageError(
                f"you are in groups as {before.person_name}, where an account counts as somebody else: leave them "
                "first, and have yourself added again"
            )
        self.former.append(before.person)
        self._mail.store.put_value(_FORMER, b"".join(self.former))
        self._mail.store.renamed.rename_person(before.person, after.person)

    def resolve_person(self, person: bytes) -> bytes:
        """Return who a person is now: the account that their device has named, if the device itself is no longer a
        contact. Our other devices may not know this yet.
        """
        if self._mail.contacts.get_contact(person) is None:
            said = self._mail.desk.said_person(person)
            if self._mail.contacts.get_contact(said) is not None:
                return said
        return person

    def find_former(self, device: bytes, person: bytes) -> Contact | None:
        """Return the contact that a device was known as by itself, and that the person whom it names replaces.

        Return None if there is none, or if new keys need consent: both are kept then. A blocked contact needs no
        consent.
        """
        former = self._mail.contacts.get_contact(device)
        if former is None or former.person == person:
            return None
        return former if former.blocked or self._mail.contacts.consent != "ask" else None

    def succeed_contact(self, device: bytes, contact: Contact) -> bool:
        """Replace the contact that a device was known as by itself with the contact whose card it has told. Return
        True if there was one (`find_former`).
        """
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
