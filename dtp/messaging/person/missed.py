"""What devices get later: new devices of ours, and devices whose queue was full until they answered.

Only the ids of missed events are kept. The events are read from the history, as long as they are in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from dtp.messaging.conversation.events import ID_BYTES, MAX_EVENT_BYTES, Event, EventKind
from dtp.messaging.conversation.state import Said
from dtp.messaging.ends.order import MAX_UNACKNOWLEDGED
from dtp.messaging.errors import MessageError, QueueFull
from dtp.messaging.person.contacts import Contact
from dtp.messaging.person.notices import Notice, What

if TYPE_CHECKING:
    from dtp.messaging.person.correspondence import Correspondence

#: A device gets what it has missed once at most this much waits for it.
_FEW: Final = MAX_UNACKNOWLEDGED // 2
#: Missed events that a device gets each time that it acknowledges something.
_TOGETHER: Final = 1000
#: Milliseconds for which we pass on what comes here to a new device of ours: others may not know of it yet.
_TRAIL_MS: Final = 7 * 86_400_000
#: Under a name that begins so, and with a device, the store has when that ends.
_TRAIL: Final = "new device "


class MissedEvents:
    """A part of a correspondence."""

    def __init__(self, mail: Correspondence) -> None:
        self._mail = mail
        #: New devices of ours, and until when we pass on to them what comes, Unix time in ms.
        self._trails = {
            bytes.fromhex(name[len(_TRAIL) :]): int.from_bytes(mail.store.get_value(name) or b"", "big")
            for name in mail.store.list_names(_TRAIL)
        }
        #: The persons whose cards each of them was sent since the program began.
        self._introduced: set[tuple[bytes, bytes]] = set()

    def check_room(self, devices: Iterable[bytes]) -> None:
        """Raise `QueueFull` if the queues of all these devices are full."""
        remotes = [self._mail.desk.peer_of(each).remote for each in devices]
        if remotes and all(each.outgoing.is_full for each in remotes):
            raise QueueFull("no device has answered for so long that nothing more is kept for them")

    def note_waiting(self, conversation: bytes, event: bytes = b"") -> None:
        """Note, within a transaction, that an event of ours goes to no member of a group whose other key waits to be
        accepted, or whose card has ended: they get it then, of very much the newest. Without its id it is in no
        history."""
        mail, group = self._mail, self._mail.group_of(conversation)
        for person in group.members.roles if group else ():
            contact = mail.contacts.get_contact(person)
            if contact is not None and contact.is_waiting:
                for device in mail.contacts.list_owned(contact) & {
                    *(contact.pending or contact.card).devices
                }:
                    mail.store.missed.add_waiting(device, event)

    def send_missed(self, device: bytes, now_ms: int) -> bool:
        """Queue a part of what a device has missed, in order, if it has acknowledged enough. Return whether anything
        was queued. Within a transaction."""
        mail, owner = self._mail, self._mail.contacts.owner_of(device)
        outgoing = mail.desk.peer_of(device).remote.outgoing
        if outgoing.waiting > _FEW or (owner is not None and owner.is_waiting):
            return False
        before = outgoing.next
        while outgoing.next == before and (missed := mail.store.missed.take_events(device, _TOGETHER)):
            self._send_events(device, missed, now_ms)
        return outgoing.next > before

    def _send_events(self, device: bytes, missed: list[bytes], now_ms: int) -> None:
        mail = self._mail
        if b"" in missed:
            mail.desk.introduce_device(device, mail.introductions.choose_card(now_ms))
            self._give_groups(device, now_ms)
        allowed: dict[bytes, bool] = {}
        for each in missed:
            sender, event = each[:-ID_BYTES], each[-ID_BYTES:]
            for conversation, said in mail.store.find_said(event, sender or mail.person):
                if conversation not in allowed:
                    allowed[conversation] = self._may_have(conversation, device)
                if allowed[conversation] and sender:
                    self._send_copy(device, conversation, said, now_ms)
                elif allowed[conversation]:
                    mail.enqueue_event([device], said.event, now_ms)

    def _send_copy(
        self, device: bytes, conversation: bytes, said: Said, now_ms: int, *, new: bool = False
    ) -> bool:
        """Queue somebody's event for a device of ours, within a transaction. Return whether it fits."""
        encoded = said.event.encode()
        if len(encoded) > MAX_EVENT_BYTES:
            return False
        fields: dict[str, bytes | bool] = {"sender": said.sender, "event": encoded}
        if said.told:
            fields["told"] = said.told
        if new:
            fields["new"] = True
        copy = Event(EventKind.COPY, conversation, 0, now_ms, fields)
        self._mail.enqueue_event([device], copy, now_ms, shown=said.sender + said.event.id)
        return True

    def _may_have(self, conversation: bytes, device: bytes) -> bool:
        try:
            return device in self._mail.own_devices or device in self._mail.devices_of(conversation)
        except MessageError:
            return False

    def _give_groups(self, device: bytes, now_ms: int) -> None:
        owner = self._mail.contacts.owner_of(device)
        person = self._mail.person if owner is None else owner.person
        for group, membership in self._mail.groups.items():
            if person in membership.members.roles:
                self._mail.group_states.send_state(group, [device], now_ms)

    def send_history(self, device: bytes, since_ms: int, now_ms: int) -> int:
        """Send a new device of ours our contacts, our groups, and the events since a time. Return how many events."""
        mail = self._mail
        if device not in mail.own_devices:
            raise MessageError("history is for devices of this account: approve it first")
        sent, ends = 0, now_ms + _TRAIL_MS
        with mail.transaction():
            mail.store.put_value(_TRAIL + device.hex(), ends.to_bytes(8, "big"))
            for contact in mail.contacts:
                self._send_contact(device, contact, now_ms)
            for group in mail.groups:
                mail.group_states.send_state(group, [device], now_ms)
            for conversation, said in mail.store.events_since(since_ms):
                sent += self._send_copy(device, conversation, said, now_ms)
        self._trails[device] = ends
        return sent

    def _send_contact(self, device: bytes, contact: Contact, now_ms: int) -> None:
        self._mail.enqueue_event([device], self._mail.known_people.describe_contact(contact, now_ms), now_ms)

    def _list_new_devices(self, teller: bytes, now_ms: int) -> list[bytes]:
        others = {*self._mail.own_devices} - {teller}
        trails = self._trails.items()
        return [each for each, ends in trails if ends - _TRAIL_MS <= now_ms < ends and each in others]

    def pass_on(self, teller: bytes, conversation: bytes, said: Said, now_ms: int) -> None:
        """Pass on another device's event to new devices of ours, within a transaction. They show it once, even if it
        comes by itself as well."""
        contact = self._mail.contacts.get_contact(said.sender)
        for device in self._list_new_devices(teller, now_ms):
            if contact is not None and (device, said.sender) not in self._introduced:
                self._introduced.add((device, said.sender))
                self._send_contact(device, contact, now_ms)
            self._send_copy(device, conversation, said, now_ms, new=True)

    def pass_on_changes(self, teller: bytes, group: bytes, notices: list[Notice], now_ms: int) -> None:
        """Give new devices of ours, within a transaction, what is known of a group that another device has changed,
        and what these notices say is shown since: messages that were held back, with what is about them."""
        devices = self._list_new_devices(teller, now_ms)
        if not notices or not devices:
            return
        self._mail.group_states.send_state(group, devices, now_ms)
        for each in notices:
            if each.what is What.MESSAGE:
                for said in self._mail.store.read_events(each.conversation, target=each.message):
                    self.pass_on(teller, each.conversation, said, now_ms)
