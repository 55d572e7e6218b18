"""People whom somebody else has introduced to us: their cards come with groups, before the operations they made
there.

Anybody can introduce any number of people. So there is a limited number of places for those who aren't in a group
with us, separate from the places of people who write themselves, and of people whom others have introduced.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from dtp.carriers.nearness import Nearness
from dtp.messaging.cards import ContactCard
from dtp.messaging.person.contacts import CardChange, Contact
from dtp.messaging.person.desk import Introduce, Introduced
from dtp.messaging.person.notices import Notice, What

if TYPE_CHECKING:
    from dtp.messaging.person.correspondence import Correspondence

#: Places for people who aren't in a group with us: those of one contact, and those of all strangers together. Twice
#: what a group of 1,000 needs, in which others have been active as well.
MAX_NAMED: Final = 2048
#: The most strangers who have written and are kept as contacts until they are answered, added or blocked.
MAX_STRANGERS: Final = 1000
#: The most devices that have written without having said whose they are: normally their card comes first.
MAX_UNNAMED: Final = 2000
#: Milliseconds before our card expires from which on the program is told to renew it.
WARNED_MS: Final = 7 * 86_400_000


class Introductions:
    """A part of a correspondence. Within transactions."""

    def __init__(self, mail: Correspondence) -> None:
        self._mail = mail
        self.most_named, self.most_strangers = MAX_NAMED, MAX_STRANGERS
        self.most_unnamed = MAX_UNNAMED
        #: Persons about whose expiring cards the program was told since it began, and when the cards expire.
        self._told_ends: set[tuple[bytes, int]] = set()

    @property
    def has_room_for_strangers(self) -> bool:
        """True while there is a place for another stranger who writes; members of our groups aren't counted."""
        fellows = self._mail.group_states.list_fellows()
        waiting = (
            each.stranger and not each.named_by and not each.blocked and each.person not in fellows
            for each in self._mail.contacts
        )
        return sum(waiting) < self.most_strangers

    def take_card(
        self, device: bytes, card: ContactCard, fields: Mapping[str, Any], teller: Nearness, now_ms: int
    ) -> tuple[Contact, CardChange] | None:
        """Store the card of a device's person, or of a contact that a device of ours introduces, and return what has
        changed. Return None for any other card, or if there is no room for strangers. `fields` are the event's."""
        mail = self._mail
        if device in mail.own_devices and mail.desk.peer_of(device).person in (b"", mail.person):
            near = Nearness.ANYWHERE if fields.get("far") else self.nearness_of(mail.person)
            before, is_stranger = mail.contacts.get_contact(card.person), fields.get("stranger", False)
            contact, change = mail.take_contact(card, near, stranger=is_stranger)
            if "changed" in fields:
                mail.known_people.take_over(contact, card, fields, now_ms)
                contact = mail.get_contact(card.person)
            elif before is None or before.stranger:  # the user hasn't decided about them yet
                is_blocked = contact.blocked or fields.get("blocked", False)
                contact = self._keep_contact(replace(contact, stranger=is_stranger, blocked=is_blocked))
            return contact, change
        if device not in card.devices:
            return None
        if not (self.may_write(card.person) or mail.succession.find_former(device, card.person)):
            if mail.contacts.get_contact(card.person) is not None:  # they may write once there is room
                mail.desk.note_person(device, card.person)
            return None
        contact, change = mail.take_contact(card, teller, stranger=True)
        if change is CardChange.ADDED and mail.store.usage.measure(mail.person, card.person).events:
            contact = self.note_answer(card.person) or contact  # another device of ours knows them already
        self.note_written(card.person)
        mail.desk.note_person(device, card.person)
        if mail.succession.succeed_contact(device, contact):
            return contact, CardChange.REPLACED
        return contact, change

    @contextmanager
    def change_card(self, person: bytes) -> Iterator[None]:
        """Run the block, which may change a contact's cards, and store the contact. Sessions with devices that have
        gone from the cards, and what waits for these devices, are forgotten, except devices of other people that the
        cards had named as well."""
        mail, before = self._mail, self._mail.contacts.get_contact(person)
        theirs = mail.contacts.list_owned(before) if before else set()
        yield
        contact = mail.contacts.get_contact(person)
        if contact is None or contact == before:
            return
        mail.put_contact(contact)
        gone = (before.devices - contact.devices) if before else set()
        if before is not None:
            mail.former_devices.keep_card(before.card, gone)
        for device in gone & theirs:
            mail.desk.forget_device(device)
        if before is None or before.devices != contact.devices:
            mail.group_states.reconsider_groups(person, gone)

    def choose_card(self, now_ms: int) -> Introduce:
        """Return the function that chooses how much a device is told of who we are. Devices of strangers get no
        access to our mailboxes until they are answered, added, or in a group with us."""
        mail, list_fellows = self._mail, cache(self._mail.group_states.list_fellows)

        @cache
        def encode(introduced: Introduced) -> bytes:
            card = mail.card if introduced is Introduced.FULLY else mail.card.public()
            return mail.card_event(card, now_ms).encode()

        def introduce(device: bytes) -> tuple[Introduced, bytes]:
            owner = mail.contacts.owner_of(device)
            is_known = device in mail.card.devices if owner is None else not owner.stranger
            if not is_known and owner is not None:
                is_known = owner.person in list_fellows()
            introduced = Introduced.FULLY if is_known else Introduced.PUBLICLY
            return introduced, encode(introduced)

        return introduce

    def tell_card(self, before: ContactCard, now_ms: int) -> None:
        """Send our card to those who have an earlier one. If it names other devices than `before`, our own devices
        get it too. If a device has gone, or the key was replaced, so do people who have written without an answer,
        since they may have the earlier card."""
        mail, card = self._mail, self._mail.card
        everybody = [device for each in mail.contacts if not each.blocked for device in each.card.devices]
        levels = {each: mail.desk.peer_of(each).introduced for each in [*everybody, *mail.own_devices]}
        for level, told in ((Introduced.FULLY, card), (Introduced.PUBLICLY, card.public())):
            known = [each for each, introduced in levels.items() if introduced is level]
            mail.desk.enqueue_event(known, mail.card_event(told, now_ms))
        stayed = {*before.devices} & {*card.devices}
        is_other = card.key != before.key or len(stayed) < len(before.devices)
        if not is_other and len(stayed) == len(card.devices):
            return
        for each in [each for each, introduced in levels.items() if introduced is Introduced.NOT]:
            if each in stayed or (is_other and mail.desk.said_person(each)):
                mail.desk.introduce_device(each, self.choose_card(now_ms))

    def note_expired(self, now_ms: int) -> None:
        """Note, within a transaction, whose cards have expired by now, and show what waited for cards that were
        renewed. `GroupStates.take_notices` returns the notices for the program."""
        mail = self._mail
        self._tell_own_end(now_ms)
        for contact in mail.contacts.list_expiring(now_ms):
            person, ends = contact.person, contact.card.ends_ms
            mail.contacts.put_contact(replace(contact, expired=not contact.expired))
            if contact.expired:
                mail.group_states.add_notices(mail.group_states.show_held(person))
                for device in mail.contacts.list_owned(contact):
                    mail.missed.send_missed(device, now_ms)
            elif not contact.blocked and not contact.named_by and (person, ends) not in self._told_ends:
                self._told_ends.add((person, ends))
                notice = Notice(What.CARD_EXPIRED, person, person, detail=contact.name)
                mail.group_states.add_notices([notice])

    def _tell_own_end(self, now_ms: int) -> None:
        person, ends = self._mail.person, self._mail.card.ends_ms
        if ends and ends - WARNED_MS < now_ms and (person, ends) not in self._told_ends:
            self._told_ends.add((person, ends))
            day = datetime.fromtimestamp(ends / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
            self._mail.group_states.add_notices([Notice(What.OWN_CARD_ENDS, person, detail=day)])

    def may_write(self, person: bytes) -> bool:
        """Return whether somebody who writes may be kept as a contact: they are one already, or there is a place for
        another stranger."""
        contact = self._mail.contacts.get_contact(person)
        if contact is not None and not (contact.named_by and contact.stranger):
            return True
        return person in self._mail.group_states.list_fellows() or self.has_room_for_strangers

    def note_written(self, person: bytes) -> None:
        """Note that somebody whom others have introduced has written."""
        contact = self._mail.contacts.get_contact(person)
        if contact is not None and contact.named_by:
            self._keep_contact(replace(contact, named_by=b""))

    def note_answer(self, person: bytes) -> Contact | None:
        """Note that we have written to somebody, on any device, or asked them to let us into a group: they are no
        stranger any more. Return the contact if they were one."""
        contact = self._mail.contacts.get_contact(person)
        return self._keep_contact(replace(contact, stranger=False)) if contact and contact.stranger else None

    def _keep_contact(self, contact: Contact) -> Contact:
        self._mail.contacts.put_contact(contact)
        self._mail.store.put_contact(contact.person, contact.save())
        return contact

    def forget_unnamed(self, newcomers: Container[bytes]) -> None:
        """Forget devices that haven't said whose they are, once there are too many, except those that have just come.
        A device that was forgotten begins a new session when nothing answers it."""
        mail, devices = self._mail, self._mail.store.list_unnamed_devices()
        if len(devices) > self.most_unnamed:
            known = {*mail.card.devices, *(device for each in mail.contacts for device in each.devices)}
            mail.desk.drop_devices(each for each in devices if each not in newcomers and each not in known)

    def nearness_of(self, person: bytes) -> Nearness:
        """Return how near somebody counts as a source of cards and files; our own devices count as in our network."""
        if person == self._mail.person:
            return Nearness.NETWORK
        contact = self._mail.contacts.get_contact(person)
        return Nearness.ANYWHERE if contact is None else contact.nearness

    def take_cards(self, teller: bytes, cards: Iterable[bytes]) -> bool:
        """Store cards that a person has sent. Return False if there was no room for some of them."""
        mail, parsed = self._mail, [ContactCard.parse(each) for each in cards]
        others = [each for each in parsed if each.person != mail.person]
        is_known = {each.person: mail.contacts.get_contact(each.person) is not None for each in others}
        near = self.nearness_of(teller)
        named, taken = ({} if all(is_known.values()) else self._list_named(teller)), True
        for card in others:
            if mail.contacts.get_contact(card.person) is not None:
                mail.take_contact(card, near, stranger=False)
            elif self._make_room(teller, named):
                contact, _ = mail.take_contact(card, near, stranger=True, named_by=teller)
                named.setdefault(teller, []).append(contact)
            else:
                taken = False
        return taken

    def _list_named(self, teller: bytes) -> dict[bytes, list[Contact]]:
        """Return by introducer the people introduced, among the introducers who share places with this one."""
        fellows, is_shared = self._mail.group_states.list_fellows(), self._is_stranger(teller)
        named: dict[bytes, list[Contact]] = {}
        for each in self._mail.contacts:
            is_named = each.stranger and each.named_by and each.person not in fellows
            if is_named and (each.named_by == teller or (is_shared and self._is_stranger(each.named_by))):
                named.setdefault(each.named_by, []).append(each)
        return named

    def _is_stranger(self, person: bytes) -> bool:
        contact = self._mail.contacts.get_contact(person)
        return person != self._mail.person and (contact is None or contact.stranger)

    def _make_room(self, teller: bytes, named: dict[bytes, list[Contact]]) -> bool:
        """Return whether there is room for one more person. If there isn't, the introducer with the most people loses
        one."""
        if teller == self._mail.person or sum(map(len, named.values())) < self.most_named:
            return True
        greediest = max(named.values(), key=len)
        if greediest is not named.get(teller) and len(greediest) <= len(named.get(teller, ())):
            return False
        self._drop_contact(greediest.pop(0))
        return True

    def _drop_contact(self, contact: Contact) -> None:
        mail, theirs = self._mail, self._mail.contacts.list_owned(contact)
        mail.contacts.drop_contact(contact)
        mail.store.drop_contact(contact.person)
        for device in theirs:
            if mail.store.load_peer(device) is not None:
                mail.desk.forget_device(device)
