"""`dtp group`: groups of people who write to each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import click

from dtp.cli.durations import duration
from dtp.cli.groups import CommandGroup
from dtp.cli.messenger import (
    LATER,
    WAIT,
    deliver,
    hear_first,
    history_amount,
    messenger_options,
    open_messenger,
    with_warnings,
)
from dtp.cli.output import print_line, print_note, print_result
from dtp.cli.run import run
from dtp.errors import LocalError
from dtp.escaping import escape_text
from dtp.messaging.conversation.operations import MemberRole
from dtp.messaging.errors import MessageError
from dtp.messaging.person.group import Group as People
from dtp.messaging.person.group import History, Room
from dtp.messaging.person.messenger import Messenger
from dtp.messaging.person.names import contact_label

history_option = click.option(
    "--history",
    type=history_amount,
    metavar="7d|100|all",
    help="Give them what was said before, as this device has it: of the last days, a number of messages, or all. "
    "Everybody in the group sees that you did.",
)


class NoGroup(LocalError):
    """There is no group of this name here."""

    code = "no-group"


class NoInvitation(LocalError):
    """The group needn't be accepted: it isn't strangers alone who have added us to it."""

    code = "no-invitation"


@click.group("group", cls=CommandGroup)
def group() -> None:
    """Groups of people who write to each other, sealed end to end. Administrators add and remove members."""


def _run(name: str, work: Callable[[People], Awaitable[Any]], **who: Any) -> Any:
    async def main() -> Any:
        async with with_warnings(open_messenger(**who)) as messenger:
            done = await work(_group(messenger, name))
            await _deliver(messenger)
            return done

    return run(main())


async def _deliver(messenger: Messenger) -> None:
    """Wait until mailboxes have what is to be sent; say so if they don't have it soon."""
    if not await deliver(messenger, WAIT):
        print_note({"sent": False}, LATER)


def _group(messenger: Messenger, name: str) -> People:
    """Return the group of this name or id. Raise `NoGroup`."""
    try:
        found = messenger.find_group_called(name)
    except MessageError:
        several = f"several groups are called {name!r} here"
        raise NoGroup(f"{several}: name one by its id, as 'dtp group list' has it") from None
    if found is None:
        raise NoGroup(f"there is no group called {name!r} here: see 'dtp group list'")
    return found


def _invitation(found: People) -> People:
    if not found.is_invitation:
        raise NoInvitation(f"{found.name!r} is no invitation: 'dtp group list' says which groups are")
    return found


@group.command()
@click.argument("name")
@click.argument("people", nargs=-1)
@messenger_options
def create(name: str, people: tuple[str, ...], **who: Any) -> None:
    """Make a group of PEOPLE, who are contacts of yours. You administer it."""

    async def main() -> People:
        async with with_warnings(open_messenger(**who)) as messenger:
            made = await messenger.create_group(name, people)
            await _deliver(messenger)
            return made

    made = run(main())
    print_result({"group": made.id.hex(), "name": name}, f"group {escape_text(name)} is made")


@group.command()
@click.argument("name")
@click.argument("person")
@click.option("--administrator", is_flag=True, help="They may do everything.")
@click.option(
    "--moderator", is_flag=True, help="They may add, invite and remove members, and delete messages."
)
@history_option
@messenger_options
def add(name: str, person: str, administrator: bool, moderator: bool, history: History, **who: Any) -> None:
    """Add somebody, who can read what is written from now on; or change a member's role.

    
    Examples:
      dtp group add choir carol
      dtp group add choir carol --history 7d
    """

    _run(
        name,
        lambda found: found.add(person, administrator=administrator, moderator=moderator, history=history),
        **who,
    )
    print_result({"added": person, "group": name}, f"{escape_text(person)} is in {escape_text(name)}")


@group.command()
@click.argument("name")
@click.argument("person")
@messenger_options
def remove(name: str, person: str, **who: Any) -> None:
    """Remove somebody: nothing is sealed to them any more."""

    _run(name, lambda found: found.remove(person), **who)
    print_result(
        {"removed": person, "group": name}, f"{escape_text(person)} isn't in {escape_text(name)} any more"
    )


@group.command()
@click.argument("name")
@messenger_options
def accept(name: str, **who: Any) -> None:
    """Take part in a group that strangers have added you to, without writing there.

    Until then its members are strangers, and get no read receipts. This holds for this device only, and nobody is
    told. 'dtp group list' says which groups are invitations.
    """

    _run(name, lambda found: _invitation(found).accept(), **who)
    print_result({"accepted": name}, f"you take part in {escape_text(name)}")


@group.command()
@click.argument("name")
@messenger_options
def decline(name: str, **who: Any) -> None:
    """Leave a group that strangers have added you to. If somebody adds you again, block them ('dtp message
    block')."""

    _run(name, lambda found: _invitation(found).decline(), **who)
    print_result({"declined": name}, f"you aren't in {escape_text(name)}")


@group.command()
@click.argument("name")
@messenger_options
def leave(name: str, **who: Any) -> None:
    """Leave a group: you get nothing that is written there from now on. Its members can add you again."""

    _run(name, lambda found: found.leave(), **who)
    print_result({"left": name}, f"you aren't in {escape_text(name)} any more")


@group.command()
@click.argument("name")
@click.argument("new_name")
@messenger_options
def rename(name: str, new_name: str, **who: Any) -> None:
    """Rename a group, for everybody in it."""

    _run(name, lambda found: found.rename(new_name), **who)
    said = f"{escape_text(name)} is called {escape_text(new_name)} now"
    print_result({"group": new_name, "before": name}, said)


