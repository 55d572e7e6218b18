"""Options of commands that pay for a service, and what they say about it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dtp.cli.accounts import Account
from dtp.cli.output import print_line
from dtp.net.dial import connect

if TYPE_CHECKING:
    from dtp.identity import Identity
    from dtp.net.address import Address
    from dtp.net.connection import Connection
    from dtp.net.dial import Connecting
    from dtp.pay.dial import PaidConnecting

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Payment:
    """The options of who pays. Without a budget nothing of the chain is loaded, and nothing can be spent."""

    budget: str | None
    deposit: str | None
    keep: bool
    account: Account

    def connect(
        self, address: Address, *, identity: Identity, psk: bytes | None
    ) -> Connecting | PaidConnecting:
        """Dial, and pay where a budget was given."""
        if self.budget is None:
            return connect(address, identity=identity, psk=psk)
        from dtp.pay.dial import connect as connect_and_pay

        return connect_and_pay(
            address,
            identity=identity,
            psk=psk,
            wallet=self.account.signer(),
            budget=self.budget,
            deposit=self.deposit,
            keep=self.keep,
            network=self.account.network or address.options.get("network"),
        )

    def report(self, connection: Connection) -> None:
        """Say what it cost, once it is over."""
        from dtp.chain.wallet import format_amount
        from dtp.pay.metered import Metered

        if isinstance(connection, Metered) and connection.meter is not None:
            used = connection.usage
            print_line(
                {"event": "paid", "amount": connection.paid, "requests": used.requests, "bytes": used.bytes},
                f"paid {format_amount(connection.paid)} for {used.requests:,} requests and {used.bytes:,} bytes",
                err=True,
            )


def payment_options(command: _Function) -> _Function:
    """Add `--budget`, `--deposit`, `--keep-channel`, `--network`, `--wallet`; the command gets `payment: Payment`."""

    @functools.wraps(command)
    def with_payment(
        *args: Any,
        budget: str | None,
        deposit: str | None,
        keep_channel: bool,
        network: str | None,
        wallet: str | None,
        **options: Any,
    ) -> Any:
        if budget is None and (deposit is not None or keep_channel):
            raise click.UsageError("--deposit and --keep-channel are about a --budget")
        payment = Payment(budget, deposit, keep_channel, Account(network, wallet, None))
        return command(*args, payment=payment, **options)

    decorated: Any = with_payment
    for option in (
        click.option("--wallet", envvar="DTP_WALLET", metavar="WALLET",
                     help="Who pays: a name of 'dtp wallet new', a key file, or sui[:ADDRESS]. "
                     "[default: $DTP_WALLET, else your identity]"),
        click.option("--network", envvar="DTP_NETWORK", metavar="NETWORK",
                     help="Where it is paid: localnet, testnet, mainnet or the URL of a node. "
                     "[default: $DTP_NETWORK, else localnet]"),
        click.option("--keep-channel", is_flag=True, help="Leave the payment channel open for the next time."),
        click.option("--deposit", metavar="AMOUNT",
                     help="Put so much into the channel at first; more follows as needed. [default: the budget]"),
        click.option("--budget", metavar="AMOUNT",
                     help="Pay for the service, at most so much (0.5SUI, 500000000MIST; 0 under a pass)."),
    ):  # fmt: skip
        decorated = option(decorated)
    result: _Function = decorated
    return result
