"""Spread messages in large groups: each is sealed once, and goes by the group's topic to devices that have joined it,
and by mailbox to others.

No network. A device that has said within `PRESENT_MS` that it reads the topic has `patience` to acknowledge a
message. Every other device gets the same message by mailbox at once, and so does one that hasn't acknowledged it in
time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from dtp.bounded import BoundedDict
from dtp.errors import PeerError
from dtp.messaging.conversation.events import HISTORY, Event, EventKind
from dtp.messaging.ends.spread import SpreadLane, SpreadSender
from dtp.messaging.person.notices import Notice, What
from dtp.messaging.person.storage.spread_store import Spread

if TYPE_CHECKING:
    from dtp.messaging.person.correspondence import Correspondence

#: Milliseconds for which a device counts as reading the topic after it has said so.
PRESENT_MS: Final = 600_000
#: The most groups for which a device may seal something for us without being in them, as far as is known here.
_UNKNOWN_LANES: Final = 8
#: Senders whose state is kept in memory, the latest ones.
_CACHED: Final = 1024


class Spreading:
    """A part of a correspondence. What isn't said to be a transaction is within one."""

    def __init__(self, mail: Correspondence) -> None:
        self._mail = mail
        #: The number of devices from which on a group is large; 0 while there are no topics.
        self.least = 0
        #: Milliseconds after which a device that reads the topic but hasn't acknowledged a message gets it by
        #: mailbox.
        self.patience_ms = 60_000
        #: Groups whose topics this device reads.
        self.joined: set[bytes] = set()
        #: Devices that need an acknowledgement, and in which group, once its topic is read.
        self.answers: set[tuple[bytes, bytes]] = set()
        self._lanes: BoundedDict[tuple[bytes, bytes], SpreadLane] = BoundedDict(_CACHED)

    def reload_state(self) -> None:
        """Reload what is on the disk, after a transaction that failed."""
        self._lanes.clear()

    def is_large(self, group: bytes) -> bool:
        """True if a group of ours is large enough for its messages to be spread."""
        membership = self._mail.groups.get(group)
        is_member = membership is not None and self._mail.person in membership.members.roles
        return is_member and 0 < self.least <= 1 + len(self._mail.devices_of(group))  # this device included

    def list_read_along(self) -> set[bytes]:
        """Return the groups whose topics this device reads: the large ones, except invitations, where strangers would
        learn when we are connected, and from where."""
        large = {each for each in self._mail.groups if self.is_large(each)}
        return large - self._mail.allowances.find_invitations() if large else large

    def list_linkable(self, group: bytes) -> list[bytes]:
        """Return the devices of a group to which ours may link: those that get its messages, except devices of
        blocked people."""
        return [each for each in self._mail.devices_of(group) if self.may_spread(group, each)]

    def may_spread(self, group: bytes, device: bytes) -> bool:
        """True if a device belongs to a member of the group, as far as is known here."""
        return self._person_of(group, device) != b""

    def _person_of(self, group: bytes, device: bytes) -> bytes:
        mail, owner = self._mail, self._mail.contacts.owner_of(device)
        person = mail.person if device in mail.own_devices else owner.person if owner else b""
        is_member = person in mail.groups[group].members.roles if group in mail.groups else False
        is_blocked = owner is not None and owner.blocked
        return person if is_member and not is_blocked else b""

    # ---- what is said here -------------------------------------------------------------------------------------

    def _get_sender(self, group: bytes) -> SpreadSender:
        """Return the state by which this device seals, a new one if the device has a new instance since."""
        desk = self._mail.desk
        saved = self._mail.store.get_value(_name(group))
        found = SpreadSender.load(saved, desk.local.save_key) if saved else None
        if found is not None and found.instance == desk.local.instance:
            return found
        if found is not None:
            self.give_by_mailbox(group)
        self._mail.store.spread.drop_readers(group, self._mail.store.spread.load_readers(group))
        return SpreadSender(desk.local.instance)

    def enqueue_event(self, event: Event, devices: Iterable[bytes], now_ms: int) -> bool:
        """Seal an event for a large group, and keep it until all of these devices have it.

        Return False if the group isn't large: the event goes to each device by itself. Raise `MessageTooLong`.
        """
        membership = self._mail.group_of(event.conversation)
        if membership is None or event.kind not in HISTORY:
            return False
        if self.is_large(membership.group):
            self._enqueue_sealed(membership.group, event, devices, now_ms)
            return True
        self.give_by_mailbox(membership.group)
        return False

    def _enqueue_sealed(self, group: bytes, event: Event, devices: Iterable[bytes], now_ms: int) -> None:
        mail, store = self._mail, self._mail.store
        sender, wanted = self._get_sender(group), set(devices)
        readers = store.spread.load_readers(group)
        gone = readers.keys() - wanted
        if gone or sender.is_due(now_ms):
            store.spread.drop_readers(group, gone)
            sender.begin_session(now_ms)  # nobody has its key before they get it by mailbox
            readers = {device: (upto, 0) for device, (upto, _) in readers.items() if device in wanted}
            store.spread.put_readers(group, readers)
        number, key, sealed = sender.seal_message(group, event.encode())
        store.put_value(_name(group), sender.save(mail.desk.local.save_key))
        mail.desk.note_sealed()
        store.spread.put_readers(group, dict.fromkeys(wanted - readers.keys(), (number, 0)))
        store.spread.add_spread(group, Spread(number, event.id, sealed, key), now_ms + self.patience_ms)
        present = {each for each, (_, seen) in readers.items() if now_ms - PRESENT_MS < seen}
        self._hand_over(group, wanted - present, number, now_ms)

    def give_by_mailbox(self, group: bytes) -> None:
        """Deliver by mailbox all that waits to be spread, to those who lack it, and the following messages as
        well."""
        store = self._mail.store
        waiting = store.spread.list_spread(group)
        if waiting:
            self._hand_over(group, store.spread.load_readers(group), waiting[-1].number, 0)
        readers = store.spread.load_readers(group)
        if any(seen for _, seen in readers.values()):
            store.spread.put_readers(group, {each: (upto, 0) for each, (upto, _) in readers.items()})

    def hand_over_due(self, now_ms: int) -> None:
        """Deliver by mailbox what has waited for long enough, to those who lack it, as one transaction."""
        overdue = self._mail.store.spread.list_overdue(now_ms, self.patience_ms)
        if overdue:
            with self._mail.transaction():
                for group, number in overdue:
                    self._hand_over(group, self._mail.store.spread.load_readers(group), number, now_ms)

    def hand_over_now(self, group: bytes) -> None:
        """Make what waits in a group due for `hand_over_due`, as one transaction: nobody reads the topic."""
        with self._mail.transaction():
            self._mail.store.spread.set_overdue(group)

    def _hand_over(self, group: bytes, devices: Iterable[bytes], number: int, now_ms: int) -> None:
        """Deliver by mailbox what waits up to a number, in order, to those of the devices that lack it."""
        store = self._mail.store
        readers = store.spread.load_readers(group)
        wanted = set(devices)
        for spread in store.spread.list_spread(group):
            lacking: dict[int, list[bytes]] = {}
            for device in wanted:
                if readers[device][0] <= spread.number <= number:
                    lacking.setdefault(readers[device][0], []).append(device)
            for oldest, those in lacking.items():
                fields = {"sealed": spread.sealed, "key": spread.key, "oldest": oldest}
                told = Event(EventKind.SEALED, group, 0, now_ms, fields)
                self._mail.enqueue_event(those, told, now_ms, shown=spread.message)
                for each in those:
                    readers[each] = (spread.number + 1, readers[each][1])
        store.spread.put_readers(group, {each: readers[each] for each in wanted})
        store.spread.drop_spread(group)

    def take_unpublished(self) -> list[tuple[bytes, int, bytes]]:
        """Return groups, numbers and messages that are to be published in their topics, as one transaction."""
        with self._mail.transaction():
            return self._mail.store.spread.take_unpublished()

    def take_have(self, device: bytes, event: Event, now_ms: int) -> list[Notice]:
        """Note which of our messages a device acknowledges, and return the receipts that follow."""
        store, group = self._mail.store, event.conversation
        known = store.spread.load_reader(group, device)
        if known is None or event.fields["instance"] != self._mail.desk.local.instance:
            return []
        upto = max(known[0], min(event.fields["upto"], self._get_sender(group).next))
        person, notices = self._person_of(group, device), []
        for each in store.spread.list_spread(group) if upto > known[0] else ():
            is_new = known[0] <= each.number < upto and person not in (b"", self._mail.person)
            if is_new and store.find_message(each.message, self._mail.person):
                store.add_receipt(each.message, person, device, read=False)
                notices.append(Notice(What.DELIVERED, person, group, each.message))
        store.spread.put_readers(group, {device: (upto, now_ms)})
        store.spread.drop_spread(group)
        return notices

    # ---- what comes --------------------------------------------------------------------------------------------

    def _get_lane(self, group: bytes, device: bytes) -> SpreadLane:
        found = self._lanes.get((group, device))
        if found is None:
            saved = self._mail.store.spread.load_lane(group, device)
            found = SpreadLane.load(saved, self._mail.desk.local.save_key) if saved else SpreadLane()
        self._lanes[group, device] = found
        return found

    def _has_room_for_lane(self, group: bytes, device: bytes) -> bool:
        """Return whether there is room for what a device seals for a group. For each group that isn't known here, or
        that doesn't have the device, up to a megabyte may wait."""
        if self.may_spread(group, device):
            return True
        others = [
            each for each in self._mail.store.spread.list_lanes(device) if not self.may_spread(each, device)
        ]
        return group in others or len(others) < _UNKNOWN_LANES

    def take_sealed(self, device: bytes, person: bytes, event: Event, now_ms: int) -> list[Notice]:
        """Open a message that came by mailbox, and return its contents. Raise `PeerError` if it can't be opened."""
        group, fields = event.conversation, event.fields
        if not self._has_room_for_lane(group, device):
            return self._mail.allowances.tell(person, group, "messages of too many unknown groups", now_ms)
        lane = self._get_lane(group, device)
        payloads = lane.receive_by_mailbox(group, fields["sealed"], fields["key"], fields["oldest"])
        return self._process_payloads(group, device, person, lane, payloads, now_ms)

    def receive_by_topic(self, group: bytes, device: bytes, sealed: bytes, now_ms: int) -> list[Notice]:
        """Open a message that came by the group's topic, as one transaction, and return its contents. One that can't
        be opened brings nothing, since it comes by mailbox as well."""
        person = self._person_of(group, device)
        if not person:
            return []
        lane = self._get_lane(group, device)
        try:
            payloads = lane.receive_by_topic(group, sealed)
        except PeerError:
            return []
        with self._mail.transaction():
            return self._process_payloads(group, device, person, lane, payloads, now_ms)

    def _process_payloads(
        self, group: bytes, device: bytes, person: bytes, lane: SpreadLane, payloads: list[bytes], now_ms: int
    ) -> list[Notice]:
        self._mail.store.spread.put_lane(group, device, lane.save(self._mail.desk.local.save_key))
        if self.least:
            self.answers.add((group, device))
        notices = []
        for each in payloads:
            try:
                said = Event.parse(each)
            except PeerError:
                continue
            known = self._mail.group_of(said.conversation)  # not for a room that we haven't heard of yet
            is_elsewhere = known is not None and known.group != group
            if said.kind in HISTORY and not is_elsewhere and said.conversation != self._mail.person:
                notices += self._mail.take_said(device, person, said, now_ms)
        return notices

    def take_answers(self, now_ms: int) -> list[tuple[bytes, bytes]]:
        """Return the devices that need an acknowledgement, and the transient payloads that carry it."""
        answers = {each for each in self.answers if each[0] in self.joined}
        self.answers -= answers
        told = []
        for group, device in answers:
            lane = self._get_lane(group, device)
            fields = {"instance": lane.instance, "upto": lane.stream.next}
            told.append((device, Event(EventKind.HAVE, group, 0, now_ms, fields).encode()))
        return told


def _name(group: bytes) -> str:
    return f"spread {group.hex()}"
