"""`dtp tip`: lines for tips, and rewards for one-time keys."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dtp.chain.model import format_amount, full_address
from dtp.cli.accounts import WalletOptions, account_options
from dtp.cli.groups import CommandGroup
from dtp.cli.options import IdentitySource, identity_options
from dtp.cli.output import json_option, print_note, print_result
from dtp.cli.posts import identity_option, load_identity
from dtp.cli.tip_lines import COMMANDS, known_tip, open_line, read_words, store_option, words_options
from dtp.identity import PeerId
from dtp.messaging.tips.errors import LineUnreached
from dtp.messaging.tips.line import TipLine
from dtp.messaging.tips.line_store import Tip

if TYPE_CHECKING:
    from dtp.chain import ChainClient

_DAY_MS = 86_400_000


@click.group(cls=CommandGroup)
def tip() -> None:
    """Tips that nobody can trace: lines that take them, words to come back with, rewards.

    A line is opened ('open'), written to ('send'), read and answered. A reward is locked to the tip's one-time key on
    the chain, and paid to the address that the key names, whoever submits that. Whoever gave a tip in another way
    makes a key ('dtp keygen -i tip.pem'), and tells its name ('dtp id -i tip.pem -q') with the tip."""


@tip.command()
@click.argument("key", metavar="DTP1...")
@click.argument("amount")
@click.option("--relay-fee", default="0", metavar="AMOUNT", help="What whoever submits the claim gets of it, so that "
              "somebody pays the gas for it. [default: nothing]")  # fmt: skip
@click.option("--days", type=click.IntRange(1, 700), default=90, show_default=True,
              help="After so many days what wasn't claimed can be had back.")  # fmt: skip
@click.option("--tell", metavar="TEXT", help="Write TEXT and the lock under the tip of this key, as the owner of the "
              "line that it was given to.")  # fmt: skip
@store_option
@identity_option
@account_options
def reward(
    key: str,
    amount: str,
    relay_fee: str,
    days: int,
    tell: str | None,
    store: str | None,
    identity: Path | None,
    account: WalletOptions,
) -> None:
    """Lock AMOUNT (such as 5SUI) to a one-time key, and print the lock to tell whoever has it."""
    from dtp.chain.wallet import parse_amount
    from dtp.messaging.tips.reward import lock_reward

    peer, most, fee = PeerId.parse(key), parse_amount(amount), parse_amount(relay_fee)
    deadline = int(time.time() * 1000) + days * _DAY_MS

    async def work(chain: ChainClient) -> dict[str, Any]:
        async with AsyncExitStack() as stack:
            told = None  # looked up first: a reward that can't be told of is not locked
            if tell is not None:
                line = open_line(load_identity(identity, account), store)
                told = await stack.enter_async_context(known_tip(line, peer))
            lock = await lock_reward(chain, peer, most, deadline_ms=deadline, relay_fee=fee)
            if told is not None and tell is not None:
                await _tell(*told, tell, lock)
        return {"lock": lock, "key": str(peer), "amount": most, "relay_fee": fee, "deadline_ms": deadline}

    record = account.run_connected(work)
    print_result(record, record["lock"])


async def _tell(line: TipLine, found: Tip, text: str, lock: str) -> None:
    try:
        await line.answer(found, text, lock=lock)
    except LineUnreached as fault:  # the reward is locked, and the answer is kept
        print_note({"told": False}, str(fault))


@tip.command()
@click.argument("lock")
@click.option("--to", "recipient", required=True, metavar="ADDRESS", help="The address that gets the reward, best "
              "one that nothing was paid to before.")  # fmt: skip
@words_options
@identity_options("--identity", "-i")
@json_option
def sign(
    lock: str, recipient: str, ask_words: bool, words_file: str | None, identity: IdentitySource
) -> None:
    """Name the address that gets a reward, by the tip's words or the key of -i, and print the claim. No network is
    used.

    Give the claim to anybody: 'dtp tip claim' of theirs submits it, and can have it paid to nobody else.
    """
    from dtp.messaging.tips.reward import Claim

    to, words = full_address(recipient), read_words(ask_words, words_file)
    claim = Claim.sign(identity.load_identity() if words is None else words.key, lock, to)
    print_result({"claim": claim.text, "lock": claim.lock, "recipient": claim.recipient}, claim.text)


@tip.command()
@click.argument("claim")
@account_options
def claim(claim: str, account: WalletOptions) -> None:
    """Submit a CLAIM, your own or another's: the address that it names is paid, and you the relay fee."""
    from dtp.messaging.tips.reward import Claim, claim_reward

    told = Claim.parse(claim)

    async def work(chain: ChainClient) -> dict[str, Any]:
        done = await claim_reward(chain, told)
        return {
            "lock": done.lock,
            "recipient": done.recipient,
            "amount": done.amount,
            "relay_fee": done.relay_fee,
        }

    record = account.run_connected(work)
    paid, fee = format_amount(record["amount"]), format_amount(record["relay_fee"])
    print_result(record, f"{paid} to {record['recipient']}, {fee} to you")


@tip.command()
@click.argument("lock")
@account_options
def refund(lock: str, account: WalletOptions) -> None:
    """Have a reward that nobody claimed paid back to whoever locked it, after its days."""
    from dtp.messaging.tips.reward import refund_reward

    async def work(chain: ChainClient) -> dict[str, Any]:
        await refund_reward(chain, lock)
        return {"lock": lock}

    account.run_connected(work)
    print_result({"lock": lock}, "paid back")


for _command in COMMANDS:
    tip.add_command(_command)
