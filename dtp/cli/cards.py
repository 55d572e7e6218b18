"""`dtp card`: your account on the chain, where everybody finds its devices, mailboxes and wallets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from dtp.cli.account import account_file, card_path, load_account, load_recovery, read_card
from dtp.cli.accounts import WalletOptions, account_options, executed_record
from dtp.cli.durations import duration
from dtp.cli.groups import CommandGroup
from dtp.cli.host_caps import print_record
from dtp.errors import LocalError
from dtp.identity import PeerId

if TYPE_CHECKING:
    from dtp.chain import ChainClient, Program
    from dtp.chain.card import PublishedCard
    from dtp.identity import Card


class NoCard(LocalError):
    """The account, or wallet, has no card on this chain."""

    code = "no-card"


class CardDiverged(LocalError):
    """The card on the chain and the one here have different keys, neither of which follows from the other."""

    code = "card-diverged"


@click.group("card", cls=CommandGroup)
def card() -> None:
    """Your account on the chain: devices, mailboxes and wallets that everybody can look up and check.

    The account is that of 'dtp account', in --key FILE with its card beside it. The wallet (--wallet) only pays.
    """


@card.command()
@account_file
@click.option(
    "--mailbox", "mailboxes", multiple=True, metavar="ADDRESS", help="Where you get messages; repeatable."
)
@click.option("--days", type=duration(0.0001, unit="d"), help="How long the card holds. [default: for good]")
@account_options
def publish(file: str, mailboxes: tuple[str, ...], days: float | None, account: WalletOptions) -> None:
    """Publish your account's devices and mailboxes, for the first time or again.

    That replaces what was published before, and includes rotations of the account's key.
    """
    ours = load_account(file)
    expires_ms = int((time.time() + days * 86_400) * 1000) if days else 0

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import Program
        from dtp.chain import card as module

        directory = await module.find_directory(chain)
        devices = tuple(module.PublishedDevice(each.key, each.label.encode()) for each in ours.card.devices)
        boxes = tuple(each.encode() for each in mailboxes)
        contents = module.CardContents(devices=devices, mailboxes=boxes, expires_ms=expires_ms)
        found = await module.find_card(chain, directory, ours.card.account)
        sequence = 1 if found is None else found.sequence + 1
        said = module.Statement(directory, ours.card.account, ours.card.generation, sequence, contents)
        signature = ours.identity.sign(module.statement_bytes(said))
        program = Program()
        if found is None:
            first = (ours.card.first_key, ours.card.first_recovery)
            module.publish(program, directory, first, ours.card.rotations, contents, signature)
        else:
            _catch_up(program, found, ours.card)
            module.update(program, found.id, contents, signature)
        executed = await chain.execute(program)
        return _record(await _own_card(chain, directory, ours.card)) | executed_record(executed)

    print_record(account.run_connected(work))


@card.command()
@click.argument("name", metavar="ACCOUNT|WALLET", required=False)
@account_file
@account_options
def show(name: str | None, file: str, account: WalletOptions) -> None:
    """Show the card of an account (dtpa1...) or of a wallet (0x...), or your own, and check its signatures."""
    from dtp.chain.model import canonical_id
    from dtp.identity.card import parse_account

    wallet = canonical_id(name) if name and name.startswith("0x") else None
    wanted = b"" if wallet else parse_account(name) if name else read_card(card_path(file)).account

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import card as module

        directory = await module.find_directory(chain)
        if wallet:
            found = await module.find_card_of_wallet(chain, directory, wallet)
        else:
            found = await module.find_card(chain, directory, wanted)
        if found is None:
            raise NoCard(
                f"{name or 'your account'} has no card on this chain: 'dtp card publish' makes yours"
            )
        return _record(found)

    print_record(account.run_connected(work, signing=False))


@card.command("link-wallet")
@account_file
@account_options
def link_wallet(file: str, account: WalletOptions) -> None:
    """Link the wallet (--wallet) to your account: payments by this wallet are known as your account's then."""
    ours = load_account(file)

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import Program
        from dtp.chain import card as module

        directory = await module.find_directory(chain)
        found = await _own_card(chain, directory, ours.card)
        statement = found.next_wallet_statement(chain.address, True)
        program = Program()
        signature = ours.identity.sign(module.wallet_bytes(statement))
        module.link_wallet(program, directory, found.id, signature)
        executed = await chain.execute(program)
        return _record(await _own_card(chain, directory, ours.card)) | executed_record(executed)

    print_record(account.run_connected(work))


