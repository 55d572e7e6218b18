"""`dtp tip`: rewards for those who gave a tip, and are known by a one-time key alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from dtp.cli.accounts import Account, account_options
from dtp.cli.groups import Group
from dtp.cli.options import IdentitySource, identity_options
from dtp.cli.output import json_option, print_result

if TYPE_CHECKING:
    from dtp.chain import ChainClient

_DAY_MS = 86_400_000


@click.group(cls=Group)
def tip() -> None:
    """Rewards for those who gave a tip, and are known by a one-time key alone.

    Whoever gives one makes a key ('dtp keygen -i tip.pem') and tells its name ('dtp id -i tip.pem -q') with the tip.
    The reward is locked to it on the chain, and paid to the address that the key names, whoever submits that.
    """


@tip.command()
@click.argument("key", metavar="DTP1...")
@click.argument("amount")
@click.option("--relay-fee", default="0", metavar="AMOUNT", help="What whoever submits the claim gets of it, so that "
              "somebody pays the gas for it. [default: nothing]")  # fmt: skip
@click.option("--days", type=click.IntRange(1, 700), default=90, show_default=True,
              help="After so many days what wasn't claimed can be had back.")  # fmt: skip
@account_options
@json_option
def reward(key: str, amount: str, relay_fee: str, days: int, account: Account) -> None:
    """Lock AMOUNT (such as 5SUI) to a one-time key, and print the lock to tell whoever has it."""
    from dtp.chain.wallet import parse_amount
    from dtp.identity import PeerId
    from dtp.messaging.tips.reward import lock_reward

    peer, most, fee = PeerId.parse(key), parse_amount(amount), parse_amount(relay_fee)
    deadline = int(time.time() * 1000) + days * _DAY_MS

    async def work(chain: ChainClient) -> dict[str, Any]:
        lock = await lock_reward(chain, peer, most, deadline_ms=deadline, relay_fee=fee)
        return {"lock": lock, "key": str(peer), "amount": most, "relay_fee": fee, "deadline_ms": deadline}

    record = account.run(work)
    print_result(record, record["lock"])


@tip.command()
@click.argument("lock")
@click.option("--to", "recipient", required=True, metavar="ADDRESS", help="The address that gets the reward, best "
              "one that nothing was paid to before.")  # fmt: skip
@identity_options("--identity", "-i")
@json_option
def sign(lock: str, recipient: str, identity: IdentitySource) -> None:
    """Name the address that gets a reward, by the key of -i, and print the claim. No network is used.

    Give the claim to anybody: 'dtp tip claim' of theirs submits it, and can have it paid to nobody else.
    """
    from dtp.messaging.tips.reward import Claim

    claim = Claim.sign(identity.load(), lock, recipient)
    print_result({"claim": claim.text, "lock": claim.lock, "recipient": claim.recipient}, claim.text)


@tip.command()
@click.argument("claim")
@account_options
@json_option
def claim(claim: str, account: Account) -> None:
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

    record = account.run(work)
    print_result(record, f"{record['amount']} MIST to {record['recipient']}, {record['relay_fee']} to you")


@tip.command()
@click.argument("lock")
@account_options
@json_option
def refund(lock: str, account: Account) -> None:
    """Have a reward that nobody claimed paid back to who locked it, after its days."""
    from dtp.messaging.tips.reward import refund_reward

    async def work(chain: ChainClient) -> dict[str, Any]:
        await refund_reward(chain, lock)
        return {"lock": lock}

    account.run(work)
    print_result({"lock": lock}, "paid back")
