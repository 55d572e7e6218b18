"""The states of groups, for new members: the groups' operations, and the cards of their members.

A small state is sent as events. A large one is sealed and uploaded to our mailboxes once, and each device is told
where: it fetches the state from there, and asks for events if it can't.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dtp.errors import PeerError
from dtp.messaging.cards import ContactCard
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.members import GroupMembers
from dtp.messaging.conversation.membership import MAX_OPERATIONS, Membership
from dtp.messaging.conversation.operations import Act, MembershipError, Operation, operation_id
from dtp.messaging.ends.order import resend_after
from dtp.messaging.packing import pack, unpack, unpack_saved
from dtp.messaging.person.attachments import seal_bytes
from dtp.messaging.person.groups.former_devices import FormerCards
from dtp.messaging.person.notices import Notice, What

if TYPE_CHECKING:
    from dtp.messaging.person.correspondence import Correspondence

#: Bytes of operations and cards in one event, so that it fits into an envelope whoever the author is.
_TOGETHER: Final = 64 * 1024
#: The most bytes of a state that is fetched: several times those of 1,000 members with two mailboxes each.
MAX_STATE: Final = 16 << 20
#: The most states that wait to be fetched for one device that has offered them.
_WANTED: Final = 64
#: Milliseconds for which a state can be fetched: as long as a mailbox keeps it.
_LIFETIME_MS: Final = 30 * 86_400_000
#: Tries after which the sender is asked for a state that can't be fetched.
_TRIES: Final = 2
#: Times that a device is asked for operations on which its own are based.
_ASKED: Final = 3
_VERSION: Final = 1


class StateMalformed(PeerError):
    """A group's state can't be read."""

    code = "group-state"


@dataclass(frozen=True, slots=True)
class WantedState:
    """A group's state that a device has uploaded to its mailboxes; `file` is as in its event."""

    group: bytes
    device: bytes
    file: bytes

    @property
    def fields(self) -> tuple[int, bytes, tuple[bytes, ...]]:
        """The state's size, key and index hashes."""
        _, size, key, roots, _ = unpack(self.file, StateMalformed, "a file")
        return size, key, tuple(roots)


