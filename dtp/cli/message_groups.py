"""`dtp group`: groups of people who write to each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import click

from dtp.cli.groups import Group
from dtp.cli.messenger import WAIT, deliver, messenger_options, open_messenger
from dtp.cli.output import print_line, print_result
from dtp.cli.run import run
from dtp.errors import LocalError
from dtp.escaping import escape_text
from dtp.messaging.conversation.membership import Role
from dtp.messaging.person.messenger import Group as People
from dtp.messaging.person.messenger import Messenger


class NoGroup(LocalError):
    """There is no group of this name here."""

    code = "no-group"


@click.group("group", cls=Group)
def group() -> None:
    """Groups of people who write to each other, sealed end to end. Administrators add and remove."""


def _run(name: str, work: Callable[[Messenger, People], Awaitable[Any]], **who: Any) -> Any:
    async def main() -> Any:
        async with open_messenger(**who) as messenger:
            done = await work(messenger, _group(messenger, name))
            await deliver(messenger, WAIT)
            return done

    return run(main())


def _group(messenger: Messenger, name: str) -> People:
    """Return the group of this name or id. Raise `NoGroup`."""
    groups = messenger.groups
    found = [each for each in groups if name in (each.name, each.id.hex())]
    found = found or [each for each in groups if name.casefold() == each.name.casefold()]
    if len(found) != 1:
        why = "no group" if not found else "more than one group"
        raise NoGroup(f"there is {why} called {name!r} here: see 'dtp group list'")
    return found[0]


@group.command()
@click.argument("name")
@click.argument("people", nargs=-1)
@messenger_options
def create(name: str, people: tuple[str, ...], **who: Any) -> None:
    """Make a group of PEOPLE, who are contacts of yours. You administer it."""

    async def main() -> People:
        async with open_messenger(**who) as messenger:
            made = await messenger.create_group(name, people)
            await deliver(messenger, WAIT)
            return made

    made = run(main())
    print_result({"group": made.id.hex(), "name": name}, f"group {escape_text(name)} is made")


@group.command()
@click.argument("name")
@click.argument("person")
@click.option("--administrator", is_flag=True, help="They may add and remove others.")
@messenger_options
def add(name: str, person: str, administrator: bool, **who: Any) -> None:
    """Add somebody, who reads what is written from now on; or give a member another role."""

    async def work(messenger: Messenger, found: People) -> None:
        await found.add(person, administrator=administrator)

    _run(name, work, **who)
    print_result({"added": person, "group": name}, f"{escape_text(person)} is in {escape_text(name)}")


@group.command()
@click.argument("name")
@click.argument("person")
@messenger_options
def remove(name: str, person: str, **who: Any) -> None:
    """Remove somebody: nothing is sealed to them any more."""

    async def work(messenger: Messenger, found: People) -> None:
        await found.remove(person)

    _run(name, work, **who)
    print_result(
        {"removed": person, "group": name}, f"{escape_text(person)} isn't in {escape_text(name)} any more"
    )


@group.command()
@click.argument("name")
@click.argument("text", nargs=-1, required=True)
@messenger_options
def send(name: str, text: tuple[str, ...], **who: Any) -> None:
    """Write TEXT to all members."""

    async def work(messenger: Messenger, found: People) -> str:
        return (await found.send(" ".join(text))).id.hex()

    sent = _run(name, work, **who)
    print_result({"message": sent, "group": name}, "sent")


@group.command("list")
@messenger_options
def list_groups(**who: Any) -> None:
    """List your groups, and who is in them."""

    async def main() -> None:
        async with open_messenger(**who) as messenger:
            for each in messenger.groups:
                names = {}
                for person, role in each.members.items():
                    contact = messenger.find_contact(person)
                    names[contact.name if contact else "you"] = role.name.lower()
                told = ", ".join(
                    escape_text(who) + (" (administrator)" if role == Role.ADMINISTRATOR.name.lower() else "")
                    for who, role in names.items()
                )
                print_line(
                    {"group": each.id.hex(), "name": each.name, "members": names},
                    f"{escape_text(each.name)}: {told}",
                )

    run(main())
