"""Groups and their rooms, as a program holds them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dtp.messaging.conversation.membership import Act, MemberRole, Operation
from dtp.messaging.person.communities import InviteLink
from dtp.messaging.person.delivery import now_ms

if TYPE_CHECKING:
    from dtp.messaging.person.messenger import Message, Messenger, Person


class Group:
    """A group of people. What it is called and who is in it is as of now."""

    def __init__(self, messenger: Messenger, group: bytes) -> None:
        self._messenger = messenger
        self.id = group

    @property
    def name(self) -> str:
        """What it is called."""
        return self._messenger.correspondence.groups[self.id].members.name

    @property
    def members(self) -> dict[bytes, MemberRole]:
        """Who is in it, ourselves among them, and what they may."""
        return dict(self._messenger.correspondence.groups[self.id].members.roles)

    async def send(self, text: str, **options: Any) -> Message:
        """Write to all members, as `Messenger.send` does."""
        return await self._messenger.send(self.id, text, **options)

    @property
    def rooms(self) -> list[Room]:
        """Its rooms, as conversations of all its members beside its own."""
        return [Room(self, each) for each in self._messenger.correspondence.groups[self.id].members.rooms]

    async def open_room(self, name: str) -> Room:
        """Return a new room of this name. Raise `MessageError` if we don't administer the group."""
        return Room(self, (await self._change_group(Act.ROOM, text=name)).id)

    async def close_room(self, room: Room) -> None:
        """Close a room: nothing is written there any more."""
        await self._change_group(Act.CLOSE, subject=room.id)

    async def invite(self, *, lasts: timedelta = timedelta(days=7), uses: int = 1) -> str:
        """Return a link by which so many people join with `Messenger.join_group`, as long as it lasts.

        They are let in while we, on any device, collect what they send. Raise `MessageError` if we may not.
        """
        lasts_ms = int(lasts.total_seconds() * 1000)
        messenger = self._messenger
        link = await messenger.delivery.run(
            messenger.correspondence.communities.invite, self.id, now_ms(), lasts_ms=lasts_ms, uses=uses
        )
        messenger.delivery.wake()
        return str(link.text)

    async def revoke(self, link: str) -> None:
        """Take an invitation back: nobody joins by it any more. Raise `LinkMalformed`, `MessageError`."""
        await self._change_group(Act.REVOKE, subject=InviteLink.parse(link).invitation)

    async def add(self, person: Person, *, administrator: bool = False, moderator: bool = False) -> None:
        """Add somebody, or give who is in another role. They read what is written from now on."""
        role = (
            MemberRole.ADMINISTRATOR
            if administrator
            else MemberRole.MODERATOR
            if moderator
            else MemberRole.MEMBER
        )
        await self._change_group(Act.ADD, subject=self._messenger.conversation_of(person), role=role)

    async def remove(self, person: Person) -> None:
        """Remove somebody: nothing is sealed to them any more."""
        await self._change_group(Act.REMOVE, subject=self._messenger.conversation_of(person))

    async def leave(self) -> None:
        """Remove ourselves."""
        await self._change_group(Act.REMOVE, subject=self._messenger.card.person)

    async def rename(self, name: str) -> None:
        """Call it something else."""
        await self._change_group(Act.NAME, text=name)

    async def history(self) -> list[Message]:
        """Return what was written in it that we have."""
        return await self._messenger.history(self.id)

    async def _change_group(self, act: Act, **what: Any) -> Operation:
        messenger = self._messenger
        change = messenger.correspondence.change_group
        made = await messenger.delivery.run(change, self.id, act, now_ms(), **what)
        messenger.delivery.wake()
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
