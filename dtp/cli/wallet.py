"""`dtp wallet`: accounts, what they have, sending it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dtp import config
from dtp.cli.accounts import (
    WalletOptions,
    account_options,
    executed_record,
    refuse_key,
    wallet_path,
    wallets_dir,
)
from dtp.cli.groups import CommandGroup
from dtp.cli.keys import _new_passphrase as new_passphrase
from dtp.cli.options import passphrase_file_option
from dtp.cli.output import json_option, print_result
from dtp.cli.run import run
from dtp.cli.show import table
from dtp.errors import LocalError
from dtp.identity.private import make_private_folder

_SCHEMES = ("ed25519", "secp256k1", "secp256r1")


@click.group("wallet", cls=CommandGroup)
def wallet() -> None:
    """Accounts on Sui: make and list them, ask what they have, send it.

    Your identity is an account too, and the one that is used when no other is named.
    """


@wallet.command()
@click.argument("name")
@click.option(
    "--scheme", type=click.Choice(_SCHEMES), default="ed25519", show_default=True, help="Kind of key."
)
@click.option("--import", "source", type=click.Path(path_type=Path, readable=False), metavar="FILE",
              callback=refuse_key,
              help="Take over the key in FILE, which begins with suiprivkey1.")  # fmt: skip
@click.option("--passphrase", "ask", is_flag=True, help="Encrypt it with a passphrase that is asked for.")
@passphrase_file_option
@json_option
def new(name: str, scheme: str, source: Path | None, ask: bool, passphrase_file: str | None) -> None:
    """Make an account, in a file of its own in the settings folder."""
    from dtp.chain.keystores import read_sui_key, save_key
    from dtp.chain.signer import KeySigner, Scheme

    path = wallet_path(name)
    signer = KeySigner.generate(Scheme[scheme.upper()]) if source is None else read_sui_key(source)
    passphrase = new_passphrase(ask, passphrase_file)
    make_private_folder(path.parent)
    save_key(signer, path, passphrase)
    print_result(
        {
            "name": name,
            "address": signer.address,
            "scheme": signer.scheme.name.lower(),
            "file": str(path),
            "encrypted": passphrase is not None,
        }
    )


@wallet.command("list")
@json_option
def list_wallets() -> None:
    """List the accounts here: your identity, wallets, and the keys of the Sui command line."""
    from dtp.chain.keystores import address_in, load_sui_keystore, sui_config_dir

    found: list[dict[str, Any]] = []
    identity = config.identity_path()
    files = [("(identity)", identity)] if identity.exists() else []
    for name, path in [*files, *((path.stem, path) for path in sorted(wallets_dir().glob("*.pem")))]:
        record: dict[str, Any] = {"name": name, "address": "", "file": str(path)}
        try:
            record["address"] = address_in(path)
        except LocalError as error:  # one bad file must not hide the others
            record["problem"] = str(error)
        found.append(record)
    keystore = sui_config_dir() / "sui.keystore"
    if keystore.exists():
        found += [
            {"name": f"sui:{address}", "address": address, "file": str(keystore)}
            for address in load_sui_keystore()
        ]
    lines = [f"{each['address'] or '(not said in its file)':<66}  {each['name']}" for each in found]
    lines += [f"{each['name']}: {each['problem']}" for each in found if "problem" in each]
    text = (
        "\n".join(lines) or "no accounts yet: 'dtp keygen' makes your identity, 'dtp wallet new NAME' another"
    )
    print_result({"wallets": found}, text)


@wallet.command()
@click.argument("address", required=False)
@account_options
def balance(address: str | None, account: WalletOptions) -> None:
    """Show what an account (default: the wallet's) has, in all coins."""
    from dtp.chain.model import SUI_COIN, canonical_id, format_amount

    who = canonical_id(address or account.read_address())
    found = account.run_connected(lambda chain: chain.balances(who), signing=False)
    record = {"address": who, "balances": {each.coin: each.total for each in found}}
    lines = [
        format_amount(each.total) if each.coin == SUI_COIN else f"{each.total} {each.coin}" for each in found
    ]
    print_result(record, "\n".join(lines) or format_amount(0))


@wallet.command()
@click.argument("address", required=False)
@account_options
def faucet(address: str | None, account: WalletOptions) -> None:
    """Ask the network's faucet to send SUI to an account (default: the wallet's)."""
    from dtp.chain.model import canonical_id, format_amount
    from dtp.chain.node.networks import find_network
    from dtp.chain.wallet import request_sui

    who = canonical_id(address or account.read_address())
    gift = run(request_sui(find_network(account.network), who))
    amount = sum(gift.amounts)
    print_result(
        {"address": who, "amount": amount, "transaction": gift.transaction},
        f"{who} got {format_amount(amount)}",
    )


@wallet.command()
@click.argument("recipient")
@click.argument("amount")
@click.option("--coin", metavar="TYPE", help="Another coin than SUI; then AMOUNT is in its smallest unit.")
@account_options
def send(recipient: str, amount: str, coin: str | None, account: WalletOptions) -> None:
    """Send AMOUNT (0.5SUI, 500000000MIST) to an address, `0x` and all its 64 digits."""
    from dtp.chain.model import SUI_COIN, format_amount, full_address
    from dtp.chain.wallet import parse_amount
    from dtp.chain.wallet import send as send_coin

    sent_in = coin or SUI_COIN
    to, sum_of = full_address(recipient), parse_amount(amount, sent_in)
    executed = account.run_connected(lambda chain: send_coin(chain, to, sum_of, sent_in))
    record = {"recipient": to, "amount": sum_of, **executed_record(executed)}
    sent = format_amount(sum_of) if coin is None else f"{sum_of} {coin}"
    print_result(record, table({**record, "amount": sent}))
