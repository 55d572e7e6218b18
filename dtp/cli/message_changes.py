"""`dtp message edit|delete|react|block|unblock`: change what was said, and whom one hears."""

from __future__ import annotations

from typing import Any, Final

import click

from dtp.cli.messenger import WAIT, deliver, messenger_options, open_messenger, with_messenger
from dtp.cli.output import print_result
from dtp.cli.run import run
from dtp.escaping import escape_text
from dtp.messaging.errors import MessageError
from dtp.messaging.person.messenger import Message, Messenger

message_argument = click.argument("message", metavar="MESSAGE")


def parse_message_id(text: str) -> bytes:
    """Return a message's id. Raise `click.BadParameter` for what is none."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a message's id: 'dtp message history NAME --ids' shows them"
        ) from None


async def find_one(messenger: Messenger, message: bytes, *, own: bool = False) -> Message:
    """Return the message of this id, the one that we wrote with `own`. Raise `MessageError` if there is none here."""
    found = [each for each in await messenger.find_messages(message) if each.own or not own]
    if not found:
        whose = " of yours" if own else ""
        raise MessageError(f"there is no message{whose} here with the id {message.hex()}")
    return found[0]


def _change(message: str, work: Any, done: str, *, own: bool = False, **who: Any) -> None:
    wanted = parse_message_id(message)

    async def main(messenger: Messenger) -> bool:
        await work(await find_one(messenger, wanted, own=own))
        return await deliver(messenger, WAIT)

    told = run(with_messenger(open_messenger(**who), main))
    later = "" if told else ": no mailbox could be reached; others hear of it by the next command"
    print_result({"message": message, "sent": told}, f"{done}{later}")


@click.command()
@message_argument
@click.argument("text", nargs=-1, required=True)
@messenger_options
def edit(message: str, text: tuple[str, ...], **who: Any) -> None:
    """Give a MESSAGE of yours another TEXT, for everybody who has it. MESSAGE is its id, as 'send --json' prints it,
    and 'history --ids'."""
    _change(message, lambda found: found.edit(" ".join(text)), "edited", own=True, **who)


@click.command()
@message_argument
@messenger_options
def delete(message: str, **who: Any) -> None:
    """Delete a MESSAGE of yours for everybody, by its id; or another's, in a group that you moderate."""
    _change(message, lambda found: found.delete(), "deleted", **who)


@click.command()
@message_argument
@click.argument("emoji", default="")
@messenger_options
def react(message: str, emoji: str, **who: Any) -> None:
    """React to a MESSAGE, by its id, with EMOJI; without one, take that back."""
    _change(message, lambda found: found.react(emoji), "done", **who)


@click.command()
@click.argument("person")
@messenger_options
def block(person: str, **who: Any) -> None:
    """Take nothing of PERSON any more, and tell them nothing: a name, dtp1... or dtpa1...."""

    async def work(messenger: Messenger) -> None:
        await messenger.block(person)

    run(with_messenger(open_messenger(**who), work))
    print_result(
        {"blocked": person}, f"{escape_text(person)} is blocked: nothing of theirs is taken any more"
    )


@click.command()
@click.argument("person")
@messenger_options
def unblock(person: str, **who: Any) -> None:
    """Take what PERSON writes from now on."""

    async def work(messenger: Messenger) -> None:
        await messenger.unblock(person)

    run(with_messenger(open_messenger(**who), work))
    print_result({"unblocked": person}, f"what {escape_text(person)} writes is taken again")


CHANGES: Final = (edit, delete, react, block, unblock)
