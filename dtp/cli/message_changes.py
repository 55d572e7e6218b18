"""`dtp message edit|delete|react|verify|block|unblock|quota`: change what was said, whom one hears and believes, and
how much of it is kept."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, Final

import click

from dtp.cli.messenger import (
    LATER,
    WAIT,
    deliver,
    hear_first,
    messenger_options,
    open_messenger,
    show_qr,
    tell_own_devices,
    with_messenger,
)
from dtp.cli.options import parse_limits, show_limits
from dtp.cli.output import print_result
from dtp.cli.run import run
from dtp.escaping import escape_text
from dtp.messaging.errors import MessageError
from dtp.messaging.person.messenger import Message, Messenger

message_argument = click.argument("message", metavar="MESSAGE")


def parse_message_id(text: str) -> bytes:
    """Return a message's id. Raise `click.BadParameter` for any other text."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a message's id: 'dtp message history NAME --ids' shows them"
        ) from None


async def find_one(messenger: Messenger, message: bytes, *, own: bool = False) -> Message:
    """Return the message with this id; with `own` the one that we wrote. Raise `MessageError` if there is none
    here."""
    found = [each for each in await messenger.find_messages(message) if each.own or not own]
    if not found:
        whose = " of yours" if own else ""
        raise MessageError(f"there is no message{whose} here with the id {message.hex()}")
    return found[0]


def _change(message: str, work: Any, done: str, *, own: bool = False, **who: Any) -> None:
    wanted = parse_message_id(message)

    async def main(messenger: Messenger) -> bool:
        await hear_first(messenger)
        await work(await find_one(messenger, wanted, own=own))
        return await deliver(messenger, WAIT)

    told = run(with_messenger(open_messenger(**who), main))
    print_result({"message": message, "sent": told}, done if told else f"{done}: {LATER}")


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
    """Delete a MESSAGE of yours for everybody, by its id; or somebody else's, in a group that you moderate."""
    _change(message, lambda found: found.delete(), "deleted", **who)


@click.command()
@message_argument
@click.argument("emoji", default="")
@messenger_options
def react(message: str, emoji: str, **who: Any) -> None:
    """React to a MESSAGE, by its id, with EMOJI; without EMOJI, remove your reaction."""
    _change(message, lambda found: found.react(emoji), "done", **who)


@click.command()
@click.argument("person")
@click.argument("number", nargs=-1, metavar="[NUMBER]...")
@click.option("--qr", is_flag=True, help="Show the QR code that the other one scans.")
@messenger_options
def verify(person: str, number: tuple[str, ...], qr: bool, **who: Any) -> None:
    """Show the safety number to compare with PERSON; or compare it with the NUMBER that they have.

    If it is right, PERSON counts as verified until their key is replaced.
    """

    async def work(messenger: Messenger) -> tuple[str, bytes]:
        if number and not await messenger.verify(person, " ".join(number)):
            raise MessageError(
                f"{person} and you have different safety numbers: one of you has an older card, or that of somebody "
                "who is between you; hand over cards where you see each other"
            )
        await tell_own_devices(messenger)
        return messenger.safety_number(person), messenger.safety_code(person)

    shown, code = run(with_messenger(open_messenger(**who), work))
    if qr:
        show_qr(code)
    record = {"person": person, "safety_number": shown, "verified": bool(number)}
    print_result(record, f"{escape_text(person)} is verified" if number else shown)


@click.command()
@click.argument("person")
@messenger_options
def block(person: str, **who: Any) -> None:
    """Block PERSON (a name, dtp1... or dtpa1...): nothing of theirs is accepted any more, and they are told
    nothing."""

    async def work(messenger: Messenger) -> None:
        await messenger.block(person)
        await tell_own_devices(messenger)

    run(with_messenger(open_messenger(**who), work))
    print_result(
        {"blocked": person}, f"{escape_text(person)} is blocked: nothing of theirs is taken any more"
    )


@click.command()
@click.argument("person")
@messenger_options
def unblock(person: str, **who: Any) -> None:
    """Unblock PERSON: accept what they write from now on."""

    async def work(messenger: Messenger) -> None:
        await messenger.unblock(person)
        await tell_own_devices(messenger)

    run(with_messenger(open_messenger(**who), work))
    print_result({"unblocked": person}, f"what {escape_text(person)} writes is taken again")


@click.command()
@click.argument("changes", nargs=-1, metavar="[NAME=NUMBER]...")
@messenger_options
def quota(changes: tuple[str, ...], **who: Any) -> None:
    """Show how much of what others send is kept on this device, or change that; NAME=none removes a limit.

    \b
    Examples:
      dtp message quota
      dtp message quota stranger_events=100 contact_bytes=none
    """
    told: dict[str, Any] = parse_limits(changes)

    async def work(messenger: Messenger) -> dict[str, int | None]:
        allowances = messenger.correspondence.allowances
        if wrong := told.keys() - asdict(allowances.quotas).keys():
            raise click.UsageError(f"there is no quota {sorted(wrong)[0]!r}")
        if told:
            quotas = replace(allowances.quotas, **told)
            await messenger.delivery.run_in_thread(allowances.set_quotas, quotas)
        return asdict(allowances.quotas)

    show_limits(run(with_messenger(open_messenger(**who), work)))


CHANGES: Final = (edit, delete, react, verify, block, unblock, quota)