def _group_or_room(messenger: Messenger, name: str) -> People | Room:
    """Return the group of this name or id, or the room that GROUP/ROOM means. Raise `NoGroup`."""
    of_group, slash, room = name.rpartition("/")
    try:
        return _group(messenger, name)
    except NoGroup:
        if not slash:
            raise
    return _room(_group(messenger, of_group), of_group, room)


def _room(found: People, name: str, room: str) -> Room:
    rooms = [each for each in found.rooms if each.name == room]
    if not rooms:
        raise NoGroup(f"{name!r} has no room {room!r}: see 'dtp group list'")
    return rooms[0]


@group.command()
@click.argument("name")
@click.argument("text", nargs=-1, required=True)
@messenger_options
def send(name: str, text: tuple[str, ...], **who: Any) -> None:
    """Write TEXT to all members of a group, or in a room of it: NAME/ROOM."""

    async def main() -> tuple[str, bool]:
        async with with_warnings(open_messenger(**who)) as messenger:
            await hear_first(messenger)
            sent = await messenger.send(_group_or_room(messenger, name), " ".join(text))
            return sent.id.hex(), await deliver(messenger, WAIT, message=sent)

    message, sent = run(main())
    print_result({"message": message, "group": name, "sent": sent}, "sent" if sent else f"kept: {LATER}")


@group.command()
@click.argument("name")
@click.argument("room")
@click.option("--close", is_flag=True, help="Close it instead.")
@messenger_options
def room(name: str, room: str, close: bool, **who: Any) -> None:
    """Open a ROOM of a group, a separate conversation. 'dtp message send NAME/ROOM text' writes there."""

    async def work(found: People) -> str:
        if not close:
            return (await found.open_room(room)).id.hex()
        closed = _room(found, name, room)
        await found.close_room(closed)
        return closed.id.hex()

    made = _run(name, work, **who)
    said = f"{escape_text(name)}/{escape_text(room)} is {'closed' if close else 'open'}"
    print_result({"room": made, "name": room, "group": name, "open": not close}, said)


@group.command()
@click.argument("name")
@click.option("--days", type=duration(0.0001, unit="d"), default="7d", show_default=True,
              help="How long the link is good for.")  # fmt: skip
@click.option(
    "--uses", type=click.IntRange(1), default=1, show_default=True, help="How many people join by it."
)
@history_option
@messenger_options
def invite(name: str, days: float, uses: int, history: History, **who: Any) -> None:
    """Print a link for 'dtp group join'. People who have it are let in when you read your messages."""

    link = _run(
        name, lambda found: found.invite(lasts=timedelta(days=days), uses=uses, history=history), **who
    )
    print_result({"link": link, "group": name, "days": days, "uses": uses}, link)


@group.command()
@click.argument("name")
@click.argument("link")
@messenger_options
def revoke(name: str, link: str, **who: Any) -> None:
    """Revoke an invitation, by its LINK."""

    _run(name, lambda found: found.revoke(link), **who)
    print_result({"revoked": True, "group": name}, "nobody joins by that link any more")


@group.command()
@click.argument("link")
@messenger_options
def join(link: str, **who: Any) -> None:
    """Ask to join a group by a LINK. You are in once the person who invited you has read their messages."""

    async def main() -> bool:
        async with with_warnings(open_messenger(**who)) as messenger:
            await messenger.join_group(link)
            return await deliver(messenger, WAIT)

    asked = run(main())
    text = "asked: 'dtp group list' has the group once you are let in" if asked else f"not asked yet: {LATER}"
    print_result({"asked": asked}, text)


@group.command("list")
@messenger_options
def list_groups(**who: Any) -> None:
    """List your groups, and who is in them; also those that strangers have added you to, or that you have left."""

    async def main() -> None:
        async with with_warnings(open_messenger(**who)) as messenger:
            for each in messenger.groups:
                _print_group(messenger, each)

    run(main())


def _print_group(messenger: Messenger, listed: People) -> None:
    members, told = [], []
    for person, role in listed.members.items():
        contact, word = messenger.find_contact(person), role.name.lower()
        if contact is not None:
            name, who, shown = (
                contact.name,
                contact.card.person_name,
                contact_label(contact, messenger.contacts),
            )
        elif person == messenger.card.person:
            name, who, shown = "you", messenger.card.person_name, "you"
        else:  # the card hasn't come yet
            name = who = shown = person.hex()
        members.append({"name": name, "person": who, "role": word})
        told.append(escape_text(shown) + (f" ({word})" if role is not MemberRole.MEMBER else ""))
    rooms = [each.name for each in listed.rooms]
    name = escape_text(listed.name)
    alike = sum(each.name.casefold() == listed.name.casefold() for each in messenger.groups) > 1
    is_invitation = listed.is_invitation
    print_line(
        {
            "group": listed.id.hex(),
            "name": listed.name,
            "members": members,
            "rooms": rooms,
            "invitation": is_invitation,
            "left": listed.is_left,
        },
        f"{name}{f' ({listed.id.hex()})' if alike else ''}: {', '.join(told)}"
        + (
            "\n  an invitation of strangers: 'dtp group accept' or 'dtp group decline'"
            if is_invitation
            else ""
        )
        + ("\n  you aren't in it any more" if listed.is_left else "")
        + "".join(f"\n  {name}/{escape_text(each)}" for each in rooms),
    )
