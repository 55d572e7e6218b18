"""`dtp account`: a person's account, its devices, its keys."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dtp import config
from dtp.cli.durations import duration
from dtp.cli.groups import CommandGroup
from dtp.cli.options import IdentitySource, identity_options
from dtp.cli.output import json_option, print_line, print_note, print_result
from dtp.errors import DtpError, LocalError
from dtp.replacing import replace_file

if TYPE_CHECKING:
    from dtp.graph import Graph
    from dtp.identity import Account, Card, Device, Identity

_CARD = ".card"
#: The most bytes that are read of a file with a card: more than any card has, as text for messages.
_MOST_READ = 65_536


class AccountFileError(LocalError):
    """An account's file is missing, or can't be read or written."""

    code = "account-file"


@click.group("account", cls=CommandGroup)
def account() -> None:
    """Your account: the devices that write for you.

    FILE holds the account's key (a PEM as 'dtp keygen' makes it); the newest card is beside it, in FILE.card. Devices
    need only the card: 'dtp graph account notes.db account.card'.
    """


def _default() -> str:
    return str(config.config_dir() / "account.pem")


account_file = click.option(
    "--key",
    "-k",
    "file",
    type=click.Path(dir_okay=False),
    default=_default,
    help="The account's key. [default: account.pem in DTP_HOME]",
)
_peer = click.argument("peer")


def card_path(file: str) -> Path:
    """Return the path of the newest card of the account whose key is in this file."""
    return Path(file).with_suffix(_CARD)


def read_card(path: str | os.PathLike[str]) -> Card:
    """Return the account's card in a file, which may be a card for messages that contains it. Raises
    `AccountFileError`, `CardError`, and `ContactCardError`."""
    from dtp.identity import Card

    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_READ)
    except FileNotFoundError:
        raise AccountFileError(
            f"there is no account's card at {path}; 'dtp account create' makes an account"
        ) from None
    except OSError as error:
        raise AccountFileError(f"{path} can't be read: {error.strerror}") from error
    return _card_of_contact(path, data) or Card.parse(data)


def _card_of_contact(path: str | os.PathLike[str], data: bytes) -> Card | None:
    """Return the account's card inside the text of a card for messages, such as friends have; None for any other
    text."""
    from dtp.messaging.cards.contact_card import TEXT_PREFIX, ContactCard

    if not data.startswith(TEXT_PREFIX.encode()):
        return None
    found = ContactCard.parse_text(data.decode(errors="replace")).account
    if found is None:
        raise AccountFileError(f"{path} is the card of a single identity, which has no account")
    return found


def load_account(file: str) -> Account:
    """Return the account whose key is in a file, with the card beside it. Raises `AccountFileError`, `CardError`, and
    what loading a key raises."""
    from dtp.identity import Account

    card = read_card(card_path(file))
    why = f"there is no account's key at {file}: it stays where 'dtp account create' was run"
    return Account(_load_key(file, why), card)


def load_recovery(file: str) -> Identity:
    """Return the recovery key in a file. Raises `AccountFileError`, and what loading a key raises."""
    where = "'dtp account create', or the last 'dtp account rotate', was told where to write it"
    return _load_key(file, f"there is no recovery key at {file}: {where}")


def _load_key(file: str, missing: str) -> Identity:
    from dtp.identity import IdentityFileMissing

    try:
        return IdentitySource(Path(file), None).load_identity()
    except IdentityFileMissing:
        raise AccountFileError(missing) from None


def save_account(file: str, account: Account) -> None:
    """Save the card beside the account's key: the newest card is needed to sign the next one."""
    path = card_path(file)
    try:
        replace_file(path, account.card.encode())
    except OSError as error:
        raise AccountFileError(f"{path} can't be written: {error.strerror}") from error


def _parse_devices(given: Iterable[str]) -> list[Device]:
    """Return the devices that are given as PEER=LABEL, or PEER alone. Raises `PeerIdError`."""
    from dtp.identity import Device, PeerId

    named = [each.partition("=") for each in given]
    return [Device(PeerId.parse(peer).key, label) for peer, _, label in named]


def device_record(peer: str, label: str) -> dict[str, Any]:
    """Return a device as a JSON object."""
    return {"peer": peer, "label": label}


def _show(card: Card) -> None:
    from dtp.identity import PeerId

    told = {"account": card.name, "generation": card.generation, "sequence": card.sequence}
    devices = [device_record(str(PeerId(one.key)), one.label) for one in card.devices]
    lines = [f"{name}: {value}" for name, value in told.items()]
    if card.expires_ms:
        lines.append(f"ends: {datetime.fromtimestamp(card.expires_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC")
    lines += [f"  {one['peer']}  {one['label']}" for one in devices]
    print_result(told | {"expires_ms": card.expires_ms, "devices": devices}, "\n".join(lines))


