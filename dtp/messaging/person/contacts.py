"""A person's contacts: their cards, and which of these were accepted."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal, NamedTuple, Self

from dtp.carriers.nearness import Nearness
from dtp.messaging.cards import ContactCard
from dtp.messaging.errors import CardExpired, ConsentNeeded, ContactBlocked, MessageError
from dtp.messaging.packing import pack, unpack_saved

#: What happens when a contact's key was replaced: "tell" goes on and notifies the program, "ask" waits for consent.
Consent = Literal["tell", "ask"]


def find_called(name: str, ranks: Iterable[Mapping[bytes, Iterable[str]]]) -> bytes | None:
    """Return the one who has this name, from the first rank in which anybody has it, however the name is typed.
    Return None if nobody has it.

    The first rank holds the names that the user has given; only among these does case tell similar names apart.
    People may choose a name in order to be taken for somebody else, so raise `MessageError` if several have it.
    """
    wanted = _compared(name)
    for number, called in enumerate(ranks):
        found = {each for each, names in called.items() if wanted and wanted in map(_compared, names)}
        if len(found) > 1 and number == 0:
            found = {each for each in found if name in called[each]} or found
        if len(found) > 1:
            raise MessageError(
                f"several are called {name!r} here: name who is meant by dtp1... or dtpa1..., or call them otherwise"
            )
        if found:
            return found.pop()
    return None


def _compared(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


class CardChange(Enum):
    """What a received card has changed."""

    NOTHING = "nothing"
    OLDER = "older"
    ADDED = "added"
    UPDATED = "updated"
    REPLACED = "replaced"
    WAITS = "waits"


@dataclass(frozen=True)
class Contact:
    """A known person. `pending` is a card with another key that the user hasn't accepted yet."""

    card: ContactCard
    pending: ContactCard | None = None
    #: True once safety numbers were compared for the key in the card.
    verified: bool = False
    #: True for somebody who wrote without having been added here, until they are answered or added.
    stranger: bool = False
    blocked: bool = False
    #: The name that the user has given; "" to use the contact's own.
    nickname: str = ""
    #: Of a stranger who hasn't written, the person who has named them; b"" otherwise.
    named_by: bytes = b""
    #: How near the source of its addresses is: its mailboxes are dialled as told from there.
    nearness: Nearness = Nearness.ANYWHERE
    #: When the user last changed this contact on one of their devices: Unix time in ms, 0 for never.
    changed_ms: int = 0
    #: True once the card has expired. This isn't stored: `Contacts.list_expiring` says when to look.
    expired: bool = False

    @property
    def person(self) -> bytes:
        """Who it is."""
        return self.card.person

    @property
    def name(self) -> str:
        """The name to show: the one given here, else the one in the card, else the person's identity."""
        return self.nickname or self.card.name or self.card.person_name

    @property
    def devices(self) -> set[bytes]:
        """The devices that may write for the person, by the accepted card and by one that waits for consent."""
        return {*self.card.devices, *(self.pending.devices if self.pending else ())}

    def is_newer_than(self, card: ContactCard) -> bool:
        """True if a newer card of the person is known than this one, which changes nothing then."""
        return (self.pending or self.card).supersedes(card)

    def may_have(self, device: bytes) -> bool:
        """True if what waits for a device may be sent to it. False for devices of a blocked contact, and for a device
        that the newest card doesn't name any more, even while that card waits for consent."""
        return not self.blocked and (self.pending is None or device in self.pending.devices)

    @property
    def is_waiting(self) -> bool:
        """True while nothing of this contact is shown and nothing can be written to them: another key waits for
        consent, or their card has expired."""
        return self.pending is not None or self.expired

    def check_open(self) -> None:
        """Raise `ConsentNeeded`, `CardExpired` or `ContactBlocked` while nothing can be written to this contact."""
        if self.blocked:
            raise ContactBlocked(f"{self.name} is blocked: unblock them first ('dtp message unblock')")
        if self.pending is not None:
            raise ConsentNeeded(
                f"{self.name} has another key: compare safety numbers, and accept it before you write"
            )
        if self.expired:
            raise CardExpired(
                f"the card of {self.name} has ended: ask them to renew it ('dtp account renew', then 'dtp message "
                "card'), and add the new one if it doesn't come by itself"
            )

    def save(self) -> bytes:
        """Return the contact as bytes."""
        pending = self.pending.encode() if self.pending else b""
        flags = (self.verified, self.stranger, self.blocked)
        told = (self.nickname, self.named_by, int(self.nearness), self.changed_ms)
        return pack([self.card.encode(), pending, *flags, *told])

    @classmethod
    def load(cls, saved: bytes) -> Self:
        """Return the contact that `save` encoded. Raise `StoreFailed`."""
        card, pending, verified, stranger, blocked, nickname, named_by, *later = unpack_saved(saved)
        nearness = later[0] if later else Nearness.ANYWHERE  # older files lack this field and those after it
        waiting = ContactCard.parse(pending) if pending else None
        return cls(
            *(ContactCard.parse(card), waiting, verified, stranger, blocked, nickname, named_by),
            nearness=Nearness(nearness),
            changed_ms=later[1] if len(later) > 1 else 0,
        )


class Route(NamedTuple):
    """Where a device gets its messages: its mailboxes, the secret by which they know us, and how near the source of
    their addresses is."""

    mailboxes: tuple[str, ...]
    access: bytes
    teller: Nearness


