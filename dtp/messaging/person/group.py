"""Groups and their rooms, as programs use them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from dtp.messaging.conversation.operations import MAX_PAST, Act, MemberRole, Operation, Past
from dtp.messaging.errors import MessageError
from dtp.messaging.person.delivery import now_ms
from dtp.messaging.person.groups.communities import InviteLink

if TYPE_CHECKING:
    from dtp.messaging.person.messenger import Message, Messenger, Person


#: How much a new member gets of earlier messages: those within a time, a number of the last ones, or "all"; None for
#: nothing.
History = timedelta | int | Literal["all"] | None


def past_of(history: History) -> Past | None:
    """Return it as an operation encodes it. Raise `MessageError` if it is out of range."""
    if history is None:
        return None
    if history == "all":
        return Past()
    span = int(history.total_seconds() * 1000) if isinstance(history, timedelta) else 0
    past = Past(span) if isinstance(history, timedelta) else Past(last=int(history))
    if min(past.span_ms, past.last) < 0 or past == Past() or past.last > MAX_PAST:
        raise MessageError(
            f"a new member is given what was sent within some time, or 1 to {MAX_PAST} messages"
        )
    return past


class Group:
    """A group of people. Its name and members are always the current ones."""

    def __init__(self, messenger: Messenger, group: bytes) -> None:
        self._messenger = messenger
        self.id = group

    @property
    def name(self) -> str:
        """What it is called."""
        return self._messenger.correspondence.groups[self.id].members.name

    @property
    def maker(self) -> bytes:
        """The person who created it, or b"" if that isn't known yet."""
        made = self._messenger.correspondence.groups[self.id].operations.get(self.id)
        return b"" if made is None else made.author

    @property
    def is_strangers(self) -> bool:
        """True if a stranger has created the group."""
        return self._messenger.is_stranger(self.maker)

    @property
    def is_left(self) -> bool:
        """True if we aren't in the group any more: we have left it, or were removed."""
        return self._messenger.card.person not in self.members

    @property
    def is_invitation(self) -> bool:
        """True if only strangers have added us to this group, until we write there, do anything but leave, or call
        `accept`. Until then its members count as strangers, and get no read receipts."""
        mail = self._messenger.correspondence
        return mail.person in self.members and mail.allowances.is_invitation(mail.groups[self.id])

    @property
    def members(self) -> dict[bytes, MemberRole]:
        """The members, including ourselves, and their roles."""
        return dict(self._messenger.correspondence.groups[self.id].members.roles)

    async def send(self, text: str, **options: Any) -> Message:
        """Write to all members, as `Messenger.send` does."""
        return await self._messenger.send(self.id, text, **options)

    @property
    def rooms(self) -> list[Room]:
        """The group's rooms: further conversations of all its members."""
        return [Room(self, each) for each in self._messenger.correspondence.groups[self.id].members.rooms]

    async def open_room(self, name: str) -> Room:
        """Create a room of this name, and return it. Raise `MessageError` if we don't administer the group."""
        return Room(self, (await self._change_group(Act.ROOM, text=name)).id)

    async def close_room(self, room: Room) -> None:
        """Close a room: nobody can write there any more."""
        await self._change_group(Act.CLOSE, subject=room.id)

    async def invite(
        self, *, lasts: timedelta = timedelta(days=7), uses: int = 1, history: History = None
    ) -> str:
        """Return a link by which up to `uses` people can join with `Messenger.join_group` until it expires.

        They are let in while one of our devices is running, and get `history` as with `add`. Raise `MessageError` if
        we may not.
        """
        lasts_ms, past = int(lasts.total_seconds() * 1000), past_of(history)
        messenger = self._messenger
        invite = messenger.correspondence.communities.create_link
        link = await messenger.delivery.run_in_thread(
            invite, self.id, now_ms(), lasts_ms=lasts_ms, uses=uses, past=past
        )
        messenger.delivery.wake_up()
        return str(link.text)

    async def revoke(self, link: str) -> None:
        """Revoke an invitation: nobody can join by it any more. Raise `LinkMalformed`, `MessageError`."""
        await self._change_group(Act.REVOKE, subject=InviteLink.parse(link).invitation)

    async def add(
        self,
        person: Person,
        *,
        administrator: bool = False,
        moderator: bool = False,
        history: History = None,
    ) -> None:
        """Add somebody, or change a member's role. New members read what is written from now on, and with `history`
        also earlier messages as we have them: those within a `timedelta`, a number of the last ones, or "all".

        Everybody in the group sees that they get the history. Raise `MessageError` if we may not.
        """
        role = (
            MemberRole.ADMINISTRATOR
            if administrator
            else MemberRole.MODERATOR
            if moderator
            else MemberRole.MEMBER
        )
        past, subject = past_of(history), self._messenger.conversation_of(person)
        await self._change_group(Act.ADD, subject=subject, role=role, text=past.text if past else "")

    @property
    def given_history(self) -> dict[bytes, set[bytes]]:
        """By member, who may give them earlier messages."""
        found = self._messenger.correspondence.groups[self.id].members.past
        return {person: set(tellers) for person, tellers in found.items()}

    async def remove(self, person: Person) -> None:
        """Remove a member: nothing is sealed to them any more."""
        await self._change_group(Act.REMOVE, subject=self._messenger.conversation_of(person))

    async def accept(self) -> None:
        """Accept an invitation by strangers without writing anything. That is stored on this device; nobody is
        told."""
        messenger = self._messenger
        await messenger.delivery.run_in_thread(messenger.correspondence.allowances.accept_group, self.id)
        messenger.delivery.wake_up()

    async def decline(self) -> None:
        """Leave a group that strangers have added us to, until somebody adds us again. Raise `MessageError` if the
        group isn't an invitation."""
        if not self.is_invitation:
            raise MessageError(f"{self.name!r} is no invitation: leave it, if you are in it")
        await self.leave()

    async def leave(self) -> None:
        """Leave the group."""
        await self._change_group(Act.REMOVE, subject=self._messenger.card.person)

    async def rename(self, name: str) -> None:
        """Change the group's name."""
        await self._change_group(Act.NAME, text=name)

    async def history(self) -> list[Message]:
        """Return what was written in it that we have."""
        return await self._messenger.history(self.id)

    async def _change_group(self, act: Act, **what: Any) -> Operation:
        messenger = self._messenger
        change = messenger.correspondence.change_group
        made = await messenger.delivery.run_in_thread(change, self.id, act, now_ms(), **what)
        messenger.delivery.wake_up()
        return made


class Room:
    """A room of a group: a conversation of all its members."""

    def __init__(self, group: Group, room: bytes) -> None:
        self.group, self.id = group, room

    @property
    def name(self) -> str:
        """What it is called; "" once it is closed."""
        return self.group._messenger.correspondence.groups[self.group.id].members.rooms.get(self.id, "")

    async def send(self, text: str, **options: Any) -> Message:
        """Write to all members, as `Messenger.send` does."""
        return await self.group._messenger.send(self.id, text, **options)

    async def history(self) -> list[Message]:
        """Return what was written in it that we have."""
        return await self.group._messenger.history(self.id)