@account.command()
@account_file
@click.option(
    "--recovery", type=click.Path(dir_okay=False), required=True, help="Where to write the recovery key."
)
@click.argument("device", nargs=-1, metavar="[PEER=LABEL]...")
@json_option
def create(file: str, recovery: str, device: tuple[str, ...]) -> None:
    """Make an account with these devices: its key, its recovery key and its card.

    Take the recovery key away from this machine: only this key can give the account another key, when the present one
    is lost or stolen.

    \b
    Example:
      dtp account create --recovery /media/stick/recovery.pem "$(dtp id -q)=laptop"
    """
    from dtp.identity import Account, Identity

    devices = _parse_devices(device)
    key, other = Identity.generate(), Identity.generate()
    made = Account.create(key, other.id, devices)
    if card_path(file).exists():
        raise AccountFileError(f"{card_path(file)} is there already: the account it is of would be lost")
    other.save(recovery)
    key.save(file)
    save_account(file, made)
    print_note({"recovery": recovery}, f"the recovery key is in {recovery}: keep it elsewhere")
    _show(made.card)


@account.command()
@account_file
@click.argument("card", required=False, type=click.Path(dir_okay=False))
@json_option
def show(file: str, card: str | None) -> None:
    """Show your account's card, or the card in the file CARD."""
    _show(read_card(card or card_path(file)))


@account.command()
@account_file
@click.argument("device", metavar="PEER[=LABEL]")
@click.argument("label", default="")
@json_option
def add(file: str, device: str, label: str) -> None:
    """Add a device, or change the LABEL of one. Then give the device the card, or join graphs again with the new
    card."""
    from dtp.identity import PeerId

    (named,) = _parse_devices((device,))
    if label and named.label:
        raise click.UsageError(f"two labels for one device: {named.label!r} and {label!r}")
    changed = load_account(file).add(PeerId(named.key), label or named.label)
    save_account(file, changed)
    _show(changed.card)


@account.command()
@account_file
@_peer
@json_option
def remove(file: str, peer: str) -> None:
    """Remove a device that isn't lost and won't write any more.

    For a lost device use 'dtp account revoke', with all graphs.
    """
    from dtp.identity import PeerId

    changed = load_account(file).remove(PeerId.parse(peer))
    save_account(file, changed)
    _show(changed.card)


@account.command()
@account_file
@_peer
@click.argument("graphs", nargs=-1, required=True, metavar="GRAPH...", type=click.Path(dir_okay=False))
@identity_options("--identity", "-i")
@json_option
def revoke(file: str, peer: str, graphs: tuple[str, ...], identity: IdentitySource) -> None:
    """Remove a lost device from the account in all of these graphs: nothing that it writes from now on is accepted.

    Changes by the device that have already come to a graph stay there. If one graph refuses, the others are still
    changed.

    \b
    Example:
      dtp account revoke dtp1... notes.db photos.db
    """
    from dtp.cli.graph.opening import GraphOpener
    from dtp.identity import PeerId

    failed = False
    changed = load_account(file)
    if changed.card.names(PeerId.parse(peer).key):
        changed = changed.remove(PeerId.parse(peer))
        save_account(file, changed)

    async def work(graph: Graph) -> None:
        graph.accounts.end_device(changed, peer)

    for place in graphs:
        try:
            if "://" not in place and not os.path.exists(place):
                raise AccountFileError(f"there is no graph {place!r}")
            GraphOpener(place, None, identity).run_work(work, writing=True)
            print_line({"graph": place, "revoked": peer}, f"{place}: {peer} is put out")
        except DtpError as error:
            failed = True
            print_line({"graph": place, "error": error.code}, f"{place}: {error}")
    if failed:
        raise AccountFileError("some graphs don't know of it: see above, and do it again for those")


@account.command()
@account_file
@click.option("--days", type=duration(0.0001, unit="d"), help="How long the card holds. [default: for good]")
@json_option
def renew(file: str, days: float | None) -> None:
    """Sign the card again with a new expiry: devices can write until the card that they show expires.

    'dtp message card --account FILE' tells your contacts. When somebody's copy of your card has expired, your
    messages wait on their side until they have a newer one, and they can't write to you.
    """
    changed = load_account(file).renew(int((time.time() + days * 86_400) * 1000) if days else 0)
    save_account(file, changed)
    _show(changed.card)


@account.command()
@account_file
@click.option(
    "--card",
    type=click.Path(dir_okay=False),
    required=True,
    help="The newest card that there is: of the account, or the one for messages that friends have.",
)
@click.option("--recovery", type=click.Path(dir_okay=False), required=True, help="The recovery key's file.")
@click.option(
    "--next-recovery",
    type=click.Path(dir_okay=False),
    required=True,
    help="Where to write the next recovery key.",
)
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="PEER=LABEL",
    help="A device of the account from then on; repeatable.",
)
@json_option
def rotate(file: str, card: str, recovery: str, next_recovery: str, devices: tuple[str, ...]) -> None:
    """Give the account a new key, by its recovery key, when the present one is lost or stolen.

    Then tell each graph ('dtp graph account FILE --key ... --take-over') and your contacts ('dtp message card
    --account FILE').
    """
    from dtp.identity import Account, Identity

    newest = read_card(card)
    if card_path(file).exists() and not os.path.samefile(card_path(file), card):
        raise AccountFileError(f"{card_path(file)} is of another card: name another --key")
    key, other = Identity.generate(), Identity.generate()
    made = Account.rotate(newest, load_recovery(recovery), key, other.id, _parse_devices(devices))
    other.save(next_recovery)
    key.save(file)
    save_account(file, made)
    text = f"the next recovery key is in {next_recovery}; {recovery} is used up"
    print_note({"recovery": next_recovery}, text)
    _show(made.card)
