"""Process what a person's device receives, and queue what is written on it: over a desk, contacts, groups and
history.

No network. Each public call is one transaction: if it fails, nothing has changed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from dtp.carriers.nearness import Nearness
from dtp.errors import PeerError
from dtp.identity import Account, Identity
from dtp.messaging.cards import ContactCard
from dtp.messaging.cards.contact_card import ACCESS_BYTES
from dtp.messaging.conversation.events import HISTORY, MAX_EVENT_BYTES, MESSAGES, Event, EventKind
from dtp.messaging.conversation.membership import Membership
from dtp.messaging.conversation.operations import Act, MemberRole, Operation
from dtp.messaging.conversation.state import Said, Shown, show_messages
from dtp.messaging.errors import MessageError, MessageTooLong, UnknownContact
from dtp.messaging.mailbox.stamps import DEFAULT_BITS, MAX_BITS, MAX_STAMP_MIB
from dtp.messaging.packing import unpack_saved
from dtp.messaging.person.contacts import CardChange, Consent, Contact, Contacts, Route
from dtp.messaging.person.desk import Desk, ReceivedEnvelopes
from dtp.messaging.person.groups.communities import Communities
from dtp.messaging.person.groups.former_devices import FormerDevices
from dtp.messaging.person.groups.group_states import GroupStates
from dtp.messaging.person.groups.introductions import Introductions
from dtp.messaging.person.groups.past import GroupPast
from dtp.messaging.person.groups.removals import Removals
from dtp.messaging.person.groups.spreading import Spreading
from dtp.messaging.person.missed import MissedEvents
from dtp.messaging.person.notices import CallSignalled, Notice, What
from dtp.messaging.person.parts.known_people import KnownPeople
from dtp.messaging.person.parts.own_card import OwnCard
from dtp.messaging.person.post_tray import PostTray
from dtp.messaging.person.quotas import Allowances, MessageQuotas
from dtp.messaging.person.reading import ReadMessages
from dtp.messaging.person.succession import Succession

_NOTICES: Final = {
    CardChange.ADDED: What.CONTACT_ADDED,
    CardChange.UPDATED: What.CONTACT_CHANGED,
    CardChange.REPLACED: What.KEY_REPLACED,
    CardChange.WAITS: What.CONSENT_NEEDED,
    CardChange.OLDER: What.OLDER_CARD,
}


class Correspondence:
    """One person's messages on one device. Don't use it from two threads at once.

    `account` is given on the device that has the account's key; other devices get the card by `join_account`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        identity: Identity,
        now_ms: int,
        *,
        account: Account | None = None,
        consent: Consent | None = None,
        quotas: MessageQuotas | None = None,
    ) -> None:
        self.desk = Desk(path, identity, now_ms)
        self.store = self.desk.store
        self.identity, self._account = identity, account
        self.contacts = Contacts(
            self._choose_consent(consent), self.desk.said_person, lambda device: device in self.card.devices
        )
        self.groups: dict[bytes, Membership] = {}
        self.communities = Communities(self)
        self.post_tray = PostTray(self)
        self.spreading = Spreading(self)
        self.former_devices = FormerDevices(self)
        self.group_states = GroupStates(self)
        self.introductions = Introductions(self)
        self.past = GroupPast(self)
        self.removals = Removals(self)
        self.missed = MissedEvents(self)
        self.allowances = Allowances(self, quotas)
        self.reading = ReadMessages(self)
        self.succession = Succession(self)
        self.own_card = OwnCard(self)
        self.known_people = KnownPeople(self)
        try:
            self._load_state(now_ms)
        except BaseException:
            self.close()
            raise

    def _load_state(self, now_ms: int) -> None:
        saved = self.store.get_value("card")
        self.access = self.store.get_value("access") or secrets.token_bytes(ACCESS_BYTES)
        if saved is None:
            self.card = self.sign_card(self._account, now_ms, "", ())
            with self.store.transaction():
                self.store.put_value("access", self.access)
                self.store.put_value("card", self.card.encode())
        else:
            self.card = ContactCard.parse(saved)
        self.stamp_bits = int.from_bytes(self.store.get_value("stamp_bits") or bytes((DEFAULT_BITS,)), "big")
        self.stamp_mib = int.from_bytes(self.store.get_value("stamp_mib") or b"", "big")
        self._load_lists()
        self.removals.note_opened(now_ms)
        if self._account is not None:  # after contacts and groups, which hear of it
            self.change_account(self._account, now_ms)
        self.keep_up(now_ms)

    def _choose_consent(self, given: Consent | None) -> Consent:
        """Return what happens when keys are replaced: `given`, which is stored, or what was stored last."""
        saved = self.store.get_value("consent")
        if given is None:
            return "ask" if saved == b"ask" else "tell"
        if saved != given.encode():
            with self.store.transaction():
                self.store.put_value("consent", given.encode())
        return given

    def _load_lists(self) -> None:
        self.contacts = self.contacts.copy_empty()
        for each in self.store.load_contacts().values():
            self.contacts.put_contact(Contact.load(each))
        self.groups = {}
        for group, operations in self.store.load_groups().items():
            self.groups[group] = Membership(group)
            self.group_states.load_group(self.groups[group], unpack_saved(operations))
        self.past.reload_givings()
        self.group_states.take_notices()  # from the transaction that was rolled back

    def close(self) -> None:
        """Close the file."""
        self.desk.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block in one transaction; if it fails, nothing has changed."""
        try:
            with self.desk.transaction():
                yield
        except BaseException:
            self.desk.reload_devices()
            self.spreading.reload_state()
            self.succession.reload()
            if (saved := self.store.get_value("card")) is not None:
                self.card = ContactCard.parse(saved)
            self._load_lists()
            raise

    # ---- who we are --------------------------------------------------------------------------------------------

    @property
    def person(self) -> bytes:
        """The person who writes here: an account, or the identity alone."""
        return self.card.person

    @property
    def account(self) -> Account | None:
        """The account with the newest card that is known here; None on a device without the account's key."""
        return None if self._account is None else self.own_card.find_newest(self._account)

    @property
    def own_devices(self) -> list[bytes]:
        """The person's other devices."""
        return [each for each in self.card.devices if each != self.identity.id.key]

    def sign_card(
        self, own: Account | None, now_ms: int, name: str, mailboxes: tuple[str, ...]
    ) -> ContactCard:
        """Return a new version of our card, with this name and these mailboxes."""
        key, account = (own.identity, own.card) if own else (self.identity, None)
        saved = self.store.get_value("card")
        sequence = now_ms if saved is None else max(now_ms, ContactCard.parse(saved).sequence + 1)
        card = ContactCard(key.id.key, account, sequence, 0, name, mailboxes).signed_by(key)
        return replace(card, access=self.access)

    def set_profile(self, name: str, mailboxes: Iterable[str], now_ms: int) -> None:
        """Tell all contacts our name and our mailboxes.

        Raise `MessageError` on a device that doesn't have the key of its account, or has a key that was replaced.
        """
        told = tuple(mailboxes)
        unchanged = (name, told) == (self.card.name, self.card.mailboxes)
        if unchanged and (self.account is None or self.account.card == self.card.account):
            return
        if self.account is None and self.card.account is not None:
            raise MessageError(
                "the card is changed on the device that has the account's key: not on this one"
            )
        if self.account is not None:
            self.own_card.check_key(self.account)
        with self.transaction():
            self.put_card(self.sign_card(self.account, now_ms, name, told), now_ms)

    def set_stamp_bits(self, bits: int) -> None:
        """Set the work that a stranger's message costs. Raise `MessageError` if it is more than may be asked."""
        if not 0 <= bits <= MAX_BITS:
            raise MessageError(f"a stamp of {bits} bits: 0 to {MAX_BITS} can be asked for")
        with self.transaction():
            self.store.put_value("stamp_bits", bytes((bits,)))
        self.stamp_bits = bits

    def set_stamp_mib(self, mib: int) -> None:
        """Set how many MiB of our room a stranger pays for, for a month; with 0 strangers do work instead. Raise
        `MessageError` for too many."""
        if not 0 <= mib <= MAX_STAMP_MIB:
            raise MessageError(f"a stamp for {mib} MiB: 0 to {MAX_STAMP_MIB} can be asked for")
        with self.transaction():
            self.store.put_value("stamp_mib", mib.to_bytes(2, "big"))
        self.stamp_mib = mib

    @property
    def upload_secret(self) -> bytes:
        """The secret from which this device derives the keys of its attachments, 32 bytes."""
        secret = self.store.get_value("uploads")
        if secret is None:
            secret = secrets.token_bytes(32)
            with self.transaction():
                self.store.put_value("uploads", secret)
        return secret

    def put_card(self, card: ContactCard, now_ms: int) -> None:
        """Use this card from now on, and tell others. Within a transaction."""
        before = self.card
        self.succession.become(before, card)
        self.card = card
        self.own_card.note_former(before)
        self.store.put_value("card", card.encode())
        gone = set(before.devices) - set(card.devices)
        self.former_devices.keep_card(before, gone)
        for device in gone:
            self.desk.forget_device(device)
        self.former_devices.retire_devices(before, now_ms)  # others read this before the card
        self.group_states.reconsider_groups(card.person, gone)
        self.introductions.tell_card(before, now_ms)

    def card_event(self, card: ContactCard, now_ms: int) -> Event:
        """Return the event that carries a card."""
        return Event(EventKind.CARD, card.person, 0, now_ms, {"card": card.encode()})

    def change_account(self, account: Account, now_ms: int) -> None:
        """Use the devices in `account`, which has the key, from now on: one was added or removed.

        Nothing more is sealed to a device that was removed, not even what already waits for it, and it isn't
        notified.
        """
        newest = self.own_card.choose_given(account)
        if not newest.card.names(self.identity.id.key):
            raise MessageError("the account doesn't name this device: add it as well")
        self._account = newest
        self.set_profile(self.card.name, self.card.mailboxes, now_ms)

    def join_account(self, card: ContactCard, now_ms: int) -> None:
        """Become a device of the account whose card this is. Its owner has handed it over, and it has to name this
        device."""
        if card.account is None or not card.account.names(self.identity.id.key):
            raise MessageError("that card doesn't name this device: approve it on one of the account first")
        if self.card.supersedes(card):
            raise MessageError(
                "that card of your account is older than the one that this device has: nothing is changed"
            )
        with self.transaction():
            self.access = card.access or self.access
            self.store.put_value("access", self.access)
            self.put_card(replace(card, access=self.access), now_ms)

    # ---- whom we know ------------------------------------------------------------------------------------------

    def add_contact(self, card: ContactCard, now_ms: int, *, teller: Nearness | None = None) -> Contact:
        """Add a contact by a card that was handed over, or whose source is as near as `teller`. Raise `MessageError`
        for our own card."""
        if card.person == self.person:
            raise MessageError("that is your own card: give it to others")
        near = card.nearness_by_hand if teller is None else teller
        with self.transaction():
            before = self.contacts.get_contact(card.person)
            contact, _ = self.take_contact(card, near, stranger=False)
            if before is None or before.stranger:
                self.known_people.tell_contact(replace(contact, stranger=False), now_ms)
            self.introductions.note_expired(now_ms)
        return self.get_contact(card.person)

    def take_found_card(self, card: ContactCard, teller: Nearness, now_ms: int) -> list[Notice]:
        """Take a card that was found, if it is our own or of somebody we know, and return what changes. `teller` is
        how near its source may be."""
        if card.person == self.person:
            return self.own_card.take_found(card, now_ms)
        if self.contacts.get_contact(card.person) is None:
            return []
        with self.transaction():
            contact, change = self.take_contact(card, teller, stranger=False)
            self.introductions.note_expired(now_ms)
        what = _NOTICES.get(change)
        return [Notice(what, card.person, card.person, detail=contact.name)] if what else []

    def update_contact(self, person: bytes, **changes: Any) -> Contact:
        """Change fields of a contact (`verified`, `blocked`, `nickname`, `stranger`) on this device only, and return
        it. `KnownPeople` changes them on all devices."""
        with self.transaction():
            contact = replace(self.get_contact(person), **changes)
            self.put_contact(contact)
        return contact

    def get_contact(self, person: bytes) -> Contact:
        """Return a contact. Raise `UnknownContact`."""
        if (found := self.contacts.get_contact(person)) is None:
            raise UnknownContact("nobody of this name is known here: add the card first")
        return found

    def put_contact(self, contact: Contact) -> None:
        """Store a contact, within a transaction."""
        self.contacts.put_contact(contact)
        self.store.put_contact(contact.person, contact.save())

    def take_contact(
        self, card: ContactCard, teller: Nearness, *, stranger: bool, named_by: bytes = b""
    ) -> tuple[Contact, CardChange]:
        """Store the contact of a card, within a transaction; `teller` is how near its source is. Return the contact
        and what has changed."""
        with self.introductions.change_card(card.person):
            return self.contacts.add_card(card, teller, stranger=stranger, named_by=named_by)

    # ---- what is said here -------------------------------------------------------------------------------------

    def group_of(self, conversation: bytes) -> Membership | None:
        """Return the group of a conversation that is a group or a room of one, or None."""
        if conversation in self.groups:
            return self.groups[conversation]
        return next((each for each in self.groups.values() if conversation in each.members.rooms), None)

    def devices_of(self, conversation: bytes) -> list[bytes]:
        """Return the devices that get messages of a conversation, including our own others.

        Raise `UnknownContact`, `ConsentNeeded`, `CardExpired`, `ContactBlocked`.
        """
        if (group := self.group_of(conversation)) is not None:
            others = [
                device
                for person in group.members.roles
                if (contact := self.contacts.get_contact(person)) is not None and not contact.is_waiting
                for device in contact.card.devices
            ]
        elif conversation == self.person:
            others = []
        else:
            contact = self.get_contact(conversation)
            contact.check_open()
            others = list(contact.card.devices)
        return [each for each in dict.fromkeys([*others, *self.own_devices]) if each != self.identity.id.key]

    def send_event(self, conversation: bytes, kind: EventKind, fields: dict[str, Any], now_ms: int) -> Said:
        """Store an event, queue it, and return it. Raise what `devices_of` raises, `QueueFull`, and `MessageTooLong`
        if the text and the description of its files are too large together."""
        self._check_member(conversation := self.succession.resolve_person(conversation))
        event = Event(kind, conversation, self.store.next_clock(conversation, now_ms), now_ms, fields)
        size = len(event.encode())
        if size > MAX_EVENT_BYTES:
            raise MessageTooLong(
                f"a message and its files' names take {size} bytes; {MAX_EVENT_BYTES} are the most"
            )
        Event.parse(event.encode())
        said = Said(self.person, event)
        with self.transaction():
            devices = self.devices_of(conversation)
            if (contact := self.contacts.get_contact(conversation)) is not None:
                self.missed.check_room(contact.card.devices)
            if kind in HISTORY:
                vanishes = fields.get("disappear", 0) * 1000
                self.store.add_said(
                    conversation, said, unread=False, held=False, vanishes=vanishes and now_ms + vanishes
                )
                self.missed.note_waiting(conversation, event.id)
                self.removals.note_own_event(conversation, event)
            self.introductions.note_answer(conversation)
            if not self.spreading.enqueue_event(event, devices, now_ms):
                self.enqueue_event(devices, event, now_ms)
        return said

    def say_to_devices(self, devices: Iterable[bytes], event: Event, now_ms: int) -> None:
        """Send an event that isn't kept in the history to those of the devices that still exist. Raise
        `QueueFull`."""
        Event.parse(event.encode())
        devices = [each for each in devices if each in self.card.devices or self.contacts.owner_of(each)]
        self.missed.check_room(devices)
        with self.transaction():
            self.enqueue_event(devices, event, now_ms)

    def _check_member(self, conversation: bytes) -> None:
        group = self.group_of(conversation)
        if group is not None and self.person not in group.members.roles:
            raise MessageError("you aren't in this group any more")

    def enqueue_event(
        self, devices: Iterable[bytes], event: Event, now_ms: int, *, shown: bytes = b""
    ) -> None:
        """Queue an event for devices within a transaction; `shown` is the id of the message that it carries."""
        self.desk.enqueue_event(devices, event, self.introductions.choose_card(now_ms), shown=shown)

    def mark_read(self, message: bytes, now_ms: int, *, tell: bool, sender: bytes = b"") -> bool:
        """Mark a message as read, of this sender if one is given. Our other devices are told, and with `tell` the
        sender as well.

        Return whether it is new.
        """
        return self.reading.mark_read(message, now_ms, tell=tell, sender=sender)

    def keep_up(self, now_ms: int) -> int:
        """Note whose cards have expired, and delete messages whose time to disappear has come. Return how many were
        deleted."""
        with self.transaction():
            self.introductions.note_expired(now_ms)
            self.known_people.tell_untold(now_ms)
            return self.store.delete_vanished(now_ms)

    def find_route(self, device: bytes) -> Route:
        """Return the route to a device; one without mailboxes if the device belongs to nobody known."""
        if device in self.card.devices:
            return Route(self.card.mailboxes, self.access, Nearness.NETWORK)
        contact = self.contacts.owner_of(device)
        if contact is None or not contact.may_have(device):
            return Route((), b"", Nearness.ANYWHERE)
        return Route(contact.card.mailboxes, contact.card.access, contact.nearness)

    def read_history(
        self, conversation: bytes, message: bytes = b"", *, last: int | None = None
    ) -> list[Shown]:
        """Return the messages of a conversation in order, in their current state: all, one of them, or the `last`
        ones."""
        group = self.group_of(conversation)
        moderators = group.members.moderators if group else ()
        return show_messages(self.store.read_events(conversation, target=message, last=last), moderators)

    # ---- groups ------------------------------------------------------------------------------------------------

    def create_group(self, name: str, people: Iterable[bytes], now_ms: int) -> bytes:
        """Create a group of these people and us, its administrators, and return it."""
        persons = [each for each in dict.fromkeys(people) if each != self.person]
        for each in persons:
            self.get_contact(each)
        created = Operation.sign(self.identity, self.person, Act.CREATE, text=name)
        group = Membership(created.id)
        added = [
            Operation.sign(self.identity, self.person, Act.ADD, subject=each, parents=[created.id])
            for each in persons
        ]
        with self.transaction():
            self.groups[group.group] = group
            for operation in (created, *added):
                group.add_operation(operation, self.is_authors)
            self.group_states.announce_group(group, now_ms)
        return group.group

    def change_group(
        self,
        group: bytes,
        act: Act,
        now_ms: int,
        *,
        subject: bytes = b"",
        text: str = "",
        role: MemberRole = MemberRole.MEMBER,
    ) -> Operation:
        """Change a group by an operation, and return the operation. Raise `MessageError` if we may not."""
        with self.transaction():
            operation = self.make_operation(group, act, now_ms, subject=subject, text=text, role=role)
            if operation is None:
                raise MessageError("you have done as many things in this group as are kept: make another one")
        return operation

    def make_operation(
        self,
        group: bytes,
        act: Act,
        now_ms: int,
        *,
        subject: bytes = b"",
        text: str = "",
        role: MemberRole = MemberRole.MEMBER,
    ) -> Operation | None:
        """Make an operation of a group within a transaction, as `change_group` does. Return None if there is no room
        for it."""
        membership = self.groups.get(group)
        if membership is None:
            raise MessageError("there is no such group here")
        if not membership.members.may_do(self.person, act, subject, role):
            raise MessageError(
                "only administrators of a group do that, or moderators where it concerns members"
            )
        if act is Act.ADD:
            self.get_contact(subject)
        self.former_devices.retire_signers(group, now_ms)
        operation = self.group_states.say_operation(group, act, now_ms, subject=subject, text=text, role=role)
        if operation is not None and (past := membership.past_of(operation)) is not None:
            self.past.begin_giving(membership, subject, past, now_ms)
        return operation

    def send_join(self, card: ContactCard, event: Event, now_ms: int) -> None:
        """Ask whoever made an invitation to let us in."""
        with self.transaction():
            self.take_contact(card, card.nearness_by_hand, stranger=False)
            self.introductions.note_answer(card.person)
            self.enqueue_event(card.devices, event, now_ms)

    def speaks_for(self, device: bytes, person: bytes) -> bool:
        """True if a device belongs to a person, as far as is known here."""
        if person == self.person:
            return device in self.card.devices
        contact = self.contacts.get_contact(person)
        return contact is not None and device in contact.devices

    def is_authors(self, operation: Operation) -> bool:
        """True if an operation is signed by a device of its author, as far as is known here or by a newer card inside
        the operation."""
        if self.speaks_for(operation.device, operation.author):
            return True
        if operation.card is None:
            return False
        if operation.author == self.person:
            known = self.card.account
        else:
            contact = self.contacts.get_contact(operation.author)
            known = (contact.pending or contact.card).account if contact else None
        return known is None or operation.card.supersedes(known)

    # ---- what comes --------------------------------------------------------------------------------------------

    def receive_envelopes(
        self, envelopes: Iterable[bytes], now_ms: int, *, teller: Nearness = Nearness.ANYWHERE
    ) -> tuple[ReceivedEnvelopes, list[Notice | CallSignalled]]:
        """Open envelopes and store what they contain. Return it: the envelopes may be acknowledged now. Those who
        left them are at least as near as `teller`."""
        notices: list[Notice | CallSignalled] = []
        with self.transaction():
            self.introductions.note_expired(now_ms)
            received = self.desk.open_envelopes(envelopes, now_ms, self._is_acquainted)
            for device in received.renewed:
                self.desk.introduce_again(device)
                received.resends = True
            for device, message in received.delivered:
                notices += self._take_delivered(device, message)
            for device, payload in received.payloads:
                try:
                    notices += self._receive_event(device, Event.parse(payload), teller, now_ms)
                except PeerError:
                    received.broken += 1
            for device, payload in received.fleeting:
                notices += self._take_fleeting(device, payload, now_ms)
            for device in received.acknowledged:
                received.resends |= self.missed.send_missed(device, now_ms)
            self.introductions.note_expired(now_ms)
            notices += self.group_states.take_notices()
            if received.newcomers:
                self.introductions.forget_unnamed(received.newcomers)
        return received, notices

    def _is_acquainted(self, device: bytes) -> bool:
        """True if a device is named by our card, or by that of a contact or of a member of one of our groups."""
        contact = self.contacts.owner_of(device)
        if contact is None or contact.blocked:
            return device in self.own_devices
        return not contact.stranger or contact.person in self.group_states.list_fellows()

    def _take_delivered(self, device: bytes, message: bytes) -> list[Notice]:
        contact = self.contacts.owner_of(device)
        found = self.store.find_message(message, self.person)
        if contact is None or found is None:  # a device of ours, or a message that was deleted since
            return []
        self.store.add_receipt(message, contact.person, device, read=False)
        return [Notice(What.DELIVERED, contact.person, found[0], message)]

    def _take_fleeting(self, device: bytes, payload: bytes, now_ms: int) -> list[Notice]:
        person = self.desk.peer_of(device).person
        try:
            event = Event.parse(payload)
        except PeerError:
            return []
        if event.kind is EventKind.HAVE:
            return self.spreading.take_have(device, event, now_ms)
        if event.kind is not EventKind.TYPING or not self._may_write(device, person):
            return []
        conversation, group = event.conversation, self.group_of(event.conversation)
        if person != self.person and conversation in (self.person, *self.succession.former):
            conversation = person
        elif person != self.person and person not in (group.members.roles if group else {}):
            return []
        return [Notice(What.TYPING, person, conversation, detail="on" if event.fields["on"] else "off")]

    def _may_write(self, device: bytes, person: bytes) -> bool:
        if person == self.person:
            return device in self.card.devices
        contact = self.contacts.get_contact(person)
        if contact is None or contact.blocked or device not in contact.devices:
            return False
        return self.introductions.may_write(person)

    def _receive_event(
        self, device: bytes, event: Event, teller: Nearness, now_ms: int
    ) -> Sequence[Notice | CallSignalled]:
        if event.kind is EventKind.CARD:
            return self._take_card(device, event, teller, now_ms)
        person = self.desk.peer_of(device).person
        if not person or not self._may_write(device, person):
            return []
        self.introductions.note_written(person)
        if event.kind is EventKind.COPY:
            return self._take_copy(person, event, now_ms)
        if event.kind is EventKind.PAST:
            return self.past.process_event(device, person, event, now_ms)
        if event.kind is EventKind.MEMBERSHIP:
            return self.group_states.process_event(device, person, event, now_ms)
        if event.kind is EventKind.READ:
            return self.reading.take_read(device, person, event, now_ms)
        if event.kind is EventKind.JOIN:
            return self.communities.take_join(person, event, now_ms)
        if event.kind is EventKind.CALL:
            return self._take_call(device, person, event)
        if event.kind is EventKind.SEALED:
            return self.spreading.take_sealed(device, person, event, now_ms)
        if event.kind not in HISTORY:
            return []
        return self.take_said(device, person, event, now_ms)

    def _take_card(self, device: bytes, event: Event, teller: Nearness, now_ms: int) -> list[Notice]:
        """Process a card: the sender's own, or one that a device of ours passes on."""
        card = ContactCard.parse(event.fields["card"])
        if card.person == self.person:
            if device not in card.devices:
                return []
            # A removed device would for ever send the card that named it.
            is_ours = device in self.card.devices or card.supersedes(self.card)
            told = self.own_card.take_told(card, now_ms) if is_ours else []
            self.desk.note_person(device, card.person)
            return told
        taken = self.introductions.take_card(device, card, event.fields, teller, now_ms)
        what = _NOTICES.get(taken[1]) if taken else None
        return [Notice(what, card.person, card.person, detail=taken[0].name)] if taken and what else []

    def _take_copy(self, person: bytes, event: Event, now_ms: int) -> list[Notice]:
        if person != self.person:
            return []
        inner = Event.parse(event.fields["event"])
        if inner.kind not in HISTORY | MESSAGES:
            return []
        sender, conversation = map(
            self.succession.resolve_person, (event.fields["sender"], event.conversation)
        )
        said = Said(sender, inner, event.fields.get("told", b""))
        has_just_come, contact = event.fields.get("new", False), self.contacts.get_contact(sender)
        if has_just_come and contact is not None and contact.blocked:  # here, and not where it has come
            return []
        is_news = has_just_come and inner.kind is EventKind.TEXT and sender != self.person
        held = has_just_come and self.contacts.is_waiting(sender)
        is_new, read = self.removals.keep_copy(conversation, said, now_ms, unread=is_news, held=held)
        what = What.MESSAGE if is_news and is_new else What.CHANGED
        return [Notice(what, sender, conversation, inner.id), *read]

    def _take_call(self, device: bytes, person: bytes, event: Event) -> list[CallSignalled]:
        """Process a call's signal. Strangers don't ring, nor do contacts whose key waits for consent."""
        contact = self.contacts.get_contact(person)
        if person != self.person and (
            contact is None or contact.stranger or contact.expired or device not in contact.card.devices
        ):
            return []
        return [self.store.calls.note_signal(CallSignalled(person, device, event, person == self.person))]

    def take_said(self, device: bytes, person: bytes, event: Event, now_ms: int) -> list[Notice]:
        """Store, within a transaction, an event from a person's device, and return the notices for the program."""
        contact, group, is_in_group = self.contacts.get_contact(person), None, False
        held = contact is not None and (contact.expired or device not in contact.card.devices)
        conversation = event.conversation
        if person != self.person and conversation in (self.person, *self.succession.former):
            conversation = person
        elif person != self.person or self.group_of(conversation) is not None:
            group, is_in_group = self.group_of(conversation), True
            roles = group.members.roles if group else {}
            if self.person not in roles and contact is not None and not contact.stranger:
                self.group_states.note_unknown(conversation, device, now_ms)
        else:
            conversation = self.succession.resolve_person(conversation)
        if why := self.allowances.refuse_event(person, conversation, group, event):
            return self.allowances.tell(person, conversation, why, now_ms)
        if is_in_group and not self.removals.take_event(group, conversation, device, person, event):
            held = True
        is_text = event.kind is EventKind.TEXT and person != self.person
        said = Said(person, event)
        is_new, read = self.reading.keep_said(conversation, said, now_ms, unread=is_text, held=held)
        shown = self.removals.show_seen(group, person, event)
        if not is_new:
            return shown
        self.past.note_said(conversation, said, now_ms)
        self.missed.pass_on(device, conversation, said, now_ms)
        target = event.fields.get("target", event.id)
        what = What.MESSAGE if is_text else What.CHANGED
        return [Notice(what, person, conversation, target), *read, *shown]
