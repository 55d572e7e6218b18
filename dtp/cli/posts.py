"""`dtp post`: messages to a host through the chain, without a connection: first contact, tips, answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dtp import config
from dtp.cli.accounts import WalletOptions, account_options, tell_history
from dtp.cli.groups import CommandGroup
from dtp.cli.options import IdentitySource, address_argument
from dtp.cli.output import print_line, print_result, wants_json
from dtp.errors import ConfigError
from dtp.identity import Identity
from dtp.net.address import Address

if TYPE_CHECKING:
    from dtp.chain import ChainClient
    from dtp.chain.pipes.posts import ReceivedPost

identity_option = click.option(
    "--identity",
    "-i",
    type=click.Path(path_type=Path, readable=False),
    metavar="FILE",
    help="The identity that messages are sealed to. [default: $DTP_IDENTITY, else identity.pem]",
)


@click.group("post", cls=CommandGroup)
def post() -> None:
    """Messages to a host through the chain: sealed, paid for, and answered the same way."""


async def read_fee(chain: ChainClient, host: str, service: str, text: str | None) -> int | None:
    """Return the value of `--fee` in the smallest unit of the service's coin: as many units as an amount of SUI has
    may be a fortune. Raise `ProgramError` for an amount of SUI if the service is paid in another coin."""
    from dtp.chain.host_state import read_host
    from dtp.chain.wallet import parse_amount

    if text is None:
        return None
    _, found = (await read_host(chain, host)).open_service(service)
    return parse_amount(text, found.terms.coin)


@post.command()
@click.argument("to", metavar="TO")
@click.argument("message")
@click.option(
    "--fee",
    metavar="AMOUNT",
    help="What the host's owner gets. [default: the service's least fee, if that is 0.01 SUI or less]",
)
@click.option("--wait", is_flag=True, help="Wait for an answer, and print it.")
@account_options
def send(to: str, message: str, fee: str | None, wait: bool, account: WalletOptions) -> None:
    """Send MESSAGE ('-': standard input) to an account, dtpa1..., in whose inbox it is then, or to the service of a
    host, dtp://0x<host object>/<service>.

    Only the account's devices, or the host's endpoints, can read it; that it was sent, by whom and for how much,
    everybody sees.
    """
    address = None if to.startswith("dtpa1") else Address.parse(to)
    data = sys.stdin.buffer.read() if message == "-" else message.encode()

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain.pipes.posts import answers, send_post

        if address is None:
            place = await _find_place(chain, to)
        else:
            place = (_host(address), address.service, ())
        paid = await read_fee(chain, place[0], place[1], fee)
        sent = await send_post(chain, place[0], place[1], data, fee=paid, recipients=place[2])
        record = {"transaction": sent.transaction, "host": sent.host, "service": sent.service}
        if wait:
            async for answer in answers(chain, sent):
                return {**record, "answer": answer.data.decode(errors="replace")}
        return record

    record = account.run_connected(work)
    print_result(record, None if wants_json() or "answer" not in record else record["answer"])


@post.command()
@address_argument
@click.option("--follow", is_flag=True, help="Go on with new messages until interrupted.")
@identity_option
@account_options
def read(address: Address, follow: bool, identity: Path | None, account: WalletOptions) -> None:
    """Show messages to a host that are sealed to our identity: those there were, or with --follow those to come."""
    me = load_identity(identity, account)

    async def work(chain: ChainClient) -> None:
        from dtp.chain.pipes.posts import read_posts

        if not follow:
            await tell_history(chain)
        none = True
        async for found in read_posts(chain, _host(address), me, follow=follow):
            _print(found)
            none = False
        if none and not wants_json():
            print_line({}, f"no message to {_host(address)} is sealed to this identity", err=True)

    account.run_connected(work, signing=False)


@post.command()
@address_argument
@click.argument("transaction")
@click.argument("message")
@identity_option
@account_options
def answer(
    address: Address, transaction: str, message: str, identity: Path | None, account: WalletOptions
) -> None:
    """Answer the message of TRANSACTION with MESSAGE ('-': standard input), as the host's owner."""
    me = load_identity(identity, account)
    data = sys.stdin.buffer.read() if message == "-" else message.encode()

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain.pipes.posts import read_post, send_answer

        found = await read_post(chain, _host(address), me, transaction)
        if found is None:
            raise ConfigError(
                f"no message to {_host(address)} of transaction {transaction} is sealed to this identity"
            )
        return {"transaction": await send_answer(chain, found, data), "answers": transaction}

    print_result(account.run_connected(work))


async def _find_place(chain: ChainClient, account: str) -> tuple[str, str, tuple[bytes, ...]]:
    """Return the host and service at which an account takes messages, and the keys of its devices there."""
    from dtp.identity.card import parse_account
    from dtp.messaging.person.posts import POST_SERVICE, find_post_place

    place = await find_post_place(chain, parse_account(account))
    return place.host, POST_SERVICE, place.recipients


def _host(address: Address) -> str:
    if address.host_object is None:
        raise ConfigError(f"{address} is not a host on chain; write dtp://0x<host object>/<service>")
    return address.host_object


def load_identity(path: Path | None, account: WalletOptions) -> Identity:
    """Return the identity of `identity_option`, whose passphrase is where the wallet's is."""
    return IdentitySource(path or config.identity_path(), account.passphrase_file).load_identity()


def _print(found: ReceivedPost) -> None:
    text = found.data.decode(errors="replace")
    record = {
        "event": "message",
        "sender": found.sender,
        "service": found.service,
        "fee": found.fee,
        "transaction": found.transaction,
        "data": found.data.hex(),
        "text": text,
    }
    print_line(
        record, f"{found.transaction}  {found.sender}  service {found.service}  fee {found.fee}  {text}"
    )
