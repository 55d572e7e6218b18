"""Options of commands that pay for a service, and what they say about it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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
    from dtp.pay.buying import Purchase
    from dtp.pay.client_meter import ClientMeter
    from dtp.pay.dial import PaidConnecting
    from dtp.pay.metered import Metered
    from dtp.pay.settling import Paid
    from dtp.pay.store import Bought
    from dtp.pay.terms import Usage

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Payment:
    """The options of who pays. Without a budget nothing of the chain is loaded, and nothing can be spent.

    The budget is that of all connections together.
    """

    budget: str | None
    deposit: str | None
    coin: str | None
    keep: bool
    account: Account
    slack: str | None = None
    when_answered: bool = False
    _used: list[Connection] = field(default_factory=list)

    def connect(
        self, address: Address, *, identity: Identity, psk: bytes | None
    ) -> Connecting | PaidConnecting:
        """Dial, and pay where a budget was given."""
        if self.budget is None:
            return connect(address, identity=identity, psk=psk)
        from dtp.chain.model import SUI_COIN
        from dtp.chain.wallet import parse_amount
        from dtp.pay.dial import connect as connect_and_pay
        from dtp.pay.terms import Spending

        paid_in = self.coin or SUI_COIN
        slack = None if self.slack is None else parse_amount(self.slack, paid_in)
        spent = sum(bill.amount for bill in self._bills())
        return connect_and_pay(
            address,
            identity=identity,
            psk=psk,
            wallet=self.account.signer(),
            budget=parse_amount(self.budget, paid_in) - spent,
            deposit=self.deposit,
            coin=self.coin,
            keep=self.keep,
            spending=Spending(slack_amount=slack, when_answered=self.when_answered),
            network=self.account.network or address.options.get("network"),
        )

    def keep_for_another(self, connection: Connection) -> None:
        """Leave its channel open for the next connection, which would put as much again into another one while this
        one's money waits for the server's time to claim."""
        bought = None if self.budget is None else _bought(connection)
        if bought is not None:
            _, _, deal = bought
            deal.keep = True

    @contextlib.contextmanager
    def accounted(self) -> Iterator[list[Connection]]:
        """Say at the end, however it comes, what the connections in the list cost and where the other money is."""
        if self.budget is None:
            yield self._used
            return
        from dtp.pay.store import Store

        with Store(power_safe=False) as store:
            before = {each.channel for each in store.bought()}
            try:
                yield self._used
            finally:
                bills = self._bills()
                for bill in bills:
                    bill.show()
                ours = {bill.channel for bill in bills}
                for each in store.bought():
                    if each.state != "closed" and (each.channel in ours or each.channel not in before):
                        self._tell_open(each)

    def _bills(self) -> list[_Bill]:
        return [bill for each in self._used if (bill := _Bill.of(each)) is not None]

    def _tell_open(self, channel: Bought) -> None:
        """Say that a channel holds money of ours, and what brings it back."""
        how = f"'dtp channel close {channel.channel}' brings back what is left"
        if channel.state == "closing":
            words = f"is closing: when the server's time for claims is over, {how}"
        elif channel.state == "refused":
            words = f"isn't taken by the server any more: {how}"
        elif self.keep:
            words = f"stays open for the next time; {how}"
        else:
            words = f"is open: the next connection uses it where the server lets it; else {how}"
        print_line(
            {"event": "channel", "channel": channel.channel, "state": channel.state},
            f"channel {channel.channel} {words}",
            err=True,
        )


def _bought(connection: Connection) -> tuple[Metered, ClientMeter, Purchase] | None:
    """The connection, its meter and what it is paid by, if it is."""
    from dtp.pay.buying import Purchase
    from dtp.pay.client_meter import ClientMeter
    from dtp.pay.metered import Metered

    if not isinstance(connection, Metered) or not isinstance(connection.meter, ClientMeter):
        return None
    deal = connection.meter.deal
    assert isinstance(deal, Purchase)
    return connection, connection.meter, deal


@dataclass(frozen=True)
class _Bill:
    """What a connection cost."""

    channel: str
    coin: str
    amount: int
    used: Usage
    deposited: int
    closed: Paid | None

    @classmethod
    def of(cls, connection: Connection) -> _Bill | None:
        """The bill of a connection that was metered."""
        bought = _bought(connection)
        if bought is None:
            return None
        metered, meter, deal = bought
        # The lane may have had connections before, by other runs.
        amount = max(0, metered.paid - deal.start)
        used = metered.usage.beyond(meter.payer.lane.used)
        return cls(deal.channel.id, deal.channel.coin, amount, used, deal.channel.deposited, deal.closed)

    def show(self) -> None:
        """Print it."""
        from dtp.cli.show import amount, money

        used, closed, coin = self.used, self.closed, self.coin
        print_line(
            {
                "event": "paid",
                "amount": self.amount,
                "coin": coin,
                "requests": used.requests,
                "bytes": used.bytes,
            },
            f"paid {money(self.amount, coin)} for {used.requests:,} request{'s' if used.requests != 1 else ''} and "
            f"{used.bytes:,} bytes",
            err=True,
        )
        if closed is not None:
            print_line(
                {
                    "event": "settled",
                    "channel": self.channel,
                    "to_server": self.deposited - closed.to_client,
                    "to_client": closed.to_client,
                    "coin": coin,
                    "gas_mist": closed.gas,
                },
                f"channel closed: {money(self.deposited - closed.to_client, coin)} to the server in all, "
                f"{money(closed.to_client, coin)} back to you, gas {amount(closed.gas)}",
                err=True,
            )


def payment_options(command: _Function) -> _Function:
    """Add `--budget`, `--deposit`, `--coin`, `--keep-channel`, `--slack`, `--when-answered`, `--network`, `--wallet`;
    the command gets `payment: Payment`."""

    @functools.wraps(command)
    def with_payment(
        *args: Any,
        budget: str | None,
        deposit: str | None,
        coin: str | None,
        keep_channel: bool,
        slack: str | None,
        when_answered: bool,
        network: str | None,
        wallet: str | None,
        **options: Any,
    ) -> Any:
        about = (deposit is not None, coin is not None, keep_channel, slack is not None, when_answered)
        if budget is None and any(about):
            raise click.UsageError(
                "--deposit, --coin, --keep-channel, --slack and --when-answered are about a --budget"
            )
        account = Account(network, wallet, None)
        payment = Payment(budget, deposit, coin, keep_channel, account, slack, when_answered)
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
        click.option("--when-answered", is_flag=True,
                     help="Pay a request when its answer begins, and not when it is made."),
        click.option("--slack", metavar="AMOUNT",
                     help="Pay for what the server counts, and never came here, on connections that broke off: at "
                     "most so much in all on a channel's lane. [default: a voucher's step, at most 0.00075SUI]"),
        click.option("--coin", metavar="TYPE",
                     help="The coin that the service is paid in, if not SUI; amounts are in its smallest unit."),
        click.option("--deposit", metavar="AMOUNT",
                     help="Put so much into the channel at first; more follows as needed. [default: the budget]"),
        click.option("--budget", metavar="AMOUNT",
                     help="Pay for the service, at most so much (0.5SUI, 500000000MIST; 0 under a pass)."),
    ):  # fmt: skip
        decorated = option(decorated)
    result: _Function = decorated
    return result