class Contacts:
    """All contacts of a person. A value: the caller stores what its methods return.

    `whose` returns the person that a device says it belongs to, or b"", and `is_ours` whether a device is one of
    ours. Both may be called in any thread.
    """

    def __init__(
        self,
        consent: Consent = "tell",
        whose: Callable[[bytes], bytes] = lambda device: b"",
        is_ours: Callable[[bytes], bool] = lambda device: False,
    ) -> None:
        self.consent, self._whose, self._is_ours = consent, whose, is_ours
        self._by_person: dict[bytes, Contact] = {}
        #: By device, the persons whose cards name it. Anybody's card can name somebody else's device.
        self._claims: dict[bytes, list[bytes]] = {}
        #: Persons whose cards have an expiry, past or future.
        self._ending: set[bytes] = set()

    def copy_empty(self) -> Contacts:
        """Return a `Contacts` with the same functions and no contacts."""
        return Contacts(self.consent, self._whose, self._is_ours)

    def __iter__(self) -> Iterator[Contact]:
        return iter(list(self._by_person.values()))

    def get_contact(self, person: bytes) -> Contact | None:
        """Return a contact, or None if the person isn't known."""
        return self._by_person.get(person)

    def put_contact(self, contact: Contact) -> None:
        """Store a contact, replacing what was known of this person."""
        before = self._by_person.get(contact.person)
        if before is not None and before.card.devices != contact.card.devices:
            self._drop_claims(before)
        self._by_person[contact.person] = contact
        if contact.card.ends_ms:
            self._ending.add(contact.person)
        for device in contact.card.devices:
            claims = self._claims.setdefault(device, [])
            if contact.person not in claims:
                claims.append(contact.person)

    def drop_contact(self, contact: Contact) -> None:
        """Forget a contact."""
        self._by_person.pop(contact.person, None)
        self._drop_claims(contact)

    def _drop_claims(self, contact: Contact) -> None:
        for device in contact.card.devices:
            claims = self._claims.get(device, [])
            if contact.person in claims:
                claims.remove(contact.person)
            if not claims:
                self._claims.pop(device, None)

    def is_waiting(self, person: bytes) -> bool:
        """True while another key of a contact waits for consent, or their card has expired."""
        contact = self._by_person.get(person)
        return contact is not None and contact.is_waiting

    def list_expiring(self, now_ms: int) -> list[Contact]:
        """Return the contacts whose `expired` is out of date: the card has expired since, or was renewed."""
        self._ending = {each for each in self._ending if each in self._by_person}
        known = [self._by_person[each] for each in self._ending]
        return [each for each in known if each.expired is not each.card.has_expired(now_ms)]

    def owner_of(self, device: bytes) -> Contact | None:
        """Return the contact whose card names a device, for sending to it; None for a device of ours, whoever names
        it. If several people's cards name the device, return the person whom the device itself has named, otherwise
        the one whom we know better: among contacts the account that the device now has, among strangers the device
        itself."""
        claims = () if self._is_ours(device) else self._claims.get(device, ())
        if len(claims) < 2:
            return self._by_person[claims[0]] if claims else None
        said = self._whose(device)

        def rank(contact: Contact) -> tuple[bool, ...]:
            is_itself = contact.person == device
            return contact.person != said, contact.blocked, contact.stranger, is_itself != contact.stranger

        return min((self._by_person[each] for each in claims), key=rank)

    def list_owned(self, contact: Contact) -> set[bytes]:
        """Return the devices that a contact's cards name, without those that belong to somebody else."""
        owners = {device: self.owner_of(device) for device in contact.devices if not self._is_ours(device)}
        return {device for device, owner in owners.items() if owner is None or owner.person == contact.person}

    def add_card(
        self, card: ContactCard, teller: Nearness, *, stranger: bool = False, named_by: bytes = b""
    ) -> tuple[Contact, CardChange]:
        """Add or update a contact by a card; `teller` is how near its source is. Return the contact and what has
        changed."""
        known = self._by_person.get(card.person)
        if known is None:
            contact = Contact(card, stranger=stranger, named_by=named_by, nearness=teller)
            self.put_contact(contact)
            return contact, CardChange.ADDED
        contact, change = self._update_card(known, card)
        if change is not CardChange.OLDER and teller < contact.nearness:
            contact = replace(contact, nearness=teller)
            self.put_contact(contact)
        return contact, change

    def _update_card(self, known: Contact, card: ContactCard) -> tuple[Contact, CardChange]:
        """Update a known contact from a card."""
        newest = known.pending or known.card
        if not card.supersedes(newest):
            return self._with_access(known, card)
        if card.key == known.card.key:
            contact, change = replace(known, card=_with_access(card, known.card)), CardChange.UPDATED
        elif self.consent == "ask":
            contact, change = replace(known, pending=card), CardChange.WAITS
        else:
            contact = replace(known, card=_with_access(card, known.card), pending=None, verified=False)
            change = CardChange.REPLACED
        self.put_contact(contact)
        return contact, change

    def _with_access(self, known: Contact, card: ContactCard) -> tuple[Contact, CardChange]:
        """Update the access of a known contact from the same card; an older card changes nothing."""
        if card.signature != known.card.signature:
            return known, CardChange.OLDER
        if not card.access or card.access == known.card.access:
            return known, CardChange.NOTHING
        contact = replace(known, card=card)
        self.put_contact(contact)
        return contact, CardChange.UPDATED

    def accept_card(self, person: bytes) -> Contact | None:
        """Return the contact with its pending card accepted, or None if no card is pending."""
        known = self._by_person.get(person)
        if known is None or known.pending is None:
            return None
        contact = replace(known, card=_with_access(known.pending, known.card), pending=None, verified=False)
        self.put_contact(contact)
        return contact


def _with_access(card: ContactCard, before: ContactCard) -> ContactCard:
    return card if card.access else replace(card, access=before.access)