class GroupStates:
    """A part of a correspondence. Methods are called within a transaction unless they say that they are one."""

    def __init__(self, mail: Correspondence) -> None:
        self._mail = mail
        #: Bytes of all events together above which a state is uploaded to our mailboxes instead.
        self.most_sent = 4 << 20
        #: True while there is a new state to upload, and a new state to fetch.
        self.is_given, self.is_wanted = False, False
        #: Notices about groups that cards have changed, which the program hasn't had yet.
        self._notices: list[Notice] = []

    # ---- giving ------------------------------------------------------------------------------------------------

    def save_operations(self, group: Membership) -> None:
        """Store a group's operations."""
        self._mail.store.put_group(group.group, pack(group.encoded_operations))
        refused, name = group.refused, _refused(group.group)
        if refused or self._mail.store.get_value(name):
            self._mail.store.put_value(name, pack(refused))

    def load_group(self, group: Membership, operations: Iterable[bytes]) -> None:
        """Load a group's operations from the store: they were accepted when they came."""
        for each in operations:
            group.add_operation(Operation.parse(each), lambda operation: True, kept=True)
        for each in unpack_saved(self._mail.store.get_value(_refused(group.group)) or pack([])):
            group.add_operation(Operation.parse(each), lambda operation: False, kept=True)

    def list_fellows(self) -> set[bytes]:
        """Return everybody who is in a group with us, except in groups that are invitations."""
        mail = self._mail
        ours = [each for each in mail.groups.values() if mail.person in each.members.roles]
        invitations = mail.allowances.find_invitations()
        return {person for each in ours if each.group not in invitations for person in each.members.roles}

    def send_state(self, group: bytes, devices: Iterable[bytes], now_ms: int, *, once: bool = True) -> None:
        """Give devices all that is known of a group. Without `once` it is sent, however much it is."""
        membership = self._mail.groups[group]
        cards, former = self._list_cards(membership), self._mail.former_devices.list_cards(membership)
        operations, devices = list(membership.operations.values()), list(devices)
        if once and self._mail.card.mailboxes:
            told = [each.encoded for each in operations], [each.encode() for each in cards]
            state = pack([_VERSION, *told, sorted(former.values())])
            if self.most_sent < len(state) * len(devices) and len(state) <= MAX_STATE:
                self._give_once(group, devices, state, now_ms)
                return
        self.send_some(group, devices, operations, cards, now_ms, former=former)

    def _list_cards(self, membership: Membership) -> list[ContactCard]:
        """Return the cards of a group's members, and of other authors of its operations. Somebody who has added us,
        and whom we haven't answered, gets no access to anybody's mailboxes. Nobody gets access to mailboxes of
        members who were added by others and don't take part."""
        allowances, roles = self._mail.allowances, set[bytes]()
        if not allowances.is_invitation(membership):
            roles = membership.members.roles.keys() & allowances.list_active(membership)
        authors = {each.author: None for each in membership.operations.values()}
        known = [
            self._mail.contacts.get_contact(person)
            for person in authors | dict.fromkeys(membership.members.roles)
        ]
        cards = [each.card for each in known if each is not None]
        return [each if each.person in roles else each.public() for each in cards]

    def _give_once(self, group: bytes, devices: list[bytes], state: bytes, now_ms: int) -> None:
        key = secrets.token_bytes(32)
        file, _ = seal_bytes("state", state, key)
        self._mail.store.add_given_state(key, state, now_ms + _LIFETIME_MS)
        self.is_given = True
        self._send_operations(group, devices, {"operations": [], "state": file}, now_ms)

    def send_some(
        self,
        group: bytes,
        devices: Iterable[bytes],
        operations: list[Operation],
        cards: list[ContactCard],
        now_ms: int,
        *,
        former: FormerCards | None = None,
    ) -> None:
        """Send devices operations of a group, after the cards of the people whom these concern. Each operation goes
        with the `former` card of the device that has signed it, if there is one."""
        devices, former = list(devices), former or {}
        parts = [{"cards": each.encode()} for each in cards]
        for each in operations:
            shown = former.get((each.author, each.device))
            parts.append({"operations": each.encoded, **({"former": shown} if shown else {})})
        fields: dict[str, list[bytes]] = {"operations": []}
        size = 0
        for part in parts:
            more = sum(map(len, part.values()))
            if size and size + more > _TOGETHER:
                self._send_operations(group, devices, fields, now_ms)
                fields, size = {"operations": []}, 0
            for name, blob in part.items():
                fields.setdefault(name, []).append(blob)
            size += more
        if size:
            self._send_operations(group, devices, fields, now_ms)

    def announce_group(self, membership: Membership, now_ms: int) -> None:
        """Store a group that was created here, and tell its members; those whose key waits for consent are told
        afterwards."""
        self.save_operations(membership)
        self.send_state(membership.group, self._mail.devices_of(membership.group), now_ms)
        self._mail.missed.note_waiting(membership.group)

    def say_operation(self, group: bytes, act: Act, now_ms: int, **what: Any) -> Operation | None:
        """Sign an operation of a group, and send it to the members. People whom it adds get all other operations as
        well. Return it, or None if we have too many operations already: nobody else would accept it, either."""
        membership = self._mail.groups[group]
        if act is Act.REMOVE:
            what["heard"] = self._mail.removals.describe_heard(membership, what["subject"])
        operation = Operation.sign(
            self._mail.identity,
            self._mail.person,
            act,
            parents=membership.list_heads(self._mail.person),
            **what,
        )
        before, was = set(self._mail.devices_of(group)), membership.members
        membership.add_operation(operation, self._mail.is_authors)
        if operation.id not in membership:
            return None
        self.save_operations(membership)
        self._notices += self._show_held_back(membership, was)
        after = set(self._mail.devices_of(group))
        self.send_state(group, after - before, now_ms)
        cards = [self._mail.get_contact(operation.subject).card] if act is Act.ADD else []
        self.send_some(group, before, [operation], cards, now_ms)
        self._mail.missed.note_waiting(group)
        return operation

    def _send_operations(
        self, group: bytes, devices: Iterable[bytes], fields: dict[str, Any], now_ms: int
    ) -> None:
        self._mail.enqueue_event(devices, Event(EventKind.MEMBERSHIP, group, 0, now_ms, fields), now_ms)

    def list_pieces(self, now_ms: int) -> list[list[bytes]]:
        """Return the pieces of each state that others may fetch from our mailboxes, as one transaction."""
        store, self.is_given = self._mail.store, False
        with self._mail.transaction():
            store.drop_given_states(now_ms)
        return [seal_bytes("state", state, key)[1] for key, state in store.list_given_states(now_ms)]

    # ---- taking ------------------------------------------------------------------------------------------------

    def process_event(self, device: bytes, person: bytes, event: Event, now_ms: int) -> list[Notice]:
        """Process an event about a group from a person's device."""
        group, fields = event.conversation, event.fields
        if fields.get("ask"):
            self._send_unfetched(group, device, person, now_ms)
        elif "ask" in fields:
            self._mail.store.drop_wanted_state(group, device)
        elif "state" in fields:
            if self._mail.store.count_wanted_states(device) < _WANTED:
                self._mail.store.add_wanted_state(group, device, pack(fields["state"]))
                self.is_wanted = True
        else:
            if why := self._mail.allowances.refuse_group(person, group):
                return self._mail.allowances.tell(person, group, why, now_ms)
            if not self._mail.introductions.take_cards(person, fields.get("cards", [])):
                self._notices += self._mail.allowances.tell(person, group, "cards of too many people", now_ms)
            former = fields.get("former", [])
            notices = self._add_state(group, person, fields["operations"], former, now_ms)
            self._mail.missed.pass_on_changes(device, group, notices, now_ms)
            self._note_missing(group, device, person, fields["operations"], now_ms)
            return notices
        return []

    def _send_unfetched(self, group: bytes, device: bytes, person: bytes, now_ms: int) -> None:
        """Send a member the state of a group that they can't fetch, unless something already waits for them, which
        may be that state."""
        membership = self._mail.groups.get(group)
        is_members = membership is not None and person in membership.members.roles
        if is_members and not self._mail.store.count_waiting(device):
            self.send_state(group, [device], now_ms, once=False)
            self._send_operations(group, [device], {"operations": [], "ask": False}, now_ms)  # that was all

    def _add_state(
        self, group: bytes, teller: bytes, encoded: list[bytes], former: list[bytes], now_ms: int
    ) -> list[Notice]:
        """Add operations that a person has sent, and return the changes. One of our own devices may show cards of
        devices that are gone."""
        mail, operations = self._mail, list[Operation]()
        is_own = teller == mail.person
        for each in encoded:
            with contextlib.suppress(MembershipError):
                operations.append(Operation.parse(each))
        membership = mail.groups.get(group) or Membership(group)
        was, before, changed = membership.members, membership.counts, False
        if is_own or mail.person not in was.roles:
            mail.former_devices.keep_shown(group, teller, former, operations)

        def is_authors(operation: Operation) -> bool:
            was_authors = is_own and mail.former_devices.spoke_for(group, operation.device, operation.author)
            return was_authors or mail.is_authors(operation)

        for operation in operations:
            with contextlib.suppress(MembershipError):
                changed |= membership.add_operation(operation, is_authors)
        changed |= self._accept_former(membership, was)
        if changed or membership.counts != before:
            mail.groups[group] = membership
            self.save_operations(membership)
            mail.removals.note_joined(membership, teller, was, now_ms)
        return self._list_changes(membership, was) if changed else []

    def _accept_former(self, membership: Membership, was: GroupMembers) -> bool:
        """Accept what devices that are gone have signed, if we weren't in the group before. Return whether that
        changes anything."""
        return self._mail.person not in was.roles and self._mail.former_devices.accept_former(membership)

    def reconsider_groups(self, person: bytes, gone: Container[bytes]) -> None:
        """Evaluate groups again after a person's card has changed; these devices have gone from it.

        What those devices have signed counts if it came before that change; but not in groups that we haven't joined
        yet.
        """
        for membership in list(self._mail.groups.values()):
            was = membership.members
            if gone and self._mail.person not in was.roles and person != self._mail.person:
                membership.withdraw(person, gone)
                self.save_operations(membership)
            if membership.reconsider(lambda each: each.author == person and self._mail.is_authors(each)):
                self._accept_former(membership, was)
                self.save_operations(membership)
                self._notices += self._list_changes(membership, was)

    def show_held(self, person: bytes) -> list[Notice]:
        """Show, within a transaction, what was held back until a person's other key was accepted or their card was
        renewed, unless the other of the two is still missing. Return the notices for the program."""
        if self._mail.contacts.is_waiting(person):
            return []
        conversations, notices = [person], list[Notice]()
        for membership in self._mail.groups.values():
            if person in membership.members.roles:
                conversations += [membership.group, *membership.members.rooms]
            notices += self._mail.past.show_held(membership)
            notices += self._mail.removals.show_counting(membership, person)
        for each in conversations:
            released = self._mail.store.held.release_of_members(each, {person})
            notices += [Notice(What.MESSAGE, sender, each, message) for sender, message in released]
        return notices

    def add_notices(self, notices: Iterable[Notice]) -> None:
        """Add notices that `take_notices` will return."""
        self._notices += notices

    def take_notices(self) -> list[Notice]:
        """Return the notices about people and groups whose cards have changed since the last call."""
        notices, self._notices = self._notices, []
        return notices

    def _list_changes(self, membership: Membership, was: GroupMembers) -> list[Notice]:
        """Return the notices of what has changed in a group, and show what was held back until then."""
        mail, group, members = self._mail, membership.group, membership.members
        notices = [Notice(What.GROUP_CHANGED, b"", group, detail=members.name)]
        if mail.person in was.roles:  # a new member hears of no earlier change
            notices += [self._tell_given(group, person) for person in members.past.keys() - was.past.keys()]
        notices += self._show_held_back(membership, was)
        return notices + mail.past.show_held(membership)

    def _show_held_back(self, membership: Membership, was: GroupMembers) -> list[Notice]:
        """Return what is shown now of members, and what of who isn't one any more."""
        mail, members, notices = self._mail, membership.members, list[Notice]()
        accepted = {person for person in members.roles if not mail.contacts.is_waiting(person)}
        for conversation in (membership.group, *members.rooms):
            for sender, message in mail.store.held.release_of_members(conversation, accepted):
                notices.append(Notice(What.MESSAGE, sender, conversation, message))
        return notices + mail.removals.show_changes(membership, was)

    def _tell_given(self, group: bytes, person: bytes) -> Notice:
        contact = self._mail.contacts.get_contact(person)
        return Notice(What.PAST_GIVEN, person, group, detail=contact.name if contact else "")

    def _note_missing(
        self, group: bytes, device: bytes, person: bytes, encoded: list[bytes], now_ms: int
    ) -> None:
        """Plan to ask a member's device for operations on which its own are based, unless they come by themselves.
        Somebody may have sent them to that device alone, and what is based on them would count for nobody else."""
        membership = self._mail.groups.get(group)
        if membership is not None and person in membership.members.roles:
            waiting = (each for each in map(operation_id, encoded) if membership.is_waiting(each))
            if (operation := next(waiting, None)) is not None:
                self._ask_later(group, device, operation, now_ms)

    def note_unknown(self, group: bytes, device: bytes, now_ms: int) -> None:
        """Plan to ask a device about an unknown group to which it writes, unless the group's state comes by itself:
        an account's key may have been recovered on a device that has nothing yet."""
        self._ask_later(group, device, b"", now_ms)

    def _ask_later(self, group: bytes, device: bytes, operation: bytes, now_ms: int) -> None:
        store = self._mail.store
        if not store.has_wanted_state(group, device) and store.count_wanted_states(device) < _WANTED:
            store.add_wanted_state(group, device, pack(operation))
            store.put_off_wanted_state(group, device, now_ms + resend_after(1))

    def _ask_for_missing(
        self, group: bytes, device: bytes, operation: bytes, tries: int, now_ms: int
    ) -> None:
        membership = self._mail.groups.get(group)
        is_in = membership is not None and self._mail.person in membership.members.roles
        is_missing = membership is not None and membership.is_waiting(operation) if operation else not is_in
        if not is_missing or tries > _ASKED:
            self._mail.store.drop_wanted_state(group, device)
        else:
            self._send_operations(group, [device], {"operations": [], "ask": True}, now_ms)

    def take_wanted(self, now_ms: int) -> list[WantedState]:
        """Return the states to fetch now, as one transaction. They are due again later unless `take_fetched` is
        called before."""
        self.is_wanted, found = False, []
        if not self._mail.store.list_wanted_states(now_ms):
            return []
        with self._mail.transaction():
            for group, device, file, tries in self._mail.store.list_wanted_states(now_ms):
                self._mail.store.put_off_wanted_state(group, device, now_ms + resend_after(tries + 1))
                if isinstance(operation := unpack_saved(file), bytes):
                    self._ask_for_missing(group, device, operation, tries, now_ms)
                    continue
                found.append(WantedState(group, device, file))
                if tries >= _TRIES:
                    self._send_operations(group, [device], {"operations": [], "ask": True}, now_ms)
        return found

    def take_fetched(self, wanted: WantedState, state: bytes, now_ms: int) -> list[Notice]:
        """Process a state that was fetched, as one transaction, and return the notices. Raise `PeerError` if it is
        malformed."""
        match unpack(state, StateMalformed, "a group's state"):
            case [1, [*operations], [*cards], *rest] if _are_blobs(operations, MAX_OPERATIONS):
                former = rest[0] if rest else []
                if not _are_blobs(cards, MAX_OPERATIONS) or not _are_blobs(former, MAX_OPERATIONS):
                    raise StateMalformed("a group's state is malformed")
            case _:
                raise StateMalformed("a group's state is malformed, or of another version")
        with self._mail.transaction():
            self._mail.store.drop_wanted_state(wanted.group, wanted.device)
            teller = self._mail.desk.peer_of(wanted.device).person
            if self._mail.allowances.refuse_group(teller, wanted.group):
                return self.take_notices()
            self._mail.introductions.take_cards(teller, cards)
            notices = self._add_state(wanted.group, teller, operations, former, now_ms)
            self._mail.missed.pass_on_changes(wanted.device, wanted.group, notices, now_ms)
            return notices + self.take_notices()


def _are_blobs(told: Any, most: int) -> bool:
    return isinstance(told, list) and len(told) <= most and all(isinstance(each, bytes) for each in told)


def _refused(group: bytes) -> str:
    return f"refused {group.hex()}"
