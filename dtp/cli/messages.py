"""`dtp message`: write to people, and read what they write."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import click

from dtp.cli.durations import duration
from dtp.cli.groups import CommandGroup
from dtp.cli.mailbox_room import rent
from dtp.cli.message_changes import CHANGES, find_one, parse_message_id
from dtp.cli.message_devices import COMMANDS
from dtp.cli.messenger import (
    WAIT,
    collect,
    deliver,
    hear_first,
    look_people_up,
    make_folder,
    messenger_options,
    node_option,
    open_messenger,
    publish_keys,
    reach_for_files,
    read_card_text,
    save_option,
    show_qr,
    tell_own_devices,
    with_messenger,
    with_warnings,
)
from dtp.cli.output import print_line, print_note, print_result
from dtp.cli.run import run, serve_for_long, when_stdin_ends
from dtp.cli.stamps import StampOffer, stamp_options, tell_stamps
from dtp.escaping import JOINERS, escape_text
from dtp.messaging.cards import ContactCard
from dtp.messaging.errors import MessageError, UnknownContact
from dtp.messaging.mailbox.stamps import MAX_BITS, MAX_STAMP_MIB
from dtp.messaging.person.attachments import AttachmentBroken, AttachmentGone, AttachmentTooLarge
from dtp.messaging.person.contacts import Consent, Contact
from dtp.messaging.person.messenger import Message, Messenger
from dtp.plurals import count_of
from dtp.tasks import start_task

_OLDER: Final = (
    "that card is older than the one that is known here, and changes nothing: ask for the newest one"
)


@click.group(cls=CommandGroup)
def message() -> None:
    """Messages to people, sealed end to end, through mailboxes that know neither sender nor content.

    Give others your card ('dtp message card'), add theirs ('dtp message add'), write ('dtp message send').
    """


@message.command()
@click.option("--name", help="Your name in your card.")
@click.option("--mailbox", "mailboxes", multiple=True, metavar="ADDRESS",
              help="Where others leave what is for you: see 'dtp mailbox serve'; repeatable.")  # fmt: skip
@click.option(
    "--public", is_flag=True, help="For everybody: first messages of strangers take work, and wait apart."
)
@click.option("--stamp-bits", type=click.IntRange(0, MAX_BITS), metavar="BITS",
              help="Work that a stranger's message takes; 16, a tenth of a second, until you say.")  # fmt: skip
@click.option("--stamp-mib", type=click.IntRange(0, MAX_STAMP_MIB), metavar="MIB",
              help="Have strangers pay instead: for so much of your room in mailboxes that sell it. 0 ends "
              "it.")  # fmt: skip
@click.option("--consent", type=click.Choice(("tell", "ask")),
              help="What is done when a contact's key was replaced: it is told, as it is until you say; or what they "
              "write waits until 'dtp message accept'.")  # fmt: skip
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="Write the card into a file.")
@click.option("--qr", is_flag=True, help="Show it as a QR code.")
@messenger_options
def card(
    name: str | None,
    mailboxes: tuple[str, ...],
    stamp_bits: int | None,
    stamp_mib: int | None,
    consent: Consent | None,
    public: bool,
    output: str | None,
    qr: bool,
    **who: Any,
) -> None:
    """Print your card, for people who may write to you. With --name and --mailbox, change it and tell your contacts.

    \b
    Examples:
      dtp message card --name Alice --mailbox dtp+tcp://dtp1...@box.example:9700/dtp.mailbox
      dtp message card --qr
    """

    async def work(messenger: Messenger) -> ContactCard:
        if messenger.card.mailboxes:
            await publish_keys(messenger)
        await deliver(messenger, WAIT)
        if who["bootstrap"] or who["chain"]:
            await messenger.tasks.lookup.publish_card()
        return messenger.card

    stamps = {"stamp_bits": stamp_bits, "stamp_mib": stamp_mib}
    said: dict[str, Any] = {"name": name, "mailboxes": mailboxes or None, "consent": consent, **stamps}
    made = run(with_messenger(open_messenger(**who, **said), work))
    made = made.public() if public else made
    if output:
        Path(output).write_text(made.text + "\n")
    if qr:
        show_qr(made.text)
    record = {
        "person": made.person_name,
        "name": made.name,
        "mailboxes": list(made.mailboxes),
        "card": made.text,
    }
    print_result(record, f"card of {made.person_name} written to {output}" if output else made.text)
    _warn_without_mailbox(made)


@message.command()
@click.argument("given", metavar="CARD")
@click.option("--as", "nickname", metavar="NAME", help="Your name for the contact.")
@messenger_options
def add(given: str, nickname: str | None, **who: Any) -> None:
    """Add a contact by its CARD: the text of one, or a file that has it.

    With --bootstrap or --chain, CARD may be dtp1... or dtpa1..., for people who have published their card there.
    """
    named = given.startswith(("dtp1", "dtpa1"))
    text = given if named else read_card_text(given)

    async def work(messenger: Messenger) -> tuple[Contact, str]:
        contact = await (messenger.find_person(text) if named else messenger.add_contact(text))
        if not named and contact.is_newer_than(ContactCard.parse_text(text)):
            print_note({"older": True, "person": contact.card.person_name}, _OLDER)
        if nickname is not None:
            await messenger.rename_contact(contact, nickname)
        await tell_own_devices(messenger)
        found = messenger.find_contact(contact.person)
        assert found is not None
        return found, messenger.safety_number(found)

    contact, number = run(with_messenger(open_messenger(**who), work))
    record = {"person": contact.card.person_name, "name": contact.name, "safety_number": number}
    print_result(record, f"{escape_text(contact.name)} is {contact.card.person_name}\nsafety number {number}")


@message.command()
@messenger_options
def contacts(**who: Any) -> None:
    """List your contacts, with the safety number to compare with each."""

    async def work(messenger: Messenger) -> None:
        for each in messenger.contacts:
            state = "blocked" if each.blocked else "stranger" if each.stranger else "contact"
            waits = "; verified" if each.verified else ""
            waits += "; its key was replaced: 'dtp message accept' takes it" if each.pending else ""
            waits += "; its card has ended, and waits to be renewed" if each.expired else ""
            number = messenger.safety_number(each)
            record = {
                "person": each.card.person_name,
                "name": each.name,
                "state": state,
                "verified": each.verified,
                "replaced": each.pending is not None,
                "expired": each.expired,
                "safety_number": number,
                "card": (each.pending or each.card).public().text,
            }
            print_line(
                record, f"{escape_text(each.name)}  {each.card.person_name}  {state}{waits}\n  {number}"
            )

    run(with_messenger(open_messenger(**who), work))


@message.command()
@click.argument("person")
@messenger_options
def accept(person: str, **who: Any) -> None:
    """Accept the key with which a contact has replaced its own, once you have compared the safety number."""

    async def work(messenger: Messenger) -> None:
        await messenger.accept_key(person)
        await tell_own_devices(messenger)

    run(with_messenger(open_messenger(**who), work))
    print_result({"accepted": person}, f"the key of {escape_text(person)} is accepted")


@message.command()
@click.argument("to")
@click.argument("text", nargs=-1)
@click.option("--attach", "-a", multiple=True, type=click.Path(exists=True, dir_okay=False), metavar="FILE",
              help="Attach a file; repeatable.")  # fmt: skip
@click.option("--reply-to", "answered", metavar="MESSAGE", help="Answer a message, by its id.")
@click.option("--disappear", type=duration(1, whole=True),
              help="How long after it was read it disappears.")  # fmt: skip
@click.option("--wait", type=duration(), default=f"{WAIT:g}s", show_default=True,
              help="How long to wait until a mailbox has it. It isn't lost otherwise.")  # fmt: skip
@stamp_options
@messenger_options
def send(
    to: str,
    text: tuple[str, ...],
    attach: tuple[str, ...],
    answered: str | None,
    disappear: int | None,
    wait: float,
    stamp: StampOffer,
    **who: Any,
) -> None:
    """Write TEXT to a person (a name, dtp1..., dtpa1..., a card or a file that has one) or to a group of yours.

    With --stamp-up-to, people who ask strangers to pay are paid. Messages that wait are sent as well, so TEXT may be
    left out.

    \b
    Examples:
      dtp message send alice see you at eight
      dtp message send alice --attach map.png "here is the map"
      dtp message send alice --stamp-up-to 0.01SUI
    """
    if not text and not attach and stamp.up_to is None:
        raise click.UsageError("say what to write: TEXT or --attach")
    answer = parse_message_id(answered) if answered is not None else None

    async def work(messenger: Messenger) -> tuple[str, bool, bool]:
        vanish = timedelta(seconds=disappear) if disappear else None
        whom = _find_recipient(messenger, to)
        sent = None
        if answer is not None:
            await find_one(messenger, answer)
        if attach:
            await reach_for_files(messenger, wait)
        await hear_first(messenger)
        if text or attach:
            sent = await messenger.send(
                whom, " ".join(text), attachments=attach, reply_to=answer, disappear=vanish
            )
        if stamp.up_to is not None:
            await messenger.allow_stamps(whom, stamp.up_to)
        delivered = await deliver(messenger, wait, message=sent)
        _warn_without_mailbox(messenger.card)
        return sent.id.hex() if sent else "", delivered, tell_stamps(messenger)

    said, delivered, waits = run(with_messenger(stamp.open_messenger(**who), work))
    why = "it waits for a stamp" if waits else "no mailbox has taken it yet; the next command sends it"
    print_result({"message": said or None, "sent": delivered}, "sent" if delivered else f"kept: {why}")


def _find_recipient(messenger: Messenger, to: str) -> str | ContactCard:
    """Return who is written to: the person of this name, or else the card in a file of this name."""
    if os.path.isfile(to) and not _is_called(messenger, to):
        return ContactCard.parse_text(read_card_text(to))
    return to


def _is_called(messenger: Messenger, name: str) -> bool:
    try:
        messenger.conversation_of(name)
    except UnknownContact:
        return False
    return True


@message.command()
@click.option("--wait", type=duration(), default=f"{WAIT:g}s", show_default=True,
              help="How long to wait for your mailboxes.")  # fmt: skip
@save_option
@click.option(
    "--keep-unread", is_flag=True, help="Don't say that it was read; it is printed again the next time."
)
@messenger_options
def read(wait: float, save: Path | None, keep_unread: bool, **who: Any) -> None:
    """Print the messages that wait for you, and mark them as read."""

    async def work(messenger: Messenger) -> None:
        collected = await collect(messenger, wait)
        for each in await messenger.unread():
            await _print_message(each, save)
            if not keep_unread:
                await each.mark_read()
        await look_people_up(messenger, wait)
        if collected:
            await deliver(messenger, wait)
        else:
            later = "no mailbox of yours answered in time: messages may wait there; run this again"
            print_note({"collected": False}, later)

    run(with_messenger(open_messenger(**who), work))


@message.command()
@click.argument("person")
@click.option(
    "-n", "--last", type=click.IntRange(min=1), metavar="COUNT", help="Print only this many, the newest."
)
@click.option(
    "--ids", is_flag=True, help="Show each message's id, by which it is answered, edited and deleted."
)
@save_option
@messenger_options
def history(person: str, last: int | None, ids: bool, save: Path | None, **who: Any) -> None:
    """Print the conversation with PERSON (a name, dtp1..., dtpa1...), a group or GROUP/ROOM, as far as this device
    has it.

    \b
    Examples:
      dtp message history bob --last 20
      dtp message history choir/sopranos --save scores
    """

    async def work(messenger: Messenger) -> None:
        for each in await messenger.history(person, last=last):
            await _print_message(each, save, ids=ids)

    run(with_messenger(open_messenger(**who), work))


@message.command()
@click.option("-c", "--count", type=click.IntRange(min=1), help="End after this many messages.")
@save_option
@click.option("--until-eof", is_flag=True, help="End when standard input ends.")
@node_option
@messenger_options
def watch(count: int | None, save: Path | None, until_eof: bool, **who: Any) -> None:
    """Print messages as they come, and mark them as read. Ctrl-C ends it."""
    serve_for_long()
    run(_watch(open_messenger(**who), count, save, until_eof))


async def _watch(
    opened: AbstractAsyncContextManager[Messenger], count: int | None, save: Path | None, until_eof: bool
) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if until_eof:
        when_stdin_ends(stop.set)
    async with with_warnings(opened) as messenger:
        printing = start_task(_print_messages(messenger, count, save), name="dtp-message-watch")
        stopping = start_task(stop.wait(), name="dtp-stop")
        try:
            await asyncio.wait((printing, stopping), return_when=asyncio.FIRST_COMPLETED)
            if printing.done():
                printing.result()
        finally:
            printing.cancel()
            stopping.cancel()
            await asyncio.gather(printing, stopping, return_exceptions=True)
        await deliver(messenger, WAIT)


async def _print_messages(messenger: Messenger, count: int | None, save: Path | None) -> None:
    left = count
    async for each in messenger:
        await _print_message(each, save)
        await each.mark_read()
        left = None if left is None else left - 1
        if left == 0:
            return


async def _print_message(each: Message, save: Path | None, *, ids: bool = False) -> None:
    files = await _save_files(each, save) if save else []
    group, room = each.group, each.room
    record = {
        "message": each.id.hex(),
        "sender": each.sender_name,
        "person": each.sender.card.person_name if each.sender else None,
        "stranger": each.sender.stranger if each.sender else not each.own,
        "wallet": each.wallet or None,
        "transaction": each.transaction or None,
        "told_by": each.teller_name or None,
        "group": group.name if group else None,
        "room": room.name if room else None,
        "text": each.text,
        "edited": each.edited,
        "deleted": each.deleted,
        "reply_to": each.reply_to.hex() if each.reply_to else None,
        "reactions": each.named_reactions,
        "sent_at": each.sent_at.isoformat(),
        "attachments": [one.name for one in each.attachments],
        "saved": files,
    }
    place = "/".join(each.name for each in (group, room) if each)
    where = f" in {escape_text(place)}" if place else ""
    names = "".join(
        f"\n  [{escape_text(one.name)}, {count_of(one.size, 'byte')}]" for one in each.attachments
    )
    names += "".join(
        f"\n  {escape_text(emoji, keep=JOINERS)} {escape_text(name)}"
        for name, emoji in each.named_reactions.items()
    )
    text = "(deleted)" if each.deleted else escape_text(each.text, keep=JOINERS)
    text += " (edited)" if each.edited and not each.deleted else ""
    by = "" if not each.wallet else f" ({_post_words(each)})"
    by += f" (as {escape_text(each.teller_name)} says)" if each.told_by else ""
    said = f"{escape_text(each.sender_label)}{by}{where}: {text}{names}"
    id_ = f"{each.id.hex()} " if ids else ""
    print_line(record, f"{id_}{each.sent_at:%Y-%m-%d %H:%M} {said}", keep=JOINERS)


async def _save_files(each: Message, folder: Path) -> list[str]:
    """Fetch a message's files, and return their paths. A file that can't be fetched is reported, and the rest is
    still read. Strangers' files aren't fetched: they could fill the disk."""
    make_folder(folder)
    found = []
    for one in each.attachments:
        if each.is_strangers:
            why = "it is a stranger's: answer or add them, and fetch it by 'dtp message history NAME --save FOLDER'"
            print_note({"attachment": one.name, "code": "stranger"}, f"{escape_text(one.name)}: {why}")
            continue
        try:
            found.append(str(await one.save(folder)))
        except (AttachmentTooLarge, AttachmentGone, AttachmentBroken, MessageError) as fault:
            print_note({"attachment": one.name, "code": fault.code}, escape_text(str(fault)))
    return found


def _warn_without_mailbox(card: ContactCard) -> None:
    if not card.mailboxes:
        said = "your card names no mailbox, so nobody can write to you: 'dtp message card --mailbox ADDRESS' sets one"
        print_note({"mailboxes": 0}, said)


def _post_words(each: Message) -> str:
    """Return what is known of the sender of a message through the chain."""
    whose = f"from {each.wallet}, which their card links" if each.sender else "no card links this account"
    return f"a post, {whose}; answer with 'dtp post answer', transaction {each.transaction}"


for _command in (*COMMANDS, *CHANGES, rent):
    message.add_command(_command)
