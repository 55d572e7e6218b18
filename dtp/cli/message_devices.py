"""`dtp message device|approve|join|revoke`: several devices of one person."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import click

from dtp.cli.account import save_account
from dtp.cli.durations import duration
from dtp.cli.messenger import (
    WAIT,
    deliver,
    messenger_options,
    open_messenger,
    publish_keys,
    read_card_text,
    show_qr,
    with_messenger,
)
from dtp.cli.options import IdentitySource
from dtp.cli.output import print_line, print_note, print_result
from dtp.cli.run import run
from dtp.identity import PeerId
from dtp.messaging.cards import ContactCard
from dtp.messaging.person.messenger import Messenger

_LATER: Final = "not all that waits is in mailboxes yet: the next command goes on telling your contacts"


@click.command()
@click.option("--qr", is_flag=True, help="Show this device as a QR code, to be approved by another one.")
@messenger_options
def device(qr: bool, **who: Any) -> None:
    """Print this device's name, for another device to approve, and the devices in your card.

    \b
    A new device in three steps:
      new device:  dtp message device --qr
      old device:  dtp message approve dtp1... --label phone --account account.pem -o phone.card
      new device:  dtp message join phone.card
    """
    me: IdentitySource = who["identity"]
    own = me.load_identity().id
    if qr:
        show_qr(str(own))

    async def work(messenger: Messenger) -> ContactCard:
        return messenger.card

    card = run(with_messenger(open_messenger(**who), work))
    named = card.account.devices if card.account else ()
    labels = {each.key: each.label for each in named} or {own.key: ""}
    for key in dict.fromkeys([own.key, *labels]):
        record = {
            "device": str(PeerId(key)),
            "label": labels.get(key, ""),
            "this": key == own.key,
            "approved": key in labels,
        }
        state = "" if key in labels else "not approved yet"
        words = (str(PeerId(key)), labels.get(key, ""), "this device" if key == own.key else "", state)
        print_line(record, "  ".join(filter(None, words)))


@click.command()
@click.argument("peer")
@click.option("--label", default="", metavar="NAME", help="Your name for the device.")
@click.option("--history", type=duration(unit="d"), default="0d", show_default=True,
              help="Give it what was said in the last days, and your contacts and groups.")  # fmt: skip
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="Write the card for it into a file.")
@click.option("--qr", is_flag=True, help="Show the card for it as a QR code.")
@messenger_options
def approve(peer: str, label: str, history: float, output: str | None, qr: bool, **who: Any) -> None:
    """Make PEER a device of yours: dtp1..., as 'dtp message device' prints it there. Needs --account FILE.

    Give PEER the card that this prints, for 'dtp message join'. Your contacts are told. History is sent once PEER has
    joined, with the next command here.
    """

    async def work(messenger: Messenger) -> tuple[ContactCard, bool]:
        since = timedelta(days=history) if history else None
        made = await messenger.approve_device(PeerId.parse(peer), label, history=since)
        # What it is given waits for its keys, which it publishes once it joins.
        return made, await _save_and_tell(messenger, who["account"], PeerId.parse(peer).key)

    made, told = run(with_messenger(open_messenger(**who), work))
    if output:
        Path(output).write_text(made.text + "\n")
    if qr:
        show_qr(made.text)
    if not told:
        print_note({"told": False}, _LATER)
    print_result(
        {"device": peer, "label": label, "card": made.text},
        f"the card for {peer} is in {output}: 'dtp message join' takes it there" if output else made.text,
    )


@click.command()
@click.argument("peer")
@messenger_options
def revoke(peer: str, **who: Any) -> None:
    """Remove the device PEER (dtp1...): nothing is sealed to it any more. Needs --account FILE.

    Your contacts are sent your new card now. Once they have it they send nothing to the device, and ignore what it
    sends.
    """

    async def work(messenger: Messenger) -> bool:
        await messenger.revoke_device(PeerId.parse(peer))
        return await _save_and_tell(messenger, who["account"])

    told = run(with_messenger(open_messenger(**who), work))
    if not told:
        print_note({"told": False}, _LATER)
    print_result({"revoked": peer}, f"{peer} is not a device of yours any more")


@click.command()
@click.argument("given", metavar="CARD")
@messenger_options
def join(given: str, **who: Any) -> None:
    """Make this a device of the person whose CARD this is: the text that 'dtp message approve' printed, or a file
    with it."""
    text = read_card_text(given)

    async def work(messenger: Messenger) -> ContactCard:
        await messenger.join(text)
        await publish_keys(messenger)
        return messenger.card

    card = run(with_messenger(open_messenger(**who), work))
    print_result(
        {"person": card.person_name, "name": card.name}, f"this is a device of {card.person_name} now"
    )


async def _save_and_tell(messenger: Messenger, file: str, besides: bytes = b"") -> bool:
    """Keep the account's card beside its key. Return whether mailboxes have what contacts are told."""
    assert messenger.account is not None
    save_account(file, messenger.account)
    return await deliver(messenger, WAIT, besides)


COMMANDS = (device, approve, join, revoke)