@card.command("unlink-wallet")
@click.argument("address", required=False)
@account_file
@account_options
def unlink_wallet(address: str | None, file: str, account: WalletOptions) -> None:
    """Unlink the wallet (--wallet) from the account that it is linked to; or ADDRESS, which is lost, from yours."""
    ours = load_account(file) if address else None

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import Program
        from dtp.chain import card as module

        directory = await module.find_directory(chain)
        program = Program()
        if address and ours:
            found = await _own_card(chain, directory, ours.card)
            statement = found.next_wallet_statement(address, False)
            signature = ours.identity.sign(module.wallet_bytes(statement))
            module.unlink_lost_wallet(program, directory, found.id, address, signature)
        else:
            linked = await module.find_card_of_wallet(chain, directory, chain.address)
            if linked is None:
                raise NoCard(f"{chain.address} isn't linked to an account: name the wallet with --wallet")
            found = linked
            module.unlink_wallet(program, directory, found.id)
        executed = await chain.execute(program)
        left = await module.find_card(chain, directory, found.account)
        return _record(left or found) | executed_record(executed)

    print_record(account.run_connected(work))


@card.command()
@click.option(
    "--card",
    "path",
    type=click.Path(dir_okay=False, exists=True),
    help="The card's file. [default: that of your own]",
)
@account_file
@account_options
def rotate(path: str | None, file: str, account: WalletOptions) -> None:
    """Publish the new key that 'dtp account rotate' gave an account. Its old key counts no more then.

    Anybody who has the card may do that. Nothing happens if the chain already knows the key. Devices and mailboxes
    have to be published again with 'dtp card publish'.
    """
    newest = read_card(path or card_path(file))

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import Program
        from dtp.chain import card as module

        directory = await module.find_directory(chain)
        found = await _own_card(chain, directory, newest)
        program = Program()
        if not _catch_up(program, found, newest):
            return _record(found)
        executed = await chain.execute(program)
        return _record(await _own_card(chain, directory, newest)) | executed_record(executed)

    print_record(account.run_connected(work))


@card.command()
@click.option("--recovery", type=click.Path(dir_okay=False), required=True, help="The recovery key's file.")
@account_file
@click.confirmation_option(prompt="The account is over for good then. Go on?")
@account_options
def revoke(recovery: str, file: str, account: WalletOptions) -> None:
    """End your account on the chain, for good: its card counts no more."""
    ours, key = read_card(card_path(file)), load_recovery(recovery)

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import Program
        from dtp.chain import card as module

        directory = await module.find_directory(chain)
        found = await _own_card(chain, directory, ours)
        end = module.EndStatement(directory, found.account, found.generation)
        program = Program()
        module.revoke(program, found.id, key.sign(module.end_bytes(end)))
        executed = await chain.execute(program)
        return _record(await _own_card(chain, directory, ours)) | executed_record(executed)

    print_record(account.run_connected(work))


async def _own_card(chain: ChainClient, directory: str, ours: Card) -> PublishedCard:
    from dtp.chain import card as module

    found = await module.find_card(chain, directory, ours.account)
    if found is None:
        raise NoCard(f"{ours.name} has no card on this chain: 'dtp card publish' makes one")
    return found


def _catch_up(program: Program, found: PublishedCard, newest: Card) -> bool:
    """Publish the rotations that the chain doesn't have yet. Return True if there were any. Raise `CardDiverged`."""
    from dtp.chain import card as module

    known, ours = [each.key for each in found.rotations], newest.rotations
    if [each.key for each in ours[: len(known)]] != known:
        raise CardDiverged(
            f"{newest.name} has another key on the chain than in this card: somebody else has rotated it with the "
            "recovery key, or the card is an old one; take the newest card"
        )
    missing = ours[len(known) :]
    for each in missing:
        module.rotate(program, found.id, each)
    return bool(missing)


def _record(found: PublishedCard) -> dict[str, Any]:
    from dtp.identity.card import account_name

    says = found.contents
    return {
        "account": account_name(found.account),
        "card": found.id,
        "generation": found.generation,
        "sequence": found.sequence,
        "says": "nothing: ended for good" if found.revoked else "signed" if found.signature else "nothing",
        "devices": [
            {"peer": str(PeerId(each.key)), "label": each.label.decode(errors="replace")}
            for each in says.devices
        ],
        "mailboxes": [each.decode(errors="replace") for each in says.mailboxes],
        "wallets": list(found.wallets),
        "expires_ms": says.expires_ms,
    }
