"""What is shown of what somebody wrote who isn't in a group any more: what their removal had seen.

Whichever comes first, the removal or what they wrote meanwhile, all members show the same in the end. Source:
docs/messaging.md, "Operations of groups".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtp.messaging.conversation.events import Event
from dtp.messaging.conversation.heard import MAX_HEARD, LastHeard, SeenByRemovals
from dtp.messaging.conversation.members import GroupMembers
from dtp.messaging.conversation.membership import Membership
from dtp.messaging.conversation.operations import Act
from dtp.messaging.conversation.state import Said
from dtp.messaging.person.notices import Notice, What

if TYPE_CHECKING:
    from dtp.messaging.person.correspondence import Correspondence

#: Under this name the store has when this device was restored last, and with a group since when it is in that.
_SINCE = "heard since"


class Removals:
    """A part of a correspondence. What isn't said to be a transaction is within one."""

    def __init__(self, mail: Correspondence) -> None:
        self._mail = mail

    # ---- what a removal says -----------------------------------------------------------------------------------

    def describe_heard(self, membership: Membership, person: bytes) -> LastHeard:
        """Return what is shown here of what a member has said."""
        store, conversations = self._mail.store, _conversations(membership)
        saved = [store.get_value(each) for each in (_SINCE, f"{_SINCE} {membership.group.hex()}")]
        since = max(int.from_bytes(each or b"", "big") for each in saved)
        return LastHeard(since, tuple(store.heard.list_last(conversations, person, MAX_HEARD)))

    def note_opened(self, now_ms: int) -> None:
        """Note that what was said before now may be missing here, in all groups, if this device was restored. One
        transaction."""
        if self._mail.desk.renewed:
            with self._mail.store.transaction():
                self._mail.store.put_value(_SINCE, now_ms.to_bytes(8, "big"))

    def note_joined(self, membership: Membership, teller: bytes, was: GroupMembers, now_ms: int) -> None:
        """Note since when we are in a group of which somebody has told, if something may have been said before."""
        own = self._mail.person
        if own in was.roles or own not in membership.members.roles:
            return
        is_first = any(
            each.act is Act.ADD and each.subject == own and each.parents == (membership.group,)
            for each in membership.accepted
        )
        if teller == own or not is_first:
            self._mail.store.put_value(f"{_SINCE} {membership.group.hex()}", now_ms.to_bytes(8, "big"))

    # ---- what counts -------------------------------------------------------------------------------------------

    def note_own_event(self, conversation: bytes, event: Event) -> None:
        """Note what this device has said, if that is in a group."""
        mail = self._mail
        if mail.group_of(conversation) is not None:
            mail.store.heard.note_heard(conversation, mail.person, mail.identity.id.key, event)

    def take_event(
        self, group: Membership | None, conversation: bytes, device: bytes, person: bytes, event: Event
    ) -> bool:
        """Note what a device of a person has said in a group, and return whether it may be shown."""
        heard = self._mail.store.heard
        heard.note_heard(conversation, person, device, event)
        if group is None or person in group.members.roles:
            return group is not None
        place = heard.find_places(person, [event.id]).get(event.id, (device, 0))
        return self._find_seen(group, person).has_seen(event.clock, *place, shown=False)

    def keep_copy(
        self, conversation: bytes, said: Said, now_ms: int, *, unread: bool, held: bool
    ) -> tuple[bool, list[Notice]]:
        """Keep what another device of ours has passed on, as `ReadMessages.keep_said` does. It is shown there: so it
        is here, also where it came by itself and was held back, unless its author was removed before."""
        mail, event, group = self._mail, said.event, self._mail.group_of(conversation)
        if group is not None and said.sender in group.members.removed and not said.told:
            place = mail.store.heard.find_places(said.sender, [event.id]).get(event.id, (None, None))
            held = held or not self._find_seen(group, said.sender).has_seen(event.clock, *place, shown=True)
        is_new, read = mail.reading.keep_said(conversation, said, now_ms, unread=unread, held=held)
        if not held and not is_new and not said.told:
            is_new = mail.store.held.show_event(said.sender, event.id)
        return is_new, read

    def show_seen(self, group: Membership | None, person: bytes, event: Event) -> list[Notice]:
        """Return what is shown or hidden now that an event has come, where a removal has seen it and what the same
        device had said before."""
        removals = () if group is None else group.members.removed.get(person, ())
        if group is None or not any(event.id == each for removal in removals for each, _ in removal.last):
            return []
        return self.show_counting(group, person)

    def show_changes(self, membership: Membership, was: GroupMembers) -> list[Notice]:
        """Return what is shown or hidden since a group has changed."""
        members, found = membership.members, list[Notice]()
        for person, removals in members.removed.items():
            if was.removed.get(person) != removals or was.rooms != members.rooms:
                found += self.show_counting(membership, person)
        return found

    def show_counting(self, membership: Membership, person: bytes) -> list[Notice]:
        """Show what counts of what somebody has said who was removed, and hide the rest. Return what that is to the
        program."""
        mail, notices = self._mail, list[Notice]()
        if person == mail.person or person not in membership.members.removed:
            return []
        seen, is_waiting = self._find_seen(membership, person), mail.contacts.is_waiting(person)
        rows = mail.store.heard.list_said(_conversations(membership), person)
        for conversation, event, clock, held, device, number in rows:
            counts = seen.has_seen(clock, device, number, shown=not held)
            if counts and held and not is_waiting:
                is_unread = mail.store.held.show_event(person, event)
                notices.append(
                    Notice(What.MESSAGE if is_unread else What.CHANGED, person, conversation, event)
                )
            elif not counts and not held:
                mail.store.held.hide_event(person, event)
                notices.append(Notice(What.CHANGED, person, conversation, event))
        return notices

    def _find_seen(self, membership: Membership, person: bytes) -> SeenByRemovals:
        removals = membership.members.removed.get(person, ())
        named = [event for removal in removals for event, _ in removal.last]
        return SeenByRemovals(removals, self._mail.store.heard.find_places(person, named))


def _conversations(membership: Membership) -> list[bytes]:
    return [membership.group, *membership.members.rooms]
