"""Earlier messages of a group, given to a new member by whoever has added them, if the operation says so.

Events between devices aren't signed, so that nobody can prove to others what somebody has said. A new member has only
the giver's word for old messages, and they are shown so, except those that the giver wrote. Source:
docs/messaging.md, "What was said before".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dtp.errors import PeerError
from dtp.messaging.conversation.events import (
    HISTORY,
    MAX_EVENT_BYTES,
    MAX_TOLD,
    PERSON_BYTES,
    Event,
    EventKind,
)
from dtp.messaging.conversation.membership import Membership
from dtp.messaging.conversation.operations import MAX_PAST, Past
from dtp.messaging.conversation.state import Said, condense_events
from dtp.messaging.person.notices import Notice, What

if TYPE_CHECKING:
    from dtp.messaging.person.correspondence import Correspondence

#: Bytes of events in one piece, and of a message with the events about it: both fit into an envelope.
_PIECE: Final = 56 * 1024
_LARGEST: Final = MAX_EVENT_BYTES
#: Bytes that may wait for a device before it gets more: half of what a mailbox keeps for somebody who pays nothing.
_UNDER_WAY: Final = 512 * 1024
#: Milliseconds for which a new member gets messages of people who haven't heard of them, and for which the next piece
#: is delayed.
_TRAIL_MS: Final = 86_400_000
_LATER_MS: Final = 600_000
#: ... and for which a device that collects nothing delays this.
_PATIENCE_MS: Final = 30 * 86_400_000


class GroupPast:
    """A part of a correspondence. What isn't said to be a transaction is within one."""

    def __init__(self, mail: Correspondence) -> None:
        self._mail = mail
        #: By conversation, the new members who get what comes, and until when.
        self._givings: dict[bytes, dict[bytes, int]] = {}
        #: True while something is due that waits for earlier pieces to arrive.
        self.waits = False

    def reload_givings(self) -> None:
        """Reload what is on the disk."""
        self._givings = self._mail.store.past.load_givings()

    # ---- giving ------------------------------------------------------------------------------------------------

    def begin_giving(self, membership: Membership, person: bytes, past: Past, now_ms: int) -> None:
        """Begin to give a new member earlier messages of a group, the last ones first."""
        mail, members = self._mail, membership.members
        devices = mail.get_contact(person).card.devices
        since, left = now_ms - past.span_ms if past.span_ms else 0, MAX_PAST
        authors = set()
        for conversation in (membership.group, *members.rooms):
            mail.store.past.add_giving(conversation, person, now_ms + _TRAIL_MS)
            texts = mail.store.past.list_texts(conversation, since, min(past.last or left, left))
            left -= len(texts)
            for message, author, clock in texts:
                authors.add(author)
                for device in devices:
                    mail.store.past.schedule_message(conversation, device, message, clock, now_ms)
        self.reload_givings()
        known = [mail.contacts.get_contact(each) for each in authors - members.roles.keys()]
        cards = [each.card.public() for each in known if each is not None]
        mail.group_states.send_some(membership.group, devices, [], cards, now_ms)

    def note_said(self, conversation: bytes, said: Said, now_ms: int) -> None:
        """Note an event that has come, to give it to new members as well, since its sender may not know of them."""
        members, event = self._givings.get(conversation, {}), said.event
        if members and event.kind is not EventKind.TEXT:
            self._mail.store.past.give_again(conversation, event.fields["target"], now_ms + _LATER_MS)
            return
        for person in members.keys() - {said.sender}:
            for device in self._devices_of(person):
                due = now_ms + _LATER_MS
                self._mail.store.past.schedule_message(conversation, device, event.id, event.clock, due)

    def _devices_of(self, person: bytes) -> tuple[bytes, ...]:
        contact = self._mail.contacts.get_contact(person)
        return () if contact is None else tuple(contact.card.devices)

    def give_due(self, now_ms: int) -> None:
        """Queue the next pieces for members who have the earlier ones, as one transaction."""
        if not self._givings:
            self.waits = False
            return
        store = self._mail.store
        devices, over = store.past.list_due_devices(now_ms), self._list_over(now_ms)
        if devices or over:
            with self._mail.transaction():
                for device in devices:
                    self._give_to(device, now_ms)
                for conversation, person in over:
                    store.past.end_giving(conversation, person, self._devices_of(person))
            self.reload_givings()
        self.waits = bool(store.past.list_due_devices(now_ms))

    def _list_over(self, now_ms: int) -> list[tuple[bytes, bytes]]:
        """Return the conversations and members for whom the giving has ended."""
        found = []
        for conversation, members in self._givings.items():
            for person, ends in members.items():
                trails = ends - _TRAIL_MS <= now_ms < ends  # a clock that was ahead counts as over
                waits = self._mail.store.past.has_due(conversation, self._devices_of(person))
                if not trails and not (waits and now_ms < ends + _PATIENCE_MS):
                    found.append((conversation, person))
        return found

    def _give_to(self, device: bytes, now_ms: int) -> None:
        store = self._mail.store
        while rows := store.past.list_due(device, now_ms, MAX_TOLD):
            full = self._mail.desk.peer_of(device).remote.outgoing.is_full  # of small events
            if full or store.measure_waiting(device) >= _UNDER_WAY:
                return
            conversation = rows[0][0]
            group = self._mail.group_of(conversation)
            if group is None or not self._may_give(group, device):
                store.past.drop_device(conversation, device)
                continue
            messages = [message for place, message in rows if place == conversation]
            self._give_piece(group, conversation, device, messages, now_ms)

    def _may_give(self, group: Membership, device: bytes) -> bool:
        """True while both are in the group, and the operation by which we have added them gives them the past."""
        mail, members = self._mail, group.members
        owner = mail.contacts.owner_of(device)
        if owner is None or owner.blocked or mail.person not in members.roles:
            return False
        return mail.person in members.past.get(owner.person, {})

    def _give_piece(
        self, group: Membership, conversation: bytes, device: bytes, messages: list[bytes], now_ms: int
    ) -> None:
        store, told, size = self._mail.store, list[list[bytes]](), 0
        for message in messages:
            added = self._pack_message(group, conversation, message)
            more = sum(len(event) for _, event in added)
            if told and (size + more > _PIECE or len(told) + len(added) > MAX_TOLD):
                break
            told, size = told + added, size + more
            store.past.note_given(conversation, device, message)
        if told:
            fields = {"group": group.group, "said": told}
            self._mail.enqueue_event([device], Event(EventKind.PAST, conversation, 0, now_ms, fields), now_ms)

    def _pack_message(self, group: Membership, conversation: bytes, message: bytes) -> list[list[bytes]]:
        """Return the events that describe a message in its current state, as far as they fit; none for a message that
        disappears."""
        events = self._mail.store.read_events(conversation, target=message)
        if any(each.event.fields.get("disappear") for each in events):
            return []
        told: list[list[bytes]] = []
        left = _LARGEST
        for each in reversed(condense_events(events, group.members.moderators)):
            encoded = each.event.encode()
            left -= len(encoded) + PERSON_BYTES
            if left < 0 or len(told) == MAX_TOLD:
                break
            told.insert(0, [each.sender, encoded])
        return told

    # ---- taking ------------------------------------------------------------------------------------------------

    def process_event(self, device: bytes, person: bytes, event: Event, now_ms: int) -> list[Notice]:
        """Store what a member tells of the past, if an operation of theirs gives it to us."""
        mail, group, conversation = self._mail, event.fields["group"], event.conversation
        contact = mail.contacts.get_contact(person)
        held = contact is not None and (contact.expired or device not in contact.card.devices)
        if not self._may_tell(group, conversation, person):
            held = mail.store.has_wanted_state(group, device)  # the operation that says so has to be fetched
            if not held:
                return []
        told = event.fields["said"]
        size = sum(len(each) for _, each in told)
        if why := mail.allowances.refuse_told(person, len(told), size):
            return mail.allowances.tell(person, conversation, why, now_ms)
        new = 0
        for sender, encoded in told:
            try:
                said = Said(sender, Event.parse(encoded), person)
            except PeerError:
                continue
            if self._is_takable(said, conversation):
                new += mail.store.add_said(conversation, said, unread=False, held=held, vanishes=0)
        return [Notice(What.PAST_TOLD, person, conversation, detail=str(new))] if new and not held else []

    def _may_tell(self, group: bytes, conversation: bytes, person: bytes) -> bool:
        membership = self._mail.groups.get(group)
        if membership is None or conversation not in (group, *membership.members.rooms):
            return False
        return person in membership.members.past.get(self._mail.person, {})

    def _is_takable(self, said: Said, conversation: bytes) -> bool:
        event, contact = said.event, self._mail.contacts.get_contact(said.sender)
        is_blocked = contact is not None and contact.blocked
        is_here = event.kind in HISTORY and event.conversation == conversation
        return is_here and not is_blocked and not event.fields.get("disappear")

    def show_held(self, membership: Membership) -> list[Notice]:
        """Show what was held back until we knew who may tell it and had accepted their key."""
        members, found = membership.members, []
        for person in members.past.get(self._mail.person, {}):
            if self._mail.contacts.is_waiting(person):
                continue
            for conversation in (membership.group, *members.rooms):
                if self._mail.store.held.release_told(conversation, person):
                    found.append(Notice(What.PAST_TOLD, person, conversation))
        return found
